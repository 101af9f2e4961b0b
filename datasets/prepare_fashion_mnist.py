"""Make the files in ``fashion_mnist/`` from the four IDX files of Fashion-MNIST.

They are part of the Debian package dataset-fashion-mnist, in /usr/share/datasets/fashion-mnist::

    python datasets/prepare_fashion_mnist.py /usr/share/datasets/fashion-mnist
"""

import sys
from pathlib import Path

from prepare_mnist import SAMPLES, prepare

SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(__file__).parent / "fashion_mnist", SHA256, SAMPLES)
