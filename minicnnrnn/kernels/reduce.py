"""Sums over the threads of a block, in a fixed order: a GPU's building block for reductions."""

from typing import Any

import numpy as np

from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch, over

ZERO, NOTHING = np.float32(0), np.float64(0)


@gpu
def block_sum(value):
    """The sum of one float32 from every thread of a block of THREADS; all threads get it.

    Halves are added to halves: log2 THREADS steps, the same order at every call.
    """
    sums = cuda.shared.array(THREADS, np.float32)
    t = cuda.threadIdx.x
    cuda.syncthreads()  # somebody may still read the last sum
    sums[t] = value
    cuda.syncthreads()
    half = THREADS // 2
    while half > 0:
        if t < half:
            sums[t] += sums[t + half]
        cuda.syncthreads()
        half //= 2
    return sums[0]


def team_for(count: int) -> int:
    """Threads that add up `count` numbers: a power of two, not above THREADS."""
    team = 1
    while team < THREADS and 4 * team < count:
        team *= 2
    return team


@gpu
def team_sum(value, team):
    """As ``block_sum``, over each team of neighbouring threads that a block is divided into."""
    sums = cuda.shared.array(THREADS, np.float32)
    t = cuda.threadIdx.x
    cuda.syncthreads()
    sums[t] = value
    cuda.syncthreads()
    half = team // 2
    while half > 0:
        if t % team < half:
            sums[t] += sums[t + half]
        cuda.syncthreads()
        half //= 2
    return sums[t - t % team]


@gpu
def block_sum_wide(value):
    """As ``block_sum``, for float64."""
    sums = cuda.shared.array(THREADS, np.float64)
    t = cuda.threadIdx.x
    cuda.syncthreads()
    sums[t] = value
    cuda.syncthreads()
    half = THREADS // 2
    while half > 0:
        if t < half:
            sums[t] += sums[t + half]
        cuda.syncthreads()
        half //= 2
    return sums[0]


@gpu
def block_max(value):
    """The largest of one float32 from every thread of a block; a NaN is larger than any."""
    largest = cuda.shared.array(THREADS, np.float32)
    t = cuda.threadIdx.x
    cuda.syncthreads()
    largest[t] = value
    cuda.syncthreads()
    half = THREADS // 2
    while half > 0:
        if t < half and not largest[t + half] <= largest[t] and largest[t] == largest[t]:
            largest[t] = largest[t + half]
        cuda.syncthreads()
        half //= 2
    return largest[0]


# Threads of a block that takes sums of columns: a lane for each of some neighbouring columns, which
# fill a transaction of memory, and rows of lanes.
LANES = 2 if THREADS < 8 else 8
ROWS = THREADS // LANES


def parts_of_columns(R: int) -> int:
    """Parts that a sum over R rows is cut into: the same on every GPU."""
    return max(1, min(PARTS, R // (4 * ROWS)))


@gpu
def lane_sum(value, lanes):
    """The sum of one float32 from every row of lanes, lane by lane; all threads get it.

    `lanes` is a power of two.
    """
    sums = cuda.shared.array(THREADS, np.float32)
    t = cuda.threadIdx.x
    cuda.syncthreads()
    sums[t] = value
    cuda.syncthreads()
    half = THREADS // 2
    while half >= lanes:
        if t < half:
            sums[t] += sums[t + half]
        cuda.syncthreads()
        half //= 2
    return sums[t % lanes]


def column_sums(term: Any) -> Any:
    """A kernel that takes two sums over every column, launched by ``launch_column_sums``.

    Parameters
    ----------
    term : (operands, r, c) -> two float32
        What row r adds to the sums of column c.
    """

    @gpu
    def summed(R, C, parts, ws, operands):
        c = cuda.blockIdx.x * LANES + cuda.threadIdx.x % LANES
        part = cuda.blockIdx.y
        begin, end = R * part // parts, R * (part + 1) // parts
        first, second = ZERO, ZERO
        if c < C:
            for r in range(begin + cuda.threadIdx.x // LANES, end, ROWS):
                one, two = term(operands, r, c)
                first += one
                second += two
        first, second = lane_sum(first, LANES), lane_sum(second, LANES)
        if cuda.threadIdx.x < LANES and c < C:
            ws[2 * part * C + c] = first
            ws[(2 * part + 1) * C + c] = second

    return summed


def launch_column_sums(
    kernel: Any, first: Any, second: Any, factor: Any, R: int, ws: Any, *operands: Any
) -> None:
    """Fill `first` and `second`, of one float a column, with the sums that a kernel takes.

    `second` is multiplied by `factor`, where there is one; it may itself be absent. Of the
    workspace this needs two floats a column for each of ``parts_of_columns``.
    """
    C, parts = first.size, parts_of_columns(R)
    launch(kernel, (-(-C // LANES), parts), THREADS, R, C, parts, ws, operands)
    over(_add_parts, C, first, second, factor, parts, ws)


@gpu
def _add_parts(first, second, factor, parts, ws):
    C = first.size
    for c in range(cuda.grid(1), C, cuda.gridsize(1)):
        one, two = NOTHING, NOTHING
        for part in range(parts):
            one += ws[2 * part * C + c]
            two += ws[(2 * part + 1) * C + c]
        first[c] = np.float32(one)
        if second.size:
            second[c] = np.float32(two * factor[c] if factor.size else two)
