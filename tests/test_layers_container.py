"""Chains: what neighbours do for each other changes no result."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from minicnnrnn import Sequential, layers


def block(filters, changes=False, activation="relu"):
    return layers.Residual(
        [
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
        ],
        [layers.Conv2D(filters, 1), layers.BatchNormalization()] if changes else None,
        activation=activation,
    )


CHAINS = {
    "normalized": lambda: [
        layers.Conv2D(5, 3),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(16, 1, use_bias=False),
        layers.BatchNormalization(scale=False, axis=3),
        layers.BatchNormalization(center=False),
        layers.Activation("relu"),
    ],
    "other axis": lambda: [
        layers.Conv2D(4, 2),
        layers.BatchNormalization(axis=1),
        layers.Activation("relu"),
        layers.Conv2D(4, 2, activation="relu"),
        layers.BatchNormalization(trainable=False),
        layers.Activation("relu"),
    ],
    "residual": lambda: [
        block(6, True), block(6), block(6, activation="tanh"), block(6), block(3, True), block(3),
    ],
    "penalties": lambda: [
        layers.Conv2D(4, 3, activity_regularizer="l2"),
        layers.BatchNormalization(activity_regularizer="l2"),
        layers.Activation("relu", activity_regularizer="l2"),
        layers.Residual([layers.Dense(4)], activation="relu", activity_regularizer="l2"),
        layers.Residual([layers.Dense(4)], activation="relu"),
    ],
}  # fmt: skip


def alone(chain, x, training):
    """Every layer by itself, at any depth: nobody knows its neighbours."""
    for layer in chain.layers:
        if isinstance(layer, layers.Residual):
            a, b = (alone(branch, x, training) for branch in layer.children)
            z = layer.buffer("y", *a.shape)
            layer.merge(z, a, b, relu=layer.activation.is_relu)
            x = layer.activation.forward(z, applied=layer.activation.is_relu)
        else:
            x = layer.run_forward(x, None, training)[0]
    return x


def alone_back(chain, dy):
    for layer in reversed(chain.layers):
        if isinstance(layer, layers.Residual):
            dz = layer.activation.backward(dy)
            a, b = (alone_back(branch, dz) for branch in layer.children)
            dy = a + b
        else:
            dy = layer.run_backward(dy, True)
    return dy


def pair(name, seed):
    """Twice the same chain, with statistics that are not those of the start; and some images."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, 7, 6, 3)).astype(np.float32)
    first, second = (Sequential(CHAINS[name](), seed=0) for _ in range(2))
    for model in (first, second):
        model(x)
    moved = [w + 0.5 * rng.random(w.shape) for w in first.get_weights()]
    for model in (first, second):
        model.set_weights(moved)
        model.context.parameters.allocate_gradients()
    return rng, x, first, second


@pytest.mark.parametrize("name", ["normalized", "other axis", "residual"])
@given(seeds)
def test_a_train_step_has_the_bits_of_layers_alone(name, seed):
    rng, x, chain, model = pair(name, seed)
    y = chain.forward(x, None, True)[0]
    np.testing.assert_array_equal(y, alone(model, x, True))
    dy = rng.standard_normal(y.shape).astype(np.float32)
    dx = chain.backward(dy, input_gradient=True)
    np.testing.assert_array_equal(dx, alone_back(model, dy))
    for one, other in zip(chain.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one.value, other.value)
        if one.trainable:
            np.testing.assert_array_equal(one.gradient, other.gradient)


@pytest.mark.parametrize("name", ["normalized", "other axis", "residual"])
@given(seeds, st.integers(1, 3))
def test_predictions_are_near_those_of_layers_alone(name, seed, count):
    _, x, chain, model = pair(name, seed)
    for _ in range(2):
        y = chain(x[:count])
        np.testing.assert_allclose(y, alone(model, x[:count], False), rtol=1e-4, atol=2e-5)
        for each in (chain, model):  # moves the averages, and packs the weights as they are
            each.forward(x, None, True)


def test_predictions_follow_every_change_of_the_weights():
    _, x, chain, model = pair("normalized", 0)
    for values in (
        [2 * w for w in chain.get_weights()],
        [3 * w if w.ndim == 1 else w for w in chain.get_weights()],
    ):
        chain.set_weights(values)
        model.set_weights(values)
        np.testing.assert_allclose(chain(x), alone(model, x, False), rtol=1e-4, atol=2e-5)
    chain.pop(), chain.pop()
    model.pop(), model.pop()
    np.testing.assert_allclose(chain(x), alone(model, x, False), rtol=1e-4, atol=2e-5)


def test_penalties_see_the_outputs_of_their_own_layers():
    rng, x, chain, model = pair("penalties", 0)
    y = chain.forward(x, None, True)[0]
    expected, penalty = x, 0.0
    model.context.penalty[0] = 0
    for layer in model.layers:
        expected = layer.run_forward(expected, None, True)[0]
    np.testing.assert_array_equal(y, expected)
    penalty = model.context.penalty[0]
    assert penalty > 0
    chain.context.penalty[0] = 0
    chain.forward(x, None, True)
    assert chain.context.penalty[0] == penalty
    dy = expected_dy = rng.standard_normal(y.shape).astype(np.float32)
    for layer in reversed(model.layers):
        expected_dy = layer.run_backward(expected_dy, True)
    model_gradients = [w.gradient.copy() for w in model.weights if w.trainable]
    np.testing.assert_array_equal(chain.backward(dy, True), expected_dy)
    for weight, gradient in zip((w for w in chain.weights if w.trainable), model_gradients):
        np.testing.assert_array_equal(weight.gradient, gradient)


class Doubled(layers.BatchNormalization):
    def forward(self, x, mask, training):
        y, mask = super().forward(x, mask, training)
        return 2 * y, mask


class Negative(layers.Activation):
    def forward(self, x, mask, training):
        return -super().forward(x, mask, training)[0], mask


@pytest.mark.parametrize("training", [False, True])
def test_layers_of_ones_own_are_asked(training):
    x = np.random.default_rng(0).standard_normal((4, 5, 5, 3)).astype(np.float32)
    model = Sequential(
        [layers.Conv2D(3, 1), Doubled(), layers.BatchNormalization(), Negative("relu")]
    )
    y = model(x, training=training)
    assert (y <= 0).all()
    plain = model.layers[0](x)
    np.testing.assert_allclose(
        model.layers[1](plain), 2 * layers.BatchNormalization.forward(
            model.layers[1], plain, None, False)[0]
    )  # fmt: skip
    assert y.min() < 0


def test_nan_reaches_the_output_of_a_chain():
    _, x, chain, _ = pair("residual", 0)
    x[0, 3, 3, 1] = np.nan
    for training in (False, True):
        y = chain.forward(x, None, training)[0]
        assert np.isnan(y[0]).any()
