"""Cross-entropies and the divergence: how far a distribution is from the one it should be.

Values, gradients, rows and weights as in ``regression_loss.py``. The cross-entropies take an
integer `mode` that says what `y` is, and `smoothing`, the share of the target that is spread
evenly over all classes.
"""

import math

import numpy as np

from minicnnrnn.kernels.codes import FUSED, LOGITS, PROBABILITIES
from minicnnrnn.kernels.elementary import always, exp, log, log1p, sigmoid
from minicnnrnn.kernels.gpu import cuda, gpu, over
from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.reduce import launch_rows, own_row, team_sum
from minicnnrnn.kernels.regression_loss import EPSILON, grain
from minicnnrnn.kernels.softmax import row_max

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def clipped(p):
    """Probabilities away from 0 and 1, and where that changed nothing (or they are NaN)."""
    return np.clip(p, EPSILON, 1 - EPSILON), ~((p < EPSILON) | (p > 1 - EPSILON))


def smoothed(t, smoothing, classes):
    """Targets, a share of which is spread over all classes."""
    return t * (1 - smoothing) + smoothing / classes if smoothing else t


def binary_crossentropy_forward_numpy(values, y, t, mode, smoothing):
    """Cross-entropy of C independent yes-or-no questions.

    .. math:: v_r = -\\frac{1}{C} \\sum_c t_{rc} \\ln p_{rc} + (1 - t_{rc}) \\ln (1 - p_{rc})

    Parameters
    ----------
    values : (R,), overwritten
    y : (R, C)
        Probabilities p, clipped to [1e-7, 1 - 1e-7] (``PROBABILITIES``, ``FUSED``), or their
        logits z (``LOGITS``), for which a row is the mean of max(z, 0) - z t + ln(1 + exp(-|z|)).
    t : (R, C)
        Target probabilities.
    mode : int
        ``PROBABILITIES``, ``LOGITS`` or ``FUSED``.
    smoothing : float
        With s > 0, :math:`t (1 - s) + s / 2` stands for t.
    """
    t = smoothed(t, smoothing, 2)
    if mode == LOGITS:
        terms = y * ((y >= 0) - t) + np.log1p(np.exp(-np.abs(y)))
    else:
        p, _ = clipped(y)
        terms = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    np.mean(terms, axis=1, out=values)


def binary_crossentropy_backward_numpy(dy, y, t, weights, mode, smoothing):
    """Gradient of ``sum(weights * values)``.

    .. math:: \\frac{p - t}{p (1 - p)} \\quad \\text{with respect to p (0 where p was clipped)},
              \\qquad p - t \\quad \\text{with respect to the logits}

    each divided by C. ``PROBABILITIES`` gives the first; ``LOGITS`` and ``FUSED`` the second.
    """
    t = smoothed(t, smoothing, 2)
    if mode == PROBABILITIES:
        p, inside = clipped(y)
        gradient = np.where(inside, (p - t) / (p * (1 - p)), 0)
    elif mode == LOGITS:
        tail = np.exp(-np.abs(y))
        gradient = np.where(y < 0, tail, 1) / (1 + tail) - t
    else:
        gradient = y - t
    dy[:] = weights[:, None] * gradient / y.shape[1]


def normalised(y):
    """Rows divided by their sums."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return y / np.sum(y, axis=1, keepdims=True)


def log_softmax(y):
    """The logarithms of each row's softmax."""
    with np.errstate(invalid="ignore"):  # inf - inf
        shifted = y - np.max(y, axis=1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))


def _ignored(t, y, ignore):
    """The rows whose label is none, or the one to ignore."""
    return (t == ignore) | (t < 0) | (t >= y.shape[1])


def _one_hot(t, y, ignore):
    """The (R, C) targets that labels stand for; zero for rows to ignore."""
    return ((np.arange(y.shape[1]) == t[:, None]) & (t != ignore)[:, None]).astype(y.dtype)


