"""Matrix products on a GPU: the building block there, as ``gemm.py`` is the CPU's.

One kernel body serves every product. A block of threads computes a tile of C and keeps it in
registers, in quarters of 4 x 4 a thread. Slices of A and B pass through shared memory, which holds
two of each: the next ones are on their way while the sums of these are taken, and one barrier a
slice is enough. They travel through registers, not by ``cp.async``, because something is done to
them on the way: A is turned, so that four rows of a column are one read of 128 bits; the
derivative of a relu is applied; and what tensor cores multiply is rounded once, not at every use.

Functions that a kernel brings along say where elements of A and B come from (a convolution reads
an image through them, without a copy of its windows) and what becomes of C. The grid holds the
tiles along M, those along N, and for each group the parts of a sum over many k, which are added
in order afterwards. Tile and parts depend on the shapes alone, so every GPU gives the same bits.
"""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from minicnnrnn.kernels.gpu import SIMULATED, DeviceArray, GpuFunction, cuda, gpu, launch
from minicnnrnn.kernels.vector import (
    ALIGNMENT,
    MMA_COLUMNS,
    MMA_DEPTH,
    MMA_GROUPS,
    MMA_ROWS,
    MMA_STEP,
    WARP,
    WIDTH,
    load_vector,
    multiply_piece,
    rounded,
    store_vector,
    unrolled,
)

ZERO = np.float32(0)
PROCESSORS = 4 if SIMULATED else 132  # what the choice of tiles reckons with, whatever the GPU
MOST_PARTS = 8 if SIMULATED else 256  # of a sum over k
LEAST_SUM = 16 if SIMULATED else 256  # terms of a part, at least
UNROLLED = 2 if SIMULATED else 4  # terms of sums without a loop
RESIDENT = 256  # threads of a processor, at least: leaves each all the registers it may have
LANE_ROWS, LANE_COLUMNS = (2, 1) if SIMULATED else (8, 4)  # how a warp's threads lie in C


