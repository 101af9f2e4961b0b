"""Gathering: the rows of a batch, from a data set that lies in the device's memory."""

import numpy as np

from minicnnrnn.kernels.gpu import cuda, gpu, over
from minicnnrnn.kernels.jit import cpu, inner, split

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def gather_rows_numpy(y, x, order, start):
    """Take rows in an order that is given.

    .. math:: y_{rc} = x_{o(start + r), c}

    Parameters
    ----------
    y : (R, C), overwritten
    x : (S, C)
        float32 or int32, as `y`.
    order : int32 (S,)
        o.
    start : int

    Notes
    -----
    Cost: memory moves each element of y twice.
    """
    np.take(x, order[start : start + len(y)], axis=0, out=y, mode="clip")


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
def gather_rows_cpu(y, x, order, start):
    """Parallel over rows."""
    R, C = y.shape
    split(_gather_range, R, 1 + GRAIN // C, (y, x, order, start))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element.


@gpu
def _gather_elements(y, x, order, start):
    C = y.shape[1]
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        r, c = i // C, i % C
        y[r, c] = x[order[start + r], c]


def gather_rows_cuda(y, x, order, start):
    over(_gather_elements, y.size, y, x, order, start)
