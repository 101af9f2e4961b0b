"""Batches from whatever a user passes: arrays, frames, lists, memory maps, generators, iterables.

A `Source` hands out raw rows, in the type that they were stored in, without ever converting the
whole set: `minicnnrnn.arrays.copy_batch` converts one batch on its way into the model.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from minicnnrnn.arrays import (
    INT32,
    ONE_INPUT,
    Array,
    Positions,
    as_array,
    class_weights,
    has_arrays,
    is_array,
    unpack,
)
from minicnnrnn.shapes import is_integer

BATCH_SIZE = 32
REAL = int | float | np.integer | np.floating
RAN_OUT = (
    "Your input ran out of data: the epoch ends early. Expected at least steps_per_epoch * epochs "
    "batches; leave steps_per_epoch out to make one pass over the data an epoch."
)


class Batch(NamedTuple):
    """Raw rows of a batch, valid until the next batch is drawn.

    `positions` tells where in the user's arrays they stand, by a slice or an array of indices;
    ``None`` where the data is streamed.
    """

    x: Array
    y: Array | None
    w: Array | None
    positions: Positions | None


class Source(ABC):
    """Batches in epochs; see `source`, which makes one.

    Attributes
    ----------
    samples : int or None
        Number of samples; ``None`` for a stream.
    batches : int or None
        Number of batches in one pass; ``None`` if nobody knows.
    repeatable : bool
        Whether a second pass is possible; a generator runs but once.
    """

    samples: int | None = None
    batches: int | None = None
    repeatable = True

    def __init__(self) -> None:
        self._pass: Iterator[Batch] | None = None
        self._started = False

    @abstractmethod
    def peek(self) -> Batch:
        """Look at a batch without using it up.

        Raises
        ------
        ValueError
            Where there is none.
        """

    def epoch(
        self, rng: np.random.Generator | None = None, steps: int | None = None
    ) -> Iterator[Batch]:
        """Draw the batches of one epoch.

        Parameters
        ----------
        rng : numpy.random.Generator, optional
            Draws a new order: of the samples of arrays, of the batches of a sequence of batches.
            Without it, and for everything else, they come as they lie.
        steps : int, optional
            End after so many batches; the next epoch goes on where this one stopped. Without
            it an epoch is one pass over the data.

        Yields
        ------
        Batch

        Warns
        -----
        UserWarning
            If the data ends before `steps`, as in Keras, or if there is nothing left at all: the
            epoch is then short, or empty.
        """
        if steps is None or self._pass is None:
            self._pass = self._one_pass(rng)
        count = 0
        while steps is None or count < steps:
            batch = next(self._pass, None)
            if batch is None and steps is not None and count == 0 and self.repeatable:
                self._pass = self._one_pass(rng)  # the last epoch took the last batch
                batch = next(self._pass, None)
            if batch is None:
                break
            self._started = True
            count += 1
            yield batch
        if not self._started:
            raise ValueError("Expected at least one batch. Received data that yields none.")
        if count < (steps or 1):
            warnings.warn(RAN_OUT, stacklevel=2)

    @abstractmethod
    def _one_pass(self, rng: np.random.Generator | None) -> Iterator[Batch]:
        """Draw every batch once."""


class ArraySource(Source):
    """Batches gathered from arrays by index, without converting or copying the arrays.

    Parameters
    ----------
    x, y, w : arrays of equal length; `y` and `w` may be ``None``
    batch_size : int
    offset : int
        Position of the first sample in the user's arrays, for error messages.
    """

    def __init__(
        self, x: Array, y: Array | None, w: Array | None, batch_size: int, offset: int = 0
    ) -> None:
        super().__init__()
        self.x, self.y, self.w = x, y, w
        self.batch_size = batch_size
        self.samples: int = len(x)
        self.batches: int = -(-self.samples // batch_size)
        self._offset = offset
        self._scratch: dict[str, Array] = {}

    def gather(self, positions: Positions) -> Batch:
        """Take the samples of a slice, or of an array of positions, as they are stored.

        A slice gives views; positions are gathered in memory that the next call reuses.
        """
        x = self._rows("x", self.x, positions)
        y = None if self.y is None else self._rows("y", self.y, positions)
        w = None if self.w is None else self._rows("w", self.w, positions)
        if self._offset == 0:
            return Batch(x, y, w, positions)
        if isinstance(positions, slice):
            start, stop, _ = positions.indices(len(self.x))
            return Batch(x, y, w, slice(start + self._offset, stop + self._offset))
        return Batch(x, y, w, positions + self._offset)

    def part(self, start: int, stop: int, batch_size: int) -> "ArraySource":
        """Make a source of the samples from `start` to `stop`."""
        y = None if self.y is None else self.y[start:stop]
        w = None if self.w is None else self.w[start:stop]
        return ArraySource(self.x[start:stop], y, w, batch_size, self._offset + start)

    def peek(self) -> Batch:
        """Look at the first batch."""
        return self.gather(slice(0, self.batch_size))

    def _one_pass(self, rng: np.random.Generator | None) -> Iterator[Batch]:
        order = None if rng is None else rng.permutation(self.samples)
        for start in range(0, self.samples, self.batch_size):
            stop = start + self.batch_size
            yield self.gather(slice(start, stop) if order is None else order[start:stop])

    def _rows(self, name: str, array: Array, positions: Positions) -> Array:
        # take() would first copy the whole of an array that is not contiguous.
        flags = array.flags
        if isinstance(positions, slice) or not (flags.c_contiguous and flags.aligned):
            return array[positions]
        scratch = self._scratch.get(name)
        if scratch is None or len(scratch) < len(positions):
            scratch = self._scratch[name] = np.empty_like(
                array, shape=(len(positions), *array.shape[1:])
            )
        return array.take(positions, 0, out=scratch[: len(positions)], mode="wrap")


class StreamSource(Source):
    """Batches from a generator, an iterable, or a sequence of batches.

    Parameters
    ----------
    data : iterable of batches, or object with ``__getitem__`` and ``__len__``
        A batch is ``x``, ``(x, y)`` or ``(x, y, sample_weight)``. Methods ``on_epoch_begin`` and
        ``on_epoch_end``, where there are any, are called before and after every pass.
    class_weight : dict or None
    """

    def __init__(self, data: Any, class_weight: Mapping[int, float] | None = None) -> None:
        super().__init__()
        self.batches = _length(data)
        self.repeatable = not isinstance(data, Iterator)
        self._data = data
        self._indexed = self.batches is not None and hasattr(data, "__getitem__")
        self._class_weight = class_weight
        self._ahead: tuple[Any, Iterator[Any]] | None = None

    def peek(self) -> Batch:
        """Look at the first batch of the coming pass."""
        if self._indexed:
            if self.batches:
                return self._batch(self._data[0])
        elif self._ahead is not None:
            return self._batch(self._ahead[0])
        else:
            iterator = iter(self._data)
            for item in iterator:
                self._ahead = (item, iterator)
                return self._batch(item)
        raise ValueError("Expected at least one batch. Received data that yields none.")

    def _one_pass(self, rng: np.random.Generator | None) -> Iterator[Batch]:
        getattr(self._data, "on_epoch_begin", _nothing)()
        for item in self._items(rng):
            yield self._batch(item)
        getattr(self._data, "on_epoch_end", _nothing)()

    def _items(self, rng: np.random.Generator | None) -> Iterator[Any]:
        if self._indexed:
            count = self.batches or 0
            for position in range(count) if rng is None else rng.permutation(count).tolist():
                yield self._data[position]
        elif self._ahead is not None:
            item, iterator = self._ahead
            self._ahead = None
            yield item
            yield from _each(iterator)
        else:
            yield from _each(iter(self._data))

    def _batch(self, item: Any) -> Batch:
        x, y, w = _arrays(*unpack(item), self._class_weight)
        return Batch(x, y, w, None)


def source(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    batch_size: int | None = None,
    class_weight: Mapping[int, float] | None = None,
) -> Source:
    """Make batches of what the user passed to ``fit``, ``evaluate`` or ``predict``.

    Parameters
    ----------
    x : array-like, or a stream of batches
        Arrays, pandas frames, nested lists and tensors are data. Generators, iterables, and
        objects with ``__getitem__`` and ``__len__`` yield batches ``(x, y[, sample_weight])``.
    y, sample_weight : array-like, optional
        As many rows as `x`; not with a stream, whose batches bring their own.
    batch_size : int, optional
        32 if left out; a stream's batches have the size that they have.
    class_weight : dict, optional
        A factor on the sample weight for each integer label; 1 for labels that are not in it.

    Raises
    ------
    ValueError, TypeError
        Saying what was expected and what was received.

    Examples
    --------
    >>> import numpy as np
    >>> batches = source(np.arange(10).reshape(5, 2), [0, 1, 0, 1, 1], batch_size=2)
    >>> batches.samples, batches.batches
    (5, 3)
    >>> [batch.y.tolist() for batch in batches.epoch()]
    [[0, 1], [0, 1], [1]]
    """
    size = _batch_size(batch_size, BATCH_SIZE)
    if class_weight is not None:
        _check_class_weight(class_weight)
    if is_stream(x):
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None:
                raise ValueError(
                    f"Expected {name} to come with the batches of x, as x yields batches itself. "
                    f"Received a separate {name}."
                )
        return StreamSource(x, class_weight)
    return ArraySource(*_arrays(x, y, sample_weight, class_weight), size)


def split(
    whole: Source, fraction: float, validation_batch_size: int | None = None
) -> tuple[Source, Source | None]:
    """Set the last `fraction` of the samples apart for validation, in the order they lie in.

    Parameters
    ----------
    whole : Source
    fraction : float
        At least 0 and below 1.
    validation_batch_size : int, optional
        That of `whole` if left out.

    Returns
    -------
    The source for training and that for validation; the latter is ``None`` if `fraction` is 0.

    Raises
    ------
    ValueError
        For a stream, another fraction, or one that leaves either part empty.

    Examples
    --------
    >>> training, validation = split(source(np.arange(10)), 0.2)
    >>> training.samples, validation.x.tolist()
    (8, [8, 9])
    """
    if not (isinstance(fraction, REAL) and 0 <= fraction < 1):
        raise ValueError(
            f"Expected validation_split to be at least 0 and below 1. Received: {fraction!r}"
        )
    if fraction == 0:
        return whole, None
    if not isinstance(whole, ArraySource):
        raise ValueError(
            "Expected arrays with validation_split. Received batches, which cannot be split: pass "
            "validation_data."
        )
    cut = math.floor(whole.samples * (1.0 - fraction))
    if not 0 < cut < whole.samples:
        raise ValueError(
            "Expected validation_split to leave at least one sample for training and one for "
            f"validation. Received: {fraction!r} of {whole.samples} samples"
        )
    size = _batch_size(validation_batch_size, whole.batch_size)
    return whole.part(0, cut, whole.batch_size), whole.part(cut, whole.samples, size)


def is_stream(data: Any) -> bool:
    """Tell whether data yields batches, rather than being an array or a list of numbers.

    Examples
    --------
    >>> is_stream([[1, 2], [3, 4]]), is_stream(iter([]))
    (False, True)
    """
    if isinstance(data, list | tuple):
        return bool(data) and all(isinstance(item, tuple) and has_arrays(item) for item in data)
    if is_array(data) or isinstance(data, str | bytes | Mapping | range):
        return False
    return isinstance(data, Iterable) or hasattr(data, "__getitem__")


def _arrays(
    x: Any, y: Any, w: Any, class_weight: Mapping[int, float] | None
) -> tuple[Array, Array | None, Array | None]:
    """Convert and check what belongs together; class weights end up in `w`."""
    if isinstance(x, list | tuple) and y is not None:
        _check_single_input(x, y)
    x = as_array(x, "x")
    y = None if y is None else as_array(y, "y")
    w = None if w is None else as_array(w, "sample_weight")
    for name, other in (("y", y), ("sample_weight", w)):
        if other is not None and len(other) != len(x):
            raise ValueError(
                f"Expected x and {name} to have the same number of samples. "
                f"Received: {len(x)} and {len(other)}"
            )
    if w is not None and w.ndim > 2:
        raise ValueError(
            f"Expected sample_weight of shape (samples,) or (samples, steps). Received: {w.shape}"
        )
    if class_weight is not None:
        if y is None:
            raise ValueError("Expected y with class_weight. Received: None")
        factors = class_weights(y, class_weight)
        if w is not None and w.ndim != factors.ndim:
            w, factors = (a.reshape(len(x), -1) for a in (w, factors))
        w = factors if w is None else w * factors
    return x, y, w


def _check_single_input(x: Any, y: Any) -> None:
    count = _length(y)
    if len(x) != count and all(is_array(part) and _length(part) == count for part in x):
        raise ValueError(f"Expected one array as x. Received a list of {len(x)}. {ONE_INPUT}")


def _check_class_weight(class_weight: Any) -> None:
    if isinstance(class_weight, Mapping) and all(
        is_integer(label, INT32.min) and isinstance(weight, REAL) and 0 <= weight < math.inf
        for label, weight in class_weight.items()
    ):
        return
    raise ValueError(
        "Expected class_weight to be a dict from integer labels to weights that are finite and "
        f"not negative. Received: {class_weight!r}"
    )


def _batch_size(value: int | None, default: int) -> int:
    if value is None:
        return default
    if not is_integer(value, 1):
        raise ValueError(f"Expected batch_size to be an integer of at least 1. Received: {value!r}")
    return int(value)


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:
        return None


def _each(iterator: Iterator[Any]) -> Iterator[Any]:
    # Not `yield from iterator`: closing a pass must leave the user's generator open.
    for item in iterator:  # noqa: UP028
        yield item


def _nothing() -> None:
    pass
