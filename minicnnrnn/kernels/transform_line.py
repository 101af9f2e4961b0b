"""The transforms of Winograd's convolution along one axis, over vectors of channels.

Matrices follow from the points where polynomials are evaluated. What multiplies with a matrix is
written once, for whatever can be added and multiplied: registers, or NumPy arrays.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minicnnrnn.kernels.jit import INT, JIT, VECTOR_WIDTH
from minicnnrnn.kernels.panel import VECTOR, floats
from minicnnrnn.kernels.transform import Lanes

# Polynomials of degree seven are evaluated at 0, these, their negatives and infinity: 8 products
# for 4 outputs of 5 taps, or 6 outputs of 3. With 3/5, 1 and 5/3 the mean of the errors was the
# least of some 1,500 choices, for either: 1.1e-6 of the largest output at 64 channels forward and
# 1.6e-6 in the weights' gradient, where 1/2, 1 and 2 give 1.2e-6 and 2.0e-6.
POINTS = 3 / 5, 1, 5 / 3
SPAN = 8


def matrices(KW: int) -> tuple[Any, Any, Any]:
    """A (8, 9 - KW), B (8, 8) and the taps' matrix (8, KW).

    Row p of Bᵀ is the polynomial that is zero at all points but p, with 1 before its highest
    power; what it is at p divides the row of the taps. Rows come in pairs, p and -p, which differ
    in the signs of odd powers.
    """

    def through(points: Iterable[float]) -> Any:
        product: Any = np.ones(1)
        for p in points:
            product = np.convolve(product, [-p * p, 0, 1])
        return product

    places = [0, *[sign * p for p in POINTS for sign in (1, -1)]]
    rows = [through(POINTS)]
    rows += [np.convolve([0, p, 1], through(set(POINTS) - {abs(p)})) for p in places[1:]]
    scales = [1 / np.polyval(row[::-1], p) for p, row in zip(places, rows)]
    rows = [np.append(row, 0) for row in rows] + [np.append(0, rows[0])]

    def at_points(count: int) -> Any:
        powers = np.vander(places, count, increasing=True)
        return np.vstack([powers, np.eye(count)[-1]])

    taps = at_points(KW) * np.append(scales, 1)[:, None]
    return at_points(SPAN + 1 - KW), np.array(rows).T, taps


def _sum(factors: Sequence[float], values: Sequence[Any]) -> Any:
    """The sum of multiples of some values, those that need no multiplication first."""
    terms = sorted(
        ((float(f), v) for f, v in zip(factors, values) if f), key=lambda term: term[0] != 1
    )
    return functools.reduce(lambda total, term: total + term, [f * v for f, v in terms])


def evaluate(matrix: Any, *values: Any) -> list[Any]:
    """``matrix @ values``, where pairs of rows differ in the signs of the odd columns alone."""
    results = [_sum(matrix[0], values)]
    for row in matrix[1:-1:2]:
        even, odds = _sum(row[::2], values[::2]), row[1::2]
        factor = odds[np.flatnonzero(odds)[-1]]
        odd = _sum(odds / factor, values[1::2])
        results += [even + float(factor) * odd, even - float(factor) * odd]
    return [*results, _sum(matrix[-1], values)]


def interpolate(matrix: Any, *values: Any) -> list[Any]:
    """``matrix @ values``, where pairs of columns differ in the signs of the odd rows alone."""
    first, *inner, last = values
    pairs = [(m + n, m - n) for m, n in zip(inner[::2], inner[1::2])]
    return [
        _sum([row[0], *row[1:-1:2], row[-1]], [first, *[pair[i % 2] for pair in pairs], last])
        for i, row in enumerate(matrix)
    ]


def _transformer(multiply: Callable[..., list[Any]], matrix: Any, biased: bool = False) -> Any:
    """A function that transforms one vector of channels of one tile.

    Its arguments, as one tuple: the address of the target and the distance of its vectors, in
    floats, and the same of the source; `biased`, the address of a vector to be added, and 1 for a
    relu after that.
    """
    line = functools.partial(multiply, matrix)
    count = matrix.shape[1]
    if not JIT:
        return functools.partial(_twin, line, count)

    @intrinsic
    def transform(typingctx, arguments):
        def codegen(context, builder, signature, values):
            members = [builder.extract_value(values[0], i) for i in range(len(arguments))]
            _emit(builder, line, count, members, biased)
            return context.get_dummy_value()

        return types.void(arguments), codegen

    return transform


def _emit(
    builder: ir.IRBuilder, line: Any, count: int, arguments: list[ir.Value], biased: bool
) -> None:
    target, step, source, step_source, *epilogue = arguments

    def pointer(base: ir.Value, step: ir.Value, i: int) -> ir.Value:
        address = builder.add(base, builder.mul(step, INT(4 * i)))
        return builder.inttoptr(address, VECTOR.as_pointer())

    def constant(number: float) -> ir.Value:
        return ir.Constant(VECTOR, [number] * VECTOR_WIDTH)

    vectors = [builder.load(pointer(source, step_source, i), align=4) for i in range(count)]
    results = [lanes.whole() for lanes in line(*[Lanes(builder, v) for v in vectors])]
    if biased:
        bias = builder.load(pointer(epilogue[0], INT(0), 0), align=4)
        relu = builder.icmp_signed("!=", epilogue[1], INT(0))
        floor = builder.select(relu, constant(0.0), constant(float("-inf")))
        results = [builder.fadd(value, bias) for value in results]
        results = [  # a NaN compares false and so stays
            builder.select(builder.fcmp_ordered("<", value, floor), floor, value)
            for value in results
        ]
    for i, value in enumerate(results):
        builder.store(value, pointer(target, step, i), align=4)


def _twin(line: Any, count: int, arguments: tuple[int, ...]) -> None:
    """The plain Python twin of every transform."""
    target, step, source, step_source, *epilogue = arguments

    def vector(base: int, place: int) -> Any:
        return floats(base + 4 * place)[:VECTOR_WIDTH]

    for i, value in enumerate(line(*[vector(source, j * step_source) for j in range(count)])):
        if epilogue:
            value = value + vector(epilogue[0], 0)
            value = np.where(value < 0, 0, value) if epilogue[1] else value
        vector(target, i * step)[:] = value


MATRICES = {KW: matrices(KW) for KW in (3, 5)}
(A3, B, TAPS3), (A5, _, TAPS5) = MATRICES[3], MATRICES[5]
transform_pixels = _transformer(evaluate, B.T)
transform_filter3 = _transformer(evaluate, TAPS3)
transform_filter5 = _transformer(evaluate, TAPS5)
transform_output3 = _transformer(interpolate, A3.T, biased=True)
transform_output5 = _transformer(interpolate, A5.T, biased=True)
transform_gradient3 = _transformer(evaluate, A3)
transform_gradient5 = _transformer(evaluate, A5)
transform_weight3 = _transformer(interpolate, TAPS3.T)
transform_weight5 = _transformer(interpolate, TAPS5.T)
