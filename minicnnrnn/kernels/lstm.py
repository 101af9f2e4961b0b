"""LSTM: a recurrent layer whose cell forgets, takes in and gives out through gates."""

import numpy as np

from minicnnrnn.kernels.activation import differentiate
from minicnnrnn.kernels.codes import FROM_OUTPUT, SIGMOID, TANH
from minicnnrnn.kernels.formula import elementwise, gate, tanh
from minicnnrnn.kernels.gemm import set_offset
from minicnnrnn.kernels.gpu import bounded, cuda, dynamic, gpu
from minicnnrnn.kernels.jit import MAX_WORKERS, cpu, inner, once, split
from minicnnrnn.kernels.microkernel import ACCUMULATE, ADD_BIAS, FAR_C, OVERWRITE
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
from minicnnrnn.kernels.panel import address, floats, grain, pack, panel_size
from minicnnrnn.kernels.recurrent import (
    NONE,
    ONE,
    ZERO,
    ZERO_TABLE,
    activated,
    activated_copy,
    activated_number,
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
    recall,
    recalled,
    recurrent_weight,
    row_stride,
    see_inputs,
    settle,
    space_of_sums,
    steps,
    sum_inputs,
    sum_states,
    tail,
    taken_back,
    through,
    weight_scratch,
)
from minicnnrnn.kernels.tiles import copy_run

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def cell(before, c, activation, recurrent_activation):
    """The new h and c of a cell, from its gates before their activation, (..., 4U), and its c."""
    i, f, g, o = np.split(before, 4, axis=-1)
    i, f, o = (activated(gate, recurrent_activation) for gate in (i, f, o))
    new = f * c + i * activated(g, activation)
    return o * activated(new, activation), new


def through_cell(dh, dc, before, c, new, activation, recurrent_activation):
    """Gradients of the gates before their activation and of the old c, from those of the new h, c.

    `before` and `c` as in ``cell``, `new` the cell state that it gave.
    """
    before_i, before_f, before_g, before_o = np.split(before, 4, axis=-1)
    i, f, o = (activated(gate, recurrent_activation) for gate in (before_i, before_f, before_o))
    g, out = activated(before_g, activation), activated(new, activation)
    dc = dc + through(dh * o, new, activation)
    dgates = [
        through(dc * g, before_i, recurrent_activation),
        through(dc * c, before_f, recurrent_activation),
        through(dc * i, before_g, activation),
        through(dh * out, before_o, recurrent_activation),
    ]
    return np.concatenate(dgates, axis=-1), dc * f


def lstm_prepare_numpy(w, u, ws):
    """Pack the weights for ``forward``; nothing to do in NumPy.

    Called once after the weights have changed; every ``forward`` until the next change relies
    on what it left in `ws`.
    """


def lstm_forward_numpy(
    y, h, c, gates, x, w, u, b, mask, keep, activation, recurrent_activation, backwards, ws
):
    r"""Run an LSTM over whole sequences.

    .. math::
        (\hat i, \hat f, \hat g, \hat o) &= x_t w + (keep \odot h_{t-1}) u + b \\
        i, f, o &= \sigma(\hat i), \sigma(\hat f), \sigma(\hat o), \quad g = \phi(\hat g) \\
        c_t &= f c_{t-1} + i g, \quad h_t = o \, \phi(c_t)

    A masked step leaves h and c as they are, and its output is h.

    Parameters
    ----------
    y : (N, T, U), overwritten: h after every step, in the order of the steps; or (N, 1, U): h
        after the last one
    h, c : (T + 1, N, U) or (2, N, U)
        Slot 0 holds the initial state and is not written by a whole history; the rest is
        overwritten. The state after the last step is in slot T, of two slots in ``T % 2``.
    gates : (T, N, 4U) or, with two slots, (1, N, 4U); overwritten with what ``backward_input``
        needs, its content the device's own
    x : (N, T, C)
    w : (C, 4U)
    u : (U, 4U)
    b : (4U,) or (0,) for none
    mask : uint8 (N, T), 0 where a step is to be skipped; or (0, 0) for none
    keep : (N, U), the factors of recurrent dropout; or (0, 0) for none
    activation, recurrent_activation : int
        Codes of :math:`\phi` and :math:`\sigma`.
    backwards : int
        1 to read x and mask from the last time to the first, 0 to read them in order.
    ws : workspace that ``lstm_prepare`` has filled

    Notes
    -----
    Cost: 8 N T U (C + U) operations. Source: Gers, Schmidhuber and Cummins 2000, "Learning to
    Forget", section 3; the masks are those of Keras.
    """
    N, T, _ = x.shape
    slots, outputs = h.shape[0], y.shape[1]
    for s, time in steps(T, backwards):
        old, new = s % slots, (s + 1) % slots
        before = x[:, time] @ w + dropped(h[old], keep) @ u
        if b.size:
            before += b
        gates[s % gates.shape[0]] = before
        after = cell(before, c[old], activation, recurrent_activation)
        valid = is_valid(mask, time)
        h[new] = np.where(valid, after[0], h[old])
        c[new] = np.where(valid, after[1], c[old])
        if s >= T - outputs:
            y[:, s - (T - outputs)] = h[new]


