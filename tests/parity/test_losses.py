"""Losses against Keras': values, reported losses, gradients by what training does."""

import inspect

import jax
import keras
import numpy as np
import pytest
from parity.parity import both, check, close

import minicnnrnn as mini
from minicnnrnn import left_out, losses
from minicnnrnn.device import get_device
from minicnnrnn.targets import standalone

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 5)).astype(np.float32)
STEPS = RNG.standard_normal((4, 7, 5)).astype(np.float32)
HOLES = RNG.random((4, 7)) < 0.6
WEIGHTS = RNG.uniform(0.5, 2, 6).astype(np.float32)

# class name: activation of the output, kind of targets, arguments
LOSSES = {
    "MeanSquaredError": ("linear", "real", [{}]),
    "MeanAbsoluteError": ("linear", "real", [{}]),
    "MeanAbsolutePercentageError": ("linear", "real", [{}]),
    "MeanSquaredLogarithmicError": ("linear", "real", [{}]),
    "LogCosh": ("linear", "real", [{}]),
    "Huber": ("linear", "real", [{}, {"delta": 0.3}]),
    "Poisson": ("softplus", "counts", [{}]),
    "CosineSimilarity": ("linear", "real", [{}]),
    "Hinge": ("linear", "signs", [{}]),
    "SquaredHinge": ("tanh", "binary", [{}]),
    "CategoricalHinge": ("relu", "one-hot", [{}]),
    "KLDivergence": ("softmax", "soft", [{}]),
    "BinaryCrossentropy": ("sigmoid", "binary", [{}, {"label_smoothing": 0.1}]),
    "CategoricalCrossentropy": ("softmax", "one-hot", [{}, {"label_smoothing": 0.2}]),
    "SparseCategoricalCrossentropy": ("softmax", "labels", [{}, {"ignore_class": 1}]),
    "BinaryFocalCrossentropy": (
        "sigmoid",
        "binary",
        [
            {},
            {"apply_class_balancing": True, "alpha": 0.3, "gamma": 1.5},
            {"gamma": 0.0, "label_smoothing": 0.1},
            {"gamma": 1.0},
        ],
    ),
    "CategoricalFocalCrossentropy": (
        "softmax",
        "one-hot",
        [{}, {"alpha": [0.1, 0.5, 1.0], "gamma": 1.5}, {"gamma": 0.5, "label_smoothing": 0.1}],
    ),
}
LOGITS = [
    ("BinaryCrossentropy", "binary"),
    ("CategoricalCrossentropy", "one-hot"),
    ("SparseCategoricalCrossentropy", "labels"),
    ("BinaryFocalCrossentropy", "binary"),
    ("CategoricalFocalCrossentropy", "one-hot"),
]
CASES = [
    pytest.param(name, activation, kind, arguments, id=f"{name}-{i}")
    for name, (activation, kind, variants) in LOSSES.items()
    for i, arguments in enumerate(variants)
]


def targets(kind, *shape):
    rng = np.random.default_rng(1)
    y = rng.standard_normal((*shape, 3)).astype(np.float32)
    if kind == "labels":
        return rng.integers(0, 3, shape)
    if kind == "one-hot":
        return np.eye(3, dtype=np.float32)[rng.integers(0, 3, shape)]
    if kind == "soft":
        return np.exp(y) / np.exp(y).sum(axis=-1, keepdims=True)
    if kind == "counts":
        return rng.integers(0, 5, y.shape).astype(np.float32)
    if kind == "signs":
        return np.sign(y)
    return (y > 0).astype(np.float32) if kind == "binary" else y


def pair(name, **arguments):
    return getattr(losses, name)(**arguments), getattr(keras.losses, name)(**arguments)


def dense(activation, units=3):
    return [both("Dense", 4, activation="tanh"), both("Dense", units, activation=activation)]


@pytest.mark.parametrize(("name", "activation", "kind", "arguments"), CASES)
def test_values_and_gradients(name, activation, kind, arguments):
    ours, theirs = pair(name, **arguments)
    y = np.array(keras.activations.get(activation)(X[:, :3] * 2))
    t = targets(kind, 6)
    assert ours(t, y, WEIGHTS) == pytest.approx(float(theirs(t, y, WEIGHTS)), rel=1e-5)
    gradient = jax.grad(lambda y: theirs(t, y, WEIGHTS))(y)
    close("gradient", gradient_of(ours, t, y, WEIGHTS), gradient, 2e-5)


def gradient_of(loss, t, y, weights):
    kernels, given = get_device().kernels, standalone(loss, t, y, weights)
    t, dy = loss.targets(kernels, given.t, given.y, None, given.buffer), np.empty_like(given.y)
    output = given.rows if loss.by_row else given.y
    loss.gradient(kernels, dy.reshape(output.shape), output, t, given.weights[0])
    return dy


@pytest.mark.parametrize(("name", "kind"), LOGITS)
def test_values_and_gradients_from_logits(name, kind):
    test_values_and_gradients(name, "linear", kind, {"from_logits": True})


