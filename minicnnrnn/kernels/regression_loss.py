"""Regression losses: a row's value is the mean of a function of outputs and targets.

Every leading dimension is flattened into rows. A forward pass writes the value of each row; a
backward pass writes `dy` for a total loss that is the sum of ``weights * values``, so sample
weights, masks and the division by their number have one place: the vector `weights`. All files
of losses keep to this.

One kernel serves all of them, told by an integer code which function is meant.
"""

import numpy as np

from minicnnrnn.kernels.codes import (
    ABSOLUTE,
    HUBER,
    LOG_COSH,
    LOGARITHMIC,
    PERCENTAGE,
    SQUARED,
)
from minicnnrnn.kernels.elementary import exp, log, log1p, tanh
from minicnnrnn.kernels.gpu import cuda, gpu, over
from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.reduce import launch_rows, own_row, team_sum

EPSILON = 1e-7  # Keras' epsilon()

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def regression_loss_forward_numpy(values, y, t, code, delta):
    """Losses of real numbers.

    .. math:: v_r = \\frac{1}{C} \\sum_c f(y_{rc}, t_{rc})

    with the error :math:`e = y - t` and :math:`\\epsilon = 10^{-7}`:

    ===============  =====================================================================
    ``SQUARED``      :math:`e^2`
    ``ABSOLUTE``     :math:`|e|`
    ``HUBER``        :math:`e^2 / 2` up to :math:`|e| = \\delta`, then
                     :math:`\\delta |e| - \\delta^2 / 2`; Huber 1964, "Robust Estimation of a
                     Location Parameter"
    ``PERCENTAGE``   :math:`100 |e| / \\max(|t|, \\epsilon)`
    ``LOGARITHMIC``  :math:`(\\ln(1 + \\max(y, \\epsilon)) - \\ln(1 + \\max(t, \\epsilon)))^2`
    ``LOG_COSH``     :math:`\\ln \\cosh e`
    ``POISSON``      :math:`y - t \\ln(y + \\epsilon)`; NaN where :math:`y < -\\epsilon`
    ===============  =====================================================================

    Parameters
    ----------
    values : (R,), overwritten
    y : (R, C)
        What the model says.
    t : (R, C)
        What it should say: the target.
    code : int
        Which function.
    delta : float
        Of Huber's loss.

    Notes
    -----
    Cost of every loss here: each array is read or written once.
    """
    e = y - t
    if code == SQUARED:
        terms = e * e
    elif code == ABSOLUTE:
        terms = np.abs(e)
    elif code == HUBER:
        terms = np.where(np.abs(e) <= delta, e * e / 2, delta * np.abs(e) - delta * delta / 2)
    elif code == PERCENTAGE:
        terms = 100 * np.abs(e) / np.maximum(np.abs(t), EPSILON)
    elif code == LOGARITHMIC:
        terms = _log_ratio(y, t) ** 2
    elif code == LOG_COSH:
        terms = np.abs(e) + np.log1p(np.exp(-2 * np.abs(e))) - np.log(y.dtype.type(2))
    else:
        with np.errstate(invalid="ignore", divide="ignore"):
            terms = y - t * np.log(y + y.dtype.type(EPSILON))
    np.mean(terms, axis=1, out=values)


def _log_ratio(y, t):
    return np.log1p(np.maximum(y, EPSILON)) - np.log1p(np.maximum(t, EPSILON))


def regression_loss_backward_numpy(dy, y, t, weights, code, delta):
    """Gradient of ``sum(weights * values)``; `weights` is (R,), `dy` is (R, C), overwritten.

    .. math:: dy_{rc} = \\frac{w_r}{C} \\, \\frac{\\partial f}{\\partial y}(y_{rc}, t_{rc})

    The derivatives are, in the order of the table, :math:`2e`, sign e, e clipped to
    :math:`\\pm\\delta`, :math:`100` sign :math:`e / \\max(|t|, \\epsilon)`,
    :math:`2 (\\ln(1 + y) - \\ln(1 + t)) / (1 + y)` (0 where y was below epsilon),
    :math:`\\tanh e`, and :math:`1 - t / (y + \\epsilon)`. The sign of zero is zero.
    """
    e = y - t
    if code == SQUARED:
        slope = 2 * e
    elif code == ABSOLUTE:
        slope = np.sign(e)
    elif code == HUBER:
        slope = np.clip(e, -delta, delta)
    elif code == PERCENTAGE:
        slope = 100 * np.sign(e) / np.maximum(np.abs(t), EPSILON)
    elif code == LOGARITHMIC:
        slope = np.where(y < EPSILON, 0, 2 * _log_ratio(y, t) / (1 + np.maximum(y, EPSILON)))
    elif code == LOG_COSH:
        slope = np.tanh(e)
    else:
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = 1 - t / (y + y.dtype.type(EPSILON))
    dy[:] = weights[:, None] * slope / y.shape[1]


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Rows are independent and are cut among threads. The sums within a row may be reassociated,
# since a row is never cut. The code is asked once a row, so that each loop vectorises.

ZERO, HALF, ONE, TWO, HUNDRED = (np.float32(x) for x in (0, 0.5, 1, 2, 100))
LOW, LN2 = np.float32(EPSILON), np.float32(np.log(2))
INFINITY, NAN = np.float32(np.inf), np.float32(np.nan)


@inner
def grain(columns):
    """Rows that make it worth waking a second thread."""
    return 1 + 8192 // columns


@inner
def _at_least_low(x):
    return LOW if x < LOW else x  # a NaN compares false and stays


@inner
def _sign(e):
    sign = ONE if e > ZERO else e  # zero and NaN stay
    return -ONE if e < ZERO else sign


