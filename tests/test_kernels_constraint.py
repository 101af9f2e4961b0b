"""Constraints: reference, CPU, CUDA and the objects of that name agree."""

import numba
import numpy as np
import pytest
from checks import (
    DEVICES,
    FAST,
    assert_within,
    assume_affordable,
    integer_valued,
    kernel,
    nans,
    normal,
)
from hypothesis import example, given
from strategies import seeds, upto

from minicnnrnn import constraints
from minicnnrnn.kernels.jit import JIT


def constrained(device, w, low, high, rate):
    w = w.copy()
    norms = nans(w.shape[0], w.shape[2], dtype=w.dtype)
    kernel("constraint", "norm_constraint", device)(w, norms, np.array([low, high, rate]))
    return w


def nonneg(device, w):
    w = w.copy()
    kernel("constraint", "nonneg_constraint", device)(w)
    return w


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    w = np.array([[[3, 0.3], [4, 0.4]]], np.float32)
    near = {"rtol": 1e-6, "atol": 1e-6}
    np.testing.assert_allclose(constrained(device, w, 0, 1, 1), [[[0.6, 0.3], [0.8, 0.4]]], **near)
    np.testing.assert_allclose(
        constrained(device, w, 1, 3, 0.5), [[[2.4, 0.45], [3.2, 0.6]]], **near
    )
    np.testing.assert_array_equal(nonneg(device, np.float32([-1, 0, 2, np.nan])), [0, 0, 2, np.nan])


@pytest.mark.parametrize("device", FAST)
@given(upto(4), upto(30), upto(150), seeds)
@example(1, 1, 1, 0)
@example(2, 3, 64, 0)
@example(1, 5, 129, 0)
def test_near_the_float64_reference(device, A, R, B, seed):
    assume_affordable(device, A * R * B)
    rng = np.random.default_rng(seed)
    w = normal(rng, A, R, B)
    low, rate = rng.random(2)
    reference = constrained("numpy", w.astype(np.float64), low, low + 1, rate)
    assert_within(constrained(device, w, low, low + 1, rate), reference, R + 4)
    whole = integer_valued(rng, A * R * B)
    np.testing.assert_array_equal(nonneg(device, whole), nonneg("numpy", whole))


@pytest.mark.parametrize("device", DEVICES)
def test_zero_stays_zero_and_nan_stays(device):
    w = np.zeros((2, 3, 5), np.float32)
    w[0, 1, 4] = np.nan
    result = constrained(device, w, 1, 1, 1)
    assert np.isnan(result[0, :, 4]).all()
    assert np.count_nonzero(result) == 3  # the NaNs


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_bits_on_one_thread_and_on_all():
    w, results = normal(np.random.default_rng(0), 3, 400, 1000), []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append((constrained("cpu", w, 0.5, 1, 1), nonneg("cpu", w.reshape(-1))))
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize(
    "constraint",
    [
        constraints.MaxNorm(1.5, 1),
        constraints.UnitNorm(axis=[1]),
        constraints.MinMaxNorm(0.5, 1, 0.3, 1),
    ],
)
def test_the_objects_say_the_same(constraint):
    w = normal(np.random.default_rng(0), 2, 3, 4)
    np.testing.assert_allclose(constrained("cpu", w, *constraint.bounds), constraint(w), rtol=1e-5)
