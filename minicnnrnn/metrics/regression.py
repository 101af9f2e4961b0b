"""Metrics of real numbers."""

import math
from typing import Any

import numpy as np

from minicnnrnn import losses
from minicnnrnn.metrics.base import ColumnMetric, LossMetric, Scores, ratio


class MeanSquaredError(LossMetric):
    """The mean squared error.

    Examples
    --------
    >>> from minicnnrnn import metrics
    >>> metric = metrics.MeanSquaredError()
    >>> metric.update_state([[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]])
    >>> metric.result()
    0.5
    """

    def __init__(self, name: str | None = "mean_squared_error", dtype: str | None = None) -> None:
        super().__init__(losses.MeanSquaredError(), name, dtype)


class RootMeanSquaredError(LossMetric):
    """The root of the mean squared error."""

    def __init__(
        self, name: str | None = "root_mean_squared_error", dtype: str | None = None
    ) -> None:
        super().__init__(losses.MeanSquaredError(), name, dtype)

    def compute(self, totals: Any) -> float:
        """The root of the mean."""
        return math.sqrt(super().compute(totals))


class MeanAbsoluteError(LossMetric):
    """The mean absolute error."""

    def __init__(self, name: str | None = "mean_absolute_error", dtype: str | None = None) -> None:
        super().__init__(losses.MeanAbsoluteError(), name, dtype)


class MeanAbsolutePercentageError(LossMetric):
    """The mean absolute error in percent of the target."""

    def __init__(
        self, name: str | None = "mean_absolute_percentage_error", dtype: str | None = None
    ) -> None:
        super().__init__(losses.MeanAbsolutePercentageError(), name, dtype)


class MeanSquaredLogarithmicError(LossMetric):
    """The mean squared difference of the logarithms."""

    def __init__(
        self, name: str | None = "mean_squared_logarithmic_error", dtype: str | None = None
    ) -> None:
        super().__init__(losses.MeanSquaredLogarithmicError(), name, dtype)


class LogCoshError(LossMetric):
    """The mean logarithm of the error's hyperbolic cosine."""

    def __init__(self, name: str | None = "logcosh", dtype: str | None = None) -> None:
        super().__init__(losses.LogCosh(), name, dtype)


class CosineSimilarity(LossMetric):
    """The mean cosine of the angle between output and target: 1 where they point one way.

    Parameters
    ----------
    name, dtype : as in ``Metric``
    axis : int
        Only -1.
    """

    def __init__(
        self, name: str | None = "cosine_similarity", dtype: str | None = None, axis: int = -1
    ) -> None:
        super().__init__(losses.CosineSimilarity(axis), name, dtype)
        self.axis = axis

    def compute(self, totals: Any) -> float:
        """The mean; the loss is minus the cosine."""
        return -float(super().compute(totals))


class R2Score(ColumnMetric):
    """The share of the targets' variance that the output explains: 1 if all of it.

    Parameters
    ----------
    class_aggregation : {"uniform_average", "variance_weighted_average", None}
        How the scores of several outputs become one; ``None`` gives an array.
    num_regressors : int
        Number of independent variables, for the adjusted score; 0 for none.
    name, dtype : as in ``Metric``

    Examples
    --------
    >>> from minicnnrnn import metrics
    >>> round(metrics.R2Score()([[1.0], [4.0], [3.0]], [[2.0], [4.0], [4.0]]), 4)
    0.5714
    """

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = "r2_score",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        known = ("uniform_average", "variance_weighted_average", None)
        if class_aggregation not in known:
            self.fail(f"class_aggregation to be one of {known}", class_aggregation)
        self.class_aggregation = class_aggregation
        self.num_regressors = self.check_count("num_regressors", num_regressors, 0)

    @property
    def size(self) -> int:
        """Sums of w, w t, w t^2 and w (t - y)^2 for each output, and the number of rows."""
        return 4 * self.columns + 1

    def update(self, kernels: Any, totals: Any, values: Any, y: Any, t: Any, weights: Any) -> None:
        """Add up the moments."""
        kernels.variance_sums(totals, y, t, weights)

    def compute(self, totals: Any) -> Any:
        """1 - residual / variance; an output without variance scores 1 or 0, as in scikit-learn."""
        weight, mean, square, residual = totals[:-1].reshape(4, -1)
        variance = np.maximum(square - mean * ratio(mean, weight), 0)
        scores = 1 - ratio(residual, variance)
        scores[(variance == 0) & (residual != 0)] = 0
        score: Any = scores.view(Scores)
        if self.class_aggregation == "uniform_average":
            score = float(np.mean(scores))
        elif self.class_aggregation:
            score = float(np.average(scores, weights=variance if variance.any() else None))
        count = totals[-1] * len(scores)  # as Keras counts samples
        if self.num_regressors and count - self.num_regressors - 1 > 0:
            score = 1 - (1 - score) * (count - 1) / (count - self.num_regressors - 1)
        return score
