"""Gathering: the rows of a batch, from a data set that lies in the device's memory."""

import ctypes
import threading

import numpy as np

from minicnnrnn.kernels.gpu import cuda, gpu, over
from minicnnrnn.kernels.jit import JIT, MAX_WORKERS, REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.panel import floats

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def gather_rows_numpy(y, position, x, order, part):
    """Take rows in an order that is given, from where the last batch ended.

    .. math:: y_{rc} = x_{o(p + r), c}

    Parameters
    ----------
    y : (R, C), overwritten
    position : int64 (P,), both an input and an output
        p, once for each of the P arrays (two or more) of which a batch consists, and which are
        gathered one after another. Each reads its own and writes that of the next; the last adds
        R for the next batch. So none is read and written at once, and nobody has to count.
    x : (S, C)
        float32 or int32, as `y`.
    order : int32 (S,)
        o.
    part : int
        Which of the P arrays `x` is.

    Notes
    -----
    Cost: memory moves each element of y twice.
    """
    first = position[part]
    np.take(x, order[first : first + len(y)], axis=0, out=y, mode="clip")
    position[(part + 1) % position.size] = _next_position(first, part, position.size, len(y))


@cpu
def _next_position(first, part, parts, rows):
    return first + rows if part == parts - 1 else first


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------

GRAIN = 16384  # elements that make it worth waking a second thread
COPIED = 1 << 17  # floats that do so where they are only copied
SPACING = 16  # floats of a line of a cache
ZERO = np.float32(0)
_lent = threading.local()


@inner
def _gather_range(start, stop, worker, y, x, order, first):
    for r in range(start, stop):
        to, of = y[r], x[order[first + r]]
        for c in range(to.size):
            to[c] = of[c]


@cpu
def gather_rows_cpu(y, position, x, order, part):
    """Parallel over rows."""
    R, C = y.shape
    first = position[part]
    split(_gather_range, R, 1 + GRAIN // C, (y, x, order, first))
    position[(part + 1) % position.size] = _next_position(first, part, position.size, R)


@cpu(fastmath=REASSOCIATE)
def _copy_range(start, stop, worker, target, source, sums):
    to, of, total = floats(target), floats(source), ZERO
    for i in range(start, stop):
        value = of[i]
        to[i] = value
        total += value * ZERO
    floats(sums)[SPACING * worker] = total


@cpu(fastmath=REASSOCIATE)
def _look_range(start, stop, worker, source, sums):
    of, total = floats(source), ZERO
    for i in range(start, stop):
        total += of[i] * ZERO
    floats(sums)[SPACING * worker] = total


@cpu
def _copy(target, source, count, sums):
    """Copy, or with a target of 0 only look, whether all is finite."""
    for worker in range(MAX_WORKERS):
        floats(sums)[SPACING * worker] = ZERO
    if target:
        split(_copy_range, count, COPIED, (target, source, sums))
    else:
        split(_look_range, count, COPIED, (source, sums))
    total = ZERO
    for worker in range(MAX_WORKERS):
        total += floats(sums)[SPACING * worker]
    return total == ZERO


def copy_finite(target, rows):
    """Copy a batch on its way into a model, and say whether all its numbers are finite.

    One pass over memory does both: zero times what is not finite is not a number. The arrays are
    of float32, in the order of memory and of one size; each Python thread has sums of its own.
    """
    if not JIT:
        target[...] = rows
        return bool(np.isfinite(rows).all())
    # NumPy takes a microsecond to tell an address, which is what a small model waits for: of memory
    # that may be written to ctypes tells it in a third of that. One image, CNN: 0.94 of the time.
    place = ctypes.addressof(ctypes.c_char.from_buffer(target))
    return _copy.dispatcher(place, rows.ctypes.data, target.size, _place_of_sums())


def all_finite(rows):
    """Say whether all numbers of a batch are finite, as ``copy_finite`` does."""
    if not JIT:
        return bool(np.isfinite(rows).all())
    return _copy.dispatcher(0, rows.ctypes.data, rows.size, _place_of_sums())


def _place_of_sums():
    if not hasattr(_lent, "sums"):
        _lent.sums = np.empty(SPACING * MAX_WORKERS, np.float32)
        _lent.place = _lent.sums.ctypes.data
    return _lent.place


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element.


@gpu
def _gather_elements(y, position, x, order, part):
    R, C = y.shape
    first, thread = position[part], cuda.grid(1)
    for i in range(thread, y.size, cuda.gridsize(1)):
        r, c = i // C, i % C
        y[r, c] = x[order[first + r], c]
    if thread == 0:
        position[(part + 1) % position.size] = _next_position(first, part, position.size, R)


def gather_rows_cuda(y, position, x, order, part):
    over(_gather_elements, y.size, y, position, x, order, part)
