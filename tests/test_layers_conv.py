"""Conv1D to 3D and the poolings: shapes, and agreement with PyTorch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import constraints, layers, regularizers


@st.composite
def cases(draw):
    """Rank, kernel, strides, dilation, padding, and an image on which they fit."""
    rank = draw(st.integers(1, 3))
    axes = [(draw(st.integers(1, 4)), draw(st.integers(1, 3))) for _ in range(rank)]
    padding = draw(st.sampled_from(["valid", "same", "causal"] if rank == 1 else ["valid", "same"]))
    kernel, step = zip(*axes)
    dilated = draw(st.booleans())
    strides, dilation = ((1,) * rank, step) if dilated else (step, (1,) * rank)
    extent = [(k - 1) * d + 1 if padding == "valid" else 1 for k, d in zip(kernel, dilation)]
    size = tuple(e + draw(st.integers(0, 5)) for e in extent)
    return rank, kernel, strides, dilation, padding, (draw(st.integers(1, 3)), *size)


@settings(max_examples=20)
@given(cases(), st.integers(1, 2), st.integers(1, 3))
def test_predicted_shapes_are_actual_shapes(case, groups, filters):
    rank, kernel, strides, dilation, padding, size = case
    x = np.zeros((*size, 2 * groups), np.float32)
    layer = getattr(layers, f"Conv{rank}D")(
        filters * groups, kernel, strides, padding, dilation_rate=dilation, groups=groups
    )
    assert layer.compute_output_shape(x.shape) == layer(x).shape
    assert layer.kernel.shape == (*kernel, 2, filters * groups)
    for kind in ("Max", "Average"):
        if padding != "causal" and max(dilation) == 1:
            pool = getattr(layers, f"{kind}Pooling{rank}D")(kernel, strides, padding)
            assert pool.compute_output_shape(x.shape) == pool(x).shape
        for keepdims in (True, False):
            pool = getattr(layers, f"Global{kind}Pooling{rank}D")(keepdims=keepdims)
            assert pool.compute_output_shape(x.shape) == pool(x).shape


@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (1, {"strides": 2}),
        (1, {"dilation_rate": 2, "groups": 2}),
        (2, {"strides": (2, 3), "activation": "relu"}),
        (2, {"dilation_rate": (1, 2), "use_bias": False}),
        (3, {"groups": 2, "activation": "relu"}),
    ],
)
def test_convolutions_agree_with_torch(rank, options):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *(9, 8, 7)[:rank], 4)).astype(np.float32)
    layer = getattr(layers, f"Conv{rank}D")(6, 3, bias_initializer="ones", **options)
    y = layer(x, training=True)
    kernel = torch.tensor(np.moveaxis(layer.kernel, (-1, -2), (0, 1)).copy(), requires_grad=True)
    image = torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)
    bias = None if layer.bias is None else torch.tensor(layer.bias.copy(), requires_grad=True)
    expected = getattr(torch.nn.functional, f"conv{rank}d")(
        image, kernel, bias, options.get("strides", 1), 0, options.get("dilation_rate", 1),
        options.get("groups", 1),
    )  # fmt: skip
    expected = torch.relu(expected) if options.get("activation") else expected
    np.testing.assert_allclose(y, np.moveaxis(expected.detach().numpy(), 1, -1), atol=1e-5)
    dy = rng.normal(size=y.shape).astype(np.float32)
    expected.backward(torch.tensor(np.moveaxis(dy, -1, 1).copy()))
    dx = layer.backward(dy)
    np.testing.assert_allclose(dx, np.moveaxis(image.grad.numpy(), 1, -1), atol=1e-4)
    dw = np.moveaxis(kernel.grad.numpy(), (0, 1), (-1, -2))
    np.testing.assert_allclose(layer.weights[0].gradient, dw, atol=1e-4)
    if bias is not None:
        np.testing.assert_allclose(layer.weights[1].gradient, bias.grad.numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_poolings_agree_with_torch(kind, rank):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, *(9, 8, 7)[:rank], 3)).astype(np.float32)
    image = torch.tensor(np.moveaxis(x, -1, 1).copy())
    theirs = getattr(torch.nn.functional, f"{'max' if kind == 'Max' else 'avg'}_pool{rank}d")
    mine = getattr(layers, f"{kind}Pooling{rank}D")(3, 2)
    np.testing.assert_allclose(
        mine(x), np.moveaxis(theirs(image, 3, 2).numpy(), 1, -1), rtol=1e-5, atol=1e-6
    )


def test_padding_counts_for_neither_maximum_nor_average():
    x = -np.arange(1.0, 6).reshape(1, 5, 1)
    maximum, average = layers.MaxPooling1D(2, padding="same"), layers.AveragePooling1D(2, 2, "same")
    assert maximum(x).ravel().tolist() == [-1, -3, -5]
    assert average(x).ravel().tolist() == [-1.5, -3.5, -5]


def test_a_causal_convolution_sees_no_later_step():
    layer, x = layers.Conv1D(3, 3, padding="causal", dilation_rate=2), np.ones((1, 9, 2))
    before = layer(x)
    x[:, 6:] = 5
    np.testing.assert_array_equal(layer(x)[:, :6], before[:, :6])


def test_images_may_grow_and_shrink_between_calls():
    layer, rng = layers.Conv2D(17, 3, padding="same", strides=2), np.random.default_rng(0)
    fresh = None
    for batch, size in ((2, 5), (33, 9), (1, 1), (3, 30), (2, 5)):
        x = rng.normal(size=(batch, size, size + 1, 3)).astype(np.float32)
        y = layer(x)
        fresh = layers.Conv2D(17, 3, padding="same", strides=2)
        fresh.build_once((None, *x.shape[1:]))
        fresh.set_weights(layer.get_weights())
        np.testing.assert_array_equal(y, fresh(x))


@pytest.mark.parametrize(
    ("name", "arguments", "weights"),
    [
        ("Conv1D", (4, 3), ["kernel"]),
        ("Conv3D", (4, 3), ["kernel"]),
        ("Conv2DTranspose", (4, 3), ["kernel"]),
        ("DepthwiseConv2D", (3,), ["depthwise"]),
        ("SeparableConv1D", (4, 3), ["depthwise", "pointwise"]),
    ],
)
def test_every_weight_has_its_own_rules(name, arguments, weights):
    names = [*weights, "bias"]
    rules = {f"{n}_regularizer": regularizers.L2(0.1 + i) for i, n in enumerate(names)}
    rules |= {f"{n}_constraint": constraints.MaxNorm(1 + i) for i, n in enumerate(names)}
    activity = regularizers.L1(0.5)
    layer = getattr(layers, name)(*arguments, activity_regularizer=activity, **rules)
    layer.build_once((None, *(5,) * layer.rank, 4))
    assert layer.activity_regularizer is activity
    for weight, n in zip(layer.weights, names, strict=True):
        assert weight.name.startswith(n) or (name.startswith("Depthwise") and n == "depthwise")
        assert weight.regularizer is rules[f"{n}_regularizer"]
        assert weight.constraint is rules[f"{n}_constraint"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "causal"}, "padding"),
        ({"padding": None}, "padding"),
        ({"strides": 2, "dilation_rate": 2}, "strides or dilation_rate"),
        ({"filters": 3, "groups": 2}, "filters to be a multiple"),
        ({"data_format": "channels_first"}, "channels_last"),
        ({"bias_constraint": "max_sum"}, "max_sum"),
        ({"kernel_size": 6}, "extent"),
        ({"groups": 4}, "channels to be a multiple"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=rf"layer 'mine': .*{message}"):
        layers.Conv2D(**{"filters": 4, "kernel_size": 3, "name": "mine"} | arguments)(
            np.zeros((1, 5, 5, 6))
        )
