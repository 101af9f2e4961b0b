"""Convolutional LSTM: an LSTM whose states are images, and whose products are convolutions.

The convolutions are those of ``conv.py``: one of the inputs of all steps at once, one of the
state at each step. Here is what is left of a step: the cell, at every pixel that of ``lstm.py``.
"""

import numpy as np

from minicnnrnn.kernels.codes import SIGMOID, TANH
from minicnnrnn.kernels.formula import elementwise
from minicnnrnn.kernels.gpu import cuda, divided, divisor, gpu, over
from minicnnrnn.kernels.jit import MAX_WORKERS, cpu, inner, split
from minicnnrnn.kernels.lstm import (
    cell,
    cells_backward,
    cells_forward,
    through_cell,
    unit_backward,
    unit_forward,
)
from minicnnrnn.kernels.panel import address, grain
from minicnnrnn.kernels.recurrent import ZERO, counts, dropped, is_valid, recurrent_add
from minicnnrnn.kernels.tiles import copy_run

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def conv_lstm_forward_numpy(
    y, h, c, gates, seen, mask, activation, recurrent_activation, T, step, backwards, ws
):
    r"""Finish one step of a convolutional LSTM, whose convolutions have been computed.

    .. math::
        (\hat i, \hat f, \hat g, \hat o) &= x_t * w + b + (keep \odot h_{t-1}) * u \\
        i, f, o &= \sigma(\hat i), \sigma(\hat f), \sigma(\hat o), \quad g = \phi(\hat g) \\
        c_t &= f c_{t-1} + i g, \quad h_t = o \, \phi(c_t)

    A masked step leaves h and c of its sample as they are, and its output is h.

    Parameters
    ----------
    y : (N, T, P, F): place `step` is overwritten; or (N, 1, P, F), overwritten at the last step
        P is the number of pixels of the state.
    h, c : (T + 1, N, P, F) or (2, N, P, F)
        Slot ``step % slots`` holds the old state, the next is overwritten with the new one.
    gates : (T, N, P, 4F) or, with two slots, (1, N, P, 4F)
        Where this step is, it holds :math:`x_t * w + b`, and is overwritten with what
        ``conv_lstm_backward`` needs, the device's own.
    seen : (N, P, 4F), the convolution of the old state; or (0, 0, 0) if that is zero
    mask : uint8 (N, T), 0 where a step is to be skipped; or (0, 0) for none
    activation, recurrent_activation : int
        Codes of :math:`\phi` and :math:`\sigma`.
    T, step : number of steps, and which of them this is
    backwards : 1 if step 0 is the last time of the mask
    ws : workspace

    Notes
    -----
    Source: Shi et al. 2015, "Convolutional LSTM Network: A Machine Learning Approach for
    Precipitation Nowcasting", arXiv:1506.04214, section 3.1, without the peepholes, as Keras.
    """
    old, new = step % h.shape[0], (step + 1) % h.shape[0]
    before = gates[step % gates.shape[0]]
    if seen.size:
        before += seen
    valid = is_valid(mask, T - 1 - step if backwards else step)[..., None]
    after = cell(before, c[old], activation, recurrent_activation)
    h[new] = np.where(valid, after[0], h[old])
    c[new] = np.where(valid, after[1], c[old])
    first = T - y.shape[1]
    if step >= first:
        y[:, step - first] = h[new]


def conv_lstm_backward_numpy(
    dgates, dh, dc, dy, gates, c, arriving, keep, mask, activation, recurrent_activation, T, step,
    backwards, ws,
):  # fmt: skip
    r"""Gradients of the gates of one step before their activation, and of the states before it.

    Called for the last step first. The equations are those of ``lstm_backward_input``, with

    .. math:: dh \leftarrow dh + keep \odot arriving + dy_t

    A masked step passes dh and dc on as they are.

    Parameters
    ----------
    dgates : (T, N, P, 4F): place `step` is overwritten; may be the same memory as `gates`
    dh, dc : (N, P, F), overwritten, at all but the last step with what follows from their content
        What the step after left there; what this one leaves, without the part of dh that passes
        through the convolution with u.
    dy : (N, T, P, F) or (N, 1, P, F), as y in ``conv_lstm_forward``
    gates : as ``conv_lstm_forward`` left it
    c : (T + 1, N, P, F), the whole history
    arriving : (N, P, F), dgates of the step after back through the convolution with u; at the
        last step (0, 0, 0)
    keep : (N, P, F), the factors of recurrent dropout; or (0, 0, 0) for none
    mask, activation, recurrent_activation, T, step, backwards, ws : as in ``conv_lstm_forward``
    """
    if step == T - 1:
        dh[:], dc[:] = 0, 0
    else:
        dh += dropped(arriving, keep)
    first = T - dy.shape[1]
    if step >= first:
        dh += dy[:, step - first]
    valid = is_valid(mask, T - 1 - step if backwards else step)[..., None]
    d, dc_before = through_cell(
        dh, dc, gates[step], c[step], c[step + 1], activation, recurrent_activation
    )
    dgates[step] = np.where(valid, d, 0)
    dh[:] = np.where(valid, 0, dh)
    dc[:] = np.where(valid, dc_before, dc)


