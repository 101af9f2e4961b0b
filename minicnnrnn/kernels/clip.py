"""Clipping: gradients that are too large are cut, or scaled down."""

import numpy as np

from minicnnrnn.kernels.codes import NORM, PARTS, VALUE
from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.update import BLOCK, GRAIN, blocks, part

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
        Rows of (start, stop, ...): one weight each.
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
    norm = np.sqrt(squares)
    return c / (c if norm < c else norm)  # a NaN stays


@inner
def _clip_range(start, stop, worker, g, sums, segments, c, kind):
    low, high = np.float32(-c), np.float32(c)
    for s in range(segments.shape[0]):
        a, b = part(segments, s, start, stop)
        gs = g[a:b]  # a view, so that the loop vectorises
        if kind == VALUE:
            for i in range(gs.size):
                x = gs[i]
                x = low if x < low else x
                gs[i] = high if x > high else x
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
