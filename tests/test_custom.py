"""What users write themselves: layers, penalties, losses, metrics, training loops."""

import numpy as np
import pytest

from minicnnrnn import Sequential, layers, losses
from minicnnrnn.layers import Layer


class Scale(Layer):
    """A factor for every channel."""

    supports_masking = True

    def build(self, input_shape):
        self.add_weight("factor", (input_shape[-1],), self.initializer("ones"))

    def forward(self, x, mask, training):
        y = self.buffer("y", *x.shape)
        np.multiply(x, self.weights[0].value, out=y)
        self._saved = x
        return y, mask

    def backward(self, dy, input_gradient=True):
        weight = self.weights[0]
        if weight.trainable:
            weight.gradient[...] = (dy * self._saved).reshape(-1, weight.size).sum(axis=0)
        if not input_gradient:
            return None
        dx = self.buffer("dx", *dy.shape)
        np.multiply(dy, weight.value, out=dx)
        return dx


class Gaussian(Layer):
    """The middle of a variational autoencoder: mean and log variance in, a sample out.

    Kingma and Welling 2014, arXiv:1312.6114: the penalty is the divergence from a standard
    normal distribution, a mean over the batch.
    """

    noise = 0.7

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] // 2)

    def forward(self, x, mask, training):
        mean, log_variance = np.split(x, 2, axis=-1)
        divergence = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
        self.add_loss(divergence.sum() / len(x))
        self._saved = mean, log_variance
        return np.ascontiguousarray(mean + self.noise * np.exp(log_variance / 2)), mask

    def backward(self, dy, input_gradient=True):
        mean, log_variance = self._saved
        spread = np.exp(log_variance / 2)
        d_mean = dy + mean / len(dy)
        d_log = dy * self.noise * spread / 2 + 0.5 * (spread**2 - 1) / len(dy)
        return np.ascontiguousarray(np.concatenate([d_mean, d_log], axis=-1))


class Quartic(losses.Loss):
    """The mean fourth power of the error."""

    label = "quartic"

    def value(self, kernels, values, y, t):
        values[...] = np.mean((y - t) ** 4, axis=-1)

    def gradient(self, kernels, dy, y, t, weights, fused=False):
        dy[...] = weights[:, None] * 4 * (y - t) ** 3 / y.shape[-1]


def loss_along(model, x, y, direction, step):
    """The reported loss with all weights moved by `step` along a direction."""
    weights = model.get_weights()
    model.set_weights([w + step * d for w, d in zip(weights, direction)])
    value = model.evaluate(x, y)
    model.set_weights(weights)
    return value[0] if isinstance(value, list) else value


def assert_steps_go_down_the_loss(model, x, y):
    """One step of gradient descent moves the weights by the gradient of the reported loss."""
    rng = np.random.default_rng(0)
    model.compile("sgd", model.loss or "mse")
    model.optimizer.learning_rate = 1e-3
    model.evaluate(x, y)
    before = model.get_weights()
    direction = [rng.standard_normal(w.shape).astype(np.float32) for w in before]
    ends = [loss_along(model, x, y, direction, step) for step in (1e-2, -1e-2)]
    numeric = (ends[0] - ends[1]) / 2e-2
    model.train_on_batch(x, y)
    moved = sum(np.sum((a - b) * d) for a, b, d in zip(before, model.get_weights(), direction))
    assert moved / 1e-3 == pytest.approx(numeric, rel=2e-2, abs=2e-3)


RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 4)).astype(np.float32)


def test_a_layer_with_weights():
    model = Sequential([layers.Dense(3, activation="tanh"), Scale(), layers.Dense(4)], seed=0)
    assert_steps_go_down_the_loss(model, X, X)
    assert [w.shape for w in model.get_weights()] == [(4, 3), (3,), (3,), (3, 4), (4,)]


def test_the_penalty_of_a_variational_autoencoder():
    model = Sequential([layers.Dense(6), Gaussian(), layers.Dense(4)], seed=1)
    assert_steps_go_down_the_loss(model, X, X)


@pytest.mark.parametrize("penalty", ["l1", "l2", "l1_l2"])
@pytest.mark.parametrize("activity", [None, "l2"])
def test_penalties_on_weights_and_outputs(penalty, activity):
    dense = layers.Dense(
        5, kernel_regularizer=penalty, bias_regularizer="l2", activity_regularizer=activity
    )
    assert_steps_go_down_the_loss(Sequential([dense, layers.Dense(4)], seed=2), X, X)


def test_a_penalty_on_the_last_output_is_not_lost_in_a_fused_gradient():
    dense = layers.Dense(3, activation="softmax", activity_regularizer="l2")
    model = Sequential([dense], seed=3)
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert_steps_go_down_the_loss(model, X, np.array([0, 1, 2, 2, 1, 0]))


def test_the_penalty_of_what_is_frozen_is_not_counted():
    model = Sequential([layers.Dense(3, kernel_regularizer="l2"), layers.Dense(4)], seed=0)
    model.compile("sgd", "mse")
    with_penalty = model.evaluate(X, X)
    kernel = model.get_weights()[0]
    model.layers[0].trainable = False
    assert with_penalty - model.evaluate(X, X) == pytest.approx(0.01 * np.sum(kernel**2), rel=1e-4)


def test_a_loss():
    model = Sequential([layers.Dense(4)], seed=0)
    model.compile("sgd", Quartic())
    expected = np.mean((model.predict(X) - X) ** 4)
    assert model.evaluate(X, X) == pytest.approx(expected, rel=1e-5)
    assert_steps_go_down_the_loss(model, X, X)


def test_a_training_loop_of_three_verbs():
    """Gradient descent on the distance to a target, without fit."""
    model = Sequential([layers.Dense(4)], seed=0)
    model.compile("sgd")
    y = model(X, training=True)
    first = np.mean((y - X) ** 2)
    for _ in range(100):
        y, _ = model.forward(X, None, True)
        model.backward((y - X) / 6)
        model.update()
    assert np.mean((model.predict(X) - X) ** 2) < first / 5
