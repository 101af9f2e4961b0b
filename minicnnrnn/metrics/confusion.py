"""Metrics that follow from how many outputs are above a threshold, rightly or not."""

from typing import Any, ClassVar, NamedTuple

import numpy as np

from minicnnrnn.kernels.codes import ALL
from minicnnrnn.metrics.base import ColumnMetric, Scores, ratio


class Counts(NamedTuple):
    """Outputs by what they say and what is true, at each threshold: (..., thresholds)."""

    true_positives: Any
    false_positives: Any
    true_negatives: Any
    false_negatives: Any

    @property
    def precision(self) -> Any:
        """The share of what is called positive that is."""
        return ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> Any:
        """The share of what is positive that is called so."""
        return ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> Any:
        """The share of what is negative that is called so."""
        return ratio(self.true_negatives, self.true_negatives + self.false_positives)


class ThresholdMetric(ColumnMetric):
    """What the metrics by thresholds share.

    An output above a threshold says yes; a target that is not 0 means it.
    """

    choice = ALL
    by_column = False
    class_id: int | None = None

    def set_thresholds(self, thresholds: Any) -> None:
        """Keep the thresholds in float32, in ascending order, and where each was."""
        given = np.asarray(thresholds, np.float32)
        self._edges = np.sort(given, kind="stable")
        self._places = np.argsort(np.argsort(given, kind="stable"), kind="stable")

    def check_thresholds(self, thresholds: Any, default: float) -> list[float]:
        """One threshold or several, from 0 to 1."""
        if thresholds is None:
            return [default]
        several = isinstance(thresholds, list | tuple | np.ndarray)
        listed = list(thresholds) if several else [thresholds]
        if not listed:
            self.fail("thresholds to be a number from 0 to 1 or a list of such", thresholds)
        return [self.check_real("thresholds", threshold, 0, 1) for threshold in listed]

    def resolve(self, outputs: int, labels: bool) -> Any:
        """A copy for this many outputs."""
        if self.class_id is not None and self.class_id >= outputs:
            self.fail(f"class_id below the number of outputs, {outputs}", self.class_id)
        return super().resolve(outputs, labels)

    @property
    def size(self) -> int:
        """A count for each interval between thresholds, each kind of target, each column."""
        return (self.columns if self.by_column else 1) * 2 * (len(self._edges) + 1)

    def update(self, kernels: Any, totals: Any, values: Any, y: Any, t: Any, weights: Any) -> None:
        """Count."""
        column = -1 if self.class_id is None else self.class_id
        columns = int(self.by_column)
        kernels.threshold_counts(totals, y, t, weights, self._edges, column, self.choice, columns)

    def counts(self, totals: Any) -> Counts:
        """What the totals say at each threshold, in the order they were given: (columns, K)."""
        between = totals.reshape(-1, 2, len(self._edges) + 1)
        every = between.sum(axis=2, keepdims=True)
        above = np.cumsum(between[:, :, ::-1], axis=2)[:, :, -2::-1][:, :, self._places]
        below = every - above
        return Counts(above[:, 1], above[:, 0], below[:, 0], below[:, 1])


def single(values: Any) -> Any:
    """One number as such, several as an array."""
    return float(values[0]) if len(values) == 1 else values.view(Scores)


class ConfusionCount(ThresholdMetric):
    """What the four counts share.

    Parameters
    ----------
    thresholds : float or list of float, optional
        0.5 if left out. Several give an array.
    name, dtype : as in ``Metric``
    """

    which: ClassVar[str]

    def __init__(
        self, thresholds: Any = None, name: str | None = None, dtype: str | None = None
    ) -> None:
        super().__init__(name, dtype)
        self.thresholds = thresholds
        self.set_thresholds(self.check_thresholds(thresholds, 0.5))

    def compute(self, totals: Any) -> Any:
        """The weighted count at each threshold."""
        return single(getattr(self.counts(totals), self.which)[0])


class TruePositives(ConfusionCount):
    """How many outputs are above the threshold, rightly; parameters as in ``ConfusionCount``."""

    which = "true_positives"


