"""Optimizers, schedules, regularizers and constraints, against Keras."""

import keras
import numpy as np
import pytest
from parity.parity import both, check

import minicnnrnn as mini

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 5))


def pair(kind, *args, **kwargs):
    """{name: (ours, theirs)} of an optimizer, for `check`."""
    makers = (lambda m=module: getattr(m.optimizers, kind)(*args, **kwargs) for module in SIDES)
    return {f"{kind} {args} {kwargs}": tuple(makers)}


SIDES = (mini, keras)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9, "clipnorm": 0.3}),
        ("SGD", {"momentum": 0.5, "nesterov": True, "weight_decay": 0.1}),
        ("SGD", {"clipvalue": 0.05}),
        ("SGD", {"global_clipnorm": 0.2, "weight_decay": 0.1}),
        ("SGD", {"global_clipnorm": 1e4}),
        ("SGD", {"clipnorm": 0.0, "learning_rate": 0.05}),
        ("RMSprop", {}),
        ("RMSprop", {"momentum": 0.5, "rho": 0.8, "clipnorm": 0.1}),
        ("RMSprop", {"centered": True, "epsilon": 1e-3, "weight_decay": 0.04}),
        ("Adagrad", {}),
        ("Adagrad", {"learning_rate": 0.1, "initial_accumulator_value": 0.5, "epsilon": 1e-2}),
        ("Adagrad", {"weight_decay": 0.3, "clipvalue": 0.1}),
        ("Adam", {}),
        ("Adam", {"learning_rate": 0.01, "amsgrad": True, "global_clipnorm": 0.1}),
        ("Adam", {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 1e-3, "clipvalue": 0.02}),
        ("AdamW", {}),
        ("AdamW", {"weight_decay": 0.5, "learning_rate": 0.01}),
    ],
)
def test_optimizers(kind, arguments):
    layers = [both("Dense", 7, activation="tanh"), both("Dense", 3)]
    check(layers, x=X, optimizer=pair(kind, **arguments), steps=6)


@pytest.mark.parametrize("names", [["bias"], ["kern", "nothing"], []])
def test_exclusion_from_weight_decay(names):
    def maker(module):
        def make():
            optimizer = module.optimizers.AdamW(0.01, weight_decay=2.0)
            optimizer.exclude_from_weight_decay(var_names=names)
            return optimizer

        return make

    layers = [both("Dense", 4, activation="tanh"), both("Dense", 3)]
    check(layers, x=X, optimizer={"excluding": tuple(map(maker, SIDES))})


def test_exclusion_of_listed_weights():
    ours, theirs = both("Dense", 3, input_shape=(5,))
    with pytest.warns(UserWarning, match="input_shape"):
        keras.layers.Dense(3, input_shape=(5,))
    models = mini.Sequential([ours]), keras.Sequential([keras.Input((5,)), theirs])
    models[1].build((None, 5))
    models[0].set_weights(models[1].get_weights())
    listed = ours.weights[0], theirs.kernel
    for module, model, weight in zip(SIDES, models, listed):
        optimizer = module.optimizers.SGD(0.1, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_list=[weight])
        model.compile(optimizer, "mse")
        model.train_on_batch(X, np.ones((6, 3)))
    for mine, expected in zip(*(model.get_weights() for model in models)):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6)


# --- schedules -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "args", "kwargs"),
    [
        ("ExponentialDecay", (0.1, 7, 0.9), {}),
        ("ExponentialDecay", (0.1, 7, 0.9), {"staircase": True}),
        ("InverseTimeDecay", (0.1, 7.5, 0.4), {}),
        ("InverseTimeDecay", (0.1, 5, 0.4, True), {}),
        ("PiecewiseConstantDecay", ([5, 10, 40], [0.1, 0.05, 0.02, 0.3]), {}),
        ("PiecewiseConstantDecay", ([5], [1.0, 0.5]), {}),
        ("PolynomialDecay", (0.1, 20), {}),
        ("PolynomialDecay", (0.1, 20, 0.01, 0.5), {}),
        ("PolynomialDecay", (0.1, 7), {"power": 2.0, "cycle": True}),
        ("CosineDecay", (0.1, 30), {}),
        ("CosineDecay", (0.1, 30, 0.2), {}),
        ("CosineDecay", (0.01, 30, 0.1), {"warmup_target": 0.2, "warmup_steps": 7}),
        ("CosineDecay", (0.01, 30), {"warmup_target": 0.2}),
        ("CosineDecay", (0.01, 30), {"warmup_steps": 7}),
        ("CosineDecayRestarts", (0.1, 6), {}),
        ("CosineDecayRestarts", (0.1, 6, 1.0, 0.8), {}),
        ("CosineDecayRestarts", (0.1, 5), {"t_mul": 1.5, "m_mul": 0.7, "alpha": 0.1}),
    ],
)
def test_schedules(kind, args, kwargs):
    ours, theirs = (getattr(m.optimizers.schedules, kind)(*args, **kwargs) for m in SIDES)
    for step in [*range(60), 100, 999, 12_345]:
        assert ours(step) == pytest.approx(float(theirs(step)), rel=2e-5, abs=1e-7), step
    assert ours.get_config() == theirs.get_config()
    assert type(ours).from_config(theirs.get_config())(3) == ours(3)


