"""Batch normalization: reference, CPU and mathematics agree."""

import numba
import numpy as np
import pytest
from checks import (
    CUDA,
    DEVICES,
    FAST,
    assert_within,
    assume_affordable,
    check_gradient,
    kernel,
    nans,
    normal,
)
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds

from minicnnrnn.kernels import gpu
from minicnnrnn.kernels.jit import JIT

EPSILON, MOMENTUM = 1e-3, 0.9
shapes = st.one_of(
    st.tuples(st.integers(1, 300), st.integers(1, 20)),
    st.tuples(st.integers(1, 12), st.integers(200, 400)),
)
if gpu.SIMULATED:
    shapes = st.tuples(st.integers(1, 20), st.integers(1, 3))
NO_MASK = np.empty(0, np.uint8)


def workspace(device, R, C, name="batch_norm"):
    return nans(kernel("normalization", f"{name}_workspace", device)(R, C))


def forward(device, x, gamma, beta, mask=NO_MASK, moving=(0, 1), relu=0):
    """Output, mean, inverse deviation, moving mean, moving variance."""
    R, C = x.shape
    y, mean, inverse = nans(R, C, dtype=x.dtype), *(nans(C, dtype=x.dtype) for _ in range(2))
    moved = [np.full(C, value, x.dtype) for value in moving]
    kernel("normalization", "batch_norm_forward", device)(
        y, mean, inverse, *moved, x, gamma, beta, mask, MOMENTUM, EPSILON, relu,
        workspace(device, R, C),
    )  # fmt: skip
    return y, mean, inverse, *moved


def backward(device, x, dy, gamma, mean, inverse, mask=NO_MASK, constant=False, y=None):
    """Gradients of the input, gamma and beta."""
    R, C = x.shape
    y = np.empty((0, 0), x.dtype) if y is None else y
    dx, dgamma, dbeta = nans(R, C, dtype=x.dtype), *(nans(C, dtype=x.dtype) for _ in range(2))
    ws = workspace(device, R, C)
    kernel("normalization", "batch_norm_backward_weight", device)(
        dgamma, dbeta, x, dy, y, mean, inverse, ws
    )
    none = np.empty(0, x.dtype)
    through = (none, none) if constant else (dgamma, dbeta)
    kernel("normalization", "batch_norm_backward_input", device)(
        dx, x, dy, y, gamma, mean, inverse, *through, mask, workspace(device, R, C)
    )
    return dx, dgamma, dbeta


def inference(device, x, gamma, beta, mean, variance, relu=0):
    y, inverse = nans(*x.shape, dtype=x.dtype), nans(x.shape[1], dtype=x.dtype)
    kernel("normalization", "batch_norm_inference", device)(
        y, inverse, x, gamma, beta, mean, variance, EPSILON, relu, workspace(device, *x.shape)
    )
    return y, inverse


def affine(device, x, center, scale, shift):
    y = nans(*x.shape, dtype=x.dtype)
    ws = workspace(device, *x.shape, name="affine")
    kernel("normalization", "affine_forward", device)(y, x, center, scale, shift, ws)
    return y


def arrays(seed, R, C, affine=True, mean=0.0):
    rng = np.random.default_rng(seed)
    x, dy = normal(rng, R, C) + np.float32(mean), normal(rng, R, C)
    gamma, beta = (normal(rng, C if affine else 0) for _ in range(2))
    return rng, x, dy, gamma, beta


def some_mask(rng, R):
    return (rng.random(R) < 0.6).astype(np.uint8)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("device", [CUDA])
