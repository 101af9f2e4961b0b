"""Rescaling, Normalization, RandomFlip, RandomTranslation."""

import pickle

import numpy as np
import pytest
from checks import normal
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import Sequential, layers, random

RNG = np.random.default_rng(0)
IMAGES = st.tuples(*(st.integers(1, 6) for _ in range(4)))


@settings(max_examples=10)
@given(IMAGES)
def test_predicted_shapes_are_actual_shapes(shape):
    x = np.zeros(shape, np.float32)
    for layer in (
        layers.Rescaling(2.0),
        layers.Normalization(),
        layers.RandomFlip(),
        layers.RandomTranslation(0.2, 0.2),
    ):
        for training in (False, True):
            assert layer.compute_output_shape(x.shape) == layer(x, training).shape


def test_rescaling_and_its_gradient():
    x = np.arange(12.0).reshape(2, 2, 3)
    layer = layers.Rescaling([1, 2, 3], offset=[[10], [20]])
    np.testing.assert_array_equal(layer(x), x * [1, 2, 3] + [[10], [20]])
    np.testing.assert_array_equal(layer.backward(np.ones((2, 2, 3), np.float32))[0, 0], [1, 2, 3])
    assert layer(np.array([[[1, 2, 3]] * 2], np.uint8)).dtype == np.float32


@pytest.mark.parametrize("axis", [-1, None, 1, (1, 2)])
def test_normalization_learns_from_arrays_and_from_batches(axis):
    x = 1000 + 3 * normal(RNG, 50, 4, 3)
    kept = {-1: (2,), None: (), 1: (1,), (1, 2): (1, 2)}[axis]
    others = tuple(a for a in range(3) if a not in kept)
    layer = layers.Normalization(axis)
    layer.adapt(x)
    y = layer(x)
    np.testing.assert_allclose(y.mean(others), 0, atol=1e-3)
    np.testing.assert_allclose(y.std(others), 1, atol=1e-3)
    expected = layer.get_weights()
    batches = [x[:7], x[7:8], x[8:]]
    for data in (
        batches,
        iter(batches),
        (batch for batch in batches),
        [(batch, np.zeros(len(batch))) for batch in batches],
        x.tolist(),
    ):
        layer.adapt(data)
        for found, right in zip(layer.get_weights(), expected, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-5)
    back = layers.Normalization(axis, invert=True)
    back.adapt(x)
    np.testing.assert_allclose(back(y), x, rtol=1e-5)


def test_normalization_of_numbers():
    layer = layers.Normalization(axis=None)
    layer.adapt(np.array([1, 2, 3, 4, 5]))
    np.testing.assert_allclose(layer([1, 2, 3]), [-(2**0.5), -(0.5**0.5), 0], rtol=1e-6)
    columns = layers.Normalization()
    columns.adapt([1, 2, 3, 4, 5])
    np.testing.assert_allclose(columns([[1], [3]]), [[-(2**0.5)], [0]], rtol=1e-6)


def test_normalization_in_a_model_is_not_trained_and_is_copied():
    x = 100 + 20 * normal(RNG, 64, 3)
    layer = layers.Normalization()
    layer.adapt(x)
    model = Sequential([layer, layers.Dense(1)], seed=0)
    model.compile("sgd", "mse")
    before = layer.get_weights()
    model.fit(x, x[:, 0] / 100, epochs=2, verbose=0)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict(x), model.predict(x))
    layer.set_weights([np.zeros(3), np.ones(3), 0])
    np.testing.assert_array_equal(layer(x), x)


def test_numbers_that_are_given():
    x = normal(RNG, 5, 4, 3)
    mean, variance = np.array([1.0, 2.0, 3.0]), np.array([4.0, 1.0, 0.25])
    y = layers.Normalization(mean=mean, variance=variance)(x)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance), rtol=1e-5)
    layer = layers.Normalization(None, 3, 0)  # a deviation of zero counts as 1e-7
    np.testing.assert_allclose(layer(x), (x - 3) / 1e-7, rtol=1e-5)
    assert layer.weights == []


