"""Losses: one value a row, and its gradient.

Every leading dimension is flattened into rows. A forward pass writes the value of each row; a
backward pass writes `dy` for a total loss that is the sum of ``weights * values``, so sample
weights, masks and the division by their number have one place: the vector `weights`.

The cross-entropies take an integer `mode` that says what `y` is.
"""

import math

import numpy as np

from minicnnrnn.kernels.elementary import exp, sigmoid
from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split

# y holds probabilities; or logits; or probabilities that softmax or sigmoid made, and `dy` is
# wanted with respect to its logits: the derivative of the activation is skipped.
PROBABILITIES, LOGITS, FUSED = 0, 1, 2

IGNORE_NONE = -(2**31)  # a label that no row has
EPSILON = 1e-7  # probabilities are clipped to [EPSILON, 1 - EPSILON], as in Keras 3

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def mean_squared_error_forward_numpy(values, y, t):
    """Mean squared error.

    .. math:: v_r = \\frac{1}{C} \\sum_c (y_{rc} - t_{rc})^2

    Parameters
    ----------
    values : (R,), overwritten
    y : (R, C)
        What the model says.
    t : (R, C)
        What it should say: the target.

    Notes
    -----
    Cost of every loss here: each array is read or written once.
    """
    np.mean((y - t) ** 2, axis=1, out=values)


def mean_squared_error_backward_numpy(dy, y, t, weights):
    """Gradient of ``sum(weights * values)``; `weights` is (R,), `dy` is (R, C), overwritten."""
    dy[:] = weights[:, None] * 2 * (y - t) / y.shape[1]


def mean_absolute_error_forward_numpy(values, y, t):
    """Mean absolute error; shapes as in ``mean_squared_error_forward``.

    .. math:: v_r = \\frac{1}{C} \\sum_c |y_{rc} - t_{rc}|
    """
    np.mean(np.abs(y - t), axis=1, out=values)


def mean_absolute_error_backward_numpy(dy, y, t, weights):
    """Gradient of ``sum(weights * values)``; 0 where y equals t."""
    dy[:] = weights[:, None] * np.sign(y - t) / y.shape[1]


def huber_forward_numpy(values, y, t, delta):
    """Huber's loss: squared near the target, absolute beyond a distance of `delta`.

    .. math::
        v_r = \\frac{1}{C} \\sum_c \\begin{cases}
            e^2 / 2 & |e| \\le \\delta \\\\
            \\delta |e| - \\delta^2 / 2 & \\text{otherwise}
        \\end{cases}, \\qquad e = y_{rc} - t_{rc}

    Shapes as in ``mean_squared_error_forward``; `delta` is a float. Huber 1964, "Robust
    Estimation of a Location Parameter".
    """
    e = np.abs(y - t)
    np.mean(np.where(e <= delta, e * e / 2, delta * e - delta * delta / 2), axis=1, out=values)


def huber_backward_numpy(dy, y, t, weights, delta):
    """Gradient of ``sum(weights * values)``: the error, clipped to ``[-delta, delta]``."""
    dy[:] = weights[:, None] * np.clip(y - t, -delta, delta) / y.shape[1]


def _clipped(p):
    """Probabilities away from 0 and 1, and where that changed nothing (or they are NaN)."""
    return np.clip(p, EPSILON, 1 - EPSILON), ~((p < EPSILON) | (p > 1 - EPSILON))


def binary_crossentropy_forward_numpy(values, y, t, mode):
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
    """
    if mode == LOGITS:
        terms = y * ((y >= 0) - t) + np.log1p(np.exp(-np.abs(y)))
    else:
        p, _ = _clipped(y)
        terms = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    np.mean(terms, axis=1, out=values)


def binary_crossentropy_backward_numpy(dy, y, t, weights, mode):
    """Gradient of ``sum(weights * values)``.

    .. math:: \\frac{p - t}{p (1 - p)} \\quad \\text{with respect to p (0 where p was clipped)},
              \\qquad p - t \\quad \\text{with respect to the logits}

    each divided by C. ``PROBABILITIES`` gives the first; ``LOGITS`` and ``FUSED`` the second.
    """
    if mode == PROBABILITIES:
        p, inside = _clipped(y)
        gradient = np.where(inside, (p - t) / (p * (1 - p)), 0)
    elif mode == LOGITS:
        tail = np.exp(-np.abs(y))
        gradient = np.where(y < 0, tail, 1) / (1 + tail) - t
    else:
        gradient = y - t
    dy[:] = weights[:, None] * gradient / y.shape[1]


def _normalised(y):
    """Rows divided by their sums."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return y / np.sum(y, axis=1, keepdims=True)


