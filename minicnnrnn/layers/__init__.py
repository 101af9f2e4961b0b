"""Layers, under Keras' names."""

from typing import TYPE_CHECKING, Any

from minicnnrnn import left_out
from minicnnrnn.layers.activation import Activation
from minicnnrnn.layers.base import Layer
from minicnnrnn.layers.composite import Branches, Residual
from minicnnrnn.layers.conv import Conv1D, Conv2D, Conv3D
from minicnnrnn.layers.core import Dense, Dropout, Flatten, Input, InputLayer, Reshape
from minicnnrnn.layers.normalization import (
    BatchNormalization,
    GroupNormalization,
    LayerNormalization,
)
from minicnnrnn.layers.pool import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GlobalMaxPooling3D,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
)
from minicnnrnn.layers.preprocessing import (
    Normalization,
    RandomFlip,
    RandomTranslation,
    Rescaling,
)
from minicnnrnn.layers.recurrent import GRU, LSTM, SimpleRNN

__all__ = [
    "GRU",
    "LSTM",
    "Activation",
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "BatchNormalization",
    "Branches",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "GroupNormalization",
    "Input",
    "InputLayer",
    "Layer",
    "LayerNormalization",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "Normalization",
    "RandomFlip",
    "RandomTranslation",
    "Rescaling",
    "Reshape",
    "Residual",
    "SimpleRNN",
]

# Keras' second names for the same layers.
ALIASES = {
    **{f"MaxPool{n}D": f"MaxPooling{n}D" for n in (1, 2, 3)},
    **{f"AvgPool{n}D": f"AveragePooling{n}D" for n in (1, 2, 3)},
    **{f"GlobalMaxPool{n}D": f"GlobalMaxPooling{n}D" for n in (1, 2, 3)},
    **{f"GlobalAvgPool{n}D": f"GlobalAveragePooling{n}D" for n in (1, 2, 3)},
}

if not TYPE_CHECKING:  # a type checker is to complain about names that do not exist

    def __getattr__(name: str) -> Any:
        """Second names; and names that are left out, which raise when they are called."""
        if name in ALIASES:
            return globals()[ALIASES[name]]
        if name in left_out.LAYERS:
            return left_out.stand_in(name, left_out.LAYERS[name])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