class Tile(NamedTuple):
    """A tile of C, and the threads that share it.

    Attributes
    ----------
    rows, columns : int
        Threads along M and along N.
    quarters : (int, int)
        Pieces of `WIDTH` x `WIDTH` elements of a thread along M and along N. Pieces of a thread
        lie half a tile apart, so that neighbouring threads read neighbours in shared memory.
    depth : int
        Columns of A and rows of B in a slice.
    warp : (int, int)
        Rows and columns of C that a warp computes with tensor cores.
    speed : float
        Multiply-adds per cycle of a processor full of such blocks, relative to the largest tile:
        reckoned from reads of shared memory per multiply-add, not measured.
    """

    rows: int
    columns: int
    quarters: tuple[int, int]
    depth: int
    warp: tuple[int, int]
    speed: float

    @property
    def threads(self) -> int:
        return self.rows * self.columns

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns of C."""
        return self.rows * self.quarters[0] * WIDTH, self.columns * self.quarters[1] * WIDTH


TILES = (
    {
        "128x128": Tile(2, 2, (2, 2), 4, (8, 4), 1.0),
        "128x64": Tile(4, 1, (2, 2), 4, (8, 4), 0.95),
        "128x32": Tile(2, 2, (2, 1), 4, (8, 2), 0.8),
        "64x64": Tile(2, 2, (2, 1), 4, (4, 4), 0.8),
        "32x32": Tile(2, 2, (1, 1), 4, (4, 2), 0.5),
    }
    if SIMULATED
    else {
        "128x128": Tile(16, 16, (2, 2), 16, (64, 32), 1.0),
        "128x64": Tile(16, 8, (2, 2), 16, (64, 32), 0.95),
        "128x32": Tile(16, 8, (2, 1), 16, (32, 32), 0.8),
        "64x64": Tile(8, 16, (2, 1), 16, (32, 32), 0.8),
        "32x32": Tile(8, 8, (1, 1), 16, (32, 16), 0.5),
    }
)


# ---------------------------------------------------------------------------------------
# Slices on their way through shared memory
# ---------------------------------------------------------------------------------------


class _Side(NamedTuple):
    """How slices of A, or of B turned, come into shared memory.

    `outer` is an index along M for A and along N for B. A slice in shared memory has its
    neighbours along `outer`, so that a vector of them is one read; tensor cores read single
    elements, and what has neighbours along k in memory keeps them.

    Attributes
    ----------
    fetch : (staged, operands, group, outer0, limit, k0, last, t)
        Read this thread's elements into registers; zero outside the matrix.
    put : (slices, start, staged, t)
        Write them to shared memory.
    staged : int
        Elements of a slice for each thread.
    steps : (int, int)
        Elements in shared memory from one `outer` to the next, and from one k to the next.
    size : int
        Elements of a slice in shared memory, padding included.
    """

    fetch: GpuFunction
    put: GpuFunction
    staged: int
    steps: tuple[int, int]
    size: int


def _side(
    element: Any, vector: Any, along_k: bool, extent: int, tile: Tile, tensor_cores: bool
) -> _Side:
    """How one of the matrices is read: by vectors where `vector` says how, else by elements.

    Both are functions of (operands, group, outer, k).
    """
    depth, threads = tile.depth, tile.threads
    count = extent * depth // (WIDTH * threads)
    across = (depth if along_k else extent) // WIDTH  # vectors from one line to the next
    kept = tensor_cores and along_k
    # Padding such that the threads of a warp that write, or read for tensor cores, meet in as
    # few banks as can be.
    stride = depth + WIDTH if kept else extent + (2 * MMA_STEP if tensor_cores else WIDTH)
    outer_step, k_step = (stride, 1) if kept else (1, stride)

    @gpu
    def place(i, t):
        number = t + i * threads
        return number // across, number % across * WIDTH

    @gpu
    def place_along_outer(i, t):
        number = t + i * threads
        return number % across * WIDTH, number // across

    if not along_k:
        place = place_along_outer
    outer_next, k_next = (0, 1) if along_k else (1, 0)
    vectors, elements = (0,) * count, (0,) * (count * WIDTH)

    # Threads load single elements from anywhere, and some throw theirs away: without a branch
    # around it, what depends on one index alone is computed once for many elements.
    @gpu
    def fetch_element(number, arguments):
        staged, operands, group, outer0, limit, k0, last, t = arguments
        outer, k = place(number // WIDTH, t)
        m, n = outer0 + outer + number % WIDTH * outer_next, k0 + k + number % WIDTH * k_next
        value = element(operands, group, min(m, limit - 1), min(n, last - 1))
        staged[number] = value if m < limit and n < last else ZERO

    @gpu
    def fetch_elements(staged, operands, group, outer0, limit, k0, last, t):
        arguments = staged, operands, group, outer0, limit, k0, last, t
        unrolled(elements, fetch_element, arguments)

    @gpu
    def fetch_vector(i, arguments):
        staged, operands, group, outer0, limit, k0, last, t = arguments
        outer, k = place(i, t)
        if outer0 + outer < limit and k0 + k < last:
            vector(operands, group, outer0 + outer, k0 + k, staged, i * WIDTH)
        else:
            for j in range(WIDTH):
                staged[i * WIDTH + j] = ZERO

    @gpu
    def fetch_vectors(staged, operands, group, outer0, limit, k0, last, t):
        arguments = staged, operands, group, outer0, limit, k0, last, t
        unrolled(vectors, fetch_vector, arguments)

    @gpu
    def put_vectors(slices, start, staged, t):
        for i in range(count):
            outer, k = place(i, t)
            store_vector(slices, start + outer * outer_step + k * k_step, staged, i * WIDTH)

    @gpu
    def put_turned(slices, start, staged, t):
        for i in range(count):
            outer, k = place(i, t)
            for j in range(WIDTH):
                slices[start + outer + (k + j) * k_step] = staged[i * WIDTH + j]

    put = put_turned if along_k and not kept else put_vectors

    @gpu
    def put_rounded(slices, start, staged, t):
        for i in range(count * WIDTH):
            staged[i] = rounded(staged[i])
        put(slices, start, staged, t)

    return _Side(
        fetch_elements if vector is None else fetch_vectors,
        put_rounded if tensor_cores else put,
        count * WIDTH,
        (outer_step, k_step),
        stride * (extent if kept else depth),
    )


# ---------------------------------------------------------------------------------------
# The sums of a thread
# ---------------------------------------------------------------------------------------


class _Sums(NamedTuple):
    """What a block does with two slices, and where the sums of a thread belong in C.

    Attributes
    ----------
    add : (totals, a_slices, a_start, b_slices, b_start, t)
        Add the products of two slices.
    finish : (totals, operands, group, part, m0, n0, M, N, t)
        Bring the sums to where they belong.
    """

    add: GpuFunction
    finish: GpuFunction


def _plain_sums(tile: Tile, a: _Side, b: _Side, store: Any, vector: Any) -> _Sums:
    """Multiply-adds of single precision; ``store`` takes vectors along N where `vector` does."""
    (down, right), depth = tile.quarters, tile.depth
    a_step, b_step = a.steps[1], b.steps[1]
    a_jump, b_jump = tile.extent[0] // down, tile.extent[1] // right
    height, width = down * WIDTH, right * WIDTH
    together, rows = (0,) * UNROLLED, (0,) * height
    lane_rows, lane_columns = min(LANE_ROWS, tile.rows), min(LANE_COLUMNS, tile.columns)
    warps_right, warp = tile.columns // lane_columns, lane_rows * lane_columns

    @gpu
    def corner(t):
        lane, number = t % warp, t // warp
        row = number // warps_right * lane_rows + lane // lane_columns
        column = number % warps_right * lane_columns + lane % lane_columns
        return row * WIDTH, column * WIDTH

    @gpu
    def add_outer(k, arguments):
        totals, a_slices, a_start, b_slices, b_start = arguments
        of_a = cuda.local.array(height, np.float32)
        of_b = cuda.local.array(width, np.float32)
        for i in range(down):
            load_vector(a_slices, a_start + k * a_step + i * a_jump, of_a, i * WIDTH)
        for j in range(right):
            load_vector(b_slices, b_start + k * b_step + j * b_jump, of_b, j * WIDTH)
        for i in range(height):
            for j in range(width):
                totals[i * width + j] += of_a[i] * of_b[j]

    @gpu
    def add(totals, a_slices, a_start, b_slices, b_start, t):
        row, column = corner(t)
        for k in range(0, depth, UNROLLED):
            of_a, of_b = a_start + k * a_step + row, b_start + k * b_step + column
            unrolled(together, add_outer, (totals, a_slices, of_a, b_slices, of_b))

    @gpu
    def finish_elements(i, arguments):
        totals, operands, group, part, m, n0, M, N = arguments
        m += i // WIDTH * a_jump + i % WIDTH
        for j in range(width):
            n = n0 + j // WIDTH * b_jump + j % WIDTH
            if m < M and n < N:
                store(operands, group, part, m, n, totals[i * width + j])

    @gpu
    def finish_vectors(i, arguments):
        totals, operands, group, part, m, n0, M, N = arguments
        m += i // WIDTH * a_jump + i % WIDTH
        for j in range(right):
            n = n0 + j * b_jump
            if m < M and n < N:
                vector(operands, group, part, m, n, totals, i * width + j * WIDTH)

    finish_row = finish_elements if vector is None else finish_vectors

    @gpu
    def finish(totals, operands, group, part, m0, n0, M, N, t):
        row, column = corner(t)
        arguments = totals, operands, group, part, m0 + row, n0 + column, M, N
        unrolled(rows, finish_row, arguments)

    return _Sums(add, finish)


def _tensor_sums(tile: Tile, a: _Side, b: _Side, store: Any) -> _Sums:
    """Tensor cores: a warp multiplies pieces of 16 x 8 elements, of which a lane holds four."""
    depth, (down, right) = tile.depth, (tile.warp[0] // MMA_ROWS, tile.warp[1] // MMA_COLUMNS)
    (a_outer, a_k), (b_outer, b_k) = a.steps, b.steps
    warp_rows, warp_columns = tile.warp
    a_count, b_count = 4 * down, 2 * right
    pieces, steps = (0,) * (down * right), (0,) * (depth // MMA_DEPTH)
    warps_right = tile.extent[1] // warp_columns

    @gpu
    def corner(t):
        number = t // WARP
        return number // warps_right * warp_rows, number % warps_right * warp_columns

    @gpu
    def add_pieces(k, arguments):
        totals, a_slices, a_start, b_slices, b_start = arguments
        of_a = cuda.local.array(a_count, np.float32)
        of_b = cuda.local.array(b_count, np.float32)
        for i in range(down):
            for n in range(4):
                lower, later = i * MMA_ROWS + n % 2 * MMA_GROUPS, k * MMA_DEPTH + n // 2 * MMA_STEP
                of_a[4 * i + n] = a_slices[a_start + lower * a_outer + later * a_k]
        for j in range(right):
            for n in range(2):
                further, later = j * MMA_COLUMNS, k * MMA_DEPTH + n * MMA_STEP
                of_b[2 * j + n] = b_slices[b_start + further * b_outer + later * b_k]
        for i in range(down):
            for j in range(right):
                multiply_piece(totals, 4 * (i * right + j), of_a, 4 * i, of_b, 2 * j)

    @gpu
    def add(totals, a_slices, a_start, b_slices, b_start, t):
        row, column = corner(t)
        g, step = t % WARP // MMA_STEP, t % MMA_STEP
        a_start += (row + g) * a_outer + step * a_k
        b_start += (column + g) * b_outer + step * b_k
        unrolled(steps, add_pieces, (totals, a_slices, a_start, b_slices, b_start))

    @gpu
    def finish_piece(number, arguments):
        totals, operands, group, part, m0, n0, M, N = arguments
        for c in range(4):
            m = m0 + number // right * MMA_ROWS + c // 2 * MMA_GROUPS
            n = n0 + number % right * MMA_COLUMNS + c % 2
            if m < M and n < N:
                store(operands, group, part, m, n, totals[4 * number + c])

    @gpu
    def finish(totals, operands, group, part, m0, n0, M, N, t):
        row, column = corner(t)
        m, n = m0 + row + t % WARP // MMA_STEP, n0 + column + t % MMA_STEP * 2
        unrolled(pieces, finish_piece, (totals, operands, group, part, m, n, M, N))

    return _Sums(add, finish)


def _kernel(tile: Tile, a: _Side, b: _Side, sums: _Sums, enter: GpuFunction) -> GpuFunction:
    (rows, columns), depth = tile.extent, tile.depth
    a_size, b_size, a_staged, b_staged = a.size, b.size, a.staged, b.staged
    a_both, b_both = 2 * a_size, 2 * b_size
    fetch_a, put_a, fetch_b, put_b = a.fetch, a.put, b.fetch, b.put
    add, finish, count = sums.add, sums.finish, rows * columns // tile.threads

    @gpu
    def tiled(M, N, K, parts, operands):
        a_slices = cuda.shared.array(a_both, np.float32, ALIGNMENT)
        b_slices = cuda.shared.array(b_both, np.float32, ALIGNMENT)
        totals = cuda.local.array(count, np.float32)
        of_a = cuda.local.array(a_staged, np.float32)
        of_b = cuda.local.array(b_staged, np.float32)
        t = cuda.threadIdx.x
        m0, n0 = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns
        group, part = cuda.blockIdx.z // parts, cuda.blockIdx.z % parts
        operands, group, K = enter(operands, group, K)
        slices = (K + depth - 1) // depth
        first = slices * part // parts * depth
        last = min(slices * (part + 1) // parts * depth, K)
        for i in range(count):
            totals[i] = ZERO
        if first < last:
            fetch_a(of_a, operands, group, m0, M, first, last, t)
            fetch_b(of_b, operands, group, n0, N, first, last, t)
            put_a(a_slices, 0, of_a, t)
            put_b(b_slices, 0, of_b, t)
        cuda.syncthreads()
        half = 0
        for k0 in range(first, last, depth):
            # Reads begin before the sums that hide how long they take; behind the last slice
            # there is nothing, and nothing is read.
            fetch_a(of_a, operands, group, m0, M, k0 + depth, last, t)
            fetch_b(of_b, operands, group, n0, N, k0 + depth, last, t)
            add(totals, a_slices, half * a_size, b_slices, half * b_size, t)
            half = 1 - half
            put_a(a_slices, half * a_size, of_a, t)
            put_b(b_slices, half * b_size, of_b, t)
            cuda.syncthreads()
        finish(totals, operands, group, part, m0, n0, M, N, t)

    tiled.bounds = tile.threads, RESIDENT // tile.threads
    return tiled


# ---------------------------------------------------------------------------------------
# Whole products
# ---------------------------------------------------------------------------------------


class Product:
    """The kernels of a product, one for every tile and way to read: made when first launched.

    Attributes
    ----------
    kernels : dict of str to GpuFunction
        By what ``__getitem__`` takes: the tile; which of A, B and C are read or written by
        vectors; and the precision, such as "64x64 -ac tf32".
    """

    def __init__(self, loads: Any, store: Any, along_k: Any, vectors: Any, enter: Any) -> None:
        self._loads, self._store, self._along_k, self._vectors = loads, store, along_k, vectors
        self._enter = enter
        self.kernels: dict[str, GpuFunction] = {}

    def __getitem__(self, key: str) -> GpuFunction:
        if key not in self.kernels:
            self.kernels[key] = self._made(*key.split())
        return self.kernels[key]

    def listed(self) -> list[str]:
        """Keys of kernels that stand for all in the table of compiled kernels."""
        letters = "".join(
            letter for letter, function in zip("abc", self._vectors, strict=True) if function
        )
        keys = [f"{tile} -{letters} float32" for tile in TILES]
        of_elements = ("128x128", "64x64", "32x32") if self._enter is _alike else ("64x64",)
        keys += [f"{tile} - float32" for tile in of_elements]
        if {"a", "b"} <= set(letters):
            keys += [f"{tile} -{letters} tf32" for tile in ("128x128", "64x64", "32x32")]
        return sorted(set(keys))

    def _made(self, tile_name: str, vectors: str, precision: str) -> GpuFunction:
        tile, tensor_cores = TILES[tile_name], precision == "tf32"
        wide = [
            function if letter in vectors else None
            for function, letter in zip(self._vectors, "abc", strict=True)
        ]
        a, b = (
            _side(*side, tile, tensor_cores)
            for side in zip(self._loads, wide[:2], self._along_k, tile.extent, strict=True)
        )
        if tensor_cores:
            sums = _tensor_sums(tile, a, b, self._store)
        else:
            sums = _plain_sums(tile, a, b, self._store, wide[2])
        return _kernel(tile, a, b, sums, self._enter)


@gpu
def _alike(operands, group, K):
    return operands, group, K


def tiled_product(
    load_a: Any,
    load_b: Any,
    store: Any,
    a_along_k: bool,
    b_along_k: bool,
    vectors: tuple[Any, Any, Any] = (None, None, None),
    enter: Any = _alike,
) -> Product:
    """Kernels for C = A B, launched by ``launch_product``.

    Parameters
    ----------
    load_a : (operands, group, m, k) -> A[m, k]
    load_b : (operands, group, k, n) -> B[k, n]
    store : (operands, group, part, m, n, total)
        What to do with the sum, or with the part of it.
    a_along_k, b_along_k : bool
        Whether neighbours in memory are neighbours in k.
    vectors : (function or None, function or None, function or None)
        The same for `WIDTH` neighbours in memory at a time, if they can be had: these load
        functions get an array and where in it to put them, behind the others' arguments, the
        one for B (operands, group, n, k, ...); that to store gets the array and where the sums
        begin instead of the sum. Taken where ``launch_product`` is told.
    enter : (operands, group, K) -> operands, group, K
        What a block is to work with, where groups differ in more than their number.
    """

    @gpu
    def load_turned(operands, group, n, k):
        return load_b(operands, group, k, n)

    return Product((load_a, load_turned), store, (a_along_k, b_along_k), vectors, enter)


# --- precision -------------------------------------------------------------------------

_precision = threading.local()


def _wanted() -> str:
    return getattr(_precision, "name", "float32")


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Products that this thread launches inside: "float32" or "tf32"."""
    before = _wanted()
    _precision.name = name
    try:
        yield
    finally:
        _precision.name = before


