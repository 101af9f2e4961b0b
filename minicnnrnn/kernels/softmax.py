"""Softmax over a row, and its logarithm."""

import math

import numpy as np

from minicnnrnn.kernels.elementary import ZERO, exp, log
from minicnnrnn.kernels.gpu import gpu
from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.panel import address, floats
from minicnnrnn.kernels.reduce import launch_rows, own_row, team_max, team_sum

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def softmax_forward_numpy(y, x):
    r"""Turn each row into probabilities.

    .. math:: y_{nc} = \exp(x_{nc} - m_n) / \sum_k \exp(x_{nk} - m_n), \quad
              m_n = \max_k x_{nk}

    Parameters
    ----------
    y : (N, C), overwritten; may be the same memory as `x`
    x : (N, C)
    """
    e = np.exp(x - x.max(axis=1, keepdims=True))
    np.divide(e, e.sum(axis=1, keepdims=True), out=y)


def softmax_backward_numpy(dx, dy, y):
    r"""Gradient with respect to the input of softmax.

    .. math:: dx_{nc} = y_{nc} (dy_{nc} - \sum_k dy_{nk} y_{nk})

    Shapes as in ``softmax_forward``; `dx` may be the same memory as `dy`.
    """
    dx[:] = y * (dy - (dy * y).sum(axis=1, keepdims=True))


def log_softmax_forward_numpy(y, x):
    r"""The logarithm of softmax, without its underflow.

    .. math:: y_{nc} = x_{nc} - m_n - \log \sum_k \exp(x_{nk} - m_n), \quad
              m_n = \max_k x_{nk}

    Shapes as in ``softmax_forward``; `y` may be the same memory as `x`.
    """
    z = x - x.max(axis=1, keepdims=True)
    y[:] = z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def log_softmax_backward_numpy(dx, dy, y):
    r"""Gradient with respect to the input of log_softmax.

    .. math:: dx_{nc} = dy_{nc} - \exp(y_{nc}) \sum_k dy_{nk}

    Shapes as in ``softmax_forward``; `dx` may be the same memory as `dy`.
    """
    dx[:] = dy - np.exp(y) * dy.sum(axis=1, keepdims=True)


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------

GRAIN = 16384  # elements that make it worth waking a second thread


@cpu(fastmath=REASSOCIATE)
def _sum(x, count):
    total = ZERO
    for i in range(count):
        total += x[i]
    return total


@cpu(fastmath=REASSOCIATE)
def _sum_of_exp(x, highest, count):
    total = ZERO
    for i in range(count):
        total += exp(x[i] - highest)
    return total


@cpu(fastmath=REASSOCIATE)
def _dot(x, y, count):
    total = ZERO
    for i in range(count):
        total += x[i] * y[i]
    return total


@inner
def _softmax_forward_range(start, stop, worker, y, x):
    C = x.shape[1]
    for n in range(start, stop):
        row, scores = floats(address(y, n * C)), floats(address(x, n * C))
        highest = scores[0]
        for c in range(C):
            highest = scores[c] if scores[c] > highest else highest
        for c in range(C):
            row[c] = exp(scores[c] - highest)
        total = _sum(row, C)
        for c in range(C):
            row[c] = row[c] / total


