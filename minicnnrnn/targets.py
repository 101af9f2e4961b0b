"""Targets: what a batch's `y` and its weights become before a step may begin."""

import math
from typing import Any, NamedTuple

import numpy as np

from minicnnrnn.arrays import as_array, copy_batch
from minicnnrnn.device import Buffer, Device, get_host_device
from minicnnrnn.kernels import codes

REDUCTIONS = {"sum": codes.SUM, "mean_with_sample_weight": codes.WEIGHTED_MEAN}  # others: MEAN


def infer_loss(activation: str | None, y: Any, axes: int) -> tuple[str, str]:
    """The loss and the metric that the last activation and the targets imply.

    Parameters
    ----------
    activation : str or None
        Of the last layer.
    y : array
        All targets: a few of them could look like labels where others do not.
    axes : int
        Of the output, the batch included.

    Returns
    -------
    (str, str)

    Raises
    ------
    ValueError
        Where they imply none.

    Examples
    --------
    >>> infer_loss("softmax", np.array([3, 1, 2]), 2)
    ('sparse_categorical_crossentropy', 'accuracy')
    """
    if y is not None and y.size:
        whole = y.dtype.kind in "iub" or bool(np.all(y == np.rint(y)))
        binary = whole and y.min() >= 0 and y.max() <= 1
        vectors = y.ndim == axes and y.shape[-1] > 1
        if activation == "softmax" and vectors and binary and np.all(y.sum(-1) == 1):
            return "categorical_crossentropy", "accuracy"
        if activation == "softmax" and whole and not vectors:
            return "sparse_categorical_crossentropy", "accuracy"
        if activation == "sigmoid" and binary:
            return "binary_crossentropy", "accuracy"
        if activation == "linear" and y.dtype.kind == "f":
            return "mean_squared_error", "mae"
    received = "no y" if y is None else f"y of dtype {y.dtype} and shape {y.shape}"
    raise ValueError(
        "Expected a compiled model, since no loss follows from the last activation and the "
        "targets: call model.compile(optimizer, loss, metrics). "
        f"Received: activation {activation!r}, {received}"
    )


