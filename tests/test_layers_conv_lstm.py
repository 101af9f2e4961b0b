"""ConvLSTM: shapes, masks, states, directions, dropout, and agreement with PyTorch and LSTM."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import Sequential, layers

KINDS = pytest.mark.parametrize("kind", [layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D])
MASK = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 1, 1], [0] * 5, [1] * 5])


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def twin(layer, x, **options):
    """A layer with the same weights and other options."""
    other = type(layer)(layer.filters, layer.kernel_size, padding="same", **options)
    other.build_once((None, *x.shape[1:]))
    other.set_weights(layer.get_weights())
    return other


@settings(max_examples=10)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.integers(3, 7), min_size=2, max_size=2),
    st.sampled_from(["valid", "same"]),
    st.sampled_from([(1, 1), (2, 1), (1, 2)]),
    st.booleans(),
)
def test_predicted_shapes_are_actual_shapes(batch, steps, size, padding, ratio, every):
    x = np.zeros((batch, steps, *size, 2), np.float32)
    options = {"padding": padding, "strides": ratio[0], "dilation_rate": ratio[1]}
    layer = layers.ConvLSTM2D(3, (1, 2), return_sequences=every, **options)
    assert layer.compute_output_shape(x.shape) == layer(x).shape


def test_weights_have_the_shapes_of_keras():
    layer = layers.ConvLSTM2D(4, (3, 2))
    layer.build_once((None, None, None, None, 5))
    assert [w.shape for w in layer.weights] == [(3, 2, 5, 16), (3, 2, 4, 16), (16,)]
    assert layer.bias.tolist() == [0] * 4 + [1] * 4 + [0] * 8
    plain = layers.ConvLSTM3D(2, 1, unit_forget_bias=False)
    plain.build_once((None, 5, 6, 7, 8, 3))
    assert [w.shape for w in plain.weights] == [(1, 1, 1, 3, 8), (1, 1, 1, 2, 8), (8,)]
    assert not plain.bias.any()


@KINDS
@pytest.mark.parametrize("backwards", [False, True])
def test_with_a_kernel_of_one_pixel_it_is_an_lstm_at_every_pixel(kind, backwards):
    x = images(4, 5, *[2, 3, 2][: kind.rank], 3)
    rows = np.moveaxis(x.reshape(4, 5, -1, 3), 2, 1).reshape(-1, 5, 3)
    options = {"return_sequences": True, "go_backwards": backwards}
    ours, plain = kind(6, 1, **options), layers.LSTM(6, **options)
    pixels = len(rows) // 4
    y = ours(x, mask=MASK, training=True)
    plain.build_once((None, 5, 3))
    plain.set_weights(
        [w.reshape(p.shape) for w, p in zip(ours.get_weights(), plain.weights, strict=True)]
    )
    expected = plain(rows, mask=np.repeat(MASK, pixels, axis=0), training=True)

    def by_pixel(a):
        return np.moveaxis(a.reshape(4, 5, pixels, -1), 2, 1).reshape(len(rows), 5, -1)

    np.testing.assert_allclose(by_pixel(y), expected, atol=1e-6)
    dy = images(*y.shape)
    dx, dx_rows = ours.backward(dy), plain.backward(by_pixel(dy).copy())
    np.testing.assert_allclose(by_pixel(dx), dx_rows, atol=1e-5)
    for ours_w, plain_w in zip(ours.weights, plain.weights, strict=True):
        gradient = ours_w.gradient.reshape(plain_w.shape)
        np.testing.assert_allclose(gradient, plain_w.gradient, atol=2e-5)


def test_outputs_and_gradients_agree_with_torch():
    torch = pytest.importorskip("torch")
    x = images(2, 3, 6, 5, 2)
    layer = layers.ConvLSTM2D(3, (3, 2), strides=(1, 2), return_sequences=True)
    y = layer(x, training=True)
    w, u, b = (torch.tensor(value, requires_grad=True) for value in layer.get_weights())
    data = torch.tensor(x, requires_grad=True)

    def convolve(images, weights, **options):
        out = torch.nn.functional.conv2d(
            images.permute(0, 3, 1, 2), weights.permute(3, 2, 0, 1), **options
        )
        return out.permute(0, 2, 3, 1)

    h = c = torch.zeros(2, *y.shape[2:])
    expected = []
    for step in range(3):
        seen = convolve(torch.nn.functional.pad(h, (0, 0, 0, 1, 1, 1)), u)  # an odd one behind
        sums = convolve(data[:, step], w, stride=(1, 2)) + b + seen
        i, f, g, o = sums.chunk(4, 3)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        expected.append(h)
    expected = torch.stack(expected, 1)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-6)
    dy = images(*y.shape)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(layer.backward(dy), data.grad.numpy(), atol=1e-5)
    for weight, theirs in zip(layer.weights, (w, u, b), strict=True):
        np.testing.assert_allclose(weight.gradient, theirs.grad.numpy(), atol=2e-5)


def test_a_masked_step_leaves_everything_as_it_was():
    x = images(4, 5, 4, 3, 2)
    layer = layers.ConvLSTM2D(3, 3, padding="same", return_sequences=True)
    y, whole = layer(x, mask=MASK), layer(x)
    np.testing.assert_array_equal(y[3], whole[3])
    np.testing.assert_array_equal(y[2], 0)
    np.testing.assert_array_equal(y[0, 1], y[0, 0])
    last = twin(layer, x)
    np.testing.assert_array_equal(y[:, -1], last(x, mask=MASK))
    for row in range(2):
        np.testing.assert_allclose(
            last(x, mask=MASK)[row], last(x[row, MASK[row] == 1][None])[0], atol=1e-6
        )


def test_going_backwards_is_going_forward_on_the_reversed_sequence():
    x = images(4, 5, 4, 2)
    layer = layers.ConvLSTM1D(3, 3, padding="same", return_sequences=True)
    y, turned = layer(x, training=True), x[:, ::-1]
    backwards = twin(layer, x, return_sequences=True, go_backwards=True)
    np.testing.assert_array_equal(backwards(turned, training=True), y)
    dy = images(*y.shape)
    np.testing.assert_array_equal(backwards.backward(dy), layer.backward(dy)[:, ::-1])
    np.testing.assert_array_equal(backwards.weights[0].gradient, layer.weights[0].gradient)
    assert layers.ConvLSTM1D(1, 1)(x, mask=MASK).shape == (4, 4, 1)
    np.testing.assert_array_equal(
        backwards(turned, mask=MASK[:, ::-1])[:, -1], layer(x, mask=MASK)[:, -1]
    )


@pytest.mark.parametrize("cuts", [(4,), (1, 3), (2, 1, 1)])
def test_a_stateful_layer_goes_on_where_it_stopped(cuts):
    x = images(2, 4, 4, 3, 1)
    layer = layers.ConvLSTM2D(2, 3, padding="same")
    expected = layer(x)
    keeping = layers.ConvLSTM2D(2, 3, padding="same", stateful=True)
    model = Sequential([layers.Input(batch_shape=(2, None, 4, 3, 1)), keeping])
    model.set_weights(layer.get_weights())
    for _ in range(2):
        start = 0
        for cut in cuts:
            y = model.predict(x[:, start : start + cut])
            start += cut
        np.testing.assert_allclose(y, expected, atol=1e-6)
        keeping.reset_states()


def test_shapes_may_change_between_calls_and_prediction_equals_training():
    layer = layers.ConvLSTM2D(5, 3, padding="same")
    for batch, steps, size in ((2, 3, 4), (5, 2, 9), (1, 1, 1), (2, 6, 5), (2, 3, 4)):
        x = images(batch, steps, size, size + 1, 2)
        y = layer(x)
        np.testing.assert_array_equal(y, twin(layer, x)(x))
        np.testing.assert_array_equal(layer(x, training=True), y)


def test_prediction_keeps_two_steps_and_no_history():
    layer = layers.ConvLSTM1D(3, 3, padding="same")
    layer(images(2, 50, 6, 1))
    sizes = {name: buffer.memory.size for name, buffer in layer._buffers.items()}
    assert sizes["state 0"] == sizes["state 1"] == 2 * 2 * 6 * 3
    assert sizes["gates"] == 2 * 6 * 12


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_both_devices_train_alike(dropout):
    x, trained = images(3, 4, 4, 3, 2), []
    for device in ("numpy", "cpu"):
        hidden = layers.ConvLSTM2D(
            3, 2, strides=2, padding="same", dropout=dropout, recurrent_dropout=dropout
        )
        model = Sequential([hidden, layers.Flatten(), layers.Dense(1)], device=device, seed=0)
        model.compile("sgd", "mse")
        model.fit(x, x[:, 0, 0, 0, :1], epochs=2, batch_size=2, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for numpy, cpu in zip(*trained, strict=True):
        np.testing.assert_allclose(cpu, numpy, atol=1e-6)


def test_dropped_elements_are_the_same_at_all_steps():
    x = np.ones((4, 3, 5, 4, 2), np.float32)
    layer = layers.ConvLSTM2D(
        2, 1, activation="linear", recurrent_activation="linear", dropout=0.5, seed=1
    )
    layer.build_once((None, *x.shape[1:]))
    layer(x, training=True)
    seen = layer._saved[1].reshape(3, 4, -1)  # time-major
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], seen[2])
    assert set(np.unique(seen)) == {0.0, 2.0}
    assert len(np.unique(seen[0], axis=0)) == 4
    np.testing.assert_array_equal(layer(x), twin_of_one_pixel(layer, x)(x))


def twin_of_one_pixel(layer, x):
    """The same weights without dropout."""
    other = layers.ConvLSTM2D(2, 1, activation="linear", recurrent_activation="linear")
    other.build_once((None, *x.shape[1:]))
    other.set_weights(layer.get_weights())
    return other


def test_recurrent_dropout_has_the_gradient_of_what_it_computes():
    """With constant gates the layer is linear in x: <dy, y(x)> is <dx, x>."""
    x = images(2, 4, 3, 3, 1)
    layer = layers.ConvLSTM2D(
        2, 3, padding="same", activation="linear", recurrent_activation="linear",
        dropout=0.3, recurrent_dropout=0.3, return_sequences=True, seed=3,
    )  # fmt: skip
    layer.build_once((None, *x.shape[1:]))
    w, u, b = (weight * 0 for weight in layer.get_weights())
    w[..., 4:6], u[..., 4:6] = images(*w[..., 4:6].shape), images(*u[..., 4:6].shape)
    b[:4], b[6:] = 0.5, 1  # the gates; the candidate, in the middle, is linear
    layer.set_weights([w, u, b])
    y = layer(x, training=True)
    dy = images(*y.shape)
    dx = layer.backward(dy)
    np.testing.assert_allclose(np.vdot(dy, y), np.vdot(dx, x), rtol=1e-4)
    whole = np.vdot(dy, layer(x))
    assert abs(whole - np.vdot(dy, y)) > 1e-2


ERRORS = {
    "channels_first": ({"data_format": "channels_first"}, "channels_last"),
    "causal": ({"padding": "causal"}, "padding"),
    "strides and dilation": ({"strides": 2, "dilation_rate": 2}, "strides or dilation_rate"),
    "return_state": ({"return_state": True}, "return_sequences"),
    "filters": ({"filters": 0}, "filters"),
    "softmax": ({"activation": "softmax"}, "activation"),
    "rate": ({"recurrent_dropout": 1.5}, "recurrent_dropout"),
    "regularizer": ({"kernel_regularizer": "l3"}, "'c'"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_layer_and_say_what_was_expected(case):
    options, expected = ERRORS[case]
    with pytest.raises(ValueError, match=expected) as error:
        layers.ConvLSTM2D(**{"filters": 2, "kernel_size": 3, "name": "c", **options})
    assert "'c'" in str(error.value)
    assert "Received" in str(error.value)


@pytest.mark.parametrize(
    ("options", "shape", "expected"),
    [
        ({}, (None, 3, 4, 4), "batch, steps, height, width, channels"),
        ({}, (None, 3, 2, 4, 1), "extent"),
        ({}, (None, 3, 4, 4, None), "known channels"),
        ({"stateful": True}, (None, 3, 4, 4, 1), "batch_shape"),
        ({"stateful": True}, (2, 3, None, 4, 1), "known height"),
    ],
)
def test_inputs_that_do_not_fit(options, shape, expected):
    layer = layers.ConvLSTM2D(2, 3, **options)
    with pytest.raises(ValueError, match=expected):
        layer.build_once(shape)


def test_a_stateful_layer_keeps_its_shape():
    layer = layers.ConvLSTM2D(2, 3, stateful=True)
    layer(images(2, 3, 4, 4, 1))
    for shape in ((3, 3, 4, 4, 1), (2, 3, 5, 4, 1), (2, 3, 4, 4, 2)):
        with pytest.raises(ValueError, match="Expected"):
            layer(images(*shape))


@pytest.mark.parametrize(
    ("kind", "size", "kernel", "expected"),
    [
        (layers.ConvLSTM2D, (13, 14), 3, "winograd"),
        (layers.ConvLSTM1D, (66,), 5, "winograd_line"),
    ],
)
def test_where_winograds_convolution_pays_it_takes_the_state(kind, size, kernel, expected):
    x = images(3, 4, *size, 2)
    dy = images(3, *size, 32)
    results, options = [], {"padding": "same", "seed": 0}
    for algorithm in (expected, "conv"):
        model = Sequential([kind(32, kernel, **options)], seed=0)
        with mock.patch("minicnnrnn.layers.conv_lstm.fastest", _always(algorithm)):
            y = model(x, training=True).copy()
            dx = model.layers[0].backward(dy).copy()
            results.append(
                [model.predict(x), y, dx, *[w.gradient for w in model.layers[0].weights]]
            )
    untouched = kind(32, kernel, **options)
    untouched(x)
    assert untouched._plan(x.shape).algorithms == ("conv", expected)
    for ours, direct in zip(*results):
        assert np.abs(ours - direct).max() <= 1e-5 * np.abs(direct).max()


def _always(algorithm):
    """One algorithm for the state's convolution, the direct one for the input's."""
    return lambda kernels, sizes: algorithm if sizes[4] == 32 else "conv"
