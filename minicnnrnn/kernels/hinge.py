"""Hinge losses: an output should be beyond a margin on its target's side.

Values, gradients, rows and weights as in ``regression_loss.py``.
"""

import numpy as np

from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch
from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.reduce import block_max, block_sum
from minicnnrnn.kernels.regression_loss import grain

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def _signed(t):
    """Targets of 0 and 1 as -1 and 1; where a batch has others, they stay."""
    return 2 * t - 1 if np.all((t == 0) | (t == 1)) else t


def hinge_forward_numpy(values, y, t, power):
    """Hinge loss and its square.

    .. math:: v_r = \\frac{1}{C} \\sum_c \\max(1 - t_{rc} y_{rc}, 0)^p

    Parameters
    ----------
    values : (R,), overwritten
    y : (R, C)
    t : (R, C)
        -1 or 1; if all targets of the batch are 0 or 1, they stand for these.
    power : int
        1 or 2.

    Notes
    -----
    Cost: each array is read or written once, the targets twice. Cortes, Vapnik 1995,
    "Support-Vector Networks".
    """
    np.mean(np.maximum(1 - _signed(t) * y, 0) ** power, axis=1, out=values)


def hinge_backward_numpy(dy, y, t, weights, power):
    """Gradient of ``sum(weights * values)``.

    .. math:: dy_{rc} = -\\frac{w_r}{C} t_{rc} [1 > t_{rc} y_{rc}]
              \\quad (p = 1), \\qquad
              -\\frac{2 w_r}{C} t_{rc} \\max(1 - t_{rc} y_{rc}, 0) \\quad (p = 2)

    At the kink itself the bracket is 1/2, as in JAX.
    """
    t = _signed(t)
    margin = 1 - t * y
    slope = np.heaviside(margin, 0.5) if power == 1 else 2 * np.maximum(margin, 0)
    dy[:] = -weights[:, None] * t * slope / y.shape[1]


def categorical_hinge_forward_numpy(values, y, t):
    """Hinge loss between the right class and the best of the others.

    .. math:: v_r = \\max\\big(0, 1 + \\max_c (1 - t_{rc}) y_{rc} - \\sum_c t_{rc} y_{rc}\\big)

    Shapes as in ``hinge_forward``; `t` is one-hot.
    """
    best = np.max((1 - t) * y, axis=1)
    values[:] = np.maximum(1 + best - np.sum(t * y, axis=1), 0)


def categorical_hinge_backward_numpy(dy, y, t, weights):
    """Gradient of ``sum(weights * values)``; classes that are equally best share it."""
    others = (1 - t) * y
    best = np.max(others, axis=1, keepdims=True)
    share = others == best
    with np.errstate(invalid="ignore"):
        share = share / np.sum(share, axis=1, keepdims=True)
    margin = 1 + best - np.sum(t * y, axis=1, keepdims=True)
    dy[:] = weights[:, None] * np.heaviside(margin, 0.5) * ((1 - t) * share - t)


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Rows are independent and are cut among threads; a look at all targets comes before, which ends
# at the first that is neither 0 nor 1.

ZERO, HALF, ONE, TWO, LOWEST = (np.float32(x) for x in (0, 0.5, 1, 2, -np.inf))


@inner
def _is_other(t):
    return t != ZERO and t != ONE


@inner
def _is_binary(t):
    for r in range(t.shape[0]):
        for c in range(t.shape[1]):
            if _is_other(t[r, c]):
                return False
    return True


@inner
def _step(x):
    """1 above zero, 0 below, 1/2 at zero; NaN stays."""
    low = HALF if x == ZERO else x
    low = ZERO if x < ZERO else low
    return ONE if x > ZERO else low


@inner
def _missed(margin, power):
    margin = ZERO if margin < ZERO else margin
    return margin * margin if power == 2 else margin


@inner
def _slope(margin, power):
    missed = ZERO if margin < ZERO else margin
    return TWO * missed if power == 2 else _step(margin)


@cpu(fastmath=REASSOCIATE)
def _values(start, stop, worker, values, y, t, power, factor, shift):
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        for c in range(row.size):
            total += _missed(ONE - (factor * target[c] + shift) * row[c], power)
        values[r] = total / np.float32(row.size)


@cpu
def hinge_forward_cpu(values, y, t, power):
    factor, shift = (TWO, -ONE) if _is_binary(t) else (ONE, ZERO)
    split(_values, y.shape[0], grain(y.shape[1]), (values, y, t, power, factor, shift))


@inner
def _gradients(start, stop, worker, dy, y, t, weights, power, factor, shift):
    for r in range(start, stop):
        out, row, target = dy[r], y[r], t[r]
        scale = weights[r] / np.float32(row.size)
        for c in range(row.size):
            side = factor * target[c] + shift
            out[c] = -scale * side * _slope(ONE - side * row[c], power)


@cpu
def hinge_backward_cpu(dy, y, t, weights, power):
    factor, shift = (TWO, -ONE) if _is_binary(t) else (ONE, ZERO)
    arguments = (dy, y, t, weights, power, factor, shift)
    split(_gradients, y.shape[0], grain(y.shape[1]), arguments)


