"""SimpleRNN: the state is one activation of the input and the old state."""

import numpy as np

from minicnnrnn.kernels.activation import differentiate
from minicnnrnn.kernels.codes import FROM_OUTPUT, TANH
from minicnnrnn.kernels.formula import elementwise, tanh
from minicnnrnn.kernels.gemm import set_offset
from minicnnrnn.kernels.gpu import bounded, cuda, dynamic, gpu
from minicnnrnn.kernels.jit import MAX_WORKERS, cpu, inner, once, split
from minicnnrnn.kernels.microkernel import ACCUMULATE, ADD_BIAS, OVERWRITE
from minicnnrnn.kernels.on_chip import (
    KEPT,
    MOST,
    VARIANTS,
    begin_factors,
    begin_of,
    begin_states,
    far_size,
    multiply_share,
    pack_both_ways,
    packed_pair_size,
    places_of,
    sample_of,
    settle_in,
    summed,
    walk,
)
from minicnnrnn.kernels.panel import address, grain, pack, panel_size
from minicnnrnn.kernels.recurrent import (
    NONE,
    ONE,
    ZERO,
    ZERO_TABLE,
    activated,
    add_outputs,
    alpha_of,
    arriving,
    backward_inputs,
    copy_rows,
    counts,
    dropped,
    inputs_in,
    is_valid,
    keep_rows,
    keep_valid_rows,
    kept_on_tape,
    multiply,
    pack_pair,
    recurrent_weight,
    row_stride,
    see_inputs,
    settle,
    space_of_sums,
    steps,
    sum_inputs,
    sum_states,
    taken_back,
    through,
    weight_scratch,
)
from minicnnrnn.kernels.tiles import copy_run

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def simple_rnn_prepare_numpy(w, u, ws):
    """Pack the weights for ``forward``; nothing to do in NumPy.

    Called once after the weights have changed; every ``forward`` until the next change relies
    on what it left in `ws`.
    """


def simple_rnn_forward_numpy(y, h, gates, x, w, u, b, mask, keep, activation, backwards, ws):
    r"""Run a simple recurrent layer over whole sequences.

    .. math:: h_t = \phi(x_t w + (keep \odot h_{t-1}) u + b)

    A masked step leaves h as it is, and its output is h.

    Parameters
    ----------
    y : (N, T, U), overwritten: h after every step, in the order of the steps; or (N, 1, U): h
        after the last one
    h : (T + 1, N, U) or (2, N, U)
        Slot 0 holds the initial state and is not written by a whole history; the rest is
        overwritten. The state after the last step is in slot T, of two slots in ``T % 2``.
    gates : (T, N, U) or, with two slots, (1, N, U); overwritten with what ``backward_input``
        needs, its content the device's own
    x : (N, T, C)
    w : (C, U)
    u : (U, U)
    b : (U,) or (0,) for none
    mask : uint8 (N, T), 0 where a step is to be skipped; or (0, 0) for none
    keep : (N, U), the factors of recurrent dropout; or (0, 0) for none
    activation : int
        Code of :math:`\phi`.
    backwards : int
        1 to read x and mask from the last time to the first, 0 to read them in order.
    ws : workspace that ``simple_rnn_prepare`` has filled

    Notes
    -----
    Cost: 2 N T U (C + U) operations. Source: Elman 1990, "Finding Structure in Time"; the masks
    are those of Keras.
    """
    N, T, _ = x.shape
    slots, outputs = h.shape[0], y.shape[1]
    for s, time in steps(T, backwards):
        old, new = h[s % slots], h[(s + 1) % slots]
        before = x[:, time] @ w + dropped(old, keep) @ u
        if b.size:
            before += b
        gates[s % gates.shape[0]] = before
        new[:] = np.where(is_valid(mask, time), activated(before, activation), old)
        if s >= T - outputs:
            y[:, s - (T - outputs)] = new


