"""Multiply by factors that several elements share."""

import numpy as np

from minicnnrnn.kernels.gpu import cuda, gpu, over, place
from minicnnrnn.kernels.jit import cpu, inner, split
from minicnnrnn.kernels.panel import address, floats

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def scale_forward_numpy(y, x, w):
    """Multiply every element by its factor.

    .. math:: y_i = x_i \\, w_{s(i)}

    where s sets the indices along those axes to 0 that have length one in `w`: all elements
    along them share a factor. The backward pass is this kernel on `dy`.

    Parameters
    ----------
    y : (N, D, H, W, C), overwritten
    x : (N, D, H, W, C)
    w : five axes, each as long as that of x or of length one
    """
    np.multiply(x, w, out=y)


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Rows along the last axis are independent: along one, the factors are a row too, or one number.

GRAIN = 16384  # elements that make it worth waking a second thread


@inner
def shared_row(row, x, w):
    """Where in `w` the row begins that belongs to row number `row` of `x`."""
    H, W = x.shape[2], x.shape[3]
    i, index = 0, (row // (x.shape[1] * H * W), row // (H * W) % x.shape[1], row // W % H, row % W)
    for axis in range(4):
        i = i * w.shape[axis] + (index[axis] if w.shape[axis] > 1 else 0)
    return i * w.shape[4]


@inner
def _scale_rows(start, stop, worker, y, x, w):
    C = x.shape[4]
    for row in range(start, stop):
        to, of = floats(address(y, row * C)), floats(address(x, row * C))
        factors = floats(address(w, shared_row(row, x, w)))
        if w.shape[4] == C:
            for c in range(C):
                to[c] = of[c] * factors[c]
        else:
            factor = factors[0]
            for c in range(C):
                to[c] = of[c] * factor


@cpu
def scale_forward_cpu(y, x, w):
    """Parallel over rows."""
    C = x.shape[4]
    split(_scale_rows, x.size // C, 1 + GRAIN // C, (y, x, w))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element.


@gpu
def shared(w, n, d, h, k, c):
    """The factor of an element."""
    n, d, h = n if w.shape[0] > 1 else 0, d if w.shape[1] > 1 else 0, h if w.shape[2] > 1 else 0
    return w[n, d, h, k if w.shape[3] > 1 else 0, c if w.shape[4] > 1 else 0]


@gpu
def _scale_elements(y, x, w):
    _, D, H, W, C = x.shape
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        n, d, h, k, c = place(i, D, H, W, C)
        y[n, d, h, k, c] = x[n, d, h, k, c] * shared(w, n, d, h, k, c)


def scale_forward_cuda(y, x, w):
    over(_scale_elements, x.size, y, x, w)