@cpu(fastmath=REASSOCIATE)
def _margin(row, target):
    """The margin of a row, and its best wrong class's score."""
    best, right = (ONE - target[0]) * row[0], ZERO
    for c in range(row.size):
        other = (ONE - target[c]) * row[c]
        best = other if other > best else best
        right += target[c] * row[c]
    return ONE + best - right, best


@inner
def _categorical_values(start, stop, worker, values, y, t):
    for r in range(start, stop):
        margin, _ = _margin(y[r], t[r])
        values[r] = ZERO if margin < ZERO else margin


@cpu
def categorical_hinge_forward_cpu(values, y, t):
    split(_categorical_values, y.shape[0], grain(y.shape[1]), (values, y, t))


@inner
def _categorical_gradients(start, stop, worker, dy, y, t, weights):
    for r in range(start, stop):
        out, row, target = dy[r], y[r], t[r]
        margin, best = _margin(row, target)
        ties = ZERO
        for c in range(row.size):
            ties += ONE if (ONE - target[c]) * row[c] == best else ZERO
        scale, share = weights[r] * _step(margin), ONE / ties
        for c in range(row.size):
            other = ONE - target[c]
            out[c] = scale * (other * (share if other * row[c] == best else ZERO) - target[c])


@cpu
def categorical_hinge_backward_cpu(dy, y, t, weights):
    split(_categorical_gradients, y.shape[0], grain(y.shape[1]), (dy, y, t, weights))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A block for every row. Before it one block looks at all targets, and leaves what it finds where
# each row is going to write its own result.


@gpu
def _look(found, step, t):
    others = ZERO
    for i in range(cuda.threadIdx.x, t.size, THREADS):
        others += ONE if _is_other(t[i]) else ZERO
    binary = ONE if block_sum(others) == ZERO else ZERO
    for i in range(cuda.threadIdx.x * step, found.size, THREADS * step):
        found[i] = binary


@gpu
def _side(t, binary):
    return TWO * t - ONE if binary == ONE else t


@gpu
def _value_of_row(values, y, t, power):
    r, total = cuda.blockIdx.x, ZERO
    binary = values[r]
    for c in range(cuda.threadIdx.x, y.shape[1], THREADS):
        total += _missed(ONE - _side(t[r, c], binary) * y[r, c], power)
    total = block_sum(total)
    if cuda.threadIdx.x == 0:
        values[r] = total / np.float32(y.shape[1])


def hinge_forward_cuda(values, y, t, power):
    launch(_look, 1, THREADS, values, 1, t.reshape(-1))
    launch(_value_of_row, len(y), THREADS, values, y, t, power)


@gpu
def _gradient_row(dy, y, t, weights, power):
    r, binary = cuda.blockIdx.x, dy[cuda.blockIdx.x, 0]
    cuda.syncthreads()
    scale = weights[r] / np.float32(y.shape[1])
    for c in range(cuda.threadIdx.x, y.shape[1], THREADS):
        side = _side(t[r, c], binary)
        dy[r, c] = -scale * side * _slope(ONE - side * y[r, c], power)


def hinge_backward_cuda(dy, y, t, weights, power):
    launch(_look, 1, THREADS, dy.reshape(-1), y.shape[1], t.reshape(-1))
    launch(_gradient_row, len(y), THREADS, dy, y, t, weights, power)


@gpu
def _scores(y, t, r):
    """The best wrong class's score, and a thread's part of the right one's."""
    best, right = LOWEST, ZERO
    for c in range(cuda.threadIdx.x, y.shape[1], THREADS):
        other = (ONE - t[r, c]) * y[r, c]
        best = best if other <= best else other
        right += t[r, c] * y[r, c]
    return block_max(best), right


@gpu
def _categorical_row(values, y, t):
    r = cuda.blockIdx.x
    best, right = _scores(y, t, r)
    margin = ONE + best - block_sum(right)
    if cuda.threadIdx.x == 0:
        values[r] = ZERO if margin < ZERO else margin


def categorical_hinge_forward_cuda(values, y, t):
    launch(_categorical_row, len(y), THREADS, values, y, t)


@gpu
def _categorical_gradient_row(dy, y, t, weights):
    r, ties = cuda.blockIdx.x, ZERO
    best, right = _scores(y, t, r)
    margin = ONE + best - block_sum(right)
    for c in range(cuda.threadIdx.x, y.shape[1], THREADS):
        ties += ONE if (ONE - t[r, c]) * y[r, c] == best else ZERO
    scale, share = weights[r] * _step(margin), ONE / block_sum(ties)
    for c in range(cuda.threadIdx.x, y.shape[1], THREADS):
        other = ONE - t[r, c]
        dy[r, c] = scale * (other * (share if other * y[r, c] == best else ZERO) - t[r, c])


def categorical_hinge_backward_cuda(dy, y, t, weights):
    launch(_categorical_gradient_row, len(y), THREADS, dy, y, t, weights)
