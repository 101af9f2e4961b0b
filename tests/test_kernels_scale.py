"""Shared factors: reference, CPU and CUDA agree."""

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, check_gradient, kernel, nans, normal
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.jit import JIT


def scale(device, x, w):
    y = nans(*x.shape, dtype=x.dtype)
    kernel("scale", "scale_forward", device)(y, x, w)
    return y


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32).reshape(1, 1, 1, 2, 3)
    rows, columns = np.array([2, 3], np.float32), np.array([1, 10, 100], np.float32)
    y = scale(device, x, rows.reshape(1, 1, 1, 2, 1))
    assert y.ravel().tolist() == [2, 4, 6, 12, 15, 18]
    y = scale(device, x, columns.reshape(1, 1, 1, 1, 3))
    assert y.ravel().tolist() == [1, 20, 300, 4, 50, 600]


@pytest.mark.parametrize("device", FAST)
@given(st.tuples(*[upto(5)] * 5), st.tuples(*[st.booleans()] * 5), seeds)
@example((1, 1, 1, 1, 1), (True,) * 5, 0)
@example((3, 2, 4, 2, 40), (False, True, False, True, False), 0)
def test_equals_reference(device, shape, shared, seed):
    rng = np.random.default_rng(seed)
    x = normal(rng, *shape)
    w = normal(rng, *(1 if same else n for n, same in zip(shape, shared)))
    np.testing.assert_array_equal(scale(device, x, w), scale("numpy", x, w))
    wide = w.astype(np.float64)
    check_gradient(
        lambda x: scale("numpy", x, wide), lambda x, dy: scale("numpy", dy, wide), x, rng
    )


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_bits_on_one_thread_and_on_all():
    rng, results = np.random.default_rng(0), []
    x, w = normal(rng, 40, 3, 8, 9, 21), normal(rng, 40, 1, 1, 1, 21)
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append(scale("cpu", x, w))
    np.testing.assert_array_equal(*results)
