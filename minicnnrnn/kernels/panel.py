"""Memory by address, and panels: how the building block wants its second matrix.

A panel holds `PANEL` columns of a matrix, the last one `VECTOR_WIDTH` where that is enough, with
its rows one behind the other: the microkernel walks straight through it.
"""

import ctypes
import itertools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnnrnn.kernels.jit import INT, JIT, VECTOR_WIDTH, inner, once, split

PANEL = 2 * VECTOR_WIDTH
GRAIN = 500_000  # multiply-adds that make it worth waking a second thread
LINE = 64  # bytes that memory is read in
FLOAT = ir.FloatType()
VECTOR = ir.VectorType(FLOAT, VECTOR_WIDTH)


def repeat(builder: ir.IRBuilder, count: ir.Value, values: list[Any], body: Any) -> list[Any]:
    """Emit ``values = body(index, values)``, `count` times, and return the last values.

    They stay in registers; what is stored and loaded again in a loop goes through memory.
    """
    before, top = builder.block, builder.append_basic_block("repeat")
    after = builder.append_basic_block("repeated")
    builder.cbranch(builder.icmp_signed(">", count, INT(0)), top, after)
    builder.position_at_end(top)
    index, *held = (builder.phi(kind) for kind in (INT, *(value.type for value in values)))
    results, following = body(index, held), builder.add(index, INT(1))
    end = builder.block
    builder.cbranch(builder.icmp_signed("<", following, count), top, after)
    builder.position_at_end(after)
    joined = [builder.phi(value.type) for value in values]
    ends = [*zip(held, values, results), *zip(joined, values, results)]
    for phi, first, last in [(index, INT(0), following), *ends]:
        phi.add_incoming(first, before)
        phi.add_incoming(last, end)
    return joined


