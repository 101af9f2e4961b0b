"""Gathering rows: reference, CPU and CUDA agree."""

import numpy as np
import pytest
from checks import DEVICES, FAST, kernel
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.gather import copy_finite


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_worked_example(device, dtype):
    x, y = np.arange(6).reshape(3, 2).astype(dtype), np.full((2, 2), -1, dtype)
    gather, order = kernel("gather", "gather_rows", device), np.array([1, 2, 0], np.int32)
    position = np.array([1, -1])
    gather(y, position, x, order, 0)
    assert y.tolist() == [[4, 5], [0, 1]]
    assert position.tolist() == [1, 1]
    gather(y, position, 2 * x, order, 1)
    assert y.tolist() == [[8, 10], [0, 2]]
    assert position.tolist() == [3, 1]


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
        for part, position in enumerate(([start, -1, -1], [-1, start, -1], [-1, -1, start])):
            position = np.array(position)
            kernel("gather", "gather_rows", device_name)(y, position, x, order, part)
            assert position[part] == start
            assert position[(part + 1) % 3] == (samples if part == 2 else start)
    np.testing.assert_array_equal(ours, expected)


@given(upto(70), seeds)
@example(1, 0)
@example(600, 1)  # 360,000 numbers: several threads
def test_a_batch_is_copied_and_what_is_not_finite_is_found(size, seed):
    rng = np.random.default_rng(seed)
    rows = (10 ** rng.uniform(-45, 38, (size, size))).astype(np.float32)
    rows *= rng.choice([-1, 1], rows.shape).astype(np.float32)
    target = np.full(rows.shape, np.nan, np.float32)
    assert copy_finite(target, rows)
    np.testing.assert_array_equal(target, rows)
    for wrong in (np.nan, np.inf, -np.inf):
        spoilt = rows.copy()
        spoilt.ravel()[rng.integers(rows.size)] = wrong
        assert not copy_finite(target, spoilt)
        assert copy_finite(target, rows)  # it was the batch, not what remained of it
