"""Schedules: the learning rate as a function of the number of updates made so far.

Steps count from 0.
"""

import math
from collections.abc import Sequence
from typing import Any

from minicnnrnn.configuration import Configured, find


class LearningRateSchedule(Configured):
    """The base of all schedules: a function from the step to the learning rate.

    A subclass keeps its constructor's arguments as attributes of the same names, so that it can
    be saved.

    Examples
    --------
    >>> from minicnnrnn.optimizers import SGD, schedules
    >>> class Harmonic(schedules.LearningRateSchedule):
    ...     def __init__(self, initial):
    ...         self.initial = initial
    ...
    ...     def __call__(self, step):
    ...         return self.initial / (step + 1)
    >>> SGD(Harmonic(0.5)).learning_rate
    0.5
    """

    def __call__(self, step: int) -> float:
        """The learning rate of the update that comes after `step` others."""
        raise TypeError(f"{type(self).__name__}: Expected a method __call__(step).")


def _check_steps(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"{name}: Expected a positive number. Received: {value!r}")


class _Decay(LearningRateSchedule):
    """What the schedules with a decay rate share."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str | None = None,
    ) -> None:
        _check_steps("decay_steps", decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.decay_rate, self.staircase = decay_rate, staircase
        self.name = name or type(self).__name__

    def _periods(self, step: int) -> float:
        periods = step / self.decay_steps
        return math.floor(periods) if self.staircase else periods


class ExponentialDecay(_Decay):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``.

    Parameters
    ----------
    initial_learning_rate, decay_steps, decay_rate : float
    staircase : bool
        Whether the exponent is rounded down: one rate for `decay_steps` updates.
    name : str, optional

    Examples
    --------
    >>> from minicnnrnn.optimizers.schedules import ExponentialDecay
    >>> ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)(20)
    0.025
    """

    def __call__(self, step: int) -> float:
        """The rate at this step."""
        return float(self.initial_learning_rate * self.decay_rate ** self._periods(step))


class InverseTimeDecay(_Decay):
    """``initial_learning_rate / (1 + decay_rate * step / decay_steps)``.

    Parameters
    ----------
    initial_learning_rate, decay_steps, decay_rate : float
    staircase : bool
        Whether ``step / decay_steps`` is rounded down.
    name : str, optional
    """

    def __call__(self, step: int) -> float:
        """The rate at this step."""
        return float(self.initial_learning_rate / (1 + self.decay_rate * self._periods(step)))


class PiecewiseConstantDecay(LearningRateSchedule):
    """A constant up to and including the first boundary, another one up to the second, ...

    Parameters
    ----------
    boundaries : list of numbers
        Increasing steps.
    values : list of float
        One more than boundaries.
    name : str, optional

    Examples
    --------
    >>> from minicnnrnn.optimizers.schedules import PiecewiseConstantDecay
    >>> schedule = PiecewiseConstantDecay([10, 20], [1.0, 0.5, 0.1])
    >>> schedule(10), schedule(11), schedule(21)
    (1.0, 0.5, 0.1)
    """

    def __init__(
        self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant"
    ) -> None:
        self.boundaries, self.values, self.name = list(boundaries), list(values), name
        if len(self.boundaries) != len(self.values) - 1:
            raise ValueError(
                f"values: Expected {len(self.boundaries) + 1}, one more than boundaries. "
                f"Received: {len(self.values)}"
            )
        if any(a >= b for a, b in zip(self.boundaries, self.boundaries[1:])):
            raise ValueError(f"boundaries: Expected increasing steps. Received: {boundaries!r}")

    def __call__(self, step: int) -> float:
        """The rate at this step."""
        return float(self.values[sum(step > boundary for boundary in self.boundaries)])


