"""F scores: precision and recall in one."""

from typing import Any

import numpy as np

from minicnnrnn.kernels.codes import ALL, LARGEST
from minicnnrnn.metrics.base import Scores, ratio
from minicnnrnn.metrics.confusion import ThresholdMetric

AVERAGES = (None, "micro", "macro", "weighted")


class FBetaScore(ThresholdMetric):
    """``(1 + beta ** 2) * precision * recall / (beta ** 2 * precision + recall)``.

    Parameters
    ----------
    average : {None, "micro", "macro", "weighted"}
        An array with the score of each output; or the score of all counts together, the mean
        of the scores, or the mean weighted by how often the targets are positive.
    beta : float
        How much more recall counts than precision.
    threshold : float, optional
        Outputs above it say yes; left out, a row's largest output does, unless it is 0.
    name, dtype : as in ``Metric``

    Examples
    --------
    >>> from minicnnrnn import metrics
    >>> metric = metrics.FBetaScore("macro", beta=2.0, threshold=0.5)
    >>> metric([[1, 0], [1, 1], [0, 0]], [[0.9, 0.2], [0.1, 0.8], [0.3, 0.9]])
    0.6944444444444444
    """

    by_column = True

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = "fbeta_score",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        if average not in AVERAGES:
            self.fail(f"average to be one of {AVERAGES}", average)
        self.average, self.beta = average, self.check_real("beta", beta, 0, np.inf)
        self.threshold = threshold
        if threshold is not None:
            self.threshold = self.check_real("threshold", threshold, 0, 1)
        for known, given in (("beta", self.beta), ("threshold", self.threshold)):
            if given == 0:
                self.fail(f"{known} above 0", given)
        self.choice = LARGEST if threshold is None else ALL
        self.set_thresholds([-np.inf if threshold is None else threshold])

    def compute(self, totals: Any) -> Any:
        """The score, 0 for an output that is neither positive nor called so."""
        counts = self.counts(totals)
        hits, alarms, misses = (
            column[:, 0]
            for column in (counts.true_positives, counts.false_positives, counts.false_negatives)
        )
        if self.average == "micro":
            hits, alarms, misses = (np.sum(c, keepdims=True) for c in (hits, alarms, misses))
        square = self.beta**2
        scores = ratio((1 + square) * hits, (1 + square) * hits + alarms + square * misses)
        if self.average is None:
            return scores.view(Scores)
        support = hits + misses
        weights = support if self.average == "weighted" and support.any() else None
        return float(np.average(scores, weights=weights))


class F1Score(FBetaScore):
    """The harmonic mean of precision and recall.

    Parameters
    ----------
    average, threshold, name, dtype : as in ``FBetaScore``
    """

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = "f1_score",
        dtype: str | None = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)