def simple_rnn_backward_input_numpy(
    dx, dgates, dy, gates, w, u, mask, keep, activation, backwards, ws
):
    r"""Gradients with respect to the sum before the activation, and to the input.

    With dh the gradient that arrives at a step, from its output and from the step after:

    .. math:: d\hat h = dh \, \phi'(\hat h), \quad dx_t = d\hat h \, w^T, \quad
              dh \leftarrow keep \odot d\hat h \, u^T

    A masked step passes dh on as it is.

    Parameters
    ----------
    dx : (N, T, C), overwritten; or (0, 0, 0) where it is not wanted
    dgates : (T, N, U), overwritten; may be the same memory as `gates`
    dy : (N, T, U) or (N, 1, U), as y in ``simple_rnn_forward``
    gates : (T, N, U) as ``simple_rnn_forward`` left it
    w, u, mask, keep, activation, backwards : as in ``simple_rnn_forward``

    Notes
    -----
    Cost: 2 N T U (U + C) operations, without `dx` 2 N T U U.
    """
    T, N, U = gates.shape
    outputs = dy.shape[1]
    dh = np.zeros((N, U), dy.dtype)
    for s, time in reversed(steps(T, backwards)):
        if s >= T - outputs:
            dh = dh + dy[:, s - (T - outputs)]
        valid = is_valid(mask, time)
        dgates[s] = np.where(valid, through(dh, gates[s].copy(), activation), 0)
        dh = np.where(valid, dropped(dgates[s] @ u.T, keep), dh)
        if dx.size:
            dx[:, time] = dgates[s] @ w.T


def simple_rnn_backward_weight_numpy(dw, du, db, x, h, dgates, keep, backwards, ws):
    """Gradients with respect to the weights and the bias, summed over all steps.

    Parameters
    ----------
    dw : (C, U), overwritten
    du : (U, U), overwritten
    db : (U,), overwritten; or (0,) for none
    x : (N, T, C)
    h : (T + 1, N, U), the whole history that ``simple_rnn_forward`` left
    dgates : (T, N, U) from ``simple_rnn_backward_input``
    keep, backwards : as in ``simple_rnn_forward``

    Notes
    -----
    Cost: 2 N T U (C + U) operations.
    """
    T = dgates.shape[0]
    times = [time for _, time in steps(T, backwards)]
    np.einsum("ntc,tng->cg", x[:, times], dgates, out=dw)
    np.einsum("tnu,tng->ug", dropped(h[:T], keep), dgates, out=du)
    if db.size:
        np.sum(dgates, axis=(0, 1), out=db)