def _log_softmax(y):
    with np.errstate(invalid="ignore"):  # inf - inf
        shifted = y - np.max(y, axis=1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))


def _one_hot(t, y, ignore):
    """The (R, C) targets that labels stand for; zero for rows to ignore."""
    return ((np.arange(y.shape[1]) == t[:, None]) & (t != ignore)[:, None]).astype(y.dtype)


def categorical_crossentropy_forward_numpy(values, y, t, mode):
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
    """
    logs = _log_softmax(y) if mode == LOGITS else np.log(_clipped(_normalised(y))[0])
    np.sum(-t * logs, axis=1, out=values)


def categorical_crossentropy_backward_numpy(dy, y, t, weights, mode):
    """Gradient of ``sum(weights * values)``.

    With :math:`s = \\sum_c y_c`, :math:`q = y / s`, and t set to 0 where q was clipped,

    .. math:: \\frac{1}{s} \\Big( \\sum_c t_c - \\frac{t_j}{q_j} \\Big)
              \\quad \\text{(probabilities)}, \\qquad
              p_j \\sum_c t_c - t_j \\quad \\text{(logits)}

    ``PROBABILITIES`` gives the first; ``LOGITS``, and ``FUSED`` with p = y, the second.
    """
    if mode == PROBABILITIES:
        q = _normalised(y)
        p, inside = _clipped(q)
        t = np.where(inside, t, 0)
        gradient = np.sum(t, axis=1, keepdims=True) - t / p
        with np.errstate(divide="ignore", invalid="ignore"):
            gradient = gradient / np.sum(y, axis=1, keepdims=True)
    else:
        p = np.exp(_log_softmax(y)) if mode == LOGITS else y
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
        Labels, from 0 up to C - 1.
    mode : int
    ignore : int
        A row with this label, which may lie outside that range, has value and gradient 0;
        ``IGNORE_NONE`` for none.
    """
    categorical_crossentropy_forward_numpy(values, y, _one_hot(t, y, ignore), mode)
    values[t == ignore] = 0


def sparse_categorical_crossentropy_backward_numpy(dy, y, t, weights, mode, ignore):
    """Gradient of ``sum(weights * values)``, as in ``categorical_crossentropy_backward``."""
    categorical_crossentropy_backward_numpy(dy, y, _one_hot(t, y, ignore), weights, mode)
    dy[t == ignore] = 0


def weighted_sum_numpy(totals, values, weights):
    """Add a batch to the running totals of a loss or a metric.

    .. math:: totals_0 \\leftarrow totals_0 + \\sum_r w_r v_r, \\qquad
              totals_1 \\leftarrow totals_1 + \\sum_r w_r

    Parameters
    ----------
    totals : float64 (2,), updated in place
    values, weights : (R,)
    """
    weights = weights.astype(np.float64)
    totals[0] += np.sum(weights * values)
    totals[1] += np.sum(weights)


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Rows are independent and are cut among threads. The sums within a row may be reassociated,
# since a row is never cut.

ZERO, HALF, ONE, TWO = (np.float32(x) for x in (0, 0.5, 1, 2))
LOW, HIGH = np.float32(EPSILON), np.float32(1 - EPSILON)
INFINITY = np.float32(np.inf)
# ln(1 + m) for 1 + m in [sqrt(1/2), sqrt(2)]: S. Moshier, Cephes, single precision.
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
L3, L4, L5, L6, L7, L8, L9, L10, L11 = (
    np.float32(x)
    for x in (
        3.3333331174e-1, -2.4999993993e-1, 2.0000714765e-1, -1.6668057665e-1, 1.4249322787e-1,
        -1.2420140846e-1, 1.1676998740e-1, -1.1514610310e-1, 7.0376836292e-2,
    )
)  # fmt: skip
ROOT_HALF_BITS = np.int32(0x3F3504F3)
MANTISSA_BITS = np.int32(23)


@inner
def _grain(columns):
    """Rows that make it worth waking a second thread."""
    return 1 + 8192 // columns


@inner
def _log(x):
    """Within 1e-7 of ln(x) for a normal x > 0; NaN and infinity stay."""
    bits = np.float32(x).view(np.int32)
    exponent = np.int32(np.int32(bits - ROOT_HALF_BITS) >> MANTISSA_BITS)
    m = np.int32(bits - np.int32(exponent << MANTISSA_BITS)).view(np.float32) - ONE
    p = ((((((L11 * m + L10) * m + L9) * m + L8) * m + L7) * m + L6) * m + L5) * m + L4
    n = np.float32(exponent)
    z = m * m
    log = (p * m + L3) * m * z + n * LN2_LOW - HALF * z + m + n * LN2_HIGH
    return log if x < INFINITY else x


