"""Recordings: what they do in the simulator, and what they ask of a driver, which is played."""

import threading
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from minicnnrnn import recorded
from minicnnrnn.kernels import gpu, stream

pytestmark = pytest.mark.cuda


def test_a_recording_does_nothing_until_it_is_replayed():
    array, other = gpu.upload(np.zeros((2, 3), np.float32)), gpu.upload(np.ones(2, np.float32))

    def work():
        array[0] = 2
        array[:, 1] = other
        array[1] += array[0]

    recording = stream.record(work)
    assert not np.asarray(array).any()
    for expected in ([2, 2, 2], [4, 2, 4], [6, 2, 6]):
        recording.replay()
        np.testing.assert_array_equal(np.asarray(array), [[2, 1, 2], expected])
    other += 2
    recording.replay()
    np.testing.assert_array_equal(np.asarray(array), [[2, 3, 2], [8, 6, 8]])


@pytest.mark.parametrize(
    "work",
    [
        lambda a: np.asarray(a),
        lambda a: float(a[0]),
        lambda a: np.tanh(a),
        lambda a: a + 1,
        lambda a: a.__setitem__(slice(None), np.ones(3, np.float32)),
        lambda a: gpu.empty((2,)),
        lambda a: gpu.upload(np.arange(17.0)),
        lambda a: gpu.Staging(np.float32).memory(3),
        lambda a: stream.record(lambda: None),
    ],
)
@pytest.mark.parametrize("caught", [False, True])
def test_what_needs_the_host_is_not_recorded(work, caught):
    array = gpu.upload(np.zeros(3, np.float32))

    def careless():
        array[...] = 1
        try:
            work(array)
        except Exception:
            if not caught:
                raise

    with pytest.raises(stream.Unrecordable):
        stream.record(careless)
    assert not np.asarray(array).any()
    array[...] = 2  # runs at once, as ever
    assert np.asarray(array).all()


class Driver:
    """A driver that notes what it is asked for, and may refuse one thing."""

    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED="relaxed")

    def __init__(self, refused=None):
        self.asked, self.refused = [], refused

    def __getattr__(self, name):
        def function(*arguments):
            self.asked.append((name, *arguments))
            return (700 if name == self.refused else 0, f"result of {name}")

        return function


@pytest.fixture
def play(monkeypatch):
    """Let a driver be played."""

    def begin(refused=None):
        driver, queues = Driver(refused), []

        @contextmanager
        def defer_cleanup():
            driver.asked.append(("defer",))
            yield
            driver.asked.append(("cleanup",))

        numba_cuda = SimpleNamespace(
            external_stream=lambda handle: queues.append(handle) or f"stream {handle}",
            current_context=lambda: SimpleNamespace(defer_cleanup=defer_cleanup),
        )
        driver.cuStreamCreate = lambda flags: (0, 5)
        monkeypatch.setattr(stream, "SIMULATED", False)
        monkeypatch.setattr(stream, "_refusals", [])
        monkeypatch.setattr(stream, "_own", [SimpleNamespace(handle="own")])
        monkeypatch.setattr(stream, "_driver", lambda: driver)
        monkeypatch.setattr(numba, "cuda", numba_cuda)
        return driver

    return begin


def test_what_is_asked_of_the_driver(play):
    driver, streams, kept = play(), [], threading.Lock()
    recording = stream.record(
        lambda: recorded.perform(lambda argument: streams.append(stream.stream()), kept)
    )
    assert streams == ["stream 5"]
    assert stream.stream().handle == "own"
    graph, executable = "result of cuStreamEndCapture", "result of cuGraphInstantiate"
    assert driver.asked == [
        ("defer",),
        ("cuStreamBeginCapture", 5, "relaxed"),
        ("cuStreamEndCapture", 5),
        ("cleanup",),
        ("cuStreamDestroy", 5),
        ("cuGraphInstantiate", graph, 0),
        ("cuGraphDestroy", graph),
    ]
    driver.asked.clear()
    recording.replay()
    recording.replay()
    assert driver.asked == [("cuGraphLaunch", executable, "own")] * 2
    alive, kept = weakref.ref(kept), None
    assert alive() is not None  # arrays live as long as the graph that knows where they are
    driver.asked.clear()
    del recording
    assert driver.asked == [("cuGraphExecDestroy", executable)]
    assert alive() is None


@pytest.mark.parametrize(
    "refused", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"]
)
def test_a_driver_that_refuses_is_asked_once(play, refused):
    driver = play(refused)
    with (
        pytest.warns(UserWarning, match="Expected a train step to become a CUDA graph"),
        pytest.raises(stream.Unrecordable),
    ):
        stream.record(lambda: None)
    assert ("cuStreamDestroy", 5) in driver.asked
    driver.asked.clear()
    with pytest.raises(stream.Unrecordable):
        stream.record(lambda: None)
    assert driver.asked == []


def test_a_capture_ends_if_the_work_fails(play):
    driver = play()
    with pytest.raises(stream.Unrecordable):
        stream.record(stream.needs_host)
    assert [name for name, *_ in driver.asked][1:] == [
        "cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphDestroy", "cuStreamDestroy"
    ]  # fmt: skip
    assert stream.record(lambda: None)


def test_a_graph_that_fails_is_an_error(play):
    play("cuGraphLaunch")
    recording = stream.record(lambda: None)
    with pytest.raises(RuntimeError, match="Expected a graph to run"):
        recording.replay()
