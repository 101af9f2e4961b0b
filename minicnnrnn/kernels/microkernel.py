"""The microkernel: tiles of a product as LLVM instructions, all of it in registers.

A tile is some rows of C by one vector or two. Its accumulators stay in registers while k goes by:
a row of B is loaded, and an element of A in all lanes meets its vectors. With two vectors to an
element, loading elements takes half of the time of multiplying. With one it takes all of it, and
what else is loaded is waited for: two other tiles then load nothing else. One holds a short B in
registers while the rows of A go by (``HeldEmitter``), the other knows that the elements of A lie
side by side (``ColumnEmitter``).

Letters are those of ``gemm.py``.
"""

import collections
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnnrnn.kernels.jit import INT, JIT, SIMD, VECTOR_WIDTH
from minicnnrnn.kernels.panel import FLOAT, LINE, PANEL, VECTOR, fetch, floats, integers, repeat

# Tiles of rows x two vectors, and of rows x one vector. The accumulators and the operands of
# one k fill the register file: 32 registers with AVX-512, 16 without.
WIDE_ROWS, NARROW_ROWS = (14, 14) if SIMD == "avx512" else (6, 12)
ROW_PANELS = 4  # of a tile of a single row

# What happens to C, and whether A or C are far away, behind the caches: bits of `flags`.
OVERWRITE, ACCUMULATE, ADD_BIAS, RELU, FAR, FAR_C = 0, 1, 2, 4, 8, 16
AHEAD = 1024  # bytes of B that are asked for before they are wanted

TILE_FLOATS = PANEL * (max(WIDE_ROWS, NARROW_ROWS) + 1)  # and a row for the bias

# Rows of B that registers hold, or of a tile whose elements of A lie side by side; and rows of A
# that go by at a time.
HELD, HELD_ROWS = VECTOR_WIDTH, 8 if SIMD == "avx512" else 6


