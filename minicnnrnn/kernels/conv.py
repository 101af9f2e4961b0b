"""Convolution in one to three dimensions: strides, dilation, groups, any padding."""

import numpy as np

from minicnnrnn.kernels import dense
from minicnnrnn.kernels.band import BAND_ROWS, ZERO, add_parts, band_rows, copy_band, pack_gradient
from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.gemm import (
    block,
    product,
    product_transposed,
    product_transposed_workspace,
    set_offset,
    sum_rows,
)
from minicnnrnn.kernels.gpu import gpu
from minicnnrnn.kernels.jit import MAX_WORKERS, cpu, inner, split
from minicnnrnn.kernels.microkernel import ACCUMULATE, ADD_BIAS, OVERWRITE, RELU
from minicnnrnn.kernels.panel import (
    PANEL,
    fill,
    grain,
    pack,
    pack_panel,
    panel_size,
    panel_width,
    panels,
)
from minicnnrnn.kernels.product import launch_product, parts_of_sum, tiled_product, vectors_of
from minicnnrnn.kernels.vector import WIDTH, load_vector, store_vector
from minicnnrnn.kernels.window import (
    finished,
    gather_product,
    geometry_of,
    load_gated,
    load_or_zeros,
    seen,
)

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------

ALL_BUT_LAST = (0, 1, 2, 3)


def _padded(x, spans, before):
    """`x` with zeros before and behind, cut to the part that the convolution reads."""
    N, C = x.shape[0], x.shape[4]
    padded = np.zeros((N, *spans, C), x.dtype)
    sizes = [min(n, span - p) for n, span, p in zip(x.shape[1:4], spans, before)]
    inside = tuple(slice(p, p + n) for p, n in zip(before, sizes))
    padded[(slice(None), *inside)] = x[:, : sizes[0], : sizes[1], : sizes[2]]
    return padded, inside, sizes


def _taps(w, outputs, strides, dilation):
    """For every element of the kernel: its index, and the window of `x` that it meets."""
    for tap in np.ndindex(w.shape[:3]):
        yield (
            tap,
            (
                slice(None),
                *(
                    slice(k * l, k * l + (n - 1) * s + 1, s)
                    for k, l, n, s in zip(tap, dilation, outputs, strides)
                ),
            ),
        )


def _spans(w, outputs, strides, dilation):
    """How much of the padded input the outputs reach."""
    return [
        (n - 1) * s + (k - 1) * l + 1 for n, s, k, l in zip(outputs, strides, w.shape, dilation)
    ]


def conv_prepare_numpy(w, G, ws):
    """Pack the weights for ``forward``, once after each change; nothing to do in NumPy."""


