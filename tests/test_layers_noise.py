"""Dropout and noise: off outside of training, repeatable, with the right distribution."""

import pickle

import numpy as np
import pytest

from minicnnrnn import Sequential, layers

ONES = np.ones((300, 4, 50), np.float32)
IMAGES, VOLUMES = ONES.reshape(300, 4, 5, 10), ONES.reshape(300, 2, 2, 5, 10)
LAYERS = {
    "dropout": (lambda **k: layers.Dropout(0.4, **k), ONES),
    "shared": (lambda **k: layers.Dropout(0.4, noise_shape=(None, 1, 50), **k), ONES),
    "spatial 1": (lambda **k: layers.SpatialDropout1D(0.4, **k), ONES),
    "spatial 2": (lambda **k: layers.SpatialDropout2D(0.4, **k), IMAGES),
    "spatial 3": (lambda **k: layers.SpatialDropout3D(0.4, **k), VOLUMES),
    "noise": (lambda **k: layers.GaussianNoise(0.4, **k), ONES),
    "multiplied": (lambda **k: layers.GaussianDropout(0.4, **k), ONES),
}


@pytest.mark.parametrize("case", LAYERS)
def test_off_outside_of_training_and_the_same_for_the_same_seed(case):
    make, x = LAYERS[case]
    layer = make(seed=1)
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)
    y = layer(x, training=True)
    assert layer.compute_output_shape(x.shape) == y.shape
    np.testing.assert_array_equal(make(seed=1)(x, training=True), y)
    assert np.mean(make(seed=2)(x, training=True) != y) > 0.2
    assert abs(y.mean() - 1) < 0.05
    np.testing.assert_array_equal(layer.backward(x), x if case == "noise" else y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(layer))(x, training=True), y)


@pytest.mark.parametrize("case", LAYERS)
def test_the_same_numbers_on_every_device_and_others_in_every_step(case):
    make, x = LAYERS[case]
    outputs = []
    for device in ("numpy", "cpu"):
        model = Sequential([make()], seed=3, device=device)
        outputs.append([])
        for _ in range(2):
            outputs[-1].append(model(x[:5], training=True))
            model.context.random_state[1] += 1
    np.testing.assert_allclose(outputs[0], outputs[1], atol=2e-6)
    assert np.any(outputs[0][0] != outputs[0][1])


def test_two_layers_of_a_model_draw_different_numbers():
    one, other = layers.Dropout(0.5), layers.Dropout(0.5)
    model = Sequential([one, other], seed=0)
    kept = np.mean(model(ONES, training=True) > 0)
    assert abs(kept - 0.25) < 0.02


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    layer = layers.Dropout(rate, seed=1)
    y = layer(ONES, training=True)
    assert abs(np.mean(y == 0) - rate) < 0.01
    if rate < 1:
        np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)


@pytest.mark.parametrize("noise", [(None, 1, None), (1, None, 1), (300, 4, 1), (1, 1, 1)])
def test_a_noise_shape_drops_together_along_axes_of_one(noise):
    y = layers.Dropout(0.5, noise_shape=noise, seed=5)(ONES, training=True)
    for axis, size in enumerate(noise):
        if size == 1:
            assert np.ptp(y, axis=axis).max() == 0
        elif noise != (1, None, 1):
            assert np.ptp(y, axis=axis).max() == 2
    assert set(np.unique(y)) <= {0, 2}


def test_spatial_dropout_drops_whole_channels():
    y = layers.SpatialDropout2D(0.25, seed=0)(IMAGES, training=True)
    assert np.ptp(y, axis=(1, 2)).max() == 0
    assert abs(np.mean(y == 0) - 0.25) < 0.03
    y = layers.SpatialDropout3D(0.25, seed=0)(VOLUMES, training=True)
    assert np.ptp(y, axis=(1, 2, 3)).max() == 0


def test_noise_has_the_spread_it_says():
    y = layers.GaussianNoise(0.3, seed=0)(ONES, training=True)
    assert abs(y.std() - 0.3) < 0.005
    y = layers.GaussianDropout(0.2, seed=0)(3 * ONES, training=True)
    assert abs(y.std() - 3 * 0.5) < 0.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Dropout(1.5, name="l"), "rate"),
        (lambda: layers.Dropout(0.5, seed=-1, name="l"), "seed"),
        (lambda: layers.Dropout(0.5, noise_shape=(0, 1), name="l"), "noise_shape"),
        (lambda: layers.Dropout(0.5, noise_shape="all", name="l"), "noise_shape"),
        (lambda: layers.Dropout(0.5, (None, 1), name="l")(ONES), "inputs"),
        (lambda: layers.Dropout(0.5, (None, 3, 1), name="l")(ONES), "inputs"),
        (lambda: layers.GaussianDropout(1.0, name="l"), "rate"),
        (lambda: layers.GaussianNoise(-0.1, name="l"), "stddev"),
        (lambda: layers.SpatialDropout1D(0.5, name="l")(IMAGES), "inputs"),
        (lambda: layers.SpatialDropout2D(0.5, "channels_first", name="l"), "data_format"),
        (lambda: layers.ActivityRegularization(l1=-1, name="l"), "l1"),
    ],
)
def test_bad_arguments_and_inputs(make, message):
    with pytest.raises(ValueError, match=rf"layer 'l': .*{message}.* Received: "):
        make()


def test_activity_regularization_passes_and_costs():
    layer = layers.ActivityRegularization(l1=0.5, l2=0.25)
    model = Sequential([layer])
    model.compile("sgd", "mse")
    x = np.array([[1.0, -2.0], [3.0, 0.0]])
    np.testing.assert_array_equal(model.predict(x), x)
    penalty = (0.5 * 6 + 0.25 * 14) / 2
    np.testing.assert_allclose(model.evaluate(x, x), penalty, rtol=1e-6)
