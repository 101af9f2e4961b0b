"""Embedding and Masking: ids checked before anything happens, and masks that arrive."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import Sequential, layers, optimizers

IDS = np.array([[1, 2, 0], [3, 0, 0]])


def model(*more, **options):
    made = Sequential([layers.Embedding(4, 2, **options), *more], seed=0)
    made.compile("sgd", "mse")
    return made


@settings(max_examples=10)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.integers(1, 5))
def test_predicted_shape_is_actual_shape(shape, features):
    layer = layers.Embedding(3, features)
    assert layer.compute_output_shape(tuple(shape)) == layer(np.zeros(shape)).shape
    assert layer.compute_output_shape((None, None)) == (None, None, features)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64, bool])
def test_ids_of_any_type(dtype):
    table = np.arange(8).reshape(4, 2)
    ids = np.array([[1, 0]]).astype(dtype)
    made = model(weights=table)
    assert made.predict(ids).tolist() == [[[2, 3], [0, 1]]]
    assert made.layers[0](ids).tolist() == [[[2, 3], [0, 1]]]


def test_a_row_learns_what_its_positions_say():
    made = model(layers.Flatten(), weights=np.zeros((4, 2)))
    made.compile(optimizers.SGD(6.0), "mse")
    made.train_on_batch([[1, 3, 1]], [[1, 2, 3, 4, 5, 6]])
    # d mse = 2 (0 - t) / 6, so a step of 6 / 2 moves by the targets, summed where an id repeats.
    np.testing.assert_allclose(made.layers[0].embeddings, [[0, 0], [12, 16], [0, 0], [6, 8]])


@pytest.mark.parametrize("wrong", [4, -1, 2**31 - 1])
@pytest.mark.parametrize("method", ["fit", "predict", "train_on_batch", "call"])
def test_an_id_without_a_vector(method, wrong):
    made, x = model(layers.Flatten(), name="words"), np.zeros((5, 3), int)
    x[3, 1] = wrong
    y = np.zeros((5, 6))
    before = made.predict(x * 0)
    calls = {
        "fit": lambda: made.fit(x, y, batch_size=2, verbose=0),
        "predict": lambda: made.predict(x, batch_size=4),
        "train_on_batch": lambda: made.train_on_batch(x, y),
        "call": lambda: made.layers[0](x),
    }
    with pytest.raises(ValueError, match=rf"layer 'words': Expected ids from 0 to 3 .*{wrong}"):
        calls[method]()
    np.testing.assert_array_equal(made.predict(x * 0), before)  # no batch was trained on


@pytest.mark.parametrize("wrong", [4, -1])
def test_ids_are_checked_behind_another_layer_too(wrong):
    for first in ([layers.Reshape((3,))], [layers.Reshape((1, 3)), layers.Reshape((3,))]):
        made = Sequential([*first, layers.Embedding(4, 2)])
        assert made.predict(np.array([[1.0, 2, 3]])).shape == (1, 3, 2)
        with pytest.raises(ValueError, match=r"embedding.*Expected ids from 0 to 3"):
            made.predict(np.array([[1.0, wrong, 3]]))
        with pytest.raises(ValueError, match=r"embedding.*Expected whole numbers"):
            made.predict(np.array([[1.0, 0.5, 3]]))


def test_every_branch_checks_its_ids():
    branches = layers.Branches([layers.Embedding(9, 2)], [layers.Embedding(4, 2)])
    made = Sequential([branches])
    assert made.predict([[1, 3]]).shape == (1, 2, 4)
    with pytest.raises(ValueError, match="Expected ids from 0 to 3"):
        made.predict([[1, 8]])


def test_a_step_of_ones_own_is_checked():
    made = model(layers.Flatten())
    made.predict(IDS)
    x = np.full((2, 3), 9, np.int32)
    with pytest.raises(ValueError, match="Expected ids from 0 to 3"):
        made.forward(x)


def test_padding_is_skipped():
    made = model(layers.SimpleRNN(3), mask_zero=True)
    padded = made.predict([[1, 2, 0, 0], [0, 1, 0, 2]])
    np.testing.assert_allclose(padded[:1], made.predict([[1, 2]]), rtol=1e-6)
    np.testing.assert_allclose(padded[1:], made.predict([[1, 2]]), rtol=1e-6)
    assert not np.array_equal(padded[:1], model(layers.SimpleRNN(3)).predict([[1, 2, 0, 0]]))


def test_copies_remember_the_table_and_no_batch():
    made = model()
    made.predict(IDS)
    layer = made.layers[0]
    layer.check_batch(IDS.astype(np.int32))
    twin = copy.deepcopy(layer)
    assert twin._checked is None
    np.testing.assert_array_equal(twin(IDS), layer(IDS))


def test_a_frozen_table_stays():
    made = model(layers.Flatten(), trainable=False)
    made.build((None, 3))
    before = made.get_weights()
    made.train_on_batch(IDS, np.ones((2, 6)))
    np.testing.assert_array_equal(made.get_weights()[0], before[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_dim": 0, "output_dim": 2}, "input_dim to be an integer of at least 1"),
        ({"input_dim": 3, "output_dim": 2.5}, "output_dim to be an integer"),
        ({"input_dim": 3, "output_dim": 2, "lora_rank": 4}, "lora_rank to be left out"),
        (
            {"input_dim": 3, "output_dim": 2, "weights": np.zeros((2, 3))},
            r"weights of shape \(3, 2",
        ),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=rf"layer 'words': Expected {message}"):
        layers.Embedding(name="words", **arguments)


def test_wrong_shapes():
    with pytest.raises(ValueError, match="as mask_zero masks steps"):
        layers.Embedding(3, 2, mask_zero=True).build_once((None, 4, 5))
    with pytest.raises(ValueError, match=r"Expected inputs \(batch, steps, features\)"):
        layers.Masking().build_once((None, 4))
    with pytest.raises(ValueError, match="mask_value to be a number"):
        layers.Masking("no")


def test_masking_hides_steps_from_loss_and_layers():
    x = np.ones((2, 4, 2), np.float32)
    x[0, 1], x[1, 2:] = -1, -1
    made = Sequential([layers.Masking(-1.0), layers.SimpleRNN(3)], seed=0)
    expected = made.predict(np.ones((1, 3, 2))), made.predict(np.ones((1, 2, 2)))
    np.testing.assert_allclose(made.predict(x), np.concatenate(expected), rtol=1e-6)
    loss = Sequential([layers.Masking(-1.0)])
    loss.compile("sgd", "mse")
    assert loss.evaluate(x, np.where(x == -1, 100, 3)) == pytest.approx(4)


def test_masking_sends_no_gradient_to_masked_steps():
    layer, x = layers.Masking(), np.array([[[0.0, 0], [0, 1]]])
    layer(x, training=True)
    assert layer.backward(np.ones((1, 2, 2), np.float32)).tolist() == [[[0, 0], [1, 1]]]


def test_devices_agree():
    losses = []
    for device in ("numpy", "cpu"):
        stack = [layers.Embedding(4, 2, mask_zero=True), layers.GRU(2), layers.Dense(1)]
        made = Sequential(stack, seed=0, device=device)
        made.compile("sgd", "mse")
        losses.append([made.train_on_batch(IDS, [[1.0], [2.0]]) for _ in range(3)])
    np.testing.assert_allclose(*losses, rtol=1e-5)
