"""Pooling layers: defaults, shapes, masks, errors."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import layers

KINDS = [(getattr(layers, f"{kind}Pooling{n}D"), n) for kind in ("Max", "Average")
         for n in (1, 2, 3)]  # fmt: skip
GLOBAL = [(getattr(layers, f"Global{kind}Pooling{n}D"), n) for kind in ("Max", "Average")
          for n in (1, 2, 3)]  # fmt: skip
SIZES = st.lists(st.integers(3, 6), min_size=5, max_size=5)


@settings(max_examples=15)
@given(SIZES, st.integers(1, 3), st.integers(1, 4), st.sampled_from(["valid", "same"]))
def test_predicted_shapes_are_actual_shapes(sizes, pool, stride, padding):
    for kind, rank in KINDS:
        x = np.zeros((sizes[0], *sizes[1 : 1 + rank], sizes[4]), np.float32)
        layer = kind(pool, stride, padding)
        y = layer(x, training=True)
        assert layer.compute_output_shape(x.shape) == y.shape
        assert layer.backward(y).shape == x.shape
    for kind, rank in GLOBAL:
        x = np.zeros((sizes[0], *sizes[1 : 1 + rank], sizes[4]), np.float32)
        layer = kind(keepdims=stride > 2)
        y = layer(x, training=True)
        assert layer.compute_output_shape(x.shape) == y.shape
        assert layer.compute_output_shape((None,) * (rank + 1) + x.shape[-1:])[1:] == y.shape[1:]
        assert layer.backward(y).shape == x.shape


def test_defaults_are_those_of_keras():
    for kind, rank in KINDS:
        default = inspect.signature(kind.__init__).parameters["pool_size"].default
        if "Average" in kind.__name__:
            assert default is inspect.Parameter.empty
            continue
        layer = kind()
        assert layer.pool_size == layer.strides == (2,) * rank
    assert layers.MaxPool2D is layers.MaxPooling2D
    assert layers.GlobalAvgPool1D is layers.GlobalAveragePooling1D


def test_a_mask_decides_which_steps_are_averaged():
    x = np.array([[[1.0], [2], [6]], [[5], [7], [9]], [[1], [2], [3]]])
    mask = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]])
    layer = layers.GlobalAveragePooling1D()
    assert layer(x, training=True, mask=mask).tolist() == [[3.5], [0], [2]]
    dx = layer.backward(np.array([[1], [1], [3]], np.float32))
    assert dx[..., 0].tolist() == [[0.5, 0, 0.5], [0, 0, 0], [1, 1, 1]]
    assert layer.forward(np.float32(x), np.uint8(mask), False)[1] is None
    assert layer(x).tolist() == [[3], [7], [2]]
    assert layers.GlobalAveragePooling1D(keepdims=True)(x, mask=mask).shape == (3, 1, 1)


@pytest.mark.parametrize("kind", [layers.MaxPooling1D, layers.GlobalMaxPooling1D])
def test_the_others_warn_and_see_all_steps(kind):
    layer, x = kind(name="l"), np.arange(8.0).reshape(2, 4, 1)
    expected = kind()(x)
    with pytest.warns(UserWarning, match="layer 'l'.*mask"):
        y = layer(x, mask=np.array([[1, 0, 0, 0], [0, 0, 0, 0]]))
    np.testing.assert_array_equal(y, expected)
    assert layer.forward(np.float32(x), np.ones((2, 4), np.uint8), False)[1] is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.MaxPooling2D((2, 2, 2), name="l"), "pool_size"),
        (lambda: layers.AveragePooling2D(2, 0, name="l"), "strides"),
        (lambda: layers.AveragePooling1D(2, padding="causal", name="l"), "padding"),
        (lambda: layers.GlobalMaxPooling2D("channels_first", name="l"), "data_format"),
        (lambda: layers.MaxPooling1D(5, name="l")(np.zeros((1, 4, 1))), "inputs of at least"),
        (lambda: layers.GlobalAveragePooling1D(name="l")(np.zeros((1, 4))), "inputs"),
    ],
)
def test_bad_arguments_and_inputs(make, message):
    with pytest.raises(ValueError, match=rf"layer 'l': Expected .*{message}.* Received: "):
        make()
