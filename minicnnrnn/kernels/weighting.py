"""Weights of rows: sample weights, masks and labels that are ignored, brought together."""

import numpy as np

from minicnnrnn.kernels.codes import SUM, WEIGHTED_MEAN
from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch
from minicnnrnn.kernels.jit import cpu
from minicnnrnn.kernels.reduce import block_sum_wide

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def row_weights_numpy(
    gradient, reported, plain, weighted, w, mask, labels, ignore, reduction, samples
):
    """Set what each row of a batch counts for the gradient, the loss and the metrics.

    .. math:: p_r = m_r, \\quad q_r = m_r w_r, \\quad k_r = m_r [t_r \\ne ignore], \\quad
              g_r = q_r [t_r \\ne ignore] / n, \\quad l_r = N g_r

    where n is 1 for a sum, else the sum of all k, or for a weighted mean that of the numerators
    of g; 1 if that is 0.

    Parameters
    ----------
    gradient, reported : (R,), or (N,) for a loss by samples, overwritten
        g and l. For a loss by samples neither mask nor labels matter, w counts samples, and n is
        N.
    plain, weighted : (R,), overwritten
        p and q: for metrics without and with sample weights.
    w : (n,) or (0,) for ones
        Sample weights; n divides R, and neighbouring rows share one.
    mask : uint8 (n,) or (0,) for ones
        m; n divides R.
    labels : int32 (R,), or (0,) where no label is ignored
    ignore : int
    reduction : int
        SUM, MEAN or WEIGHTED_MEAN of ``codes``.
    samples : int
        N; a negative one marks a loss by samples.
    """
    R, N = plain.size, abs(samples)
    plain[:] = np.repeat(mask, R // mask.size) if mask.size else 1
    weighted[:] = plain * np.repeat(w, R // w.size) if w.size else plain
    if samples < 0:
        counted = np.ones(N)
        gradient[:] = w if w.size else 1
    else:
        counted = plain * (labels != ignore) if labels.size else plain
        gradient[:] = weighted * (counted != 0)
    if reduction != SUM:
        total = (gradient if reduction == WEIGHTED_MEAN else counted).sum(dtype=np.float64)
        gradient /= gradient.dtype.type(total or 1)
    reported[:] = gradient * N


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Serial: a few nanoseconds a row, and a sum in one fixed order.

NOTHING, ZERO, ONE = np.float64(0), np.float32(0), np.float32(1)


@cpu
def row_weights_cpu(
    gradient, reported, plain, weighted, w, mask, labels, ignore, reduction, samples
):
    R, N, total = plain.size, abs(samples), NOTHING
    for r in range(R):
        keep = ONE if mask.size == 0 or mask[r // (R // mask.size)] else ZERO
        plain[r] = keep
        weighted[r] = keep * w[r // (R // w.size)] if w.size else keep
    for r in range(gradient.size):
        if samples < 0:
            counts, g = ONE, w[r] if w.size else ONE
        else:
            ignored = labels.size > 0 and labels[r] == ignore
            counts, g = (ZERO, ZERO) if ignored else (plain[r], weighted[r])
        gradient[r] = g
        total += g if reduction == WEIGHTED_MEAN else counts
    scale = ONE if reduction == SUM or total == 0 else np.float32(total)
    for r in range(gradient.size):
        gradient[r] /= scale
        reported[r] = gradient[r] * np.float32(N)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# One block, whose threads walk through the rows and meet for the sum.


@gpu
def _row_weights(gradient, reported, plain, weighted, w, mask, labels, ignore, reduction, samples):
    R, total = plain.size, NOTHING
    for r in range(cuda.threadIdx.x, R, THREADS):
        keep = ONE if mask.size == 0 or mask[r // (R // mask.size)] != 0 else ZERO
        plain[r] = keep
        weighted[r] = keep * w[r // (R // w.size)] if w.size else keep
    cuda.syncthreads()  # a loss by samples has other rows
    for r in range(cuda.threadIdx.x, gradient.size, THREADS):
        if samples < 0:
            counts, g = ONE, w[r] if w.size else ONE
        else:
            ignored = labels.size > 0 and labels[r] == ignore
            counts, g = (ZERO, ZERO) if ignored else (plain[r], weighted[r])
        gradient[r] = g
        total += g if reduction == WEIGHTED_MEAN else counts
    total = block_sum_wide(total)
    scale = ONE if reduction == SUM or total == 0 else np.float32(total)
    for r in range(cuda.threadIdx.x, gradient.size, THREADS):
        gradient[r] /= scale
        reported[r] = gradient[r] * np.float32(abs(samples))


def row_weights_cuda(
    gradient, reported, plain, weighted, w, mask, labels, ignore, reduction, samples
):
    arrays = gradient, reported, plain, weighted, w, mask, labels
    launch(_row_weights, 1, THREADS, *arrays, ignore, reduction, samples)
