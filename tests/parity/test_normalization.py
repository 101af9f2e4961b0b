"""Normalization layers against Keras'."""

import keras
import numpy as np
import pytest
from parity.parity import both, check, check_models, close

import minicnnrnn as mini


def data(*shape, seed=0, mean=0.5, deviation=2.0):
    rng = np.random.default_rng(seed)
    return (mean + deviation * rng.standard_normal(shape)).astype(np.float32)


ARGUMENTS = [
    {},
    {"momentum": 0.5, "epsilon": 0.1},
    {"center": False},
    {"scale": False},
    {"center": False, "scale": False, "momentum": 0.0},
    {"gamma_initializer": "random_normal", "beta_initializer": "random_normal"},
    {"moving_mean_initializer": "random_normal", "moving_variance_initializer": "ones"},
    {"gamma_regularizer": "l2", "beta_regularizer": "l1"},
    {"gamma_constraint": "non_neg", "beta_constraint": "unit_norm"},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_batch_normalization_arguments(arguments):
    check([both("BatchNormalization", **arguments), both("Dense", 2)], x=data(6, 5))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((1, 3), -1), ((7, 1), -1), ((4, 1, 3), -1), ((1, 1, 1, 1), -1), ((3, 5, 3, 2), -1),
        ((2, 3, 2, 3, 4), -1), ((5, 4, 3), 1), ((3, 5, 3, 2), 1), ((3, 5, 3, 2), -2),
        ((3, 5, 3, 2), 3), ((2, 3, 2, 3, 4), 2), ((40, 9, 3), -1),
    ],
)  # fmt: skip
def test_batch_normalization_shapes(shape, axis):
    check(both("BatchNormalization", axis=axis), x=data(*shape))


@pytest.mark.parametrize("steps", [1, 6])
def test_batch_normalization_leaves_out_masked_steps(steps):
    mask = np.random.default_rng(0).random((4, steps)) < 0.6
    mask[0] = False
    mask[1] = True
    check([both("BatchNormalization"), both("Dense", 3)], x=data(4, steps, 5), mask=mask)


def test_batch_normalization_of_nothing_but_masked_steps():
    x = data(2, 3, 4, mean=0, deviation=0.01)
    check(both("BatchNormalization", epsilon=1.0), x=x, mask=np.zeros((2, 3)))


def test_batch_normalization_between_layers():
    layers = [
        both("Conv2D", 5, 3, padding="same", use_bias=False),
        both("BatchNormalization"),
        both("Activation", "relu"),
        both("Flatten"),
        both("BatchNormalization", scale=False),
        both("Dense", 3),
    ]
    check(layers, x=data(5, 7, 6, 2))


def test_frozen_batch_normalization_is_in_inference_mode():
    pairs = [both("Dense", 4), both("BatchNormalization"), both("Dense", 2)]
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    ours[1].trainable = theirs[1].trainable = False
    x = data(6, 3)
    check_models(
        mini.Sequential(ours), keras.Sequential([keras.Input(batch_shape=x.shape), *theirs]), x
    )
    assert ours[1].get_weights()[2].tolist() == np.asarray(theirs[1].moving_mean).tolist()


def test_outputs_in_training():
    ours, theirs = both("BatchNormalization", momentum=0.7)
    x = data(9, 4, 3, mean=30)
    for _ in range(3):
        close("output", ours(x, training=True), theirs(x, training=True), 1e-5)
    for mine, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        close("weight", mine, expected, 1e-5)


@pytest.mark.parametrize("arguments", [a for a in ARGUMENTS if "moment" not in str(a)], ids=str)
@pytest.mark.parametrize("name", ["LayerNormalization", "GroupNormalization"])
def test_other_arguments(name, arguments):
    arguments = {key: value for key, value in arguments.items() if "moving" not in key}
    if name == "GroupNormalization":
        arguments["groups"] = 2
    check([both(name, **arguments), both("Dense", 2)], x=data(5, 4))


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((1, 3), -1), ((4, 2), -1), ((4, 5, 3), -1), ((4, 5, 3), [1, 2]), ((4, 5, 3), [-1, -2]),
        ((4, 5, 3), 1), ((3, 5, 3, 2), (1, 2, 3)), ((3, 5, 3, 2), [1, 2]), ((3, 5, 3, 2), [3, 1]),
        ((3, 5, 3, 2), 2), ((3, 4, 3, 2), [-1, 1]), ((2, 2, 3, 2, 4), [2, 4]),
    ],
)  # fmt: skip
def test_layer_normalization_shapes(shape, axis):
    check(both("LayerNormalization", axis=axis), x=data(*shape))


@pytest.mark.parametrize(
    ("shape", "groups", "axis"),
    [
        ((1, 2), 2, -1), ((3, 8), 4, -1), ((3, 5, 6), 3, -1), ((3, 5, 6), -1, -1),
        ((3, 5, 6), 1, -1), ((2, 3, 4, 6), 2, -1), ((2, 3, 4, 6), 3, 3), ((2, 6, 4, 3), 2, 1),
        ((2, 3, 4, 3), 2, 2), ((2, 3, 4, 3), 2, -2), ((2, 2, 3, 2, 32), 32, -1),
    ],
)  # fmt: skip
def test_group_normalization_shapes(shape, groups, axis):
    check(both("GroupNormalization", groups, axis=axis), x=data(*shape))


@pytest.mark.parametrize("name", ["LayerNormalization", "GroupNormalization"])
def test_masks_pass(name):
    mask = np.array([[1, 0, 1], [0, 0, 0]], bool)
    arguments = {"groups": 2} if name == "GroupNormalization" else {}
    check([both(name, **arguments), both("LSTM", 3)], x=data(2, 3, 4), mask=mask)
