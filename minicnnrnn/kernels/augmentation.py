"""Augmentation: flips and translations of images, drawn anew for every sample of every step."""

import numpy as np

from minicnnrnn.kernels.codes import CONSTANT, NEAREST, REFLECT, WRAP
from minicnnrnn.kernels.dropout import HALF, WORD, philox
from minicnnrnn.kernels.gpu import cuda, gpu, over, place
from minicnnrnn.kernels.jit import MAX_WORKERS, cpu, inner, split
from minicnnrnn.kernels.panel import address, floats

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def _words(N, state, stream):
    """Two random words for every sample."""
    seed, step = (int(number) & 2**64 - 1 for number in state)
    words = np.array([seed & 2**32 - 1, seed >> 32, stream, step & 2**32 - 1, step >> 32], "u8")
    return philox(np.arange(N, dtype=np.uint64), *words[2:], *words[:2])[:2]


def flip_forward_numpy(y, x, state, stream, horizontal, vertical):
    """Mirror every other image, by chance.

    .. math:: y_{nhwc} = x_{n h' w' c}, \\qquad h' = H - 1 - h, \\quad w' = W - 1 - w

    where the first of two random words of sample n is below 2**31; otherwise the image stays.

    Parameters
    ----------
    y : (N, H, W, C), overwritten
    x : (N, H, W, C)
    state : int64 (2,)
        Seed, and number of the train step, which the caller advances.
    stream : int
        The layer's number within its model, below 2**32.
    horizontal, vertical : int
        1 to mirror columns (rows); with both, an image is turned by 180 degrees or stays.

    Notes
    -----
    The words are the first of Philox4x32-10 with the counter (n, stream, lower and upper half of
    the step) and the key (lower and upper half of the seed). The backward pass is this kernel on
    `dy`: with the same state it flips the same images.
    """
    flipped = _words(len(x), state, stream)[0] < 2**31
    y[:] = x
    y[flipped] = x[flipped][:, :: -1 if vertical else 1, :: -1 if horizontal else 1]


def _shifts(words, low, high, size):
    """How far each sample moves along an axis, in pixels: float32 arithmetic on every device."""
    u = (words >> np.uint64(8)).astype(np.float32) * np.float32(2**-24)
    return (low + u * (high - low)) * np.float32(size)


def _taps(size, shift, mode, bilinear):
    """What the pixels of an axis are made of: matrix (size, size), share from outside (size,)."""
    at = np.arange(size, dtype=np.float32) - shift
    if bilinear:
        lower = np.floor(at)
        pairs = [(lower, 1 - (at - lower)), (lower + 1, at - lower)]
    else:
        away = np.floor(np.abs(at).astype(np.float64) + 0.5)  # half a pixel rounds away from zero
        pairs = [(np.copysign(away, at), np.ones_like(at))]
    matrix, outside = np.zeros((size, size)), np.zeros(size)
    for where, weight in pairs:
        index = where.astype(np.int64)
        if mode == REFLECT:
            index %= 2 * size
            index = np.minimum(index, 2 * size - 1 - index)
        elif mode == WRAP:
            index %= size
        elif mode == NEAREST:
            index = np.clip(index, 0, size - 1)
        inside = (index >= 0) & (index < size)
        np.add.at(matrix, (np.flatnonzero(inside), index[inside]), weight[inside])
        outside[~inside] += weight[~inside]
    return matrix, outside


def _axes(N, H, W, state, stream, factors, mode, bilinear):
    """The taps of both axes, sample by sample."""
    words = _words(N, state, stream)
    down = _shifts(words[0], factors[0], factors[1], H)
    right = _shifts(words[1], factors[2], factors[3], W)
    for n in range(N):
        yield _taps(H, down[n], mode, bilinear), _taps(W, right[n], mode, bilinear)