class FalsePositives(ConfusionCount):
    """How many outputs are above the threshold, wrongly; parameters as in ``ConfusionCount``."""

    which = "false_positives"


class TrueNegatives(ConfusionCount):
    """How many outputs are not above the threshold, rightly; as ``ConfusionCount``."""

    which = "true_negatives"


class FalseNegatives(ConfusionCount):
    """How many outputs are not above the threshold, wrongly; as ``ConfusionCount``."""

    which = "false_negatives"


class Precision(ThresholdMetric):
    """The share of the outputs above the threshold whose target is positive.

    Parameters
    ----------
    thresholds : float or list of float, optional
        0.5 if left out; none with `top_k`. Several give an array.
    top_k : int, optional
        Only a row's `k` largest outputs can be above.
    class_id : int, optional
        The only output to look at.
    name, dtype : as in ``Metric``

    Examples
    --------
    >>> from minicnnrnn import metrics
    >>> metrics.Precision()([0, 1, 1, 1], [1.0, 0.0, 1.0, 1.0])
    0.6666666666666666
    """

    which: ClassVar[str] = "precision"

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        self.thresholds = thresholds
        self.top_k = None if top_k is None else self.check_count("top_k", top_k, 1)
        self.class_id = None if class_id is None else self.check_count("class_id", class_id, 0)
        self.choice = self.top_k or ALL
        self.set_thresholds(self.check_thresholds(thresholds, -np.inf if top_k else 0.5))

    def compute(self, totals: Any) -> Any:
        """The share at each threshold; 0 where nothing is above."""
        return single(getattr(self.counts(totals), self.which)[0])


class Recall(Precision):
    """The share of the outputs with a positive target that are above the threshold.

    Parameters
    ----------
    thresholds, top_k, class_id, name, dtype : as in ``Precision``
    """

    which = "recall"


class ConstrainedMetric(ThresholdMetric):
    """The best that one measure can be while another is at least a value, over thresholds.

    Parameters
    ----------
    value : float
    num_thresholds : int
        How many thresholds from 0 to 1 to try.
    class_id : int, optional
        The only output to look at.
    name, dtype : as in ``Metric``
    """

    constrained: ClassVar[str]
    wanted: ClassVar[str]

    def __init__(
        self,
        value: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        self.least = self.check_real("the value to hold", value, 0, 1)
        self.num_thresholds = self.check_count("num_thresholds", num_thresholds, 1)
        self.class_id = None if class_id is None else self.check_count("class_id", class_id, 0)
        self.set_thresholds(np.linspace(0, 1, num_thresholds) if num_thresholds > 1 else [0.5])

    def compute(self, totals: Any) -> float:
        """The largest where the constraint holds; 0 if nowhere."""
        counts = self.counts(totals)
        held = getattr(counts, self.constrained)[0] >= self.least
        return float(np.max(getattr(counts, self.wanted)[0], initial=0, where=held))


class SensitivityAtSpecificity(ConstrainedMetric):
    """The best recall at a given specificity; other parameters as in ``ConstrainedMetric``."""

    constrained, wanted = "specificity", "recall"

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(specificity, num_thresholds, class_id, name, dtype)
        self.specificity = specificity


class SpecificityAtSensitivity(ConstrainedMetric):
    """The best specificity at a given recall; other parameters as in ``ConstrainedMetric``."""

    constrained, wanted = "recall", "specificity"

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)
        self.sensitivity = sensitivity


class PrecisionAtRecall(ConstrainedMetric):
    """The best precision at a given recall; other parameters as in ``ConstrainedMetric``."""

    constrained, wanted = "recall", "precision"

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(recall, num_thresholds, class_id, name, dtype)
        self.recall = recall


class RecallAtPrecision(ConstrainedMetric):
    """The best recall at a given precision; other parameters as in ``ConstrainedMetric``."""

    constrained, wanted = "precision", "recall"

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(precision, num_thresholds, class_id, name, dtype)
        self.precision = precision
