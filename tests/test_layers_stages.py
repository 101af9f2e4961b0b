"""Stages: predictions in parts are those of the whole batch, image by image."""

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


@pytest.mark.parametrize(
    ("name", "counts"), [("plain", [2, 1, 0, 1]), ("normalized", [3, 0, 0, 0])]
)
def test_what_a_stage_is(name, counts):
    assert [layers_of_stage(STACKS[name](), i) for i in range(4)] == counts
    assert [layers_of_stage(STACKS["no stage"](), i) for i in range(3)] == [0, 0, 0]
    assert layers_of_stage([layers.Conv1D(2, 2), layers.GlobalMaxPooling1D()], 0) == 1
    assert layers_of_stage([layers.Conv1D(2, 2)], 0) == 0


def test_parts_are_larger_where_the_weights_are():
    stage = [layers.Conv2D(4, 1, use_bias=False)]
    stage[0].build_once((None, 8, 8, 2))
    assert parts_of_batch(stage, (32, 8, 8, 2), 4096) == 8  # 1,024 bytes an image
    assert parts_of_batch(stage, (3, 8, 8, 2), 4096) == 1
    wide = [layers.Conv2D(64, 3, padding="same")]
    wide[0].build_once((None, 4, 4, 64))
    assert parts_of_batch(wide, (288, 4, 4, 64), 4096) == 2  # 4 * 147,712 bytes of weights
