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

from minicnnrnn.recorded import Launches, Unrecordable, needs_host, recording, recording_into

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


class _Refused(RuntimeError):
    """Raised where the driver does not do its part."""


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
    made = recording()
    return own_stream() if made is None else made.stream


# ---------------------------------------------------------------------------------------
# Recordings
# ---------------------------------------------------------------------------------------


class _Launches(Launches):
    """A recording under the simulator: what to do, with its arguments as they were."""

    stream = None

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Nothing to do: ``perform`` does not run what it is given."""
        yield


class _Graph:
    """A recording on a GPU: the driver notes what comes to a stream, and makes a graph of it.

    The stream is one that the default stream knows nothing of, and the mode is the one that
    forbids nothing: what other threads do, or the memory that Python's garbage gives back, has no
    part in the graph.
    """

    def __init__(self) -> None:
        self.spoilt, self.result, self.stream = False, None, None
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


def record(work: Callable[[], Any]) -> Any:
    """Record what a function does on the GPU; nothing of it is done.

    Kernels must have run before: compiling and loading them is no work of the GPU's.

    Returns
    -------
    object
        Its method ``replay`` does it all; `result` is what the function returned.

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
        made: Any = (_Launches if SIMULATED else _Graph)()
        with made.capture(), recording_into(made):
            made.result = work()
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
    if made.spoilt:
        raise Unrecordable("Expected work that is recorded. Received: work for the host")
    return made
