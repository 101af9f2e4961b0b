"""Regularizers and constraints: found by name, refused with reasons, obeyed in training."""

import numpy as np
import pytest
from checks import check_gradient, normal

from minicnnrnn import Sequential, constraints, layers, regularizers

X = np.eye(4, dtype=np.float32)


class Fourth(regularizers.Regularizer):
    """A penalty that no kernel knows."""

    def value(self, w):
        return float(np.sum(w**4))

    def gradient(self, w):
        return 4 * w**3


class Halved(regularizers.L2):
    """A change of a built-in penalty."""

    def value(self, w):
        return super().value(w) / 2

    def gradient(self, w):
        return super().gradient(w) / 2


def model_of(*stack, device="numpy"):
    model = Sequential(stack, device=device, seed=0)
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("l1", "L1(l1=0.01)"),
        ("l2", "L2(l2=0.01)"),
        ("l1_l2", "L1L2(l1=0.01, l2=0.01)"),
        ("L1L2", "L1L2(l1=0.0, l2=0.0)"),
        (regularizers.L2, "L2(l2=0.01)"),
        (regularizers.l2(0.5), "L2(l2=0.5)"),
        ({"class_name": "L1", "config": {"l1": 0.25}}, "L1(l1=0.25)"),
        ("orthogonal_regularizer", "OrthogonalRegularizer(factor=0.01, mode='rows')"),
        (None, "None"),
    ],
)
def test_regularizers_by_name(identifier, expected):
    assert repr(regularizers.get(identifier)) == expected


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ("max_norm", "MaxNorm(max_value=2.0, axis=0)"),
        ("NonNeg", "NonNeg()"),
        (constraints.unit_norm((0, 1)), "UnitNorm(axis=[0, 1])"),
        (
            {"class_name": "MinMaxNorm", "config": {"rate": 0.5}},
            "MinMaxNorm(min_value=0.0, max_value=1.0, rate=0.5, axis=0)",
        ),
        (None, "None"),
    ],
)
def test_constraints_by_name(identifier, expected):
    assert repr(constraints.get(identifier)) == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: regularizers.get("l3"),
        lambda: regularizers.get(lambda w: 0.0),
        lambda: regularizers.get(0.01),
        lambda: regularizers.L2(-1),
        lambda: regularizers.L1(float("inf")),
        lambda: regularizers.OrthogonalRegularizer(mode="diagonal"),
        lambda: regularizers.OrthogonalRegularizer()(np.ones(3)),
        lambda: constraints.get("norm"),
        lambda: constraints.get(3),
        lambda: constraints.MaxNorm(-1),
        lambda: constraints.MinMaxNorm(rate=2),
        lambda: constraints.UnitNorm(axis="0"),
        lambda: constraints.UnitNorm(axis=[]),
        lambda: layers.Dense(2, kernel_regularizer="l3"),
        lambda: layers.Dense(2, kernel_constraint="l2"),
        lambda: layers.Dense(2, kernel_constraint=constraints.UnitNorm(2)).build_once((None, 4)),
    ],
)
def test_refused(make):
    with pytest.raises(ValueError, match=r"Expected .* Received"):
        make()


@pytest.mark.parametrize(
    "regularizer",
    [
        regularizers.L1L2(0.3, 0.2),
        regularizers.OrthogonalRegularizer(0.5),
        regularizers.OrthogonalRegularizer(0.5, "columns"),
        Fourth(),
        Halved(0.5),
    ],
)
def test_gradients(regularizer):
    rng = np.random.default_rng(0)
    check_gradient(
        lambda w: np.array([regularizer.value(w)]),
        lambda w, u: regularizer.gradient(w) * u[0],
        normal(rng, 4, 5),
        rng,
    )


@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize("regularizer", [regularizers.L1L2(0.1, 0.2), Fourth(), Halved(0.3)])
def test_the_penalty_is_in_the_loss_and_in_the_gradient(device, regularizer):
    kernel, bias = np.float32([[1, -2], [0.5, 3], [2, 2], [1, 1]]), np.float32([1, -1])
    stack = [
        layers.Dense(2, kernel_regularizer=regularizer, bias_regularizer="l2"),
        layers.Dense(2, activity_regularizer=regularizer, kernel_initializer="identity"),
    ]
    model = model_of(*stack, device=device)
    model.build(X.shape)
    model.set_weights([kernel, bias, np.eye(2), np.zeros(2)])
    y = X @ kernel + bias
    loss = regularizer.value(kernel) + 0.01 * 2 + regularizer.value(y) / 4
    assert model.evaluate(X, y) == pytest.approx(loss, rel=1e-5)
    assert model.evaluate(X, y, batch_size=4) == pytest.approx(loss, rel=1e-5)
    assert model.train_on_batch(X, y) == pytest.approx(loss, rel=1e-5)
    dy = regularizer.gradient(y) / 4
    np.testing.assert_allclose(
        model.get_weights()[0],
        kernel - 0.01 * (X.T @ dy + regularizer.gradient(kernel)),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        model.get_weights()[1], bias - 0.01 * (dy.sum(axis=0) + 0.02 * bias), rtol=1e-5
    )


def test_frozen_weights_pay_nothing():
    dense = layers.Dense(2, kernel_regularizer="l2", kernel_constraint="non_neg")
    model = model_of(dense, layers.Dense(2))
    model.build(X.shape)
    dense.set_weights([-np.ones((4, 2)), np.zeros(2)])
    y = model.predict(X)
    assert model.evaluate(X, y) == pytest.approx(0.08)
    dense.trainable = False
    assert model.evaluate(X, y) == pytest.approx(0)
    model.train_on_batch(X, y + 1)
    np.testing.assert_array_equal(dense.kernel, -1)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize(
    ("constraint", "holds"),
    [
        ("non_neg", lambda w: (w >= 0).all()),
        (constraints.UnitNorm(1), lambda w: np.allclose(np.linalg.norm(w, axis=1), 1, 1e-5)),
        (lambda w: np.clip(w, -0.1, 0.1), lambda w: np.abs(w).max() <= np.float32(0.1)),
    ],
)
def test_constraints_hold_after_every_update(device, constraint, holds):
    model = model_of(layers.Dense(3, kernel_constraint=constraint), device=device)
    model.fit(X, -np.ones((4, 3)), epochs=3, verbose=0)
    assert model.get_weights()[1].all()
    assert holds(model.get_weights()[0])
    np.testing.assert_allclose(  # nothing packed before the constraint is used after it
        model.predict(X), X @ model.get_weights()[0] + model.get_weights()[1], rtol=1e-6
    )


def test_what_a_custom_object_returns_is_checked():
    class Flat(Fourth):
        def gradient(self, w):
            return super().gradient(w).reshape(-1)

    for arguments in ({"kernel_regularizer": Flat()}, {"kernel_constraint": lambda w: w[0]}):
        with pytest.raises(ValueError, match=r"Expected .* of shape \(4, 3\)"):
            model_of(layers.Dense(3, **arguments)).fit(X, np.ones((4, 3)), verbose=0)
