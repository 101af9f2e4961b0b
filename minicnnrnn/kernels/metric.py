"""Metrics: for every row, how right the output is; and the sums that batches add up to.

What counts rows by thresholds or classes is in ``confusion.py``; many metrics are the values of
a loss.
"""

import numpy as np

from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def binary_accuracy_numpy(values, y, t, threshold):
    """Share of outputs on the right side of a threshold.

    .. math:: v_r = \\frac{1}{C} \\sum_c [\\, [y_{rc} > \\theta] = t_{rc} \\,]

    Parameters
    ----------
    values : (R,), overwritten
    y : (R, C)
    t : (R, C)
        0 or 1.
    threshold : float

    Notes
    -----
    Every metric here reads its arrays once. A NaN is above no threshold.
    """
    np.mean((y > threshold) == t, axis=1, out=values)


def categorical_accuracy_numpy(values, y, t):
    """1 where the largest output is the class of the largest target, else 0.

    .. math:: v_r = [\\, \\arg\\max_c y_{rc} = \\arg\\max_c t_{rc} \\,]

    Shapes as in ``binary_accuracy``. Of equals the first counts as the largest, and a NaN as
    larger than any number.
    """
    values[:] = np.argmax(y, axis=1) == np.argmax(t, axis=1)


def sparse_categorical_accuracy_numpy(values, y, t):
    """1 where the largest output is that of the label, else 0; `t` as in ``sparse_top_k``."""
    values[:] = np.argmax(y, axis=1) == t


def sparse_top_k_numpy(values, y, t, k):
    """1 where fewer than `k` outputs are larger than that of the label, else 0.

    .. math:: v_r = [\\, |\\{c : y_{rc} > y_{r, t_r}\\}| < k \\,]

    Parameters
    ----------
    values : (R,), overwritten
    y : (R, C)
    t : int32 (R,)
        Labels; the value is 0 where one is none of 0 to C - 1 (which a loss may ignore).
    k : int

    Notes
    -----
    Equals do not push each other out. A NaN is no larger than anything, and counts as minus
    infinity where it is the label's. As in Keras 3 on JAX.
    """
    known = (t >= 0) & (t < y.shape[1])
    label = np.take_along_axis(y, np.where(known, t, 0)[:, None], axis=1)
    larger = np.sum(y > np.where(np.isnan(label), -np.inf, label), axis=1)
    values[:] = known & (larger < k)


def top_k_numpy(values, y, t, k):
    """As ``sparse_top_k``, where the label is the class of the largest target; `t` is (R, C)."""
    sparse_top_k_numpy(values, y, np.argmax(t, axis=1), k)


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


def variance_sums_numpy(totals, y, t, weights):
    """Add a batch to the sums from which the explained share of the variance follows.

    Parameters
    ----------
    totals : float64 (4 C + 1,), updated in place
        For each of C outputs the sums of w, of w t, of w t^2 and of w (t - y)^2; then the number
        of rows whose weight is not 0.
    y, t : (R, C)
    weights : (R,)
    """
    y, t, w = (a.astype(np.float64) for a in (y, t, weights[:, None]))
    terms = (w + 0 * t, w * t, w * t * t, w * (t - y) ** 2)
    totals[:-1] += np.concatenate([np.sum(term, axis=0) for term in terms])
    totals[-1] += np.sum(weights != 0)


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Rows are independent and are cut among threads.

ZERO, ONE, LOWEST = np.float32(0), np.float32(1), np.float32(-np.inf)


@inner
def _grain(columns):
    """Rows that make it worth waking a second thread."""
    return 1 + 16384 // columns


@inner
def _argmax(row):
    best, largest = 0, row[0]
    for c in range(1, row.size):
        v = row[c]
        if v > largest or (v != v and largest == largest):
            best, largest = c, v
    return best


@inner
def _among_top(row, label, k):
    if label < 0 or label >= row.size:
        return ZERO
    score = row[label] if row[label] == row[label] else LOWEST
    larger = 0
    for c in range(row.size):
        larger += 1 if row[c] > score else 0
    return ONE if larger < k else ZERO


@cpu(fastmath=REASSOCIATE)
def _binary_rows(start, stop, worker, values, y, t, threshold):
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        for c in range(row.size):
            side = ONE if row[c] > threshold else ZERO
            total += ONE if side == target[c] else ZERO
        values[r] = total / np.float32(row.size)


@cpu
def binary_accuracy_cpu(values, y, t, threshold):
    arguments = (values, y, t, np.float32(threshold))
    split(_binary_rows, y.shape[0], _grain(y.shape[1]), arguments)


@inner
def _categorical_rows(start, stop, worker, values, y, t):
    for r in range(start, stop):
        values[r] = ONE if _argmax(y[r]) == _argmax(t[r]) else ZERO


@cpu
def categorical_accuracy_cpu(values, y, t):
    split(_categorical_rows, y.shape[0], _grain(y.shape[1]), (values, y, t))


@inner
def _sparse_categorical_rows(start, stop, worker, values, y, t):
    for r in range(start, stop):
        values[r] = ONE if _argmax(y[r]) == t[r] else ZERO


@cpu
def sparse_categorical_accuracy_cpu(values, y, t):
    split(_sparse_categorical_rows, y.shape[0], _grain(y.shape[1]), (values, y, t))


@inner
def _sparse_top_rows(start, stop, worker, values, y, t, k):
    for r in range(start, stop):
        values[r] = _among_top(y[r], t[r], k)


@cpu
def sparse_top_k_cpu(values, y, t, k):
    split(_sparse_top_rows, y.shape[0], _grain(y.shape[1]), (values, y, t, k))


@inner
def _top_rows(start, stop, worker, values, y, t, k):
    for r in range(start, stop):
        values[r] = _among_top(y[r], _argmax(t[r]), k)


@cpu
def top_k_cpu(values, y, t, k):
    split(_top_rows, y.shape[0], _grain(y.shape[1]), (values, y, t, k))


@cpu(fastmath=REASSOCIATE)
def weighted_sum_cpu(totals, values, weights):
    # Serial: a sum in one fixed order, of less than a nanosecond an element.
    total, weight = np.float64(0), np.float64(0)
    for r in range(values.size):
        total += np.float64(values[r]) * np.float64(weights[r])
        weight += np.float64(weights[r])
    totals[0] += total
    totals[1] += weight


@cpu
def variance_sums_cpu(totals, y, t, weights):
    # Serial: sums in one fixed order.
    C = y.shape[1]
    for r in range(y.shape[0]):
        weight = np.float64(weights[r])
        for c in range(C):
            target = np.float64(t[r, c])
            error = target - np.float64(y[r, c])
            totals[c] += weight
            totals[C + c] += weight * target
            totals[2 * C + c] += weight * target * target
            totals[3 * C + c] += weight * error * error
        totals[4 * C] += 1 if weights[r] != 0 else 0
