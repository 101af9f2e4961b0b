"""Focal losses: cross-entropies that count what is already right for less.

Values, gradients, rows and weights as in ``regression_loss.py``, modes and `smoothing` as in
``crossentropy.py``; a fused mode there is none. Lin et al. 2017, "Focal Loss for Dense Object
Detection", arXiv:1708.02002, section 3.
"""

import numpy as np

from minicnnrnn.kernels.codes import LOGITS
from minicnnrnn.kernels.crossentropy import (
    clip,
    clipped,
    log_softmax,
    normalised,
    peak_of,
    row_total,
    smoothed,
    was_clipped,
)
from minicnnrnn.kernels.elementary import always, exp, log, sigmoid
from minicnnrnn.kernels.gpu import cuda, gpu, over
from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.reduce import launch_rows, own_row, team_sum
from minicnnrnn.kernels.regression_loss import grain

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def _slope(x, gamma):
    """Derivative of a power; that of ``x ** 0`` is zero everywhere."""
    return gamma * x ** (gamma - 1) if gamma else np.zeros_like(x)


def _sigmoid(y):
    tail = np.exp(-np.abs(y))
    return np.where(y < 0, tail, 1) / (1 + tail)


def binary_focal_crossentropy_forward_numpy(
    values, y, t, positive, negative, gamma, mode, smoothing
):
    """Focal cross-entropy of C independent yes-or-no questions.

    .. math:: v_r = -\\frac{1}{C} \\sum_c \\alpha_{rc} (1 - q_{rc})^\\gamma
              \\big( t_{rc} \\ln p_{rc} + (1 - t_{rc}) \\ln (1 - p_{rc}) \\big)

    with :math:`q = t p + (1 - t)(1 - p)` and :math:`\\alpha = t a + (1 - t) b`.

    Parameters
    ----------
    values : (R,), overwritten
    y : (R, C)
        Probabilities p, clipped to [1e-7, 1 - 1e-7] under the logarithm, or their logits.
    t : (R, C)
        Target probabilities.
    positive, negative : float
        The weights a of yes and b of no.
    gamma : float
        How much what is right counts for less; 0 gives the cross-entropy.
    mode : int
        ``PROBABILITIES`` or ``LOGITS``.
    smoothing : float
    """
    t = smoothed(t, smoothing, 2)
    y = _sigmoid(y) if mode == LOGITS else y
    p, _ = clipped(y)
    alpha = t * positive + (1 - t) * negative
    right = t * y + (1 - t) * (1 - y)
    entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    np.mean(alpha * (1 - right) ** gamma * entropy, axis=1, out=values)


def binary_focal_crossentropy_backward_numpy(
    dy, y, t, weights, positive, negative, gamma, mode, smoothing
):
    """Gradient of ``sum(weights * values)``: the product rule, and the sigmoid's derivative."""
    t = smoothed(t, smoothing, 2)
    y = _sigmoid(y) if mode == LOGITS else y
    p, inside = clipped(y)
    alpha = t * positive + (1 - t) * negative
    wrong = 1 - (t * y + (1 - t) * (1 - y))
    entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    gradient = np.where(inside, (p - t) / (p * (1 - p)), 0) * wrong**gamma
    gradient = alpha * (gradient + entropy * _slope(wrong, gamma) * (1 - 2 * t))
    if mode == LOGITS:
        gradient = gradient * y * (1 - y)
    dy[:] = weights[:, None] * gradient / y.shape[1]


