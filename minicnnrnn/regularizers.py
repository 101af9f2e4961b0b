"""Regularizers: penalties on the size of weights, or of a layer's output, added to the loss."""

import math
from typing import Any

import numpy as np

from minicnnrnn.configuration import Configured, find

Rates = tuple[float, float]


class Regularizer(Configured):
    """The base of all regularizers: a penalty, and its gradient.

    A penalty of your own overrides both, in NumPy. The kernels do those of L1, L2 and L1L2.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn.regularizers import Regularizer
    >>> class Smooth(Regularizer):  # neighbouring weights should be alike
    ...     def value(self, w):
    ...         return float(np.square(np.diff(w, axis=0)).sum())
    ...
    ...     def gradient(self, w):
    ...         steps = np.diff(w, axis=0, prepend=w[:1], append=w[-1:])
    ...         return -2 * np.diff(steps, axis=0)
    >>> Smooth()(np.array([[0.0], [1.0]])), Smooth().gradient(np.array([[0.0], [1.0]]))
    (1.0, array([[-2.],
           [ 2.]]))
    """

    def value(self, w: Any) -> float:
        """The penalty of these weights.

        Parameters
        ----------
        w : array of any shape
        """
        raise TypeError(f"{type(self).__name__}: Expected a method value(w).")

    def gradient(self, w: Any) -> Any:
        """The gradient of ``value``: an array of the shape of `w`."""
        raise TypeError(f"{type(self).__name__}: Expected a method gradient(w).")

    def __call__(self, w: Any) -> float:
        """The penalty, as in Keras."""
        return self.value(np.asarray(w))


class L1L2(Regularizer):
    """``l1 * sum(|w|) + l2 * sum(w ** 2)``.

    Parameters
    ----------
    l1, l2 : float
        Not negative.

    Examples
    --------
    >>> from minicnnrnn import regularizers
    >>> regularizers.L1L2(l1=0.5, l2=2.0)([1.0, -3.0])
    22.0
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1, self.l2 = _rate("l1", l1, 0.0), _rate("l2", l2, 0.0)

    def value(self, w: Any) -> float:
        """The penalty of these weights."""
        w = np.asarray(w, np.float64)
        total = self.l1 * float(np.abs(w).sum()) if self.l1 else 0.0
        return total + self.l2 * float(np.square(w).sum()) if self.l2 else total

    def gradient(self, w: Any) -> Any:
        """``l1 * sign(w) + 2 * l2 * w``, where the sign of zero is 1, as in Keras on JAX."""
        w = np.asarray(w)
        return self.l1 * np.where(w < 0, -1, 1) + 2 * self.l2 * w


class L1(L1L2):
    """``l1 * sum(|w|)``: drives weights to zero.

    Parameters
    ----------
    l1 : float
    """

    def __init__(self, l1: float = 0.01) -> None:
        self.l1, self.l2 = _rate("l1", l1, 0.01), 0.0


class L2(L1L2):
    """``l2 * sum(w ** 2)``: keeps weights small.

    Parameters
    ----------
    l2 : float
    """

    def __init__(self, l2: float = 0.01) -> None:
        self.l1, self.l2 = 0.0, _rate("l2", l2, 0.01)


class OrthogonalRegularizer(Regularizer):
    """The mean absolute cosine between two rows, or two columns, of a matrix, times `factor`.

    Parameters
    ----------
    factor : float
    mode : {"rows", "columns"}
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        if mode not in ("rows", "columns"):
            raise ValueError(f"mode: Expected 'rows' or 'columns'. Received: {mode!r}")
        self.factor, self.mode = _rate("factor", factor, 0.01), mode

    def _directions(self, w: Any) -> tuple[Any, Any, float]:
        """Rows of length one, their lengths, and the weight of one pair."""
        if np.ndim(w) != 2:
            raise ValueError(f"{self!r}: Expected a matrix. Received: shape {np.shape(w)}")
        rows = np.asarray(w, np.float64)
        rows = rows if self.mode == "rows" else rows.T
        lengths = np.maximum(np.sqrt(np.square(rows).sum(axis=1, keepdims=True)), 1e-7)
        count = len(rows)
        return rows / lengths, lengths, self.factor / max(1.0, count * (count - 1) / 2)

    def value(self, w: Any) -> float:
        """The penalty of this matrix."""
        u, _, share = self._directions(w)
        cosines = u @ u.T
        return share * float(np.abs(np.triu(cosines, 1)).sum())

    def gradient(self, w: Any) -> Any:
        """Through the cosines, then through the division by the length."""
        u, lengths, share = self._directions(w)
        signs = np.sign(u @ u.T)
        np.fill_diagonal(signs, 0)
        du = share * (signs @ u)
        dw = (du - u * (du * u).sum(axis=1, keepdims=True)) / lengths
        return dw if self.mode == "rows" else dw.T


def _rate(name: str, value: Any, default: float) -> float:
    if value is None:
        return default
    real = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}: Expected a non-negative number. Received: {value!r}")
    return float(value)


def kernel_rates(regularizer: Any) -> Rates | None:
    """(l1, l2) where the penalty kernel computes this regularizer, else ``None``."""
    kind = type(regularizer)
    plain = (
        isinstance(regularizer, L1L2)
        and kind.value is L1L2.value
        and kind.gradient is L1L2.gradient
    )
    return (regularizer.l1, regularizer.l2) if plain else None


l1, l2, l1_l2 = L1, L2, L1L2
orthogonal_regularizer = OrthogonalRegularizer

_TABLE: dict[str, Any] = {
    "L1": L1,
    "L2": L2,
    "L1L2": L1L2,
    "OrthogonalRegularizer": OrthogonalRegularizer,
    "l1": L1,
    "l2": L2,
    "l1l2": L1L2,
    "l1_l2": lambda l1=0.01, l2=0.01: L1L2(l1, l2),  # the defaults that Keras documents
    "orthogonal_regularizer": OrthogonalRegularizer,
}


def get(identifier: Any) -> Any:
    """Find a regularizer.

    Parameters
    ----------
    identifier : str, dict, class, Regularizer or None
        "l1", "l2", "l1_l2", "orthogonal_regularizer"; a dict with "class_name" and "config"; or
        an object with ``value(w)`` and ``gradient(w)``, which comes back as it is.

    Raises
    ------
    ValueError
        For anything else, a bare function included: without its gradient it cannot be trained.

    Examples
    --------
    >>> from minicnnrnn import regularizers
    >>> regularizers.get("l2")
    L2(l2=0.01)
    """
    if identifier is None:
        return None
    found = find(identifier, _TABLE)
    if not all(callable(getattr(found, method, None)) for method in ("value", "gradient")):
        raise ValueError(
            "regularizer: Expected 'l1', 'l2', 'l1_l2', 'orthogonal_regularizer' or an object "
            f"with value(w) and gradient(w). Received: {identifier!r}"
        )
    return found
