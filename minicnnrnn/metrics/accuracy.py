"""Accuracies: the share of right answers."""

from typing import Any

from minicnnrnn.metrics.base import KerasMetric, Metric


class BinaryAccuracy(KerasMetric):
    """The share of outputs on the target's side of the threshold.

    Parameters
    ----------
    name, dtype : as in ``Metric``
    threshold : float
        Outputs above it count as 1.
    """

    def __init__(
        self,
        name: str | None = "binary_accuracy",
        dtype: str | None = None,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(name, dtype)
        self.threshold = self.check_real("threshold", threshold, 0, 1)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The share of a row."""
        kernels.binary_accuracy(values, y, t, self.threshold)


class CategoricalAccuracy(KerasMetric):
    """The share of rows whose largest output is where the one-hot target is largest."""

    def __init__(self, name: str | None = "categorical_accuracy", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """1 or 0."""
        kernels.categorical_accuracy(values, y, t)


class SparseCategoricalAccuracy(KerasMetric):
    """The share of rows whose largest output is that of the label."""

    sparse = True

    def __init__(
        self, name: str | None = "sparse_categorical_accuracy", dtype: str | None = None
    ) -> None:
        super().__init__(name, dtype)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """1 or 0."""
        kernels.sparse_categorical_accuracy(values, y, t)


class TopKCategoricalAccuracy(KerasMetric):
    """The share of rows whose one-hot target is among the `k` largest outputs.

    Parameters
    ----------
    k : int
    name, dtype : as in ``Metric``
    """

    def __init__(
        self,
        k: int = 5,
        name: str | None = "top_k_categorical_accuracy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        self.k = self.check_count("k", k, 1)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """1 or 0."""
        kernels.top_k(values, y, t, self.k)


class SparseTopKCategoricalAccuracy(KerasMetric):
    """The share of rows whose label is among the `k` largest outputs.

    Parameters
    ----------
    k : int
    name, dtype : as in ``Metric``
    from_sorted_ids : bool
        Only ``False``: outputs are scores.
    """

    sparse = True

    def __init__(
        self,
        k: int = 5,
        name: str | None = "sparse_top_k_categorical_accuracy",
        dtype: str | None = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        self.k = self.check_count("k", k, 1)
        if from_sorted_ids:
            self.fail("from_sorted_ids to be False, since outputs are scores", from_sorted_ids)
        self.from_sorted_ids = False

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """1 or 0."""
        kernels.sparse_top_k(values, y, t, self.k)


class Accuracy(KerasMetric):
    """A name that stands for the accuracy that fits the output and the targets.

    One output: binary. Integer labels: sparse categorical. Else: categorical.
    """

    def __init__(self, name: str | None = "accuracy", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    def resolve(self, outputs: int, labels: bool) -> Metric:
        """The metric meant, for this many outputs and this kind of targets."""
        if outputs == 1:
            return BinaryAccuracy(self.name)
        return SparseCategoricalAccuracy(self.name) if labels else CategoricalAccuracy(self.name)
