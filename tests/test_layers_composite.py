"""Residual and Branches: sums and merges of chains, at any depth."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from minicnnrnn import Sequential, layers

MERGES = {
    "concat": lambda parts: np.concatenate(parts, axis=-1),
    "add": lambda parts: np.sum(parts, axis=0),
    "mul": lambda parts: np.prod(parts, axis=0),
    "average": lambda parts: np.mean(parts, axis=0),
    "max": lambda parts: np.max(parts, axis=0),
}


def numeric_gradient(model, x, dy, weight, rng):
    """<v, dw> by a central difference of <dy, model(x)> along v, for one weight of the model."""
    v = rng.standard_normal(weight.shape)
    values = model.get_weights()
    index = next(i for i, w in enumerate(model.weights) if w is weight)
    ends = []
    for step in (1e-2, -1e-2):
        moved = [w.copy() for w in values]
        moved[index] = moved[index] + step * v
        model.set_weights(moved)
        ends.append(np.sum(dy * np.asarray(model(x), np.float64)))
    model.set_weights(values)
    return (ends[0] - ends[1]) / 2e-2, np.sum(v * weight.gradient)


def test_residual_worked_example():
    inside = layers.Dense(2, kernel_initializer="ones", bias_initializer="zeros")
    block = layers.Residual([inside], activation="relu")
    y = block(np.array([[1.0, 2.0], [-5.0, 4.0]]), training=True)
    assert y.tolist() == [[4, 5], [0, 3]]
    dx = block.backward(np.ones((2, 2), np.float32))
    # dz = [[1, 1], [0, 1]]; dx = dz + dz @ ones
    assert dx.tolist() == [[3, 3], [1, 2]]
    assert inside.weights[0].gradient.tolist() == [[1, -4], [2, 6]]


def test_shortcut_changes_the_shape():
    block = layers.Residual(
        [layers.Conv2D(4, 3, strides=2, padding="same")], [layers.Conv2D(4, 1, strides=2)]
    )
    x = np.random.default_rng(0).standard_normal((3, 7, 7, 2)).astype(np.float32)
    y = block(x)
    main, shortcut = (branch.layers[0] for branch in block.children)
    np.testing.assert_allclose(y, main(x) + shortcut(x), rtol=1e-5, atol=1e-6)
    assert block.output_shape == (None, 4, 4, 4)
    assert [w.shape for w in block.weights] == [(3, 3, 2, 4), (4,), (1, 1, 2, 4), (4,)]


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_branches_merge(merge, count):
    branches = [[layers.Dense(3, activation="tanh")] for _ in range(count)]
    block = layers.Branches(*branches, merge=merge)
    x = np.random.default_rng(count).standard_normal((4, 5)).astype(np.float32)
    y = block(x)
    parts = [branch.layers[0](x) for branch in block.children]
    np.testing.assert_allclose(y, MERGES[merge](parts), rtol=1e-5, atol=1e-6)
    assert block.output_shape == (None, *y.shape[1:])


@pytest.mark.parametrize("merge", [merge for merge in MERGES if merge != "max"])
@given(st.integers(1, 3), seeds)
def test_gradients_of_every_merge(merge, count, seed):
    rng = np.random.default_rng(seed)
    branches = [[layers.Dense(3, activation="tanh"), layers.Dense(3)] for _ in range(count)]
    model = Sequential(
        [
            layers.Dense(3),
            layers.Residual([layers.Branches([], *branches, merge=merge), layers.Dense(3)]),
        ],
        seed=seed % 1000,
    )
    x = rng.standard_normal((2, 3)).astype(np.float32)
    y = model(x, training=True)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    model.backward(dy)
    for weight in model.weights:
        numeric, exact = numeric_gradient(model, x, dy, weight, rng)
        assert abs(numeric - exact) < 2e-2 * (1 + abs(numeric)), weight.name


def test_only_the_largest_branch_learns():
    heights = [layers.Dense(2, use_bias=True, bias_initializer=c) for c in ("zeros", "ones")]
    for dense in heights:
        dense.initializers = (dense.initializer("zeros"), dense.initializers[1])
    block = layers.Branches([], *heights, merge="max")
    assert block(np.array([[0.5, 7.0]]), training=True).tolist() == [[1, 7]]
    assert block.backward(np.array([[3, 5]], np.float32)).tolist() == [[0, 5]]
    assert heights[0].weights[1].gradient.tolist() == [0, 0]
    assert heights[1].weights[1].gradient.tolist() == [3, 0]


def test_nothing_but_sums_of_gradients_reaches_the_input():
    block = layers.Branches([], [], layers.Dense(2, kernel_initializer="ones"), merge="add")
    block(np.ones((1, 2)), training=True)
    assert block.backward(np.array([[1, 10]], np.float32)).tolist() == [[13, 31]]


def test_deep_nesting_trains_prints_and_copies():
    model = Sequential(
        [
            layers.Input((4,)),
            layers.Residual(Sequential([layers.Branches([layers.Dense(2)], layers.Dense(2))])),
            layers.Dense(1),
        ],
        seed=0,
    )
    x = np.random.default_rng(0).standard_normal((64, 4))
    history = model.fit(x, x.sum(1), epochs=150, verbose=0).history["loss"]
    assert history[-1] < history[0] / 2
    lines = []
    model.summary(print_fn=lines.append)
    assert sum("(Dense)" in line for line in lines) == 3
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(x), model.predict(x))
        other.fit(x, x.sum(1), verbose=0)


def test_frozen_branches_stay():
    block = layers.Residual([layers.Dense(3)], [layers.Dense(3, trainable=False)])
    model = Sequential([layers.Input((3,)), block], seed=1)
    before = model.get_weights()
    x = np.random.default_rng(0).standard_normal((8, 3))
    model.compile("sgd", "mse")
    model.fit(x, x, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights())]
    assert changed == [True, True, False, False]
    block.trainable = False
    assert not any(weight.trainable for weight in model.weights)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Branches(), "Expected at least one branch"),
        (lambda: layers.Branches([], merge="minimum"), "Expected merge to be one of"),
        (lambda: layers.Branches(3), "Expected a layer or a list of layers"),
        (lambda: layers.Residual([layers.Dense(3)])(np.zeros((1, 2))), "the same shape"),
        (lambda: layers.Branches([layers.Dense(3)], [], merge="add")(np.zeros((1, 2))), "'add'"),
        (
            lambda: layers.Branches([layers.Conv2D(1, 3)], [])(np.zeros((1, 5, 5, 1))),
            "'concat'",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_failed_branch_gives_its_layers_back():
    dense, taken = layers.Dense(2), layers.Dense(2)
    Sequential([taken])
    with pytest.raises(ValueError, match="lives in a model already"):
        layers.Residual(dense, taken)
    Sequential([dense])


def test_activity_penalty_inside_a_branch():
    def model(penalty):
        inside = layers.Dense(2, activity_regularizer=penalty, kernel_initializer="ones")
        return Sequential([layers.Input((2,)), layers.Residual([inside])], seed=0)

    x, y = np.ones((4, 2)), np.zeros((4, 2))
    with_penalty, without = model("l2"), model(None)
    for each in (with_penalty, without):
        each.compile("sgd", "mse")
    # The inner output is 2 in both units: 0.01 * (4 + 4) a sample.
    assert with_penalty.evaluate(x, y) - without.evaluate(x, y) == pytest.approx(0.08, rel=1e-5)
    with_penalty.train_on_batch(x, y)
    without.train_on_batch(x, y)
    difference = with_penalty.get_weights()[1] - without.get_weights()[1]
    np.testing.assert_allclose(difference, -0.01 * 0.01 * 2 * 2 * np.ones(2), rtol=1e-3)
