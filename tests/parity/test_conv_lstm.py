"""ConvLSTM1D, ConvLSTM2D and ConvLSTM3D against Keras.

Keras on JAX spreads the mask of a ConvLSTM over the wrong axis unless there is one sample.
"""

import numpy as np
import pytest
from parity.parity import both, check

RNG = np.random.default_rng(0)


def images(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


X = images(2, 3, 7, 6, 2)
CASES = {
    "defaults": {},
    "same, strides that do not divide": {
        "kernel_size": (2, 4), "padding": "same", "strides": (3, 2), "return_sequences": True,
    },
    "valid, strides larger than the kernel": {"kernel_size": 2, "strides": 3},
    "dilation": {
        "kernel_size": (2, 3), "dilation_rate": (2, 1), "go_backwards": True,
        "return_sequences": True,
    },
    "same, dilation": {"dilation_rate": 2, "padding": "same", "use_bias": False},
    "backwards": {"kernel_size": 1, "go_backwards": True, "unit_forget_bias": False},
    "activations": {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
    "gates with a gelu": {"activation": "elu", "recurrent_activation": "gelu"},
    "regular": {
        "kernel_regularizer": "l2", "recurrent_regularizer": "l1", "bias_regularizer": "l2",
        "activity_regularizer": "l2", "kernel_constraint": "unit_norm",
        "recurrent_constraint": "max_norm", "bias_constraint": "non_neg",
    },
    "predictions are free of dropout": {"dropout": 0.5, "recurrent_dropout": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_images(case):
    options = {"filters": 3, "kernel_size": 3, **CASES[case]}
    steps = 0 if "dropout" in options else 5
    check(both("ConvLSTM2D", **options), x=X, optimizer="sgd", steps=steps)


def test_adam_and_a_stack():
    first = both("ConvLSTM2D", 4, 3, padding="same", return_sequences=True)
    check([first, both("ConvLSTM2D", 2, 2)], x=X, optimizer="adam")


@pytest.mark.parametrize("backwards", [False, True])
def test_masks(backwards):
    options = {"padding": "same", "go_backwards": backwards}
    first = both("ConvLSTM2D", 2, 3, return_sequences=True, **options)
    second = both("ConvLSTM2D", 3, 2, **options)
    mask = np.array([[0, 1, 0, 0, 1]])
    check([first, second], x=images(1, 5, 5, 4, 1), mask=mask, optimizer="sgd")


def test_states_are_carried_on():
    check(both("ConvLSTM2D", 17, 3, stateful=True), x=X, optimizer="sgd", steps=2)


def test_other_ranks():
    check(both("ConvLSTM1D", 3, 4, strides=2, padding="same"), x=X[..., 0], optimizer="sgd")
    check(both("ConvLSTM1D", 1, 3), x=images(1, 1, 3, 1), optimizer="sgd")
    volumes = images(2, 3, 4, 5, 3, 2)
    check(both("ConvLSTM3D", 2, (1, 2, 3), padding="same"), x=volumes, optimizer="sgd")
