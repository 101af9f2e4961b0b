"""The base of all metrics."""

import copy
import re
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np

from minicnnrnn.arrays import as_array
from minicnnrnn.configuration import Configured
from minicnnrnn.device import get_host_device
from minicnnrnn.kernels.codes import IGNORE_NONE
from minicnnrnn.losses import Loss
from minicnnrnn.recorded import needs_host
from minicnnrnn.shapes import is_integer, is_real
from minicnnrnn.targets import standalone


def snake_case(name: str) -> str:
    """Keras' names of metrics from those of their classes.

    Examples
    --------
    >>> snake_case("TruePositives"), snake_case("MeanIoU"), snake_case("AUC")
    ('true_positives', 'mean_io_u', 'auc')
    """
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def ratio(a: Any, b: Any) -> Any:
    """``a / b``, but 0 where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)


class Scores(np.ndarray[Any, Any]):
    """What a metric of several numbers gives: an array that prints like a number.

    Examples
    --------
    >>> f"{np.array([0.5, 2 / 3]).view(Scores):.3g}"
    '[0.5 0.667]'
    """

    def __format__(self, spec: str) -> str:
        """Each number in this format."""
        return "[" + " ".join(format(float(value), spec) for value in self.ravel()) + "]"


class Metric(Configured):
    """The base of all metrics: a number for every row, averaged over an epoch.

    A metric of your own overrides ``value``; or ``size``, ``update`` and ``compute``, where it is
    no mean. A function ``f(y_true, y_pred)`` in NumPy serves as a metric, too: see
    ``MeanMetricWrapper``.

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
    shaped : bool
        Whether `y` and `t` come with all their axes, instead of as rows.
    size : int
        Number of float64 that ``update`` adds to.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import Sequential, layers, metrics
    >>> class Within(metrics.Metric):  # the share of outputs near their targets
    ...     def value(self, kernels, values, y, t):
    ...         values[:] = np.mean(np.abs(y - t) < 0.5, axis=1)
    >>> metric = Within()
    >>> metric.update_state([[0.0], [1.0]], [[0.2], [2.0]])
    >>> metric.result()
    0.5
    >>> model = Sequential([layers.Dense(1)], seed=0)
    >>> model.compile("adam", "mse", metrics=[Within(name="near")])
    >>> list(model.fit(np.ones((4, 2)), np.ones(4), verbose=0).history)
    ['loss', 'near']
    """

    sparse: bool = False
    shaped: ClassVar[bool] = False
    size: Any = 2
    by_row: ClassVar[bool] = True  # as a loss
    reduction: ClassVar[str] = "mean"
    label = ""
    _state: tuple[Any, Any] | None = None  # what computes, and its totals, without a model

    def __init__(self, dtype: str | None = None, name: str | None = None) -> None:
        if dtype not in (None, "float32"):
            self.fail("dtype 'float32'", dtype)
        self.name = name or self.label or snake_case(type(self).__name__)
        self.dtype = dtype

    def fail(self, expected: str, received: Any) -> None:
        """Raise, naming the metric."""
        raise ValueError(f"{type(self).__name__}: Expected {expected}. Received: {received!r}")

    def check_real(self, name: str, value: Any, low: float, high: float) -> float:
        """A number between two others, both included."""
        if not is_real(value, low, high):
            self.fail(f"{name} from {low} to {high}", value)
        return float(value)

    def check_count(self, name: str, value: Any, minimum: int) -> int:
        """An integer of at least `minimum`."""
        if not is_integer(value, minimum):
            self.fail(f"{name} to be an integer of at least {minimum}", value)
        return int(value)

    def check_class(self, name: str, value: Any) -> int | None:
        """A label, or ``None``."""
        return None if value is None else self.check_count(name, value, IGNORE_NONE + 1)

    def resolve(self, outputs: int, labels: bool) -> "Metric":
        """The metric for this many outputs, and for targets that are labels or not."""
        return self

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
            0 where a mask leaves a row out.
        kernels, y, t : as in ``value``
        """
        self.value(kernels, values, y, t)
        kernels.weighted_sum(totals, values, weights)

    def compute(self, totals: Any) -> Any:
        """The metric, from the totals; here the weighted mean of the rows' values."""
        return float(ratio(totals[0], totals[1]))

    # --- without a model -----------------------------------------------------------

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch, without a model.

        Parameters
        ----------
        y_true, y_pred : array-like
        sample_weight : array-like, optional
        """
        y, t = as_array(y_pred, "y_pred"), as_array(y_true, "y_true")
        if self._state is None:
            outputs = 1 if y.ndim == 1 else y.shape[-1]
            metric = self.resolve(outputs, outputs > 1 and t.shape != y.shape)
            self._state = metric, np.zeros(metric.size)
        metric, totals = self._state
        given = standalone(metric, t, y, sample_weight)
        rows, labels = given.rows, given.t
        if metric.shaped:
            rows, labels = given.y, labels.reshape(given.y.shape[: -1 if metric.sparse else None])
        values = np.empty(len(given.rows), np.float32)
        metric.update(get_host_device().kernels, totals, values, rows, labels, given.weights[3])

    def result(self, totals: Any = None) -> Any:
        """The metric: of these totals, or of what ``update_state`` has added."""
        if totals is not None:
            return self.compute(totals)
        if self._state is None:
            return 0.0
        metric, totals = self._state
        return metric.compute(totals)

    def reset_state(self) -> None:
        """Forget what ``update_state`` has added."""
        self._state = None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Add a batch, and return the metric of all so far."""
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name!r}>"


