"""What SimpleRNN, LSTM and GRU share.

A recurrent layer reads a sequence step by step. On the CPU each thread runs the whole time loop
for its share of the samples, so that no step waits for another thread; only the gradients of the
weights, which sum over samples, are computed after the loop, as one product over all steps.

Two conventions hold in all three files. The *tape*, (T, N, gates), is what ``forward`` leaves for
``backward_input``; its content is the device's own. And a history of states, (T + 1, N, U), may
also be one of two slots, (2, N, U), and the tape one of a single step: steps then overwrite each
other, which is enough where no gradient is wanted. Step s finds its old state in slot
``s % slots`` and leaves the new one in the next, so the state after T steps is in slot
``T % slots``: `T` of a whole history, ``T % 2`` of two slots.

Recurrent dropout is an array `keep`, (N, U), of factors that are the same at all steps: 0 or
1 / (1 - rate), drawn by the layer. They multiply the old state on its way into the product with
u, and nowhere else: what a gate keeps of the state, it keeps whole. All gates share them, as they
share the factors of the input: the tied weights of Gal and Ghahramani 2016, "A Theoretically
Grounded Application of Dropout in Recurrent Neural Networks", arXiv:1512.05287, section 4.2.
"""

import math

import numpy as np

from minicnnrnn.kernels.activation import (
    activate,
    activation_backward_numpy,
    activation_forward_numpy,
    activation_of,
    derivative_of,
)
from minicnnrnn.kernels.codes import (
    FROM_OUTPUT,
    FROM_SAMPLES,
    FROM_STEPS,
    LEAKY_RELU,
    SIGMOID,
    TANH,
)
from minicnnrnn.kernels.dense import ADDED, store_part, store_part_vector, sum_of_parts
from minicnnrnn.kernels.formula import elementwise, gate, tanh
from minicnnrnn.kernels.gemm import DEPTH_BLOCK, gemm_block, gemm_panels, pack_transposed
from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch, over
from minicnnrnn.kernels.jit import MAX_WORKERS, cpu, inner, once, split
from minicnnrnn.kernels.microkernel import ACCUMULATE, OVERWRITE
from minicnnrnn.kernels.panel import (
    PANEL,
    address,
    floats,
    grain,
    move_rows,
    pack,
    panel_width,
    panels,
)
from minicnnrnn.kernels.product import launch_product, parts_of_sum, tiled_product, vectors_of
from minicnnrnn.kernels.tiles import copy_run
from minicnnrnn.kernels.vector import WIDTH, load_vector, store_vector

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def default_alpha(code):
    """The parameter of an activation inside a recurrent layer: Keras' default for its name."""
    return 0.2 if code == LEAKY_RELU else 1.0


def activated(x, code):
    """The activation of an array of any shape, as a new array."""
    y = np.empty_like(x)
    activation_forward_numpy(y, x, code, default_alpha(code))
    return y


def through(dy, x, code):
    """The gradient `dy` taken back through the activation of `x`, as a new array."""
    dx = np.empty_like(dy)
    activation_backward_numpy(dx, dy, x, activated(x, code), code, default_alpha(code))
    return dx


def steps(T, backwards):
    """Pairs (step, time): the order in which the T times of a sequence are read."""
    return [(s, T - 1 - s if backwards else s) for s in range(T)]


def is_valid(mask, time):
    """(N, 1) booleans: which samples take part at this time; without a mask, all."""
    return mask[:, time, None] != 0 if mask.size else np.True_


def dropped(h, keep):
    """What recurrent dropout leaves of states; all without it."""
    return h * keep if keep.size else h


