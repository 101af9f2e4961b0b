"""Products with a matrix that stays on the chip, for loops over time on a GPU.

A block has one sample for itself, or two, and walks through the sequence without waiting for
other blocks. At every step it multiplies the vector of each of its samples by the same matrix of
weights, (K, W): the state by u on the way forward, the gradients of the gates by u transposed on
the way back.

**Sharing out.** A thread takes four neighbouring columns of the matrix, a *quad*, and one of the
*slices* that its rows are cut into: its sums are ``vector[k] matrix[k, quad]`` over the rows k of
its slice, in their order. The slices' sums meet in shared memory, where whoever needs a column
adds them in order. So the order of every sum follows from the matrix's shape.

**Where the weights lie** does not change it. ``pack_both_ways`` writes them so that neighbouring
threads find theirs side by side, 16 bytes each: loads of 128 bits that take whole lines of memory
and meet in no bank. The first `KEPT` rows of a slice stay in the thread's registers (256 threads
with 144 weights: 144 KB), as many of the following as fit stay in shared memory, and the rest
comes from the L2 cache at every step. Vectors are read 16 bytes at a time, too, the same by all
threads of a slice, so that shared memory sends them once for a warp.

**The floor**, counted for an H100. At every step the whole matrix passes: 128 weights a clock
through the multipliers, again for every further sample; 32 a clock from shared memory; about 16 a
clock from L2; from registers for nothing.

==============  =====  =======  ===========  ==========  =========  =======  =======  ==========
one sample      KB     threads  slices       registers   shared KB  L2 KB    FMA clk  bound, clk
==============  =====  =======  ===========  ==========  =========  =======  =======  ==========
SimpleRNN(128)  64     256      8 of 16      64          0          0        128      128 FMA
LSTM(64)        64     256      4 of 16      64          0          0        128      128 FMA
GRU(128)        192    192      2 of 64      108         84         0        512      670 shared
its way back           256      8 of 48      144         48         0        384      384 both
LSTM(128)       256    256      2 of 64      144         112        0        512      900 shared
LSTM(256)       1024   256      1 of 256     144         208        672      2048     10800 L2
==============  =====  =======  ===========  ==========  =========  =======  =======  ==========

To this come two barriers, the sums of the slices and the activations, one after the other: some
300 clocks, which bound the first two. A training step of a layer launches nine kernels: packing,
both loops, the inputs' product, their gradient, and two for each gradient of the weights.

**Samples of a block.** A second sample meets the weights that the first has brought, but while
there are fewer samples than multiprocessors it would only leave some of these without work: one
sample a block up to `ALONE` samples, two beyond.

**Threads.** As many as have eight rows or more, at most 256, which may have 255 registers each and
fill a multiprocessor's: twice as many with half the registers would need half of these for
addresses instead of weights, and bring the sums of twice the slices together.
"""

import functools
from typing import NamedTuple

import numpy as np

from minicnnrnn.kernels.gpu import (
    SHARED,
    SIMULATED,
    cuda,
    gpu,
    launch,
    over,
    shared_limit,
)
from minicnnrnn.kernels.vector import load4, store4

# Rows of a slice that its thread keeps in registers, the least of a slice, threads at most.
KEPT, LEAST, MOST = (4, 4, 8) if SIMULATED else (36, 8, 256)
ALONE = 3 if SIMULATED else 128  # samples up to which each has a block
SAMPLES = 2  # of a block, at most
WARP = 1 if SIMULATED else 32
ZERO, ONE = np.float32(0), np.float32(1)

# ---------------------------------------------------------------------------------------
# Sharing out
# ---------------------------------------------------------------------------------------