@inner
def _any_log(x):
    """The logarithm of any number: minus infinity for zero, NaN below."""
    beyond = -INFINITY if x == ZERO else NAN
    return log(x) if x > ZERO else beyond


@inner
def _huber(e, delta):
    return HALF * e * e if e <= delta else delta * e - HALF * delta * delta


@inner
def _percentage(e, t):
    return HUNDRED * e / _at_least_low(abs(t))


@inner
def _log_difference(y, t):
    return log1p(_at_least_low(y)) - log1p(_at_least_low(t))


@inner
def _log_cosh(e):
    return e + (log1p(exp(-TWO * e)) - LN2)


@inner
def _poisson(y, t):
    return y - t * _any_log(y + LOW)


@cpu(fastmath=REASSOCIATE)
def _values(start, stop, worker, values, y, t, code, delta):
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        if code == SQUARED:
            for c in range(row.size):
                e = row[c] - target[c]
                total += e * e
        elif code == ABSOLUTE:
            for c in range(row.size):
                total += abs(row[c] - target[c])
        elif code == HUBER:
            for c in range(row.size):
                total += _huber(abs(row[c] - target[c]), delta)
        elif code == PERCENTAGE:
            for c in range(row.size):
                total += _percentage(abs(row[c] - target[c]), target[c])
        elif code == LOGARITHMIC:
            for c in range(row.size):
                e = _log_difference(row[c], target[c])
                total += e * e
        elif code == LOG_COSH:
            for c in range(row.size):
                total += _log_cosh(abs(row[c] - target[c]))
        else:
            for c in range(row.size):
                total += _poisson(row[c], target[c])
        values[r] = total / np.float32(row.size)


@cpu
def regression_loss_forward_cpu(values, y, t, code, delta):
    arguments = (values, y, t, code, np.float32(delta))
    split(_values, y.shape[0], grain(y.shape[1]), arguments)


@inner
def _huber_slope(e, delta):
    e = delta if e > delta else e
    return -delta if e < -delta else e


@inner
def _logarithmic_slope(y, t):
    slope = TWO * _log_difference(y, t) / (ONE + _at_least_low(y))
    return ZERO if y < LOW else slope


@inner
def _poisson_slope(y, t):
    return ONE - t / (y + LOW)


@inner
def _gradients(start, stop, worker, dy, y, t, weights, code, delta):
    for r in range(start, stop):
        out, row, target = dy[r], y[r], t[r]
        scale = weights[r] / np.float32(row.size)
        if code == SQUARED:
            for c in range(row.size):
                out[c] = scale * (TWO * (row[c] - target[c]))
        elif code == ABSOLUTE:
            for c in range(row.size):
                out[c] = scale * _sign(row[c] - target[c])
        elif code == HUBER:
            for c in range(row.size):
                out[c] = scale * _huber_slope(row[c] - target[c], delta)
        elif code == PERCENTAGE:
            for c in range(row.size):
                out[c] = scale * _percentage(_sign(row[c] - target[c]), target[c])
        elif code == LOGARITHMIC:
            for c in range(row.size):
                out[c] = scale * _logarithmic_slope(row[c], target[c])
        elif code == LOG_COSH:
            for c in range(row.size):
                out[c] = scale * tanh(row[c] - target[c])
        else:
            for c in range(row.size):
                out[c] = scale * _poisson_slope(row[c], target[c])


@cpu
def regression_loss_backward_cpu(dy, y, t, weights, code, delta):
    arguments = (dy, y, t, weights, code, np.float32(delta))
    split(_gradients, y.shape[0], grain(y.shape[1]), arguments)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A team of threads for every row of values; a thread for every element of a gradient.


@gpu
def _value(y, t, code, delta):
    e = abs(y - t)
    if code == SQUARED:
        return e * e
    if code == ABSOLUTE:
        return e
    if code == HUBER:
        return _huber(e, delta)
    if code == PERCENTAGE:
        return _percentage(e, t)
    if code == LOGARITHMIC:
        return _log_difference(y, t) * _log_difference(y, t)
    return _log_cosh(e) if code == LOG_COSH else _poisson(y, t)


@gpu
def _value_of_row(values, y, t, code, delta, team):
    r, first, writes = own_row(y.shape[0], y.shape[1], team)
    total = ZERO
    for c in range(first, y.shape[1], team):
        total += _value(y[r, c], t[r, c], code, np.float32(delta))
    total = team_sum(total, team)
    if writes:
        values[r] = total / np.float32(y.shape[1])


def regression_loss_forward_cuda(values, y, t, code, delta):
    launch_rows(_value_of_row, *y.shape, values, y, t, code, float(delta))


@gpu
def _slope(y, t, code, delta):
    e = y - t
    if code == SQUARED:
        return TWO * e
    if code == ABSOLUTE:
        return _sign(e)
    if code == HUBER:
        return _huber_slope(e, delta)
    if code == PERCENTAGE:
        return _percentage(_sign(e), t)
    if code == LOGARITHMIC:
        return _logarithmic_slope(y, t)
    return tanh(e) if code == LOG_COSH else _poisson_slope(y, t)


@gpu
def _gradient_elements(dy, y, t, weights, code, delta):
    C = y.shape[1]
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        r, c = i // C, i % C
        scale = weights[r] / np.float32(C)
        dy[r, c] = scale * _slope(y[r, c], t[r, c], code, np.float32(delta))


def regression_loss_backward_cuda(dy, y, t, weights, code, delta):
    over(_gradient_elements, y.size, dy, y, t, weights, code, float(delta))