@pytest.mark.parametrize("name", LOSSES)
def test_training(name):
    activation, kind, _ = LOSSES[name]
    optimizer = "adam" if name == "MeanAbsolutePercentageError" else "sgd"
    check(
        dense(activation),
        None,
        X,
        y=targets(kind, 6),
        loss=pair(name),
        optimizer=optimizer,
        sample_weight=WEIGHTS,
    )


@pytest.mark.parametrize("name", ["LogCosh", "Hinge", "CategoricalFocalCrossentropy"])
def test_masks_with_holes(name):
    activation, kind, _ = LOSSES[name]
    y = targets(kind, 4, 7)
    check(dense(activation), None, STEPS, mask=HOLES, y=y, loss=pair(name), optimizer="sgd")


@pytest.mark.parametrize(
    ("reduction", "masked", "weighted", "ignored"),
    [
        ("sum_over_batch_size", True, True, 1),
        ("mean", True, True, None),
        ("mean", False, True, 1),
        ("sum", True, True, 1),
        ("sum", False, False, None),
        ("sum", True, False, None),
    ],
)
def test_reductions(reduction, masked, weighted, ignored):
    weights = np.random.default_rng(2).uniform(0.5, 2, (4, 7)).astype(np.float32)
    check(
        dense("softmax"),
        None,
        STEPS,
        mask=HOLES if masked else None,
        y=targets("labels", 4, 7),
        loss=pair("SparseCategoricalCrossentropy", ignore_class=ignored, reduction=reduction),
        sample_weight=weights if weighted else None,
        optimizer="sgd",
        steps=2,
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_by_sample_weight(masked, weighted):
    weights = np.random.default_rng(2).uniform(0.5, 2, (4, 7)).astype(np.float32)
    check(
        dense("linear"),
        None,
        STEPS,
        mask=HOLES if masked else None,
        loss=pair("MeanSquaredError", reduction="mean_with_sample_weight"),
        sample_weight=weights if weighted else None,
        optimizer="sgd",
        steps=2,
    )


@pytest.mark.parametrize("longest", [1, 3, 7])
def test_ctc(longest):
    # Of the sequences of 7 labels some do not fit: Keras gives them about 1e5.
    rng = np.random.default_rng(longest)
    y = rng.integers(1, 5, (4, longest))
    y[np.arange(longest) >= rng.integers(0, longest + 1, (4, 1))] = 0
    if longest == 7:
        y[0] = 2
    ours, theirs = pair("CTC")
    output = 3 * rng.standard_normal((4, 7, 5)).astype(np.float32)
    assert ours(y, output) == pytest.approx(float(theirs(y, output)), rel=1e-5)
    if longest < 7:
        layers = dense("linear", 5)
        weights = rng.uniform(0.5, 2, 4).astype(np.float32)
        check(
            layers,
            None,
            STEPS,
            y=y,
            loss=(ours, theirs),
            sample_weight=weights,
            optimizer="sgd",
            steps=2,
        )


@pytest.mark.parametrize("scale", [1, 4, 16])
def test_a_tanh_trained_by_binary_crossentropy(scale):
    # The loss clips at 1 - 1e-7: what a tanh of 7.99 is rounded to decides whether there is any
    # slope. Products are exact here, since log(1 - tanh(x)) makes most of a rounding of x.
    rng = np.random.default_rng(scale)
    x = (scale * rng.integers(-4, 5, (64, 5)) / 8).astype(np.float32)
    y = rng.integers(0, 2, (64, 3)).astype(np.float32)
    kernel = (rng.integers(-8, 9, (5, 3)) / 8).astype(np.float32)
    models = []
    for module in (mini, keras):
        dense = module.layers.Dense(3, activation="tanh", use_bias=False)
        models.append(module.Sequential([module.Input((5,)), dense]))
        models[-1].set_weights([kernel])
        models[-1].compile(module.optimizers.SGD(0.05), "binary_crossentropy")
    reported = [model.train_on_batch(x, y) for model in models]
    assert reported[0] == pytest.approx(float(reported[1]), rel=1e-6)
    close("kernel", models[0].get_weights()[0], models[1].get_weights()[0], 1e-5)


@pytest.mark.parametrize("name", sorted(set(losses.__all__) & set(dir(keras.losses)) - {"get"}))
def test_arguments_and_names(name):
    ours, theirs = getattr(losses, name), getattr(keras.losses, name)
    assert inspect.signature(ours).parameters.keys() == inspect.signature(theirs).parameters.keys()
    for parameter, theirs_too in zip(
        inspect.signature(ours).parameters.values(), inspect.signature(theirs).parameters.values()
    ):
        assert parameter.default == theirs_too.default
    if name != "Loss":
        assert ours().name == theirs().name


def test_every_name_is_known_or_left_out():
    names = set(keras.src.losses.ALL_OBJECTS_DICT) - {"Loss", "LossFunctionWrapper"}
    assert names <= set(losses.TABLE) | set(left_out.LOSSES)