class TileEmitter:
    """Emits one tile of `rows` x `vectors` accumulators as LLVM instructions.

    A subclass may multiply with something else of A, and load and store in another way.
    """

    asks = True  # for memory that it will want soon

    def __init__(self, builder: ir.IRBuilder, rows: int, vectors: int, arguments: list[ir.Value]):
        self.builder, self.rows, self.vectors = builder, rows, vectors
        (self.c, self.ldc, self.a, self.am, self.ak, self.ao, self.b, self.ldb, self.br,
         self.K, self.R, self.bias, self.flags) = arguments  # fmt: skip
        self.next_tile: ir.Value = INT(0)  # bytes of A from a tile to the one below
        self.multiply_add = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(VECTOR, [VECTOR] * 3),
            f"llvm.fmuladd.v{VECTOR_WIDTH}f32",
        )

    def grid(self, make: Any) -> list[list[Any]]:
        """``make(row, vector)`` for every accumulator."""
        return [[make(i, j) for j in range(self.vectors)] for i in range(self.rows)]

    def pointer(self, address: ir.Value, column: int, kind: ir.Type) -> ir.Value:
        """`column` vectors after the address."""
        address = self.builder.add(address, INT(4 * VECTOR_WIDTH * column))
        return self.builder.inttoptr(address, kind.as_pointer())

    def load(self, address: ir.Value, column: int = 0) -> ir.Value:
        """A vector from memory."""
        return self.builder.load(self.pointer(address, column, VECTOR), align=4)

    def row_of_b(self, address: ir.Value) -> list[ir.Value]:
        """The vectors of a row of B; those that come soon are asked for.

        Panels come from the L2 cache when they are first read, and a tile has to wait for that
        longer than it can look ahead: asking takes an LSTM (256) to 0.89 of its time, an MLP's
        forward passes to 0.9, winograd's products of 128 channels, too. Those of one vector do
        without: what multiplies half as much has no time to ask (16 channels: 0.93 to 0.97).
        """
        for line in range(0, 4 * PANEL if self.vectors == 2 else 0, LINE):
            self.fetch(self.builder.add(address, INT(AHEAD + line)))
        return [self.load(address, j) for j in range(self.vectors)]

    def fetch(self, address: ir.Value) -> None:
        """Ask for a line of memory that will be read."""
        if self.asks:
            fetch(self.builder, address)

    def store(self, value: ir.Value, address: ir.Value, column: int) -> None:
        """A vector to memory."""
        self.builder.store(value, self.pointer(address, column, VECTOR), align=4)

    def factors(self, address: ir.Value) -> list[ir.Value]:
        """What the vectors of a row of B are multiplied with: one element of A in all lanes."""
        element = self.builder.load(self.pointer(address, 0, FLOAT))
        return [self.broadcast(element)] * self.vectors

    def broadcast(self, scalar: ir.Value) -> ir.Value:
        """The scalar in all lanes."""
        undefined, lane = ir.Constant(VECTOR, ir.Undefined), ir.IntType(32)
        vector = self.builder.insert_element(undefined, scalar, lane(0))
        lanes = ir.Constant(ir.VectorType(lane, VECTOR_WIDTH), [0] * VECTOR_WIDTH)
        return self.builder.shuffle_vector(vector, undefined, lanes)

    def row_of_c(self, i: int) -> ir.Value:
        """The address of a row of C."""
        return self.builder.add(self.c, self.builder.mul(self.ldc, INT(4 * i)))

    def has(self, flag: int) -> ir.Value:
        """Whether the flag is set."""
        return self.builder.icmp_signed("!=", self.builder.and_(self.flags, INT(flag)), INT(0))

    def choose(self, condition: ir.Value, yes: Any, no: Any) -> list[list[ir.Value]]:
        """Two ways to make the grid of accumulators, joined by phi nodes."""
        builder = self.builder
        with builder.if_else(condition) as (then, otherwise):
            with then:
                first, first_block = yes(), builder.block
            with otherwise:
                second, second_block = no(), builder.block

        def join(i: int, j: int) -> ir.Value:
            phi = builder.phi(VECTOR)
            phi.add_incoming(first[i][j], first_block)
            phi.add_incoming(second[i][j], second_block)
            return phi

        return self.grid(join)

    def start(self) -> list[list[ir.Value]]:
        """The accumulators' first values: what C holds, the bias, or zero."""
        zero = ir.Constant(VECTOR, [0.0] * VECTOR_WIDTH)

        def bias() -> list[list[ir.Value]]:
            columns = [self.load(self.bias, j) for j in range(self.vectors)]
            return self.grid(lambda i, j: columns[j])

        def fresh() -> list[list[ir.Value]]:
            return self.choose(self.has(ADD_BIAS), bias, lambda: self.grid(lambda i, j: zero))

        def old() -> list[list[ir.Value]]:
            return self.grid(lambda i, j: self.load(self.row_of_c(i), j))

        return self.choose(self.has(ACCUMULATE), old, fresh)

    def loop(
        self, count: ir.Value, walks: list[Any], sums: list[list[ir.Value]], body: Any
    ) -> list[list[ir.Value]]:
        """``for each of count: sums = body(sums, walkers)``; `count` is at least one.

        `walks` are pairs (start, step): integers that take a step each time. Left to itself,
        LLVM multiplies anew for every address.
        """
        builder = self.builder
        before, top = builder.block, builder.append_basic_block("loop")
        after = builder.append_basic_block("after")
        builder.branch(top)
        builder.position_at_end(top)
        walkers = [builder.phi(INT) for _ in range(len(walks) + 1)]
        carried = self.grid(lambda i, j: builder.phi(VECTOR))
        result = body(carried, walkers[1:])
        self.grid(lambda i, j: carried[i][j].add_incoming(sums[i][j], before))
        self.grid(lambda i, j: carried[i][j].add_incoming(result[i][j], builder.block))
        for walker, (start, step) in zip(walkers, [(count, INT(-1)), *walks]):
            walker.add_incoming(start, before)
            walker.add_incoming(builder.add(walker, step), builder.block)
        more = builder.icmp_signed(">", walkers[0], INT(1))
        builder.cbranch(more, top, after)
        builder.position_at_end(after)
        return result

    def rows_of_a(self) -> list[tuple[ir.Value, int]]:
        """Where the rows of A are, in bytes from the first: a number to be shifted, and how far.

        A processor's address is a register and another one times 1, 2, 4 or 8, so that seven
        registers are enough for fourteen rows, and none has to be fetched from the stack.
        """
        am = self.builder.mul(self.am, INT(4))
        odd = {i: self.hidden(self.builder.mul(am, INT(i))) for i in range(1, self.rows, 2)}
        shifts = [(i & -i).bit_length() - 1 for i in range(1, self.rows)]
        return [(INT(0), 0), *((odd[i >> shift], shift) for i, shift in enumerate(shifts, 1))]

    def hidden(self, value: ir.Value) -> ir.Value:
        """The same integer, of which LLVM does not know where it comes from.

        It would find every row's place from the one before, and the next k's from the last: a
        chain of additions as long as the multiply-adds take. Without that chain predictions of an
        LSTM (256) take 0.90 of the time, of a Conv3D 0.93.
        """
        kind = ir.FunctionType(INT, [INT])
        return self.builder.call(ir.InlineAsm(kind, "", "=r,0"), [value])

    def emit_all(self, count: ir.Value, next_tile: ir.Value, rows_of_c: int) -> None:
        """`count` tiles one below the other; those of A are `next_tile` floats apart."""
        step_c = self.builder.mul(self.ldc, INT(4 * rows_of_c))
        self.next_tile = step_a = self.builder.mul(next_tile, INT(4))

        def tile(index: ir.Value, places: list[ir.Value]) -> list[ir.Value]:
            self.c, self.a = places
            self.emit()
            return [self.builder.add(self.c, step_c), self.builder.add(self.a, step_a)]

        repeat(self.builder, count, [self.c, self.a], tile)

    def emit(self) -> None:
        """The tile: two loops around its multiply-adds, and the epilogue."""
        builder = self.builder
        ak, ldb, br = (builder.mul(n, INT(4)) for n in (self.ak, self.ldb, self.br))
        rows, far = self.rows_of_a(), self.has(FAR)
        # Rows of A that are far away are asked for a tile before they are wanted: a product of
        # 32,768 rows takes 0.75 to 0.9 of the time.
        step = builder.select(far, self.next_tile, INT(0))
        pace = builder.select(far, INT(4 * self.rows), INT(0))

        def reduce(sums: list[list[ir.Value]], walkers: list[ir.Value]) -> list[list[ir.Value]]:
            entry, panel = walkers
            offset = builder.load(builder.inttoptr(entry, INT.as_pointer()))
            column = builder.add(self.a, builder.mul(offset, INT(4)))
            following = self.hidden(builder.add(column, step))
            walks = [(column, ak), (panel, ldb), (following, pace)]
            return self.loop(self.K, walks, sums, multiply)

        def multiply(sums: list[list[ir.Value]], walkers: list[ir.Value]) -> list[list[ir.Value]]:
            column, row_of_b, following = walkers
            self.fetch(following)
            b = self.row_of_b(row_of_b)
            result = []
            for i, (base, shift) in enumerate(rows):
                a = self.factors(builder.add(column, builder.shl(base, INT(shift))))
                result.append(
                    [builder.call(self.multiply_add, [a[j], b[j], sums[i][j]])
                     for j in range(self.vectors)]
                )  # fmt: skip
            return result

        walks = [(self.ao, INT(8)), (self.b, br)]
        self.finish(self.loop(self.R, walks, self.start(), reduce))

    def finish(self, sums: list[list[ir.Value]]) -> None:
        """What happens to the sums on their way to C."""
        builder = self.builder
        zero = ir.Constant(VECTOR, [0.0] * VECTOR_WIDTH)

        def rectified() -> list[list[ir.Value]]:
            def relu(i: int, j: int) -> ir.Value:  # a NaN compares false and so stays
                return builder.select(builder.fcmp_ordered("<", sums[i][j], zero), zero, sums[i][j])

            return self.grid(relu)

        sums = self.choose(self.has(RELU), rectified, lambda: sums)
        for i in range(self.rows):
            for j in range(self.vectors):
                self.store(sums[i][j], self.row_of_c(i), j)


