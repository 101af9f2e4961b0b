"""Winograd's convolution along one axis: sequences under filters of 3 or 5 taps.

The launchers have the signatures of ``conv.py`` and compute the same sums, for kernels of
(1, 1, 3) and (1, 1, 5), strides, dilation and groups of one: a tile of 6 or 4 outputs takes 8
multiplications a channel and filter instead of 18 or 20. ``winograd_line_pays`` says where that
is faster.

As in ``winograd.py`` the result is not the correctly ordered sum. Rounding errors are up to 4e-6
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
from minicnnrnn.kernels.gemm import ACCUMULATE, OVERWRITE, WIDE_ROWS, gemm_block, set_offset
from minicnnrnn.kernels.jit import MAX_WORKERS, VECTOR_WIDTH, cpu, inner, split
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


def _rows(x):
    """Rows of images are sequences of their own: (N D H, W, C)."""
    return x.reshape(-1, *x.shape[3:])


def _tiles(x, PW, TW, M):
    """The overlapping 8 pixels behind each tile of M outputs: (rows, TW, C, 8)."""
    x = _rows(x)
    behind = max(M * (TW - 1) + SPAN - x.shape[1] - PW, 0)
    padded = np.pad(x, ((0, 0), (PW, behind), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, SPAN, 1)[:, : M * TW : M]


def winograd_line_prepare_numpy(w, G, ws):
    """Transform the weights for ``forward``, once after each change; nothing to do in NumPy."""


def winograd_line_forward_numpy(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    """Convolve sequences with a bank of filters of 3 or 5 taps, in tiles of 6 or 4 outputs.

    .. math:: y = A^T \\Big[ \\sum_c (G w_{c}) \\odot (B^T x_{c}) \\Big] + b

    for each tile of outputs y, the 8 pixels x behind it and each filter w; the product is
    elementwise, so that summed over c it is 8 matrix products over all tiles.

    Shapes and parameters as in ``conv_forward``, with (KD, KH, KW) = (1, 1, 3) or (1, 1, 5) and
    SD, SH, SW, LD, LH, LW, G of 1 and PD, PH of 0.

    Notes
    -----
    Cost: 2 N 8 TW C F operations for TW tiles, 0.44 or 0.4 of the direct sum where the tiles
    fit; and about 30 (C + F) additions a tile. Winograd 1980, "Arithmetic Complexity of
    Computations"; the matrices are in ``transform_line.py``.
    """
    A, B, TAPS = (matrix.astype(x.dtype) for matrix in MATRICES[w.shape[2]])
    out, M = _rows(y), A.shape[1]
    TW = -(-out.shape[1] // M)
    filters = np.einsum("pk,kcf->pcf", TAPS, w[0, 0])
    products = np.einsum("rtcp,pcf->rtpf", _tiles(x, PW, TW, M) @ B, filters, optimize=True)
    whole = (A.T @ products).reshape(len(out), M * TW, -1)
    out[:] = whole[:, : out.shape[1]] + (b if b.size else 0)
    if relu:
        np.maximum(out, 0, out=out)


def _before_relu(dy, y):
    """The gradient in front of a relu that ``forward`` applied; `dy` itself where it did not."""
    return np.where(y <= 0, 0, dy).astype(dy.dtype) if y.size else dy


def winograd_line_backward_input_numpy(
    dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    """Gradient with respect to the input: the same convolution of `dy`.

    Its filters are turned round and have C and F exchanged; its padding is KW - 1 - PW, so PW is
    at most KW - 1. Parameters as in ``conv_backward_input``.
    """
    dy, flipped = _before_relu(dy, y), w[:, :, ::-1].swapaxes(3, 4)
    ones, none = (1,) * 6, w.reshape(-1)[:0]
    before = w.shape[2] - 1 - PW
    winograd_line_forward_numpy(dx, dy, flipped, none, *ones, 0, 0, before, 1, 0, ws)


def winograd_line_backward_weight_numpy(
    dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    """Gradients with respect to the filters and the bias.

    .. math:: dw_{cf} = G^T \\Big[ \\sum_{tiles} (B^T x_c) \\odot (A \\, dy_f) \\Big]

    which is what the chain rule makes of ``winograd_line_forward``. Parameters as in
    ``conv_backward_weight``.
    """
    A, B, TAPS = (matrix.astype(x.dtype) for matrix in MATRICES[dw.shape[2]])
    dy, M = _rows(_before_relu(dy, y)), A.shape[1]
    TW = -(-dy.shape[1] // M)
    whole = np.pad(dy, ((0, 0), (0, M * TW - dy.shape[1]), (0, 0)))
    gradients = A @ whole.reshape(len(dy), TW, M, -1)
    products = np.einsum("rtcp,rtpf->pcf", _tiles(x, PW, TW, M) @ B, gradients, optimize=True)
    dw[0, 0] = np.einsum("pk,pcf->kcf", TAPS, products)
    if db.size:
        np.sum(dy, axis=(0, 1), out=db)


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
# The workspace: a table of offsets, the transformed filters that `prepare` leaves for
# `forward`, and scratch of one pass.


V = VECTOR_WIDTH
# Of a type of their own, bare literals would compile the functions that they go to once more.
NO, EIGHT = np.int64(0), np.int64(SPAN)
HEAD = 16  # floats before the filters: the table of offsets
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


def _filter_size(C, F):
    """Floats of the transformed filters, packed."""
    return SPAN * (C * _vectors(F) + APART)


def _scratch(C, F):
    """Floats of a thread's scratch: a band, two sets of transformed numbers, a tile aside."""
    T = _block_tiles(min(C, F))
    return T * (SPAN * _vectors(max(C, F)) + _row(C) + _row(F) + _row(GROUP)) + SPAN * V


