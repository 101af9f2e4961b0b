"""Updates: one step of an optimizer over the flat vector of parameters.

Parameters, gradients and every slot (what an optimizer remembers of a parameter) are vectors of
one length. A table of segments says which ranges are trained: what lies outside, frozen
parameters and padding, keeps its value and its slots.
"""

import numpy as np

from minicnnrnn.kernels.elementary import always, elementary, sqrt
from minicnnrnn.kernels.gpu import cuda, gpu, over
from minicnnrnn.kernels.jit import cpu, inner, split

# Entries of `rates`: the first two for every optimizer, the others for the one they name.
LEARNING_RATE, WEIGHT_DECAY = 0, 1
SGD_MOMENTUM = 2
ADAGRAD_EPSILON = 2
RMSPROP_RHO, RMSPROP_MOMENTUM, RMSPROP_EPSILON = 2, 3, 4
ADAM_BETA_1, ADAM_BETA_2, ADAM_EPSILON = 2, 3, 4

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def _trained(segments, rates):
    """For each segment: where it is, and the share of a weight that decay takes."""
    shrink = float(rates[WEIGHT_DECAY]) * float(rates[LEARNING_RATE])
    for start, stop, decays in segments:
        yield slice(start, stop), shrink if decays else 0.0


def sgd_update_numpy(w, velocity, g, rates, step, segments, nesterov):
    """Stochastic gradient descent with momentum.

    .. math::
        w &\\leftarrow w - \\lambda \\eta w \\\\
        v &\\leftarrow \\mu v - \\eta g \\\\
        w &\\leftarrow w + v, \\quad \\text{with Nesterov:} \\quad w + \\mu v - \\eta g

    Parameters
    ----------
    w : (P,), updated in place
        All parameters.
    velocity : (P,), updated in place, or (0,) where the momentum is 0
    g : (P,)
        Gradient of the loss with respect to `w`.
    rates : float64 (3,)
        Learning rate :math:`\\eta`; weight decay :math:`\\lambda`, 0 for none; momentum
        :math:`\\mu`. Float64, because a float32 of 0.999 has lost four digits of 1 - 0.999.
    step : int64 (1,), updated in place
        Number of updates made; the launcher counts itself before anything else.
    segments : int64 (S, 3)
        Rows of (start, stop, decays), in ascending order: the elements from `start` up to `stop`
        are trained, and their weights decay where `decays` is 1. Nothing else of `w` or the
        slots is touched.
    nesterov : int
        1 for Nesterov's momentum, which looks ahead by one step.

    Notes
    -----
    One pass over memory: 4 floats read and 2 written an element. Weight decay is decoupled from
    the gradient (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2); Nesterov's momentum
    in the form of Sutskever et al. 2013, section 2. All formulas are those of Keras 3.
    """
    step[0] += 1
    rate, momentum = float(rates[LEARNING_RATE]), float(rates[SGD_MOMENTUM])
    for part, shrink in _trained(segments, rates):
        w[part] -= w[part] * shrink
        if not velocity.size:
            w[part] -= rate * g[part]
            continue
        velocity[part] = momentum * velocity[part] - rate * g[part]
        if nesterov:
            w[part] += momentum * velocity[part] - rate * g[part]
        else:
            w[part] += velocity[part]