def fetch(builder: ir.IRBuilder, address: ir.Value, write: int = 0) -> None:
    """Ask for a line of memory that will be read, or written to, and do not wait for it."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    called = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    place = builder.inttoptr(address, byte)
    nearest, data = word(3), word(1)
    builder.call(called, [place, word(write), nearest, data])


def first_lanes(builder: ir.IRBuilder, count: ir.Value) -> ir.Value:
    """A mask of the first `count` lanes of a vector."""
    lane = ir.IntType(32)
    lanes = ir.VectorType(lane, VECTOR_WIDTH)
    undefined = ir.Constant(lanes, ir.Undefined)
    first = builder.insert_element(undefined, builder.trunc(count, lane), lane(0))
    counts = builder.shuffle_vector(first, undefined, ir.Constant(lanes, [0] * VECTOR_WIDTH))
    return builder.icmp_signed("<", ir.Constant(lanes, list(range(VECTOR_WIDTH))), counts)


def load_lanes(builder: ir.IRBuilder, pointer: ir.Value, mask: ir.Value) -> ir.Value:
    """Some lanes of a vector from memory, zeros in the others."""
    zero = ir.Constant(VECTOR, [0.0] * VECTOR_WIDTH)
    return _masked(builder, "load", VECTOR, pointer, ir.IntType(32)(4), mask, zero)


def store_lanes(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, mask: ir.Value) -> None:
    """Some lanes of a vector to memory."""
    _masked(builder, "store", ir.VoidType(), value, pointer, ir.IntType(32)(4), mask)


def _masked(builder: ir.IRBuilder, name: str, kind: ir.Type, *arguments: ir.Value) -> ir.Value:
    signature = ir.FunctionType(kind, [argument.type for argument in arguments])
    function = f"llvm.masked.{name}.v{VECTOR_WIDTH}f32.p0v{VECTOR_WIDTH}f32"
    called = cgutils.get_or_insert_function(builder.module, signature, function)
    return builder.call(called, arguments)


if JIT:

    def _pointer(kind: Any, element: Any) -> Any:
        """A function that turns an address into a pointer to elements of this type."""

        @intrinsic
        def pointer(typingctx, address):
            def codegen(context, builder, signature, values):
                return builder.inttoptr(values[0], element.as_pointer())

            return types.CPointer(kind)(address), codegen

        return pointer

    @intrinsic
    def ask_to_write(typingctx, address, size):
        """Ask for memory from an address on that will be written to."""

        def codegen(context, builder, signature, values):
            def line(index: ir.Value, places: list[ir.Value]) -> list[ir.Value]:
                fetch(builder, places[0], 1)
                return [builder.add(places[0], INT(LINE))]

            repeat(builder, builder.sdiv(values[1], INT(LINE)), [values[0]], line)
            return context.get_dummy_value()

        return types.void(address, size), codegen

    floats, integers = _pointer(types.float32, FLOAT), _pointer(types.int64, INT)
    octets = _pointer(types.uint8, ir.IntType(8))

    @intrinsic
    def _move_rows(typingctx, arguments):
        """Move rows into a panel and add them up, in whole vectors, zeros behind the last column.

        A Numba loop over the few floats of a row would spend most of its time on finding out
        whether the arrays overlap.
        """

        def codegen(context, builder, signature, values):
            panel, source, gate, step, rows, columns, sums = (
                builder.extract_value(values[0], i) for i in range(7)
            )
            zero = ir.Constant(VECTOR, [0.0] * VECTOR_WIDTH)
            rest = builder.srem(columns, INT(VECTOR_WIDTH))
            mask = first_lanes(builder, rest)

            def move(vectors: int, cut: bool, gated: bool) -> None:
                """Rows of so many vectors, the last one cut short or not."""

                def at(base: ir.Value, offset: ir.Value, j: int) -> ir.Value:
                    where = builder.add(base, builder.add(offset, INT(4 * VECTOR_WIDTH * j)))
                    return builder.inttoptr(where, VECTOR.as_pointer())

                def load(place: ir.Value, j: int) -> ir.Value:
                    if cut and j == vectors - 1:
                        return load_lanes(builder, place, mask)
                    return builder.load(place, align=4)

                def one(index: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
                    row, following = builder.mul(index, step), []
                    target = builder.mul(index, INT(4 * VECTOR_WIDTH * vectors))
                    for j, total in enumerate(totals):
                        value = load(at(source, row, j), j)
                        if gated:
                            closed = builder.fcmp_ordered("<=", load(at(gate, row, j), j), zero)
                            value = builder.select(closed, zero, value)
                        builder.store(value, at(panel, target, j), align=4)
                        following.append(builder.fadd(total, value))
                    return following

                totals = repeat(builder, rows, [zero] * vectors, one)
                with builder.if_then(builder.icmp_signed("!=", sums, INT(0))):
                    for j, total in enumerate(totals):
                        place = at(sums, INT(0), j)
                        new = builder.fadd(load(place, j), total)
                        if cut and j == vectors - 1:
                            store_lanes(builder, new, place, mask)
                        else:
                            builder.store(new, place, align=4)

            vectors = builder.sdiv(builder.add(columns, INT(VECTOR_WIDTH - 1)), INT(VECTOR_WIDTH))
            whole, open_ = (builder.icmp_signed("==", value, INT(0)) for value in (rest, gate))
            for count, cut, gated in itertools.product((1, 2), (False, True), (False, True)):
                chosen = builder.and_(
                    builder.icmp_signed("==", vectors, INT(count)),
                    builder.and_(
                        builder.not_(whole) if cut else whole,
                        builder.not_(open_) if gated else open_,
                    ),
                )
                with builder.if_then(chosen):
                    move(count, cut, gated)
            return context.get_dummy_value()

        return types.void(arguments), codegen

    @intrinsic
    def copy_pieces(typingctx, target, apart, source, step, size, count):
        """Copy `count` pieces of at most 16 floats, `step` bytes apart; the copies are `apart`.

        Two vectors that overlap in the middle, of 8 or 4, do what a loop over so few takes
        several times as long for.
        """

        def codegen(context, builder, signature, values):
            target, apart, source, step, size, count = values
            width = builder.mul(size, INT(4))

            def copy(lanes: int) -> None:
                kind = ir.VectorType(FLOAT, lanes)
                last = builder.sub(width, INT(4 * lanes))

                def piece(index: ir.Value, places: list[ir.Value]) -> list[ir.Value]:
                    to, of = places
                    read = [builder.load(at(of, part, kind), align=4) for part in (INT(0), last)]
                    for value, part in zip(read, (INT(0), last)):
                        builder.store(value, at(to, part, kind), align=4)
                    return [builder.add(to, apart), builder.add(of, step)]

                repeat(builder, count, [target, source], piece)

            def at(base: ir.Value, offset: ir.Value, kind: ir.Type) -> ir.Value:
                return builder.inttoptr(builder.add(base, offset), kind.as_pointer())

            def choose(sizes: list[int]) -> None:
                if len(sizes) == 1:
                    return copy(sizes[0])
                enough = builder.icmp_signed(">=", size, INT(sizes[0]))
                with builder.if_else(enough) as (then, otherwise):
                    with then:
                        copy(sizes[0])
                    with otherwise:
                        choose(sizes[1:])

            choose([8, 4, 2, 1])
            return context.get_dummy_value()

        return types.void(target, apart, source, step, size, count), codegen

    @intrinsic
    def _transpose(typingctx, arguments):
        """Copy a square of as many rows as a vector has lanes to where they are columns.

        Each round deals two halves of the rows like cards, lane by lane: after as many rounds as
        the number of lanes has bits, rows and lanes have changed places.
        """

        def codegen(context, builder, signature, values):
            target, width, source, step = (builder.extract_value(values[0], i) for i in range(4))
            half = VECTOR_WIDTH // 2
            lanes = ir.VectorType(ir.IntType(32), VECTOR_WIDTH)
            deals = [
                ir.Constant(lanes, [lane for j in part for lane in (j, VECTOR_WIDTH + j)])
                for part in (range(half), range(half, VECTOR_WIDTH))
            ]

            def at(base: ir.Value, stride: ir.Value, i: int) -> ir.Value:
                place = builder.add(base, builder.mul(stride, INT(4 * i)))
                return builder.inttoptr(place, VECTOR.as_pointer())

            rows = [builder.load(at(source, step, i), align=4) for i in range(VECTOR_WIDTH)]
            for _ in range(VECTOR_WIDTH.bit_length() - 1):
                rows = [
                    builder.shuffle_vector(a, b, deal)
                    for a, b in zip(rows[:half], rows[half:]) for deal in deals
                ]  # fmt: skip
            for i, row in enumerate(rows):
                builder.store(row, at(target, width, i), align=4)
            return context.get_dummy_value()

        return types.void(arguments), codegen

else:  # the plain Python twins

    def ask_to_write(address: int, size: int) -> None:
        pass

    def _transpose(arguments: tuple[int, ...]) -> None:
        target, width, source, step = arguments
        for i in range(VECTOR_WIDTH):
            for j in range(VECTOR_WIDTH):
                floats(target)[j * width + i] = floats(source)[i * step + j]

    def copy_pieces(target: int, apart: int, source: int, step: int, size: int, count: int) -> None:
        for i in range(count):
            floats(target + i * apart)[:size] = floats(source + i * step)[:size]

    def floats(address: int) -> Any:
        """Memory from an address on, as an array without an end."""
        return np.ctypeslib.as_array((ctypes.c_float * 2**28).from_address(int(address)))

    def integers(address: int) -> Any:
        return np.ctypeslib.as_array((ctypes.c_int64 * 2**20).from_address(int(address)))

    def octets(address: int) -> Any:
        return np.ctypeslib.as_array((ctypes.c_uint8 * 2**28).from_address(int(address)))

    def _move_rows(arguments: tuple[int, ...]) -> None:
        panel, source, gate, step, rows, columns, sums = arguments
        width = panel_width(columns)
        for row in range(rows):
            value = floats(source + row * step)[:columns]
            if gate:
                value = np.where(floats(gate + row * step)[:columns] <= 0, np.float32(0), value)
            target = floats(panel)[row * width : (row + 1) * width]
            target[:columns], target[columns:] = value, 0
            if sums:
                floats(sums)[:columns] += value


@inner
def address(array, start):
    """The address of an array's element `start`."""
    return array.ctypes.data + 4 * start


