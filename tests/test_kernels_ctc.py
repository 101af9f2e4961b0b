"""CTC: reference, CPU, enumeration, mathematics and torch agree."""

import itertools
import math

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, check_gradient, kernel, nans, normal
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.gpu import SIMULATED
from minicnnrnn.kernels.jit import JIT

NO_MASK = np.empty((0, 0), np.uint8)
sizes = st.tuples(upto(4), upto(9), upto(4), st.integers(2, 5))


def workspace(device, y, t):
    return nans(kernel("ctc", "ctc_workspace", device)(y.shape[1], t.shape[1]))


def values_of(device, y, t, mask=NO_MASK):
    values = nans(len(y), dtype=y.dtype)
    kernel("ctc", "ctc_forward", device)(values, y, t, mask, workspace(device, y, t))
    return values


def gradient_of(device, y, t, weights, mask=NO_MASK):
    dy = nans(*y.shape, dtype=y.dtype)
    ws = workspace(device, y, t)
    kernel("ctc", "ctc_backward", device)(dy, y, t, weights, mask, ws)
    return dy


def case(N, T, L, C, seed):
    """Logits, labels of lengths that mostly fit, a mask and weights."""
    rng = np.random.default_rng(seed)
    t = rng.integers(1, C, (N, L)).astype(np.int32)
    t[np.arange(L) >= rng.integers(0, L + 1, (N, 1))] = 0
    mask = rng.random((N, T)) < 0.8
    return normal(rng, N, T, C), t, mask.astype(np.uint8), rng.random(N, np.float32)


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    # Two steps of three equally likely classes: 1 comes of (1, 1), (0, 1), (1, 0); 1 2 of (1, 2).
    y = np.zeros((3, 2, 3), np.float32)
    t = np.array([[1, 0], [1, 2], [0, 0]], np.int32)
    expected = [math.log(9 / 3), math.log(9), math.log(9)]
    np.testing.assert_allclose(values_of(device, y, t), expected, rtol=1e-6)
    dy = gradient_of(device, y, t, np.full(3, 6, np.float32))
    np.testing.assert_allclose(dy[0], [[0, -2, 2], [0, -2, 2]], atol=1e-5)
    np.testing.assert_allclose(dy[1], [[2, -4, 2], [2, 2, -4]], atol=1e-5)
    np.testing.assert_allclose(dy[2], [[-4, 2, 2], [-4, 2, 2]], atol=1e-5)


def collapsed(path):
    return [k for k, _ in itertools.groupby(path) if k]


@given(st.integers(1, 5), st.lists(st.integers(1, 2), max_size=3), seeds)
def test_the_reference_is_the_sum_over_all_paths(steps, labels, seed):
    y = np.random.default_rng(seed).standard_normal((1, steps, 3))
    p = np.exp(y[0]) / np.exp(y[0]).sum(axis=1, keepdims=True)
    total = sum(
        math.prod(p[t, k] for t, k in enumerate(path))
        for path in itertools.product(range(3), repeat=steps)
        if collapsed(path) == labels
    )
    value = values_of("numpy", y, np.array([[*labels, 0]], np.int32))[0]
    if total:
        assert math.exp(-value) == pytest.approx(total)
    else:
        assert value > 9e4


@pytest.mark.parametrize("device", FAST)
@settings(max_examples=4 if SIMULATED else 25)
@given(sizes, seeds, st.booleans())
@example((1, 1, 1, 2), 0, False)
@example((3, 6, 3, 4), 1, True)
def test_near_the_float64_reference(device, sizes, seed, masked):
    y, t, mask, weights = case(*sizes, seed)
    mask = mask if masked else NO_MASK
    expected = values_of("numpy", y.astype(np.float64), t, mask)
    np.testing.assert_allclose(values_of(device, y, t, mask), expected, rtol=1e-5, atol=1e-5)
    expected = gradient_of("numpy", y.astype(np.float64), t, weights, mask)
    # Where labels do not fit, the paths that break a rule the fewest times stand near 1e5.
    ours = gradient_of(device, y, t, weights, mask)
    fits = values_of(device, y, t, mask) < 1e4
    np.testing.assert_allclose(ours[fits], expected[fits], atol=2e-6)
    np.testing.assert_allclose(ours, expected, atol=0.02)
    assert masked is False or not ours[mask == 0].any()