def rmsprop_update_numpy(w, square, velocity, mean, g, rates, step, segments):
    """RMSprop: a gradient measured by its own recent size.

    .. math::
        s &\\leftarrow \\rho s + (1 - \\rho) g^2 \\\\
        a &\\leftarrow \\rho a + (1 - \\rho) g \\quad \\text{(centered; otherwise } a = 0) \\\\
        v &\\leftarrow \\mu v + \\eta g / \\sqrt{s - a^2 + \\epsilon} \\\\
        w &\\leftarrow w - \\lambda \\eta w - v

    Parameters
    ----------
    w, square : (P,), updated in place
        Parameters and the running mean of squared gradients, s.
    velocity : (P,), updated in place, or (0,) where the momentum is 0
    mean : (P,), updated in place, or (0,) unless centered
        Running mean of gradients, a.
    rates : float64 (5,)
        Learning rate, weight decay, :math:`\\rho`, momentum :math:`\\mu`, :math:`\\epsilon`.
    g, step, segments : as in ``sgd_update``

    Notes
    -----
    Tieleman and Hinton 2012, lecture 6.5 of "Neural Networks for Machine Learning"; epsilon
    stands under the root, as in Keras 3.
    """
    step[0] += 1
    rate, rho, momentum = (float(rates[i]) for i in (LEARNING_RATE, RMSPROP_RHO, RMSPROP_MOMENTUM))
    for part, shrink in _trained(segments, rates):
        square[part] = rho * square[part] + (1 - rho) * g[part] ** 2
        variance = square[part]
        if mean.size:
            mean[part] = rho * mean[part] + (1 - rho) * g[part]
            variance = variance - mean[part] ** 2
        move = rate * g[part] / np.sqrt(variance + float(rates[RMSPROP_EPSILON]))
        if velocity.size:
            velocity[part] = momentum * velocity[part] + move
            move = velocity[part]
        w[part] -= w[part] * shrink
        w[part] -= move


def adagrad_update_numpy(w, square, g, rates, step, segments):
    """Adagrad: a gradient measured by the size of all gradients so far.

    .. math::
        s &\\leftarrow s + g^2 \\\\
        w &\\leftarrow w - \\lambda \\eta w - \\eta g / \\sqrt{s + \\epsilon}

    Parameters
    ----------
    w, square : (P,), updated in place
        Parameters and the sum of squared gradients, s.
    rates : float64 (3,)
        Learning rate, weight decay, :math:`\\epsilon`.
    g, step, segments : as in ``sgd_update``

    Notes
    -----
    Duchi, Hazan and Singer 2011, JMLR 12, figure 1, with the diagonal of the matrix; epsilon
    stands under the root, as in Keras 3.
    """
    step[0] += 1
    rate = float(rates[LEARNING_RATE])
    for part, shrink in _trained(segments, rates):
        square[part] += g[part] ** 2
        w[part] -= w[part] * shrink
        w[part] -= rate * g[part] / np.sqrt(square[part] + float(rates[ADAGRAD_EPSILON]))


def adam_update_numpy(w, m, v, v_max, g, rates, step, segments):
    """Adam, and with weight decay AdamW.

    .. math::
        m &\\leftarrow m + (1 - \\beta_1) (g - m) \\\\
        v &\\leftarrow v + (1 - \\beta_2) (g^2 - v) \\\\
        w &\\leftarrow w - \\lambda \\eta w
            - \\eta \\frac{\\sqrt{1 - \\beta_2^t}}{1 - \\beta_1^t} \\frac{m}{\\sqrt{v} + \\epsilon}

    Parameters
    ----------
    w, m, v : (P,), updated in place
        Parameters, running mean of gradients, running mean of squared gradients.
    v_max : (P,), updated in place, or (0,) for none
        The largest `v` so far, which then takes the place of `v` in the last line (AMSGrad).
    rates : float64 (5,)
        Learning rate, weight decay, :math:`\\beta_1`, :math:`\\beta_2`, :math:`\\epsilon`.
    g, step, segments : as in ``sgd_update``; t is the number of the step, 1 for the first

    Notes
    -----
    Kingma and Ba 2015, arXiv:1412.6980, the form before section 2.1, whose epsilon is added to
    the uncorrected root (PyTorch adds it to the corrected one); AMSGrad by Reddi et al. 2018,
    arXiv:1904.09237, algorithm 2. One pass over memory: 4 floats read and 3 written an element.
    """
    step[0] += 1
    beta_1, beta_2 = float(rates[ADAM_BETA_1]), float(rates[ADAM_BETA_2])
    rate = float(rates[LEARNING_RATE])
    rate *= (1 - beta_2 ** float(step[0])) ** 0.5 / (1 - beta_1 ** float(step[0]))
    for part, shrink in _trained(segments, rates):
        m[part] += (g[part] - m[part]) * (1 - beta_1)
        v[part] += (g[part] ** 2 - v[part]) * (1 - beta_2)
        second = v[part]
        if v_max.size:
            second = v_max[part] = np.maximum(v_max[part], second)
        w[part] -= w[part] * shrink
        w[part] -= rate * m[part] / (np.sqrt(second) + float(rates[ADAM_EPSILON]))


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Elements are independent: the vector is cut among threads in blocks, and each thread visits
# the part of every segment that lies in its range. All slots are touched in one loop, since
# memory is what limits it. A slot that is absent holds zeros.

