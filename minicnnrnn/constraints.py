"""Constraints: what a weight has to satisfy after every update.

A constraint is called with a weight and returns the one that takes its place. The kernels do
NonNeg and the norms; they are called here for looking at what they do.
"""

import math
from typing import Any

import numpy as np

from minicnnrnn.configuration import Configured, find
from minicnnrnn.device import Device
from minicnnrnn.recorded import needs_host

EPSILON = 1e-7  # keeps the quotient of norms finite, as in Keras


class Constraint(Configured):
    """The base of all constraints: a function from weights to weights.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn.constraints import Constraint
    >>> class Small(Constraint):
    ...     def __call__(self, w):
    ...         return np.clip(w, -1, 1)
    >>> Small()(np.array([-2.0, 0.5]))
    array([-1. ,  0.5])
    """

    def __call__(self, w: Any) -> Any:
        """The weights that take the place of `w`: another array of its shape."""
        raise TypeError(f"{type(self).__name__}: Expected a method __call__(w).")


class NonNeg(Constraint):
    """No weight below zero."""

    def __call__(self, w: Any) -> Any:
        """Negative weights become zero."""
        return np.maximum(w, 0)


class MinMaxNorm(Constraint):
    """The norm of the weights along `axis` between two bounds.

    Parameters
    ----------
    min_value, max_value : float
        The bounds.
    rate : float
        From 0 to 1: share of the way to the nearer bound that is gone at each update.
    axis : int or list of int
        The axes that the norm sums over: 0 for the weights into each unit of a dense layer,
        ``[0, 1, 2]`` for each filter of a two-dimensional convolution.
    """

    def __init__(
        self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: Any = 0
    ) -> None:
        self.min_value = _bound("min_value", min_value, np.inf)
        self.max_value = _bound("max_value", max_value, np.inf)
        self.rate, self.axis = _bound("rate", rate, 1.0), _axis(axis)

    @property
    def bounds(self) -> tuple[float, float, float]:
        """(lowest norm, highest norm, rate)."""
        return self.min_value, self.max_value, self.rate

    def __call__(self, w: Any) -> Any:
        """Weights scaled along the axes."""
        low, high, rate = self.bounds
        axis = tuple(self.axis) if isinstance(self.axis, list) else self.axis
        norms = np.sqrt(np.square(w).sum(axis=axis, keepdims=True))
        desired = rate * np.minimum(np.maximum(norms, low), high) + (1 - rate) * norms
        return w * (desired / (EPSILON + norms))


class MaxNorm(MinMaxNorm):
    """The norm of the weights along `axis` at most `max_value`.

    Parameters
    ----------
    max_value : float
    axis : int or list of int
        As for ``MinMaxNorm``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn.constraints import MaxNorm
    >>> MaxNorm(1)(np.array([[3.0, 0.3], [4.0, 0.4]])).round(3)
    array([[0.6, 0.3],
           [0.8, 0.4]])
    """

    def __init__(self, max_value: float = 2, axis: Any = 0) -> None:
        self.max_value, self.axis = _bound("max_value", max_value, np.inf), _axis(axis)

    @property
    def bounds(self) -> tuple[float, float, float]:
        """(lowest norm, highest norm, rate)."""
        return 0.0, self.max_value, 1.0


class UnitNorm(MinMaxNorm):
    """The norm of the weights along `axis` equal to 1.

    Parameters
    ----------
    axis : int or list of int
        As for ``MinMaxNorm``.
    """

    def __init__(self, axis: Any = 0) -> None:
        self.axis = _axis(axis)

    @property
    def bounds(self) -> tuple[float, float, float]:
        """(lowest norm, highest norm, rate)."""
        return 1.0, 1.0, 1.0


def _bound(name: str, value: Any, highest: float) -> float:
    real = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not real or not 0 <= value <= highest:
        most = f", at most {highest:g}" if highest < np.inf else ""
        raise ValueError(f"{name}: Expected a non-negative number{most}. Received: {value!r}")
    return float(value)


