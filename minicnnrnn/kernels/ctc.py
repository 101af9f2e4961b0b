"""CTC: the loss of a sequence whose labels' places in time nobody knows.

Graves et al. 2006, "Connectionist Temporal Classification: Labelling Unsegmented Sequence Data
with Recurrent Neural Networks", sections 3 and 4. Here a sample has one value, however many time
steps it has.
"""

import math

import numpy as np

from minicnnrnn.kernels.crossentropy import log_softmax, peak_of
from minicnnrnn.kernels.elementary import exp, log1p
from minicnnrnn.kernels.gpu import SIMULATED, THREADS, cuda, gpu, launch
from minicnnrnn.kernels.jit import MAX_WORKERS, REASSOCIATE, cpu, inner, split
from minicnnrnn.kernels.reduce import block_max, block_sum

# The logarithm of the probability of what the rules forbid: to begin behind the first label, or
# to go on to an equal label without a blank between. With it a sequence too short for its labels
# has a large value instead of an infinite one, as in Keras 3 on JAX.
FORBIDDEN = -1e5

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def _states(labels):
    """The labels with blanks around them, and the cost of going from a state two states on."""
    states = np.zeros(2 * len(labels) + 1, np.int64)
    states[1::2] = labels
    jump = np.full(len(states), -np.inf)
    jump[3::2] = np.where(labels[1:] == labels[:-1], FORBIDDEN, 0)
    return states, jump


def _shifted(a, steps):
    """Moved on by so many states; nothing comes from before the first."""
    return np.concatenate([np.full(steps, -np.inf), a[:-steps]])[: len(a)]


def _alphas(logs, labels):
    """Logarithm of the probability of the first t steps and of being in state s: (T + 1, S)."""
    states, jump = _states(labels)
    alpha = np.full(len(states), FORBIDDEN)
    alpha[0] = 0
    alphas = [alpha]
    for row in logs:
        moved = np.logaddexp(alpha, _shifted(alpha, 1))
        alpha = np.logaddexp(moved, _shifted(alpha, 2) + jump) + row[states]
        alphas.append(alpha)
    return np.array(alphas)


def _betas(logs, labels):
    """Logarithm of the probability of the steps after t, given state s at t: (T, S)."""
    states, jump = _states(labels)
    beta = np.full(len(states), -np.inf)
    beta[-2:] = 0
    betas = np.empty((len(logs), len(states)))
    for t in reversed(range(len(logs))):
        betas[t] = beta
        onward = beta + logs[t][states]
        moved = np.logaddexp(onward, _shifted(onward[::-1], 1)[::-1])
        beta = np.logaddexp(moved, _shifted((onward + jump)[::-1], 2)[::-1])
    return betas


def _sample(y, t, mask, n):
    """The log-probabilities at the steps that count, and the labels."""
    return log_softmax(y[n][mask[n] != 0] if mask.size else y[n]), t[n][t[n] != 0]


def ctc_forward_numpy(values, y, t, mask, ws):
    """Connectionist temporal classification: minus the log-probability of the labels.

    .. math:: v_n = -\\ln \\sum_{\\pi} \\prod_t p_{n, t, \\pi_t}

    where p is the softmax of y, and the paths :math:`\\pi` are those that become the labels when
    runs of one class are merged and blanks, class 0, are left out.

    Parameters
    ----------
    values : (N,), overwritten
    y : (N, T, C)
        Logits.
    t : int32 (N, L)
        Labels from 1 to C - 1, and zeros behind the last one.
    mask : uint8 (N, T), or (0, 0) for none
        0 for steps to leave out.
    ws : workspace

    Notes
    -----
    With S = 2 L + 1 states, of which the odd ones are the labels and the even ones the blanks
    between them, and :math:`\\lambda_s` the class of state s,

    .. math:: \\alpha_t(s) = p_{t, \\lambda_s} \\big( \\alpha_{t-1}(s) + \\alpha_{t-1}(s - 1)
              + [\\lambda_s \\text{ neither blank nor equal to } \\lambda_{s-2}]
              \\, \\alpha_{t-1}(s - 2) \\big),

    and the probability is the sum of the last two states' at the last step. All in logarithms.
    Where labels are too many for the steps, ``FORBIDDEN`` says what happens. Cost: N T (C + S)
    exponentials.
    """
    for n in range(len(y)):
        logs, labels = _sample(y, t, mask, n)
        values[n] = -np.logaddexp.reduce(_alphas(logs, labels)[-1, -2:])


