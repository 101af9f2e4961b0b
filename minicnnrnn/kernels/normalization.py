"""Batch normalization, and the affine map of every channel that it is once trained.

Sums over the rows of every channel, and maps applied to them, are also what group normalization
is made of: its tools are the functions here that work on addresses.
"""

import math

import numpy as np

from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.elementary import always, choose
from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch, over
from minicnnrnn.kernels.jit import cpu, inner, split
from minicnnrnn.kernels.panel import address, floats
from minicnnrnn.kernels.reduce import (
    JOINED,
    block_sum_wide,
    column_sums,
    grid_of_columns,
    lane_sum,
    lane_sum_wide,
    lanes_of,
    launch_column_sums,
    own_column,
    parts_of_columns,
)

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def affine_forward_numpy(y, x, center, scale, shift, ws):
    """Shift and scale every channel.

    .. math:: y_{rc} = (x_{rc} - m_c) a_c + b_c

    Parameters
    ----------
    y : (R, C), overwritten
    x : (R, C)
    center : (C,) or (0,) for zeros
        m, which is subtracted first, so that no digits are lost where it is large.
    scale : (C,)
        a.
    shift : (C,) or (0,) for zeros
        b.

    Notes
    -----
    One pass over memory. The gradient is the same map of `dy`, with `scale` alone.
    """
    centered = x - center if center.size else x
    y[:] = centered * scale + (shift if shift.size else 0)


def batch_norm_forward_numpy(
    y,
    mean,
    inverse,
    moving_mean,
    moving_variance,
    x,
    gamma,
    beta,
    mask,
    momentum,
    epsilon,
    relu,
    ws,
):
    """Normalize every channel with the batch's own mean and variance, as in training.

    .. math::
        \\mu_c = \\frac{1}{n} \\sum_r k_r x_{rc}, \\quad
        \\sigma^2_c = \\frac{1}{n} \\sum_r k_r (x_{rc} - \\mu_c)^2, \\quad
        n = \\sum_r k_r, \\quad
        y_{rc} = \\gamma_c \\frac{x_{rc} - \\mu_c}{\\sqrt{\\sigma^2_c + \\epsilon}} + \\beta_c

    Parameters
    ----------
    y : (R, C), overwritten
    mean : (C,), overwritten
        :math:`\\mu`, which backward wants.
    inverse : (C,), overwritten
        :math:`1 / \\sqrt{\\sigma^2 + \\epsilon}`, which backward wants.
    moving_mean, moving_variance : (C,), updated in place
        They keep the share `momentum` of what they are, and take the rest from the batch.
    x : (R, C)
        A row for every sample, or for every pixel or step of every sample.
    gamma : (C,) or (0,) for ones
    beta : (C,) or (0,) for zeros
    mask : uint8 (R,) or (0,) for ones
        k: rows with a zero are normalized, but not counted. Without any row left, mean and
        variance are zero.
    momentum, epsilon : float
    relu : int
        1: what is below zero becomes zero, as in the activation that usually follows.

    Notes
    -----
    Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1; the variance is the biased one, in the
    moving statistics too, as in Keras. Two passes over memory: one for the statistics, one to
    normalize.
    """
    rows = x[mask != 0] if mask.size else x
    some = len(rows) > 0
    mu, variance = (rows.mean(0), rows.var(0)) if some else (np.zeros_like(x[0]),) * 2
    mean[:], inverse[:] = mu, 1 / np.sqrt(variance + epsilon)
    moving_mean[:] = moving_mean * momentum + mu * (1 - momentum)
    moving_variance[:] = moving_variance * momentum + variance * (1 - momentum)
    scale = gamma * inverse if gamma.size else inverse
    affine_forward_numpy(y, x, mu, scale, beta, ws)
    if relu:
        np.maximum(y, 0, out=y)