def simple_rnn_workspace_numpy(N, T, C, U):
    """Floats of workspace that the passes of this layer need."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Workspace: the table with the entry zero; w and u packed one below the other by `prepare`; then
# scratch of one pass: a row of U for each worker; going forward the rows [x, h] of all samples;
# going back the gradients before the activation of all samples, u and w transposed and packed,
# and dh.


@inner
def _scratch_place(C, U):
    return ZERO_TABLE + panel_size(C + U, U)


@inner
def _backward_places(N, C, U):
    """Where the rows, u and w, transposed and packed, and dh begin, and the end."""
    rows = _scratch_place(C, U) + U * MAX_WORKERS
    packed_u = rows + N * row_stride(U)
    packed_w = packed_u + panel_size(U, U)
    dh = packed_w + panel_size(U, C)
    return rows, packed_u, packed_w, dh, dh + N * U


def simple_rnn_workspace_cpu(N, T, C, U):
    scratch = _scratch_place(C, U)
    forward = scratch + U * MAX_WORKERS + N * row_stride(C + U)
    return max(forward, scratch + weight_scratch(C, U, U), _backward_places(N, C, U)[4])


@cpu
def simple_rnn_prepare_cpu(w, u, ws):
    C, U = w.shape
    set_offset(ws, 0, 0, 0)
    pack_pair(ws, ZERO_TABLE, w, u, 0, U, C, U, U)


_spread = elementwise(lambda value: (value, value), 1, 2)
_step = elementwise(lambda before: (tanh(before),) * 3, 1, 3)
_through_tanh = elementwise(lambda dh, y: (dh * (1 - y * y), 0), 2, 2)


@once(6)
def simple_rnn_spread(rows, U, value, h, row, stride):
    """Copy new states to where the next step reads them, and to the history."""
    _spread((rows, U, value, U, h, U, row, stride))


@once(6)
def simple_rnn_step(rows, U, tape, h, row, stride):
    """The tanh of what is on the tape: there, in the history, and where the next step reads it.

    At once, where ``settle`` and ``simple_rnn_spread`` go through memory twice: a layer of 128 runs
    forward in 0.94 of their time, one of 64 in 0.77 to 0.89.
    """
    _step((rows, U, tape, U, tape, U, h, U, row, stride))


@once(6)
def simple_rnn_through_tanh(rows, U, d, stride, dh, y):
    """The gradients before a tanh, from its output; dh becomes 0."""
    _through_tanh((rows, U, dh, U, y, U, d, stride, dh, U))


@inner
def _forward_range(start, stop, worker, y, h, gates, x, b, mask, keep, activation, backwards, ws):
    N, T, C = x.shape
    U, slots, outputs, rows = h.shape[2], h.shape[0], y.shape[1], stop - start
    stride, scratch = row_stride(C + U), _scratch_place(C, U) + U * worker
    first = _scratch_place(C, U) + U * MAX_WORKERS + start * stride
    flags = ADD_BIAS if b.size else OVERWRITE
    copy_rows(ws, first + C, stride, h, start * U, U, rows, U)
    keep_rows(ws, first + C, stride, keep, start, rows, U)
    together = rows if mask.size == 0 and activation in FROM_OUTPUT else 1
    usual = mask.size == 0 and activation == TANH
    for s in range(T):
        time = T - 1 - s if backwards else s
        old, new = s % slots * N, (s + 1) % slots * N
        tape = s % gates.shape[0] * N
        copy_rows(ws, first, stride, x, (start * T + time) * C, T * C, rows, C)
        multiply(
            gates, (tape + start) * U, U, ws, first, stride, ws, ZERO_TABLE, C + U, 0, rows, U,
            C + U, b, 0, flags,
        )  # fmt: skip
        for n in range(start, stop, together):
            before, to = (tape + n) * U, address(h, (new + n) * U)
            row = address(ws, first + (n - start) * stride + C)
            if usual:
                simple_rnn_step((rows, U, address(gates, before), to, row, stride))
                continue
            value = address(h, (old + n) * U)
            if mask.size == 0 or mask[n, time]:
                value = settle(gates, before, ws, scratch, together * U, activation)
            simple_rnn_spread((together, U, value, to, row, stride))
        keep_rows(ws, first + C, stride, keep, start, rows, U)
        if s >= T - outputs:
            out = (start * outputs + s - (T - outputs)) * U
            copy_rows(y, out, outputs * U, h, (new + start) * U, U, rows, U)


@cpu
def simple_rnn_forward_cpu(y, h, gates, x, w, u, b, mask, keep, activation, backwards, ws):
    """Parallel over samples, whose sequences do not meet."""
    N, T, C = x.shape
    U = u.shape[0]
    arguments = (y, h, gates, x, b, mask, keep, activation, backwards, ws)
    split(_forward_range, N, grain(U * (C + U) * T), arguments)


@inner
def _backward_range(
    start, stop, worker, dx, dgates, dy, gates, mask, keep, activation, backwards, C, ws
):
    T, N, U = gates.shape
    outputs, rows, stride = dy.shape[1], stop - start, row_stride(U)
    row0, packed_u, packed_w, dh0, _ = _backward_places(N, C, U)
    first = row0 + start * stride
    copy_run((address(ws, dh0 + start * U), 0, 0, rows * U))
    together = rows if mask.size == 0 and activation == TANH else 1
    for s in range(T - 1, -1, -1):
        time = T - 1 - s if backwards else s
        if s >= T - outputs:
            add_outputs(ws, dh0 + start * U, dy, start, s - (T - outputs), rows, U)
        for n in range(start, stop, together):
            D, at = first + (n - start) * stride, (s * N + n) * U
            d, dh = address(ws, D), address(ws, dh0 + n * U)
            if mask.size and mask[n, time] == 0:
                copy_run((d, 0, 0, U))
            elif activation == TANH:
                simple_rnn_through_tanh((together, U, d, stride, dh, address(gates, at)))
            else:
                copy_run((d, dh, 0, U))
                copy_run((dh, 0, 0, U))
                differentiate(ws, D, gates, at, U, activation, alpha_of(activation))
        copy_rows(dgates, (s * N + start) * U, U, ws, first, stride, rows, U)
        if s:
            multiply(
                ws, dh0 + start * U, U, ws, first, stride, ws, packed_u, U, 0, rows, U, U, ws, 0,
                ACCUMULATE,
            )  # fmt: skip
            keep_valid_rows(ws, dh0 + start * U, U, keep, mask, time, start, rows, U)
        if dx.size:
            multiply(
                dx, (start * T + time) * C, T * C, ws, first, stride, ws, packed_w, U, 0, rows, C,
                U, ws, 0, OVERWRITE,
            )  # fmt: skip


@cpu
def simple_rnn_backward_input_cpu(
    dx, dgates, dy, gates, w, u, mask, keep, activation, backwards, ws
):
    """Parallel over samples; each thread runs its own time loop from the last step to the first."""
    T, N, _ = gates.shape
    C, U = w.shape
    _, packed_u, packed_w, _, _ = _backward_places(N, C, U)
    set_offset(ws, 0, 0, 0)
    pack(ws, packed_u, u, 0, 1, U, U, U)
    if dx.size:
        pack(ws, packed_w, w, 0, 1, U, U, C)
    arguments = (dx, dgates, dy, gates, mask, keep, activation, backwards, C, ws)
    split(_backward_range, N, grain(U * U * T), arguments)


@cpu
def simple_rnn_backward_weight_cpu(dw, du, db, x, h, dgates, keep, backwards, ws):
    """Parallel over columns of the state."""
    set_offset(ws, 0, 0, 0)
    N, T, C = x.shape
    U = du.shape[0]
    scratch = address(ws, _scratch_place(C, U))
    recurrent_weight((
        address(dw, 0), C, address(du, 0), U, U, address(db, 0) if db.size else 0, 0,
        address(x, 0), address(h, 0), U, address(keep, 0) if keep.size else 0,
        address(dgates, 0), U, U, U, 0, N, T, backwards, scratch, address(ws, 0),
    ))  # fmt: skip


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# As recurrent.py says. Workspace: u, packed for the way forward and back by `prepare`; what blocks
# of huge layers remember; then the products of the inputs, where the tape has no room for them, or
# parts of sums. A block remembers two numbers of a unit: h, and the factor of its dropout, and on
# the way back the gradient of h that goes past the product.

STATES = 2


@gpu
def _fetch_forward(fetched, before, mask, s, time, n, j):
    if n < before.shape[1]:
        fetched[0] = before[s, n, j]
        fetched[1] = ONE if counts(mask, n, time) else ZERO


def _forward_walk(S, far):
    @bounded(MOST)
    def forward(y, h, gates, before, ws, mask, keep, activation, backwards, sharing):
        (T, N, U), slots, outputs = before.shape, h.shape[0], y.shape[1]
        first, t, threads = cuda.blockIdx.x * S, cuda.threadIdx.x, cuda.blockDim.x
        kept = cuda.local.array((KEPT, 4), np.float32)
        fetched = cuda.local.array(2, np.float32)
        area, begin = (ws, begin_of(sharing)) if far else (dynamic(), 0)
        places = places_of(sharing, begin)
        settle_in(area, kept, ws, sharing, places)
        vector, states, stride = places[0], places[1], sharing[1] * sharing[2]
        factors = states + S * U
        begin_states(area, h, keep, places, sharing, S, first, factors)
        cuda.syncthreads()
        mine, unit = sample_of(t, U)
        for s in range(T):
            time = T - 1 - s if backwards else s
            new, tape = (s + 1 if slots > 2 else (s + 1) & 1), (s if gates.shape[0] > 1 else 0)
            if t < S * U:
                _fetch_forward(fetched, before, mask, s, time, first + mine, unit)
            multiply_share(area, kept, ws, sharing, places, S, far)
            cuda.syncthreads()
            i = t
            while i < S * U:
                m, j = sample_of(i, U)
                n = first + m
                if n < N:
                    if i != t:
                        _fetch_forward(fetched, before, mask, s, time, n, j)
                    value = area[states + i]
                    if fetched[1] != ZERO:
                        total = summed(fetched[0], area, sharing, places, S, m, j)
                        value, gates[tape, n, j] = kept_on_tape(total, activation)
                    area[states + i] = value
                    area[vector + m * stride + j] = value * area[factors + i]
                    h[new, n, j] = value
                    if s >= T - outputs:
                        y[n, s - (T - outputs), j] = value
                i += threads
            cuda.syncthreads()

    return forward


@gpu
def _fetch_backward(fetched, gates, dy, mask, s, time, n, j):
    T, N, _ = gates.shape
    if n < N:
        fetched[0], fetched[1] = gates[s, n, j], arriving(dy, T, s, n, j)
        fetched[2] = ONE if counts(mask, n, time) else ZERO


def _backward_walk(S, far):
    @bounded(MOST)
    def backward(dgates, dy, gates, ws, mask, keep, activation, backwards, sharing):
        T, N, U = gates.shape
        first, t, threads = cuda.blockIdx.x * S, cuda.threadIdx.x, cuda.blockDim.x
        kept = cuda.local.array((KEPT, 4), np.float32)
        fetched = cuda.local.array(3, np.float32)
        area, begin = (ws, begin_of(sharing)) if far else (dynamic(), 0)
        places = places_of(sharing, begin)
        settle_in(area, kept, ws, sharing, places)
        vector, states, stride = places[0], places[1], sharing[1] * sharing[2]
        factors = states + S * U
        begin_factors(area, keep, N, U, S, first, factors)
        mine, unit = sample_of(t, U)
        for s in range(T - 1, -1, -1):
            time = T - 1 - s if backwards else s
            if t < S * U:
                _fetch_backward(fetched, gates, dy, mask, s, time, first + mine, unit)
            if s < T - 1:
                multiply_share(area, kept, ws, sharing, places, S, far)
            cuda.syncthreads()
            i = t
            while i < S * U:
                m, j = sample_of(i, U)
                n = first + m
                if n < N:
                    if i != t:
                        _fetch_backward(fetched, gates, dy, mask, s, time, n, j)
                    through = summed(ZERO, area, sharing, places, S, m, j)
                    dh = through * area[factors + i] + area[states + i] + fetched[1]
                    gradient, past = ZERO, dh
                    if fetched[2] != ZERO:
                        gradient, past = taken_back(dh, fetched[0], activation), ZERO
                    area[states + i], area[vector + m * stride + j] = past, gradient
                    dgates[s, n, j] = gradient
                i += threads
            cuda.syncthreads()

    return backward


_FORWARD = _forward_one, _forward_two, _forward_far = tuple(_forward_walk(*v) for v in VARIANTS)
_BACKWARD = _backward_one, _backward_two, _backward_far = tuple(
    _backward_walk(*v) for v in VARIANTS
)


def simple_rnn_workspace_cuda(N, T, C, U):
    sums = max(space_of_sums(C, U, T * N), space_of_sums(U, U, T * N))
    return packed_pair_size(U, U) + max(far_size(N, U, U, STATES, STATES) + T * N * U, sums)


def simple_rnn_prepare_cuda(w, u, ws):
    """Pack u as the threads of a block will read it, for the way forward and back."""
    pack_both_ways(ws, u)


def simple_rnn_forward_cuda(y, h, gates, x, w, u, b, mask, keep, activation, backwards, ws):
    (N, T, _), U = x.shape, len(u)
    start = packed_pair_size(U, U) + far_size(N, U, U, STATES, STATES)
    before = inputs_in(gates, ws, start, T)
    see_inputs(before, x, w, b, backwards)
    codes = int(activation), int(backwards)
    walk(_FORWARD, N, U, U, STATES, True, y, h, gates, before, ws, mask, keep, *codes)


def simple_rnn_backward_input_cuda(
    dx, dgates, dy, gates, w, u, mask, keep, activation, backwards, ws
):
    _, N, U = gates.shape
    codes = int(activation), int(backwards)
    walk(_BACKWARD, N, U, U, STATES, False, dgates, dy, gates, ws, mask, keep, *codes)
    backward_inputs(dx, dgates, w, backwards)


def simple_rnn_backward_weight_cuda(dw, du, db, x, h, dgates, keep, backwards, ws):
    U = len(du)
    sums = ws[packed_pair_size(U, U) :]
    sum_inputs(dw, db, x, dgates, backwards, sums)
    sum_states(du, 0, U, NONE, h.reshape(-1, U), 0, keep, dgates, (0, U, 0), sums)
