"""Softmax and its logarithm: reference, CPU and mathematics agree."""

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, check_gradient, kernel, nans, normal
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.jit import JIT

KINDS = ["softmax", "log_softmax"]


def both(device, kind, x, dy):
    y, dx = nans(*x.shape, dtype=x.dtype), nans(*x.shape, dtype=x.dtype)
    kernel("softmax", f"{kind}_forward", device)(y, x)
    kernel("softmax", f"{kind}_backward", device)(dx, dy, y)
    return y, dx


@pytest.mark.parametrize("device", DEVICES)
def test_worked_examples(device):
    x = np.log(np.array([[1, 2, 5], [1e-30, 1e-30, 1e-30]], np.float32))
    dy = np.array([[8, 0, 0], [0, 0, 3]], np.float32)
    y, dx = both(device, "softmax", x, dy)
    np.testing.assert_allclose(y, [[1 / 8, 2 / 8, 5 / 8], [1 / 3] * 3], rtol=1e-6)
    expected = [[7 / 8, -2 / 8, -5 / 8], [-1 / 3, -1 / 3, 2 / 3]]
    np.testing.assert_allclose(dx, expected, rtol=1e-6)
    logs, dx = both(device, "log_softmax", x, dy)
    np.testing.assert_allclose(logs, np.log(y), rtol=1e-6)
    np.testing.assert_allclose(dx, [[7, -2, -5], [-1, -1, 2]], rtol=1e-6)


@pytest.mark.parametrize("device", FAST)
@given(st.sampled_from(KINDS), upto(40), upto(40), seeds)
@example("softmax", 1, 1, 0)
@example("log_softmax", 1, 1, 0)
def test_near_the_float64_reference(device, kind, rows, columns, seed):
    rng = np.random.default_rng(seed)
    x, dy = 10 * normal(rng, rows, columns), normal(rng, rows, columns)
    y, dx = both(device, kind, x, dy)
    expected_y, expected_dx = both("numpy", kind, x.astype(np.float64), dy.astype(np.float64))
    np.testing.assert_allclose(y, expected_y, rtol=1e-5, atol=1e-6 if "log" in kind else 1e-30)
    np.testing.assert_allclose(dx, expected_dx, atol=1e-6 * columns)


@given(st.sampled_from(KINDS), st.integers(1, 20), st.integers(1, 20), seeds)
def test_gradients_of_the_references(kind, rows, columns, seed):
    rng = np.random.default_rng(seed)
    x = normal(rng, rows, columns, dtype=np.float64)
    check_gradient(
        lambda x: both("numpy", kind, x, x)[0], lambda x, dy: both("numpy", kind, x, dy)[1], x, rng
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_memory_may_be_shared(device, kind):
    rng = np.random.default_rng(0)
    x, dy = normal(rng, 3, 10), normal(rng, 3, 10)
    y, dx = both(device, kind, x, dy)
    kernel("softmax", f"{kind}_forward", device)(x, x)
    kernel("softmax", f"{kind}_backward", device)(dy, dy, y)
    np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(dy, dx)


@pytest.mark.parametrize("device", FAST)
@pytest.mark.parametrize("kind", KINDS)
def test_nan_spoils_its_row_only_and_large_scores_nothing(device, kind):
    x = np.zeros((3, 20), np.float32)
    x[0, 7], x[2, 0] = np.nan, 1e30
    with np.errstate(invalid="ignore"):
        y, _ = both(device, kind, x, x)
    if kind == "log_softmax":
        assert y[2, 1] == np.float32(-1e30)
        y = np.exp(y)
    assert np.isnan(y[0]).all()
    np.testing.assert_allclose(y[1], 1 / 20, rtol=1e-6)
    np.testing.assert_array_equal(y[2], [1] + 19 * [0])


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_on_any_number_of_threads(kind):
    rng, results = np.random.default_rng(0), []
    x, dy = normal(rng, 5001, 13), normal(rng, 5001, 13)
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append(both("cpu", kind, x, dy))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("kind", KINDS)
def test_agreement_with_pytorch(kind):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, dy = normal(rng, 50, 10), normal(rng, 50, 10)
    tensor = torch.tensor(x, requires_grad=True)
    expected = getattr(torch, kind)(tensor, 1)
    expected.backward(torch.tensor(dy))
    y, dx = both("cpu", kind, x, dy)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(dx, tensor.grad.numpy(), atol=2e-6)
