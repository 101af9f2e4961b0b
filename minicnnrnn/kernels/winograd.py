"""Winograd's convolution: images under 3 x 3 filters with a quarter of the multiplications.

The launchers have the signatures of ``conv.py`` and compute the same sums, for kernels of
(1, 3, 3), strides, dilation and groups of one. ``winograd_pays`` says where that is faster.

It is the one operation whose result is not the correctly ordered sum: it adds and subtracts
multiples of neighbouring pixels and takes them away again. Rounding errors are a few times those
of the direct sum, 1e-6 to 2e-6 of the largest output in float32; a NaN also reaches other outputs
of its tiles, an infinity comes out as NaN, and where the direct sum would be exactly 0, a tiny
number may remain.
"""

import functools

import numpy as np

from minicnnrnn.kernels.band import ZERO
from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.conv import (
    conv_backward_input_cuda,
    conv_backward_weight_cuda,
    conv_forward_cuda,
    conv_prepare_cuda,
    conv_workspace_cuda,
)
from minicnnrnn.kernels.gemm import gemm_block
from minicnnrnn.kernels.jit import MAX_WORKERS, cpu, inner, split
from minicnnrnn.kernels.microkernel import ACCUMULATE, OVERWRITE, WIDE_ROWS
from minicnnrnn.kernels.panel import (
    PANEL,
    address,
    floats,
    grain,
    integers,
    pack_panel_at,
    panel_size,
    panel_width,
    panels,
)
from minicnnrnn.kernels.tiles import V, copy_run, read_tiles, vectors, write_tiles
from minicnnrnn.kernels.transform import POINTS, transform_filter, transform_weight

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
    """The overlapping 6 x 6 pixels behind each tile of outputs: (N, D, TH, TW, C, 6, 6)."""
    H, W = x.shape[2:4]
    ends = [max(4 * T + 2 - n - P, 0) for T, n, P in ((TH, H, PH), (TW, W, PW))]
    padded = np.pad(x, ((0, 0), (0, 0), (PH, ends[0]), (PW, ends[1]), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (6, 6), (2, 3))
    return windows[:, :, : 4 * TH : 4, : 4 * TW : 4]


def _planes(x, KD, LD, PD, OD):
    """For each plane of the kernel the planes of `x` that the outputs meet it with."""
    behind = max(OD + (KD - 1) * LD - PD - x.shape[1], 0)
    padded = np.pad(x, ((0, 0), (PD, behind), *((0, 0),) * (x.ndim - 2)))
    return [padded[:, k * LD : k * LD + OD] for k in range(KD)]


def _both(matrix, tiles):
    """Transform the rows and the columns of every tile: M t Mᵀ over the last two axes."""
    matrix = matrix.astype(tiles.dtype)
    return matrix @ tiles @ matrix.T


def _filters(w):
    """The transformed filters: (KD, C, F, 6, 6)."""
    return _both(TAPS, np.moveaxis(w, (1, 2), (3, 4)))


def winograd_prepare_numpy(w, G, ws):
    """Transform the weights for ``forward``, once after each change; nothing to do in NumPy.

    They are gone after a backward pass.
    """


def winograd_forward_numpy(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    """Convolve images with a bank of 3 x 3 filters, in tiles of 4 x 4 outputs.

    .. math:: y = A^T \\Big[ \\sum_{k,c} (G w_{kc} G^T) \\odot (B^T x_{kc} B) \\Big] A + b

    for each tile of outputs y (4 x 4), the 6 x 6 pixels x behind it in each plane k that the
    kernel meets, and each filter w (3 x 3); the product is elementwise, so that summed over k
    and c it is 36 matrix products over all tiles.

    Shapes and parameters as in ``conv_forward``, with (KH, KW) = (3, 3) and SD, SH, SW, LH, LW, G
    of 1.

    Notes
    -----
    Cost: 2 N OD KD 36 TH TW C F operations for TH x TW tiles, a quarter of the direct sum where
    the tiles fit; and about 150 (C + F) additions a tile. Winograd 1980, "Arithmetic Complexity
    of Computations"; Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks",
    arXiv:1509.09308, section 4.3, with other points.
    """
    OD, OH, OW = y.shape[1:4]
    TH, TW = -(-OH // 4), -(-OW // 4)
    v = _planes(_both(B.T, _tiles(x, PH, PW, TH, TW)), len(w), LD, PD, OD)
    pairs = zip(v, _filters(w))
    products = sum(np.einsum("ndhwcij,cfij->ndhwfij", a, u, optimize=True) for a, u in pairs)
    tiles = np.moveaxis(_both(A.T, products), 4, 6).swapaxes(3, 4)
    whole = tiles.reshape(-1, OD, 4 * TH, 4 * TW, y.shape[4])
    y[:] = whole[:, :, :OH, :OW]
    y += b if b.size else 0
    if relu:
        np.maximum(y, 0, out=y)


def _before_relu(dy, y):
    """The gradient in front of a relu that ``forward`` applied; `dy` itself where it did not."""
    return np.where(y <= 0, 0, dy).astype(dy.dtype) if y.size else dy


def winograd_backward_input_numpy(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    """Gradient with respect to the input: the same convolution of `dy`.

    Its filters are turned upside down and have C and F exchanged; its padding is (KD - 1) LD - PD,
    2 - PH and 2 - PW, none of which is below 0. Parameters as in ``conv_backward_input``.
    """
    dy, flipped = _before_relu(dy, y), w[::-1, ::-1, ::-1].swapaxes(3, 4)
    PD, none = (len(w) - 1) * LD - PD, w.reshape(-1)[:0]
    winograd_forward_numpy(dx, dy, flipped, none, 1, 1, 1, LD, 1, 1, PD, 2 - PH, 2 - PW, 1, 0, ws)


def winograd_backward_weight_numpy(dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    """Gradients with respect to the filters and the bias.

    .. math:: dw_{kcf} = G^T \\Big[ \\sum_{tiles} (B^T x_{kc} B) \\odot (A \\, dy_f A^T) \\Big] G

    which is what the chain rule makes of ``winograd_forward``, and itself Winograd's algorithm
    for 3 x 3 outputs of 4 x 4 taps. Parameters as in ``conv_backward_weight``.
    """
    dy = _before_relu(dy, y)
    OD, OH, OW, F = dy.shape[1:]
    TH, TW = -(-OH // 4), -(-OW // 4)
    v = _planes(_both(B.T, _tiles(x, PH, PW, TH, TW)), len(dw), LD, PD, OD)
    whole = np.pad(dy, ((0, 0), (0, 0), (0, 4 * TH - OH), (0, 4 * TW - OW), (0, 0)))
    tiles = whole.reshape(-1, OD, TH, 4, TW, 4, F).transpose(0, 1, 2, 4, 6, 3, 5)
    gradients = _both(A, tiles)
    for k, pixels in enumerate(v):
        products = np.einsum("ndhwcij,ndhwfij->cfij", pixels, gradients, optimize=True)
        dw[k] = _both(TAPS.T, products).transpose(2, 3, 0, 1)
    if db.size:
        np.sum(dy, axis=(0, 1, 2, 3), out=db)


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
# Transforms work on whole vectors of channels; ``tiles.py`` says how they read and write images,
# and ``transform.py`` has the matrices above, multiplied out.
#
# The planes of a volume are images until their products are summed, so that the pixels of one
# are transformed once for all outputs of a block that meet it.
#
# The workspace: the transformed filters, which `prepare` leaves for `forward`, and scratch of
# one pass. Backward passes take all of it for themselves.


GROUP = 4 * PANEL  # filters that a block of tiles is multiplied with before it is transformed
BLOCK = 300_000  # bytes of transformed pixels and products in a block, of the L2 cache
ROWS = 2 * WIDE_ROWS  # outputs of a block that pay for reading the filters
SUM_ROWS = 96  # outputs that pay for reading and writing the sums of a weight gradient
PART = 128  # tiles that pay for a partial sum of the weights' gradient


def _apart(size):
    """The distance of 36 matrices of `size` floats that a transform writes at the same time.

    Powers of two would put all of them into the same few sets of the cache.
    """
    return (size // 1024 + 1) * 1024 + 16


def _block_size(C, F, planes, reach, least):
    """(tiles of a plane, planes of outputs) in a block: whole tiles of the building block.

    The outputs of a plane meet it and `reach` planes behind it. Where the L2 cache would hold
    fewer than `least` outputs in all, it is better to read them from behind it.
    """
    fit = BLOCK // (36 * 4 * (vectors(C) + min(GROUP, vectors(F)))) // WIDE_ROWS
    most = min(planes, max(fit - reach, 2 * reach, 1))
    outputs = (planes - 1) // ((planes + most - 1) // most) + 1
    tiles = max(min(fit // (outputs + reach), 8) * WIDE_ROWS, least // outputs, WIDE_ROWS)
    return tiles, outputs


@functools.cache
def _layout(C, F, group, KD, planes, reach, least):
    """The size of a block, and a thread's scratch for blocks of `group` filters.

    First a table of offsets; then a tile, the bias, 36 matrices of pixels and as many of products
    or gradients, each with their distance; the end.
    """
    tiles, outputs = _block_size(C, F, planes, reach, least)
    tile = (2 * KD // 16 + 1) * 16
    bias = tile + 36 * max(vectors(C), group) + 16
    pixels = bias + (F // 16 + 1) * 16
    v_distance = _apart(tiles * (outputs + reach) * vectors(C))
    products = pixels + 36 * v_distance
    distance = _apart(tiles * outputs * group)
    end = products + 36 * distance
    return tiles, outputs, tile, bias, pixels, v_distance, products, distance, end


def _convolution(C, F, KD, planes, reach):
    """The layout of a convolution."""
    return _layout(C, F, min(GROUP, vectors(F)), KD, planes, reach, ROWS)


@functools.cache
def _filters_end(C, F, KD):
    """Where the scratch begins, behind the transformed filters of either direction."""
    return 36 * max(_apart(panel_size(KD * C, F)), _apart(panel_size(KD * F, C)))


@functools.cache
def _weight_layout(columns, C, F, KD, planes, reach):
    """Parts of the tiles, filters that a thread sums up, its scratch, the distance of its sums.

    With as many parts as threads, each of them takes all filters, else a group; whatever the
    number of threads, the sums are the same.
    """
    parts = 1
    while parts < PARTS and 2 * parts <= columns and 2 * parts * PART <= columns * planes:
        parts *= 2
    groups = min((MAX_WORKERS + parts - 1) // parts, panels(F))
    group = min((panels(F) + groups - 1) // groups * PANEL, vectors(F))
    scratch = (parts * (9 * KD * C + 1) * F + 15) // 16 * 16
    layout = _layout(C, F, group, KD, planes, reach, SUM_ROWS)
    return parts, group, scratch, _apart(KD * C * group), layout


def winograd_workspace_cpu(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    reach, columns = (KD - 1) * LD, N * ((OH + 3) // 4) * ((OW + 3) // 4)
    ends = _convolution(C, F, KD, OD, reach)[-1], _convolution(F, C, KD, D, reach)[-1]
    threads = MAX_WORKERS * max(*ends, 9 * max(C, F) * PANEL)
    _, _, scratch, distance, layout = _weight_layout(columns, C, F, KD, OD, reach)
    weight = scratch + MAX_WORKERS * (layout[-1] + 36 * distance)
    return max(_filters_end(C, F, KD) + threads, weight)


# --- filters ---------------------------------------------------------------------------


@inner
def _filter_range(start, stop, worker, target, distance, w, scratch, KD, C, F, flipped):
    """Transform one panel of filters a work item: side by side in a panel for each tap first."""
    K, N = (F, C) if flipped else (C, F)
    bk, bn = (1, F) if flipped else (F, 1)
    taps = scratch + 4 * worker * 9 * K * PANEL
    for item in range(start, stop):
        n, kd = item // KD * PANEL, item % KD
        columns = min(PANEL, N - n)
        width = panel_width(columns)
        first = w + 4 * ((KD - 1 - kd if flipped else kd) * 9 * C * F + n * bn)
        for tap in range(9):
            source = first + 4 * (8 - tap if flipped else tap) * C * F
            pack_panel_at(taps + 4 * tap * K * width, source, bk, bn, K, columns)
        panel = target + 4 * (n * KD * K + kd * K * width)
        for v in range(0, K * width, V):
            transform_filter((
                panel + 4 * v, 6 * distance, distance, taps + 4 * v, 3 * K * width, K * width,
            ))  # fmt: skip


@cpu
def _transform_filters(ws, w, scratch, distance, flipped):
    """The transformed filters, packed; `flipped` for those of the input's gradient."""
    KD, C, F = w.shape[0], w.shape[3], w.shape[4]
    items = panels(C if flipped else F) * KD
    work = 250 * (F if flipped else C) * PANEL
    arguments = (address(ws, 0), distance, address(w, 0), address(ws, scratch), KD, C, F, flipped)
    split(_filter_range, items, grain(work), arguments)


def winograd_prepare_cpu(w, G, ws):
    KD, _, _, C, F = w.shape
    _transform_filters(ws, w, _filters_end(C, F, KD), _apart(panel_size(KD * C, F)), 0)


# --- forward, and backward to the input ------------------------------------------------


@inner
def _met(d, D, KD, LD, PD):
    """The planes of the kernel that meet one of the image at output plane `d`: (first, behind)."""
    first = max(0, -((d - PD) // LD))
    return first, max(first, min(KD, (D - 1 - d + PD) // LD + 1))


@inner
def _multiply_block(
    products, distance, v, v_distance, filters, u_distance, table, group, tiles, first, planes,
    low, D, C, F, KD, LD, PD,
):  # fmt: skip
    """The 36 products of a block with a group of filters: planes one after the other.

    Outputs of planes that meet the same planes of the kernel are rows of one product.
    """
    filters_in_group = min(GROUP, F - group)
    row = vectors(filters_in_group)
    for r in range(KD):
        integers(table)[r] = r * LD * tiles * vectors(C)
    for product in range(36):
        for f in range(group, group + filters_in_group, PANEL):
            columns = panel_width(min(PANEL, F - f))
            u = filters + 4 * (product * u_distance + f * KD * C)
            d = first
            while d < first + planes:
                k, behind = _met(d, D, KD, LD, PD)
                last = d + 1
                while last < first + planes and _met(last, D, KD, LD, PD) == (k, behind):
                    last += 1
                m = products + 4 * (product * distance + (d - first) * tiles * row + f - group)
                rows, pixels = (last - d) * tiles, (d + k * LD - PD - low) * tiles * vectors(C)
                if k == behind:  # dilated beyond the image
                    for i in range(rows):
                        copy_run((m + 4 * i * row, 0, 0, columns))
                else:
                    gemm_block((
                        m, row, rows, columns, v + 4 * (product * v_distance + pixels),
                        vectors(C), 1, table, u + 4 * k * C * columns, columns, C * columns, C,
                        behind - k, 0, OVERWRITE,
                    ))  # fmt: skip
                d = last


@inner
def _tiles_range(
    start, stop, worker, y, x, gate, b, relu, N, D, H, W, C, OD, OH, OW, F, KD, LD, PD, PH, PW,
    filters, u_distance, scratch, layout,
):  # fmt: skip
    most, outputs, tile, bias, v, v_distance, products, distance, size = layout
    TH, TW, reach = (OH + 3) // 4, (OW + 3) // 4, (KD - 1) * LD
    columns, table = N * TH * TW, scratch + 4 * worker * size
    tile, bias = table + 4 * tile, table + 4 * bias
    v, products = table + 4 * v, table + 4 * products
    copy_run((bias, 0, 0, vectors(F)))
    if b:
        copy_run((bias, b, 0, F))
    item = start
    while item < stop:  # planes of outputs that lie in the same block
        first, column = item // columns * outputs, item % columns
        planes = min(outputs, OD - first)
        low, high = max(first - PD, 0), min(first + planes + reach - PD, D)
        length = min(columns - column, stop - item)
        blocks = (length + most - 1) // most
        for i in range(blocks):
            begin = column + length * i // blocks
            tiles = column + length * (i + 1) // blocks - begin
            read_tiles((
                6, v, v_distance, vectors(C), x, gate, x + 4 * N * D * H * W * C, D, H, W, C,
                TH, TW, PH, PW, 0, C, low, max(high - low, 0), begin, tiles, tile, 0,
            ))  # fmt: skip
            for group in range(0, F, GROUP):
                _multiply_block(
                    products, distance, v, v_distance, filters, u_distance, table, group, tiles,
                    first, planes, low, D, C, F, KD, LD, PD,
                )  # fmt: skip
                write_tiles((
                    y, bias + 4 * group, relu, OD, OH, OW, F, TH, TW, group,
                    min(GROUP, F - group), first, planes, begin, tiles, products, distance, tile,
                ))  # fmt: skip
        item += length


@cpu
def _convolve(y, x, gate, b, ws, relu, KD, LD, PD, PH, PW, u_distance, scratch, layout):
    N, D, H, W, C = x.shape
    _, OD, OH, OW, F = y.shape
    columns, outputs = N * ((OH + 3) // 4) * ((OW + 3) // 4), layout[1]
    split(
        _tiles_range, columns * ((OD + outputs - 1) // outputs), grain(36 * KD * outputs * C * F),
        (
            address(y, 0), address(x, 0), address(gate, 0) if gate.size else 0,
            address(b, 0) if b.size else 0, relu, N, D, H, W, C, OD, OH, OW, F, KD, LD, PD, PH, PW,
            address(ws, 0), u_distance, address(ws, scratch), layout,
        ),
    )  # fmt: skip


def winograd_forward_cpu(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    KD, _, _, C, F = w.shape
    layout = _convolution(C, F, KD, y.shape[1], (KD - 1) * LD)
    distance, scratch = _apart(panel_size(KD * C, F)), _filters_end(C, F, KD)
    _convolve(y, x, y[:0], b, ws, relu, KD, LD, PD, PH, PW, distance, scratch, layout)


def winograd_backward_input_cpu(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    KD, _, _, C, F = w.shape
    reach = (KD - 1) * LD
    distance, scratch = _apart(panel_size(KD * F, C)), _filters_end(C, F, KD)
    _transform_filters(ws, w, scratch, distance, 1)
    layout = _convolution(F, C, KD, dx.shape[1], reach)
    pads = reach - PD, 2 - PH, 2 - PW
    _convolve(dx, dy, y, ws[:0], ws, 0, KD, LD, *pads, distance, scratch, layout)


# --- backward, weight ------------------------------------------------------------------
#
# A work item is a group of filters and a part of all tiles: block by block it transforms pixels
# and gradients and adds their 36 products up, all in its thread's own cache. What then comes out
# is a partial sum of the gradient, of as many whatever the number of threads.


@inner
def _sum_products(
    sums, distance, v, v_distance, g, g_distance, table, tiles, first, planes, low, pixel_rows,
    D, C, filters, KD, LD, PD, flags,
):  # fmt: skip
    """Add the 36 products of a block to the sums: their rows are channels, summed over tiles."""
    row = vectors(filters)
    for product in range(36):
        for kd in range(KD):
            begin = max(first, PD - kd * LD)
            count = (min(first + planes, D + PD - kd * LD) - begin) * tiles
            if count <= 0:
                continue
            pixels = (begin + kd * LD - PD - low) * tiles
            total = sums + 4 * (product * distance + kd * C * row)
            for c in range(0, C, GROUP):
                step = min(GROUP, vectors(C) - c)
                a = v + 4 * (product * v_distance + c * pixel_rows + pixels * step)
                for f in range(0, filters, PANEL):
                    width = panel_width(min(PANEL, filters - f))
                    b = f * planes * tiles + (begin - first) * tiles * width
                    gemm_block((
                        total + 4 * (c * row + f), row, min(GROUP, C - c), width, a, 1, step, table,
                        g + 4 * (product * g_distance + b), width, 0, count, 1, 0, flags,
                    ))  # fmt: skip


@inner
def _transform_weights(dw, sums, distance, aside, KD, C, F, filters):
    """Transform the sums into a group of `filters` columns of `dw`."""
    row = vectors(filters)
    for c in range(KD * C):
        to = dw + 4 * (c // C * 9 * C + c % C) * F
        for f in range(0, filters, V):
            source, lanes = sums + 4 * (c * row + f), min(V, filters - f)
            if lanes == V:
                transform_weight((to + 4 * f, 3 * C * F, C * F, source, 6 * distance, distance))
            else:
                transform_weight((aside, 3 * V, V, source, 6 * distance, distance))
                for tap in range(9):
                    copy_run((to + 4 * (tap * C * F + f), aside + 4 * tap * V, 0, lanes))


@inner
def _weights_range(
    start, stop, worker, dw, db, x, dy, gate, N, D, H, W, C, OD, OH, OW, F, KD, LD, PD, PH, PW,
    parts, group, scratch, sums_distance, layout,
):  # fmt: skip
    most, outputs, tile, bias, v, v_distance, g, g_distance, sums = layout
    TH, TW, reach = (OH + 3) // 4, (OW + 3) // 4, (KD - 1) * LD
    columns, groups = N * TH * TW, (F + group - 1) // group
    table = scratch + 4 * worker * (sums + 36 * sums_distance)
    tile, bias, sums = table + 4 * tile, table + 4 * bias, table + 4 * sums
    v, g = table + 4 * v, table + 4 * g
    integers(table)[0] = 0
    for item in range(start, stop):
        part, f = item // groups, item % groups * group
        filters = min(group, F - f)
        if KD > 1:  # a plane of the kernel may meet none of the image's
            copy_run((sums, 0, 0, 36 * sums_distance))
        copy_run((bias, 0, 0, vectors(filters)))
        begin, end = columns * part // parts, columns * (part + 1) // parts
        for first in range(0, OD, outputs):
            planes = min(outputs, OD - first)
            low, high = max(first - PD, 0), min(first + planes + reach - PD, D)
            pixel_planes = max(high - low, 0)
            for column in range(begin, end, most):
                tiles = min(most, end - column)
                read_tiles((
                    6, v, v_distance, GROUP, x, 0, x + 4 * N * D * H * W * C, D, H, W, C, TH, TW,
                    PH, PW, 0, C, low, pixel_planes, column, tiles, tile, 0,
                ))  # fmt: skip
                read_tiles((
                    4, g, g_distance, PANEL, dy, gate, dy + 4 * N * OD * OH * OW * F, OD, OH, OW,
                    F, TH, TW, 0, 0, f, filters, first, planes, column, tiles, tile, bias,
                ))  # fmt: skip
                _sum_products(
                    sums, sums_distance, v, v_distance, g, g_distance, table, tiles, first,
                    planes, low, pixel_planes * tiles, D, C, filters, KD, LD, PD,
                    ACCUMULATE if KD > 1 or first or column > begin else OVERWRITE,
                )  # fmt: skip
        to = dw + 4 * (part * 9 * KD * C * F + f)
        _transform_weights(to, sums, sums_distance, tile, KD, C, F, filters)
        if db:
            copy_run((db + 4 * (part * F + f), bias, 0, filters))


@inner
def _parts_range(start, stop, worker, total, partial, parts, size):
    """Add partial sums in the order of their parts."""
    to = floats(total)
    for part in range(parts):
        of = floats(partial + 4 * part * size)
        for i in range(start, stop):
            to[i] = of[i] + (to[i] if part else ZERO)


@cpu
def _backward_weight(
    dw, db, x, dy, y, ws, LD, PD, PH, PW, parts, group, scratch, sums_distance, layout
):
    N, D, H, W, C = x.shape
    _, OD, OH, OW, F = dy.shape
    KD, size, columns = dw.shape[0], dw.size, N * ((OH + 3) // 4) * ((OW + 3) // 4)
    to, to_bias = address(dw, 0), address(db, 0)
    if parts > 1:
        to, to_bias = address(ws, 0), address(ws, parts * size)
    split(
        _weights_range, parts * ((F + group - 1) // group),
        grain(36 * KD * C * group * columns * OD // parts),
        (
            to, to_bias if db.size else 0, address(x, 0), address(dy, 0),
            address(y, 0) if y.size else 0, N, D, H, W, C, OD, OH, OW, F, KD, LD, PD, PH, PW,
            parts, group, address(ws, scratch), sums_distance, layout,
        ),
    )  # fmt: skip
    if parts > 1:
        split(_parts_range, size, grain(parts), (address(dw, 0), to, parts, size))
        if db.size:
            split(_parts_range, F, grain(parts), (address(db, 0), to_bias, parts, F))


def winograd_backward_weight_cpu(dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    KD, _, _, C, F = dw.shape
    N, OD, OH, OW, _ = dy.shape
    columns = N * ((OH + 3) // 4) * ((OW + 3) // 4)
    layout = _weight_layout(columns, C, F, KD, OD, (KD - 1) * LD)
    _backward_weight(dw, db, x, dy, y, ws, LD, PD, PH, PW, *layout)


def winograd_pays_cpu(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    if (KH, KW) != (3, 3) or max(SD, SH, SW, LH, LW, G) > 1:
        return False
    # The cost of a train step, in outputs of the direct convolution, of which a tile has 16.
    # Measured on one core with AVX2: a tile's products cost 5.5 of them and 30 / C for starting
    # short sums, its transforms 30 / F, shared by the planes of the kernel, and the transforms of
    # the filters 36, or 50 where they outgrow the L2 cache by far. So steps become 1.5 times as
    # fast at 16 channels, 1.9 at 64, and 3 in volumes of 16 to 64 channels. A first layer has too
    # few channels (0.8), and images of 5 x 5 fill their tiles badly (1.0).
    tiles = N * OD * -(-OH // 4) * -(-OW // 4)
    filters = 36 if C * F <= 128 * 128 else 50
    return bool(1.05 * (tiles * (5.5 + 30 / C + 30 / (F * KD)) + filters) < N * OD * OH * OW)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# The direct sum: a GPU has multiply-adds in plenty, and it is memory that it waits for.


def winograd_workspace_cuda(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    return conv_workspace_cuda(
        N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
    )  # fmt: skip


def winograd_pays_cuda(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    return False


def winograd_prepare_cuda(w, G, ws):
    conv_prepare_cuda(w, G, ws)


def winograd_forward_cuda(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    conv_forward_cuda(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws)


def winograd_backward_input_cuda(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    conv_backward_input_cuda(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws)


def winograd_backward_weight_cuda(
    dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    conv_backward_weight_cuda(dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws)