ZERO = np.float32(0)
BLOCK = 64  # elements, a multiple of the cache line so that no two threads write to one
GRAIN = 512  # blocks that make it worth waking a second thread


@inner
def blocks(size):
    """Blocks of a vector of this size."""
    return (size + BLOCK - 1) // BLOCK


@inner
def part(segments, s, start, stop):
    """The part of segment `s` that lies in the blocks from `start` up to `stop`."""
    first = max(segments[s, 0], start * BLOCK)
    return first, max(first, min(segments[s, 1], stop * BLOCK))


@always
def _sgd(w, v, g, rate, momentum, shrink, nesterov):
    move = -rate * g
    v = momentum * v + move
    return w - w * shrink + (momentum * v + move if nesterov else v), v


@inner
def _sgd_range(start, stop, worker, w, velocity, g, rates, segments, nesterov):
    rate, momentum = np.float32(rates[LEARNING_RATE]), np.float32(rates[SGD_MOMENTUM])
    for s in range(segments.shape[0]):
        a, b = part(segments, s, start, stop)
        shrink = np.float32(rates[WEIGHT_DECAY] * rates[LEARNING_RATE] * segments[s, 2])
        ws, vs, gs = w[a:b], velocity[a:b], g[a:b]  # views, so that the loop vectorises
        for i in range(ws.size):
            v = vs[i] if velocity.size else ZERO
            ws[i], v = _sgd(ws[i], v, gs[i], rate, momentum, shrink, nesterov)
            if velocity.size:
                vs[i] = v


@cpu
def sgd_update_cpu(w, velocity, g, rates, step, segments, nesterov):
    step[0] += 1
    arguments = (w, velocity, g, rates, segments, nesterov)
    split(_sgd_range, blocks(w.size), GRAIN, arguments)


@inner
def _rmsprop_constants(rates):
    rate, rho = rates[LEARNING_RATE], rates[RMSPROP_RHO]
    momentum, epsilon = rates[RMSPROP_MOMENTUM], rates[RMSPROP_EPSILON]
    numbers = np.float32(rate), np.float32(rho), np.float32(1 - rho)
    return *numbers, np.float32(momentum), np.float32(epsilon)


@inner
def _mean(old, new, rho, rest):
    return rho * old + rest * new


@inner
def _rmsprop(g, square, average, rate, epsilon):
    return rate * g / sqrt((square - average * average) + epsilon)


@inner
def _rmsprop_range(start, stop, worker, w, square, velocity, mean, g, rates, segments):
    rate, rho, rest, momentum, epsilon = _rmsprop_constants(rates)
    for s in range(segments.shape[0]):
        a, b = part(segments, s, start, stop)
        shrink = np.float32(rates[WEIGHT_DECAY] * rates[LEARNING_RATE] * segments[s, 2])
        ws, squares, vs, means, gs = w[a:b], square[a:b], velocity[a:b], mean[a:b], g[a:b]
        for i in range(ws.size):
            average, variance = ZERO, _mean(squares[i], gs[i] * gs[i], rho, rest)
            squares[i] = variance
            if mean.size:
                average = _mean(means[i], gs[i], rho, rest)
                means[i] = average
            move = _rmsprop(gs[i], variance, average, rate, epsilon)
            if velocity.size:
                move = momentum * vs[i] + move
                vs[i] = move
            ws[i] = ws[i] - ws[i] * shrink - move


@cpu
def rmsprop_update_cpu(w, square, velocity, mean, g, rates, step, segments):
    step[0] += 1
    arguments = (w, square, velocity, mean, g, rates, segments)
    split(_rmsprop_range, blocks(w.size), GRAIN, arguments)