def translation_forward_numpy(y, x, state, stream, factors, fill, mode, bilinear, ws):
    """Move every image down and to the right by a random share of its size.

    .. math:: y_n(h, w) = x_n(h - a_n H, \\; w - b_n W)

    with uniform a and b. Between pixels, x is interpolated; outside of the image it goes on as

    ======== =========================================
    mode     beyond both ends of a b c d
    ======== =========================================
    REFLECT  d c b a | a b c d | d c b a
    WRAP     a b c d | a b c d | a b c d
    CONSTANT k k k k | a b c d | k k k k, k being `fill`
    NEAREST  a a a a | a b c d | d d d d
    ======== =========================================

    Parameters
    ----------
    y : (N, H, W, C), overwritten
    x : (N, H, W, C)
    state, stream : as in ``flip_forward``
        The first random word of a sample makes a, the second b.
    factors : float32 (4,)
        Bounds of a, bounds of b, from -1 to 1.
    fill : float
    mode : int
    bilinear : int
        1 to weight the two nearest pixels of an axis, 0 to take the nearest one.

    Notes
    -----
    Both axes together are a product of matrices with two entries a row: A x Bᵀ.
    """
    axes = _axes(*x.shape[:3], state, stream, factors, mode, bilinear)
    for n, ((a, above), (b, beside)) in enumerate(axes):
        y[n] = np.einsum("ih,hwc,jw->ijc", a, x[n], b)
        y[n] += (fill * (above[:, None] + (1 - above[:, None]) * beside))[:, :, None]


def translation_backward_input_numpy(dx, dy, state, stream, factors, mode, bilinear, ws):
    """Gradient with respect to the input: Aᵀ dy B, for the same matrices.

    Parameters
    ----------
    dx : (N, H, W, C), overwritten
    dy : (N, H, W, C)
    state, stream, factors, mode, bilinear : as in ``translation_forward``
    """
    axes = _axes(*dy.shape[:3], state, stream, factors, mode, bilinear)
    for n, ((a, _), (b, _)) in enumerate(axes):
        dx[n] = np.einsum("ih,ijc,jw->hwc", a, dy[n], b)


