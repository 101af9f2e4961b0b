"""The one building block: a batch-reduce matrix product.

.. math:: C[m, n] \\; (+)= \\sum_r \\sum_k A[ao[r] + m \\cdot am + k \\cdot ak] \\;
          B[r \\cdot br + k \\cdot ldb + n]

With free strides on A and a table of offsets `ao`, a dense layer, every pass of a convolution
and the recurrent steps are all this product (Georganas et al. 2019, "High-Performance Deep
Learning via a Single Building Block", arXiv:1906.06440). B is read in panels: `PANEL` columns
wide, the last one `VECTOR_WIDTH` wide where that is enough, rows contiguous, so that the inner
loop walks straight through the cache.

Each element of C is one chain of multiply-adds, r outermost, k innermost, however C is cut into
tiles: the same bits for any tile and any number of threads.

Arrays come with the element offset where they begin; inside, everything is an address, so that
each product is compiled once and called by all kernels through a pointer.
"""

import collections
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.jit import (
    INT,
    JIT,
    MAX_WORKERS,
    SIMD,
    VECTOR_WIDTH,
    inner,
    once,
    split,
    thread_count,
)
from minicnnrnn.kernels.panel import (
    FLOAT,
    LINE,
    PANEL,
    VECTOR,
    address,
    ask_to_write,
    copy_pieces,
    fetch,
    floats,
    grain,
    integers,
    pack_panel_at,
    panel_width,
    panels,
    repeat,
)

# Tiles of rows x two vectors, and of rows x one vector. The accumulators and the operands of
# one k fill the register file: 32 registers with AVX-512, 16 without.
WIDE_ROWS, NARROW_ROWS = (14, 14) if SIMD == "avx512" else (6, 12)
ROW_PANELS = 4  # of a tile of a single row

# What happens to C, and whether A or C are far away, behind the caches: bits of `flags`.
OVERWRITE, ACCUMULATE, ADD_BIAS, RELU, FAR, FAR_C = 0, 1, 2, 4, 8, 16
AHEAD = 1024  # bytes of B that are asked for before they are wanted

TILE_FLOATS = PANEL * (max(WIDE_ROWS, NARROW_ROWS) + 1)  # and a row for the bias


# ---------------------------------------------------------------------------------------
# The microkernel
# ---------------------------------------------------------------------------------------


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


if JIT:

    @intrinsic
    def _row(typingctx, arguments):
        """Run the tile of a single row."""

        def codegen(context, builder, signature, values):
            integers = [builder.extract_value(values[0], i) for i in range(14)]
            RowEmitter(builder, integers).emit()
            return context.get_dummy_value()

        return types.void(arguments), codegen

    @intrinsic
    def _tiles(typingctx, rows, wide, count, arguments):
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
    def stack_floats(typingctx, count):
        """The address of a tile's worth of floats on the stack."""

        def codegen(context, builder, signature, values):
            with builder.goto_entry_block():
                tile = builder.alloca(ir.ArrayType(FLOAT, TILE_FLOATS))
            return builder.ptrtoint(tile, INT)

        return types.intp(count), codegen

else:  # the plain Python twins

    def _row(arguments: tuple[int, ...]) -> None:
        c, ldc, a, am, ak, ao, b, ldb, br, K, R, bias, flags, apart = arguments
        for n in range(ROW_PANELS):
            to, of, add = c + 4 * n * PANEL, b + 4 * n * apart, bias + 4 * n * PANEL
            _tiles(1, 1, 1, (to, ldc, a, am, ak, ao, of, ldb, br, K, R, add, flags, 0))

    _stack: collections.deque[Any] = collections.deque(maxlen=64)  # deeper than calls nest

    def stack_floats(count: int) -> int:
        _stack.append(np.zeros(TILE_FLOATS, np.float32))
        return int(_stack[-1].ctypes.data)

    def _tiles(rows: int, wide: int, count: int, arguments: tuple[int, ...]) -> None:
        for tile in range(count):
            c, ldc, a, *others, next_tile = arguments
            place = c + 4 * tile * rows * ldc, ldc, a + 4 * tile * next_tile
            _tile(rows, wide, (*place, *others))

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


@inner
def copy_columns(target, target_step, source, source_step, rows, columns):
    to, of = floats(target), floats(source)
    for i in range(rows):
        for j in range(columns):
            to[i * target_step + j] = of[i * source_step + j]


