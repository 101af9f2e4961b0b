"""Transposed convolution: the input gradient of a convolution, used as an operation of its own.

Its forward pass gathers what `conv_backward_input` gathers; its two gradients are the forward
pass and the weight gradient of the same convolution, with input and output exchanged.
"""

import numpy as np

from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.conv import (
    conv_backward_input_numpy,
    conv_backward_weight_cpu,
    conv_backward_weight_cuda,
    conv_backward_weight_numpy,
    conv_forward_cpu,
    conv_forward_cuda,
    conv_forward_numpy,
    conv_prepare_cpu,
    conv_workspace_cpu,
    conv_workspace_cuda,
    gather_input,
)
from minicnnrnn.kernels.dense import dense_backward_weight_cuda, dense_workspace_cuda
from minicnnrnn.kernels.gemm import sum_rows
from minicnnrnn.kernels.jit import cpu
from minicnnrnn.kernels.microkernel import ADD_BIAS, OVERWRITE, RELU
from minicnnrnn.kernels.window import gather_product

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def conv_transpose_forward_numpy(
    y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, relu, ws
):  # fmt: skip
    """Spread every input element over the outputs by a bank of filters.

    .. math:: y_{n,p,f} = b_f + \\sum_{c} \\sum_{i, t \\,:\\, i S + t L - P = p}
              x_{n,i,c} \\; w_{t,f,c}

    with positions p, i and taps t in all dimensions at once. Outputs that no input reaches are
    the bias.

    Parameters
    ----------
    y : (N, OD, OH, OW, F), overwritten
    x : (N, D, H, W, C)
    w : (KD, KH, KW, F, C)
    b : (F,) or (0,) for none
    SD, SH, SW : strides: the distance of neighbouring inputs, in elements of the output
    LD, LH, LW : dilation: the distance of neighbouring taps, in elements of the output
    PD, PH, PW : outputs cut off before the first; those behind the last follow from `y`
    relu : 1 to apply ``max(y, 0)`` on the way out
    ws : workspace

    Notes
    -----
    Cost: 2 N D H W KD KH KW C F operations. Dumoulin and Visin 2016, "A guide to convolution
    arithmetic for deep learning", arXiv:1603.07285, chapter 4.
    """
    conv_backward_input_numpy(
        y, x, x[:0], w, SD, SH, SW, LD, LH, LW, PD, PH, PW, 1, ws
    )  # fmt: skip
    if b.size:
        y += b
    if relu:
        np.maximum(y, 0, out=y)


def conv_transpose_backward_input_numpy(
    dx, dy, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, ws
):  # fmt: skip
    """Gradient with respect to the input: a convolution of `dy`.

    .. math:: dx_{n,i,c} = \\sum_{f,t} dy_{n,\\, i S + t L - P,\\, f} \\; w_{t,f,c}

    `dy` is the gradient before the relu. Shapes and cost as in ``conv_transpose_forward``.
    """
    conv_forward_numpy(
        dx, dy, w, w.reshape(-1)[:0], SD, SH, SW, LD, LH, LW, PD, PH, PW, 1, 0, ws
    )  # fmt: skip


def conv_transpose_backward_weight_numpy(
    dw, db, x, dy, SD, SH, SW, LD, LH, LW, PD, PH, PW, ws
):  # fmt: skip
    """Gradients with respect to the filters and the bias.

    .. math:: dw_{t,f,c} = \\sum_{n,i} dy_{n,\\, i S + t L - P,\\, f} \\; x_{n,i,c}, \\qquad
              db_f = \\sum_{n,p} dy_{n,p,f}

    Shapes and cost as in ``conv_transpose_forward``; `db` of size zero is not computed.
    """
    conv_backward_weight_numpy(
        dw, db[:0], dy, x, x[:0], SD, SH, SW, LD, LH, LW, PD, PH, PW, 1, ws
    )  # fmt: skip
    if db.size:
        np.sum(dy, axis=(0, 1, 2, 3), out=db)


def conv_transpose_workspace_numpy(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW
):  # fmt: skip
    """Floats of workspace that the passes of one transposed convolution need."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Parallel as the passes of the convolution are. The two gradients only exchange roles before
# they call compiled launchers, and so are not compiled themselves.


def conv_transpose_workspace_cpu(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW
):  # fmt: skip
    size = conv_workspace_cpu(
        N, OD, OH, OW, F, D, H, W, C, KD, KH, KW, SD, SH, SW, LD, LH, LW, 1
    )  # fmt: skip
    return max(size, PARTS * F)


def conv_transpose_forward_cpu(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, relu, ws):
    flags = (ADD_BIAS if b.size else OVERWRITE) + (RELU if relu else OVERWRITE)
    gather_input(y, x, ws[:0], w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, 1, flags, ws)


def conv_transpose_backward_input_cpu(
    dx, dy, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, ws
):  # fmt: skip
    conv_prepare_cpu(w, 1, ws)
    conv_forward_cpu(dx, dy, w, ws[:0], SD, SH, SW, LD, LH, LW, PD, PH, PW, 1, 0, ws)


@cpu
def _bias_gradient(db, dy, ws):
    F = dy.shape[4]
    sum_rows(db, dy, dy.size // F, F, ws, 0)


def conv_transpose_backward_weight_cpu(
    dw, db, x, dy, SD, SH, SW, LD, LH, LW, PD, PH, PW, ws
):  # fmt: skip
    if db.size:
        _bias_gradient(db, dy, ws)
    conv_backward_weight_cpu(
        dw, db[:0], dy, x, x[:0], SD, SH, SW, LD, LH, LW, PD, PH, PW, 1, ws
    )  # fmt: skip


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# Nothing but the products of the convolution. The bias gradient, a sum over what is the image
# there, is the weight gradient of a dense layer without inputs.


def conv_transpose_workspace_cuda(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW
):  # fmt: skip
    size = conv_workspace_cuda(
        N, OD, OH, OW, F, D, H, W, C, KD, KH, KW, SD, SH, SW, LD, LH, LW, 1
    )  # fmt: skip
    return max(size, dense_workspace_cuda(N * OD * OH * OW, 0, F))


def conv_transpose_forward_cuda(y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, relu, ws):
    gather_product(y, x, ws[:0], w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, 1, relu)


def conv_transpose_backward_input_cuda(
    dx, dy, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, ws
):  # fmt: skip
    conv_forward_cuda(dx, dy, w, ws[:0], SD, SH, SW, LD, LH, LW, PD, PH, PW, 1, 0, ws)


def conv_transpose_backward_weight_cuda(
    dw, db, x, dy, SD, SH, SW, LD, LH, LW, PD, PH, PW, ws
):  # fmt: skip
    none = ws[:0]
    if db.size:
        rows = dy.reshape(-1, dy.shape[4])
        inputs, weights = none.reshape(len(rows), 0), none.reshape(0, db.size)
        dense_backward_weight_cuda(weights, db, inputs, rows, ws)
    gate = none.reshape(0, 0, 0, 0, 0)
    conv_backward_weight_cuda(
        dw, none, dy, x, gate, SD, SH, SW, LD, LH, LW, PD, PH, PW, 1, ws
    )  # fmt: skip
