"""Optimizers: rates, schedules, clipping and decay as a model sees them."""

import copy
import pickle

import numpy as np
import pytest

from minicnnrnn import Sequential, layers, optimizers
from minicnnrnn.optimizers import schedules

X = np.eye(4, dtype=np.float32)
KINDS = ["SGD", "RMSprop", "Adagrad", "Adam", "AdamW"]


def trained(optimizer, steps=1, targets=1.0, **arguments):
    """A model of one dense layer, after some steps towards constant targets."""
    dense = layers.Dense(3, kernel_initializer="ones", **arguments)
    model = Sequential([dense], device="numpy", seed=0)
    model.compile(optimizer, "mse")
    for _ in range(steps):
        model.train_on_batch(X, np.full((4, 3), targets))
    return model


def test_a_schedule_gives_the_rate_of_every_step():
    seen = []

    class Schedule(schedules.LearningRateSchedule):
        def __call__(self, step):
            seen.append(step)
            return 0.5 / (step + 1)

    optimizer = optimizers.SGD(Schedule())
    trained(optimizer, 3)
    assert seen == [0, 1, 2]
    assert optimizer.learning_rate == 0.125


@pytest.mark.parametrize("function", [lambda: 0.25, lambda step: 0.25, lambda step=3: 0.25])
def test_a_function_gives_the_rate(function):
    optimizer = optimizers.SGD(function)
    assert optimizer.learning_rate == 0.25
    fixed = trained(optimizers.SGD(0.25)).get_weights()
    for one, other in zip(trained(optimizer).get_weights(), fixed):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(TypeError, match="schedule"):
        optimizer.learning_rate = 0.1


def test_a_bad_rate_of_a_schedule_changes_nothing():
    model = trained(optimizers.SGD(lambda: 0.1))
    before = model.get_weights()
    model.optimizer.learning_rate = lambda: float("nan")
    with pytest.raises(ValueError, match="learning_rate"):
        model.train_on_batch(X, np.ones((4, 3)))
    for one, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(one, other)


def test_hyper_parameters_may_be_changed_between_steps():
    model = trained(optimizers.SGD(0.1))
    model.optimizer.learning_rate = 0
    before = model.get_weights()
    model.train_on_batch(X, np.zeros((4, 3)))
    for one, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(one, other)


def test_exclusions_come_before_the_first_step():
    optimizer = optimizers.SGD(0.1, weight_decay=0.5)
    model = trained(optimizer)
    with pytest.raises(ValueError, match="before the first step"):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(TypeError, match="weights of layers"):
        optimizers.SGD().exclude_from_weight_decay(var_list=[model.layers[0].kernel])


def test_only_what_is_not_excluded_decays():
    def weights(**excluded):
        optimizer = optimizers.SGD(1.0, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(**excluded)
        # The output is the target, so the gradients vanish.
        return trained(optimizer, targets=2.0, bias_initializer="ones").get_weights()

    for names, kernel, bias in [(["bias"], 0.5, 1), (["k.*l"], 1, 0.5), (["x"], 0.5, 0.5)]:
        found = weights(var_names=names)
        assert (found[0] == kernel).all()
        assert (found[1] == bias).all()


@pytest.mark.parametrize("kind", KINDS)
def test_configurations(kind):
    optimizer = getattr(optimizers, kind)(schedules.CosineDecay(0.1, 50), clipnorm=0.5)
    config = optimizer.get_config()
    other = optimizers.get({"class_name": kind, "config": config})
    assert type(other) is type(optimizer)
    assert other.get_config() == config
    assert other.learning_rate == 0.1
    with pytest.raises(ValueError, match="LearningRateSchedule"):
        getattr(optimizers, kind)(lambda: 0.1).get_config()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_trains_as_the_original(kind, duplicate):
    optimizer = getattr(optimizers, kind)(0.1, global_clipnorm=0.3, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = trained(optimizer, 2, kernel_constraint="max_norm", kernel_regularizer="l1_l2")
    other = duplicate(model)
    for each in (model, other):
        each.train_on_batch(X, np.ones((4, 3)))
    for one, two in zip(model.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(one, two)


def test_schedules_refuse():
    for make in (
        lambda: schedules.CosineDecay(0.1, 0),
        lambda: schedules.ExponentialDecay(0.1, -1, 0.5),
        lambda: schedules.CosineDecayRestarts(0.1, 10, t_mul=0),
        lambda: schedules.PiecewiseConstantDecay([1, 2], [0.1]),
        lambda: schedules.PiecewiseConstantDecay([2, 1], [0.1, 0.2, 0.3]),
        lambda: schedules.deserialize({"class_name": "Linear", "config": {}}),
    ):
        with pytest.raises(ValueError, match=r"Expected .* Received"):
            make()


def test_restarts_at_whole_periods():
    # 1 + 3 + 9 + ... + 3^9 periods: logarithms of 3^k are not whole in floating point.
    schedule = schedules.CosineDecayRestarts(1.0, 1, t_mul=3.0, m_mul=0.5)
    ends = [(3**k - 1) // 2 for k in range(10)]
    assert [schedule(step) for step in ends] == [0.5**k for k in range(10)]
    shrinking = schedules.CosineDecayRestarts(1.0, 8, t_mul=0.5, alpha=0.1)
    assert shrinking(8) == 1.0
    assert shrinking(16) == shrinking(100) == pytest.approx(0.1)
