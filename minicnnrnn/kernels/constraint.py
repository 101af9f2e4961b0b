"""Constraints: weights are put back where they are allowed to be."""

import numpy as np

from minicnnrnn.kernels.elementary import ZERO, sqrt
from minicnnrnn.kernels.gpu import SIMULATED, THREADS, cuda, gpu, launch, over
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


SMALL = np.float32(EPSILON)


@inner
def _factor(squares, low, high, rate, rest):
    n = sqrt(squares)
    inside = low if n < low else n  # a NaN stays
    inside = high if inside > high else inside
    return (rate * inside + rest * n) / (SMALL + n)


@inner
def _constrain_blocks(start, stop, worker, w, norms, rates):
    A, R, B = w.shape
    low, high = np.float32(rates[0]), np.float32(rates[1])
    rate, rest = np.float32(rates[2]), np.float32(1 - rates[2])
    columns = blocks(B)
    for item in range(start, stop):
        a, first = item // columns, item % columns * BLOCK
        ns = norms[a, first : first + BLOCK]
        for b in range(ns.size):
            ns[b] = ZERO
        for r in range(R):
            ws = w[a, r, first : first + BLOCK]
            for b in range(ns.size):
                ns[b] += ws[b] * ws[b]
        for b in range(ns.size):
            ns[b] = _factor(ns[b], low, high, rate, rest)
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
    ws = w[start * BLOCK : min(w.size, stop * BLOCK)]
    for i in range(ws.size):
        ws[i] = ZERO if ws[i] < ZERO else ws[i]  # a NaN stays


@cpu
def nonneg_constraint_cpu(w):
    split(_cut_negative, blocks(w.size), GRAIN, (w,))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A block for some neighbouring columns b: that many threads go along a row together, the others
# through other rows at the same time. With one column all threads follow it.

WIDEST = 2 if SIMULATED else 32  # columns of a block, a power of two


@gpu
def _constrain_columns(w, norms, rates, width):
    sums = cuda.shared.array(THREADS, np.float32)
    A, R, B = w.shape
    low, high = np.float32(rates[0]), np.float32(rates[1])
    rate, rest = np.float32(rates[2]), np.float32(1 - rates[2])
    t, groups = cuda.threadIdx.x, (B + width - 1) // width
    a, b = cuda.blockIdx.x // groups, cuda.blockIdx.x % groups * width + t % width
    first, step = t // width, THREADS // width
    total = ZERO
    for r in range(first, R if b < B else 0, step):
        total += w[a, r, b] * w[a, r, b]
    sums[t] = total
    cuda.syncthreads()
    half = THREADS // 2
    while half >= width:
        if t < half:
            sums[t] += sums[t + half]
        cuda.syncthreads()
        half //= 2
    factor = _factor(sums[t % width], low, high, rate, rest)
    for r in range(first, R if b < B else 0, step):
        w[a, r, b] *= factor


def norm_constraint_cuda(w, norms, rates):
    A, _, B = w.shape
    width = WIDEST if B > WIDEST // 2 else 1 << (B - 1).bit_length()
    launch(_constrain_columns, A * -(-B // width), THREADS, w, norms, rates, width)


@gpu
def _cut_negative_elements(w):
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        w[i] = ZERO if w[i] < ZERO else w[i]


def nonneg_constraint_cuda(w):
    over(_cut_negative_elements, w.size, w)