def categorical_crossentropy_forward_numpy(values, y, t, mode, smoothing):
    """Cross-entropy between distributions over C classes.

    .. math:: v_r = -\\sum_c t_{rc} \\ln p_{rc}

    Parameters
    ----------
    values : (R,), overwritten
    y : (R, C)
        ``PROBABILITIES``, ``FUSED``: p is y divided by its row's sum, then clipped to
        [1e-7, 1 - 1e-7]. ``LOGITS``: p is the softmax of y.
    t : (R, C)
        Target probabilities.
    mode : int
    smoothing : float
        With s > 0, :math:`t (1 - s) + s / C` stands for t.
    """
    t = smoothed(t, smoothing, y.shape[1])
    logs = log_softmax(y) if mode == LOGITS else np.log(clipped(normalised(y))[0])
    np.sum(-t * logs, axis=1, out=values)


def categorical_crossentropy_backward_numpy(dy, y, t, weights, mode, smoothing):
    """Gradient of ``sum(weights * values)``.

    With :math:`s = \\sum_c y_c`, :math:`q = y / s`, and t set to 0 where q was clipped,

    .. math:: \\frac{1}{s} \\Big( \\sum_c t_c - \\frac{t_j}{q_j} \\Big)
              \\quad \\text{(probabilities)}, \\qquad
              p_j \\sum_c t_c - t_j \\quad \\text{(logits)}

    ``PROBABILITIES`` gives the first; ``LOGITS``, and ``FUSED`` with p = y, the second.
    """
    t = smoothed(t, smoothing, y.shape[1])
    if mode == PROBABILITIES:
        q = normalised(y)
        p, inside = clipped(q)
        t = np.where(inside, t, 0)
        gradient = np.sum(t, axis=1, keepdims=True) - t / p
        with np.errstate(divide="ignore", invalid="ignore"):
            gradient = gradient / np.sum(y, axis=1, keepdims=True)
    else:
        p = np.exp(log_softmax(y)) if mode == LOGITS else y
        gradient = p * np.sum(t, axis=1, keepdims=True) - t
    dy[:] = weights[:, None] * gradient


def sparse_categorical_crossentropy_forward_numpy(values, y, t, mode, ignore):
    """Cross-entropy with one right class a row, given by its number.

    .. math:: v_r = -\\ln p_{r, t_r}

    Parameters
    ----------
    values : (R,), overwritten
    y : (R, C)
        As in ``categorical_crossentropy_forward``.
    t : int32 (R,)
        Labels, from 0 up to C - 1. A row with another label has value and gradient 0.
    mode : int
    ignore : int
        A row with this label has value and gradient 0, too; ``IGNORE_NONE`` for none.
    """
    categorical_crossentropy_forward_numpy(values, y, _one_hot(t, y, ignore), mode, 0)
    values[_ignored(t, y, ignore)] = 0


def sparse_categorical_crossentropy_backward_numpy(dy, y, t, weights, mode, ignore):
    """Gradient of ``sum(weights * values)``, as in ``categorical_crossentropy_backward``."""
    categorical_crossentropy_backward_numpy(dy, y, _one_hot(t, y, ignore), weights, mode, 0)
    dy[_ignored(t, y, ignore)] = 0


def kl_divergence_forward_numpy(values, y, t):
    """Divergence of Kullback and Leibler of the output from the target.

    .. math:: v_r = \\sum_c t_{rc} \\ln \\frac{t_{rc}}{y_{rc}}

    Parameters
    ----------
    values : (R,), overwritten
    y : (R, C)
        Probabilities, clipped to [1e-7, 1].
    t : (R, C)
        Target probabilities, clipped likewise.
    """
    t = np.clip(t, EPSILON, 1)
    np.sum(t * (np.log(t) - np.log(np.clip(y, EPSILON, 1))), axis=1, out=values)


