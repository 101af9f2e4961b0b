"""Activations: a function of one number, applied to every element.

Other kernels name an activation by its code; ``activate`` and ``differentiate`` apply it to a
span of memory on the CPU.
"""

import math

import numpy as np

from minicnnrnn.kernels.codes import (
    ELU,
    EXPONENTIAL,
    FROM_OUTPUT,
    GELU,
    GELU_TANH,
    HARD_SHRINK,
    HARD_SIGMOID,
    HARD_SILU,
    HARD_TANH,
    LEAKY_RELU,
    LINEAR,
    LOG_SIGMOID,
    MISH,
    RELU,
    RELU6,
    SELU,
    SIGMOID,
    SILU,
    SOFT_SHRINK,
    SOFTPLUS,
    SOFTSIGN,
    SPARSE_PLUS,
    SPARSE_SIGMOID,
    SQUAREPLUS,
    TANH,
    TANH_SHRINK,
)
from minicnnrnn.kernels.elementary import (
    HALF,
    ONE,
    THREE,
    TWO,
    ZERO,
    always,
    bits,
    choose,
    constants,
    exp,
    expm1,
    from_bits,
    negative,
    normal_cdf,
    positive,
    sigmoid,
    softplus,
    sqrt,
    tanh,
)
from minicnnrnn.kernels.gpu import cuda, gpu, over, twin
from minicnnrnn.kernels.jit import cpu, inner, once, split
from minicnnrnn.kernels.panel import address, floats

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
# A straight line, cut off at both ends: slope, height at zero, lowest and highest value.
CLIPS = {
    HARD_SIGMOID: (1 / 6, 0.5, 0, 1),
    SPARSE_SIGMOID: (0.5, 0.5, 0, 1),
    HARD_TANH: (1, 0, -1, 1),
    RELU6: (1, 0, 0, 6),
}

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x):
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def _clip(x, code):
    slope, middle, lowest, highest = CLIPS[code]
    return np.clip(slope * x + middle, lowest, highest)


def _gelu_inner(x):
    """What the tanh form of gelu takes the tanh of."""
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def activation_forward_numpy(y, x, code, alpha):
    """Apply an activation to every element.

    ============== ==================================================================
    code           y
    ============== ==================================================================
    LINEAR         x
    RELU           max(x, 0)
    LEAKY_RELU     x, below zero alpha x, with alpha > 0
    ELU            x, below zero alpha (exp(x) - 1), with alpha >= 0
    SELU           1.0507 ELU(x) with alpha = 1.6733
    GELU           x P(X <= x) for a standard normal X: x (1 + erf(x / sqrt 2)) / 2
    GELU_TANH      x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2
    SILU           x sigmoid(x)
    SOFTPLUS       log(1 + exp(x))
    TANH           tanh(x)
    SIGMOID        1 / (1 + exp(-x))
    HARD_SIGMOID   x / 6 + 1 / 2, not below 0 and not above 1
    RELU6          x, not below 0 and not above 6
    HARD_TANH      x, not below -1 and not above 1
    SPARSE_SIGMOID x / 2 + 1 / 2, not below 0 and not above 1
    HARD_SILU      x HARD_SIGMOID(x)
    SOFT_SHRINK    x moved towards zero by 1 / 2, and 0 if it is nearer
    HARD_SHRINK    x, but 0 from -1 / 2 to 1 / 2
    EXPONENTIAL    exp(x)
    SOFTSIGN       x / (1 + abs(x))
    LOG_SIGMOID    log(SIGMOID(x)) = -SOFTPLUS(-x)
    MISH           x tanh(SOFTPLUS(x))
    TANH_SHRINK    x - tanh(x)
    SQUAREPLUS     (x + sqrt(x^2 + 4)) / 2
    SPARSE_PLUS    x, from -1 to 1 (x + 1)^2 / 4, and 0 below
    ============== ==================================================================

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
    Ramachandran et al. 2017, arXiv:1710.05941; HARD_SILU Howard et al. 2019, arXiv:1905.02244,
    section 5.2; MISH Misra 2019, arXiv:1908.08681; SQUAREPLUS Barron 2021, arXiv:2112.11687; the
    rest as in Keras 3. The CPU version is within about 2e-7 of the largest output; results of
    exp below 2^-125.5 are zero.
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
    elif code in CLIPS:
        y[:] = _clip(x, code)
    elif code == HARD_SILU:
        y[:] = x * _clip(x, HARD_SIGMOID)
    elif code == SOFT_SHRINK:
        y[:] = x - np.clip(x, -0.5, 0.5)
    elif code == HARD_SHRINK:
        y[:] = np.where(np.abs(x) <= 0.5, 0, x)
    elif code == EXPONENTIAL:
        y[:] = np.exp(x)
    elif code == SOFTSIGN:
        y[:] = x / (1 + np.abs(x))
    elif code == LOG_SIGMOID:
        y[:] = -np.logaddexp(0, -x)
    elif code == MISH:
        y[:] = x * np.tanh(np.logaddexp(0, x))
    elif code == TANH_SHRINK:
        y[:] = x - np.tanh(x)
    elif code == SQUAREPLUS:
        y[:] = 0.5 * (x + np.sqrt(x * x + 4))
    elif code == SPARSE_PLUS:
        y[:] = np.where(x >= 1, x, np.clip(x + 1, 0, 2) ** 2 / 4)


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
    Where a derivative jumps (RELU at 0, HARD_SIGMOID at -3 and 3) it is that of the flat side;
    that of LEAKY_RELU at 0 is 1, and the others are those of Keras with JAX.
    """
    if code == LINEAR:
        slope = np.ones_like(y)
    elif code == RELU:
        slope = np.where(y <= 0, 0, 1)
    elif code == LEAKY_RELU:
        slope = np.where(y < 0, alpha, 1)
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
    elif code in CLIPS:
        rise, _, lowest, highest = CLIPS[code]
        slope = np.where((y <= lowest) | (y >= highest), 0, rise)
    elif code == HARD_SILU:
        slope = np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5))
    elif code in (SOFT_SHRINK, HARD_SHRINK):
        slope = np.where(y == 0, 0, 1)
    elif code == EXPONENTIAL:
        slope = y
    elif code == SOFTSIGN:
        slope = (1 - np.abs(y)) ** 2
    elif code == LOG_SIGMOID:
        slope = -np.expm1(y)
    elif code == MISH:
        t = np.tanh(np.logaddexp(0, x))
        slope = t + x * (1 - t * t) * _sigmoid(x)
    elif code == TANH_SHRINK:
        slope = np.tanh(x) ** 2
    elif code == SQUAREPLUS:
        slope = 0.5 + 0.5 * x / np.sqrt(x * x + 4)
    elif code == SPARSE_PLUS:
        slope = np.clip(x / 2 + 0.5, 0, 1)
    dx[:] = dy * slope


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Each code has its own loop, so that each vectorises.

