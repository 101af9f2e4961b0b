"""GRU: a recurrent layer whose gates choose between the old state and a candidate."""

import numpy as np

from minicnnrnn.kernels.codes import SIGMOID, TANH
from minicnnrnn.kernels.gemm import set_offset
from minicnnrnn.kernels.gpu import bounded, cuda, dynamic, gpu
from minicnnrnn.kernels.gru_cell import (
    cell_backward,
    cell_forward,
    gru_usual_backward,
    gru_usual_forward,
    reset_state,
    through_reset,
)
from minicnnrnn.kernels.jit import MAX_WORKERS, cpu, inner, split
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
from minicnnrnn.kernels.panel import address, grain, pack, panel_size
from minicnnrnn.kernels.recurrent import (
    NONE,
    ONE,
    ZERO,
    ZERO_TABLE,
    activated,
    add_outputs,
    arriving,
    backward_inputs,
    copy_rows,
    counts,
    dropped,
    inputs_in,
    is_valid,
    keep_rows,
    kept_on_tape,
    multiply,
    pack_pair,
    recalled,
    recurrent_add,
    recurrent_weight,
    row_stride,
    see_inputs,
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


def gru_prepare_numpy(w, u, ws):
    """Pack the weights for ``forward``; nothing to do in NumPy.

    Called once after the weights have changed; every ``forward`` until the next change relies
    on what it left in `ws`.
    """


def gru_forward_numpy(
    y, h, gates, x, w, u, b, mask, keep, activation, recurrent_activation, reset_after, backwards,
    ws,
):  # fmt: skip
    r"""Run a GRU over whole sequences.

    .. math::
        k &= keep \odot h_{t-1} \\
        \hat z &= x_t w_z + k u_z + b_z, \quad
        \hat r = x_t w_r + k u_r + b_r, \quad z, r = \sigma(\hat z), \sigma(\hat r) \\
        \hat a &= x_t w_h + b_h + r (k u_h + b'_h) \quad \text{with reset\_after} \\
        \hat a &= x_t w_h + b_h + (r k) u_h \quad \text{without} \\
        h_t &= z h_{t-1} + (1 - z) \phi(\hat a)

    A masked step leaves h as it is, and its output is h.

    Parameters
    ----------
    y : (N, T, U), overwritten: h after every step, in the order of the steps; or (N, 1, U): h
        after the last one
    h : (T + 1, N, U) or (2, N, U)
        Slot 0 holds the initial state and is not written by a whole history; the rest is
        overwritten. The state after the last step is in slot T, of two slots in ``T % 2``.
    gates : (T, N, 4U) or, with two slots, (1, N, 4U); overwritten with what ``backward_input``
        needs, its content the device's own
    x : (N, T, C)
    w : (C, 3U)
    u : (U, 3U)
    b : (0,) for none; with `reset_after` (2, 3U), the bias of the input and that of the state,
        whose parts for z and r are added up; without (3U,)
    mask : uint8 (N, T), 0 where a step is to be skipped; or (0, 0) for none
    keep : (N, U), the factors of recurrent dropout; or (0, 0) for none
    activation, recurrent_activation : int
        Codes of :math:`\phi` and :math:`\sigma`.
    reset_after : int
        1 to reset what the candidate sees of the state after the product with u, 0 before.
    backwards : int
        1 to read x and mask from the last time to the first, 0 to read them in order.
    ws : workspace that ``gru_prepare`` has filled

    Notes
    -----
    Cost: 6 N T U (C + U) operations. Source: Cho et al. 2014, arXiv:1406.1078, section 2.3:
    version 1 resets before, version 3 after; the masks are those of Keras.
    """
    N, T, _ = x.shape
    U, slots, outputs = u.shape[0], h.shape[0], y.shape[1]
    b_input, b_state = _biases(b, reset_after, 3 * U)
    for s, time in steps(T, backwards):
        old, new = h[s % slots], h[(s + 1) % slots]
        before = x[:, time] @ w + b_input
        kept = dropped(old, keep)
        before[:, : 2 * U] += kept @ u[:, : 2 * U] + b_state[: 2 * U]
        z = activated(before[:, :U], recurrent_activation)
        r = activated(before[:, U : 2 * U], recurrent_activation)
        if reset_after:
            seen = kept @ u[:, 2 * U :] + b_state[2 * U :]
            before[:, 2 * U :] += r * seen
        else:
            seen = r * kept
            before[:, 2 * U :] += seen @ u[:, 2 * U :]
        gates[s % gates.shape[0]] = np.concatenate([before, seen], axis=1)
        a = activated(before[:, 2 * U :], activation)
        new[:] = np.where(is_valid(mask, time), z * old + (1 - z) * a, old)
        if s >= T - outputs:
            y[:, s - (T - outputs)] = new


def _biases(b, reset_after, G):
    """The bias of the input and that of the state, zeros where there is none."""
    if not b.size:
        return np.zeros(G, b.dtype), np.zeros(G, b.dtype)
    return (b[0], b[1]) if reset_after else (b, np.zeros(G, b.dtype))


def gru_backward_input_numpy(
    dx, dgates, dy, gates, h, w, u, mask, keep, activation, recurrent_activation, reset_after,
    backwards, ws,
):  # fmt: skip
    r"""Gradients with respect to the gates before their activation, and to the input.

    With dh the gradient that arrives at a step, from its output and from the step after:

    .. math::
        d\hat z &= dh (h_{t-1} - a) \sigma'(\hat z), \quad
        d\hat a = dh (1 - z) \phi'(\hat a) \\
        d\hat r &= d\hat a (k u_h + b'_h) \sigma'(\hat r) \quad \text{with reset\_after} \\
        d\hat r &= (d\hat a \, u_h^T) k \sigma'(\hat r) \quad \text{without} \\
        dx_t &= [d\hat z, d\hat r, d\hat a] \, w^T \\
        dk &= [d\hat z, d\hat r, r \, d\hat a] \, u^T \quad \text{with reset\_after} \\
        dk &= [d\hat z, d\hat r] \, u_{zr}^T + r (d\hat a \, u_h^T) \quad \text{without} \\
        dh &\leftarrow dh \, z + keep \odot dk

    A masked step passes dh on as it is.

    Parameters
    ----------
    dx : (N, T, C), overwritten; or (0, 0, 0) where it is not wanted
    dgates : (T, N, 4U), overwritten; may be the same memory as `gates`
        The last quarter is what ``backward_weight`` needs for :math:`u_h`: r da with
        `reset_after`, r k without.
    dy : (N, T, U) or (N, 1, U), as y in ``gru_forward``
    gates : (T, N, 4U) as ``gru_forward`` left it
    h : (T + 1, N, U), the whole history
    w, u, mask, keep, activation, recurrent_activation, reset_after, backwards : as in
        ``gru_forward``

    Notes
    -----
    Cost: 6 N T U (U + C) operations, without `dx` 6 N T U U.
    """
    T, N, _ = gates.shape
    U, outputs = u.shape[0], dy.shape[1]
    dh = np.zeros((N, U), dy.dtype)
    for s, time in reversed(steps(T, backwards)):
        if s >= T - outputs:
            dh = dh + dy[:, s - (T - outputs)]
        before_z, before_r, before_a, seen = np.split(gates[s].copy(), 4, axis=1)
        z, r = (activated(v, recurrent_activation) for v in (before_z, before_r))
        da = through(dh * (1 - z), before_a, activation)
        dz = through(dh * (h[s] - activated(before_a, activation)), before_z, recurrent_activation)
        if reset_after:
            dr = through(da * seen, before_r, recurrent_activation)
            last = da * r
            direct = last @ u[:, 2 * U :].T
        else:
            reset = da @ u[:, 2 * U :].T
            dr = through(reset * dropped(h[s], keep), before_r, recurrent_activation)
            last = seen
            direct = reset * r
        valid = is_valid(mask, time)
        dgates[s] = np.where(valid, np.concatenate([dz, dr, da, last], axis=1), 0)
        before = dgates[s, :, : 2 * U] @ u[:, : 2 * U].T + direct
        dh = np.where(valid, dh * z + dropped(before, keep), dh)
        if dx.size:
            dx[:, time] = dgates[s, :, : 3 * U] @ w.T


def gru_backward_weight_numpy(dw, du, db, x, h, dgates, keep, reset_after, backwards, ws):
    """Gradients with respect to the weights and the bias, summed over all steps.

    Parameters
    ----------
    dw : (C, 3U), overwritten
    du : (U, 3U), overwritten
    db : overwritten; as b in ``gru_forward``
    x : (N, T, C)
    h : (T + 1, N, U), the whole history that ``gru_forward`` left
    dgates : (T, N, 4U) from ``gru_backward_input``
    keep, reset_after, backwards : as in ``gru_forward``

    Notes
    -----
    Cost: 6 N T U (C + U) operations.
    """
    T, U = h.shape[0] - 1, h.shape[2]
    times = [time for _, time in steps(T, backwards)]
    gates, last = dgates[..., : 3 * U], dgates[..., 3 * U :]
    kept = dropped(h[:T], keep)
    np.einsum("ntc,tng->cg", x[:, times], gates, out=dw)
    np.einsum("tnu,tng->ug", kept, gates[..., : 2 * U], out=du[:, : 2 * U])
    if reset_after:
        np.einsum("tnu,tng->ug", kept, last, out=du[:, 2 * U :])
    else:
        np.einsum("tnu,tng->ug", last, gates[..., 2 * U :], out=du[:, 2 * U :])
    if db.size:
        total = dgates.sum(axis=(0, 1))
        db.reshape(-1)[: 3 * U] = total[: 3 * U]
        if reset_after:
            db[1, : 2 * U], db[1, 2 * U :] = total[: 2 * U], total[3 * U :]


def gru_workspace_numpy(N, T, C, U):
    """Floats of workspace that the passes of this layer need."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Workspace: the table with the entry zero; w and u packed one below the other by `prepare`, once
# for z and r and once for the candidate; then scratch of one pass: the biases, 3 rows of U for
# each worker; going forward the rows [x, h] of all samples; going back the gradients of the gates
# of all samples, the weights transposed and packed, dh, and what reaches r h.


@inner
def _packed_places(C, U):
    """Where the weights of z and r, those of the candidate, the scratch and the rows begin."""
    candidate = ZERO_TABLE + panel_size(C + U, 2 * U)
    scratch = candidate + panel_size(C + U, U)
    return ZERO_TABLE, candidate, scratch, scratch + 4 * U + 3 * U * MAX_WORKERS


@inner
def _backward_places(N, C, U):
    """Where the transposed weights, u of z and r, u of the candidate, w, and dh begin."""
    u_gates = _packed_places(C, U)[3] + N * row_stride(4 * U)
    u_candidate = u_gates + panel_size(2 * U, U)
    w_all = u_candidate + panel_size(U, U)
    return u_gates, u_candidate, w_all, w_all + panel_size(3 * U, C)


def gru_workspace_cpu(N, T, C, U):
    _, _, scratch, rows = _packed_places(C, U)
    forward, weight = rows + N * row_stride(C + U), scratch + weight_scratch(C, U, 3 * U)
    return max(forward, weight, _backward_places(N, C, U)[3] + 2 * N * U)


@cpu
def gru_prepare_cpu(w, u, ws):
    C, U = w.shape[0], u.shape[0]
    both, candidate, _, _ = _packed_places(C, U)
    set_offset(ws, 0, 0, 0)
    pack_pair(ws, both, w, u, 0, 3 * U, C, U, 2 * U)
    pack_pair(ws, candidate, w, u, 2 * U, 3 * U, C, U, U)


@inner
def _forward_range(
    start, stop, worker, y, h, gates, x, mask, keep, activation, recurrent_activation, reset_after,
    backwards, ws,
):  # fmt: skip
    N, T, C = x.shape
    U, slots, outputs, rows = h.shape[2], h.shape[0], y.shape[1], stop - start
    G, K, stride = 4 * U, C + U, row_stride(C + U)
    both, candidate, bias, row0 = _packed_places(C, U)
    scratch, first = bias + 4 * U + 3 * U * worker, row0 + start * stride
    copy_rows(ws, first + C, stride, h, start * U, U, rows, U)
    keep_rows(ws, first + C, stride, keep, start, rows, U)
    usual = reset_after and activation == TANH and recurrent_activation == SIGMOID
    together, flags = 1 if mask.size else rows, ADD_BIAS + (FAR_C if slots > 2 else OVERWRITE)
    for s in range(T):
        time = T - 1 - s if backwards else s
        old, new = s % slots * N, (s + 1) % slots * N
        tape = s % gates.shape[0] * N
        at0 = (tape + start) * G
        copy_rows(ws, first, stride, x, (start * T + time) * C, T * C, rows, C)
        multiply(gates, at0, G, ws, first, stride, ws, both, K, 0, rows, 2 * U, K, ws, bias, flags)
        if reset_after:
            multiply(
                gates, at0 + 2 * U, G, ws, first, stride, ws, candidate, K, 0, rows, U, C, ws,
                bias + 2 * U, flags,
            )  # fmt: skip
            multiply(
                gates, at0 + 3 * U, G, ws, first + C, stride, ws, candidate, K, C, rows, U, U, ws,
                bias + 3 * U, flags,
            )  # fmt: skip
        else:
            for n in range(start, stop):
                if mask.size == 0 or mask[n, time]:
                    row, at = address(ws, first + (n - start) * stride + C), (tape + n) * G
                    reset_state(row, gates, at, ws, scratch, U, recurrent_activation)
            multiply(
                gates, at0 + 2 * U, G, ws, first, stride, ws, candidate, K, 0, rows, U, K, ws,
                bias + 2 * U, flags,
            )  # fmt: skip
        for n in range(start, stop, together):
            at, row = (tape + n) * G, address(ws, first + (n - start) * stride + C)
            h_new, h_old = address(h, (new + n) * U), address(h, (old + n) * U)
            if mask.size and mask[n, time] == 0:
                copy_run((h_new, h_old, 0, U))
                copy_run((row, h_old, 0, U))
            elif usual:
                gru_usual_forward((together, U, address(gates, at), h_old, h_new, row, stride))
            else:
                for m in range(together):
                    cell_forward(
                        h_new + 4 * m * U, h_old + 4 * m * U, row + 4 * m * stride, gates,
                        at + m * G, ws, scratch, U, activation, recurrent_activation, reset_after,
                    )  # fmt: skip
        keep_rows(ws, first + C, stride, keep, start, rows, U)
        if s >= T - outputs:
            out = (start * outputs + s - (T - outputs)) * U
            copy_rows(y, out, outputs * U, h, (new + start) * U, U, rows, U)


@cpu
def gru_forward_cpu(
    y, h, gates, x, w, u, b, mask, keep, activation, recurrent_activation, reset_after, backwards,
    ws,
):  # fmt: skip
    """Parallel over samples, whose sequences do not meet."""
    N, T, C = x.shape
    U = u.shape[0]
    bias, given = tail(ws, _packed_places(C, U)[2]), tail(b, 0)
    for j in range(4 * U):
        bias[j] = 0
    if b.size:
        for j in range(3 * U):
            bias[j] = given[j]
    if b.size and reset_after:
        for j in range(2 * U):
            bias[j] += given[3 * U + j]
        for j in range(2 * U, 3 * U):
            bias[U + j] = given[3 * U + j]
    arguments = (
        y, h, gates, x, mask, keep, activation, recurrent_activation, reset_after, backwards, ws,
    )  # fmt: skip
    split(_forward_range, N, grain(3 * U * (C + U) * T), arguments)


@inner
def _backward_range(
    start, stop, worker, dx, dgates, dy, gates, h, mask, keep, activation, recurrent_activation,
    reset_after, backwards, C, ws,
):  # fmt: skip
    T, N, G = gates.shape
    U, outputs, rows, stride = h.shape[2], dy.shape[1], stop - start, row_stride(G)
    u_gates, u_candidate, w_all, dh0 = _backward_places(N, C, U)
    reset0 = dh0 + N * U
    _, _, bias, row0 = _packed_places(C, U)
    scratch, first = bias + 4 * U + 3 * U * worker, row0 + start * stride
    copy_run((address(ws, dh0 + start * U), 0, 0, rows * U))
    usual = reset_after and activation == TANH and recurrent_activation == SIGMOID
    together = rows if usual and mask.size == 0 else 1
    for s in range(T - 1, -1, -1):
        time = T - 1 - s if backwards else s
        if s >= T - outputs:
            add_outputs(ws, dh0 + start * U, dy, start, s - (T - outputs), rows, U)
        for n in range(start, stop, together):
            at, D = (s * N + n) * G, first + (n - start) * stride
            dz, dh, h_old = address(ws, D), address(ws, dh0 + n * U), address(h, (s * N + n) * U)
            if mask.size and mask[n, time] == 0:
                copy_run((dz, 0, 0, G))
                continue
            if usual:
                gru_usual_backward((together, U, dz, stride, dh, address(gates, at), h_old))
                continue
            cell_backward(
                ws, D, dh, h_old, gates, at, scratch, U, activation, recurrent_activation,
                reset_after,
            )  # fmt: skip
        if not reset_after:
            multiply(
                ws, reset0 + start * U, U, ws, first + 2 * U, stride, ws, u_candidate, U, 0, rows,
                U, U, ws, 0, OVERWRITE,
            )  # fmt: skip
            for n in range(start, stop):
                if mask.size and mask[n, time] == 0:
                    continue
                at, D = (s * N + n) * G, first + (n - start) * stride
                keep_rows(ws, reset0 + n * U, U, keep, n, 1, U)
                through_reset(
                    ws, D, address(ws, dh0 + n * U), address(ws, reset0 + n * U),
                    address(h, (s * N + n) * U), gates, at, scratch, U, recurrent_activation,
                )  # fmt: skip
        copy_rows(dgates, (s * N + start) * G, G, ws, first, stride, rows, G)
        if s:  # what comes through u is added to dh, by way of `reset` if it is to be dropped
            sum0 = (reset0 if keep.size else dh0) + start * U
            multiply(
                ws, sum0, U, ws, first, stride, ws, u_gates, 2 * U, 0, rows, U, 2 * U, ws, 0,
                OVERWRITE if keep.size else ACCUMULATE,
            )  # fmt: skip
            if reset_after:
                multiply(
                    ws, sum0, U, ws, first + 3 * U, stride, ws, u_candidate, U, 0, rows, U, U, ws,
                    0, ACCUMULATE,
                )  # fmt: skip
            if keep.size:
                keep_rows(ws, reset0 + start * U, U, keep, start, rows, U)
                dh, through_u = address(ws, dh0 + start * U), address(ws, reset0 + start * U)
                recurrent_add((dh, U, through_u, U, rows, U))
        if dx.size:
            multiply(
                dx, (start * T + time) * C, T * C, ws, first, stride, ws, w_all, 3 * U, 0, rows, C,
                3 * U, ws, 0, OVERWRITE,
            )  # fmt: skip


@cpu
def gru_backward_input_cpu(
    dx, dgates, dy, gates, h, w, u, mask, keep, activation, recurrent_activation, reset_after,
    backwards, ws,
):  # fmt: skip
    """Parallel over samples; each thread runs its own time loop from the last step to the first."""
    T, N, _ = gates.shape
    C, U = w.shape[0], u.shape[0]
    u_gates, u_candidate, w_all, _ = _backward_places(N, C, U)
    set_offset(ws, 0, 0, 0)
    pack(ws, u_gates, u, 0, 1, 3 * U, 2 * U, U)
    pack(ws, u_candidate, u, 2 * U, 1, 3 * U, U, U)
    if dx.size:
        pack(ws, w_all, w, 0, 1, 3 * U, 3 * U, C)
    arguments = (
        dx, dgates, dy, gates, h, mask, keep, activation, recurrent_activation, reset_after,
        backwards, C, ws,
    )  # fmt: skip
    split(_backward_range, N, grain(3 * U * U * T), arguments)


@cpu
def gru_backward_weight_cpu(dw, du, db, x, h, dgates, keep, reset_after, backwards, ws):
    """Parallel over columns of the gates."""
    set_offset(ws, 0, 0, 0)
    N, T, C = x.shape
    U, G = du.shape[0], 4 * du.shape[0]
    scratch = address(ws, _packed_places(C, U)[2])
    zero = address(ws, 0)
    bias = address(db, 0) if db.size else 0
    factors = address(keep, 0) if keep.size else 0
    weights, inputs, states = address(dw, 0), address(x, 0), address(h, 0)
    if reset_after:  # the candidate's state has a gradient of its own, in the last columns
        state_bias = bias + 4 * 3 * U if db.size else 0
        recurrent_weight((
            weights, C, address(du, 0), U, 3 * U, bias, state_bias, inputs, states, U, factors,
            address(dgates, 0), G, 3 * U, 2 * U, U, N, T, backwards, scratch, zero,
        ))  # fmt: skip
        if db.size:
            copy_run((state_bias, bias, 0, 2 * U))
        return
    recurrent_weight((
        weights, C, address(du, 0), U, 3 * U, bias, 0, inputs, states, U, factors,
        address(dgates, 0), G, 2 * U, 2 * U, 0, N, T, backwards, scratch, zero,
    ))  # fmt: skip
    # The candidate saw the state after its reset, which the last columns hold.
    recurrent_weight((
        weights + 8 * U, C, address(du, 2 * U), U, 3 * U, bias + 8 * U if db.size else 0, 0,
        inputs, address(dgates, 3 * U), G, 0, address(dgates, 2 * U), G, U, U, 0, N, T, backwards,
        scratch, zero,
    ))  # fmt: skip


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# As recurrent.py says; without `reset_after` a step has two products with u, as the candidate waits
# for r, and each passes the whole matrix, with zeros for what is not its own. Workspace and what a
# block remembers as in simple_rnn.py.

STATES = 2


@gpu
def _fetch_forward(fetched, before, b, mask, s, time, n, j, U, reset_after):
    """The inputs of a unit's gates, and behind them the candidate's bias of the state, if any."""
    if n < before.shape[1]:
        for gate in range(3):
            fetched[gate] = before[s, n, gate * U + j]
        fetched[3] = ZERO
        if reset_after and b.size:
            fetched[0] += b[3 * U + j]
            fetched[1] += b[4 * U + j]
            fetched[3] = b[5 * U + j]
        fetched[4] = ONE if counts(mask, n, time) else ZERO


@gpu
def _reset_units(
    gates, tape, before, b, mask, s, time, area, sharing, places, S, first, recurrent_activation
):
    """Reset what the candidate sees of the state, and give it to the second product."""
    fetched = cuda.local.array(5, np.float32)
    N, U, vector, states = gates.shape[1], gates.shape[2] // 4, places[0], places[1]
    i = cuda.threadIdx.x
    while i < S * U:
        m, j = sample_of(i, U)
        n, row = first + m, vector + m * sharing[1] * sharing[2] + j
        if n < N:
            _fetch_forward(fetched, before, b, mask, s, time, n, j, U, 0)
            z = summed(fetched[0], area, sharing, places, S, m, j)
            r = summed(fetched[1], area, sharing, places, S, m, U + j)
            _, gates[tape, n, j] = kept_on_tape(z, recurrent_activation)
            r, gates[tape, n, U + j] = kept_on_tape(r, recurrent_activation)
            seen = r * (area[states + i] * area[states + S * U + i])
            area[row], gates[tape, n, 3 * U + j] = seen, seen
        i += cuda.blockDim.x


def _forward_walk(S, far):
    @bounded(MOST)
    def forward(
        y, h, gates, before, ws, b, mask, keep, activation, recurrent_activation, reset_after,
        backwards, sharing,
    ):  # fmt: skip
        T, N, U, slots, outputs = before.shape[0], h.shape[1], h.shape[2], h.shape[0], y.shape[1]
        first, t, threads = cuda.blockIdx.x * S, cuda.threadIdx.x, cuda.blockDim.x
        kept = cuda.local.array((KEPT, 4), np.float32)
        fetched = cuda.local.array(5, np.float32)
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
                n = first + mine
                _fetch_forward(fetched, before, b, mask, s, time, n, unit, U, reset_after)
            multiply_share(area, kept, ws, sharing, places, S, far)
            cuda.syncthreads()
            if not reset_after:
                _reset_units(
                    gates, tape, before, b, mask, s, time, area, sharing, places, S, first,
                    recurrent_activation,
                )  # fmt: skip
                cuda.syncthreads()
                multiply_share(area, kept, ws, sharing, places, S, far)
                cuda.syncthreads()
            i = t
            while i < S * U:
                m, j = sample_of(i, U)
                n = first + m
                if n < N:
                    if i != t:
                        _fetch_forward(fetched, before, b, mask, s, time, n, j, U, reset_after)
                    value = area[states + i]
                    if fetched[4] != ZERO:
                        candidate = summed(fetched[3], area, sharing, places, S, m, 2 * U + j)
                        if reset_after:
                            z = summed(fetched[0], area, sharing, places, S, m, j)
                            r = summed(fetched[1], area, sharing, places, S, m, U + j)
                            z, gates[tape, n, j] = kept_on_tape(z, recurrent_activation)
                            r, gates[tape, n, U + j] = kept_on_tape(r, recurrent_activation)
                            gates[tape, n, 3 * U + j] = candidate
                            candidate *= r
                        else:
                            z = recalled(gates[tape, n, j], recurrent_activation)
                        a, gates[tape, n, 2 * U + j] = kept_on_tape(
                            fetched[2] + candidate, activation
                        )
                        value = z * value + (ONE - z) * a
                    area[states + i] = value
                    area[vector + m * stride + j] = value * area[factors + i]
                    h[new, n, j] = value
                    if s >= T - outputs:
                        y[n, s - (T - outputs), j] = value
                i += threads
            cuda.syncthreads()

    return forward


@gpu
def _fetch_backward(fetched, gates, h, dy, mask, s, time, n, j):
    T, N, U = gates.shape[0], gates.shape[1], h.shape[2]
    if n < N:
        for gate in range(4):
            fetched[gate] = gates[s, n, gate * U + j]
        fetched[4], fetched[5] = h[s, n, j], arriving(dy, T, s, n, j)
        fetched[6] = ONE if counts(mask, n, time) else ZERO


@gpu
def _unit_backward(fetched, dh, activation, recurrent_activation, reset_after):
    """Gradients of z, r (only with `reset_after`) and a, the tape's last quarter, and past all."""
    kept_z, kept_r, kept_a, last, h = fetched[0], fetched[1], fetched[2], fetched[3], fetched[4]
    z, a = recalled(kept_z, recurrent_activation), recalled(kept_a, activation)
    da, dr = taken_back(dh * (ONE - z), kept_a, activation), ZERO
    dz = taken_back(dh * (h - a), kept_z, recurrent_activation)
    if reset_after:
        dr = taken_back(da * last, kept_r, recurrent_activation)
        last = da * recalled(kept_r, recurrent_activation)
    return dz, dr, da, last, dh * z


@gpu
def _reset_backward(
    dgates, gates, h, mask, s, time, area, sharing, places, S, first, recurrent_activation
):
    """The gradient of r where it resets before the product, and the second product's vectors."""
    N, U, vector, states = gates.shape[1], h.shape[2], places[0], places[1]
    i = cuda.threadIdx.x
    while i < S * U:
        m, j = sample_of(i, U)
        n, row = first + m, vector + m * sharing[1] * sharing[2] + j
        if n < N and counts(mask, n, time):
            reset, kept_r = summed(ZERO, area, sharing, places, S, m, j), gates[s, n, U + j]
            reset *= area[states + S * U + i]
            dr = taken_back(reset * h[s, n, j], kept_r, recurrent_activation)
            area[states + i] += reset * recalled(kept_r, recurrent_activation)
            dgates[s, n, U + j] = dr
            area[row], area[row + U], area[row + 2 * U] = dgates[s, n, j], dr, ZERO
        i += cuda.blockDim.x


def _backward_walk(S, far):
    @bounded(MOST)
    def backward(
        dgates, dy, gates, h, ws, mask, keep, activation, recurrent_activation, reset_after,
        backwards, sharing,
    ):  # fmt: skip
        T, N, U = gates.shape[0], gates.shape[1], h.shape[2]
        first, t, threads = cuda.blockIdx.x * S, cuda.threadIdx.x, cuda.blockDim.x
        kept = cuda.local.array((KEPT, 4), np.float32)
        fetched = cuda.local.array(7, np.float32)
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
                _fetch_backward(fetched, gates, h, dy, mask, s, time, first + mine, unit)
            # Without `reset_after` this is the second product of the step before.
            if s < T - 1:
                multiply_share(area, kept, ws, sharing, places, S, far)
            cuda.syncthreads()
            i = t
            while i < S * U:
                m, j = sample_of(i, U)
                n = first + m
                if n < N:
                    if i != t:
                        _fetch_backward(fetched, gates, h, dy, mask, s, time, n, j)
                    through = summed(ZERO, area, sharing, places, S, m, j)
                    dh = through * area[factors + i] + area[states + i] + fetched[5]
                    dz, dr, da, last, past = ZERO, ZERO, ZERO, ZERO, dh
                    if fetched[6] != ZERO:
                        dz, dr, da, last, past = _unit_backward(
                            fetched, dh, activation, recurrent_activation, reset_after
                        )
                    area[states + i], row = past, vector + m * stride + j
                    area[row], area[row + U] = dz if reset_after else ZERO, dr
                    area[row + 2 * U] = last if reset_after else da
                    dgates[s, n, j], dgates[s, n, 2 * U + j] = dz, da
                    if reset_after or fetched[6] == ZERO:
                        dgates[s, n, U + j] = dr
                    dgates[s, n, 3 * U + j] = last
                i += threads
            cuda.syncthreads()
            if not reset_after:
                multiply_share(area, kept, ws, sharing, places, S, far)
                cuda.syncthreads()
                _reset_backward(
                    dgates, gates, h, mask, s, time, area, sharing, places, S, first,
                    recurrent_activation,
                )  # fmt: skip
                cuda.syncthreads()

    return backward


_FORWARD = _forward_one, _forward_two, _forward_far = tuple(_forward_walk(*v) for v in VARIANTS)
_BACKWARD = _backward_one, _backward_two, _backward_far = tuple(
    _backward_walk(*v) for v in VARIANTS
)


def gru_workspace_cuda(N, T, C, U):
    G = 3 * U
    sums = [space_of_sums(*rows, T * N) for rows in ((C, G), (U, G), (U, 2 * U), (U, U))]
    rest = far_size(N, U, G, STATES, STATES) + T * N * 4 * U
    return packed_pair_size(U, G) + max(rest, *sums)


def gru_prepare_cuda(w, u, ws):
    """Pack u as the threads of a block will read it, for the way forward and back."""
    pack_both_ways(ws, u)


def gru_forward_cuda(
    y, h, gates, x, w, u, b, mask, keep, activation, recurrent_activation, reset_after, backwards,
    ws,
):  # fmt: skip
    (N, T, _), (U, G), bias = x.shape, u.shape, b.reshape(-1)
    start = packed_pair_size(U, G) + far_size(N, U, G, STATES, STATES)
    before = inputs_in(gates, ws, start, T)
    see_inputs(before, x, w, bias, backwards)
    codes = int(activation), int(recurrent_activation), int(reset_after), int(backwards)
    walk(_FORWARD, N, U, G, STATES, True, y, h, gates, before, ws, bias, mask, keep, *codes)


def gru_backward_input_cuda(
    dx, dgates, dy, gates, h, w, u, mask, keep, activation, recurrent_activation, reset_after,
    backwards, ws,
):  # fmt: skip
    N, (U, G) = gates.shape[1], u.shape
    codes = int(activation), int(recurrent_activation), int(reset_after), int(backwards)
    walk(_BACKWARD, N, U, G, STATES, False, dgates, dy, gates, h, ws, mask, keep, *codes)
    backward_inputs(dx, dgates, w, backwards)


def gru_backward_weight_cuda(dw, du, db, x, h, dgates, keep, reset_after, backwards, ws):
    (U, G), states, bias = du.shape, h.reshape(-1, h.shape[2]), db.reshape(-1)
    sums = ws[packed_pair_size(U, G) :]
    sum_inputs(dw, bias[:G] if db.size else NONE, x, dgates, backwards, sums)
    if reset_after:  # the candidate's state has a gradient of its own, in the last columns
        state_bias = bias[G:] if db.size else NONE
        sum_states(du, 0, G, state_bias, states, 0, keep, dgates, (0, 2 * U, U), sums)
    else:  # the candidate saw the state after its reset, which the last columns hold
        sum_states(du, 0, 2 * U, NONE, states, 0, keep, dgates, (0, G, 0), sums)
        reset, nothing = dgates.reshape(-1, 4 * U), NONE.reshape(0, 0)
        sum_states(du, 2 * U, U, NONE, reset, 3 * U, nothing, dgates, (2 * U, G, 0), sums)
