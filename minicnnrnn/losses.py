"""Losses: what training makes small."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from minicnnrnn.kernels.loss import FUSED, IGNORE_NONE, LOGITS, PROBABILITIES
from minicnnrnn.shapes import is_integer, is_real

MEAN = "sum_over_batch_size"  # Keras' name for the mean over all rows


class Loss:
    """The base of all losses: a number for every row of the output, and its gradient.

    A row is a sample; for outputs of more than two axes, an element of all axes but the last.
    Rows are averaged over the batch, weighted by the sample weights.

    Parameters
    ----------
    name : str, optional
    reduction : str
        Only Keras' default, "sum_over_batch_size": the mean over all rows.
    dtype : str, optional
        Only "float32".

    Attributes
    ----------
    sparse : bool
        Whether the targets are integer labels (rows,), instead of one number an output.
    """

    sparse: ClassVar[bool] = False
    label = "loss"

    def __init__(
        self, name: str | None = None, reduction: str = MEAN, dtype: str | None = None
    ) -> None:
        if reduction not in (MEAN, "mean"):
            self.fail(f"reduction {MEAN!r}", reduction)
        if dtype not in (None, "float32"):
            self.fail("dtype 'float32'", dtype)
        self.name = name or self.label

    def fail(self, expected: str, received: Any) -> None:
        """Raise, naming the loss."""
        raise ValueError(f"{type(self).__name__}: Expected {expected}. Received: {received!r}")

    def targets(self, t: Any, buffer: Callable[..., Any]) -> Any:
        """The targets that the loss means by `t`, which metrics see as it is.

        Parameters
        ----------
        t : (rows, C), or (rows,) of int32 for a sparse loss; not written to
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

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class KerasLoss(Loss):
    """A loss of Keras, where the name comes after the reduction."""

    def __init__(
        self, reduction: str = MEAN, name: str | None = None, dtype: str | None = None
    ) -> None:
        super().__init__(name, reduction, dtype)


class MeanSquaredError(KerasLoss):
    """``mean((y - t) ** 2)`` over the last axis."""

    label = "mean_squared_error"

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The mean square of a row."""
        kernels.mean_squared_error_forward(values, y, t)

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """``2 (y - t) / C``, weighted."""
        kernels.mean_squared_error_backward(dy, y, t, weights)


class MeanAbsoluteError(KerasLoss):
    """``mean(abs(y - t))`` over the last axis."""

    label = "mean_absolute_error"

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The mean distance in a row."""
        kernels.mean_absolute_error_forward(values, y, t)

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """``sign(y - t) / C``, weighted."""
        kernels.mean_absolute_error_backward(dy, y, t, weights)


class Huber(KerasLoss):
    """Quadratic near the target, linear beyond `delta`.

    Parameters
    ----------
    delta : float
        Where the two meet; positive.
    reduction, name, dtype : as in ``Loss``
    """

    label = "huber"

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str = MEAN,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        if not is_real(delta, 0, np.inf) or delta == 0:
            self.fail("delta to be a positive number", delta)
        self.delta = float(delta)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The mean of a row's Huber losses."""
        kernels.huber_forward(values, y, t, self.delta)

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """The difference, cut at `delta`, weighted."""
        kernels.huber_backward(dy, y, t, weights, self.delta)