def lstm_backward_input_numpy(
    dx, dgates, dy, gates, c, w, u, mask, keep, activation, recurrent_activation, backwards, ws
):
    r"""Gradients with respect to the gates before their activation, and to the input.

    With dh and dc the gradients that arrive at a step, from its output and from the step after:

    .. math::
        dc &\leftarrow dc + dh \, o \, \phi'(c_t) \\
        d\hat i, d\hat f &= dc \, g \, \sigma'(\hat i), \; dc \, c_{t-1} \, \sigma'(\hat f) \\
        d\hat g, d\hat o &= dc \, i \, \phi'(\hat g), \; dh \, \phi(c_t) \, \sigma'(\hat o) \\
        dx_t &= d\hat{gates} \, w^T, \quad dh \leftarrow keep \odot d\hat{gates} \, u^T, \quad
        dc \leftarrow dc \, f

    A masked step passes dh and dc on as they are.

    Parameters
    ----------
    dx : (N, T, C), overwritten; or (0, 0, 0) where it is not wanted
    dgates : (T, N, 4U), overwritten; may be the same memory as `gates`
    dy : (N, T, U) or (N, 1, U), as y in ``lstm_forward``
    gates : (T, N, 4U) as ``lstm_forward`` left it
    c : (T + 1, N, U), the whole history
    w, u, mask, keep, activation, recurrent_activation, backwards : as in ``lstm_forward``

    Notes
    -----
    Cost: 8 N T U (U + C) operations, without `dx` 8 N T U U.
    """
    T, N, _ = gates.shape
    U, outputs = u.shape[0], dy.shape[1]
    dh, dc = np.zeros((N, U), dy.dtype), np.zeros((N, U), dy.dtype)
    for s, time in reversed(steps(T, backwards)):
        if s >= T - outputs:
            dh = dh + dy[:, s - (T - outputs)]
        step, dc_before = through_cell(
            dh, dc, gates[s], c[s], c[s + 1], activation, recurrent_activation
        )
        valid = is_valid(mask, time)
        dgates[s] = np.where(valid, step, 0)
        dh = np.where(valid, dropped(step @ u.T, keep), dh)
        dc = np.where(valid, dc_before, dc)
        if dx.size:
            dx[:, time] = dgates[s] @ w.T


def lstm_backward_weight_numpy(dw, du, db, x, h, dgates, keep, backwards, ws):
    """Gradients with respect to the weights and the bias, summed over all steps.

    Parameters
    ----------
    dw : (C, 4U), overwritten
    du : (U, 4U), overwritten
    db : (4U,), overwritten; or (0,) for none
    x : (N, T, C)
    h : (T + 1, N, U), the whole history that ``lstm_forward`` left
    dgates : (T, N, 4U) from ``lstm_backward_input``
    keep, backwards : as in ``lstm_forward``

    Notes
    -----
    Cost: 8 N T U (C + U) operations.
    """
    T = dgates.shape[0]
    times = [time for _, time in steps(T, backwards)]
    np.einsum("ntc,tng->cg", x[:, times], dgates, out=dw)
    np.einsum("tnu,tng->ug", dropped(h[:T], keep), dgates, out=du)
    if db.size:
        np.sum(dgates, axis=(0, 1), out=db)


