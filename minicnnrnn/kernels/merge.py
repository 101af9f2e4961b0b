"""Merging: what comes out of parallel branches becomes one array again.

Two arrays at a time are added, multiplied or compared; channels are joined by copying each
branch to its place.
"""

import numpy as np

from minicnnrnn.kernels.codes import ADD, MULTIPLY
from minicnnrnn.kernels.elementary import choose
from minicnnrnn.kernels.gpu import cuda, gpu, over
from minicnnrnn.kernels.jit import cpu, inner, split

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def merge_forward_numpy(y, a, b, gate, scale, code, relu):
    """Merge two arrays, element by element.

    .. math::
        y = s \\, (a + b) \\quad\\text{or}\\quad y = a b \\quad\\text{or}\\quad y = \\max(a, b)

    Parameters
    ----------
    y : (size,), overwritten
    a, b : (size,)
    gate : (size,) or (0,) for none
        What a relu gave: where it is not above zero, `y` is zero. Going back through a sum whose
        inputs come from that relu, this undoes the relu, too.
    scale : float
        s, for sums alone: 1, or 1 / branches at the last sum of an average.
    code : int
        ``ADD``, ``MULTIPLY`` or ``MAXIMUM``.
    relu : int
        1: what is below zero becomes zero, as behind a residual block.

    Notes
    -----
    2 or 3 floats read and 1 written an element. A maximum with NaN is NaN.
    """
    if code == ADD:
        y[...] = scale * (a + b)
    else:
        y[...] = a * b if code == MULTIPLY else np.maximum(a, b)
    if relu:
        np.maximum(y, 0, out=y)
    if gate.size:
        y[gate <= 0] = 0


def merge_backward_numpy(da, db, dy, a, b, scale, code):
    """Gradients of a merge.

    Parameters
    ----------
    da, db : (size,), overwritten
        Of a sum both are the same: `db` is then of size zero.
    dy, a, b, scale, code : as in ``merge_forward``; of a sum, `a` and `b` are not looked at

    Notes
    -----
    Where both are the maximum, each gets half of the gradient, as in JAX and so in Keras.
    """
    if code == ADD:
        da[...] = scale * dy
    elif code == MULTIPLY:
        da[...], db[...] = dy * b, dy * a
    else:
        share = (1 + np.sign(a - b)) / 2
        da[...], db[...] = dy * share, dy * (1 - share)


def concatenate_forward_numpy(y, x, offset):
    """Write one branch to its place among the channels: ``y[:, offset : offset + C] = x``.

    Parameters
    ----------
    y : (rows, channels of all branches); only the columns of this branch are overwritten
    x : (rows, C)
    offset : int
        Channels of the branches before this one.
    """
    y[:, offset : offset + x.shape[1]] = x


def concatenate_backward_numpy(dx, dy, offset):
    """Read one branch's columns back: ``dx = dy[:, offset : offset + C]``.

    Parameters
    ----------
    dx : (rows, C), overwritten
    dy : (rows, channels of all branches)
    offset : int
    """
    dx[...] = dy[:, offset : offset + dx.shape[1]]


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Elements, or rows of channels, are independent and are cut among threads; memory is what
# limits them.

BLOCK = 64  # elements, a multiple of the cache line so that no two threads write to one
GRAIN = 512  # blocks that make it worth waking a second thread
ZERO, HALF, ONE = (np.float32(number) for number in (0, 0.5, 1))
# No number is below NO_FLOOR, and none is NO_LIMIT or less: what is not wanted costs no branch.
NO_FLOOR, NO_LIMIT = np.float32(-np.inf), np.float32(np.nan)


@inner
def _open(v, gate, limit, floor):
    return choose((v < floor) | (gate <= limit), ZERO, v)


@inner
def _higher(a, b):
    return a if a > b or a != a else b


@inner
def _share(a, b):
    """What `a` gets of the gradient of the maximum."""
    return HALF * (np.float32(a > b) + np.float32(a >= b))


@inner
def _merge_blocks(start, stop, worker, y, a, b, gate, limit, floor, scale, code):
    ys, xs = y[BLOCK * start : BLOCK * stop], a[BLOCK * start : BLOCK * stop]
    zs, s = b[BLOCK * start : BLOCK * stop], np.float32(scale)
    gates = gate[BLOCK * start : BLOCK * stop]
    if code == ADD:
        for i in range(ys.size):
            ys[i] = _open(s * (xs[i] + zs[i]), gates[i], limit, floor)
    elif code == MULTIPLY:
        for i in range(ys.size):
            ys[i] = _open(xs[i] * zs[i], gates[i], limit, floor)
    else:
        for i in range(ys.size):
            ys[i] = _open(_higher(xs[i], zs[i]), gates[i], limit, floor)


