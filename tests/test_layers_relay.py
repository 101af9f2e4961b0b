"""Memory that gradients are handed on in: nobody reads what has been given back."""

import numpy as np
import pytest

from minicnnrnn import Sequential, layers
from minicnnrnn.layers.relay import Relay


def ways(merge):
    return layers.Branches(
        [],
        [layers.Conv2D(4, 1, activation="relu")],
        [layers.Dropout(0.5), layers.Activation("tanh"), layers.Branches([], [], merge=merge)]
        + [layers.Conv2D(4, 1)] * (merge == "concat"),
        merge=merge,
    )


IMAGES, STEPS = (6, 6, 4), (5, 6)
MODELS = {
    "branches": (
        IMAGES,
        [layers.Conv2D(4, 3, padding="same", activation="relu")]
        + [ways(merge) for merge in ("add", "mul", "average", "max", "concat")]
        + [layers.Flatten(), layers.Reshape((6, -1)), layers.Dense(3, activation="relu")],
    ),
    "residual": (
        IMAGES,
        [
            layers.Residual([], activation="relu"),
            layers.Residual([layers.Conv2D(4, 3, padding="same")], [], activation="tanh"),
            layers.Residual([layers.Residual([layers.Dense(4, activation="sigmoid")])]),
            layers.Residual([layers.DepthwiseConv2D(3, padding="same")], activation="relu"),
            layers.Residual([layers.Dense(4)], [layers.Dense(4)], activation="relu"),
        ],
    ),
    "convolutions": (
        IMAGES,
        [
            layers.Conv2DTranspose(3, 2, activation="tanh"),
            layers.SeparableConv2D(5, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.PReLU(),
            layers.UpSampling2D(),
            layers.MaxPooling2D(),
            layers.DepthwiseConv2D(2, activation="gelu"),
            layers.Permute((2, 1, 3)),
            layers.GroupNormalization(2, axis=1),
            layers.ZeroPadding2D(),
            layers.Softmax(axis=1),
            layers.GlobalAveragePooling2D(),
            layers.RepeatVector(3),
            layers.ActivityRegularization(l2=0.1),
        ],
    ),
    "recurrent": (
        STEPS,
        [
            layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(6, activation="relu")),
            layers.TimeDistributed(Sequential([layers.Dense(6), layers.BatchNormalization()])),
            layers.LayerNormalization(activity_regularizer="l2"),
            layers.Bidirectional(layers.GRU(3), merge_mode="mul"),
            layers.RepeatVector(4),
            layers.Reshape((2, 6, 1)),
            layers.ConvLSTM1D(2, 2, return_sequences=True),
            layers.Reshape((2, -1)),
            layers.SimpleRNN(3, dropout=0.3),
        ],
    ),
}


def two_steps(model, sample):
    """The gradients of all weights and of the input after each of two passes."""
    rng = np.random.default_rng(0)
    for _ in range(2):
        x = rng.standard_normal((3, *sample)).astype(np.float32)
        y = model.forward(x, None, True)[0]
        dy = rng.standard_normal(y.shape).astype(np.float32)
        yield np.array(model.backward(dy, input_gradient=True))
        yield from (np.array(w.gradient) for w in model.weights if w.trainable)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_given_back_is_not_read_again(name, monkeypatch):
    sample, stack = MODELS[name]
    model = Sequential([layers.Input(sample), *stack], seed=0)
    model(np.zeros((3, *sample)))
    model.context.parameters.allocate_gradients()
    give_back, spoilt = Relay.give_back, []

    def spoil(relay, array, *wanted):
        held = len(relay._held)
        give_back(relay, array, *wanted)
        if len(relay._held) < held:
            spoilt.append(array.size)
            (array if array.base is None else array.base.view(np.float32))[...] = np.nan

    monkeypatch.setattr(Relay, "give_back", lambda relay, array, *wanted: None)
    expected = list(two_steps(model, sample))
    assert not spoilt
    monkeypatch.setattr(Relay, "give_back", spoil)
    found = list(two_steps(model, sample))
    memories = [m.memory.size for m in model.context.gradients._memories]
    list(two_steps(model, sample))
    assert spoilt
    assert [m.memory.size for m in model.context.gradients._memories] == memories
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_chain_does_with_two_memories():
    model = Sequential([layers.Input((8,))] + [layers.Dense(8) for _ in range(9)])
    model.compile("sgd", "mse")
    for rows in (5, 5, 7, 2, 5):
        x = np.zeros((rows, 8), np.float32)
        model.train_on_batch(x, x)
        assert len(model.context.gradients._memories) == 2


def test_a_gradient_may_go_round_and_round():
    model = Sequential([layers.Input((4,)), layers.Dense(4)], seed=0)
    model(np.zeros((3, 4)))
    model.context.parameters.allocate_gradients()
    w = model.get_weights()[0].astype(float)
    dy = expected = np.ones((3, 4), np.float32)
    for _ in range(3):
        model.forward(np.ones((3, 4), np.float32), None, True)
        dy, expected = model.backward(dy, input_gradient=True), expected @ w.T
        np.testing.assert_allclose(dy, expected, rtol=1e-5)


def test_predictions_and_train_steps_take_turns():
    """Train steps share a workspace, predictions find their packed weights."""
    stack = [
        layers.Conv2D(8, 3),
        layers.Conv2D(5, 3),
        layers.SeparableConv2D(4, 2),
        layers.Dense(3),
    ]
    model = Sequential([layers.Input((9, 9, 3)), *stack], seed=1)
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 9, 9, 3)), rng.standard_normal((4, 4, 4, 3))
    for _ in range(3):
        before = model.predict_on_batch(x)
        np.testing.assert_array_equal(model.predict_on_batch(x), before)
        model.train_on_batch(x, y)
        fresh = Sequential.from_config(model.get_config())
        fresh.build()
        fresh.set_weights(model.get_weights())
        np.testing.assert_array_equal(model.predict_on_batch(x), fresh.predict_on_batch(x))
        assert not np.array_equal(model.predict_on_batch(x), before)
