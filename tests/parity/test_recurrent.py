"""SimpleRNN, LSTM and GRU against Keras.

Keras drops the `activity_regularizer` of SimpleRNN on the floor; ours counts. Random dropout
cannot be compared: what is compared is that it leaves predictions alone.
"""

import numpy as np
import pytest
from parity.parity import both, check

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 5, 3)).astype(np.float32)
MASK = np.array([[1, 0, 1, 1, 0], [0, 0, 1, 0, 1], [0] * 5, [1] * 5])
KINDS = pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
REGULAR = {
    "kernel_regularizer": "l2",
    "recurrent_regularizer": "l1",
    "bias_regularizer": "l1l2",
    "kernel_constraint": "unit_norm",
    "recurrent_constraint": "max_norm",
    "bias_constraint": "non_neg",
}


@KINDS
def test_defaults_and_a_stack(kind):
    check([both(kind, 5, return_sequences=True), both(kind, 4)], x=X)


@KINDS
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_masks_in_both_directions(kind, sequences, backwards):
    layer = both(kind, 5, return_sequences=sequences, go_backwards=backwards)
    check(layer, x=X, mask=MASK, optimizer="sgd")


@KINDS
def test_masks_through_a_stack(kind):
    first = both(kind, 5, return_sequences=True, use_bias=False)
    check([first, both(kind, 4, go_backwards=True)], x=X, mask=MASK, optimizer="adam")


@KINDS
def test_one_sample_one_step_one_unit(kind):
    check(both(kind, 1), x=X[:1, :1, :1], optimizer="sgd")


@KINDS
def test_states_are_carried_on(kind):
    check(both(kind, 3, stateful=True, return_sequences=True), x=X, optimizer="sgd", steps=2)


@KINDS
def test_regularizers_and_constraints(kind):
    more = {} if kind == "SimpleRNN" else {"activity_regularizer": "l2"}
    check(both(kind, 4, **REGULAR, **more), x=X, optimizer="sgd")


@KINDS
def test_predictions_are_free_of_dropout(kind):
    check(both(kind, 4, dropout=0.5, recurrent_dropout=0.5), x=X, steps=0, optimizer="sgd")


ACTIVATIONS = ["relu", "elu", "selu", "gelu", "silu", "softplus", "leaky_relu", "hard_sigmoid"]


@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        ("SimpleRNN", "activation"),
        ("LSTM", "activation"),
        ("GRU", "activation"),
        ("LSTM", "recurrent_activation"),
        ("GRU", "recurrent_activation"),
    ],
)
def test_activations(kind, argument):
    stack = [
        both(kind, 4, return_sequences=True, **{argument: activation})
        for activation in (None, *ACTIVATIONS)
    ]
    check(stack, x=X[:, :2] / 4, optimizer="sgd", steps=2)


@pytest.mark.parametrize("options", [{}, {"use_bias": False}, {"go_backwards": True}])
def test_gru_with_the_reset_before_the_product(options):
    check(both("GRU", 6, reset_after=False, **options), x=X, mask=MASK, optimizer="sgd")


@pytest.mark.parametrize("options", [{"unit_forget_bias": False}, {"use_bias": False}])
def test_lstm_biases(options):
    check(both("LSTM", 6, return_sequences=True, **options), x=X, optimizer="sgd")
