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


# --- dropout ---------------------------------------------------------------------------


def linear_rnn(units, recurrent=0.0, seed=None, **options):
    """``h = x + recurrent h``, whose outputs show what was dropped."""
    layer = layers.SimpleRNN(
        units, activation=None, use_bias=False, return_sequences=True, seed=seed, **options
    )
    layer.build_once((None, None, units))
    eye = np.eye(units, dtype=np.float32)
    layer.set_weights([eye, recurrent * eye])
    return layer


def test_dropped_channels_are_the_same_at_all_steps_and_others_for_each_sample():
    layer, x = linear_rnn(500, dropout=0.2), np.ones((8, 4, 500), np.float32)
    np.testing.assert_array_equal(layer(x), 1)
    y = layer(x, training=True)
    np.testing.assert_array_equal(y, y[:, :1].repeat(4, axis=1))
    kept = y[:, 0] > 0
    np.testing.assert_array_equal(y[:, 0], np.where(kept, np.float32(1.25), 0))
    deviation = (0.2 * 0.8 / kept.size) ** 0.5
    assert abs(kept.mean() - 0.8) < 4 * deviation
    assert len(np.unique(kept, axis=0)) == 8


def test_dropped_units_are_the_same_at_all_steps_and_not_those_of_the_input():
    x = np.zeros((8, 4, 500), np.float32)
    x[:, 0] = 1  # then h is what the recurrent connection leaves of it
    layer = linear_rnn(500, 1.0, dropout=0.0, recurrent_dropout=0.2)
    np.testing.assert_array_equal(layer(x), 1)
    y = layer(x, training=True)
    keep = y[:, 1]
    for step in range(4):
        np.testing.assert_allclose(y[:, step], keep**step, rtol=1e-6)
    assert set(np.unique(keep)) == {0, np.float32(1.25)}
    assert abs((keep > 0).mean() - 0.8) < 4 * (0.2 * 0.8 / keep.size) ** 0.5
    assert len(np.unique(keep, axis=0)) == 8
    both = linear_rnn(500, 1.0, dropout=0.2, recurrent_dropout=0.2)
    y = both(x, training=True)
    together = ((y[:, 0] > 0) & (both._saved[5] > 0)).mean()
    assert abs(together - 0.64) < 0.05  # independent of each other


def test_seeds_and_steps_decide_what_is_dropped():
    x = np.ones((2, 1, 100), np.float32)

    def dropped(seed, step, stream=None):
        layer = layers.SimpleRNN(3, dropout=0.5, seed=seed)
        Sequential([layer], seed=stream).predict(x)
        layer.context.random_state[1] = step
        layer(x, training=True)
        return layer._saved[4].copy()

    np.testing.assert_array_equal(dropped(1, 0), dropped(1, 0))
    np.testing.assert_array_equal(dropped(None, 3, 7), dropped(None, 3, 7))
    for one, other in ((dropped(1, 0), dropped(2, 0)), (dropped(1, 0), dropped(1, 1))):
        assert (one != other).mean() > 0.2
    assert (dropped(None, 3, 7) != dropped(None, 3, 8)).mean() > 0.2


def test_everything_can_be_dropped():
    x = np.ones((2, 3, 4), np.float32)
    np.testing.assert_array_equal(linear_rnn(4, dropout=1)(x, training=True), 0)
    np.testing.assert_array_equal(linear_rnn(4, 1.0, recurrent_dropout=1)(x, training=True), 1)


@KINDS
def test_only_training_drops(kind):
    layer, x = kind(5, dropout=0.5, recurrent_dropout=0.5), steps(4, 6, 3)
    y = layer(x)
    np.testing.assert_array_equal(twin(layer, x)(x), y)
    dropped = layer(x, training=True)
    assert not np.allclose(dropped, y)
    np.testing.assert_array_equal(layer(x, training=True), dropped)  # the same train step


@KINDS
@pytest.mark.parametrize("masked", [False, True])
def test_dropout_is_the_layer_on_dropped_inputs(kind, masked):
    """Forward and back; so dx is the plain layer's, dropped in the same places."""
    layer, x = kind(5, dropout=0.4), steps(4, 6, 3)
    mask = np.random.default_rng(1).integers(0, 2, (4, 6)) if masked else None
    y = layer(x, training=True, mask=mask)
    factors = layer._saved[4][:, None].copy()
    plain = twin(layer, x)
    np.testing.assert_array_equal(plain(x * factors, training=True, mask=mask), y)
    dy = steps(4, 5)
    np.testing.assert_array_equal(layer.backward(dy), plain.backward(dy) * factors)
    for dropping, other in zip(layer.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(dropping.gradient, other.gradient)


@KINDS
def test_dropout_trains_alike_on_both_devices(kind):
    x, trained = steps(5, 4, 3), []
    for device in ("numpy", "cpu"):
        hidden = kind(4, dropout=0.3, recurrent_dropout=0.3, go_backwards=True)
        model = Sequential([hidden, layers.Dense(1)], device=device, seed=0)
        model.compile("sgd", "mse")
        model.fit(x, x[:, 0, :1], epochs=3, batch_size=2, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for numpy, cpu in zip(*trained, strict=True):
        np.testing.assert_allclose(cpu, numpy, atol=1e-6)


# --- regularizers, constraints, refusals -----------------------------------------------


@KINDS
def test_every_weight_has_its_regularizer_and_its_constraint(kind):
    layer = kind(
        4, kernel_regularizer="l2", recurrent_regularizer="l1", bias_regularizer="l2",
        kernel_constraint="unit_norm", recurrent_constraint="max_norm",
        bias_constraint="non_neg", activity_regularizer="l1",
    )  # fmt: skip
    layer.build_once((None, 5, 3))
    kinds = [(type(w.regularizer).__name__, type(w.constraint).__name__) for w in layer.weights]
    assert kinds == [("L2", "UnitNorm"), ("L1", "MaxNorm"), ("L2", "NonNeg")]
    assert type(layer.activity_regularizer).__name__ == "L1"


ERRORS = {
    "dropout": -0.1,
    "recurrent_dropout": "0.5",
    "seed": -1,
    "return_state": True,
    "unroll": True,
    "kernel_regularizer": "l3",
    "recurrent_constraint": "max",
    "activation": "softmax",
    "units": 0,
}


@KINDS
@pytest.mark.parametrize("argument", ERRORS)
def test_errors_name_the_layer_and_the_argument(kind, argument):
    with pytest.raises((ValueError, TypeError), match="layer 'r'") as error:
        kind(**{"units": 3, "name": "r", argument: ERRORS[argument]})
    assert argument.split("_")[-1] in str(error.value)
    assert "Received" in str(error.value)
