"""Instructions of a GPU that Python has no word for: vectors, and tensor cores.

Each is written through an intrinsic of Numba, and has a plain twin for the simulator, where
vectors are of two elements and warps of two threads.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minicnnrnn.kernels.gpu import SIMULATED, GpuFunction, cuda

WIDTH = 2 if SIMULATED else 4  # elements of a vector: 128 bits
ALIGNMENT = None if SIMULATED else 16  # bytes, of arrays in shared memory that hold vectors
# Tensor cores multiply 16 x 8 elements by 8 x 8. Lane g * MMA_STEP + t holds of A the rows g and
# g + MMA_GROUPS in the columns t and t + MMA_STEP, of B these rows in the column g, and of C those
# rows in the columns 2 t and 2 t + 1.
MMA_GROUPS, MMA_STEP = (2, 1) if SIMULATED else (8, 4)
WARP = MMA_GROUPS * MMA_STEP
MMA_ROWS, MMA_COLUMNS, MMA_DEPTH = 2 * MMA_GROUPS, MMA_GROUPS, 2 * MMA_STEP
MMA = (
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
    "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
)
FRAGMENTS = 1024 if SIMULATED else 0  # floats of a block's fragments, at most


class Instruction(GpuFunction):
    """A function that kernels call: an intrinsic on a GPU, itself under the simulator."""

    def __init__(self, plain: Callable[..., Any], write: Callable[[], Any]) -> None:
        super().__init__(plain)
        self._write = write

    @functools.cached_property
    def callee(self) -> Any:
        """What kernels call."""
        return self.resolved if SIMULATED else self._write()


def _instruction(write: Callable[[], Any]) -> Callable[[Callable[..., Any]], Instruction]:
    return lambda plain: Instruction(plain, write)


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    from numba.cuda.np.arrayobj import make_array

    return builder.gep(make_array(kind)(context, builder, array).data, [index])


def _vector_at(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    from llvmlite import ir

    address = _address(context, builder, kind, array, index)
    vector = ir.VectorType(ir.FloatType(), 4)
    return builder.bitcast(address, vector.as_pointer(address.type.addrspace))


def _between(codegen: Callable[..., None]) -> Any:
    """An intrinsic of two arrays, each with an index."""
    from numba import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def between(typing, array, index, other, at):
        def write(context, builder, signature, values):
            codegen(context, builder, signature.args, *values)
            return context.get_dummy_value()

        return types.void(array, types.int64, other, types.int64), write

    return between


def _write_load() -> Any:
    from llvmlite import ir

    def codegen(context, builder, kinds, array, index, into, at):
        vector = builder.load(_vector_at(context, builder, kinds[0], array, index), align=16)
        for i in range(WIDTH):
            place = builder.add(at, ir.Constant(at.type, i))
            element = builder.extract_element(vector, ir.Constant(ir.IntType(32), i))
            builder.store(element, _address(context, builder, kinds[2], into, place))

    return _between(codegen)


def _write_store() -> Any:
    from llvmlite import ir

    def codegen(context, builder, kinds, array, index, of, at):
        vector = ir.Constant(ir.VectorType(ir.FloatType(), WIDTH), ir.Undefined)
        for i in range(WIDTH):
            place = builder.add(at, ir.Constant(at.type, i))
            element = builder.load(_address(context, builder, kinds[2], of, place))
            vector = builder.insert_element(vector, element, ir.Constant(ir.IntType(32), i))
        place = _vector_at(context, builder, kinds[0], array, index)
        builder.store(vector, place, align=16)

    return _between(codegen)


@_instruction(_write_load)
def load_vector(array, index, into, at):
    """``into[at : at + WIDTH] = array[index : index + WIDTH]``, in one read.

    Both have one axis; the vector's address in `array` is a multiple of its size.
    """
    if index % WIDTH:
        raise IndexError(index)
    for i in range(WIDTH):
        into[at + i] = array[index + i]


@_instruction(_write_store)
def store_vector(array, index, of, at):
    """``array[index : index + WIDTH] = of[at : at + WIDTH]``, in one write."""
    if index % WIDTH:
        raise IndexError(index)
    for i in range(WIDTH):
        array[index + i] = of[at + i]


def _write_load4() -> Any:
    from llvmlite import ir
    from numba.cuda import cgutils, types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def load(typing, array, index):
        def write(context, builder, signature, values):
            vector = builder.load(_vector_at(context, builder, array, *values), align=16)
            lanes = (ir.Constant(ir.IntType(32), lane) for lane in range(4))
            return cgutils.pack_array(builder, [builder.extract_element(vector, i) for i in lanes])

        return types.UniTuple(types.float32, 4)(array, types.int64), write

    return load


@_instruction(_write_load4)
def load4(array, index):
    """``array[index : index + 4]`` as four numbers, in one read."""
    return array[index], array[index + 1], array[index + 2], array[index + 3]


def _write_store4() -> Any:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def store(typing, array, index, a, b, c, d):
        def write(context, builder, signature, values):
            vector = ir.Constant(ir.VectorType(ir.FloatType(), 4), ir.Undefined)
            for lane, number in enumerate(values[2:]):
                vector = builder.insert_element(vector, number, ir.Constant(ir.IntType(32), lane))
            builder.store(vector, _vector_at(context, builder, array, *values[:2]), align=16)
            return context.get_dummy_value()

        return types.void(array, types.int64, *[types.float32] * 4), write

    return store


@_instruction(_write_store4)
def store4(array, index, a, b, c, d):
    """``array[index : index + 4] = a, b, c, d``, in one write."""
    array[index], array[index + 1], array[index + 2], array[index + 3] = a, b, c, d


def _write_unrolled() -> Any:
    from llvmlite import ir
    from numba import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def unrolled(typing, numbers, function, arguments):
        called = function.get_call_type(typing, (types.int64, arguments), {})

        def write(context, builder, signature, values):
            call = context.get_function(function, called)
            context.add_linking_libs(getattr(call, "libs", ()))
            for i in range(numbers.count):
                call(builder, (ir.Constant(ir.IntType(64), i), values[2]))
            return context.get_dummy_value()

        return types.void(numbers, function, arguments), write

    return unrolled


@_instruction(_write_unrolled)
def unrolled(numbers, function, arguments):
    """Call ``function(i, arguments)`` for i = 0, 1, ..., as often as `numbers` is long: no loop.

    An array in registers must be indexed by constants: where a loop is long, the compiler leaves
    it a loop, and the array goes to memory.
    """
    for i in range(len(numbers)):
        function(i, arguments)


# ---------------------------------------------------------------------------------------
# Tensor cores
# ---------------------------------------------------------------------------------------


def _write_rounded() -> Any:
    from llvmlite import ir
    from numba import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def rounded(typing, value):
        def write(context, builder, signature, values):
            kind = ir.FunctionType(ir.IntType(32), [ir.FloatType()])
            bits = builder.asm(kind, "cvt.rna.tf32.f32 $0, $1;", "=r,f", values, side_effect=False)
            return builder.bitcast(bits, ir.FloatType())

        return types.float32(types.float32), write

    return rounded


@_instruction(_write_rounded)
def rounded(value):
    """The nearest number of 10 bits behind the point, which tensor cores multiply: tf32.

    Of two that are as near the one away from zero. From compute capability 8.0 on.
    """
    bits = np.float32(value).view(np.uint32)
    if np.isfinite(value):
        bits += np.uint32(0x1000)
    nearest = (bits & np.uint32(0xFFFFE000)).view(np.float32)
    return np.float32(value) if np.isnan(value) else nearest


def _write_multiply() -> Any:
    from llvmlite import ir
    from numba import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def multiply(typing, totals, at, a, i, b, j):
        number = ir.FloatType()

        def write(context, builder, signature, values):
            kinds, word = signature.args, ir.IntType(32)

            def places(argument, count):
                start = values[argument + 1]
                return [
                    _address(
                        context, builder, kinds[argument], values[argument],
                        builder.add(start, ir.Constant(start.type, n)),
                    )
                    for n in range(count)
                ]  # fmt: skip

            sums = places(0, 4)
            factors = [builder.load(p) for p in places(2, 4) + places(4, 2)]
            arguments = [builder.bitcast(f, word) for f in factors]
            arguments += [builder.load(p) for p in sums]
            kind = ir.FunctionType(ir.LiteralStructType([number] * 4), [word] * 6 + [number] * 4)
            constraints = ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4)
            results = builder.asm(kind, MMA, constraints, arguments, side_effect=True)
            for n, place in enumerate(sums):
                builder.store(builder.extract_value(results, n), place)
            return context.get_dummy_value()

        signature = types.void(totals, types.int64, a, types.int64, b, types.int64)
        return signature, write

    return multiply


@_instruction(_write_multiply)
def multiply_piece(totals, at, a, i, b, j):
    """Add to 4 elements of C, with what the whole warp holds of a piece of A and one of B.

    All lanes call it together. Its twin has them meet in shared memory.
    """
    shown = cuda.shared.array(FRAGMENTS, np.float32)
    t = cuda.threadIdx.x
    for n in range(4):
        shown[8 * t + n] = a[i + n]
    for n in range(2):
        shown[8 * t + 4 + n] = b[j + n]
    cuda.syncthreads()
    warp, lane = t // WARP * WARP, t % WARP
    g, step = lane // MMA_STEP, lane % MMA_STEP
    for n in range(4):
        row, column = g + n // 2 * MMA_GROUPS, 2 * step + n % 2
        for k in range(MMA_DEPTH):
            of_a = warp + row % MMA_GROUPS * MMA_STEP + k % MMA_STEP
            of_b = warp + column * MMA_STEP + k % MMA_STEP
            factor = shown[8 * of_a + row // MMA_GROUPS + k // MMA_STEP * 2]
            totals[at + n] += factor * shown[8 * of_b + 4 + k // MMA_STEP]
    cuda.syncthreads()
