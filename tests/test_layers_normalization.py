"""Normalization layers: shapes, training against inference, what is refused."""

import pickle

import numpy as np
import pytest
from checks import normal
from hypothesis import given, settings
from hypothesis import strategies as st

from minicnnrnn import Sequential, layers

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)
RNG = np.random.default_rng(0)


@settings(max_examples=10)
@given(SHAPES, st.integers(1, 4), st.data())
def test_predicted_shapes_are_actual_shapes(shape, batch, data):
    x = np.zeros((batch, *shape), np.float32)
    axis = data.draw(st.integers(1, len(shape)))
    for layer in (
        layers.BatchNormalization(axis),
        layers.LayerNormalization(axis),
        layers.GroupNormalization(1, axis),
    ):
        for training in (False, True):
            assert layer.compute_output_shape(x.shape) == layer(x, training).shape


@pytest.mark.parametrize("device", ["cpu", "numpy"])
@pytest.mark.parametrize(
    ("layer", "axes"),
    [
        (lambda: layers.BatchNormalization(epsilon=0), (0, 1, 2)),
        (lambda: layers.BatchNormalization(1, epsilon=0), (0, 2, 3)),
        (lambda: layers.LayerNormalization(epsilon=0), (3,)),
        (lambda: layers.LayerNormalization([1, 3], epsilon=0), (1, 3)),
        (lambda: layers.GroupNormalization(-1, epsilon=0), (1, 2)),
        (lambda: layers.GroupNormalization(1, axis=2, epsilon=0), (1, 2, 3)),
    ],
)
def test_the_right_axes_are_normalized(device, layer, axes):
    x = 3 + 2 * normal(RNG, 4, 5, 6, 8)
    model = Sequential([layer()], device=device)
    y = model(x, training=True)
    np.testing.assert_allclose(y.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(axes), 1, rtol=1e-4)


def test_inference_forgets_slowly():
    layer = layers.BatchNormalization(momentum=0.9)
    x = 5 + 3 * normal(RNG, 200, 2)
    layer(x)  # does not count
    assert layer.moving_mean.tolist() == [0, 0]
    for _ in range(80):
        layer(x, training=True)
    np.testing.assert_allclose(layer.moving_mean, x.mean(0), rtol=1e-3)
    np.testing.assert_allclose(layer.moving_variance, x.var(0), rtol=1e-3)
    np.testing.assert_allclose(layer(x), layer(x, training=True), atol=5e-3)


def test_a_frozen_layer_normalizes_as_in_inference_and_keeps_its_statistics():
    model = Sequential([layers.Dense(4), layers.BatchNormalization(), layers.Dense(1)], seed=0)
    model.compile("sgd", "mse")
    x, y = normal(RNG, 20, 3), normal(RNG, 20, 1)
    model.fit(x, y, verbose=0)
    frozen = model.layers[1]
    frozen.trainable = False
    before = frozen.get_weights()
    model.fit(x, y, epochs=2, verbose=0)
    for old, new in zip(before, frozen.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(
        frozen(x[:, :1] * np.ones(4)), frozen(x[:, :1] * np.ones(4), True)
    )
    frozen.trainable = True
    model.fit(x, y, verbose=0)
    assert all((old != new).all() for old, new in zip(before, frozen.get_weights(), strict=True))


def test_gradients_follow_the_mode():
    for training in (True, False):
        layer = layers.BatchNormalization()
        x, dy, step = normal(RNG, 6, 3), normal(RNG, 6, 3), 1e-2
        layer(x, training=True)
        moving = layer.get_weights()

        def loss(x, layer=layer, training=training, moving=moving, dy=dy):
            layer.set_weights(moving)
            return np.sum(layer(x, training=training).astype(np.float64) * dy)

        direction = normal(RNG, 6, 3)
        numeric = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
        loss(x)
        assert abs(np.sum(layer.backward(dy) * direction) - numeric) < 1e-2 * (1 + abs(numeric))


def test_statistics_are_part_of_a_copy_and_are_no_parameters_to_train():
    model = Sequential([layers.Input((3,)), layers.BatchNormalization()])
    model(normal(RNG, 9, 3), training=True)
    assert [weight.name for weight in model.weights] == [
        "gamma", "beta", "moving_mean", "moving_variance",
    ]  # fmt: skip
    assert [weight.trainable for weight in model.weights] == [True, True, False, False]
    other = pickle.loads(pickle.dumps(model))
    for mine, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    model.trainable = False
    model.trainable = True
    assert [weight.trainable for weight in model.weights] == [True, True, False, False]


def test_masked_steps_do_not_count():
    x = normal(RNG, 3, 4, 2)
    mask = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    layer = layers.BatchNormalization(momentum=0)
    layer(x, training=True, mask=mask)
    kept = x[mask == 1]
    np.testing.assert_allclose(layer.moving_mean, kept.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, kept.var(0), rtol=1e-5)


def test_a_model_with_all_of_them_learns():
    images = normal(RNG, 80, 6, 6, 2)
    labels = (images.mean((1, 2, 3)) > 0).astype(np.int64)
    model = Sequential(
        [
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Conv2D(8, 3),
            layers.GroupNormalization(4),
            layers.Flatten(),
            layers.LayerNormalization(),
            layers.Dense(2, activation="softmax"),
        ],
        seed=0,
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(images, labels, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.6 * history["loss"][0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.BatchNormalization(axis=0)(np.ones((2, 3))), "without the first"),
        (lambda: layers.BatchNormalization(axis=3)(np.ones((2, 3))), "3 axes|2 axes"),
        (lambda: layers.BatchNormalization(axis=1.5), "axis to be an integer"),
        (lambda: layers.BatchNormalization(momentum=2), "momentum"),
        (lambda: layers.BatchNormalization(epsilon=-1), "epsilon"),
        (lambda: layers.BatchNormalization(renorm=True), "renorm"),
        (lambda: layers.BatchNormalization(synchronized=True), "synchronized"),
        (lambda: layers.BatchNormalization(gamma_initializer="no such"), "no such"),
        (lambda: layers.BatchNormalization().build_once((None, None)), "known size"),
        (lambda: layers.LayerNormalization([1, -1])(np.ones((2, 3))), "different axes"),
        (lambda: layers.LayerNormalization().build_once((None, None)), "known size"),
        (lambda: layers.LayerNormalization(rms_scaling=True), "rms_scaling"),
        (lambda: layers.GroupNormalization(0), "groups"),
        (lambda: layers.GroupNormalization(2)(np.ones((2, 3))), "groups of one size"),
        (lambda: layers.GroupNormalization(32)(np.ones((2, 3))), "groups of one size"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="axis"):
        layers.LayerNormalization("last")


def test_shapes_are_checked_again():
    x = np.ones((4, 5, 3), np.float32)
    for layer in (
        layers.BatchNormalization(),
        layers.LayerNormalization(),
        layers.GroupNormalization(3),
    ):
        layer(x)
        layer(x[:1, :2])
        with pytest.raises(ValueError, match="3"):
            layer(x[..., :2])
    with pytest.raises(ValueError, match="mask only with"):
        layers.BatchNormalization(1)(x, mask=np.ones((4, 5)))
    with pytest.raises(ValueError, match="mask only with"):
        layers.BatchNormalization()(np.ones((4, 5, 2, 2)), mask=np.ones((4, 5)))