def test_augmentations_are_for_training():
    x = normal(RNG, 20, 6, 5, 2)
    for layer in (layers.RandomFlip(), layers.RandomTranslation(0.3, 0.3)):
        np.testing.assert_array_equal(layer(x), x)
        np.testing.assert_array_equal(layer.backward(x), x)
        assert not np.array_equal(layer(x, training=True), x)
    model = Sequential([layers.RandomFlip(), layers.Flatten(), layers.Dense(1)], seed=0)
    np.testing.assert_array_equal(model.predict(x), model.predict(x))


@pytest.mark.parametrize("seed", [None, 3])
def test_every_step_draws_numbers_that_follow_from_the_seed(seed):
    x = normal(RNG, 40, 4, 4, 1)

    def steps(device="cpu"):
        layer = layers.RandomTranslation(0.4, 0.4, seed=seed)
        model = Sequential([layer], device=device, seed=1)
        outputs = []
        for _ in range(2):
            outputs.append(model(x, training=True))
            model.context.random_state[1] += 1
        return outputs

    one, two = steps(), steps()
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(*one)
    np.testing.assert_allclose(one, steps("numpy"), atol=1e-5)


def test_layers_of_a_model_have_streams_of_their_own():
    random.set_random_seed(0)
    x = normal(RNG, 64, 1, 4, 1)
    model = Sequential([layers.RandomFlip("horizontal"), layers.RandomFlip("horizontal")])
    y = model(x, training=True)
    same = sum(np.array_equal(a, b) for a, b in zip(y, x))
    assert 16 < same < 48  # were they the same, the second would undo the first


def test_gradients_go_back_to_where_pixels_came_from():
    x, dy = normal(RNG, 8, 5, 4, 2), normal(RNG, 8, 5, 4, 2)
    for layer in (
        layers.RandomFlip("vertical"),
        layers.RandomTranslation(0.5, (-0.2, 0.4), "wrap"),
        layers.RandomTranslation(0.5, 0.3, "constant", "nearest"),
    ):
        y = layer(x, training=True)
        np.testing.assert_allclose(np.sum(y * dy), np.sum(x * layer.backward(dy)), rtol=1e-3)
        assert layer.backward(dy, input_gradient=False) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Rescaling("1"), "scale"),
        (lambda: layers.Rescaling(1, np.nan), "offset"),
        (lambda: layers.Rescaling([1, 2])(np.ones((4, 3))), "fit scale"),
        (lambda: layers.Rescaling([[1], [2]])(np.ones((2, 1))), "fit scale"),
        (lambda: layers.Normalization(mean=1), "together"),
        (lambda: layers.Normalization(mean=[1, 2], variance=3), "one shape"),
        (lambda: layers.Normalization(None, [1, 2], [3, 4]), "no more axes"),
        (lambda: layers.Normalization(mean=1, variance=-3), "not negative"),
        (lambda: layers.Normalization(mean=[1, 2], variance=[3, 4])(np.ones((4, 3))), "fit a mean"),
        (lambda: layers.Normalization(0)(np.ones((4, 3))), "samples"),
        (lambda: layers.Normalization(1.5), "axis"),
        (lambda: layers.Normalization().build_once((None, None)), "known size"),
        (lambda: layers.Normalization(mean=1, variance=3).adapt(np.ones((4, 3))), "adapt"),
        (lambda: layers.Normalization().adapt([np.ones((4, 3)), np.ones((4, 2))]), "of size"),
        (lambda: layers.Normalization().adapt(np.array([[np.inf]])), "finite"),
        (lambda: layers.Normalization().adapt(iter([])), "at least one batch"),
        (lambda: layers.RandomFlip("diagonal"), "mode"),
        (lambda: layers.RandomFlip(seed=-1), "seed"),
        (lambda: layers.RandomFlip(data_format="channels_first"), "channels_last"),
        (lambda: layers.RandomFlip()(np.ones((2, 3, 3))), "images"),
        (lambda: layers.RandomTranslation(1.5, 0), "height_factor"),
        (lambda: layers.RandomTranslation(0, (0, 1, 1)), "width_factor"),
        (lambda: layers.RandomTranslation(0, "wide"), "width_factor"),
        (lambda: layers.RandomTranslation(0, 0, "mirror"), "fill_mode"),
        (lambda: layers.RandomTranslation(0, 0, interpolation="cubic"), "interpolation"),
        (lambda: layers.RandomTranslation(0, 0, fill_value=np.inf), "fill_value"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
