"""DepthwiseConv and SeparableConv: shapes, arguments, and agreement with PyTorch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import layers

KINDS = ["DepthwiseConv", "SeparableConv"]


def make(kind, rank, *arguments, **options):
    arguments = (7, *arguments) if kind == "SeparableConv" else arguments
    return getattr(layers, f"{kind}{rank}D")(*arguments, **options)


@st.composite
def cases(draw):
    """Rank, kernel, strides, dilation, padding, and an image on which they fit."""
    rank = draw(st.integers(1, 2))
    kernel, strides, dilation = (
        tuple(draw(st.integers(1, 3)) for _ in range(rank)) for _ in range(3)
    )
    padding = draw(st.sampled_from(["valid", "same"]))
    extent = [(k - 1) * d + 1 if padding == "valid" else 1 for k, d in zip(kernel, dilation)]
    size = tuple(e + draw(st.integers(0, 5)) for e in extent)
    return rank, (kernel, strides, padding), dilation, (draw(st.integers(1, 3)), *size, 3)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(cases(), st.integers(1, 3))
def test_predicted_shapes_are_actual_shapes(kind, case, multiplier):
    rank, arguments, dilation, shape = case
    layer = make(kind, rank, *arguments, dilation_rate=dilation, depth_multiplier=multiplier)
    y = layer(np.zeros(shape), training=True)
    assert layer.compute_output_shape(shape) == y.shape
    unknown = layer.compute_output_shape((None,) * (rank + 1) + shape[-1:])
    assert unknown == (None,) * (rank + 1) + y.shape[-1:]
    assert y.shape[-1] == (7 if kind == "SeparableConv" else 3 * multiplier)
    assert layer.weights[0].shape == (*arguments[0], 3, multiplier)
    assert layer.backward(np.ones_like(y)).shape == shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (1, {"strides": 2, "depth_multiplier": 2}),
        (1, {"dilation_rate": 2, "use_bias": False}),
        (2, {"strides": (2, 3), "activation": "relu"}),
        (2, {"dilation_rate": (1, 2), "depth_multiplier": 3, "activation": "tanh"}),
    ],
)
def test_torch_agrees(kind, rank, options):
    torch = pytest.importorskip("torch")
    conv = getattr(torch.nn.functional, f"conv{rank}d")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *(9, 8)[:rank], 4)).astype(np.float32)
    layer = make(kind, rank, 3, bias_initializer="ones", **options)
    y = layer(x, training=True)
    given = [torch.tensor(weight, requires_grad=True) for weight in layer.get_weights()]
    filters = given[0].permute(*range(rank, rank + 2), *range(rank))
    image = torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)
    expected = conv(
        image, filters.reshape(-1, 1, *(3,) * rank), None, options.get("strides", 1), 0,
        options.get("dilation_rate", 1), 4,
    )  # fmt: skip
    if kind == "SeparableConv":
        expected = conv(expected, given[1].permute(rank + 1, rank, *range(rank)))
    expected = expected.movedim(1, -1)
    if layer.bias is not None:
        expected = expected + given[-1]
    if "activation" in options:
        expected = getattr(torch, options["activation"])(expected)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-5)
    dy = rng.normal(size=y.shape).astype(np.float32)
    expected.backward(torch.tensor(dy))
    dx = layer.backward(dy)
    np.testing.assert_allclose(dx, np.moveaxis(image.grad.numpy(), 1, -1), atol=1e-4)
    for weight, theirs in zip(layer.weights, given, strict=True):
        np.testing.assert_allclose(weight.gradient, theirs.grad.numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_images_may_grow_and_shrink_between_calls(kind):
    layer, rng = make(kind, 2, 3, 2, "same", depth_multiplier=2), np.random.default_rng(0)
    for batch, size in ((2, 5), (9, 7), (1, 1), (2, 5)):
        x = rng.normal(size=(batch, size, size + 1, 3)).astype(np.float32)
        y = layer(x)
        fresh = make(kind, 2, 3, 2, "same", depth_multiplier=2)
        fresh.build_once((None, *x.shape[1:]))
        fresh.set_weights(layer.get_weights())
        np.testing.assert_array_equal(y, fresh(x))


def test_a_frozen_first_layer_computes_no_gradients():
    layer = layers.SeparableConv1D(2, 3, trainable=False)
    y = layer(np.ones((2, 5, 3)), training=True)
    for weight in layer.weights:
        weight.gradient[...] = 7
    assert layer.backward(np.ones_like(y), input_gradient=False) is None
    assert all((weight.gradient == 7).all() for weight in layer.weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth_multiplier": 0}, "depth_multiplier"),
        ({"padding": "causal"}, "padding"),
        ({"strides": 0}, "strides"),
        ({"data_format": "channels_first"}, "channels_last"),
        ({"depthwise_constraint": "max_sum"}, "max_sum"),
    ],
)
def test_wrong_arguments_are_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=rf"layer 'mine': .*{message}"):
        make(kind, 1, 3, name="mine", **arguments)
