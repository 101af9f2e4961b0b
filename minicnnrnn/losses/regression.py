"""Losses of real numbers."""

from typing import Any, ClassVar

from minicnnrnn.kernels import codes
from minicnnrnn.losses.base import MEAN, Loss


class RegressionLoss(Loss):
    """What the losses of real numbers share: one kernel, which a code tells what to compute."""

    code: ClassVar[int]
    delta = 1.0

    def __init__(self, reduction: str, name: str | None, dtype: str | None) -> None:
        super().__init__(name, reduction, dtype)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The mean of a row's losses."""
        kernels.regression_loss_forward(values, y, t, self.code, self.delta)

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """The derivative of that, weighted."""
        kernels.regression_loss_backward(dy, y, t, weights, self.code, self.delta)


class MeanSquaredError(RegressionLoss):
    """``mean((y - t) ** 2)`` over the last axis.

    Examples
    --------
    >>> from minicnnrnn import losses
    >>> losses.MeanSquaredError()([[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]])
    0.5
    """

    code = codes.SQUARED

    def __init__(
        self,
        reduction: str = MEAN,
        name: str | None = "mean_squared_error",
        dtype: str | None = None,
    ) -> None:
        super().__init__(reduction, name, dtype)


class MeanAbsoluteError(RegressionLoss):
    """``mean(abs(y - t))`` over the last axis."""

    code = codes.ABSOLUTE

    def __init__(
        self,
        reduction: str = MEAN,
        name: str | None = "mean_absolute_error",
        dtype: str | None = None,
    ) -> None:
        super().__init__(reduction, name, dtype)


class MeanAbsolutePercentageError(RegressionLoss):
    """``100 * mean(abs((y - t) / t))`` over the last axis; targets near 0 count as 1e-7."""

    code = codes.PERCENTAGE

    def __init__(
        self,
        reduction: str = MEAN,
        name: str | None = "mean_absolute_percentage_error",
        dtype: str | None = None,
    ) -> None:
        super().__init__(reduction, name, dtype)


class MeanSquaredLogarithmicError(RegressionLoss):
    """``mean((log(1 + y) - log(1 + t)) ** 2)`` over the last axis; below 1e-7 counts as that."""

    code = codes.LOGARITHMIC

    def __init__(
        self,
        reduction: str = MEAN,
        name: str | None = "mean_squared_logarithmic_error",
        dtype: str | None = None,
    ) -> None:
        super().__init__(reduction, name, dtype)


class LogCosh(RegressionLoss):
    """``mean(log(cosh(y - t)))`` over the last axis: quadratic near the target, linear far off."""

    code = codes.LOG_COSH

    def __init__(
        self, reduction: str = MEAN, name: str | None = "log_cosh", dtype: str | None = None
    ) -> None:
        super().__init__(reduction, name, dtype)


class Poisson(RegressionLoss):
    """``mean(y - t * log(y))`` over the last axis: for counts, with outputs above zero."""

    code = codes.POISSON

    def __init__(
        self, reduction: str = MEAN, name: str | None = "poisson", dtype: str | None = None
    ) -> None:
        super().__init__(reduction, name, dtype)


class Huber(RegressionLoss):
    """Quadratic near the target, linear beyond `delta`.

    Parameters
    ----------
    delta : float
        Where the two meet; positive.
    reduction, name, dtype : as in ``Loss``
    """

    code = codes.HUBER

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str = MEAN,
        name: str | None = "huber_loss",
        dtype: str | None = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        if not self.check_real("delta", delta, 0):
            self.fail("delta to be a positive number", delta)
        self.delta = float(delta)


class CosineSimilarity(Loss):
    """Minus the cosine of the angle between output and target: -1 where they point one way.

    Parameters
    ----------
    axis : int
        Only -1.
    reduction, name, dtype : as in ``Loss``
    """

    def __init__(
        self,
        axis: int = -1,
        reduction: str = MEAN,
        name: str | None = "cosine_similarity",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.axis = self.check_axis(axis)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """Minus the cosine."""
        kernels.cosine_similarity_forward(values, y, t)

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """The part of the target's direction that is across the output, weighted."""
        kernels.cosine_similarity_backward(dy, y, t, weights)
