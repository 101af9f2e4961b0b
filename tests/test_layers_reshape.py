"""Flatten, Reshape, Permute, RepeatVector: shapes, order of elements, errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import layers

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple)


@settings(max_examples=15)
@given(SHAPES, st.integers(1, 4), st.randoms(use_true_random=False))
def test_predicted_shapes_are_actual_shapes(shape, batch, random):
    x = np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)
    order = random.sample(range(1, len(shape) + 1), len(shape))
    for layer in (
        layers.Flatten(),
        layers.Reshape((-1, shape[-1])),
        layers.Reshape((*reversed(shape), 1)),
        layers.Permute(order),
    ):
        y = layer(x, training=True)
        assert layer.compute_output_shape(x.shape) == y.shape
        np.testing.assert_array_equal(layer.backward(y), x)  # elements have moved, and move back
    np.testing.assert_array_equal(layers.Permute(order)(x), x.transpose(0, *order))
    vector = x.reshape(batch, -1)
    repeated = layers.RepeatVector(3)
    np.testing.assert_array_equal(repeated(vector, training=True), np.stack([vector] * 3, axis=1))
    np.testing.assert_array_equal(repeated.backward(repeated(vector)), 3 * vector)


def test_flatten_and_reshape_keep_the_order():
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(layers.Flatten()(x), x.reshape(2, 12))
    np.testing.assert_array_equal(layers.Reshape((2, -1))(x), x.reshape(2, 2, 6))


def test_unknown_axes():
    assert layers.Flatten().compute_output_shape((None, None, 3)) == (None, None)
    assert layers.Reshape((-1, 3)).compute_output_shape((None, None, 3)) == (None, None, 3)
    assert layers.Permute((2, 1)).compute_output_shape((None, None, 3)) == (None, 3, None)
    assert layers.RepeatVector(4).compute_output_shape((None, 3)) == (None, 4, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Permute((2, 3), name="l"), "dims"),
        (lambda: layers.Permute((0, 1), name="l"), "dims"),
        (lambda: layers.Permute(1, name="l"), "dims"),
        (lambda: layers.Permute(range(1, 7), name="l"), "dims"),
        (lambda: layers.Permute((2, 1), name="l")(np.zeros((1, 2))), "inputs with 2 axes"),
        (lambda: layers.RepeatVector(0, name="l"), "n to be"),
        (lambda: layers.RepeatVector(2, name="l")(np.zeros((1, 2, 3))), "inputs"),
        (lambda: layers.Reshape((2, 4), name="l")(np.zeros((1, 6))), "reshaped"),
        (lambda: layers.Flatten(data_format="channels_first", name="l"), "data_format"),
    ],
)
def test_bad_arguments_and_inputs(make, message):
    with pytest.raises(ValueError, match=rf"layer 'l': Expected .*{message}.* Received: "):
        make()
