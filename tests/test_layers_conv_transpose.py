"""Conv1DTranspose to 3D: shapes, arguments, and agreement with PyTorch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import layers


@st.composite
def cases(draw):
    """Rank, an image, and arguments that go together."""
    rank = draw(st.integers(1, 3))
    dilated = draw(st.booleans())
    steps = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    strides = (1,) * rank if dilated else steps
    arguments = {
        "kernel_size": tuple(draw(st.integers(1, 4)) for _ in range(rank)),
        "strides": strides,
        "dilation_rate": steps if dilated else 1,
        "padding": draw(st.sampled_from(["valid", "same"])),
        "output_padding": None,
    }
    if draw(st.booleans()):
        arguments["output_padding"] = tuple(draw(st.integers(0, s - 1)) for s in strides)
    # Two of a kind leave an output even where output_padding is 0 and the kernel even.
    size = tuple(draw(st.integers(2, 5)) for _ in range(rank))
    return rank, arguments, (draw(st.integers(1, 3)), *size, draw(st.integers(1, 3)))


@settings(max_examples=20)
@given(cases(), st.integers(1, 3))
def test_predicted_shapes_are_actual_shapes(case, filters):
    rank, arguments, shape = case
    layer = getattr(layers, f"Conv{rank}DTranspose")(filters, **arguments)
    y = layer(np.zeros(shape), training=True)
    assert layer.compute_output_shape(shape) == y.shape
    assert layer.compute_output_shape((None,) * (rank + 1) + shape[-1:])[1:-1] == (None,) * rank
    assert layer.kernel.shape == (*arguments["kernel_size"], filters, shape[-1])
    assert layer.backward(np.ones_like(y)).shape == shape


@pytest.mark.parametrize(
    ("rank", "options"),
    [
        (1, {"strides": 2, "output_padding": 1}),
        (1, {"dilation_rate": 2, "use_bias": False}),
        (2, {"strides": (2, 3), "activation": "relu"}),
        (2, {"activation": "tanh"}),
        (3, {"strides": 2}),
    ],
)
def test_torch_agrees(rank, options):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *(5, 4, 3)[:rank], 4)).astype(np.float32)
    layer = getattr(layers, f"Conv{rank}DTranspose")(6, 3, bias_initializer="ones", **options)
    y = layer(x, training=True)
    kernel = torch.tensor(np.moveaxis(layer.kernel, (-1, -2), (0, 1)).copy(), requires_grad=True)
    image = torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)
    bias = None if layer.bias is None else torch.tensor(layer.bias.copy(), requires_grad=True)
    expected = getattr(torch.nn.functional, f"conv_transpose{rank}d")(
        image, kernel, bias, options.get("strides", 1), 0, options.get("output_padding", 0), 1,
        options.get("dilation_rate", 1),
    )  # fmt: skip
    if "activation" in options:
        expected = getattr(torch, options["activation"])(expected)
    np.testing.assert_allclose(y, np.moveaxis(expected.detach().numpy(), 1, -1), atol=1e-5)
    dy = rng.normal(size=y.shape).astype(np.float32)
    expected.backward(torch.tensor(np.moveaxis(dy, -1, 1).copy()))
    dx = layer.backward(dy)
    np.testing.assert_allclose(dx, np.moveaxis(image.grad.numpy(), 1, -1), atol=1e-4)
    dw = np.moveaxis(kernel.grad.numpy(), (0, 1), (-1, -2))
    np.testing.assert_allclose(layer.weights[0].gradient, dw, atol=1e-4)
    if bias is not None:
        np.testing.assert_allclose(layer.weights[1].gradient, bias.grad.numpy(), atol=1e-4)


def test_images_may_grow_and_shrink_between_calls():
    layer, rng = layers.Conv2DTranspose(5, 3, strides=2), np.random.default_rng(0)
    for batch, size in ((2, 5), (9, 7), (1, 1), (2, 5)):
        x = rng.normal(size=(batch, size, size + 1, 3)).astype(np.float32)
        y = layer(x)
        fresh = layers.Conv2DTranspose(5, 3, strides=2)
        fresh.build_once((None, *x.shape[1:]))
        fresh.set_weights(layer.get_weights())
        np.testing.assert_array_equal(y, fresh(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_padding": 2, "strides": 2}, "output_padding below strides"),
        ({"output_padding": -1}, "output_padding to be an integer of at least 0"),
        ({"strides": 2, "dilation_rate": 2}, "strides or dilation_rate"),
        ({"padding": "causal"}, "padding"),
        ({"data_format": "channels_first"}, "channels_last"),
        ({"filters": 0}, "filters"),
        ({"kernel_regularizer": "l3"}, "l3"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=rf"layer 'mine': .*{message}"):
        layers.Conv1DTranspose(**{"filters": 1, "kernel_size": 3, "name": "mine"} | arguments)


def test_inputs_without_an_output_are_refused():
    layer = layers.Conv1DTranspose(1, 2, padding="same", output_padding=0)
    with pytest.raises(ValueError, match="at least 2 along each axis"):
        layer(np.zeros((1, 1, 1)))