def batch_norm_inference_numpy(y, inverse, x, gamma, beta, mean, variance, epsilon, relu, ws):
    """Normalize every channel with a mean and a variance that are given.

    Parameters
    ----------
    mean, variance : (C,)
        The moving statistics.
    y, inverse, x, gamma, beta, epsilon, relu : as in ``batch_norm_forward``
    """
    inverse[:] = 1 / np.sqrt(variance + epsilon)
    affine_forward_numpy(y, x, mean, gamma * inverse if gamma.size else inverse, beta, ws)
    if relu:
        np.maximum(y, 0, out=y)


def batch_norm_backward_weight_numpy(dgamma, dbeta, x, dy, y, mean, inverse, ws):
    """Gradients with respect to scale and offset.

    .. math::
        d\\gamma_c = \\sum_r dy_{rc} \\hat{x}_{rc}, \\qquad d\\beta_c = \\sum_r dy_{rc},
        \\qquad \\hat{x}_{rc} = (x_{rc} - \\mu_c) \\, inverse_c

    Parameters
    ----------
    dgamma, dbeta : (C,), overwritten
        ``backward_input`` wants both, also where there is no scale or offset to train.
    x, dy : (R, C)
    y : (R, C), or (0, 0) without a relu
        The output: where it is not above zero, `dy` counts as zero.
    mean, inverse : (C,), as a forward pass left them
    """
    dy = np.where(y <= 0, 0, dy) if y.size else dy
    np.sum(dy, axis=0, out=dbeta)
    dgamma[:] = np.sum(dy * (x - mean), axis=0) * inverse


def batch_norm_backward_input_numpy(dx, x, dy, y, gamma, mean, inverse, dgamma, dbeta, mask, ws):
    """Gradient with respect to the input.

    .. math::
        dx_{rc} = \\gamma_c \\, inverse_c
            \\left( dy_{rc} - \\frac{k_r}{n} (d\\beta_c + \\hat{x}_{rc} d\\gamma_c) \\right)

    Parameters
    ----------
    dx : (R, C), overwritten
    dgamma, dbeta : (C,), as ``backward_weight`` left them; (0,) for the gradient of
        ``inference``, whose statistics do not depend on `x`: the sum in brackets is `dy` then
    x, dy, y, gamma, mean, inverse, mask : as in the other passes
    """
    dy = np.where(y <= 0, 0, dy) if y.size else dy
    scale = gamma * inverse if gamma.size else inverse
    dx[:] = dy * scale
    if dgamma.size:
        counted = mask[:, None] != 0 if mask.size else np.ones_like(x[:, :1])
        through = dbeta + (x - mean) * inverse * dgamma
        dx -= counted * through * (scale / max(counted.sum(), 1))


def batch_norm_workspace_numpy(R, C):
    """Floats of workspace that the passes of this layer need."""
    return 0


