"""Small real data sets; each module has a ``load_data``."""

from minicnnrnn.datasets import digits, fashion_mnist, mnist

__all__ = ["digits", "fashion_mnist", "mnist"]
