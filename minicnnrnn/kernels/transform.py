"""The transforms of Winograd's convolution: formulas over vectors of channels.

Each is one formula over a line of values, applied to the columns of a tile and then to its rows.
It is written once, for whatever can be added and multiplied: registers, or NumPy arrays.
"""

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minicnnrnn.kernels.jit import INT, JIT, VECTOR_WIDTH
from minicnnrnn.kernels.panel import VECTOR, floats

# Polynomials are evaluated at 0, a, -a, b, -b and infinity; the formulas use that a b = 1, see
# ``winograd.py``. All that can be folded into the transform of the filters is: denominators, and
# factors of a and of b² in the products of either pair, which leave `output_line` two constants
# of 1 that would be powers of a and b.
POINTS = a, b = 2 / 3, 3 / 2
_SCALE = 1 / (2 * (b * b - a * a))


def pixel_line(d0, d1, d2, d3, d4, d5):
    """Bᵀ: six pixels."""
    even, odd = d4 - b * b * d2, d3 - b * b * d1
    even2, odd2 = d4 - a * a * d2, d3 - a * a * d1
    s = a * a + b * b
    return (
        d0 + d4 - s * d2, even + a * odd, even - a * odd, even2 + b * odd2, even2 - b * odd2,
        d1 + d5 - s * d3,
    )  # fmt: skip


def filter_line(g0, g1, g2):
    """G: three taps of a filter."""
    even, odd = -_SCALE * b * g0 - _SCALE * a * g2, -_SCALE * g1
    even2, odd2 = _SCALE * g0 + _SCALE * b * b * g2, _SCALE * b * g1
    return g0, even + odd, even - odd, even2 + odd2, even2 - odd2, g2


def output_line(m0, m1, m2, m3, m4, m5):
    """Aᵀ: six products, to four outputs."""
    sum1, difference1, sum2, difference2 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return (
        m0 + b * sum1 + a * a * sum2, difference1 + a * difference2, sum2 + a * sum1,
        m5 + a * a * difference1 + b * difference2,
    )  # fmt: skip


def gradient_line(d0, d1, d2, d3):
    """A: four gradients of outputs."""
    even, odd = d0 + a * a * d2, d1 + a * a * d3
    even2, odd2 = d2 + a * a * d0, d1 + b * b * d3
    return d0, odd + b * even, b * even - odd, even2 + a * odd2, even2 - a * odd2, d3


def weight_line(m0, m1, m2, m3, m4, m5):
    """Gᵀ: six products, to the gradients of three taps."""
    sum1, difference1, sum2, difference2 = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return (
        m0 + _SCALE * sum2 - _SCALE * b * sum1, _SCALE * b * difference2 - _SCALE * difference1,
        m5 + _SCALE * b * b * sum2 - _SCALE * a * sum1,
    )  # fmt: skip


class Lanes:
    """A multiple of a vector in a register, for formulas to compute with.

    A product waits to be added, so that it is the formula, not the compiler, that says which
    multiply-adds are one instruction: the same bits wherever a transform is compiled.
    """

    def __init__(self, builder: ir.IRBuilder, value: ir.Value, factor: float = 1) -> None:
        self.builder, self.value, self.factor = builder, value, factor

    def __rmul__(self, number: float) -> "Lanes":
        return Lanes(self.builder, self.value, number * self.factor)

    def __add__(self, other: "Lanes") -> "Lanes":
        if other.factor == 1:
            self, other = other, self
        if other.factor == 1:
            total = self.builder.fadd(other.value, self.value)
        else:
            kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
            name = f"llvm.fmuladd.v{VECTOR_WIDTH}f32"
            multiply_add = cgutils.get_or_insert_function(self.builder.module, kind, name)
            arguments = [other.value, other.constant(), self.whole()]
            total = self.builder.call(multiply_add, arguments)
        return Lanes(self.builder, total)

    def __sub__(self, other: "Lanes") -> "Lanes":
        if other.factor != 1:
            return self + -1 * other
        if self.factor != 1:
            return Lanes(self.builder, self.builder.fneg(other.value)) + self
        return Lanes(self.builder, self.builder.fsub(self.value, other.value))

    def constant(self) -> ir.Value:
        """The factor in all lanes."""
        return ir.Constant(VECTOR, [float(np.float32(self.factor))] * VECTOR_WIDTH)

    def whole(self) -> ir.Value:
        """The vector itself."""
        if self.factor == 1:
            return self.value
        return self.builder.fmul(self.value, self.constant())


