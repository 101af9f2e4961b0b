"""Rectifiers with parameters: thresholds and slopes that are given, and slopes that are learnt."""

import numpy as np

from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.elementary import ONE, ZERO, always, choose
from minicnnrnn.kernels.gpu import cuda, gpu, over, place
from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.panel import address, floats
from minicnnrnn.kernels.reduce import column_sums, launch_column_sums, parts_at_most
from minicnnrnn.kernels.scale import shared, shared_row

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def relu_forward_numpy(y, x, slope, threshold, highest):
    """A rectifier in three pieces.

    .. math:: y = \\begin{cases} \\min(x, h) & x > t \\\\ a (x - t) & x \\le t \\end{cases}

    with slope a, threshold t and highest value h.

    Parameters
    ----------
    y : (n,), overwritten
    x : (n,)
    slope, threshold, highest : float
        Not negative; `highest` may be infinite.
    """
    below = slope * (x - threshold) if slope else np.where(np.isnan(x), x, 0)
    y[:] = np.where(x > threshold, np.minimum(x, highest), below)


def relu_backward_numpy(dx, dy, x, slope, threshold, highest):
    """Gradient with respect to the input: a, 1 or 0 times `dy`.

    Shapes and numbers as in ``relu_forward``. The slope is 0 at the threshold and at `highest`.
    """
    rise = np.where(x < threshold, slope, 1)
    dx[:] = np.where((x == threshold) | (x > threshold) & (x >= highest), 0, dy * rise)


def prelu_forward_numpy(y, x, w):
    """A rectifier whose slope below zero is learnt, for each element or shared by some.

    .. math:: y_i = \\max(x_i, 0) + w_{s(i)} \\min(x_i, 0)

    where s sets the indices along those axes to 0 that have length one in `w`.

    Parameters
    ----------
    y : (N, D, H, W, C), overwritten
    x : (N, D, H, W, C)
    w : (1, D or 1, H or 1, W or 1, C or 1)

    Notes
    -----
    He et al. 2015, arXiv:1502.01852, eq. 1.
    """
    y[:] = np.maximum(x, 0) + w * np.minimum(x, 0)


def prelu_backward_input_numpy(dx, dy, x, w):
    """Gradient with respect to the input: `dy`, times w below zero, and 0 at zero, as in Keras.

    Shapes as in ``prelu_forward``.
    """
    dx[:] = np.where(x == 0, 0, dy * np.where(x < 0, w, 1))


def prelu_backward_weight_numpy(dw, dy, x, ws):
    """Gradient with respect to the slopes.

    .. math:: dw_j = \\sum_{i: \\, s(i) = j} dy_i \\min(x_i, 0)

    Shapes as in ``prelu_forward``; `dw` as `w`.
    """
    axes = tuple(axis for axis in range(5) if dw.shape[axis] == 1)
    dw[:] = (dy * np.minimum(x, 0)).sum(axis=axes, keepdims=True)