def affine_workspace_numpy(R, C):
    """Floats of workspace that the map needs."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# The arrays are walked in wide rows of `W` lanes: as many rows of C channels as fill some vectors,
# so that three channels run as fast as three hundred. Sums over rows are cut into at most PARTS
# ranges, whatever the number of threads; applying a map is cut anywhere. Each part of the
# statistics subtracts a shift of its own, near its mean, before it squares: one pass is enough
# then, and a mean far from zero costs no digits.

WIDTH = 256  # lanes, if the channels are fewer
BLOCK = 256  # wide rows that are summed before their sum is added to that of the part
ZERO, ONE, FOUR, NOTHING = np.float32(0), np.float32(1), np.float32(4), np.float64(0)
# A relu costs no loop of its own: outputs below a floor become the floor, and gradients are closed
# where the output is not above a limit. No number is below NO_FLOOR, and none is NO_LIMIT or less.
NO_FLOOR, NO_LIMIT = np.float32(-np.inf), np.float32(np.nan)


@cpu
def lane_width(R, C):
    """Lanes of a wide row: a multiple of C."""
    return C * max(1, min(WIDTH // C, R))


@inner
def parts_of(R, C):
    """Partial sums of a reduction over R rows: the same for any number of threads."""
    return max(1, min(PARTS, min(R * C // 4096, R // 32)))


@inner
def spread(lanes, C, W):
    """Repeat the first C lanes, at an address, in all others up to W."""
    lane = floats(lanes)
    for j in range(C, W):
        lane[j] = lane[j - C]


@inner
def begin_sums(sums, x, start, stop, C, W):
    """Set the sums of all lanes to zero, and their shift to the channel's mean in some rows.

    At the address `sums` lie 5 W floats: shift, first sum, second sum, and the two of a block.
    `x` is an address, too; the rows are the first few of its elements from start to stop.
    """
    shift = floats(sums)
    for j in range(3 * W):
        shift[j] = ZERO
    rows = min((stop - start) // C, max(4, 64 // C))
    share = ONE / np.float32(rows)
    for row in range(rows):
        source = floats(x + 4 * (start + row * C))
        for c in range(C):
            shift[c] += share * source[c]
    spread(sums, C, W)


@inner
def add_squares(sums, x, start, stop, W):
    """Add x - shift, and its square, to the sums of the lanes: elements from start to stop."""
    shift, first, second = floats(sums), floats(sums + 4 * W), floats(sums + 8 * W)
    block_1, block_2 = floats(sums + 12 * W), floats(sums + 16 * W)
    for block in range(start, stop, BLOCK * W):
        end, i = min(block + BLOCK * W, stop), block
        for j in range(W):
            block_1[j] = ZERO
            block_2[j] = ZERO
        while i + 4 * W <= end:  # four rows at once: fewer trips to the sums
            x0, x1 = floats(x + 4 * i), floats(x + 4 * (i + W))
            x2, x3 = floats(x + 4 * (i + 2 * W)), floats(x + 4 * (i + 3 * W))
            for j in range(W):
                k = shift[j]
                v0, v1, v2, v3 = x0[j] - k, x1[j] - k, x2[j] - k, x3[j] - k
                block_1[j] += (v0 + v1) + (v2 + v3)
                block_2[j] += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3)
            i += 4 * W
        while i < end:
            xs = floats(x + 4 * i)
            for j in range(min(W, end - i)):
                v = xs[j] - shift[j]
                block_1[j] += v
                block_2[j] += v * v
            i += W
        for j in range(W):
            first[j] += block_1[j]
            second[j] += block_2[j]


@inner
def add_products(sums, x, dy, y, limit, start, stop, W):
    """Add dy, and dy (x - shift), to the sums of the lanes; otherwise as ``add_squares``.

    `dy` counts as zero where `y` is not above the limit. Without a relu `y` may be `dy`.
    """
    shift, first, second = floats(sums), floats(sums + 4 * W), floats(sums + 8 * W)
    block_1, block_2 = floats(sums + 12 * W), floats(sums + 16 * W)
    for block in range(start, stop, BLOCK * W):
        end, i = min(block + BLOCK * W, stop), block
        for j in range(W):
            block_1[j] = ZERO
            block_2[j] = ZERO
        while i + 2 * W <= end:
            x0, x1 = floats(x + 4 * i), floats(x + 4 * (i + W))
            d0, d1 = floats(dy + 4 * i), floats(dy + 4 * (i + W))
            y0, y1 = floats(y + 4 * i), floats(y + 4 * (i + W))
            for j in range(W):
                g0 = choose(y0[j] <= limit, ZERO, d0[j])
                g1 = choose(y1[j] <= limit, ZERO, d1[j])
                block_1[j] += g0 + g1
                block_2[j] += g0 * (x0[j] - shift[j]) + g1 * (x1[j] - shift[j])
            i += 2 * W
        while i < end:
            xs, ds, ys = floats(x + 4 * i), floats(dy + 4 * i), floats(y + 4 * i)
            for j in range(min(W, end - i)):
                g = choose(ys[j] <= limit, ZERO, ds[j])
                block_1[j] += g
                block_2[j] += g * (xs[j] - shift[j])
            i += W
        for j in range(W):
            first[j] += block_1[j]
            second[j] += block_2[j]


@inner
def fold_lanes(sums, C, W):
    """Add up the lanes of every channel: its two sums are in the first C lanes then."""
    for which in range(1, 3):
        lane = floats(sums + 4 * which * W)
        for c in range(C):
            total = NOTHING
            for j in range(c, W, C):
                total += lane[j]
            lane[c] = np.float32(total)


@always
def _mapped(x, center, scale, shift, floor):
    v = (x - center) * scale + shift
    return choose(v < floor, floor, v)


@inner
def apply_affine(y, x, floor, start, stop, lanes, W):
    """Set y = (x - center) scale + shift, or the floor if that is higher.

    On the elements from start to stop; `y`, `x` and `lanes` are addresses.
    """
    center, scale, shift = floats(lanes), floats(lanes + 4 * W), floats(lanes + 8 * W)
    for i in range(start, stop, W):
        ys, xs = floats(y + 4 * i), floats(x + 4 * i)
        for j in range(min(W, stop - i)):
            ys[j] = _mapped(xs[j], center[j], scale[j], shift[j], floor)


@inner
def apply_gradient(dx, x, dy, y, limit, start, stop, lanes, W):
    """Set dx = a dy + b x + c, on the elements from start to stop; see ``add_products``."""
    a, b, c = floats(lanes), floats(lanes + 4 * W), floats(lanes + 8 * W)
    for i in range(start, stop, W):
        ts, xs, ds = floats(dx + 4 * i), floats(x + 4 * i), floats(dy + 4 * i)
        ys = floats(y + 4 * i)
        for j in range(min(W, stop - i)):
            g = choose(ys[j] <= limit, ZERO, ds[j])
            ts[j] = a[j] * g + (b[j] * xs[j] + c[j])


@cpu
def batch_norm_workspace_cpu(R, C):
    return (3 + 5 * PARTS) * max(C, WIDTH)


@cpu
def affine_workspace_cpu(R, C):
    return 3 * max(C, WIDTH)


@inner
def _affine_rows(start, stop, worker, y, x, floor, size, lanes, W):
    apply_affine(y, x, floor, start * W, min(stop * W, size), lanes, W)


@inner
def _apply(y, x, relu, ws, C, W):
    """Apply the maps in the first lanes of the workspace to all channels."""
    lanes = address(ws, 0)
    for which in range(3):
        spread(lanes + 4 * which * W, C, W)
    floor = ZERO if relu else NO_FLOOR
    arguments = (address(y, 0), address(x, 0), floor, x.size, lanes, W)
    split(_affine_rows, (x.size + W - 1) // W, 1 + 16384 // W, arguments)


@cpu
def affine_forward_cpu(y, x, center, scale, shift, ws):
    R, C = x.shape
    W = lane_width(R, C)
    for c in range(C):
        ws[c] = center[c] if center.size else ZERO
        ws[W + c] = scale[c]
        ws[2 * W + c] = shift[c] if shift.size else ZERO
    _apply(y, x, 0, ws, C, W)


@inner
def _grain(items, size):
    """Items that make it worth waking a second thread, where all have `size` elements together."""
    return 1 + 16384 * items // size


@inner
def _sum_squares(start, stop, worker, x, mask, R, C, W, parts, partial):
    for part in range(start, stop):
        sums = partial + 20 * W * part
        row, last, count = R * part // parts, R * (part + 1) // parts, 0
        while row < last:  # from run to run of rows that count
            end = last
            if mask.size:
                while row < last and mask[row] == 0:
                    row += 1
                end = row
                while end < last and mask[end] != 0:
                    end += 1
            if end > row:
                if count == 0:
                    begin_sums(sums, x, row * C, end * C, C, W)
                add_squares(sums, x, row * C, end * C, W)
            count += end - row
            row = end
        fold_lanes(sums, C, W)
        floats(sums)[3 * W] = np.float32(count)


@inner
def _moments(sums, first, c, W, step, parts):
    """Mean and variance of a channel from the sums of its parts, in float64.

    Those of the first part begin at `first`, those of the next one `step` later.
    """
    count, total, squares = NOTHING, NOTHING, NOTHING
    for part in range(parts):
        at = first + step * part
        n = np.float64(sums[at + 3 * W])
        if n > 0:
            count += n
            total += n * sums[at + c] + sums[at + W + c]
    if count == 0:
        return NOTHING, NOTHING
    mean = total / count
    for part in range(parts):
        at = first + step * part
        n = np.float64(sums[at + 3 * W])
        if n > 0:
            d = sums[at + c] - mean
            squares += sums[at + 2 * W + c] + d * (2.0 * sums[at + W + c] + n * d)
    if squares < 0:  # not max: a NaN has to stay
        squares = NOTHING
    return mean, squares / count


@cpu
def batch_norm_forward_cpu(
    y,
    mean,
    inverse,
    moving_mean,
    moving_variance,
    x,
    gamma,
    beta,
    mask,
    momentum,
    epsilon,
    relu,
    ws,
):
    R, C = x.shape
    W, parts = lane_width(R, C), parts_of(R, C)
    partial = address(ws, 3 * W)
    arguments = (address(x, 0), mask, R, C, W, parts, partial)
    split(_sum_squares, parts, _grain(parts, x.size), arguments)
    for c in range(C):
        mu, variance = _moments(ws, 3 * W, c, W, 5 * W, parts)
        mean[c] = np.float32(mu)
        inverse[c] = np.float32(1 / np.sqrt(variance + epsilon))
        moving_mean[c] = np.float32(moving_mean[c] * momentum + mu * (1 - momentum))
        moving_variance[c] = np.float32(moving_variance[c] * momentum + variance * (1 - momentum))
        ws[c] = mean[c]
        ws[W + c] = gamma[c] * inverse[c] if gamma.size else inverse[c]
        # What the mean lost when it was rounded comes back with the offset.
        offset = beta[c] if beta.size else ZERO
        ws[2 * W + c] = np.float32(offset + (mean[c] - mu) * ws[W + c])
    _apply(y, x, relu, ws, C, W)


@cpu
def batch_norm_inference_cpu(y, inverse, x, gamma, beta, mean, variance, epsilon, relu, ws):
    R, C = x.shape
    W = lane_width(R, C)
    for c in range(C):
        inverse[c] = np.float32(1 / np.sqrt(np.float64(variance[c]) + epsilon))
        ws[c] = mean[c]
        ws[W + c] = gamma[c] * inverse[c] if gamma.size else inverse[c]
        ws[2 * W + c] = beta[c] if beta.size else ZERO
    _apply(y, x, relu, ws, C, W)


@inner
def _gate(y, dy):
    """Where the relu's output lies, and the limit that closes it: see ``add_products``."""
    if y.size:
        return address(y, 0), ZERO
    return address(dy, 0), NO_LIMIT


