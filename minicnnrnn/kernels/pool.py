"""Pooling: the largest element, or the mean, of every window of an image."""

import itertools

import numpy as np

from minicnnrnn.kernels.gpu import (
    BLOCKS,
    SIMULATED,
    THREADS,
    cuda,
    divided,
    divisor,
    gpu,
    launch,
)
from minicnnrnn.kernels.jit import cpu, inner, split
from minicnnrnn.kernels.microkernel import stack_floats
from minicnnrnn.kernels.panel import address, integers
from minicnnrnn.kernels.pool_runs import PLACES, collect_run, largest_of_run
from minicnnrnn.kernels.reduce import lane_sum, lanes_of, own_column

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def _overlap(image, outputs, position, stride, padding):
    """Along one axis: the windows whose element `position` lies in the image, and where.

    Window o begins at ``o * stride - padding``.
    """
    first = max(0, -((position - padding) // stride))
    last = max(first, min(outputs, (image - 1 + padding - position) // stride + 1))
    start = first * stride + position - padding
    return slice(first, last), slice(start, start + (last - first) * stride, stride)


def _positions(x, y, kernel, strides, padding):
    """For each position in the window: its number, and the parts of y and x that meet in it."""
    for k, position in enumerate(itertools.product(*map(range, kernel))):
        axes = zip(x.shape[1:4], y.shape[1:4], position, strides, padding)
        windows, elements = zip(*(_overlap(*axis) for axis in axes))
        yield k, (slice(None), *windows), (slice(None), *elements)


def max_pool_forward_numpy(y, index, x, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    """Take the largest element of every window, channel by channel.

    .. math:: y_{n, d, h, w, c} = \\max_{i, j, k}
              x_{n, \\; d S_D + i - P_D, \\; h S_H + j - P_H, \\; w S_W + k - P_W, \\; c}

    over the positions (i, j, k) of the window that lie in the image: padding never wins.
    A NaN in a window is its largest element.

    Parameters
    ----------
    y : (N, OD, OH, OW, C), overwritten
    index : (N, OD, OH, OW, C), overwritten, or size zero where no gradient is wanted
        Which position won, ``(i * KH + j) * KW + k``: the first of equals, the last of NaNs.
        It is of uint8, or of int32 for windows of more than 256 elements.
    x : (N, D, H, W, C)
    KD, KH, KW : int
        Extent of the window.
    SD, SH, SW : int
        Strides.
    PD, PH, PW : int
        Padding before the first element; every window overlaps the image.

    Notes
    -----
    Cost: KD KH KW comparisons for each element of y; memory moves x once, y and index once.
    """
    y[:] = -np.inf
    won = np.zeros(y.shape, np.int32)
    blank = np.ones((*y.shape[:4], 1), bool)  # windows that have seen no element yet
    for k, window, element in _positions(x, y, (KD, KH, KW), (SD, SH, SW), (PD, PH, PW)):
        candidate = x[element]
        better = (candidate > y[window]) | np.isnan(candidate) | blank[window]
        y[window] = np.where(better, candidate, y[window])
        won[window] = np.where(better, k, won[window])
        blank[window] = False
    if index.size:
        index[:] = won


def max_pool_backward_input_numpy(dx, dy, index, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    """Gradient with respect to the input: each `dy` goes to the element that won.

    .. math:: dx_e = \\sum_{\\text{windows } o \\text{ won by } e} dy_o

    An element that won no window has gradient 0. Shapes as in ``max_pool_forward``.
    """
    dx[:] = 0
    for k, window, element in _positions(dx, dy, (KD, KH, KW), (SD, SH, SW), (PD, PH, PW)):
        dx[element] += np.where(index[window] == k, dy[window], 0)


def _counts(x, y, kernel, strides, padding):
    """How many elements of the image every window holds, (1, OD, OH, OW, 1)."""
    counts = np.zeros((1, *y.shape[1:4], 1), y.dtype)
    for _, window, _ in _positions(x, y, kernel, strides, padding):
        counts[window] += 1
    return counts


def average_pool_forward_numpy(y, x, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    """Take the mean of every window, channel by channel; padding is not counted.

    .. math:: y_o = \\frac{1}{|W_o|} \\sum_{e \\in W_o} x_e

    with the window :math:`W_o` cut to the image. Shapes as in ``max_pool_forward``. A global
    average is this with the window as large as the image.

    Notes
    -----
    Cost: KD KH KW additions for each element of y.
    """
    y[:] = 0
    for _, window, element in _positions(x, y, (KD, KH, KW), (SD, SH, SW), (PD, PH, PW)):
        y[window] += x[element]
    y /= _counts(x, y, (KD, KH, KW), (SD, SH, SW), (PD, PH, PW))


def average_pool_backward_input_numpy(dx, dy, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    """Gradient with respect to the input: each `dy` is shared equally by its window.

    .. math:: dx_e = \\sum_{o : \\; e \\in W_o} \\frac{dy_o}{|W_o|}

    Shapes as in ``average_pool_forward``.
    """
    dx[:] = 0
    share = dy / _counts(dx, dy, (KD, KH, KW), (SD, SH, SW), (PD, PH, PW))
    for _, window, element in _positions(dx, dy, (KD, KH, KW), (SD, SH, SW), (PD, PH, PW)):
        dx[element] += share[window]


def masked_average_forward_numpy(y, x, mask):
    """Take the mean of the steps of a sequence that are not masked.

    .. math:: y_{nc} = \\frac{\\sum_t m_{nt} x_{ntc}}{\\sum_t m_{nt}}

    and 0 for a sequence that is masked from end to end. What a masked step holds does not matter.

    Parameters
    ----------
    y : (N, C), overwritten
    x : (N, T, C)
    mask : uint8 (N, T)
        1 where a step counts, 0 where it does not.
    """
    counts = mask.sum(axis=1, dtype=y.dtype)
    y[:] = np.where(mask[:, :, None], x, 0).sum(axis=1) / np.maximum(counts, 1)[:, None]


def masked_average_backward_input_numpy(dx, dy, mask):
    """Gradient with respect to the input: `dy`, shared equally by the steps that count.

    Shapes as in ``masked_average_forward``.
    """
    counts = mask.sum(axis=1, dtype=dy.dtype)
    share = dy / np.maximum(counts, 1)[:, None]
    dx[:] = np.where(mask[:, :, None], share[:, None], 0)


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Rows are independent: rows of y in the forward passes, rows of dx in the backward passes,
# which gather. The inner loop runs over channels, which are contiguous; for maxima, which follow
# most convolutions, ``pool_runs.py`` has it for all pixels of a row that see their windows alike.

WORK = 32768  # elements read that make it worth waking a second thread
LOWEST, ZERO = np.float32(-np.inf), np.float32(0)


@inner
def _max_rows(
    start, stop, worker, y, number, bits, x, D, H, W, C, OD, OH, OW, KD, KH, KW, SD, SH, SW, PD,
    PH, PW,
):  # fmt: skip
    table = stack_floats(4 * PLACES)
    pairs = integers(table)
    for row in range(start, stop):
        n, d, h = row // (OD * OH), row // OH % OD * SD - PD, row % OH * SH - PH
        i0, i1, j0, j1 = max(0, -d), min(KD, D - d), max(0, -h), min(KH, H - h)
        ow = 0
        while ow < OW:
            w, first = ow * SW - PW, (row * OW + ow) * C
            k0, k1 = max(0, -w), min(KW, W - w)
            whole = k0 == 0 and k1 == KW  # and so are some behind it
            count = min(OW, (W - KW + PW) // SW + 1) - ow if whole else 1
            of, places, fresh = x + 4 * (((n * D + d) * H + h) * W + w) * C, 0, 1
            for i in range(i0, i1):
                for j in range(j0, j1):
                    for k in range(k0, k1):
                        if places == PLACES:
                            largest_of_run((
                                bits, y + 4 * first, number + first * bits // 8, of, count, 4 * C,
                                4 * SW * C, C, table, places, fresh,
                            ))  # fmt: skip
                            places, fresh = 0, 0
                        pairs[2 * places] = ((i * H + j) * W + k) * C
                        pairs[2 * places + 1] = (i * KH + j) * KW + k
                        places += 1
            largest_of_run((
                bits, y + 4 * first, number + first * bits // 8, of, count, 4 * C, 4 * SW * C, C,
                table, places, fresh,
            ))  # fmt: skip
            ow += count


@inner
def _bits(index):
    """The width of the numbers of positions; 0 if none are wanted."""
    return 8 * index.itemsize if index.size else 0


@cpu
def max_pool_forward_cpu(y, index, x, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    N, D, H, W, C = x.shape
    _, OD, OH, OW, _ = y.shape
    split(
        _max_rows, N * OD * OH, 1 + WORK // (KD * KH * KW * OW * C),
        (
            address(y, 0), address(index, 0), _bits(index), address(x, 0), D, H, W, C, OD, OH, OW,
            KD, KH, KW, SD, SH, SW, PD, PH, PW,
        ),
    )  # fmt: skip


@inner
def _windows(position, extent, stride, padding, outputs):
    """Along one axis: the first window that holds this element, and the one after the last."""
    last = position + padding
    return max(0, (last - extent + stride) // stride), min(outputs, last // stride + 1)


@inner
def _max_gradient_rows(
    start, stop, worker, dx, dy, number, bits, D, H, W, C, OD, OH, OW, KD, KH, KW, SD, SH, SW, PD,
    PH, PW,
):  # fmt: skip
    table = stack_floats(4 * PLACES)
    pairs = integers(table)
    for row in range(start, stop):
        n, d, h = row // (D * H), row // H % D, row % H
        d0, d1 = _windows(d, KD, SD, PD, OD)
        h0, h1 = _windows(h, KH, SH, PH, OH)
        for phase in range(min(SW, W)):
            w = phase
            while w < W:  # pixels that are a stride apart see windows alike
                w0, w1 = _windows(w, KW, SW, PW, OW)
                whole = (w + PW - KW + SW) // SW == w0  # and so may be some behind it
                count = min((W - 1 - w) // SW, OW - w1) + 1 if whole else 1
                to, places, fresh = dx + 4 * (row * W + w) * C, 0, 1
                for od in range(d0, d1):
                    for oh in range(h0, h1):
                        for ow in range(w0, w1):
                            i, j, k = d + PD - od * SD, h + PH - oh * SH, w + PW - ow * SW
                            if places == PLACES:
                                collect_run((
                                    bits, to, number, dy, count, 4 * SW * C, 4 * C, C, table,
                                    places, fresh,
                                ))  # fmt: skip
                                places, fresh = 0, 0
                            pairs[2 * places] = (((n * OD + od) * OH + oh) * OW + ow) * C
                            pairs[2 * places + 1] = (i * KH + j) * KW + k
                            places += 1
                collect_run((
                    bits, to, number, dy, count, 4 * SW * C, 4 * C, C, table, places, fresh,
                ))  # fmt: skip
                w += count * SW


@cpu
def max_pool_backward_input_cpu(dx, dy, index, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    N, D, H, W, C = dx.shape
    _, OD, OH, OW, _ = dy.shape
    split(
        _max_gradient_rows, N * D * H, 1 + WORK // (W * C),
        (
            address(dx, 0), address(dy, 0), address(index, 0), _bits(index), D, H, W, C, OD, OH,
            OW, KD, KH, KW, SD, SH, SW, PD, PH, PW,
        ),
    )  # fmt: skip


@inner
def _average_rows(start, stop, worker, y, x, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    D, H, W, C = x.shape[1], x.shape[2], x.shape[3], x.shape[4]
    OD, OH, OW = y.shape[1], y.shape[2], y.shape[3]
    for row in range(start, stop):
        n, od, oh = row // (OD * OH), row // OH % OD, row % OH
        d, h = od * SD - PD, oh * SH - PH
        i0, i1, j0, j1 = max(0, d), min(d + KD, D), max(0, h), min(h + KH, H)
        for ow in range(OW):
            w = ow * SW - PW
            k0, k1 = max(0, w), min(w + KW, W)
            total = y[n, od, oh, ow]
            for c in range(C):
                total[c] = ZERO
            for i in range(i0, i1):
                for j in range(j0, j1):
                    for k in range(k0, k1):
                        v = x[n, i, j, k]
                        for c in range(C):
                            total[c] += v[c]
            count = np.float32((i1 - i0) * (j1 - j0) * (k1 - k0))
            for c in range(C):
                total[c] /= count


@cpu
def average_pool_forward_cpu(y, x, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    arguments = (y, x, KD, KH, KW, SD, SH, SW, PD, PH, PW)
    rows = y.shape[0] * y.shape[1] * y.shape[2]
    work = KD * KH * KW * y.shape[3] * y.shape[4]
    split(_average_rows, rows, 1 + WORK // work, arguments)


@inner
def _length(o, stride, padding, extent, image):
    """Along one axis: how much of window `o` lies in the image."""
    start = o * stride - padding
    return min(start + extent, image) - max(start, 0)


@inner
def _average_gradient_rows(start, stop, worker, dx, dy, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    D, H, W, C = dx.shape[1], dx.shape[2], dx.shape[3], dx.shape[4]
    OD, OH, OW = dy.shape[1], dy.shape[2], dy.shape[3]
    for row in range(start, stop):
        n, d, h = row // (D * H), row // H % D, row % H
        d0, d1 = _windows(d, KD, SD, PD, OD)
        h0, h1 = _windows(h, KH, SH, PH, OH)
        w0, w1 = 0, 0  # they move along with w, which saves two divisions an element
        for w in range(W):
            while w0 * SW - PW + KW <= w:
                w0 += 1
            while w1 < OW and w1 * SW - PW <= w:
                w1 += 1
            total = dx[n, d, h, w]
            for c in range(C):
                total[c] = ZERO
            for od in range(d0, d1):
                for oh in range(h0, h1):
                    plane = _length(od, SD, PD, KD, D) * _length(oh, SH, PH, KH, H)
                    for ow in range(w0, w1):
                        count = np.float32(plane * _length(ow, SW, PW, KW, W))
                        gradient = dy[n, od, oh, ow]
                        for c in range(C):
                            total[c] += gradient[c] / count


@cpu
def average_pool_backward_input_cpu(dx, dy, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    arguments = (dx, dy, KD, KH, KW, SD, SH, SW, PD, PH, PW)
    rows = dx.shape[0] * dx.shape[1] * dx.shape[2]
    work = dx.shape[3] * dx.shape[4]
    split(_average_gradient_rows, rows, 1 + WORK // work, arguments)


@inner
def _valid_steps(mask, n):
    count = 0
    for t in range(mask.shape[1]):
        count += mask[n, t] != 0
    return np.float32(max(count, 1))


@inner
def _masked_average_samples(start, stop, worker, y, x, mask):
    T, C = x.shape[1], x.shape[2]
    for n in range(start, stop):
        total, count = y[n], _valid_steps(mask, n)
        for c in range(C):
            total[c] = ZERO
        for t in range(T):
            if mask[n, t]:
                v = x[n, t]
                for c in range(C):
                    total[c] += v[c]
        for c in range(C):
            total[c] /= count


@cpu
def masked_average_forward_cpu(y, x, mask):
    """Parallel over samples."""
    N, T, C = x.shape
    split(_masked_average_samples, N, 1 + WORK // (T * C), (y, x, mask))


@inner
def _masked_share_samples(start, stop, worker, dx, dy, mask):
    T, C = dx.shape[1], dx.shape[2]
    for n in range(start, stop):
        count, gradient = _valid_steps(mask, n), dy[n]
        for t in range(T):
            share, valid = dx[n, t], mask[n, t] != 0
            for c in range(C):
                share[c] = gradient[c] / count if valid else ZERO


@cpu
def masked_average_backward_input_cpu(dx, dy, mask):
    """Parallel over samples."""
    N, T, C = dx.shape
    split(_masked_share_samples, N, 1 + WORK // (T * C), (dx, dy, mask))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element of y in the forward passes; of dx in the backward passes, which
# gather, but where windows lie side by side and no element is in two: there each window has one.
# Neighbouring threads are neighbouring channels, and rows of blocks share the samples.
# Of memory a forward pass reads x once, where windows do not overlap, and writes y (and numbers);
# a backward pass reads those and dy, and writes dx. An average of all of an image is a sum over
# columns: see ``reduce.py``.


ONE, FOUR = np.float32(1), np.float32(4)
MOST_SAMPLES = 2 if SIMULATED else 65535  # that rows of blocks can stand for at once


def _launch(kernel, places, one, other, window, *arrays):
    """Run a kernel for every one of (N, D, H, W, C) places.

    It gets the arrays as vectors, for an offset costs less than five indices, the shapes of two
    batches of images, what the window is, and divisors to find depth, row, column and channel of
    a place, and the windows that hold it.
    """
    (N, D, H, W, C), strides = places, window[3:6]
    blocks = min(-(-D * H * W * C // THREADS), BLOCKS), min(N, MOST_SAMPLES)
    vectors = (array.reshape(-1) for array in arrays)
    by = divisor(C), divisor(W), divisor(H), *map(divisor, strides)
    launch(kernel, blocks, THREADS, *vectors, one, other, window, by)


@gpu
def _pixel(e, by):
    """Depth, row, column and channel of element `e` of an image."""
    rest, c = divided(e, by[0])
    rest, w = divided(rest, by[1])
    d, h = divided(rest, by[2])
    return d, h, w, c


@gpu
def _better(v, number, best, won):
    wins = (v > best) | (v != v)
    return v if wins else best, number if wins else won


@gpu
def _max_elements(y, index, x, outputs, image, window, by):
    (N, OD, OH, OW, C), (_, D, H, W, _) = outputs, image
    KD, KH, KW, SD, SH, SW, PD, PH, PW = window
    size = OD * OH * OW * C
    for n in range(cuda.blockIdx.y, N, cuda.gridDim.y):
        for o in range(cuda.grid(1), size, cuda.blockDim.x * cuda.gridDim.x):
            od, oh, ow, c = _pixel(o, by)
            d, h, w = od * SD - PD, oh * SH - PH, ow * SW - PW
            i0, j0, k0 = max(0, -d), max(0, -h), max(0, -w)
            best, won = LOWEST, np.int32((i0 * KH + j0) * KW + k0)
            for i in range(i0, min(KD, D - d)):
                for j in range(j0, min(KH, H - h)):
                    at = (((n * D + d + i) * H + h + j) * W + w) * C + c
                    for k in range(k0, min(KW, W - w)):
                        number = np.int32((i * KH + j) * KW + k)
                        best, won = _better(x[at + k * C], number, best, won)
            y[n * size + o] = best
            if index.size:
                index[n * size + o] = won


def max_pool_forward_cuda(y, index, x, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    window = KD, KH, KW, SD, SH, SW, PD, PH, PW
    _launch(_max_elements, y.shape, y.shape, x.shape, window, y, index, x)


@gpu
def _windows_of(position, extent, stride, padding, outputs):
    """As ``_windows``, for a stride of which the ``divisor`` is given."""
    last = position + padding
    first = divided(last - extent, stride)[0] + 1 if last >= extent else 0
    return first, min(outputs, divided(last, stride)[0] + 1)


@gpu
def _max_gradient_elements(dx, dy, index, image, outputs, window, by):
    (N, D, H, W, C), (_, OD, OH, OW, _) = image, outputs
    KD, KH, KW, SD, SH, SW, PD, PH, PW = window
    size = D * H * W * C
    for n in range(cuda.blockIdx.y, N, cuda.gridDim.y):
        for e in range(cuda.grid(1), size, cuda.blockDim.x * cuda.gridDim.x):
            d, h, w, c = _pixel(e, by)
            d0, d1 = _windows_of(d, KD, by[3], PD, OD)
            h0, h1 = _windows_of(h, KH, by[4], PH, OH)
            w0, w1 = _windows_of(w, KW, by[5], PW, OW)
            total = ZERO
            for od in range(d0, d1):
                for oh in range(h0, h1):
                    at = ((n * OD + od) * OH + oh) * OW * C + c
                    line = ((d + PD - od * SD) * KH + h + PH - oh * SH) * KW + w + PW
                    for ow in range(w0, w1):
                        if np.int32(index[at + ow * C]) == line - ow * SW:
                            total += dy[at + ow * C]
            dx[n * size + e] = total


@gpu
def _max_gradient_windows(dx, dy, index, image, outputs, window, by):
    """Of windows that lie side by side: a thread for each, which writes all that it holds.

    Behind the last windows are some that have no output, as far as the image goes on there.
    """
    (N, D, H, W, C), (_, OD, OH, OW, _) = image, outputs
    KD, KH, KW = window[0], window[1], window[2]
    size = -(-D // KD) * -(-H // KH) * -(-W // KW) * C
    for n in range(cuda.blockIdx.y, N, cuda.gridDim.y):
        for o in range(cuda.grid(1), size, cuda.blockDim.x * cuda.gridDim.x):
            od, oh, ow, c = _pixel(o, by)
            won, gradient = np.int32(-1), ZERO
            if od < OD and oh < OH and ow < OW:
                at = (((n * OD + od) * OH + oh) * OW + ow) * C + c
                won, gradient = np.int32(index[at]), dy[at]
            d, h, w = od * KD, oh * KH, ow * KW
            for i in range(min(KD, D - d)):
                for j in range(min(KH, H - h)):
                    at = (((n * D + d + i) * H + h + j) * W + w) * C + c
                    for k in range(min(KW, W - w)):
                        dx[at + k * C] = gradient if won == (i * KH + j) * KW + k else ZERO


def max_pool_backward_input_cuda(dx, dy, index, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    window = KD, KH, KW, SD, SH, SW, PD, PH, PW
    if (SD, SH, SW, PD, PH, PW) == (KD, KH, KW, 0, 0, 0):
        N, D, H, W, C = dx.shape
        places = N, -(-D // KD), -(-H // KH), -(-W // KW), C
        _launch(_max_gradient_windows, places, dx.shape, dy.shape, window, dx, dy, index)
    else:
        _launch(_max_gradient_elements, dx.shape, dx.shape, dy.shape, window, dx, dy, index)


@gpu
def _average_elements(y, x, outputs, image, window, by):
    (N, OD, OH, OW, C), (_, D, H, W, _) = outputs, image
    KD, KH, KW, SD, SH, SW, PD, PH, PW = window
    size = OD * OH * OW * C
    for n in range(cuda.blockIdx.y, N, cuda.gridDim.y):
        for o in range(cuda.grid(1), size, cuda.blockDim.x * cuda.gridDim.x):
            od, oh, ow, c = _pixel(o, by)
            d, h, w = od * SD - PD, oh * SH - PH, ow * SW - PW
            total = ZERO
            for i in range(max(0, d), min(d + KD, D)):
                for j in range(max(0, h), min(h + KH, H)):
                    at = ((n * D + i) * H + j) * W * C + c
                    for k in range(max(0, w), min(w + KW, W)):
                        total += x[at + k * C]
            plane = _length(od, SD, PD, KD, D) * _length(oh, SH, PH, KH, H)
            y[n * size + o] = total / np.float32(plane * _length(ow, SW, PW, KW, W))


def _is_whole(y, x, KD, KH, KW, PD, PH, PW):
    """Whether there is one window, and it is the image; others may hang over its end."""
    return y.shape[1:4] == (1, 1, 1) and x.shape[1:4] == (KD, KH, KW) and PD == PH == PW == 0


def average_pool_forward_cuda(y, x, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    if _is_whole(y, x, KD, KH, KW, PD, PH, PW):
        N, _, _, _, C = x.shape
        _launch_columns(_average_columns, y.reshape(N, C), x.reshape(N, -1, C), NO_MASK)
    else:
        window = KD, KH, KW, SD, SH, SW, PD, PH, PW
        _launch(_average_elements, y.shape, y.shape, x.shape, window, y, x)


@gpu
def _average_gradient_elements(dx, dy, image, outputs, window, by):
    (N, D, H, W, C), (_, OD, OH, OW, _) = image, outputs
    KD, KH, KW, SD, SH, SW, PD, PH, PW = window
    size = D * H * W * C
    for n in range(cuda.blockIdx.y, N, cuda.gridDim.y):
        for e in range(cuda.grid(1), size, cuda.blockDim.x * cuda.gridDim.x):
            d, h, w, c = _pixel(e, by)
            d0, d1 = _windows_of(d, KD, by[3], PD, OD)
            h0, h1 = _windows_of(h, KH, by[4], PH, OH)
            w0, w1 = _windows_of(w, KW, by[5], PW, OW)
            total = ZERO
            for od in range(d0, d1):
                for oh in range(h0, h1):
                    at = ((n * OD + od) * OH + oh) * OW * C + c
                    plane = _length(od, SD, PD, KD, D) * _length(oh, SH, PH, KH, H)
                    for ow in range(w0, w1):
                        count = np.float32(plane * _length(ow, SW, PW, KW, W))
                        total += dy[at + ow * C] / count
            dx[n * size + e] = total


def average_pool_backward_input_cuda(dx, dy, KD, KH, KW, SD, SH, SW, PD, PH, PW):
    if _is_whole(dy, dx, KD, KH, KW, PD, PH, PW):
        N, _, _, _, C = dx.shape
        _launch_columns(_share_columns, dy.reshape(N, C), dx.reshape(N, -1, C), NO_MASK)
    else:
        window = KD, KH, KW, SD, SH, SW, PD, PH, PW
        _launch(_average_gradient_elements, dx.shape, dx.shape, dy.shape, window, dx, dy)


# Averages of everything: blocks of a tile of channels, rows of lanes that share the pixels.

NO_MASK = np.empty((0, 0), np.uint8)


def _launch_columns(kernel, y, x, mask):
    N, C = y.shape
    blocks = -(-C // lanes_of(C)), min(N, MOST_SAMPLES)
    launch(kernel, blocks, THREADS, y, x, mask, lanes_of(C))


@gpu
def _average_columns(y, x, mask, lanes):
    (N, S, C), (c, row, rows) = x.shape, own_column(lanes)
    for n in range(cuda.blockIdx.y, N, cuda.gridDim.y):
        total, count, s = ZERO, ZERO, row
        while mask.size == 0 and c < C and s + 3 * rows < S:
            v0, v1 = x[n, s, c], x[n, s + rows, c]
            v2, v3 = x[n, s + 2 * rows, c], x[n, s + 3 * rows, c]
            total += (v0 + v1) + (v2 + v3)
            count += FOUR
            s += 4 * rows
        while c < C and s < S:
            if mask.size == 0 or mask[n, s] != 0:
                total += x[n, s, c]
                count += ONE
            s += rows
        total, count = lane_sum(total, lanes), lane_sum(count, lanes)
        if row == 0 and c < C:
            y[n, c] = total / max(count, ONE)


@gpu
def _share_columns(dy, dx, mask, lanes):
    (N, S, C), (c, row, rows) = dx.shape, own_column(lanes)
    for n in range(cuda.blockIdx.y, N, cuda.gridDim.y):
        count = ZERO
        for s in range(cuda.threadIdx.x, S, THREADS):
            count += ONE if mask.size == 0 or mask[n, s] != 0 else ZERO
        count = max(lane_sum(count, 1), ONE)
        for s in range(row, S, rows):
            if c < C:
                shown = mask.size == 0 or mask[n, s] != 0
                dx[n, s, c] = dy[n, c] / count if shown else ZERO


def masked_average_forward_cuda(y, x, mask):
    _launch_columns(_average_columns, y, x, mask)


def masked_average_backward_input_cuda(dx, dy, mask):
    _launch_columns(_share_columns, dy, dx, mask)