class PolynomialDecay(LearningRateSchedule):
    """From `initial_learning_rate` to `end_learning_rate` as ``(1 - step / decay_steps) ** power``.

    Parameters
    ----------
    initial_learning_rate, decay_steps, end_learning_rate, power : float
    cycle : bool
        Whether it starts again, for twice, three times, ... the steps, instead of staying at
        the end.
    name : str, optional
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        _check_steps("decay_steps", decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.end_learning_rate, self.power = end_learning_rate, power
        self.cycle, self.name = cycle, name

    def __call__(self, step: int) -> float:
        """The rate at this step."""
        steps = self.decay_steps
        if self.cycle:
            steps *= max(1, math.ceil(step / steps))
        left = 1 - min(step, steps) / steps
        span = self.initial_learning_rate - self.end_learning_rate
        return float(span * left**self.power + self.end_learning_rate)


class CosineDecay(LearningRateSchedule):
    """Half a cosine, from `initial_learning_rate` to `alpha` times that; after a warm-up, if any.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : float
        Without the steps of the warm-up.
    alpha : float
        Share of the rate that is left at the end.
    name : str, optional
    warmup_target : float, optional
        The rate first goes from `initial_learning_rate` to this one, in a line, and decays
        from there.
    warmup_steps : float

    Notes
    -----
    Loshchilov and Hutter 2017, arXiv:1608.03983, section 3.

    Examples
    --------
    >>> from minicnnrnn.optimizers.schedules import CosineDecay
    >>> schedule = CosineDecay(0.0, 100, warmup_target=0.1, warmup_steps=10)
    >>> [round(schedule(step), 3) for step in (0, 5, 10, 60, 110, 200)]
    [0.0, 0.05, 0.1, 0.05, 0.0, 0.0]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ) -> None:
        _check_steps("decay_steps", decay_steps)
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.alpha, self.name = alpha, name
        self.warmup_target, self.warmup_steps = warmup_target, warmup_steps

    def __call__(self, step: int) -> float:
        """The rate at this step."""
        first, warm = self.initial_learning_rate, 0.0
        if self.warmup_target is not None:
            first, warm = self.warmup_target, self.warmup_steps
            if step < warm:
                start = self.initial_learning_rate
                return float((first - start) * (step / warm) + start)
        done = min(step - warm, self.decay_steps) / self.decay_steps
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return float(first * ((1 - self.alpha) * cosine + self.alpha))


class CosineDecayRestarts(LearningRateSchedule):
    """Half a cosine after the other, each `t_mul` times longer, `m_mul` times lower.

    Parameters
    ----------
    initial_learning_rate : float
    first_decay_steps : float
    t_mul : float
        Positive. Below 1 all periods together are finite, and the rate stays at the end.
    m_mul : float
    alpha : float
        Share of the first rate that is always left.
    name : str, optional

    Notes
    -----
    Loshchilov and Hutter 2017, arXiv:1608.03983, section 3.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        _check_steps("first_decay_steps", first_decay_steps)
        _check_steps("t_mul", t_mul)
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = first_decay_steps
        self.t_mul, self.m_mul = t_mul, m_mul
        self.alpha, self.name = alpha, name

    def __call__(self, step: int) -> float:
        """The rate at this step."""
        restarts, done = self._period(step / self.first_decay_steps)
        cosine = 0.5 * self.m_mul**restarts * (1 + math.cos(math.pi * done))
        return float(self.initial_learning_rate * ((1 - self.alpha) * cosine + self.alpha))

    def _period(self, fraction: float) -> tuple[int, float]:
        """Number of restarts so far, and the share of the current period that is done."""
        if self.t_mul == 1:
            return math.floor(fraction), fraction - math.floor(fraction)
        left = 1 - fraction * (1 - self.t_mul)
        if left <= 0:
            return 0, 1.0
        restarts = math.floor(math.log(left) / math.log(self.t_mul))
        if self._begin(restarts + 1) <= fraction:  # the logarithm was rounded down
            restarts += 1
        return restarts, (fraction - self._begin(restarts)) / self.t_mul**restarts

    def _begin(self, restarts: int) -> float:
        """Where the period after so many restarts begins, in first periods."""
        return (1 - self.t_mul**restarts) / (1 - self.t_mul)


SCHEDULES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        ExponentialDecay,
        InverseTimeDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
        CosineDecay,
        CosineDecayRestarts,
    )
}


def serialize(schedule: LearningRateSchedule) -> dict[str, Any]:
    """Describe a schedule by a dict from which ``deserialize`` makes another one."""
    from minicnnrnn.saving.objects import serialize as describe

    described: dict[str, Any] = describe(schedule)
    return described


def deserialize(config: Any) -> LearningRateSchedule:
    """Make a schedule from what ``serialize`` returned.

    Examples
    --------
    >>> from minicnnrnn.optimizers import schedules
    >>> config = schedules.serialize(schedules.CosineDecay(0.1, 100))
    >>> schedules.deserialize(config)(0)
    0.1
    """
    found = find(config, SCHEDULES)
    if not isinstance(found, LearningRateSchedule):
        raise ValueError(
            f"schedule: Expected a dict with one of {sorted(SCHEDULES)}. Received: {config!r}"
        )
    return found
