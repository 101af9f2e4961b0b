"""Group and layer normalization: every sample is normalized on its own."""

import math

import numpy as np

from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.gpu import THREADS, cuda, divided, divisor, gpu, launch
from minicnnrnn.kernels.jit import MAX_WORKERS, REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.normalization import (
    NO_FLOOR,
    NO_LIMIT,
    NONE,
    NOTHING,
    ONE,
    WIDTH,
    ZERO,
    add_products,
    add_squares,
    apply_affine,
    apply_gradient,
    begin_sums,
    fold_lanes,
    lane_width,
    parts_of,
    spread,
)
from minicnnrnn.kernels.panel import address, floats
from minicnnrnn.kernels.reduce import (
    column_sums,
    launch_column_sums,
    parts_of_columns,
    team_for,
    team_sum,
)

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def layer_norm_forward_numpy(y, mean, inverse, x, gamma, beta, epsilon):
    """Normalize every row with its own mean and variance.

    .. math::
        y_{rc} = \\gamma_c \\hat{x}_{rc} + \\beta_c, \\qquad
        \\hat{x}_{rc} = \\frac{x_{rc} - \\mu_r}{\\sqrt{\\sigma^2_r + \\epsilon}}

    where :math:`\\mu_r` and :math:`\\sigma^2_r` are mean and (biased) variance of row r.

    Parameters
    ----------
    y : (R, C), overwritten
    mean : (R,), overwritten
        :math:`\\mu`, which backward wants.
    inverse : (R,), overwritten
        :math:`1 / \\sqrt{\\sigma^2 + \\epsilon}`, which backward wants.
    x : (R, C)
    gamma : (C,) or (0,) for ones
    beta : (C,) or (0,) for zeros
    epsilon : float

    Notes
    -----
    Ba, Kiros and Hinton 2016, arXiv:1607.06450, section 3. One pass over memory: a row stays in
    the cache between its statistics and its output.
    """
    mean[:], inverse[:] = x.mean(1), 1 / np.sqrt(x.var(1) + epsilon)
    y[:] = (x - mean[:, None]) * inverse[:, None]
    if gamma.size:
        y *= gamma
    if beta.size:
        y += beta


def layer_norm_backward_input_numpy(dx, x, dy, gamma, mean, inverse):
    """Gradient with respect to the input.

    .. math::
        dx_{rc} = inverse_r \\left( g_{rc} - \\frac{1}{C} \\sum_k g_{rk}
            - \\hat{x}_{rc} \\frac{1}{C} \\sum_k g_{rk} \\hat{x}_{rk} \\right), \\qquad
        g_{rc} = \\gamma_c dy_{rc}

    Parameters
    ----------
    dx : (R, C), overwritten
    x, dy : (R, C)
    gamma, mean, inverse : as in ``layer_norm_forward``
    """
    g = dy * gamma if gamma.size else dy
    normal = (x - mean[:, None]) * inverse[:, None]
    through = g.mean(1, keepdims=True) + normal * (g * normal).mean(1, keepdims=True)
    dx[:] = (g - through) * inverse[:, None]


def layer_norm_backward_weight_numpy(dgamma, dbeta, x, dy, mean, inverse, ws):
    """Gradients with respect to scale and offset.

    .. math:: d\\gamma_c = \\sum_r dy_{rc} \\hat{x}_{rc}, \\qquad d\\beta_c = \\sum_r dy_{rc}

    Parameters
    ----------
    dgamma, dbeta : (C,), overwritten
    x, dy : (R, C)
    mean, inverse : (R,), as ``layer_norm_forward`` left them
    """
    np.sum(dy, axis=0, out=dbeta)
    np.sum(dy * (x - mean[:, None]) * inverse[:, None], axis=0, out=dgamma)


def layer_norm_workspace_numpy(R, C):
    """Floats of workspace that ``layer_norm_backward_weight`` needs."""
    return 0


def _in_groups(x, G):
    """(N, S, C) seen as (N, S, G, C / G)."""
    return x.reshape(*x.shape[:2], G, -1)


