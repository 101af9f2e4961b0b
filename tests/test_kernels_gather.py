"""Gathering rows: reference, CPU and CUDA agree."""

import numpy as np
import pytest
from checks import DEVICES, FAST, kernel
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_worked_example(device, dtype):
    x, y = np.arange(6).reshape(3, 2).astype(dtype), np.full((2, 2), -1, dtype)
    kernel("gather", "gather_rows", device)(y, x, np.array([1, 2, 0], np.int32), 1)
    assert y.tolist() == [[4, 5], [0, 1]]


@pytest.mark.parametrize("device", FAST)
@given(upto(50), upto(50), st.integers(0, 49), seeds)
@example(1, 1, 0, 0)
def test_equals_the_reference(device, samples, columns, start, seed):
    rng = np.random.default_rng(seed)
    start = min(start, samples - 1)
    x = rng.standard_normal((samples, columns)).astype(np.float32)
    order = rng.permutation(samples).astype(np.int32)
    ours, expected = np.full((2, samples - start, columns), np.nan, np.float32)
    for device_name, y in ((device, ours), ("numpy", expected)):
        kernel("gather", "gather_rows", device_name)(y, x, order, start)
    np.testing.assert_array_equal(ours, expected)
