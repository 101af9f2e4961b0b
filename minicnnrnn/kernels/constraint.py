"""Constraints: weights are put back where they are allowed to be."""

import numpy as np

from minicnnrnn.kernels.jit import cpu, inner, split
from minicnnrnn.kernels.update import BLOCK, GRAIN, blocks

EPSILON = 1e-7

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def norm_constraint_numpy(w, norms, rates):
    """Move the norms of weights along one axis between two bounds.

    .. math::
        n_{ab} &= \\sqrt{\\textstyle\\sum_r w_{arb}^2} \\\\
        w_{arb} &\\leftarrow w_{arb} \\, \\frac{\\rho \\min(\\max(n_{ab}, l), h)
                   + (1 - \\rho) \\, n_{ab}}{\\epsilon + n_{ab}}

    Parameters
    ----------
    w : (A, R, B), updated in place
        A weight whose axes before, along and behind the norm are taken together.
    norms : (A, B), overwritten
        Scratch for the norms.
    rates : float64 (3,)
        Lowest norm l, highest norm h, and :math:`\\rho`, the share of the way to the nearer
        bound that is gone.

    Notes
    -----
    Srebro et al. 2005 for max-norm; Srivastava et al. 2014, JMLR 15, section 5.1, for its use
    with dropout. Epsilon is 1e-7, as in Keras. Two passes over the weight.
    """
    low, high, rate = (float(r) for r in rates)
    n = np.sqrt(np.sum(np.square(w), axis=1))
    desired = rate * np.minimum(np.maximum(n, low), high) + (1 - rate) * n
    w *= (desired / (EPSILON + n))[:, None]


def nonneg_constraint_numpy(w):
    """Set negative weights to zero.

    .. math:: w_i \\leftarrow \\max(w_i, 0)

    Parameters
    ----------
    w : (P,), updated in place
    """
    np.maximum(w, 0, out=w)


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Blocks of columns b are independent and are cut among threads. Each block goes through its
# rows r in order, twice: the inner loops run along memory.


@inner
def _constrain_blocks(start, stop, worker, w, norms, rates):
    A, R, B = w.shape
    low, high = np.float32(rates[0]), np.float32(rates[1])
    rate, rest = np.float32(rates[2]), np.float32(1 - rates[2])
    zero, epsilon = np.float32(0), np.float32(EPSILON)
    columns = blocks(B)
    for item in range(start, stop):
        a, first = item // columns, item % columns * BLOCK
        ns = norms[a, first : first + BLOCK]
        for b in range(ns.size):
            ns[b] = zero
        for r in range(R):
            ws = w[a, r, first : first + BLOCK]
            for b in range(ns.size):
                ns[b] += ws[b] * ws[b]
        for b in range(ns.size):
            n = np.sqrt(ns[b])
            inside = low if n < low else n  # a NaN stays
            inside = high if inside > high else inside
            ns[b] = (rate * inside + rest * n) / (epsilon + n)
        for r in range(R):
            ws = w[a, r, first : first + BLOCK]
            for b in range(ns.size):
                ws[b] *= ns[b]


@cpu
def norm_constraint_cpu(w, norms, rates):
    A, R, B = w.shape
    split(_constrain_blocks, A * blocks(B), 1 + GRAIN // max(1, R), (w, norms, rates))


@inner
def _cut_negative(start, stop, worker, w):
    zero = np.float32(0)
    ws = w[start * BLOCK : min(w.size, stop * BLOCK)]
    for i in range(ws.size):
        ws[i] = zero if ws[i] < zero else ws[i]  # a NaN stays


@cpu
def nonneg_constraint_cpu(w):
    split(_cut_negative, blocks(w.size), GRAIN, (w,))
