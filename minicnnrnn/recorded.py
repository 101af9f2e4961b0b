"""Recorded steps: what a model does again and again, without the Python that leads there.

What a model does with a batch is, in the end, a list of launches of kernels with their arguments,
and for the next batch of the same shape it is the same list. So it is noted once and *replayed*
from then on. On a CPU that spares the way through layers and buffers: a CNN predicts one image in
0.6 of the time, and takes 0.88 of it for a train step of 32 images. On a GPU the list is a CUDA
graph, and hundreds of launches cost the host a single call (``kernels/stream.py``).

A large batch is not even copied for it: the kernels of a CPU are shown the user's array in place
of the model's, and read it where it lies. They never write to it.

What computes in the host's memory without a kernel, Python of a user or NumPy of ours, would not
be in the list. A GPU's arrays notice that. For a CPU, what this package does to arrays in a step
goes through ``assign`` and ``change``, what cannot asks for the host by ``needs_host``, and a
model with a layer, a loss or a metric of somebody else's is never recorded.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from minicnnrnn import changes


class Unrecordable(RuntimeError):
    """Raised where work that is being recorded needs the host."""


class _Thread(threading.local):
    """What each thread records; None if nothing."""

    recording: Any = None


_thread = _Thread()


def recording() -> Any:
    """What this thread records, or None."""
    return _thread.recording


@contextlib.contextmanager
def recording_into(made: Any) -> Iterator[None]:
    """Let this thread record into something that has a method ``perform``."""
    _thread.recording = made
    try:
        yield
    finally:
        _thread.recording = None


def perform(work: Callable[..., Any], *arguments: Any) -> None:
    """Do a part of a step, or note it, whichever this thread is at."""
    made = _thread.recording
    if made is None:
        work(*arguments)
    else:
        made.perform(work, *arguments)


def needs_host() -> None:
    """Say that what follows computes with arrays, or makes some, where no recording sees it.

    Raises
    ------
    Unrecordable
        While this thread records, before a driver is asked for anything.
    """
    made = _thread.recording
    if made is not None:
        made.spoilt = True  # also if someone catches the error
        raise Unrecordable("Expected work that is recorded. Received: work for the host")


def assign(array: Any, value: Any) -> None:
    """Set the elements of an array, as a part of a step: ``array[...] = value``."""
    if isinstance(array, np.ndarray):
        perform(np.copyto, array, value)
    else:
        array[...] = value


def change(operation: Callable[[Any, Any], Any], array: Any, value: Any) -> None:
    """Change an array as a part of a step, by one of Python's operations in place."""
    if isinstance(array, np.ndarray):
        perform(operation, array, value)
    else:
        operation(array, value)


def count_up(array: Any, index: int) -> None:
    """Add one to an element of a vector of integers, as a part of a step.

    By NumPy's operator that takes five times as long, in the midst of a step for all to wait.
    """
    if isinstance(array, np.ndarray):
        perform(_count_up, array, index)
    else:
        element = array[index : index + 1]
        element += 1  # of a slice it would be written twice


def _count_up(array: Any, index: int) -> None:
    array[index] = int(array[index]) + 1


