"""Penalties: reference, CPU and CUDA agree, the gradient is that of the sum."""

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
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn import regularizers
from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.kernels.gpu import SIMULATED
from minicnnrnn.kernels.jit import JIT

sizes = st.lists(upto(200), max_size=4)


def segments_of(sizes):
    """(size of all, table): every second segment at a multiple of 64, the others left out."""
    rows, end = [], 0
    for i, size in enumerate(sizes):
        if i % 3 != 1:
            rows.append((end, end + size))
        end += -(-size // 64) * 64
    return end, np.array(rows, np.int64).reshape(-1, 2)


def value(device, w, segments, rates, parts=1):
    total, sums = np.array([8.0]), nans(PARTS, len(segments), dtype=np.float64)
    kernel("penalty", "penalty_forward", device)(total, sums, w, segments, rates, parts)
    return total[0] - 8


def gradient(device, g, w, segments, rates, parts=1):
    g = g.copy()
    kernel("penalty", "penalty_backward", device)(g, w, segments, rates, parts)
    return g


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    w = np.array([1, -3, 0, 5, 2], np.float32)
    segments, rates = np.array([[0, 3], [4, 5]]), np.array([[0.5, 2.0], [1.0, 0.0]])
    assert value(device, w, segments, rates, 2) == (0.5 * 4 + 2.0 * 10 + 2) / 2
    g = gradient(device, np.ones(5, np.float32), w, segments, rates, 2)
    np.testing.assert_array_equal(g, [1 + 4.5 / 2, 1 - 12.5 / 2, 1.25, 1, 1.5])


@pytest.mark.parametrize("device", FAST)
@settings(max_examples=3 if SIMULATED else 30)
@given(sizes, seeds, st.integers(1, 9))
@example([], 0, 1)
@example([1], 0, 1)
@example([64, 1, 65, 17], 0, 4)
def test_equal_to_the_reference(device, sizes, seed, parts):
    rng = np.random.default_rng(seed)
    size, segments = segments_of(sizes)
    whole = integer_valued(rng, size)
    rates = rng.integers(0, 3, (len(segments), 2)) / 2
    assert value(device, whole, segments, rates) == value("numpy", whole, segments, rates)
    w, g, rates = normal(rng, size), normal(rng, size), rng.random((len(segments), 2))
    expected = value("numpy", w, segments, rates, parts)
    np.testing.assert_allclose(
        value(device, w, segments, rates, parts), expected, rtol=1e-10, atol=1e-12
    )
    reference = gradient(
        "numpy", g.astype(np.float64), w.astype(np.float64), segments, rates, parts
    )
    assert_within(gradient(device, g, w, segments, rates, parts), reference, 4)


@given(sizes, seeds)
def test_gradient_is_that_of_the_sum(sizes, seed):
    rng = np.random.default_rng(seed)
    size, segments = segments_of(sizes)
    rates = rng.random((len(segments), 2))
    w = normal(rng, size)
    w += np.copysign(np.float32(0.1), w)  # off the corner of the absolute value
    check_gradient(
        lambda x: np.array([value("numpy", x, segments, rates)]),
        lambda x, u: gradient("numpy", np.zeros(size), x, segments, rates) * u[0],
        w,
        rng,
    )


@pytest.mark.parametrize("device", FAST)
def test_nan_stays(device):
    w = np.ones(300, np.float32)
    w[7] = np.nan
    segments, rates = np.array([[0, 300]]), np.array([[1.0, 0.0]])
    assert np.isnan(value(device, w, segments, rates))
    g = gradient(device, np.zeros(300, np.float32), w, segments, rates)
    assert np.flatnonzero(np.isnan(g)).tolist() == [7]


@pytest.mark.parametrize("device", DEVICES)
def test_the_total_counts_samples(device):
    totals = np.array([1.5, 7.0])
    kernel("penalty", "penalty_total", device)(totals, np.array([0.25]), 6)
    assert totals.tolist() == [3, 7]


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_bits_on_one_thread_and_on_all():
    rng = np.random.default_rng(0)
    w, segments = normal(rng, 70_000), np.array([[7, 33_333], [33_344, 70_000]])
    rates = np.array([[0.1, 0.3], [0.7, 0.2]])
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append((value("cpu", w, segments, rates), gradient("cpu", w, w, segments, rates)))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_the_regularizers_say_the_same():
    rng = np.random.default_rng(0)
    w, regularizer = normal(rng, 40), regularizers.L1L2(0.3, 0.2)
    segments, rates = np.array([[0, 40]]), np.array([regularizers.kernel_rates(regularizer)])
    np.testing.assert_allclose(regularizer(w), value("numpy", w, segments, rates))
    np.testing.assert_allclose(
        regularizer.gradient(w), gradient("numpy", np.zeros(40), w, segments, rates), rtol=1e-6
    )
