"""Sequences as wholes: masking their empty steps, merging the two directions of reading."""

import numpy as np

from minicnnrnn.kernels.codes import AVERAGE, CONCAT, MULTIPLY
from minicnnrnn.kernels.gpu import cuda, gpu, over
from minicnnrnn.kernels.jit import cpu, inner, split

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def masking_forward_numpy(y, mask, x, value):
    """Find the steps that hold nothing but one value, and set them to zero.

    .. math:: m_r = [\\, \\exists c: x_{rc} \\ne v \\,], \\qquad y_{rc} = m_r \\, ? \\, x_{rc} : 0

    Parameters
    ----------
    y : (R, C), overwritten
    mask : uint8 (R,), overwritten
        1 for a step that counts; one with a NaN does.
    x : (R, C)
        A row is a step.
    value : float
    """
    np.any(x != x.dtype.type(value), axis=1, out=mask.view(np.bool_))
    y[...] = np.where(mask[:, None], x, 0)


def masking_backward_input_numpy(dx, dy, mask):
    """Gradient with respect to the input: that of the steps that count, and zero elsewhere.

    Parameters
    ----------
    dx : (R, C), overwritten
    dy : (R, C)
    mask : uint8 (R,)
    """
    dx[...] = np.where(mask[:, None], dy, 0)


def bidirectional_forward_numpy(y, a, b, mask, mode):
    """Merge what was read forwards with what was read backwards, step by step.

    .. math:: y_{ntr} = m_{nt} \\, ? \\, a_{ntr} \\circ b_{n,T-1-t,r} : 0

    where the operation puts two vectors one after the other, or adds, multiplies or averages.

    Parameters
    ----------
    y : (N, T, R, A + B) to concatenate, else (N, T, R, A); overwritten
    a : (N, T, R, A)
    b : (N, T, R, B)
        In the order of reading: its steps are turned around here.
    mask : uint8 (N, T) or (0, 0) for none
    mode : int
        ``CONCAT``, ``ADD``, ``MULTIPLY`` or ``AVERAGE``.

    Notes
    -----
    R counts the pixels of an image with a vector each; it is 1 for a sequence of vectors.
    Schuster and Paliwal 1997, "Bidirectional Recurrent Neural Networks".
    """
    b = b[:, ::-1]
    if mode == CONCAT:
        np.concatenate([a, b], axis=3, out=y)
    elif mode == MULTIPLY:
        np.multiply(a, b, out=y)
    else:
        np.add(a, b, out=y)
        if mode == AVERAGE:
            y /= 2
    if mask.size:
        y[mask == 0] = 0


def bidirectional_backward_input_numpy(da, db, dy, a, b, mask, mode):
    """Gradients with respect to both readings; arguments as in ``bidirectional_forward``.

    Parameters
    ----------
    da, db : shapes of `a` and `b`, overwritten
    dy : shape of `y`
    a, b, mask, mode : as in ``bidirectional_forward``
    """
    if mask.size:
        dy = np.where((mask == 0)[:, :, None, None], 0, dy)
    A = a.shape[3]
    if mode == CONCAT:
        da[...], db[...] = dy[..., :A], dy[:, ::-1, :, A:]
    elif mode == MULTIPLY:
        da[...], db[...] = dy * b[:, ::-1], (dy * a)[:, ::-1]
        if mask.size:
            da[mask == 0] = 0
            db[mask[:, ::-1] == 0] = 0
    else:
        half = 0.5 if mode == AVERAGE else 1
        da[...], db[...] = dy * half, dy[:, ::-1] * half


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Steps are independent, and cut among threads.

GRAIN = 1 << 15  # elements that make it worth waking a second thread
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)


@inner
def _mask_rows(start, stop, worker, y, mask, x, value):
    C = x.shape[1]
    for r in range(start, stop):
        count = 0
        for c in range(C):
            count += x[r, c] != value
        mask[r] = count > 0
        for c in range(C):
            y[r, c] = x[r, c] if count else ZERO


