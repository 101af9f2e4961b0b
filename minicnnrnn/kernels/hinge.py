"""Hinge losses: an output should be beyond a margin on its target's side.

Values, gradients, rows and weights as in ``regression_loss.py``.
"""

import numpy as np

from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split
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

ZERO, HALF, ONE, TWO = (np.float32(x) for x in (0, 0.5, 1, 2))


@inner
def _is_binary(t):
    for r in range(t.shape[0]):
        for c in range(t.shape[1]):
            if t[r, c] != ZERO and t[r, c] != ONE:
                return False
    return True


@inner
def _step(x):
    """1 above zero, 0 below, 1/2 at zero; NaN stays."""
    low = HALF if x == ZERO else x
    low = ZERO if x < ZERO else low
    return ONE if x > ZERO else low


@cpu(fastmath=REASSOCIATE)
def _values(start, stop, worker, values, y, t, power, factor, shift):
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        for c in range(row.size):
            margin = ONE - (factor * target[c] + shift) * row[c]
            margin = ZERO if margin < ZERO else margin
            total += margin * margin if power == 2 else margin
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
            margin = ONE - side * row[c]
            missed = ZERO if margin < ZERO else margin
            out[c] = -scale * side * (TWO * missed if power == 2 else _step(margin))


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