def kl_divergence_backward_numpy(dy, y, t, weights):
    """Gradient of ``sum(weights * values)``: ``-t / y``, 0 where y was clipped."""
    t = np.clip(t, EPSILON, 1)
    outside = (y < EPSILON) | (y > 1)
    dy[:] = weights[:, None] * np.where(outside, 0, -t / np.clip(y, EPSILON, 1))


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Rows are independent and are cut among threads. The sums within a row may be reassociated,
# since a row is never cut.

ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)
LOW, HIGH = np.float32(EPSILON), np.float32(1 - EPSILON)


@inner
def clip(p):
    """A probability away from 0 and 1."""
    p = LOW if p < LOW else p  # a NaN compares false and stays
    return HIGH if p > HIGH else p


@inner
def was_clipped(p):
    """Whether ``clip`` changes it."""
    return p < LOW or p > HIGH


@inner
def _clip_to_one(p):
    p = LOW if p < LOW else p
    return ONE if p > ONE else p


@always
def _entropy(p, t):
    p = clip(p)
    return -(t * log(p) + (ONE - t) * log(ONE - p))


@inner
def _entropy_of_logit(z, t):
    # max(z, 0) - z t as a product: no large terms that cancel
    return log1p(exp(z if z < ZERO else -z)) + z * ((ZERO if z < ZERO else ONE) - t)


@cpu(fastmath=REASSOCIATE)
def _binary_values(start, stop, worker, values, y, t, mode, smoothing):
    keep, spread = ONE - smoothing, HALF * smoothing
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        if mode == LOGITS:
            for c in range(row.size):
                total += _entropy_of_logit(row[c], keep * target[c] + spread)
        else:
            for c in range(row.size):
                total += _entropy(row[c], keep * target[c] + spread)
        values[r] = total / np.float32(row.size)


@cpu
def binary_crossentropy_forward_cpu(values, y, t, mode, smoothing):
    arguments = (values, y, t, mode, np.float32(smoothing))
    split(_binary_values, y.shape[0], grain(4 * y.shape[1]), arguments)


@inner
def _entropy_slope(y, t):
    p = clip(y)
    slope = (p - t) / (p * (ONE - p))
    return ZERO if was_clipped(y) else slope


@inner
def _binary_gradients(start, stop, worker, dy, y, t, weights, mode, smoothing):
    keep, spread = ONE - smoothing, HALF * smoothing
    for r in range(start, stop):
        out, row, target = dy[r], y[r], t[r]
        scale = weights[r] / np.float32(row.size)
        if mode == PROBABILITIES:
            for c in range(row.size):
                out[c] = scale * _entropy_slope(row[c], keep * target[c] + spread)
        elif mode == LOGITS:
            for c in range(row.size):
                out[c] = scale * (sigmoid(row[c]) - (keep * target[c] + spread))
        else:
            for c in range(row.size):
                out[c] = scale * (row[c] - (keep * target[c] + spread))


@cpu
def binary_crossentropy_backward_cpu(dy, y, t, weights, mode, smoothing):
    arguments = (dy, y, t, weights, mode, np.float32(smoothing))
    split(_binary_gradients, y.shape[0], grain(y.shape[1]), arguments)


@inner
def peak_of(x):
    """The largest of a row."""
    largest = x[0]
    for c in range(x.size):
        largest = x[c] if x[c] > largest else largest
    return largest


@cpu(fastmath=REASSOCIATE)
def _categorical_values(start, stop, worker, values, y, t, mode, smoothing):
    keep, spread = ONE - smoothing, smoothing / np.float32(y.shape[1])
    for r in range(start, stop):
        row, target, whole, total = y[r], t[r], ZERO, ZERO
        if mode == LOGITS:
            peak = peak_of(row)
            for c in range(row.size):
                whole += exp(row[c] - peak)
            whole = np.float32(math.log(whole))
            for c in range(row.size):
                total -= (keep * target[c] + spread) * ((row[c] - peak) - whole)
        else:
            for c in range(row.size):
                whole += row[c]
            for c in range(row.size):
                total -= (keep * target[c] + spread) * log(clip(row[c] / whole))
        values[r] = total


