"""Recorded steps: the train steps of a model that a GPU runs without being told each launch.

A step that a GPU can do alone is recorded, and replayed for all batches of its kind. The host then
does per step what its own counters need, and one call of the driver.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from minicnnrnn import changes


class RecordedSteps:
    """What is known of a model's train steps, by the kind of the batch.

    The first batch of a kind runs as it always did: kernels are compiled, memory is allocated.
    The second is recorded and replayed, if a GPU can do all of it alone. If it cannot, because a
    layer, loss or metric is written in NumPy, nothing of the recording has happened on the GPU:
    that step runs as the first did, and so do all that follow.

    Parameters
    ----------
    record : callable
        The device's.
    refusal : type of exception
        What it raises where the host is needed.
    """

    def __init__(self, record: Callable[..., Any], refusal: type[Exception]) -> None:
        self._record, self._refusal = record, refusal
        self._known: dict[Any, Any] = {}  # None: ran once; False: cannot be recorded
        self._at = -1  # what had changed when all this was true

    def find(self, kind: Any) -> Any:
        """The recording of steps of this kind; else None, False, or ``...`` for a new kind."""
        if self._at != changes.latest():
            self._known.clear()
            self._at = changes.latest()
        return self._known.get(kind, Ellipsis)

    def run_first(self, kind: Any, step: Callable[[], None]) -> None:
        """Run the first step of a kind."""
        if len(self._known) > 16:  # sequences of ever new lengths
            self._known.clear()
        before = changes.settings()
        step()
        changed = changes.settings() != before  # a step that does so is never twice the same
        self.find(kind)  # forget what held before memory grew
        self._known[kind] = False if changed else None

    def record(self, kind: Any, work: Callable[[], None], settled: Callable[[], Any]) -> Any:
        """Record the step of a kind; what it does to the host's objects is done then.

        Parameters
        ----------
        kind : hashable
        work : callable
        settled : callable
            What the step must not change: it would not when replayed.

        Returns
        -------
        object or False
            The recording.
        """
        before, found = (changes.latest(), settled()), False
        with contextlib.suppress(self._refusal):
            found = self._record(work)
        if before != (changes.latest(), settled()):
            found, self._at = False, changes.latest()
        self._known[kind] = found
        return found

    def forget(self, source: Any) -> None:
        """Drop what holds the arrays of a data set that is used no more."""
        for kind in [kind for kind in self._known if kind[0] is source]:
            del self._known[kind]
