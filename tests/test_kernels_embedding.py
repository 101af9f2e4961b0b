"""Embedding: look-ups and gathered gradients, to the bit, on any number of threads."""

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, check_gradient, integer_valued, kernel, nans, normal
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.embedding import (
    embedding_backward_weight_numpy,
    embedding_forward_numpy,
    embedding_workspace_cpu,
)
from minicnnrnn.kernels.jit import JIT


def look_up(device, ids, w):
    y = nans(len(ids), w.shape[1], dtype=w.dtype)
    kernel("embedding", "embedding_forward", device)(y, ids, w)
    return y


def gather(device, dy, ids, V):
    dw = nans(V, dy.shape[1], dtype=dy.dtype)
    ws = nans(kernel("embedding", "embedding_workspace", device)(len(ids), V))
    kernel("embedding", "embedding_backward_weight", device)(dw, dy, ids, ws)
    return dw


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    ids = np.array([2, 0, 2], np.int32)
    w = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    assert look_up(device, ids, w).tolist() == [[5, 6], [1, 2], [5, 6]]
    dy = np.array([[1, 10], [2, 20], [4, 40]], np.float32)
    assert gather(device, dy, ids, 3).tolist() == [[2, 20], [0, 0], [5, 50]]
    mask = np.full(3, 7, np.uint8)
    kernel("embedding", "embedding_mask", device)(mask, ids)
    assert mask.tolist() == [1, 0, 1]


@pytest.mark.parametrize("device", FAST)
@given(st.integers(1, 40), upto(9), upto(20), seeds)
@example(1, 1, 1, 0)
@example(30, 3, 1, 0)  # one row for all
def test_equal_to_the_reference(device, P, F, V, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, V, P).astype(np.int32)
    w, dy = integer_valued(rng, V, F), integer_valued(rng, P, F)
    np.testing.assert_array_equal(look_up(device, ids, w), look_up("numpy", ids, w))
    np.testing.assert_array_equal(gather(device, dy, ids, V), gather("numpy", dy, ids, V))


@pytest.mark.parametrize("device", DEVICES)
def test_a_row_adds_in_the_order_of_its_positions(device):
    # In another order the small number would survive, or be lost in another place.
    dy = np.array([[1e8], [1], [-1e8], [1]], np.float32)
    ids = np.zeros(4, np.int32)
    assert gather(device, dy, ids, 2).tolist() == [[1], [0]]


@given(seeds)
def test_gradient(seed):
    rng = np.random.default_rng(seed)
    V, F = 4, 3
    ids = rng.integers(0, V, 6).astype(np.int32)

    def function(w):
        y = np.empty((6, F))
        embedding_forward_numpy(y, ids, w)
        return y

    def gradient(w, dy):
        dw = np.empty((V, F))
        embedding_backward_weight_numpy(dw, dy, ids, np.empty(0))
        return dw

    check_gradient(function, gradient, rng.standard_normal((V, F)), rng)


@pytest.mark.parametrize("device", DEVICES)
def test_nan_passes(device):
    ids = np.array([1, 0], np.int32)
    assert np.isnan(look_up(device, ids, np.array([[0], [np.nan]], np.float32))).tolist() == [
        [True],
        [False],
    ]
    dw = gather(device, np.array([[np.nan], [1]], np.float32), ids, 3)
    assert np.isnan(dw).ravel().tolist() == [False, True, False]


@pytest.mark.skipif(not JIT, reason="plain Python has one thread")
def test_the_same_bits_on_any_number_of_threads():
    rng = np.random.default_rng(0)
    P, V, F = 3000, 2000, 64  # enough for two threads in both passes
    ids = (V * rng.random(P) ** 4).astype(np.int32)  # few rows are looked up often
    w, dy = normal(rng, V, F), normal(rng, P, F)
    threads, results = numba.get_num_threads(), []
    try:
        for count in (1, threads):
            numba.set_num_threads(count)
            results.append((look_up("cpu", ids, w), gather("cpu", dy, ids, V)))
    finally:
        numba.set_num_threads(threads)
    for one, all_ in zip(*results, strict=True):
        np.testing.assert_array_equal(one, all_)
    np.testing.assert_array_equal(results[0][1], gather("numpy", dy, ids, V))


def test_the_workspace_is_no_larger_than_it_says():
    rng = np.random.default_rng(0)
    P, V, F = 10, 4, 2
    guarded = nans(embedding_workspace_cpu(P, V) + 1)
    guarded[-1] = 42
    ids, dw = rng.integers(0, V, P).astype(np.int32), nans(V, F)
    kernel("embedding", "embedding_backward_weight", "cpu")(
        dw, integer_valued(rng, P, F), ids, guarded
    )
    assert guarded[-1] == 42
    assert np.isfinite(dw).all()


def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ids, w, dy = rng.integers(0, 7, 20).astype(np.int32), normal(rng, 7, 5), normal(rng, 20, 5)
    table = torch.tensor(w, requires_grad=True)
    y = torch.nn.functional.embedding(torch.tensor(ids), table)
    y.backward(torch.tensor(dy))
    np.testing.assert_array_equal(look_up("cpu", ids, w), y.detach().numpy())
    np.testing.assert_allclose(gather("cpu", dy, ids, 7), table.grad.numpy(), atol=1e-5)