def shared_out(K: int, W: int) -> tuple[int, int, int]:
    """Quads, slices, and the rows of each slice, for a matrix (K, W)."""
    quads = -(-W // 4)
    slices = max(1, min(MOST // quads, -(-K // LEAST)))
    rows = -(-K // (4 * slices)) * 4
    return quads, -(-K // rows), rows


def packed_size(K: int, W: int) -> int:
    """Floats of a packed matrix."""
    quads, slices, rows = shared_out(K, W)
    return 4 * quads * slices * rows


@gpu
def _pack_one(ws, start, u, turned, K, W, sharing):
    quads, slices, rows = sharing
    for i in range(cuda.grid(1), 4 * quads * slices * rows, cuda.gridsize(1)):
        item, column = i // 4 % (quads * slices), i % 4
        w = 4 * (item % quads) + column
        k = item // quads * rows + i // (4 * quads * slices)
        inside = k < K and w < W
        k, w = min(k, K - 1), min(w, W - 1)
        value = u[w, k] if turned else u[k, w]
        ws[start + i] = value if inside else ZERO


@gpu
def _pack(ws, u, ahead, back):
    U, G = u.shape
    quads, slices, rows = ahead
    _pack_one(ws, 0, u, False, U, G, ahead)
    _pack_one(ws, 4 * quads * slices * rows, u, True, G, U, back)


def packed_pair_size(U: int, G: int) -> int:
    """Floats at the beginning of a workspace for what ``pack_both_ways`` writes."""
    return packed_size(U, G) + packed_size(G, U)


def pack_both_ways(ws, u):
    """Pack u, (U, G), for the way forward, and behind it its transpose for the way back."""
    U, G = u.shape
    size = max(packed_size(U, G), packed_size(G, U))
    over(_pack, size, ws, u, shared_out(U, G), shared_out(G, U))


class Plan(NamedTuple):
    """How a loop over time is launched."""

    variant: int  # of the kernel: one sample a block, two, or one whose vectors are far away
    blocks: int
    threads: int
    shared: int  # bytes
    far: int  # floats of workspace for what is not in shared memory
    sharing: tuple[int, ...]  # what a kernel wants to know


@functools.lru_cache(256)
def plan(N: int, U: int, K: int, W: int, states: int, start: int, limit: int) -> Plan:
    """Plan a loop with a packed matrix (K, W), which begins at `start` of the workspace.

    `states` is how many numbers a block remembers of each unit. Vectors and sums that would not
    fit into the shared memory that every GPU has are put into the workspace, behind both packed
    matrices: layers of thousands of units work, too.
    """
    quads, slices, rows = shared_out(K, W)
    items = quads * slices

    def ends(samples: int) -> tuple[int, int, int]:
        """Where a block's vectors end, its states, and its sums."""
        vectors = samples * slices * rows
        known = vectors + -(-samples * U * states // 4) * 4
        return vectors, known, known + samples * 4 * items

    near = 4 * ends(SAMPLES)[2] <= SHARED
    samples = SAMPLES if near and N > ALONE else 1
    vectors, sums, floats = ends(samples)
    stored = max(0, min(rows - KEPT, (limit // 4 - floats) // (16 * items) * 4)) if near else 0
    shared = 4 * floats + 16 * items * stored if near else 0
    threads = min(MOST, -(-max(items, min(U, MOST)) // WARP) * WARP)
    blocks = -(-N // samples)
    far = packed_pair_size(min(K, W), max(K, W))
    return Plan(
        samples - 1 if near else 2, blocks, threads, shared, 0 if near else blocks * floats,
        (quads, slices, rows, stored, start, items, vectors, sums, floats, far),
    )  # fmt: skip


def far_size(N: int, U: int, G: int, ahead: int, back: int) -> int:
    """Floats of workspace behind the packed matrices, for `ahead` and `back` states of a unit."""
    forward = plan(N, U, U, G, ahead, 0, SHARED).far
    return max(forward, plan(N, U, G, U, back, 0, SHARED).far)


def walk(kernels, N, U, G, states, forward, *arguments):
    """Run the variant of a kernel that suits the shapes, through all steps, forward or back."""
    limit = shared_limit()
    if forward:
        planned = plan(N, U, U, G, states, 0, limit)
    else:
        planned = plan(N, U, G, U, states, packed_size(U, G), limit)
    variant, blocks, threads, shared, _, sharing = planned
    launch(kernels[variant], blocks, threads, *arguments, sharing, shared=shared)


# Samples of a block, and whether its vectors are in the workspace.
VARIANTS = (1, False), (2, False), (1, True)

# ---------------------------------------------------------------------------------------
# In a block
# ---------------------------------------------------------------------------------------


@gpu
def begin_of(sharing):
    """Where a block's share of the workspace begins, if its vectors are there."""
    return sharing[9] + cuda.blockIdx.x * sharing[8]


@gpu
def sample_of(i, U):
    """Which of a block's samples number `i` of its units belongs to, and which unit it is."""
    sample = 1 if i >= U else 0
    return sample, i - sample * U


@gpu
def places_of(sharing, begin):
    """Where a block's vectors, states, sums and stored weights begin, and the part of a thread.

    The host has counted all that follows from shapes: a kernel reads it where it needs it, and has
    its registers for the weights.
    """
    states, sums, near = begin + sharing[6], begin + sharing[7], begin + sharing[8]
    return begin, states, sums, near, cuda.threadIdx.x // sharing[0]


@gpu
def settle_in(area, kept, ws, sharing, places):
    """Fill registers and shared memory with weights, and the rest of what a block has with zeros.

    What stands behind the end of a vector stays zero, as do the weights that it meets.
    """
    rows, stored, start, items = sharing[2], sharing[3], sharing[4], sharing[5]
    t, threads = cuda.threadIdx.x, cuda.blockDim.x
    vector, near = places[0], places[3]
    for i in range(vector + t, near, threads):
        area[i] = ZERO
    for r in range(KEPT):
        a, b, c, d = ZERO, ZERO, ZERO, ZERO
        if t < items and r < rows:
            a, b, c, d = load4(ws, start + 4 * (r * items + t))
        kept[r, 0], kept[r, 1], kept[r, 2], kept[r, 3] = a, b, c, d
    for i in range(4 * t, 4 * items * stored, 4 * threads):
        a, b, c, d = load4(ws, start + 4 * items * KEPT + i)
        store4(area, near + i, a, b, c, d)
    cuda.syncthreads()


@gpu
def begin_states(area, h, keep, places, sharing, S, first, factors):
    """Let a block know h and the factors of dropout before its first step, and its vectors."""
    N, U = h.shape[1], h.shape[2]
    for i in range(cuda.threadIdx.x, S * U, cuda.blockDim.x):
        m, j = sample_of(i, U)
        n = first + m
        if n < N:
            factor = keep[n, j] if keep.size else ONE
            area[places[1] + i], area[factors + i] = h[0, n, j], factor
            area[places[0] + m * sharing[1] * sharing[2] + j] = h[0, n, j] * factor


@gpu
def begin_factors(area, keep, N, U, S, first, factors):
    """Let a block know the factors of dropout before its first step back."""
    for i in range(cuda.threadIdx.x, S * U, cuda.blockDim.x):
        m, j = sample_of(i, U)
        if first + m < N:
            area[factors + i] = keep[first + m, j] if keep.size else ONE


@gpu
def _add_rows(totals, i, v, a, b, c, d):
    """Add the products of four elements of sample i's vector with a quad of four rows."""
    totals[i, 0] += v[0] * a[0]
    totals[i, 1] += v[0] * a[1]
    totals[i, 2] += v[0] * a[2]
    totals[i, 3] += v[0] * a[3]
    totals[i, 0] += v[1] * b[0]
    totals[i, 1] += v[1] * b[1]
    totals[i, 2] += v[1] * b[2]
    totals[i, 3] += v[1] * b[3]
    totals[i, 0] += v[2] * c[0]
    totals[i, 1] += v[2] * c[1]
    totals[i, 2] += v[2] * c[2]
    totals[i, 3] += v[2] * c[3]
    totals[i, 0] += v[3] * d[0]
    totals[i, 1] += v[3] * d[1]
    totals[i, 2] += v[3] * d[2]
    totals[i, 3] += v[3] * d[3]


@gpu
def _multiply_kept(totals, kept, area, vector, S, stride, rows):
    """Rows in registers. The next four elements of the vectors are on their way meanwhile."""
    ahead = cuda.local.array((SAMPLES, 4), np.float32)
    for i in range(S):
        ahead[i, 0], ahead[i, 1], ahead[i, 2], ahead[i, 3] = load4(area, vector + i * stride)
    for r in range(0, KEPT, 4):
        if r < rows:
            a = kept[r, 0], kept[r, 1], kept[r, 2], kept[r, 3]
            b = kept[r + 1, 0], kept[r + 1, 1], kept[r + 1, 2], kept[r + 1, 3]
            c = kept[r + 2, 0], kept[r + 2, 1], kept[r + 2, 2], kept[r + 2, 3]
            d = kept[r + 3, 0], kept[r + 3, 1], kept[r + 3, 2], kept[r + 3, 3]
            for i in range(S):
                v = ahead[i, 0], ahead[i, 1], ahead[i, 2], ahead[i, 3]
                # Behind the last vector there are states: read, and never used.
                place = vector + i * stride + r + 4
                ahead[i, 0], ahead[i, 1], ahead[i, 2], ahead[i, 3] = load4(area, place)
                _add_rows(totals, i, v, a, b, c, d)


@gpu
def _multiply(totals, matrix, place, step, area, vector, S, stride, first, last):
    """Rows `first` to `last` of the slice, which begin at `place`, `step` apart."""
    for r in range(first, last, 4):
        a, b = load4(matrix, place), load4(matrix, place + step)
        c, d = load4(matrix, place + 2 * step), load4(matrix, place + 3 * step)
        place += 4 * step
        for i in range(S):
            _add_rows(totals, i, load4(area, vector + i * stride + r), a, b, c, d)


@gpu
def multiply_share(area, kept, ws, sharing, places, S, far):
    """Each thread's share of the product: its sums of all samples, to shared memory.

    Of what is far away, no weights are kept: almost all of them have to be read anyway.
    """
    quads, rows, stored, start, items = sharing[0], sharing[2], sharing[3], sharing[4], sharing[5]
    vector, sums, near, part = places[0], places[2], places[3], places[4]
    totals = cuda.local.array((SAMPLES, 4), np.float32)
    stride, reached = sharing[1] * rows, min(rows, KEPT + stored)
    # Only a matrix of more quads than threads has a second round, and that in one slice; its
    # weights are not kept.
    item = cuda.threadIdx.x
    while item < items:  # a range with such a step would divide, at every step in time
        for i in range(S):
            for column in range(4):
                totals[i, column] = ZERO
        mine, step, begin = start + 4 * item, 4 * items, vector
        if item == cuda.threadIdx.x:
            begin += part * rows
        if item == cuda.threadIdx.x and not far:
            _multiply_kept(totals, kept, area, begin, S, stride, rows)
        else:
            _multiply(totals, ws, mine, step, area, begin, S, stride, 0, min(KEPT, rows))
        _multiply(totals, area, near + 4 * item, step, area, begin, S, stride, KEPT, reached)
        mine += reached * step
        _multiply(totals, ws, mine, step, area, begin, S, stride, max(reached, KEPT), rows)
        for i in range(S):
            place = sums + 4 * (item + (part * (S - 1) + i) * quads)
            store4(area, place, totals[i, 0], totals[i, 1], totals[i, 2], totals[i, 3])
        item += cuda.blockDim.x


@gpu
def summed(total, area, sharing, places, S, i, column):
    """`total` plus column `column` of the product of sample i."""
    quads, slices, sums = sharing[0], sharing[1], places[2]
    for part in range(slices):
        total += area[sums + 4 * (part * S + i) * quads + column]
    return total
