"""Winograd's convolution along the height: images of few channels, as in a first layer.

The other transforms take a vector of channels at a time, and three channels are none. Along the
height neighbours are whole rows of an image, which are vectors whatever the channels are: eight
rows of pixels become eight rows of transformed ones, these are convolved as they lie, without a
height, and become six rows of outputs. It takes 8 multiplications instead of 18.

The launchers have the signatures of ``conv.py`` and compute the same sums, for kernels of three
rows, strides, dilation and groups of one. As in ``winograd_line.py``, whose points and transforms
these are, the result is not the correctly ordered sum, a NaN also reaches other outputs of its
tile, and an infinity comes out as NaN.
"""

import numpy as np

from minicnnrnn.kernels.band import ZERO, copy_band
from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.conv import (
    conv_backward_input_cpu,
    conv_backward_input_cuda,
    conv_backward_input_numpy,
    conv_backward_weight_cuda,
    conv_forward_cuda,
    conv_prepare_cuda,
    conv_workspace_cpu,
    conv_workspace_cuda,
)
from minicnnrnn.kernels.gemm import CACHED, gemm_block, set_offset
from minicnnrnn.kernels.jit import MAX_WORKERS, VECTOR_WIDTH, cpu, inner, split
from minicnnrnn.kernels.microkernel import ACCUMULATE, OVERWRITE
from minicnnrnn.kernels.panel import (
    PANEL,
    address,
    ask_to_write,
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
    transform_gradient3,
    transform_output3,
    transform_pixels,
    transform_weight3,
)

TAPS = 3
ROWS = SPAN + 1 - TAPS  # of outputs in a tile

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def _pixels(x, w, outputs, pads, B):
    """Transformed pixels that each output sees: (N, OD, TH, OW, C, 8, KD, KW)."""
    KD, _, KW, _, _ = w.shape
    (OD, TH, OW), reach = outputs, (KD, SPAN, KW)
    lengths = OD + KD - 1, ROWS * TH + TAPS - 1, OW + KW - 1
    sides = [(P, max(L - P - n, 0)) for P, L, n in zip(pads, lengths, x.shape[1:])]
    padded = np.pad(x, ((0, 0), *sides, (0, 0)))[:, : lengths[0], : lengths[1], : lengths[2]]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, (1, 2, 3))[:, :, ::ROWS]
    return np.einsum("ndtwcihj,hp->ndtwcpij", windows, B, optimize=True)


def winograd_rows_prepare_numpy(w, G, ws):
    """Transform the weights for ``forward``, once after each change; nothing to do in NumPy."""


