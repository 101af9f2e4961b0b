"""Fashion-MNIST: articles of clothing as grey images of 28 by 28 pixels.

Han Xiao, Kashif Rasul and Roland Vollgraf made it from the catalogue of Zalando SE. It is under
the MIT licence; ``datasets/fashion_mnist/README.md`` tells where it comes from.
"""

import numpy as np
from numpy.typing import NDArray

from minicnnrnn.datasets import idx

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]

class_names = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]


def load_data() -> tuple[Part, Part]:
    """Load the articles: the first 10,000 images for training, and all for testing.

    Returns
    -------
    (x_train, y_train), (x_test, y_test)
        Images, uint8 (N, 28, 28) from 0 (background) to 255, and labels, uint8 (N,), which are
        positions in ``class_names``.

    Examples
    --------
    >>> (x_train, y_train), (x_test, y_test) = load_data()
    >>> x_train.shape, x_test.shape, class_names[y_train[0]]
    ((10000, 28, 28), (10000, 28, 28), 'Ankle boot')
    """
    return (
        (
            idx.read("fashion_mnist/train-images-idx3-ubyte.gz"),
            idx.read("fashion_mnist/train-labels-idx1-ubyte.gz"),
        ),
        (
            idx.read("fashion_mnist/t10k-images-idx3-ubyte.gz"),
            idx.read("fashion_mnist/t10k-labels-idx1-ubyte.gz"),
        ),
    )
