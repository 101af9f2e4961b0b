"""Winograd's convolution: images under 3 x 3 filters with a quarter of the multiplications.

The launchers have the signatures of ``conv.py`` and compute the same sums, for kernels of
(1, 3, 3), strides, dilation and groups of one. ``winograd_pays`` says where that is faster.

It is the one operation whose result is not the correctly ordered sum: it adds and subtracts
multiples of neighbouring pixels and takes them away again. Rounding errors are a few times those
of the direct sum, 1e-6 to 2e-6 of the largest output in float32; a NaN also reaches other outputs
of its tiles, an infinity comes out as NaN, and where the direct sum would be exactly 0, a tiny
number may remain.
"""

import numpy as np

from minicnnrnn.kernels.band import ZERO, add_parts, copy_unless
from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.gemm import (
    ACCUMULATE,
    OVERWRITE,
    WIDE_ROWS,
    block,
    set_offset,
)
from minicnnrnn.kernels.jit import MAX_WORKERS, VECTOR_WIDTH, cpu, inner, split
from minicnnrnn.kernels.panel import (
    PANEL,
    address,
    copy,
    fill,
    floats,
    grain,
    pack_panel,
    panel_size,
    panel_width,
    panels,
)
from minicnnrnn.kernels.transform import (
    POINTS,
    transform_filter,
    transform_gradient,
    transform_output,
    transform_pixels,
    transform_weight,
)

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------

# Polynomials of degree five are evaluated at 0, a, -a, b, -b and infinity, multiplied point by
# point, and interpolated, for 4 x 4 outputs of 3 x 3 taps. Lavin and Gray take 1 and 2 for a and
# b. But the powers of the points decide how much greater the numbers on the way are than the
# result, and with it the errors, and a b = 1 balances them: at 2/3 and 3/2 the largest error is a
# quarter of that (forward, of the largest output, the mean of eight draws on 16 x 16 images:
# 1.1e-6 instead of 4.3e-6 at 64 channels, 1.7e-6 instead of 6.2e-6 at 256; in NumPy, sqrt(1/2)
# and sqrt(2), 3/4 and 4/3, 5/8 and 3/2 are the same within the noise).
# See Barabasz, Anderson, Soodhalter and Gregg 2020, "Error analysis and improving the accuracy of
# Winograd convolution for deep neural networks", arXiv:1803.10986.
#
# Rows of A and G may be scaled against each other: A's are divided by a and b² here. The weights'
# matrix G is called TAPS, as G counts the groups.


def _matrices(a, b):
    aa, bb = a * a, b * b
    B = [
        [1, 0, -aa - bb, 0, 1, 0],
        [0, -b, -bb, a, 1, 0],
        [0, b, -bb, -a, 1, 0],
        [0, -a, -aa, b, 1, 0],
        [0, a, -aa, -b, 1, 0],
        [0, 1, 0, -aa - bb, 0, 1],
    ]
    A = [[1, 0, 0, 0], [b, 1, a, aa], [b, -1, a, -aa], [aa, a, 1, b], [aa, -a, 1, -b], [0, 0, 0, 1]]
    scale = 1 / (2 * (bb - aa))
    near, far = np.array([-b, -1, -a]) * scale, np.array([1, b, bb]) * scale
    odd = [1, -1, 1]
    return (
        np.array(A),
        np.array(B).T,
        np.array([[1, 0, 0], near, near * odd, far, far * odd, [0, 0, 1]]),
    )


A, B, TAPS = _matrices(*POINTS)


def _tiles(x, PH, PW, TH, TW):
    """The overlapping 6 x 6 pixels behind each tile of outputs: (N, TH, TW, C, 6, 6)."""
    _, H, W, _ = x.shape
    ends = [max(4 * T + 2 - n - P, 0) for T, n, P in ((TH, H, PH), (TW, W, PW))]
    padded = np.pad(x, ((0, 0), (PH, ends[0]), (PW, ends[1]), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), (1, 2))
    return windows[:, : 4 * TH : 4, : 4 * TW : 4]


def _images(x):
    """Planes of volumes are images of their own: (N D, H, W, C)."""
    return x.reshape(-1, *x.shape[2:])


def _both(matrix, tiles):
    """Transform the rows and the columns of every tile: M t Mᵀ over the last two axes."""
    matrix = matrix.astype(tiles.dtype)
    return matrix @ tiles @ matrix.T


