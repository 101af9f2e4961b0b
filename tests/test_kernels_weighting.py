"""Weights of rows: reference, CPU and CUDA agree."""

import numpy as np
import pytest
from checks import DEVICES, FAST, kernel, nans
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.codes import MEAN, SUM, WEIGHTED_MEAN

NOTHING = np.zeros(0, np.float32)
NO_MASK, NO_LABELS = np.zeros(0, np.uint8), np.zeros(0, np.int32)


def weigh(device, samples, rows, w, mask, labels, reduction, by_sample=False):
    n = samples if by_sample else rows
    outputs = nans(n), nans(n), nans(rows), nans(rows)
    count = -samples if by_sample else samples
    kernel("weighting", "row_weights", device)(*outputs, w, mask, labels, 7, reduction, count)
    return outputs


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    # Two samples of two steps: the second one's last step is masked, one label is ignored.
    w, mask = np.array([2, 4], np.float32), np.array([1, 1, 1, 0], np.uint8)
    labels = np.array([0, 7, 1, 1], np.int32)
    gradient, reported, plain, weighted = weigh(device, 2, 4, w, mask, labels, MEAN)
    assert plain.tolist() == [1, 1, 1, 0]
    assert weighted.tolist() == [2, 2, 4, 0]
    assert gradient.tolist() == [1, 0, 2, 0]
    assert reported.tolist() == [2, 0, 4, 0]
    gradient, *_ = weigh(device, 2, 4, w, mask, NO_LABELS, WEIGHTED_MEAN)
    assert gradient.tolist() == [0.25, 0.25, 0.5, 0]
    gradient, *_ = weigh(device, 2, 4, w, mask, NO_LABELS, SUM, by_sample=True)
    assert gradient.tolist() == [2, 4]


@pytest.mark.parametrize("device", FAST)
@given(
    upto(5), upto(9), st.booleans(), st.booleans(), st.booleans(),
    st.sampled_from([SUM, MEAN, WEIGHTED_MEAN]), st.booleans(), seeds,
)  # fmt: skip
@example(1, 1, True, True, True, MEAN, False, 0)
def test_near_the_reference(device, N, T, weighted, by_step, masked, reduction, by_sample, seed):
    rng = np.random.default_rng(seed)
    w = rng.random(N * T if by_step and not by_sample else N).astype(np.float32)
    mask = rng.integers(0, 2, N * T).astype(np.uint8) if masked else NO_MASK
    labels = rng.choice([0, 7], N * T).astype(np.int32) if seed % 2 else NO_LABELS
    ours, expected = (
        weigh(d, N, N * T, w if weighted else NOTHING, mask, labels, reduction, by_sample)
        for d in (device, "numpy")
    )
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("device", FAST)
@pytest.mark.parametrize("reduction", [MEAN, WEIGHTED_MEAN])
def test_nothing_left_is_zero(device, reduction):
    outputs = weigh(device, 2, 2, NOTHING, np.zeros(2, np.uint8), NO_LABELS, reduction)
    np.testing.assert_array_equal(outputs, np.zeros((4, 2)))
