"""Cosine similarity: the angle between output and target.

Values, gradients, rows and weights as in ``regression_loss.py``.
"""

import numpy as np

from minicnnrnn.kernels.elementary import sqrt
from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch
from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.reduce import block_sum
from minicnnrnn.kernels.regression_loss import EPSILON, grain

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def cosine_similarity_forward_numpy(values, y, t):
    """Minus the cosine of the angle between output and target.

    .. math:: v_r = -\\sum_c \\frac{y_{rc}}{\\|y_r\\|} \\frac{t_{rc}}{\\|t_r\\|}

    Parameters
    ----------
    values : (R,), overwritten
    y : (R, C)
    t : (R, C)

    Notes
    -----
    A norm below 1e-7 counts as 1e-7, so a row of zeros has the value 0. Cost: 6 R C operations.
    """
    values[:] = -np.sum(y / _norm(y) * (t / _norm(t)), axis=1)


def _norm(x):
    return np.maximum(np.sqrt(np.sum(x * x, axis=1, keepdims=True)), EPSILON)


def cosine_similarity_backward_numpy(dy, y, t, weights):
    """Gradient of ``sum(weights * values)``; `weights` is (R,), `dy` is (R, C), overwritten.

    .. math:: dy_r = -\\frac{w_r}{\\|y_r\\|}
              \\Big( \\frac{t_r}{\\|t_r\\|} + v_r \\frac{y_r}{\\|y_r\\|} \\Big)

    The second term is absent where the norm of y is below 1e-7.
    """
    norm, direction = _norm(y), t / _norm(t)
    along = np.sum(y / norm * direction, axis=1, keepdims=True)
    along = np.where(norm > EPSILON, along, 0) * (y / norm)
    dy[:] = -weights[:, None] / norm * (direction - along)


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Rows are independent and are cut among threads.

ZERO, ONE, LOW = np.float32(0), np.float32(1), np.float32(EPSILON)


@inner
def _length(square):
    length = sqrt(square)
    return LOW if length < LOW else length


@inner
def _along(y_norm, t_norm, product):
    return ZERO if y_norm <= LOW else product / y_norm / t_norm / y_norm


@cpu(fastmath=REASSOCIATE)
def _measures(row, target):
    """The norms of output and target, and their inner product."""
    y2, t2, product = ZERO, ZERO, ZERO
    for c in range(row.size):
        y2 += row[c] * row[c]
        t2 += target[c] * target[c]
        product += row[c] * target[c]
    return _length(y2), _length(t2), product


@cpu
def _values(start, stop, worker, values, y, t):
    for r in range(start, stop):
        y_norm, t_norm, product = _measures(y[r], t[r])
        values[r] = -product / y_norm / t_norm


@cpu
def cosine_similarity_forward_cpu(values, y, t):
    split(_values, y.shape[0], grain(y.shape[1]), (values, y, t))


@cpu
def _gradients(start, stop, worker, dy, y, t, weights):
    for r in range(start, stop):
        out, row, target = dy[r], y[r], t[r]
        y_norm, t_norm, product = _measures(row, target)
        scale, along = -weights[r] / y_norm, _along(y_norm, t_norm, product)
        for c in range(row.size):
            out[c] = scale * (target[c] / t_norm - along * row[c])


@cpu
def cosine_similarity_backward_cpu(dy, y, t, weights):
    split(_gradients, y.shape[0], grain(y.shape[1]), (dy, y, t, weights))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A block for every row.


@gpu
def _measures_of_row(y, t, r):
    """As ``_measures``, for all threads of a block."""
    y2, t2, product = ZERO, ZERO, ZERO
    for c in range(cuda.threadIdx.x, y.shape[1], THREADS):
        y2 += y[r, c] * y[r, c]
        t2 += t[r, c] * t[r, c]
        product += y[r, c] * t[r, c]
    return _length(block_sum(y2)), _length(block_sum(t2)), block_sum(product)


@gpu
def _value_of_row(values, y, t):
    r = cuda.blockIdx.x
    y_norm, t_norm, product = _measures_of_row(y, t, r)
    if cuda.threadIdx.x == 0:
        values[r] = -product / y_norm / t_norm


def cosine_similarity_forward_cuda(values, y, t):
    launch(_value_of_row, len(y), THREADS, values, y, t)


@gpu
def _gradient_row(dy, y, t, weights):
    r = cuda.blockIdx.x
    y_norm, t_norm, product = _measures_of_row(y, t, r)
    scale, along = -weights[r] / y_norm, _along(y_norm, t_norm, product)
    for c in range(cuda.threadIdx.x, y.shape[1], THREADS):
        dy[r, c] = scale * (t[r, c] / t_norm - along * y[r, c])


def cosine_similarity_backward_cuda(dy, y, t, weights):
    launch(_gradient_row, len(y), THREADS, dy, y, t, weights)
