"""Dense: every output is a weighted sum of all inputs."""

import numpy as np

from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.gemm import (
    product,
    product_transposed,
    product_transposed_workspace,
    sum_rows,
)
from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch
from minicnnrnn.kernels.jit import cpu
from minicnnrnn.kernels.microkernel import ADD_BIAS, OVERWRITE, RELU
from minicnnrnn.kernels.panel import pack, panel_size
from minicnnrnn.kernels.product import (
    launch_product,
    parts_of_sum,
    tiled_product,
    vectors_of,
)
from minicnnrnn.kernels.vector import WIDTH, load_vector, store_vector

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def dense_prepare_numpy(w, ws):
    """Pack the weights for ``forward``; nothing to do in NumPy.

    Called once after the weights have changed; every ``forward`` until the next change relies
    on what it left in `ws`.
    """


def dense_forward_numpy(y, x, w, b, relu, ws):
    """Apply a dense layer.

    .. math:: y_{nf} = b_f + \\sum_c x_{nc} w_{cf}

    Parameters
    ----------
    y : (N, F), overwritten
    x : (N, C)
    w : (C, F)
    b : (F,) or (0,) for none
    relu : int
        1 to apply ``max(y, 0)`` on the way out, 0 to leave `y` as it is.
    ws : workspace that ``dense_prepare`` has filled

    Notes
    -----
    Cost: 2 N C F operations.
    """
    np.matmul(x, w, out=y)
    if b.size:
        y += b
    if relu:
        np.maximum(y, 0, out=y)


def dense_backward_input_numpy(dx, dy, w, ws):
    """Gradient with respect to the input.

    .. math:: dx_{nc} = \\sum_f dy_{nf} w_{cf}

    `dy` is the gradient before the activation. Shapes as in ``dense_forward``; 2 N C F operations.
    """
    np.matmul(dy, w.T, out=dx)


def dense_backward_weight_numpy(dw, db, x, dy, ws):
    """Gradients with respect to the weights and the bias.

    .. math:: dw_{cf} = \\sum_n x_{nc} dy_{nf}, \\qquad db_f = \\sum_n dy_{nf}

    Shapes as in ``dense_forward``; 2 N C F operations.
    """
    np.matmul(x.T, dy, out=dw)
    if db.size:
        np.sum(dy, axis=0, out=db)


