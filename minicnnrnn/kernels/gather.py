"""Gathering: the rows of a batch, from a data set that lies in the device's memory."""

import numpy as np

from minicnnrnn.kernels.gpu import cuda, gpu, over
from minicnnrnn.kernels.jit import cpu, inner, split

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