@cpu
def merge_forward_cpu(y, a, b, gate, scale, code, relu):
    limit, floor = (ZERO if gate.size else NO_LIMIT), (ZERO if relu else NO_FLOOR)
    gates = gate if gate.size else a
    arguments = (y, a, b, gates, limit, floor, scale, code)
    split(_merge_blocks, (y.size + BLOCK - 1) // BLOCK, GRAIN, arguments)


@inner
def _unmerge_blocks(start, stop, worker, da, db, dy, a, b, scale, code):
    das, dys = da[BLOCK * start : BLOCK * stop], dy[BLOCK * start : BLOCK * stop]
    dbs, s = db[BLOCK * start : BLOCK * stop], np.float32(scale)
    xs, zs = a[BLOCK * start : BLOCK * stop], b[BLOCK * start : BLOCK * stop]
    if code == ADD:
        for i in range(das.size):
            das[i] = s * dys[i]
    elif code == MULTIPLY:
        for i in range(das.size):
            das[i] = dys[i] * zs[i]
            dbs[i] = dys[i] * xs[i]
    else:
        for i in range(das.size):
            share = _share(xs[i], zs[i])
            das[i] = dys[i] * share
            dbs[i] = dys[i] * (ONE - share)


@cpu
def merge_backward_cpu(da, db, dy, a, b, scale, code):
    split(_unmerge_blocks, (da.size + BLOCK - 1) // BLOCK, GRAIN, (da, db, dy, a, b, scale, code))


@inner
def _join_rows(start, stop, worker, y, x, offset):
    C = x.shape[1]
    for r in range(start, stop):
        for c in range(C):
            y[r, offset + c] = x[r, c]


@cpu
def concatenate_forward_cpu(y, x, offset):
    split(_join_rows, x.shape[0], max(1, BLOCK * GRAIN // x.shape[1]), (y, x, offset))


@inner
def _part_rows(start, stop, worker, dx, dy, offset):
    C = dx.shape[1]
    for r in range(start, stop):
        for c in range(C):
            dx[r, c] = dy[r, offset + c]


@cpu
def concatenate_backward_cpu(dx, dy, offset):
    split(_part_rows, dx.shape[0], max(1, BLOCK * GRAIN // dx.shape[1]), (dx, dy, offset))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element.


@gpu
def _merge_elements(y, a, b, gate, scale, code, relu):
    s, floor = np.float32(scale), ZERO if relu else NO_FLOOR
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        if code == ADD:
            v = s * (a[i] + b[i])
        elif code == MULTIPLY:
            v = a[i] * b[i]
        else:
            v = _higher(a[i], b[i])
        y[i] = _open(v, gate[i] if gate.size else ONE, ZERO, floor)


def merge_forward_cuda(y, a, b, gate, scale, code, relu):
    over(_merge_elements, y.size, y, a, b, gate, float(scale), int(code), int(relu))


@gpu
def _unmerge_elements(da, db, dy, a, b, scale, code):
    s = np.float32(scale)
    for i in range(cuda.grid(1), da.size, cuda.gridsize(1)):
        if code == ADD:
            da[i] = s * dy[i]
        elif code == MULTIPLY:
            da[i], db[i] = dy[i] * b[i], dy[i] * a[i]
        else:
            share = _share(a[i], b[i])
            da[i], db[i] = dy[i] * share, dy[i] * (ONE - share)


def merge_backward_cuda(da, db, dy, a, b, scale, code):
    over(_unmerge_elements, da.size, da, db, dy, a, b, float(scale), int(code))


@gpu
def _join_elements(y, x, offset):
    C = x.shape[1]
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        y[i // C, offset + i % C] = x[i // C, i % C]


def concatenate_forward_cuda(y, x, offset):
    over(_join_elements, x.size, y, x, int(offset))


@gpu
def _part_elements(dx, dy, offset):
    C = dx.shape[1]
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[i // C, i % C] = dy[i // C, offset + i % C]


def concatenate_backward_cuda(dx, dy, offset):
    over(_part_elements, dx.size, dx, dy, int(offset))
