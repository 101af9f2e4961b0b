"""Counts by thresholds and classes: reference, CPU, CUDA and scikit-learn agree."""

import numpy as np
import pytest
from checks import DEVICES, FAST, integer_valued, kernel
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.codes import ALL, BINARY, CLASSES, IGNORE_NONE, LARGEST, SCORES

shapes = st.tuples(upto(30), upto(8))


def counts(device, y, t, weights, thresholds, column=-1, choice=ALL, by_column=0):
    columns = y.shape[1] if by_column else 1
    totals = np.zeros(columns * 2 * (len(thresholds) + 1))
    arguments = (totals, y, t, weights, thresholds, column, choice, by_column)
    kernel("confusion", "threshold_counts", device)(*arguments)
    return totals.reshape(columns, 2, -1)


def matrix(device, y, t, weights, classes, kind=SCORES, ignore=IGNORE_NONE, threshold=0.5):
    totals = np.zeros(classes**2)
    name, options = "confusion_matrix", (kind, threshold)
    if t.ndim == 1:
        name, options = "sparse_confusion_matrix", ()
    launch = kernel("confusion", name, device)
    launch(totals, y, t, weights, classes, *options, ignore)
    return totals.reshape(classes, classes)


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example_of_thresholds(device):
    y = np.array([[0.1, 0.5], [0.7, 0.9]], np.float32)
    t = np.array([[0, 1], [1, 0]], np.float32)
    weights, edges = np.array([1, 10], np.float32), np.array([0.1, 0.6], np.float32)
    together = [[[1, 0, 10], [0, 1, 10]]]  # 0.1 is not above 0.1
    assert counts(device, y, t, weights, edges).tolist() == together
    assert counts(device, y, t, weights, edges, column=1).tolist() == [[[0, 0, 10], [0, 1, 0]]]
    apart = [[[1, 0, 0], [0, 0, 10]], [[0, 0, 10], [0, 1, 0]]]
    assert counts(device, y, t, weights, edges, by_column=1).tolist() == apart
    # Only the largest of each row is above anything.
    first = [[[1, 0, 10], [10, 1, 0]]]
    assert counts(device, y, t, weights, edges, choice=1).tolist() == first
    assert counts(device, y, t, weights, edges, choice=LARGEST).tolist() == first


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example_of_a_matrix(device):
    y = np.array([[0.2, 0.8, 0], [0.9, 0, 0.1], [0, 0, 1]], np.float32)
    labels, weights = np.array([1, 2, 2], np.int32), np.array([1, 2, 4], np.float32)
    expected = [[0, 0, 0], [0, 1, 0], [2, 0, 4]]
    assert matrix(device, y, labels, weights, 3).tolist() == expected
    assert matrix(device, y, np.eye(3, dtype=np.float32)[labels], weights, 3).tolist() == expected
    assert matrix(device, y, labels, weights, 3, ignore=2).sum() == 1
    assert matrix(device, y, labels, weights, 2).tolist() == [[0, 0], [0, 1]]
    answers = np.array([[1.9, 0], [-1, 5], [1, np.nan]], np.float32)
    truth = np.array([[1, 0], [0, 0], [0, 0]], np.float32)
    found = matrix(device, answers, truth, weights, 2, CLASSES)
    assert found.tolist() == [[1, 4], [0, 1]]
    found = matrix(device, answers, truth, weights, 2, BINARY)
    assert found.tolist() == [[1 + 2 + 4, 2 + 4], [0, 1]]


@pytest.mark.parametrize("device", FAST)
@given(shapes, seeds, st.integers(LARGEST, 4), st.booleans(), st.integers(1, 6))
@example((1, 1), 0, ALL, False, 1)
def test_threshold_counts_equal_the_reference(device, shape, seed, choice, by_column, edges):
    rng = np.random.default_rng(seed)
    y, t = integer_valued(rng, *shape), rng.integers(0, 2, shape).astype(np.float32)
    y[rng.random(shape) < 0.1] = np.nan
    weights = integer_valued(rng, shape[0])
    edges = np.sort(integer_valued(rng, edges))
    for column in (-1, shape[1] - 1):
        results = [
            counts(each, y, t, weights, edges, column, choice, int(by_column))
            for each in ("numpy", device)
        ]
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("device", FAST)
@given(shapes, seeds, st.integers(1, 6), st.sampled_from([IGNORE_NONE, 0, -1]))
def test_matrices_equal_the_reference(device, shape, seed, classes, ignore):
    rng = np.random.default_rng(seed)
    y, t = integer_valued(rng, *shape), integer_valued(rng, *shape)
    y[rng.random(shape) < 0.1] = np.nan
    weights = integer_valued(rng, shape[0])
    labels = rng.integers(-1, 6, shape[0]).astype(np.int32)
    both = ("numpy", device)
    for kind in (SCORES, CLASSES, BINARY):
        results = [matrix(each, y + 0.5, t, weights, classes, kind, ignore) for each in both]
        np.testing.assert_array_equal(*results)
    results = [matrix(each, y, labels, weights, classes, ignore=ignore) for each in both]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("device", DEVICES)
def test_a_score_that_is_the_threshold_means_yes(device):
    y = np.array([[0.7], [np.nextafter(np.float32(0.7), 0)]], np.float32)  # 0.7 is rounded down
    t, weights = np.ones((2, 1), np.float32), np.ones(2, np.float32)
    assert matrix(device, y, t, weights, 2, BINARY, threshold=0.7).tolist() == [[0, 0], [1, 1]]


def test_scikit_learn_agrees():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    y, weights = rng.random((60, 4), np.float32), rng.random(60, np.float32)
    labels = rng.integers(0, 4, 60).astype(np.int32)
    theirs = metrics.confusion_matrix(labels, y.argmax(axis=1), sample_weight=weights)
    np.testing.assert_allclose(matrix("cpu", y, labels, weights, 4), theirs, rtol=1e-6)
    one_hot = np.eye(4, dtype=np.float32)[labels]
    ours = counts("cpu", y, one_hot, weights, np.array([0.5], np.float32), by_column=1)
    theirs = metrics.multilabel_confusion_matrix(one_hot, y > 0.5, sample_weight=weights)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
