"""The order of a GPU's work: one stream for all of it, and recordings that run again as a whole.

Everything that the package does on a GPU goes through one stream of its own: launches, fills,
copies and events; what the host reads waits for it. Work that is the same again and again is
recorded once and *replayed* from then on: on a GPU as a CUDA graph, so that hundreds of launches
cost the host a single call; under the simulator as a list of launches with their arguments,
which shows that nothing is left to the host.
"""

import contextlib
import importlib
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


class Unrecordable(RuntimeError):
    """Raised where work that is being recorded needs the host."""


class _Refused(RuntimeError):
    """Raised where the driver does not do its part."""


class _Thread(threading.local):
    """What each thread records; None if nothing."""

    recording: Any = None


_thread = _Thread()
_lock = threading.Lock()
_own: list[Any] = []  # the stream, once there is one
_refusals: list[str] = []  # what the driver has said to a recording, if it was no


def own_stream() -> Any:
    """The stream that all work goes through.

    It waits for the default stream, and that for it, as CUDA's streams do unless they are told
    otherwise: arrays may be shared with other users of the GPU, who use the default one.
    """
    if not _own:
        with _lock:
            if not _own:
                from numba import cuda as numba_cuda

                _own.append(numba_cuda.stream())
    return _own[0]


def stream() -> Any:
    """Where this thread's work goes: the one stream, or the one that is being recorded."""
    recording = _thread.recording
    return own_stream() if recording is None else recording.stream


def perform(work: Callable[..., None], *arguments: Any) -> None:
    """Do what a GPU does without the host, or record it, whichever this thread is at."""
    recording = _thread.recording
    if recording is None:
        work(*arguments)
    else:
        recording.perform(work, *arguments)


def needs_host() -> None:
    """Say that what follows needs the host: memory, or its contents.

    Raises
    ------
    Unrecordable
        While this thread records, before the driver is asked for anything.
    """
    recording = _thread.recording
    if recording is not None:
        recording.spoilt = True  # also if someone catches the error
        raise Unrecordable("Expected work that a GPU does alone. Received: work for the host")


# ---------------------------------------------------------------------------------------
# Recordings
# ---------------------------------------------------------------------------------------


class _Launches:
    """A recording under the simulator: what to do, with its arguments as they were."""

    stream = None

    def __init__(self) -> None:
        self.spoilt = False
        self._performed: list[tuple[Any, tuple[Any, ...]]] = []

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Nothing to do: ``perform`` does not run what it is given."""
        yield

    def perform(self, work: Callable[..., None], *arguments: Any) -> None:
        """Note something to do."""
        self._performed.append((work, arguments))

    def replay(self) -> None:
        """Do all of it."""
        for work, arguments in self._performed:
            work(*arguments)


class _Graph:
    """A recording on a GPU: the driver notes what comes to a stream, and makes a graph of it.

    The stream is one that the default stream knows nothing of, and the mode is the one that
    forbids nothing: what other threads do, or the memory that Python's garbage gives back, has no
    part in the graph.
    """

    def __init__(self) -> None:
        self.spoilt, self.stream = False, None
        self._kept: list[Any] = []  # the arrays whose addresses the graph holds
        self._driver = _driver()
        self._launch = self._driver.cuGraphLaunch
        self._graph: Any = None
        self._queue = own_stream().handle

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Let the driver note what is done; a graph of it is there when the block ends."""
        from numba import cuda as numba_cuda

        driver = self._driver
        apart = int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
        (queue,) = _checked(driver.cuStreamCreate(apart))
        self.stream = numba_cuda.external_stream(int(queue))
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        try:
            with numba_cuda.current_context().defer_cleanup():
                _checked(driver.cuStreamBeginCapture(queue, mode))
                try:
                    yield
                except BaseException:
                    status, captured = driver.cuStreamEndCapture(queue)
                    if not status:
                        driver.cuGraphDestroy(captured)
                    raise
                (captured,) = _checked(driver.cuStreamEndCapture(queue))
        finally:
            driver.cuStreamDestroy(queue)
            self.stream = None
        try:
            (self._graph,) = _checked(driver.cuGraphInstantiate(captured, 0))
        finally:
            driver.cuGraphDestroy(captured)
        weakref.finalize(self, driver.cuGraphExecDestroy, self._graph)

    def perform(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do something on the stream that is captured."""
        self._kept.append(arguments)
        work(*arguments)

    def replay(self) -> None:
        """Launch the graph: one call of the driver, whatever is in it."""
        status = self._launch(self._graph, self._queue)[0]
        if status:
            raise RuntimeError(f"device 'cuda': Expected a graph to run. Received: {status!r}")


def _driver() -> Any:
    return importlib.import_module("cuda.bindings.driver")


def _checked(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a function of the driver returns behind its status."""
    if answer[0]:
        raise _Refused(repr(answer[0]))
    return answer[1:]


def record(work: Callable[[], None]) -> Any:
    """Record what a function does on the GPU; nothing of it is done.

    Kernels must have run before: compiling and loading them is no work of the GPU's.

    Returns
    -------
    object
        Its method ``replay`` does it all.

    Raises
    ------
    Unrecordable
        If the host is needed, anything else goes wrong, or the driver refuses: it warns, once,
        and is not asked again.
    """
    if _refusals:
        raise Unrecordable(_refusals[0])
    needs_host()  # no recording inside of another one
    try:
        recording = (_Launches if SIMULATED else _Graph)()
        with recording.capture():
            _thread.recording = recording
            try:
                work()
            finally:
                _thread.recording = None
    except Unrecordable:
        raise
    except Exception as error:
        if isinstance(error, _Refused) or type(error).__module__.startswith(("cuda.", "numba.")):
            _refusals.append(str(error))
            warnings.warn(
                "device 'cuda': Expected a train step to become a CUDA graph. Received: "
                f"{error}. Steps are launched kernel by kernel.",
                stacklevel=2,
            )
        raise Unrecordable(str(error)) from error
    if recording.spoilt:
        raise Unrecordable("Expected work that a GPU does alone. Received: work for the host")
    return recording
