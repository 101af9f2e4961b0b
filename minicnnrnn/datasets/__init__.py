"""Small real data sets; each module has a ``load_data``."""

from minicnnrnn.datasets import digits, mnist

__all__ = ["digits", "mnist"]
