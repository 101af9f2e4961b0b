"""Confusion: how often which answer met which truth.

The counts behind precision, recall, the areas under curves, F scores and intersections over
unions. They add up over batches, so that no output need be kept.
"""

import numpy as np

from minicnnrnn.kernels.codes import ALL, BINARY, LARGEST, SCORES
from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch
from minicnnrnn.kernels.jit import cpu, inner

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def threshold_counts_numpy(totals, y, t, weights, thresholds, column, choice, by_column):
    """Count outputs between thresholds, those whose target is positive apart from the others.

    .. math:: totals_{g, p, k} \\leftarrow totals_{g, p, k} + \\sum_{r, c} w_r
              [t_{rc} \\ne 0] = p, \\; |\\{j : y_{rc} > \\theta_j\\}| = k

    Parameters
    ----------
    totals : float64, (G 2 (K + 1),), updated in place
        G is C or 1, p is 1 for positive targets.
    y : (R, C)
    t : (R, C)
    weights : (R,)
    thresholds : (K,), ascending
    column : int
        The only output to count, or -1 for all.
    choice : int
        Which outputs count as they are: ``ALL``, ``LARGEST`` or a number k. The others, like NaN,
        are above no threshold. Beside NaN none is largest.
    by_column : int
        1 to count each output apart (then g = c), 0 for all together.

    Notes
    -----
    The true positives at threshold j are the sum over k > j for p = 1, and so on. Cost: R C log K.
    """
    counts = totals.reshape(-1, 2, len(thresholds) + 1)
    bucket = np.searchsorted(thresholds, y)
    bucket[np.isnan(y) | ~_chosen(y, choice)] = 0
    group = np.arange(y.shape[1]) if by_column else np.zeros(y.shape[1], int)
    w = np.broadcast_to(weights[:, None], y.shape).astype(np.float64)
    where = np.broadcast_to(group, y.shape), (t != 0).astype(int), bucket
    kept = slice(None) if column < 0 else slice(column, column + 1)
    np.add.at(counts, tuple(index[:, kept] for index in where), w[:, kept])


def _chosen(y, choice):
    """Which outputs of the rows count as they are."""
    if choice == ALL:
        return np.ones(y.shape, bool)
    if choice == LARGEST:
        return (y >= np.max(y, axis=1, keepdims=True)) & (np.abs(y) > 1e-9)
    order = np.argsort(np.argsort(-y, axis=1, kind="stable"), axis=1, kind="stable")
    return order < choice


def confusion_matrix_numpy(totals, y, t, weights, classes, kind, threshold, ignore):
    """Count how often which class was the answer where which one was true.

    Parameters
    ----------
    totals : float64 (K * K,), updated in place
        Row by row: the true class, then the answer. Pairs beyond these are left out.
    y : (R, C)
        What it holds is told by `kind`.
    t : (R, C)
        For ``SCORES`` the largest is true; else each is the class itself, without what follows
        the decimal point.
    weights : (R,)
    classes : int
        K.
    kind : int
        ``SCORES``, ``CLASSES`` or ``BINARY``.
    threshold : float
        For ``BINARY``: where y is not below it, the answer is 1, else 0.
    ignore : int
        A true class to leave out.
    """
    if kind == SCORES:
        truth, answer, w = np.argmax(t, axis=1), np.argmax(y, axis=1), weights
    else:
        w = np.repeat(weights, y.shape[1])
        answer = y >= threshold if kind == BINARY else _whole(y)
        truth, answer = _whole(t).ravel(), answer.astype(np.int64).ravel()
    _count_pairs(totals, truth, answer, w, classes, ignore)


def sparse_confusion_matrix_numpy(totals, y, t, weights, classes, ignore):
    """As ``confusion_matrix`` for scores, with labels: `t` is int32 (R,)."""
    _count_pairs(totals, t, np.argmax(y, axis=1), weights, classes, ignore)


def _whole(x):
    """Without what follows the decimal point; -1 for what is no class."""
    return np.where((x > -1) & (x < 2**31), x, -1).astype(np.int64)


def _count_pairs(totals, truth, answer, weights, classes, ignore):
    known = (truth >= 0) & (truth < classes) & (answer >= 0) & (answer < classes)
    known &= truth != ignore
    cells = truth[known].astype(np.int64) * classes + answer[known]
    np.add.at(totals, cells, weights[known].astype(np.float64))


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Serial: all rows add to the same few totals, in one fixed order.

ZERO, TINY = np.float32(0), np.float32(1e-9)


@inner
def _above(y, thresholds):
    """How many thresholds are below y; 0 for NaN."""
    low, high = 0, thresholds.size
    while low < high:
        middle = (low + high) // 2
        if y > thresholds[middle]:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def _is_chosen(row, c, choice):
    v = row[c]
    if choice == ALL:
        return True
    ahead = 0
    for i in range(row.size):
        other = row[i]
        before = (other == v and i < c) if choice > 0 else other != other
        ahead += 1 if other > v or before else 0
    return ahead < choice if choice > 0 else ahead == 0 and abs(v) > TINY


@cpu
def threshold_counts_cpu(totals, y, t, weights, thresholds, column, choice, by_column):
    first = 0 if column < 0 else column
    stop = y.shape[1] if column < 0 else column + 1
    room = thresholds.size + 1
    for r in range(y.shape[0]):
        row, weight = y[r], np.float64(weights[r])
        for c in range(first, stop):
            bucket = _above(row[c], thresholds) if _is_chosen(row, c, choice) else 0
            positive = 1 if t[r, c] != 0 else 0
            totals[(2 * c * by_column + positive) * room + bucket] += weight