@inner
def _sum_products(start, stop, worker, x, dy, y, limit, mean, R, C, W, parts, partial):
    for part in range(start, stop):
        sums, first, last = partial + 20 * W * part, R * part // parts, R * (part + 1) // parts
        lane, source = floats(sums), floats(mean)
        for j in range(3 * W):
            lane[j] = source[j] if j < C else ZERO
        spread(sums, C, W)
        add_products(sums, x, dy, y, limit, first * C, last * C, W)
        fold_lanes(sums, C, W)


@cpu
def batch_norm_backward_weight_cpu(dgamma, dbeta, x, dy, y, mean, inverse, ws):
    R, C = x.shape
    W, parts = lane_width(R, C), parts_of(R, C)
    arrays = (address(x, 0), address(dy, 0), *_gate(y, dy), address(mean, 0))
    arguments = (*arrays, R, C, W, parts, address(ws, 0))
    split(_sum_products, parts, _grain(parts, x.size), arguments)
    for c in range(C):
        first, second = NOTHING, NOTHING
        for part in range(parts):
            first += ws[(5 * part + 1) * W + c]
            second += ws[(5 * part + 2) * W + c]
        dbeta[c] = np.float32(first)
        dgamma[c] = np.float32(second * inverse[c])


@inner
def _gradient_rows(start, stop, worker, dx, x, dy, y, limit, size, mask, constant, lanes, W):
    if not constant and mask.size == 0:
        apply_gradient(dx, x, dy, y, limit, start * W, min(stop * W, size), lanes, W)
        return
    scale = floats(lanes)
    for row in range(start, stop):
        i, end = row * W, min((row + 1) * W, size)
        if constant or mask[row] == 0:
            ts, ds, ys = floats(dx + 4 * i), floats(dy + 4 * i), floats(y + 4 * i)
            for j in range(end - i):
                ts[j] = scale[j] * choose(ys[j] <= limit, ZERO, ds[j])
        else:
            apply_gradient(dx, x, dy, y, limit, i, end, lanes, W)