def _parts(tiles, C, F):
    """How many ways the tiles of a weight gradient are cut."""
    most = min(tiles // LEAST_PART, PARTIAL_SUMS // (C * _row(F)))
    return max(1, min(most, PARTS))


@functools.cache
def _places(C, F):
    """Where in the workspace the flipped filters, the bias and a pass' scratch begin."""
    flipped = HEAD + _filter_size(C, F)
    bias = flipped + _filter_size(F, C)
    return flipped, bias, bias + _vectors(max(C, F))


def winograd_line_workspace_cpu(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    sums = (C + 1) * _row(F) * _parts(N * D * H * -(-OW // (SPAN + 1 - KW)), C, F)
    threads = MAX_WORKERS * max(_scratch(C, F), KW * max(C, F) * PANEL)
    return _places(C, F)[2] + sums + threads


# --- filters ---------------------------------------------------------------------------


@inner
def _filter_range(start, stop, worker, target, w, scratch, C, F, KW, flipped):
    """Transform one panel of filters a work item: side by side in a panel for each tap first."""
    K, N = (F, C) if flipped else (C, F)
    bk, bn = (1, F) if flipped else (F, 1)
    taps = scratch + 4 * worker * KW * K * PANEL
    distance = panel_size(K, N) + APART
    for p in range(start, stop):
        columns = min(PANEL, N - p * PANEL)
        width = panel_width(columns)
        for tap in range(KW):
            source = w + 4 * ((KW - 1 - tap if flipped else tap) * C * F + p * PANEL * bn)
            pack_panel_at(taps + 4 * tap * K * width, source, bk, bn, K, columns)
        panel = target + 4 * p * PANEL * K
        for v in range(0, 4 * K * width, 4 * V):
            if KW == 3:
                transform_filter3((panel + v, distance, taps + v, K * width))
            else:
                transform_filter5((panel + v, distance, taps + v, K * width))


@cpu
def _transform_filters(ws, target, w, scratch, C, F, KW, flipped):
    """The transformed filters, packed; `flipped` for those of the input's gradient."""
    K, N = (F, C) if flipped else (C, F)
    arguments = (address(ws, target), address(w, 0), address(ws, scratch), C, F, KW, flipped)
    split(_filter_range, panels(N), grain(30 * KW * K * PANEL), arguments)


def winograd_line_prepare_cpu(w, G, ws):
    _, _, KW, C, F = w.shape
    _, _, scratch = _places(C, F)
    _transform_filters(ws, HEAD, w.reshape(-1), scratch, C, F, KW, 0)


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
    W, C, OW, F, M, TW, PW, relu = sizes
    T, row, row_m, distance, size = layout
    v = scratch + 4 * worker * size
    m = v + 4 * T * row
    aside = m + 4 * T * row_m
    band = aside + 4 * SPAN * V
    blocks = (stop - start + T - 1) // T
    for item in range(blocks):
        first = start + (stop - start) * item // blocks
        count = start + (stop - start) * (item + 1) // blocks - first
        _transform_tiles(v, row, band, x, gate, first, count, W, C, M, TW, PW, EIGHT, NO)
        for group in range(0, F, GROUP):
            for point in range(SPAN):
                a = v + 4 * point * ((row - APART) // SPAN)
                for f in range(group, min(F, group + GROUP), PANEL):
                    width = panel_width(F - f)
                    gemm_block((
                        m + 4 * (point * GROUP + f - group), row_m, count, width, a, row, 1, table,
                        filters + 4 * (point * distance + f * C), width, 0, C, 1, 0, OVERWRITE,
                    ))  # fmt: skip
            columns = min(GROUP, F - group)
            _outputs_of_tiles(
                y, bias, m, row_m, aside, first, count, group, columns, OW, F, M, TW, relu
            )


@cpu
def _convolve(y, x, gate, b, ws, filters, bias, scratch, rows, sizes, layout):
    """Convolve rows of pixels with filters that lie transformed in the workspace."""
    _, C, _, F, _, TW, _, _ = sizes
    for f in range((F + V - 1) // V * V):
        ws[bias + f] = b[f] if f < b.size else ZERO
    set_offset(ws, 0, 0, 0)
    arguments = (
        address(y, 0), address(x, 0), address(gate, 0) if gate.size else 0, address(ws, bias),
        address(ws, filters), address(ws, 0), address(ws, scratch), sizes, layout,
    )  # fmt: skip
    split(_tiles_range, rows * TW, grain(SPAN * C * F), arguments)


@functools.cache
def _layout(C, F):
    """What ``_convolve`` knows of its scratch, all in floats but the number of tiles."""
    return _block_tiles(C), _row(C), _row(GROUP), C * _vectors(F) + APART, _scratch(C, F)


def winograd_line_forward_cpu(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    N, D, H, W, C = x.shape
    OW, F = y.shape[3:]
    M = SPAN + 1 - w.shape[2]
    _, bias, scratch = _places(C, F)
    sizes = (W, C, OW, F, M, -(-OW // M), PW, relu)
    arrays = y.reshape(-1), x.reshape(-1), ws[:0], b, ws
    _convolve(*arrays, HEAD, bias, scratch, N * D * H, sizes, _layout(C, F))


def winograd_line_backward_input_cpu(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    N, D, H, W, C = dx.shape
    OW, F = dy.shape[3:]
    KW = w.shape[2]
    M = SPAN + 1 - KW
    filters, bias, scratch = _places(C, F)
    _transform_filters(ws, filters, w.reshape(-1), scratch, C, F, KW, 1)
    sizes = (OW, F, W, C, M, -(-W // M), KW - 1 - PW, 0)
    arrays = dx.reshape(-1), dy.reshape(-1), y.reshape(-1), ws[:0], ws
    _convolve(*arrays, filters, bias, scratch, N * D * H, sizes, _layout(F, C))


# --- backward, weight ------------------------------------------------------------------
#
# The tiles are cut into as many parts whatever the number of threads; each sums up its share of
# the 8 products, blocks of tiles at a time, and the sums are added in order.


@inner
def _part_range(start, stop, worker, x, dy, gate, sums, table, scratch, parts, sizes, layout):
    tiles, W, C, OW, F, M, TW, PW, _ = sizes
    T, row, row_g, size = layout
    v = scratch + 4 * worker * size
    g = v + 4 * T * row
    band = g + 4 * T * row_g
    points = (row - APART) // SPAN, (row_g - APART) // SPAN
    for part in range(start, stop):
        total = sums + 4 * part * (C + 1) * row_g
        bias = total + 4 * C * row_g
        copy_run((bias, 0, 0, row_g))
        begin = tiles * part // parts
        end = tiles * (part + 1) // parts
        for first in range(begin, end, T):
            count = min(T, end - first)
            flags = OVERWRITE if first == begin else ACCUMULATE
            _transform_tiles(v, row, band, x, NO, first, count, W, C, M, TW, PW, EIGHT, NO)
            _transform_tiles(g, row_g, band, dy, gate, first, count, OW, F, M, TW, NO, M, bias)
            for point in range(SPAN):
                a, b = v + 4 * point * points[0], 4 * point * points[1]
                for f in range(0, F, PANEL):
                    gemm_block((
                        total + b + 4 * f, row_g, C, panel_width(F - f), a, 1, row, table,
                        g + b + 4 * f, row_g, 0, count, 1, 0, flags,
                    ))  # fmt: skip


@inner
def _weights_range(start, stop, worker, dw, sums, scratch, parts, C, F, row, KW):
    """Add the parts' sums for one channel, and transform them."""
    aside = scratch + 4 * worker * SPAN * V
    distance = (row - APART) // SPAN
    for c in range(start, stop):
        source = sums + 4 * c * row
        total = floats(source)
        for part in range(1, parts):
            more = floats(source + 4 * part * (C + 1) * row)
            for i in range(row - APART):
                total[i] += more[i]
        for f in range(0, F, V):
            if KW == 3:
                transform_weight3((aside, V, source + 4 * f, distance))
            else:
                transform_weight5((aside, V, source + 4 * f, distance))
            for tap in range(KW):
                target = dw + 4 * ((tap * C + c) * F + f)
                copy_run((target, aside + 4 * tap * V, 0, min(V, F - f)))


@cpu
def _gradients(dw, db, x, dy, gate, ws, sums, parts, sizes, layout):
    tiles, _, C, _, F, _, _, _, KW = sizes
    row = layout[2]
    first, scratch = address(ws, sums), address(ws, sums + parts * (C + 1) * row)
    set_offset(ws, 0, 0, 0)
    arguments = (
        address(x, 0), address(dy, 0), address(gate, 0) if gate.size else 0, first, address(ws, 0),
        scratch, parts, sizes, layout,
    )  # fmt: skip
    split(_part_range, parts, grain(tiles // parts * SPAN * C * F), arguments)
    arguments = (address(dw, 0), first, scratch, parts, C, F, row, KW)
    split(_weights_range, C, grain(8 * parts * F), arguments)
    for f in range(db.size):
        total = ZERO
        for part in range(parts):
            total += ws[sums + (part * (C + 1) + C) * row + f]
        db[f] = total


def winograd_line_backward_weight_cpu(
    dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    N, D, H, W, C = x.shape
    OW, F = dy.shape[3:]
    KW = dw.shape[2]
    M = SPAN + 1 - KW
    TW = -(-OW // M)
    tiles = N * D * H * TW
    sizes = (tiles, W, C, OW, F, M, TW, PW, KW)
    layout = (_block_tiles(max(C, F)), _row(C), _row(F), _scratch(C, F))
    arrays = dw.reshape(-1), db, x.reshape(-1), dy.reshape(-1), y.reshape(-1), ws
    _gradients(*arrays, _places(C, F)[2], _parts(tiles, C, F), sizes, layout)


def winograd_line_pays_cpu(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    if KD * KH > 1 or KW not in (3, 5) or max(SD, SH, SW, LD, LH, LW, G) > 1 or OD * OH != D * H:
        return False
    # The cost of a pass, in multiply-adds for each channel and filter, of which a direct output
    # takes KW. Measured on one core with AVX2: a tile's products cost 9.6, its transforms 60 / C
    # and 60 / F, the transforms of the filters 80, or 200 where they outgrow the L2 cache by far.
    # So steps with 5 taps become 1.2 times as fast at 16 channels, 1.4 at 32, 1.7 at 64 and 1.9 at
    # 128; with 3 taps 1.35 times at 32, 1.5 at 64. First layers have too few channels (0.8-1.0 at
    # 8), and a short sequence alone does not pay for the filters (24 steps of 64 channels: 0.7).
    tiles = N * D * H * -(-OW // (SPAN + 1 - KW))
    filters = 80 if C * F <= 128 * 128 else 200
    return bool(1.1 * (tiles * (9.6 + 60 / C + 60 / F) + filters) < N * D * H * OW * KW)


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
