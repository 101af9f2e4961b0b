"""What the machine can do at most: the building block in the first-level cache, on all threads."""

import time

import numpy as np
from turns import THREADS

from minicnnrnn.device import get_device
from minicnnrnn.kernels.gemm import block
from minicnnrnn.kernels.jit import cpu, inner, split
from minicnnrnn.kernels.microkernel import OVERWRITE, WIDE_ROWS
from minicnnrnn.kernels.panel import PANEL

M, K, REPEATS = 4 * WIDE_ROWS, 128, 2000


@inner
def body(start, stop, worker, c, a, b, table, M, K, repeats):
    """The same product again and again, for each of the items."""
    for item in range(start, stop):
        for _ in range(repeats):
            block(
                c, item * M * PANEL, PANEL, M, PANEL, a, 0, K, 1, table, 0, b, 0, PANEL, 0, K,
                1, b, 0, OVERWRITE,
            )  # fmt: skip


@cpu
def run(c, a, b, table, M, K, repeats, threads):
    """One item for each thread. Sizes are arguments: the cache does not know of this file."""
    split(body, threads, 1, (c, a, b, table, M, K, repeats))


def prepare():
    """A function that measures floating-point operations a second, the best of some times."""
    device = get_device("cpu")
    device.kernels  # noqa: B018 (binds the building block)
    c, a, b = (device.zeros((n,)) for n in (THREADS * M * PANEL, M * K, K * PANEL))
    arguments = c, a, b, np.zeros(2, np.float32), M, K, REPEATS, THREADS
    run(*arguments)

    def measure(times=9):
        taken = []
        for _ in range(times):
            start = time.perf_counter()
            run(*arguments)
            taken.append(time.perf_counter() - start)
        return 2 * M * PANEL * K * REPEATS * THREADS / min(taken)

    return measure