def _filters(w):
    """The transformed filters: (6, 6, C, F)."""
    return np.moveaxis(_both(TAPS, np.moveaxis(w[0], (0, 1), (2, 3))), (2, 3), (0, 1))


def winograd_prepare_numpy(w, G, ws):
    """Transform the weights for ``forward``, once after each change; nothing to do in NumPy."""


def winograd_forward_numpy(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    """Convolve images with a bank of 3 x 3 filters, in tiles of 4 x 4 outputs.

    .. math:: y = A^T \\Big[ \\sum_c (G w_{c} G^T) \\odot (B^T x_{c} B) \\Big] A + b

    for each tile of outputs y (4 x 4), the 6 x 6 pixels x behind it and each filter w (3 x 3);
    the product is elementwise, so that summed over c it is 36 matrix products over all tiles.

    Shapes and parameters as in ``conv_forward``, with (KD, KH, KW) = (1, 3, 3) and SD, SH, SW,
    LD, LH, LW, G of 1 and PD of 0.

    Notes
    -----
    Cost: 2 N 36 TH TW C F operations for TH x TW tiles, a quarter of the direct sum where the
    tiles fit; and about 150 (C + F) additions a tile. Winograd 1980, "Arithmetic Complexity of
    Computations"; Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks",
    arXiv:1509.09308, section 4.3, with other points.
    """
    image, out = _images(x), _images(y)
    TH, TW = -(-out.shape[1] // 4), -(-out.shape[2] // 4)
    v = _both(B.T, _tiles(image, PH, PW, TH, TW))
    products = np.einsum("nhwcij,ijcf->nhwfij", v, _filters(w), optimize=True)
    tiles = np.moveaxis(_both(A.T, products), 3, 5).swapaxes(2, 3)
    whole = tiles.reshape(out.shape[0], 4 * TH, 4 * TW, out.shape[3])
    out[:] = whole[:, : out.shape[1], : out.shape[2]]
    out += b if b.size else 0
    if relu:
        np.maximum(out, 0, out=out)


def _before_relu(dy, y):
    """The gradient in front of a relu that ``forward`` applied; `dy` itself where it did not."""
    return np.where(y <= 0, 0, dy).astype(dy.dtype) if y.size else dy


def winograd_backward_input_numpy(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    """Gradient with respect to the input: the same convolution of `dy`.

    Its filters are turned upside down and have C and F exchanged; its padding is 2 - PH and
    2 - PW, so PH and PW are at most 2. Parameters as in ``conv_backward_input``.
    """
    dy, flipped = _before_relu(dy, y), w[:, ::-1, ::-1].swapaxes(3, 4)
    ones, none = (1,) * 6, w.reshape(-1)[:0]
    winograd_forward_numpy(dx, dy, flipped, none, *ones, 0, 2 - PH, 2 - PW, 1, 0, ws)


def winograd_backward_weight_numpy(dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    """Gradients with respect to the filters and the bias.

    .. math:: dw_{cf} = G^T \\Big[ \\sum_{tiles} (B^T x_c B) \\odot (A \\, dy_f A^T) \\Big] G

    which is what the chain rule makes of ``winograd_forward``, and itself Winograd's algorithm
    for 3 x 3 outputs of 4 x 4 taps. Parameters as in ``conv_backward_weight``.
    """
    image, dy = _images(x), _images(_before_relu(dy, y))
    TH, TW = -(-dy.shape[1] // 4), -(-dy.shape[2] // 4)
    v = _both(B.T, _tiles(image, PH, PW, TH, TW))
    whole = np.pad(dy, ((0, 0), (0, 4 * TH - dy.shape[1]), (0, 4 * TW - dy.shape[2]), (0, 0)))
    tiles = whole.reshape(-1, TH, 4, TW, 4, dy.shape[3]).transpose(0, 1, 3, 5, 2, 4)
    products = np.einsum("nhwcij,nhwfij->cfij", v, _both(A, tiles), optimize=True)
    dw[0] = _both(TAPS.T, products).transpose(2, 3, 0, 1)
    if db.size:
        np.sum(dy, axis=(0, 1, 2), out=db)


def winograd_workspace_numpy(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    """Floats of workspace that the passes of one convolution need."""
    return 0


def winograd_pays_numpy(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    """Whether Winograd's algorithm is the faster one here: in NumPy the direct sum is clearer."""
    return False


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# A thread takes a block of tiles through everything: it transforms their pixels, multiplies
# with the filters, 36 products of the building block, and transforms the products into outputs,
# all within its L2 cache. The pixels come through a band that holds the padding.
#
# Transforms work on whole vectors of channels, read from the image and written to it in place
# where a tile fits; ``transform.py`` has the matrices above, multiplied out.
#
# The workspace: a table of offsets, the transformed filters that `prepare` leaves for
# `forward`, and scratch of one pass.


V = VECTOR_WIDTH
# Of a type of their own, bare literals would compile the functions that they go to once more.
NO, YES, FOUR, SIX = np.int64(0), np.int64(1), np.int64(4), np.int64(6)
HEAD = np.int64(16)  # floats before the filters: the table of offsets
ASIDE = 40 * V  # floats set aside for one vector of a tile's channels, zeros and a bias behind
ZEROS = 36 * V  # where the zeros are
BIAS = 37 * V  # where the bias of the last filters is, fewer than a vector, or zeros
GROUP = 4 * PANEL  # filters that a block of tiles is multiplied with before it is transformed
BLOCK = 200_000  # bytes of transformed pixels in a block, of the L2 cache
CHUNK = 96  # tiles whose products a weight gradient adds at a time


@inner
def _vectors(columns):
    """`columns`, filled up to whole vectors."""
    return (columns + V - 1) // V * V


@inner
def _apart(size):
    """The distance of 36 matrices of `size` floats that a transform writes at the same time.

    Powers of two would put all of them into the same few sets of the cache.
    """
    return (size // 1024 + 1) * 1024 + 16


@inner
def _block_tiles(C):
    """Tiles in a block: whole tiles of the building block."""
    fit = BLOCK // (36 * 4 * _vectors(C)) // WIDE_ROWS
    return max(2, min(fit, 8)) * WIDE_ROWS


@inner
def _product_scratch(C):
    """Where the products begin in a thread's scratch, behind the pixels, and where it ends."""
    T = _block_tiles(C)
    products = ASIDE + 36 * _apart(T * _vectors(C))
    return products, products + 36 * _apart(T * GROUP)


@inner
def _filter_size(C, F):
    return 36 * _apart(panel_size(C, F))


@cpu
def winograd_workspace_cpu(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    _, forward = _product_scratch(C)
    _, input_ = _product_scratch(F)
    threads = MAX_WORKERS * max(max(forward, input_), 9 * max(C, F) * PANEL)
    pixels, gradients = 36 * _apart(CHUNK * _vectors(C)), 36 * _apart(panel_size(CHUNK, F))
    weight = 36 * _apart(C * _vectors(F)) + pixels + gradients + PARTS * F
    weight += MAX_WORKERS * ASIDE
    return HEAD + _filter_size(C, F) + max(_filter_size(F, C) + threads, weight)


# --- filters ---------------------------------------------------------------------------


@inner
def _filter_range(start, stop, worker, ws, w, target, scratch, C, F, flipped):
    """Transform one panel of filters a work item: side by side in a panel for each tap first."""
    K, N = (F, C) if flipped else (C, F)
    bk, bn = (1, F) if flipped else (F, 1)
    taps = scratch + worker * 9 * K * PANEL
    distance = _apart(panel_size(K, N))
    for p in range(start, stop):
        columns = min(PANEL, N - p * PANEL)
        width = panel_width(columns)
        for tap in range(9):
            source = (8 - tap if flipped else tap) * C * F + p * PANEL * bn
            pack_panel(ws, taps + tap * K * width, w, source, bk, bn, K, columns)
        panel = target + p * PANEL * K
        for v in range(0, K * width, V):
            transform_filter((
                address(ws, panel + v), 6 * distance, distance,
                address(ws, taps + v), 3 * K * width, K * width,
            ))  # fmt: skip


@inner
def _transform_filters(ws, w, target, scratch, flipped):
    """The transformed filters, packed; `flipped` for those of the input's gradient."""
    C, F = w.shape[3], w.shape[4]
    K, N = (F, C) if flipped else (C, F)
    arguments = (ws, w.reshape(-1), target, scratch, C, F, flipped)
    split(_filter_range, panels(N), grain(250 * K * PANEL), arguments)


@cpu
def winograd_prepare_cpu(w, G, ws):
    C, F = w.shape[3], w.shape[4]
    _transform_filters(ws, w, HEAD, HEAD + _filter_size(C, F), NO)


# --- forward, and backward to the input ------------------------------------------------


@inner
def _tile_aside(ws, aside, x, gate, start, W, C, lanes, window, size):
    """Copy the last channels of a tile, fewer than a vector, to where there are whole vectors."""
    top, bottom, left, end = window
    fill(ws, aside, 0, ZEROS)
    for i in range(top, bottom):
        for j in range(left, end):
            source, target = start + (i * W + j) * C, aside + (i * size + j) * V
            if gate.size:
                copy_unless(ws, target, x, gate, source, lanes)
            else:
                copy(ws, target, x, source, lanes)


@inner
def _pixels_of_tiles(ws, v, distance, aside, x, gate, first, count, sizes):
    """Transform the 6 x 6 pixels behind `count` tiles from `first` on; row t of `v` is tile t."""
    H, W, C, TH, TW, PH, PW = sizes
    zero = aside + ZEROS
    fill(ws, zero, 0, V)
    for t in range(count):
        tile = first + t
        n, i, j = tile // (TH * TW), tile // TW % TH, tile % TW
        h, w = 4 * i - PH, 4 * j - PW
        window = (max(-h, 0), min(H - h, 6), max(-w, 0), min(W - w, 6))
        start = ((n * H + h) * W + w) * C
        for c in range(0, C, V):
            source, down, right, inside = address(x, start + c), W * C, C, window
            open_ = address(gate, start + c) if gate.size else 0
            if c + V > C:
                _tile_aside(ws, aside, x, gate, start + c, W, C, C - c, window, SIX)
                source, down, right, inside, open_ = address(ws, aside), 6 * V, V, (0, 6, 0, 6), 0
            top, bottom, left, end = inside
            transform_pixels((
                address(ws, v + t * _vectors(C) + c), 6 * distance, distance,
                source, down, right, top, bottom, left, end, address(ws, zero), open_,
            ))  # fmt: skip


@inner
def _outputs_of_tiles(y, b, ws, m, distance, aside, first, count, f, columns, relu, sizes):
    """Transform the products of `count` tiles into outputs of `columns` filters from `f` on."""
    OH, OW, F, TH, TW = sizes
    heap, bias_aside = address(ws, aside), address(ws, aside + BIAS)
    fill(ws, aside + BIAS, 0, V)
    if b.size:
        copy(ws, aside + BIAS, b, f + columns // V * V, columns % V)
    for t in range(count):
        tile = first + t
        n, i, j = tile // (TH * TW), tile // TW % TH, tile % TW
        rows, pixels = min(4, OH - 4 * i), min(4, OW - 4 * j)
        corner = ((n * OH + 4 * i) * OW + 4 * j) * F + f
        for v in range(0, columns, V):
            to, down, right, height, width = address(y, corner + v), OW * F, F, rows, pixels
            whole = v + V <= columns
            bias = address(b, f + v) if whole and b.size else bias_aside
            if not whole:
                to, down, right, height, width = heap, 4 * V, V, 4, 4
            transform_output((
                to, down, right, address(ws, m + t * GROUP + v), 6 * distance, distance,
                0, height, 0, width, heap, relu, bias,
            ))  # fmt: skip
            if not whole:
                for pixel in range(16):
                    row, column = pixel // 4, pixel % 4
                    if row < rows and column < pixels:
                        start = corner + (row * OW + column) * F + v
                        copy(y, start, ws, aside + pixel * V, columns - v)


@inner
def _tiles_range(start, stop, worker, y, x, gate, b, ws, sizes, places):
    H, W, C, OH, OW, F, TH, TW, PH, PW, relu = sizes
    filters, scratch = places
    products, size = _product_scratch(C)
    aside = scratch + worker * size
    v, m = aside + ASIDE, aside + products
    T = _block_tiles(C)
    v_distance, m_distance = _apart(T * _vectors(C)), _apart(T * GROUP)
    u_distance = _apart(panel_size(C, F))
    blocks = (stop - start + T - 1) // T
    for item in range(blocks):
        first = start + (stop - start) * item // blocks
        count = start + (stop - start) * (item + 1) // blocks - first
        _pixels_of_tiles(ws, v, v_distance, aside, x, gate, first, count, (H, W, C, TH, TW, PH, PW))
        for group in range(0, F, GROUP):
            for product in range(36):
                for f in range(group, min(F, group + GROUP), PANEL):
                    columns = min(PANEL, F - f)
                    width = panel_width(columns)
                    block(
                        ws, m + product * m_distance + f - group, GROUP, count, width,
                        ws, v + product * v_distance, _vectors(C), 1, ws, 0,
                        ws, filters + product * u_distance + f * C, width, 0, C, 1,
                        ws, 0, OVERWRITE,
                    )  # fmt: skip
            _outputs_of_tiles(
                y, b, ws, m, m_distance, aside, first, count, group, min(GROUP, F - group), relu,
                (OH, OW, F, TH, TW),
            )  # fmt: skip


@inner
def _convolve(y, x, gate, b, PH, PW, relu, filters, scratch, ws):
    N, D, H, W, C = x.shape
    OH, OW, F = y.shape[2], y.shape[3], y.shape[4]
    TH, TW = (OH + 3) // 4, (OW + 3) // 4
    set_offset(ws, 0, 0, 0)
    sizes = (H, W, C, OH, OW, F, TH, TW, PH, PW, relu)
    arguments = (y.reshape(-1), x.reshape(-1), gate, b, ws, sizes, (filters, scratch))
    split(_tiles_range, N * D * TH * TW, grain(36 * C * F), arguments)


@cpu
def winograd_forward_cpu(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    C, F = w.shape[3], w.shape[4]
    scratch = HEAD + _filter_size(C, F)
    _convolve(y, x, ws[:0], b, PH, PW, relu, HEAD, scratch, ws)


@cpu
def winograd_backward_input_cpu(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    C, F = w.shape[3], w.shape[4]
    filters = HEAD + _filter_size(C, F)
    scratch = filters + _filter_size(F, C)
    _transform_filters(ws, w, filters, scratch, YES)
    _convolve(dx, dy, y.reshape(-1), ws[:0], 2 - PH, 2 - PW, NO, filters, scratch, ws)


# --- backward, weight ------------------------------------------------------------------
#
# A chunk of tiles at a time: their pixels and gradients are transformed, then each thread adds
# its share of the 36 products to the transformed gradient. Every element is one chain over all
# tiles, so that nothing is added across threads. The bias' gradient is a plain sum, of as many
# partial sums whatever the number of threads.


@inner
def _gradients_of_tiles(ws, g, distance, aside, dy, y, first, t, sizes):
    """Transform the 4 x 4 gradients of tile ``first + t``; panels of filters, row t in each."""
    OH, OW, F, TH, TW = sizes
    tile, zero = first + t, aside + ZEROS
    n, i, j = tile // (TH * TW), tile // TW % TH, tile % TW
    window = (NO, min(4, OH - 4 * i), NO, min(4, OW - 4 * j))
    start = ((n * OH + 4 * i) * OW + 4 * j) * F
    for f in range(0, F, V):
        panel = f // PANEL * PANEL
        row = panel_width(min(PANEL, F - panel))
        source, down, right, inside = address(dy, start + f), OW * F, F, window
        gate = address(y, start + f) if y.size else 0
        if f + V > F:
            _tile_aside(ws, aside, dy, y, start + f, OW, F, F - f, window, FOUR)
            source, down, right, inside, gate = address(ws, aside), 4 * V, V, (0, 4, 0, 4), 0
        top, bottom, left, end = inside
        transform_gradient((
            address(ws, g + panel * CHUNK + t * row + f - panel), 6 * distance, distance,
            source, down, right, top, bottom, left, end, address(ws, zero), gate,
        ))  # fmt: skip


@inner
def _chunk_range(start, stop, worker, x, dy, y, ws, first, sizes, places):
    H, W, C, OH, OW, F, TH, TW, PH, PW = sizes
    v, g, aside = places
    v_distance, g_distance = _apart(CHUNK * _vectors(C)), _apart(panel_size(CHUNK, F))
    aside += worker * ASIDE
    _pixels_of_tiles(
        ws, v + start * _vectors(C), v_distance, aside, x, ws[:0], first + start, stop - start,
        (H, W, C, TH, TW, PH, PW),
    )  # fmt: skip
    for t in range(start, stop):
        _gradients_of_tiles(ws, g, g_distance, aside, dy, y, first, t, (OH, OW, F, TH, TW))


@inner
def _multiply_range(start, stop, worker, ws, sums, C, F, tiles, flags, places):
    v, g, _ = places
    for item in range(start, stop):
        product, f = item // panels(F), item % panels(F) * PANEL
        width = panel_width(min(PANEL, F - f))
        block(
            ws, sums + product * _apart(C * _vectors(F)) + f, _vectors(F), C, width,
            ws, v + product * _apart(CHUNK * _vectors(C)), 1, _vectors(C), ws, 0,
            ws, g + product * _apart(panel_size(CHUNK, F)) + f * CHUNK, width, 0, tiles, 1,
            ws, 0, flags,
        )  # fmt: skip


@inner
def _weights_range(start, stop, worker, dw, ws, sums, aside, C, F):
    distance = _apart(C * _vectors(F))
    aside += worker * ASIDE
    for c in range(start, stop):
        for f in range(0, F, V):
            transform_weight((
                address(ws, aside), 3 * V, V,
                address(ws, sums + c * _vectors(F) + f), 6 * distance, distance,
            ))  # fmt: skip
            for tap in range(9):
                lanes = min(V, F - f)
                copy(dw, (tap * C + c) * F + f, ws, aside + tap * V, lanes)


@inner
def _bias_range(start, stop, worker, ws, sums, dy, y, rows, F, parts):
    """Sum the gradients of one part of the pixels a work item."""
    for part in range(start, stop):
        first = rows * part // parts
        total = floats(address(ws, sums + part * F))
        fill(ws, sums + part * F, 0, F)
        for row in range(first, rows * (part + 1) // parts):
            gradients = floats(address(dy, row * F))
            if y.size:
                limits = floats(address(y, row * F))
                for f in range(F):
                    total[f] += ZERO if limits[f] <= ZERO else gradients[f]
            else:
                for f in range(F):
                    total[f] += gradients[f]


@cpu
def winograd_backward_weight_cpu(dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    N, D, H, W, C = x.shape
    OH, OW, F = dy.shape[2], dy.shape[3], dy.shape[4]
    TH, TW = (OH + 3) // 4, (OW + 3) // 4
    sums = HEAD + _filter_size(C, F)
    v = sums + 36 * _apart(C * _vectors(F))
    g = v + 36 * _apart(CHUNK * _vectors(C))
    bias_sums = g + 36 * _apart(panel_size(CHUNK, F))
    aside = bias_sums + PARTS * F
    places = (v, g, aside)
    sizes = (H, W, C, OH, OW, F, TH, TW, PH, PW)
    set_offset(ws, 0, 0, 0)
    images, gradients, gates = x.reshape(-1), dy.reshape(-1), y.reshape(-1)
    tiles = N * D * TH * TW
    for first in range(0, tiles, CHUNK):
        count = min(CHUNK, tiles - first)
        split(
            _chunk_range, count, grain(200 * (C + F)),
            (images, gradients, gates, ws, first, sizes, places),
        )  # fmt: skip
        split(
            _multiply_range, 36 * panels(F), grain(C * count * PANEL),
            (ws, sums, C, F, count, ACCUMULATE if first else OVERWRITE, places),
        )  # fmt: skip
    split(_weights_range, C, grain(100 * F), (dw.reshape(-1), ws, sums, aside, C, F))
    if db.size:
        rows = N * D * OH * OW
        split(
            _bias_range, PARTS, grain(8 * (rows // PARTS + 1) * F),
            (ws, bias_sums, gradients, gates, rows, F, PARTS),
        )  # fmt: skip
        add_parts(db, ws, bias_sums, PARTS)


def winograd_pays_cpu(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    if (KD, KH, KW) != (1, 3, 3) or max(SD, SH, SW, LD, LH, LW, G) > 1 or OD != D:
        return False
    # The cost of a train step, in outputs of the direct convolution, of which a tile has 16.
    # Measured on one core with AVX2: a tile's products cost 5.5 of them, its transforms 30 / C
    # and 30 / F, the transforms of the filters 36, or 100 where they outgrow the L2 cache by far.
    # So steps become 1.2 times as fast at 16 channels, 1.9 at 32, 2.3-2.7 at 64, 2.9 at 128
    # and 256. A first layer has too few channels (0.7-0.8), images of 5 x 5 fill their tiles
    # badly (0.9-1.2), and few tiles do not pay for the filters (4 x 4 x 256, one image: 0.25).
    tiles = N * D * -(-OH // 4) * -(-OW // 4)
    filters = 36 if C * F <= 128 * 128 else 100
    return bool(1.05 * (tiles * (5.5 + 30 / C + 30 / F) + filters) < N * D * OH * OW)