def _axis(axis: Any) -> int | list[int] | None:
    listed = list(axis) if isinstance(axis, tuple | list) else [axis]
    whole = all(isinstance(a, int | np.integer) and not isinstance(a, bool) for a in listed)
    if axis is not None and not (whole and listed):
        raise ValueError(f"axis: Expected an integer or a list of integers. Received: {axis!r}")
    return [int(a) for a in listed] if isinstance(axis, tuple | list) else axis


class Projection:
    """A constraint on weights of one shape, as a device carries it out.

    Parameters
    ----------
    constraint : callable
    shape : tuple of int

    Raises
    ------
    ValueError
        If the weight has no such axis.
    """

    def __init__(self, constraint: Any, shape: tuple[int, ...]) -> None:
        self.constraint, self.shape = constraint, shape
        self._norms: Any = None  # scratch, on the device
        self._view: tuple[int, int, int] | None = None
        call = type(constraint).__call__ if isinstance(constraint, Constraint) else None
        self._cuts = call is NonNeg.__call__
        if call is MinMaxNorm.__call__:
            self._view = self._norm_view(constraint.axis)
            self._rates = np.array(constraint.bounds, np.float64)

    def _norm_view(self, axis: Any) -> tuple[int, int, int] | None:
        """The axes (before, along, behind) the norm; ``None`` where these are not neighbours."""
        rank = len(self.shape)
        given = range(rank) if axis is None else axis if isinstance(axis, list) else [axis]
        if any(not -rank <= a < rank for a in given):
            raise ValueError(
                f"{self.constraint!r}: Expected axes of a weight of shape {self.shape}. "
                f"Received: {axis}"
            )
        axes = sorted({a % rank for a in given})
        if not axes or axes != list(range(axes[0], axes[-1] + 1)):
            return None
        before, behind = self.shape[: axes[0]], self.shape[axes[-1] + 1 :]
        along = self.shape[axes[0] : axes[-1] + 1]
        return math.prod(before), math.prod(along), math.prod(behind)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: all but the scratch."""
        return self.__dict__ | {"_norms": None}

    def apply(self, device: Device, w: Any) -> None:
        """Put the weight back where it is allowed to be.

        Parameters
        ----------
        device : Device
        w : device array of the shape, updated in place
        """
        if self._cuts:
            device.kernels.nonneg_constraint(w.reshape(-1))
        elif self._view is not None:
            if self._norms is None:
                self._norms = device.zeros((self._view[0], self._view[2]))
            device.kernels.norm_constraint(w.reshape(self._view), self._norms, self._rates)
        else:
            needs_host()
            result = np.asarray(self.constraint(np.asarray(w)))
            if result.shape != self.shape:
                raise ValueError(
                    f"{self.constraint!r}: Expected weights of shape {self.shape}. "
                    f"Received: {result.shape}"
                )
            w[...] = result


max_norm, non_neg, unit_norm, min_max_norm = MaxNorm, NonNeg, UnitNorm, MinMaxNorm

_TABLE: dict[str, Any] = {
    "MaxNorm": MaxNorm,
    "MinMaxNorm": MinMaxNorm,
    "NonNeg": NonNeg,
    "UnitNorm": UnitNorm,
    "max_norm": MaxNorm,
    "min_max_norm": MinMaxNorm,
    "non_neg": NonNeg,
    "unit_norm": UnitNorm,
}


def get(identifier: Any) -> Any:
    """Find a constraint.

    Parameters
    ----------
    identifier : str, dict, class, callable or None
        "max_norm", "min_max_norm", "non_neg", "unit_norm"; a dict with "class_name" and
        "config"; or a function from weights to weights, which comes back as it is.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> from minicnnrnn import constraints
    >>> constraints.get("non_neg")
    NonNeg()
    """
    if identifier is None:
        return None
    found = find(identifier, _TABLE)
    if not callable(found):
        raise ValueError(
            "constraint: Expected 'max_norm', 'min_max_norm', 'non_neg', 'unit_norm' or a "
            f"function from weights to weights. Received: {identifier!r}"
        )
    return found
