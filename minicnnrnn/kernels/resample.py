"""Images of another size or order: padded and cropped, magnified, with their axes permuted."""

import numpy as np

from minicnnrnn.kernels.gpu import cuda, gpu, over, place
from minicnnrnn.kernels.jit import cpu, inner, split
from minicnnrnn.kernels.panel import address, floats

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def _overlap(length, outputs, padding):
    """Along one axis: the part of y that comes from x, and that part of x."""
    start, stop = max(0, padding), min(outputs, length + padding)
    return slice(start, max(start, stop)), slice(start - padding, max(start, stop) - padding)


def pad_forward_numpy(y, x, PD, PH, PW):
    """Put an image into a larger one of zeros, or cut a smaller one out.

    .. math:: y_{n, d, h, w, c} = x_{n, \\; d - P_D, \\; h - P_H, \\; w - P_W, \\; c}

    and 0 where that lies outside of x. The backward pass is this kernel on `dy`, with the signs
    of the padding turned.

    Parameters
    ----------
    y : (N, OD, OH, OW, C), overwritten
    x : (N, D, H, W, C)
    PD, PH, PW : int
        Padding before the first element; where negative, elements cut off there.
    """
    y[:] = 0
    spans = [_overlap(*axis) for axis in zip(x.shape[1:4], y.shape[1:4], (PD, PH, PW))]
    to, of = zip(*spans)
    y[(slice(None), *to)] = x[(slice(None), *of)]


def upsample_forward_numpy(y, x, SD, SH, SW):
    """Repeat every element along each spatial axis: magnify by the nearest neighbour.

    .. math:: y_{n, d, h, w, c} = x_{n, \\; \\lfloor d / S_D \\rfloor, \\;
              \\lfloor h / S_H \\rfloor, \\; \\lfloor w / S_W \\rfloor, \\; c}

    Parameters
    ----------
    y : (N, SD D, SH H, SW W, C), overwritten
    x : (N, D, H, W, C)
    SD, SH, SW : int
        How often.
    """
    y[:] = x.repeat(SD, axis=1).repeat(SH, axis=2).repeat(SW, axis=3)


def upsample_backward_input_numpy(dx, dy, SD, SH, SW):
    """Gradient with respect to the input: the sum over all repetitions.

    Shapes as in ``upsample_forward``.
    """
    N, D, H, W, C = dx.shape
    dx[:] = dy.reshape(N, D, SD, H, SH, W, SW, C).sum(axis=(2, 4, 6))


def _hat(length, S, dtype):
    """Weights of `length` elements in each of their `S * length` outputs."""
    centres = np.clip((np.arange(S * length) + 0.5) / S - 0.5, 0, length - 1)
    distance = np.abs(centres[:, None] - np.arange(length))
    return np.maximum(1 - distance, 0).astype(dtype)


def bilinear_forward_numpy(y, x, SH, SW):
    """Magnify by linear interpolation along both axes.

    Pixels are squares, and outputs and inputs cover the same area ("half-pixel centres"): the
    centre of output h lies at :math:`s_h = (h + 1/2) / S_H - 1/2` of the input, moved to the
    nearest pixel where that is outside.

    .. math:: y_{n, h, w, c} = \\sum_{i, j} \\Lambda(s_h - i) \\Lambda(s_w - j) x_{n, i, j, c},
              \\quad \\Lambda(t) = \\max(1 - |t|, 0)

    Parameters
    ----------
    y : (N, SH H, SW W, C), overwritten
    x : (N, H, W, C)
    SH, SW : int
        Magnifications.

    Notes
    -----
    Cost: four multiply-adds for each element of y.
    """
    rows, columns = _hat(x.shape[1], SH, x.dtype), _hat(x.shape[2], SW, x.dtype)
    y[:] = np.einsum("hi,wj,nijc->nhwc", rows, columns, x, optimize=True)


