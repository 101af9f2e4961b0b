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

from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.jit import MAX_WORKERS, VECTOR_WIDTH, inner, once, split, thread_count
from minicnnrnn.kernels.microkernel import (
    ACCUMULATE,
    ADD_BIAS,
    FAR,
    FAR_C,
    HELD,
    HELD_ROWS,
    NARROW_ROWS,
    OVERWRITE,
    RELU,
    ROW_PANELS,
    TILE_FLOATS,
    WIDE_ROWS,
    run_columns,
    run_held,
    run_row,
    run_tiles,
    stack_floats,
)
from minicnnrnn.kernels.panel import (
    PANEL,
    address,
    ask_to_write,
    copy_pieces,
    floats,
    grain,
    integers,
    pack_panel_at,
    panel_width,
    panels,
)


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


@inner
def _narrow_block(c, ldc, M, a, am, ak, b, ldb, K, bias, flags):
    """``gemm_block`` for a single vector of columns; 0 if it does not fit what is faster."""
    if ak == 1 and (K == HELD or (K == 2 * HELD and not flags & FAR)):
        for k in range(0, K, HELD):
            now = ACCUMULATE | flags & RELU if k else flags
            now &= -1 if k + HELD == K else ~RELU
            run_held(M // HELD_ROWS, M % HELD_ROWS, (
                c, ldc, a + 4 * k, am, ak, 0, b + 4 * k * ldb, ldb, 0, HELD, 1, bias, now,
            ))  # fmt: skip
        return 1
    if am == 1 and ak > 0 and M % HELD == 0:
        run_columns(M // HELD, (c, ldc, a, am, ak, 0, b, ldb, 0, K, 1, bias, flags))
        return 1
    return 0


@once(15)
def gemm_block(c, ldc, M, columns, a, am, ak, ao, b, ldb, br, K, R, bias, flags):
    """`M` rows by at most `PANEL` columns of the product; all pointers are addresses.

    The rows are cut into tiles of nearly equal height: 26 rows are 5 + 5 + 5 + 5 + 6, never
    4 x 6 and a slow rest of 2. A panel that is not full goes through a tile on the stack. With
    `ak` zero A is what ``pack_transposed`` has made, and `am` its `K`.
    """
    if (
        columns == VECTOR_WIDTH
        and R == 1
        and _narrow_block(c, ldc, M, a + 4 * integers(ao)[0], am, ak, b, ldb, K, bias, flags)
    ):
        return
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
        run_tiles(rows, wide, count, (
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
        run_row((
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
    a thread waits for the other one for a sixth of its time. Items of whole columns let each thread
    read its own part of B, which it has just packed when a model trains: 0.84 to 0.9 of the time
    for 128 rows. An MLP that predicts, and packs nothing, takes 1.03 of it.
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