FOUR, TWENTY = constants(4, 20)
SIXTH, SELU_FLOOR, SELU_ONE = constants(1 / 6, SELU_SCALE * SELU_ALPHA, SELU_SCALE)
NORMAL_PEAK = np.float32(1 / math.sqrt(2 * math.pi))
GELU_SCALE, GELU_CUBE, GELU_CUBE3 = constants(math.sqrt(2 / math.pi), 0.044715, 3 * 0.044715)
HARD_SIGMOID_LINE, SPARSE_SIGMOID_LINE, HARD_TANH_LINE, RELU6_LINE = (
    constants(*CLIPS[code]) for code in (HARD_SIGMOID, SPARSE_SIGMOID, HARD_TANH, RELU6)
)


@inner
def _gelu_tanh(x):
    return tanh(GELU_SCALE * (x + GELU_CUBE * x * x * x))


@inner
def _line(code):
    """What ``CLIPS`` says of a code."""
    if code == HARD_SIGMOID:
        return HARD_SIGMOID_LINE
    if code == SPARSE_SIGMOID:
        return SPARSE_SIGMOID_LINE
    return HARD_TANH_LINE if code == HARD_TANH else RELU6_LINE


@inner
def _between(x, lowest, highest):
    x = choose(x < lowest, lowest, x)
    return choose(x > highest, highest, x)


@always
def _mish_factor(x):
    """The e and the n of ``tanh(softplus(x)) = n / (n + 2)`` with e = exp(x), n = e (e + 2)."""
    e = exp(choose(x > TWENTY, TWENTY, x))
    return e, e * (e + TWO)


# Spans are worked on in place: only then does LLVM need no check that source and target are apart,
# a check that shared memory would fail.


