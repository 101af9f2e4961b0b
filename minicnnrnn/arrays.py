"""Arrays from what a user passes, and their way into a model's buffers.

Data stays in the type that it was stored in until ``copy_batch`` turns one batch into float32
(or int32, for ids) and looks for NaN and infinity on the way.
"""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Positions = slice | NDArray[np.intp]

INT32 = np.iinfo(np.int32)
ONE_INPUT = "A model has one input and one output."
NO_CLASSES = (
    "Expected y to hold integer labels or one-hot vectors with class_weight. Received other "
    "numbers: use sample_weight"
)


def is_array(value: Any) -> bool:
    """Tell whether a value is an array, or anything that knows how to become one.

    Examples
    --------
    >>> is_array(np.zeros(3)), is_array([0.0, 0.0])
    (True, False)
    """
    return hasattr(value, "__array__") or callable(getattr(value, "numpy", None))


def has_arrays(parts: Any) -> bool:
    """Tell whether there is an array among the parts; a NumPy scalar is none."""
    return any(is_array(part) and getattr(part, "ndim", 1) for part in parts)


def unpack(batch: Any) -> tuple[Any, Any, Any]:
    """Split ``x``, ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)`` into three parts.

    Parts that are missing are ``None``. A list counts as a tuple if it holds arrays.

    Examples
    --------
    >>> unpack(([1.0, 2.0], [0, 1]))
    ([1.0, 2.0], [0, 1], None)
    """
    if not (isinstance(batch, tuple) or (isinstance(batch, list) and has_arrays(batch))):
        return batch, None, None
    if not 1 <= len(batch) <= 3:
        raise ValueError(
            f"Expected x, (x, y) or (x, y, sample_weight). Received a tuple of {len(batch)} parts. "
            f"{ONE_INPUT}"
        )
    x, y, w = (*batch, None, None)[:3]
    return x, y, w


def as_array(value: Any, name: str) -> Array:
    """View data as an array of numbers, copying only what is no array yet.

    Parameters
    ----------
    value : array-like
    name : str
        What errors call it.

    Raises
    ------
    TypeError
        For dicts, strings, complex numbers, dates and other objects.
    ValueError
        For ragged lists, scalars, and arrays without a single sample.
    """
    if not isinstance(value, np.ndarray):
        value = _convert(value, name)
    array: Array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        array = _numbers(array, name)
    if array.ndim == 0:
        raise ValueError(
            f"Expected {name} to be an array whose first axis counts samples. "
            f"Received a single number: {array}"
        )
    if len(array) == 0:
        raise ValueError(f"Expected at least one sample. Received {name} of shape {array.shape}")
    return array


def copy_batch(
    target: Array, rows: Array, positions: Positions | None = None, name: str = "x"
) -> None:
    """Copy a batch into a model's buffer and convert it on the way.

    Parameters
    ----------
    target : float32 or int32 array, overwritten
        An int32 one takes whole numbers only.
    rows : array of numbers of the same shape
    positions : slice, array of indices or None
        Where the rows come from, so that an error can name the sample; ``None`` if unknown.
    name : str
        What errors call `rows`.

    Raises
    ------
    ValueError
        For another shape; for NaN, infinity or what float32 cannot hold; and, if `target` is
        int32, for what is not a whole number or does not fit.
    """
    if target.shape != rows.shape:
        raise ValueError(f"Expected {name} of shape {target.shape}. Received: {rows.shape}")
    with np.errstate(all="ignore"):
        target[...] = rows
        if target.dtype.kind == "i":
            wrong = target != rows  # fractions were cut off, large numbers wrapped
            if wrong.any():
                _raise_first(wrong, rows, positions, name, "whole numbers of 32 bits")
        elif rows.dtype.kind == "f" and not math.isfinite(np.add.reduce(target, axis=None)):
            # A sum is cheap, but may overflow where every element is finite.
            wrong = ~np.isfinite(target)
            if wrong.any():
                _raise_first(wrong, rows, positions, name, "finite numbers that float32 can hold")


def class_weights(y: Array, class_weight: Mapping[int, float]) -> Array:
    """Look up every label's weight.

    Parameters
    ----------
    y : (N,) or (N, 1) labels, (N, K) one-hot, or (N, T, K) one-hot for every step
    class_weight : dict from label to weight; 1 for labels that are not in it

    Returns
    -------
    float32 array (N,) or (N, T)

    Raises
    ------
    ValueError
        If `y` holds neither labels nor one-hot vectors.

    Examples
    --------
    >>> class_weights(np.array([0, 1, 2]), {0: 0.5, 2: 3.0}).tolist()
    [0.5, 1.0, 3.0]
    """
    if y.ndim > 1 and y.shape[-1] > 1:
        if not (np.isin(y, (0, 1)).all() and (y.sum(axis=-1) == 1).all()):
            raise ValueError(NO_CLASSES)
        labels = y.argmax(axis=-1)
    else:
        labels = y.reshape(y.shape[:-1] if y.ndim > 1 else y.shape)
        if labels.dtype.kind == "f" and not (labels == np.rint(labels)).all():
            raise ValueError(NO_CLASSES)
    present, positions = np.unique(labels, return_inverse=True)
    weights = np.array([class_weight.get(int(label), 1.0) for label in present], np.float32)
    return weights[positions.reshape(labels.shape)]


def _convert(value: Any, name: str) -> Any:
    """Turn what is no array into one, or into something that NumPy can view as one."""
    if value is None or isinstance(value, str | bytes | Mapping):
        raise TypeError(
            f"Expected {name} to be an array. Received: {type(value).__name__}. {ONE_INPUT}"
        )
    if callable(getattr(value, "numpy", None)):  # a tensor of PyTorch or TensorFlow
        return getattr(value, "detach", lambda: value)().numpy()
    if not isinstance(value, list | tuple):
        return value
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"Expected {name} to hold samples of one shape. Received a ragged list ({error}). "
            f"Sequences can be padded by minicnnrnn.utils.pad_sequences. {ONE_INPUT}"
        ) from None


def _numbers(array: Array, name: str) -> Array:
    """Convert an object array of nothing but numbers, as frames of mixed columns give."""
    if array.dtype == object and array.ndim:
        if all(isinstance(value, numbers.Real | np.bool_) for value in array.flat):
            return array.astype(np.float64)
        kinds = sorted({type(value).__name__ for value in array.flat})
        received = f"{', '.join(kinds)} objects"
        text = "str" in kinds
    else:
        received, text = f"dtype {array.dtype}", array.dtype.kind in "UST"
    advice = ""
    if text and name == "y":
        advice = ". Encode the labels, e.g. with sklearn.preprocessing.LabelEncoder"
    raise TypeError(f"Expected {name} to hold real numbers. Received: {received}{advice}")


def _raise_first(
    wrong: Array, rows: Array, positions: Positions | None, name: str, expected: str
) -> None:
    row, *rest = (int(axis[0]) for axis in np.nonzero(wrong))
    sample, where = row, " of its batch"
    if positions is not None:
        sample = (
            (positions.start or 0) + row if isinstance(positions, slice) else int(positions[row])
        )
        where = ""
    element = ", ".join(map(str, (sample, *rest)))
    raise ValueError(
        f"Expected {expected} in {name}. Received: {rows[(row, *rest)]} in sample {sample}{where} "
        f"({name}[{element}])"
    )