@inner
def _through_statistics(scale, count, mean, inverse, dgamma, dbeta):
    """Of a channel, the b and c of ``apply_gradient``."""
    a, b = -np.float64(scale) / count, inverse * dgamma
    return np.float32(a * b), np.float32(a * (dbeta - b * mean))


@cpu
def batch_norm_backward_input_cpu(dx, x, dy, y, gamma, mean, inverse, dgamma, dbeta, mask, ws):
    R, C = x.shape
    W = C if mask.size else lane_width(R, C)  # a row that is masked is a wide row of its own
    count = R
    for row in range(mask.size):
        count -= 1 if mask[row] == 0 else 0
    count = max(count, 1)
    for c in range(C):
        ws[c] = gamma[c] * inverse[c] if gamma.size else inverse[c]
        if dgamma.size:
            ws[W + c], ws[2 * W + c] = _through_statistics(
                ws[c], count, mean[c], inverse[c], dgamma[c], dbeta[c]
            )
    lanes = address(ws, 0)
    for which in range(3):
        spread(lanes + 4 * which * W, C, W)
    arrays = address(dx, 0), address(x, 0), address(dy, 0), *_gate(y, dy), x.size
    constant = dgamma.size == 0
    split(
        _gradient_rows,
        (x.size + W - 1) // W,
        1 + 16384 // W,
        (*arrays, mask, constant, lanes, W),
    )


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# Statistics: blocks over some channels and a part of the rows, each part with a shift of its own,
# and then blocks that join the parts. Maps: threads that keep to a channel. A forward pass reads x
# twice and writes y, a backward pass reads x, dy and, behind a relu, y twice, and writes dx.