@always
def _adagrad(w, s, g, rate, epsilon, shrink):
    s = s + g * g
    return w - w * shrink - rate * g / sqrt(s + epsilon), s


@inner
def _adagrad_range(start, stop, worker, w, square, g, rates, segments):
    rate, epsilon = np.float32(rates[LEARNING_RATE]), np.float32(rates[ADAGRAD_EPSILON])
    for s in range(segments.shape[0]):
        a, b = part(segments, s, start, stop)
        shrink = np.float32(rates[WEIGHT_DECAY] * rates[LEARNING_RATE] * segments[s, 2])
        ws, squares, gs = w[a:b], square[a:b], g[a:b]
        for i in range(ws.size):
            ws[i], squares[i] = _adagrad(ws[i], squares[i], gs[i], rate, epsilon, shrink)


@cpu
def adagrad_update_cpu(w, square, g, rates, step, segments):
    step[0] += 1
    split(_adagrad_range, blocks(w.size), GRAIN, (w, square, g, rates, segments))


@always
def _adam(w, m, v, highest, g, rate, epsilon, rest_1, rest_2, shrink):
    m = m + (g - m) * rest_1
    v = v + (g * g - v) * rest_2
    highest = highest if highest > v else v  # a NaN in v stays
    return w - w * shrink - rate * m / (sqrt(highest) + epsilon), m, v, highest


@inner
def _adam_range(start, stop, worker, w, m, v, v_max, g, rates, segments, corrected):
    rate, epsilon = np.float32(corrected), np.float32(rates[ADAM_EPSILON])
    rest_1, rest_2 = np.float32(1 - rates[ADAM_BETA_1]), np.float32(1 - rates[ADAM_BETA_2])
    for s in range(segments.shape[0]):
        a, b = part(segments, s, start, stop)
        shrink = np.float32(rates[WEIGHT_DECAY] * rates[LEARNING_RATE] * segments[s, 2])
        ws, ms, vs, largest, gs = w[a:b], m[a:b], v[a:b], v_max[a:b], g[a:b]
        for i in range(ws.size):
            highest = largest[i] if v_max.size else ZERO
            ws[i], ms[i], vs[i], highest = _adam(
                ws[i], ms[i], vs[i], highest, gs[i], rate, epsilon, rest_1, rest_2, shrink
            )
            if v_max.size:
                largest[i] = highest


@cpu
def adam_update_cpu(w, m, v, v_max, g, rates, step, segments):
    step[0] += 1
    t = float(step[0])
    corrected = rates[LEARNING_RATE] * np.sqrt(1 - rates[ADAM_BETA_2] ** t)
    corrected /= 1 - rates[ADAM_BETA_1] ** t
    arguments = (w, m, v, v_max, g, rates, segments, corrected)
    split(_adam_range, blocks(w.size), GRAIN, arguments)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element, one kernel for the whole update. A thread searches the segment of its
# first element, and goes on from there for the others. Rates and the number of the step are read
# by the kernels alone; the step is counted when no thread reads it any more.


@gpu
def first_segment(segments, i):
    """The first segment that does not end before element `i`."""
    low, high = 0, segments.shape[0]
    while low < high:
        middle = (low + high) // 2
        if segments[middle, 1] <= i:
            low = middle + 1
        else:
            high = middle
    return low


@gpu
def next_segment(segments, s, i):
    """As ``first_segment``, which is `s` or comes after it."""
    while s < segments.shape[0] and segments[s, 1] <= i:
        s += 1
    return s


@gpu
def holds(segments, s, i):
    """Whether segment `s` is one, and has begun at element `i`."""
    return s < segments.shape[0] and segments[s, 0] <= i


@gpu
def _decay(rates):
    return np.float32(rates[WEIGHT_DECAY]) * np.float32(rates[LEARNING_RATE])


# Above the number of the step, blocks count themselves: the last one of a kernel finds that all
# others have read it, and puts the next number there, with none above it.
BLOCK_DONE = 1 << 40


@gpu
def _moves(step):
    return step[0] % BLOCK_DONE


@gpu
def _count(step):
    """Count the step; what all threads of all blocks call last."""
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        before = cuda.atomic.add(step, 0, BLOCK_DONE)
        if before // BLOCK_DONE == cuda.gridDim.x - 1:
            step[0] = before % BLOCK_DONE + 1


