"""Sequences as wholes: masks of empty steps, and two readings merged."""

import numba
import numpy as np
import pytest
from checks import (
    DEVICES,
    FAST,
    assert_within,
    check_gradient,
    integer_valued,
    kernel,
    nans,
    normal,
)
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.codes import ADD, AVERAGE, CONCAT, MULTIPLY
from minicnnrnn.kernels.jit import JIT

MODES = [CONCAT, ADD, MULTIPLY, AVERAGE]
NONE = np.zeros((0, 0), np.uint8)


def masking(device, x, value=0.0):
    y, mask = nans(*x.shape), np.full(len(x), 7, np.uint8)
    kernel("sequence", "masking_forward", device)(y, mask, x, value)
    return y, mask


def unmasking(device, dy, mask):
    dx = nans(*dy.shape)
    kernel("sequence", "masking_backward_input", device)(dx, dy, mask)
    return dx


def merge(device, a, b, mask=NONE, mode=CONCAT):
    y = nans(*a.shape[:3], a.shape[3] + (b.shape[3] if mode == CONCAT else 0), dtype=a.dtype)
    kernel("sequence", "bidirectional_forward", device)(y, a, b, mask, mode)
    return y


def part(device, dy, a, b, mask=NONE, mode=CONCAT):
    da, db = nans(*a.shape, dtype=a.dtype), nans(*b.shape, dtype=a.dtype)
    kernel("sequence", "bidirectional_backward_input", device)(da, db, dy, a, b, mask, mode)
    return da, db


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example_of_masking(device):
    x = np.array([[-1, -1], [-1, 2], [0, 0], [np.nan, -1]], np.float32)
    y, mask = masking(device, x, -1.0)
    assert mask.tolist() == [0, 1, 1, 1]
    np.testing.assert_array_equal(y, [[0, 0], [-1, 2], [0, 0], [np.nan, -1]])
    dy = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32)
    assert unmasking(device, dy, mask).tolist() == [[0, 0], [3, 4], [5, 6], [7, 8]]


@pytest.mark.parametrize("device", FAST)
@given(upto(20), upto(9), seeds)
def test_masking_equals_the_reference(device, R, C, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2, (R, C)).astype(np.float32)
    x[rng.random(R) < 0.3] = 1
    y, mask = masking("numpy", x, 1.0)
    for actual, expected in zip(masking(device, x, 1.0), (y, mask), strict=True):
        np.testing.assert_array_equal(actual, expected)
    dy = integer_valued(rng, R, C)
    np.testing.assert_array_equal(unmasking(device, dy, mask), unmasking("numpy", dy, mask))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("mode", "y", "da", "db"),
    [
        (CONCAT, [[1, 30], [2, 20], [4, 10]], [5, 6, 7], [70, 60, 50]),
        (ADD, [[31], [22], [14]], [5, 6, 7], [7, 6, 5]),
        (AVERAGE, [[15.5], [11], [7]], [2.5, 3, 3.5], [3.5, 3, 2.5]),
        (MULTIPLY, [[30], [40], [40]], [150, 120, 70], [28, 12, 5]),
    ],
)
def test_worked_example_of_merging(device, mode, y, da, db):
    # Three steps of one unit; the second reading is in the order of reading, from the end.
    a, b = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in ([1, 2, 4], [10, 20, 30]))
    assert merge(device, a, b, mode=mode)[0, :, 0].tolist() == y
    dy = [[5, 50], [6, 60], [7, 70]] if mode == CONCAT else [[5], [6], [7]]
    dy = np.array(dy, np.float32).reshape(1, 3, 1, -1)
    assert [d.ravel().tolist() for d in part(device, dy, a, b, mode=mode)] == [da, db]


@st.composite
def readings(draw):
    mode = draw(st.sampled_from(MODES))
    N, T, R, A = (draw(st.integers(1, n)) for n in (3, 4, 3, 5))
    B = draw(st.integers(1, 5)) if mode == CONCAT else A
    rng = np.random.default_rng(draw(seeds))
    masked = draw(st.booleans())
    mask = (rng.random((N, T)) < 0.6).astype(np.uint8) if masked else NONE
    return rng, (N, T, R, A), (N, T, R, B), mask, mode


@pytest.mark.parametrize("device", FAST)
@given(readings())
def test_merging_equals_the_reference(device, case):
    rng, a, b, mask, mode = case
    a, b = integer_valued(rng, *a), integer_valued(rng, *b)
    y = merge(device, a, b, mask, mode)
    np.testing.assert_array_equal(y, merge("numpy", a, b, mask, mode))
    if mask.size:
        assert not y[mask == 0].any()
    dy = integer_valued(rng, *y.shape)
    both = (part(one, dy, a, b, mask, mode) for one in (device, "numpy"))
    for actual, expected in zip(*both, strict=True):
        np.testing.assert_array_equal(actual, expected)


@given(readings())
@example((np.random.default_rng(0), (1, 1, 1, 1), (1, 1, 1, 1), NONE, MULTIPLY))
def test_gradient_of_merging(case):
    rng, a, b, mask, mode = case
    a, b = rng.standard_normal(a), rng.standard_normal(b)
    for i in (0, 1):
        other = (b, a)[i]

        def pair(x, i=i, other=other):
            return (x, other) if i == 0 else (other, x)

        check_gradient(
            lambda x, pair=pair: merge("numpy", *pair(x), mask, mode),
            lambda x, dy, i=i, pair=pair: part("numpy", dy, *pair(x), mask, mode)[i],
            (a, b)[i],
            rng,
        )


@pytest.mark.skipif(not JIT, reason="plain Python has one thread")
@pytest.mark.parametrize("mode", MODES)
def test_the_same_bits_on_any_number_of_threads(mode):
    rng = np.random.default_rng(0)
    a, b = normal(rng, 7, 11, 10, 100), normal(rng, 7, 11, 10, 100)
    threads, results = numba.get_num_threads(), []
    try:
        for count in (1, threads):
            numba.set_num_threads(count)
            y = merge("cpu", a, b, NONE, mode)
            results.append((y, *part("cpu", y, a, b, NONE, mode)))
    finally:
        numba.set_num_threads(threads)
    for one, all_ in zip(*results, strict=True):
        np.testing.assert_array_equal(one, all_)
    assert_within(results[0][0], merge("numpy", a, b, NONE, mode), 2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
def test_nan_passes_where_the_mask_lets_it(device, mode):
    a, b = np.ones((2, 1, 2, 1, 2), np.float32)
    a[0, 0] = b[0, 0] = np.nan  # the first step of a, and the last of b
    y = merge(device, a, b, mode=mode)
    assert np.isnan(y).any(axis=(0, 2, 3)).tolist() == [True, True]
    y = merge(device, a, b, np.array([[1, 0]], np.uint8), mode)
    assert np.isnan(y).any(axis=(0, 2, 3)).tolist() == [True, False]
