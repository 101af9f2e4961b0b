"""The first train step of all: a process beside this one compiles what it ends with.

Compiling takes most of a first step's time, and one processor. Where nothing is compiled yet, a
fork of the process goes through the same step, leaves out what goes forward, and so compiles the
way back and the update into the cache, while this process compiles the way forward. But for the
beginning, with what all products share, it goes from the last to the first: when this process
turns back, the other one is at what is still far away, and nothing is compiled by both (a CNN's
first step takes 0.8 of the time).
"""

import atexit
import contextlib
import functools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minicnnrnn.device import Device, Launchers

MEMORY = 2**31  # bytes that the other process may allocate: it stops before a machine is full
SECONDS = 120  # after which it ends, whatever it waits for
_begun = False


class _WayBack(Launchers):
    """Launchers that note what goes back or updates, and do nothing."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.noted: list[functools.partial[None]] = []

    def __getattr__(self, name: str) -> Any:
        launcher = super().__getattr__(name)
        if name.endswith(("_workspace", "_pays")):
            return launcher
        wanted = "backward" in name or "update" in name

        def note(*arguments: Any) -> None:
            if wanted:
                self.noted.append(functools.partial(launcher, *arguments))

        setattr(self, name, note)
        return note

    def in_order(self) -> list[Callable[[], None]]:
        """What was noted: the gradients of loss and last weights, then from the end."""
        return [*self.noted[:2], *reversed(self.noted[2:])]


def compile_beside(device: Device, step: Callable[[], None]) -> None:
    """Let another process compile what a train step needs after its way forward.

    It happens once in a process, and nothing depends on it: results are the same, and what the
    other process has not compiled in time, this one compiles itself.

    Parameters
    ----------
    device : Device
    step : function
        One train step, whose effects stay in the other process.
    """
    global _begun
    if _begun or device.name != "cpu":
        return
    _begun = True
    if not _worthwhile():
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads of NumPy's or JAX', which the fork never asks
        try:
            process = os.fork()
        except OSError:
            return
    if process:
        atexit.register(_end, process)
        return
    try:
        _be_quiet_and_small()
        device.__dict__["launchers"] = launchers = _WayBack(device.name)
        step()
        for launch in launchers.in_order():
            launch()
    finally:
        os._exit(0)


def _worthwhile() -> bool:
    """Whether the kernels of a train step have never been compiled, and a second process may."""
    from minicnnrnn.kernels.jit import CACHE_DIRECTORY, JIT

    return (
        JIT
        and sys.platform == "linux"
        and len(os.sched_getaffinity(0)) > 1
        and threading.active_count() == 1  # others might hold locks, which nobody would open
        and CACHE_DIRECTORY is not None
        and not any(CACHE_DIRECTORY.glob("update.*"))
    )


def _be_quiet_and_small() -> None:
    import resource

    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _end(process: int) -> None:
    """Nobody needs it any more when this process ends."""
    with contextlib.suppress(OSError):
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)