def bilinear_backward_input_numpy(dx, dy, SH, SW):
    """Gradient with respect to the input: what each pixel gave, it gets back.

    .. math:: dx_{n, i, j, c} = \\sum_{h, w} \\Lambda(s_h - i) \\Lambda(s_w - j) dy_{n, h, w, c}

    Shapes as in ``bilinear_forward``.
    """
    rows, columns = _hat(dx.shape[1], SH, dx.dtype), _hat(dx.shape[2], SW, dx.dtype)
    dx[:] = np.einsum("hi,wj,nhwc->nijc", rows, columns, dy, optimize=True)


def permute_forward_numpy(y, x, A, B, C, D, E):
    """Put the axes of every sample into another order.

    Axis 1 of y is axis A of x, axis 2 is axis B, and so on. The backward pass is this kernel on
    `dy`, with the inverse permutation.

    Parameters
    ----------
    y : six axes, the first one the samples; overwritten
    x : six axes
    A, B, C, D, E : int
        1 to 5 in some order.
    """
    y[:] = x.transpose(0, A, B, C, D, E)


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Rows of what is written are independent; gradients gather.

GRAIN = 16384  # elements written that make it worth waking a second thread
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


@inner
def _pad_rows(start, stop, worker, y, x, PD, PH, PW):
    D, H, W, C = x.shape[1], x.shape[2], x.shape[3], x.shape[4]
    OD, OH, OW = y.shape[1], y.shape[2], y.shape[3]
    for row in range(start, stop):
        n, d, h = row // (OD * OH), row // OH % OD - PD, row % OH - PH
        first, last = max(0, PW), min(OW, W + PW)
        if d < 0 or d >= D or h < 0 or h >= H or last < first:
            first, last = OW, OW
        to = floats(address(y, row * OW * C))
        for i in range(first * C):
            to[i] = ZERO
        for i in range(last * C, OW * C):
            to[i] = ZERO
        if first < last:
            to = floats(address(y, (row * OW + first) * C))
            of = floats(address(x, (((n * D + d) * H + h) * W + first - PW) * C))
            for i in range((last - first) * C):
                to[i] = of[i]