def conv_lstm_workspace_numpy(F):
    """Floats of workspace that both passes need."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Pixels are independent and are cut among threads. Workspace: 10 rows of F for each worker, six
# for the cell and four for the gradients of the gates.


def conv_lstm_workspace_cpu(F):
    return 10 * F * MAX_WORKERS


BLOCK = 1024  # units of pixels that are gone through together, and stay in the L1 cache


@inner
def _block(row, stop, P, F):
    """How many pixels follow in the same sample, or as many of them as make a block."""
    return min(1 + BLOCK // F, stop - row, P - row % P)


@inner
def _forward_range(
    start, stop, worker, y, h, c, gates, seen, mask, activation, recurrent_activation, T, step,
    backwards, ws,
):  # fmt: skip
    slots, N, P, F = h.shape
    time, first = T - 1 - step if backwards else step, T - y.shape[1]
    old, new, tape = step % slots, (step + 1) % slots, step % gates.shape[0]
    row = start
    while row < stop:
        n, count = row // P, _block(row, stop, P, F)
        before, after = (old * N * P + row) * F, (new * N * P + row) * F
        h_new, at = address(h, after), (tape * N * P + row) * 4 * F
        if mask.size and mask[n, time] == 0:
            copy_run((h_new, address(h, before), 0, count * F))
            copy_run((address(c, after), address(c, before), 0, count * F))
        else:
            if seen.size:
                more = address(seen, row * 4 * F)
                recurrent_add((address(gates, at), 0, more, 0, 1, 4 * count * F))
            cells_forward(
                count, h, c, before, after, gates, at, h_new, F, ws, 10 * F * worker, F,
                activation, recurrent_activation,
            )  # fmt: skip
        if step >= first:
            out = ((n * y.shape[1] + step - first) * P + row % P) * F
            copy_run((address(y, out), h_new, 0, count * F))
        row += count


@cpu
def conv_lstm_forward_cpu(
    y, h, c, gates, seen, mask, activation, recurrent_activation, T, step, backwards, ws
):
    _, N, P, F = h.shape
    arguments = (
        y, h, c, gates, seen, mask, activation, recurrent_activation, T, step, backwards, ws,
    )  # fmt: skip
    split(_forward_range, N * P, grain(40 * F), arguments)


_add_kept = elementwise(lambda dh, keep, arriving: (dh + keep * arriving,), 3, 1)


@inner
def _backward_range(
    start, stop, worker, dgates, dh, dc, dy, gates, c, arriving, keep, mask, activation,
    recurrent_activation, T, step, backwards, ws,
):  # fmt: skip
    _, N, P, F = c.shape
    time, first = T - 1 - step if backwards else step, T - dy.shape[1]
    scratch = 10 * F * worker
    usual = activation == TANH and recurrent_activation == SIGMOID
    row = start
    while row < stop:
        n, count = row // P, _block(row, stop, P, F) if usual else 1
        at, total = (step * N * P + row) * 4 * F, address(dh, row * F)
        old, new = (step * N * P + row) * F, ((step + 1) * N * P + row) * F
        if step == T - 1:
            copy_run((total, 0, 0, count * F))
            copy_run((address(dc, row * F), 0, 0, count * F))
        elif keep.size:
            more, factors = address(arriving, row * F), address(keep, row * F)
            _add_kept((1, count * F, total, 0, factors, 0, more, 0, total, 0))
        else:
            recurrent_add((total, 0, address(arriving, row * F), 0, 1, count * F))
        if step >= first:
            more = ((n * dy.shape[1] + step - first) * P + row % P) * F
            recurrent_add((total, 0, address(dy, more), 0, 1, count * F))
        if mask.size and mask[n, time] == 0:
            copy_run((address(dgates, at), 0, 0, 4 * count * F))
        elif usual:
            cells_backward(
                count, dgates, at, 4 * F, dh, row * F, dc, row * F, c, old, new, gates, at, ws,
                scratch, F, activation, recurrent_activation,
            )  # fmt: skip
        else:
            cells_backward(
                1, ws, scratch + 6 * F, 4 * F, dh, row * F, dc, row * F, c, old, new, gates, at,
                ws, scratch, F, activation, recurrent_activation,
            )  # fmt: skip
            copy_run((address(dgates, at), address(ws, scratch + 6 * F), 0, 4 * F))
        row += count


@cpu
def conv_lstm_backward_cpu(
    dgates, dh, dc, dy, gates, c, arriving, keep, mask, activation, recurrent_activation, T, step,
    backwards, ws,
):  # fmt: skip
    _, N, P, F = c.shape
    arguments = (
        dgates, dh, dc, dy, gates, c, arriving, keep, mask, activation, recurrent_activation, T,
        step, backwards, ws,
    )  # fmt: skip
    split(_backward_range, N * P, grain(40 * F), arguments)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every unit of every pixel.


def conv_lstm_workspace_cuda(F):
    return 0


@gpu
def _forward_units(
    y, h, c, gates, seen, mask, activation, recurrent_activation, divisors, slots, time, output
):
    by_F, by_P = divisors
    old, new, tape = slots
    F = by_F[0]
    for i in range(cuda.grid(1), h.shape[1] * F, cuda.gridsize(1)):
        row, j = i // F, i % F
        n, pixel = divided(row, by_P)
        value, state = h[old, row, j], c[old, row, j]
        if counts(mask, n, time):
            if seen.size:
                for gate in range(4):
                    gates[tape, row, gate * F + j] += seen[row, gate * F + j]
            value, state = unit_forward(
                gates, tape, row, j, state, activation, recurrent_activation
            )
        h[new, row, j], c[new, row, j] = value, state
        if output >= 0:
            y[n, output, pixel, j] = value


def conv_lstm_forward_cuda(
    y, h, c, gates, seen, mask, activation, recurrent_activation, T, step, backwards, ws
):
    slots, N, P, F = h.shape
    rows = N * P
    places = step % slots, (step + 1) % slots, step % len(gates)
    over(
        _forward_units, rows * F, y, h.reshape(slots, rows, F), c.reshape(slots, rows, F),
        gates.reshape(-1, rows, 4 * F), seen.reshape(-1, seen.shape[2]), mask,
        int(activation), int(recurrent_activation), (divisor(F), divisor(P)), places,
        T - 1 - step if backwards else step, step - T + y.shape[1],
    )  # fmt: skip


@gpu
def _backward_units(
    dgates, dh, dc, dy, gates, c, arriving, keep, mask, activation, recurrent_activation,
    divisors, T, step, time,
):  # fmt: skip
    by_F, by_P = divisors
    F, output = by_F[0], step - T + dy.shape[1]
    for i in range(cuda.grid(1), dh.size, cuda.gridsize(1)):
        row, j = i // F, i % F
        n, pixel = divided(row, by_P)
        total, state = ZERO, ZERO
        if step < T - 1:
            more = arriving[i] * keep[i] if keep.size else arriving[i]
            total, state = dh[i] + more, dc[i]
        if output >= 0:
            total += dy[n, output, pixel, j]
        if counts(mask, n, time):
            dc[i] = unit_backward(
                dgates, gates, step, row, j, total, state, c[step, row, j], c[step + 1, row, j],
                activation, recurrent_activation,
            )  # fmt: skip
            dh[i] = ZERO
        else:
            for gate in range(4):
                dgates[step, row, gate * F + j] = ZERO
            dh[i], dc[i] = total, state


def conv_lstm_backward_cuda(
    dgates, dh, dc, dy, gates, c, arriving, keep, mask, activation, recurrent_activation, T, step,
    backwards, ws,
):  # fmt: skip
    _, N, P, F = c.shape
    rows = N * P
    over(
        _backward_units, rows * F, dgates.reshape(T, rows, 4 * F), dh.reshape(-1),
        dc.reshape(-1), dy, gates.reshape(T, rows, 4 * F), c.reshape(T + 1, rows, F),
        arriving.reshape(-1), keep.reshape(-1), mask, int(activation),
        int(recurrent_activation), (divisor(F), divisor(P)), T, step,
        T - 1 - step if backwards else step,
    )  # fmt: skip