def winograd_rows_forward_numpy(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    """Convolve images with filters of three rows, in tiles of six rows of outputs.

    .. math:: y = A^T \\Big[ \\sum_{d, w, c} (G w_{dwc}) \\odot (B^T x_{dwc}) \\Big] + b

    for each column of six outputs y, the eight pixels below one another that each tap (d, w) of
    channel c meets, and each filter.

    Shapes and parameters as in ``conv_forward``, with KH of 3 and SD, SH, SW, LD, LH, LW, G of 1.

    Notes
    -----
    Cost: 2 N OD 8 TH OW KD KW C F operations for TH tiles, 0.44 of the direct sum where the tiles
    fit; and about 30 (KD C + F) additions a column. The matrices are in ``transform_line.py``.
    """
    A, B, taps = (matrix.astype(x.dtype) for matrix in MATRICES[TAPS])
    N, OD, OH, OW, F = y.shape
    TH = -(-OH // ROWS)
    filters = np.einsum("pk,ikjcf->pijcf", taps, w)
    pixels = _pixels(x, w, (OD, TH, OW), (PD, PH, PW), B)
    products = np.einsum("ndtwcpij,pijcf->ndtpwf", pixels, filters, optimize=True)
    whole = np.einsum("pm,ndtpwf->ndtmwf", A, products, optimize=True)
    y[:] = whole.reshape(N, OD, ROWS * TH, OW, F)[:, :, :OH] + (b if b.size else 0)
    if relu:
        np.maximum(y, 0, out=y)


winograd_rows_backward_input_numpy = conv_backward_input_numpy


def winograd_rows_backward_weight_numpy(
    dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    """Gradients with respect to the filters and the bias.

    .. math:: dw_{cf} = G^T \\Big[ \\sum_{columns} (B^T x_c) \\odot (A \\, dy_f) \\Big]

    which is what the chain rule makes of ``winograd_rows_forward``. Parameters as in
    ``conv_backward_weight``.
    """
    A, B, taps = (matrix.astype(x.dtype) for matrix in MATRICES[TAPS])
    dy = np.where(y <= 0, 0, dy).astype(dy.dtype) if y.size else dy
    N, OD, OH, OW, F = dy.shape
    TH = -(-OH // ROWS)
    whole = np.pad(dy, ((0, 0), (0, 0), (0, ROWS * TH - OH), (0, 0), (0, 0)))
    columns = whole.reshape(N, OD, TH, ROWS, OW, F)
    gradients = np.einsum("pm,ndtmwf->ndtpwf", A, columns, optimize=True)
    pixels = _pixels(x, dw, (OD, TH, OW), (PD, PH, PW), B)
    products = np.einsum("ndtwcpij,ndtpwf->pijcf", pixels, gradients, optimize=True)
    dw[:] = np.einsum("pk,pijcf->ikjcf", taps, products)
    if db.size:
        np.sum(dy, axis=(0, 1, 2, 3), out=db)


def winograd_rows_workspace_numpy(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    """Floats of workspace that the passes of one convolution need."""
    return 0


def winograd_rows_pays_numpy(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    """Whether Winograd's algorithm is the faster one here: in NumPy the direct sum is clearer."""
    return False


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# A thread takes a tile of rows through everything: eight rows of each plane become eight
# transformed ones, between zeros, on which the building block convolves as ``conv.py`` does; its
# eight products become six rows of outputs. All of it stays in the L1 and L2 caches, and planes
# that the next outputs see, too, are transformed once.
#
# The workspace: the transformed filters that `prepare` leaves for `forward`, a table of offsets, a
# bias, and scratch of one pass. The gradient of the input, which a first layer is not asked for,
# is the direct sum, behind the filters.

V = VECTOR_WIDTH
APART = 16  # floats between rows and points, which else could share a few sets of the caches
TOGETHER = 8  # tiles of a weight gradient that are multiplied at once
BLOCK = 60_000  # floats that these should not exceed
LEAST_PART = 16  # tiles that a part of a weight gradient has at least


@inner
def _vectors(columns):
    """`columns`, filled up to whole vectors."""
    return (columns + V - 1) // V * V


@inner
def _apart(K, F):
    """The distance of the filters of two points; `K` is KD KW C."""
    return panel_size(K, F) + APART


@inner
def _line(OW, KW, C):
    """Floats of a row of the band, transformed."""
    return _vectors((OW + KW - 1) * C) + APART


@inner
def _together(KD, KW, OW, C, F):
    """How many tiles of a weight gradient are multiplied at once."""
    size = SPAN * (KD * _line(OW, KW, C) + OW * _vectors(F))
    return max(1, min(TOGETHER, BLOCK // size))


@inner
def _scratch(KD, KW, OW, C, F):
    """Floats of a thread's scratch: a band; of tiles, transformed pixels and products; a tile."""
    band = SPAN * (OW + KW - 1) * C + V
    tiles = _together(KD, KW, OW, C, F)
    transformed = SPAN * (KD * _line(OW, KW, C) + OW * _vectors(F) + APART)
    size = 2 * TOGETHER + band + tiles * transformed + SPAN * (V + OW * PANEL + APART)
    return size + size % 2


@inner
def _row(F):
    """Floats from one weight's sums to the next: a line of filters for each point."""
    return SPAN * _vectors(F) + APART


@inner
def _parts(tiles):
    """How many ways the tiles of a weight gradient are cut."""
    return max(1, min(tiles // LEAST_PART, PARTS))


@inner
def _places(KD, KW, C, F):
    """Where the table of offsets, the bias and the scratch begin, behind the filters."""
    table = SPAN * _apart(KD * KW * C, F)
    bias = table + 2 * KD * KD
    return table, bias, bias + _vectors(F)


def winograd_rows_workspace_cpu(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    table, _, scratch = _places(KD, KW, C, F)
    tiles = N * OD * ((OH + ROWS - 1) // ROWS)
    weight = _parts(tiles) * (KD * KW * C + 1) * _row(F)
    filters = TAPS * KD * KW * C * PANEL
    threads = MAX_WORKERS * max(_scratch(KD, KW, OW, C, F), filters)
    direct = conv_workspace_cpu(
        N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
    )  # fmt: skip
    return max(scratch + 1 + weight + threads, table + direct)


# --- filters ---------------------------------------------------------------------------


@inner
def _filter_range(start, stop, worker, filters, w, scratch, KD, K, F):
    """Transform one panel of filters a work item: side by side in a panel for each tap first."""
    taps = scratch + 4 * worker * TAPS * KD * K * PANEL
    distance = _apart(KD * K, F)
    for p in range(start, stop):
        width = panel_width(F - p * PANEL)
        for tap in range(TAPS):
            for plane in range(KD):
                panel = taps + 4 * (tap * KD + plane) * K * width
                source = w + 4 * ((plane * TAPS + tap) * K * F + p * PANEL)
                pack_panel_at(panel, source, F, 1, K, min(PANEL, F - p * PANEL))
        target = filters + 4 * p * PANEL * KD * K
        for v in range(0, 4 * KD * K * width, 4 * V):
            transform_filter3((target + v, distance, taps + v, KD * K * width))


@cpu
def winograd_rows_prepare_cpu(w, G, ws):
    """Parallel over panels of filters."""
    KD, _, KW, C, F = w.shape
    _, _, scratch = _places(KD, KW, C, F)
    flat = w.reshape(-1)
    arguments = (address(ws, 0), address(flat, 0), address(ws, scratch), KD, KW * C, F)
    split(_filter_range, panels(F), grain(30 * KD * KW * C * PANEL), arguments)


# --- forward ---------------------------------------------------------------------------


@inner
def _clear(v, lines, line):
    """Zeros, of which the padding beside the rows stays."""
    for i in range(lines):
        copy_run((v + 4 * i * line, 0, 0, line))


@inner
def _transform_plane(v, distance, ws, band, x, sizes, KW, PH, PW, n, z, h):
    """Transform the eight rows of a plane that outputs from row h on see: lines `distance` apart.

    Where they lie in the image they are read there, else copied between zeros first.
    """
    D, H, W, C, OW, F = sizes
    width, top = OW + KW - 1, h - PH
    inside = min(width - PW, W) * C
    if z < 0 or z >= D:
        for point in range(SPAN):
            copy_run((v + 4 * point * distance, 0, 0, width * C))
    elif top >= 0 and top + SPAN <= H and inside >= V:
        source, target = address(x, ((n * D + z) * H + top) * W * C), v + 4 * PW * C
        for j in range(0, inside, V):
            k = 4 * min(j, inside - V)
            transform_pixels((target + k, distance, source + k, W * C))
    else:
        one = np.int64(1)  # a bare 1 has a type of its own: `copy_band` would compile once more
        copy_band(ws, band, x, ws[:0], D, H, W, C, n, z, one, one, top, SPAN, -PW, width)
        source = address(ws, band)
        for j in range(0, 4 * width * C, 4 * V):
            transform_pixels((v + j, distance, source + j, width * C))


@inner
def _outputs_of_rows(y, bias, m, distance, aside, rows, columns, OW, F, relu):
    """Transform the products of a tile and a panel into its outputs, the first at `y`."""
    width = panel_width(columns)
    for pixel in range(OW):
        for v in range(0, columns, V):
            start, products = y + 4 * (pixel * F + v), m + 4 * (pixel * width + v)
            whole = rows == ROWS and v + V <= columns
            target, step = (start, OW * F) if whole else (aside, V)
            transform_output3((target, step, products, distance, bias + 4 * v, relu))
            if not whole:
                for row in range(rows):
                    to = start + 4 * row * OW * F
                    copy_run((to, aside + 4 * row * V, 0, min(V, columns - v)))


@inner
def _tiles_range(start, stop, worker, y, x, ws, sizes, kernel, pads, outputs, relu, far):
    D, H, W, C, OW, F = sizes
    KD, KW = kernel
    PD, PH, PW = pads
    OD, OH, TH = outputs
    K, line = KW * C, _line(OW, KW, C)
    table, bias, scratch = _places(KD, KW, C, F)
    band = scratch + worker * _scratch(KD, KW, OW, C, F)
    v = address(ws, band + SPAN * (OW + KW - 1) * C + V)
    m = v + 4 * SPAN * KD * line
    distance = OW * PANEL + APART
    aside = m + 4 * SPAN * distance
    _clear(v, SPAN * KD, line)
    for item in range(start, stop):
        n, d, h = item // (TH * OD), item % OD, item // OD % TH * ROWS
        known = 0 if item == start or d == 0 else KD - 1  # planes that the outputs before saw
        for plane in range(known, KD):
            to = v + 4 * ((d + plane) % KD * line)
            _transform_plane(to, KD * line, ws, band, x, sizes, KW, PH, PW, n, d - PD + plane, h)
        for f in range(0, F, PANEL):
            width, place = panel_width(F - f), y + 4 * (((n * OD + d) * OH + h) * OW * F + f)
            for point in range(SPAN):
                if far and point < min(ROWS, OH - h):
                    ask_to_write(place + 4 * point * OW * F, 4 * OW * F)
                filters = point * _apart(KD * K, F) + f * KD * K
                gemm_block((
                    m + 4 * point * distance, width, OW, width, v + 4 * point * KD * line, C, 1,
                    address(ws, table + 2 * (d % KD) * KD), address(ws, filters), width, K * width,
                    K, KD, 0, OVERWRITE,
                ))  # fmt: skip
            _outputs_of_rows(
                place, address(ws, bias + f), m, distance, aside, min(ROWS, OH - h),
                min(PANEL, F - f), OW, F, relu,
            )  # fmt: skip


@cpu
def winograd_rows_forward_cpu(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    """Parallel over the tiles of rows: those of all planes one after the other."""
    N, D, H, W, C = x.shape
    _, OD, OH, OW, F = y.shape
    KD, _, KW, _, _ = w.shape
    table, bias, _ = _places(KD, KW, C, F)
    for f in range(_vectors(F)):
        ws[bias + f] = b[f] if f < b.size else ZERO
    for i in range(KD * KD):  # planes take turns in places that the next one goes to
        set_offset(ws, table, i, (i // KD + i) % KD * _line(OW, KW, C))
    TH = (OH + ROWS - 1) // ROWS
    # Outputs that are behind the caches are asked for while their products are computed: all of a
    # tile are written at once, and that took a fourth of the time. 0.74 to 0.91 for 8 MB.
    far = y.size >= CACHED and F <= PANEL
    arguments = (
        address(y, 0), x.reshape(-1), ws, (D, H, W, C, OW, F), (KD, KW), (PD, PH, PW),
        (OD, OH, TH), relu, far,
    )  # fmt: skip
    split(_tiles_range, N * OD * TH, grain(SPAN * OW * KD * KW * C * F), arguments)


def winograd_rows_backward_input_cpu(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    KD, _, KW, C, F = w.shape
    behind, _, _ = _places(KD, KW, C, F)
    conv_backward_input_cpu(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws[behind:])


# --- backward, weight ------------------------------------------------------------------
#
# The tiles are cut into as many parts whatever the number of threads; each sums up its share of
# the eight products, some tiles at a time, and the sums are added in order.


@inner
def _transform_gradients(g, distance, aside, dy, gate, first, rows, OW, F, bias):
    """Transform the gradients of a tile, panel by panel, and add them to the bias' gradient.

    Those of a panel's filters lie pixel by pixel; `distance` apart for each point.
    """
    for f in range(0, F, PANEL):
        columns = min(PANEL, F - f)
        width = panel_width(columns)
        for row in range(ROWS):
            to, source = aside + 4 * row * OW * width, 4 * ((first + row) * OW * F + f)
            if row < rows:
                shut = gate + source if gate else 0
                move_rows((to, dy + source, shut, 4 * F, OW, columns, bias + 4 * f))
            else:
                copy_run((to, 0, 0, OW * width))
        for j in range(0, 4 * OW * width, 4 * V):
            transform_gradient3((g + 4 * OW * f + j, distance, aside + j, OW * width))


@inner
def _part_range(
    start, stop, worker, x, dy, gate, ws, sizes, kernel, pads, outputs, sums, parts, tiles
):
    D, H, W, C, OW, F = sizes
    KD, KW = kernel
    PD, PH, PW = pads
    OD, OH, TH = outputs
    K, row, line, most = KW * C, _row(F), _line(OW, KW, C), _together(KD, KW, OW, C, F)
    size = (KD * K + 1) * row
    table = sums + parts * size + worker * _scratch(KD, KW, OW, C, F)
    band = table + 2 * TOGETHER
    v = address(ws, band + SPAN * (OW + KW - 1) * C + V)
    g = v + 4 * most * KD * SPAN * line
    step = OW * _vectors(F)
    distance = most * step + APART  # from point to point
    aside = g + 4 * SPAN * distance
    _clear(v, most * KD * SPAN, line)
    for part in range(start, stop):
        total = address(ws, sums + part * size)
        bias = total + 4 * KD * K * row
        copy_run((bias, 0, 0, row))
        begin, end = tiles * part // parts, tiles * (part + 1) // parts
        for first in range(begin, end, most):
            count, seen = min(most, end - first), 0
            for i in range(count):
                item = first + i
                n, d, h = item // (TH * OD), item % OD, item // OD % TH * ROWS
                known = 0 if i == 0 or d == 0 else KD - 1
                set_offset(ws, table, i, (seen - known) * SPAN * line)
                for plane in range(known, KD):
                    to, z = v + 4 * seen * SPAN * line, d - PD + plane
                    _transform_plane(to, line, ws, band, x, sizes, KW, PH, PW, n, z, h)
                    seen += 1
                _transform_gradients(
                    g + 4 * i * step, distance, aside, dy, gate, (n * OD + d) * OH + h,
                    min(ROWS, OH - h), OW, F, bias,
                )  # fmt: skip
            flags = OVERWRITE if first == begin else ACCUMULATE
            for point in range(SPAN):
                for plane in range(KD):
                    a = v + 4 * (plane * SPAN + point) * line
                    for f in range(0, F, PANEL):
                        width = panel_width(F - f)
                        c = total + 4 * (plane * K * row + point * _vectors(F) + f)
                        gemm_block((
                            c, row, K, width, a, 1, C, address(ws, table),
                            g + 4 * (point * distance + OW * f), width, step, OW, count, 0, flags,
                        ))  # fmt: skip


@inner
def _weights_range(start, stop, worker, dw, sums, scratch, parts, size, K, F, row):
    """Add the parts' sums for one weight of each filter, and transform them."""
    aside = scratch + 4 * worker * SPAN * V
    for item in range(start, stop):
        source = sums + 4 * item * row
        total = floats(source)
        for part in range(1, parts):
            more = floats(source + 4 * part * size)
            for i in range(row - APART):
                total[i] += more[i]
        plane, k = item // K, item % K
        for f in range(0, F, V):
            transform_weight3((aside, V, source + 4 * f, _vectors(F)))
            for tap in range(TAPS):
                target = dw + 4 * (((plane * TAPS + tap) * K + k) * F + f)
                copy_run((target, aside + 4 * tap * V, 0, min(V, F - f)))


@cpu
def winograd_rows_backward_weight_cpu(
    dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    """Parallel over parts of the tiles."""
    N, D, H, W, C = x.shape
    _, OD, OH, OW, F = dy.shape
    KD, _, KW, _, _ = dw.shape
    _, _, sums = _places(KD, KW, C, F)
    sums += sums % 2  # offsets are eight bytes long
    K, row, TH = KW * C, _row(F), (OH + ROWS - 1) // ROWS
    tiles = N * OD * TH
    parts, size = _parts(tiles), (KD * K + 1) * row
    arguments = (
        x.reshape(-1), address(dy, 0), address(y, 0) if y.size else 0, ws, (D, H, W, C, OW, F),
        (KD, KW), (PD, PH, PW), (OD, OH, TH), sums, parts, tiles,
    )  # fmt: skip
    split(_part_range, parts, grain(tiles // parts * SPAN * OW * KD * K * F), arguments)
    scratch = address(ws, sums + parts * size)
    arguments = (address(dw, 0), address(ws, sums), scratch, parts, size, K, F, row)
    split(_weights_range, KD * K, grain(8 * parts * F), arguments)
    for f in range(db.size):
        total = ZERO
        for part in range(parts):
            total += ws[sums + part * size + KD * K * row + f]
        db[f] = total


def winograd_rows_pays_cpu(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    if KH != TAPS or max(SD, SH, SW, LD, LH, LW, G) > 1:
        return False
    # The cost of an output column, in multiply-adds for each filter: 8 a tap, 24 times 8 for its
    # transform, and 80 for each channel that is transformed, which all filters share.
    # Measured on one and two cores with AVX-512, forward and the weights' gradient: a Conv3D of
    # three channels takes 0.79 and 0.70 of the time of the direct sum (32 rows), 0.86 and 0.69 (16
    # rows), of eight channels 0.68 and 0.62; a Conv2D of eight 0.98 and 0.99, of three 1.35 and
    # 1.2; eight rows, of which a tile covers six, 1.11 and 1.02; kernels of 3 x 1, 64 channels to
    # as many filters, 0.84 and 1.08, to 16 filters 1.2 and 0.96.
    TH = (OH + ROWS - 1) // ROWS
    cost = TH * (SPAN * (KD * KW * C + 24) + 80 * C / F)
    return bool(cost < TAPS * OH * KD * KW * C)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# The direct sum: a GPU has multiply-adds in plenty, and it is memory that it waits for.

winograd_rows_workspace_cuda = conv_workspace_cuda
winograd_rows_prepare_cuda = conv_prepare_cuda
winograd_rows_forward_cuda = conv_forward_cuda
winograd_rows_backward_input_cuda = conv_backward_input_cuda
winograd_rows_backward_weight_cuda = conv_backward_weight_cuda


def winograd_rows_pays_cuda(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    return False
