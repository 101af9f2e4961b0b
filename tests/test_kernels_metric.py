"""Metrics: reference, CPU, CUDA and other people's metrics agree."""

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, integer_valued, kernel, nans
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.jit import JIT

METRICS = [
    ("binary_accuracy", (0.5,)),
    ("categorical_accuracy", ()),
    ("sparse_categorical_accuracy", ()),
    ("top_k", (2,)),
    ("sparse_top_k", (2,)),
]
every_metric = pytest.mark.parametrize(("name", "options"), METRICS)


def measure(device, name, options, y, t):
    values = nans(len(y))
    kernel("metric", name, device)(values, y, t, *options)
    return values


def case(name, shape, seed):
    rng = np.random.default_rng(seed)
    y = integer_valued(rng, *shape)  # few values, so equals abound
    if name.startswith("sparse"):
        return y, rng.integers(0, shape[1], shape[0]).astype(np.int32)
    return y, rng.integers(0, 2, shape).astype(np.float32)


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    y = np.array([[0.1, 0.5, 0.6], [0.9, 0.3, 0.3]], np.float32)
    t = np.array([[1, 0, 1], [0, 0, 1]], np.float32)
    labels = np.array([2, 1], np.int32)
    accuracy = measure(device, "binary_accuracy", (0.5,), y, t)
    np.testing.assert_allclose(accuracy, [2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(measure(device, "binary_accuracy", (0.2,), y, t), [1 / 3, 1 / 3])
    assert measure(device, "categorical_accuracy", (), y, t).tolist() == [0, 0]
    assert measure(device, "sparse_categorical_accuracy", (), y, labels).tolist() == [1, 0]
    assert measure(device, "sparse_top_k", (1,), y, labels).tolist() == [1, 0]
    assert measure(device, "sparse_top_k", (2,), y, labels).tolist() == [1, 1]
    assert measure(device, "top_k", (2,), y, t).tolist() == [0, 1]
    assert measure(device, "top_k", (3,), y, t).tolist() == [1, 1]


@pytest.mark.parametrize("device", FAST)
@every_metric
@given(st.tuples(upto(30), st.integers(1, 40)), seeds)
@example((1, 1), 0)
def test_equal_to_the_reference(device, name, options, shape, seed):
    y, t = case(name, shape, seed)
    np.testing.assert_array_equal(*(measure(d, name, options, y, t) for d in ("numpy", device)))


@pytest.mark.parametrize("device", FAST)
@given(st.tuples(st.integers(1, 40), upto(10)), seeds)
@example((1, 1), 0)
def test_sums_are_added_to_the_totals(device, shape, seed):
    rng = np.random.default_rng(seed)
    y, t, weights = integer_valued(rng, *shape), integer_valued(rng, *shape), rng.random(shape[0])
    weights = (weights * 3).astype(np.int32).astype(np.float32)
    results = []
    for each in ("numpy", device):
        few, many = np.arange(2.0), np.arange(4.0 * shape[1] + 1)
        kernel("metric", "weighted_sum", each)(few, y[:, 0].copy(), weights)
        kernel("metric", "variance_sums", each)(many, y, t, weights)
        results.append([*few, *many])
    assert results[0] == results[1]


@pytest.mark.parametrize("device", DEVICES)
def test_of_equals_the_first_is_largest_and_none_pushes_another_out_of_the_top(device):
    y, labels = np.zeros((3, 3), np.float32), np.arange(3, dtype=np.int32)
    assert measure(device, "sparse_categorical_accuracy", (), y, labels).tolist() == [1, 0, 0]
    assert measure(device, "sparse_top_k", (1,), y, labels).tolist() == [1, 1, 1]


@pytest.mark.parametrize("device", DEVICES)
def test_nan_is_the_largest_but_counts_as_the_smallest_score(device):
    y = np.array([[1, np.nan, 5, np.nan], [np.nan, 1, 2, 3]], np.float32)
    labels = np.array([1, 0], np.int32)
    assert measure(device, "sparse_categorical_accuracy", (), y, labels).tolist() == [1, 1]
    assert measure(device, "sparse_top_k", (2,), y, labels).tolist() == [0, 0]
    assert measure(device, "sparse_top_k", (3,), y, labels).tolist() == [1, 0]
    y[:, 1:] = np.inf, -np.inf, np.nan
    infinite = np.array([2, 2], np.int32)
    assert measure(device, "sparse_top_k", (2,), y, infinite).tolist() == [0, 1]
    assert measure(device, "binary_accuracy", (0.5,), y, np.zeros_like(y)).tolist() == [0.5, 0.75]


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
@every_metric
def test_the_same_bits_on_one_thread_and_on_all(name, options):
    y, t = case(name, (5000, 30), 0)
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append(measure("cpu", name, options, y, t))
    np.testing.assert_array_equal(*results)


def test_scikit_learn_agrees():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    y, labels = rng.random((50, 6), np.float32), rng.integers(0, 6, 50).astype(np.int32)
    one_hot = np.eye(6, dtype=np.float32)[labels]
    ours = measure("cpu", "sparse_categorical_accuracy", (), y, labels).mean()
    assert ours == pytest.approx(metrics.accuracy_score(labels, y.argmax(axis=1)))
    assert measure("cpu", "categorical_accuracy", (), y, one_hot).mean() == ours
    for k in (1, 3, 5):
        theirs = metrics.top_k_accuracy_score(labels, y, k=k, labels=np.arange(6))
        assert measure("cpu", "sparse_top_k", (k,), y, labels).mean() == pytest.approx(theirs)
        assert measure("cpu", "top_k", (k,), y, one_hot).mean() == pytest.approx(theirs)
    answers = (one_hot == 1).ravel(), (y > 0.4).ravel()
    ours = measure("cpu", "binary_accuracy", (0.4,), y, one_hot).mean()
    assert ours == pytest.approx(metrics.accuracy_score(*answers))