@cpu
def categorical_crossentropy_forward_cpu(values, y, t, mode, smoothing):
    arguments = (values, y, t, mode, np.float32(smoothing))
    split(_categorical_values, y.shape[0], grain(4 * y.shape[1]), arguments)


@cpu(fastmath=REASSOCIATE)
def _categorical_gradients(start, stop, worker, dy, y, t, weights, mode, smoothing):
    keep, spread = ONE - smoothing, smoothing / np.float32(y.shape[1])
    for r in range(start, stop):
        out, row, target, weight, whole, mass = dy[r], y[r], t[r], weights[r], ZERO, ZERO
        if mode == PROBABILITIES:
            for c in range(row.size):
                whole += row[c]
            for c in range(row.size):
                q = row[c] / whole
                share = ZERO if was_clipped(q) else keep * target[c] + spread
                mass += share
                out[c] = share / clip(q)
            scale = weight / whole
            for c in range(row.size):
                out[c] = scale * (mass - out[c])
            continue
        for c in range(row.size):
            mass += keep * target[c] + spread
        if mode == LOGITS:
            peak = peak_of(row)
            for c in range(row.size):
                out[c] = exp(row[c] - peak)
                whole += out[c]
            for c in range(row.size):
                out[c] = weight * (out[c] / whole * mass - (keep * target[c] + spread))
        else:
            for c in range(row.size):
                out[c] = weight * (row[c] * mass - (keep * target[c] + spread))


@cpu
def categorical_crossentropy_backward_cpu(dy, y, t, weights, mode, smoothing):
    arguments = (dy, y, t, weights, mode, np.float32(smoothing))
    split(_categorical_gradients, y.shape[0], grain(4 * y.shape[1]), arguments)


@cpu(fastmath=REASSOCIATE)
def _sparse_values(start, stop, worker, values, y, t, mode, ignore):
    for r in range(start, stop):
        row, label, whole = y[r], t[r], ZERO
        if label == ignore or label < 0 or label >= row.size:
            values[r] = ZERO
        elif mode == LOGITS:
            peak = peak_of(row)
            for c in range(row.size):
                whole += exp(row[c] - peak)
            values[r] = np.float32(math.log(whole)) - (row[label] - peak)
        else:
            for c in range(row.size):
                whole += row[c]
            values[r] = -math.log(clip(row[label] / whole))


@cpu
def sparse_categorical_crossentropy_forward_cpu(values, y, t, mode, ignore):
    split(_sparse_values, y.shape[0], grain(2 * y.shape[1]), (values, y, t, mode, ignore))


@cpu(fastmath=REASSOCIATE)
def _sparse_gradients(start, stop, worker, dy, y, t, weights, mode, ignore):
    for r in range(start, stop):
        out, row, label, weight, whole = dy[r], y[r], t[r], weights[r], ZERO
        if label == ignore or label < 0 or label >= row.size:
            for c in range(row.size):
                out[c] = ZERO
        elif mode == PROBABILITIES:
            for c in range(row.size):
                whole += row[c]
            q = row[label] / whole
            each = ZERO if was_clipped(q) else weight / whole
            for c in range(row.size):
                out[c] = each
            out[label] = each * (ONE - ONE / clip(q))
        elif mode == LOGITS:
            peak = peak_of(row)
            for c in range(row.size):
                out[c] = exp(row[c] - peak)
                whole += out[c]
            for c in range(row.size):
                out[c] = weight * (out[c] / whole)
            out[label] -= weight
        else:
            for c in range(row.size):
                out[c] = weight * row[c]
            out[label] -= weight


@cpu
def sparse_categorical_crossentropy_backward_cpu(dy, y, t, weights, mode, ignore):
    arguments = (dy, y, t, weights, mode, ignore)
    split(_sparse_gradients, y.shape[0], grain(2 * y.shape[1]), arguments)


@always
def _divergence(y, t):
    p, q = _clip_to_one(y), _clip_to_one(t)
    return q * (log(q) - log(p))