def ctc_backward_numpy(dy, y, t, weights, mask, ws):
    """Gradient of ``sum(weights * values)``, with respect to the logits.

    .. math:: dy_{ntk} = w_n \\Big( p_{ntk} - \\sum_{s : \\lambda_s = k} \\gamma_t(s) \\Big),
              \\qquad \\gamma_t(s) \\propto \\alpha_t(s) \\beta_t(s)

    The occupancy :math:`\\gamma_t`, a distribution over states, is the probability of being in
    state s at step t on a path that gives the labels; :math:`\\beta_t(s)` is that of the steps
    after t, computed from the end like alpha from the beginning. `dy` is 0 at steps left out.
    """
    dy[:] = 0
    for n in range(len(y)):
        logs, labels = _sample(y, t, mask, n)
        occupancy = _alphas(logs, labels)[1:] + _betas(logs, labels)
        occupancy = np.exp(occupancy - np.logaddexp.reduce(occupancy, axis=1)[:, None])
        classes = _states(labels)[0][:, None] == np.arange(y.shape[2])
        gradient = weights[n] * (np.exp(logs) - occupancy @ classes)
        if mask.size:
            dy[n][mask[n] != 0] = gradient
        else:
            dy[n] = gradient


def ctc_workspace_numpy(T, L):
    """Number of float32 that the workspace needs: none."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Samples are independent and are cut among threads; each thread keeps all alphas of its sample,
# and a row of betas. Every step's row is shifted so that its largest is zero: then single
# precision is enough for sequences of any length.

ZERO, ONE = np.float32(0), np.float32(1)
COST, NEVER = np.float32(FORBIDDEN), np.float32(-1e30)


@inner
def _log_add(a, b):
    """ln(exp(a) + exp(b))."""
    largest, smallest = (a, b) if a > b else (b, a)
    return largest + log1p(exp(smallest - largest))


@cpu(fastmath=REASSOCIATE)
def _log_norm(row):
    """Logarithm of the sum of a row's exponentials."""
    peak, total = peak_of(row), ZERO
    for c in range(row.size):
        total += exp(row[c] - peak)
    return peak + np.float32(math.log(total))


