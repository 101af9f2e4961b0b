"""Winograd's convolution along one axis: sequences, and images, under filters 3 or 5 wide.

The launchers have the signatures of ``conv.py`` and compute the same sums, for kernels of
(1, KH, 3) and (1, KH, 5), strides, dilation and groups of one: a tile of 6 or 4 outputs takes 8
multiplications a channel and filter for each row of a kernel instead of 18 or 20.
``winograd_line_pays`` says where that is faster.

As in ``winograd.py`` the result is not the correctly ordered sum. Rounding errors are up to 5e-6
of the largest output in float32 (at 256 channels); a NaN also reaches other outputs of its tile,
an infinity comes out as NaN, and where the direct sum would be exactly 0, a tiny number may
remain.
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
from minicnnrnn.kernels.gemm import gemm_block, set_offset
from minicnnrnn.kernels.jit import MAX_WORKERS, VECTOR_WIDTH, cpu, inner, split
from minicnnrnn.kernels.microkernel import ACCUMULATE, OVERWRITE, WIDE_ROWS
from minicnnrnn.kernels.panel import (
    PANEL,
    address,
    floats,
    grain,
    move_rows,
    pack_panel_at,
    panel_size,
    panel_width,
    panels,
)
from minicnnrnn.kernels.tiles import copy_run
from minicnnrnn.kernels.transform_line import (
    MATRICES,
    SPAN,
    transform_filter3,
    transform_filter5,
    transform_gradient3,
    transform_gradient5,
    transform_output3,
    transform_output5,
    transform_pixels,
    transform_weight3,
    transform_weight5,
)

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def _tiles(x, w, PH, PW, OH, TW, M):
    """The overlapping 8 pixels behind each tile of M outputs: (N, D, OH, TW, C, 8, KH)."""
    KH = w.shape[1]
    below = max(OH + KH - 1 - x.shape[2] - PH, 0)
    behind = max(M * (TW - 1) + SPAN - x.shape[3] - PW, 0)
    padded = np.pad(x, ((0, 0), (0, 0), (PH, below), (PW, behind), (0, 0)))
    tiles = np.lib.stride_tricks.sliding_window_view(padded, SPAN, 3)[:, :, :, : M * TW : M]
    return np.lib.stride_tricks.sliding_window_view(tiles, KH, 2)


def winograd_line_prepare_numpy(w, G, ws):
    """Transform the weights for ``forward``, once after each change; nothing to do in NumPy."""


def winograd_line_forward_numpy(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    """Convolve with filters 3 or 5 wide, in tiles of 6 or 4 neighbouring outputs.

    .. math:: y = A^T \\Big[ \\sum_{h, c} (G w_{hc}) \\odot (B^T x_{hc}) \\Big] + b

    for each tile of outputs y, the 8 pixels x behind it in the line that row h of the kernel meets,
    and each filter w; the product is elementwise, so that summed over h and c it is 8 matrix
    products over all tiles.

    Shapes and parameters as in ``conv_forward``, with KD of 1, KW of 3 or 5, SD, SH, SW, LD, LH,
    LW, G of 1 and PD of 0.

    Notes
    -----
    Cost: 2 N OH 8 TW KH C F operations for TW tiles, 0.44 or 0.4 of the direct sum where the tiles
    fit; and about 30 (C + F) additions a tile. Winograd 1980, "Arithmetic Complexity of
    Computations"; the matrices are in ``transform_line.py``.
    """
    A, B, TAPS = (matrix.astype(x.dtype) for matrix in MATRICES[w.shape[2]])
    OH, OW, M = y.shape[2], y.shape[3], A.shape[1]
    TW = -(-OW // M)
    filters = np.einsum("pk,hkcf->hpcf", TAPS, w[0])
    pixels = np.einsum("ndrtcih,ip->ndrtcph", _tiles(x, w, PH, PW, OH, TW, M), B, optimize=True)
    products = np.einsum("ndrtcph,hpcf->ndrtpf", pixels, filters, optimize=True)
    whole = (A.T @ products).reshape(*y.shape[:3], M * TW, -1)
    y[:] = whole[:, :, :, :OW] + (b if b.size else 0)
    if relu:
        np.maximum(y, 0, out=y)


def _before_relu(dy, y):
    """The gradient in front of a relu that ``forward`` applied; `dy` itself where it did not."""
    return np.where(y <= 0, 0, dy).astype(dy.dtype) if y.size else dy


def winograd_line_backward_input_numpy(
    dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    """Gradient with respect to the input: the same convolution of `dy`.

    Its filters are turned round and have C and F exchanged; its padding is K - 1 - P, so P is at
    most K - 1. Parameters as in ``conv_backward_input``.
    """
    dy, flipped = _before_relu(dy, y), w[:, ::-1, ::-1].swapaxes(3, 4)
    ones, none = (1,) * 6, w.reshape(-1)[:0]
    pads = 0, w.shape[1] - 1 - PH, w.shape[2] - 1 - PW
    winograd_line_forward_numpy(dx, dy, flipped, none, *ones, *pads, 1, 0, ws)


def winograd_line_backward_weight_numpy(
    dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    """Gradients with respect to the filters and the bias.

    .. math:: dw_{hcf} = G^T \\Big[ \\sum_{tiles} (B^T x_{hc}) \\odot (A \\, dy_f) \\Big]

    which is what the chain rule makes of ``winograd_line_forward``. Parameters as in
    ``conv_backward_weight``.
    """
    A, B, TAPS = (matrix.astype(x.dtype) for matrix in MATRICES[dw.shape[2]])
    dy, M = _before_relu(dy, y), A.shape[1]
    OH, OW = dy.shape[2:4]
    TW = -(-OW // M)
    whole = np.pad(dy, ((0, 0), (0, 0), (0, 0), (0, M * TW - OW), (0, 0)))
    gradients = A @ whole.reshape(*dy.shape[:3], TW, M, -1)
    pixels = np.einsum("ndrtcih,ip->ndrtcph", _tiles(x, dw, PH, PW, OH, TW, M), B, optimize=True)
    products = np.einsum("ndrtcph,ndrtpf->hpcf", pixels, gradients, optimize=True)
    dw[0] = np.einsum("pk,hpcf->hkcf", TAPS, products)
    if db.size:
        np.sum(dy, axis=(0, 1, 2, 3), out=db)


def winograd_line_workspace_numpy(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    """Floats of workspace that the passes of one convolution need."""
    return 0


def winograd_line_pays_numpy(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    """Whether Winograd's algorithm is the faster one here: in NumPy the direct sum is clearer."""
    return False


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# A thread takes a block of tiles through everything: it copies their pixels between zeros into a
# band, transforms them, multiplies with the filters, 8 products of the building block, and
# transforms the products into outputs, all within its L2 cache. Everything is an address, and the
# launchers are plain Python around three compiled functions, so that forward and backward to the
# input are one compilation.
#
# A row of transformed numbers holds the 8 vectors of one tile side by side, and 16 floats more:
# whole multiples of 4096 bytes would put all rows into the same few sets of the cache.
#
# Where a kernel has several rows, a block is whole lines of outputs of one image, and the lines of
# pixels that they see lie one below the other: each row of the kernel finds its own by the table of
# offsets, and a line is transformed once for all of them.
#
# The workspace: a table of offsets, the transformed filters that `prepare` leaves for
# `forward`, and scratch of one pass.


