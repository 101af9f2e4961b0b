"""Activation layers: what they compute, masks, gradients, errors."""

import pickle

import numpy as np
import pytest

from minicnnrnn import Sequential, layers
from minicnnrnn.layers.activation import CODES, ROWS

RNG = np.random.default_rng(1)
X = RNG.normal(size=(3, 4, 5)).astype(np.float32)
LAYERS = {
    **{name: (lambda name=name: layers.Activation(name)) for name in (*CODES, *ROWS)},
    "ReLU": layers.ReLU,
    "ReLU 6": lambda: layers.ReLU(6.0),
    "ReLU all": lambda: layers.ReLU(1.5, 0.1, 0.5),
    "LeakyReLU": layers.LeakyReLU,
    "ELU": lambda: layers.ELU(0.5),
    "Softmax": layers.Softmax,
    "Softmax 1": lambda: layers.Softmax(1),
    "Softmax all": lambda: layers.Softmax((1, 2)),
    "PReLU": lambda: layers.PReLU("random_uniform"),
    "PReLU shared": lambda: layers.PReLU("random_uniform", shared_axes=[1]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_shape_input_and_gradient(name):
    layer, x, dy = LAYERS[name](), X.copy(), RNG.normal(size=X.shape).astype(np.float32)
    y = layer(x, training=True)
    assert layer.compute_output_shape(x.shape) == y.shape
    before, copy = dy.copy(), pickle.loads(pickle.dumps(layer))
    dx = np.array(layer.backward(dy))
    np.testing.assert_array_equal(dy, before)
    np.testing.assert_array_equal(copy(x), y)
    direction, step = RNG.normal(size=X.shape).astype(np.float32), 1e-3
    there, back = (layer(x + sign * step * direction).astype(np.float64) for sign in (1, -1))
    slope = np.sum(dy * (there - back)) / (2 * step)
    assert abs(slope - np.sum(dx * direction)) < 0.02 + 0.01 * abs(slope)


def test_softmax_sums_to_one_along_its_axes():
    for axis in (-1, 1, (1, 2), [2]):
        axes = tuple(axis) if isinstance(axis, list) else axis
        np.testing.assert_allclose(layers.Softmax(axis)(X).sum(axis=axes), 1, rtol=1e-6)


def test_softmax_as_the_last_layer_is_known_to_the_loss():
    model = Sequential([layers.Dense(3), layers.Softmax()])
    assert model.fit(RNG.normal(size=(12, 4)), RNG.integers(0, 3, 12), verbose=0).model.loss.sparse
    assert layers.Softmax(1).last_activation() is None


def test_prelu_learns_its_slopes():
    layer = layers.PReLU(shared_axes=[1])
    model = Sequential([layer])
    x, slopes = X[..., :2], np.array([0.3, -0.5])
    model.compile("adam", "mse")
    model.optimizer.learning_rate = 0.05
    model.fit(x, np.maximum(x, 0) + slopes * np.minimum(x, 0), epochs=150, verbose=0)
    assert layer.alpha.shape == (1, 2)
    np.testing.assert_allclose(layer.alpha[0], slopes, atol=0.02)


def test_prelu_takes_other_sizes_along_shared_axes():
    layer = layers.PReLU(shared_axes=[1])
    assert layer(X).shape == X.shape
    assert layer(X[:, :2]).shape == (3, 2, 5)
    with pytest.raises(ValueError, match="slopes of shape"):
        layer(X[..., :2])


def test_a_layer_stands_for_its_activation():
    dense = layers.Dense(5, kernel_initializer="identity", activation=layers.LeakyReLU(0.1))
    np.testing.assert_allclose(dense(X), np.where(X < 0, 0.1 * X, X), rtol=1e-6)


@pytest.mark.parametrize("name", ["relu", "ReLU all", "LeakyReLU", "ELU", "PReLU", "softmax"])
def test_a_mask_passes(name):
    mask = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], np.uint8)
    layer = LAYERS[name]()
    layer(X)
    assert layer.forward(X, mask, False)[1] is mask


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Activation("rleu", name="l"), "activation"),
        (lambda: layers.Activation("glu", name="l"), "activation"),
        (lambda: layers.Dense(3, activation=layers.PReLU(), name="l"), "activation"),
        (lambda: layers.Dense(3, activation=layers.ReLU(2.0), name="l"), "activation"),
        (lambda: layers.ReLU(max_value=-1, name="l"), "max_value"),
        (lambda: layers.ReLU(negative_slope=None, name="l"), "negative_slope"),
        (lambda: layers.ReLU(threshold=-1, name="l"), "threshold"),
        (lambda: layers.LeakyReLU(-0.1, name="l"), "negative_slope"),
        (lambda: layers.ELU("1", name="l"), "alpha"),
        (lambda: layers.Softmax(0, name="l"), "axis"),
        (lambda: layers.Softmax((), name="l"), "axis"),
        (lambda: layers.Softmax(3, name="l")(X), "axes"),
        (lambda: layers.Softmax((1, -2), name="l")(X), "axes"),
        (lambda: layers.Softmax(name="l")(X[..., :1]), "two outputs"),
        (lambda: layers.Softmax(name="l")(X, mask=np.ones((3, 4))), "no mask"),
        (lambda: layers.PReLU(shared_axes=[0], name="l"), "shared_axes"),
        (lambda: layers.PReLU(shared_axes=3, name="l")(X), "inputs"),
        (lambda: layers.PReLU(name="l").build_once((None, None, 3)), "inputs"),
    ],
)
def test_bad_arguments_and_inputs(make, message):
    with pytest.raises(ValueError, match=rf"layer 'l': Expected .*{message}.* Received: "):
        make()


def test_alpha_is_the_old_name_of_negative_slope():
    with pytest.warns(UserWarning, match="negative_slope"):
        assert layers.LeakyReLU(alpha=0.2).negative_slope == 0.2
