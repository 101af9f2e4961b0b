"""Runs of pooling: pixels of a row that see their windows alike, in whole vectors of channels.

A table says which places a pixel meets: pairs of a distance and of the position's number in the
window. All pixels of a run share it. A Numba loop over the few channels of each pixel would find
out for longer whether the arrays overlap: pooling takes a third of the time so.
"""

import ctypes
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnnrnn.kernels.jit import INT, JIT, VECTOR_WIDTH, once
from minicnnrnn.kernels.panel import FLOAT, floats, integers, octets, repeat

PLACES = 16  # pairs in a table; windows with more of them are gone through in several passes
LANE = ir.IntType(32)

if JIT:

    class _RunEmitter:
        """Emits the loops over a run: pixels, vectors of channels, places of the table."""

        def __init__(self, builder: ir.IRBuilder, arguments: list[ir.Value], bits: int):
            self.builder, self.bits = builder, bits
            (self.to, self.numbers, self.of, self.count, self.step_to, self.step_of, self.C,
             self.table, self.places, fresh) = arguments  # fmt: skip
            self.fresh = builder.icmp_signed("!=", fresh, INT(0))

        def emit(self, body: Any) -> None:
            """``body(lanes, to, of, number)``, with addresses, for all channels of all pixels."""
            builder = self.builder
            with cgutils.for_range(builder, self.count) as pixel:
                to = builder.add(self.to, builder.mul(pixel.index, self.step_to))
                of = builder.add(self.of, builder.mul(pixel.index, self.step_of))
                number = builder.mul(pixel.index, builder.mul(self.C, INT(self.bits // 8)))
                number = builder.add(self.numbers, number)
                done: Any = INT(0)
                for lanes in (2 * VECTOR_WIDTH, VECTOR_WIDTH, 1):
                    groups = builder.sdiv(builder.sub(self.C, done), INT(lanes))
                    with cgutils.for_range(builder, groups) as group:
                        c = builder.add(done, builder.mul(group.index, INT(lanes)))
                        at = builder.mul(c, INT(4))
                        index = builder.add(number, builder.mul(c, INT(self.bits // 8)))
                        body(lanes, builder.add(to, at), builder.add(of, at), index)
                    done = builder.add(done, builder.mul(groups, INT(lanes)))

        def kind(self, lanes: int, element: ir.Type = FLOAT) -> ir.Type:
            return element if lanes == 1 else ir.VectorType(element, lanes)

        def value(self, lanes: int, number: float) -> ir.Value:
            """A constant in all lanes."""
            return ir.Constant(self.kind(lanes), number if lanes == 1 else [number] * lanes)

        def load(self, lanes: int, address: ir.Value, element: ir.Type = FLOAT) -> ir.Value:
            pointer = self.builder.inttoptr(address, self.kind(lanes, element).as_pointer())
            return self.builder.load(pointer, align=element.width // 8 if element != FLOAT else 4)

        def store(self, lanes: int, value: ir.Value, address: ir.Value, align: int = 4) -> None:
            pointer = self.builder.inttoptr(address, value.type.as_pointer())
            self.builder.store(value, pointer, align=align)

        def in_all_lanes(self, lanes: int, number: ir.Value) -> ir.Value:
            number = self.builder.trunc(number, LANE)
            if lanes == 1:
                return number
            undefined = ir.Constant(self.kind(lanes, LANE), ir.Undefined)
            vector = self.builder.insert_element(undefined, number, LANE(0))
            return self.builder.shuffle_vector(
                vector, undefined, ir.Constant(self.kind(lanes, LANE), [0] * lanes)
            )

        def number(self, lanes: int, address: ir.Value) -> ir.Value:
            """The number of a position from memory, as wide as an element."""
            value = self.load(lanes, address, ir.IntType(self.bits))
            return value if self.bits == 32 else self.builder.zext(value, self.kind(lanes, LANE))

        def over_places(self, values: list[ir.Value], body: Any) -> list[ir.Value]:
            """``values = body(values, distance, position)`` for all places of the table."""
            builder = self.builder

            def at_place(index: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
                entry = builder.add(self.table, builder.mul(index, INT(16)))
                pair = builder.inttoptr(entry, INT.as_pointer())
                distance, position = (builder.gep(pair, [INT(i)]) for i in range(2))
                results: list[ir.Value] = body(held, *map(builder.load, (distance, position)))
                return results

            return repeat(builder, self.places, values, at_place)

        def largest(self, lanes: int, to: ir.Value, of: ir.Value, number: ir.Value) -> None:
            """The largest of all places, and its position if there are bits for one."""
            builder, bits = self.builder, self.bits
            lowest = self.value(lanes, float("-inf"))
            values = [builder.select(self.fresh, lowest, self.load(lanes, to))]
            if bits:
                pair = builder.inttoptr(self.table, INT.as_pointer())
                first = self.in_all_lanes(lanes, builder.load(builder.gep(pair, [INT(1)])))
                values.append(builder.select(self.fresh, first, self.number(lanes, number)))

            def compare(values: list[ir.Value], distance: ir.Value, position: ir.Value) -> Any:
                v = self.load(lanes, builder.add(of, builder.mul(distance, INT(4))))
                larger = builder.fcmp_ordered(">", v, values[0])
                wins = builder.or_(larger, builder.fcmp_unordered("uno", v, v))
                found = [v, self.in_all_lanes(lanes, position)]
                return [builder.select(wins, new, old) for new, old in zip(found, values)]

            best, *won = self.over_places(values, compare)
            self.store(lanes, best, to)
            for result in won:
                narrow = self.kind(lanes, ir.IntType(bits))
                result = result if bits == 32 else builder.trunc(result, narrow)
                self.store(lanes, result, number, bits // 8)

        def collected(self, lanes: int, to: ir.Value, of: ir.Value, number: ir.Value) -> None:
            """The sum over all windows that the pixel has won."""
            builder, zero = self.builder, self.value(lanes, 0.0)

            def collect(values: list[ir.Value], distance: ir.Value, position: ir.Value) -> Any:
                v = self.load(lanes, builder.add(of, builder.mul(distance, INT(4))))
                place = builder.add(number, builder.mul(distance, INT(self.bits // 8)))
                position = self.in_all_lanes(lanes, position)
                mine = builder.icmp_signed("==", self.number(lanes, place), position)
                return [builder.fadd(values[0], builder.select(mine, v, zero))]

            old = builder.select(self.fresh, zero, self.load(lanes, to))
            (total,) = self.over_places([old], collect)
            self.store(lanes, total, to)

    def _run(name: str, widths: tuple[int, ...]) -> Any:
        """An intrinsic that runs one of the emitter's bodies, for the width of the numbers."""

        @intrinsic
        def run(typingctx, arguments):
            def codegen(context, builder, signature, values):
                width, *members = (builder.extract_value(values[0], i) for i in range(11))
                done = builder.append_basic_block("done")
                switch = builder.switch(width, done)
                for bits in widths:
                    block = builder.append_basic_block(f"bits_{bits}")
                    switch.add_case(INT(bits), block)
                    builder.position_at_end(block)
                    emitter = _RunEmitter(builder, members, bits)
                    emitter.emit(getattr(emitter, name))
                    builder.branch(done)
                builder.position_at_end(done)
                return context.get_dummy_value()

            return types.void(arguments), codegen

        return run

    _largest, _collected = _run("largest", (0, 8, 32)), _run("collected", (8, 32))

    @intrinsic
    def _unpool(typingctx, arguments):
        """Write the lines of a panel behind one of two lines of windows, and add them up."""

        def codegen(context, builder, signature, values):
            target, width, dy, gate, number, step, count, vectors, first, sums = (
                builder.extract_value(values[0], i) for i in range(10)
            )
            emitter = _RunEmitter(builder, [INT(0)] * 10, 8)
            V, zero = VECTOR_WIDTH, emitter.value(VECTOR_WIDTH, 0.0)
            ungated = builder.icmp_signed("==", gate, INT(0))
            gate = builder.select(ungated, dy, gate)
            open_ = emitter.in_all_lanes(V, builder.zext(ungated, INT))
            positions = [emitter.in_all_lanes(V, builder.add(first, INT(i))) for i in range(2)]
            row = builder.mul(width, INT(4))

            def windows(index: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
                to, of, limit, place, total = held
                value, barrier = emitter.load(V, of), emitter.load(V, limit)
                closed = builder.fcmp_ordered("<=", barrier, zero)
                closed = builder.and_(closed, builder.icmp_signed("==", open_, zeros))
                value = builder.select(closed, zero, value)
                won = emitter.number(V, place)
                for position in positions:
                    part = builder.select(builder.icmp_signed("==", won, position), value, zero)
                    emitter.store(V, part, to)
                    to, total = builder.add(to, row), builder.fadd(total, part)
                following = [builder.add(at, builder.mul(step, INT(4))) for at in (of, limit)]
                return [to, *following, builder.add(place, step), total]

            zeros = emitter.in_all_lanes(V, INT(0))
            with cgutils.for_range(builder, vectors) as loop:
                at = builder.mul(loop.index, INT(4 * V))
                places = [builder.add(base, at) for base in (target, dy, gate)]
                places.append(builder.add(number, builder.mul(loop.index, INT(V))))
                where = builder.add(sums, at)
                held = [*places, emitter.load(V, where)]
                *_, total = repeat(builder, count, held, windows)
                emitter.store(V, total, where)
            return context.get_dummy_value()

        return types.void(arguments), codegen

else:  # the plain Python twins

    def _members(arguments: tuple[int, ...], pixel: int) -> Any:
        """Of one pixel: its row, what it meets, how to find numbers, whether it is fresh."""
        bits, to, number, of, _, step_to, step_of, C, table, places, fresh = arguments
        kind, pairs = np.dtype(f"uint{bits or 8}"), integers(table)[: 2 * places].reshape(-1, 2)
        row = floats(to + pixel * step_to)[:C]

        def numbers(distance: int) -> Any:
            start = number + (pixel * C + distance) * kind.itemsize
            memory = (ctypes.c_uint8 * (C * kind.itemsize)).from_address(int(start))
            return np.ctypeslib.as_array(memory).view(kind)

        met = [(floats(of + pixel * step_of + 4 * d)[:C], d, position) for d, position in pairs]
        return row, met, numbers, bool(fresh)

    def _largest(arguments: tuple[int, ...]) -> None:
        bits, count = arguments[0], arguments[4]
        for pixel in range(count):
            row, met, numbers, fresh = _members(arguments, pixel)
            if fresh:
                row[:] = -np.inf
            won = numbers(0) if bits else np.empty(row.shape, np.int32)
            if fresh and bits:
                won[:] = met[0][2]
            for v, _, position in met:
                wins = (v > row) | np.isnan(v)
                row[wins], won[wins] = v[wins], position

    def _collected(arguments: tuple[int, ...]) -> None:
        for pixel in range(arguments[4]):
            row, met, numbers, fresh = _members(arguments, pixel)
            if fresh:
                row[:] = 0
            for v, distance, position in met:
                row += np.where(numbers(distance) == position, v, np.float32(0))

    def _unpool(arguments: tuple[int, ...]) -> None:
        target, width, dy, gate, number, step, count, vectors, first, sums = arguments
        columns = vectors * VECTOR_WIDTH
        for window in range(count):
            memory = (ctypes.c_uint8 * columns).from_address(int(number + window * step))
            won, value = np.ctypeslib.as_array(memory), floats(dy + 4 * window * step)[:columns]
            if gate:
                closed = floats(gate + 4 * window * step)[:columns] <= 0
                value = np.where(closed, np.float32(0), value)
            for i in range(2):
                part = np.where(won == first + i, value, np.float32(0))
                floats(target + 4 * (2 * window + i) * width)[:columns] = part
                floats(sums)[:columns] += part


@once(11)
def largest_of_run(bits, y, number, x, count, step_y, step_x, C, table, places, fresh):
    """The largest of the places of every pixel, and its position in the window.

    Parameters
    ----------
    bits : 8 or 32 for the width of a position's number, 0 where none is wanted
    y, number, x : addresses of the first pixel's output, of its number, and of what the distances
        are from
    count, step_y, step_x, C : pixels, bytes from one to the next in `y` and in `x`, channels;
        numbers lie `C` apart
    table, places : address of the pairs, distances in elements, and how many; at least one
    fresh : 0 to go on with what stands in `y` and in `number`
    """
    _largest((bits, y, number, x, count, step_y, step_x, C, table, places, fresh))


@once(11)
def collect_run(bits, dx, number, dy, count, step_dx, step_dy, C, table, places, fresh):
    """Add the gradients of those places whose number is the pair's.

    Parameters as in ``largest_of_run``, with numbers beside `dy`; no places leave zeros.
    """
    _collected((bits, dx, number, dy, count, step_dx, step_dy, C, table, places, fresh))


@once(10)
def unpool_line(panel, width, dy, gate, number, step, count, columns, first, sums):
    """Write the gradients of a line of pixels, of windows of 2 x 2, into a panel; add them up.

    Parameters
    ----------
    panel, width : address, and floats from one pixel to the next
    dy, gate, number : addresses of the first window's gradients, of what closes them or 0, and of
        the positions that won
    step, count, columns : elements from one window to the next, windows, channels
    first : the line's first position in the windows: 0 or 2
    sums : address of a sum for each channel
    """
    vectors = columns // VECTOR_WIDTH
    _unpool((panel, width, dy, gate, number, step, count, vectors, first, sums))
    target, total, zero = floats(panel), floats(sums), np.float32(0)
    for c in range(vectors * VECTOR_WIDTH, width):
        for window in range(count):
            at = window * step + c
            open_ = c < columns and (gate == 0 or not floats(gate)[at] <= zero)
            for i in range(2):
                wins = open_ and octets(number)[at] == first + i
                value = floats(dy)[at] if wins else zero
                target[(2 * window + i) * width + c] = value
                if c < columns:
                    total[c] += value
