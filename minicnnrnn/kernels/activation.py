"""Activations: a function of one number applied to every element, and softmax over a row.

Other kernels name an activation by its code; ``activate`` and ``differentiate`` apply it to a
span of memory on the CPU, and ``exp``, ``tanh`` and ``sigmoid`` are for loops of their own.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minicnnrnn.kernels.jit import JIT, REASSOCIATE, cpu, inner, once, split
from minicnnrnn.kernels.panel import address, floats

LINEAR, RELU, LEAKY_RELU, ELU, SELU, GELU, GELU_TANH = 0, 1, 2, 3, 4, 5, 6
SILU, SOFTPLUS, TANH, SIGMOID, HARD_SIGMOID = 7, 8, 9, 10, 11

# The derivative of these follows from the output alone; that of the others needs the input.
FROM_OUTPUT = (
    LINEAR, RELU, LEAKY_RELU, ELU, SELU, SOFTPLUS, TANH, SIGMOID, HARD_SIGMOID,
)  # fmt: skip

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x):
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _gelu_inner(x):
    """What the tanh form of gelu takes the tanh of."""
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def activation_forward_numpy(y, x, code, alpha):
    """Apply an activation to every element.

    ============ ==================================================================
    code         y
    ============ ==================================================================
    LINEAR       x
    RELU         max(x, 0)
    LEAKY_RELU   x, below zero alpha x, with alpha >= 0
    ELU          x, below zero alpha (exp(x) - 1), with alpha >= 0
    SELU         1.0507 ELU(x) with alpha = 1.6733
    GELU         x P(X <= x) for a standard normal X: x (1 + erf(x / sqrt 2)) / 2
    GELU_TANH    x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
    SILU         x sigmoid(x)
    SOFTPLUS     log(1 + exp(x))
    TANH         tanh(x)
    SIGMOID      1 / (1 + exp(-x))
    HARD_SIGMOID x / 6 + 1 / 2, not below 0 and not above 1
    ============ ==================================================================

    Parameters
    ----------
    y : (n,), overwritten; may be the same memory as `x`
    x : (n,)
    code : int
    alpha : float
        Slope below zero of LEAKY_RELU, scale below zero of ELU; the others do not read it.

    Notes
    -----
    Sources: ELU Clevert et al. 2015, arXiv:1511.07289, eq. 15; SELU Klambauer et al. 2017,
    arXiv:1706.02515, eq. 2; GELU Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2; SILU
    Ramachandran et al. 2017, arXiv:1710.05941. The CPU version is within about 2e-7 of the
    largest output; results of exp below 2^-125.5 are zero.
    """
    below = np.minimum(x, 0)
    if code == LINEAR:
        y[:] = x
    elif code == RELU:
        y[:] = np.maximum(x, 0)
    elif code == LEAKY_RELU:
        y[:] = np.maximum(x, 0) + alpha * below
    elif code == ELU:
        y[:] = np.maximum(x, 0) + alpha * np.expm1(below)
    elif code == SELU:
        y[:] = SELU_SCALE * (np.maximum(x, 0) + SELU_ALPHA * np.expm1(below))
    elif code == GELU:
        y[:] = 0.5 * x * (1 + _erf(x / math.sqrt(2)))
    elif code == GELU_TANH:
        y[:] = 0.5 * x * (1 + np.tanh(_gelu_inner(x)))
    elif code == SILU:
        y[:] = x * _sigmoid(x)
    elif code == SOFTPLUS:
        y[:] = np.logaddexp(0, x)
    elif code == TANH:
        y[:] = np.tanh(x)
    elif code == SIGMOID:
        y[:] = _sigmoid(x)
    elif code == HARD_SIGMOID:
        y[:] = np.clip(x / 6 + 0.5, 0, 1)


def activation_backward_numpy(dx, dy, x, y, code, alpha):
    """Gradient with respect to the input: ``dx = dy f'(x)``.

    Parameters
    ----------
    dx : (n,), overwritten; may be the same memory as `dy`
    dy : (n,)
    x : (n,), or (0,) for the codes in ``FROM_OUTPUT``, which do not read it
    y : (n,), or (0,) for all other codes, which do not read it
    code, alpha : as in ``activation_forward``

    Notes
    -----
    Where a derivative jumps (RELU at 0, HARD_SIGMOID at -3 and 3) it is that of the flat side.
    """
    if code == LINEAR:
        slope = np.ones_like(y)
    elif code == RELU:
        slope = np.where(y <= 0, 0, 1)
    elif code == LEAKY_RELU:
        slope = np.where(y <= 0, alpha, 1)
    elif code == ELU:
        slope = np.where(y <= 0, y + alpha, 1)
    elif code == SELU:
        slope = np.where(y <= 0, y + SELU_SCALE * SELU_ALPHA, SELU_SCALE)
    elif code == GELU:
        density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        slope = 0.5 * (1 + _erf(x / math.sqrt(2))) + x * density
    elif code == GELU_TANH:
        t = np.tanh(_gelu_inner(x))
        inner_slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner_slope
    elif code == SILU:
        s = _sigmoid(x)
        slope = s + x * s * (1 - s)
    elif code == SOFTPLUS:
        slope = -np.expm1(-y)
    elif code == TANH:
        slope = 1 - y * y
    elif code == SIGMOID:
        slope = y * (1 - y)
    elif code == HARD_SIGMOID:
        slope = np.where((y <= 0) | (y >= 1), 0, 1 / 6)
    dx[:] = dy * slope


def softmax_forward_numpy(y, x):
    r"""Turn each row into probabilities.

    .. math:: y_{nc} = \exp(x_{nc} - m_n) / \sum_k \exp(x_{nk} - m_n), \quad
              m_n = \max_k x_{nk}

    Parameters
    ----------
    y : (N, C), overwritten; may be the same memory as `x`
    x : (N, C)
    """
    e = np.exp(x - x.max(axis=1, keepdims=True))
    np.divide(e, e.sum(axis=1, keepdims=True), out=y)


def softmax_backward_numpy(dx, dy, y):
    r"""Gradient with respect to the input of softmax.

    .. math:: dx_{nc} = y_{nc} (dy_{nc} - \sum_k dy_{nk} y_{nk})

    Shapes as in ``softmax_forward``; `dx` may be the same memory as `dy`.
    """
    dx[:] = y * (dy - (dy * y).sum(axis=1, keepdims=True))


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Numba has no vector mathematics library, and a call of exp or tanh for every element is ten
# times slower than a polynomial that LLVM turns into vector instructions. Each code has its
# own loop, so that each vectorises.


def _constants(*values):
    return tuple(np.float32(value) for value in values)


ZERO, HALF, ONE, TWO, THREE, TEN = _constants(0, 0.5, 1, 2, 3, 10)
# exp(x) = 2^n exp(r) with n the integer nearest to x / ln 2; n is exact in the last bits of
# x / ln 2 + ROUND. ln 2 is split in two, so that n times its first part is exact. Polynomial
# of exp: S. Moshier, Cephes, single precision.
LOWEST, HIGHEST, ROUND = _constants(-87.5, 89, 1.5 * 2**23)
LOG2_E, LN2_HIGH, LN2_LOW = _constants(1.44269504088896341, 0.693359375, -2.12194440e-4)
E2, E3, E4, E5, E6, E7 = _constants(
    5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3,
    1.9875691500e-4,
)  # fmt: skip
# tanh(x) = x P(x^2) / Q(x^2), which is 1 from TANH_END on: the rational function of Eigen and of
# XLA. A loss that clips its probabilities sees no slope where tanh has become 1, so models learn
# as in Keras only if tanh rounds as there.
TANH_END, TANH_SMALL = _constants(7.99881172180175781, 0.0004)
P0, P1, P2, P3, P4, P5, P6 = _constants(
    4.89352455891786e-3, 6.37261928875436e-4, 1.48572235717979e-5, 5.12229709037114e-8,
    -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
Q0, Q1, Q2, Q3 = _constants(
    4.89352518554385e-3, 2.26843463243900e-3, 1.18534705686654e-4, 1.19825839466702e-6
)
# log(1 + e) = 2 atanh(s) with s = e / (2 + e) <= 1 / 3, by its series.
L3, L5, L7, L9, L11, L13, L15 = _constants(*(1 / k for k in range(3, 16, 2)))
# (1 + 2 x) exp(x^2) erfc(x) as a polynomial in (x - 3) / (x + 3) for x in [0, 10], within 8e-8:
# fitted by least squares at Chebyshev's points.
C0, C1, C2, C3, C4, C5, C6, C7, C8 = _constants(
    1.2530081272125244, -0.13562175631523132, -0.04756792262196541, 0.12965893745422363,
    -0.11918888986110687, 0.06826645135879517, -0.02420378476381302, 0.0023206654004752636,
    0.0025767649058252573,
)  # fmt: skip
ROOT_HALF, NORMAL_PEAK = _constants(math.sqrt(0.5), 1 / math.sqrt(2 * math.pi))
GELU_SCALE, GELU_CUBE, GELU_CUBE3 = _constants(math.sqrt(2 / math.pi), 0.044715, 3 * 0.044715)
SIXTH, SELU_FLOOR, SELU_ONE = _constants(1 / 6, SELU_SCALE * SELU_ALPHA, SELU_SCALE)

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
    def _choose(typingctx, condition, yes, no):
        """``yes if condition else no`` without a branch, in vectors and behind the last one."""

        def codegen(context, builder, signature, values):
            return builder.select(*values)

        return types.float32(types.boolean, types.float32, types.float32), codegen

    @intrinsic
    def _bits(typingctx, value):
        """The bits of a float, as the integer that a function marked ``once`` can take."""

        def codegen(context, builder, signature, values):
            return builder.zext(builder.bitcast(values[0], ir.IntType(32)), ir.IntType(64))

        return types.int64(types.float32), codegen

    @intrinsic
    def _from_bits(typingctx, bits):
        def codegen(context, builder, signature, values):
            return builder.bitcast(builder.trunc(values[0], ir.IntType(32)), ir.FloatType())

        return types.float32(types.int64), codegen

else:  # the plain Python twins

    def _half_power_of_two(rounded: Any) -> Any:
        n = -126 if np.isnan(rounded) else int(rounded - ROUND)
        return np.float32(2.0 ** (n - 1) if n > -126 else 0)

    def _choose(condition: Any, yes: Any, no: Any) -> Any:
        return yes if condition else no

    def _bits(value: Any) -> int:
        return int(np.float32(value).view(np.int32))

    def _from_bits(bits: int) -> Any:
        return np.int32(bits).view(np.float32)


@inner
def exp(x):
    """Within 1e-7 of exp(x); zero below 2^-125.5."""
    x = _choose(x < LOWEST, LOWEST, x)  # a NaN compares false and stays
    x = _choose(x > HIGHEST, HIGHEST, x)
    rounded = x * LOG2_E + ROUND
    n = rounded - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = ((((E7 * r + E6) * r + E5) * r + E4) * r + E3) * r + E2
    # The half leaves room for 2^128, and becomes zero where the exponent runs out.
    return (p * r * r + r + ONE) * _half_power_of_two(rounded) * TWO


@inner
def sigmoid(x):
    return ONE / (ONE + exp(-x))


@inner
def tanh(x):
    """Within 3e-7 of tanh(x), relative to itself."""
    within = _choose(x < -TANH_END, -TANH_END, x)  # a NaN compares false and stays
    within = _choose(x > TANH_END, TANH_END, within)
    z = within * within
    p = (((((P6 * z + P5) * z + P4) * z + P3) * z + P2) * z + P1) * z + P0
    q = ((Q3 * z + Q2) * z + Q1) * z + Q0
    y = _choose(abs(x) < TANH_SMALL, x, within * p / q)
    y = _choose(x >= TANH_END, ONE, y)
    return _choose(x <= -TANH_END, -ONE, y)


@inner
def _positive(x):
    return _choose(x < ZERO, ZERO, x)


@inner
def _negative(x):
    return _choose(x < ZERO, x, ZERO)


@inner
def _expm1(x):
    """exp(x) - 1 for x <= 0, without the cancellation near zero."""
    t = tanh(HALF * x)
    return TWO * t / (ONE - t)


@inner
def _softplus(x):
    e = exp(_choose(x < ZERO, x, -x))
    s = e / (TWO + e)
    z = s * s
    log = s + s * z * ((((((L15 * z + L13) * z + L11) * z + L9) * z + L7) * z + L5) * z + L3)
    return _positive(x) + TWO * log


@cpu(inline="always")  # too long for LLVM to inline of itself, and a call is no vector
def _normal_cdf(x):
    """The probability that a standard normal variable is at most x: erfc(-x / sqrt 2) / 2."""
    a = ROOT_HALF * _choose(x < ZERO, -x, x)
    a = _choose(a > TEN, TEN, a)
    s = (a - THREE) / (a + THREE)
    p = ((((((C8 * s + C7) * s + C6) * s + C5) * s + C4) * s + C3) * s + C2) * s + C1
    tail = HALF * (p * s + C0) * exp(-a * a) / (ONE + TWO * a)
    return _choose(x < ZERO, tail, ONE - tail)


@inner
def _gelu_tanh(x):
    return tanh(GELU_SCALE * (x + GELU_CUBE * x * x * x))


# Spans are worked on in place: only then does LLVM need no check that source and target are apart,
# a check that shared memory would fail.


@once(4)
def activation_span(address, count, code, alpha_bits):
    x, alpha = floats(address), _from_bits(alpha_bits)
    if code == RELU:
        for i in range(count):
            x[i] = _positive(x[i])
    elif code == LEAKY_RELU:
        for i in range(count):
            x[i] = _positive(x[i]) + alpha * _negative(x[i])
    elif code == ELU:
        for i in range(count):
            x[i] = _positive(x[i]) + alpha * _expm1(_negative(x[i]))
    elif code == SELU:
        for i in range(count):
            x[i] = SELU_ONE * _positive(x[i]) + SELU_FLOOR * _expm1(_negative(x[i]))
    elif code == GELU:
        for i in range(count):
            x[i] = x[i] * _normal_cdf(x[i])
    elif code == GELU_TANH:
        for i in range(count):
            x[i] = HALF * x[i] * (ONE + _gelu_tanh(x[i]))
    elif code == SILU:
        for i in range(count):
            x[i] = x[i] * sigmoid(x[i])
    elif code == SOFTPLUS:
        for i in range(count):
            x[i] = _softplus(x[i])
    elif code == TANH:
        for i in range(count):
            x[i] = tanh(x[i])
    elif code == SIGMOID:
        for i in range(count):
            x[i] = sigmoid(x[i])
    elif code == HARD_SIGMOID:
        for i in range(count):
            v = SIXTH * x[i] + HALF
            v = _choose(v < ZERO, ZERO, v)
            x[i] = _choose(v > ONE, ONE, v)


@once(5)
def derivative_span(gradient, known, count, code, alpha_bits):
    g, v, alpha = floats(gradient), floats(known), _from_bits(alpha_bits)
    if code == RELU:
        for i in range(count):
            g[i] = _choose(v[i] <= ZERO, ZERO, g[i])
    elif code == LEAKY_RELU:
        for i in range(count):
            g[i] *= _choose(v[i] <= ZERO, alpha, ONE)
    elif code == ELU:
        for i in range(count):
            g[i] *= _choose(v[i] <= ZERO, v[i] + alpha, ONE)
    elif code == SELU:
        for i in range(count):
            g[i] *= _choose(v[i] <= ZERO, v[i] + SELU_FLOOR, SELU_ONE)
    elif code == GELU:
        for i in range(count):
            x = v[i]
            g[i] *= _normal_cdf(x) + x * NORMAL_PEAK * exp(-HALF * x * x)
    elif code == GELU_TANH:
        for i in range(count):
            x = v[i]
            t = _gelu_tanh(x)
            inner_slope = GELU_SCALE * (ONE + GELU_CUBE3 * x * x)
            g[i] *= HALF * (ONE + t + x * (ONE - t * t) * inner_slope)
    elif code == SILU:
        for i in range(count):
            s = sigmoid(v[i])
            g[i] *= s + v[i] * s * (ONE - s)
    elif code == SOFTPLUS:
        for i in range(count):
            g[i] *= -_expm1(-v[i])
    elif code == TANH:
        for i in range(count):
            g[i] *= ONE - v[i] * v[i]
    elif code == SIGMOID:
        for i in range(count):
            g[i] *= v[i] * (ONE - v[i])
    elif code == HARD_SIGMOID:
        for i in range(count):
            g[i] *= _choose((v[i] <= ZERO) | (v[i] >= ONE), ZERO, SIXTH)


@inner
def activate(x, x0, count, code, alpha):
    """Apply an activation to `count` elements of `x` from `x0` on, in place."""
    activation_span((address(x, x0), count, code, _bits(np.float32(alpha))))


@inner
def differentiate(g, g0, v, v0, count, code, alpha):
    """Multiply `count` elements of `g` by the derivative, where `v` is what that follows from.

    `v` is the output for the codes in ``FROM_OUTPUT`` and the input for the others; it does not
    share memory with `g`.
    """
    derivative_span((address(g, g0), address(v, v0), count, code, _bits(np.float32(alpha))))


# Elements that are copied and then worked on while they are in the L1 cache; and the least number
# of blocks worth a thread. Cuts between blocks leave each element in the same place of a vector.
BLOCK, GRAIN = 1024, 16


@inner
def _copy(target, source, first, count):
    if address(target, first) != address(source, first):
        to, of = floats(address(target, first)), floats(address(source, first))
        for i in range(count):
            to[i] = of[i]


@inner
def _forward_range(start, stop, worker, y, x, code, alpha):
    for block in range(start, stop):
        first = block * BLOCK
        count = min(BLOCK, y.size - first)
        _copy(y, x, first, count)
        activate(y, first, count, code, alpha)


@cpu
def activation_forward_cpu(y, x, code, alpha):
    """Parallel over blocks of elements."""
    split(_forward_range, (y.size + BLOCK - 1) // BLOCK, GRAIN, (y, x, code, alpha))


@inner
def _backward_range(start, stop, worker, dx, dy, v, code, alpha):
    for block in range(start, stop):
        first = block * BLOCK
        count = min(BLOCK, dx.size - first)
        _copy(dx, dy, first, count)
        differentiate(dx, first, v, first, count, code, alpha)


@cpu
def activation_backward_cpu(dx, dy, x, y, code, alpha):
    """Parallel over blocks of elements."""
    known = y if code in FROM_OUTPUT else x
    arguments = (dx, dy, known, code, alpha)
    split(_backward_range, (dx.size + BLOCK - 1) // BLOCK, GRAIN, arguments)


@cpu(fastmath=REASSOCIATE)
def _sum(x, count):
    total = ZERO
    for i in range(count):
        total += x[i]
    return total


@cpu(fastmath=REASSOCIATE)
def _dot(x, y, count):
    total = ZERO
    for i in range(count):
        total += x[i] * y[i]
    return total


@inner
def _softmax_forward_range(start, stop, worker, y, x):
    C = x.shape[1]
    for n in range(start, stop):
        row, scores = floats(address(y, n * C)), floats(address(x, n * C))
        highest = scores[0]
        for c in range(C):
            highest = scores[c] if scores[c] > highest else highest
        for c in range(C):
            row[c] = exp(scores[c] - highest)
        total = _sum(row, C)
        for c in range(C):
            row[c] = row[c] / total


@cpu
def softmax_forward_cpu(y, x):
    """Parallel over rows."""
    N, C = x.shape
    split(_softmax_forward_range, N, 1 + BLOCK * GRAIN // C, (y, x))


@inner
def _softmax_backward_range(start, stop, worker, dx, dy, y):
    C = y.shape[1]
    for n in range(start, stop):
        row, gradient = floats(address(dx, n * C)), floats(address(dy, n * C))
        chances = floats(address(y, n * C))
        mean = _dot(gradient, chances, C)
        for c in range(C):
            row[c] = chances[c] * (gradient[c] - mean)


@cpu
def softmax_backward_cpu(dx, dy, y):
    """Parallel over rows."""
    N, C = y.shape
    split(_softmax_backward_range, N, 1 + BLOCK * GRAIN // C, (dx, dy, y))