NONE = np.empty(0, np.float32)


def batch_norm_workspace_cuda(R, C):
    return (4 * parts_of_columns(R, C) + 1) * C


def affine_workspace_cuda(R, C):
    return 0


@gpu
def _map_rows(y, x, center, scale, factor, shift, floor, lanes):
    (R, C), (c, row, rows), lowest = x.shape, own_column(lanes), np.float32(floor)
    if c < C:
        rate = scale[c] * factor[c] if factor.size else scale[c]
        middle, offset = center[c] if center.size else ZERO, shift[c] if shift.size else ZERO
        r, step = cuda.blockIdx.y * rows + row, cuda.gridDim.y * rows
        while r + 3 * step < R:  # all four are read before one is written
            v0, v1 = x[r, c], x[r + step, c]
            v2, v3 = x[r + 2 * step, c], x[r + 3 * step, c]
            y[r, c] = _mapped(v0, middle, rate, offset, lowest)
            y[r + step, c] = _mapped(v1, middle, rate, offset, lowest)
            y[r + 2 * step, c] = _mapped(v2, middle, rate, offset, lowest)
            y[r + 3 * step, c] = _mapped(v3, middle, rate, offset, lowest)
            r += 4 * step
        while r < R:
            y[r, c] = _mapped(x[r, c], middle, rate, offset, lowest)
            r += step


def _launch_map(y, x, center, scale, factor, shift, floor):
    arrays, lanes = (y, x, center, scale, factor, shift), lanes_of(x.shape[1])
    launch(_map_rows, grid_of_columns(*x.shape), THREADS, *arrays, floor, lanes)


def affine_forward_cuda(y, x, center, scale, shift, ws):
    _launch_map(y, x, center, scale, NONE, shift, -math.inf)


