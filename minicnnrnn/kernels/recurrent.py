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

import numpy as np

from minicnnrnn.kernels.activation import (
    activate,
    activation_backward_numpy,
    activation_forward_numpy,
)
from minicnnrnn.kernels.codes import FROM_OUTPUT, FROM_SAMPLES, FROM_STEPS, LEAKY_RELU
from minicnnrnn.kernels.gemm import ACCUMULATE, DEPTH_BLOCK, OVERWRITE, gemm_block
from minicnnrnn.kernels.jit import MAX_WORKERS, cpu, inner, once, split
from minicnnrnn.kernels.panel import (
    PANEL,
    address,
    floats,
    grain,
    move_rows,
    pack,
    pack_panel_at,
    panel_width,
    panels,
)

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
    for n in range(0, columns, PANEL):
        width = min(PANEL, columns - n)
        ldb = panel_width(width)
        gemm_block((
            c + 4 * n, ldc, rows, width, a, am, 1, zero, packed + 4 * (n * depth + skip * ldb),
            ldb, 0, K, 1, bias + 4 * n, flags,
        ))  # fmt: skip


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
        target, source = floats(to + 4 * i * ldt), floats(of + 4 * i * ldf)
        for j in range(columns):
            target[j] = source[j]


@inner
def copy_rows(to, to0, ldt, of, of0, ldf, rows, columns):
    recurrent_copy((address(to, to0), ldt, address(of, of0), ldf, rows, columns))


@inner
def activated_copy(target, target0, x, x0, count, code):
    to, of = tail(target, target0), tail(x, x0)
    for j in range(count):
        to[j] = of[j]
    activate(target, target0, count, code, alpha_of(code))
    return to


@inner
def settle(tape, at, ws, scratch, count, code):
    """Activate `count` elements of the tape and return where their values now stand.

    They replace what is on the tape where the derivative follows from them.
    """
    if code in FROM_OUTPUT:
        activate(tape, at, count, code, alpha_of(code))
        return tail(tape, at)
    return activated_copy(ws, scratch, tape, at, count, code)


@inner
def recall(tape, at, ws, scratch, count, code):
    """Where the values stand of what ``settle`` left on the tape."""
    if code in FROM_OUTPUT:
        return tail(tape, at)
    return activated_copy(ws, scratch, tape, at, count, code)


@inner
def keep_row(row, keep, n, U):
    """Multiply a row of `U` by the factors of sample n, if there are any."""
    if keep.size:
        factors = tail(keep, n * U)
        for j in range(U):
            row[j] *= factors[j]


@inner
def _gather_rows(rows, ldr, x, C, h, U, ldh, keep, first, depth, N, T, backwards):
    """Rows `first` to ``first + depth`` of x and h, which count samples inside steps."""
    for k in range(depth):
        step, n = (first + k) // N, (first + k) % N
        time = T - 1 - step if backwards else step
        to, of = floats(rows + 4 * k * ldr), floats(x + 4 * (n * T + time) * C)
        for i in range(C):
            to[i] = of[i]
        to, of = floats(rows + 4 * (k * ldr + C)), floats(h + 4 * (first + k) * ldh)
        for i in range(U):
            to[i] = of[i]
        if keep:
            factors = floats(keep + 4 * n * U)
            for i in range(U):
                to[i] *= factors[i]


@inner
def _add_rows(total, rows, ldr, count, columns):
    to, of = floats(total), floats(rows)
    for k in range(count):
        for i in range(columns):
            to[i] += of[k * ldr + i]


@inner
def _weight_range(
    start, stop, worker, dw, ldw, C, du, ldu, U, db, x, h, ldh, keep, dgates, ldg, columns, jump,
    skip, N, T, backwards, scratch, zero,
):  # fmt: skip
    ldr = row_stride(C + U)
    rows = scratch + 4 * worker * DEPTH_BLOCK * (ldr + PANEL)
    panel = rows + 4 * DEPTH_BLOCK * ldr
    for first in range(0, N * T, DEPTH_BLOCK):
        depth = min(DEPTH_BLOCK, N * T - first)
        _gather_rows(rows, ldr, x, C, h, U, ldh, keep, first, depth, N, T, backwards)
        flags = ACCUMULATE if first else OVERWRITE
        for p in range(start, stop):
            if p < panels(jump):
                j, behind, end = p * PANEL, 0, jump
            else:
                j, behind, end = jump + (p - panels(jump)) * PANEL, skip, columns
            width = min(PANEL, end - j)
            ldb = panel_width(width)
            source = dgates + 4 * (first * ldg + j + behind)
            if db and first == 0:
                total = floats(db + 4 * j)
                for i in range(width):
                    total[i] = 0
            if width == PANEL:
                move_rows((panel, source, 0, 4 * ldg, depth, db + 4 * j if db else 0))
            else:
                pack_panel_at(panel, source, ldg, 1, depth, width)
                if db:
                    _add_rows(db + 4 * j, panel, ldb, depth, width)
            if C:
                gemm_block((
                    dw + 4 * j, ldw, C, width, rows, 1, ldr, zero, panel, ldb, 0, depth, 1, 0,
                    flags,
                ))  # fmt: skip
            if U:
                gemm_block((
                    du + 4 * j, ldu, U, width, rows + 4 * C, 1, ldr, zero, panel, ldb, 0, depth,
                    1, 0, flags,
                ))  # fmt: skip


@once(21)
def recurrent_weight(
    dw, ldw, C, du, ldu, U, db, x, h, ldh, keep, dgates, ldg, columns, jump, skip, N, T,
    backwards, scratch, zero,
):  # fmt: skip
    """Gradients of the weights that some columns of the gates see; all pointers are addresses.

    .. math:: dw = \\sum_s x_{t(s)}^T dgates_s, \\quad du = \\sum_s h_s^T dgates_s, \\quad
              db = \\sum_s \\sum_n dgates_{sn}

    `C` zero leaves out `dw`, `U` zero `du`, `db` zero `db`; `keep` is zero or factors of h. From
    column `jump` on, the gates are read `skip` columns further on. Parallel over panels of
    columns. The sum over steps and samples is cut into blocks, whose rows of x and h are copied
    side by side and stay in the cache while all panels pass.
    """
    work = (C + U) * PANEL * N * T
    arguments = (
        dw, ldw, C, du, ldu, U, db, x, h, ldh, keep, dgates, ldg, columns, jump, skip, N, T,
        backwards, scratch, zero,
    )  # fmt: skip
    count = panels(jump) + panels(columns - jump)
    split(_weight_range, count, grain(work), arguments)


def weight_scratch(C, U):
    """Floats that ``recurrent_weight`` needs: rows and a panel for each worker."""
    return MAX_WORKERS * DEPTH_BLOCK * (row_stride(C + U) + PANEL)


@inner
def _steps_range(start, stop, worker, y, x, keep, N, T, P, turn, backwards):
    for item in range(start, stop):
        n, t = item // T, item % T
        s = T - 1 - t if backwards else t
        to = tail(y, (s * N + n if turn == FROM_SAMPLES else item) * P)
        of = tail(x, (s * N + n if turn == FROM_STEPS else item) * P)
        for i in range(P):
            to[i] = of[i]
        keep_row(to, keep, n, P)


@cpu
def steps_forward_cpu(y, x, keep, turn, backwards):
    """Parallel over the steps of all samples."""
    N, T, P = y.shape
    if turn == FROM_SAMPLES:
        T, N = N, T
    arguments = (y, x, keep, N, T, P, turn, backwards)
    split(_steps_range, N * T, grain(P), arguments)