@inner
def _log1p(x):
    """ln(1 + x) for x >= 0, without losing a small x."""
    whole = ONE + x
    return _log(whole) + (x - (whole - ONE)) / whole  # and what rounding `whole` took away


@inner
def _clip(p):
    p = LOW if p < LOW else p  # a NaN compares false and stays
    return HIGH if p > HIGH else p


@inner
def _clipped_away(p):
    return p < LOW or p > HIGH


@cpu(fastmath=REASSOCIATE)
def _squared_values(start, stop, worker, values, y, t):
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        for c in range(row.size):
            e = row[c] - target[c]
            total += e * e
        values[r] = total / np.float32(row.size)


@cpu
def mean_squared_error_forward_cpu(values, y, t):
    split(_squared_values, y.shape[0], _grain(y.shape[1]), (values, y, t))


@inner
def _squared_gradients(start, stop, worker, dy, y, t, weights):
    for r in range(start, stop):
        out, row, target = dy[r], y[r], t[r]
        scale = TWO * weights[r] / np.float32(row.size)
        for c in range(row.size):
            out[c] = scale * (row[c] - target[c])


@cpu
def mean_squared_error_backward_cpu(dy, y, t, weights):
    split(_squared_gradients, y.shape[0], _grain(y.shape[1]), (dy, y, t, weights))


@cpu(fastmath=REASSOCIATE)
def _absolute_values(start, stop, worker, values, y, t):
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        for c in range(row.size):
            total += abs(row[c] - target[c])
        values[r] = total / np.float32(row.size)


@cpu
def mean_absolute_error_forward_cpu(values, y, t):
    split(_absolute_values, y.shape[0], _grain(y.shape[1]), (values, y, t))


@inner
def _absolute_gradients(start, stop, worker, dy, y, t, weights):
    for r in range(start, stop):
        out, row, target = dy[r], y[r], t[r]
        scale = weights[r] / np.float32(row.size)
        for c in range(row.size):
            e = row[c] - target[c]
            sign = ONE if e > ZERO else e  # zero and NaN stay
            out[c] = scale * (-ONE if e < ZERO else sign)


@cpu
def mean_absolute_error_backward_cpu(dy, y, t, weights):
    split(_absolute_gradients, y.shape[0], _grain(y.shape[1]), (dy, y, t, weights))


@cpu(fastmath=REASSOCIATE)
def _huber_values(start, stop, worker, values, y, t, delta):
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        for c in range(row.size):
            e = abs(row[c] - target[c])
            total += HALF * e * e if e <= delta else delta * e - HALF * delta * delta
        values[r] = total / np.float32(row.size)


@cpu
def huber_forward_cpu(values, y, t, delta):
    arguments = (values, y, t, np.float32(delta))
    split(_huber_values, y.shape[0], _grain(y.shape[1]), arguments)


@inner
def _huber_gradients(start, stop, worker, dy, y, t, weights, delta):
    for r in range(start, stop):
        out, row, target = dy[r], y[r], t[r]
        scale = weights[r] / np.float32(row.size)
        for c in range(row.size):
            e = row[c] - target[c]
            e = delta if e > delta else e
            out[c] = scale * (-delta if e < -delta else e)


@cpu
def huber_backward_cpu(dy, y, t, weights, delta):
    arguments = (dy, y, t, weights, np.float32(delta))
    split(_huber_gradients, y.shape[0], _grain(y.shape[1]), arguments)


@cpu(fastmath=REASSOCIATE)
def _binary_values(start, stop, worker, values, y, t, mode):
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        if mode == LOGITS:
            for c in range(row.size):
                z = row[c]
                # max(z, 0) - z t as a product: no large terms that cancel
                total += _log1p(exp(z if z < ZERO else -z))
                total += z * ((ZERO if z < ZERO else ONE) - target[c])
        else:
            for c in range(row.size):
                p = _clip(row[c])
                total -= target[c] * _log(p) + (ONE - target[c]) * _log(ONE - p)
        values[r] = total / np.float32(row.size)


@cpu
def binary_crossentropy_forward_cpu(values, y, t, mode):
    split(_binary_values, y.shape[0], _grain(4 * y.shape[1]), (values, y, t, mode))


@inner
def _binary_gradients(start, stop, worker, dy, y, t, weights, mode):
    for r in range(start, stop):
        out, row, target = dy[r], y[r], t[r]
        scale = weights[r] / np.float32(row.size)
        if mode == PROBABILITIES:
            for c in range(row.size):
                p = _clip(row[c])
                gradient = (p - target[c]) / (p * (ONE - p))
                out[c] = scale * (ZERO if _clipped_away(row[c]) else gradient)
        elif mode == LOGITS:
            for c in range(row.size):
                out[c] = scale * (sigmoid(row[c]) - target[c])
        else:
            for c in range(row.size):
                out[c] = scale * (row[c] - target[c])


