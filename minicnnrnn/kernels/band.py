"""Bands: a few rows of an image, copied between the zeros that pad them.

A padded convolution reads its image through a band that stays in the L2 cache, instead of a
padded copy of the whole image.
"""

import numpy as np

from minicnnrnn.kernels.jit import inner
from minicnnrnn.kernels.panel import address, copy, move_rows, panel_width
from minicnnrnn.kernels.pool_runs import unpool_line
from minicnnrnn.kernels.tiles import copy_run

ZERO = np.float32(0)
BAND_ROWS = 16  # output rows that a band serves at most
BAND = 32_000  # floats that a band should not exceed: a quarter of a usual L2 cache


@inner
def band_rows(rows, stride, planes, taps_reach, width, C):
    """(output rows a band serves, image rows it holds) for rows of `width` pixels."""
    fit = (BAND // (planes * width * C) - taps_reach) // stride
    most = max(1, min(rows, BAND_ROWS, fit))
    return most, (most - 1) * stride + taps_reach


@inner
def copy_band(band, s0, x, gate, D, H, W, C, n, d, LD, planes, h, rows, w, width):
    """Copy image rows from (n, d, h, w) on into the band; zeros outside the image.

    Where there is a gate, of the image's shape, what it closes is zero too.
    """
    left = min(max(-w, 0), width)
    inside = max(min(width - left, W - max(w, 0)), 0)
    for plane in range(planes):
        z = d + plane * LD
        for row in range(rows):
            target = address(band, s0 + (plane * rows + row) * width * C)
            v = h + row
            if z < 0 or z >= D or v < 0 or v >= H or inside == 0:
                copy_run((target, 0, 0, width * C))
            else:
                source = (((n * D + z) * H + v) * W + max(w, 0)) * C
                limit = address(gate, source) if gate.size else 0
                copy_run((target, 0, 0, left * C))
                target += 4 * left * C
                copy_run((target, address(x, source), limit, inside * C))
                copy_run((target + 4 * inside * C, 0, 0, (width - left - inside) * C))


@inner
def pack_gradient(ws, panel, dy, y, won, row, rows, OW, F, f, columns, sums):
    """Pack rows of `dy` as they are before the relu, and add them to the sums of the bias.

    With an address of positions `won`, `dy` and `y` are of the maxima of 2 x 2 outputs: the
    gradient of each is that of one output. `sums` has `PANEL` floats; where the rows are another
    thread's to add, they are a rubbish heap.
    """
    if won == 0:
        source = row * OW * F + f
        gate = address(y, source) if y.size else 0
        move_rows((
            address(ws, panel), address(dy, source), gate, 4 * F, rows * OW, columns,
            address(ws, sums),
        ))  # fmt: skip
        return
    width = panel_width(columns)
    for line in range(row, row + rows):
        source = line // 2 * (OW // 2) * F + f
        unpool_line((
            address(ws, panel + (line - row) * OW * width), width, address(dy, source),
            address(y, source) if y.size else 0, won + source, F, OW // 2, columns, line % 2 * 2,
            address(ws, sums),
        ))  # fmt: skip


@inner
def add_parts(total, ws, sums, parts):
    """Add partial sums in the order of their parts."""
    copy(total, 0, ws, sums, total.size)
    for part in range(1, parts):
        for i in range(total.size):
            total[i] += ws[sums + part * total.size + i]
