"""Digits: handwritten digits of 8 by 8 pixels that come with scikit-learn.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998.
"""

import numpy as np
from numpy.typing import NDArray

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]

TEST_SAMPLES = 360


def load_data() -> tuple[Part, Part]:
    """Load the digits; the last 360 of the 1,797 images are the test set.

    Returns
    -------
    (x_train, y_train), (x_test, y_test)
        Images, uint8 (N, 8, 8) from 0 (paper) to 16 (ink), and digits, uint8 (N,).

    Examples
    --------
    >>> (x_train, y_train), (x_test, y_test) = load_data()
    >>> x_train.shape, x_test.shape, y_train[:5]
    ((1437, 8, 8), (360, 8, 8), array([0, 1, 2, 3, 4], dtype=uint8))
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = bunch.images.astype(np.uint8), bunch.target.astype(np.uint8)
    return (x[:-TEST_SAMPLES], y[:-TEST_SAMPLES]), (x[-TEST_SAMPLES:], y[-TEST_SAMPLES:])