class CrossEntropy(KerasLoss):
    """What the three cross-entropies share: probabilities, logits, or fused with an activation.

    Parameters
    ----------
    from_logits : bool
        The model's output is before softmax or sigmoid.
    label_smoothing : float
        Share of the target, from 0 to 1, that is spread evenly over all classes; for one output
        these are two.
    axis : int
        Only -1: the classes are last.
    reduction, name, dtype : as in ``Loss``
    """

    activation = "softmax"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = MEAN,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        if not is_real(label_smoothing, 0, 1):
            self.fail("label_smoothing to be a number from 0 to 1", label_smoothing)
        if axis != -1:
            self.fail("axis -1", axis)
        self.from_logits, self.label_smoothing = bool(from_logits), float(label_smoothing)

    def targets(self, t: Any, buffer: Callable[..., Any]) -> Any:
        """``t (1 - s) + s / classes`` with the label smoothing s."""
        if self.label_smoothing == 0:
            return t
        classes = t.shape[-1] if self.activation == "softmax" else 2
        smoothed = buffer("smoothed targets", *t.shape)
        np.multiply(t, 1 - self.label_smoothing, out=smoothed)
        smoothed += self.label_smoothing / classes
        return smoothed

    def fuses(self, activation: str) -> bool:
        """The derivative of softmax (sigmoid) and of the loss together is ``y - t``."""
        return activation == self.activation and not self.from_logits

    def mode(self, fused: bool = False) -> int:
        """What the kernel is told of `y`."""
        return LOGITS if self.from_logits else FUSED if fused else PROBABILITIES


class BinaryCrossentropy(CrossEntropy):
    """``-t log(y) - (1 - t) log(1 - y)``, averaged over the last axis.

    Parameters
    ----------
    from_logits : bool
        The model's output is before the sigmoid.
    label_smoothing : float
        Moves the targets 0 and 1 by half of it towards each other.
    axis, reduction, name, dtype : as in ``CrossEntropy``
    """

    label = "binary_crossentropy"
    activation = "sigmoid"

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The mean cross-entropy of a row."""
        kernels.binary_crossentropy_forward(values, y, t, self.mode())

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """Fused with the sigmoid: ``(y - t) / C``, weighted."""
        kernels.binary_crossentropy_backward(dy, y, t, weights, self.mode(fused))


class CategoricalCrossentropy(CrossEntropy):
    """``-sum(t log(y))`` with one-hot (or soft) targets.

    Parameters
    ----------
    from_logits : bool
        The model's output is before the softmax.
    label_smoothing : float
        Share of the target that is spread evenly over the classes.
    axis, reduction, name, dtype : as in ``CrossEntropy``
    """

    label = "categorical_crossentropy"

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The cross-entropy of a row."""
        kernels.categorical_crossentropy_forward(values, y, t, self.mode())

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """Fused with the softmax: ``y sum(t) - t``, weighted."""
        kernels.categorical_crossentropy_backward(dy, y, t, weights, self.mode(fused))


class SparseCategoricalCrossentropy(CrossEntropy):
    """``-log(y[label])`` with integer labels.

    Parameters
    ----------
    from_logits : bool
        The model's output is before the softmax.
    ignore_class : int, optional
        Rows with this label count for nothing in the loss; metrics count them, as in Keras.
    reduction, axis, name, dtype : as in ``CrossEntropy``
    """

    sparse = True
    label = "sparse_categorical_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = MEAN,
        axis: int = -1,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, 0.0, axis, reduction, name, dtype)
        if ignore_class is not None and not is_integer(ignore_class, IGNORE_NONE + 1):
            self.fail("ignore_class to be an integer or None", ignore_class)
        self.ignore_class = ignore_class

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The cross-entropy of a row."""
        kernels.sparse_categorical_crossentropy_forward(values, y, t, self.mode(), self._ignore())

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """Fused with the softmax: ``y - onehot(t)``, weighted."""
        kernels.sparse_categorical_crossentropy_backward(
            dy, y, t, weights, self.mode(fused), self._ignore()
        )

    def _ignore(self) -> int:
        return IGNORE_NONE if self.ignore_class is None else int(self.ignore_class)


LOSSES: dict[str, type[Loss]] = {
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "huber": Huber,
    "binary_crossentropy": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
}
LOSSES |= {loss.__name__: loss for loss in set(LOSSES.values())}


def get(identifier: Any) -> Loss:
    """The loss of this name, or the one that is given.

    Examples
    --------
    >>> from minicnnrnn import losses
    >>> losses.get("mse")
    <MeanSquaredError>
    """
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, str) and (found := LOSSES.get(identifier)):
        return found()
    known = sorted(name for name in LOSSES if name.islower())
    raise ValueError(f"loss: Expected a Loss or one of {known}. Received: {identifier!r}")
