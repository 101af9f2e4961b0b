"""Cross-entropies: how far a distribution is from the one it should be."""

from typing import Any

import numpy as np

from minicnnrnn.kernels.codes import FUSED, IGNORE_NONE, LOGITS, PROBABILITIES
from minicnnrnn.losses.base import MEAN, Loss


class CrossEntropy(Loss):
    """What the cross-entropies share: probabilities, logits, or fused with an activation.

    Where the model ends in the activation that the loss expects, both are derived in one step,
    as from logits. A right class that has underflowed to 0 is learned from all the same, unlike
    in Keras on JAX.

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
        super().__init__(name, reduction, dtype)
        self.label_smoothing = self.check_real("label_smoothing", label_smoothing, 0, 1)
        self.from_logits, self.axis = bool(from_logits), self.check_axis(axis)

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

    activation = "sigmoid"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = MEAN,
        name: str | None = "binary_crossentropy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The mean cross-entropy of a row."""
        kernels.binary_crossentropy_forward(values, y, t, self.mode(), self.label_smoothing)

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """Fused with the sigmoid: ``(y - t) / C``, weighted."""
        kernels.binary_crossentropy_backward(
            dy, y, t, weights, self.mode(fused), self.label_smoothing
        )


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

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = MEAN,
        name: str | None = "categorical_crossentropy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The cross-entropy of a row."""
        kernels.categorical_crossentropy_forward(values, y, t, self.mode(), self.label_smoothing)

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """Fused with the softmax: ``y sum(t) - t``, weighted."""
        kernels.categorical_crossentropy_backward(
            dy, y, t, weights, self.mode(fused), self.label_smoothing
        )


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

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = MEAN,
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, 0.0, axis, reduction, name, dtype)
        self.ignore_class = self.check_class("ignore_class", ignore_class)

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
        return IGNORE_NONE if self.ignore_class is None else self.ignore_class


class BinaryFocalCrossentropy(CrossEntropy):
    """The binary cross-entropy times ``(1 - p) ** gamma``, p being the answer's share of right.

    Parameters
    ----------
    apply_class_balancing : bool
        Whether `alpha` weights the class 1, and ``1 - alpha`` the class 0.
    alpha : float
        From 0 to 1.
    gamma : float
        How much less what is right already counts.
    from_logits, label_smoothing, axis, reduction, name, dtype : as in ``BinaryCrossentropy``
    """

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = MEAN,
        name: str | None = "binary_focal_crossentropy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.apply_class_balancing = bool(apply_class_balancing)
        self.alpha = self.check_real("alpha", alpha, 0, 1)
        self.gamma = self.check_real("gamma", gamma, 0)

    def fuses(self, activation: str) -> bool:
        """Nothing: the sigmoid has its own derivative."""
        return False

    def _options(self) -> tuple[float, float, float, int, float]:
        balance = (self.alpha, 1 - self.alpha) if self.apply_class_balancing else (1.0, 1.0)
        return *balance, self.gamma, self.mode(), self.label_smoothing

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The mean focal cross-entropy of a row."""
        kernels.binary_focal_crossentropy_forward(values, y, t, *self._options())

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """The derivative of that, weighted."""
        kernels.binary_focal_crossentropy_backward(dy, y, t, weights, *self._options())


class CategoricalFocalCrossentropy(CrossEntropy):
    """The categorical cross-entropy, each class's term times ``alpha * (1 - y) ** gamma``.

    Parameters
    ----------
    alpha : float, or a list of one for each class
    gamma : float
        How much less what is right already counts.
    from_logits, label_smoothing, axis, reduction, name, dtype : as in ``CategoricalCrossentropy``
    """

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = MEAN,
        name: str | None = "categorical_focal_crossentropy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        listed = list(alpha) if isinstance(alpha, list | tuple | np.ndarray) else [alpha]
        if not listed:
            self.fail("alpha to be a number, or one for each class", alpha)
        weights = [self.check_real("alpha", weight, 0) for weight in listed]
        self.alpha: float | list[float] = weights if len(weights) > 1 else weights[0]
        self.gamma = self.check_real("gamma", gamma, 0)

    def fuses(self, activation: str) -> bool:
        """Nothing: the softmax has its own derivative."""
        return False

    def _options(self, classes: int) -> tuple[Any, float, int, float]:
        alpha = np.atleast_1d(np.asarray(self.alpha, np.float32))
        if alpha.size not in (1, classes):
            self.fail(f"alpha to be a number, or one for each of {classes} classes", self.alpha)
        return alpha, self.gamma, self.mode(), self.label_smoothing

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The focal cross-entropy of a row."""
        kernels.categorical_focal_crossentropy_forward(values, y, t, *self._options(y.shape[1]))

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """The derivative of that, weighted."""
        options = self._options(y.shape[1])
        kernels.categorical_focal_crossentropy_backward(dy, y, t, weights, *options)


class KLDivergence(Loss):
    """``sum(t * log(t / y))`` over the last axis, both clipped to [1e-7, 1]."""

    def __init__(
        self, reduction: str = MEAN, name: str | None = "kl_divergence", dtype: str | None = None
    ) -> None:
        super().__init__(name, reduction, dtype)

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """The divergence of a row."""
        kernels.kl_divergence_forward(values, y, t)

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """``-t / y``, weighted."""
        kernels.kl_divergence_backward(dy, y, t, weights)