@once(4)
def activation_span(address, count, code, alpha_bits):
    x, alpha = floats(address), from_bits(alpha_bits)
    if code == RELU:
        for i in range(count):
            x[i] = positive(x[i])
    elif code == LEAKY_RELU:
        for i in range(count):
            x[i] = positive(x[i]) + alpha * negative(x[i])
    elif code == ELU:
        for i in range(count):
            x[i] = positive(x[i]) + alpha * expm1(negative(x[i]))
    elif code == SELU:
        for i in range(count):
            x[i] = SELU_ONE * positive(x[i]) + SELU_FLOOR * expm1(negative(x[i]))
    elif code == GELU:
        for i in range(count):
            x[i] = x[i] * normal_cdf(x[i])
    elif code == GELU_TANH:
        for i in range(count):
            x[i] = HALF * x[i] * (ONE + _gelu_tanh(x[i]))
    elif code == SILU:
        for i in range(count):
            x[i] = x[i] * sigmoid(x[i])
    elif code in (SOFTPLUS, LOG_SIGMOID):
        sign = ONE if code == SOFTPLUS else -ONE
        for i in range(count):
            x[i] = sign * softplus(sign * x[i])
    elif code == TANH:
        for i in range(count):
            x[i] = tanh(x[i])
    elif code == SIGMOID:
        for i in range(count):
            x[i] = sigmoid(x[i])
    elif code in (HARD_SIGMOID, SPARSE_SIGMOID, HARD_TANH, RELU6):
        slope, middle, lowest, highest = _line(code)
        for i in range(count):
            x[i] = _between(slope * x[i] + middle, lowest, highest)
    elif code == HARD_SILU:
        for i in range(count):
            x[i] *= _between(SIXTH * x[i] + HALF, ZERO, ONE)
    elif code in (SOFT_SHRINK, HARD_SHRINK):
        shift = HALF if code == SOFT_SHRINK else ZERO
        for i in range(count):
            v = x[i] + choose(x[i] < ZERO, shift, -shift)
            x[i] = choose((x[i] >= -HALF) & (x[i] <= HALF), ZERO, v)
    elif code == EXPONENTIAL:
        for i in range(count):
            x[i] = exp(x[i])
    elif code == SOFTSIGN:
        for i in range(count):
            x[i] = x[i] / (ONE + abs(x[i]))
    elif code == MISH:
        for i in range(count):
            _, n = _mish_factor(x[i])
            x[i] *= n / (n + TWO)
    elif code == TANH_SHRINK:
        for i in range(count):
            x[i] = x[i] - tanh(x[i])
    elif code == SQUAREPLUS:
        for i in range(count):
            size = abs(x[i])
            s = size + sqrt(x[i] * x[i] + FOUR)
            x[i] = choose(x[i] < ZERO, TWO / s, HALF * s)
    elif code == SPARSE_PLUS:
        for i in range(count):
            v = HALF * _between(x[i] + ONE, ZERO, TWO)
            x[i] = choose(x[i] >= ONE, x[i], v * v)


@once(5)
def derivative_span(gradient, known, count, code, alpha_bits):
    g, v, alpha = floats(gradient), floats(known), from_bits(alpha_bits)
    if code == RELU:
        for i in range(count):
            g[i] = choose(v[i] <= ZERO, ZERO, g[i])
    elif code == LEAKY_RELU:
        for i in range(count):
            g[i] *= choose(v[i] < ZERO, alpha, ONE)
    elif code == ELU:
        for i in range(count):
            g[i] *= choose(v[i] <= ZERO, v[i] + alpha, ONE)
    elif code == SELU:
        for i in range(count):
            g[i] *= choose(v[i] <= ZERO, v[i] + SELU_FLOOR, SELU_ONE)
    elif code == GELU:
        for i in range(count):
            x = v[i]
            g[i] *= normal_cdf(x) + x * NORMAL_PEAK * exp(-HALF * x * x)
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
    elif code in (SOFTPLUS, LOG_SIGMOID):
        sign = ONE if code == SOFTPLUS else -ONE
        for i in range(count):
            g[i] *= -expm1(-sign * v[i])
    elif code == TANH:
        for i in range(count):
            g[i] *= ONE - v[i] * v[i]
    elif code == SIGMOID:
        for i in range(count):
            g[i] *= v[i] * (ONE - v[i])
    elif code in (HARD_SIGMOID, SPARSE_SIGMOID, HARD_TANH, RELU6):
        slope, _, lowest, highest = _line(code)
        for i in range(count):
            g[i] *= choose((v[i] <= lowest) | (v[i] >= highest), ZERO, slope)
    elif code == HARD_SILU:
        for i in range(count):
            g[i] *= choose(v[i] <= -THREE, ZERO, choose(v[i] >= THREE, ONE, v[i] / THREE + HALF))
    elif code in (SOFT_SHRINK, HARD_SHRINK):
        for i in range(count):
            g[i] = choose(v[i] == ZERO, ZERO, g[i])
    elif code == EXPONENTIAL:
        for i in range(count):
            g[i] *= v[i]
    elif code == SOFTSIGN:
        for i in range(count):
            slope = ONE - abs(v[i])
            g[i] *= slope * slope
    elif code == MISH:
        for i in range(count):
            e, n = _mish_factor(v[i])
            t = n / (n + TWO)
            g[i] *= t + FOUR * v[i] * e * (e + ONE) / ((n + TWO) * (n + TWO))
    elif code == TANH_SHRINK:
        for i in range(count):
            t = tanh(v[i])
            g[i] *= t * t
    elif code == SQUAREPLUS:
        for i in range(count):
            g[i] *= HALF + HALF * v[i] / sqrt(v[i] * v[i] + FOUR)
    elif code == SPARSE_PLUS:
        for i in range(count):
            g[i] *= _between(HALF * v[i] + HALF, ZERO, ONE)