def translation_workspace_numpy(H, W, C):
    """Floats of workspace that the passes need."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Samples are independent and are cut among threads.

ZERO, MIDDLE, ONE = np.float32(0), np.float32(0.5), np.float32(1)
UNIT = np.float32(2**-24)
_philox = inner(philox)


@inner
def _draw(n, state, stream):
    """The two random words of a sample."""
    seed, step = np.uint64(state[0]), np.uint64(state[1])
    c1, c2, c3 = np.uint64(stream), step & WORD, step >> HALF
    r0, r1, _, _ = _philox(np.uint64(n), c1, c2, c3, seed & WORD, seed >> HALF)
    return r0, r1


@inner
def _shift(word, low, high, size):
    """How far a sample moves.

    A last bit may move a pixel: products are exact in float64 before they are rounded, so that no
    compiler fuses them with a sum.
    """
    u = np.float32(word >> np.uint64(8)) * UNIT
    moved = low + np.float32(np.float64(u) * np.float64(high - low))
    return np.float32(np.float64(moved) * np.float64(size))


@inner
def _grain(size):
    """Samples that make it worth waking a second thread."""
    return 1 + 16384 // size


@inner
def _flip_samples(start, stop, worker, y, x, state, stream, horizontal, vertical):
    N, H, W, C = x.shape
    for n in range(start, stop):
        flipped = _draw(n, state, stream)[0] < np.uint64(2**31)
        for h in range(H):
            k = H - 1 - h if flipped and vertical else h
            ys, xs = y[n, h], x[n, k]
            for w in range(W):
                j = W - 1 - w if flipped and horizontal else w
                for c in range(C):
                    ys[w, c] = xs[j, c]


@cpu
def flip_forward_cpu(y, x, state, stream, horizontal, vertical):
    N, H, W, C = x.shape
    arguments = (y, x, state, stream, horizontal, vertical)
    split(_flip_samples, N, _grain(H * W * C), arguments)


@inner
def _taps_size(size):
    """Floats of a table of taps: see ``_fill_taps``."""
    return 6 * size + 1


def translation_workspace_cpu(H, W, C):
    return MAX_WORKERS * (6 * (H + W) + 2 + W * C)


@inner
def _tap(i, k, size, shift, mode, bilinear):
    """The k-th of the pixels that pixel i of the output is made of: index or -1, and weight."""
    at = np.float32(i) - shift
    if bilinear:
        lower = int(at) - (1 if at < np.float32(int(at)) else 0)
        share = at - np.float32(lower)
        index, weight = lower + k, share if k else ONE - share
    else:
        index, weight = int(abs(at)), ONE
        if abs(at) - np.float32(index) >= MIDDLE:
            index += 1
        index = -index if at < ZERO else index
    if mode == REFLECT:
        index %= 2 * size
        index = min(index, 2 * size - 1 - index)
    elif mode == WRAP:
        index %= size
    elif mode == NEAREST:
        index = max(0, min(index, size - 1))
    return index if 0 <= index < size else -1, weight


@inner
def _fill_taps(taps, size, shift, mode, bilinear, transposed):
    """Write down, for every pixel along an axis, which pixels it is a sum of.

    At the address `taps` lie where the entries of each pixel begin (size + 1), their indices
    (2 size) and weights (2 size), and the share of each pixel that comes from outside (size).
    """
    begins, outside = floats(taps), floats(taps + 4 * (5 * size + 1))
    indices, weights = floats(taps + 4 * (size + 1)), floats(taps + 4 * (3 * size + 1))
    count = 0
    for pixel in range(size):
        begins[pixel], outside[pixel] = count, ZERO
        # The transpose gathers, too: it looks for the pixels that this one went into.
        for i in range(0 if transposed else pixel, size if transposed else pixel + 1):
            for k in range(1 + bilinear):
                index, weight = _tap(i, k, size, shift, mode, bilinear)
                if index < 0:
                    outside[pixel] += weight
                elif weight != ZERO and (index == pixel or not transposed):
                    indices[count] = i if transposed else index
                    weights[count] = weight
                    count += 1
    begins[size] = count


@inner
def _sum_taps(y, x, taps, pixel, size, count, step):
    """Add up `count` floats of each of the pixels that one is made of; they are `step` apart."""
    to, begins = floats(y), floats(taps)
    indices, weights = floats(taps + 4 * (size + 1)), floats(taps + 4 * (3 * size + 1))
    for c in range(count):
        to[c] = ZERO
    for entry in range(int(begins[pixel]), int(begins[pixel + 1])):
        source, weight = floats(x + 4 * step * int(indices[entry])), weights[entry]
        for c in range(count):
            to[c] += weight * source[c]


@inner
def _translate_samples(
    start, stop, worker, y, x, shape, state, stream, factors, fill, mode, bilinear, transposed, ws
):
    H, W, C = shape
    rows = ws + 4 * worker * (_taps_size(H) + _taps_size(W) + W * C)
    columns = rows + 4 * _taps_size(H)
    line = columns + 4 * _taps_size(W)
    above, beside = floats(rows + 4 * (5 * H + 1)), floats(columns + 4 * (5 * W + 1))
    for n in range(start, stop):
        r0, r1 = _draw(n, state, stream)
        down = _shift(r0, factors[0], factors[1], H)
        right = _shift(r1, factors[2], factors[3], W)
        _fill_taps(rows, H, down, mode, bilinear, transposed)
        _fill_taps(columns, W, right, mode, bilinear, transposed)
        for h in range(H):
            _sum_taps(line, x + 4 * n * H * W * C, rows, h, H, W * C, W * C)
            for w in range(W):
                pixel = y + 4 * ((n * H + h) * W + w) * C
                _sum_taps(pixel, line, columns, w, W, C, C)
                if mode == CONSTANT and not transposed:
                    rest, to = fill * (above[h] + (ONE - above[h]) * beside[w]), floats(pixel)
                    for c in range(C):
                        to[c] += rest


@inner
def _translate(y, x, state, stream, factors, fill, mode, bilinear, transposed, ws):
    N, H, W, C = x.shape
    arrays = address(y, 0), address(x, 0), (H, W, C), state, stream, factors
    arguments = (*arrays, np.float32(fill), mode, bilinear, transposed, address(ws, 0))
    split(_translate_samples, N, _grain(H * W * C), arguments)


@cpu
def translation_forward_cpu(y, x, state, stream, factors, fill, mode, bilinear, ws):
    _translate(y, x, state, stream, factors, fill, mode, bilinear, 0, ws)


@cpu
def translation_backward_input_cpu(dx, dy, state, stream, factors, mode, bilinear, ws):
    _translate(dx, dy, state, stream, factors, 0.0, mode, bilinear, 1, ws)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element of what is written, which draws the words of its sample anew.


@gpu
def _flip_elements(y, x, state, stream, horizontal, vertical):
    _, H, W, C = x.shape
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, _, h, w, c = place(i, 1, H, W, C)
        flipped = _draw(n, state, stream)[0] < np.uint64(2**31)
        k, j = H - 1 - h if flipped and vertical else h, W - 1 - w if flipped and horizontal else w
        y[n, h, w, c] = x[n, k, j, c]


def flip_forward_cuda(y, x, state, stream, horizontal, vertical):
    over(_flip_elements, y.size, y, x, state, int(stream), int(horizontal), int(vertical))


def translation_workspace_cuda(H, W, C):
    return 0


@gpu
def _shifts_of(n, H, W, state, stream, factors):
    r0, r1 = _draw(n, state, stream)
    down = _shift(r0, factors[0], factors[1], H)
    return down, _shift(r1, factors[2], factors[3], W)


@gpu
def _translated_elements(y, x, state, stream, factors, fill, mode, bilinear):
    _, H, W, C = x.shape
    for e in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        n, _, h, w, c = place(e, 1, H, W, C)
        down, right = _shifts_of(n, H, W, state, stream, factors)
        total, rest = ZERO, ZERO
        for a in range(1 + bilinear):
            i, above = _tap(h, a, H, down, mode, bilinear)
            for b in range(1 + bilinear):
                j, beside = _tap(w, b, W, right, mode, bilinear)
                if i < 0 or j < 0:
                    rest += above * beside
                elif above != ZERO and beside != ZERO:  # else a NaN would come from beyond
                    total += above * beside * x[n, i, j, c]
        y[n, h, w, c] = total + np.float32(fill) * rest if mode == CONSTANT else total


def translation_forward_cuda(y, x, state, stream, factors, fill, mode, bilinear, ws):
    integers = int(stream), factors, float(fill), int(mode), int(bilinear)
    over(_translated_elements, y.size, y, x, state, *integers)


@gpu
def _untranslated_elements(dx, dy, state, stream, factors, mode, bilinear):
    _, H, W, C = dx.shape
    for e in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        n, _, h, w, c = place(e, 1, H, W, C)
        down, right = _shifts_of(n, H, W, state, stream, factors)
        total = ZERO
        for i in range(H):  # looking for the pixels that this one went into
            for a in range(1 + bilinear):
                row, above = _tap(i, a, H, down, mode, bilinear)
                if row != h or above == ZERO:
                    continue
                for j in range(W):
                    for b in range(1 + bilinear):
                        column, beside = _tap(j, b, W, right, mode, bilinear)
                        if column == w and beside != ZERO:
                            total += above * beside * dy[n, i, j, c]
        dx[n, h, w, c] = total


def translation_backward_input_cuda(dx, dy, state, stream, factors, mode, bilinear, ws):
    integers = int(stream), factors, int(mode), int(bilinear)
    over(_untranslated_elements, dx.size, dx, dy, state, *integers)