def test_training_by_a_schedule():
    def maker(module):
        schedules = module.optimizers.schedules
        return lambda: module.optimizers.SGD(schedules.ExponentialDecay(0.1, 1, 0.5))

    check(both("Dense", 3), x=X, optimizer={"decaying": tuple(map(maker, SIDES))})


def test_a_schedule_forbids_setting_a_number():
    for module in SIDES:
        optimizer = module.optimizers.SGD(module.optimizers.schedules.CosineDecay(0.1, 10))
        assert float(optimizer.learning_rate) == pytest.approx(0.1)
        with pytest.raises(TypeError):
            optimizer.learning_rate = 0.1
        optimizer.learning_rate = module.optimizers.schedules.ExponentialDecay(0.2, 10, 0.5)
        assert float(optimizer.learning_rate) == pytest.approx(0.2)


@pytest.mark.parametrize("kind", ["SGD", "RMSprop", "Adagrad", "Adam", "AdamW"])
def test_configurations_are_exchangeable(kind):
    theirs = getattr(keras.optimizers, kind)(learning_rate=0.25, clipnorm=0.5)
    ours = getattr(mini.optimizers, kind).from_config(theirs.get_config())
    expected, found = theirs.get_config(), ours.get_config()
    assert found == expected
    getattr(keras.optimizers, kind).from_config(found)


# --- regularizers and constraints ------------------------------------------------------


def of_both(folder, kind, *args, **kwargs):
    """An object of either side, as a pair that `both` understands."""
    return tuple(getattr(getattr(m, folder), kind)(*args, **kwargs) for m in SIDES)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_regularizer": "l2", "bias_regularizer": "l1"},
        {"kernel_regularizer": of_both("regularizers", "L1L2", 0.02, 0.1)},
        {"kernel_regularizer": of_both("regularizers", "L1", 0.1)},
        {"kernel_regularizer": of_both("regularizers", "OrthogonalRegularizer", 0.3)},
        {
            "kernel_regularizer": of_both(
                "regularizers", "OrthogonalRegularizer", 0.3, mode="columns"
            )
        },
        {"activity_regularizer": of_both("regularizers", "L2", 0.1)},
        {"activity_regularizer": "l1", "kernel_regularizer": "l2", "activation": "relu"},
    ],
)
def test_regularizers(arguments):
    layers = [both("Dense", 4, activation="tanh"), both("Dense", 3, **arguments)]
    check(layers, x=X, optimizer="sgd")
    check([both("Dense", 4, **arguments), both("Dense", 3)], x=X, optimizer="adam")


@pytest.mark.parametrize("axis", [0, 1, 3, -1, [0, 1, 2], [2, 3], [0, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("MaxNorm", {"max_value": 0.3}),
        ("UnitNorm", {}),
        ("MinMaxNorm", {"min_value": 0.5, "max_value": 0.6, "rate": 0.3}),
    ],
)
def test_norms_of_a_filter(kind, arguments, axis):
    ours, theirs = of_both("constraints", kind, **arguments, axis=axis)
    w = RNG.standard_normal((3, 2, 4, 5)).astype(np.float32)
    expected = np.asarray(theirs(w))
    np.testing.assert_allclose(ours(w), expected, rtol=1e-5, atol=1e-6)
    changed = w.copy()
    mini.constraints.Projection(ours, w.shape).apply(mini.get_device("cpu"), changed)
    np.testing.assert_allclose(changed, expected, rtol=1e-5, atol=1e-6)
    assert ours.get_config() == theirs.get_config()


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_constraint": "max_norm", "bias_constraint": "non_neg"},
        {"kernel_constraint": of_both("constraints", "MaxNorm", 0.5)},
        {"kernel_constraint": of_both("constraints", "UnitNorm", axis=1)},
        {"kernel_constraint": "non_neg", "kernel_regularizer": "l1"},
        {"bias_constraint": of_both("constraints", "MinMaxNorm", 0.2, 0.4, 0.5)},
    ],
)
def test_constraints(arguments):
    check(
        [both("Dense", 4, activation="tanh"), both("Dense", 3, **arguments)], x=X, optimizer="sgd"
    )
