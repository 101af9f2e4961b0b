"""Layer and group normalization: reference, CPU and mathematics agree."""

import numba
import numpy as np
import pytest
from checks import (
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
from strategies import seeds, upto

from minicnnrnn.kernels import gpu
from minicnnrnn.kernels.jit import JIT

EPSILON = 1e-3
MODULE = "group_normalization"


@st.composite
def grouped(draw, most=40):
    """(N, S, C) and G."""
    G = draw(st.integers(1, 2 if gpu.SIMULATED else 5))
    C = G * draw(st.integers(1, 2 if gpu.SIMULATED else 6))
    return (draw(upto(3 if gpu.SIMULATED else 6)), draw(upto(most)), C), G


def of_layer(device, x, dy, gamma, beta):
    """Output, mean, inverse, and the gradients of input, gamma and beta; rows (R, C)."""
    R, C = x.shape
    y, dx = nans(R, C, dtype=x.dtype), nans(R, C, dtype=x.dtype)
    mean, inverse = nans(R, dtype=x.dtype), nans(R, dtype=x.dtype)
    dgamma, dbeta = nans(C, dtype=x.dtype), nans(C, dtype=x.dtype)
    ws = nans(kernel(MODULE, "layer_norm_workspace", device)(R, C))
    kernel(MODULE, "layer_norm_forward", device)(y, mean, inverse, x, gamma, beta, EPSILON)
    kernel(MODULE, "layer_norm_backward_weight", device)(dgamma, dbeta, x, dy, mean, inverse, ws)
    kernel(MODULE, "layer_norm_backward_input", device)(dx, x, dy, gamma, mean, inverse)
    return y, mean, inverse, dx, dgamma, dbeta


def of_groups(device, x, dy, gamma, beta, G):
    """The same of groups; (N, S, C)."""
    N, S, C = x.shape
    y, dx = nans(N, S, C, dtype=x.dtype), nans(N, S, C, dtype=x.dtype)
    mean, inverse = nans(N, G, dtype=x.dtype), nans(N, G, dtype=x.dtype)
    dgamma, dbeta = nans(C, dtype=x.dtype), nans(C, dtype=x.dtype)
    size = kernel(MODULE, "group_norm_workspace", device)(N, S, C)
    kernel(MODULE, "group_norm_forward", device)(
        y, mean, inverse, x, gamma, beta, EPSILON, nans(size)
    )
    kernel(MODULE, "group_norm_backward_weight", device)(
        dgamma, dbeta, x, dy, mean, inverse, nans(size)
    )
    kernel(MODULE, "group_norm_backward_input", device)(dx, x, dy, gamma, mean, inverse, nans(size))
    return y, mean, inverse, dx, dgamma, dbeta


def arrays(seed, shape, affine=True, mean=0.0):
    rng = np.random.default_rng(seed)
    x, dy = normal(rng, *shape) + np.float32(mean), normal(rng, *shape)
    gamma, beta = (normal(rng, shape[-1] if affine else 0) for _ in range(2))
    return rng, x, dy, gamma, beta


def assert_near(ours, reference, x, dy, gamma):
    """Of all six results: rounding is magnified where a row hardly varies."""
    _, _, inverse, *_ = reference
    largest = 8 * inverse.max() * (1 + np.abs(x).max()) * (1 + np.abs(gamma).max(initial=0))
    size = np.abs(dy).sum(axis=tuple(range(dy.ndim - 1)))
    assert_within(ours[0], reference[0], 8, largest)
    assert_within(ours[1], reference[1], 8, np.abs(x).max())
    np.testing.assert_allclose(ours[2], inverse, rtol=2e-5)
    assert_within(ours[3], reference[3], 30, largest**2 * (1 + np.abs(dy).max()))
    assert_within(ours[4], reference[4], 30, largest * size)
    assert_within(ours[5], reference[5], 30, size)


@pytest.mark.parametrize("device", DEVICES)
def test_worked_examples(device):
    x, dy = np.array([[1, 3], [8, 4]], np.float32), np.array([[1, 0], [0, 1]], np.float32)
    gamma, beta = np.array([1, 2], np.float32), np.array([0, 10], np.float32)
    a, b = (1 + EPSILON) ** -0.5, 2 * (4 + EPSILON) ** -0.5
    y, mean, inverse, dx, dgamma, dbeta = of_layer(device, x, dy, gamma, beta)
    np.testing.assert_allclose(y, [[-a, 10 + 2 * a], [b, 10 - 2 * b]], rtol=1e-6)
    np.testing.assert_allclose(mean, [2, 6])
    np.testing.assert_allclose(inverse, [a, b / 2], rtol=1e-6)
    np.testing.assert_allclose(dgamma, [-a, -b], rtol=1e-6)
    np.testing.assert_allclose(dbeta, [1, 1])
    # g = (1, 0): a (g - 1/2 - normal (-a / 2)), and the two sum to zero
    first = a * (0.5 - a * a / 2)
    np.testing.assert_allclose(dx[0], [first, -first], rtol=1e-4)
    # The same numbers as two pixels of one channel: gamma and beta are those of a channel then.
    y, mean, *_ = of_groups(device, x.reshape(2, 2, 1), dy.reshape(2, 2, 1), gamma[1:], beta[1:], 1)
    np.testing.assert_allclose(
        y.reshape(2, 2), [[10 - 2 * a, 10 + 2 * a], [10 + 2 * b, 10 - 2 * b]], rtol=1e-6
    )
    # As two groups of one channel, nothing is left of them.
    y, mean, *_ = of_groups(device, x.reshape(2, 1, 2), dy.reshape(2, 1, 2), gamma, beta, 2)
    assert y.tolist() == [[[0, 10]], [[0, 10]]]
    assert mean.tolist() == x.tolist()


@pytest.mark.parametrize("device", FAST)
@given(st.tuples(upto(200), upto(60)), seeds, st.booleans())
@example((1, 1), 0, True)
@example((3000, 5), 0, True)
def test_layers_are_near_the_float64_reference(device, shape, seed, affine):
    assume_affordable(device, np.prod(shape))
    _, x, dy, gamma, beta = arrays(seed, shape, affine)
    wide = [a.astype(np.float64) for a in (x, dy, gamma, beta)]
    assert_near(of_layer(device, x, dy, gamma, beta), of_layer("numpy", *wide), x, dy, gamma)


@pytest.mark.parametrize("device", FAST)
@given(grouped(), seeds, st.booleans())
@example(((1, 1, 1), 1), 0, True)
@example(((2, 3, 300), 4), 0, True)
@example(((3, 400, 8), 2), 0, False)
def test_groups_are_near_the_float64_reference(device, shape_and_groups, seed, affine):
    shape, G = shape_and_groups
    assume_affordable(device, np.prod(shape))
    _, x, dy, gamma, beta = arrays(seed, shape, affine)
    wide = [a.astype(np.float64) for a in (x, dy, gamma, beta)]
    ours = of_groups(device, x, dy, gamma, beta, G)
    assert_near(ours, of_groups("numpy", *wide, G), x, dy, gamma)


@given(grouped(most=4), seeds, st.booleans())
def test_gradients_of_the_reference(shape_and_groups, seed, affine):
    shape, G = shape_and_groups
    rng, x, dy, gamma, beta = arrays(seed, shape, affine)
    x, dy, gamma, beta = (a.astype(np.float64) for a in (3 * x, dy, gamma, beta))
    rows, dy_rows = x.reshape(-1, shape[-1]), dy.reshape(-1, shape[-1])

    def groups(x=x, gamma=gamma, beta=beta, dy=dy):
        return of_groups("numpy", x, dy, gamma, beta, G)

    def layer(x=rows, gamma=gamma, beta=beta, dy=dy_rows):
        return of_layer("numpy", x, dy, gamma, beta)

    for function, start in ((groups, x), (layer, rows)):
        values = {"x": start, "gamma": gamma, "beta": beta} if affine else {"x": start}
        for place, (name, value) in enumerate(values.items()):
            check_gradient(
                lambda v, f=function, n=name: f(**{n: v})[0],
                lambda v, dy, f=function, n=name, p=place: f(**{n: v}, dy=dy)[3 + p],
                value,
                rng,
            )


@pytest.mark.parametrize("device", FAST)
def test_a_mean_far_from_zero_costs_no_digits(device):
    _, x, dy, gamma, beta = arrays(0, (3, 20 if gpu.SIMULATED else 500, 6), mean=1e4)
    wide = [a.astype(np.float64) for a in (x, dy, gamma, beta)]
    ours, exact = of_groups(device, x, dy, gamma, beta, 2), of_groups("numpy", *wide, 2)
    np.testing.assert_allclose(ours[0], exact[0], rtol=1e-5, atol=1e-5)
    _, x, dy, gamma, beta = arrays(0, (5, 50 if gpu.SIMULATED else 3000), mean=1e4)
    wide = [a.astype(np.float64) for a in (x, dy, gamma, beta)]
    ours, exact = of_layer(device, x, dy, gamma, beta), of_layer("numpy", *wide)
    np.testing.assert_allclose(ours[0], exact[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", FAST)
def test_nan_spoils_its_group_only(device):
    _, x, dy, gamma, beta = arrays(0, (2, 9, 6))
    x[0, 4, 1] = np.nan
    y, _, _, dx, *_ = of_groups(device, x, dy, gamma, beta, 2)
    for result in (y, dx):
        assert np.isnan(result[0, :, :3]).all()
        assert np.isfinite(result[0, :, 3:]).all()
        assert np.isfinite(result[1]).all()
    y, _, _, dx, *_ = of_layer(device, x[0], dy[0], gamma, beta)
    for result in (y, dx):
        assert np.isnan(result).all(axis=1).tolist() == [row == 4 for row in range(9)]
        assert np.isfinite(np.delete(result, 4, axis=0)).all()


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_bits_on_any_number_of_threads():
    _, x, dy, gamma, beta = arrays(0, (37, 200, 12))
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        rows = x.reshape(-1, 12), dy.reshape(-1, 12)
        results.append(
            (*of_groups("cpu", x, dy, gamma, beta, 3), *of_layer("cpu", *rows, gamma, beta))
        )
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_agreement_with_pytorch():
    torch = pytest.importorskip("torch")
    _, x, dy, gamma, beta = arrays(0, (5, 11, 6), mean=1)
    for layer, axes in (
        (torch.nn.LayerNorm(6, eps=EPSILON), (0, 1, 2)),
        (torch.nn.GroupNorm(3, 6, eps=EPSILON), (0, 2, 1)),
    ):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(gamma))
            layer.bias.copy_(torch.tensor(beta))
        tensor = torch.tensor(x, requires_grad=True)
        expected = layer(tensor.permute(axes)).permute(axes)
        expected.backward(torch.tensor(dy))
        if axes[1] == 1:
            ours = of_layer("cpu", x.reshape(-1, 6), dy.reshape(-1, 6), gamma, beta)
        else:
            ours = of_groups("cpu", x, dy, gamma, beta, 3)
        for mine, theirs in zip(
            (ours[0].reshape(x.shape), ours[3].reshape(x.shape), *ours[4:]),
            (expected.detach(), tensor.grad, layer.weight.grad, layer.bias.grad),
            strict=True,
        ):
            np.testing.assert_allclose(mine, theirs, atol=3e-5)