def lstm_workspace_numpy(N, T, C, U):
    """Floats of workspace that the passes of this layer need."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Workspace: the table with the entry zero; w and u packed one below the other by `prepare`; then
# scratch of one pass: 6 rows of U for each worker; going forward the rows [x, h] of all samples;
# going back the gradients of the gates of all samples, u and w transposed and packed, dh and dc.


@inner
def _scratch_place(C, U):
    return ZERO_TABLE + panel_size(C + U, 4 * U)


@inner
def _rows_place(C, U):
    return _scratch_place(C, U) + 6 * U * MAX_WORKERS


@inner
def _early_place(N, C, U):
    """Where a single sample's gates begin that only its inputs have come to yet."""
    return _rows_place(C, U) + N * row_stride(C + U)


@inner
def _backward_places(N, C, U):
    """Where u and w, transposed and packed, dh and dc begin, and the end."""
    packed_u = _rows_place(C, U) + N * row_stride(4 * U)
    packed_w = packed_u + panel_size(4 * U, U)
    dh = packed_w + panel_size(4 * U, C)
    return packed_u, packed_w, dh, dh + N * U, dh + 2 * N * U


def lstm_workspace_cpu(N, T, C, U):
    forward = _early_place(N, C, U) + (4 * T * U if N == 1 else 0)
    weight = _scratch_place(C, U) + weight_scratch(C, U, 4 * U)
    return max(forward, weight, _backward_places(N, C, U)[4])


@cpu
def lstm_prepare_cpu(w, u, ws):
    C, U = w.shape[0], u.shape[0]
    set_offset(ws, 0, 0, 0)
    pack_pair(ws, ZERO_TABLE, w, u, 0, 4 * U, C, U, 4 * U)


# The cell with its usual activations, tanh and sigmoid, is a formula of whole vectors, of all rows
# at once.


def _usual(i, f, g, o, c):
    i, f, g, o = gate(i), gate(f), tanh(g), gate(o)
    new = f * c + i * g
    h = o * tanh(new)
    return i, f, g, o, new, h, h


_usual_forward = elementwise(_usual, 5, 7)


def _through(dh, dc, i, f, g, o, c, new):
    """Gradients of the gates before their activation and of the old c; what is left of dh."""
    out = tanh(new)
    dc = dc + dh * o * (1 - out * out)
    gates = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * out * o * (1 - o)
    return *gates, dc * f, 0


_usual_backward = elementwise(_through, 8, 6)


@once(8)
def lstm_usual_forward(rows, U, i, old, new, h, row, stride):
    """``cells_forward`` at these addresses."""
    f, g, o, G = i + 4 * U, i + 8 * U, i + 12 * U, 4 * U
    _usual_forward((
        rows, U, i, G, f, G, g, G, o, G, old, U, i, G, f, G, g, G, o, G, new, U, h, U, row, stride,
    ))  # fmt: skip


@once(9)
def lstm_usual_backward(rows, U, d, stride, dh, dc, i, old, new):
    """``cells_backward`` at these addresses."""
    f, g, o, G = i + 4 * U, i + 8 * U, i + 12 * U, 4 * U
    _usual_backward((
        rows, U, dh, U, dc, U, i, G, f, G, g, G, o, G, old, U, new, U, d, stride, d + 4 * U, stride,
        d + 8 * U, stride, d + 12 * U, stride, dc, U, dh, U,
    ))  # fmt: skip


@inner
def cells_forward(
    rows, h, c, old, new, tape, at, row, stride, ws, scratch, U, activation, recurrent_activation
):
    """``cell`` for some rows: from c at `old` to h and c at `new`, through the gates on the tape.

    Copies of the new h go to the address `row`, `stride` apart.
    """
    if activation == TANH and recurrent_activation == SIGMOID:
        lstm_usual_forward((
            rows, U, address(tape, at), address(c, old), address(c, new), address(h, new), row,
            stride,
        ))  # fmt: skip
        return
    for n in range(rows):
        _cell_forward(
            h, c, old + n * U, new + n * U, tape, at + 4 * n * U, ws, scratch, U, activation,
            recurrent_activation,
        )  # fmt: skip
        copy_run((row + 4 * n * stride, address(h, new + n * U), 0, U))


