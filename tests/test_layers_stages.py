"""Stages: predictions in parts are those of the whole batch, image by image."""

from unittest import mock

import numpy as np
import pytest

from minicnnrnn import Sequential, layers
from minicnnrnn.layers.stages import layers_of_stage, parts_of_batch

STACKS = {
    "plain": lambda: [
        layers.Conv2D(4, 3, activation="relu"),
        layers.Conv2D(8, 3, padding="same", activation="tanh"),
        layers.MaxPooling2D(),
        layers.Conv2D(8, 3, activation="relu"),
        layers.AveragePooling2D(2, padding="same"),
    ],
    "normalized": lambda: [
        layers.Conv2D(6, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.MaxPooling2D(3, 2, "same"),
        layers.Residual([layers.Conv2D(6, 3, padding="same")]),
        layers.Conv2D(5, 1),
        layers.GlobalAveragePooling2D(),
    ],
    "maxima inside": lambda: [
        layers.Conv2D(16, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(16, 1, use_bias=False),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.MaxPooling2D(2, 2),
    ],
    "no stage": lambda: [
        layers.Conv2D(4, 3, activity_regularizer="l2"),
        layers.MaxPooling2D(),
        layers.Conv2D(4, 3),
        layers.Dropout(0.5),
        layers.MaxPooling2D(),
    ],
}


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("images", [1, 2, 7])
def test_parts_are_the_whole(name, images, monkeypatch):
    """Image by image, in another order than before, and after a train step, too."""
    model = Sequential([layers.Input((20, 19, 2)), *STACKS[name](), layers.Flatten()], seed=0)
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).random((images, 20, 19, 2), dtype=np.float32)
    for _ in range(2):
        monkeypatch.setattr(model.device, "cache", 0)
        model.run_eagerly = True
        expected = model.predict_on_batch(x)
        monkeypatch.setattr(model.device, "cache", 1)
        for eager in (True, False, False, False):  # a first pass, one that is recorded, replayed
            model.run_eagerly = eager
            order = np.random.default_rng(eager).permutation(images)
            np.testing.assert_allclose(model.predict_on_batch(x[order]), expected[order], atol=2e-6)
            np.testing.assert_allclose(model.predict(x, images - images // 2), expected, atol=2e-6)
        model.train_on_batch(x, expected + 1)
    assert not np.array_equal(model.predict_on_batch(x), expected)


def counted(*stack, shape=(20, 19, 2)):
    """``layers_of_stage`` at every layer of a model."""
    model, found = Sequential([layers.Input(shape), *stack]), []
    x_shape = (3, *shape)
    for index, layer in enumerate(model.layers):
        found.append(layers_of_stage(model.layers, index, x_shape))
        x_shape = layer.compute_output_shape(x_shape)
    return found


def test_what_a_stage_is():
    assert counted(*STACKS["plain"]()) == [2, 1, 0, 1, 0]
    assert counted(*STACKS["normalized"]())[:4] == [3, 0, 0, 0]
    assert counted(*STACKS["no stage"]()) == [0] * 5
    assert counted(layers.Conv1D(2, 2), layers.GlobalMaxPooling1D(), shape=(5, 3)) == [1, 0]
    assert counted(layers.Conv1D(2, 2), shape=(5, 3)) == [0]
    assert counted(*STACKS["maxima inside"]()) == [0] * 6


def test_parts_are_larger_where_the_weights_are():
    stage = [layers.Conv2D(4, 1, use_bias=False)]
    stage[0].build_once((None, 8, 8, 2))
    assert parts_of_batch(stage, (32, 8, 8, 2), 4096) == 8  # 1,024 bytes an image
    assert parts_of_batch(stage, (3, 8, 8, 2), 4096) == 1
    wide = [layers.Conv2D(64, 3, padding="same")]
    wide[0].build_once((None, 4, 4, 64))
    assert parts_of_batch(wide, (288, 4, 4, 64), 4096) == 2  # 4 * 147,712 bytes of weights


PAIRS = {
    "relu": lambda: [layers.Conv2D(16, 3, activation="relu"), layers.MaxPooling2D()],
    "same": lambda: [layers.Conv2D(16, 3, padding="same"), layers.MaxPooling2D((2, 2))],
    "strides": lambda: [layers.Conv2D(32, 4, 2, activation="relu"), layers.MaxPooling2D()],
    "dilation": lambda: [layers.Conv2D(16, 3, dilation_rate=2), layers.MaxPooling2D()],
    "normalized": lambda: [
        layers.Conv2D(16, 3, use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
    ],
    "only normalized": lambda: [
        layers.Conv2D(16, 3),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
    ],
}
APART = {
    "tanh": lambda: [layers.Conv2D(16, 3, activation="tanh"), layers.MaxPooling2D()],
    "another window": lambda: [layers.Conv2D(16, 3), layers.MaxPooling2D(3, 2)],
    "overlapping": lambda: [layers.Conv2D(16, 3), layers.MaxPooling2D(2, 1)],
    "padded": lambda: [layers.Conv2D(16, 3), layers.MaxPooling2D(padding="same")],
    "average": lambda: [layers.Conv2D(16, 3), layers.AveragePooling2D(2)],
    "odd filters": lambda: [layers.Conv2D(17, 3), layers.MaxPooling2D()],
    "looked at": lambda: [
        layers.Conv2D(16, 3, activity_regularizer="l2"),
        layers.MaxPooling2D(),
    ],
    "dropped": lambda: [layers.Conv2D(16, 3), layers.Dropout(0.5), layers.MaxPooling2D()],
}


def _calls(model, x):
    """Predictions, and how often the convolution found the maxima for them."""
    kernels = model.device.kernels
    with mock.patch.object(
        kernels, "conv_pool_forward", side_effect=kernels.conv_pool_forward
    ) as spy:
        return model.predict_on_batch(x), spy.call_count


@pytest.mark.parametrize("size", [(12, 12), (13, 11)])
@pytest.mark.parametrize("name", [*PAIRS, *APART])
def test_maxima_inside_a_convolution_are_those_of_its_outputs(name, size):
    stack = {**PAIRS, **APART}[name]
    x = np.random.default_rng(0).normal(size=(3, *size, 2)).astype(np.float32)
    fast, plain = (
        Sequential([layers.Input((*size, 2)), *stack()], device=device, seed=0)
        for device in ("cpu", "numpy")
    )
    for model in (fast, plain):
        model.compile("sgd", "mse", run_eagerly=True)
    y, calls = _calls(fast, x)
    assert calls == (name in PAIRS)
    np.testing.assert_allclose(y, plain.predict_on_batch(x), atol=2e-6)
    for model in (fast, plain):  # training leaves nothing stale behind
        model.train_on_batch(x, np.ones_like(y))
    np.testing.assert_allclose(fast.predict_on_batch(x), plain.predict_on_batch(x), atol=1e-5)


@pytest.mark.parametrize("size", [(12, 12), (13, 11)])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("input_gradient", [False, True])
@pytest.mark.parametrize("name", [*PAIRS, *APART])
def test_gradients_of_maxima_inside_a_convolution(name, input_gradient, frozen, size):
    rng = np.random.default_rng(1)
    x, found = rng.normal(size=(3, *size, 2)).astype(np.float32), []
    for device in ("cpu", "numpy"):
        stack = [layers.Input((*size, 2)), *{**PAIRS, **APART}[name](), layers.ReLU()]
        model = Sequential(stack, device=device, seed=0)
        model.layers[0].trainable = not frozen
        kernels = model.device.kernels
        with mock.patch.object(
            kernels, "conv_pool_forward", side_effect=kernels.conv_pool_forward
        ) as spy:
            y = model(x, training=True)
        assert spy.called == (device == "cpu" and name in PAIRS and "normalized" not in name)
        dy = np.random.default_rng(2).normal(size=y.shape).astype(np.float32)
        dx = model.backward(dy, input_gradient=input_gradient)
        gradients = [np.array(w.gradient) for layer in model.layers for w in layer.weights]
        found.append([y, *gradients, *([dx] if input_gradient else [])])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * (1 + np.abs(theirs).max()))


def test_maxima_inside_a_convolution_of_volumes():
    stack = [layers.Conv3D(16, (2, 3, 3), activation="relu"), layers.MaxPooling3D((1, 2, 2))]
    model = Sequential([layers.Input((4, 9, 8, 1)), *stack], seed=0)
    x = np.random.default_rng(0).normal(size=(2, 4, 9, 8, 1)).astype(np.float32)
    y, calls = _calls(model, x)
    expected = stack[1](stack[0](x))
    assert calls == 1
    np.testing.assert_array_equal(y, expected)
