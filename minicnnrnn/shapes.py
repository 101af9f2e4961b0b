"""Arithmetic on shapes: tuples, padding and output lengths; and what counts as a number."""

import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any, overload

PADDINGS = ("valid", "same", "causal")


def to_tuple(
    value: int | Sequence[int], rank: int, name: str, layer: str, minimum: int = 1
) -> tuple[int, ...]:
    """Repeat an integer along `rank` axes, or check a tuple that already has one entry an axis.

    Parameters
    ----------
    value : int, or tuple or list of `rank` ints
    rank : int
        Number of spatial axes.
    name, layer : str
        The argument and the layer that an error names.
    minimum : int
        The smallest entry allowed.

    Returns
    -------
    tuple of `rank` ints

    Raises
    ------
    ValueError
        For another number of entries, an entry below `minimum`, or anything that is not an
        integer, booleans and floats included.

    Examples
    --------
    >>> to_tuple(3, 2, "kernel_size", "conv2d")
    (3, 3)
    >>> to_tuple([3, 5], 2, "kernel_size", "conv2d")
    (3, 5)
    >>> to_tuple((3, 0), 2, "kernel_size", "conv2d")
    Traceback (most recent call last):
        ...
    ValueError: layer 'conv2d': Expected kernel_size to be an integer of at least 1, or a tuple \
of 2 of them. Received: (3, 0)
    """
    several = "" if rank == 1 else f", or a tuple of {rank} of them"
    entries: tuple[Any, ...] = tuple(value) if isinstance(value, tuple | list) else (value,) * rank
    if len(entries) != rank or not all(is_integer(entry, minimum) for entry in entries):
        raise ValueError(
            f"layer {layer!r}: Expected {name} to be an integer of at least {minimum}{several}. "
            f"Received: {value!r}"
        )
    return tuple(operator.index(entry) for entry in entries)


def is_integer(value: Any, minimum: int) -> bool:
    """Tell whether a value is a Python or NumPy integer of at least `minimum`.

    A boolean is not an integer here, and a float never is.

    Examples
    --------
    >>> is_integer(3, 1), is_integer(0, 1), is_integer(True, 1), is_integer(3.0, 1)
    (True, False, False, False)
    """
    if isinstance(value, bool):
        return False
    try:
        return operator.index(value) >= minimum
    except TypeError:
        return False


def is_real(value: Any, low: float, high: float) -> bool:
    """Tell whether a value is a Python or NumPy number from `low` to `high`; a boolean is none.

    Examples
    --------
    >>> is_real(0.5, 0, 1), is_real(2, 0, 1), is_real(True, 0, 1), is_real(float("nan"), 0, 1)
    (True, False, False, False)
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and low <= float(value) <= high


def merge_axes(
    shape: tuple[int, ...], shared: tuple[int, ...], rank: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes with fewer axes, for an array and a smaller one that is stretched to its shape.

    Neighbouring axes that are both stretched, or both not, become one; ones in front fill up.

    Parameters
    ----------
    shape, shared : tuple of int
        As long as each other; `shared` has a one where it is stretched.
    rank : int
        The number of axes wanted.

    Raises
    ------
    ValueError
        If more axes remain.

    Examples
    --------
    >>> merge_axes((8, 5, 6, 3), (8, 1, 1, 3), 5)
    ((1, 1, 8, 30, 3), (1, 1, 8, 1, 3))
    """
    merged: list[list[int]] = []
    for n, m in zip(shape, shared):
        if n == 1:
            continue
        if merged and (merged[-1][1] == 1) == (m == 1):
            merged[-1][0] *= n
            merged[-1][1] *= m
        else:
            merged.append([n, m])
    if len(merged) > rank:
        raise ValueError(f"Expected at most {rank} axes that differ. Received: {shape}, {shared}")
    full = [[1, 1]] * (rank - len(merged)) + merged
    return tuple(n for n, _ in full), tuple(m for _, m in full)


def dilated_extent(kernel: int, dilation: int) -> int:
    """Count the elements that a kernel reaches over.

    Examples
    --------
    >>> dilated_extent(3, 1), dilated_extent(3, 2)
    (3, 5)
    """
    return (kernel - 1) * dilation + 1


@overload
def output_length(length: int, kernel: int, stride: int, dilation: int, padding: str) -> int: ...
@overload
def output_length(length: None, kernel: int, stride: int, dilation: int, padding: str) -> None: ...
@overload
def output_length(
    length: int | None, kernel: int, stride: int, dilation: int, padding: str
) -> int | None: ...
def output_length(
    length: int | None, kernel: int, stride: int, dilation: int, padding: str
) -> int | None:
    """Length of a convolution's or pooling's output along one axis.

    Parameters
    ----------
    length : int or None
        Length of the input; ``None`` where it isn't known yet.
    kernel, stride, dilation : int
        Extent of the window, step between windows, step between the window's elements.
    padding : str
        ``"valid"``: only windows that lie inside the input. ``"same"``: one window for every
        `stride` elements begun. ``"causal"``: as many, none of which looks ahead.

    Returns
    -------
    int or None
        0 where not a single window fits; ``None`` if `length` is.

    Raises
    ------
    ValueError
        For another padding.

    Examples
    --------
    >>> output_length(28, 3, 1, 1, "valid"), output_length(28, 3, 2, 1, "same")
    (26, 14)
    >>> output_length(4, 3, 1, 2, "valid")
    0
    """
    _check(padding)
    if length is None:
        return None
    if padding == "valid":
        return max((length - dilated_extent(kernel, dilation)) // stride + 1, 0)
    return -(-length // stride)


def padding_before(length: int, kernel: int, stride: int, dilation: int, padding: str) -> int:
    """Count the elements of padding before the first element of an axis.

    ``"same"`` adds as many as the last window needs, and puts the odd one behind, as TensorFlow
    and Keras do; so the padding depends on the input's length. ``"causal"`` adds all before the
    first element. What lies behind the last element follows from the output's length. Parameters
    as in `output_length`.

    Examples
    --------
    >>> padding_before(28, 3, 1, 1, "same"), padding_before(28, 3, 2, 1, "same")
    (1, 0)
    >>> padding_before(28, 3, 1, 2, "causal")
    4
    """
    _check(padding)
    extent = dilated_extent(kernel, dilation)
    if padding == "valid":
        return 0
    if padding == "causal":
        return extent - 1
    windows = -(-length // stride)
    return max((windows - 1) * stride + extent - length, 0) // 2


def _check(padding: str) -> None:
    if padding not in PADDINGS:
        raise ValueError(f"Expected padding to be one of {PADDINGS}. Received: {padding!r}")
