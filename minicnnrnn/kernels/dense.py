"""Dense: every output is a weighted sum of all inputs."""

import numpy as np

from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.gemm import (
    ADD_BIAS,
    OVERWRITE,
    RELU,
    product,
    product_transposed,
    product_transposed_workspace,
    sum_rows,
)
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