@gpu
def _shift(x, mask, begin, end, c):
    """About the mean of a part of the rows: that of four, or the first one that is not masked."""
    if mask.size == 0:
        quarter = (end - begin) // 4
        near = x[begin, c] + x[begin + quarter, c]
        far = x[begin + 2 * quarter, c] + x[begin + 3 * quarter, c]
        return (near + far) * np.float32(0.25)
    r = begin
    while r < end and mask[r] == 0:
        r += 1
    return x[r, c] if r < end else ZERO


@gpu
def _sum_part(x, mask, parts, lanes, ws):
    (R, C), (c, row, rows), part = x.shape, own_column(lanes), cuda.blockIdx.y
    begin, end = R * part // parts, R * (part + 1) // parts
    shift, count, first, second = ZERO, ZERO, ZERO, ZERO
    if c < C:
        shift, r = _shift(x, mask, begin, end, c), begin + row
        while mask.size == 0 and r + 3 * rows < end:
            v0, v1 = x[r, c] - shift, x[r + rows, c] - shift
            v2, v3 = x[r + 2 * rows, c] - shift, x[r + 3 * rows, c] - shift
            count += FOUR
            first += (v0 + v1) + (v2 + v3)
            second += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3)
            r += 4 * rows
        while r < end:
            if mask.size == 0 or mask[r] != 0:
                v = x[r, c] - shift
                count += ONE
                first += v
                second += v * v
            r += rows
    count = lane_sum(count, lanes)
    first, second = lane_sum(first, lanes), lane_sum(second, lanes)
    if row == 0 and c < C:
        at = C + 4 * part * C + c
        ws[at], ws[at + C], ws[at + 2 * C], ws[at + 3 * C] = shift, first, second, count


@gpu
def _join_moments(ws, C, c, row, rows, parts):
    """Mean and variance of a channel, whose parts are brought to the shift of the first one."""
    count, total, squares, origin = NOTHING, NOTHING, NOTHING, NOTHING
    if c < C:
        origin = np.float64(ws[C + c])
        for part in range(row, parts, rows):
            at = C + 4 * part * C + c
            n = np.float64(ws[at + 3 * C])
            if n > 0:
                d, first = ws[at] - origin, np.float64(ws[at + C])
                count += n
                total += first + n * d
                squares += ws[at + 2 * C] + d * (2.0 * first + n * d)
    count, total = lane_sum_wide(count, JOINED), lane_sum_wide(total, JOINED)
    squares = lane_sum_wide(squares, JOINED)
    if count == 0:
        return NOTHING, NOTHING
    mean = total / count
    variance = squares / count - mean * mean
    return origin + mean, NOTHING if variance < 0 else variance


@gpu
def _join_parts(
    mean, inverse, moving_mean, moving_variance, gamma, beta, momentum, epsilon, parts, ws
):
    C, (c, row, rows) = mean.size, own_column(JOINED)
    mu, variance = _join_moments(ws, C, c, row, rows, parts)
    if row == 0 and c < C:
        mean[c] = np.float32(mu)
        inverse[c] = np.float32(1 / math.sqrt(variance + epsilon))
        moving_mean[c] = np.float32(moving_mean[c] * momentum + mu * (1 - momentum))
        moving_variance[c] = np.float32(moving_variance[c] * momentum + variance * (1 - momentum))
        rate = gamma[c] * inverse[c] if gamma.size else inverse[c]
        # What the mean lost when it was rounded comes back with the offset.
        ws[c] = np.float32((beta[c] if beta.size else ZERO) + (mean[c] - mu) * rate)