V = VECTOR_WIDTH
# Of a type of their own, bare literals would compile the functions that they go to once more.
NO, EIGHT = np.int64(0), np.int64(SPAN)
HEAD = 16  # floats before the filters: the table of offsets
MOST_ROWS = HEAD // 2  # of a kernel
GROUP = 4 * PANEL  # filters that a block of tiles is multiplied with before it is transformed
APART = 16  # floats between rows, and between the filters of one point
BLOCK = 200_000  # bytes of transformed pixels in a block, of the L2 cache
LEAST_PART = 192  # tiles that a part of a weight gradient has at least
PARTIAL_SUMS = 4_000_000  # floats that all parts together may take


def _vectors(columns):
    """`columns`, filled up to whole vectors."""
    return -(-columns // V) * V


def _row(columns):
    """Floats from one tile's transformed numbers to the next."""
    return SPAN * _vectors(columns) + APART


def _block_tiles(columns):
    """Tiles in a block: whole tiles of the building block."""
    fit = BLOCK // (SPAN * 4 * _vectors(columns)) // WIDE_ROWS
    return max(2, min(fit, 8)) * WIDE_ROWS


def _filter_size(K, F):
    """Floats of the transformed filters, packed; `K` is KH C."""
    return SPAN * (K * _vectors(F) + APART)


def _unit(KH, TW):
    """Tiles that a block is made of: any, or whole lines."""
    return 1 if KH == 1 else TW


def _most(columns, KH, TW):
    """Tiles in a block, at most."""
    unit = _unit(KH, TW)
    return max(1, _block_tiles(columns) // unit) * unit


def _scratch(C, F, KH, TW):
    """Floats of a thread's scratch: a band, two sets of transformed numbers, a tile aside."""
    T = _most(min(C, F), KH, TW)
    seen = T + (KH - 1) * TW
    return seen * (SPAN * _vectors(max(C, F)) + _row(C)) + T * (_row(F) + _row(GROUP)) + SPAN * V


def _parts(tiles, KH, C, F):
    """How many ways the tiles of a weight gradient are cut."""
    most = min(tiles // LEAST_PART, PARTIAL_SUMS // (KH * C * _row(F)))
    return max(1, min(most, PARTS))


@functools.cache
def _places(KH, C, F):
    """Where in the workspace the flipped filters, the bias and a pass' scratch begin."""
    flipped = HEAD + _filter_size(KH * C, F)
    bias = flipped + _filter_size(KH * F, C)
    return flipped, bias, bias + _vectors(max(C, F))


def winograd_line_workspace_cpu(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    M = SPAN + 1 - KW
    TW, back_TW = -(-OW // M), -(-W // M)
    sums = (KH * C + 1) * _row(F) * _parts(N * D * OH * TW, KH, C, F)
    scratch = max(_scratch(C, F, KH, TW), _scratch(F, C, KH, back_TW))
    return _places(KH, C, F)[2] + sums + MAX_WORKERS * max(scratch, KW * KH * max(C, F) * PANEL)


# --- filters ---------------------------------------------------------------------------


@inner
def _filter_range(start, stop, worker, target, w, scratch, C, F, KH, KW, flipped):
    """Transform one panel of filters a work item: side by side in a panel for each tap first."""
    K, N = (F, C) if flipped else (C, F)
    bk, bn = (1, F) if flipped else (F, 1)
    taps = scratch + 4 * worker * KW * KH * K * PANEL
    distance = panel_size(KH * K, N) + APART
    for p in range(start, stop):
        columns = min(PANEL, N - p * PANEL)
        width = panel_width(columns)
        for tap in range(KW):
            for row in range(KH):
                at = (KH - 1 - row) * KW + KW - 1 - tap if flipped else row * KW + tap
                source = w + 4 * (at * C * F + p * PANEL * bn)
                place = taps + 4 * (tap * KH + row) * K * width
                pack_panel_at(place, source, bk, bn, K, columns)
        panel = target + 4 * p * PANEL * KH * K
        for v in range(0, 4 * KH * K * width, 4 * V):
            if KW == 3:
                transform_filter3((panel + v, distance, taps + v, KH * K * width))
            else:
                transform_filter5((panel + v, distance, taps + v, KH * K * width))


@cpu
def _transform_filters(ws, target, w, scratch, C, F, KH, KW, flipped):
    """The transformed filters, packed; `flipped` for those of the input's gradient."""
    K, N = (F, C) if flipped else (C, F)
    arguments = (address(ws, target), address(w, 0), address(ws, scratch), C, F, KH, KW, flipped)
    split(_filter_range, panels(N), grain(30 * KW * KH * K * PANEL), arguments)


def winograd_line_prepare_cpu(w, G, ws):
    _, KH, KW, C, F = w.shape
    _, _, scratch = _places(KH, C, F)
    _transform_filters(ws, HEAD, w.reshape(-1), scratch, C, F, KH, KW, 0)


# --- forward, and backward to the input ------------------------------------------------


@inner
def _load_band(band, x, gate, start, first, pixels, W, C, sums):
    """Copy pixels from `first` on of the row at `start`, zeros outside it, into panels.

    With `sums`, panels of them, the pixels are added to those.
    """
    before = min(max(-first, 0), pixels)
    inside = max(min(pixels - before, W - max(first, 0)), 0)
    behind = pixels - before - inside
    for c in range(0, C, PANEL):
        columns = min(PANEL, C - c)
        width = panel_width(columns)
        panel = band + 4 * c * pixels
        copy_run((panel, 0, 0, before * width))
        copy_run((panel + 4 * (before + inside) * width, 0, 0, behind * width))
        panel += 4 * before * width
        source = 4 * ((start + max(first, 0)) * C + c)
        open_ = gate + source if gate else 0
        total = sums + 4 * c if sums else 0
        move_rows((panel, x + source, open_, 4 * C, inside, columns, total))


@inner
def _transform_tiles(v, row, band, x, gate, first, count, W, C, M, TW, PW, reach, sums):
    """Transform `count` tiles of pixels or of gradients, from `first` on; row t of `v` is tile t.

    A tile's `reach` tells what it holds: 8 pixels, or M gradients.
    """
    distance = (row - APART) // SPAN
    t = 0
    while t < count:  # tiles of one row
        n, i = (first + t) // TW, (first + t) % TW
        run = min(TW - i, count - t)
        pixels = M * (run - 1) + reach
        _load_band(band, x, gate, n * W, M * i - PW, pixels, W, C, sums)
        for c in range(0, C, PANEL):
            width = panel_width(C - c)
            for tile in range(run):
                source = band + 4 * (c * pixels + M * tile * width)
                target = v + 4 * ((t + tile) * row + c)
                for j in range(0, 4 * width, 4 * V):
                    if reach == SPAN:
                        transform_pixels((target + j, distance, source + j, width))
                    elif reach == 6:
                        transform_gradient3((target + j, distance, source + j, width))
                    else:
                        transform_gradient5((target + j, distance, source + j, width))
        t += run


@inner
def _block(first, stop, most, lines, TW, KH):
    """How many tiles a block takes, from `first` on: blocks of nearly one size.

    An image has so many `lines` of outputs.
    """
    left = stop - first
    if KH > 1:  # whole lines of one image
        left = min(left, lines * TW - first % (lines * TW))
    blocks = (left + most - 1) // most
    count = (left + blocks - 1) // blocks
    return count if KH == 1 else (count + TW - 1) // TW * TW


@inner
def _transform_lines(v, row, band, x, gate, first, count, image, C, M, TW, pads, KH, OH):
    """Transform all pixels that a block of tiles sees, zeros above and below the image."""
    H, W = image
    PH, PW = pads
    if KH == 1:
        _transform_tiles(v, row, band, x, gate, first, count, W, C, M, TW, PW, EIGHT, NO)
        return
    line = 4 * TW * row
    n, low = first // TW // OH, first // TW % OH - PH
    high = low + count // TW + KH - 1
    top, bottom = max(low, 0), min(high, H)
    copy_run((v, 0, 0, (top - low) * TW * row))
    copy_run((v + (bottom - low) * line, 0, 0, (high - bottom) * TW * row))
    _transform_tiles(
        v + (top - low) * line, row, band, x, gate, (n * H + top) * TW, (bottom - top) * TW, W, C,
        M, TW, PW, EIGHT, NO,
    )  # fmt: skip


@inner
def _outputs_of_tiles(y, bias, m, row, aside, first, count, f, columns, OW, F, M, TW, relu):
    """Transform the products of `count` tiles into outputs of `columns` filters from `f` on."""
    for t in range(count):
        n, i = (first + t) // TW, (first + t) % TW
        pixels = min(M, OW - M * i)
        for v in range(0, columns, V):
            start = y + 4 * ((n * OW + M * i) * F + f + v)
            products, b = m + 4 * (t * row + v), bias + 4 * (f + v)
            whole = pixels == M and v + V <= columns
            target, step = (start, F) if whole else (aside, V)
            if M == 6:
                transform_output3((target, step, products, GROUP, b, relu))
            else:
                transform_output5((target, step, products, GROUP, b, relu))
            if not whole:
                lanes = min(V, columns - v)
                for pixel in range(pixels):
                    copy_run((start + 4 * pixel * F, aside + 4 * pixel * V, 0, lanes))


@inner
def _tiles_range(start, stop, worker, y, x, gate, bias, filters, table, scratch, sizes, layout):
    image, C, OH, OW, F, KH, M, TW, pads, relu = sizes
    T, row, row_m, distance, size, unit = layout
    v = scratch + 4 * worker * size
    m = v + 4 * (T + (KH - 1) * TW) * row
    aside = m + 4 * T * row_m
    band = aside + 4 * SPAN * V
    first = start * unit
    while first < stop * unit:
        count = _block(first, stop * unit, T, OH, TW, KH)
        _transform_lines(v, row, band, x, gate, first, count, image, C, M, TW, pads, KH, OH)
        for group in range(0, F, GROUP):
            for point in range(SPAN):
                a = v + 4 * point * ((row - APART) // SPAN)
                for f in range(group, min(F, group + GROUP), PANEL):
                    width = panel_width(F - f)
                    gemm_block((
                        m + 4 * (point * GROUP + f - group), row_m, count, width, a, row, 1, table,
                        filters + 4 * (point * distance + f * KH * C), width, C * width, C, KH, 0,
                        OVERWRITE,
                    ))  # fmt: skip
            columns = min(GROUP, F - group)
            _outputs_of_tiles(
                y, bias, m, row_m, aside, first, count, group, columns, OW, F, M, TW, relu
            )
        first += count


@cpu
def _convolve(y, x, gate, b, ws, filters, bias, scratch, lines, sizes, layout):
    """Convolve lines of pixels with filters that lie transformed in the workspace."""
    _, C, _, _, F, KH, _, TW, _, _ = sizes
    _, row, _, _, _, unit = layout
    for f in range((F + V - 1) // V * V):
        ws[bias + f] = b[f] if f < b.size else ZERO
    for r in range(KH):
        set_offset(ws, 0, r, r * TW * row)
    arguments = (
        address(y, 0), address(x, 0), address(gate, 0) if gate.size else 0, address(ws, bias),
        address(ws, filters), address(ws, 0), address(ws, scratch), sizes, layout,
    )  # fmt: skip
    split(_tiles_range, lines * TW // unit, grain(SPAN * KH * C * F * unit), arguments)


@functools.cache
def _layout(C, F, KH, TW):
    """What ``_convolve`` knows of its scratch, all in floats but numbers of tiles."""
    distance, size = KH * C * _vectors(F) + APART, _scratch(C, F, KH, TW)
    return _most(C, KH, TW), _row(C), _row(GROUP), distance, size, _unit(KH, TW)


def winograd_line_forward_cpu(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    N, D, H, W, C = x.shape
    OH, OW, F = y.shape[2:]
    KH, KW = w.shape[1:3]
    M = SPAN + 1 - KW
    TW = -(-OW // M)
    _, bias, scratch = _places(KH, C, F)
    sizes = ((H, W), C, OH, OW, F, KH, M, TW, (PH, PW), relu)
    arrays = y.reshape(-1), x.reshape(-1), ws[:0], b, ws
    _convolve(*arrays, HEAD, bias, scratch, N * D * OH, sizes, _layout(C, F, KH, TW))


def winograd_line_backward_input_cpu(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    N, D, H, W, C = dx.shape
    OH, OW, F = dy.shape[2:]
    KH, KW = w.shape[1:3]
    M = SPAN + 1 - KW
    TW = -(-W // M)
    filters, bias, scratch = _places(KH, C, F)
    _transform_filters(ws, filters, w.reshape(-1), scratch, C, F, KH, KW, 1)
    sizes = ((OH, OW), F, H, W, C, KH, M, TW, (KH - 1 - PH, KW - 1 - PW), 0)
    arrays = dx.reshape(-1), dy.reshape(-1), y.reshape(-1), ws[:0], ws
    _convolve(*arrays, filters, bias, scratch, N * D * H, sizes, _layout(F, C, KH, TW))


# --- backward, weight ------------------------------------------------------------------
#
# The tiles are cut into as many parts whatever the number of threads; each sums up its share of
# the 8 products, blocks of tiles at a time, and the sums are added in order.


@inner
def _part_range(start, stop, worker, x, dy, gate, sums, table, scratch, parts, sizes, layout):
    lines, image, C, OH, OW, F, KH, M, TW, pads, _ = sizes
    T, row, row_g, size, unit = layout
    v = scratch + 4 * worker * size
    g = v + 4 * (T + (KH - 1) * TW) * row
    band = g + 4 * T * row_g
    points = (row - APART) // SPAN, (row_g - APART) // SPAN
    for part in range(start, stop):
        total = sums + 4 * part * (KH * C + 1) * row_g
        bias = total + 4 * KH * C * row_g
        copy_run((bias, 0, 0, row_g))
        units = lines * TW // unit
        first, end = units * part // parts * unit, units * (part + 1) // parts * unit
        flags = OVERWRITE
        while first < end:
            count = _block(first, end, T, OH, TW, KH)
            _transform_lines(v, row, band, x, NO, first, count, image, C, M, TW, pads, KH, OH)
            _transform_tiles(g, row_g, band, dy, gate, first, count, OW, F, M, TW, NO, M, bias)
            for point in range(SPAN):
                b = 4 * point * points[1]
                for r in range(KH):
                    a = v + 4 * (r * TW * row + point * points[0])
                    for f in range(0, F, PANEL):
                        gemm_block((
                            total + b + 4 * (r * C * row_g + f), row_g, C, panel_width(F - f), a, 1,
                            row, table, g + b + 4 * f, row_g, 0, count, 1, 0, flags,
                        ))  # fmt: skip
            flags = ACCUMULATE
            first += count


@inner
def _weights_range(start, stop, worker, dw, sums, scratch, parts, KH, C, F, row, KW):
    """Add the parts' sums for one channel of a row of the kernel, and transform them."""
    aside = scratch + 4 * worker * SPAN * V
    distance = (row - APART) // SPAN
    for item in range(start, stop):
        source = sums + 4 * item * row
        total = floats(source)
        for part in range(1, parts):
            more = floats(source + 4 * part * (KH * C + 1) * row)
            for i in range(row - APART):
                total[i] += more[i]
        r, c = item // C, item % C
        for f in range(0, F, V):
            if KW == 3:
                transform_weight3((aside, V, source + 4 * f, distance))
            else:
                transform_weight5((aside, V, source + 4 * f, distance))
            for tap in range(KW):
                target = dw + 4 * (((r * KW + tap) * C + c) * F + f)
                copy_run((target, aside + 4 * tap * V, 0, min(V, F - f)))


@cpu
def _gradients(dw, db, x, dy, gate, ws, sums, parts, sizes, layout):
    lines, _, C, _, _, F, KH, _, TW, _, KW = sizes
    row, size = layout[2], KH * C + 1
    first, scratch = address(ws, sums), address(ws, sums + parts * size * row)
    set_offset(ws, 0, 0, 0)
    arguments = (
        address(x, 0), address(dy, 0), address(gate, 0) if gate.size else 0, first, address(ws, 0),
        scratch, parts, sizes, layout,
    )  # fmt: skip
    split(_part_range, parts, grain(lines * TW // parts * SPAN * KH * C * F), arguments)
    arguments = (address(dw, 0), first, scratch, parts, KH, C, F, row, KW)
    split(_weights_range, KH * C, grain(8 * parts * F), arguments)
    for f in range(db.size):
        total = ZERO
        for part in range(parts):
            total += ws[sums + (part * size + KH * C) * row + f]
        db[f] = total


def winograd_line_backward_weight_cpu(
    dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    N, D, H, W, C = x.shape
    OH, OW, F = dy.shape[2:]
    KH, KW = dw.shape[1:3]
    M = SPAN + 1 - KW
    TW, lines = -(-OW // M), N * D * OH
    sizes = (lines, (H, W), C, OH, OW, F, KH, M, TW, (PH, PW), KW)
    unit, size = _unit(KH, TW), _scratch(C, F, KH, TW)
    layout = (_most(max(C, F), KH, TW), _row(C), _row(F), size, unit)
    arrays = dw.reshape(-1), db, x.reshape(-1), dy.reshape(-1), y.reshape(-1), ws
    parts = min(_parts(lines * TW, KH, C, F), lines * TW // unit)
    _gradients(*arrays, _places(KH, C, F)[2], parts, sizes, layout)


def winograd_line_pays_cpu(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    if KD > 1 or KH > MOST_ROWS or KW not in (3, 5) or max(SD, SH, SW, LD, LH, LW, G) > 1:
        return False
    if OD != D or (KH == 1 and OH != H) or OH > H + KH - 1:
        return False
    # The cost of a pass, in multiply-adds for each channel and filter, of which a direct output
    # takes KW. Measured on one core with AVX2: a tile's products cost 9.6, its transforms 60 / C
    # and 60 / F, the transforms of the filters 80, or 200 where they outgrow the L2 cache by far.
    # So steps with 5 taps become 1.2 times as fast at 16 channels, 1.4 at 32, 1.7 at 64 and 1.9 at
    # 128; with 3 taps 1.35 times at 32, 1.5 at 64. First layers have too few channels (0.8-1.0 at
    # 8), and a short sequence alone does not pay for the filters (24 steps of 64 channels: 0.7).
    # Kernels of 5 x 5 become twice as fast with AVX-512 from 16 channels on, 1.25 times at three,
    # 0.7 times at one; 3 x 3, where winograd.py has too few channels, 1.15 times at eight.
    tiles = N * D * OH * -(-OW // (SPAN + 1 - KW))
    filters = 80 if KH * C * F <= 128 * 128 else 200
    cost = tiles * (9.6 * KH + 60 / C + 60 / F) + filters * KH
    return bool((1.1 if KH == 1 else 1.2) * cost < N * D * OH * OW * KW * KH)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# The direct sum: a GPU has multiply-adds in plenty, and it is memory that it waits for.


def winograd_line_workspace_cuda(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    return conv_workspace_cuda(
        N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
    )  # fmt: skip


def winograd_line_pays_cuda(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    return False


def winograd_line_prepare_cuda(w, G, ws):
    conv_prepare_cuda(w, G, ws)


def winograd_line_forward_cuda(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    conv_forward_cuda(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws)


def winograd_line_backward_input_cuda(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    conv_backward_input_cuda(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws)


def winograd_line_backward_weight_cuda(
    dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    conv_backward_weight_cuda(dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws)