@cpu(fastmath=REASSOCIATE)
def _divergences(start, stop, worker, values, y, t):
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        for c in range(row.size):
            total += _divergence(row[c], target[c])
        values[r] = total


@cpu
def kl_divergence_forward_cpu(values, y, t):
    split(_divergences, y.shape[0], grain(4 * y.shape[1]), (values, y, t))


@inner
def _divergence_slope(y, t):
    slope = _clip_to_one(t) / _clip_to_one(y)
    return ZERO if y < LOW or y > ONE else slope


@inner
def _divergence_gradients(start, stop, worker, dy, y, t, weights):
    for r in range(start, stop):
        out, row, target, scale = dy[r], y[r], t[r], -weights[r]
        for c in range(row.size):
            out[c] = scale * _divergence_slope(row[c], target[c])


@cpu
def kl_divergence_backward_cpu(dy, y, t, weights):
    split(_divergence_gradients, y.shape[0], grain(y.shape[1]), (dy, y, t, weights))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A team of threads for every row: they walk through the columns and meet for the sums; where a
# gradient needs no sum, a thread for every element.


@gpu
def _binary_row(values, y, t, mode, smoothing, team):
    r, first, writes = own_row(y.shape[0], y.shape[1], team)
    total, s = ZERO, np.float32(smoothing)
    for c in range(first, y.shape[1], team):
        q = (ONE - s) * t[r, c] + HALF * s
        total += _entropy_of_logit(y[r, c], q) if mode == LOGITS else _entropy(y[r, c], q)
    total = team_sum(total, team)
    if writes:
        values[r] = total / np.float32(y.shape[1])


def binary_crossentropy_forward_cuda(values, y, t, mode, smoothing):
    launch_rows(_binary_row, *y.shape, values, y, t, mode, float(smoothing))


@gpu
def _binary_elements(dy, y, t, weights, mode, smoothing):
    C, s = y.shape[1], np.float32(smoothing)
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        r, c = i // C, i % C
        scale, q = weights[r] / np.float32(C), (ONE - s) * t[r, c] + HALF * s
        if mode == PROBABILITIES:
            dy[r, c] = scale * _entropy_slope(y[r, c], q)
        else:
            dy[r, c] = scale * ((sigmoid(y[r, c]) if mode == LOGITS else y[r, c]) - q)


def binary_crossentropy_backward_cuda(dy, y, t, weights, mode, smoothing):
    over(_binary_elements, y.size, dy, y, t, weights, mode, float(smoothing))


@gpu
def row_total(y, r, mode, first, team):
    """The peak to subtract first from logits, and a thread's part of what divides the row then.

    The sum of the parts is left to the kernel, for numba-cuda cannot link a kernel that comes to
    ``team_sum`` both by itself and through another function.
    """
    peak, total = ZERO, ZERO
    if mode == LOGITS:
        peak = row_max(y, r, first, team)
    for c in range(first, y.shape[1], team):
        total += exp(y[r, c] - peak) if mode == LOGITS else y[r, c]
    return peak, total


@gpu
def _categorical_row(values, y, t, mode, smoothing, team):
    r, first, writes = own_row(y.shape[0], y.shape[1], team)
    total, s = ZERO, np.float32(smoothing)
    keep, spread = ONE - s, s / np.float32(y.shape[1])
    peak, whole = row_total(y, r, mode, first, team)
    whole = team_sum(whole, team)
    for c in range(first, y.shape[1], team):
        share = keep * t[r, c] + spread
        if mode == LOGITS:
            total -= share * ((y[r, c] - peak) - log(whole))
        else:
            total -= share * log(clip(y[r, c] / whole))
    total = team_sum(total, team)
    if writes:
        values[r] = total


def categorical_crossentropy_forward_cuda(values, y, t, mode, smoothing):
    launch_rows(_categorical_row, *y.shape, values, y, t, mode, float(smoothing))


