"""A convolution and the maxima of its outputs over windows of 2 x 2, in one pass.

Four outputs of the convolution become one before any of them is written, and on the way back each
of these is the gradient of one output, written where it is multiplied.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minicnnrnn.kernels.band import BAND_ROWS, copy_band
from minicnnrnn.kernels.conv import (
    conv_backward_weight_cuda,
    conv_backward_weight_numpy,
    conv_forward_cuda,
    conv_forward_numpy,
    conv_workspace_cpu,
    conv_workspace_cuda,
    merged,
    read_in_place,
    regions,
    set_taps,
    sum_weights,
)
from minicnnrnn.kernels.gemm import copy_columns
from minicnnrnn.kernels.jit import INT, JIT, MAX_WORKERS, VECTOR_WIDTH, cpu, inner, once, split
from minicnnrnn.kernels.microkernel import (
    ADD_BIAS,
    OVERWRITE,
    RELU,
    TILE_FLOATS,
    TileEmitter,
    stack_floats,
)
from minicnnrnn.kernels.panel import (
    PANEL,
    VECTOR,
    address,
    floats,
    grain,
    integers,
    octets,
    panel_size,
    panel_width,
    panels,
)
from minicnnrnn.kernels.pool import (
    max_pool_backward_input_cuda,
    max_pool_backward_input_numpy,
    max_pool_forward_cuda,
    max_pool_forward_numpy,
)

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


PAIRS = (1, 2, 2, 1, 2, 2, 0, 0, 0)  # windows, strides and padding of the maxima


def conv_pool_forward_numpy(y, index, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    """Convolve, and keep the largest of every 2 x 2 neighbouring outputs.

    .. math:: y_{n,d,h,v,f} = \\max_{i, j \\in \\{0, 1\\}} z_{n,\\, d,\\, 2h+i,\\, 2v+j,\\, f}

    with z as ``conv_forward`` makes it of the other arguments; a NaN among the four wins.

    Parameters
    ----------
    y : (N, OD, OH // 2, OW // 2, F), overwritten; OD, OH, OW are the convolution's outputs
    index : uint8, shaped as y, overwritten, or size zero where no gradient is wanted
        Which output won, ``2 * i + j``: the first of equals, the last of NaNs.
    x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu : as in ``conv_forward``
    ws : ``conv_pool_workspace`` floats, which ``conv_prepare`` has filled

    Notes
    -----
    Cost: 8 N OD (OH // 2) (OW // 2) KD KH KW C / G F operations.
    """
    N, D, H, W, F = y.shape
    z = np.empty((N, D, 2 * H, 2 * W, F), y.dtype)
    conv_forward_numpy(z, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, 0, ws)
    max_pool_forward_numpy(y, index, z, *PAIRS)
    if relu:
        np.maximum(y, 0, out=y)


def conv_pool_backward_weight_numpy(
    dw, db, x, dy, y, index, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    """Gradients with respect to the filters and the bias.

    .. math:: dw_{kcf} = \\sum_o dy_{of} \\; x_{k, \\, p(o, f), \\, c}

    with the pixels x that tap k sees at the output p that won window o. Parameters as in
    ``conv_backward_weight``, with `dy`, `y` and `index` shaped as the maxima.

    Notes
    -----
    Cost: as of ``conv_backward_weight``; memory moves `dy`, `y` and `index` once, and not what is
    four times their size.
    """
    N, D, H, W, F = dy.shape
    dz, gate = np.empty((N, D, 2 * H, 2 * W, F), dy.dtype), dy[:0]
    dy = np.where(y <= 0, 0, dy) if y.size else dy
    max_pool_backward_input_numpy(dz, dy, index, *PAIRS)
    conv_backward_weight_numpy(
        dw, db, x, dz, gate, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
    )  # fmt: skip


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

    asks = False

    def __init__(self, builder: ir.IRBuilder, vectors: int, arguments: list[ir.Value]):
        super().__init__(builder, 4, vectors, arguments[:13])
        self.line = arguments[13]

    def rows_of_a(self) -> list[tuple[ir.Value, int]]:
        pixel, line = (self.builder.mul(step, INT(4)) for step in (self.am, self.line))
        both = self.builder.add(pixel, line)
        return [(INT(0), 0), *((self.hidden(offset), 0) for offset in (pixel, line, both))]

    def finish(self, sums: list[list[ir.Value]]) -> None:
        self.rows = 1
        super().finish([[self.largest(j, [row[j] for row in sums]) for j in range(self.vectors)]])
        self.rows = 4

    def largest(self, column: int, values: list[ir.Value]) -> ir.Value:
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


class _PositionEmitter(_WindowEmitter):
    """The same, and which output it was."""

    def __init__(self, builder: ir.IRBuilder, vectors: int, arguments: list[ir.Value]):
        super().__init__(builder, vectors, arguments)
        self.index = arguments[14]

    def largest(self, column: int, values: list[ir.Value]) -> ir.Value:
        builder, lanes = self.builder, ir.VectorType(ir.IntType(32), VECTOR_WIDTH)
        best, won = values[0], ir.Constant(lanes, [0] * VECTOR_WIDTH)
        for position, value in enumerate(values[1:], 1):
            larger = builder.fcmp_ordered(">", value, best)
            wins = builder.or_(larger, builder.fcmp_unordered("uno", value, value))
            best = builder.select(wins, value, best)
            won = builder.select(wins, ir.Constant(lanes, [position] * VECTOR_WIDTH), won)
        numbers = builder.trunc(won, ir.VectorType(ir.IntType(8), VECTOR_WIDTH))
        place = builder.add(self.index, builder.ashr(self.c, INT(2)))
        place = builder.add(place, INT(column * VECTOR_WIDTH))
        builder.store(numbers, builder.inttoptr(place, numbers.type.as_pointer()), align=1)
        return best


if JIT:

    @intrinsic
    def _windows(typingctx, wide, count, arguments):
        """Run the tiles of a line of windows."""

        def codegen(context, builder, signature, values):
            numbers = [builder.extract_value(values[2], i) for i in range(16)]
            kinds = [(_WindowEmitter, 1), (_WindowEmitter, 2)]
            kinds += [(_PositionEmitter, 1), (_PositionEmitter, 2)]
            positions = builder.zext(builder.icmp_signed("!=", numbers[14], INT(0)), INT)
            done = builder.append_basic_block("done")
            key = builder.add(values[0], builder.mul(positions, INT(2)))
            switch = builder.switch(key, done)
            for i, (emitter, vectors) in enumerate(kinds):
                block = builder.append_basic_block()
                switch.add_case(INT(i), block)
                builder.position_at_end(block)
                emitter(builder, vectors, numbers[:15]).emit_all(values[1], numbers[15], 1)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(wide, count, arguments), codegen

else:  # the plain Python twin

    def _windows(wide: int, count: int, arguments: tuple[int, ...]) -> None:
        c, ldc, a, am, ak, ao, b, ldb, br, K, R, bias, flags, line, index, following = arguments
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
            largest, won = total[0], np.zeros(columns, np.uint8)
            for position in range(1, 4):
                wins = (total[position] > largest) | np.isnan(total[position])
                largest = np.where(wins, total[position], largest)
                won = np.where(wins, position, won)
            out = np.where(largest < 0, 0, largest) if flags & RELU else largest
            floats(c + 4 * i * ldc)[:columns] = out
            if index:
                octets(index + (c + 4 * i * ldc) // 4)[:columns] = won


@once(17)
def window_block(
    c, ldc, count, columns, a, am, line, following, ao, b, ldb, br, K, R, bias, flags, index
):  # fmt: skip
    """A line of windows by at most `PANEL` columns; all pointers are addresses.

    The outputs of a window are `am` and `line` floats of A apart, windows `following` floats.
    Positions go to `index`, unless it is 0, laid out as C. A panel that is not full goes through a
    tile on the stack, window by window.
    """
    wide = 1 if columns > VECTOR_WIDTH else 0
    width = PANEL if wide else VECTOR_WIDTH
    if columns == width:
        _windows(wide, count, (
            c, ldc, a, am, 1, ao, b, ldb, br, K, R, bias, flags, line,
            index - (c >> 2) if index else 0, following,
        ))  # fmt: skip
        return
    scratch = stack_floats(TILE_FLOATS)
    bias_row, won = scratch + 4 * width, scratch + 8 * width
    if flags & ADD_BIAS:
        copy_columns(bias_row, width, bias, 0, 1, columns)
    for i in range(count):
        _windows(wide, 1, (
            scratch, width, a + 4 * i * following, am, 1, ao, b, ldb, br, K, R, bias_row, flags,
            line, won - (scratch >> 2) if index else 0, following,
        ))  # fmt: skip
        copy_columns(c + 4 * i * ldc, ldc, scratch, width, 1, columns)
        if index:
            for j in range(columns):
                octets(index)[i * ldc + j] = octets(won)[j]


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
def _lines_range(start, stop, worker, y, index, x, none, ws, b, sizes, kernel, steps, places):
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
                    index + item * OW * F + f if index else 0,
                ))  # fmt: skip


@cpu
def conv_pool_forward_cpu(y, index, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
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
    won = address(index, 0) if index.size else 0
    arguments = (y.reshape(-1), won, x.reshape(-1), ws[:0], ws, b, sizes, kernel, steps, places)
    split(_lines_range, N * OD * OH, grain(4 * OW * F * KD * KH * KW * CG), arguments)


@cpu
def conv_pool_backward_weight_cpu(
    dw, db, x, dy, y, index, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    """As ``conv_backward_weight_cpu``: outputs behind the last window have no gradient."""
    outputs = (dy.shape[1], 2 * dy.shape[2], 2 * dy.shape[3])
    steps = (SD, SH, SW, LD, LH, LW, PD, PH, PW)
    sum_weights(dw, db, x, dy, y, address(index, 0), outputs, steps, G, ws)


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
    return 2 * N * OD * OH * OW * F + conv_workspace_cuda(
        N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
    )  # fmt: skip


def conv_pool_forward_cuda(y, index, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws):
    (z,), ws = _between(1, y, ws)
    conv_forward_cuda(z, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws)
    max_pool_forward_cuda(y, index, z, *PAIRS)


def conv_pool_backward_weight_cuda(
    dw, db, x, dy, y, index, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    (dz, gate), ws = _between(2, dy, ws)
    max_pool_backward_input_cuda(dz, dy, index, *PAIRS)
    if y.size:
        max_pool_backward_input_cuda(gate, y, index, *PAIRS)
    gate = gate if y.size else y
    conv_backward_weight_cuda(
        dw, db, x, dz, gate, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
    )  # fmt: skip


def _between(count, y, ws):
    """Arrays of what the maxima `y` are of, from the workspace, and the rest of it."""
    N, D, H, W, F = y.shape
    begin = ws.size - count * 4 * y.size
    arrays = ws[begin:].reshape(count, N, D, 2 * H, 2 * W, F)
    return [arrays[i] for i in range(count)], ws[:begin]


def conv_pool_pays_cuda(N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G):
    return False
