"""Bidirectional and TimeDistributed against Keras."""

import numpy as np
import pytest
from parity.parity import both, check

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 5, 4))
MASK = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 1]])  # holes, and nothing


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("sequences", [False, True])
def test_merge_modes_with_a_mask(mode, sequences):
    kind = {"concat": "LSTM", "sum": "GRU", "mul": "LSTM", "ave": "SimpleRNN"}[mode]
    layer = both("Bidirectional", both(kind, 3, return_sequences=sequences), merge_mode=mode)
    check([layer, both("Dense", 2)], x=X, mask=MASK)


@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 1, 4)])
@pytest.mark.parametrize("sequences", [False, True])
def test_one_sample_and_one_step(shape, sequences):
    layer = both("Bidirectional", both("LSTM", 3, return_sequences=sequences))
    check([layer], x=RNG.standard_normal(shape))


def test_stacked():
    first = both("Bidirectional", both("GRU", 3, return_sequences=True, reset_after=False))
    second = both("Bidirectional", both("SimpleRNN", 2), merge_mode="sum")
    check([first, second], x=X, mask=MASK, optimizer=("sgd", "adam"))


@pytest.mark.parametrize("turned", [False, True])
def test_a_backward_layer_of_its_own(turned):
    # Turned around, the "forward" layer is the one that goes backwards.
    layer = both("LSTM", 3, return_sequences=True, go_backwards=turned)
    other = both("GRU", 3, activation="relu", return_sequences=True, go_backwards=not turned)
    check(both("Bidirectional", layer, backward_layer=other), x=X, mask=MASK)


def test_stateful():
    layer = both("Bidirectional", both("GRU", 3, stateful=True, return_sequences=True))
    check(layer, x=X, steps=2)


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("activation", ["relu", "softmax"])
def test_dense_on_every_step(activation, mask):
    check(
        both("TimeDistributed", both("Dense", 3, activation=activation)),
        x=X,
        mask=mask,
        loss="sparse_categorical_crossentropy" if activation == "softmax" else "mse",
        y=RNG.integers(0, 3, (3, 5)) if activation == "softmax" else None,
    )


def test_images_on_every_step():
    check(
        [
            both("TimeDistributed", both("Conv2D", 3, 2, strides=2, padding="same")),
            both("TimeDistributed", both("MaxPooling2D", 2)),
            both("TimeDistributed", both("Flatten")),
            both("LSTM", 2),
        ],
        x=RNG.standard_normal((2, 3, 7, 5, 2)),
    )


def test_a_sequence_on_every_step():
    layer = both("TimeDistributed", both("LSTM", 3, return_sequences=True))
    check([layer, both("TimeDistributed", both("GRU", 2))], x=RNG.standard_normal((2, 3, 4, 2)))


def test_a_model_on_every_step():
    inside = both("Sequential", [both("Dense", 3, activation="tanh"), both("Dense", 2)])
    check([both("TimeDistributed", inside), both("SimpleRNN", 2)], x=X, mask=MASK)


def test_ids_on_every_step():
    layers = [both("TimeDistributed", both("Embedding", 7, 3)), both("Flatten")]
    check(layers, x=RNG.integers(0, 7, (2, 3, 4)))


def test_both_wrappers():
    inside = both("Bidirectional", both("LSTM", 2))
    check(both("TimeDistributed", inside), x=RNG.standard_normal((2, 3, 4, 2)))


def test_penalties_inside_are_taken_step_by_step():
    dense = both("Dense", 3, activity_regularizer="l2")  # on its own, Keras passes it by
    check(both("TimeDistributed", dense), x=X)
    dense = both("Dense", 3, activity_regularizer="l2", activation="tanh")
    inside = both("Sequential", [dense, both("Dense", 2)])
    check(both("TimeDistributed", inside, activity_regularizer="l1"), x=X)
    dense = both("Dense", 3, activity_regularizer="l2", activation="tanh")
    inside = both("Sequential", [dense, both("Dense", 2, activation="softmax")])
    y = RNG.integers(0, 2, (3, 5))
    check(both("TimeDistributed", inside), x=X, y=y, loss="sparse_categorical_crossentropy")


def test_batch_statistics_are_those_of_a_step():
    layers = [both("Dense", 3), both("BatchNormalization", momentum=0.5)]
    inside = both("Sequential", [*layers, both("Dense", 2, activation="softmax")])
    y = RNG.integers(0, 2, (3, 5))
    check(both("TimeDistributed", inside), x=X, y=y, loss="sparse_categorical_crossentropy")


@pytest.mark.parametrize("sequences", [False, True])
def test_images_read_in_both_directions(sequences):
    layer = both("ConvLSTM1D", 3, 2, strides=2, padding="same", return_sequences=sequences)
    check(both("Bidirectional", layer), x=RNG.standard_normal((2, 3, 5, 2)))
    layer = both("ConvLSTM2D", 3, 2, return_sequences=sequences)
    layer = both("Bidirectional", layer, merge_mode="mul")
    check(layer, x=RNG.standard_normal((2, 3, 5, 4, 2)))


def test_a_film_on_every_step():
    layer = both("ConvLSTM1D", 3, 2)
    check(both("TimeDistributed", layer), x=RNG.standard_normal((2, 3, 2, 5, 2)))


def test_penalties_and_constraints_of_both_directions():
    layer = both(
        "GRU",
        3,
        kernel_regularizer="l2",
        activity_regularizer="l2",
        recurrent_constraint="max_norm",
        return_sequences=True,
    )
    check(both("Bidirectional", layer, activity_regularizer="l1", merge_mode="ave"), x=X)
