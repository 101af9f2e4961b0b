"""Sums over the threads of a block, in a fixed order: a GPU's building block for reductions."""

from typing import Any

import numpy as np

from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch

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


@gpu
def team_max(value, team):
    """As ``block_max``, over each team."""
    largest = cuda.shared.array(THREADS, np.float32)
    t = cuda.threadIdx.x
    cuda.syncthreads()
    largest[t] = value
    cuda.syncthreads()
    half = team // 2
    while half > 0:
        o = t + half
        if t % team < half and not largest[o] <= largest[t] and largest[t] == largest[t]:
            largest[t] = largest[o]
        cuda.syncthreads()
        half //= 2
    return largest[t - t % team]


# ---------------------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------------------
#
# A team of neighbouring threads has a row, a long one a whole block: rows of ten classes would
# leave most of a block idle.


def launch_rows(kernel: Any, rows: int, columns: int, *arguments: Any) -> None:
    """Run a kernel with a team for each row; its last argument is the size of a team."""
    team = team_for(columns)
    launch(kernel, -(-rows * team // THREADS), THREADS, *arguments, team)


@gpu
def own_row(rows, columns, team):
    """Row of this thread, its first column, and whether it is the one that writes of the row.

    Threads behind the last row get that row, but no column and nothing to write.
    """
    r, t = cuda.blockIdx.x * (THREADS // team) + cuda.threadIdx.x // team, cuda.threadIdx.x % team
    if r < rows:
        return r, t, t == 0
    return rows - 1, columns, False


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


@gpu
def lane_sum_wide(value, lanes):
    """As ``lane_sum``, for float64."""
    sums = cuda.shared.array(THREADS, np.float64)
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


# ---------------------------------------------------------------------------------------
# Columns
# ---------------------------------------------------------------------------------------
#
# A matrix of R rows and C columns is walked through by blocks of a tile of columns: a lane for each
# of them, so that threads read neighbouring memory together, and rows of lanes. Every thread keeps
# to its column, whose constants it holds in registers, and has four rows on their way at a time:
# that many reads must be under way for a GPU to reach the bandwidth of its memory.

LANES = 2 if THREADS < 8 else 32  # at most: 32 floats are what a transaction of memory moves
JOINED = 2 if THREADS < 8 else 8  # lanes where partial sums are added: more rows for more parts
MOST_PARTS = 4 if THREADS < 8 else 512
BLOCKS_OF_SUMS = 1024  # about that many, to give each multiprocessor some


def lanes_of(C: int) -> int:
    """Columns of a tile: a power of two."""
    return min(LANES, 1 << (C - 1).bit_length())


def parts_at_most(C: int) -> int:
    """Parts that sums over C columns are cut into, at most."""
    return min(MOST_PARTS, max(1, BLOCKS_OF_SUMS // -(-C // lanes_of(C))))


def parts_of_columns(R: int, C: int) -> int:
    """Parts that sums over R rows of C columns are cut into: the same on every GPU."""
    return max(1, min(parts_at_most(C), R // (4 * (THREADS // lanes_of(C)))))


def grid_of_columns(R: int, C: int) -> tuple[int, int]:
    """Blocks for what is done to every element: a thread has 16 rows, more if there are many."""
    tiles, rows = -(-C // lanes_of(C)), THREADS // lanes_of(C)
    return tiles, max(1, min(-(-R // (16 * rows)), max(1, BLOCKS_OF_SUMS // tiles)))


@gpu
def own_column(lanes):
    """Column of this thread, its row among the block's rows of lanes, and how many there are."""
    t = cuda.threadIdx.x
    return cuda.blockIdx.x * lanes + t % lanes, t // lanes, THREADS // lanes


def column_sums(term: Any) -> Any:
    """A kernel that takes two sums over every column, launched by ``launch_column_sums``.

    Parameters
    ----------
    term : (operands, r, c) -> two float32
        What row r adds to the sums of column c.
    """

    @gpu
    def summed(R, C, parts, lanes, ws, operands):
        c, row, rows = own_column(lanes)
        part = cuda.blockIdx.y
        r, end = R * part // parts + row, R * (part + 1) // parts
        first, second = ZERO, ZERO
        if c < C:
            while r + 3 * rows < end:
                a, s = term(operands, r, c)
                b, t = term(operands, r + rows, c)
                d, u = term(operands, r + 2 * rows, c)
                e, v = term(operands, r + 3 * rows, c)
                first += (a + b) + (d + e)
                second += (s + t) + (u + v)
                r += 4 * rows
            while r < end:
                a, s = term(operands, r, c)
                first += a
                second += s
                r += rows
        first, second = lane_sum(first, lanes), lane_sum(second, lanes)
        if row == 0 and c < C:
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
    C = first.size
    parts, lanes = parts_of_columns(R, C), lanes_of(C)
    launch(kernel, (-(-C // lanes), parts), THREADS, R, C, parts, lanes, ws, operands)
    launch(_join_sums, -(-C // JOINED), THREADS, first, second, factor, parts, ws)


@gpu
def _join_sums(first, second, factor, parts, ws):
    C, (c, row, rows) = first.size, own_column(JOINED)
    one, two = NOTHING, NOTHING
    if c < C:
        for part in range(row, parts, rows):
            one += ws[2 * part * C + c]
            two += ws[(2 * part + 1) * C + c]
    one, two = lane_sum_wide(one, JOINED), lane_sum_wide(two, JOINED)
    if row == 0 and c < C:
        first[c] = np.float32(one)
        if second.size:
            second[c] = np.float32(two * factor[c] if factor.size else two)