@inner
def _cell_forward(h, c, old, new, tape, at, ws, scratch, U, activation, recurrent_activation):
    i = floats(settle(tape, at, ws, scratch, 2 * U, recurrent_activation))
    g = floats(settle(tape, at + 2 * U, ws, scratch + 2 * U, U, activation))
    o = floats(settle(tape, at + 3 * U, ws, scratch + 3 * U, U, recurrent_activation))
    h_new, c_new, c_old = tail(h, new), tail(c, new), tail(c, old)
    for j in range(U):
        c_new[j] = i[U + j] * c_old[j] + i[j] * g[j]
    activated_copy(h, new, c, new, U, activation)
    for j in range(U):
        h_new[j] *= o[j]


@inner
def cells_backward(
    rows, dgates, D, stride, dh, dh0, dc, dc0, c, old, new, tape, at, ws, scratch, U, activation,
    recurrent_activation,
):  # fmt: skip
    """``through_cell`` for some rows: from dh and dc to dgates and the dc before; dh becomes 0.

    Rows of dgates begin at `D`, `stride` apart, and are not on the tape unless the activations are
    the usual ones. The scratch is 6 U long.
    """
    if activation == TANH and recurrent_activation == SIGMOID:
        lstm_usual_backward((
            rows, U, address(dgates, D), stride, address(dh, dh0), address(dc, dc0),
            address(tape, at), address(c, old), address(c, new),
        ))  # fmt: skip
        return
    for n in range(rows):
        _cell_backward(
            dgates, D + n * stride, dh, dh0 + n * U, dc, dc0 + n * U, c, old + n * U, new + n * U,
            tape, at + 4 * n * U, ws, scratch, U, activation, recurrent_activation,
        )  # fmt: skip


@inner
def _cell_backward(
    dgates, D, dh_, dh0, dc_, dc0, c, old, new, tape, at, ws, scratch, U, activation,
    recurrent_activation,
):  # fmt: skip
    sigma, phi = alpha_of(recurrent_activation), alpha_of(activation)
    E, OUT = scratch + 4 * U, scratch + 5 * U
    d, e, c_old = tail(dgates, D), tail(ws, E), tail(c, old)
    dh, dc = tail(dh_, dh0), tail(dc_, dc0)
    i = floats(recall(tape, at, ws, scratch, 2 * U, recurrent_activation))
    g = floats(recall(tape, at + 2 * U, ws, scratch + 2 * U, U, activation))
    o = floats(recall(tape, at + 3 * U, ws, scratch + 3 * U, U, recurrent_activation))
    out = floats(activated_copy(ws, OUT, c, new, U, activation))
    for j in range(U):
        e[j] = dh[j] * o[j]
    for j in range(U):
        d[3 * U + j] = dh[j] * out[j]
        dh[j] = 0
    if activation in FROM_OUTPUT:
        differentiate(ws, E, ws, OUT, U, activation, phi)
    else:
        differentiate(ws, E, c, new, U, activation, phi)
    for j in range(U):
        dc[j] += e[j]
        d[j] = dc[j] * g[j]
    for j in range(U):
        d[U + j] = dc[j] * c_old[j]
    for j in range(U):
        d[2 * U + j] = dc[j] * i[j]
        dc[j] *= i[U + j]
    differentiate(dgates, D, tape, at, 2 * U, recurrent_activation, sigma)
    differentiate(dgates, D + 2 * U, tape, at + 2 * U, U, activation, phi)
    differentiate(dgates, D + 3 * U, tape, at + 3 * U, U, recurrent_activation, sigma)


