"""The comparison with Keras itself: it agrees where it should, and it can fail."""

import keras
import numpy as np
import pytest
from parity.parity import GivenMask, KerasGivenMask, both, check, check_models

import minicnnrnn as mini

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 5, 4))
MASK = np.array([[1, 0, 1, 1, 0], [0, 0, 1, 0, 1], [1, 1, 1, 1, 1]])


def test_a_stack_with_mask_weights_and_metrics():
    check(
        [both("LSTM", 3, return_sequences=True), both("Dense", 4, activation="softmax")],
        x=X,
        mask=MASK,
        loss="sparse_categorical_crossentropy",
        y=RNG.integers(0, 4, (3, 5)),
        sample_weight=RNG.uniform(size=(3, 5)),
        metrics=["accuracy"],
        optimizer=("sgd", "adam"),
    )


def test_states_are_kept_from_call_to_call():
    check(both("GRU", 3, stateful=True), x=X, steps=1)


def test_ready_models():
    ours, theirs = (side.Sequential([side.layers.Dense(2)]) for side in (mini, keras))
    check_models(ours, theirs, X[0])


@pytest.mark.parametrize("wrong", ["activation", "mask", "rate", "frozen"])
def test_a_difference_is_found(wrong):
    ours = mini.layers.SimpleRNN(3, activation="relu" if wrong == "activation" else "tanh")
    ours.trainable = wrong != "frozen"
    mask = np.flip(MASK, 1) if wrong == "mask" else MASK
    rate = 0.0501 if wrong == "rate" else 0.05
    pair = (lambda: mini.optimizers.SGD(rate), lambda: keras.optimizers.SGD(0.05))
    with pytest.raises(AssertionError, match="Keras"):
        check(
            [GivenMask(mask), ours],
            [KerasGivenMask(MASK), keras.layers.SimpleRNN(3)],
            X,
            steps=2,
            optimizer={"sgd": pair},
        )