class RowEmitter(TileEmitter):
    """Emits a single row of C that is several panels wide; these are `apart` floats apart.

    A multiply-add can begin in every half cycle, and takes four: a row of one panel, two chains,
    would mostly wait. An LSTM (128) goes through one sequence in 0.6 of the time.
    """

    asks = False

    def __init__(self, builder: ir.IRBuilder, arguments: list[ir.Value]):
        super().__init__(builder, 1, 2 * ROW_PANELS, arguments[:13])
        self.apart = builder.mul(arguments[13], INT(4))

    def row_of_b(self, address: ir.Value) -> list[ir.Value]:
        """Two vectors of the same row of each of the panels; some rows ahead are asked for.

        One sample of a recurrent layer does little but read them: 0.85 to 0.9 of the time.
        """
        starts = (self.builder.mul(self.apart, INT(panel)) for panel in range(ROW_PANELS))
        places = [self.builder.add(address, start) for start in starts]
        for place in places:
            for line in range(0, 4 * PANEL, LINE):
                fetch(self.builder, self.builder.add(place, INT(AHEAD // 2 + line)))
        return [self.load(place, j) for place in places for j in range(2)]


class HeldEmitter(TileEmitter):
    """Emits rows of C of one vector, where B is as short as a vector and stays in registers.

    Elements of A are then all that is loaded. A product of 16 x 16 takes 0.6 of the time that
    tiles take which load a row of B for each k, winograd's forward pass of 16 channels to as many
    0.85.
    """

    def __init__(self, builder: ir.IRBuilder, rows: int, arguments: list[ir.Value]):
        super().__init__(builder, rows, 1, arguments)
        step = builder.mul(self.ldb, INT(4))
        places = (builder.add(self.b, builder.mul(step, INT(k))) for k in range(HELD))
        self.held = [self.load(place) for place in places]

    def emit(self) -> None:
        """The tile: all multiply-adds one after another, and the epilogue."""
        builder, sums = self.builder, self.start()
        step = builder.mul(self.am, INT(4))
        # Addresses without an index are one instruction with the multiply-add that loads from them.
        rows = [self.hidden(builder.add(self.a, builder.mul(step, INT(i))))
                for i in range(self.rows)]  # fmt: skip
        for k in range(HELD):
            for i, row in enumerate(rows):
                (a,) = self.factors(builder.add(row, INT(4 * k)))
                sums[i] = [builder.call(self.multiply_add, [a, self.held[k], sums[i][0]])]
        self.finish(sums)


class ColumnEmitter(TileEmitter):
    """Emits a tile of one vector whose elements of A lie side by side for each k.

    Two k at a time: with one, counting takes a sixth of the time. Winograd's weight gradients of
    16 channels by as many take 0.9 of the time.
    """

    def emit(self) -> None:
        """The tile: if K is odd, a single k, then pairs of them, and the epilogue."""
        builder, one = self.builder, INT(1)
        step_a, step_b = (builder.mul(n, INT(4)) for n in (self.ak, self.ldb))
        odd, pairs = builder.and_(self.K, one), builder.lshr(self.K, one)

        def add(sums: list[list[ir.Value]], a: ir.Value, b: ir.Value) -> list[list[ir.Value]]:
            row = self.load(b)
            return [
                [builder.call(self.multiply_add,
                              [self.factors(builder.add(a, INT(4 * i)))[0], row, sums[i][0]])]
                for i in range(self.rows)
            ]  # fmt: skip

        def both(sums: list[list[ir.Value]], walkers: list[ir.Value]) -> list[list[ir.Value]]:
            a, b = walkers
            return add(add(sums, a, b), builder.add(a, step_a), builder.add(b, step_b))

        first = self.start()
        is_odd = builder.icmp_signed("!=", odd, INT(0))
        sums = self.choose(is_odd, lambda: add(first, self.a, self.b), lambda: first)
        starts = (
            builder.add(base, builder.mul(odd, step))
            for base, step in ((self.a, step_a), (self.b, step_b))
        )
        walks = [(start, builder.add(step, step)) for start, step in zip(starts, (step_a, step_b))]
        more = builder.icmp_signed(">", pairs, INT(0))
        self.finish(self.choose(more, lambda: self.loop(pairs, walks, sums, both), lambda: sums))


if JIT:

    @intrinsic
    def run_row(typingctx, arguments):
        """Run the tile of a single row."""

        def codegen(context, builder, signature, values):
            integers = [builder.extract_value(values[0], i) for i in range(14)]
            RowEmitter(builder, integers).emit()
            return context.get_dummy_value()

        return types.void(arguments), codegen

    @intrinsic
    def run_tiles(typingctx, rows, wide, count, arguments):
        """Run tiles with this many rows: a switch over all that were compiled."""

        def codegen(context, builder, signature, values):
            integers = [builder.extract_value(values[3], i) for i in range(14)]
            done = builder.append_basic_block("done")
            key = builder.add(values[0], builder.mul(values[1], INT(100)))
            switch = builder.switch(key, done)
            sizes = [(rows, 1) for rows in range(1, NARROW_ROWS + 1)]
            sizes += [(rows, 2) for rows in range(1, WIDE_ROWS + 1)]
            for rows, vectors in sizes:
                block = builder.append_basic_block(f"tile_{rows}x{vectors}")
                switch.add_case(INT(rows + 100 * (vectors - 1)), block)
                builder.position_at_end(block)
                emitter = TileEmitter(builder, rows, vectors, integers[:13])
                emitter.emit_all(values[2], integers[13], rows)
                builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(rows, wide, count, arguments), codegen

    @intrinsic
    def run_held(typingctx, tiles, rest, arguments):
        """Run tiles of `HELD_ROWS` rows whose B is held in registers, and then single rows."""

        def codegen(context, builder, signature, values):
            tiles, rest, packed = values
            c, ldc, a, am, *others = (builder.extract_value(packed, i) for i in range(13))
            done = builder.mul(tiles, INT(4 * HELD_ROWS))
            lower = builder.add(c, builder.mul(ldc, done)), builder.add(a, builder.mul(am, done))
            for rows, count, places in ((HELD_ROWS, tiles, (c, a)), (1, rest, lower)):
                emitter = HeldEmitter(builder, rows, [places[0], ldc, places[1], am, *others])
                emitter.emit_all(count, builder.mul(am, INT(rows)), rows)
            return context.get_dummy_value()

        return types.void(tiles, rest, arguments), codegen

    @intrinsic
    def run_columns(typingctx, count, arguments):
        """Run tiles of `HELD` rows whose elements of A lie side by side."""

        def codegen(context, builder, signature, values):
            integers = [builder.extract_value(values[1], i) for i in range(13)]
            emitter = ColumnEmitter(builder, HELD, 1, integers)
            emitter.emit_all(values[0], INT(HELD), HELD)
            return context.get_dummy_value()

        return types.void(count, arguments), codegen

    @intrinsic
    def stack_floats(typingctx, count):
        """The address of a tile's worth of floats on the stack."""

        def codegen(context, builder, signature, values):
            with builder.goto_entry_block():
                tile = builder.alloca(ir.ArrayType(FLOAT, TILE_FLOATS))
            return builder.ptrtoint(tile, INT)

        return types.intp(count), codegen

else:  # the plain Python twins

    def run_row(arguments: tuple[int, ...]) -> None:
        c, ldc, a, am, ak, ao, b, ldb, br, K, R, bias, flags, apart = arguments
        for n in range(ROW_PANELS):
            to, of, add = c + 4 * n * PANEL, b + 4 * n * apart, bias + 4 * n * PANEL
            run_tiles(1, 1, 1, (to, ldc, a, am, ak, ao, of, ldb, br, K, R, add, flags, 0))

    _stack: collections.deque[Any] = collections.deque(maxlen=64)  # deeper than calls nest

    def stack_floats(count: int) -> int:
        _stack.append(np.zeros(TILE_FLOATS, np.float32))
        return int(_stack[-1].ctypes.data)

    def run_tiles(rows: int, wide: int, count: int, arguments: tuple[int, ...]) -> None:
        for tile in range(count):
            c, ldc, a, *others, next_tile = arguments
            place = c + 4 * tile * rows * ldc, ldc, a + 4 * tile * next_tile
            _tile(rows, wide, (*place, *others))

    def run_held(tiles: int, rest: int, arguments: tuple[int, ...]) -> None:
        c, ldc, a, am, ak, _, *others = arguments
        zero = stack_floats(0)
        run_tiles(1, 0, tiles * HELD_ROWS + rest, (c, ldc, a, am, ak, zero, *others, am))

    def run_columns(count: int, arguments: tuple[int, ...]) -> None:
        c, ldc, a, am, ak, _, *others = arguments
        run_tiles(HELD, 0, count, (c, ldc, a, am, ak, stack_floats(0), *others, HELD))

    def _tile(rows: int, wide: int, arguments: tuple[int, ...]) -> None:
        c, ldc, a, am, ak, ao, b, ldb, br, K, R, bias, flags = arguments
        columns = PANEL if wide else VECTOR_WIDTH

        def window(address: int, height: int, width: int, step: int, stride: int) -> Any:
            return np.lib.stride_tricks.as_strided(
                floats(address), (height, width), (4 * step, 4 * stride)
            )

        out = window(c, rows, columns, ldc, 1)
        total = out.copy() if flags & ACCUMULATE else np.zeros((rows, columns), np.float32)
        if flags & ADD_BIAS and not flags & ACCUMULATE:
            total += floats(bias)[:columns]
        for r in range(R):
            rows_of_a = window(a + 4 * integers(ao)[r], rows, K, am, ak)
            total += rows_of_a @ window(b + 4 * r * br, K, columns, ldb, 1)
        out[:] = np.where(total < 0, 0, total) if flags & RELU else total