def batch_norm_forward_cuda(
    y, mean, inverse, moving_mean, moving_variance, x, gamma, beta, mask, momentum, epsilon, relu,
    ws,
):  # fmt: skip
    R, C = x.shape
    parts, lanes = parts_of_columns(R, C), lanes_of(C)
    launch(_sum_part, (-(-C // lanes), parts), THREADS, x, mask, parts, lanes, ws)
    outputs = mean, inverse, moving_mean, moving_variance
    rates = float(momentum), float(epsilon)
    launch(_join_parts, -(-C // JOINED), THREADS, *outputs, gamma, beta, *rates, parts, ws)
    _launch_map(y, x, mean, inverse, gamma, ws, 0.0 if relu else -math.inf)


@gpu
def _invert(inverse, variance, epsilon):
    for c in range(cuda.grid(1), inverse.size, cuda.gridsize(1)):
        inverse[c] = np.float32(1 / math.sqrt(np.float64(variance[c]) + epsilon))


def batch_norm_inference_cuda(y, inverse, x, gamma, beta, mean, variance, epsilon, relu, ws):
    over(_invert, inverse.size, inverse, variance, float(epsilon))
    _launch_map(y, x, mean, inverse, gamma, beta, 0.0 if relu else -math.inf)


def _gated(y, dy):
    """As ``_gate``: both are read without a branch, which would let one read wait for the other."""
    return (y, 0.0) if y.size else (dy, float(NO_LIMIT))


@gpu
def _through_relu(dy, y, limit, r, c):
    g = dy[r, c]
    return ZERO if y[r, c] <= np.float32(limit) else g


@gpu
def _term_of_scale(operands, r, c):
    x, dy, y, limit, mean = operands
    g = _through_relu(dy, y, limit, r, c)
    return g, g * (x[r, c] - mean[c])


_scale_sums = column_sums(_term_of_scale)


def batch_norm_backward_weight_cuda(dgamma, dbeta, x, dy, y, mean, inverse, ws):
    launch_column_sums(_scale_sums, dbeta, dgamma, inverse, len(x), ws, x, dy, *_gated(y, dy), mean)


@gpu
def _count_rows(mask, ws):
    counted = NOTHING
    for r in range(cuda.threadIdx.x, mask.size, THREADS):
        counted += 1.0 if mask[r] != 0 else 0.0
    counted = block_sum_wide(counted)
    if cuda.threadIdx.x == 0:
        ws[0] = np.float32(max(counted, 1.0))


@gpu
def _gradients(dx, x, dy, y, limit, gamma, mean, inverse, dgamma, dbeta, mask, lanes, ws):
    (R, C), (c, row, rows) = x.shape, own_column(lanes)
    if c < C:
        a, b, d = gamma[c] * inverse[c] if gamma.size else inverse[c], ZERO, ZERO
        if dgamma.size:
            count = np.float64(ws[0]) if mask.size else np.float64(R)
            b, d = _through_statistics(a, count, mean[c], inverse[c], dgamma[c], dbeta[c])
        r, step = cuda.blockIdx.y * rows + row, cuda.gridDim.y * rows
        while mask.size == 0 and dgamma.size and r + 3 * step < R:
            g0, v0 = _through_relu(dy, y, limit, r, c), x[r, c]
            g1, v1 = _through_relu(dy, y, limit, r + step, c), x[r + step, c]
            g2, v2 = _through_relu(dy, y, limit, r + 2 * step, c), x[r + 2 * step, c]
            g3, v3 = _through_relu(dy, y, limit, r + 3 * step, c), x[r + 3 * step, c]
            dx[r, c] = a * g0 + (b * v0 + d)
            dx[r + step, c] = a * g1 + (b * v1 + d)
            dx[r + 2 * step, c] = a * g2 + (b * v2 + d)
            dx[r + 3 * step, c] = a * g3 + (b * v3 + d)
            r += 4 * step
        while r < R:
            g = a * _through_relu(dy, y, limit, r, c)
            if dgamma.size and (mask.size == 0 or mask[r] != 0):
                g += b * x[r, c] + d
            dx[r, c] = g
            r += step


def batch_norm_backward_input_cuda(dx, x, dy, y, gamma, mean, inverse, dgamma, dbeta, mask, ws):
    R, C = x.shape
    if mask.size and dgamma.size:
        launch(_count_rows, 1, THREADS, mask, ws)
    arrays = dx, x, dy, *_gated(y, dy), gamma, mean, inverse, dgamma, dbeta, mask
    launch(_gradients, grid_of_columns(R, C), THREADS, *arrays, lanes_of(C), ws)
