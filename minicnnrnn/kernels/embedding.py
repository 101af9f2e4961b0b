"""Embedding: every id is the number of a row in a table of vectors."""

import numpy as np

from minicnnrnn.kernels.gpu import THREADS, cuda, gpu, launch, over
from minicnnrnn.kernels.jit import cpu, inner, split

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def embedding_forward_numpy(y, ids, w):
    """Look up a row of the table for every id.

    .. math:: y_{pf} = w_{i_p f}

    Parameters
    ----------
    y : (P, F), overwritten
    ids : int32 (P,)
        From 0 to V - 1.
    w : (V, F)

    Notes
    -----
    Cost: P F elements are read and written. Bengio et al. 2003, "A Neural Probabilistic Language
    Model", section 2.
    """
    np.take(w, ids, axis=0, out=y)


def embedding_backward_weight_numpy(dw, dy, ids, ws):
    """Gradient with respect to the table: every row gathers from where it was looked up.

    .. math:: dw_{vf} = \\sum_{p : i_p = v} dy_{pf}

    Parameters
    ----------
    dw : (V, F), overwritten
    dy : (P, F)
    ids : int32 (P,)
    ws : workspace of ``embedding_workspace``

    Notes
    -----
    A row adds in the order of the positions. Cost: P F additions and V F zeros.
    """
    dw[...] = 0
    np.add.at(dw, ids, dy)


def embedding_mask_numpy(mask, ids):
    """Mask out the id 0, which stands for padding: ``mask = ids != 0``.

    Parameters
    ----------
    mask : uint8 (P,), overwritten
    ids : int32 (P,)
    """
    np.not_equal(ids, 0, out=mask, casting="unsafe")


def embedding_workspace_numpy(P, V):
    """Floats of workspace that the weights' gradient needs."""
    return 0


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Forward cuts the positions among threads. For the gradient a counting sort, which is serial and
# short, lists the positions of every row; then the rows are cut among threads, each of them zeroed
# and added up by one. The workspace holds integers: the end of every row's list, then the lists.

GRAIN = 1 << 15  # elements that make it worth waking a second thread
ZERO = np.float32(0)


def embedding_workspace_cpu(P, V):
    return V + P


@inner
def _look_up(start, stop, worker, y, ids, w):
    F = w.shape[1]
    for p in range(start, stop):
        to, row = y[p], w[ids[p]]
        for f in range(F):
            to[f] = row[f]


@cpu
def embedding_forward_cpu(y, ids, w):
    P, F = y.shape
    split(_look_up, P, max(1, GRAIN // F), (y, ids, w))


@inner
def _add_up(start, stop, worker, dw, dy, order):
    V, F = dw.shape
    for v in range(start, stop):
        total = dw[v]
        for f in range(F):
            total[f] = ZERO
        for i in range(order[v - 1] if v else 0, order[v]):
            term = dy[order[V + i]]
            for f in range(F):
                total[f] += term[f]


@cpu
def embedding_backward_weight_cpu(dw, dy, ids, ws):
    V, F = dw.shape
    P = ids.size
    order = ws.view(np.int32)
    for v in range(V):
        order[v] = 0
    for p in range(P):
        order[ids[p]] += 1
    total = 0
    for v in range(V):  # where each row's list begins
        count = order[v]
        order[v] = total
        total += count
    for p in range(P):  # in the end, where it ends
        end = order[ids[p]]
        order[V + end] = p
        order[ids[p]] = end + 1
    split(_add_up, V, max(1, GRAIN // F), (dw, dy, order))


@cpu
def embedding_mask_cpu(mask, ids):
    for p in range(ids.size):
        mask[p] = ids[p] != 0


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every element that is looked up. For the gradient a block for every row of the
# table: its threads look through the ids together, list the positions of theirs in order, and add
# a column each. Ids are small beside a table, and stay in the cache while all blocks read them.


@gpu
def _look_up_elements(y, ids, w):
    F = w.shape[1]
    for i in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        p, f = i // F, i % F
        y[p, f] = w[ids[p], f]


def embedding_forward_cuda(y, ids, w):
    over(_look_up_elements, y.size, y, ids, w)


@gpu
def _add_up_row(dw, dy, ids):
    found = cuda.shared.array(THREADS, np.int32)
    positions = cuda.shared.array(THREADS, np.int32)
    v, t, P, F = cuda.blockIdx.x, cuda.threadIdx.x, ids.size, dw.shape[1]
    for f in range(t, F, THREADS):
        dw[v, f] = ZERO
    for start in range(0, P, THREADS):
        mine = start + t < P and ids[start + t] == v
        if cuda.syncthreads_or(np.int32(mine)):
            found[t] = mine
            cuda.syncthreads()
            rank, count = 0, 0
            for other in range(THREADS):
                rank += found[other] if other < t else 0
                count += found[other]
            if mine:
                positions[rank] = start + t
            cuda.syncthreads()
            for f in range(t, F, THREADS):
                total = dw[v, f]
                for i in range(count):
                    total += dy[positions[i], f]
                dw[v, f] = total


def embedding_backward_weight_cuda(dw, dy, ids, ws):
    launch(_add_up_row, len(dw), THREADS, dw, dy, ids)


def embedding_workspace_cuda(P, V):
    return 0


@gpu
def _mask_elements(mask, ids):
    for p in range(cuda.grid(1), ids.size, cuda.gridsize(1)):
        mask[p] = ids[p] != 0


def embedding_mask_cuda(mask, ids):
    over(_mask_elements, ids.size, mask, ids)
