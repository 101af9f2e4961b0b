"""Bidirectional and TimeDistributed: two readings and many steps, against plain layers."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import Sequential, layers

SIZES = st.integers(1, 4)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 5, 4)).astype(np.float32)
MASK = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]], np.uint8)
MERGES = {
    "concat": lambda a, b: np.concatenate([a, b], -1),
    "sum": np.add,
    "mul": np.multiply,
    "ave": lambda a, b: (a + b) / 2,
}


@settings(max_examples=10)
@given(SIZES, SIZES, SIZES, SIZES, st.booleans(), st.sampled_from(sorted(MERGES)))
def test_predicted_shapes_are_actual_shapes(batch, length, channels, units, every, mode):
    x = np.zeros((batch, length, channels), np.float32)
    wrapped = layers.SimpleRNN(units, return_sequences=every)
    layer = layers.Bidirectional(wrapped, merge_mode=mode)
    assert layer.compute_output_shape(x.shape) == layer(x).shape
    spread = layers.TimeDistributed(layers.Dense(units))
    assert spread.compute_output_shape(x.shape) == spread(x).shape
    assert spread.compute_output_shape((None, None, channels)) == (None, None, units)


@pytest.mark.parametrize("mode", sorted(MERGES))
@pytest.mark.parametrize("sequences", [False, True])
def test_bidirectional_is_two_layers(mode, sequences):
    wrapped = layers.GRU(3, return_sequences=sequences)
    both = layers.Bidirectional(wrapped, merge_mode=mode)
    y = both(X, mask=MASK)
    there = layers.GRU(3, return_sequences=sequences)
    back = layers.GRU(3, return_sequences=sequences, go_backwards=True)
    for layer, weights in ((there, both.get_weights()[:3]), (back, both.get_weights()[3:])):
        layer.build_once((None, 5, 4))
        layer.set_weights(weights)
    a, b = there(X, mask=MASK), back(X, mask=MASK)
    expected = MERGES[mode](a, b[:, ::-1] if sequences else b)
    if sequences:
        expected[MASK == 0] = 0  # where a layer on its own repeats its last output
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("mode", sorted(MERGES))
@pytest.mark.parametrize("sequences", [False, True])
def test_gradients_by_differences(mode, sequences):
    wrapped = layers.SimpleRNN(3, return_sequences=sequences)
    layer = layers.Bidirectional(wrapped, merge_mode=mode)
    y = layer(X, training=True, mask=MASK)
    u, v = RNG.standard_normal(y.shape).astype(np.float32), RNG.standard_normal(X.shape)
    analytic = np.sum(layer.backward(u) * v)
    step = 1e-2
    ends = [layer((X + sign * step * v).astype(np.float32), mask=MASK) for sign in (1, -1)]
    numeric = np.sum(u * (ends[0].astype(np.float64) - ends[1])) / (2 * step)
    assert analytic == pytest.approx(numeric, rel=1e-2, abs=1e-3)


def test_names_and_order_of_weights():
    layer = layers.Bidirectional(layers.LSTM(3, name="lstm"))
    assert (layer.forward_layer.name, layer.backward_layer.name) == (
        "forward_lstm",
        "backward_lstm",
    )
    layer.build_once((None, None, 4))
    shapes = [(4, 12), (3, 12), (12,)]
    assert [w.shape for w in layer.weights] == shapes * 2
    assert layer.weights[:3] == layer.forward_layer.weights
    first, second = layer.get_weights()[0], layer.get_weights()[3]
    assert not np.array_equal(first, second)


def test_a_layer_that_was_used_lends_its_arguments_alone():
    used = layers.SimpleRNN(3, activation="relu", name="used")
    model = Sequential([used])
    model.predict(X)
    layer = layers.Bidirectional(used)
    layer(X)
    assert used.owner is model
    assert layer.forward_layer.codes == used.codes
    assert not np.array_equal(layer.get_weights()[0], used.get_weights()[0])


def test_initial_weights():
    given = [RNG.standard_normal(s).astype(np.float32) for s in [(4, 3), (3, 3), (3,)] * 2]
    layer = layers.Bidirectional(layers.SimpleRNN(3), weights=given)
    layer.build_once((None, 5, 4))
    for array, weight in zip(given, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, array)
    layer = layers.Bidirectional(layers.SimpleRNN(3), weights=given[:3], name="two")
    with pytest.raises(ValueError, match="layer 'two': Expected weights of shapes"):
        layer.build_once((None, 5, 4))
    assert not layer.built
    assert not layer.forward_layer.built


def test_states_last_until_they_are_reset():
    layer = layers.Bidirectional(layers.GRU(3, stateful=True))
    first, second = layer(X), layer(X)
    assert not np.array_equal(first, second)
    layer.reset_states()
    np.testing.assert_array_equal(layer(X), first)
    with pytest.raises(ValueError, match="batches of 3 samples"):
        layer(X[:2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"merge_mode": None}, r"merge_mode to be one of .* a model has one output"),
        ({"merge_mode": "max"}, "merge_mode to be one of"),
        ({"layer": layers.Dense(3)}, "a recurrent layer"),
        ({"layer": layers.LSTM(3, go_backwards=True)}, "one layer with go_backwards and one"),
        ({"backward_layer": layers.LSTM(3)}, "one layer with go_backwards and one"),
        (
            {"backward_layer": layers.LSTM(3, go_backwards=True, return_sequences=True)},
            "the same return_sequences in both directions",
        ),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=rf"layer 'two': Expected {message}"):
        layers.Bidirectional(**({"layer": layers.LSTM(3)} | arguments), name="two")


def test_directions_that_do_not_fit():
    other = layers.LSTM(2, go_backwards=True)
    layer = layers.Bidirectional(layers.LSTM(3), merge_mode="sum", backward_layer=other)
    with pytest.raises(ValueError, match="directions that end in shapes for 'sum'"):
        layer.build_once((None, 5, 4))
    third = layers.LSTM(2, go_backwards=True)
    assert layers.Bidirectional(layers.LSTM(3), backward_layer=third)(X).shape == (3, 5)
    with pytest.raises(ValueError, match="lives in a model already"):
        layers.Bidirectional(layers.LSTM(3), backward_layer=third)


@pytest.mark.parametrize("kind", ["bidirectional", "time_distributed"])
def test_frozen_copied_and_pickled(kind):
    make = {
        "bidirectional": lambda: layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
        "time_distributed": lambda: layers.TimeDistributed(layers.Dense(2)),
    }[kind]
    model = Sequential([make(), layers.Dense(1)], seed=0)
    model.compile("sgd", "mse")
    model.layers[0].trainable = False
    model.fit(X, X[..., :1], verbose=0)
    trained = model.get_weights()
    model.train_on_batch(X, X[..., :1])
    after = model.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(trained[:-2], after[:-2], strict=True))
    assert not np.array_equal(trained[-2], after[-2])
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    assert all(child.owner is twin.layers[0] for child in twin.layers[0].children)


def test_devices_agree():
    losses = []
    for device in ("numpy", "cpu"):
        stack = [
            layers.TimeDistributed(layers.Conv2D(2, 2, activation="relu")),
            layers.TimeDistributed(layers.Flatten()),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True), merge_mode="mul"),
            layers.Bidirectional(layers.GRU(2)),
        ]
        made = Sequential(stack, seed=0, device=device)
        made.compile("sgd", "mse")
        x = np.random.default_rng(0).standard_normal((2, 3, 4, 4, 1))
        losses.append([made.train_on_batch(x, np.ones((2, 4))) for _ in range(3)])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_time_distributed_is_the_layer_on_every_step():
    x = RNG.standard_normal((2, 3, 5, 4, 2)).astype(np.float32)
    layer = layers.TimeDistributed(layers.Conv2D(3, 2))
    y = layer(x)
    for step in range(3):
        np.testing.assert_array_equal(y[:, step], layer.layer(x[:, step]))


def test_the_last_activation_is_the_layers():
    dense = layers.Dense(3, activation="softmax")
    model = Sequential([layers.TimeDistributed(dense)], seed=0)
    model.fit(X, RNG.integers(0, 3, (3, 5)), verbose=0)  # softmax and labels imply the loss
    assert model.loss.sparse
    assert model.last_activation() is dense.activation


@pytest.mark.parametrize("penalty", [None, "l2"])
def test_fused_or_not_the_gradient_is_the_same(penalty):
    # The penalty lies between softmax and loss, so that their derivatives cannot be fused.
    stack = [layers.TimeDistributed(layers.Dense(3, activation="softmax"),
                                    activity_regularizer=penalty)]  # fmt: skip
    model = Sequential(stack, seed=0)
    model.compile("sgd", "categorical_crossentropy")
    y = np.eye(3)[RNG.integers(0, 3, (3, 5))]
    model.build(X.shape)
    start, step = model.get_weights(), 1e-2
    model.train_on_batch(X, y)
    way = (start[0] - model.get_weights()[0]) / 0.01
    for at in ((0, 0), (3, 2)):
        ends = []
        for sign in (1, -1):
            moved = [weight.copy() for weight in start]
            moved[0][at] += sign * step
            model.set_weights(moved)
            ends.append(model.evaluate(X, y))
        assert way[at] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-2, abs=1e-4)


def test_a_mask_goes_past_time_distributed():
    model = Sequential([layers.Masking(), layers.TimeDistributed(layers.Dense(2)), layers.GRU(2)])
    x = X[:1].copy()
    x[:, 3:] = 0
    np.testing.assert_array_equal(model.predict(x), model.predict(x[:, :3]))


def test_time_distributed_needs_steps():
    with pytest.raises(ValueError, match="of at least three axes"):
        layers.TimeDistributed(layers.Dense(2)).build_once((None, 4))
    with pytest.raises(ValueError, match="a layer without stateful=True inside"):
        layers.TimeDistributed(Sequential([layers.GRU(2, stateful=True)]))
    with pytest.raises(TypeError, match="Expected a Layer"):
        layers.TimeDistributed(3)


def test_ids_are_checked_through_the_wrapper():
    model = Sequential([layers.TimeDistributed(layers.Embedding(4, 2))])
    assert model.predict(np.array([[[1, 3]]])).shape == (1, 1, 2, 2)
    with pytest.raises(ValueError, match="Expected ids from 0 to 3"):
        model.predict(np.array([[[1, 4]]]))
