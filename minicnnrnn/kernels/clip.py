"""Clipping: gradients that are too large are cut, or scaled down."""

import numpy as np

from minicnnrnn.kernels.codes import NORM, PARTS, VALUE
from minicnnrnn.kernels.elementary import sqrt
from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch, over
from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.reduce import block_sum_wide
from minicnnrnn.kernels.update import BLOCK, GRAIN, blocks, first_segment, holds, next_segment, part

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def clip_gradient_numpy(g, sums, segments, threshold, kind):
    """Bound the elements of a gradient, the norm of every segment, or the norm of all together.

    .. math::
        \\text{value:} \\quad & g_i \\leftarrow \\min(\\max(g_i, -c), c) \\\\
        \\text{norm:} \\quad & g_s \\leftarrow g_s \\, c / \\max(\\|g_s\\|, c) \\\\
        \\text{global norm:} \\quad & g \\leftarrow g \\, c / \\max(\\|g\\|, c)

    Parameters
    ----------
    g : (P,), updated in place within the segments
    sums : float64 (PARTS, S), overwritten
        Scratch for partial sums of squares.
    segments : int64 (S, 3)
        Rows of (start, stop, ...), in ascending order: one weight each.
    threshold : float64 (1,)
        c, positive.
    kind : int
        VALUE, NORM or GLOBAL_NORM.

    Notes
    -----
    Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, algorithm 1. Two passes over memory for
    the norms. Where the global norm is not finite, all gradients become NaN, as in Keras:
    nothing sensible can be done with them, and the loss will tell.
    """
    c = float(threshold[0])
    parts = [slice(start, stop) for start, stop in segments[:, :2]]
    squares = [np.sum(np.square(g[here], dtype=np.float64)) for here in parts]
    everything = np.sqrt(np.sum(squares))
    for here, square in zip(parts, squares):
        if kind == VALUE:
            g[here] = np.clip(g[here], -c, c)
        elif kind == NORM:
            g[here] *= c / np.maximum(np.sqrt(square), c)
        else:
            g[here] *= c / np.maximum(everything, c) if np.isfinite(everything) else np.nan


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Norms are sums over pieces that do not depend on the number of threads, as in penalties; the
# second pass is cut as updates are.


@cpu(fastmath=REASSOCIATE)
def _square_pieces(start, stop, worker, sums, g, segments):
    count = segments.shape[0]
    for item in range(start, stop):
        piece, s = item // count, item % count
        first, size = segments[s, 0], segments[s, 1] - segments[s, 0]
        x = g[first + size * piece // PARTS : first + size * (piece + 1) // PARTS]
        square = np.float64(0)
        for i in range(x.size):
            square += np.float64(x[i]) * np.float64(x[i])
        sums[piece, s] = square


@inner
def _scale(squares, c):
    norm = sqrt(squares)
    return c / (c if norm < c else norm)  # a NaN stays


@inner
def _between(x, low, high):
    x = low if x < low else x
    return high if x > high else x


@inner
def _clip_range(start, stop, worker, g, sums, segments, c, kind):
    low, high = np.float32(-c), np.float32(c)
    for s in range(segments.shape[0]):
        a, b = part(segments, s, start, stop)
        gs = g[a:b]  # a view, so that the loop vectorises
        if kind == VALUE:
            for i in range(gs.size):
                gs[i] = _between(gs[i], low, high)
        else:
            scale = np.float32(sums[0, s])
            for i in range(gs.size):
                gs[i] *= scale


@cpu
def clip_gradient_cpu(g, sums, segments, threshold, kind):
    count, c = segments.shape[0], threshold[0]
    if kind != VALUE:
        grain = 1 + PARTS * count * GRAIN * BLOCK // max(1, g.size)
        split(_square_pieces, PARTS * count, grain, (sums, g, segments))
        everything = np.float64(0)
        for s in range(count):
            for piece in range(1, PARTS):
                sums[0, s] += sums[piece, s]
            everything += sums[0, s]
        for s in range(count):
            if kind == NORM:
                sums[0, s] = _scale(sums[0, s], c)
            else:
                sums[0, s] = _scale(everything, c) + (everything - everything)  # or NaN
    split(_clip_range, blocks(g.size), GRAIN, (g, sums, segments, c, kind))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A block for every piece of every segment adds its squares; one block makes factors of the sums;
# then comes a thread for every element. Where the norm is that of all together, there are as many
# pieces, but equal ones, so that a large segment gets many blocks.


@gpu
def _square_piece(sums, g, segments):
    piece, s, square = cuda.blockIdx.x, cuda.blockIdx.y, np.float64(0)
    first, size = segments[s, 0], segments[s, 1] - segments[s, 0]
    begin, end = first + size * piece // PARTS, first + size * (piece + 1) // PARTS
    for i in range(begin + cuda.threadIdx.x, end, THREADS):
        square += np.float64(g[i]) * np.float64(g[i])
    square = block_sum_wide(square)
    if cuda.threadIdx.x == 0:
        sums[piece, s] = square


@gpu
def _square_share(sums, g, segments):
    share, shares, square = cuda.blockIdx.x, cuda.gridDim.x, np.float64(0)
    first, end = g.size * share // shares + cuda.threadIdx.x, g.size * (share + 1) // shares
    s = first_segment(segments, first)
    for i in range(first, end, THREADS):
        s = next_segment(segments, s, i)
        if holds(segments, s, i):
            square += np.float64(g[i]) * np.float64(g[i])
    square = block_sum_wide(square)
    if cuda.threadIdx.x == 0:
        sums[share % PARTS, share // PARTS] = square


@gpu
def _scales(sums, count, threshold, kind):
    c, everything = threshold[0], np.float64(0)
    for s in range(cuda.threadIdx.x, count, THREADS):
        for piece in range(1, PARTS):
            sums[0, s] += sums[piece, s]
        everything += sums[0, s]
    everything = block_sum_wide(everything)
    for s in range(cuda.threadIdx.x, count, THREADS):
        if kind == NORM:
            sums[0, s] = _scale(sums[0, s], c)
        else:
            sums[0, s] = _scale(everything, c) + (everything - everything)  # or NaN


@gpu
def _clip_elements(g, sums, segments, threshold, kind):
    low, high = np.float32(-threshold[0]), np.float32(threshold[0])
    s = first_segment(segments, cuda.grid(1))
    for i in range(cuda.grid(1), g.size, cuda.gridsize(1)):
        s = next_segment(segments, s, i)
        if holds(segments, s, i):
            g[i] = _between(g[i], low, high) if kind == VALUE else g[i] * np.float32(sums[0, s])


def clip_gradient_cuda(g, sums, segments, threshold, kind):
    if kind != VALUE and len(segments):
        if kind == NORM:
            launch(_square_piece, (PARTS, len(segments)), THREADS, sums, g, segments)
        else:
            launch(_square_share, PARTS * len(segments), THREADS, sums, g, segments)
        launch(_scales, 1, THREADS, sums, len(segments), threshold, kind)
    over(_clip_elements, g.size, g, sums, segments, threshold, kind)