def categorical_focal_crossentropy_forward_numpy(values, y, t, alpha, gamma, mode, smoothing):
    """Focal cross-entropy between distributions over C classes.

    .. math:: v_r = -\\sum_c \\alpha_c (1 - p_{rc})^\\gamma \\, t_{rc} \\ln p_{rc}

    Parameters
    ----------
    values : (R,), overwritten
    y : (R, C)
        Probabilities, divided by their row's sum and clipped to [1e-7, 1 - 1e-7], or logits.
    t : (R, C)
        Target probabilities.
    alpha : (C,), or (1,) for all classes
    gamma : float
    mode : int
        ``PROBABILITIES`` or ``LOGITS``.
    smoothing : float
    """
    t = smoothed(t, smoothing, y.shape[1])
    p, _ = clipped(np.exp(log_softmax(y)) if mode == LOGITS else normalised(y))
    np.sum(-alpha * (1 - p) ** gamma * t * np.log(p), axis=1, out=values)


def categorical_focal_crossentropy_backward_numpy(dy, y, t, weights, alpha, gamma, mode, smoothing):
    """Gradient of ``sum(weights * values)``.

    .. math:: g_j = \\alpha_j t_j \\big( \\gamma (1 - p_j)^{\\gamma - 1} \\ln p_j
              - (1 - p_j)^\\gamma / p_j \\big), \\qquad
              \\frac{g_j - \\sum_c g_c p_c}{\\sum_c y_c} \\quad \\text{(probabilities)}, \\qquad
              p_j \\big( g_j - \\sum_c g_c p_c \\big) \\quad \\text{(logits)}

    with g set to 0 where p was clipped.
    """
    t = smoothed(t, smoothing, y.shape[1])
    q = np.exp(log_softmax(y)) if mode == LOGITS else normalised(y)
    p, inside = clipped(q)
    g = _slope(1 - p, gamma) * np.log(p) - (1 - p) ** gamma / p
    g = np.where(inside, alpha * t * g, 0)
    g = g - np.sum(g * q, axis=1, keepdims=True)
    g = g * q if mode == LOGITS else g / np.sum(y, axis=1, keepdims=True)
    dy[:] = weights[:, None] * g


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Rows are independent and are cut among threads.

ZERO, HALF, ONE, TWO = (np.float32(x) for x in (0, 0.5, 1, 2))


@inner
def _power(x, gamma):
    """A power; the usual ones without a call."""
    if gamma == TWO:
        return x * x
    if gamma == ONE:
        return x
    return np.float32(x**gamma)


@inner
def _power_slope(x, gamma):
    return ZERO * x if gamma == ZERO else gamma * _power(x, gamma - ONE)


@inner
def _binary_term(y, t, gamma):
    """The value of one question, and its derivative with respect to the probability."""
    p = clip(y)
    wrong = ONE - (t * y + (ONE - t) * (ONE - y))
    entropy = -(t * log(p) + (ONE - t) * log(ONE - p))
    slope = ZERO if was_clipped(y) else (p - t) / (p * (ONE - p))
    factor = _power(wrong, gamma)
    return factor * entropy, slope * factor + entropy * _power_slope(wrong, gamma) * (ONE - TWO * t)


@cpu(fastmath=REASSOCIATE)
def _binary_values(start, stop, worker, values, y, t, positive, negative, gamma, mode, smoothing):
    keep, spread = ONE - smoothing, HALF * smoothing
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        for c in range(row.size):
            p = sigmoid(row[c]) if mode == LOGITS else row[c]
            q = keep * target[c] + spread
            term, _ = _binary_term(p, q, gamma)
            total += (q * positive + (ONE - q) * negative) * term
        values[r] = total / np.float32(row.size)


@cpu
def binary_focal_crossentropy_forward_cpu(values, y, t, positive, negative, gamma, mode, smoothing):
    floats = (np.float32(positive), np.float32(negative), np.float32(gamma))
    arguments = (values, y, t, *floats, mode, np.float32(smoothing))
    split(_binary_values, y.shape[0], grain(8 * y.shape[1]), arguments)


