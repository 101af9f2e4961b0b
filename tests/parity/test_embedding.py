"""Embedding and Masking against Keras."""

import keras
import numpy as np
import pytest
from parity.parity import both, check

RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 7, (4, 5))
IDS[0] = 0  # nothing but padding
IDS[1, [0, 2, 4]] = 0
X = RNG.standard_normal((3, 6, 2))
X[0, [0, 2, 5]] = 0
X[1] = 0
X[2, 1] = [0, 1]
X[2, 3] = 2


@pytest.mark.parametrize("shape", [(4, 5), (1, 1), (2, 3, 2)])
def test_embedding(shape):
    x = RNG.integers(0, 7, shape)
    check([both("Embedding", 7, 3), both("Dense", 2)], x=x, optimizer=("sgd", "adam"))


def test_float_ids():
    check([both("Embedding", 7, 3), both("Flatten")], x=IDS.astype(np.float32))


@pytest.mark.parametrize("sequences", [False, True])
def test_padding_is_masked(sequences):
    recurrent = both("LSTM", 3, return_sequences=sequences)
    check([both("Embedding", 7, 3, mask_zero=True), recurrent, both("Dense", 2)], x=IDS)


def test_a_mask_meets_the_loss():
    check(
        [both("Embedding", 7, 3, mask_zero=True), both("Dense", 4, activation="softmax")],
        x=IDS,
        y=RNG.integers(0, 4, IDS.shape),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )


def test_regularizer_constraint_and_weights():
    table = RNG.standard_normal((7, 3))
    ours, theirs = both(
        "Embedding",
        7,
        3,
        embeddings_regularizer="l2",
        embeddings_constraint="max_norm",
        weights=[table],
    )
    check([ours], [theirs], IDS)
    np.testing.assert_allclose(
        both("Embedding", 7, 3, weights=table)[0](IDS),
        keras.layers.Embedding(7, 3, weights=table)(IDS),
        rtol=1e-6,
    )


@pytest.mark.parametrize("value", [0.0, 2.0, 5.0])
@pytest.mark.parametrize("layer", ["SimpleRNN", "GRU"])
def test_masking(value, layer):
    check([both("Masking", value), both(layer, 3, return_sequences=True), both("Dense", 2)], x=X)


def test_masking_behind_another_layer():
    layers = [both("Dense", 2, activation="relu"), both("Masking"), both("LSTM", 3)]
    check(layers, x=X)
