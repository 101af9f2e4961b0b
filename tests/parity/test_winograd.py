"""Convolutions large enough for Winograd's kernels, against Keras' direct ones."""

import numpy as np
import pytest
from parity.parity import both, check

SIZES = {1: (51,), 2: (13, 14), 3: (5, 18, 11)}


@pytest.mark.parametrize(
    ("rank", "taps", "channels", "padding", "algorithms"),
    [
        (2, (3, 3), 16, "same", ("winograd", "winograd")),
        (2, (3, 3), 16, "valid", ("winograd", "winograd")),
        (1, (5, 3), 16, "causal", ("winograd_line", "winograd_line")),
        (1, (5, 3), 16, "valid", ("winograd_line", "winograd_line")),
        (2, (5, 5), 3, "same", ("winograd_line", "winograd_line")),
        (2, (5, 3), 16, "valid", ("winograd_line", "winograd")),
        (3, (3, 3), 3, "same", ("winograd_rows", "winograd")),
        (3, (3, 3), 4, "valid", ("winograd_rows", "winograd")),
    ],
)
def test_two_layers_in_a_row(rank, taps, channels, padding, algorithms):
    activation = None if padding == "valid" else "relu"
    arguments = {"padding": padding, "activation": activation}
    pairs = [both(f"Conv{rank}D", *layer, **arguments) for layer in zip((48, 32), taps)]
    ours, theirs = zip(*pairs, both(f"GlobalAveragePooling{rank}D"), both("Dense", 3))
    x = np.random.default_rng(0).standard_normal((8, *SIZES[rank], channels)).astype(np.float32)
    check(list(ours), list(theirs), x)
    shapes = x.shape, ours[0].compute_output_shape(x.shape)
    found = tuple(layer.plan(shape).algorithm for layer, shape in zip(ours, shapes))
    assert found == algorithms