@inner
def _binary_gradients(
    start, stop, worker, dy, y, t, weights, positive, negative, gamma, mode, smoothing
):
    keep, spread = ONE - smoothing, HALF * smoothing
    for r in range(start, stop):
        out, row, target = dy[r], y[r], t[r]
        scale = weights[r] / np.float32(row.size)
        for c in range(row.size):
            p = sigmoid(row[c]) if mode == LOGITS else row[c]
            q = keep * target[c] + spread
            _, slope = _binary_term(p, q, gamma)
            slope = slope * p * (ONE - p) if mode == LOGITS else slope
            out[c] = scale * (q * positive + (ONE - q) * negative) * slope


@cpu
def binary_focal_crossentropy_backward_cpu(
    dy, y, t, weights, positive, negative, gamma, mode, smoothing
):
    floats = (np.float32(positive), np.float32(negative), np.float32(gamma))
    arguments = (dy, y, t, weights, *floats, mode, np.float32(smoothing))
    split(_binary_gradients, y.shape[0], grain(8 * y.shape[1]), arguments)


@cpu(fastmath=REASSOCIATE)
def _total(row, mode):
    """What a row is to be divided by, and the peak to subtract first from logits."""
    peak = peak_of(row) if mode == LOGITS else ZERO
    total = ZERO
    for c in range(row.size):
        total += exp(row[c] - peak) if mode == LOGITS else row[c]
    return peak, total


@always
def _class_slope(p, gamma):
    return _power_slope(ONE - p, gamma) * log(p) - _power(ONE - p, gamma) / p


@cpu(fastmath=REASSOCIATE)
def _categorical_values(start, stop, worker, values, y, t, alpha, gamma, mode, smoothing):
    keep, spread = ONE - smoothing, smoothing / np.float32(y.shape[1])
    each = 1 if alpha.size > 1 else 0
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        peak, whole = _total(row, mode)
        for c in range(row.size):
            p = clip((exp(row[c] - peak) if mode == LOGITS else row[c]) / whole)
            share = alpha[each * c] * (keep * target[c] + spread)
            total -= share * _power(ONE - p, gamma) * log(p)
        values[r] = total


@cpu
def categorical_focal_crossentropy_forward_cpu(values, y, t, alpha, gamma, mode, smoothing):
    arguments = (values, y, t, alpha, np.float32(gamma), mode, np.float32(smoothing))
    split(_categorical_values, y.shape[0], grain(8 * y.shape[1]), arguments)


@cpu(fastmath=REASSOCIATE)
def _categorical_gradients(start, stop, worker, dy, y, t, weights, alpha, gamma, mode, smoothing):
    keep, spread = ONE - smoothing, smoothing / np.float32(y.shape[1])
    each = 1 if alpha.size > 1 else 0
    for r in range(start, stop):
        out, row, target, along = dy[r], y[r], t[r], ZERO
        peak, whole = _total(row, mode)
        for c in range(row.size):
            q = (exp(row[c] - peak) if mode == LOGITS else row[c]) / whole
            p, share = clip(q), alpha[each * c] * (keep * target[c] + spread)
            out[c] = ZERO if was_clipped(q) else share * _class_slope(p, gamma)
            along += out[c] * q
        for c in range(row.size):
            factor = exp(row[c] - peak) / whole if mode == LOGITS else ONE / whole
            out[c] = weights[r] * factor * (out[c] - along)


@cpu
def categorical_focal_crossentropy_backward_cpu(dy, y, t, weights, alpha, gamma, mode, smoothing):
    arguments = (dy, y, t, weights, alpha, np.float32(gamma), mode, np.float32(smoothing))
    split(_categorical_gradients, y.shape[0], grain(8 * y.shape[1]), arguments)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A team of threads for every row; a thread for every element where a gradient needs no sum.


@gpu
def _binary_row(values, y, t, positive, negative, gamma, mode, smoothing, team):
    r, first, writes = own_row(y.shape[0], y.shape[1], team)
    total, s = ZERO, np.float32(smoothing)
    yes, no, g = np.float32(positive), np.float32(negative), np.float32(gamma)
    for c in range(first, y.shape[1], team):
        p = sigmoid(y[r, c]) if mode == LOGITS else y[r, c]
        q = (ONE - s) * t[r, c] + HALF * s
        term, _ = _binary_term(p, q, g)
        total += (q * yes + (ONE - q) * no) * term
    total = team_sum(total, team)
    if writes:
        values[r] = total / np.float32(y.shape[1])


