"""Formulas of whole vectors: loops that read and write many arrays, element by element.

A Numba loop becomes vectors where LLVM can find out beforehand that its arrays do not overlap: for
a few arrays only, and for a hundred elements that takes as long as the work. Here a formula is
written once, for whatever can be added and multiplied: registers, or NumPy arrays.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minicnnrnn.kernels import elementary
from minicnnrnn.kernels.jit import INT, JIT, VECTOR_WIDTH
from minicnnrnn.kernels.panel import (
    VECTOR,
    first_lanes,
    floats,
    load_lanes,
    repeat,
    store_lanes,
)

FLAGS = ("contract", "nsz")  # as in all kernels: a NaN stays one, and so does an infinity


class Vector:
    """A vector in a register."""

    __array_ufunc__ = None  # NumPy's numbers leave it to the vector what a product with one is

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Any) -> "Vector":
        return Vector(self.builder, self.builder.fadd(self.value, in_register(other), flags=FLAGS))

    def __mul__(self, other: Any) -> "Vector":
        return Vector(self.builder, self.builder.fmul(self.value, in_register(other), flags=FLAGS))

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> "Vector":
        return Vector(self.builder, self.builder.fsub(in_register(other), self.value, flags=FLAGS))

    def __sub__(self, other: Any) -> "Vector":
        return Vector(self.builder, self.builder.fsub(self.value, in_register(other), flags=FLAGS))

    def __truediv__(self, other: Any) -> "Vector":
        return Vector(self.builder, self.builder.fdiv(self.value, in_register(other)))

    def clip(self, low: Any, high: Any) -> "Vector":
        """The value between two numbers that is nearest; a NaN compares false and so stays."""
        value = self.value
        for sign, bound in (("<", in_register(low)), (">", in_register(high))):
            beyond = self.builder.fcmp_ordered(sign, value, bound)
            value = self.builder.select(beyond, bound, value)
        return Vector(self.builder, value)


def in_register(value: Any) -> ir.Value:
    """A vector's value, or a number in all lanes."""
    if isinstance(value, Vector):
        return value.value
    return ir.Constant(VECTOR, [float(np.float32(value))] * VECTOR_WIDTH)


def tanh(x: Any) -> Any:
    """``elementary.tanh`` in 0.65 of its time: 1 at its end where multiply-adds are fused.

    Without them it is 2e-7 less there; and a tiny number is not quite its own tanh.
    """
    x = x.clip(-elementary.TANH_END, elementary.TANH_END)
    z, p, q = x * x, elementary.P6, elementary.Q3
    for factor in (elementary.P5, elementary.P4, elementary.P3, elementary.P2, elementary.P1,
                   elementary.P0):  # fmt: skip
        p = p * z + factor
    for factor in (elementary.Q2, elementary.Q1, elementary.Q0):
        q = q * z + factor
    return x * p / q


def gate(x: Any) -> Any:
    """A sigmoid, as (1 + tanh(x / 2)) / 2, which takes 0.75 of the time of exp.

    Its error, up to 1.7e-7, is as large where the sigmoid is nearly 0: nothing to a gate, much to
    a probability, which takes ``elementary.sigmoid``.
    """
    return elementary.HALF + elementary.HALF * tanh(elementary.HALF * x)


def elementwise(formula: Callable[..., tuple[Any, ...]], inputs: int, outputs: int) -> Any:
    """A function that applies a formula to elements of arrays, row by row.

    Its arguments, as one tuple: how many rows, how many elements each has, and for each of the
    formula's arguments and results the address of the first row and the floats from one row to
    the next. Results may take the place of arguments; other overlaps must not be.

    All rows are one call: an LSTM (64) predicts in 0.89 of the time that it takes with one each.
    """
    if not JIT:

        def plain(arguments: tuple[int, ...]) -> None:
            rows, count, *places = arguments
            for row in range(rows):
                arrays = [floats(address + 4 * row * step)[:count]
                          for address, step in zip(places[::2], places[1::2])]  # fmt: skip
                results = formula(*(array.copy() for array in arrays[:inputs]))
                for array, result in zip(arrays[inputs:], results, strict=True):
                    array[...] = result

        return plain

    @intrinsic
    def run(typingctx, arguments):
        def codegen(context, builder, signature, values):
            rows, count, *places = (
                builder.extract_value(values[0], i) for i in range(len(arguments))
            )
            whole, rest = (
                divide(count, INT(VECTOR_WIDTH)) for divide in (builder.sdiv, builder.srem)
            )
            mask = first_lanes(builder, rest)

            def on_vector(row: list[ir.Value], index: ir.Value, mask: ir.Value | None) -> None:
                offset = builder.mul(index, INT(4 * VECTOR_WIDTH))
                at = [builder.inttoptr(builder.add(place, offset), VECTOR.as_pointer())
                      for place in row]  # fmt: skip
                read = [Vector(builder, builder.load(place, align=4) if mask is None
                               else load_lanes(builder, place, mask))
                        for place in at[:inputs]]  # fmt: skip
                for place, result in zip(at[inputs:], formula(*read), strict=True):
                    if mask is None:
                        builder.store(in_register(result), place, align=4)
                    else:
                        store_lanes(builder, in_register(result), place, mask)

            def on_row(index: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
                row = [builder.add(address, builder.mul(index, builder.mul(step, INT(4))))
                       for address, step in zip(places[::2], places[1::2])]  # fmt: skip

                def each(index: ir.Value, held: list[ir.Value]) -> list[ir.Value]:
                    on_vector(row, index, None)
                    return held

                repeat(builder, whole, [], each)
                with builder.if_then(builder.icmp_signed("!=", rest, INT(0))):
                    on_vector(row, whole, mask)
                return held

            repeat(builder, rows, [], on_row)
            return context.get_dummy_value()

        return types.void(arguments), codegen

    return run