def prelu_workspace_numpy(size):
    """Floats of workspace for `size` slopes."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Elements are independent, and so are rows along the last axis; the gradient of the slopes is
# summed part by part of the batch.

GRAIN = 16384  # elements that make it worth waking a second thread


@inner
def _rectified(x, a, t, h):
    below = choose(a > ZERO, a * (x - t), ZERO)
    above = choose(x > h, h, x)
    return choose(x <= t, below, above)  # a NaN goes above, and through


@inner
def _relu_range(start, stop, worker, y, x, slope, threshold, highest):
    a, t, h = np.float32(slope), np.float32(threshold), np.float32(highest)
    for i in range(start, stop):
        y[i] = _rectified(x[i], a, t, h)


@cpu
def relu_forward_cpu(y, x, slope, threshold, highest):
    """Parallel over elements."""
    split(_relu_range, x.size, GRAIN, (y, x, slope, threshold, highest))


@inner
def _rectified_gradient(gradient, x, a, t, h):
    flat = (x == t) | (x > t) & (x >= h)
    return choose(flat, ZERO, gradient * choose(x < t, a, ONE))


@inner
def _relu_gradient_range(start, stop, worker, dx, dy, x, slope, threshold, highest):
    a, t, h = np.float32(slope), np.float32(threshold), np.float32(highest)
    for i in range(start, stop):
        dx[i] = _rectified_gradient(dy[i], x[i], a, t, h)


@cpu
def relu_backward_cpu(dx, dy, x, slope, threshold, highest):
    """Parallel over elements."""
    split(_relu_gradient_range, x.size, GRAIN, (dx, dy, x, slope, threshold, highest))


@always
def _sloping(x, slope):
    return choose(x < ZERO, slope * x, x)


@inner
def _prelu_rows(start, stop, worker, y, x, w):
    C = x.shape[4]
    for row in range(start, stop):
        to, of = floats(address(y, row * C)), floats(address(x, row * C))
        slopes = floats(address(w, shared_row(row, x, w)))
        if w.shape[4] == C:
            for c in range(C):
                to[c] = _sloping(of[c], slopes[c])
        else:
            slope = slopes[0]
            for c in range(C):
                to[c] = _sloping(of[c], slope)


@cpu
def prelu_forward_cpu(y, x, w):
    """Parallel over rows."""
    C = x.shape[4]
    split(_prelu_rows, x.size // C, 1 + GRAIN // C, (y, x, w))


@inner
def _bent(gradient, x, slope):
    return choose(x == ZERO, ZERO, choose(x < ZERO, slope * gradient, gradient))


@inner
def _prelu_gradient_rows(start, stop, worker, dx, dy, x, w):
    C = x.shape[4]
    for row in range(start, stop):
        to, of = floats(address(dx, row * C)), floats(address(x, row * C))
        gradient = floats(address(dy, row * C))
        slopes = floats(address(w, shared_row(row, x, w)))
        if w.shape[4] == C:
            for c in range(C):
                to[c] = _bent(gradient[c], of[c], slopes[c])
        else:
            slope = slopes[0]
            for c in range(C):
                to[c] = _bent(gradient[c], of[c], slope)


@cpu
def prelu_backward_input_cpu(dx, dy, x, w):
    """Parallel over rows."""
    C = x.shape[4]
    split(_prelu_gradient_rows, x.size // C, 1 + GRAIN // C, (dx, dy, x, w))


@always
def _slope_term(gradient, x):
    return gradient * choose(x > ZERO, ZERO, x)


@cpu(fastmath=REASSOCIATE)
def _row_sum(gradient, x, count):
    total = ZERO
    for c in range(count):
        total += _slope_term(gradient[c], x[c])
    return total


@inner
def _slope_parts(start, stop, worker, dw, dy, x, ws, parts):
    N, C = x.shape[0], x.shape[4]
    rows = x.size // (N * C)
    for part in range(start, stop):
        total = floats(address(ws, part * dw.size))
        for j in range(dw.size):
            total[j] = ZERO
        for row in range(N * part // parts * rows, N * (part + 1) // parts * rows):
            gradient, of = floats(address(dy, row * C)), floats(address(x, row * C))
            j = shared_row(row, x, dw)
            if dw.shape[4] == C:
                for c in range(C):
                    total[j + c] += _slope_term(gradient[c], of[c])
            else:
                total[j] += _row_sum(gradient, of, C)


@cpu
def prelu_backward_weight_cpu(dw, dy, x, ws):
    """Parallel over parts of the batch, whose sums are then added in order."""
    parts = min(PARTS, x.shape[0])
    split(_slope_parts, parts, 1 + GRAIN * parts // x.size, (dw, dy, x, ws, parts))
    total = floats(address(dw, 0))
    for j in range(dw.size):
        total[j] = ZERO
    for part in range(parts):
        sums = floats(address(ws, part * dw.size))
        for j in range(dw.size):
            total[j] += sums[j]


def prelu_workspace_cpu(size):
    return PARTS * size


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element; the gradient of a slope is a sum over a column of all that share it.

NONE = np.empty(0, np.float32)


@gpu
def _relu_elements(y, x, slope, threshold, highest):
    a, t, h = np.float32(slope), np.float32(threshold), np.float32(highest)
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        y[i] = _rectified(x[i], a, t, h)


def relu_forward_cuda(y, x, slope, threshold, highest):
    over(_relu_elements, x.size, y, x, float(slope), float(threshold), float(highest))


@gpu
def _relu_gradient_elements(dx, dy, x, slope, threshold, highest):
    a, t, h = np.float32(slope), np.float32(threshold), np.float32(highest)
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        dx[i] = _rectified_gradient(dy[i], x[i], a, t, h)


def relu_backward_cuda(dx, dy, x, slope, threshold, highest):
    floats = float(slope), float(threshold), float(highest)
    over(_relu_gradient_elements, x.size, dx, dy, x, *floats)


@gpu
def _prelu_elements(y, x, w):
    _, D, H, W, C = x.shape
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        n, d, h, k, c = place(i, D, H, W, C)
        y[n, d, h, k, c] = _sloping(x[n, d, h, k, c], shared(w, n, d, h, k, c))


def prelu_forward_cuda(y, x, w):
    over(_prelu_elements, x.size, y, x, w)


@gpu
def _prelu_gradient_elements(dx, dy, x, w):
    _, D, H, W, C = x.shape
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        n, d, h, k, c = place(i, D, H, W, C)
        slope = shared(w, n, d, h, k, c)
        dx[n, d, h, k, c] = _bent(dy[n, d, h, k, c], x[n, d, h, k, c], slope)


def prelu_backward_input_cuda(dx, dy, x, w):
    over(_prelu_gradient_elements, x.size, dx, dy, x, w)


@gpu
def _along(all_share, e, j, length):
    """Along one axis: the index, and what is left of the numbers of the element and the slope."""
    if all_share:
        return e % length, e // length, j
    return j % length, e, j // length


@gpu
def _term_of_slope(operands, e, j):
    dy, x, dw = operands
    c, e, j = _along(dw.shape[4] == 1, e, j, x.shape[4])
    w, e, j = _along(dw.shape[3] == 1, e, j, x.shape[3])
    h, e, j = _along(dw.shape[2] == 1, e, j, x.shape[2])
    d, n, _ = _along(dw.shape[1] == 1, e, j, x.shape[1])
    return _slope_term(dy[n, d, h, w, c], x[n, d, h, w, c]), ZERO


_slope_sums = column_sums(_term_of_slope)


def prelu_backward_weight_cuda(dw, dy, x, ws):
    launch_column_sums(_slope_sums, dw.reshape(-1), NONE, NONE, x.size // dw.size, ws, dy, x, dw)


def prelu_workspace_cuda(size):
    return 2 * parts_at_most(size) * size
