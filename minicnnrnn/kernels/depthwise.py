"""Depthwise convolution: every channel has filters of its own, and sees no other channel."""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minicnnrnn.kernels import dense
from minicnnrnn.kernels.band import ZERO, add_parts
from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.gemm import set_offset
from minicnnrnn.kernels.gpu import SIMULATED, THREADS, cuda, divided, divisor, gpu, launch, over
from minicnnrnn.kernels.jit import (
    INT,
    JIT,
    MAX_WORKERS,
    SIMD,
    VECTOR_WIDTH,
    cpu,
    inner,
    once,
    split,
)
from minicnnrnn.kernels.microkernel import ACCUMULATE, ADD_BIAS, OVERWRITE, RELU, TileEmitter
from minicnnrnn.kernels.panel import (
    PANEL,
    VECTOR,
    address,
    first_lanes,
    floats,
    grain,
    integers,
    load_lanes,
    store_lanes,
)
from minicnnrnn.kernels.reduce import lane_sum
from minicnnrnn.kernels.window import BY_PIXELS, phases_along

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def _meeting(image, outputs, tap, stride, dilation, padding):
    """Along one axis: the outputs whose `tap` lies in the image, and the pixels it lies on."""
    start = tap * dilation - padding
    first = max(0, -(start // stride))
    last = max(first, min(outputs, (image - 1 - start) // stride + 1))
    start += first * stride
    return slice(first, last), slice(start, start + (last - first) * stride, stride)


def _taps(x, y, w, strides, dilation, padding):
    """For every element of the kernel: its index, and the parts of y and x that meet in it."""
    for tap in np.ndindex(w.shape[:2]):
        axes = zip(x.shape[1:3], y.shape[1:3], tap, strides, dilation, padding)
        outputs, pixels = zip(*(_meeting(*axis) for axis in axes))
        yield tap, (slice(None), *outputs), (slice(None), *pixels)


def depthwise_forward_numpy(y, x, w, b, SH, SW, LH, LW, PH, PW, relu, ws):
    """Convolve every channel with `M` filters of its own.

    .. math:: y_{n,h,w,\\; c M + m} = b_{c M + m} + \\sum_{j,k}
              x_{n,\\; h SH + j LH - PH,\\; w SW + k LW - PW,\\; c} \\; w_{j,k,c,m}

    with zeros outside the image.

    Parameters
    ----------
    y : (N, OH, OW, C M), overwritten
    x : (N, H, W, C)
    w : (KH, KW, C, M)
    b : (C M,) or (0,) for none
    SH, SW : strides, in pixels
    LH, LW : dilation: the distance of neighbouring taps, in pixels
    PH, PW : zeros before the first pixel; those behind the last follow from `y`
    relu : 1 to apply ``max(y, 0)`` on the way out
    ws : workspace

    Notes
    -----
    Cost: 2 N OH OW KH KW C M operations, few for the memory they move. Chollet 2017, "Xception:
    Deep Learning with Depthwise Separable Convolutions", arXiv:1610.02357, section 1.
    """
    y[:] = b if b.size else 0
    for tap, outputs, pixels in _taps(x, y, w, (SH, SW), (LH, LW), (PH, PW)):
        product = x[pixels][..., np.newaxis] * w[tap]
        y[outputs] += product.reshape(*product.shape[:3], y.shape[3])
    if relu:
        np.maximum(y, 0, out=y)


def depthwise_backward_input_numpy(dx, dy, w, SH, SW, LH, LW, PH, PW, ws):
    """Gradient with respect to the input: each `dx` collects from the outputs that used it.

    .. math:: dx_{n,p,c} = \\sum_m \\sum_{o, t \\,:\\, o S + t L - P = p}
              dy_{n,o,\\; c M + m} \\; w_{t,c,m}

    with positions p, o and taps t in both dimensions at once. `dy` is the gradient before the
    relu. Shapes and cost as in ``depthwise_forward``.
    """
    dx[:] = 0
    for tap, outputs, pixels in _taps(dx, dy, w, (SH, SW), (LH, LW), (PH, PW)):
        gradient = dy[outputs].reshape(*dx[pixels].shape, w.shape[3])
        dx[pixels] += (gradient * w[tap]).sum(axis=-1)


def depthwise_backward_weight_numpy(dw, db, x, dy, SH, SW, LH, LW, PH, PW, ws):
    """Gradients with respect to the filters and the bias.

    .. math:: dw_{t,c,m} = \\sum_{n,o} x_{n,\\, o S + t L - P,\\, c} \\; dy_{n,o,\\; c M + m},
              \\qquad db_f = \\sum_{n,o} dy_{n,o,f}

    Shapes and cost as in ``depthwise_forward``; `db` of size zero is not computed.
    """
    for tap, outputs, pixels in _taps(x, dy, dw, (SH, SW), (LH, LW), (PH, PW)):
        gradient = dy[outputs].reshape(*x[pixels].shape, dw.shape[3])
        dw[tap] = (x[pixels][..., np.newaxis] * gradient).sum(axis=(0, 1, 2))
    if db.size:
        np.sum(dy, axis=(0, 1, 2), out=db)


def depthwise_workspace_numpy(N, H, W, C, OH, OW, M, KH, KW):
    """Floats of workspace that the passes of one depthwise convolution need."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Channels are contiguous, so lanes of a vector are channels, and the building block becomes
# C[m, n] (+)= sum_r sum_k A[ao[r] + m am + k ak + n] B[r br + k ldb + n]: its tile, which here
# multiplies a vector of A instead of one element. Rows of a tile are neighbouring pixels of an
# image row in the passes forward and to the input, taps of a kernel row in the weight gradient.
#
# Nothing is padded. Kernel rows outside the image are left out of the sum over r; a row of
# pixels falls into a few at its ends, each with the taps that it has, and the many between
# them that have all. With several filters a channel, image rows are copied with every channel
# repeated, and the rest is as with one.

TALLEST = 8 if SIMD == "avx512" else 6  # accumulators of a tile are rows x 2 vectors
HEIGHTS = (1, 2, 3, 4, 6, 8)  # of tiles: seven rows are 6 + 1
ROWS, PIXELS = 8, 64  # the weight gradient keeps its sums in registers over so many


class _DepthwiseEmitter(TileEmitter):
    """A tile whose lanes are channels. One vector wide, it may be cut: lanes behind are masked."""

    asks = False

    def __init__(self, builder: ir.IRBuilder, rows: int, vectors: int, arguments: list[ir.Value]):
        super().__init__(builder, rows, vectors, arguments[:-1])
        self.cut = vectors == 1
        self.mask = first_lanes(builder, arguments[-1])

    def load(self, address: ir.Value, column: int = 0) -> ir.Value:
        if not self.cut:
            return super().load(address, column)
        return load_lanes(self.builder, self.pointer(address, 0, VECTOR), self.mask)

    def store(self, value: ir.Value, address: ir.Value, column: int) -> None:
        if not self.cut:
            super().store(value, address, column)
            return
        store_lanes(self.builder, value, self.pointer(address, 0, VECTOR), self.mask)

    def factors(self, address: ir.Value) -> list[ir.Value]:
        return [self.load(address, j) for j in range(self.vectors)]


if JIT:

    @intrinsic
    def _tile(typingctx, rows, arguments):
        """Run the tile with this many rows, as wide as the last of the arguments says."""

        def codegen(context, builder, signature, values):
            integers = [builder.extract_value(values[1], i) for i in range(14)]
            done = builder.append_basic_block("done")
            wide = builder.icmp_signed(">", integers[-1], INT(VECTOR_WIDTH))
            key = builder.add(values[0], builder.select(wide, INT(100), INT(0)))
            switch = builder.switch(key, done)
            for vectors in (1, 2):
                for rows in (height for height in HEIGHTS if height <= TALLEST):
                    block = builder.append_basic_block(f"depthwise_{rows}x{vectors}")
                    switch.add_case(INT(rows + 100 * (vectors - 1)), block)
                    builder.position_at_end(block)
                    _DepthwiseEmitter(builder, rows, vectors, integers).emit()
                    builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(rows, arguments), codegen

else:  # the plain Python twin

    def _tile(rows: int, arguments: tuple[int, ...]) -> None:
        c, ldc, a, am, ak, ao, b, ldb, br, K, R, bias, flags, columns = arguments

        def window(address: int, shape: tuple[int, ...], *strides: int) -> Any:
            steps = tuple(4 * stride for stride in (*strides, 1))
            return np.lib.stride_tricks.as_strided(floats(address), (*shape, columns), steps)

        out = window(c, (rows,), ldc)
        total = out.copy() if flags & ACCUMULATE else np.zeros((rows, columns), np.float32)
        if flags & ADD_BIAS and not flags & ACCUMULATE:
            total += floats(bias)[:columns]
        for r in range(R):
            A = window(a + 4 * int(integers(ao)[r]), (rows, K), am, ak)
            total += (A * window(b + 4 * r * br, (K,), ldb)).sum(axis=1)
        out[:] = np.where(total < 0, 0, total) if flags & RELU else total


@inner
def _span(start, step, count, length):
    """Which of `count` places from `start` on, `step` apart, lie in [0, length).

    The first of them, and the one behind the last.
    """
    if step > 0:
        first, last = -(start // step), (length - 1 - start) // step + 1
    else:
        first, last = -((length - 1 - start) // -step), start // -step + 1
    first = max(0, first)
    return first, max(first, min(count, last))


@inner
def _height(rows):
    if rows >= TALLEST:
        return TALLEST
    return 6 if rows >= 6 else min(rows, 4)


@inner
def _fill_pixels(y, y_step, pixels, bias, F, flags):
    """Pixels that no tap reaches: the bias, or zero."""
    out, b = floats(y), floats(bias)
    for q in range(pixels):
        for f in range(F):
            value = b[f] if flags & ADD_BIAS else ZERO
            out[q * y_step + f] = ZERO if flags & RELU and value < ZERO else value


@once(18)
def depthwise_row(
    y, y_step, Q, x, x0, x_step, tap_step, W, T, w, w_step, row, R, table, bias, F, flags,
    transposed,
):  # fmt: skip
    """One row of pixels, or what one row of pixels adds to a row of the weight gradient.

    ``y[q] = bias + sum_r sum_t x[table[r] + x0 + q x_step + t tap_step] w[r row + t w_step]`` for
    q in [0, Q) with all F channels at once, where the place in x lies in [0, W). `transposed`
    exchanges y and w: then ``w[t] += sum_r sum_q x[...] y[r row + q y_step]``.

    `y x w table bias` are addresses; x0, x_step, tap_step are pixels, other steps floats.
    """
    low, end_low = _span(x0, x_step, Q, W)
    high, end_high = _span(x0 + (T - 1) * tap_step, x_step, Q, W)
    low, high = max(low, high), min(end_low, end_high)  # pixels that have all taps
    q = 0
    while q < Q:
        pixels, first, last = 1, 0, T
        if low <= q < high:
            pixels = high - q
        else:
            first, last = _span(x0 + q * x_step, tap_step, T, W)
        if R * (last - first) > 0:
            a = x + 4 * F * (x0 + q * x_step + first * tap_step)
            c, ldc, M, am = y + 4 * q * y_step, y_step, pixels, F * x_step
            b, ldb, K, ak = w + 4 * first * w_step, w_step, last - first, F * tap_step
            if transposed:
                c, ldc, M, am, b, ldb, K, ak = b, ldb, K, ak, c, ldc, M, am
            m = 0
            while m < M:
                rows, f = _height(M - m), 0
                while f < F:
                    columns = PANEL if F - f >= PANEL else min(VECTOR_WIDTH, F - f)
                    _tile(rows, (
                        c + 4 * (m * ldc + f), ldc, a + 4 * (m * am + f), am, ak, table,
                        b + 4 * f, ldb, row, K, R, bias + 4 * f, flags, columns,
                    ))  # fmt: skip
                    f += columns
                m += rows
        elif not flags & ACCUMULATE:
            _fill_pixels(y + 4 * q * y_step, y_step, pixels, bias, F, flags)
        q += pixels


@inner
def _repeat(ws, band, x, row, step, rows, W, C, M):
    """Copy image rows into a band, every channel M times."""
    source, target = floats(address(x, 0)), floats(address(ws, band))
    for r in range(rows):
        for i in range(W * C):
            value = source[(row + r * step) * W * C + i]
            for m in range(M):
                target[(r * W * C + i) * M + m] = value


def depthwise_workspace_cpu(N, H, W, C, OH, OW, M, KH, KW):
    rows, F = max(KH, ROWS), C * M
    band = rows * W * F if M > 1 else 0
    return 2 * rows + MAX_WORKERS * band + PARTS * (KH * KW + 1) * F


@inner
def _regions(KH, W, C, M):
    """Where in the workspace the bands begin (behind the table), one's size, and their end."""
    rows = max(KH, ROWS)
    band = rows * W * C * M if M > 1 else 0
    return 2 * rows, band, 2 * rows + MAX_WORKERS * band


@inner
def _forward_range(start, stop, worker, y, x, w, b, ws, sizes, kernel, flags):
    H, W, C, OH, OW, M = sizes
    KH, KW, SH, SW, LH, LW, PH, PW = kernel
    bands, band, _ = _regions(KH, W, C, M)
    F = C * M
    for item in range(start, stop):
        n, h = item // OH, item % OH
        first, last = _span(h * SH - PH, LH, KH, H)
        row = n * H + h * SH - PH + first * LH
        a, a0 = x, row * W * C
        if M > 1:
            a, a0 = ws, bands + worker * band
            _repeat(ws, a0, x, row, LH, last - first, W, C, M)
        depthwise_row((
            address(y, item * OW * F), F, OW, address(a, a0), -PW, SW, LW, W, KW,
            address(w, first * KW * F), F, KW * F, last - first, address(ws, 0), address(b, 0), F,
            flags, 0,
        ))  # fmt: skip


@cpu
def depthwise_forward_cpu(y, x, w, b, SH, SW, LH, LW, PH, PW, relu, ws):
    """Parallel over rows of outputs."""
    N, H, W, C = x.shape
    _, OH, OW, F = y.shape
    KH, KW, _, M = w.shape
    flags = (ADD_BIAS if b.size else OVERWRITE) + (RELU if relu else OVERWRITE)
    for r in range(KH):
        set_offset(ws, 2 * r, 0, r * W * F * (1 if M > 1 else LH))
    sizes, kernel = (H, W, C, OH, OW, M), (KH, KW, SH, SW, LH, LW, PH, PW)
    arguments = (y.reshape(-1), x.reshape(-1), w.reshape(-1), b, ws, sizes, kernel, flags)
    split(_forward_range, N * OH, grain(OW * F * KH * KW), arguments)


# --- backward, input -------------------------------------------------------------------
#
# With strides, the pixels of a row of `dx` fall into SW phases by their position modulo the
# stride. The taps that take a phase to outputs are evenly spaced, and so are these outputs: each
# phase is a row of its own, written SW pixels apart, and so it is with kernel rows.


@inner
def _first_tap(phase, K, step, S, L, P):
    """The first tap that takes pixels of this phase to an output; K if none does."""
    for k in range(min(K, step)):
        if (phase + P - k * L) % S == 0:
            return k
    return K


@inner
def _input_range(start, stop, worker, dx, dy, w, ws, sizes, kernel, steps):
    H, W, C, OH, OW, M = sizes
    KH, KW, SH, SW, LH, LW, PH, PW = kernel
    step_h, out_h, step_w, out_w = steps
    bands, band, _ = _regions(KH, W, C, M)
    F = C * M
    for item in range(start, stop):
        n, h = item // H, item % H
        top = _first_tap(h % SH, KH, step_h, SH, LH, PH)
        met = (h + PH - top * LH) // SH
        first, last = _span(met, -out_h, (KH - top + step_h - 1) // step_h, OH)
        y, y0 = dx, item * W * C
        if M > 1:
            y, y0 = ws, bands + worker * band
        for phase in range(min(SW, W)):
            left = _first_tap(phase, KW, step_w, SW, LW, PW)
            depthwise_row((
                address(y, y0 + phase * F), SW * F, (W - phase + SW - 1) // SW,
                address(dy, (n * OH + met - first * out_h) * OW * F),
                (phase + PW - left * LW) // SW, 1, -out_w, OW, (KW - left + step_w - 1) // step_w,
                address(w, ((top + first * step_h) * KW + left) * F), step_w * F,
                step_h * KW * F, last - first, address(ws, 0), address(ws, 0), F, OVERWRITE, 0,
            ))  # fmt: skip
        if M > 1:
            total, repeated = floats(address(dx, item * W * C)), floats(address(ws, y0))
            for i in range(W * C):
                value = repeated[i * M]
                for m in range(1, M):
                    value += repeated[i * M + m]
                total[i] = value


@cpu
def depthwise_backward_input_cpu(dx, dy, w, SH, SW, LH, LW, PH, PW, ws):
    """Parallel over rows of `dx`."""
    N, H, W, C = dx.shape
    _, OH, OW, F = dy.shape
    KH, KW, _, M = w.shape
    both_h, both_w = math.gcd(SH, LH), math.gcd(SW, LW)
    steps = (SH // both_h, LH // both_h, SW // both_w, LW // both_w)
    for r in range(KH):
        set_offset(ws, 2 * r, 0, -r * steps[1] * OW * F)
    sizes, kernel = (H, W, C, OH, OW, M), (KH, KW, SH, SW, LH, LW, PH, PW)
    arguments = (dx.reshape(-1), dy.reshape(-1), w.reshape(-1), ws, sizes, kernel, steps)
    split(_input_range, N * H, grain(W * F * KH * KW // (SH * SW)), arguments)


# --- backward, weight ------------------------------------------------------------------


@inner
def _weight_range(start, stop, worker, x, dy, ws, sizes, kernel, places):
    H, W, C, OH, OW, M = sizes
    KH, KW, SH, SW, LH, LW, PH, PW = kernel
    rows, parts, sums, bias_sums, bias = places
    bands, band, _ = _regions(KH, W, C, M)
    F = C * M
    for part in range(start, stop):
        dw, db = sums + part * KH * KW * F, bias_sums + part * F
        for i in range(KH * KW * F):
            ws[dw + i] = ZERO
        for f in range(F if bias else 0):
            ws[db + f] = ZERO
        item, end = rows * part // parts, rows * (part + 1) // parts
        while item < end:  # a few rows of one image
            n, h = item // OH, item % OH
            count = min(max(1, min(ROWS, PIXELS // OW)), OH - h, end - item)
            for kh in range(KH):
                first, last = _span(h * SH + kh * LH - PH, SH, count, H)
                row = n * H + (h + first) * SH + kh * LH - PH
                a, a0 = x, row * W * C
                if M > 1:
                    a, a0 = ws, bands + worker * band
                    _repeat(ws, a0, x, row, SH, last - first, W, C, M)
                depthwise_row((
                    address(dy, (item + first) * OW * F), F, OW, address(a, a0), -PW, SW, LW, W,
                    KW, address(ws, dw + kh * KW * F), F, OW * F, last - first, address(ws, 0),
                    address(ws, 0), F, ACCUMULATE, 1,
                ))  # fmt: skip
            total, gradient = floats(address(ws, db)), floats(address(dy, item * OW * F))
            for pixel in range(count * OW if bias else 0):
                for f in range(F):
                    total[f] += gradient[pixel * F + f]
            item += count


@cpu
def depthwise_backward_weight_cpu(dw, db, x, dy, SH, SW, LH, LW, PH, PW, ws):
    """Parallel over parts of the batch's rows, whose sums are added in order."""
    N, H, W, C = x.shape
    _, OH, OW, F = dy.shape
    KH, KW, _, M = dw.shape
    for r in range(ROWS):
        set_offset(ws, 2 * r, 0, r * W * F * (1 if M > 1 else SH))
    _, _, sums = _regions(KH, W, C, M)
    parts = max(1, min(PARTS, N * OH * OW // (2 * PIXELS), N * OH))
    bias_sums = sums + parts * dw.size
    sizes, kernel = (H, W, C, OH, OW, M), (KH, KW, SH, SW, LH, LW, PH, PW)
    places = (N * OH, parts, sums, bias_sums, db.size)
    arguments = (x.reshape(-1), dy.reshape(-1), ws, sizes, kernel, places)
    split(_weight_range, parts, grain(N * OH * OW // parts * F * KH * KW), arguments)
    add_parts(dw.reshape(-1), ws, sums, parts)
    if db.size:
        add_parts(db, ws, bias_sums, parts)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element of y and of dx, channels fastest. For a weight gradient a block has
# SLICES threads for each of LANES elements, which walk through the pixels of one part.

LANES = 2 if SIMULATED else 16
SLICES = THREADS // LANES


def depthwise_workspace_cuda(N, H, W, C, OH, OW, M, KH, KW):
    return _parts_of_gradient(N * OH * OW) * (KH * KW + 1) * C * M


@gpu
def _forward_elements(y, x, w, b, sizes, steps, divisors, relu):
    H, W, C, KH, KW = sizes
    SH, SW, LH, LW, PH, PW = steps
    by_OH, by_OW, by_F, by_M = divisors
    F = by_F[0]
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        pixel, f = i // F, i % F  # there may be more elements than `divided` takes
        n, v = divided(pixel, by_OW)
        n, h = divided(n, by_OH)
        c, _ = divided(f, by_M)
        top, left = h * SH - PH, v * SW - PW
        total = b[f] if b.size else ZERO
        for j in range(KH):
            row = top + j * LH
            if 0 <= row < H:
                for k in range(KW):
                    column = left + k * LW
                    if 0 <= column < W:
                        at = ((n * H + row) * W + column) * C + c
                        total += x[at] * w[(j * KW + k) * F + f]
        y[i] = ZERO if relu and total < ZERO else total


def depthwise_forward_cuda(y, x, w, b, SH, SW, LH, LW, PH, PW, relu, ws):
    KH, KW, _, M = w.shape
    sizes, steps = (*x.shape[1:], KH, KW), (SH, SW, LH, LW, PH, PW)
    divisors = tuple(map(divisor, (*y.shape[1:], M)))
    flat = y.reshape(-1), x.reshape(-1), w.reshape(-1), b
    over(_forward_elements, y.size, *flat, sizes, steps, divisors, int(relu))


@gpu
def _input_elements(dx, dy, w, pixels, sizes, phase_h, phase_w, by_C):
    H, W, KW, SH, SW, OH, OW, M = sizes
    (j0, j1, h0, h1), (k0, k1, w0, w1) = phase_h[4], phase_w[4]
    C, F = by_C[0], by_C[0] * M
    for i in range(cuda.grid(1), pixels * C, cuda.gridsize(1)):
        pixel, c = i // C, i % C
        n, column = divided(pixel, phase_w[1])
        n, row = divided(n, phase_h[1])
        total = ZERO
        for j in range(phase_h[3]):
            h = row + h0 + j * h1
            for k in range(phase_w[3]):
                v = column + w0 + k * w1
                if 0 <= h < OH and 0 <= v < OW:
                    at = ((n * OH + h) * OW + v) * F + c * M
                    tap = ((j0 + j * j1) * KW + k0 + k * k1) * F + c * M
                    for m in range(M):
                        total += dy[at + m] * w[tap + m]
        row, column = row * SH + phase_h[0], column * SW + phase_w[0]
        dx[((n * H + row) * W + column) * C + c] = total


def depthwise_backward_input_cuda(dx, dy, w, SH, SW, LH, LW, PH, PW, ws):
    """A kernel for each phase of pixels, as ``window.py`` calls them."""
    N, H, W, C = dx.shape
    _, OH, OW, _ = dy.shape
    KH, KW, _, M = w.shape
    flat, sizes = (dx.reshape(-1), dy.reshape(-1), w.reshape(-1)), (H, W, KW, SH, SW, OH, OW, M)
    for phase_h in phases_along(H, KH, SH, LH, PH):
        for phase_w in phases_along(W, KW, SW, LW, PW):
            pixels = N * phase_h[BY_PIXELS][0] * phase_w[BY_PIXELS][0]
            arguments = pixels, sizes, phase_h, phase_w, divisor(C)
            over(_input_elements, pixels * C, *flat, *arguments)


def _parts_of_gradient(pixels):
    return max(1, min(PARTS, pixels // (8 * SLICES)))


@gpu
def _weight_parts(ws, x, dy, size, sizes, steps, divisors):
    """Part blockIdx.y of the sums over pixels: a row for each tap, and the bias where wanted."""
    H, W, C, KH, OH, OW, pixels = sizes
    SH, SW, LH, LW, PH, PW = steps
    by_KW, by_F, by_M, by_OH, by_OW = divisors
    lane, slice_ = cuda.threadIdx.x % LANES, cuda.threadIdx.x // LANES
    part, parts = cuda.blockIdx.y, cuda.gridDim.y
    element = cuda.blockIdx.x * LANES + lane
    tap, f = divided(element, by_F)
    j, k = divided(tap, by_KW)
    c, _ = divided(f, by_M)
    pixel, last = pixels * part // parts + slice_, pixels * (part + 1) // parts
    n, v = divided(pixel, by_OW)
    n, h = divided(n, by_OH)
    total = ZERO
    while pixel < last and element < size:
        row, column = h * SH + j * LH - PH, v * SW + k * LW - PW
        if j == KH:
            total += dy[pixel * by_F[0] + f]
        elif 0 <= row < H and 0 <= column < W:
            total += x[((n * H + row) * W + column) * C + c] * dy[pixel * by_F[0] + f]
        pixel += SLICES
        v += SLICES
        while v >= OW:
            v -= OW
            h += 1
        while h >= OH:
            h -= OH
            n += 1
    total = lane_sum(total, LANES)
    if slice_ == 0 and element < size:
        ws[part * size + element] = total


def depthwise_backward_weight_cuda(dw, db, x, dy, SH, SW, LH, LW, PH, PW, ws):
    N, OH, OW, F = dy.shape
    KH, KW, _, M = dw.shape
    pixels, size = N * OH * OW, dw.size + db.size
    parts = _parts_of_gradient(pixels)
    launch(
        _weight_parts, (-(-size // LANES), parts), THREADS, ws, x.reshape(-1), dy.reshape(-1),
        size, (*x.shape[1:], KH, OH, OW, pixels), (SH, SW, LH, LW, PH, PW),
        tuple(map(divisor, (KW, F, M, OH, OW))),
    )  # fmt: skip
    dense.add_parts(dw, db, ws, parts)
