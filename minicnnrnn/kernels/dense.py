"""Dense: every output is a weighted sum of all inputs."""

import numpy as np

from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.gemm import (
    ADD_BIAS,
    OVERWRITE,
    RELU,
    launch_product,
    parts_of_sum,
    product,
    product_transposed,
    product_transposed_workspace,
    sum_rows,
    tiled_product,
)
from minicnnrnn.kernels.gpu import cuda, gpu, over
from minicnnrnn.kernels.jit import cpu
from minicnnrnn.kernels.panel import pack, panel_size

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
# input which is always one; parts of the batch are summed apart and then added in order.

ZERO, ONE = np.float32(0), np.float32(1)


@gpu
def _x(operands, group, n, c):
    return operands[1][n, c]


@gpu
def _w(operands, group, c, f):
    return operands[2][c, f]


@gpu
def _store_y(operands, group, part, n, f, total):
    y, x, w, b, relu = operands
    if b.size:
        total += b[f]
    y[n, f] = ZERO if relu and total < ZERO else total


@gpu
def _dy(operands, group, n, f):
    return operands[1][n, f]


@gpu
def _turned_w(operands, group, f, c):
    return operands[2][c, f]


@gpu
def _store_dx(operands, group, part, n, c, total):
    operands[0][n, c] = total


@gpu
def _turned_x(operands, group, c, n):
    x = operands[1]
    return x[n, c] if c < x.shape[1] else ONE


@gpu
def _dy_of_batch(operands, group, n, f):
    return operands[2][n, f]


@gpu
def store_part(operands, group, part, m, n, total):
    """Keep a part of a weight gradient: the workspace holds them one behind the other."""
    ws, F = operands[0], operands[3]
    rows = operands[4]
    ws[(part * rows + m) * F + n] = total


_forward = tiled_product(_x, _w, _store_y, True, False)
_backward_input = tiled_product(_dy, _turned_w, _store_dx, True, True)
_backward_weight = tiled_product(_turned_x, _dy_of_batch, store_part, False, False)


@gpu
def add_parts(dw, db, ws, parts):
    """Add the parts of a weight gradient in order; those of the bias come behind those of `dw`."""
    size = dw.size + db.size
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        total = ws[i]
        for part in range(1, parts):
            total += ws[part * size + i]
        if i < dw.size:
            dw[i] = total
        else:
            db[i - dw.size] = total


def dense_workspace_cuda(N, C, F):
    return parts_of_sum(C + 1, F, N, 1) * (C + 1) * F


def dense_prepare_cuda(w, ws):
    """The tiles read the weights as they are."""


def dense_forward_cuda(y, x, w, b, relu, ws):
    N, C = x.shape
    launch_product(_forward, N, w.shape[1], C, 1, 1, y, x, w, b, relu)


def dense_backward_input_cuda(dx, dy, w, ws):
    N, C = dx.shape
    launch_product(_backward_input, N, C, dy.shape[1], 1, 1, dx, dy, w)


def dense_backward_weight_cuda(dw, db, x, dy, ws):
    (N, C), F = x.shape, dy.shape[1]
    rows, parts = C + (db.size > 0), parts_of_sum(C + 1, F, N, 1)
    launch_product(_backward_weight, rows, F, N, 1, parts, ws, x, dy, F, rows)
    over(add_parts, rows * F, dw.reshape(-1), db, ws, parts)
