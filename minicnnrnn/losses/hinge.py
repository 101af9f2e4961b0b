"""Hinge losses: outputs should be beyond a margin on their targets' side."""

from typing import Any, ClassVar

from minicnnrnn.losses.base import MEAN, Loss


class Hinge(Loss):
    """``mean(max(1 - t * y, 0))`` over the last axis.

    Targets are -1 or 1; where all of a batch are 0 or 1, they stand for these.
    """

    power: ClassVar[int] = 1

    def __init__(
        self, reduction: str = MEAN, name: str | None = "hinge", dtype: str | None = None
    ) -> None:
        super().__init__(name, reduction, dtype)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The mean of a row's margins that are missed, to a power."""
        kernels.hinge_forward(values, y, t, self.power)

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """The derivative of that, weighted."""
        kernels.hinge_backward(dy, y, t, weights, self.power)


class SquaredHinge(Hinge):
    """``mean(max(1 - t * y, 0) ** 2)`` over the last axis; targets as in ``Hinge``."""

    power = 2

    def __init__(
        self, reduction: str = MEAN, name: str | None = "squared_hinge", dtype: str | None = None
    ) -> None:
        super().__init__(reduction, name, dtype)


class CategoricalHinge(Loss):
    """``max(1 + max((1 - t) * y) - sum(t * y), 0)`` with one-hot targets."""

    def __init__(
        self,
        reduction: str = MEAN,
        name: str | None = "categorical_hinge",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """By how much the right class misses its margin to the best of the others."""
        kernels.categorical_hinge_forward(values, y, t)

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """1 at the best of the others, -1 at the right class, weighted."""
        kernels.categorical_hinge_backward(dy, y, t, weights)
