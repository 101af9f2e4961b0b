"""Clipping: reference, CPU, CUDA and torch agree."""

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, assert_within, kernel, nans, normal
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.codes import GLOBAL_NORM, NORM, PARTS, VALUE
from minicnnrnn.kernels.jit import JIT

KINDS = [VALUE, NORM, GLOBAL_NORM]


def segments_of(sizes):
    """(size of all, table): segments at multiples of 64, the second one is frozen."""
    rows, end = [], 0
    for i, size in enumerate(sizes):
        if i != 1:
            rows.append((end, end + size, 1))
        end += -(-size // 64) * 64
    return end, np.array(rows, np.int64).reshape(-1, 3)


def clip(device, g, segments, threshold, kind):
    g, sums = g.copy(), nans(PARTS, len(segments) + 2, dtype=np.float64)  # there may be more
    clip_gradient = kernel("clip", "clip_gradient", device)
    clip_gradient(g, sums, segments, np.array([threshold]), kind)
    return g


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (VALUE, [2, -2, 9, 0, 1]),
        (NORM, [1.2, -1.6, 9, 0, 1]),
        (GLOBAL_NORM, [3 * 2 / 26**0.5, -4 * 2 / 26**0.5, 9, 0, 2 / 26**0.5]),
    ],
)
def test_worked_example(device, kind, expected):
    g = np.array([3, -4, 9, 0, 1], np.float32)
    clipped = clip(device, g, np.array([[0, 2, 1], [3, 5, 0]]), 2.0, kind)
    np.testing.assert_allclose(clipped, expected, rtol=1e-6)


@pytest.mark.parametrize("device", FAST)
@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(upto(200), max_size=4), seeds, st.sampled_from([0.1, 1.0, 100.0]))
@example([], 0, 1.0)
@example([1], 0, 1.0)
@example([64, 1, 65, 17], 0, 1.0)
def test_near_the_float64_reference_and_leaves_the_rest_alone(device, kind, sizes, seed, threshold):
    rng = np.random.default_rng(seed)
    size, segments = segments_of(sizes)
    g, outside = normal(rng, size), np.ones(size, bool)
    for start, stop, _ in segments:
        outside[start:stop] = False
    clipped = clip(device, g, segments, threshold, kind)
    assert_within(clipped, clip("numpy", g.astype(np.float64), segments, threshold, kind), 2)
    np.testing.assert_array_equal(clipped[outside], g[outside])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_zero_stays_zero_and_nan_is_not_lost(device, kind):
    segments = np.array([[0, 100, 1], [128, 200, 1]])
    assert not clip(device, np.zeros(200, np.float32), segments, 1.0, kind).any()
    g = np.ones(200, np.float32)
    g[3] = np.nan
    with np.errstate(invalid="ignore"):
        lost = np.isnan(clip(device, g, segments, 1.0, kind))
    assert lost[3]
    assert lost[5] == (kind != VALUE)
    assert lost[130] == (kind == GLOBAL_NORM)


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_on_one_thread_and_on_all(kind):
    g = normal(np.random.default_rng(0), 70_000)
    segments, results = np.array([[7, 33_333, 1], [33_344, 70_000, 0]]), []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append(clip("cpu", g, segments, 0.5, kind))
    np.testing.assert_array_equal(*results)


def test_torch_agrees():
    torch = pytest.importorskip("torch")
    g = normal(np.random.default_rng(0), 200)
    segments = np.array([[0, 100, 1], [128, 200, 1]])
    tensors = [torch.nn.Parameter(torch.zeros(stop - start)) for start, stop, _ in segments]
    for tensor, (start, stop, _) in zip(tensors, segments):
        tensor.grad = torch.from_numpy(g[start:stop].copy())
    torch.nn.utils.clip_grad_norm_(tensors, 2.0)
    clipped = clip("cpu", g, segments, 2.0, GLOBAL_NORM)
    for tensor, (start, stop, _) in zip(tensors, segments):
        np.testing.assert_allclose(clipped[start:stop], tensor.grad, rtol=1e-5)