def binary_focal_crossentropy_forward_cuda(
    values, y, t, positive, negative, gamma, mode, smoothing
):
    floats = (float(positive), float(negative), float(gamma))
    launch_rows(_binary_row, *y.shape, values, y, t, *floats, mode, float(smoothing))


@gpu
def _binary_elements(dy, y, t, weights, positive, negative, gamma, mode, smoothing):
    C, s = y.shape[1], np.float32(smoothing)
    yes, no, g = np.float32(positive), np.float32(negative), np.float32(gamma)
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        r, c = i // C, i % C
        p = sigmoid(y[r, c]) if mode == LOGITS else y[r, c]
        q = (ONE - s) * t[r, c] + HALF * s
        _, slope = _binary_term(p, q, g)
        slope = slope * p * (ONE - p) if mode == LOGITS else slope
        dy[r, c] = weights[r] / np.float32(C) * (q * yes + (ONE - q) * no) * slope


def binary_focal_crossentropy_backward_cuda(
    dy, y, t, weights, positive, negative, gamma, mode, smoothing
):
    floats = (float(positive), float(negative), float(gamma))
    over(_binary_elements, y.size, dy, y, t, weights, *floats, mode, float(smoothing))


@gpu
def _categorical_row(values, y, t, alpha, gamma, mode, smoothing, team):
    r, first, writes = own_row(y.shape[0], y.shape[1], team)
    total, s, g = ZERO, np.float32(smoothing), np.float32(gamma)
    each, spread = 1 if alpha.size > 1 else 0, s / np.float32(y.shape[1])
    peak, whole = row_total(y, r, mode, first, team)
    whole = team_sum(whole, team)
    for c in range(first, y.shape[1], team):
        p = clip((exp(y[r, c] - peak) if mode == LOGITS else y[r, c]) / whole)
        share = alpha[each * c] * ((ONE - s) * t[r, c] + spread)
        total -= share * _power(ONE - p, g) * log(p)
    total = team_sum(total, team)
    if writes:
        values[r] = total


def categorical_focal_crossentropy_forward_cuda(values, y, t, alpha, gamma, mode, smoothing):
    arguments = (y, t, alpha, float(gamma), mode, float(smoothing))
    launch_rows(_categorical_row, *y.shape, values, *arguments)


@gpu
def _categorical_gradient_row(dy, y, t, weights, alpha, gamma, mode, smoothing, team):
    r, first, _ = own_row(y.shape[0], y.shape[1], team)
    along, s, g = ZERO, np.float32(smoothing), np.float32(gamma)
    each, spread = 1 if alpha.size > 1 else 0, s / np.float32(y.shape[1])
    peak, whole = row_total(y, r, mode, first, team)
    whole = team_sum(whole, team)
    for c in range(first, y.shape[1], team):
        q = (exp(y[r, c] - peak) if mode == LOGITS else y[r, c]) / whole
        share = alpha[each * c] * ((ONE - s) * t[r, c] + spread)
        slope = ZERO if was_clipped(q) else share * _class_slope(clip(q), g)
        dy[r, c] = slope
        along += slope * q
    along = team_sum(along, team)
    for c in range(first, y.shape[1], team):
        factor = exp(y[r, c] - peak) / whole if mode == LOGITS else ONE / whole
        dy[r, c] = weights[r] * factor * (dy[r, c] - along)


def categorical_focal_crossentropy_backward_cuda(dy, y, t, weights, alpha, gamma, mode, smoothing):
    arguments = (y, t, weights, alpha, float(gamma), mode, float(smoothing))
    launch_rows(_categorical_gradient_row, *y.shape, dy, *arguments)
