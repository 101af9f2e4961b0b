"""Activations by name, and as layers."""

import keras
import numpy as np
import pytest
from parity.parity import both, check

from minicnnrnn.layers.activation import CODES, ROWS

X = 2 * np.random.default_rng(0).standard_normal((3, 5, 4))
MASK = np.array([[1, 0, 1, 1, 0], [0, 0, 1, 0, 1], [1, 1, 1, 1, 1]])
LAYERS = [
    ("ReLU", {}),
    ("ReLU", {"max_value": 6.0}),
    ("ReLU", {"max_value": 1.0}),
    ("ReLU", {"negative_slope": 0.2}),
    ("ReLU", {"threshold": 0.5}),
    ("ReLU", {"max_value": 0.8, "negative_slope": 0.1}),
    ("ReLU", {"max_value": 1.5, "negative_slope": 0.1, "threshold": 0.5}),
    ("ReLU", {"max_value": 0.2, "threshold": 0.5}),
    ("LeakyReLU", {}),
    ("LeakyReLU", {"negative_slope": 0.01}),
    ("LeakyReLU", {"negative_slope": 0.0}),
    ("ELU", {}),
    ("ELU", {"alpha": 0.5}),
    ("ELU", {"alpha": 0.0}),
    ("Softmax", {}),
    ("Softmax", {"axis": 1}),
    ("Softmax", {"axis": -2}),
    ("Softmax", {"axis": (1, 2)}),
    ("Softmax", {"axis": [-1]}),
    ("PReLU", {}),
    ("PReLU", {"shared_axes": [1]}),
    ("PReLU", {"shared_axes": 2, "alpha_initializer": "ones"}),
    ("PReLU", {"shared_axes": (1, 2), "alpha_initializer": "random_uniform"}),
    ("PReLU", {"alpha_regularizer": "l2", "alpha_constraint": "non_neg"}),
]


@pytest.mark.parametrize("name", [*CODES, *ROWS])
def test_names(name):
    x = X / 8 if name == "exponential" else X  # which grows beyond all bounds in training
    check([both("Dense", 4), both("Activation", name)], x=x, steps=2, optimizer="sgd")


def test_every_name_of_keras_is_known_or_needs_more_than_a_name():
    known = set(keras.src.activations.ALL_OBJECTS_DICT)
    assert known - {*CODES, *ROWS} == {"glu", "sparsemax", "threshold"}


@pytest.mark.parametrize("name", ["softsign", "relu6", "mish", "hard_tanh", "hard_swish"])
def test_names_inside_of_other_layers(name):
    pairs = [both("Dense", 4, activation=name), both("GRU", 3, activation="tanh")]
    check(pairs, x=X, steps=2, optimizer="sgd")
    pair = both("SimpleRNN", 3, activation=name, return_sequences=True)
    check([pair], x=X / 4, mask=MASK, steps=2, optimizer="sgd")


@pytest.mark.parametrize(("name", "arguments"), LAYERS)
def test_layers(name, arguments):
    check([both("Dense", 4), both(name, **arguments)], x=X, steps=3, optimizer="sgd")


@pytest.mark.parametrize(("axes", "shape"), [((1, 2), (2, 3, 4, 5)), ((1, 3), (1, 3, 4, 5))])
def test_images(axes, shape):
    x = np.random.default_rng(0).standard_normal(shape)
    check([both("Conv2D", 5, 1), both("PReLU", shared_axes=axes)], x=x, steps=3)
    check([both("Conv2D", 5, 1), both("Softmax", axis=axes)], x=x, steps=3, optimizer="sgd")


@pytest.mark.parametrize("name", ["ReLU", "LeakyReLU", "PReLU", "ELU"])
def test_a_mask_passes(name):
    check([both(name), both("LSTM", 3)], x=X, mask=MASK, steps=2, optimizer="sgd")


@pytest.mark.parametrize("name", ["LeakyReLU", "PReLU", "ELU", "ReLU"])
def test_at_zero(name):
    """Black pixels and a bias of zero meet the activation at zero itself."""
    check([both("Activation", "relu"), both(name), both("Dense", 2)], x=X, steps=2, optimizer="sgd")
    x = np.zeros((2, 3, 4))
    check([both("Dense", 4), both("Activation", "relu"), both(name)], x=x, steps=2, optimizer="sgd")


def test_a_layer_as_an_argument():
    check([both("Dense", 4, activation=both("LeakyReLU", 0.2))], x=X, steps=2, optimizer="sgd")
    check([both("Dense", 4, activation=both("ELU", 0.5))], x=X, steps=2, optimizer="sgd")


def test_a_softmax_layer_is_fused_with_its_loss():
    y = np.random.default_rng(0).integers(0, 4, (3, 5))
    pairs = [both("Dense", 4), both("Softmax")]
    check(pairs, x=X, y=y, loss="sparse_categorical_crossentropy", steps=3)
