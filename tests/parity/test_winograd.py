"""Convolutions large enough for Winograd's kernels, against Keras' direct ones."""

import numpy as np
import pytest
from parity.parity import both, check


@pytest.mark.parametrize(("padding", "activation"), [("same", "relu"), ("valid", None)])
def test_two_layers_in_a_row(padding, activation):
    arguments = {"padding": padding, "activation": activation}
    pairs = [both("Conv2D", filters, 3, **arguments) for filters in (32, 48)]
    ours, theirs = zip(*pairs, both("GlobalAveragePooling2D"), both("Dense", 3))
    x = np.random.default_rng(0).standard_normal((8, 13, 14, 16)).astype(np.float32)
    check(list(ours), list(theirs), x)
    assert [layer.plan(shape).algorithm for layer, shape in zip(ours[:2], shapes(ours, x))] == [
        "winograd",
        "winograd",
    ]


@pytest.mark.parametrize(("padding", "activation"), [("causal", "relu"), ("valid", None)])
def test_two_layers_along_one_axis(padding, activation):
    arguments = {"padding": padding, "activation": activation}
    pairs = [both("Conv1D", filters, taps, **arguments) for filters, taps in ((48, 5), (32, 3))]
    ours, theirs = zip(*pairs, both("GlobalAveragePooling1D"), both("Dense", 3))
    x = np.random.default_rng(0).standard_normal((8, 51, 16)).astype(np.float32)
    check(list(ours), list(theirs), x)
    assert [layer.plan(shape).algorithm for layer, shape in zip(ours[:2], shapes(ours, x))] == [
        "winograd_line",
        "winograd_line",
    ]


def shapes(layers, x):
    """The inputs of the first two layers."""
    return x.shape, layers[0].compute_output_shape(x.shape)