@inner
def _forward_range(
    start, stop, worker, y, h, c, gates, x, b, mask, keep, activation, recurrent_activation,
    backwards, ws,
):  # fmt: skip
    N, T, C = x.shape
    U, slots, outputs, rows = h.shape[2], h.shape[0], y.shape[1], stop - start
    G, stride = 4 * U, row_stride(C + U)
    scratch = _scratch_place(C, U) + 6 * U * worker
    first = _rows_place(C, U) + start * stride
    flags = (ADD_BIAS if b.size else OVERWRITE) + (FAR_C if slots > 2 else OVERWRITE)
    copy_rows(ws, first + C, stride, h, start * U, U, rows, U)
    keep_rows(ws, first + C, stride, keep, start, rows, U)
    together, early = 1 if mask.size else rows, _early_place(N, C, U)
    if N == 1:
        # One sample waits for the weights, which come from the L2 cache at every step: those of
        # the inputs come once, for all steps: 0.67 of the time for as many as units. Same bits.
        place, step = (T - 1) * C if backwards else 0, -C if backwards else C
        multiply(ws, early, G, x, place, step, ws, ZERO_TABLE, C + U, 0, T, G, C, b, 0, flags)
    for s in range(T):
        time = T - 1 - s if backwards else s
        old, new = s % slots * N, (s + 1) % slots * N
        tape = s % gates.shape[0] * N
        if N == 1:
            copy_run((address(gates, tape * G), address(ws, early + s * G), 0, G))
            multiply(
                gates, tape * G, G, ws, first + C, stride, ws, ZERO_TABLE, C + U, C, 1, G, U, b, 0,
                ACCUMULATE,
            )  # fmt: skip
        else:
            copy_rows(ws, first, stride, x, (start * T + time) * C, T * C, rows, C)
            multiply(
                gates, (tape + start) * G, G, ws, first, stride, ws, ZERO_TABLE, C + U, 0, rows, G,
                C + U, b, 0, flags,
            )  # fmt: skip
        for n in range(start, stop, together):
            before, after = (old + n) * U, (new + n) * U
            row = address(ws, first + (n - start) * stride + C)
            if mask.size and mask[n, time] == 0:
                copy_run((address(h, after), address(h, before), 0, U))
                copy_run((address(c, after), address(c, before), 0, U))
                copy_run((row, address(h, before), 0, U))
            else:
                cells_forward(
                    together, h, c, before, after, gates, (tape + n) * G, row, stride, ws, scratch,
                    U, activation, recurrent_activation,
                )  # fmt: skip
        keep_rows(ws, first + C, stride, keep, start, rows, U)
        if s >= T - outputs:
            out = (start * outputs + s - (T - outputs)) * U
            copy_rows(y, out, outputs * U, h, (new + start) * U, U, rows, U)


@cpu
def lstm_forward_cpu(
    y, h, c, gates, x, w, u, b, mask, keep, activation, recurrent_activation, backwards, ws
):
    """Parallel over samples, whose sequences do not meet."""
    N, T, C = x.shape
    U = u.shape[0]
    arguments = (
        y, h, c, gates, x, b, mask, keep, activation, recurrent_activation, backwards, ws,
    )  # fmt: skip
    split(_forward_range, N, grain(4 * U * (C + U) * T), arguments)


@inner
def _backward_range(
    start, stop, worker, dx, dgates, dy, gates, c, mask, keep, activation, recurrent_activation,
    backwards, C, ws,
):  # fmt: skip
    T, N, G = gates.shape
    U, outputs, rows, stride = c.shape[2], dy.shape[1], stop - start, row_stride(G)
    packed_u, packed_w, dh0, dc0, _ = _backward_places(N, C, U)
    scratch = _scratch_place(C, U) + 6 * U * worker
    first = _rows_place(C, U) + start * stride
    copy_run((address(ws, dh0 + start * U), 0, 0, rows * U))
    copy_run((address(ws, dc0 + start * U), 0, 0, rows * U))
    together = 1 if mask.size else rows
    for s in range(T - 1, -1, -1):
        time = T - 1 - s if backwards else s
        if s >= T - outputs:
            add_outputs(ws, dh0 + start * U, dy, start, s - (T - outputs), rows, U)
        for n in range(start, stop, together):
            old, new, D = (s * N + n) * U, ((s + 1) * N + n) * U, first + (n - start) * stride
            if mask.size and mask[n, time] == 0:
                copy_run((address(ws, D), 0, 0, G))
            else:
                cells_backward(
                    together, ws, D, stride, ws, dh0 + n * U, ws, dc0 + n * U, c, old, new, gates,
                    (s * N + n) * G, ws, scratch, U, activation, recurrent_activation,
                )  # fmt: skip
        copy_rows(dgates, (s * N + start) * G, G, ws, first, stride, rows, G)
        if s:
            multiply(
                ws, dh0 + start * U, U, ws, first, stride, ws, packed_u, G, 0, rows, U, G, ws, 0,
                ACCUMULATE,
            )  # fmt: skip
            keep_valid_rows(ws, dh0 + start * U, U, keep, mask, time, start, rows, U)
        if dx.size:
            multiply(
                dx, (start * T + time) * C, T * C, ws, first, stride, ws, packed_w, G, 0, rows, C,
                G, ws, 0, OVERWRITE,
            )  # fmt: skip


