"""Stages: convolutions and the pooling behind them, a few images at a time.

What a convolution makes of a whole batch is larger than the caches, and the layer behind it waits
for memory. Predictions keep nothing for a way back: so some images go through all layers of a
stage, each of which reads what the one before has just written, before others follow in the same
memory. Predictions of a Conv3D stack take 0.95 of the time; where a first convolution finds the
maxima itself, little is left to gain.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from minicnnrnn.layers.activation import Activation
from minicnnrnn.layers.base import Layer
from minicnnrnn.layers.conv import Conv
from minicnnrnn.layers.neighbours import plain
from minicnnrnn.layers.normalization import BatchNormalization
from minicnnrnn.layers.pool import Pooling

INSIDE = (Conv, BatchNormalization, Activation)
WEIGHTS = 4  # bytes of outputs, at least, for each of the weights: these are read for every part


def layers_of_stage(layers: Sequence[Layer], index: int, x_shape: tuple[int, ...]) -> int:
    """How many layers from a convolution on come before its pooling; 0 if that is no stage.

    Nor is it one where the convolution finds the maxima itself.
    """
    first = layers[index]
    if not isinstance(first, Conv) or not plain(first, Conv):
        return 0
    if first.followers(layers, index, x_shape).pooling is not None:
        return 0
    end = index + 1
    while end < len(layers) and any(plain(layers[end], kind) for kind in INSIDE):
        end += 1
    return end - index if end < len(layers) and plain(layers[end], Pooling) else 0


def parts_of_batch(layers: Sequence[Layer], x_shape: tuple[int, ...], cache: int) -> int:
    """In how many parts a batch shall go through these layers.

    Parameters
    ----------
    layers : sequence of Layer
    x_shape : tuple of ints
        Of the whole batch.
    cache : int
        Bytes that the largest output of a layer may take.
    """
    shape: Any = x_shape
    largest, weights = 1, 0
    for layer in layers:
        shape = layer.compute_output_shape(shape)
        largest = max(largest, 4 * math.prod(shape[1:]))
        weights += sum(weight.size for weight in layer.weights)
    fit = max(cache, 4 * WEIGHTS * weights) // largest
    return -(-x_shape[0] // max(fit, 1))


def run_stage(run: Callable[[Any], Any], pooling: Any, x: Any, parts: int) -> Any:
    """The output of a stage, whose layers `run` applies to parts of `x`, of nearly one size."""
    y, N = None, len(x)
    for i in range(parts):
        images = slice(N * i // parts, N * (i + 1) // parts)
        part = run(x[images])
        if y is None:
            y = pooling.buffer("y", *pooling.compute_output_shape((N, *part.shape[1:])))
        pooling.pool(y[images], part)
    return y
