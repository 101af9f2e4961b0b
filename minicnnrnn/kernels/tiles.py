"""Tiles of images for Winograd's convolution: read and transformed, transformed and written.

A transform works on whole vectors of channels, which it reads from the image and writes to it in
place. A tile that the image's edge cuts, or that a relu's derivative masks, is first copied
together; the lanes behind the last channel carry numbers that nobody reads.

A block of tiles is `columns` tiles of a plane, counted through all rows and images, from the
same place in `planes` planes: row ``p * columns + t`` of its 36 matrices.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnnrnn.kernels.jit import INT, JIT, VECTOR_WIDTH, inner, once
from minicnnrnn.kernels.panel import VECTOR, first_lanes, floats, load_lanes, store_lanes
from minicnnrnn.kernels.transform import transform_gradient, transform_output, transform_pixels

V = VECTOR_WIDTH

if JIT:

    @intrinsic
    def copy_run(typingctx, arguments):
        """Copy floats in whole vectors and the lanes of a last one.

        Its arguments, as one tuple: the addresses of target, source and gate, and how many.
        Without a source (0) zeros are written; with a gate, where it is at or below 0. A Numba
        loop over so few floats would find out for longer whether the arrays overlap.
        """

        def codegen(context, builder, signature, values):
            target, source, gate, count = (builder.extract_value(values[0], i) for i in range(4))
            zero = ir.Constant(VECTOR, [0.0] * V)
            tail = builder.srem(count, INT(V))
            mask = first_lanes(builder, tail)

            def at(base: ir.Value, offset: ir.Value) -> ir.Value:
                return builder.inttoptr(builder.add(base, offset), VECTOR.as_pointer())

            def run(value: Any) -> None:
                """``value(load)`` for every vector, where ``load(base)`` is how to load."""
                with cgutils.for_range(builder, builder.sdiv(count, INT(V))) as loop:
                    offset = builder.mul(loop.index, INT(4 * V))
                    whole = value(lambda base: builder.load(at(base, offset), align=4))
                    builder.store(whole, at(target, offset), align=4)
                with builder.if_then(builder.icmp_signed("!=", tail, INT(0))):
                    rest = builder.mul(builder.sdiv(count, INT(V)), INT(4 * V))
                    part = value(lambda base: load_lanes(builder, at(base, rest), mask))
                    store_lanes(builder, part, at(target, rest), mask)

            def gated(load: Any) -> ir.Value:
                closed = builder.fcmp_ordered("<=", load(gate), zero)
                return builder.select(closed, zero, load(source))

            with builder.if_else(builder.icmp_signed("!=", gate, INT(0))) as (then, otherwise):
                with then:
                    run(gated)
                with otherwise:
                    absent = builder.icmp_signed("==", source, INT(0))
                    with builder.if_else(absent) as (yes, no):
                        with yes:
                            run(lambda load: zero)
                        with no:
                            run(lambda load: load(source))
            return context.get_dummy_value()

        return types.void(arguments), codegen

else:  # the plain Python twin

    def copy_run(arguments: tuple[int, ...]) -> None:
        target, source, gate, count = arguments
        value: Any = floats(source)[:count] if source else np.float32(0)
        if gate:
            value = np.where(floats(gate)[:count] <= 0, np.float32(0), value)
        floats(target)[:count] = value


@inner
def vectors(columns):
    """`columns`, filled up to whole vectors."""
    return (columns + V - 1) // V * V


@inner
def _gather(aside, source, gate, down, C, channels, size, top, bottom, left, end):
    """Copy a tile together, between zeros where the image ends: size x size x channels."""
    if (bottom - top) * (end - left) < size * size:
        copy_run((aside, 0, 0, size * size * channels))
    step = end - left if channels == C else 1  # pixels that lie one behind the other
    for i in range(top, bottom):
        for j in range(left, end, step):
            offset, target = 4 * (i * down + j * C), aside + 4 * (i * size + j) * channels
            copy_run((target, source + offset, gate + offset if gate else 0, step * channels))


@once(23)
def read_tiles(
    size, target, distance, wide, x, gate, stop, D, H, W, C, TH, TW, PH, PW, channel, channels,
    plane, planes, first, columns, aside, sums,
):  # fmt: skip
    """Transform a block of tiles: 6 x 6 pixels, or 4 x 4 gradients, as `size` says.

    Parameters
    ----------
    target, distance, wide : where the 36 matrices begin, their distance in floats, and how many
        channels lie side by side in a row; behind all rows follow those of the next channels
    x, gate, stop : the image, what masks it or 0, and the address behind the image's last float
    channel, channels : the first one, and how many
    plane, planes, first, columns : the block of tiles
    aside : room for a tile
    sums : of each channel's gradients, to be added to
    """
    rows = planes * columns
    for p in range(planes):
        n, i, j = first // (TH * TW), first // TW % TH, first % TW
        for t in range(columns):
            h, w = 4 * i - PH, 4 * j - PW
            top, bottom, left, end = max(-h, 0), min(H - h, size), max(-w, 0), min(W - w, size)
            source = x + 4 * ((((n * D + plane + p) * H + h) * W + w) * C + channel)
            down, right = W * C, C
            reach = source + 4 * ((size - 1) * (down + right) + vectors(channels))
            if gate or (bottom - top) * (end - left) < size * size or reach > stop:
                limit = gate + source - x if gate else 0
                _gather(aside, source, limit, down, C, channels, size, top, bottom, left, end)
                source, down, right = aside, size * channels, channels
            for c in range(0, channels, V):
                panel = c // wide * wide
                row = min(wide, vectors(channels) - panel)
                to = target + 4 * (panel * rows + (p * columns + t) * row + c - panel)
                if size == 6:
                    transform_pixels((to, 6 * distance, distance, source + 4 * c, down, right))
                else:
                    transform_gradient((
                        to, 6 * distance, distance, source + 4 * c, down, right, sums + 4 * c,
                    ))  # fmt: skip
            j += 1
            if j == TW:
                i, j = i + 1, 0
            if i == TH:
                n, i = n + 1, 0


@once(18)
def write_tiles(
    y, bias, relu, OD, OH, OW, F, TH, TW, f, filters, plane, planes, first, columns,
    products, distance, aside,
):  # fmt: skip
    """Transform the products of a block of tiles into outputs of `filters` filters from f on.

    `bias` has whole vectors.
    """
    row = vectors(filters)
    for p in range(planes):
        n, i, j = first // (TH * TW), first // TW % TH, first % TW
        for t in range(columns):
            height, width = min(4, OH - 4 * i), min(4, OW - 4 * j)
            corner = y + 4 * ((((n * OD + plane + p) * OH + 4 * i) * OW + 4 * j) * F + f)
            source = products + 4 * (p * columns + t) * row
            for v in range(0, filters, V):
                lanes = min(V, filters - v)
                whole = height * width * lanes == 16 * V
                to, down, right = (corner + 4 * v, OW * F, F) if whole else (aside, 4 * V, V)
                transform_output((
                    to, down, right, source + 4 * v, 6 * distance, distance, bias + 4 * v, relu,
                ))  # fmt: skip
                if not whole:
                    for k in range(height):
                        for l in range(width):
                            pixel = corner + 4 * ((k * OW + l) * F + v)
                            copy_run((pixel, aside + 4 * (4 * k + l) * V, 0, lanes))
            j += 1
            if j == TW:
                i, j = i + 1, 0
            if i == TH:
                n, i = n + 1, 0