@cpu
def binary_crossentropy_backward_cpu(dy, y, t, weights, mode):
    split(_binary_gradients, y.shape[0], _grain(y.shape[1]), (dy, y, t, weights, mode))


@inner
def _peak(x):
    largest = x[0]
    for c in range(x.size):
        largest = x[c] if x[c] > largest else largest
    return largest


@cpu(fastmath=REASSOCIATE)
def _categorical_values(start, stop, worker, values, y, t, mode):
    for r in range(start, stop):
        row, target, whole, total = y[r], t[r], ZERO, ZERO
        if mode == LOGITS:
            peak = _peak(row)
            for c in range(row.size):
                whole += exp(row[c] - peak)
            log = np.float32(math.log(whole))
            for c in range(row.size):
                total -= target[c] * ((row[c] - peak) - log)
        else:
            for c in range(row.size):
                whole += row[c]
            for c in range(row.size):
                total -= target[c] * _log(_clip(row[c] / whole))
        values[r] = total


@cpu
def categorical_crossentropy_forward_cpu(values, y, t, mode):
    split(_categorical_values, y.shape[0], _grain(4 * y.shape[1]), (values, y, t, mode))


@cpu(fastmath=REASSOCIATE)
def _categorical_gradients(start, stop, worker, dy, y, t, weights, mode):
    for r in range(start, stop):
        out, row, target, weight, whole, mass = dy[r], y[r], t[r], weights[r], ZERO, ZERO
        if mode == PROBABILITIES:
            for c in range(row.size):
                whole += row[c]
            for c in range(row.size):
                q = row[c] / whole
                share = ZERO if _clipped_away(q) else target[c]
                mass += share
                out[c] = share / _clip(q)
            scale = weight / whole
            for c in range(row.size):
                out[c] = scale * (mass - out[c])
            continue
        for c in range(row.size):
            mass += target[c]
        if mode == LOGITS:
            peak = _peak(row)
            for c in range(row.size):
                out[c] = exp(row[c] - peak)
                whole += out[c]
            for c in range(row.size):
                out[c] = weight * (out[c] / whole * mass - target[c])
        else:
            for c in range(row.size):
                out[c] = weight * (row[c] * mass - target[c])


@cpu
def categorical_crossentropy_backward_cpu(dy, y, t, weights, mode):
    split(_categorical_gradients, y.shape[0], _grain(4 * y.shape[1]), (dy, y, t, weights, mode))


@cpu(fastmath=REASSOCIATE)
def _sparse_values(start, stop, worker, values, y, t, mode, ignore):
    for r in range(start, stop):
        row, label, whole = y[r], t[r], ZERO
        if label == ignore:
            values[r] = ZERO
        elif mode == LOGITS:
            peak = _peak(row)
            for c in range(row.size):
                whole += exp(row[c] - peak)
            values[r] = np.float32(math.log(whole)) - (row[label] - peak)
        else:
            for c in range(row.size):
                whole += row[c]
            values[r] = -math.log(_clip(row[label] / whole))


@cpu
def sparse_categorical_crossentropy_forward_cpu(values, y, t, mode, ignore):
    split(_sparse_values, y.shape[0], _grain(2 * y.shape[1]), (values, y, t, mode, ignore))


@cpu(fastmath=REASSOCIATE)
def _sparse_gradients(start, stop, worker, dy, y, t, weights, mode, ignore):
    for r in range(start, stop):
        out, row, label, weight, whole = dy[r], y[r], t[r], weights[r], ZERO
        if label == ignore:
            for c in range(row.size):
                out[c] = ZERO
        elif mode == PROBABILITIES:
            for c in range(row.size):
                whole += row[c]
            q = row[label] / whole
            each = ZERO if _clipped_away(q) else weight / whole
            for c in range(row.size):
                out[c] = each
            out[label] = each * (ONE - ONE / _clip(q))
        elif mode == LOGITS:
            peak = _peak(row)
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
    split(_sparse_gradients, y.shape[0], _grain(2 * y.shape[1]), arguments)


@cpu(fastmath=REASSOCIATE)
def weighted_sum_cpu(totals, values, weights):
    # Serial: a sum in one fixed order, of less than a nanosecond an element.
    total, weight = np.float64(0), np.float64(0)
    for r in range(values.size):
        total += np.float64(values[r]) * np.float64(weights[r])
        weight += np.float64(weights[r])
    totals[0] += total
    totals[1] += weight