def in_precision(name: str, launcher: Any) -> Any:
    """A launcher whose products are computed like that."""

    @functools.wraps(launcher)
    def inside(*arguments: Any) -> None:
        with precision(name):
            launcher(*arguments)

    return inside


@functools.cache
def _tensor_cores() -> bool:
    if SIMULATED:
        return True
    from numba import cuda as numba_cuda

    return bool(numba_cuda.get_current_device().compute_capability >= (8, 0))


def launch_product(
    product: Product,
    M: int,
    N: int,
    K: int,
    groups: int,
    parts: int,
    *operands: Any,
    vectors: str = "",
    tile: str | None = None,
) -> None:
    """Compute all of C, for every group and part.

    Parameters
    ----------
    product : Product
    M, N, K, groups : int
        Where groups differ in K: about their mean.
    parts : int
        What ``parts_of_sum`` said, or 1.
    *operands
        What the functions of the product get as a tuple.
    vectors : str
        Which of "a", "b" and "c" may be read or written by vectors: their extent in the
        direction of neighbours, and the distance of their lines, are multiples of ``WIDTH``.
    tile : str, optional
        A key of ``TILES``, to try out; left out, what ``tile_of`` says.
    """
    # To find single elements takes registers that tensor cores do not leave: such products, of
    # first layers and of odd sizes, stay in float32.
    reduced = _wanted() == "tf32" and {"a", "b"} <= set(vectors) and _tensor_cores()
    tile = tile or tile_of(M, N, K, groups, parts)
    rows, columns = TILES[tile].extent
    grid = (-(-M // rows), -(-N // columns), groups * parts)
    kernel = product[f"{tile} -{vectors} {'tf32' if reduced else 'float32'}"]
    launch(kernel, grid, TILES[tile].threads, M, N, K, parts, operands)


@functools.cache
def tile_of(M: int, N: int, K: int, groups: int, parts: int) -> str:
    """The tile that a product of these sizes is cut into: a key of ``TILES``."""
    return min(TILES, key=lambda name: _cost(TILES[name], M, N, K, groups, parts))


@functools.cache
def parts_of_sum(M: int, N: int, K: int, groups: int) -> int:
    """Parts that a sum over k is cut into where C has few tiles: the same on every GPU."""

    def parts(tile: Tile) -> int:
        return max(
            1, min(-(-2 * PROCESSORS // _tiles(tile, M, N, groups)), K // LEAST_SUM, MOST_PARTS)
        )

    return min((_cost(tile, M, N, K, groups, parts(tile)), parts(tile)) for tile in TILES.values())[
        1
    ]


def _tiles(tile: Tile, M: int, N: int, groups: int) -> int:
    rows, columns = tile.extent
    return max(1, -(-M // rows) * -(-N // columns) * groups)


def _cost(tile: Tile, M: int, N: int, K: int, groups: int, parts: int) -> float:
    """Time, reckoned as rounds of all processors through tiles that each compute alone.

    It takes a few slices until the first sums begin, and memory to hold a part.
    """
    rounds = -(-_tiles(tile, M, N, groups) * parts // PROCESSORS)
    rows, columns = tile.extent
    return rounds * rows * columns * (K / parts + 4 * tile.depth) / tile.speed


def vectors_of(*arrays: tuple[str, Any, int]) -> str:
    """Which arrays can be read by vectors: (letter, array, extent of its lines) for each."""
    return "".join(
        letter for letter, array, extent in arrays if extent % WIDTH == 0 and aligned(array)
    )


def aligned(array: DeviceArray) -> bool:
    """Whether an array begins where a vector may."""
    if SIMULATED or not array.size:
        return True
    return bool(array.handle.__cuda_array_interface__["data"][0] % 16 == 0)