@cpu
def lstm_backward_input_cpu(
    dx, dgates, dy, gates, c, w, u, mask, keep, activation, recurrent_activation, backwards, ws
):
    """Parallel over samples; each thread runs its own time loop from the last step to the first."""
    T, N, G = gates.shape
    C, U = w.shape[0], u.shape[0]
    packed_u, packed_w, _, _, _ = _backward_places(N, C, U)
    set_offset(ws, 0, 0, 0)
    pack(ws, packed_u, u, 0, 1, G, G, U)
    if dx.size:
        pack(ws, packed_w, w, 0, 1, G, G, C)
    arguments = (
        dx, dgates, dy, gates, c, mask, keep, activation, recurrent_activation, backwards, C, ws,
    )  # fmt: skip
    split(_backward_range, N, grain(G * U * T), arguments)


@cpu
def lstm_backward_weight_cpu(dw, du, db, x, h, dgates, keep, backwards, ws):
    """Parallel over columns of the gates."""
    N, T, C = x.shape
    U, G = du.shape
    set_offset(ws, 0, 0, 0)
    recurrent_weight((
        address(dw, 0), C, address(du, 0), U, G, address(db, 0) if db.size else 0, 0,
        address(x, 0), address(h, 0), U, address(keep, 0) if keep.size else 0,
        address(dgates, 0), G, G, G, 0, N, T, backwards, address(ws, _scratch_place(C, U)),
        address(ws, 0),
    ))  # fmt: skip


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# As recurrent.py says. Workspace: u, packed for the way forward and back by `prepare`; what blocks
# of huge layers remember; then the products of the inputs, where the tape has no room for them, or
# parts of sums. A block remembers three numbers of a unit: h, c, and the factor of its dropout, and
# on the way back the gradients of h and c that go past the product.

STATES = 3


@gpu
def _cell(i, f, g, o, c, activation, recurrent_activation):
    """The new h and c from the gates before their activation; and what the tape keeps of these."""
    i, kept_i = kept_on_tape(i, recurrent_activation)
    f, kept_f = kept_on_tape(f, recurrent_activation)
    g, kept_g = kept_on_tape(g, activation)
    o, kept_o = kept_on_tape(o, recurrent_activation)
    new = f * c + i * g
    return o * activated_number(new, activation), new, kept_i, kept_f, kept_g, kept_o


@gpu
def _through_cell(kept_i, kept_f, kept_g, kept_o, dh, dc, c, new, activation, recurrent_activation):
    """Gradients of the gates and of the old c, from those of the new h and c."""
    i, f = recalled(kept_i, recurrent_activation), recalled(kept_f, recurrent_activation)
    g, o = recalled(kept_g, activation), recalled(kept_o, recurrent_activation)
    out = activated_number(new, activation)
    dc += taken_back(dh * o, out if activation in FROM_OUTPUT else new, activation)
    return (
        taken_back(dc * g, kept_i, recurrent_activation),
        taken_back(dc * c, kept_f, recurrent_activation),
        taken_back(dc * i, kept_g, activation),
        taken_back(dh * out, kept_o, recurrent_activation),
        dc * f,
    )


@gpu
def unit_forward(tape, s, n, j, c, activation, recurrent_activation):
    """The new h and c of unit j of row n, from its gates at step s of the tape and its c."""
    U = tape.shape[2] // 4
    value, new, i, f, g, o = _cell(
        tape[s, n, j], tape[s, n, U + j], tape[s, n, 2 * U + j], tape[s, n, 3 * U + j], c,
        activation, recurrent_activation,
    )  # fmt: skip
    tape[s, n, j], tape[s, n, U + j], tape[s, n, 2 * U + j], tape[s, n, 3 * U + j] = i, f, g, o
    return value, new


