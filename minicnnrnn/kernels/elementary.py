"""Elementary functions: exp, tanh, sigmoid, log and their relatives.

Numba has no vector mathematics library, and a call of exp or tanh for every element is ten times
slower than a polynomial that LLVM turns into vector instructions. These are such polynomials, in
single precision and without a branch. Choices are made by ``choose``, so that a NaN stays one.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minicnnrnn.kernels.gpu import SIMULATED, twin
from minicnnrnn.kernels.jit import JIT, cpu, inner


def constants(*values):
    """Numbers as float32: a Python float would turn all that it meets into float64."""
    return tuple(np.float32(value) for value in values)


# Inlined whatever LLVM thinks of their length: a loop with a call in it is no vector loop.
always = cpu(no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)

ZERO, HALF, ONE, TWO, THREE, TEN, INFINITY = constants(0, 0.5, 1, 2, 3, 10, np.inf)
# exp(x) = 2^n exp(r) with n the integer nearest to x / ln 2; n is exact in the last bits of
# x / ln 2 + ROUND. ln 2 is split in two, so that n times its first part is exact. Polynomial
# of exp: S. Moshier, Cephes, single precision.
LOWEST, HIGHEST, ROUND = constants(-87.5, 89, 1.5 * 2**23)
LOG2_E, LN2_HIGH, LN2_LOW = constants(1.44269504088896341, 0.693359375, -2.12194440e-4)
E2, E3, E4, E5, E6, E7 = constants(
    5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3,
    1.9875691500e-4,
)  # fmt: skip
# tanh(x) = x P(x^2) / Q(x^2), which is 1 from TANH_END on: the rational function of Eigen and of
# XLA. A loss that clips its probabilities sees no slope where tanh has become 1, so models learn
# as in Keras only if tanh rounds as there.
TANH_END, TANH_SMALL = constants(7.99881172180175781, 0.0004)
P0, P1, P2, P3, P4, P5, P6 = constants(
    4.89352455891786e-3, 6.37261928875436e-4, 1.48572235717979e-5, 5.12229709037114e-8,
    -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
Q0, Q1, Q2, Q3 = constants(
    4.89352518554385e-3, 2.26843463243900e-3, 1.18534705686654e-4, 1.19825839466702e-6
)
# log(1 + e) = 2 atanh(s) with s = e / (2 + e) <= 1 / 3, by its series.
L3, L5, L7, L9, L11, L13, L15 = constants(*(1 / k for k in range(3, 16, 2)))
# (1 + 2 x) exp(x^2) erfc(x) as a polynomial in (x - 3) / (x + 3) for x in [0, 10], within 8e-8:
# fitted by least squares at Chebyshev's points.
C0, C1, C2, C3, C4, C5, C6, C7, C8 = constants(
    1.2530081272125244, -0.13562175631523132, -0.04756792262196541, 0.12965893745422363,
    -0.11918888986110687, 0.06826645135879517, -0.02420378476381302, 0.0023206654004752636,
    0.0025767649058252573,
)  # fmt: skip
ROOT_HALF = np.float32(math.sqrt(0.5))
# log(m) = f - f^2 / 2 + f^3 P(f) with f = m - 1 and m between sqrt(1/2) and sqrt 2 (Cephes).
G0, G1, G2, G3, G4, G5, G6, G7, G8 = constants(
    3.3333331174e-1, -2.4999993993e-1, 2.0000714765e-1, -1.6668057665e-1, 1.4249322787e-1,
    -1.2420140846e-1, 1.1676998740e-1, -1.1514610310e-1, 7.0376836292e-2,
)  # fmt: skip
ROOT_HALF_BITS = 0x3F3504F3

sqrt = np.sqrt  # by this name a GPU finds its own, see below

if JIT:

    @intrinsic
    def _half_power_of_two(typingctx, rounded):
        """2^(n - 1) for an n that stands in the last bits of ``n + ROUND``."""

        def codegen(context, builder, signature, values):
            word = ir.IntType(32)
            bits = builder.shl(builder.bitcast(values[0], word), word(23))
            return builder.bitcast(builder.add(bits, word(126 << 23)), ir.FloatType())

        return types.float32(types.float32), codegen

    @intrinsic
    def binary_exponent(typingctx, x):
        """The e of ``x = m 2^e`` with m between sqrt(1/2) and sqrt 2, for a normal x > 0."""

        def codegen(context, builder, signature, values):
            word = ir.IntType(32)
            raised = builder.sub(builder.bitcast(values[0], word), word(ROOT_HALF_BITS))
            return builder.sitofp(builder.ashr(raised, word(23)), ir.FloatType())

        return types.float32(types.float32), codegen

    @intrinsic
    def mantissa(typingctx, x):
        """The m that goes with ``binary_exponent``."""

        def codegen(context, builder, signature, values):
            word = ir.IntType(32)
            raised = builder.sub(builder.bitcast(values[0], word), word(ROOT_HALF_BITS))
            fraction = builder.and_(raised, word(0x7FFFFF))
            return builder.bitcast(builder.add(fraction, word(ROOT_HALF_BITS)), ir.FloatType())

        return types.float32(types.float32), codegen

    @intrinsic
    def choose(typingctx, condition, yes, no):
        """``yes if condition else no`` without a branch, in vectors and behind the last one."""

        def codegen(context, builder, signature, values):
            return builder.select(*values)

        return types.float32(types.boolean, types.float32, types.float32), codegen

    @intrinsic
    def bits(typingctx, value):
        """The bits of a float, as the integer that a function marked ``once`` can take."""

        def codegen(context, builder, signature, values):
            return builder.zext(builder.bitcast(values[0], ir.IntType(32)), ir.IntType(64))

        return types.int64(types.float32), codegen

    @intrinsic
    def from_bits(typingctx, bits):
        """The float with these bits."""

        def codegen(context, builder, signature, values):
            return builder.bitcast(builder.trunc(values[0], ir.IntType(32)), ir.FloatType())

        return types.float32(types.int64), codegen

else:  # the plain Python twins

    def _half_power_of_two(rounded: Any) -> Any:
        n = -126 if np.isnan(rounded) else int(rounded - ROUND)
        return np.float32(2.0 ** (n - 1) if n > -126 else 0)

    def binary_exponent(x: Any) -> Any:
        """The e of ``x = m 2^e`` with m between sqrt(1/2) and sqrt 2."""
        fraction, exponent = math.frexp(x)
        return np.float32(exponent - (fraction < math.sqrt(0.5)))

    def mantissa(x: Any) -> Any:
        """The m that goes with ``binary_exponent``."""
        return np.float32(math.ldexp(x, -int(binary_exponent(x))))

    def choose(condition: Any, yes: Any, no: Any) -> Any:
        """``yes if condition else no``."""
        return yes if condition else no

    def bits(value: Any) -> int:
        """The bits of a float as an integer."""
        return int(np.float32(value).view(np.int32))

    def from_bits(bits: int) -> Any:
        """The float with these bits."""
        return np.int32(bits).view(np.float32)


@always
def exp(x):
    """Within 1e-7 of exp(x); zero below 2^-125.5."""
    x = choose(x < LOWEST, LOWEST, x)  # a NaN compares false and stays
    x = choose(x > HIGHEST, HIGHEST, x)
    rounded = x * LOG2_E + ROUND
    n = rounded - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = ((((E7 * r + E6) * r + E5) * r + E4) * r + E3) * r + E2
    # The half leaves room for 2^128, and becomes zero where the exponent runs out.
    return (p * r * r + r + ONE) * _half_power_of_two(rounded) * TWO


@inner
def log(x):
    """Within 1e-7 of log(x), for normal x > 0; NaN and infinity stay."""
    f = mantissa(x) - ONE
    p = (((((((G8 * f + G7) * f + G6) * f + G5) * f + G4) * f + G3) * f + G2) * f + G1) * f + G0
    e = binary_exponent(x)
    z = f * f
    return choose(x < INFINITY, f + (z * (p * f - HALF) + e * LN2_LOW) + e * LN2_HIGH, x)


@inner
def log1p(x):
    """log(1 + x) for x >= 0, without losing a small x."""
    whole = ONE + x
    return log(whole) + (x - (whole - ONE)) / whole  # and what rounding `whole` took away


@inner
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return ONE / (ONE + exp(-x))


@always
def tanh(x):
    """Within 3e-7 of tanh(x), relative to itself."""
    within = choose(x < -TANH_END, -TANH_END, x)  # a NaN compares false and stays
    within = choose(x > TANH_END, TANH_END, within)
    z = within * within
    p = (((((P6 * z + P5) * z + P4) * z + P3) * z + P2) * z + P1) * z + P0
    q = ((Q3 * z + Q2) * z + Q1) * z + Q0
    y = choose(abs(x) < TANH_SMALL, x, within * p / q)
    y = choose(x >= TANH_END, ONE, y)
    return choose(x <= -TANH_END, -ONE, y)


@inner
def positive(x):
    """x, but zero below zero."""
    return choose(x < ZERO, ZERO, x)


@inner
def negative(x):
    """x, but zero above zero."""
    return choose(x < ZERO, x, ZERO)


@inner
def expm1(x):
    """exp(x) - 1 for x <= 0, without the cancellation near zero."""
    t = tanh(HALF * x)
    return TWO * t / (ONE - t)


@inner
def softplus(x):
    """log(1 + exp(x))."""
    e = exp(choose(x < ZERO, x, -x))
    s = e / (TWO + e)
    z = s * s
    log = s + s * z * ((((((L15 * z + L13) * z + L11) * z + L9) * z + L7) * z + L5) * z + L3)
    return positive(x) + TWO * log


@always
def normal_cdf(x):
    """The probability that a standard normal variable is at most x: erfc(-x / sqrt 2) / 2."""
    a = ROOT_HALF * choose(x < ZERO, -x, x)
    a = choose(a > TEN, TEN, a)
    s = (a - THREE) / (a + THREE)
    p = ((((((C8 * s + C7) * s + C6) * s + C5) * s + C4) * s + C3) * s + C2) * s + C1
    tail = HALF * (p * s + C0) * exp(-a * a) / (ONE + TWO * a)
    return choose(x < ZERO, tail, ONE - tail)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A GPU has instructions for exponentials; all other functions above are compiled for it as they
# stand. Where Python would raise, NumPy gives infinity, as a GPU does.

elementary = np if SIMULATED else math


@twin(choose)
def _choose(condition, yes, no):
    return yes if condition else no


@twin(exp)
def _exp(x):
    return elementary.exp(x)


@twin(log)
def _log(x):
    return elementary.log(x)


@twin(sqrt)
def _sqrt(x):
    return elementary.sqrt(x)