@inner
def _tile_height(rows, height):
    """How many tiles cover the rows, the lower height, and how many are a row higher."""
    tiles = (rows + height - 1) // height
    return tiles, rows // tiles, rows % tiles


@once(7)
def pack_transposed(to, depth, first, source, stride, K, M):
    """Copy `K` rows of `M` columns to where ``gemm_block`` reads their transpose with `ak` zero.

    The `M` rows of the transpose are cut into the tiles of a full panel. A tile holds the elements
    of each k one behind the other, `depth` of them, of which these are the ones from `first` on;
    the tile of row m begins at ``to + 4 * m * depth``.

    Read where they are, those few elements are a cache line of their own for each k, and tiles
    wait for the L2 cache: an LSTM's weight gradients take 0.90 to 0.97 of the time with a copy.
    """
    tiles, low, high = _tile_height(M, WIDE_ROWS)
    lower = high * (low + 1)
    for k in range(K):
        row, n = source + 4 * k * stride, 4 * (first + k)
        copy_pieces(to + n * (low + 1), 4 * (low + 1) * depth, row, 4 * (low + 1), low + 1, high)
        copy_pieces(
            to + 4 * lower * depth + n * low, 4 * low * depth, row + 4 * lower, 4 * low, low,
            tiles - high,
        )  # fmt: skip


@once(15)
def gemm_block(c, ldc, M, columns, a, am, ak, ao, b, ldb, br, K, R, bias, flags):
    """`M` rows by at most `PANEL` columns of the product; all pointers are addresses.

    The rows are cut into tiles of nearly equal height: 26 rows are 5 + 5 + 5 + 5 + 6, never
    4 x 6 and a slow rest of 2. A panel that is not full goes through a tile on the stack. With
    `ak` zero A is what ``pack_transposed`` has made, and `am` its `K`.
    """
    wide = 1 if columns > VECTOR_WIDTH else 0
    width = PANEL if wide else VECTOR_WIDTH
    height = WIDE_ROWS if wide or ak == 0 else NARROW_ROWS
    tiles, low, high = _tile_height(M, height)
    step = 1 if ak == 0 else am
    scratch = stack_floats(TILE_FLOATS)
    bias_row = bias
    full = columns == width
    if flags & ADD_BIAS and not full:
        bias_row = scratch + 4 * height * width
        copy_columns(bias_row, width, bias, 0, 1, columns)
    m = 0
    while m < M:  # all tiles of one height at once; one by one through the stack
        higher = m < high * (low + 1)
        rows = low + 1 if higher else low
        count = 1
        if full:
            count = high if higher else tiles - high
        c_tile = c + 4 * m * ldc
        if not full and flags & ACCUMULATE:
            copy_columns(scratch, width, c_tile, ldc, rows, columns)
        _tiles(rows, wide, count, (
            c_tile if full else scratch, ldc if full else width, a + 4 * m * am, step,
            rows if ak == 0 else ak, ao, b, ldb, br, K, R, bias_row, flags, rows * am,
        ))  # fmt: skip
        if not full:
            copy_columns(c_tile, ldc, scratch, width, rows, columns)
        m += rows * count


@once(10)
def gemm_row(c, a, ak, zero, packed, apart, K, n, bias, flags):
    """A single row of C, `n` times `ROW_PANELS` panels wide."""
    for i in range(n):
        begin = i * ROW_PANELS * PANEL
        _row((
            c + 4 * begin, 0, a, 0, ak, zero, packed + 4 * i * ROW_PANELS * apart, PANEL, 0, K, 1,
            bias + 4 * begin, flags, apart,
        ))  # fmt: skip


