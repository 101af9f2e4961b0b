"""MNIST: handwritten digits as grey images of 28 by 28 pixels.

Yann LeCun, Corinna Cortes and Christopher J.C. Burges made it from data of NIST. It is licensed
under CC BY-SA 3.0; ``datasets/mnist/README.md`` tells where it comes from.
"""

import numpy as np
from numpy.typing import NDArray

from minicnnrnn.datasets import idx

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def load_data(full: bool = False) -> tuple[Part, Part]:
    """Load the digits.

    Parameters
    ----------
    full : bool
        Fetch all 70,000 images from OpenML through scikit-learn, which downloads them once into
        its own cache. Otherwise the first 10,000 images for training and all for testing come
        with this package.

    Returns
    -------
    (x_train, y_train), (x_test, y_test)
        Images, uint8 (N, 28, 28) from 0 (paper) to 255 (ink), and digits, uint8 (N,).

    Examples
    --------
    >>> (x_train, y_train), (x_test, y_test) = load_data()
    >>> x_train.shape, y_test.shape, y_train[:5]
    ((10000, 28, 28), (10000,), array([5, 0, 4, 1, 9], dtype=uint8))
    """
    if full:
        return _load_openml()
    return (
        (
            idx.read("mnist/train-images-idx3-ubyte.gz"),
            idx.read("mnist/train-labels-idx1-ubyte.gz"),
        ),
        (idx.read("mnist/t10k-images-idx3-ubyte.gz"), idx.read("mnist/t10k-labels-idx1-ubyte.gz")),
    )


def _load_openml() -> tuple[Part, Part]:
    from sklearn.datasets import fetch_openml

    pixels, digits = fetch_openml("mnist_784", version=1, as_frame=False, return_X_y=True)
    x = np.ascontiguousarray(pixels, np.uint8).reshape(-1, 28, 28)
    y = digits.astype(np.uint8)
    return (x[:60_000], y[:60_000]), (x[60_000:], y[60_000:])