def group_norm_forward_numpy(y, mean, inverse, x, gamma, beta, epsilon, ws):
    """Normalize every group of channels of every sample.

    .. math::
        y_{nsc} = \\gamma_c \\hat{x}_{nsc} + \\beta_c, \\qquad
        \\hat{x}_{nsc} = \\frac{x_{nsc} - \\mu_{ng}}{\\sqrt{\\sigma^2_{ng} + \\epsilon}}

    where group g has the channels from g C / G on, and :math:`\\mu_{ng}` and
    :math:`\\sigma^2_{ng}` are mean and (biased) variance over its channels and all s.

    Parameters
    ----------
    y : (N, S, C), overwritten
    mean : (N, G), overwritten
        :math:`\\mu`, which backward wants.
    inverse : (N, G), overwritten
        :math:`1 / \\sqrt{\\sigma^2 + \\epsilon}`, which backward wants.
    x : (N, S, C)
        Samples, pixels or steps, channels.
    gamma : (C,) or (0,) for ones
    beta : (C,) or (0,) for zeros
    epsilon : float

    Notes
    -----
    Wu and He 2018, arXiv:1803.08494, section 3.1.
    """
    grouped = _in_groups(x, mean.shape[1])
    mean[:], inverse[:] = grouped.mean((1, 3)), 1 / np.sqrt(grouped.var((1, 3)) + epsilon)
    y[:] = ((grouped - mean[:, None, :, None]) * inverse[:, None, :, None]).reshape(x.shape)
    if gamma.size:
        y *= gamma
    if beta.size:
        y += beta


def group_norm_backward_input_numpy(dx, x, dy, gamma, mean, inverse, ws):
    """Gradient with respect to the input.

    .. math::
        dx = inverse_{ng} \\left( g - \\overline{g}
            - \\hat{x} \\; \\overline{g \\hat{x}} \\right), \\qquad g_{nsc} = \\gamma_c dy_{nsc}

    where a bar is the mean over a group. Shapes as in ``group_norm_forward``.
    """
    G = mean.shape[1]
    g = _in_groups(dy * gamma if gamma.size else dy, G)
    rate = inverse[:, None, :, None]
    normal = (_in_groups(x, G) - mean[:, None, :, None]) * rate
    through = g.mean((1, 3), keepdims=True) + normal * (g * normal).mean((1, 3), keepdims=True)
    dx[:] = ((g - through) * rate).reshape(x.shape)


def group_norm_backward_weight_numpy(dgamma, dbeta, x, dy, mean, inverse, ws):
    """Gradients with respect to scale and offset.

    .. math::
        d\\gamma_c = \\sum_{ns} dy_{nsc} \\hat{x}_{nsc}, \\qquad d\\beta_c = \\sum_{ns} dy_{nsc}

    `dgamma` and `dbeta` are (C,), overwritten; the others as in ``group_norm_forward``.
    """
    grouped = _in_groups(x, mean.shape[1])
    normal = (grouped - mean[:, None, :, None]) * inverse[:, None, :, None]
    np.sum(dy, axis=(0, 1), out=dbeta)
    np.sum(dy * normal.reshape(x.shape), axis=(0, 1), out=dgamma)