def conv_forward_numpy(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    """Convolve (in the sense of neural networks: cross-correlate) images with a bank of filters.

    .. math:: y_{n,d,h,w,f} = b_f + \\sum_{i,j,k,c}
              x_{n,\\; d SD + i LD - PD,\\; h SH + j LH - PH,\\; w SW + k LW - PW,\\; c}
              \\; w_{i,j,k,c,f}

    with zeros outside the image. With `G` groups, filter f sees the C / G channels of its own
    group alone.

    Parameters
    ----------
    y : (N, OD, OH, OW, F), overwritten
    x : (N, D, H, W, C)
    w : (KD, KH, KW, C / G, F)
    b : (F,) or (0,) for none
    SD, SH, SW : strides, in elements
    LD, LH, LW : dilation: the distance of neighbouring taps, in elements
    PD, PH, PW : zeros before the first element; those behind the last follow from `y`
    G : number of groups; divides C and F
    relu : 1 to apply ``max(y, 0)`` on the way out
    ws : workspace that ``conv_prepare`` has filled

    Notes
    -----
    Cost: 2 N OD OH OW KD KH KW C / G F operations. One- and two-dimensional convolutions have
    leading ones. Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning",
    arXiv:1603.07285, draws every case.
    """
    outputs, strides, dilation = y.shape[1:4], (SD, SH, SW), (LD, LH, LW)
    padded, _, _ = _padded(x, _spans(w, outputs, strides, dilation), (PD, PH, PW))
    y[:] = b if b.size else 0
    for tap, window in _taps(w, outputs, strides, dilation):
        for c, f in _groups(x.shape[4], y.shape[4], G):
            y[..., f] += padded[window][..., c] @ w[tap][:, f]
    if relu:
        np.maximum(y, 0, out=y)


def _groups(C, F, G):
    """The channels and the filters of each group."""
    for g in range(G):
        yield slice(g * C // G, (g + 1) * C // G), slice(g * F // G, (g + 1) * F // G)


def _before_relu(dy, y):
    """The gradient in front of a relu that ``forward`` applied; `dy` itself where it did not."""
    return np.where(y <= 0, 0, dy).astype(dy.dtype) if y.size else dy


def conv_backward_input_numpy(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    """Gradient with respect to the input: each `dx` collects from the outputs that used it.

    .. math:: dx_{n,p,c} = \\sum_{f} \\sum_{o, t \\,:\\, o S + t L - P = p} dy_{n,o,f} \\; w_{t,c,f}

    with positions p, o and taps t in all dimensions at once. Shapes and cost as in
    ``conv_forward``.

    Parameters
    ----------
    dy : (N, OD, OH, OW, F)
    y : what ``conv_forward`` gave, if it applied a relu: where y is 0, so is the gradient before
        the relu; or (0, 0, 0, 0, 0)
    """
    dy = _before_relu(dy, y)
    outputs, strides, dilation = dy.shape[1:4], (SD, SH, SW), (LD, LH, LW)
    spans = _spans(w, outputs, strides, dilation)
    padded, inside, sizes = _padded(dx, spans, (PD, PH, PW))
    padded[:] = 0
    for tap, window in _taps(w, outputs, strides, dilation):
        for c, f in _groups(dx.shape[4], dy.shape[4], G):
            padded[window][..., c] += dy[..., f] @ w[tap][:, f].T
    dx[:] = 0
    dx[:, : sizes[0], : sizes[1], : sizes[2]] = padded[(slice(None), *inside)]


def conv_backward_weight_numpy(dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    """Gradients with respect to the filters and the bias.

    .. math:: dw_{t,c,f} = \\sum_{n,o} x_{n,\\, o S + t L - P,\\, c} \\; dy_{n,o,f}, \\qquad
              db_f = \\sum_{n,o} dy_{n,o,f}

    Shapes and cost as in ``conv_forward``, `dy` and `y` as in ``conv_backward_input``; `db` of
    size zero is not computed.
    """
    dy = _before_relu(dy, y)
    outputs, strides, dilation = dy.shape[1:4], (SD, SH, SW), (LD, LH, LW)
    padded, _, _ = _padded(x, _spans(dw, outputs, strides, dilation), (PD, PH, PW))
    for tap, window in _taps(dw, outputs, strides, dilation):
        for c, f in _groups(x.shape[4], dy.shape[4], G):
            dw[tap][:, f] = np.tensordot(padded[window][..., c], dy[..., f], (ALL_BUT_LAST,) * 2)
    if db.size:
        np.sum(dy, axis=(0, 1, 2, 3), out=db)


def conv_workspace_numpy(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    """Floats of workspace that the passes of one convolution need."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# No im2col. The rows of the building block's A are neighbouring pixels of one image row; its
# outer sum runs over the taps, found through the table of offsets. Where there is padding, a
# band of image rows is copied between zeros into scratch that stays in the L2 cache, a few
# output rows at a time; where there is none, A is the image itself.
#
# The workspace: the packed filters that `prepare` leaves for `forward`, a table of offsets,
# and scratch of one pass.


@inner
def merged(LW, G):
    """Whether the taps of one kernel row meet neighbouring floats, and so are one sum over k."""
    return LW == 1 and G == 1


@inner
def _pointwise(x, y, w, SD, SH, SW, PD, PH, PW, G):
    """Whether the convolution is one matrix product over all pixels."""
    taps = w.shape[0] * w.shape[1] * w.shape[2]
    steps, pads, same = SD * SH * SW, PD + PH + PW, x.shape[:4] == y.shape[:4]
    return taps == 1 and steps == 1 and pads == 0 and same and G == 1


@inner
def _parts(N, tiles):
    """How many ways the batch of a weight gradient is cut: only where there are few tiles."""
    return max(1, min(N, PARTS // tiles))


def conv_workspace_cpu(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    taps, CG, FG = KD * KH * KW, C // G, F // G
    _, read = band_rows(OH, SH, KD, (KH - 1) * LH + 1, (OW - 1) * SW + (KW - 1) * LW + 1, C)
    x_band = KD * read * ((OW - 1) * SW + (KW - 1) * LW + 1) * C
    planes, reach, width = _input_band(D, H, W, KD, KH, KW, SD, SH, SW, LD, LH, LW)
    _, read = band_rows((H + SH - 1) // SH, 1, planes, reach, width, F)
    dy_band = planes * read * width * F
    weight = MAX_WORKERS * (x_band + (BAND_ROWS * OW + 1) * PANEL) + PARTS * (taps * CG * F + F)
    pointwise = product_transposed_workspace() if taps == 1 else 0
    input_ = G * panel_size(taps * FG, CG) + MAX_WORKERS * dy_band
    scratch = max(max(MAX_WORKERS * x_band, input_), max(weight, pointwise), PARTS * F)
    return G * panel_size(taps * CG, FG) + 1 + 2 * max(taps, BAND_ROWS) + scratch


@inner
def regions(w, G, C, F):
    """Where in the workspace the table of offsets and the scratch begin."""
    taps = w.shape[0] * w.shape[1] * w.shape[2]
    table = G * panel_size(taps * (C // G), F // G)
    table += table % 2  # offsets are eight bytes long
    return table, table + 2 * max(taps, BAND_ROWS)


@inner
def read_in_place(x, w, outputs, steps):
    """Whether all that the outputs see lies in the image, so that no band is copied."""
    SD, SH, SW, LD, LH, LW, PD, PH, PW = steps
    (OD, OH, OW), (_, D, H, W, _), (KD, KH, KW, _, _) = outputs, x.shape, w.shape
    inside = (OD - 1) * SD + (KD - 1) * LD < D and (OH - 1) * SH + (KH - 1) * LH < H
    return PD + PH + PW == 0 and inside and (OW - 1) * SW + (KW - 1) * LW < W


# --- forward ---------------------------------------------------------------------------


@cpu
def conv_prepare_cpu(w, G, ws):
    KD, KH, KW, CG, F = w.shape
    rows, FG = KD * KH * KW * CG, F // G
    for g in range(G):
        pack(ws, g * panel_size(rows, FG), w, g * FG, F, 1, rows, FG)


@inner
def set_taps(ws, table, KD, KH, KW, plane, line, pixel):
    """The table of offsets: where the taps of a kernel find their pixels."""
    for r in range(KD * KH * KW):
        kd, kh, kw = r // (KH * KW), r // KW % KH, r % KW
        set_offset(ws, table, r, kd * plane + kh * line + kw * pixel)


@inner
def _forward_range(start, stop, worker, y, x, none, ws, b, sizes, kernel, steps, places):
    N, D, H, W, C, OD, OH, OW, F = sizes
    KD, KH, KW, G, flags = kernel
    SD, SH, SW, LD, LH, LW, PD, PH, PW = steps
    table, scratch, direct, most, read, width = places
    K = KW * C if merged(LW, G) else C // G
    R = KD * KH if merged(LW, G) else KD * KH * KW
    FG = F // G
    scratch += worker * KD * read * width * C
    item = start
    while item < stop:  # a few rows of outputs at a time
        n, d, h = item // (OD * OH), item // OH % OD, item % OH
        rows = min(most, OH - h, stop - item)
        if direct:
            a, a0, row_step = x, ((n * D + d * SD) * H + h * SH) * W * C, SH * W * C
        else:
            depth, top = d * SD - PD, h * SH - PH
            copy_band(ws, scratch, x, none, D, H, W, C, n, depth, LD, KD, top, read, -PW, width)
            a, a0, row_step = ws, scratch, SH * width * C
        for g in range(G):
            packed = g * panel_size(R * K, FG)
            for p in range(panels(FG)):
                f = g * FG + p * PANEL
                columns = min(PANEL, FG - p * PANEL)
                ldb = panel_width(columns)
                for row in range(rows):
                    block(
                        y, (item + row) * OW * F + f, F, OW, columns,
                        a, a0 + row * row_step + g * (C // G), SW * C, 1, ws, table,
                        ws, packed + p * PANEL * R * K, ldb, K * ldb, K, R, b, f, flags,
                    )  # fmt: skip
        item += rows


@cpu
def conv_forward_cpu(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    N, D, H, W, C = x.shape
    _, OD, OH, OW, F = y.shape
    KD, KH, KW, CG, _ = w.shape
    flags = (ADD_BIAS if b.size else OVERWRITE) + (RELU if relu else OVERWRITE)
    if _pointwise(x, y, w, SD, SH, SW, PD, PH, PW, G):
        product(y, 0, F, x, 0, C, 1, ws, 0, N * D * H * W, F, C, b, flags)
        return
    table, scratch = regions(w, G, C, F)
    width = (OW - 1) * SW + (KW - 1) * LW + 1
    most, read = band_rows(OH, SH, KD, (KH - 1) * LH + 1, width, C)
    direct = read_in_place(x, w, (OD, OH, OW), (SD, SH, SW, LD, LH, LW, PD, PH, PW))
    line, plane = (W * C, LD * H * W * C) if direct else (width * C, read * width * C)
    set_taps(ws, table, KD, KH, 1 if merged(LW, G) else KW, plane, LH * line, LW * C)
    sizes = (N, D, H, W, C, OD, OH, OW, F)
    kernel, steps = (KD, KH, KW, G, flags), (SD, SH, SW, LD, LH, LW, PD, PH, PW)
    places = (table, scratch, 1 if direct else 0, most, read, width)
    arguments = (y.reshape(-1), x.reshape(-1), ws[:0], ws, b, sizes, kernel, steps, places)
    split(_forward_range, N * OD * OH, grain(OW * F * KD * KH * KW * CG), arguments)


# --- backward, input -------------------------------------------------------------------
#
# With strides, the pixels of `dx` fall into SD SH SW phases by their position modulo the stride.
# Each phase is a convolution of `dy` with stride one by those taps that reach it, written
# S pixels apart. Taps and table are kept in the order of the phases.


@inner
def _first(K, S, L, P):
    """The first output that a pixel can meet, relative to pixel // stride."""
    return -(((K - 1) * L - P) // S)


@inner
def _input_band(D, H, W, KD, KH, KW, SD, SH, SW, LD, LH, LW):
    """(planes, rows beyond the first, width) of `dy` that a row of `dx` can meet at most.

    The last output that a pixel can meet lies at (S - 1 + P) // S; whatever P, the distance
    to the first is below ``((K - 1) L + S - 1) // S + 1``.
    """
    planes = ((KD - 1) * LD + SD - 1) // SD + 1
    rows = ((KH - 1) * LH + SH - 1) // SH + 1
    return planes, rows, (W + SW - 1) // SW + ((KW - 1) * LW + SW - 1) // SW + 1


@inner
def _meets(phase, k, S, L, P):
    """Whether tap k takes pixels of this phase to an output."""
    return (phase + P - k * L) % S == 0


@inner
def _taps_of_phase(phase, K, S, L, P):
    count = 0
    for k in range(K):
        if _meets(phase, k, S, L, P):
            count += 1
    return count


@inner
def _beyond(row, K, S, L, P, outputs):
    """How many of the taps that meet this row lie behind the last output, and before the first.

    The former come first among its taps, the latter last.
    """
    behind, before = 0, 0
    for k in range(K):
        if _meets(row, k, S, L, P):
            output = (row + P - k * L) // S
            if output >= outputs:
                behind += 1
            elif output < 0:
                before += 1
    return behind, before


@inner
def _pack_input_range(start, stop, worker, ws, w, kernel, steps, places):
    """Pack the transposed filters of one panel of channels a work item, phase by phase."""
    KD, KH, KW, CG, F, G = kernel
    SD, SH, SW, LD, LH, LW, PD, PH, PW = steps
    table, scratch, _, _, _, _ = places
    FG = F // G
    for item in range(start, stop):
        g, p = item // panels(CG), item % panels(CG)
        columns = min(PANEL, CG - p * PANEL)
        ldb = panel_width(columns)
        base = scratch
        for phase in range(SD * SH * SW):
            d, h, v = phase // (SH * SW), phase // SW % SH, phase % SW
            taps = (
                _taps_of_phase(d, KD, SD, LD, PD)
                * _taps_of_phase(h, KH, SH, LH, PH)
                * _taps_of_phase(v, KW, SW, LW, PW)
            )
            panel = base + g * panel_size(taps * FG, CG) + p * PANEL * taps * FG
            for tap in range(KD * KH * KW):
                i, j, k = tap // (KH * KW), tap // KW % KH, tap % KW
                met = _meets(d, i, SD, LD, PD) and _meets(h, j, SH, LH, PH)
                if met and _meets(v, k, SW, LW, PW):
                    source = (tap * CG + p * PANEL) * F + g * FG
                    pack_panel(ws, panel, w, source, 1, F, FG, columns)
                    panel += FG * ldb
            base += G * panel_size(taps * FG, CG)


@inner
def _fill_pixel(dx, start, b, C, flags):
    """A pixel that no output meets: the bias, or zero."""
    for c in range(C):
        value = b[c] if flags & ADD_BIAS else ZERO
        dx[start + c] = ZERO if flags & RELU and value < ZERO else value


@inner
def _input_range(start, stop, worker, dx, dy, y, b, ws, sizes, kernel, steps, places):
    N, D, H, W, C, OD, OH, OW = sizes
    KD, KH, KW, CG, F, G = kernel
    SD, SH, SW, LD, LH, LW, PD, PH, PW = steps
    table, scratch, most, read, width, flags = places
    FG = F // G
    first_d, first_h, first_w = (
        _first(KD, SD, LD, PD), _first(KH, SH, LH, PH), _first(KW, SW, LW, PW),
    )  # fmt: skip
    planes, _, _ = _input_band(D, H, W, KD, KH, KW, SD, SH, SW, LD, LH, LW)
    one = np.int64(1)  # a bare 1 has a type of its own, for which `copy_band` compiles once more
    band = scratch + G * panel_size(KD * KH * KW * FG, CG) + worker * planes * read * width * F
    item = start
    while item < stop:  # rows of dx that share a band: at most `most` strides of them
        n, d, h = item // (D * H), item // H % D, item % H
        rows = min(most * SH - h % SH, H - h, stop - item)
        top = h // SH
        copy_band(
            ws, band, dy, y, OD, OH, OW, F, n, d // SD + first_d, one, planes,
            top + first_h, read, first_w, width,
        )  # fmt: skip
        base, r = scratch, 0
        for phase in range(SD * SH * SW):
            i, j, k = phase // (SH * SW), phase // SW % SH, phase % SW
            planes_met = _taps_of_phase(i, KD, SD, LD, PD)
            columns_met = _taps_of_phase(k, KW, SW, LW, PW)
            taps = planes_met * _taps_of_phase(j, KH, SH, LH, PH) * columns_met
            for row in range(rows):
                if d % SD != i or (h + row) % SH != j or k >= W:
                    continue
                c0, pixels = (item + row) * W * C + k * C, (W - k + SW - 1) // SW
                skipped, used = 0, taps
                if planes_met == 1:  # kernel rows beyond the outputs add nothing: leave them out
                    behind, before = _beyond(h + row, KH, SH, LH, PH, OH)
                    skipped, used = behind * columns_met, taps - (behind + before) * columns_met
                if used == 0:
                    for pixel in range(pixels):
                        _fill_pixel(dx, c0 + pixel * SW * C, b, C, flags)
                    continue
                a0 = band + ((h + row) // SH - top) * width * F
                for g in range(G):
                    for p in range(panels(CG)):
                        c, columns = g * CG + p * PANEL, min(PANEL, CG - p * PANEL)
                        ldb = panel_width(columns)
                        b0 = base + g * panel_size(taps * FG, CG) + p * PANEL * taps * FG
                        block(
                            dx, c0 + c, SW * C, pixels, columns,
                            ws, a0 + g * FG, F, 1, ws, table + 2 * (r + skipped),
                            ws, b0 + skipped * FG * ldb, ldb, FG * ldb, FG, used, b, c, flags,
                        )  # fmt: skip
            base += G * panel_size(taps * FG, CG)
            r += taps
        item += rows


@cpu
def gather_input(dx, dy, y, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, flags, ws):
    """The input gradient, plus a bias and with a relu by `flags`; `y` and `b` are flat."""
    N, D, H, W, C = dx.shape
    _, OD, OH, OW, F = dy.shape
    KD, KH, KW, CG, _ = w.shape
    table, scratch = regions(w, G, C, F)
    if _pointwise(dx, dy, w, SD, SH, SW, PD, PH, PW, G) and y.size == 0:
        pack(ws, scratch, w, 0, 1, F, F, C)
        product(dx, 0, C, dy, 0, F, 1, ws, scratch, N * D * H * W, C, F, b, flags)
        return
    planes, reach, width = _input_band(D, H, W, KD, KH, KW, SD, SH, SW, LD, LH, LW)
    most, read = band_rows((H + SH - 1) // SH, 1, planes, reach, width, F)
    first_d, first_h, first_w = (
        _first(KD, SD, LD, PD), _first(KH, SH, LH, PH), _first(KW, SW, LW, PW),
    )  # fmt: skip
    r = 0
    for phase in range(SD * SH * SW):
        d, h, v = phase // (SH * SW), phase // SW % SH, phase % SW
        for tap in range(KD * KH * KW):
            i, j, k = tap // (KH * KW), tap // KW % KH, tap % KW
            if _meets(d, i, SD, LD, PD) and _meets(h, j, SH, LH, PH) and _meets(v, k, SW, LW, PW):
                plane = (d + PD - i * LD) // SD - first_d
                row = (h + PH - j * LH) // SH - first_h
                column = (v + PW - k * LW) // SW - first_w
                set_offset(ws, table, r, ((plane * read + row) * width + column) * F)
                r += 1
    kernel, steps = (KD, KH, KW, CG, F, G), (SD, SH, SW, LD, LH, LW, PD, PH, PW)
    places = (table, scratch, most, read, width, flags)
    work = KD * KH * KW * F
    split(
        _pack_input_range, G * panels(CG), grain(8 * work // G * PANEL),
        (ws, w.reshape(-1), kernel, steps, places),
    )  # fmt: skip
    sizes = (N, D, H, W, C, OD, OH, OW)
    arguments = (dx.reshape(-1), dy.reshape(-1), y, b, ws, sizes, kernel, steps, places)
    split(_input_range, N * D * H, grain(W * CG * work // (SD * SH * SW)), arguments)


# Plain Python, as in ``conv_transpose.py``, so that `gather_input` is compiled once for both.
def conv_backward_input_cpu(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    gate, b = y.reshape(-1), ws[:0]
    gather_input(dx, dy, gate, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, OVERWRITE, ws)


# --- backward, weight ------------------------------------------------------------------
#
# Each thread owns some tiles of `dw` (a kernel row by a panel of filters) and walks through all
# images for them, so that nothing is added across threads. Where there are few tiles, as in a
# first layer, the batch is cut in `_parts` as well, and the partial sums are added in order.


@inner
def _weight_range(start, stop, worker, dw, x, dy, y, won, ws, sizes, kernel, steps, places):
    N, D, H, W, C, OD, OH, OW = sizes
    KD, KH, KW, CG, F, G = kernel
    SD, SH, SW, LD, LH, LW, PD, PH, PW = steps
    table, scratch, direct, most, read, width, parts, band_size, bias_sums = places
    kernel_rows = KD * KH if merged(LW, G) else KD * KH * KW
    M = KW * C if merged(LW, G) else CG
    FG = F // G
    tiles = G * panels(FG) * kernel_rows
    sums = scratch + MAX_WORKERS * band_size
    band = scratch + worker * band_size
    heap = band + band_size - PANEL
    panel = band + KD * read * width * C
    item = start
    while item < stop:  # the tiles of this range that lie in one part of the batch
        part, first = item // tiles, item % tiles
        last = min(tiles, first + stop - item)
        out, out0 = (dw, 0) if parts == 1 else (ws, sums + part * kernel_rows * M * F)
        begin = N * part // parts
        for row in range(begin * OD * OH, N * (part + 1) // parts * OD * OH, 1):
            n, d, h = row // (OD * OH), row // OH % OD, row % OH
            if h % most:
                continue
            rows = min(most, OH - h)
            flags = OVERWRITE if row == begin * OD * OH else ACCUMULATE
            if direct:
                a, origin = x, ((n * D + d * SD) * H + h * SH) * W * C
                line, plane = W * C, LD * H * W * C
            else:
                depth, top = d * SD - PD, h * SH - PH
                copy_band(ws, band, x, dy[:0], D, H, W, C, n, depth, LD, KD, top, read, -PW, width)
                a, origin, line, plane = ws, band, width * C, read * width * C
            packed = -1
            for tile in range(first, last):
                p, tap = tile // kernel_rows, tile % kernel_rows
                g, p = p // panels(FG), p % panels(FG)
                columns = min(PANEL, FG - p * PANEL)
                ldb = panel_width(columns)
                f = g * FG + p * PANEL
                if packed != f:
                    # One thread owns the first tap of a panel, and so adds the bias' gradient.
                    owned = bias_sums >= 0 and tap == 0
                    bias = bias_sums + part * F + f if owned else heap
                    pack_gradient(ws, panel, dy, y, won, row, rows, OW, F, f, columns, bias)
                    packed = f
                taps = 1 if merged(LW, G) else KW
                i, j, k = tap // (KH * taps), tap // taps % KH, tap % taps
                a0 = origin + i * plane + j * LH * line + k * LW * C + g * CG
                block(
                    out, out0 + tap * M * F + f, F, M, columns, a, a0, 1, SW * C, ws, table,
                    ws, panel, ldb, OW * ldb, OW, rows, dy, 0, flags,
                )  # fmt: skip
        item += last - first


@cpu
def conv_backward_weight_cpu(dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    N, D, H, W, C = x.shape
    _, OD, OH, OW, F = dy.shape
    if _pointwise(x, dy, dw, SD, SH, SW, PD, PH, PW, G) and y.size == 0:
        _, scratch = regions(dw, G, C, F)
        if db.size:
            sum_rows(db, dy, N * OD * OH * OW, F, ws, scratch)
        product_transposed(dw, 0, x, 0, dy, 0, C, F, N * D * H * W, ws, scratch)
        return
    outputs, steps = (OD, OH, OW), (SD, SH, SW, LD, LH, LW, PD, PH, PW)
    sum_weights(dw, db, x, dy, y, 0, outputs, steps, G, ws)


@inner
def sum_weights(dw, db, x, dy, y, won, outputs, steps, G, ws):
    """The gradients of filters and bias.

    With an address of positions `won`, `dy` and `y` are of the maxima of 2 x 2 `outputs`.
    """
    N, D, H, W, C = x.shape
    KD, KH, KW, CG, F = dw.shape
    OD, OH, OW = outputs
    SD, SH, SW, LD, LH, LW, PD, PH, PW = steps
    table, scratch = regions(dw, G, C, F)
    width = (OW - 1) * SW + (KW - 1) * LW + 1
    most, read = band_rows(OH, SH, KD, (KH - 1) * LH + 1, width, C)
    direct = read_in_place(x, dw, outputs, steps)
    for r in range(most):
        set_offset(ws, table, r, r * SH * (W if direct else width) * C)
    tiles = G * panels(F // G) * (KD * KH if merged(LW, G) else KD * KH * KW)
    parts = _parts(N, tiles)
    band_size = KD * read * width * C + most * OW * PANEL + PANEL
    sizes, kernel = (N, D, H, W, C, OD, OH, OW), (KD, KH, KW, CG, F, G)
    bias_sums = scratch + MAX_WORKERS * band_size + parts * dw.size if db.size else -1
    if db.size:
        fill(ws, bias_sums, 0, parts * F)
    places = (table, scratch, 1 if direct else 0, most, read, width, parts, band_size, bias_sums)
    work = N * OD * OH * OW * KD * KH * KW * CG * F // (tiles * parts)
    flat = dw.reshape(-1)
    arguments = (
        flat, x.reshape(-1), dy.reshape(-1), y.reshape(-1), won, ws, sizes, kernel, steps, places,
    )  # fmt: skip
    split(_weight_range, tiles * parts, grain(work), arguments)
    if parts > 1:
        add_parts(flat, ws, scratch + MAX_WORKERS * band_size, parts)
    if db.size:
        add_parts(db, ws, bias_sums, parts)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# Products of tiles. ``window.py`` finds their elements of x and dy in the images, when wanted:
# neighbours along the channels, vectors of them where a group of channels is made of vectors.

ONE = np.float32(1)


@gpu
def _x_of_output(operands, group, output, element):
    x, at = operands[1], seen(group, output, element, operands[-1])
    return ZERO if at < 0 else x[at]


@gpu
def _x_vector(operands, group, output, element, into, i):
    load_or_zeros(operands[1], seen(group, output, element, operands[-1]), into, i)


@gpu
def _w_of_group(operands, group, element, f):
    w, F, FG = operands[2], operands[5], operands[6]
    return w[element * F + group * FG + f]


@gpu
def _w_vector(operands, group, f, element, into, i):
    F, FG = operands[5], operands[6]
    load_vector(operands[2], element * F + group * FG + f, into, i)


@gpu
def _store_y(operands, group, part, output, f, total):
    y, x, w, b, relu, F, FG, geometry = operands
    f += group * FG
    y[output * F + f] = finished(total, b, relu, f)


@gpu
def _store_y_vector(operands, group, part, output, f, totals, i):
    y, x, w, b, relu, F, FG, geometry = operands
    f += group * FG
    for j in range(WIDTH):
        totals[i + j] = finished(totals[i + j], b, relu, f + j)
    store_vector(y, output * F + f, totals, i)


_forward = tiled_product(
    _x_of_output, _w_of_group, _store_y, True, False, (_x_vector, _w_vector, _store_y_vector)
)


def _is_product(x, y, w, steps, G):
    """Whether the convolution is one matrix product over all pixels; `steps` ends with padding."""
    plain = (*w.shape[:3], *steps[:3], G) == (1,) * 7 and not any(steps[6:])
    return plain and x.shape[:4] == y.shape[:4]


def _rows(array):
    return array.reshape(-1, array.shape[-1])


def conv_workspace_cuda(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    rows, outputs = KD * KH * KW * (C // G) + 1, N * OD * OH * OW
    parts = parts_of_sum(rows, F // G, outputs, G) * rows * F
    return max(parts, dense.dense_workspace_cuda(outputs, C, F) if KD * KH * KW == 1 else 0)


def conv_prepare_cuda(w, G, ws):
    """The tiles read the filters as they are."""


def conv_forward_cuda(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    steps, F, CG = (SD, SH, SW, LD, LH, LW, PD, PH, PW), y.shape[4], w.shape[3]
    if _is_product(x, y, w, steps, G):
        dense.dense_forward_cuda(_rows(y), _rows(x), _rows(w), b, relu, ws)
        return
    launch_product(
        _forward, y.size // F, F // G, w.size // F, G, 1, y.reshape(-1), x.reshape(-1),
        w.reshape(-1), b, int(relu), F, F // G, geometry_of(x, y, w, *steps, G),
        vectors=vectors_of(("a", x, CG), ("b", w, F // G), ("c", y, F // G)),
    )  # fmt: skip


# --- backward --------------------------------------------------------------------------


def conv_backward_input_cuda(dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    steps = SD, SH, SW, LD, LH, LW, PD, PH, PW
    if y.size == 0 and _is_product(dx, dy, w, steps, G):
        dense.dense_backward_input_cuda(_rows(dx), _rows(dy), _rows(w), ws)
    else:
        gather_product(dx, dy, y, w, ws[:0], *steps, G, 0)


@gpu
def _turned_x(operands, group, element, output):
    x, rows = operands[1], operands[5]
    if element >= rows:
        return ONE
    at = seen(group, output, element, operands[7])
    return ZERO if at < 0 else x[at]


@gpu
def _turned_x_vector(operands, group, element, output, into, i):
    if element < operands[5]:
        load_or_zeros(operands[1], seen(group, output, element, operands[7]), into, i)
    else:
        for j in range(WIDTH):
            into[i + j] = ONE


@gpu
def _dy_of_group(operands, group, output, f):
    dy, y, F, FG = operands[2], operands[3], operands[4], operands[6]
    at = output * F + group * FG + f
    return ZERO if y.size and y[at] <= ZERO else dy[at]


@gpu
def _dy_vector(operands, group, f, output, into, i):
    dy, y, F, FG = operands[2], operands[3], operands[4], operands[6]
    load_gated(dy, y, output * F + group * FG + f, into, i)


@gpu
def _store_part(operands, group, part, element, f, total):
    ws, x, dy, y, F, rows, FG, geometry, size = operands
    ws[part * size + element * F + group * FG + f] = total


@gpu
def _store_part_vector(operands, group, part, element, f, totals, i):
    ws, x, dy, y, F, rows, FG, geometry, size = operands
    store_vector(ws, part * size + element * F + group * FG + f, totals, i)


_backward_weight = tiled_product(
    _turned_x, _dy_of_group, _store_part, False, False,
    (_turned_x_vector, _dy_vector, _store_part_vector),
)  # fmt: skip


def conv_backward_weight_cuda(dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws):
    """Below the rows of the filters comes one for the bias, as in ``dense.py``."""
    steps, F, CG = (SD, SH, SW, LD, LH, LW, PD, PH, PW), dy.shape[4], dw.shape[3]
    if y.size == 0 and _is_product(x, dy, dw, steps, G):
        dense.dense_backward_weight_cuda(_rows(dw), db, _rows(x), _rows(dy), ws)
        return
    rows, outputs, size = dw.size // F, dy.size // F, dw.size + db.size
    parts = parts_of_sum(rows + 1, F // G, outputs, G)
    gated = vectors_of(("b", dy, F // G)) and vectors_of(("b", y, F // G))
    launch_product(
        _backward_weight, size // F, F // G, outputs, G, parts, ws, x.reshape(-1), dy.reshape(-1),
        y.reshape(-1), F, rows, F // G, geometry_of(x, dy, dw, *steps, G), size,
        vectors=vectors_of(("a", x, CG)) + gated + vectors_of(("c", ws, F // G)),
    )  # fmt: skip
    dense.add_parts(dw, db, ws, parts)