def steps_forward_numpy(y, x, keep, turn, backwards):
    """Copy a batch of sequences: in another order, and with dropout that all steps share.

    .. math:: y_{nt} = keep_n \\odot x_{nt}

    Parameters
    ----------
    y : (N, T, P), overwritten; or (T, N, P) with ``FROM_SAMPLES``; may be the same memory as `x`
        with ``AS_IT_IS``
    x : (N, T, P), or (T, N, P) with ``FROM_STEPS``
    keep : (N, P), or (0, 0) to multiply by nothing
    turn : int
        ``AS_IT_IS``; ``FROM_SAMPLES``: sample by sample in `x`, in `y` step by step;
        ``FROM_STEPS``: the way back.
    backwards : int
        1 if step 0 is the last time: then what is turned is reversed too.

    Notes
    -----
    With the two orders exchanged it is its own backward pass.
    """
    if turn == FROM_SAMPLES:
        x = x.swapaxes(0, 1)[:: -1 if backwards else 1]
        y[:] = dropped(x, keep)
    elif turn == FROM_STEPS:
        y[:] = dropped(x[:: -1 if backwards else 1], keep).swapaxes(0, 1)
    else:
        y[:] = dropped(x, keep[:, None])


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# A workspace begins with a table of offsets with the single entry zero, for products whose
# outer sum has one term.

ZERO_TABLE = 4
LEAST_SAMPLES = 8  # samples that make it worth to sum over them apart,
FEW_COLUMNS = 4 * PANEL  # if this few columns see them

alpha_of = inner(default_alpha)