@gpu
def _sgd_elements(w, velocity, g, rates, step, segments, nesterov):
    rate, momentum = np.float32(rates[LEARNING_RATE]), np.float32(rates[SGD_MOMENTUM])
    decay = _decay(rates)
    s = first_segment(segments, cuda.grid(1))
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        s = next_segment(segments, s, i)
        if not holds(segments, s, i):
            continue
        shrink = decay if segments[s, 2] else ZERO
        v = velocity[i] if velocity.size else ZERO
        w[i], v = _sgd(w[i], v, g[i], rate, momentum, shrink, nesterov)
        if velocity.size:
            velocity[i] = v
    _count(step)


def sgd_update_cuda(w, velocity, g, rates, step, segments, nesterov):
    over(_sgd_elements, max(1, w.size), w, velocity, g, rates, step, segments, nesterov)


@gpu
def _rmsprop_elements(w, square, velocity, mean, g, rates, step, segments):
    decay = _decay(rates)
    rate, rho, rest, momentum, epsilon = _rmsprop_constants(rates)
    s = first_segment(segments, cuda.grid(1))
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        s = next_segment(segments, s, i)
        if not holds(segments, s, i):
            continue
        shrink = decay if segments[s, 2] else ZERO
        average, variance = ZERO, _mean(square[i], g[i] * g[i], rho, rest)
        square[i] = variance
        if mean.size:
            average = _mean(mean[i], g[i], rho, rest)
            mean[i] = average
        move = _rmsprop(g[i], variance, average, rate, epsilon)
        if velocity.size:
            move = momentum * velocity[i] + move
            velocity[i] = move
        w[i] = w[i] - w[i] * shrink - move
    _count(step)


def rmsprop_update_cuda(w, square, velocity, mean, g, rates, step, segments):
    arrays = w, square, velocity, mean, g
    over(_rmsprop_elements, max(1, w.size), *arrays, rates, step, segments)


@gpu
def _adagrad_elements(w, square, g, rates, step, segments):
    rate, epsilon = np.float32(rates[LEARNING_RATE]), np.float32(rates[ADAGRAD_EPSILON])
    decay = _decay(rates)
    s = first_segment(segments, cuda.grid(1))
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        s = next_segment(segments, s, i)
        if holds(segments, s, i):
            shrink = decay if segments[s, 2] else ZERO
            w[i], square[i] = _adagrad(w[i], square[i], g[i], rate, epsilon, shrink)
    _count(step)


def adagrad_update_cuda(w, square, g, rates, step, segments):
    over(_adagrad_elements, max(1, w.size), w, square, g, rates, step, segments)


@gpu
def _missing(rest, t):
    """1 - beta^t for a beta that is 1 - `rest`: exact in single precision, too."""
    return -np.float32(elementary.expm1(t * np.float32(elementary.log1p(-rest))))


@gpu
def _adam_elements(w, m, v, v_max, g, rates, step, segments):
    rate, epsilon = np.float32(rates[LEARNING_RATE]), np.float32(rates[ADAM_EPSILON])
    rest_1, rest_2 = np.float32(1 - rates[ADAM_BETA_1]), np.float32(1 - rates[ADAM_BETA_2])
    t, decay = np.float32(_moves(step) + 1), _decay(rates)
    rate *= sqrt(_missing(rest_2, t)) / _missing(rest_1, t)
    s = first_segment(segments, cuda.grid(1))
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        s = next_segment(segments, s, i)
        if not holds(segments, s, i):
            continue
        shrink = decay if segments[s, 2] else ZERO
        highest = v_max[i] if v_max.size else ZERO
        w[i], m[i], v[i], highest = _adam(
            w[i], m[i], v[i], highest, g[i], rate, epsilon, rest_1, rest_2, shrink
        )
        if v_max.size:
            v_max[i] = highest
    _count(step)


def adam_update_cuda(w, m, v, v_max, g, rates, step, segments):
    over(_adam_elements, max(1, w.size), w, m, v, v_max, g, rates, step, segments)