@inner
def _argmax(row):
    best, largest = 0, row[0]
    for c in range(1, row.size):
        v = row[c]
        if v > largest or (v != v and largest == largest):
            best, largest = c, v
    return best


@inner
def _whole_number(x):
    return np.int64(x) if x > -1 and x < 2147483648.0 else np.int64(-1)


@inner
def _count_pair(totals, truth, answer, weight, classes, ignore):
    if 0 <= truth < classes and 0 <= answer < classes and truth != ignore:
        totals[truth * classes + answer] += np.float64(weight)


@cpu
def confusion_matrix_cpu(totals, y, t, weights, classes, kind, threshold, ignore):
    least = np.float32(threshold)  # as NumPy compares a float32 with a Python number
    for r in range(y.shape[0]):
        if kind == SCORES:
            pair = np.int64(_argmax(t[r])), np.int64(_argmax(y[r]))
            _count_pair(totals, *pair, weights[r], classes, ignore)
            continue
        for c in range(y.shape[1]):
            if kind == BINARY:
                answer = np.int64(1 if y[r, c] >= least else 0)
            else:
                answer = _whole_number(y[r, c])
            truth = _whole_number(t[r, c])
            _count_pair(totals, truth, answer, weights[r], classes, ignore)


@cpu
def sparse_confusion_matrix_cpu(totals, y, t, weights, classes, ignore):
    for r in range(y.shape[0]):
        pair = np.int64(t[r]), np.int64(_argmax(y[r]))
        _count_pair(totals, *pair, weights[r], classes, ignore)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# As on the CPU every total is a sum in the order of the rows. The threads of a block find out, an
# output each, which of the block's totals is meant; then each goes through all that were found,
# and adds what is meant for totals of its own.


@gpu
def _add_in_order(totals, offset, count, own, weight):
    """Add the weight that each thread brings to the total `own`, from 0 to count - 1, or to none.

    All threads of the block must call this.
    """
    indices = cuda.shared.array(THREADS, np.int64)
    shares = cuda.shared.array(THREADS, np.float32)
    t = cuda.threadIdx.x
    cuda.syncthreads()  # somebody may still read the last ones
    indices[t], shares[t] = own, weight
    cuda.syncthreads()
    for i in range(t, count, THREADS):
        total = totals[offset + i]
        for other in range(THREADS):
            if indices[other] == i:
                total += np.float64(shares[other])
        totals[offset + i] = total


@gpu
def _threshold_totals(totals, y, t, weights, thresholds, first, columns, choice, by_column):
    room, group = thresholds.size + 1, (first + cuda.blockIdx.x) * by_column
    first += cuda.blockIdx.x
    for start in range(0, y.shape[0] * columns, THREADS):
        i, own, weight = start + cuda.threadIdx.x, -1, ZERO
        if i < y.shape[0] * columns:
            r, c = i // columns, first + i % columns
            bucket = _above(y[r, c], thresholds) if _is_chosen(y[r], c, choice) else 0
            own, weight = (room if t[r, c] != ZERO else 0) + bucket, weights[r]
        _add_in_order(totals, 2 * room * group, 2 * room, own, weight)


def threshold_counts_cuda(totals, y, t, weights, thresholds, column, choice, by_column):
    """A block for every column, or one for all where they count together."""
    first, columns = (0, y.shape[1]) if column < 0 else (column, 1)
    blocks, each = (columns, 1) if by_column else (1, columns)
    arguments = (y, t, weights, thresholds, first, each, choice, int(by_column))
    launch(_threshold_totals, blocks, THREADS, totals, *arguments)


@gpu
def _matrix_row(totals, y, t, weights, classes, kind, threshold, ignore):
    truth, columns = cuda.blockIdx.x, 1 if kind == SCORES else y.shape[1]
    for start in range(0, y.shape[0] * columns, THREADS):
        i, answer, weight = start + cuda.threadIdx.x, -1, ZERO
        if i < y.shape[0] * columns:
            r, c = i // columns, i % columns
            found = _argmax(t[r]) if kind == SCORES else _whole_number(t[r, c])
            if found == truth and truth != ignore:
                weight = weights[r]
                if kind == SCORES:
                    answer = _argmax(y[r])
                elif kind == BINARY:
                    answer = 1 if y[r, c] >= np.float32(threshold) else 0
                else:
                    answer = _whole_number(y[r, c])
        _add_in_order(totals, truth * classes, classes, answer, weight)


def confusion_matrix_cuda(totals, y, t, weights, classes, kind, threshold, ignore):
    """A block for every true class."""
    arguments = (y, t, weights, classes, kind, float(threshold), ignore)
    launch(_matrix_row, classes, THREADS, totals, *arguments)


@gpu
def _sparse_matrix_row(totals, y, t, weights, classes, ignore):
    truth = cuda.blockIdx.x
    for start in range(0, y.shape[0], THREADS):
        r, answer, weight = start + cuda.threadIdx.x, -1, ZERO
        if r < y.shape[0] and t[r] == truth and truth != ignore:
            answer, weight = _argmax(y[r]), weights[r]
        _add_in_order(totals, truth * classes, classes, answer, weight)


def sparse_confusion_matrix_cuda(totals, y, t, weights, classes, ignore):
    """A block for every true class."""
    launch(_sparse_matrix_row, classes, THREADS, totals, y, t, weights, classes, ignore)
