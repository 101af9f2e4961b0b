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


def _transformer(line, size, window=None):
    """A function that transforms one vector of channels of one tile.

    Its arguments, as one tuple: the address of the target, the distances in floats of its rows
    and of its columns, and the same of the source. With the `window` on the side of the image,
    "source" or "target", also: the first row of the tile that lies in the image and the one
    behind the last, the same of the columns; the address of a vector that stands for all pixels
    outside; and for a source the address of its gate or 0, for a target 1 for a relu and the
    address of a vector that is added before it.
    """
    if not JIT:
        return functools.partial(_twin, line, size, window)

    @intrinsic
    def transform(typingctx, arguments):
        def codegen(context, builder, signature, values):
            members = [builder.extract_value(values[0], i) for i in range(len(arguments))]
            emitter = _TransformEmitter(builder, window, members)
            if window == "source":
                gated = builder.icmp_signed("!=", emitter.option, INT(0))
                with builder.if_else(gated) as (then, otherwise):
                    with then:
                        _on_both(line, size, emitter.load_gated, emitter.store)
                    with otherwise:
                        _on_both(line, size, emitter.load, emitter.store)
            else:
                _on_both(line, size, emitter.load, emitter.store)
            return context.get_dummy_value()

        return types.void(arguments), codegen

    return transform


class _TransformEmitter:
    """Emits the loads and stores of a transform as LLVM instructions."""

    def __init__(self, builder: ir.IRBuilder, window: str | None, arguments: list[ir.Value]):
        self.builder, self.window = builder, window
        self.target, self.source = arguments[:3], arguments[3:6]
        if window:
            self.inside = arguments[6:10]
            self.aside, self.option, *self.bias = arguments[10:]

    def pointer(self, place: list[ir.Value], i: int, j: int, windowed: bool) -> ir.Value:
        """The address of the vector in row i and column j, or the one aside."""
        builder = self.builder
        base, down, right = place
        index = builder.add(builder.mul(down, INT(i)), builder.mul(right, INT(j)))
        address = builder.add(base, builder.mul(index, INT(4)))
        if windowed:
            top, bottom, left, end = self.inside
            limits = [("<=", top, i), (">", bottom, i), ("<=", left, j), (">", end, j)]
            checks = [builder.icmp_signed(order, limit, INT(n)) for order, limit, n in limits]
            exists = functools.reduce(builder.and_, checks)
            address = builder.select(exists, address, self.aside)
        return builder.inttoptr(address, VECTOR.as_pointer())

    def constant(self, number: float) -> ir.Value:
        return ir.Constant(VECTOR, [number] * VECTOR_WIDTH)

    def load(self, i: int, j: int) -> Lanes:
        pointer = self.pointer(self.source, i, j, self.window == "source")
        return Lanes(self.builder, self.builder.load(pointer, align=4))

    def load_gated(self, i: int, j: int) -> Lanes:
        builder, gate = self.builder, [self.option, *self.source[1:]]
        limit = builder.load(self.pointer(gate, i, j, True), align=4)
        closed = builder.fcmp_ordered("<=", limit, self.constant(0.0))
        value = self.load(i, j).value
        return Lanes(builder, builder.select(closed, self.constant(0.0), value))

    def store(self, i: int, j: int, lanes: Lanes) -> None:
        builder, value, windowed = self.builder, lanes.whole(), self.window == "target"
        if windowed:  # a NaN compares false and so stays
            bias = builder.load(builder.inttoptr(self.bias[0], VECTOR.as_pointer()), align=4)
            value = builder.fadd(value, bias)
            relu = builder.icmp_signed("!=", self.option, INT(0))
            floor = builder.select(relu, self.constant(0.0), self.constant(float("-inf")))
            value = builder.select(builder.fcmp_ordered("<", value, floor), floor, value)
        builder.store(value, self.pointer(self.target, i, j, windowed), align=4)


def _twin(line: Any, size: int, window: str | None, arguments: tuple[int, ...]) -> None:
    """The plain Python twin of every transform."""
    to, down, right, source, step_down, step_right, *rest = arguments
    top, bottom, left, end, aside, option, *bias = rest or (0, 6, 0, 6, 0, 0)

    def vector(base: int, place: int, i: int, j: int, windowed: bool) -> Any:
        exists = not windowed or (top <= i < bottom and left <= j < end)
        return floats(base + 4 * place if exists else aside)[:VECTOR_WIDTH]

    def load(i: int, j: int) -> Any:
        place, windowed = i * step_down + j * step_right, window == "source"
        value = vector(source, place, i, j, windowed).copy()
        if windowed and option:
            value[vector(option, place, i, j, True) <= 0] = 0
        return value

    def store(i: int, j: int, value: Any) -> None:
        windowed = window == "target"
        if windowed:
            value = value + floats(bias[0])[:VECTOR_WIDTH]
            value = np.where(value < 0, 0, value) if option else value
        vector(to, i * down + j * right, i, j, windowed)[:] = value

    _on_both(line, size, load, store)


transform_pixels = _transformer(pixel_line, 6, "source")
transform_filter = _transformer(filter_line, 3)
transform_output = _transformer(output_line, 6, "target")
transform_gradient = _transformer(gradient_line, 4, "source")
transform_weight = _transformer(weight_line, 6)