class KerasMetric(Metric):
    """A metric of Keras, where the name comes first."""

    def __init__(self, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(dtype, name)


class LossMetric(KerasMetric):
    """The mean over all rows of what a loss says of each."""

    def __init__(self, loss: Loss, name: str | None, dtype: str | None) -> None:
        super().__init__(name, dtype)
        self.loss, self.sparse = loss, loss.sparse

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The loss of a row."""
        self.loss.value(kernels, values, y, t)


class ColumnMetric(KerasMetric):
    """A metric whose totals are for each output apart, so that their number must be known."""

    columns = 1

    def resolve(self, outputs: int, labels: bool) -> Self:
        """A copy for this many outputs."""
        resolved = copy.copy(self)
        resolved.columns = outputs
        return resolved


class MeanMetricWrapper(KerasMetric):
    """The mean of a function of targets and outputs, written in NumPy.

    Parameters
    ----------
    fn : callable
        ``fn(y_true, y_pred, **kwargs)`` returns an array that begins with the samples, or one
        number for the batch. It gets a batch's targets and outputs with all their axes: targets
        as labels where the output has several classes and they are labels, else in the output's
        shape.
    name : str, optional
        The function's, if left out.
    dtype : str, optional
    **kwargs
        For the function.

    Examples
    --------
    A function among the metrics becomes such a metric.

    >>> import numpy as np
    >>> from minicnnrnn import Sequential, layers
    >>> def largest_error(y_true, y_pred):
    ...     return np.abs(y_true - y_pred).max(axis=-1)
    >>> model = Sequential([layers.Dense(2)])
    >>> model.compile("sgd", "mse", metrics=[largest_error])
    >>> list(model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0).history)
    ['loss', 'largest_error']
    """

    shaped = True

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str | None = None,
        dtype: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not callable(fn):
            self.fail("a function", fn)
        super().__init__(name or getattr(fn, "__name__", None), dtype)
        self.fn, self.kwargs = fn, kwargs

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as a dict."""
        return {"fn": self.fn, "name": self.name, "dtype": self.dtype, **self.kwargs}

    def resolve(self, outputs: int, labels: bool) -> Self:
        """A copy that is given labels, if such the targets are."""
        resolved = copy.copy(self)
        resolved.sparse = labels and outputs > 1
        return resolved

    def update(self, kernels: Any, totals: Any, values: Any, y: Any, t: Any, weights: Any) -> None:
        """Add what the function says of a batch."""
        needs_host()
        found = np.asarray(self.fn(_read_only(t), _read_only(y), **self.kwargs), np.float64)
        weights = np.asarray(weights, np.float64).reshape(y.shape[:-1])
        if found.ndim == 0:  # one number for the batch
            weights = np.ones(())
        elif found.shape[: weights.ndim] != weights.shape[: found.ndim]:
            self.fail(f"{self.name} to return an array of {weights.shape}", found.shape)
        shared = min(found.ndim, weights.ndim)
        found = found.mean(axis=tuple(range(shared, found.ndim)))
        totals[0] += np.sum(found * weights.mean(axis=tuple(range(shared, weights.ndim))))
        totals[1] += np.sum(weights.mean(axis=tuple(range(shared, weights.ndim))))


def _read_only(array: Any) -> Any:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


class Mean(KerasMetric):
    """The weighted mean of values, for a training loop of your own: not for ``compile``.

    Examples
    --------
    >>> from minicnnrnn import metrics
    >>> mean = metrics.Mean()
    >>> mean.update_state([1.0, 3.0], sample_weight=[3.0, 1.0])
    >>> mean.result()
    1.5
    """

    def __init__(self, name: str | None = "mean", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    # Keras' Mean, too, takes values where the metric that it is takes targets and predictions.
    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # type: ignore[override]
        """Add values: there are no targets, unlike with other metrics.

        Parameters
        ----------
        values : number or array-like
        sample_weight : number or array-like, optional
            For each of the first axes.
        """
        values = np.asarray(values, np.float64)
        weights = np.asarray(1.0 if sample_weight is None else sample_weight, np.float64)
        weights = weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
        weights = np.broadcast_to(weights, values.shape)
        totals = np.zeros(2) if self._state is None else self._state[1]
        self._state = self, totals + np.array([np.sum(values * weights), np.sum(weights)])

    # The same reason as for ``update_state``.
    def __call__(self, values: Any, sample_weight: Any = None) -> Any:  # type: ignore[override]
        """Add values, and return the metric of all so far."""
        self.update_state(values, sample_weight)
        return self.result()


class Sum(Mean):
    """The weighted sum of values, for a training loop of your own: not for ``compile``."""

    def __init__(self, name: str | None = "sum", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    def compute(self, totals: Any) -> float:
        """The sum."""
        return float(totals[0])