@inner
def _jump(labels, s):
    """What it costs to come to a label's state from the label before."""
    return COST if labels[s // 2] == labels[s // 2 - 1] else ZERO


@inner
def _arrive(alpha, at, before, row, norm, labels, first, states, stride):
    """Fill every `stride`-th of a row of alphas from the row before; returns the largest."""
    peak = NEVER
    for s in range(first, states, stride):
        score, label = alpha[before + s], 0
        if s > 0:
            score = _log_add(score, alpha[before + s - 1])
        if s % 2 == 1:
            label = labels[s // 2]
            if s > 2:
                score = _log_add(score, alpha[before + s - 2] + _jump(labels, s))
        score += row[label] - norm
        alpha[at + s] = score
        peak = peak if score < peak else score
    return peak


@inner
def _next_alphas(alpha, at, before, row, norm, labels, states):
    """Fill a row of alphas from the row before; returns by how much it was shifted."""
    peak = _arrive(alpha, at, before, row, norm, labels, 0, states, 1)
    for s in range(states):
        alpha[at + s] -= peak
    return peak


@inner
def _counts(mask, n, step):
    return mask.size == 0 or mask[n, step] != 0


@inner
def _all_alphas(alpha, y, n, labels, states, mask):
    """Alphas of all steps: row t + 1 is after step t. Returns what was taken from the last row."""
    taken, T = 0.0, y.shape[1]
    for s in range(states):
        alpha[s] = COST
    alpha[0] = ZERO
    for t in range(T):
        before, at = t * states, (t + 1) * states
        if _counts(mask, n, t):
            norm = _log_norm(y[n, t])
            taken += _next_alphas(alpha, at, before, y[n, t], norm, labels, states)
        else:
            for s in range(states):
                alpha[at + s] = alpha[before + s]
    return taken


@inner
def _length(labels):
    count = 0
    for i in range(labels.size):
        count += 1 if labels[i] != 0 else 0
    return count


@inner
def _values(start, stop, worker, values, y, t, mask, ws):
    T, room = y.shape[1], _room(y.shape[1], t.shape[1])
    alpha = ws[worker * room : (worker + 1) * room]
    for n in range(start, stop):
        states = 2 * _length(t[n]) + 1
        taken = _all_alphas(alpha, y, n, t[n], states, mask)
        end = (T + 1) * states - 1
        score = alpha[end]
        if states > 1:
            score = _log_add(score, alpha[end - 1])
        values[n] = -(taken + score)


@inner
def _room(T, L):
    return (T + 2) * (2 * L + 1)


@cpu
def ctc_forward_cpu(values, y, t, mask, ws):
    split(_values, y.shape[0], 1, (values, y, t, mask, ws))


@inner
def _depart(beta, at, after, row, norm, labels, first, states, stride):
    """Fill every `stride`-th of a row of betas from the row after; returns the largest."""
    peak = NEVER
    for s in range(first, states, stride):
        label = labels[s // 2] if s % 2 == 1 else 0
        score = beta[after + s] + (row[label] - norm)
        if s + 1 < states:
            label = 0 if s % 2 == 1 else labels[s // 2]
            score = _log_add(score, beta[after + s + 1] + (row[label] - norm))
        if s % 2 == 1 and s + 2 < states:
            onward = beta[after + s + 2] + (row[labels[s // 2 + 1]] - norm)
            score = _log_add(score, onward + _jump(labels, s + 2))
        beta[at + s] = score
        peak = peak if score < peak else score
    return peak


@inner
def _before(alpha, beta, row, norm, labels, states):
    """Take a row of betas one step back in time, in place."""
    peak = _depart(beta, 0, 0, row, norm, labels, 0, states, 1)
    for s in range(states):
        beta[s] -= peak


@inner
def _step_gradient(out, row, norm, alpha, at, beta, labels, states, weight):
    """The gradient at one step: softmax less occupancy."""
    peak, total = NEVER, ZERO
    for s in range(states):
        score = alpha[at + s] + beta[s]
        peak = peak if score < peak else score
    for s in range(states):
        total += exp(alpha[at + s] + beta[s] - peak)
    for c in range(row.size):
        out[c] = weight * exp(row[c] - norm)
    for s in range(states):
        label = labels[s // 2] if s % 2 == 1 else 0
        out[label] -= weight * (exp(alpha[at + s] + beta[s] - peak) / total)


@inner
def _gradients(start, stop, worker, dy, y, t, weights, mask, ws):
    T, room = y.shape[1], _room(y.shape[1], t.shape[1])
    for n in range(start, stop):
        states = 2 * _length(t[n]) + 1
        alpha = ws[worker * room : (worker + 1) * room]
        beta = alpha[(T + 1) * states :]
        _all_alphas(alpha, y, n, t[n], states, mask)
        for s in range(states):
            beta[s] = ZERO if s >= states - 2 else NEVER
        for step in range(T - 1, -1, -1):
            row, out = y[n, step], dy[n, step]
            if not _counts(mask, n, step):
                for c in range(row.size):
                    out[c] = ZERO
                continue
            norm, at = _log_norm(row), (step + 1) * states
            _step_gradient(out, row, norm, alpha, at, beta, t[n], states, weights[n])
            _before(alpha, beta, row, norm, t[n], states)


@cpu
def ctc_backward_cpu(dy, y, t, weights, mask, ws):
    split(_gradients, y.shape[0], 1, (dy, y, t, weights, mask, ws))


def ctc_workspace_cpu(T, L):
    """Number of float32: all alphas and one row of betas for every thread."""
    return MAX_WORKERS * (T + 2) * (2 * L + 1)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A block for every sample, a thread for every state, which wait for one another at every step.
# The workspace has a room for each of at most ROOMS blocks, that walk through the samples: the
# norms of all steps, all alphas, the betas of two steps, and the occupancy at one.

ROOMS = 2 if SIMULATED else 256


@gpu
def _fill_alphas(alpha, norms, y, n, labels, states, mask):
    """As ``_all_alphas``, and the logarithms of the steps' sums of exponentials."""
    t, T, taken = cuda.threadIdx.x, y.shape[1], 0.0
    for step in range(t, T, THREADS):
        norms[step] = _log_norm(y[n, step])
    for s in range(t, states, THREADS):
        alpha[s] = ZERO if s == 0 else COST
    cuda.syncthreads()
    for step in range(T):
        before, at, row = step * states, (step + 1) * states, y[n, step]
        if _counts(mask, n, step):
            peak = _arrive(alpha, at, before, row, norms[step], labels, t, states, THREADS)
            peak = block_max(peak)
            taken += peak
            for s in range(t, states, THREADS):
                alpha[at + s] -= peak
        else:
            for s in range(t, states, THREADS):
                alpha[at + s] = alpha[before + s]
        cuda.syncthreads()
    return taken


@gpu
def _values_of_samples(values, y, t, mask, ws):
    N, T, _ = y.shape
    room = _device_room(T, t.shape[1])
    norms = ws[cuda.blockIdx.x * room : (cuda.blockIdx.x + 1) * room]
    alpha = norms[T:]
    for n in range(cuda.blockIdx.x, N, cuda.gridDim.x):
        states = 2 * _length(t[n]) + 1
        taken = _fill_alphas(alpha, norms, y, n, t[n], states, mask)
        if cuda.threadIdx.x == 0:
            end = (T + 1) * states - 1
            score = alpha[end]
            if states > 1:
                score = _log_add(score, alpha[end - 1])
            values[n] = -(taken + score)
        cuda.syncthreads()


@gpu
def _occupy(occupied, alpha, at, beta, after, states):
    """The occupancy of all states at one step."""
    t, peak, total = cuda.threadIdx.x, NEVER, ZERO
    for s in range(t, states, THREADS):
        score = alpha[at + s] + beta[after + s]
        peak = peak if score < peak else score
    peak = block_max(peak)
    for s in range(t, states, THREADS):
        occupied[s] = exp(alpha[at + s] + beta[after + s] - peak)
        total += occupied[s]
    total = block_sum(total)
    for s in range(t, states, THREADS):
        occupied[s] /= total
    cuda.syncthreads()


@gpu
def _step_back(beta, after, at, row, norm, labels, states):
    """A row of betas from the row after."""
    t = cuda.threadIdx.x
    peak = block_max(_depart(beta, at, after, row, norm, labels, t, states, THREADS))
    for s in range(t, states, THREADS):
        beta[at + s] -= peak
    cuda.syncthreads()


@gpu
def _gradients_of_samples(dy, y, t, weights, mask, ws):
    (N, T, C), thread = y.shape, cuda.threadIdx.x
    room = _device_room(T, t.shape[1])
    norms = ws[cuda.blockIdx.x * room : (cuda.blockIdx.x + 1) * room]
    alpha = norms[T:]
    for n in range(cuda.blockIdx.x, N, cuda.gridDim.x):
        labels, states, after = t[n], 2 * _length(t[n]) + 1, 0
        beta = alpha[(T + 1) * states :]
        occupied = beta[2 * states :]
        _fill_alphas(alpha, norms, y, n, labels, states, mask)
        for s in range(thread, states, THREADS):
            beta[s] = ZERO if s >= states - 2 else NEVER
        cuda.syncthreads()
        for step in range(T - 1, -1, -1):
            if not _counts(mask, n, step):
                for c in range(thread, C, THREADS):
                    dy[n, step, c] = ZERO
                continue
            row, norm = y[n, step], norms[step]
            _occupy(occupied, alpha, (step + 1) * states, beta, after, states)
            for c in range(thread, C, THREADS):
                gradient = weights[n] * exp(row[c] - norm)
                for s in range(states):
                    if c == (labels[s // 2] if s % 2 == 1 else 0):
                        gradient -= weights[n] * occupied[s]
                dy[n, step, c] = gradient
            _step_back(beta, after, states - after, row, norm, labels, states)
            after = states - after


@gpu
def _device_room(T, L):
    return T + (T + 4) * (2 * L + 1)


def ctc_forward_cuda(values, y, t, mask, ws):
    launch(_values_of_samples, min(len(y), ROOMS), THREADS, values, y, t, mask, ws)


def ctc_backward_cuda(dy, y, t, weights, mask, ws):
    launch(_gradients_of_samples, min(len(y), ROOMS), THREADS, dy, y, t, weights, mask, ws)


def ctc_workspace_cuda(T, L):
    return ROOMS * _device_room.function(T, L)