@cpu
def pad_forward_cpu(y, x, PD, PH, PW):
    """Parallel over rows of y."""
    width = y.shape[3] * y.shape[4]
    split(_pad_rows, y.size // width, 1 + GRAIN // width, (y, x, PD, PH, PW))


@inner
def _upsample_rows(start, stop, worker, y, x, SD, SH, SW):
    D, H, W, C = x.shape[1], x.shape[2], x.shape[3], x.shape[4]
    OD, OH = y.shape[1], y.shape[2]
    for row in range(start, stop):
        n, d, h = row // (OD * OH), row // OH % OD // SD, row % OH // SH
        for w in range(W):
            of = floats(address(x, (((n * D + d) * H + h) * W + w) * C))
            to = floats(address(y, (row * W + w) * SW * C))
            for k in range(SW):
                for c in range(C):
                    to[k * C + c] = of[c]


@cpu
def upsample_forward_cpu(y, x, SD, SH, SW):
    """Parallel over rows of y."""
    width = y.shape[3] * y.shape[4]
    split(_upsample_rows, y.size // width, 1 + GRAIN // width, (y, x, SD, SH, SW))


@inner
def _upsample_gradient_rows(start, stop, worker, dx, dy, SD, SH, SW):
    D, H, W, C = dx.shape[1], dx.shape[2], dx.shape[3], dx.shape[4]
    OD, OH, OW = dy.shape[1], dy.shape[2], dy.shape[3]
    for row in range(start, stop):
        n, d, h = row // (D * H), row // H % D, row % H
        for w in range(W):
            total = floats(address(dx, (row * W + w) * C))
            for c in range(C):
                total[c] = ZERO
            for i in range(SD):
                for j in range(SH):
                    o = ((n * OD + d * SD + i) * OH + h * SH + j) * OW + w * SW
                    of = floats(address(dy, o * C))
                    for k in range(SW):
                        for c in range(C):
                            total[c] += of[k * C + c]


@cpu
def upsample_backward_input_cpu(dx, dy, SD, SH, SW):
    """Parallel over rows of dx."""
    width = dx.shape[3] * dx.shape[4]
    grain = 1 + GRAIN // (width * SD * SH * SW)
    split(_upsample_gradient_rows, dx.size // width, grain, (dx, dy, SD, SH, SW))


@inner
def _left(output, S, length):
    """Along one axis: the first of the two elements that make an output, and the other's share."""
    # In units of 1 / (2 S), from the centre of the first element.
    position = min(max(2 * output + 1 - S, 0), 2 * S * (length - 1))
    return position // (2 * S), np.float32(position % (2 * S)) / np.float32(2 * S)


@inner
def _bilinear_rows(start, stop, worker, y, x, SH, SW):
    H, W, C = x.shape[1], x.shape[2], x.shape[3]
    OH, OW = y.shape[1], y.shape[2]
    for row in range(start, stop):
        top, down = _left(row % OH, SH, H)
        upper, lower = row // OH * H + top, row // OH * H + min(top + 1, H - 1)
        for ow in range(OW):
            left, across = _left(ow, SW, W)
            right = min(left + 1, W - 1)
            a = floats(address(x, (upper * W + left) * C))
            b = floats(address(x, (upper * W + right) * C))
            d = floats(address(x, (lower * W + left) * C))
            e = floats(address(x, (lower * W + right) * C))
            to = floats(address(y, (row * OW + ow) * C))
            for c in range(C):
                above = (ONE - across) * a[c] + across * b[c]
                below = (ONE - across) * d[c] + across * e[c]
                to[c] = (ONE - down) * above + down * below


@cpu
def bilinear_forward_cpu(y, x, SH, SW):
    """Parallel over rows of y."""
    width = y.shape[2] * y.shape[3]
    split(_bilinear_rows, y.size // width, 1 + GRAIN // width, (y, x, SH, SW))


@inner
def _reach(i, S, length):
    """Along one axis: the first output that element `i` is part of, and the one after the last."""
    return max(0, ((2 * i - 1) * S + 1) // 2), min(S * length, ((2 * i + 3) * S) // 2)


@inner
def _share(output, i, S, length):
    """Along one axis: the weight of element `i` in an output."""
    left, rest = _left(output, S, length)
    return ONE - rest if i == left else rest


@inner
def _bilinear_gradient_rows(start, stop, worker, dx, dy, SH, SW):
    H, W, C = dx.shape[1], dx.shape[2], dx.shape[3]
    OH, OW = dy.shape[1], dy.shape[2]
    for row in range(start, stop):
        n, i = row // H, row % H
        h0, h1 = _reach(i, SH, H)
        for j in range(W):
            w0, w1 = _reach(j, SW, W)
            total = floats(address(dx, (row * W + j) * C))
            for c in range(C):
                total[c] = ZERO
            for h in range(h0, h1):
                for w in range(w0, w1):
                    weight = _share(h, i, SH, H) * _share(w, j, SW, W)
                    of = floats(address(dy, ((n * OH + h) * OW + w) * C))
                    for c in range(C):
                        total[c] += weight * of[c]


@cpu
def bilinear_backward_input_cpu(dx, dy, SH, SW):
    """Parallel over rows of dx."""
    width = dx.shape[2] * dx.shape[3]
    grain = 1 + GRAIN // (4 * width * SH * SW)
    split(_bilinear_gradient_rows, dx.size // width, grain, (dx, dy, SH, SW))


@inner
def _stride(x, axis):
    step = 1
    for later in range(axis + 1, 6):
        step *= x.shape[later]
    return step


@inner
def _permuted_rows(start, stop, worker, y, x, A, B, C, D, E):
    a, b, c, d, e = _stride(x, A), _stride(x, B), _stride(x, C), _stride(x, D), _stride(x, E)
    _, n1, n2, n3, n4, n5 = y.shape
    for row in range(start, stop):
        n, i, j = row // (n1 * n2 * n3 * n4), row // (n2 * n3 * n4) % n1, row // (n3 * n4) % n2
        k, l = row // n4 % n3, row % n4
        of = floats(address(x, n * _stride(x, 0) + i * a + j * b + k * c + l * d))
        to = floats(address(y, row * n5))
        for m in range(n5):
            to[m] = of[m * e]


@cpu
def permute_forward_cpu(y, x, A, B, C, D, E):
    """Parallel over rows of y, each of which gathers its elements."""
    width = y.shape[5]
    split(_permuted_rows, y.size // width, 1 + GRAIN // width, (y, x, A, B, C, D, E))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element of what is written.


@gpu
def _pad_elements(y, x, PD, PH, PW):
    _, D, H, W, _ = x.shape
    _, OD, OH, OW, C = y.shape
    for o in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, od, oh, ow, c = place(o, OD, OH, OW, C)
        d, h, w = od - PD, oh - PH, ow - PW
        inside = d >= 0 and d < D and h >= 0 and h < H and w >= 0 and w < W
        y[n, od, oh, ow, c] = x[n, d, h, w, c] if inside else ZERO


def pad_forward_cuda(y, x, PD, PH, PW):
    over(_pad_elements, y.size, y, x, PD, PH, PW)


@gpu
def _upsample_elements(y, x, SD, SH, SW):
    _, OD, OH, OW, C = y.shape
    for o in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, d, h, w, c = place(o, OD, OH, OW, C)
        y[n, d, h, w, c] = x[n, d // SD, h // SH, w // SW, c]


def upsample_forward_cuda(y, x, SD, SH, SW):
    over(_upsample_elements, y.size, y, x, SD, SH, SW)


@gpu
def _upsample_gradient_elements(dx, dy, SD, SH, SW):
    _, D, H, W, C = dx.shape
    for e in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, d, h, w, c = place(e, D, H, W, C)
        total = ZERO
        for i in range(d * SD, d * SD + SD):
            for j in range(h * SH, h * SH + SH):
                for k in range(w * SW, w * SW + SW):
                    total += dy[n, i, j, k, c]
        dx[n, d, h, w, c] = total


def upsample_backward_input_cuda(dx, dy, SD, SH, SW):
    over(_upsample_gradient_elements, dx.size, dx, dy, SD, SH, SW)


@gpu
def _bilinear_elements(y, x, SH, SW):
    H, W = x.shape[1], x.shape[2]
    _, OH, OW, C = y.shape
    for o in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, _, oh, ow, c = place(o, 1, OH, OW, C)
        upper, down = _left(oh, SH, H)
        left, across = _left(ow, SW, W)
        lower, right = min(upper + 1, H - 1), min(left + 1, W - 1)
        above = (ONE - across) * x[n, upper, left, c] + across * x[n, upper, right, c]
        below = (ONE - across) * x[n, lower, left, c] + across * x[n, lower, right, c]
        y[n, oh, ow, c] = (ONE - down) * above + down * below


def bilinear_forward_cuda(y, x, SH, SW):
    over(_bilinear_elements, y.size, y, x, SH, SW)


@gpu
def _bilinear_gradient_elements(dx, dy, SH, SW):
    _, H, W, C = dx.shape
    for e in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, _, i, j, c = place(e, 1, H, W, C)
        h0, h1 = _reach(i, SH, H)
        w0, w1 = _reach(j, SW, W)
        total = ZERO
        for h in range(h0, h1):
            for w in range(w0, w1):
                weight = _share(h, i, SH, H) * _share(w, j, SW, W)
                total += weight * dy[n, h, w, c]
        dx[n, i, j, c] = total


def bilinear_backward_input_cuda(dx, dy, SH, SW):
    over(_bilinear_gradient_elements, dx.size, dx, dy, SH, SW)


@gpu
def _permuted_elements(y, x, steps):
    first, a, b, c, d, e = steps
    _, n1, n2, n3, n4, n5 = y.shape
    for o in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        row, i, j, k, l = place(o // n5, n1, n2, n3, n4)
        m = o % n5
        y[row, i, j, k, l, m] = x[row * first + i * a + j * b + k * c + l * d + m * e]


def permute_forward_cuda(y, x, A, B, C, D, E):
    steps = _stride(x, 0), *(_stride(x, axis) for axis in (A, B, C, D, E))
    over(_permuted_elements, y.size, y, x.reshape(-1), steps)