class Targets:
    """The targets of a batch on the device, as labels, sequences of labels or numbers; weights.

    Parameters
    ----------
    device : Device
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._labels, self._numbers = Buffer(device, np.int32), Buffer(device)
        self._sequences = Buffer(device, np.int32)
        self._weights = [Buffer(device) for _ in range(4)]
        self._w, self._none_w, self._none = Buffer(device), Buffer(device), Buffer(device, np.int32)
        self._no_mask = Buffer(device, np.uint8)
        self._constants: dict[Any, Any] = {}  # weights that no batch changes
        self.labels: Any = None
        self.numbers: Any = None
        self.sequences: Any = None

    def load(
        self,
        y: Any,
        outputs: tuple[int, ...],
        sparse: bool,
        dense: bool,
        ignore: int | None,
        positions: Any,
    ) -> None:
        """Check `y` and copy it.

        Parameters
        ----------
        y : array
        outputs : tuple
            Shape of the model's output for this batch.
        sparse, dense : bool
            Whether labels (rows,) and numbers (rows, C) are wanted.
        ignore : int or None
            A label outside the range that is allowed.
        positions : slice, array or None
            Of the samples, for errors.
        """
        if y is None:
            raise ValueError("Expected targets y. Received: none.")
        rows, C = math.prod(outputs[:-1]), outputs[-1]
        if sparse:
            self.labels = self._labels(rows)
            self._load_labels(y, outputs, C, ignore, positions)
        if dense:
            y = self._as_outputs(y, outputs)
            self.numbers = self._numbers(rows, C)
            with self.device.writing(self.numbers) as numbers:
                copy_batch(numbers.reshape(outputs), y, positions, "y")

    def load_sequences(self, y: Any, outputs: tuple[int, ...], positions: Any) -> None:
        """Check `y` as sequences of labels, and copy it; parameters as in ``load``."""
        if y is None:
            raise ValueError("Expected targets y. Received: none.")
        if len(outputs) != 3 or y.ndim != 2:
            raise ValueError(
                "Expected y to hold labels of shape (samples, most labels) for outputs of shape "
                f"(samples, time steps, classes). Received: {y.shape} for {outputs}"
            )
        self.sequences = self._sequences(*y.shape)
        with self.device.writing(self.sequences) as sequences:
            copy_batch(sequences, y, positions, "y")
            check_sequences(sequences, outputs[-1], positions)

    def _load_labels(
        self, y: Any, outputs: tuple[int, ...], C: int, ignore: int | None, positions: Any
    ) -> None:
        shape = outputs[:-1]
        if C < 2:
            raise ValueError(
                "Expected at least 2 outputs for integer labels (for one output use "
                f"binary_crossentropy). Received outputs of shape {outputs}."
            )
        if y.shape == (*shape, 1):
            y = y.reshape(shape)
        if y.shape != shape:
            raise ValueError(
                f"Expected y to hold integer labels of shape {shape}. Received: {y.shape} (for "
                "one-hot targets use categorical_crossentropy)."
            )
        with self.device.writing(self.labels) as labels:
            if y.dtype.kind in "iu" and _in_range(y, C):
                labels.reshape(shape)[...] = y
            else:
                copy_batch(labels.reshape(shape), y, positions, "y")
                check_labels(labels.reshape(shape), C, ignore, positions)

    def _as_outputs(self, y: Any, outputs: tuple[int, ...]) -> Any:
        if outputs[-1] == 1 and y.shape == outputs[:-1]:
            return y.reshape(outputs)
        if y.shape != outputs:
            raise ValueError(f"Expected y of the output's shape {outputs}. Received: {y.shape}")
        return y

    def loaded(self) -> dict[str, Any]:
        """What `load` and `load_sequences` have filled, by name."""
        held = {"labels": self.labels, "numbers": self.numbers, "sequences": self.sequences}
        return {name: array for name, array in held.items() if array is not None}

    def gather(self, batch: Any, C: int) -> None:
        """Take the targets of a batch of resident data, for C outputs."""
        self.labels = batch.gather("labels", self._labels)
        self.numbers = batch.gather("numbers", self._numbers, C)
        self.sequences = batch.gather("sequences", self._sequences, batch.width("sequences"))

    def weights(
        self, w: Any, mask: Any, outputs: tuple[int, ...], loss: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Weights for the gradient, the reported loss, plain and weighted metrics.

        One for each row; for a loss that is not by row, the first two are one for each sample.
        The mean over rows is over those that the mask and the label that is ignored leave; the
        reported loss counts for an epoch as often as the batch has samples. Plain metrics know
        the mask alone.
        """
        N, rows = outputs[0], math.prod(outputs[:-1])
        ignore = getattr(loss, "ignore_class", None)
        counts = (rows if loss.by_row else N,) * 2 + (rows, rows)
        if w is None and mask is None and ignore is None:
            return self._constant(N, counts, loss)
        arrays = tuple(buffer(n) for buffer, n in zip(self._weights, counts, strict=True))
        labels = self._none(0) if ignore is None else self.labels
        sampled = self._none_w(0) if w is None else w.reshape(-1)
        steps = self._no_mask(0) if mask is None else mask.reshape(-1)
        reduction = REDUCTIONS.get(loss.reduction, codes.MEAN)
        samples = N if loss.by_row else -N
        self.device.kernels.row_weights(
            *arrays, sampled, steps, labels, ignore or 0, reduction, samples
        )
        return arrays

    def _constant(self, N: int, counts: tuple[int, ...], loss: Any) -> tuple[Any, ...]:
        """The weights of a batch without weights of its own, nor masks.

        Other batches leave them alone: a recorded step finds them as they were.
        """
        kind = N, counts, loss.reduction
        arrays = self._constants.get(kind)
        if arrays is None:
            if len(self._constants) > 16:  # sequences of ever new lengths
                self._constants.clear()
            scale = 1.0 if loss.reduction == "sum" else 1 / counts[0]
            arrays = tuple(self.device.empty((n,)) for n in counts)
            for array, value in zip(arrays, (scale, N * scale, 1, 1), strict=True):
                array[...] = value
            self._constants[kind] = arrays
        return arrays

    def place(self, w: Any) -> Any:
        """Sample weights of the host on the device."""
        if w is None:
            return None
        placed = self._w(*w.shape)
        with self.device.writing(placed) as host:
            host[...] = w
        return placed


