"""minicnnrnn: Keras-like Sequential CNNs and RNNs on Numba kernels that you can read.

>>> import numpy as np
>>> from minicnnrnn import Sequential, layers
>>> model = Sequential([layers.Dense(3, activation="softmax")], seed=1)
>>> model.fit(np.eye(3), [0, 1, 2], epochs=2, verbose=0).epoch
[0, 1]
"""

from typing import TYPE_CHECKING, Any

from minicnnrnn import (
    applications,
    callbacks,
    constraints,
    datasets,
    initializers,
    layers,
    left_out,
    losses,
    metrics,
    optimizers,
    regularizers,
    saving,
    utils,
)
from minicnnrnn.device import get_device, set_device
from minicnnrnn.layers import Input
from minicnnrnn.saving import load_model
from minicnnrnn.sequential import Sequential

__version__ = "0.1.0"

__all__ = [
    "Input",
    "Sequential",
    "applications",
    "callbacks",
    "constraints",
    "datasets",
    "get_device",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "optimizers",
    "regularizers",
    "saving",
    "set_device",
    "utils",
]

if not TYPE_CHECKING:  # a type checker is to complain about names that do not exist

    def __getattr__(name: str) -> Any:
        """Names that are left out, which raise when they are called."""
        if name in left_out.MODELS:
            return left_out.stand_in(name, left_out.MODELS[name])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