def dense_workspace_numpy(N, C, F):
    """Floats of workspace that the passes of this layer need."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# All three passes are products of the building block. The workspace begins with the packed
# weights that `prepare` leaves for `forward`; what follows is scratch of one pass.


def dense_workspace_cpu(N, C, F):
    gradients = max(panel_size(F, C), product_transposed_workspace(), PARTS * F)
    return panel_size(C, F) + gradients


@cpu
def dense_prepare_cpu(w, ws):
    C, F = w.shape
    pack(ws, 0, w, 0, F, 1, C, F)


@cpu
def dense_forward_cpu(y, x, w, b, relu, ws):
    N, C = x.shape
    F = w.shape[1]
    flags = (ADD_BIAS if b.size else OVERWRITE) + (RELU if relu else OVERWRITE)
    product(y, 0, F, x, 0, C, 1, ws, 0, N, F, C, b, flags)


@cpu
def dense_backward_input_cpu(dx, dy, w, ws):
    N, C = dx.shape
    F = w.shape[1]
    scratch = panel_size(C, F)
    pack(ws, scratch, w, 0, 1, F, F, C)
    product(dx, 0, C, dy, 0, F, 1, ws, scratch, N, C, F, dy, OVERWRITE)


@cpu
def dense_backward_weight_cpu(dw, db, x, dy, ws):
    N, C = x.shape
    F = dy.shape[1]
    scratch = panel_size(C, F)
    product_transposed(dw, 0, x, 0, dy, 0, C, F, N, ws, scratch)
    if db.size:
        sum_rows(db, dy, N, F, ws, scratch)


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# Three products of tiles. The bias gradient is one more row of the weight gradient, that of an
# input which is always one. Where an output has few tiles, parts of its sums are taken apart and
# then added in order. Operands are the target; the two factors; columns and rows of the product;
# the length of the first factor's lines; a bias; and whether there is a relu.

ZERO, ONE = np.float32(0), np.float32(1)


@gpu
def _line(operands, group, m, k):
    return operands[1][m * operands[5] + k]


@gpu
def _line_vector(operands, group, m, k, into, at):
    load_vector(operands[1], m * operands[5] + k, into, at)


@gpu
def _w(operands, group, c, f):
    return operands[2][c * operands[3] + f]


@gpu
def _w_vector(operands, group, f, c, into, at):
    load_vector(operands[2], c * operands[3] + f, into, at)


@gpu
def _turned_w(operands, group, f, c):
    return operands[2][c * operands[5] + f]


@gpu
def _turned_w_vector(operands, group, c, f, into, at):
    load_vector(operands[2], c * operands[5] + f, into, at)


@gpu
def _turned_x(operands, group, c, n):
    C = operands[5]
    return operands[1][n * C + c] if c < C else ONE


@gpu
def _turned_x_vector(operands, group, c, n, into, at):
    C = operands[5]
    if c < C:
        load_vector(operands[1], n * C + c, into, at)
    else:
        for i in range(WIDTH):
            into[at + i] = ONE


@gpu
def _finished(total, b, relu, f):
    if b.size:
        total += b[f]
    return ZERO if relu and total < ZERO else total


@gpu
def _store(operands, group, part, m, n, total):
    operands[0][m * operands[3] + n] = _finished(total, operands[6], operands[7], n)


@gpu
def _store_vector(operands, group, part, m, n, totals, at):
    for i in range(WIDTH):
        totals[at + i] = _finished(totals[at + i], operands[6], operands[7], n + i)
    store_vector(operands[0], m * operands[3] + n, totals, at)


@gpu
def store_part(operands, group, part, m, n, total):
    """Keep a part of a sum: the workspace holds them one behind the other."""
    ws, columns, rows = operands[0], operands[3], operands[4]
    ws[(part * rows + m) * columns + n] = total


@gpu
def store_part_vector(operands, group, part, m, n, totals, at):
    ws, columns, rows = operands[0], operands[3], operands[4]
    store_vector(ws, (part * rows + m) * columns + n, totals, at)


_whole, _part = (_store, _store_vector), (store_part, store_part_vector)


def _product(first, second, store, along_k):
    vectors = first[1], second[1], store[1]
    return tiled_product(first[0], second[0], store[0], *along_k, vectors)


_lines, _weights = (_line, _line_vector), (_w, _w_vector)
_turned_weights = _turned_w, _turned_w_vector
_forward = _product(_lines, _weights, _whole, (True, False))
_forward_parts = _product(_lines, _weights, _part, (True, False))
_backward_input = _product(_lines, _turned_weights, _whole, (True, True))
_backward_input_parts = _product(_lines, _turned_weights, _part, (True, True))
_backward_weight = _product((_turned_x, _turned_x_vector), _weights, _part, (False, False))

# Threads that add parts: neighbours in a row read neighbours in memory, and each of the rows
# takes a share of the parts.
ADDED = THREADS // 2 if THREADS < 32 else 32
ADDERS = THREADS // ADDED


@gpu
def sum_of_parts(ws, size, parts):
    """The sum of one element's parts, which the first row of threads gets, and its index."""
    sums = cuda.shared.array(THREADS, np.float32)
    t = cuda.threadIdx.x
    i, total = cuda.blockIdx.x * ADDED + t % ADDED, ZERO
    if i < size:
        for part in range(t // ADDED, parts, ADDERS):
            total += ws[part * size + i]
    sums[t] = total
    cuda.syncthreads()
    if t < ADDED:
        for row in range(1, ADDERS):
            total += sums[row * ADDED + t]
    return total, i if t < ADDED else size


@gpu
def _add_parts(dw, db, ws, parts):
    size = dw.size + db.size
    total, i = sum_of_parts(ws, size, parts)
    if i < dw.size:
        dw[i] = total
    elif i < size:
        db[i - dw.size] = total


@gpu
def _finish_parts(y, b, relu, F, ws, parts):
    total, i = sum_of_parts(ws, y.size, parts)
    if i < y.size:
        y[i] = _finished(total, b, relu, i % F)


def add_parts(dw, db, ws, parts):
    """Add the parts of a weight gradient; those of the bias come behind those of `dw`."""
    size = dw.size + db.size
    launch(_add_parts, -(-size // ADDED), THREADS, dw.reshape(-1), db, ws, parts)


def dense_workspace_cuda(N, C, F):
    return max(
        parts_of_sum(N, F, C, 1) * N * F,
        parts_of_sum(N, C, F, 1) * N * C,
        parts_of_sum(C + 1, F, N, 1) * (C + 1) * F,
    )


def dense_prepare_cuda(w, ws):
    """The tiles read the weights as they are."""


def _rows_of_product(whole, in_parts, target, factors, line, b, relu, vectors, ws):
    """A product of N rows, at once or in parts."""
    (M, N), flat = target.shape, target.reshape(-1)
    first, second = (factor.reshape(-1) for factor in factors)
    parts = parts_of_sum(M, N, line, 1)
    product, place = (whole, flat) if parts == 1 else (in_parts, ws)
    vectors += vectors_of(("c", place, N))
    operands = place, first, second, N, M, line, b, int(relu)
    launch_product(product, M, N, line, 1, parts, *operands, vectors=vectors)
    if parts > 1:
        blocks = -(-flat.size // ADDED)
        launch(_finish_parts, blocks, THREADS, flat, b, int(relu), N, ws, parts)


def dense_forward_cuda(y, x, w, b, relu, ws):
    C, F = w.shape
    vectors = vectors_of(("a", x, C), ("b", w, F))
    _rows_of_product(_forward, _forward_parts, y, (x, w), C, b, relu, vectors, ws)


def dense_backward_input_cuda(dx, dy, w, ws):
    F = w.shape[1]
    vectors = vectors_of(("a", dy, F), ("b", w, F))
    products = _backward_input, _backward_input_parts
    _rows_of_product(*products, dx, (dy, w), F, ws[:0], 0, vectors, ws)


def dense_backward_weight_cuda(dw, db, x, dy, ws):
    (N, C), F = x.shape, dy.shape[1]
    rows, parts = C + (db.size > 0), parts_of_sum(C + 1, F, N, 1)
    launch_product(
        _backward_weight, rows, F, N, 1, parts, ws, x.reshape(-1), dy.reshape(-1), F, rows, C,
        vectors=vectors_of(("a", x, C), ("b", dy, F), ("c", ws, F)),
    )  # fmt: skip
    add_parts(dw, db, ws, parts)