def _in_range(labels: Any, C: int) -> bool:
    """Whether all are from 0 to C - 1: in a third of the time of finding one that is not."""
    return bool(np.minimum.reduce(labels, None) >= 0 and np.maximum.reduce(labels, None) < C)


def check_labels(labels: Any, C: int, ignore: int | None, positions: Any) -> None:
    """Raise if a label is none of 0 to C - 1, nor the one that is ignored."""
    if not _in_range(labels, C):
        wrong = (labels < 0) | (labels >= C)
        if ignore is not None:
            wrong &= labels != ignore
        if wrong.any():
            first = int(np.argmax(wrong))
            raise ValueError(
                f"Expected labels from 0 to {C - 1}, as the model has {C} outputs. Received: "
                f"{labels.flat[first]:g}{_where(first // (labels.size // len(labels)), positions)}"
            )


def check_sequences(labels: Any, C: int, positions: Any) -> None:
    """Raise if a label is none of 0 to C - 1, or one comes after a zero."""
    check_labels(labels, C, None, positions)
    late = (labels[:, 1:] != 0) & (labels[:, :-1] == 0)
    if late.any():
        first = int(np.argmax(late.any(axis=1)))
        raise ValueError(
            "Expected y to hold zeros, the blank, behind the last label alone. Received: "
            f"{labels[first].tolist()}{_where(first, positions)}"
        )


def check_weight(w: Any, outputs: tuple[int, ...], positions: Any) -> Any:
    """A batch's sample weights as float32, if they fit the output's leading axes.

    `outputs` is the output's shape, or (samples, 1) where there is one weight a sample.
    """
    if w is None:
        return None
    if w.shape != outputs[: w.ndim] or w.ndim >= len(outputs):
        shapes = " or ".join(dict.fromkeys((str(outputs[:1]), str(outputs[:-1]))))
        raise ValueError(f"Expected sample_weight of shape {shapes}. Received: {w.shape}")
    copy = np.empty(w.shape, np.float32)
    copy_batch(copy, w, positions, "sample_weight")
    return copy


def _where(index: int, positions: Any) -> str:
    if positions is None:
        return f" in sample {index} of the batch."
    at = positions.start + index if isinstance(positions, slice) else positions[index]
    return f" in sample {int(at)}."


class Given(NamedTuple):
    """What a loss or a metric works on without a model: see ``Targets``."""

    y: Any
    t: Any
    weights: tuple[Any, Any, Any, Any]

    @property
    def rows(self) -> Any:
        """The output, a row for each element of all axes but the last."""
        return self.y.reshape(-1, self.y.shape[-1])

    def buffer(self, name: str, *shape: int) -> Any:
        """Scratch memory."""
        return np.empty(shape, np.float32)


def standalone(judge: Any, y_true: Any, y_pred: Any, w: Any) -> Given:
    """Check and copy what a loss or a metric is called with.

    Parameters
    ----------
    judge : Loss or Metric
        Its attributes `sparse`, `by_row`, `reduction` and `ignore_class` decide.
    y_true, y_pred : array-like
        Vectors are rows of one output.
    w : array-like or None
        Sample weights.
    """
    y = np.ascontiguousarray(as_array(y_pred, "y_pred"), np.float32)
    y = y[:, None] if y.ndim == 1 else y
    t, loaded = as_array(y_true, "y_true"), Targets(get_host_device())
    if judge.by_row:
        ignore = getattr(judge, "ignore_class", None)
        loaded.load(t, y.shape, judge.sparse, not judge.sparse, ignore, None)
    else:
        loaded.load_sequences(t, y.shape, None)
    outputs = y.shape if judge.by_row else (len(y), 1)
    w = None if w is None else check_weight(as_array(w, "sample_weight"), outputs, None)
    weights = loaded.weights(w, None, y.shape, judge)
    numbers = loaded.labels if judge.sparse else loaded.numbers
    return Given(y, numbers if judge.by_row else loaded.sequences, weights)