def _on_both(line, size, load, store):
    """Transform one tile of `size` x `size` values: its columns, then its rows."""
    columns = [line(*[load(i, j) for i in range(size)]) for j in range(size)]
    for i in range(len(columns[0])):
        for j, value in enumerate(line(*[column[i] for column in columns])):
            store(i, j, value)


def _transformer(line, size, extra=""):
    """A function that transforms one vector of channels of one tile.

    Its arguments, as one tuple: the address of the target, the distances in floats of its rows
    and of its columns, and the same of the source. With the `extra` "bias", also: the address of
    a vector to add to all that is stored, and 1 for a relu behind it. With "sums": the address
    of a vector to which all that is loaded is added.
    """
    if not JIT:
        return functools.partial(_twin, line, size, extra)

    @intrinsic
    def transform(typingctx, arguments):
        def codegen(context, builder, signature, values):
            members = [builder.extract_value(values[0], i) for i in range(len(arguments))]
            emitter = _TransformEmitter(builder, extra, members)
            _on_both(line, size, emitter.load, emitter.store)
            emitter.finish()
            return context.get_dummy_value()

        return types.void(arguments), codegen

    return transform


class _TransformEmitter:
    """Emits the loads and stores of a transform as LLVM instructions."""

    def __init__(self, builder: ir.IRBuilder, extra: str, arguments: list[ir.Value]):
        self.builder, self.extra = builder, extra
        self.target, self.source = arguments[:3], arguments[3:6]
        self.loaded: list[ir.Value] = []
        if extra:
            self.vector = builder.inttoptr(arguments[6], VECTOR.as_pointer())
        if extra == "bias":
            self.bias = builder.load(self.vector, align=4)
            relu = builder.icmp_signed("!=", arguments[7], INT(0))
            self.floor = builder.select(relu, _constant(0.0), _constant(float("-inf")))

    def pointer(self, place: list[ir.Value], i: int, j: int) -> ir.Value:
        """The address of the vector in row i and column j."""
        builder = self.builder
        base, down, right = place
        index = builder.add(builder.mul(down, INT(i)), builder.mul(right, INT(j)))
        address = builder.add(base, builder.mul(index, INT(4)))
        return builder.inttoptr(address, VECTOR.as_pointer())

    def load(self, i: int, j: int) -> Lanes:
        self.loaded.append(self.builder.load(self.pointer(self.source, i, j), align=4))
        return Lanes(self.builder, self.loaded[-1])

    def store(self, i: int, j: int, lanes: Lanes) -> None:
        builder, value = self.builder, lanes.whole()
        if self.extra == "bias":  # a NaN compares false and so stays
            value = builder.fadd(value, self.bias)
            below = builder.fcmp_ordered("<", value, self.floor)
            value = builder.select(below, self.floor, value)
        builder.store(value, self.pointer(self.target, i, j), align=4)

    def finish(self) -> None:
        """Add up what was loaded, in pairs."""
        if self.extra != "sums":
            return
        terms = self.loaded
        while len(terms) > 1:
            terms = [self.builder.fadd(a, b) for a, b in zip(terms[::2], terms[1::2])]
        total = self.builder.fadd(self.builder.load(self.vector, align=4), terms[0])
        self.builder.store(total, self.vector, align=4)


def _constant(number: float) -> ir.Value:
    return ir.Constant(VECTOR, [number] * VECTOR_WIDTH)


def _twin(line: Any, size: int, extra: str, arguments: tuple[int, ...]) -> None:
    """The plain Python twin of every transform."""
    to, down, right, source, step_down, step_right, *rest = arguments
    loaded: list[Any] = []

    def load(i: int, j: int) -> Any:
        start = i * step_down + j * step_right
        loaded.append(floats(source + 4 * start)[:VECTOR_WIDTH].copy())
        return loaded[-1]

    def store(i: int, j: int, value: Any) -> None:
        if extra == "bias":
            value = value + floats(rest[0])[:VECTOR_WIDTH]
            value = np.where(value < 0, 0, value) if rest[1] else value
        floats(to + 4 * (i * down + j * right))[:VECTOR_WIDTH] = value

    _on_both(line, size, load, store)
    if extra == "sums":
        floats(rest[0])[:VECTOR_WIDTH] += sum(loaded)


transform_pixels = _transformer(pixel_line, 6)
transform_filter = _transformer(filter_line, 3)
transform_output = _transformer(output_line, 6, "bias")
transform_gradient = _transformer(gradient_line, 4, "sums")
transform_weight = _transformer(weight_line, 6)