@cpu
def softmax_forward_cpu(y, x):
    """Parallel over rows."""
    N, C = x.shape
    split(_softmax_forward_range, N, 1 + GRAIN // C, (y, x))


@inner
def _softmax_backward_range(start, stop, worker, dx, dy, y):
    C = y.shape[1]
    for n in range(start, stop):
        row, gradient = floats(address(dx, n * C)), floats(address(dy, n * C))
        chances = floats(address(y, n * C))
        mean = _dot(gradient, chances, C)
        for c in range(C):
            row[c] = chances[c] * (gradient[c] - mean)


@cpu
def softmax_backward_cpu(dx, dy, y):
    """Parallel over rows."""
    N, C = y.shape
    split(_softmax_backward_range, N, 1 + GRAIN // C, (dx, dy, y))


@inner
def _log_softmax_forward_range(start, stop, worker, y, x):
    C = x.shape[1]
    for n in range(start, stop):
        row, scores = floats(address(y, n * C)), floats(address(x, n * C))
        highest = scores[0]
        for c in range(C):
            highest = scores[c] if scores[c] > highest else highest
        total = _sum_of_exp(scores, highest, C)
        log = np.float32(math.log(total))
        for c in range(C):
            row[c] = (scores[c] - highest) - log


@cpu
def log_softmax_forward_cpu(y, x):
    """Parallel over rows."""
    N, C = x.shape
    split(_log_softmax_forward_range, N, 1 + GRAIN // C, (y, x))


@inner
def _log_softmax_backward_range(start, stop, worker, dx, dy, y):
    C = y.shape[1]
    for n in range(start, stop):
        row, gradient = floats(address(dx, n * C)), floats(address(dy, n * C))
        logs = floats(address(y, n * C))
        total = _sum(gradient, C)
        for c in range(C):
            row[c] = gradient[c] - exp(logs[c]) * total


@cpu
def log_softmax_backward_cpu(dx, dy, y):
    """Parallel over rows."""
    N, C = y.shape
    split(_log_softmax_backward_range, N, 1 + GRAIN // C, (dx, dy, y))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A team of threads for every row: they walk through the columns and meet for the sums.

LOWEST = np.float32(-np.inf)


@gpu
def row_max(x, n, first, team):
    """The largest of a row, for all threads of a team, from their first columns on."""
    highest = LOWEST
    for c in range(first, x.shape[1], team):
        highest = highest if x[n, c] <= highest else x[n, c]
    return team_max(highest, team)


@gpu
def _softmax_forward_row(y, x, team):
    n, first, _ = own_row(x.shape[0], x.shape[1], team)
    highest, total = row_max(x, n, first, team), ZERO
    for c in range(first, x.shape[1], team):
        y[n, c] = exp(x[n, c] - highest)
        total += y[n, c]
    total = team_sum(total, team)
    for c in range(first, x.shape[1], team):
        y[n, c] /= total


def softmax_forward_cuda(y, x):
    launch_rows(_softmax_forward_row, *x.shape, y, x)


@gpu
def _softmax_backward_row(dx, dy, y, team):
    n, first, _ = own_row(y.shape[0], y.shape[1], team)
    mean = ZERO
    for c in range(first, y.shape[1], team):
        mean += dy[n, c] * y[n, c]
    mean = team_sum(mean, team)
    for c in range(first, y.shape[1], team):
        dx[n, c] = y[n, c] * (dy[n, c] - mean)


def softmax_backward_cuda(dx, dy, y):
    launch_rows(_softmax_backward_row, *y.shape, dx, dy, y)


@gpu
def _log_softmax_forward_row(y, x, team):
    n, first, _ = own_row(x.shape[0], x.shape[1], team)
    highest, total = row_max(x, n, first, team), ZERO
    for c in range(first, x.shape[1], team):
        total += exp(x[n, c] - highest)
    total = log(team_sum(total, team))
    for c in range(first, x.shape[1], team):
        y[n, c] = (x[n, c] - highest) - total


def log_softmax_forward_cuda(y, x):
    launch_rows(_log_softmax_forward_row, *x.shape, y, x)


@gpu
def _log_softmax_backward_row(dx, dy, y, team):
    n, first, _ = own_row(y.shape[0], y.shape[1], team)
    total = ZERO
    for c in range(first, y.shape[1], team):
        total += dy[n, c]
    total = team_sum(total, team)
    for c in range(first, y.shape[1], team):
        dx[n, c] = dy[n, c] - exp(y[n, c]) * total


def log_softmax_backward_cuda(dx, dy, y):
    launch_rows(_log_softmax_backward_row, *y.shape, dx, dy, y)