@cpu
def masking_forward_cpu(y, mask, x, value):
    R, C = x.shape
    split(_mask_rows, R, max(1, GRAIN // C), (y, mask, x, np.float32(value)))


@inner
def _pass_rows(start, stop, worker, dx, dy, mask):
    C = dx.shape[1]
    for r in range(start, stop):
        for c in range(C):
            dx[r, c] = dy[r, c] if mask[r] else ZERO


@cpu
def masking_backward_input_cpu(dx, dy, mask):
    R, C = dx.shape
    split(_pass_rows, R, max(1, GRAIN // C), (dx, dy, mask))


@inner
def _merge_steps(start, stop, worker, y, a, b, mask, mode):
    N, T, R, A = a.shape
    B, E = b.shape[3], y.shape[3]
    scale = HALF if mode == AVERAGE else ONE
    for step in range(start, stop):
        n, t = step // T, step % T
        for r in range(R):
            to, one, other = y[n, t, r], a[n, t, r], b[n, T - 1 - t, r]
            if mask.size and mask[n, t] == 0:
                for e in range(E):
                    to[e] = ZERO
            elif mode == CONCAT:
                for e in range(A):
                    to[e] = one[e]
                for e in range(B):
                    to[A + e] = other[e]
            elif mode == MULTIPLY:
                for e in range(A):
                    to[e] = one[e] * other[e]
            else:
                for e in range(A):
                    to[e] = (one[e] + other[e]) * scale


@cpu
def bidirectional_forward_cpu(y, a, b, mask, mode):
    N, T, R, E = y.shape
    split(_merge_steps, N * T, max(1, GRAIN // (R * E)), (y, a, b, mask, mode))


@inner
def _part_steps(start, stop, worker, da, db, dy, a, b, mask, mode):
    N, T, R, A = a.shape
    B = b.shape[3]
    scale = HALF if mode == AVERAGE else ONE
    for step in range(start, stop):
        n, t = step // T, step % T
        back = T - 1 - t
        for r in range(R):
            from_, one, other = dy[n, t, r], da[n, t, r], db[n, back, r]
            if mask.size and mask[n, t] == 0:
                for e in range(A):
                    one[e] = ZERO
                for e in range(B):
                    other[e] = ZERO
            elif mode == CONCAT:
                for e in range(A):
                    one[e] = from_[e]
                for e in range(B):
                    other[e] = from_[A + e]
            elif mode == MULTIPLY:
                for e in range(A):
                    one[e] = from_[e] * b[n, back, r, e]
                    other[e] = from_[e] * a[n, t, r, e]
            else:
                for e in range(A):
                    one[e] = from_[e] * scale
                    other[e] = from_[e] * scale


@cpu
def bidirectional_backward_input_cpu(da, db, dy, a, b, mask, mode):
    N, T, R, E = dy.shape
    split(_part_steps, N * T, max(1, GRAIN // (R * E)), (da, db, dy, a, b, mask, mode))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element of an output; a step that counts is one for a thread, which stops at
# the first number that makes it count.


@gpu
def _find_steps(mask, x, value):
    empty = np.float32(value)
    for r in range(cuda.grid(1), x.shape[0], cuda.gridsize(1)):
        c = 0
        while c < x.shape[1] and x[r, c] == empty:
            c += 1
        mask[r] = c < x.shape[1]


@gpu
def _pass_elements(y, x, mask):
    C = x.shape[1]
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        r, c = i // C, i % C
        y[r, c] = x[r, c] if mask[r] else ZERO


def masking_forward_cuda(y, mask, x, value):
    over(_find_steps, len(x), mask, x, float(value))
    over(_pass_elements, x.size, y, x, mask)


def masking_backward_input_cuda(dx, dy, mask):
    over(_pass_elements, dy.size, dx, dy, mask)


@gpu
def _merge_elements(y, a, b, mask, mode):
    (_, T, R, A), E = a.shape, y.shape[3]
    scale = HALF if mode == AVERAGE else ONE
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        step, r, e = i // E // R, i // E % R, i % E
        n, t = step // T, step % T
        back = T - 1 - t
        if mask.size and mask[n, t] == 0:
            y[n, t, r, e] = ZERO
        elif mode == CONCAT:
            y[n, t, r, e] = a[n, t, r, e] if e < A else b[n, back, r, e - A]
        elif mode == MULTIPLY:
            y[n, t, r, e] = a[n, t, r, e] * b[n, back, r, e]
        else:
            y[n, t, r, e] = (a[n, t, r, e] + b[n, back, r, e]) * scale


def bidirectional_forward_cuda(y, a, b, mask, mode):
    over(_merge_elements, y.size, y, a, b, mask, int(mode))


@gpu
def _part_elements(d, dy, other, mask, mode, first, turned):
    """The gradient of one reading, whose elements stand from `first` on where they are merged."""
    _, T, R, A = d.shape
    scale = HALF if mode == AVERAGE else ONE
    for i in range(cuda.grid(1), d.size, cuda.gridsize(1)):
        step, r, e = i // A // R, i // A % R, i % A
        n, place = step // T, step % T
        back = T - 1 - place
        t = back if turned else place
        if mask.size and mask[n, t] == 0:
            d[n, place, r, e] = ZERO
        elif mode == MULTIPLY:
            d[n, place, r, e] = dy[n, t, r, e] * other[n, back, r, e]
        else:
            d[n, place, r, e] = dy[n, t, r, first + e] * scale


def bidirectional_backward_input_cuda(da, db, dy, a, b, mask, mode):
    first = a.shape[3] if mode == CONCAT else 0
    over(_part_elements, da.size, da, dy, b, mask, int(mode), 0, 0)
    over(_part_elements, db.size, db, dy, a, mask, int(mode), first, 1)
