"""The base of all losses."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from minicnnrnn.configuration import Configured
from minicnnrnn.device import get_host_device
from minicnnrnn.kernels.codes import IGNORE_NONE
from minicnnrnn.shapes import is_integer, is_real
from minicnnrnn.targets import standalone

MEAN = "sum_over_batch_size"  # Keras' name for the mean over all rows
REDUCTIONS = (MEAN, "mean", "sum", "mean_with_sample_weight")


class Loss(Configured):
    """The base of all losses: a number for every row of the output, and its gradient.

    A row is a sample; for outputs of more than two axes, an element of all axes but the last.
    A loss of your own overrides ``value`` and ``gradient``, in NumPy. Sample weights, masks and
    the mean over the rows are in `weights`: a loss multiplies by them and knows no more.

    Parameters
    ----------
    name : str, optional
    reduction : str
        "sum_over_batch_size" or "mean": the mean over all rows that no mask leaves out.
        "mean_with_sample_weight": that weighted by the sample weights. "sum": the sum.
    dtype : str, optional
        Only "float32".

    Attributes
    ----------
    sparse : bool
        Whether the targets are integer labels (rows,), instead of one number an output.
    by_row : bool
        Whether there is a value for each row, instead of one for each sample; `y` and `dy` come
        with all their axes then, and masks are the loss's own affair.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import Sequential, layers, losses
    >>> class Quartic(losses.Loss):
    ...     def value(self, kernels, values, y, t):
    ...         values[:] = np.mean((y - t) ** 4, axis=1)
    ...
    ...     def gradient(self, kernels, dy, y, t, weights, fused=False):
    ...         dy[:] = weights[:, None] * 4 * (y - t) ** 3 / y.shape[1]
    >>> Quartic()([[0.0, 1.0]], [[2.0, 1.0]])
    8.0
    >>> model = Sequential([layers.Dense(1)], seed=0)
    >>> model.compile("adam", loss=Quartic())
    >>> model.fit(np.ones((4, 2)), np.ones(4), verbose=0).epoch
    [0]
    """

    sparse: ClassVar[bool] = False
    by_row: ClassVar[bool] = True
    label = "loss"

    def __init__(
        self, name: str | None = None, reduction: str = MEAN, dtype: str | None = None
    ) -> None:
        if reduction not in REDUCTIONS:
            self.fail(f"reduction to be one of {REDUCTIONS}", reduction)
        if dtype not in (None, "float32"):
            self.fail("dtype 'float32'", dtype)
        self.name, self.reduction, self.dtype = name or self.label, reduction, dtype

    def fail(self, expected: str, received: Any) -> None:
        """Raise, naming the loss."""
        raise ValueError(f"{type(self).__name__}: Expected {expected}. Received: {received!r}")

    def check_real(self, name: str, value: Any, low: float, high: float = np.inf) -> float:
        """A number between two others, both included."""
        if not is_real(value, low, high):
            bound = f"from {low} to {high}" if high < np.inf else f"of at least {low}"
            self.fail(f"{name} to be a number {bound}", value)
        return float(value)

    def check_axis(self, axis: Any) -> int:
        """-1, the only axis there is."""
        if isinstance(axis, bool) or axis != -1:
            self.fail("axis -1", axis)
        return -1

    def check_class(self, name: str, value: Any) -> int | None:
        """A label, also one that no output stands for, or ``None``."""
        if value is not None and not is_integer(value, IGNORE_NONE + 1):
            self.fail(f"{name} to be an integer or None", value)
        return None if value is None else int(value)

    def targets(self, kernels: Any, t: Any, y: Any, mask: Any, buffer: Callable[..., Any]) -> Any:
        """What ``value`` and ``gradient`` get as their `t`; here the targets as they are.

        Parameters
        ----------
        kernels : the device's kernels
        t : (rows, C), or (rows,) of int32 for a sparse loss; not written to
        y : the output, all its axes
        mask : uint8 (N, T) or None
            Of the output.
        buffer : callable
            Memory for others, by name and shape.
        """
        return t

    def fuses(self, activation: str) -> bool:
        """Whether the gradient can skip this last activation, having its derivative inside."""
        return False

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """Write the loss of every row.

        Parameters
        ----------
        kernels : the device's kernels
        values : (rows,), overwritten
        y : (rows, C), the model's output
        t : (rows, C), or (rows,) of int32 for a sparse loss
        """
        raise TypeError(f"{type(self).__name__}: Expected a loss with a value. Received: none.")

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """Write the gradient of the weighted sum of the rows' losses.

        Parameters
        ----------
        kernels, y, t : as in ``value``
        dy : (rows, C), overwritten
        weights : (rows,)
        fused : bool
            Give the gradient before the last activation (see ``fuses``).
        """
        raise TypeError(f"{type(self).__name__}: Expected a loss with a gradient. Received: none.")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
        """The loss of these outputs, without a model.

        Parameters
        ----------
        y_true, y_pred : array-like
        sample_weight : array-like, optional

        Returns
        -------
        float
        """
        kernels = get_host_device().kernels
        given = standalone(self, y_true, y_pred, sample_weight)
        weights = given.weights[0]
        values = np.empty(len(weights), np.float32)
        t = self.targets(kernels, given.t, given.y, None, given.buffer)
        self.value(kernels, values, given.rows if self.by_row else given.y, t)
        return float(np.sum(values.astype(np.float64) * weights))