def group_norm_workspace_numpy(N, S, C):
    """Floats of workspace that the passes of this layer need."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Layers: rows are independent and are cut among threads. Groups: so are samples; within one, the
# sums of every channel are taken as in batch normalization and then joined for a group. Gradients
# of scale and offset are sums over rows or samples, cut into at most PARTS ranges.


@inner
def _grain(size):
    """Rows or samples that make it worth waking a second thread."""
    return 1 + 16384 // size


@cpu(fastmath=REASSOCIATE)
def _row_moments(x, C):
    """Mean and variance of a row: its first element is subtracted before anything is added."""
    row, total, squares = floats(x), ZERO, ZERO
    first = row[0]
    for c in range(C):
        total += row[c] - first
    mean = np.float64(total) / C + np.float64(first)
    near = np.float32(mean)
    for c in range(C):
        squares += (row[c] - near) * (row[c] - near)
    return mean, np.float64(squares) / C


@inner
def _layer_forward_rows(start, stop, worker, y, mean, inverse, x, gamma, beta, C, epsilon):
    scales, offsets = floats(address(gamma, 0)), floats(address(beta, 0))
    for r in range(start, stop):
        xs, ys = floats(x + 4 * r * C), floats(y + 4 * r * C)
        mu, variance = _row_moments(x + 4 * r * C, C)
        rate, near = np.float32(1 / np.sqrt(variance + epsilon)), np.float32(mu)
        rest = np.float32((near - mu) * rate)  # what the mean lost when it was rounded
        mean[r], inverse[r] = near, rate
        if gamma.size and beta.size:
            for c in range(C):
                ys[c] = ((xs[c] - near) * rate + rest) * scales[c] + offsets[c]
        else:
            for c in range(C):
                ys[c] = (xs[c] - near) * rate + rest
            for c in range(gamma.size):
                ys[c] *= scales[c]
            for c in range(beta.size):
                ys[c] += offsets[c]


@cpu
def layer_norm_forward_cpu(y, mean, inverse, x, gamma, beta, epsilon):
    R, C = x.shape
    arguments = (address(y, 0), mean, inverse, address(x, 0), gamma, beta, C, epsilon)
    split(_layer_forward_rows, R, _grain(C), arguments)


@cpu(fastmath=REASSOCIATE)
def _row_projections(x, dy, gamma, mean, C, scaled):
    """Sums of g and of g (x - mean) over a row, g being gamma dy."""
    xs, ds, scales, first, second = floats(x), floats(dy), floats(gamma), ZERO, ZERO
    if scaled:
        for c in range(C):
            g = scales[c] * ds[c]
            first += g
            second += g * (xs[c] - mean)
    else:
        for c in range(C):
            first += ds[c]
            second += ds[c] * (xs[c] - mean)
    return first, second


@inner
def _layer_input_rows(start, stop, worker, dx, x, dy, gamma, mean, inverse, C, scaled):
    scales, share = floats(gamma), ONE / np.float32(C)
    for r in range(start, stop):
        o, rate, near = 4 * r * C, inverse[r], mean[r]
        first, second = _row_projections(x + o, dy + o, gamma, near, C, scaled)
        level, slope = first * share, second * share * (rate * rate)
        ts, xs, ds = floats(dx + o), floats(x + o), floats(dy + o)
        if scaled:
            for c in range(C):
                ts[c] = rate * (scales[c] * ds[c] - level - (xs[c] - near) * slope)
        else:
            for c in range(C):
                ts[c] = rate * (ds[c] - level - (xs[c] - near) * slope)


@cpu
def layer_norm_backward_input_cpu(dx, x, dy, gamma, mean, inverse):
    R, C = x.shape
    arrays = address(dx, 0), address(x, 0), address(dy, 0), address(gamma, 0), mean, inverse
    split(_layer_input_rows, R, _grain(C), (*arrays, C, gamma.size > 0))


@inner
def _layer_weight_parts(start, stop, worker, x, dy, mean, inverse, R, C, parts, totals):
    for part in range(start, stop):
        first, second = floats(totals + 8 * part * C), floats(totals + (8 * part + 4) * C)
        for c in range(C):
            first[c] = ZERO
            second[c] = ZERO
        for r in range(R * part // parts, R * (part + 1) // parts):
            xs, ds = floats(x + 4 * r * C), floats(dy + 4 * r * C)
            near, rate = mean[r], inverse[r]
            for c in range(C):
                first[c] += ds[c]
                second[c] += ds[c] * ((xs[c] - near) * rate)


@inner
def _add_parts(dgamma, dbeta, parts, totals):
    """The two sums of every channel over all parts, in float64."""
    C, sums = dgamma.size, floats(totals)
    for c in range(C):
        first, second = NOTHING, NOTHING
        for part in range(parts):
            first += sums[2 * part * C + c]
            second += sums[(2 * part + 1) * C + c]
        dbeta[c] = np.float32(first)
        dgamma[c] = np.float32(second)


@cpu
def layer_norm_backward_weight_cpu(dgamma, dbeta, x, dy, mean, inverse, ws):
    R, C = x.shape
    parts, totals = parts_of(R, C), address(ws, 0)
    arguments = (address(x, 0), address(dy, 0), mean, inverse, R, C, parts, totals)
    split(_layer_weight_parts, parts, _grain(R * C // parts), arguments)
    _add_parts(dgamma, dbeta, parts, totals)


@cpu
def layer_norm_workspace_cpu(R, C):
    return 2 * PARTS * C


@cpu
def group_norm_workspace_cpu(N, S, C):
    return 8 * MAX_WORKERS * max(C, WIDTH) + 2 * PARTS * C


@inner
def _group_moments(sums, g, size, S, W):
    """Mean and variance of a group from the sums of its channels, in float64."""
    lane, total, squares = floats(sums), NOTHING, NOTHING
    for c in range(g * size, (g + 1) * size):
        total += np.float64(lane[c]) + np.float64(lane[W + c]) / S
    mean = total / size
    for c in range(g * size, (g + 1) * size):
        d = lane[c] - mean
        squares += lane[2 * W + c] + d * (2.0 * lane[W + c] + S * d)
    if squares < 0:  # not max: a NaN has to stay
        squares = NOTHING
    return mean, squares / (S * size)


@inner
def _group_forward_samples(
    start, stop, worker, y, mean, inverse, x, gamma, beta, S, C, epsilon, scratch
):
    G, W = mean.shape[1], lane_width(S, C)
    size, sums = C // G, scratch + 32 * W * worker
    lanes = sums + 20 * W
    center, scale, shift = floats(lanes), floats(lanes + 4 * W), floats(lanes + 8 * W)
    for n in range(start, stop):
        first, last = n * S * C, (n + 1) * S * C
        begin_sums(sums, x, first, last, C, W)
        add_squares(sums, x, first, last, W)
        fold_lanes(sums, C, W)
        for g in range(G):
            mu, variance = _group_moments(sums, g, size, S, W)
            mean[n, g] = np.float32(mu)
            inverse[n, g] = np.float32(1 / np.sqrt(variance + epsilon))
            for c in range(g * size, (g + 1) * size):
                rate = inverse[n, g] * gamma[c] if gamma.size else inverse[n, g]
                offset = beta[c] if beta.size else ZERO
                center[c], scale[c] = mean[n, g], rate
                # What the mean lost when it was rounded comes back with the offset.
                shift[c] = np.float32(offset + (mean[n, g] - mu) * rate)
        for which in range(3):
            spread(lanes + 4 * which * W, C, W)
        apply_affine(y, x, NO_FLOOR, first, last, lanes, W)


@cpu
def group_norm_forward_cpu(y, mean, inverse, x, gamma, beta, epsilon, ws):
    N, S, C = x.shape
    arrays = address(y, 0), mean, inverse, address(x, 0), gamma, beta
    split(_group_forward_samples, N, _grain(S * C), (*arrays, S, C, epsilon, address(ws, 0)))


@inner
def _sum_sample(sums, n, x, dy, mean, S, C, W):
    """Sums of dy and dy (x - mean) over a sample, for every channel."""
    lane, size = floats(sums), C // mean.shape[1]
    for c in range(C):
        lane[c] = mean[n, c // size]
    spread(sums, C, W)
    for j in range(W, 3 * W):
        lane[j] = ZERO
    add_products(sums, x, dy, dy, NO_LIMIT, n * S * C, (n + 1) * S * C, W)
    fold_lanes(sums, C, W)


@inner
def _group_input_samples(start, stop, worker, dx, x, dy, gamma, mean, inverse, S, C, scratch):
    G, W = mean.shape[1], lane_width(S, C)
    size, sums = C // G, scratch + 32 * W * worker
    lanes, lane = sums + 20 * W, floats(sums)
    a, b, level = floats(lanes), floats(lanes + 4 * W), floats(lanes + 8 * W)
    for n in range(start, stop):
        _sum_sample(sums, n, x, dy, mean, S, C, W)
        for g in range(G):
            first, second, rate = NOTHING, NOTHING, np.float64(inverse[n, g])
            for c in range(g * size, (g + 1) * size):
                a[c] = inverse[n, g] * gamma[c] if gamma.size else inverse[n, g]
                first += np.float64(a[c]) * lane[W + c]
                second += np.float64(a[c]) * lane[2 * W + c]
            slope = -rate * rate * second / (S * size)
            for c in range(g * size, (g + 1) * size):
                b[c] = np.float32(slope)
                level[c] = np.float32(-first / (S * size) - slope * mean[n, g])
        for which in range(3):
            spread(lanes + 4 * which * W, C, W)
        apply_gradient(dx, x, dy, dy, NO_LIMIT, n * S * C, (n + 1) * S * C, lanes, W)


@cpu
def group_norm_backward_input_cpu(dx, x, dy, gamma, mean, inverse, ws):
    N, S, C = x.shape
    arrays = address(dx, 0), address(x, 0), address(dy, 0), gamma, mean, inverse
    split(_group_input_samples, N, _grain(S * C), (*arrays, S, C, address(ws, 0)))


@inner
def _group_weight_parts(start, stop, worker, x, dy, mean, inverse, S, C, parts, scratch, totals):
    (N, G), W = mean.shape, lane_width(S, C)
    sums = scratch + 32 * W * worker
    lane = floats(sums)
    for part in range(start, stop):
        first, second = floats(totals + 8 * part * C), floats(totals + (8 * part + 4) * C)
        for c in range(C):
            first[c] = ZERO
            second[c] = ZERO
        for n in range(N * part // parts, N * (part + 1) // parts):
            _sum_sample(sums, n, x, dy, mean, S, C, W)
            for c in range(C):
                first[c] += lane[W + c]
                second[c] += lane[2 * W + c] * inverse[n, c // (C // G)]


@cpu
def group_norm_backward_weight_cpu(dgamma, dbeta, x, dy, mean, inverse, ws):
    N, S, C = x.shape
    parts, totals = min(PARTS, N), address(ws, 8 * MAX_WORKERS * max(C, WIDTH))
    arrays = address(x, 0), address(dy, 0), mean, inverse
    arguments = (*arrays, S, C, parts, address(ws, 0), totals)
    split(_group_weight_parts, parts, _grain(N // parts * S * C), arguments)
    _add_parts(dgamma, dbeta, parts, totals)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A team of threads for every group of every sample: they walk through its elements and meet for the
# sums. A row of a layer is the one group of a sample of one pixel. Gradients of scale and offset
# are sums over columns.


@gpu
def _own_group(team, N, G):
    """Sample and group of this thread; teams behind the last group do its work once more."""
    number = cuda.blockIdx.x * (THREADS // team) + cuda.threadIdx.x // team
    number = min(number, N * G - 1)
    return number // G, number % G


@gpu
def _normalize_group(y, mean, inverse, x, gamma, beta, epsilon, team, by_size):
    (N, S, C), G, t = x.shape, mean.shape[1], cuda.threadIdx.x % team
    (n, g), size = _own_group(team, N, G), C // G
    count, base, total, squares = S * size, g * size, ZERO, ZERO
    first = x[n, 0, base]
    for e in range(t, count, team):
        s, c = divided(e, by_size)
        total += x[n, s, base + c] - first
    mu = np.float64(team_sum(total, team)) / count + np.float64(first)
    near = np.float32(mu)
    for e in range(t, count, team):
        s, c = divided(e, by_size)
        d = x[n, s, base + c] - near
        squares += d * d
    variance = np.float64(team_sum(squares, team)) / count
    rate = np.float32(1 / math.sqrt(variance + epsilon))
    rest = np.float32((near - mu) * rate)  # what the mean lost when it was rounded
    if t == 0:
        mean[n, g], inverse[n, g] = near, rate
    for e in range(t, count, team):
        s, c = divided(e, by_size)
        c += base
        v = (x[n, s, c] - near) * rate + rest
        if gamma.size:
            v *= gamma[c]
        y[n, s, c] = v + beta[c] if beta.size else v


def group_norm_forward_cuda(y, mean, inverse, x, gamma, beta, epsilon, ws):
    team = team_for(x.size // max(1, mean.size))
    arrays = y, mean, inverse, x, gamma, beta
    blocks = -(-mean.size * team // THREADS)
    by_size = divisor(x.shape[2] // mean.shape[1])
    launch(_normalize_group, blocks, THREADS, *arrays, float(epsilon), team, by_size)


@gpu
def _differentiate_group(dx, x, dy, gamma, mean, inverse, team, by_size):
    (N, S, C), G, t = x.shape, mean.shape[1], cuda.threadIdx.x % team
    (n, g), size = _own_group(team, N, G), C // G
    count, base, first, second = S * size, g * size, ZERO, ZERO
    near, rate = mean[n, g], inverse[n, g]
    for e in range(t, count, team):
        s, c = divided(e, by_size)
        c += base
        d = dy[n, s, c] * gamma[c] if gamma.size else dy[n, s, c]
        first += d
        second += d * (x[n, s, c] - near)
    share = ONE / np.float32(count)
    level = team_sum(first, team) * share
    slope = team_sum(second, team) * share * (rate * rate)
    for e in range(t, count, team):
        s, c = divided(e, by_size)
        c += base
        d = dy[n, s, c] * gamma[c] if gamma.size else dy[n, s, c]
        dx[n, s, c] = rate * (d - level - (x[n, s, c] - near) * slope)


def group_norm_backward_input_cuda(dx, x, dy, gamma, mean, inverse, ws):
    team = team_for(x.size // max(1, mean.size))
    arrays = dx, x, dy, gamma, mean, inverse
    blocks, by_size = -(-mean.size * team // THREADS), divisor(x.shape[2] // mean.shape[1])
    launch(_differentiate_group, blocks, THREADS, *arrays, team, by_size)


@gpu
def _term_of_scale(operands, r, c):
    x, dy, mean, inverse, by_S, by_size = operands
    n, s = divided(r, by_S)
    g, _ = divided(c, by_size)
    d = dy[n, s, c]
    return d, d * ((x[n, s, c] - mean[n, g]) * inverse[n, g])


_scale_sums = column_sums(_term_of_scale)


def group_norm_backward_weight_cuda(dgamma, dbeta, x, dy, mean, inverse, ws):
    N, S, C = x.shape
    operands = x, dy, mean, inverse, divisor(S), divisor(C // mean.shape[1])
    launch_column_sums(_scale_sums, dbeta, dgamma, NONE, N * S, ws, *operands)


def group_norm_workspace_cuda(N, S, C):
    return 2 * parts_of_columns(N * S, C) * C


def _as_groups(*arrays):
    """(R, C) as (R, 1, C), and (R,) as (R, 1)."""
    return (a.reshape(len(a), 1, *a.shape[1:]) for a in arrays)


def layer_norm_forward_cuda(y, mean, inverse, x, gamma, beta, epsilon):
    group_norm_forward_cuda(*_as_groups(y, mean, inverse, x), gamma, beta, epsilon, NONE)


def layer_norm_backward_input_cuda(dx, x, dy, gamma, mean, inverse):
    arrays = *_as_groups(dx, x, dy), gamma, *_as_groups(mean, inverse)
    group_norm_backward_input_cuda(*arrays, NONE)


def layer_norm_backward_weight_cuda(dgamma, dbeta, x, dy, mean, inverse, ws):
    group_norm_backward_weight_cuda(dgamma, dbeta, *_as_groups(x, dy, mean, inverse), ws)


def layer_norm_workspace_cuda(R, C):
    return group_norm_workspace_cuda(R, 1, C)
