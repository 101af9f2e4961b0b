"""Layers, under Keras' names."""

from typing import TYPE_CHECKING, Any

from minicnnrnn import left_out
from minicnnrnn.layers.activation import ELU, Activation, LeakyReLU, PReLU, ReLU, Softmax
from minicnnrnn.layers.base import Layer
from minicnnrnn.layers.composite import Branches, Residual
from minicnnrnn.layers.conv import Conv1D, Conv2D, Conv3D
from minicnnrnn.layers.conv_lstm import ConvLSTM1D, ConvLSTM2D, ConvLSTM3D
from minicnnrnn.layers.conv_transpose import Conv1DTranspose, Conv2DTranspose, Conv3DTranspose
from minicnnrnn.layers.core import Dense, Input, InputLayer
from minicnnrnn.layers.depthwise import (
    DepthwiseConv1D,
    DepthwiseConv2D,
    SeparableConv1D,
    SeparableConv2D,
)
from minicnnrnn.layers.embedding import Embedding, Masking
from minicnnrnn.layers.noise import (
    ActivityRegularization,
    Dropout,
    GaussianDropout,
    GaussianNoise,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
)
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
from minicnnrnn.layers.preprocessing import Normalization, RandomFlip, RandomTranslation, Rescaling
from minicnnrnn.layers.recurrent import GRU, LSTM, SimpleRNN
from minicnnrnn.layers.resample import (
    Cropping1D,
    Cropping2D,
    Cropping3D,
    UpSampling1D,
    UpSampling2D,
    UpSampling3D,
    ZeroPadding1D,
    ZeroPadding2D,
    ZeroPadding3D,
)
from minicnnrnn.layers.reshape import Flatten, Permute, RepeatVector, Reshape
from minicnnrnn.layers.wrappers import Bidirectional, TimeDistributed

__all__ = [
    "ELU",
    "GRU",
    "LSTM",
    "Activation",
    "ActivityRegularization",
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "BatchNormalization",
    "Bidirectional",
    "Branches",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "ConvLSTM1D",
    "ConvLSTM2D",
    "ConvLSTM3D",
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
    "Dense",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Dropout",
    "Embedding",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
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
    "LeakyReLU",
    "Masking",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "Normalization",
    "PReLU",
    "Permute",
    "RandomFlip",
    "RandomTranslation",
    "ReLU",
    "RepeatVector",
    "Rescaling",
    "Reshape",
    "Residual",
    "SeparableConv1D",
    "SeparableConv2D",
    "SimpleRNN",
    "Softmax",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "TimeDistributed",
    "UpSampling1D",
    "UpSampling2D",
    "UpSampling3D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "ZeroPadding3D",
]

# Keras' second names for the same layers.
ALIASES = {
    **{f"Convolution{n}D": f"Conv{n}D" for n in (1, 2, 3)},
    **{f"Convolution{n}DTranspose": f"Conv{n}DTranspose" for n in (1, 2, 3)},
    **{f"SeparableConvolution{n}D": f"SeparableConv{n}D" for n in (1, 2)},
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