def test_many_rows_are_summed_in_parts(device, masked):
    R, C = (45, 3) if gpu.SIMULATED else (300_001, 3)
    rng, x, dy, gamma, beta = arrays(0, R, C, mean=100)
    mask = some_mask(rng, R) if masked else NO_MASK
    y, *ours = forward(device, x, gamma, beta, mask, relu=1)
    wide = (a.astype(np.float64) for a in (x, gamma, beta))
    expected_y, *expected = forward("numpy", *wide, mask, relu=1)
    np.testing.assert_allclose(y, expected_y, atol=1e-3)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    found = backward(device, x, dy, gamma, *ours[:2], mask, y=y)
    wide = (a.astype(np.float64) for a in (x, dy, gamma, *ours[:2]))
    for one, other in zip(found, backward("numpy", *wide, mask, y=y), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * R**0.5)


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    x = np.array([[1, 5], [3, 5], [9, 9]], np.float32)
    gamma, beta = np.array([2, 1], np.float32), np.array([10, 0], np.float32)
    mask = np.array([1, 1, 0], np.uint8)
    y, mean, inverse, moving_mean, moving_variance = forward(device, x, gamma, beta, mask)
    rate = (1 + EPSILON) ** -0.5, EPSILON**-0.5
    np.testing.assert_allclose(mean, [2, 5])
    np.testing.assert_allclose(inverse, rate, rtol=1e-6)
    expected = [[10 - 2 * rate[0], 0], [10 + 2 * rate[0], 0], [10 + 14 * rate[0], 4 * rate[1]]]
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    np.testing.assert_allclose(moving_mean, [0.2, 0.5], rtol=1e-6)
    np.testing.assert_allclose(moving_variance, [1, 0.9], rtol=1e-6)
    dy = np.array([[1, 0], [0, 0], [0, 1]], np.float32)
    dx, dgamma, dbeta = backward(device, x, dy, gamma, mean, inverse, mask)
    np.testing.assert_allclose(dgamma, [-rate[0], 4 * rate[1]], rtol=1e-6)
    np.testing.assert_allclose(dbeta, [1, 1])
    # Of the first channel: 2 rate (dy - (dbeta + normal dgamma) / 2), and no share for the third.
    slope = rate[0] ** 2
    column = [2 * rate[0] * (1 - (1 + slope) / 2), -2 * rate[0] * (1 - slope) / 2, 0]
    np.testing.assert_allclose(dx[:, 0], column, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_worked_affine_map(device):
    x = np.array([[1, 2], [3, 4]], np.float32)
    a, b, none = np.array([2, 3], np.float32), np.array([10, 20], np.float32), x[0, :0]
    assert affine(device, x, none, a, none).tolist() == [[2, 6], [6, 12]]
    assert affine(device, x, a, a, b).tolist() == [[8, 17], [12, 23]]


@pytest.mark.parametrize("device", FAST)
@given(shapes, seeds, st.booleans(), st.booleans())
@example((1, 1), 0, True, True)
@example((1, 300), 0, True, False)
@example((5000, 3), 0, True, False)
@example((1200, 16), 0, False, True)
def test_near_the_float64_reference(device, shape, seed, scaled, masked):
    assume_affordable(device, 8 * np.prod(shape))  # lanes have barriers
    rng, x, dy, gamma, beta = arrays(seed, *shape, scaled)
    mask = some_mask(rng, shape[0]) if masked else NO_MASK
    wide = [a.astype(np.float64) for a in (x, gamma, beta)]
    y, mean, inverse, *moving = forward(device, x, gamma, beta, mask, (2, 3))
    expected, *statistics = forward("numpy", *wide, mask, (2, 3))
    # Where a channel hardly varies, what its mean was rounded by is magnified.
    largest = 8 * statistics[1].max() * (1 + np.abs(x).max())
    assert_within(mean, statistics[0], 4, np.abs(x).max())
    np.testing.assert_allclose(inverse, statistics[1], rtol=2e-5)
    for ours, reference in zip(moving, statistics[2:], strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-6)
    scale = largest * (1 + np.abs(gamma).max(initial=0))
    assert_within(y, expected, 4, scale)
    ours = backward(device, x, dy, gamma, mean, inverse, mask)
    reference = backward("numpy", wide[0], dy.astype(np.float64), wide[1], *statistics[:2], mask)
    size = np.abs(dy).sum(0)
    assert_within(ours[1], reference[1], 30, largest * size)
    assert_within(ours[2], reference[2], 30, size)
    assert_within(ours[0], reference[0], 30, scale * largest * (1 + np.abs(dy).max()))


@pytest.mark.parametrize("device", FAST)
@given(shapes, seeds, st.booleans())
def test_inference_is_near_the_float64_reference(device, shape, seed, scaled):
    rng, x, dy, gamma, beta = arrays(seed, *shape, scaled)
    mean, variance = normal(rng, shape[1]), np.square(normal(rng, shape[1]))
    wide = [a.astype(np.float64) for a in (x, gamma, beta, mean, variance)]
    y, inverse = inference(device, x, gamma, beta, mean, variance)
    expected, exact = inference("numpy", *wide)
    np.testing.assert_allclose(inverse, exact, rtol=1e-6)
    size = exact.max() * (1 + np.abs(gamma).max(initial=0)) * (1 + np.abs(x).max())
    assert_within(y, expected, 4, size)
    dx, *_ = backward(device, x, dy, gamma, mean, inverse, constant=True)
    scale = inverse * gamma if gamma.size else inverse
    np.testing.assert_allclose(dx, dy * scale, rtol=1e-6)


@pytest.mark.parametrize("device", FAST)
@given(shapes, seeds)
def test_the_affine_map_is_exact_on_integers(device, shape, seed):
    rng = np.random.default_rng(seed)
    x, center, scale, shift = (
        rng.integers(-9, 10, size).astype(np.float32) for size in (shape, *(shape[1:],) * 3)
    )
    np.testing.assert_array_equal(
        affine(device, x, center, scale, shift), affine("numpy", x, center, scale, shift)
    )


@given(st.tuples(st.integers(2, 9), st.integers(1, 4)), seeds, st.booleans(), st.booleans())
def test_gradients_of_the_reference(shape, seed, masked, scaled):
    rng, x, _, gamma, beta = arrays(seed, *shape, scaled)
    mask = some_mask(rng, shape[0]) if masked else NO_MASK
    mask[:2] = 1  # of two rows at least, so that the variance is not 0
    x, gamma, beta = (a.astype(np.float64) for a in (3 * x, gamma, beta))

    def gradients(x, gamma, dy):
        _, mean, inverse, *_ = forward("numpy", x, gamma, beta, mask)
        return backward("numpy", x, dy, gamma, mean, inverse, mask)

    check_gradient(
        lambda x: forward("numpy", x, gamma, beta, mask)[0],
        lambda x, dy: gradients(x, gamma, dy)[0],
        x,
        rng,
    )
    if scaled:
        check_gradient(
            lambda gamma: forward("numpy", x, gamma, beta, mask)[0],
            lambda gamma, dy: gradients(x, gamma, dy)[1],
            gamma,
            rng,
        )
        check_gradient(
            lambda beta: forward("numpy", x, gamma, beta, mask)[0],
            lambda beta, dy: gradients(x, gamma, dy)[2],
            beta,
            rng,
        )


@pytest.mark.parametrize("device", DEVICES)
@given(shapes, seeds, st.booleans(), st.booleans(), st.booleans())
@example((1, 1), 0, True, False, True)
@example((2000, 16), 0, True, False, False)
def test_a_fused_relu_is_a_relu_behind(device, shape, seed, scaled, masked, constant):
    assume_affordable(device, 8 * np.prod(shape))  # lanes have barriers
    rng, x, dy, gamma, beta = arrays(seed, *shape, scaled)
    mask = some_mask(rng, shape[0]) if masked else NO_MASK
    plain, mean, inverse, *_ = forward(device, x, gamma, beta, mask)
    y, *_ = forward(device, x, gamma, beta, mask, relu=1)
    np.testing.assert_array_equal(y, np.maximum(plain, 0))
    variance = np.square(normal(rng, shape[1]))
    plain, y1 = (inference(device, x, gamma, beta, mean, variance, relu)[0] for relu in (0, 1))
    np.testing.assert_array_equal(y1, np.maximum(plain, 0))
    closed = np.where(y <= 0, np.float32(0), dy)
    for fused, apart in zip(
        backward(device, x, dy, gamma, mean, inverse, mask, constant, y),
        backward(device, x, closed, gamma, mean, inverse, mask, constant),
        strict=True,
    ):
        np.testing.assert_array_equal(fused, apart)


@pytest.mark.parametrize("device", DEVICES)
def test_nan_and_infinity_pass_a_fused_relu(device):
    x = np.array([[1, np.nan, -1], [3, 1, np.inf]], np.float32)
    one, zero = np.ones(3, np.float32), np.zeros(3, np.float32)
    y, _ = inference(device, x, one, zero, zero, one - np.float32(EPSILON), 1)
    np.testing.assert_allclose(y, [[1, np.nan, 0], [3, 1, np.inf]], rtol=1e-6)
    dy = np.full((2, 3), np.nan, np.float32)
    dx, _, dbeta = backward(device, x, dy, one, zero, one, constant=True, y=y)
    np.testing.assert_array_equal(np.isnan(dx), [[True, True, False], [True, True, True]])
    assert np.isnan(dbeta).all()
    dy[:] = -np.inf
    dx, *_ = backward(device, np.ones_like(x), dy, one, zero, one, constant=True)
    assert (dx == -np.inf).all()


@pytest.mark.parametrize("device", FAST)
def test_a_mean_far_from_zero_costs_no_digits(device):
    rows = 100 if gpu.SIMULATED else 3000
    _, x, _, gamma, beta = arrays(0, rows, 5, mean=1e4)
    wide = [a.astype(np.float64) for a in (x, gamma, beta)]
    y, _, inverse, *_ = forward(device, x, gamma, beta)
    expected, _, exact, *_ = forward("numpy", *wide)
    np.testing.assert_allclose(inverse, exact, rtol=1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    x[0] = 0  # the first row says little about the others
    _, _, inverse, *_ = forward(device, x, gamma, beta)
    np.testing.assert_allclose(
        inverse, forward("numpy", x.astype(np.float64), *wide[1:])[2], rtol=1e-4
    )


@pytest.mark.parametrize("device", DEVICES)
def test_without_any_row_that_counts(device):
    _, x, dy, gamma, beta = arrays(0, 4, 3)
    mask = np.zeros(4, np.uint8)
    y, mean, inverse, moving_mean, moving_variance = forward(device, x, gamma, beta, mask)
    np.testing.assert_allclose(y, x * gamma * EPSILON**-0.5 + beta, rtol=1e-5)
    assert mean.tolist() == [0, 0, 0]
    np.testing.assert_allclose(moving_mean, 0)
    np.testing.assert_allclose(moving_variance, MOMENTUM, rtol=1e-6)
    dx, *_ = backward(device, x, dy, gamma, mean, inverse, mask)
    np.testing.assert_allclose(dx, dy * gamma * EPSILON**-0.5, rtol=1e-5)


@pytest.mark.parametrize("device", FAST)
def test_masked_rows_may_hold_anything_and_nan_stays_in_its_channel(device):
    _, x, dy, gamma, beta = arrays(0, 40, 3)
    mask = np.ones(40, np.uint8)
    mask[[0, 7]] = 0
    x[[0, 7]] = np.nan
    y, mean, inverse, *_ = forward(device, x, gamma, beta, mask)
    assert np.isfinite(y[mask == 1]).all()
    assert np.isnan(y[mask == 0]).all()
    x[[0, 7]] = 1
    x[3, 1] = np.nan
    y, mean, inverse, *_ = forward(device, x, gamma, beta)
    assert np.isnan(y[:, 1]).all()
    assert np.isfinite(y[:, [0, 2]]).all()
    dx, dgamma, _ = backward(device, x, dy, gamma, mean, inverse)
    assert np.isnan(dx[:, 1]).all()
    assert np.isnan(dgamma).tolist() == [False, True, False]


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
@pytest.mark.parametrize("shape", [(30_000, 3), (700, 130)])
def test_the_same_bits_on_any_number_of_threads(shape):
    rng, x, dy, gamma, beta = arrays(0, *shape)
    for mask in (NO_MASK, some_mask(rng, shape[0])):
        results = []
        for threads in (1, numba.config.NUMBA_NUM_THREADS):
            numba.set_num_threads(threads)
            y, mean, inverse, *_ = forward("cpu", x, gamma, beta, mask)
            results.append((y, mean, *backward("cpu", x, dy, gamma, mean, inverse, mask)))
        for one, other in zip(*results, strict=True):
            np.testing.assert_array_equal(one, other)


def test_agreement_with_pytorch():
    torch = pytest.importorskip("torch")
    _, x, dy, gamma, beta = arrays(0, 60, 7, mean=3)
    layer = torch.nn.BatchNorm1d(7, eps=EPSILON, momentum=1 - MOMENTUM)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(gamma))
        layer.bias.copy_(torch.tensor(beta))
    tensor = torch.tensor(x, requires_grad=True)
    expected = layer(tensor)
    expected.backward(torch.tensor(dy))
    y, mean, inverse, moving_mean, _ = forward("cpu", x, gamma, beta)
    np.testing.assert_allclose(y, expected.detach(), atol=2e-6)
    np.testing.assert_allclose(moving_mean, layer.running_mean, rtol=1e-5)
    dx, dgamma, dbeta = backward("cpu", x, dy, gamma, mean, inverse)
    np.testing.assert_allclose(dx, tensor.grad, atol=3e-6)
    np.testing.assert_allclose(dgamma, layer.weight.grad, atol=3e-5)
    np.testing.assert_allclose(dbeta, layer.bias.grad, atol=1e-5)