@inner
def gemm_panels(c, ldc, M, N, a, am, ak, zero, packed, depth, skip, K, bias, flags):
    """C (M, N) = A (M, K) times rows `skip` to ``skip + K`` of a packed matrix of `depth` rows."""
    done = 0
    if M == 1 and N >= ROW_PANELS * PANEL:
        count = N // (ROW_PANELS * PANEL)
        first = packed + 4 * skip * PANEL
        gemm_row((c, a, ak, zero, first, depth * PANEL, K, count, bias, flags))
        done = count * ROW_PANELS * PANEL
    for n in range(done, N, PANEL):
        # Where C is far away, the lines that the next panel is written to are asked for: forward
        # in training, a GRU takes 0.95 of the time, an LSTM 0.96 to 0.98.
        if flags & FAR_C and n + PANEL < N:
            for m in range(M):
                ask_to_write(c + 4 * (m * ldc + n + PANEL), 4 * PANEL)
        width = min(PANEL, N - n)
        ldb = panel_width(width)
        gemm_block((
            c + 4 * n, ldc, M, width, a, am, ak, zero, packed + 4 * (n * depth + skip * ldb), ldb,
            0, K, 1, bias + 4 * n, flags,
        ))  # fmt: skip


@inner
def block(c, c0, ldc, M, columns, a, a0, am, ak, ws, ao, b, b0, ldb, br, K, R, bias, bias0, flags):
    """One block of the product; arrays come with the element offset where they begin.

    Parameters
    ----------
    c, c0, ldc : the output, where its block begins and the distance of its rows
    M, columns : rows of the block and columns of the panel (at most `PANEL`)
    a, a0, am, ak : A, its start, the strides of m and k
    ws, ao : the array that holds the table of offsets by r, and where (see ``set_offset``)
    b, b0, ldb, br : B, its start, the distance of its rows and of its matrices by r
    K, R : lengths of the two sums, at least one
    bias, bias0 : added if `flags` has ``ADD_BIAS``
    flags : ``OVERWRITE``, or the sum of ``ACCUMULATE`` or ``ADD_BIAS``, ``RELU``, ``FAR`` and
        ``FAR_C``
    """
    gemm_block((
        address(c, c0), ldc, M, columns, address(a, a0), am, ak, address(ws, ao), address(b, b0),
        ldb, br, K, R, address(bias, bias0), flags,
    ))  # fmt: skip


@inner
def set_offset(ws, table, r, offset):
    """Entry `r` of the table of offsets at ``ws[table]``; it takes two floats' room."""
    integers(address(ws, table))[r] = offset


# ---------------------------------------------------------------------------------------
# Whole products, in parallel
# ---------------------------------------------------------------------------------------

ROW_BLOCK = 256  # rows of C that a work item computes at most
LOW_BLOCK = 56  # rows that are not cut for the sake of more items
ITEMS = 16  # that few threads can share evenly
CACHED = 1 << 19  # floats of A that an L2 cache could still hold
DEPTH_BLOCK = 256  # rows of B that are packed at a time: a packed panel stays in the L1 cache