@inner
def row_stride(width):
    """Floats from one row to the next in a block of rows that products read.

    An odd number of cache lines: rows that are a power of two apart share a few sets of the L1
    cache, and a product that reads them takes up to twice the time.
    """
    return ((width + 15) // 16 | 1) * 16


@inner
def tail(array, start):
    """The array from element `start` on, flat and without an end."""
    return floats(address(array, start))


@inner
def pack_pair(ws, packed, w, u, first, stride, C, U, columns):
    """Pack some columns of w and, below them, of u, so that ``[x, h]`` meets them in one product.

    The columns begin at `first`, rows are `stride` apart; ``panel_size(C + U, columns)`` floats.
    """
    for n in range(0, columns, PANEL):
        width = min(PANEL, columns - n)
        panel = packed + n * (C + U)
        pack(ws, panel, w, first + n, stride, 1, C, width)
        pack(ws, panel + C * panel_width(width), u, first + n, stride, 1, U, width)


@once(13)
def recurrent_multiply(c, ldc, a, am, packed, depth, skip, rows, columns, K, zero, bias, flags):
    gemm_panels(c, ldc, rows, columns, a, am, 1, zero, packed, depth, skip, K, bias, flags)


@inner
def multiply(c, c0, ldc, a, a0, am, ws, packed, depth, skip, rows, columns, K, b, b0, flags):
    """C (rows, columns) = A (rows, K) times rows `skip` to ``skip + K`` of a packed matrix.

    The packed matrix has `depth` rows and begins at ``ws[packed]``; `b` is a bias, from `b0` on.
    """
    recurrent_multiply((
        address(c, c0), ldc, address(a, a0), am, address(ws, packed), depth, skip, rows, columns,
        K, address(ws, 0), address(b, b0), flags,
    ))  # fmt: skip


@once(6)
def recurrent_copy(to, ldt, of, ldf, rows, columns):
    for i in range(rows):
        copy_run((to + 4 * i * ldt, of + 4 * i * ldf, 0, columns))


@inner
def copy_rows(to, to0, ldt, of, of0, ldf, rows, columns):
    recurrent_copy((address(to, to0), ldt, address(of, of0), ldf, rows, columns))


@inner
def activated_copy(target, target0, x, x0, count, code):
    """Activate a copy of `count` elements, and return its address."""
    copy_run((address(target, target0), address(x, x0), 0, count))
    activate(target, target0, count, code, alpha_of(code))
    return address(target, target0)


add = elementwise(lambda a, b: (a + b,), 2, 1)
_scale = elementwise(lambda a, b: (a * b,), 2, 1)
_tanh = elementwise(lambda x: (tanh(x),), 1, 1)
_gates = elementwise(lambda x: (gate(x),), 1, 1)


@once(3)
def usual_activation(values, count, code):
    """Tanh or sigmoid in place."""
    if code == TANH:
        _tanh((1, count, values, 0, values, 0))
    else:
        _gates((1, count, values, 0, values, 0))


@inner
def settle(tape, at, ws, scratch, count, code):
    """Activate `count` elements of the tape and return the address of their values.

    They replace what is on the tape where the derivative follows from them.
    """
    if code in (TANH, SIGMOID):
        usual_activation((address(tape, at), count, code))
        return address(tape, at)
    if code in FROM_OUTPUT:
        activate(tape, at, count, code, alpha_of(code))
        return address(tape, at)
    return activated_copy(ws, scratch, tape, at, count, code)


@inner
def recall(tape, at, ws, scratch, count, code):
    """The address of the values of what ``settle`` left on the tape."""
    if code in FROM_OUTPUT:
        return address(tape, at)
    return activated_copy(ws, scratch, tape, at, count, code)


@once(5)
def recurrent_scale(to, step, factors, rows, columns):
    _scale((rows, columns, to, step, factors, columns, to, step))


@inner
def keep_rows(to, to0, step, keep, n, rows, U):
    """Multiply rows of `U`, `step` apart, by the factors of the samples from n on, if any."""
    if keep.size:
        recurrent_scale((address(to, to0), step, address(keep, n * U), rows, U))


@inner
def keep_valid_rows(to, to0, step, keep, mask, time, n, rows, U):
    """The same for the samples alone that take part at this time."""
    if mask.size == 0:
        keep_rows(to, to0, step, keep, n, rows, U)
    elif keep.size:
        for row in range(rows):
            if mask[n + row, time]:
                keep_rows(to, to0 + row * step, step, keep, n + row, 1, U)


@inner
def add_outputs(dh, dh0, dy, n, output, rows, U):
    """Add the gradients of an output of the samples from n on to those of their states."""
    outputs = dy.shape[1]
    recurrent_add((
        address(dh, dh0), U, address(dy, (n * outputs + output) * U), outputs * U, rows, U,
    ))  # fmt: skip


@once(6)
def recurrent_add(to, ldt, of, ldf, rows, columns):
    add((rows, columns, to, ldt, of, ldf, to, ldt))


@inner
def _pack_rows(packed, row, x, C, h, U, ldh, keep, first, depth, n0, samples, N, T, backwards):
    """Rows of x and h from `first` on, which count a part's samples inside steps, transposed."""
    states, k = packed + 4 * C * depth, 0
    while k < depth:  # samples of one step
        step, n = (first + k) // samples, (first + k) % samples
        time, count = T - 1 - step if backwards else step, min(depth - k, samples - n)
        source = h + 4 * (step * N + n0 + n) * ldh
        pack_transposed((packed, depth, k, x + 4 * ((n0 + n) * T + time) * C, T * C, count, C))
        if not keep:
            pack_transposed((states, depth, k, source, ldh, count, U))
        for i in range(count if keep else 0):
            copy_run((row, source + 4 * i * ldh, 0, U))
            recurrent_scale((row, U, keep + 4 * (n0 + n + i) * U, 1, U))
            pack_transposed((states, depth, k + i, row, U, 1, U))
        k += count


@inner
def _move_columns(panel, source, ldg, first, depth, n0, samples, N, width, sums):
    """Move a part's rows of a few columns into a panel, and add them up, unless `sums` is zero."""
    if sums and first == 0:
        copy_run((sums, 0, 0, width))
    k = 0
    while k < depth:
        step, n = (first + k) // samples, (first + k) % samples
        count = min(depth - k, samples - n)
        rows = source + 4 * (step * N + n0 + n) * ldg
        move_rows((panel + 4 * k * panel_width(width), rows, 0, 4 * ldg, count, width, sums))
        k += count


@inner
def _weight_worker(C, U):
    return DEPTH_BLOCK * (C + U + PANEL) + U


@inner
def _weight_part(
    start, stop, packed, n0, samples, dw, C, du, U, ldw, db, state_db, x, h, ldh, keep, dgates,
    ldg, columns, jump, skip, N, T, backwards, zero,
):  # fmt: skip
    """Some panels of the gradients, summed over `samples` samples from `n0` on."""
    panel = packed + 4 * DEPTH_BLOCK * (C + U)
    row = panel + 4 * DEPTH_BLOCK * PANEL
    for first in range(0, samples * T, DEPTH_BLOCK):
        depth, flags = min(DEPTH_BLOCK, samples * T - first), ACCUMULATE if first else OVERWRITE
        _pack_rows(
            packed, row, x, C, h, U, ldh, keep, first, depth, n0, samples, N, T, backwards
        )  # fmt: skip
        for p in range(start, stop):
            apart = p >= panels(jump)
            j = jump + (p - panels(jump)) * PANEL if apart else p * PANEL
            width = min(PANEL, (columns if apart else jump) - j)
            ldb, source, sums = panel_width(width), dgates + 4 * j, db + 4 * j if db else 0
            _move_columns(panel, source, ldg, first, depth, n0, samples, N, width, sums)
            gemm_block((
                dw + 4 * j, ldw, C, width, packed, depth, 0, zero, panel, ldb, 0, depth, 1, 0,
                flags,
            ))  # fmt: skip
            if apart:
                source, sums = source + 4 * skip, state_db + 4 * j if state_db else 0
                _move_columns(panel, source, ldg, first, depth, n0, samples, N, width, sums)
            gemm_block((
                du + 4 * j, ldw, U, width, packed + 4 * C * depth, depth, 0, zero, panel, ldb, 0,
                depth, 1, 0, flags,
            ))  # fmt: skip


@inner
def _weight_range(
    start, stop, worker, parts, dw, C, du, U, ldw, db, state_db, x, h, ldh, keep, dgates, ldg,
    columns, jump, skip, N, T, backwards, scratch, second, zero,
):  # fmt: skip
    packed, item = scratch + 4 * worker * _weight_worker(C, U), start
    count = panels(jump) + panels(columns - jump)
    while item < stop:
        part, p = item // count, item % count
        last, n0 = min(count, p + stop - item), part * N // parts
        samples, sums = (part + 1) * N // parts - n0, second + 4 * (C + U) * columns
        if part:
            _weight_part(
                p, last, packed, n0, samples, second, C, second + 4 * C * columns, U, columns,
                sums if db else 0, sums + 4 * columns if state_db else 0, x, h, ldh, keep, dgates,
                ldg, columns, jump, skip, N, T, backwards, zero,
            )  # fmt: skip
        else:
            _weight_part(
                p, last, packed, n0, samples, dw, C, du, U, ldw, db, state_db, x, h, ldh, keep,
                dgates, ldg, columns, jump, skip, N, T, backwards, zero,
            )  # fmt: skip
        item += last - p


@inner
def _add_range(start, stop, worker, dw, C, du, ldw, second, columns):
    for row in range(start, stop):
        to = dw + 4 * row * ldw if row < C else du + 4 * (row - C) * ldw
        recurrent_add((to, ldw, second + 4 * row * columns, columns, 1, columns))


@once(21)
def recurrent_weight(
    dw, C, du, U, ldw, db, state_db, x, h, ldh, keep, dgates, ldg, columns, jump, skip, N, T,
    backwards, scratch, zero,
):  # fmt: skip
    """Gradients of the weights that some columns of the gates see; all pointers are addresses.

    .. math:: dw = \\sum_s x_{t(s)}^T dgates_s, \\quad du = \\sum_s h_s^T dgates_s, \\quad
              db = \\sum_s \\sum_n dgates_{sn}

    `db` zero leaves out `db`; `keep` is zero or factors of h. From column `jump` on, the states
    have gradients of their own: `du` sees the gates `skip` columns further on, whose sums go to
    `state_db` unless it is zero.

    Parallel over the two halves of the samples, whose sums are added at the end, and over panels
    of columns. A thread of two thus reads what it has itself written on the way forward and back,
    and packs it once. The sum over steps is cut into blocks, whose rows of x and h are packed
    together and stay in the cache while all panels pass.
    """
    parts = 2 if N >= 2 * LEAST_SAMPLES and columns <= FEW_COLUMNS else 1
    second = scratch + 4 * MAX_WORKERS * _weight_worker(C, U)
    arguments = (
        parts, dw, C, du, U, ldw, db, state_db, x, h, ldh, keep, dgates, ldg, columns, jump, skip,
        N, T, backwards, scratch, second, zero,
    )  # fmt: skip
    count = panels(jump) + panels(columns - jump)
    split(_weight_range, parts * count, grain((C + U) * PANEL * (N // parts) * T), arguments)
    if parts == 2:
        split(_add_range, C + U, grain(columns), (dw, C, du, ldw, second, columns))
        sums = second + 4 * (C + U) * columns
        if db:
            recurrent_add((db, 0, sums, 0, 1, columns))
        if state_db:
            apart, of = columns - jump, sums + 4 * (columns + jump)
            recurrent_add((state_db + 4 * jump, 0, of, 0, 1, apart))


@inner
def weight_scratch(C, U, columns):
    """Floats that ``recurrent_weight`` needs: rows and a panel for each worker, a second sum."""
    return MAX_WORKERS * _weight_worker(C, U) + (C + U + 2) * columns


@inner
def _steps_range(start, stop, worker, y, x, keep, N, T, P, turn, backwards):
    for item in range(start, stop):
        n, t = item // T, item % T
        s = T - 1 - t if backwards else t
        to = (s * N + n if turn == FROM_SAMPLES else item) * P
        of = (s * N + n if turn == FROM_STEPS else item) * P
        copy_run((address(y, to), address(x, of), 0, P))
        keep_rows(y, to, P, keep, n, 1, P)


@cpu
def steps_forward_cpu(y, x, keep, turn, backwards):
    """Parallel over the steps of all samples."""
    N, T, P = y.shape
    if turn == FROM_SAMPLES:
        T, N = N, T
    arguments = (y, x, keep, N, T, P, turn, backwards)
    split(_steps_range, N * T, grain(P), arguments)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# Three phases. A product by tiles takes the inputs of all steps to where the gates will stand.
# Then a single kernel walks through the sequence, forwards or backwards, as resident.py says: a
# block has a sample or two for itself, so that its threads wait for one another twice a step and
# blocks never do. Its threads share out the product with the matrix, and then take a unit each;
# while they multiply, what they will need of the tape is on its way from memory. Gradients of the
# input and of the weights are products over all steps again.

ZERO, ONE, NONE = np.float32(0), np.float32(1), np.zeros(0, np.float32)


@gpu
def counts(mask, n, time):
    """Whether a sample takes part at a time."""
    return mask.size == 0 or mask[n, time] != 0


@gpu
def activated_number(x, code):
    """The activation of one number."""
    return activation_of(x, code, np.float32(alpha_of(code)))


@gpu
def kept_on_tape(before, code):
    """What the tape keeps of a number and its activation: this if the derivative follows from it.

    Returns the activation, and what to keep.
    """
    value = activated_number(before, code)
    return value, value if code in FROM_OUTPUT else before


@gpu
def recalled(known, code):
    """The value of what ``kept_on_tape`` left."""
    return known if code in FROM_OUTPUT else activated_number(known, code)


@gpu
def taken_back(dy, known, code):
    """A gradient, taken back through the activation of what ``kept_on_tape`` left."""
    return derivative_of(dy, known, code, np.float32(alpha_of(code)))


@gpu
def arriving(dy, T, s, n, j):
    """The gradient that arrives at a state from its output."""
    outputs = dy.shape[1]
    return dy[n, s - (T - outputs), j] if s >= T - outputs else ZERO


# Operands of the products are flat, as vectors are read; lengths of their lines come along.


@gpu
def _row(operands, group, m, k):
    return operands[1][m * operands[4] + k]


@gpu
def _row_vector(operands, group, m, k, into, at):
    load_vector(operands[1], m * operands[4] + k, into, at)


@gpu
def _w(operands, group, c, g):
    return operands[2][c * operands[5] + g]


@gpu
def _w_vector(operands, group, g, c, into, at):
    load_vector(operands[2], c * operands[5] + g, into, at)


@gpu
def _place_before(operands, m, g):
    backwards, N, T, line = operands[3], operands[6], operands[7], operands[8]
    n, time = m // T, m % T
    return ((T - 1 - time if backwards else time) * N + n) * line + g


@gpu
def _store_before(operands, group, part, m, g, total):
    b = operands[9]
    operands[0][_place_before(operands, m, g)] = total + b[g] if b.size else total


@gpu
def _store_before_vector(operands, group, part, m, g, totals, at):
    b = operands[9]
    if b.size:
        for i in range(WIDTH):
            totals[at + i] += b[g + i]
    store_vector(operands[0], _place_before(operands, m, g), totals, at)


@gpu
def _turned_w(operands, group, g, c):
    return operands[2][c * operands[5] + g]


@gpu
def _turned_w_vector(operands, group, c, g, into, at):
    load_vector(operands[2], c * operands[5] + g, into, at)


@gpu
def _place_dx(operands, m, c):
    backwards, N, T, C = operands[3], operands[6], operands[7], operands[8]
    s, n = m // N, m % N
    return (n * T + (T - 1 - s if backwards else s)) * C + c


@gpu
def _store_dx(operands, group, part, m, c, total):
    operands[0][_place_dx(operands, m, c)] = total


@gpu
def _store_dx_vector(operands, group, part, m, c, totals, at):
    store_vector(operands[0], _place_dx(operands, m, c), totals, at)


@gpu
def _place_x(operands, m, c):
    backwards, N, T, C = operands[5], operands[6], operands[7], operands[8]
    s = m // N
    return (m % N * T + (T - 1 - s if backwards else s)) * C + c


@gpu
def _turned_x(operands, group, c, m):
    return operands[1][_place_x(operands, m, c)] if c < operands[8] else ONE


@gpu
def _turned_x_vector(operands, group, c, m, into, at):
    if c < operands[8]:
        load_vector(operands[1], _place_x(operands, m, c), into, at)
    else:
        for i in range(WIDTH):
            into[at + i] = ONE


@gpu
def _of_inputs(operands, group, m, g):
    return operands[2][m * operands[9] + g]


@gpu
def _of_inputs_vector(operands, group, g, m, into, at):
    load_vector(operands[2], m * operands[9] + g, into, at)


@gpu
def _turned_states(operands, group, j, m):
    column, keep, U, line, N = operands[5:10]
    if j >= U:
        return ONE
    value = operands[1][m * line + column + j]
    return value * keep[m % N * U + j] if keep.size else value


@gpu
def _turned_states_vector(operands, group, j, m, into, at):
    column, keep, U, line, N = operands[5:10]
    if j >= U:
        for i in range(WIDTH):
            into[at + i] = ONE
    else:
        load_vector(operands[1], m * line + column + j, into, at)
        if keep.size:
            for i in range(WIDTH):
                into[at + i] *= keep[m % N * U + j + i]


@gpu
def _column_of_gates(operands, m, g):
    (column, jump, skip), line = operands[10], operands[11]
    return m * line + column + g + (skip if g >= jump else 0)


@gpu
def _of_states(operands, group, m, g):
    return operands[2][_column_of_gates(operands, m, g)]


@gpu
def _of_states_vector(operands, group, g, m, into, at):
    load_vector(operands[2], _column_of_gates(operands, m, g), into, at)


_see_inputs = tiled_product(
    _row, _w, _store_before, True, False, (_row_vector, _w_vector, _store_before_vector)
)
_backward_inputs = tiled_product(
    _row, _turned_w, _store_dx, True, True, (_row_vector, _turned_w_vector, _store_dx_vector)
)
_sum_inputs = tiled_product(
    _turned_x, _of_inputs, store_part, False, False,
    (_turned_x_vector, _of_inputs_vector, store_part_vector),
)  # fmt: skip
_sum_states = tiled_product(
    _turned_states, _of_states, store_part, False, False,
    (_turned_states_vector, _of_states_vector, store_part_vector),
)  # fmt: skip


@gpu
def _add_parts(dw, first, db, ws, rows, columns, parts):
    size = rows * columns
    total, i = sum_of_parts(ws, size, parts)
    if i < size:
        row, column = i // columns, i % columns
        if row < dw.shape[0]:
            dw[row, first + column] = total
        else:
            db[column] = total


def _add(dw, first, db, ws, rows, columns, parts):
    blocks = -(-rows * columns // ADDED)
    if blocks:
        launch(_add_parts, blocks, THREADS, dw, first, db, ws, rows, columns, parts)


def inputs_in(gates, ws, start, T):
    """Where the products of all inputs go: on the tape, if it has room, or into the workspace."""
    if len(gates) == T:
        return gates
    size = T * math.prod(gates.shape[1:])
    return ws[start : start + size].reshape(T, *gates.shape[1:])


def see_inputs(before, x, w, b, backwards):
    """``before = x w + b`` for all steps, in their order."""
    (N, T, C), F, line = x.shape, w.shape[1], before.shape[2]
    flat = (array.reshape(-1) for array in (before, x, w))
    launch_product(
        _see_inputs, N * T, F, C, 1, 1, *flat, int(backwards), C, F, N, T, line, b,
        vectors=vectors_of(("a", x, C), ("b", w, F), ("c", before, math.gcd(F, line))),
    )  # fmt: skip


def backward_inputs(dx, dgates, w, backwards):
    """``dx = dgates w^T`` for all steps; only as many columns of `dgates` count as w has."""
    if dx.size:
        (T, N, G), (C, F) = dgates.shape, w.shape
        flat = (array.reshape(-1) for array in (dx, dgates, w))
        launch_product(
            _backward_inputs, T * N, C, F, 1, 1, *flat, int(backwards), G, F, N, T, C,
            vectors=vectors_of(("a", dgates, math.gcd(F, G)), ("b", w, F), ("c", dx, C)),
        )  # fmt: skip


def sum_inputs(dw, db, x, dgates, backwards, ws):
    """Gradients of w and of a bias; only as many columns of `dgates` count as w has."""
    (C, F), (T, N, G) = dw.shape, dgates.shape
    rows, parts = C + (db.size > 0), parts_of_sum(C + 1, F, T * N, 1)
    flat = x.reshape(-1), dgates.reshape(-1)
    launch_product(
        _sum_inputs, rows, F, T * N, 1, parts, ws, *flat, F, rows, int(backwards), N, T, C, G,
        vectors=vectors_of(("a", x, C), ("b", dgates, math.gcd(F, G)), ("c", ws, F)),
    )  # fmt: skip
    _add(dw, 0, db, ws, rows, F, parts)


def sum_states(du, first, F, db, states, column, keep, dgates, where, ws):
    """Gradients of `F` columns of u from `first` on, and of a bias that goes with the state.

    The states are columns of an array whose rows are (step, sample), from `column` on. `where` is
    the column of the gates to begin with, and after how many columns to skip how many.
    """
    U, (T, N, G), line = len(du), dgates.shape, states.shape[1]
    rows, parts = U + (db.size > 0), parts_of_sum(U + 1, F, T * N, 1)
    flat = states.reshape(-1), dgates.reshape(-1)
    launch_product(
        _sum_states, rows, F, T * N, 1, parts, ws, *flat, F, rows, column, keep.reshape(-1), U,
        line, N, where, G,
        vectors=vectors_of(
            ("a", states, math.gcd(U, line, column)), ("b", dgates, math.gcd(F, G, *where)),
            ("c", ws, F),
        ),
    )  # fmt: skip
    _add(du, first, db, ws, rows, F, parts)


def space_of_sums(rows, F, steps):
    """Floats of workspace for ``sum_inputs`` or ``sum_states`` of so many rows of a weight."""
    return parts_of_sum(rows + 1, F, steps, 1) * (rows + 1) * F


@gpu
def _steps(y, x, keep, N, T, turn, backwards):
    P = x.shape[2]
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        n, t, p = i // (T * P), i // P % T, i % P
        s = T - 1 - t if backwards else t
        value = x[s, n, p] if turn == FROM_STEPS else x[n, t, p]
        if keep.size:
            value *= keep[n, p]
        if turn == FROM_SAMPLES:
            y[s, n, p] = value
        else:
            y[n, t, p] = value


def steps_forward_cuda(y, x, keep, turn, backwards):
    N, T, _ = y.shape
    if turn == FROM_SAMPLES:
        T, N = N, T
    over(_steps, x.size, y, x, keep, N, T, int(turn), int(backwards))
