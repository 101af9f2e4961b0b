"""The area under a curve that thresholds draw."""

from typing import Any

import numpy as np

from minicnnrnn.metrics.base import ratio
from minicnnrnn.metrics.confusion import Counts, ThresholdMetric

CURVES = ("ROC", "PR", "PRGAIN")
SUMMATIONS = ("interpolation", "majoring", "minoring")
EPSILON = 1e-7


class AUC(ThresholdMetric):
    """The area under the ROC curve, or under that of precision over recall.

    Counts are kept for each threshold, so the area is as exact as the thresholds are dense. Where
    no two outputs lie between the same two thresholds, it is scikit-learn's ``roc_auc_score``;
    that of "PR" with "majoring" is ``average_precision_score``.

    Parameters
    ----------
    num_thresholds : int
        At least 2; evenly from 0 to 1.
    curve : {"ROC", "PR", "PRGAIN"}
        Recall over the share of false alarms; precision over recall; both as gains over a
        guess, Flach and Kull 2015, "Precision-Recall-Gain Curves".
    summation_method : {"interpolation", "majoring", "minoring"}
        Between thresholds: trapezoids (for PR, Davis and Goadrich 2006, "The Relationship
        Between Precision-Recall and ROC Curves"), or rectangles from above or below.
    name, dtype : as in ``Metric``
    thresholds : list of float, optional
        Instead of `num_thresholds`; 0 and 1 are added.
    multi_label : bool
        Whether to average the areas of the outputs, instead of pooling all outputs.
    num_labels : int, optional
        Number of outputs, only with `multi_label`; found out by itself.
    label_weights : list of float, optional
        One for each output.
    from_logits : bool
        Whether outputs are before the sigmoid.

    Examples
    --------
    >>> from minicnnrnn import metrics
    >>> metrics.AUC(num_thresholds=3)([0, 0, 1, 1], [0.0, 0.5, 0.3, 0.9])
    0.75
    """

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: str | None = None,
        thresholds: Any = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        self.curve = self._one_of("curve", curve, CURVES)
        self.summation_method = self._one_of("summation_method", summation_method, SUMMATIONS)
        self.thresholds = thresholds
        if thresholds is None:
            self.num_thresholds = self.check_count("num_thresholds", num_thresholds, 2)
            inner = [i / (num_thresholds - 1) for i in range(1, num_thresholds - 1)]
        else:
            inner = sorted(self.check_thresholds(thresholds, 0.5))
            self.num_thresholds = len(inner) + 2
        edges = np.array([-EPSILON, *inner, 1 + EPSILON])
        if from_logits:  # the sigmoid is above a threshold where the logit is above its logit
            edges = np.clip(edges, 0, 1)
            with np.errstate(divide="ignore"):
                edges = np.log(edges) - np.log1p(-edges)
        self.set_thresholds(edges)
        self.multi_label, self.from_logits = bool(multi_label), bool(from_logits)
        if num_labels and not multi_label:
            self.fail("num_labels only with multi_label", num_labels)
        self.num_labels, self.label_weights = num_labels, label_weights
        self.by_column = self.multi_label or label_weights is not None

    def _one_of(self, name: str, value: Any, known: tuple[str, ...]) -> str:
        for word in known:
            if isinstance(value, str) and value.lower() == word.lower():
                return word
        self.fail(f"{name} to be one of {known}", value)
        return ""

    def resolve(self, outputs: int, labels: bool) -> Any:
        """A copy for this many outputs."""
        if self.num_labels not in (None, outputs):
            self.fail(f"num_labels to be the number of outputs, {outputs}", self.num_labels)
        if self.label_weights is not None and len(self.label_weights) != outputs:
            self.fail(f"{outputs} label_weights, one for each output", self.label_weights)
        return super().resolve(outputs, labels)

    def compute(self, totals: Any) -> float:
        """The area."""
        weights = self.label_weights
        if not self.multi_label:
            columns = totals.reshape(len(weights) if weights is not None else 1, -1)
            totals = np.average(columns, axis=0, weights=weights)
            weights = None
        areas = self._areas(self.counts(totals))
        return float(np.average(areas, weights=weights))

    def _areas(self, counts: Counts) -> Any:
        """The areas of all columns."""
        if self.curve == "PR" and self.summation_method == "interpolation":
            return _interpolated_area(counts)
        if self.curve == "ROC":
            x, y = 1 - counts.specificity, counts.recall
            x = np.where(counts.true_negatives + counts.false_positives > 0, x, 0)
        elif self.curve == "PR":
            x, y = counts.recall, counts.precision
        else:
            x, y = _gains(counts)
        ends = y[:, :-1], y[:, 1:]
        if self.summation_method == "interpolation":
            heights = (ends[0] + ends[1]) / 2
        else:
            heights = (np.minimum if self.summation_method == "minoring" else np.maximum)(*ends)
        return np.sum((x[:, :-1] - x[:, 1:]) * heights, axis=1)


def _interpolated_area(counts: Counts) -> Any:
    """The area under precision over recall, true positives linear in the number of positives."""
    hits, positives = counts.true_positives, counts.true_positives + counts.false_positives
    steps = hits[:, :-1] - hits[:, 1:]
    slope = ratio(steps, np.maximum(positives[:, :-1] - positives[:, 1:], 0))
    intercept = hits[:, 1:] - slope * positives[:, 1:]
    both = (positives[:, :-1] > 0) & (positives[:, 1:] > 0)
    growth = np.where(both, ratio(positives[:, :-1], positives[:, 1:]), 1)
    area = slope * (steps + intercept * np.log(growth))
    return np.sum(ratio(area, hits[:, 1:] + counts.false_negatives[:, 1:]), axis=1)


def _gains(counts: Counts) -> tuple[Any, Any]:
    """Recall and precision as gains over calling everything positive."""
    hits = counts.true_positives
    odds = ratio(hits + counts.false_negatives, counts.true_negatives + counts.false_positives)
    recall = np.where(hits == 0, 0, 1 - odds * ratio(counts.false_negatives, hits))
    precision = np.where(hits == 0, 1, 1 - odds * ratio(counts.false_positives, hits))
    return np.maximum(recall, 0), precision
