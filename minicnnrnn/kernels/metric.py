"""Metrics: for every row, how right the output is; and the sums that batches add up to.

What counts rows by thresholds or classes is in ``confusion.py``; many metrics are the values of
a loss.
"""

import numpy as np

from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch
from minicnnrnn.kernels.jit import REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.reduce import block_sum_wide, launch_rows, own_row, team_sum

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


@inner
def _is_right(y, t, threshold):
    side = ONE if y > threshold else ZERO
    return ONE if side == t else ZERO


@cpu(fastmath=REASSOCIATE)
def _binary_rows(start, stop, worker, values, y, t, threshold):
    for r in range(start, stop):
        row, target, total = y[r], t[r], ZERO
        for c in range(row.size):
            total += _is_right(row[c], target[c], threshold)
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


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A team of threads for every row. The sums over rows are of one block, or of one for every column.


@gpu
def _binary_row(values, y, t, threshold, team):
    r, first, writes = own_row(y.shape[0], y.shape[1], team)
    total = ZERO
    for c in range(first, y.shape[1], team):
        total += _is_right(y[r, c], t[r, c], np.float32(threshold))
    total = team_sum(total, team)
    if writes:
        values[r] = total / np.float32(y.shape[1])


def binary_accuracy_cuda(values, y, t, threshold):
    launch_rows(_binary_row, *y.shape, values, y, t, float(threshold))


@gpu
def _is_ahead(x, c, other, o):
    if x == other or (x != x and other != other):
        return c < o
    return x > other or x != x


@gpu
def _row_argmax(x, r, first, team):
    """The column of the largest element of a row; all threads of the team get it."""
    numbers = cuda.shared.array(THREADS, np.float32)
    columns = cuda.shared.array(THREADS, np.int64)
    t, largest, best = cuda.threadIdx.x, LOWEST, x.shape[1]
    for c in range(first, x.shape[1], team):
        if _is_ahead(x[r, c], c, largest, best):
            largest, best = x[r, c], c
    cuda.syncthreads()  # somebody may still read the last result
    numbers[t], columns[t] = largest, best
    cuda.syncthreads()
    half = team // 2
    while half > 0:
        o = t + half
        if t % team < half and _is_ahead(numbers[o], columns[o], numbers[t], columns[t]):
            numbers[t], columns[t] = numbers[o], columns[o]
        cuda.syncthreads()
        half //= 2
    return columns[t - t % team]


@gpu
def _categorical_row(values, y, t, team):
    r, first, writes = own_row(y.shape[0], y.shape[1], team)
    answer, truth = _row_argmax(y, r, first, team), _row_argmax(t, r, first, team)
    if writes:
        values[r] = ONE if answer == truth else ZERO


def categorical_accuracy_cuda(values, y, t):
    launch_rows(_categorical_row, *y.shape, values, y, t)


@gpu
def _sparse_categorical_row(values, y, t, team):
    r, first, writes = own_row(y.shape[0], y.shape[1], team)
    answer = _row_argmax(y, r, first, team)
    if writes:
        values[r] = ONE if answer == t[r] else ZERO


def sparse_categorical_accuracy_cuda(values, y, t):
    launch_rows(_sparse_categorical_row, *y.shape, values, y, t)


@gpu
def _number_above(y, r, label, first, team):
    """How many scores of a row are above that of a label, as far as this thread sees."""
    larger, score = ZERO, y[r, label] if label >= 0 and label < y.shape[1] else ZERO
    score = score if score == score else LOWEST
    for c in range(first, y.shape[1], team):
        larger += ONE if y[r, c] > score else ZERO
    return larger


@gpu
def _sparse_top_row(values, y, t, k, team):
    r, first, writes = own_row(y.shape[0], y.shape[1], team)
    known = t[r] >= 0 and t[r] < y.shape[1]
    larger = team_sum(_number_above(y, r, t[r], first, team), team)
    if writes:
        values[r] = ONE if known and larger < np.float32(k) else ZERO


def sparse_top_k_cuda(values, y, t, k):
    launch_rows(_sparse_top_row, *y.shape, values, y, t, k)


@gpu
def _top_row(values, y, t, k, team):
    r, first, writes = own_row(y.shape[0], y.shape[1], team)
    label = _row_argmax(t, r, first, team)
    larger = team_sum(_number_above(y, r, label, first, team), team)
    if writes:
        values[r] = ONE if larger < np.float32(k) else ZERO


def top_k_cuda(values, y, t, k):
    launch_rows(_top_row, *y.shape, values, y, t, k)


@gpu
def _weighted_sum(totals, values, weights):
    total, weight = np.float64(0), np.float64(0)
    for r in range(cuda.threadIdx.x, values.size, THREADS):
        total += np.float64(values[r]) * np.float64(weights[r])
        weight += np.float64(weights[r])
    total, weight = block_sum_wide(total), block_sum_wide(weight)
    if cuda.threadIdx.x == 0:
        totals[0] += total
        totals[1] += weight


def weighted_sum_cuda(totals, values, weights):
    launch(_weighted_sum, 1, THREADS, totals, values, weights)


@gpu
def _variance_sums(totals, y, t, weights):
    c, C = cuda.blockIdx.x, y.shape[1]
    mass = first = second = missed = rows = np.float64(0)
    for r in range(cuda.threadIdx.x, y.shape[0], THREADS):
        weight, target = np.float64(weights[r]), np.float64(t[r, c])
        error = target - np.float64(y[r, c])
        mass += weight
        first += weight * target
        second += weight * target * target
        missed += weight * error * error
        rows += 1 if weights[r] != ZERO else 0
    mass, first, second = block_sum_wide(mass), block_sum_wide(first), block_sum_wide(second)
    missed, rows = block_sum_wide(missed), block_sum_wide(rows)
    if cuda.threadIdx.x == 0:
        totals[c] += mass
        totals[C + c] += first
        totals[2 * C + c] += second
        totals[3 * C + c] += missed
        if c == 0:
            totals[4 * C] += rows


def variance_sums_cuda(totals, y, t, weights):
    launch(_variance_sums, y.shape[1], THREADS, totals, y, t, weights)