@gpu
def _categorical_gradient_row(dy, y, t, weights, mode, smoothing, team):
    r, first, _ = own_row(y.shape[0], y.shape[1], team)
    mass, s = ZERO, np.float32(smoothing)
    keep, spread = ONE - s, s / np.float32(y.shape[1])
    peak, whole = ZERO, ONE
    if mode != FUSED:
        peak, whole = row_total(y, r, mode, first, team)
        whole = team_sum(whole, team)
    for c in range(first, y.shape[1], team):
        counts = mode != PROBABILITIES or not was_clipped(y[r, c] / whole)
        mass += keep * t[r, c] + spread if counts else ZERO
    mass = team_sum(mass, team)
    for c in range(first, y.shape[1], team):
        share = keep * t[r, c] + spread
        if mode == PROBABILITIES:
            q = y[r, c] / whole
            share = ZERO if was_clipped(q) else share
            dy[r, c] = weights[r] / whole * (mass - share / clip(q))
        else:
            p = exp(y[r, c] - peak) / whole if mode == LOGITS else y[r, c]
            dy[r, c] = weights[r] * (p * mass - share)


def categorical_crossentropy_backward_cuda(dy, y, t, weights, mode, smoothing):
    arguments = (y, t, weights, mode, float(smoothing))
    launch_rows(_categorical_gradient_row, *y.shape, dy, *arguments)


@gpu
def _sparse_row(values, y, t, mode, ignore, team):
    r, first, writes = own_row(y.shape[0], y.shape[1], team)
    label = t[r]
    peak, whole = row_total(y, r, mode, first, team)
    whole = team_sum(whole, team)
    if writes:
        if label == ignore or label < 0 or label >= y.shape[1]:
            values[r] = ZERO
        elif mode == LOGITS:
            values[r] = log(whole) - (y[r, label] - peak)
        else:
            values[r] = -log(clip(y[r, label] / whole))


def sparse_categorical_crossentropy_forward_cuda(values, y, t, mode, ignore):
    launch_rows(_sparse_row, *y.shape, values, y, t, mode, ignore)


@gpu
def _sparse_gradient_row(dy, y, t, weights, mode, ignore, team):
    r, first, _ = own_row(y.shape[0], y.shape[1], team)
    label, weight = t[r], weights[r]
    used = label != ignore and label >= 0 and label < y.shape[1]
    peak, whole = ZERO, ONE
    if mode != FUSED:
        peak, whole = row_total(y, r, mode, first, team)
        whole = team_sum(whole, team)
    q = y[r, label] / whole if used else ONE
    for c in range(first, y.shape[1], team):
        if not used:
            dy[r, c] = ZERO
        elif mode == PROBABILITIES:
            slope = ONE - ONE / clip(q) if c == label else ONE
            dy[r, c] = ZERO if was_clipped(q) else weight / whole * slope
        else:
            p = exp(y[r, c] - peak) / whole if mode == LOGITS else y[r, c]
            dy[r, c] = weight * p - (weight if c == label else ZERO)


def sparse_categorical_crossentropy_backward_cuda(dy, y, t, weights, mode, ignore):
    launch_rows(_sparse_gradient_row, *y.shape, dy, y, t, weights, mode, ignore)


@gpu
def _divergence_row(values, y, t, team):
    r, first, writes = own_row(y.shape[0], y.shape[1], team)
    total = ZERO
    for c in range(first, y.shape[1], team):
        total += _divergence(y[r, c], t[r, c])
    total = team_sum(total, team)
    if writes:
        values[r] = total


def kl_divergence_forward_cuda(values, y, t):
    launch_rows(_divergence_row, *y.shape, values, y, t)


@gpu
def _divergence_elements(dy, y, t, weights):
    C = y.shape[1]
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        r, c = i // C, i % C
        dy[r, c] = -weights[r] * _divergence_slope(y[r, c], t[r, c])


def kl_divergence_backward_cuda(dy, y, t, weights):
    over(_divergence_elements, y.size, dy, y, t, weights)
