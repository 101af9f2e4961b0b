"""Helpers under the names where a Keras user looks for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from minicnnrnn.batches import image_dataset_from_directory, timeseries_dataset_from_array
from minicnnrnn.random import set_random_seed
from minicnnrnn.shapes import is_integer

__all__ = [
    "image_dataset_from_directory",
    "pad_sequences",
    "set_random_seed",
    "timeseries_dataset_from_array",
    "to_categorical",
]


def to_categorical(x: ArrayLike, num_classes: int | None = None) -> NDArray[np.float32]:
    """Turn integer labels into one-hot vectors.

    Parameters
    ----------
    x : array-like of whole numbers
        From 0 to `num_classes` - 1. A last axis of length 1 is dropped.
    num_classes : int, optional
        The largest label plus one, if left out.

    Returns
    -------
    float32 array
        The shape of `x` and a last axis of `num_classes`.

    Raises
    ------
    ValueError
        For labels that aren't whole numbers, or are out of range.

    Examples
    --------
    >>> to_categorical([0, 2, 1])
    array([[1., 0., 0.],
           [0., 0., 1.],
           [0., 1., 0.]], dtype=float32)
    """
    labels = np.asarray(x)
    if labels.dtype.kind not in "biuf" or not np.array_equal(labels, np.rint(labels)):
        raise ValueError(f"Expected labels that are whole numbers. Received: {x!r}")
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if num_classes is None and labels.size:
        num_classes = int(labels.max()) + 1
    elif not is_integer(num_classes, 1):
        raise ValueError(
            f"Expected num_classes to be an integer of at least 1. Received: {num_classes!r}"
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(
            f"Expected labels from 0 to {num_classes} - 1. "
            f"Received labels from {labels.min()} to {labels.max()}"
        )
    vectors = np.zeros((*labels.shape, int(num_classes or 0)), np.float32)
    np.put_along_axis(vectors, labels[..., np.newaxis].astype(np.intp), 1.0, axis=-1)
    return vectors


def pad_sequences(
    sequences: Sequence[Any],
    maxlen: int | None = None,
    dtype: DTypeLike = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: Any = 0.0,
) -> NDArray[Any]:
    """Bring sequences to one length, so that they fit into an array.

    Parameters
    ----------
    sequences : sequence of sequences
        Of numbers, or of anything of one shape.
    maxlen : int, optional
        The longest sequence's length, if left out. Longer ones are cut.
    dtype : NumPy dtype
    padding, truncating : {"pre", "post"}
        Whether values are added, or taken away, at the beginning or at the end.
    value : number
        What is added.

    Returns
    -------
    array of shape (number of sequences, maxlen, ...)

    Raises
    ------
    ValueError
        Where there is no sequence, or an element is none, or their elements' shapes differ.

    Examples
    --------
    >>> pad_sequences([[1], [2, 3], [4, 5, 6]])
    array([[0, 0, 1],
           [0, 2, 3],
           [4, 5, 6]], dtype=int32)
    >>> pad_sequences([[1], [2, 3], [4, 5, 6]], maxlen=2, padding="post", truncating="post")
    array([[1, 0],
           [2, 3],
           [4, 5]], dtype=int32)
    """
    for name, choice in (("padding", padding), ("truncating", truncating)):
        if choice not in ("pre", "post"):
            raise ValueError(f"Expected {name} to be 'pre' or 'post'. Received: {choice!r}")
    if not hasattr(sequences, "__len__") or len(sequences) == 0:
        raise ValueError(f"Expected a list of at least one sequence. Received: {sequences!r}")
    for sequence in sequences:
        if not hasattr(sequence, "__len__") or isinstance(sequence, str):
            raise ValueError(f"Expected a list of sequences. Received an element: {sequence!r}")
    if maxlen is None:
        maxlen = max(map(len, sequences))
    elif not is_integer(maxlen, 1):
        raise ValueError(f"Expected maxlen to be an integer of at least 1. Received: {maxlen!r}")
    cut = slice(-maxlen, None) if truncating == "pre" else slice(0, maxlen)
    arrays = [np.asarray(sequence[cut], dtype) for sequence in sequences]
    shapes = {array.shape[1:] for array in arrays if len(array)} or {()}
    if len(shapes) > 1:
        raise ValueError(f"Expected elements of one shape. Received shapes: {sorted(shapes)}")
    padded = np.full((len(arrays), maxlen, *shapes.pop()), value, dtype)
    for row, array in zip(padded, arrays, strict=True):
        if len(array):
            row[slice(-len(array), None) if padding == "pre" else slice(0, len(array))] = array
    return padded