class Launches:
    """A recording: what to do, with its arguments as they were.

    Attributes
    ----------
    spoilt : bool
        Whether the host was needed.
    result
        What the function returned that was recorded.
    """

    def __init__(self) -> None:
        self.spoilt, self.result = False, None
        self._performed: list[tuple[Any, tuple[Any, ...]]] = []
        self._seats: list[Any] | None = None  # where arguments show the batch

    def perform(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Note something to do."""
        self._performed.append((work, arguments))

    def replay(self, own: Any = None, rows: Any = None) -> None:
        """Do all of it; if rows are lent, on these, in place of the batch's array of the model."""
        for work, arguments in self._performed if own is None else self._with(own, rows):
            work(*arguments)

    def _with(self, own: Any, rows: Any) -> list[tuple[Any, tuple[Any, ...]]]:
        """What to do, with `rows` wherever `own` would be read."""
        if isinstance(self.result, np.ndarray) and np.may_share_memory(self.result, own):
            np.copyto(own, rows)  # a model that does nothing but reshape
            return self._performed
        if self._seats is None:
            begin = own.ctypes.data
            self._seats = [
                (i, j, array.shape, array.ctypes.data - begin, array.strides)
                for i, (_, arguments) in enumerate(self._performed)
                for j, array in enumerate(arguments)
                if isinstance(array, np.ndarray) and np.may_share_memory(array, own)
            ]
        performed = list(self._performed)
        for i, j, shape, offset, strides in self._seats:
            work, arguments = performed[i]
            view = np.ndarray(shape, rows.dtype, rows, offset, strides)
            performed[i] = work, (*arguments[:j], view, *arguments[j + 1 :])
        return performed


class NotingLaunchers:
    """A device's launchers, which note what they are called with."""

    def __init__(self, launchers: Any) -> None:
        self._launchers = launchers

    def __getattr__(self, name: str) -> Any:
        launcher = getattr(self._launchers, name)
        if name.endswith(("_workspace", "_pays")):  # functions of integers
            return launcher
        noting = functools.partial(perform, launcher)
        setattr(self, name, noting)
        return noting


def record(work: Callable[[], Any], parts: Iterable[Any]) -> Launches:
    """Record what a function does in the host's memory; nothing of it is done.

    Parameters
    ----------
    work : callable
    parts : iterable
        The objects that take part in it.

    Raises
    ------
    Unrecordable
        If one of them is somebody else's, or has a method that is, or the host is needed.
    """
    if recording() is not None or not all(map(_ours, parts)):
        raise Unrecordable("Expected the work of this package. Received: somebody else's")
    made = Launches()
    with recording_into(made):
        made.result = work()
    if made.spoilt:
        raise Unrecordable("Expected work that is recorded. Received: work for the host")
    return made


def _ours(part: Any) -> bool:
    """Whether nobody has written or replaced a method of this object but this package."""
    kind = type(part)
    own = kind.__module__.split(".")[0] == __name__.split(".")[0]
    return own and not any(callable(getattr(kind, name, None)) for name in vars(part))


class RecordedSteps:
    """What is known of a model's steps, by the kind of the batch.

    The first batch of a kind runs as it always did: kernels are compiled, memory is allocated.
    The second is recorded and replayed, if that can be done. If it cannot, because a layer, loss
    or metric is written in NumPy, nothing of the recording has happened on the device: that step
    runs as the first did, and so do all that follow.

    Parameters
    ----------
    record : callable
        The device's: it gets the work, and the objects that take part in it.
    stamp : callable, optional
        Recordings hold for as long as it returns the same.
    """

    def __init__(self, record: Callable[..., Any], stamp: Callable[[], Any] | None = None) -> None:
        self._record, self._stamp = record, stamp
        self._known: dict[Any, Any] = {}  # None: ran once; False: cannot be recorded
        self._at: Any = None  # what had changed when all this was true

    def _now(self) -> Any:
        return changes.latest(), self._stamp and self._stamp()

    def find(self, kind: Any) -> Any:
        """The recording of steps of this kind; else None, False, or ``...`` for a new kind."""
        now = self._now()
        if self._at != now:
            self._known.clear()
            self._at = now
        return self._known.get(kind, Ellipsis)

    def run_first(self, kind: Any, step: Callable[[], Any]) -> Any:
        """Run the first step of a kind; what it returns."""
        if len(self._known) > 16:  # sequences of ever new lengths
            self._known.clear()
        before = changes.settings()
        result = step()
        changed = changes.settings() != before  # a step that does so is never twice the same
        self.find(kind)  # forget what held before memory grew
        self._known[kind] = False if changed else None
        return result

    def record(
        self,
        kind: Any,
        work: Callable[[], Any],
        parts: Iterable[Any],
        settled: Callable[[], Any] = lambda: None,
    ) -> Any:
        """Record the step of a kind; what it does to the host's objects is done then.

        Parameters
        ----------
        kind : hashable
        work : callable
        parts : iterable
            The objects that take part in it.
        settled : callable
            What the step must not change: it would not when replayed.

        Returns
        -------
        object or False
            The recording.
        """
        before, found = (self._now(), settled()), False
        with contextlib.suppress(Unrecordable):
            found = self._record(work, parts)
        if before != (self._now(), settled()):
            found, self._at = False, self._now()
        self._known[kind] = found
        return found

    def forget(self, source: Any) -> None:
        """Drop what holds the arrays of a data set that is used no more."""
        for kind in [kind for kind in self._known if kind[0] is source]:
            del self._known[kind]


class Replaying:
    """What lets a model replay its steps."""

    device: Any
    walk: Any
    packed: Callable[[], Any]
    cuda_graph = True
    run_eagerly = False
    loss: Any = None
    optimizer: Any = None
    _targets: Any = None
    _resolved: Any = None
    _recorded: Any = None  # steps of passes forward, steps of training
    _lent: tuple[Any, ...] = ()  # the model's array for a batch, and where the batch lies as yet

    def _take_lent(self) -> tuple[Any, ...]:
        """What ``replay`` is to read in place of the model's own array, if anything."""
        lent, self._lent = self._lent, ()
        return lent

    def _copy_lent(self) -> None:
        """Copy a batch that lies elsewhere as yet: some Python is to see it."""
        if self._lent:
            np.copyto(*self._take_lent())

    def _recordings(self, training: bool) -> RecordedSteps | None:
        """What is known of this model's steps, unless it is to compute eagerly."""
        if self.run_eagerly or (recorder := self.device.recorder(self.cuda_graph)) is None:
            return None
        if self._recorded is None:
            self._recorded = RecordedSteps(recorder, self.packed), RecordedSteps(recorder)
        steps: RecordedSteps = self._recorded[training]
        return steps

    def _kind(self, loaded: Any) -> tuple[Any, ...]:
        """What batches have in common that are the same work for the device."""
        assert self._targets is not None
        x, w = loaded
        held = self._targets.loaded()
        shapes = tuple((name, array.shape) for name, array in held.items())
        return x.shape[1:], len(x), None if w is None else w.shape, shapes

    def _parts(self) -> list[Any]:
        """The objects that take part in a step: what they do is recorded."""
        judges = [metric for metric, _ in self._resolved or ()]
        others = [part for part in (self.loss, self.optimizer) if part is not None]
        return [*self.walk(), *others, *judges]

    def _run_pass(self, kind: Any, work: Callable[[], Any]) -> Any:
        """Go forward as `work` does, or replay it; what it returns."""
        steps = self._recordings(training=False)
        found: Any = False if steps is None else steps.find(kind)
        if found is False or found is None or found is ...:
            self._copy_lent()
        if steps is not None and found is ...:
            return steps.run_first(kind, work)
        if steps is not None and found is None:
            found = steps.record(kind, work, self._parts())
        if found is False:
            return work()
        found.replay(*(self._take_lent() if self._lent else ()))
        return found.result
