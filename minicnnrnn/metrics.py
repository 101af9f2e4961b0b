"""Metrics: what is reported beside the loss."""

from typing import Any, ClassVar

from minicnnrnn import shapes


class Metric:
    """The base of all metrics: a number for every row, averaged over an epoch.

    Parameters
    ----------
    dtype : str, optional
        Only "float32".
    name : str, optional
        Key in the history.

    Attributes
    ----------
    sparse : bool
        Whether the targets are integer labels (rows,), instead of one number an output.
    size : int
        Number of float64 that ``update`` adds to.
    """

    sparse: ClassVar[bool] = False
    size = 2
    label = "metric"

    def __init__(self, dtype: str | None = None, name: str | None = None) -> None:
        if dtype not in (None, "float32"):
            raise ValueError(
                f"{type(self).__name__}: Expected dtype 'float32'. Received: {dtype!r}"
            )
        self.name = name or self.label

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """Write the metric of every row.

        Parameters
        ----------
        kernels : the device's kernels
        values : (rows,), overwritten
        y : (rows, C), the model's output
        t : (rows, C), or (rows,) of int32 for a sparse metric
        """
        raise TypeError(f"{type(self).__name__}: Expected a metric with a value. Received: none.")

    def update(self, kernels: Any, totals: Any, values: Any, y: Any, t: Any, weights: Any) -> None:
        """Add a batch to the totals.

        Parameters
        ----------
        totals : float64 device array (size,)
            Zero at the beginning of an epoch.
        values : (rows,), scratch
        weights : (rows,)
        kernels, y, t : as in ``value``
        """
        self.value(kernels, values, y, t)
        kernels.weighted_sum(totals, values, weights)

    def result(self, totals: Any) -> float:
        """The metric, from the totals; here the weighted mean of the rows' values."""
        return float(totals[0] / totals[1])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name!r}>"


class KerasMetric(Metric):
    """A metric of Keras, where the name comes first."""

    def __init__(self, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(dtype, name)


class MeanSquaredError(KerasMetric):
    """The mean squared error."""

    label = "mean_squared_error"

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The mean square of a row."""
        kernels.mean_squared_error_forward(values, y, t)


class MeanAbsoluteError(KerasMetric):
    """The mean absolute error."""

    label = "mean_absolute_error"

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The mean distance in a row."""
        kernels.mean_absolute_error_forward(values, y, t)


class BinaryAccuracy(KerasMetric):
    """The share of outputs on the target's side of the threshold.

    Parameters
    ----------
    name, dtype : as in ``Metric``
    threshold : float
        Outputs above it count as 1.
    """

    label = "binary_accuracy"

    def __init__(
        self, name: str | None = None, dtype: str | None = None, threshold: float = 0.5
    ) -> None:
        super().__init__(name, dtype)
        if not shapes.is_real(threshold, 0, 1):
            raise ValueError(
                f"BinaryAccuracy: Expected threshold from 0 to 1. Received: {threshold!r}"
            )
        self.threshold = float(threshold)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The share of a row."""
        kernels.binary_accuracy(values, y, t, self.threshold)


class CategoricalAccuracy(KerasMetric):
    """The share of rows whose largest output is where the one-hot target is largest."""

    label = "categorical_accuracy"

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """1 or 0."""
        kernels.categorical_accuracy(values, y, t)


class SparseCategoricalAccuracy(KerasMetric):
    """The share of rows whose largest output is that of the label."""

    sparse = True
    label = "sparse_categorical_accuracy"

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

    label = "top_k_categorical_accuracy"

    def __init__(self, k: int = 5, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(name, dtype)
        (self.k,) = shapes.to_tuple(k, 1, "k", self.name)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """1 or 0."""
        kernels.top_k(values, y, t, self.k)


class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """The share of rows whose label is among the `k` largest outputs.

    Parameters
    ----------
    k : int
    name, dtype : as in ``Metric``
    """

    sparse = True
    label = "sparse_top_k_categorical_accuracy"

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """1 or 0."""
        kernels.sparse_top_k(values, y, t, self.k)


class Accuracy(KerasMetric):
    """A name that stands for the accuracy that fits the output and the targets.

    One output: binary. Integer labels: sparse categorical. Else: categorical.
    """

    label = "accuracy"

    def resolve(self, outputs: int, sparse_targets: bool) -> Metric:
        """The metric meant, for this many outputs and this kind of targets."""
        if outputs == 1:
            return BinaryAccuracy(self.name)
        if sparse_targets:
            return SparseCategoricalAccuracy(self.name)
        return CategoricalAccuracy(self.name)


METRICS: dict[str, type[Metric]] = {
    "accuracy": Accuracy,
    "acc": Accuracy,
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "top_k_categorical_accuracy": TopKCategoricalAccuracy,
    "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
}
CLASSES = {metric.__name__: metric for metric in set(METRICS.values())}


def get(identifier: Any) -> Metric:
    """The metric of this name, which becomes its key in the history, or the one given.

    Examples
    --------
    >>> from minicnnrnn import metrics
    >>> metrics.get("acc")
    <Accuracy name='acc'>
    """
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, str):
        if identifier in METRICS:
            return METRICS[identifier](name=identifier)
        if identifier in CLASSES:
            return CLASSES[identifier]()
    raise ValueError(
        f"metrics: Expected a Metric or one of {sorted(METRICS)}. Received: {identifier!r}"
    )
