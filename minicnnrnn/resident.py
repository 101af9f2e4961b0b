"""Resident data: a whole data set in a GPU's memory, where batches are gathered from."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minicnnrnn.arrays import copy_batch
from minicnnrnn.data import ArraySource, Batch, Source
from minicnnrnn.device import Buffer, Device
from minicnnrnn.targets import Targets, check_weight

CHUNK = 2**24  # elements that are checked and copied at once
SHARE = 0.5  # of the free memory that a data set may take


class Resident(Source):
    """Arrays that lie on a device as the model wants them: converted, checked and ready.

    An epoch copies the order of its samples to the device; its batches copy nothing. Where in the
    order the next batch begins is known there, too, so that gathering is the same work each time.

    Parameters
    ----------
    source : ArraySource
    device : Device
    shapes : tuple
        Those of one sample: of the model's input, of its output, and what sample weights fit.
    dtype : str
        Of the input.
    load : callable
        ``load(targets, batch, outputs)`` checks the targets of a batch and loads them.

    Raises
    ------
    ValueError
        For what cannot be converted, anywhere in the data.
    """

    def __init__(
        self,
        source: ArraySource,
        device: Device,
        shapes: tuple[tuple[int, ...], ...],
        dtype: str,
        load: Any,
    ) -> None:
        super().__init__()
        self.samples, self.batches, self._source = source.samples, source.batches, source
        self._count = samples = source.samples
        self._device, (self.inputs, outputs, weighed) = device, shapes
        self._order = device.empty((samples,), np.int32)
        self._batches: dict[int, ResidentBatch] = {}
        self._shuffled = True  # whether the order there is another one than the data's own
        x = device.empty((samples, math.prod(self.inputs)), dtype)
        self._arrays: dict[str, Any] = {"x": x}
        targets = Targets(device)
        step = max(1, CHUNK // (math.prod(self.inputs) + math.prod(outputs)))
        for start in range(0, samples, step):
            stop = min(start + step, samples)
            batch, shape = source.gather(slice(start, stop)), (stop - start, *self.inputs)
            with device.writing(x[start:stop]) as host:
                copy_batch(host.reshape(shape), batch.x.reshape(shape), batch.positions)
            load(targets, batch, (stop - start, *outputs))
            self._keep(start, stop, targets.loaded())
            w = check_weight(batch.w, (stop - start, *weighed), batch.positions)
            if w is not None:
                self._keep(start, stop, {"w": device.upload(w)})
        self._position = device.zeros((len(self._arrays),), np.int64)

    def _keep(self, start: int, stop: int, parts: dict[str, Any]) -> None:
        for name, part in parts.items():
            rows = part.reshape(stop - start, -1)
            if name not in self._arrays:
                shape = (self._count, rows.shape[1])
                self._arrays[name] = self._device.empty(shape, part.dtype)
            self._arrays[name][start:stop] = rows

    @staticmethod
    def fits(source: ArraySource, device: Device, outputs: tuple[int, ...]) -> bool:
        """Whether a data set takes no more than its share of the memory that is free."""
        samples = source.x.size + source.samples * (2 + 2 * math.prod(outputs))
        return 4 * samples <= SHARE * device.free_memory()

    def peek(self) -> Batch:
        """Look at the first batch, in the memory of the host."""
        return self._source.peek()

    def _one_pass(self, rng: np.random.Generator | None) -> Iterator[Any]:
        if rng is not None:
            self._order[...] = rng.permutation(self._count).astype(np.int32)
        elif self._shuffled:
            self._order[...] = np.arange(self._count, dtype=np.int32)
        self._shuffled = rng is not None
        self._position[:1] = 0
        size = self._source.batch_size
        for start in range(0, self._count, size):
            samples = min(size, self._count - start)
            batch = self._batches.get(samples)
            if batch is None:
                batch = self._batches[samples] = ResidentBatch(self, samples)
            yield batch

    def width(self, name: str) -> int:
        """Columns of what is held by that name, 0 if there is nothing."""
        return self._arrays[name].shape[1] if name in self._arrays else 0

    def copy_rows(self, name: str, target: Any) -> None:
        """Gather the next rows in the order of the epoch; the last of the arrays moves on."""
        rows, part = target.reshape(-1, self.width(name)), list(self._arrays).index(name)
        array = self._arrays[name]
        self._device.kernels.gather_rows(rows, self._position, array, self._order, part)


class ResidentBatch:
    """The next batch of resident data, of so many samples.

    Its arrays are gathered in the order in which the data holds them: x, targets, weights.
    """

    def __init__(self, source: Resident, samples: int) -> None:
        self._source, self.samples = source, samples
        self.inputs = (samples, *source.inputs)
        self.kind = source, samples  # batches of the same kind are the same work

    def width(self, name: str) -> int:
        """Elements of a sample, 0 if there is nothing of that name."""
        return self._source.width(name)

    def fill(self, name: str, target: Any) -> None:
        """Gather into an array of this device."""
        self._source.copy_rows(name, target)

    def gather(self, name: str, buffer: Buffer, columns: int = 0) -> Any:
        """Gather into a buffer: a vector, or rows of so many columns; None if nothing is held."""
        width = self.width(name)
        if not width:
            return None
        size = self.samples * width
        target = buffer(size // columns, columns) if columns else buffer(size)
        self.fill(name, target)
        return target
