"""Merging: sums, products, maxima and joined channels, and their gradients."""

import numpy as np
import pytest
from checks import (
    DEVICES,
    FAST,
    assume_affordable,
    check_gradient,
    integer_valued,
    kernel,
    nans,
    normal,
)
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.codes import ADD, MAXIMUM, MULTIPLY

CODES = [ADD, MULTIPLY, MAXIMUM]


def merge(device, a, b, scale=1.0, code=ADD, relu=0, gate=None):
    y, gate = nans(a.size, dtype=a.dtype), np.empty(0, a.dtype) if gate is None else gate
    kernel("merge", "merge_forward", device)(y, a, b, gate, scale, code, relu)
    return y


def unmerge(device, dy, a, b, scale=1.0, code=ADD):
    da, db = nans(dy.size, dtype=dy.dtype), nans(0 if code == ADD else dy.size, dtype=dy.dtype)
    kernel("merge", "merge_backward", device)(da, db, dy, a, b, scale, code)
    return da, db


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    a, b = np.array([1, -3, 5, 2], np.float32), np.array([2, 1, 5, -4], np.float32)
    assert merge(device, a, b).tolist() == [3, -2, 10, -2]
    assert merge(device, a, b, relu=1).tolist() == [3, 0, 10, 0]
    assert merge(device, a, b, gate=b).tolist() == [3, -2, 10, 0]
    assert merge(device, a, b, scale=0.5).tolist() == [1.5, -1, 5, -1]
    assert merge(device, a, b, code=MULTIPLY).tolist() == [2, -3, 25, -8]
    assert merge(device, a, b, code=MAXIMUM).tolist() == [2, 1, 5, 2]
    dy = np.array([10, 20, 30, 40], np.float32)
    da, db = unmerge(device, dy, a, b, code=MAXIMUM)  # a tie is shared
    assert da.tolist() == [0, 0, 15, 40]
    assert db.tolist() == [10, 20, 15, 0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("code", CODES)
def test_nan_stays(device, code):
    a, b = np.array([np.nan, 1, 2], np.float32), np.array([1, np.nan, 3], np.float32)
    for relu in (0, 1):
        assert np.isnan(merge(device, a, b, code=code, relu=relu)).tolist() == [True, True, False]
    gate = np.array([0, np.nan, np.nan], np.float32)
    assert np.isnan(merge(device, a, b, code=code, gate=gate)).tolist() == [False, True, False]


@pytest.mark.parametrize("device", FAST)
@given(upto(200), st.sampled_from(CODES), st.sampled_from([0, 1]), seeds)
@example(1, ADD, 1, 0)
@example(70_000, MAXIMUM, 0, 0)
def test_equals_reference(device, size, code, relu, seed):
    assume_affordable(device, size)
    rng = np.random.default_rng(seed)
    a, b, dy, gate = (integer_valued(rng, size) for _ in range(4))
    scale = 0.5 if code == ADD else 1.0
    for gating in (None, gate):
        ours, expected = (merge(d, a, b, scale, code, relu, gating) for d in (device, "numpy"))
        np.testing.assert_array_equal(ours, expected)
    for ours, reference in zip(
        unmerge(device, dy, a, b, scale, code), unmerge("numpy", dy, a, b, scale, code)
    ):
        np.testing.assert_array_equal(ours, reference)


@pytest.mark.parametrize("code", [MULTIPLY, MAXIMUM])
@given(st.integers(1, 20), seeds)
def test_gradients(code, size, seed):
    rng = np.random.default_rng(seed)
    a, b = (normal(rng, size, dtype=np.float64) for _ in range(2))
    for first in (True, False):

        def forward(x, first=first):
            return merge("numpy", x, b, code=code) if first else merge("numpy", a, x, code=code)

        def backward(x, dy, first=first):
            given = (x, b) if first else (a, x)
            return unmerge("numpy", dy, *given, code=code)[not first]

        check_gradient(forward, backward, a if first else b, rng)


@pytest.mark.parametrize("device", DEVICES)
@given(upto(9), st.lists(upto(20), min_size=1, max_size=4), seeds)
@example(1, [1], 0)
def test_joined_channels(device, rows, widths, seed):
    rng = np.random.default_rng(seed)
    parts = [normal(rng, rows, width) for width in widths]
    y, offset = nans(rows, sum(widths)), 0
    for part in parts:
        kernel("merge", "concatenate_forward", device)(y, part, offset)
        offset += part.shape[1]
    np.testing.assert_array_equal(y, np.concatenate(parts, axis=1))
    offset = 0
    for part in parts:
        back = nans(*part.shape)
        kernel("merge", "concatenate_backward", device)(back, y, offset)
        np.testing.assert_array_equal(back, part)
        offset += part.shape[1]
