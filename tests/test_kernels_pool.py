"""Pooling: reference, CPU and mathematics agree."""

import numba
import numpy as np
import pytest
from checks import (
    DEVICES,
    FAST,
    assert_within,
    assume_affordable,
    check_gradient,
    integer_valued,
    kernel,
    nans,
    normal,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds, upto, windows

from minicnnrnn.kernels.jit import JIT

KINDS = ["max", "average"]


@st.composite
def pools(draw):
    """(shape of x, outputs, extent, strides, padding) in one to three dimensions."""
    axes = [draw(windows(dilated=False, longest=7)) for _ in range(draw(st.integers(1, 3)))]
    axes = [(1, 1, 1, 1, 0, 1)] * (3 - len(axes)) + axes
    D, K, S, _, P, O = zip(*axes)
    return (draw(upto(3)), *D, draw(upto(20))), O, K, S, P


POINT = ((1, 1, 1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0))
GLOBAL = ((2, 1, 5, 4, 9), (1, 1, 1), (1, 5, 4), (1, 5, 4), (0, 0, 0))
LARGE = ((2, 3, 10, 10, 3), (1, 1, 1), (3, 10, 10), (3, 10, 10), (0, 0, 0))  # 300 positions
GAPS = ((1, 1, 8, 8, 3), (1, 3, 3), (1, 2, 1), (1, 3, 3), (0, 0, 0))
SAME = ((2, 1, 5, 5, 17), (1, 3, 3), (1, 3, 3), (1, 2, 2), (0, 1, 1))
CUT = ((2, 1, 5, 7, 3), (1, 2, 2), (1, 2, 3), (1, 2, 3), (0, 0, 0))  # side by side, with a rest
LANES = ((2, 1, 6, 7, 27), (1, 3, 3), (1, 2, 3), (1, 2, 2), (0, 0, 1))  # 16 + 8 + 3 channels
OVER = ((1, 1, 1, 2, 1), (1, 1, 2), (1, 1, 2), (1, 1, 1), (0, 0, 0))  # one window is the image
USUAL = ((3, 1, 6, 6, 32), (1, 3, 3), (1, 2, 2), (1, 2, 2), (0, 0, 0))


def forward(device, kind, x, geometry, recorded=True):
    _, O, *integers = geometry
    shape = (x.shape[0], *O, x.shape[4])
    y, dtype = nans(*shape, dtype=x.dtype), np.uint8 if np.prod(integers[0]) <= 256 else np.int32
    index = np.full(shape if recorded else (0,) * 5, 200, dtype)
    outputs = (y, index) if kind == "max" else (y,)
    kernel("pool", f"{kind}_pool_forward", device)(*outputs, x, *sum(integers, ()))
    return outputs


def backward(device, kind, dy, index, geometry):
    shape, _, *integers = geometry
    dx = nans(*shape, dtype=dy.dtype)
    inputs = (dy, index) if kind == "max" else (dy,)
    kernel("pool", f"{kind}_pool_backward_input", device)(dx, *inputs, *sum(integers, ()))
    return dx


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    x = np.array([[1, 5, 2], [4, 3, 6], [7, 8, 7]], np.float32).reshape(1, 1, 3, 3, 1)
    geometry = ((1, 1, 3, 3, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2), (0, 0, 0))  # cut at the end
    y, index = forward(device, "max", x, geometry)
    assert y.ravel().tolist() == [5, 6, 8, 7]
    assert index.ravel().tolist() == [1, 2, 1, 0]
    dy = np.array([10, 20, 30, 40], np.float32).reshape(y.shape)
    dx = backward(device, "max", dy, index, geometry)
    assert dx.ravel().tolist() == [0, 10, 0, 0, 0, 20, 0, 30, 40]
    (mean,) = forward(device, "average", x, geometry)
    assert mean.ravel().tolist() == [3.25, 4, 7.5, 7]
    shared = backward(device, "average", dy, index, geometry)
    assert shared.ravel().tolist() == [2.5, 2.5, 10, 2.5, 2.5, 10, 15, 15, 40]


@pytest.mark.parametrize("device", FAST)
@given(pools(), seeds)
@example(POINT, 0)
@example(GLOBAL, 0)
@example(LARGE, 0)
@example(GAPS, 0)
@example(SAME, 0)
@example(CUT, 0)
@example(USUAL, 0)
@example(LANES, 0)
def test_equals_reference_exactly_on_integers(device, geometry, seed):
    assume_affordable(device, np.prod(geometry[0]))
    rng = np.random.default_rng(seed)
    x = integer_valued(rng, *geometry[0])  # few values, so equals abound
    for kind in KINDS:
        ours, reference = (forward(d, kind, x, geometry) for d in (device, "numpy"))
        for one, other in zip(ours, reference, strict=True):
            np.testing.assert_array_equal(one, other)
    y, index = forward("numpy", "max", x, geometry)
    assert index.min() >= 0
    assert index.max() < np.prod(geometry[2])
    dy = integer_valued(rng, *y.shape)
    np.testing.assert_array_equal(
        *(backward(d, "max", dy, index, geometry) for d in (device, "numpy"))
    )
    np.testing.assert_array_equal(forward(device, "max", x, geometry, recorded=False)[0], y)


@pytest.mark.parametrize("device", FAST)
@given(pools(), seeds)
@example(SAME, 0)
@example(OVER, 0)
def test_average_is_within_rounding_of_the_float64_reference(device, geometry, seed):
    rng = np.random.default_rng(seed)
    x = normal(rng, *geometry[0])
    (y,) = forward(device, "average", x, geometry)
    terms = int(np.prod(geometry[2]))
    assert_within(y, forward("numpy", "average", x.astype(np.float64), geometry)[0], terms)
    dy = normal(rng, *y.shape)
    ours, wide = (backward(d, "average", a, None, geometry)
                  for d, a in ((device, dy), ("numpy", dy.astype(np.float64))))  # fmt: skip
    assert_within(ours, wide, terms)


@given(pools(), seeds)
@example(GAPS, 0)
def test_gradients_of_the_reference(geometry, seed):
    rng = np.random.default_rng(seed)
    x = normal(rng, *geometry[0], dtype=np.float64)
    _, index = forward("numpy", "max", x, geometry)
    for kind in KINDS:
        check_gradient(
            lambda x, kind=kind: forward("numpy", kind, x, geometry)[0],
            lambda x, dy, kind=kind: backward("numpy", kind, dy, index, geometry),
            x,
            rng,
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("special", [-np.inf, np.nan])
def test_padding_never_wins_and_nan_always_does(device, special):
    x = np.zeros((1, 1, 5, 5, 17), np.float32)
    x[0, 0, 0, 0] = x[0, 0, 0, 1] = x[0, 0, 1] = special  # the whole first window of SAME
    y, index = forward(device, "max", x, SAME)
    np.testing.assert_array_equal(y[0, 0, 0, 0], np.full(17, special, np.float32))
    assert set(index[0, 0, 0, 0].tolist()) <= {4, 5, 7, 8}  # positions inside the image
    expected = 0 if special < 0 else np.nan  # its neighbour also holds x[0, 2] = 0
    np.testing.assert_array_equal(y[0, 0, 0, 1], np.full(17, expected, np.float32))
    assert not y[0, 0, 2].any()
    np.testing.assert_array_equal(forward(device, "max", x, SAME, recorded=False)[0], y)
    (mean,) = forward(device, "average", x, SAME)
    np.testing.assert_array_equal(mean[0, 0, 0, 0], y[0, 0, 0, 0])


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_on_one_thread_and_on_all(kind):
    geometry = ((5, 1, 19, 23, 40), (1, 10, 12), (1, 3, 3), (1, 2, 2), (0, 1, 1))
    rng = np.random.default_rng(0)
    x, dy, results = normal(rng, *geometry[0]), normal(rng, 5, 1, 10, 12, 40), []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        y, *index = forward("cpu", kind, x, geometry)
        results.append((y, *index, backward("cpu", kind, dy, *(index or [None]), geometry)))
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


@settings(max_examples=20)
@given(pools(), seeds)
def test_torch_agrees(geometry, seed):
    torch = pytest.importorskip("torch")
    shape, O, K, S, P = geometry
    rng = np.random.default_rng(seed)
    x = normal(rng, *shape)
    # Padding of their own: -inf for the maximum; for the mean, zeros and a count of the rest.
    ends = [max((o - 1) * s + k - d - p, 0) for o, s, k, d, p in zip(O, S, K, shape[1:4], P)]
    pads = [n for p, e in zip(reversed(P), reversed(ends)) for n in (p, e)]

    def theirs(function, image, filling):
        padded = torch.nn.functional.pad(image.permute(0, 4, 1, 2, 3), pads, value=filling)
        y = function(padded, K, S).permute(0, 2, 3, 4, 1)
        return y[:, : O[0], : O[1], : O[2]]

    image = torch.from_numpy(x).requires_grad_()
    largest = theirs(torch.nn.functional.max_pool3d, image, -np.inf)
    average = torch.nn.functional.avg_pool3d
    mean = theirs(average, image, 0) / theirs(average, torch.ones(shape), 0)
    for kind, y in (("max", largest), ("average", mean)):
        ours, *index = forward("cpu", kind, x, geometry)
        np.testing.assert_allclose(ours, y.detach().numpy(), rtol=1e-5, atol=1e-6)
        dy = normal(rng, *ours.shape)
        (dx,) = torch.autograd.grad(y, image, torch.from_numpy(dy))
        ours = backward("cpu", kind, dy, *(index or [None]), geometry)
        np.testing.assert_allclose(ours, dx.numpy(), rtol=1e-5, atol=1e-5)


def masked(device, x, mask, dy):
    y, dx = nans(*dy.shape, dtype=x.dtype), nans(*x.shape, dtype=x.dtype)
    kernel("pool", "masked_average_forward", device)(y, x, mask)
    kernel("pool", "masked_average_backward_input", device)(dx, dy, mask)
    return y, dx


@pytest.mark.parametrize("device", DEVICES)
def test_worked_masked_average(device):
    x = np.array([[[1], [2], [6]], [[5], [np.nan], [9]]], np.float32)
    mask = np.array([[1, 0, 1], [0, 0, 0]], np.uint8)
    y, dx = masked(device, x, mask, np.array([[3], [4]], np.float32))
    assert y.ravel().tolist() == [3.5, 0]
    assert dx.ravel().tolist() == [1.5, 0, 1.5, 0, 0, 0]


@pytest.mark.parametrize("device", FAST)
@given(*[upto(9)] * 3, seeds)
@example(1, 1, 1, 0)
def test_masked_average_equals_its_reference(device, N, T, C, seed):
    rng = np.random.default_rng(seed)
    x, dy = integer_valued(rng, N, T, C), integer_valued(rng, N, C)
    mask = rng.integers(0, 2, (N, T)).astype(np.uint8)
    for one, other in zip(*(masked(d, x, mask, dy) for d in (device, "numpy"))):
        np.testing.assert_array_equal(one, other)
    everything = np.ones_like(mask)
    geometry = ((N, 1, 1, T, C), (1, 1, 1), (1, 1, T), (1, 1, T), (0, 0, 0))
    mean = forward(device, "average", x[:, None, None], geometry)[0].reshape(N, C)
    np.testing.assert_array_equal(masked(device, x, everything, dy)[0], mean)
    check_gradient(
        lambda x: masked("numpy", x, mask, dy)[0],
        lambda x, dy: masked("numpy", x, mask, dy)[1],
        x,
        rng,
    )