@inner
def activate(x, x0, count, code, alpha):
    """Apply an activation to `count` elements of `x` from `x0` on, in place."""
    activation_span((address(x, x0), count, code, bits(np.float32(alpha))))


@inner
def differentiate(g, g0, v, v0, count, code, alpha):
    """Multiply `count` elements of `g` by the derivative, where `v` is what that follows from.

    `v` is the output for the codes in ``FROM_OUTPUT`` and the input for the others; it does not
    share memory with `g`.
    """
    derivative_span((address(g, g0), address(v, v0), count, code, bits(np.float32(alpha))))


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


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element. A number is a span of one, kept in a register: the formulas are those
# of the CPU.


@twin(floats)
def _floats(cell):
    return cell


@twin(from_bits)
def _number(alpha):
    return alpha


_activate = gpu(activation_span.function)
_differentiate = gpu(derivative_span.function)


@gpu
def activation_of(x, code, alpha):
    """The activation of one number."""
    cell = cuda.local.array(1, np.float32)
    cell[0] = x
    _activate(cell, 1, code, alpha)
    return cell[0]


@gpu
def derivative_of(dy, known, code, alpha):
    """`dy` times the derivative, where `known` is what that follows from."""
    gradient, cell = cuda.local.array(1, np.float32), cuda.local.array(1, np.float32)
    gradient[0], cell[0] = dy, known
    _differentiate(gradient, cell, 1, code, alpha)
    return gradient[0]


# Numba takes four seconds to read all formulas, and for one that is used alone a third of one: so
# the activations that most models have get kernels of their own.


def _applied(function):
    @gpu
    def applied(y, x):
        for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
            y[i] = function(x[i])

    return applied


def _derived(function):
    @gpu
    def derived(dx, dy, y):
        for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
            dx[i] = function(dy[i], y[i])

    return derived


@gpu
def _through_relu(dy, y):
    return choose(y <= ZERO, ZERO, dy)


@gpu
def _through_tanh(dy, y):
    return dy * (ONE - y * y)


@gpu
def _through_sigmoid(dy, y):
    return dy * (y * (ONE - y))


_relu_forward, _relu_backward = _applied(positive), _derived(_through_relu)
_tanh_forward, _tanh_backward = _applied(tanh), _derived(_through_tanh)
_sigmoid_forward, _sigmoid_backward = _applied(sigmoid), _derived(_through_sigmoid)
_FORWARD = {RELU: _relu_forward, TANH: _tanh_forward, SIGMOID: _sigmoid_forward}
_BACKWARD = {RELU: _relu_backward, TANH: _tanh_backward, SIGMOID: _sigmoid_backward}


@gpu
def _forward_elements(y, x, code, alpha):
    a = np.float32(alpha)
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        y[i] = activation_of(x[i], code, a)


def activation_forward_cuda(y, x, code, alpha):
    if code in _FORWARD:
        over(_FORWARD[code], y.size, y, x)
    else:
        over(_forward_elements, y.size, y, x, int(code), float(alpha))


@gpu
def _backward_elements(dx, dy, known, code, alpha):
    a = np.float32(alpha)
    for i in range(cuda.grid(1), dx.size, cuda.gridsize(1)):
        dx[i] = derivative_of(dy[i], known[i], code, a)


def activation_backward_cuda(dx, dy, x, y, code, alpha):
    known = y if code in FROM_OUTPUT else x
    if code in _BACKWARD:
        over(_BACKWARD[code], dx.size, dx, dy, y)
    else:
        over(_backward_elements, dx.size, dx, dy, known, int(code), float(alpha))
