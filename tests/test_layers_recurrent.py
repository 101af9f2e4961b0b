"""SimpleRNN, LSTM, GRU: shapes, masks, states, directions, and agreement with PyTorch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import Sequential, layers

KINDS = pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.LSTM, layers.GRU])
SIZES = st.integers(1, 6)


def steps(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def twin(layer, x, **options):
    """A layer with the same weights and other options."""
    other = type(layer)(layer.units, **options)
    other.build_once((None, *x.shape[1:]))
    other.set_weights(layer.get_weights())
    return other


@settings(max_examples=10)
@given(SIZES, SIZES, SIZES, SIZES, st.booleans(), st.booleans())
def test_predicted_shapes_are_actual_shapes(batch, length, channels, units, every, backwards):
    x = np.zeros((batch, length, channels), np.float32)
    for kind in (layers.SimpleRNN, layers.LSTM, layers.GRU):
        layer = kind(units, return_sequences=every, go_backwards=backwards)
        assert layer.compute_output_shape(x.shape) == layer(x).shape


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_sequences_and_gradients_agree_with_torch(name):
    torch = pytest.importorskip("torch")
    x, U = steps(3, 5, 4), 6
    layer = getattr(layers, name)(U, return_sequences=True)
    y = layer(x, training=True)
    weights = layer.get_weights()
    # Theirs: gates i, f, g, o and r, z, n; and 1 - z where Keras has z.
    order = {"SimpleRNN": [0], "LSTM": [0, 1, 2, 3], "GRU": [1, 0, 2]}[name]
    pick = np.concatenate([np.arange(g * U, (g + 1) * U) for g in order])
    other = getattr(torch.nn, {"SimpleRNN": "RNN"}.get(name, name))(4, U, batch_first=True)
    bias = np.atleast_2d(weights[2])
    bias = bias if len(bias) == 2 else np.stack([bias[0], 0 * bias[0]])
    given_weights = [weights[0][:, pick].T, weights[1][:, pick].T, bias[0, pick], bias[1, pick]]
    with torch.no_grad():
        for parameter, value in zip(other.parameters(), given_weights, strict=True):
            parameter.copy_(torch.tensor(np.ascontiguousarray(value)))
    data = torch.tensor(x, requires_grad=True)
    expected = other(data)[0]
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-6)
    dy = steps(3, 5, U)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(layer.backward(dy), data.grad.numpy(), atol=1e-5)
    for weight, theirs in zip(layer.weights[:2], other.parameters(), strict=False):
        np.testing.assert_allclose(weight.gradient[:, pick], theirs.grad.numpy().T, atol=1e-5)


@KINDS
def test_a_masked_step_leaves_everything_as_it_was(kind):
    layer, x = kind(5, return_sequences=True), steps(4, 6, 3)
    mask = np.array([[1, 1, 0, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0] * 6, [1] * 6])
    y, whole = layer(x, mask=mask), layer(x)
    last = twin(layer, x)
    np.testing.assert_array_equal(y[3], whole[3])
    np.testing.assert_array_equal(y[2], 0)
    np.testing.assert_array_equal(y[0, 2], y[0, 1])
    np.testing.assert_array_equal(y[:, -1], last(x, mask=mask))
    for row in range(2):
        kept = x[row, mask[row] == 1][None]
        np.testing.assert_allclose(last(x, mask=mask)[row], last(kept)[0], atol=1e-6)


@KINDS
def test_going_backwards_is_going_forward_on_the_reversed_sequence(kind):
    layer, x = kind(5, return_sequences=True), steps(2, 6, 3)
    y = layer(x)
    backwards = twin(layer, x, return_sequences=True, go_backwards=True)
    np.testing.assert_array_equal(backwards(x[:, ::-1]), y)
    mask = np.array([[1, 0, 1, 1, 0, 1], [0, 0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(
        backwards(x[:, ::-1], mask=mask[:, ::-1])[:, -1], layer(x, mask=mask)[:, -1]
    )


@KINDS
@pytest.mark.parametrize("cuts", [(6,), (1, 5), (3, 2, 1), (4, 1, 1)])
def test_a_stateful_layer_goes_on_where_it_stopped(kind, cuts):
    layer, x = kind(5), steps(2, 6, 3)
    expected = layer(x)
    keeping = kind(5, stateful=True)
    model = Sequential([layers.Input(batch_shape=(2, None, 3)), keeping])
    model.set_weights(layer.get_weights())
    for _ in range(2):
        start = 0
        for cut in cuts:
            y = model.predict(x[:, start : start + cut])
            start += cut
        np.testing.assert_allclose(y, expected, atol=1e-6)
        keeping.reset_states()


@KINDS
def test_sequences_and_batches_may_grow_and_shrink_between_calls(kind):
    layer = kind(17)
    for batch, length in ((2, 5), (40, 3), (1, 1), (3, 30), (2, 5)):
        x = steps(batch, length, 3)
        np.testing.assert_array_equal(layer(x), (twin(layer, x) if layer.built else layer)(x))
        layer(x, training=True)
        np.testing.assert_array_equal(layer(x), layer(x, training=True))


def test_weights_have_the_shapes_of_keras():
    def shapes_of(layer):
        layer.build_once((None, 5, 3))
        return [weight.shape for weight in layer.weights]

    assert shapes_of(layers.SimpleRNN(4)) == [(3, 4), (4, 4), (4,)]
    assert shapes_of(layers.LSTM(4)) == [(3, 16), (4, 16), (16,)]
    assert shapes_of(layers.GRU(4)) == [(3, 12), (4, 12), (2, 12)]
    assert shapes_of(layers.GRU(4, reset_after=False)) == [(3, 12), (4, 12), (12,)]
    assert shapes_of(layers.GRU(4, use_bias=False)) == [(3, 12), (4, 12)]


def test_the_forget_gate_begins_with_a_bias_of_one():
    for wanted, value in ((True, 1), (False, 0)):
        layer = layers.LSTM(2, unit_forget_bias=wanted)
        layer.build_once((None, 5, 3))
        assert layer.bias.tolist() == [0, 0, value, value, 0, 0, 0, 0]
