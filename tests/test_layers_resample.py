"""Magnifying, padding, cropping: shapes, forms of the arguments, errors, masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import Sequential, layers

SPATIAL = [(getattr(layers, f"{kind}{n}D"), n)
           for kind in ("UpSampling", "ZeroPadding", "Cropping") for n in (1, 2, 3)]  # fmt: skip


@settings(max_examples=15)
@given(st.lists(st.integers(3, 5), min_size=5, max_size=5), st.integers(1, 3), st.integers(0, 1))
def test_predicted_shapes_are_actual_shapes(sizes, scale, edge):
    for kind, rank in SPATIAL:
        layer = kind(scale if "Up" in kind.__name__ else edge)
        x = np.zeros((sizes[0], *sizes[1 : 1 + rank], sizes[4]), np.float32)
        y = layer(x, training=True)
        assert layer.compute_output_shape(x.shape) == y.shape
        assert layer.backward(y).shape == x.shape
        unknown = (None, *(None,) * rank, sizes[4])
        assert layer.compute_output_shape(unknown) == unknown


@pytest.mark.parametrize(
    ("value", "pairs"),
    [
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([[1, 2], (3, 0)], ((1, 2), (3, 0))),
        ((0, (1, 0)), ((0, 0), (1, 0))),
        (np.int64(1), ((1, 1), (1, 1))),
    ],
)
def test_forms_of_the_argument(value, pairs):
    assert layers.ZeroPadding2D(value).padding == pairs
    assert layers.Cropping2D(value).cropping == pairs


def test_one_axis_takes_a_number_or_a_pair():
    assert layers.ZeroPadding1D(2).padding == ((2, 2),)
    assert layers.Cropping1D([2, 0]).cropping == ((2, 0),)
    assert layers.Cropping2D().cropping == ((0, 0), (0, 0))
    assert layers.Cropping3D().cropping == ((1, 1),) * 3


def test_padding_and_cropping_undo_each_other():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    edges = ((1, 2), (0, 3))
    model = Sequential([layers.ZeroPadding2D(edges), layers.Cropping2D(edges)])
    np.testing.assert_array_equal(model.predict(x), x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.UpSampling2D(0, name="l"), "size"),
        (lambda: layers.UpSampling1D((1, 2), name="l"), "size"),
        (lambda: layers.UpSampling2D(interpolation="bicubic", name="l"), "interpolation"),
        (lambda: layers.UpSampling3D(data_format="channels_first", name="l"), "data_format"),
        (lambda: layers.ZeroPadding2D(-1, name="l"), "padding"),
        (lambda: layers.ZeroPadding2D((1, 2, 3), name="l"), "padding"),
        (lambda: layers.ZeroPadding1D(((1, 2),), name="l"), "padding"),
        (lambda: layers.ZeroPadding3D((1.0, 2, 3), name="l"), "padding"),
        (lambda: layers.Cropping2D(((1, 2), (3,)), name="l"), "cropping"),
        (lambda: layers.Cropping2D("1", name="l"), "cropping"),
        (lambda: layers.Cropping1D(2, name="l")(np.zeros((1, 4, 1))), "inputs larger"),
        (lambda: layers.UpSampling2D(name="l")(np.zeros((1, 4, 1))), "inputs"),
    ],
)
def test_bad_arguments_and_inputs(make, message):
    with pytest.raises(ValueError, match=rf"layer 'l': Expected .*{message}.* Received: "):
        make()


@pytest.mark.parametrize("kind", [layers.UpSampling1D, layers.ZeroPadding1D, layers.Cropping1D])
def test_a_mask_ends_here_with_a_warning(kind):
    layer = kind(name="l")
    with pytest.warns(UserWarning, match="layer 'l'.*mask"):
        layer(np.ones((2, 4, 3)), mask=np.ones((2, 4)))