@inner
def _row_block(M, columns):
    """Rows of a work item: items of one size, so that threads have equal shares.

    ``gemm_block`` makes tiles of any height. With items of whole tiles, 128 rows are 70 and 58:
    a thread waits for the other one for a sixth of its time. Whole columns of panels are better
    still, as each thread then reads its own part of B: 0.87 of the time for 128 rows.
    """
    least = (M + ROW_BLOCK - 1) // ROW_BLOCK
    wanted = min((ITEMS + panels(columns) - 1) // panels(columns), M // LOW_BLOCK)
    blocks = max(least, wanted)
    return (M + blocks - 1) // blocks


@inner
def _product_range(
    start, stop, worker, c, ldc, a, am, ak, packed, M, N, K, bias, flags, zero, block
):  # fmt: skip
    count = panels(N)
    if M == 1:
        n = start * PANEL
        gemm_panels(
            c + 4 * n, ldc, 1, min(N, stop * PANEL) - n, a, am, ak, zero, packed + 4 * n * K, K, 0,
            K, bias + 4 * n, flags,
        )  # fmt: skip
        return
    for item in range(start, stop):
        m, n = item // count * block, item % count * PANEL
        columns = min(PANEL, N - n)
        gemm_block((
            c + 4 * (m * ldc + n), ldc, min(block, M - m), columns, a + 4 * m * am, am, ak,
            zero, packed + 4 * n * K, panel_width(columns), 0, K, 1, bias + 4 * n, flags,
        ))  # fmt: skip


@once(11)
def gemm_product(c, ldc, a, am, ak, packed, M, N, K, bias, flags):
    zero = stack_floats(2)
    integers(zero)[0] = 0
    block = _row_block(M, N)
    items = (M + block - 1) // block * panels(N)
    work = min(M, block) * PANEL * K
    flags += FAR if M * K >= CACHED else 0
    arguments = (c, ldc, a, am, ak, packed, M, N, K, bias, flags, zero, block)
    split(_product_range, items, grain(work), arguments)


@inner
def product(c, c0, ldc, a, a0, am, ak, packed, p0, M, N, K, bias, flags):
    """C (M, N) = A (M, K) times a packed B (K, N); parallel over blocks of C."""
    gemm_product((
        address(c, c0), ldc, address(a, a0), am, ak, address(packed, p0), M, N, K,
        address(bias, 0), flags,
    ))  # fmt: skip


@inner
def _transposed_range(start, stop, worker, c, a, b, M, N, K, zero, scratch, block):
    count = panels(N)
    panel = scratch + 4 * worker * DEPTH_BLOCK * (PANEL + block)
    columns = panel + 4 * DEPTH_BLOCK * PANEL
    item = start
    while item < stop:  # a block of A's columns, and all the panels of this range that meet it
        m, first = item // count * block, item % count
        last, rows = min(count, first + stop - item), min(block, M - m)
        for k in range(0, K, DEPTH_BLOCK):
            depth = min(DEPTH_BLOCK, K - k)
            pack_transposed((columns, depth, 0, a + 4 * (k * M + m), M, depth, rows))
            for n in range(first * PANEL, min(N, last * PANEL), PANEL):
                width = min(PANEL, N - n)
                pack_panel_at(panel, b + 4 * (k * N + n), N, 1, depth, width)
                gemm_block((
                    c + 4 * (m * N + n), N, rows, width, columns, depth, 0, zero, panel,
                    panel_width(width), 0, depth, 1, 0, ACCUMULATE if k else OVERWRITE,
                ))  # fmt: skip
        item += last - first


@once(7)
def gemm_transposed(c, a, b, M, N, K, scratch):
    zero = stack_floats(2)
    integers(zero)[0] = 0
    blocks, threads = (M + ROW_BLOCK - 1) // ROW_BLOCK, thread_count()
    even = (blocks + threads - 1) // threads * threads  # else two threads pack the same columns
    blocks = even if even * LOW_BLOCK <= M else blocks
    block = (M + blocks - 1) // blocks
    items = (M + block - 1) // block * panels(N)
    work = min(M, block) * PANEL * K
    split(_transposed_range, items, grain(work), (c, a, b, M, N, K, zero, scratch, block))


@inner
def product_transposed(c, c0, a, a0, b, b0, M, N, K, ws, s0):
    """C (M, N) = Aᵀ B with A (K, M) and B (K, N): a weight gradient; parallel over tiles of C.

    Uses ``product_transposed_workspace()`` floats of `ws` from `s0` on.
    """
    gemm_transposed((address(c, c0), address(a, a0), address(b, b0), M, N, K, address(ws, s0)))


@inner
def product_transposed_workspace():
    return MAX_WORKERS * DEPTH_BLOCK * (PANEL + ROW_BLOCK)


@inner
def _sum_range(start, stop, worker, sums, x, rows, columns, parts):
    source = floats(x)
    for part in range(start, stop):
        total = floats(sums + 4 * part * columns)
        for j in range(columns):
            total[j] = 0
        for i in range(rows * part // parts, rows * (part + 1) // parts):
            for j in range(columns):
                total[j] += source[i * columns + j]


@once(5)
def gemm_sum_rows(total, x, rows, columns, ws):
    parts = min(PARTS, 1 + rows // 64)
    work = 8 * (rows // parts + 1) * columns
    split(_sum_range, parts, grain(work), (ws, x, rows, columns, parts))
    to, sums = floats(total), floats(ws)
    for j in range(columns):
        to[j] = sums[j]
    for part in range(1, parts):
        for j in range(columns):
            to[j] += sums[part * columns + j]


@inner
def sum_rows(total, x, rows, columns, ws, s0):
    """Sum of the `rows` rows of `x`: a bias gradient.

    The rows are cut into at most `PARTS` partial sums, added in order: bits do not depend on
    threads. Uses ``PARTS * columns`` floats of `ws` from `s0` on.
    """
    gemm_sum_rows((address(total, 0), address(x, 0), rows, columns, address(ws, s0)))