@gpu
def unit_backward(dgates, tape, s, n, j, dh, dc, c, new, activation, recurrent_activation):
    """Gradients of the gates of a unit, which are written, and of its old c, which is returned.

    From those of its new h and c; `c` is the old cell state and `new` the new one.
    """
    U = tape.shape[2] // 4
    di, df, dg, do, before = _through_cell(
        tape[s, n, j], tape[s, n, U + j], tape[s, n, 2 * U + j], tape[s, n, 3 * U + j], dh, dc,
        c, new, activation, recurrent_activation,
    )  # fmt: skip
    _write_gates(dgates, s, n, j, U, di, df, dg, do)
    return before


@gpu
def _write_gates(gates, s, n, j, U, i, f, g, o):
    gates[s, n, j], gates[s, n, U + j] = i, f
    gates[s, n, 2 * U + j], gates[s, n, 3 * U + j] = g, o


@gpu
def _fetch_forward(fetched, before, mask, s, time, n, j, U):
    if n < before.shape[1]:
        for gate in range(4):
            fetched[gate] = before[s, n, gate * U + j]
        fetched[4] = ONE if counts(mask, n, time) else ZERO


def _forward_walk(S, far):
    @bounded(MOST)
    def forward(
        y, h, c, gates, before, ws, mask, keep, activation, recurrent_activation, backwards, sharing
    ):
        T, N, U, slots, outputs = before.shape[0], h.shape[1], h.shape[2], h.shape[0], y.shape[1]
        first, t, threads = cuda.blockIdx.x * S, cuda.threadIdx.x, cuda.blockDim.x
        kept = cuda.local.array((KEPT, 4), np.float32)
        fetched = cuda.local.array(5, np.float32)
        area, begin = (ws, begin_of(sharing)) if far else (dynamic(), 0)
        places = places_of(sharing, begin)
        settle_in(area, kept, ws, sharing, places)
        vector, states, stride = places[0], places[1], sharing[1] * sharing[2]
        cells, factors = states + S * U, states + 2 * S * U
        begin_states(area, h, keep, places, sharing, S, first, factors)
        for i in range(t, S * U, threads):
            m, j = sample_of(i, U)
            if first + m < N:
                area[cells + i] = c[0, first + m, j]
        cuda.syncthreads()
        mine, unit = sample_of(t, U)
        for s in range(T):
            time = T - 1 - s if backwards else s
            new, tape = (s + 1 if slots > 2 else (s + 1) & 1), (s if gates.shape[0] > 1 else 0)
            if t < S * U:
                _fetch_forward(fetched, before, mask, s, time, first + mine, unit, U)
            multiply_share(area, kept, ws, sharing, places, S, far)
            cuda.syncthreads()
            i = t
            while i < S * U:
                m, j = sample_of(i, U)
                n = first + m
                if n < N:
                    if i != t:
                        _fetch_forward(fetched, before, mask, s, time, n, j, U)
                    value, cell_state = area[states + i], area[cells + i]
                    for gate in range(4):
                        fetched[gate] = summed(
                            fetched[gate], area, sharing, places, S, m, gate * U + j
                        )
                    if fetched[4] != ZERO:
                        value, cell_state, kept_i, kept_f, kept_g, kept_o = _cell(
                            fetched[0], fetched[1], fetched[2], fetched[3], cell_state,
                            activation, recurrent_activation,
                        )  # fmt: skip
                        _write_gates(gates, tape, n, j, U, kept_i, kept_f, kept_g, kept_o)
                    area[states + i], area[cells + i] = value, cell_state
                    area[vector + m * stride + j] = value * area[factors + i]
                    h[new, n, j], c[new, n, j] = value, cell_state
                    if s >= T - outputs:
                        y[n, s - (T - outputs), j] = value
                i += threads
            cuda.syncthreads()

    return forward


@gpu
def _fetch_backward(fetched, gates, c, dy, mask, T, s, time, n, j, U):
    if n < gates.shape[1]:
        for gate in range(4):
            fetched[gate] = gates[s, n, gate * U + j]
        fetched[4], fetched[5] = c[s, n, j], c[s + 1, n, j]
        fetched[6] = arriving(dy, T, s, n, j)
        fetched[7] = ONE if counts(mask, n, time) else ZERO