@settings(max_examples=15)
@given(sizes, seeds)
def test_gradient_of_the_reference(sizes, seed):
    N, T, L, C = sizes
    y, t, mask, _ = case(N, T + 2 * L, L, C, seed)
    y, rng = y.astype(np.float64), np.random.default_rng(seed)
    mask[:, ::2] = 1
    check_gradient(
        lambda x: values_of("numpy", x, t, mask),
        lambda x, weights: gradient_of("numpy", x, t, weights, mask),
        y,
        rng,
    )


@pytest.mark.parametrize("device", DEVICES)
def test_masked_steps_might_as_well_not_be_there(device):
    y, t, _, weights = case(2, 8, 2, 4, 0)
    mask = np.array([[1, 0, 1, 1, 0, 0, 1, 1], [0, 1, 1, 0, 1, 1, 1, 0]], np.uint8)
    kept = y[mask == 1].reshape(2, 5, 4)
    np.testing.assert_allclose(values_of(device, y, t, mask), values_of(device, kept, t), rtol=1e-6)
    dy = gradient_of(device, y, t, weights, mask)
    np.testing.assert_allclose(
        dy[mask == 1].reshape(2, 5, 4), gradient_of(device, kept, t, weights), atol=1e-6
    )
    nothing = np.zeros_like(mask)
    assert not gradient_of(device, y, t, weights, nothing).any()
    empty = np.array([[0, 0], [1, 0]], np.int32)
    value = values_of(device, y, empty, nothing)
    np.testing.assert_allclose(value, [0, 1e5], rtol=1e-5)


def test_long_sequences_keep_their_precision():
    y, t, _, weights = case(2, 600, 40, 6, 1)
    y *= 3
    expected = values_of("numpy", y.astype(np.float64), t)
    np.testing.assert_allclose(values_of("cpu", y, t), expected, rtol=2e-6)
    expected = gradient_of("numpy", y.astype(np.float64), t, weights)
    np.testing.assert_allclose(gradient_of("cpu", y, t, weights), expected, atol=1e-4)


@pytest.mark.parametrize("device", FAST)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nan_stays_in_its_sample(device, bad):
    y, t, _, weights = case(3, 5, 2, 4, 0)
    y[1, 2, 1] = bad
    with np.errstate(invalid="ignore"):
        value, dy = values_of(device, y, t), gradient_of(device, y, t, weights)
    assert np.isfinite(value).tolist() == [True, False, True]
    assert np.isnan(dy[1, 2]).all()
    assert np.isfinite(dy[[0, 2]]).all()


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_bits_on_one_thread_and_on_all():
    y, t, mask, weights = case(9, 20, 5, 6, 0)
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append((values_of("cpu", y, t, mask), gradient_of("cpu", y, t, weights, mask)))
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


def test_torch_agrees():
    torch = pytest.importorskip("torch")
    y, t, _, weights = case(5, 12, 4, 6, 3)
    output = torch.from_numpy(y).requires_grad_()
    lengths = torch.from_numpy((t != 0).sum(axis=1))
    rows = torch.nn.functional.ctc_loss(
        output.log_softmax(2).transpose(0, 1),
        torch.from_numpy(t).long(),
        torch.full((5,), 12),
        lengths,
        reduction="none",
    )
    np.testing.assert_allclose(values_of("cpu", y, t), rows.detach().numpy(), rtol=1e-5)
    (gradient,) = torch.autograd.grad(rows, output, torch.from_numpy(weights))
    np.testing.assert_allclose(gradient_of("cpu", y, t, weights), gradient.numpy(), atol=1e-5)