@inner
def fill(target, start, value, count):
    """``target[start : start + count] = value`` on flat memory."""
    to = floats(address(target, start))
    for i in range(count):
        to[i] = value


@inner
def copy(target, t0, source, s0, count):
    """``target[t0 : t0 + count] = source[s0 : s0 + count]`` on flat memory."""
    to, of = floats(address(target, t0)), floats(address(source, s0))
    for i in range(count):
        to[i] = of[i]


@inner
def grain(work):
    """Work items a thread should at least have when each is `work` multiply-adds."""
    return 1 + GRAIN // max(work, 1)


@inner
def panels(columns):
    """Panels that `columns` columns are cut into."""
    return (columns + PANEL - 1) // PANEL


@inner
def panel_width(columns):
    """Distance of the rows in a panel that holds `columns` columns."""
    return PANEL if columns > VECTOR_WIDTH else VECTOR_WIDTH


@inner
def panel_size(rows, columns):
    """Floats that a matrix of `rows` x `columns` takes when packed into panels."""
    return rows * ((columns + VECTOR_WIDTH - 1) // VECTOR_WIDTH * VECTOR_WIDTH)


@once(7)
def move_rows(panel, source, gate, step, rows, columns, sums):
    """Move `rows` rows into a panel; all arguments but the two sizes are addresses or bytes.

    `step` is the distance of the rows at the source. With a gate, what it closes (at or below 0)
    becomes 0. With `sums`, the columns are added to them.
    """
    _move_rows((panel, source, gate, step, rows, columns, sums))


@once(6)
def turn_columns(panel, width, b, bn, K, columns):
    """Pack a panel of a matrix whose columns are contiguous: squares through registers.

    Number by number, the gradient of a dense layer's input (512 to 512) takes 1.6 times as long.
    """
    whole_K, whole = K // VECTOR_WIDTH * VECTOR_WIDTH, columns // VECTOR_WIDTH * VECTOR_WIDTH
    for k in range(0, whole_K, VECTOR_WIDTH):
        for j in range(0, whole, VECTOR_WIDTH):
            _transpose((panel + 4 * (k * width + j), width, b + 4 * (j * bn + k), bn))
    target, source = floats(panel), floats(b)
    for j in range(columns):
        for k in range(whole_K if j < whole else 0, K):
            target[k * width + j] = source[k + j * bn]
    for k in range(K):
        for j in range(columns, width):
            target[k * width + j] = 0


@inner
def pack_panel_at(panel, b, bk, bn, K, columns):
    """Copy `K` rows by `columns` columns of B into one panel, zeros behind the last column.

    One of the distances `bk` and `bn` is 1.
    """
    if bn == 1:
        move_rows((panel, b, 0, 4 * bk, K, columns, 0))
    else:
        turn_columns((panel, panel_width(columns), b, bn, K, columns))


@inner
def pack_panel(packed, p0, b, b0, bk, bn, K, columns):
    """Pack one panel, or `K` of its rows, at ``packed[p0]``; see ``pack``."""
    pack_panel_at(address(packed, p0), address(b, b0), bk, bn, K, columns)


@inner
def _pack_range(start, stop, worker, packed, b, bk, bn, K, N):
    for p in range(start, stop):
        n = p * PANEL
        pack_panel_at(packed + 4 * n * K, b + 4 * n * bn, bk, bn, K, min(PANEL, N - n))


@once(6)
def panel_pack(packed, b, bk, bn, K, N):
    split(_pack_range, panels(N), grain(8 * K * PANEL), (packed, b, bk, bn, K, N))


@inner
def pack(packed, p0, b, b0, bk, bn, K, N):
    """Pack a `K` x `N` matrix, element (k, n) at ``b0 + k * bk + n * bn``, panel by panel.

    One of the distances is 1.
    Panel p begins at ``p0 + p * PANEL * K``; altogether ``panel_size(K, N)`` floats.
    """
    panel_pack((address(packed, p0), address(b, b0), bk, bn, K, N))
