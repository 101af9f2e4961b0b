"""A convolution and the maxima of its outputs over windows of 2 x 2, in one pass.

For predictions, which keep nothing for a way back: four outputs of the convolution become one
before any of them is written.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minicnnrnn.kernels.band import BAND_ROWS, copy_band
from minicnnrnn.kernels.conv import (
    conv_forward_cuda,
    conv_forward_numpy,
    conv_workspace_cpu,
    conv_workspace_cuda,
    merged,
    read_in_place,
    regions,
    set_taps,
)
from minicnnrnn.kernels.gemm import (
    ADD_BIAS,
    OVERWRITE,
    RELU,
    TILE_FLOATS,
    TileEmitter,
    copy_columns,
    stack_floats,
)
from minicnnrnn.kernels.jit import INT, JIT, MAX_WORKERS, VECTOR_WIDTH, cpu, inner, once, split
from minicnnrnn.kernels.panel import (
    PANEL,
    VECTOR,
    address,
    floats,
    grain,
    integers,
    panel_size,
    panel_width,
    panels,
)
from minicnnrnn.kernels.pool import max_pool_forward_cuda

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def conv_pool_forward_numpy(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    """Convolve, and keep the largest of every 2 x 2 neighbouring outputs.

    .. math:: y_{n,d,h,v,f} = \\max_{i, j \\in \\{0, 1\\}} z_{n,\\, d,\\, 2h+i,\\, 2v+j,\\, f}

    with z as ``conv_forward`` makes it of the other arguments; a NaN among the four wins.

    Parameters
    ----------
    y : (N, OD, OH // 2, OW // 2, F), overwritten; OD, OH, OW are the convolution's outputs
    x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu : as in ``conv_forward``
    ws : ``conv_pool_workspace`` floats, which ``conv_prepare`` has filled

    Notes
    -----
    Cost: 8 N OD (OH // 2) (OW // 2) KD KH KW C / G F operations.
    """
    N, D, H, W, F = y.shape
    z = np.empty((N, D, 2 * H, 2 * W, F), y.dtype)
    conv_forward_numpy(z, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws)
    np.max(z.reshape(N, D, H, 2, W, 2, F), axis=(3, 5), out=y)


def conv_pool_workspace_numpy(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    """Floats of workspace, those of the convolution among them."""
    return 0


def conv_pool_pays_numpy(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    """Whether this takes less time than ``conv_forward`` and ``max_pool_forward``."""
    return False


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# The tile of the building block with other rows: not neighbours in a line, but the four outputs of
# a window. They never leave the registers, where their maximum becomes the one row of C.


class _WindowEmitter(TileEmitter):
    """The four outputs of a window, and as many windows in a line as there are."""

    def __init__(self, builder: ir.IRBuilder, vectors: int, arguments: list[ir.Value]):
        super().__init__(builder, 4, vectors, arguments[:13])
        self.line = arguments[13]

    def rows_of_a(self) -> list[ir.Value]:
        pixel, line = (self.builder.mul(step, INT(4)) for step in (self.am, self.line))
        both = self.builder.add(pixel, line)
        return [INT(0), *(self.hidden(offset) for offset in (pixel, line, both))]

    def finish(self, sums: list[list[ir.Value]]) -> None:
        largest = [self.largest([row[j] for row in sums]) for j in range(self.vectors)]
        self.rows = 1
        super().finish([largest])
        self.rows = 4

    def largest(self, values: list[ir.Value]) -> ir.Value:
        """The maximum of four vectors; where one is not a number, neither is it."""
        builder = self.builder
        nan = ir.Constant(VECTOR, [float("nan")] * VECTOR_WIDTH)

        def larger(a: ir.Value, b: ir.Value) -> ir.Value:
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        a, b, c, d = values
        strange = builder.or_(
            builder.fcmp_unordered("uno", a, b), builder.fcmp_unordered("uno", c, d)
        )
        return builder.select(strange, nan, larger(larger(a, b), larger(c, d)))


if JIT:

    @intrinsic
    def _windows(typingctx, wide, count, arguments):
        """Run the tiles of a line of windows."""

        def codegen(context, builder, signature, values):
            numbers = [builder.extract_value(values[2], i) for i in range(15)]
            condition = builder.icmp_signed("!=", values[0], INT(0))
            with builder.if_else(condition) as (then, otherwise):
                for block, vectors in ((then, 2), (otherwise, 1)):
                    with block:
                        emitter = _WindowEmitter(builder, vectors, numbers[:14])
                        emitter.emit_all(values[1], numbers[14], 1)
            return context.get_dummy_value()

        return types.void(wide, count, arguments), codegen

else:  # the plain Python twin

    def _windows(wide: int, count: int, arguments: tuple[int, ...]) -> None:
        c, ldc, a, am, ak, ao, b, ldb, br, K, R, bias, flags, line, following = arguments
        columns = PANEL if wide else VECTOR_WIDTH

        def window(address: int, rows: int, width: int, step: int, stride: int) -> Any:
            return np.lib.stride_tricks.as_strided(
                floats(address), (rows, width), (4 * step, 4 * stride)
            )

        for i in range(count):
            total = np.zeros((4, columns), np.float32)
            total += floats(bias)[:columns] if flags & ADD_BIAS else 0
            for r in range(R):
                first = a + 4 * (i * following + integers(ao)[r])
                rows = [window(first + 4 * step, 2, K, am, ak) for step in (0, line)]
                total += np.concatenate(rows) @ window(b + 4 * r * br, K, columns, ldb, 1)
            largest = total.max(axis=0)
            out = np.where(largest < 0, 0, largest) if flags & RELU else largest
            floats(c + 4 * i * ldc)[:columns] = out


@once(16)
def window_block(
    c, ldc, count, columns, a, am, line, following, ao, b, ldb, br, K, R, bias, flags
):  # fmt: skip
    """A line of windows by at most `PANEL` columns; all pointers are addresses.

    The outputs of a window are `am` and `line` floats of A apart, windows `following` floats.
    A panel that is not full goes through a tile on the stack, window by window.
    """
    wide = 1 if columns > VECTOR_WIDTH else 0
    width = PANEL if wide else VECTOR_WIDTH
    if columns == width:
        _windows(wide, count, (
            c, ldc, a, am, 1, ao, b, ldb, br, K, R, bias, flags, line, following,
        ))  # fmt: skip
        return
    scratch = stack_floats(TILE_FLOATS)
    if flags & ADD_BIAS:
        copy_columns(scratch + 4 * width, width, bias, 0, 1, columns)
    for i in range(count):
        _windows(wide, 1, (
            scratch, width, a + 4 * i * following, am, 1, ao, b, ldb, br, K, R, scratch + 4 * width,
            flags, line, following,
        ))  # fmt: skip
        copy_columns(c + 4 * i * ldc, ldc, scratch, width, 1, columns)


@inner
def _band(OW, KH, KW, SH, SW, LH, LW):
    """Rows and width of the image that a line of windows sees."""
    return (KH - 1) * LH + 1 + SH, (2 * OW - 1) * SW + (KW - 1) * LW + 1


def conv_pool_workspace_cpu(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    read, width = _band(OW // 2, KH, KW, SH, SW, LH, LW)
    filters = G * panel_size(KD * KH * KW * (C // G), F // G)
    table = 1 + 2 * max(KD * KH * KW, BAND_ROWS)
    scratch = filters + table + MAX_WORKERS * KD * read * width * C
    whole = conv_workspace_cpu(
        N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
    )  # fmt: skip
    return max(whole, scratch)


@inner
def _lines_range(start, stop, worker, y, x, none, ws, b, sizes, kernel, steps, places):
    N, D, H, W, C, OD, OH, OW, F = sizes
    KD, KH, KW, G, flags = kernel
    SD, SH, SW, LD, LH, LW, PD, PH, PW = steps
    table, scratch, direct, read, width = places
    K = KW * C if merged(LW, G) else C // G
    R = KD * KH if merged(LW, G) else KD * KH * KW
    FG = F // G
    scratch += worker * KD * read * width * C
    for item in range(start, stop):
        n, d, h = item // (OD * OH), item // OH % OD, item % OH
        if direct:
            a, line = address(x, ((n * D + d * SD) * H + 2 * h * SH) * W * C), SH * W * C
        else:
            depth, top = d * SD - PD, 2 * h * SH - PH
            copy_band(ws, scratch, x, none, D, H, W, C, n, depth, LD, KD, top, read, -PW, width)
            a, line = address(ws, scratch), SH * width * C
        for g in range(G):
            packed = g * panel_size(R * K, FG)
            for p in range(panels(FG)):
                f, columns = g * FG + p * PANEL, min(PANEL, FG - p * PANEL)
                ldb = panel_width(columns)
                window_block((
                    address(y, item * OW * F + f), F, OW, columns, a + 4 * g * (C // G), SW * C,
                    line, 2 * SW * C, address(ws, table), address(ws, packed + p * PANEL * R * K),
                    ldb, K * ldb, K, R, address(b, f), flags,
                ))  # fmt: skip


@cpu
def conv_pool_forward_cpu(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    """Parallel over the lines of outputs."""
    N, D, H, W, C = x.shape
    _, OD, OH, OW, F = y.shape
    KD, KH, KW, CG, _ = w.shape
    flags = (ADD_BIAS if b.size else OVERWRITE) + (RELU if relu else OVERWRITE)
    table, scratch = regions(w, G, C, F)
    read, width = _band(OW, KH, KW, SH, SW, LH, LW)
    direct = read_in_place(x, w, (OD, 2 * OH, 2 * OW), (SD, SH, SW, LD, LH, LW, PD, PH, PW))
    line, plane = (W * C, LD * H * W * C) if direct else (width * C, read * width * C)
    set_taps(ws, table, KD, KH, 1 if merged(LW, G) else KW, plane, LH * line, LW * C)
    sizes = (N, D, H, W, C, OD, OH, OW, F)
    kernel, steps = (KD, KH, KW, G, flags), (SD, SH, SW, LD, LH, LW, PD, PH, PW)
    places = (table, scratch, 1 if direct else 0, read, width)
    arguments = (y.reshape(-1), x.reshape(-1), ws[:0], ws, b, sizes, kernel, steps, places)
    split(_lines_range, N * OD * OH, grain(4 * OW * F * KD * KH * KW * CG), arguments)


def conv_pool_pays_cpu(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    # Short sums, as of a first layer: 0.55 of the time of both kernels for sums of 9, 0.8 for 27.
    # From about 50 on, where a tile of six neighbours reads its filters less often, it loses.
    terms = KD * KH * KW * C // G
    return bool(G == 1 and 1 < terms <= 36 and F % VECTOR_WIDTH == 0 and min(OH, OW) > 1)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# One kernel after the other: a GPU's caches do not keep what is between them waiting.


def conv_pool_workspace_cuda(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    between = N * OD * OH * OW * F
    return between + conv_workspace_cuda(
        N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
    )  # fmt: skip


def conv_pool_forward_cuda(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    N, OD, OH, OW, F = y.shape
    begin = ws.size - 4 * y.size
    z = ws[begin:].reshape(N, OD, 2 * OH, 2 * OW, F)
    conv_forward_cuda(z, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws[:begin])
    max_pool_forward_cuda(y, ws[:0], z, 1, 2, 2, 1, 2, 2, 0, 0, 0)


def conv_pool_pays_cuda(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    return False