def _backward_walk(S, far):
    @bounded(MOST)
    def backward(
        dgates, dy, gates, c, ws, mask, keep, activation, recurrent_activation, backwards, sharing
    ):
        T, N, U = gates.shape[0], gates.shape[1], c.shape[2]
        first, t, threads = cuda.blockIdx.x * S, cuda.threadIdx.x, cuda.blockDim.x
        kept = cuda.local.array((KEPT, 4), np.float32)
        fetched = cuda.local.array(8, np.float32)
        area, begin = (ws, begin_of(sharing)) if far else (dynamic(), 0)
        places = places_of(sharing, begin)
        settle_in(area, kept, ws, sharing, places)
        vector, states, stride = places[0], places[1], sharing[1] * sharing[2]
        cells, factors = states + S * U, states + 2 * S * U
        begin_factors(area, keep, N, U, S, first, factors)
        mine, unit = sample_of(t, U)
        for s in range(T - 1, -1, -1):
            time = T - 1 - s if backwards else s
            if t < S * U:
                _fetch_backward(fetched, gates, c, dy, mask, T, s, time, first + mine, unit, U)
            if s < T - 1:
                multiply_share(area, kept, ws, sharing, places, S, far)
            cuda.syncthreads()
            i = t
            while i < S * U:
                m, j = sample_of(i, U)
                n = first + m
                if n < N:
                    if i != t:
                        _fetch_backward(fetched, gates, c, dy, mask, T, s, time, n, j, U)
                    through = summed(ZERO, area, sharing, places, S, m, j)
                    dh = through * area[factors + i] + area[states + i] + fetched[6]
                    dc, di, df, dg, do = area[cells + i], ZERO, ZERO, ZERO, ZERO
                    past = dh
                    if fetched[7] != ZERO:
                        di, df, dg, do, dc = _through_cell(
                            fetched[0], fetched[1], fetched[2], fetched[3], dh, dc, fetched[4],
                            fetched[5], activation, recurrent_activation,
                        )  # fmt: skip
                        past = ZERO
                    area[states + i], area[cells + i] = past, dc
                    row = vector + m * stride + j
                    area[row], area[row + U] = di, df
                    area[row + 2 * U], area[row + 3 * U] = dg, do
                    _write_gates(dgates, s, n, j, U, di, df, dg, do)
                i += threads
            cuda.syncthreads()

    return backward


_FORWARD = _forward_one, _forward_two, _forward_far = tuple(_forward_walk(*v) for v in VARIANTS)
_BACKWARD = _backward_one, _backward_two, _backward_far = tuple(
    _backward_walk(*v) for v in VARIANTS
)


def lstm_workspace_cuda(N, T, C, U):
    G = 4 * U
    sums = max(space_of_sums(C, G, T * N), space_of_sums(U, G, T * N))
    return packed_pair_size(U, G) + max(far_size(N, U, G, STATES, STATES) + T * N * G, sums)


def lstm_prepare_cuda(w, u, ws):
    """Pack u as the threads of a block will read it, for the way forward and back."""
    pack_both_ways(ws, u)


def lstm_forward_cuda(
    y, h, c, gates, x, w, u, b, mask, keep, activation, recurrent_activation, backwards, ws
):
    (N, T, _), (U, G) = x.shape, u.shape
    start = packed_pair_size(U, G) + far_size(N, U, G, STATES, STATES)
    before = inputs_in(gates, ws, start, T)
    see_inputs(before, x, w, b, backwards)
    codes = int(activation), int(recurrent_activation), int(backwards)
    walk(_FORWARD, N, U, G, STATES, True, y, h, c, gates, before, ws, mask, keep, *codes)


def lstm_backward_input_cuda(
    dx, dgates, dy, gates, c, w, u, mask, keep, activation, recurrent_activation, backwards, ws
):
    N, (U, G) = gates.shape[1], u.shape
    codes = int(activation), int(recurrent_activation), int(backwards)
    walk(_BACKWARD, N, U, G, STATES, False, dgates, dy, gates, c, ws, mask, keep, *codes)
    backward_inputs(dx, dgates, w, backwards)


def lstm_backward_weight_cuda(dw, du, db, x, h, dgates, keep, backwards, ws):
    U, G = du.shape
    sums = ws[packed_pair_size(U, G) :]
    sum_inputs(dw, db, x, dgates, backwards, sums)
    sum_states(du, 0, G, NONE, h.reshape(-1, U), 0, keep, dgates, (0, G, 0), sums)
