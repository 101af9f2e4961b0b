"""Penalties: what weights, or the output of a layer, add to the loss by their size."""

import numpy as np

from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.elementary import ZERO
from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch, over
from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.reduce import block_sum_wide
from minicnnrnn.kernels.update import BLOCK, GRAIN, blocks, first_segment, holds, next_segment, part

L1, L2 = 0, 1  # columns of `rates`

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def penalty_forward_numpy(total, sums, w, segments, rates, parts):
    """Add the L1 and L2 penalties of segments of a vector to a running total.

    .. math:: total \\leftarrow total
              + \\frac{1}{n} \\sum_s
                \\Bigl(\\lambda_{s1} \\sum_i |w_i| + \\lambda_{s2} \\sum_i w_i^2\\Bigr)

    where the inner sums run over the elements of segment s.

    Parameters
    ----------
    total : float64 (1,), updated in place
        What is added to the loss of a batch.
    sums : float64 (PARTS, S), overwritten
        Scratch for partial sums.
    w : (P,)
        All parameters, or an output as a vector.
    segments : int64 (S, 2)
        Rows of (start, stop), in ascending order.
    rates : float64 (S, 2)
        Rows of (:math:`\\lambda_1`, :math:`\\lambda_2`).
    parts : int
        n: 1 for weights; the number of samples for an output, whose penalty Keras divides by it.

    Notes
    -----
    One pass over the segments: 4 flop an element. L2 is the ridge penalty of Hoerl and Kennard
    1970, "weight decay" in Krogh and Hertz 1992; L1 the lasso of Tibshirani 1996.
    """
    for (start, stop), (l1, l2) in zip(segments, rates):
        x = w[start:stop].astype(np.float64)
        total[0] += (l1 * np.sum(np.abs(x)) + l2 * np.sum(x * x)) / parts


def penalty_backward_numpy(g, w, segments, rates, parts):
    """Add the gradient of the penalties to a gradient.

    .. math:: g_i \\leftarrow g_i + (\\lambda_{s1} \\operatorname{sign}(w_i)
              + 2 \\lambda_{s2} w_i) / n

    Parameters
    ----------
    g : (P,), updated in place within the segments
    w, segments, rates, parts : as in ``penalty_forward``

    Notes
    -----
    Of the subgradients of the absolute value at zero this takes 1, as JAX does.
    """
    for (start, stop), (l1, l2) in zip(segments, rates):
        x = w[start:stop]
        g[start:stop] += (l1 * np.where(x < 0, -1, 1) + 2 * l2 * x) / parts


def penalty_total_numpy(totals, penalty, samples):
    """Add the penalty of a batch to the running total of the loss.

    .. math:: totals_0 \\leftarrow totals_0 + N penalty_0

    Parameters
    ----------
    totals : float64 (2,), its first element updated in place
    penalty : float64 (1,)
    samples : int
        N: a batch's loss counts as often as it has samples.
    """
    totals[0] += samples * penalty[0]


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Every segment is cut into the same number of pieces, whatever the number of threads, and the
# sums of the pieces are added in order. Threads share the pieces such that each gets some of
# every segment. The gradient is a loop over independent elements, cut as updates are.


@cpu(fastmath=REASSOCIATE)
def _sum_pieces(start, stop, worker, sums, w, segments, rates):
    count = segments.shape[0]
    for item in range(start, stop):
        piece, s = item // count, item % count
        first, size = segments[s, 0], segments[s, 1] - segments[s, 0]
        x = w[first + size * piece // PARTS : first + size * (piece + 1) // PARTS]
        absolute, square = np.float64(0), np.float64(0)
        for i in range(x.size):
            v = np.float64(x[i])
            absolute += abs(v)
            square += v * v
        sums[piece, s] = rates[s, L1] * absolute + rates[s, L2] * square


@cpu
def penalty_forward_cpu(total, sums, w, segments, rates, parts):
    count = segments.shape[0]
    grain = 1 + PARTS * count * GRAIN * BLOCK // max(1, w.size)
    split(_sum_pieces, PARTS * count, grain, (sums, w, segments, rates))
    penalty = np.float64(0)
    for piece in range(PARTS):
        for s in range(count):
            penalty += sums[piece, s]
    total[0] += penalty / parts


@inner
def _gradient(x, l1, l2):
    return (-l1 if x < ZERO else l1) + l2 * x


@inner
def _add_gradients(start, stop, worker, g, w, segments, rates, parts):
    for s in range(segments.shape[0]):
        l1 = np.float32(rates[s, L1] / parts)
        l2 = np.float32(2 * rates[s, L2] / parts)
        a, b = part(segments, s, start, stop)
        gs, ws = g[a:b], w[a:b]  # views, so that the loop vectorises
        for i in range(gs.size):
            gs[i] += _gradient(ws[i], l1, l2)


@cpu
def penalty_backward_cpu(g, w, segments, rates, parts):
    split(_add_gradients, blocks(g.size), GRAIN, (g, w, segments, rates, parts))


@cpu
def penalty_total_cpu(totals, penalty, samples):
    totals[0] += samples * penalty[0]


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# As many pieces as on the CPU, but of all of the vector, and equal ones: a large segment gets many
# blocks. One more adds what they found; for the gradient there is a thread for every element.


@gpu
def _sum_piece(sums, w, segments, rates):
    piece, pieces, penalty = cuda.blockIdx.x, cuda.gridDim.x, np.float64(0)
    first, end = w.size * piece // pieces + cuda.threadIdx.x, w.size * (piece + 1) // pieces
    s = first_segment(segments, first)
    for i in range(first, end, THREADS):
        s = next_segment(segments, s, i)
        if holds(segments, s, i):
            v = np.float64(w[i])
            penalty += rates[s, L1] * abs(v) + rates[s, L2] * (v * v)
    penalty = block_sum_wide(penalty)
    if cuda.threadIdx.x == 0:
        sums[piece % PARTS, piece // PARTS] = penalty


@gpu
def _add_pieces(total, sums, parts):
    penalty = np.float64(0)
    for s in range(cuda.threadIdx.x, sums.shape[1], THREADS):
        for piece in range(PARTS):
            penalty += sums[piece, s]
    penalty = block_sum_wide(penalty)
    if cuda.threadIdx.x == 0:
        total[0] += penalty / parts


def penalty_forward_cuda(total, sums, w, segments, rates, parts):
    if sums.size:
        launch(_sum_piece, PARTS * len(segments), THREADS, sums, w, segments, rates)
        launch(_add_pieces, 1, THREADS, total, sums, parts)


@gpu
def _gradient_elements(g, w, segments, rates, parts):
    s = first_segment(segments, cuda.grid(1))
    for i in range(cuda.grid(1), g.size, cuda.gridsize(1)):
        s = next_segment(segments, s, i)
        if holds(segments, s, i):
            l1 = np.float32(rates[s, L1]) / np.float32(parts)
            l2 = np.float32(2 * rates[s, L2]) / np.float32(parts)
            g[i] += _gradient(w[i], l1, l2)


def penalty_backward_cuda(g, w, segments, rates, parts):
    over(_gradient_elements, g.size, g, w, segments, rates, parts)


@gpu
def _add_total(totals, penalty, samples):
    totals[0] += np.float64(samples) * penalty[0]


def penalty_total_cuda(totals, penalty, samples):
    launch(_add_total, 1, 1, totals, penalty, samples)
