"""Padding, cropping, magnifying, permuting: reference, CPU and mathematics agree."""

import itertools

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
from strategies import seeds

from minicnnrnn.kernels import gpu
from minicnnrnn.kernels.jit import JIT

sizes, short = (st.integers(1, 3 if gpu.SIMULATED else n) for n in (6, 4))


def run(device, name, shape, x, *integers):
    y = nans(*shape, dtype=x.dtype)
    kernel("resample", name, device)(y, x, *integers)
    return y


def image(*rows):
    return np.array(rows, np.float32)[None, None, :, :, None]


@pytest.mark.parametrize("device", DEVICES)
def test_worked_examples(device):
    x = image([1, 2, 3], [4, 5, 6])
    y = run(device, "pad_forward", (1, 1, 3, 4, 1), x, 0, 1, -1)
    np.testing.assert_array_equal(y, image([0, 0, 0, 0], [2, 3, 0, 0], [5, 6, 0, 0]))
    y = run(device, "upsample_forward", (1, 1, 2, 6, 1), x, 1, 1, 2)
    np.testing.assert_array_equal(y, image([1, 1, 2, 2, 3, 3], [4, 4, 5, 5, 6, 6]))
    dx = run(device, "upsample_backward_input", (1, 1, 1, 3, 1), x, 1, 2, 1)
    np.testing.assert_array_equal(dx, image([5, 7, 9]))
    y = run(device, "bilinear_forward", (1, 2, 4, 1), image([0, 4], [8, 12])[0], 1, 2)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 1, 3, 4], [8, 9, 11, 12]])
    dx = run(device, "bilinear_backward_input", (1, 1, 2, 1), image([4, 8, 16, 32])[0], 1, 2)
    np.testing.assert_array_equal(dx[0, :, :, 0], [[4 + 6 + 4, 2 + 12 + 32]])
    x6 = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 1, 2, 3)
    y = run(device, "permute_forward", (1, 1, 1, 1, 3, 2), x6, 1, 2, 3, 5, 4)
    np.testing.assert_array_equal(y[0, 0, 0, 0], [[0, 3], [1, 4], [2, 5]])


@pytest.mark.parametrize("device", FAST)
@given(st.tuples(*[sizes] * 5), st.tuples(*[st.integers(-3, 3)] * 6), seeds)
@example((1, 1, 1, 1, 1), (0,) * 6, 0)
@example((1, 1, 1, 4, 2), (0, 0, 0, 0, -2, -1), 0)
@example((2, 1, 3, 3, 2), (0, 0, 5, 5, -3, 3), 0)  # nothing of x is left
def test_padding_and_cropping(device, shape, pads, seed):
    x = integer_valued(np.random.default_rng(seed), *shape)
    outputs = [max(1, n + pads[2 * i] + pads[2 * i + 1]) for i, n in enumerate(shape[1:4])]
    one, other = (run(d, "pad_forward", (shape[0], *outputs, shape[4]), x, *pads[::2])
                  for d in (device, "numpy"))  # fmt: skip
    np.testing.assert_array_equal(one, other)
    back = [run(d, "pad_forward", shape, one, *(-p for p in pads[::2])) for d in (device, "numpy")]
    np.testing.assert_array_equal(*back)
    if min(pads) >= 0:
        np.testing.assert_array_equal(back[0], x)
        assert one.sum() == x.sum()


@pytest.mark.parametrize("device", FAST)
@given(st.tuples(*[sizes] * 5), st.tuples(*[sizes] * 3), seeds)
@example((1, 1, 1, 1, 1), (1, 1, 1), 0)
def test_nearest_neighbours(device, shape, scale, seed):
    rng = np.random.default_rng(seed)
    large = (shape[0], *(n * s for n, s in zip(shape[1:4], scale)), shape[4])
    x, dy = integer_valued(rng, *shape), integer_valued(rng, *large)
    y = [run(d, "upsample_forward", large, x, *scale) for d in (device, "numpy")]
    dx = [run(d, "upsample_backward_input", shape, dy, *scale) for d in (device, "numpy")]
    np.testing.assert_array_equal(*y)
    np.testing.assert_array_equal(*dx)
    assert (x * dx[1]).sum() == (y[1] * dy).sum()  # the one is the transpose of the other


@pytest.mark.parametrize("device", FAST)
@given(st.tuples(*[sizes] * 4), st.tuples(*[sizes] * 2), seeds)
@example((1, 1, 1, 1), (1, 1), 0)
@example((1, 2, 1, 1), (3, 5), 0)
@example((1, 1, 1, 1), (1, 1), 8)  # a single number, below zero
def test_bilinear(device, shape, scale, seed):
    rng = np.random.default_rng(seed)
    large = (shape[0], shape[1] * scale[0], shape[2] * scale[1], shape[3])
    x, dy = normal(rng, *shape), normal(rng, *large)
    y = run(device, "bilinear_forward", large, x, *scale)
    wide = run("numpy", "bilinear_forward", large, x.astype(np.float64), *scale)
    assert_within(y, wide, 8)
    assert y.max() <= x.max() + 1e-6 * abs(x.max()) + 1e-6  # numbers below zero, too
    dx = run(device, "bilinear_backward_input", shape, dy, *scale)
    wide = run("numpy", "bilinear_backward_input", shape, dy.astype(np.float64), *scale)
    assert_within(dx, wide, 8 + 4 * scale[0] * scale[1], np.abs(dy).max() * 9 * np.prod(scale))
    check_gradient(
        lambda x: run("numpy", "bilinear_forward", large, x, *scale),
        lambda x, dy: run("numpy", "bilinear_backward_input", shape, dy, *scale),
        x,
        rng,
    )


@pytest.mark.parametrize("device", FAST)
@pytest.mark.parametrize("scale", [(1, 1), (2, 4), (4, 2)])
def test_bilinear_is_exact_where_its_weights_are(device, scale):
    rng = np.random.default_rng(0)
    x = integer_valued(rng, 2, 3, 4, 5)
    large = (2, 3 * scale[0], 4 * scale[1], 5)
    dy = integer_valued(rng, *large)
    np.testing.assert_array_equal(
        *(run(d, "bilinear_forward", large, x, *scale) for d in (device, "numpy"))
    )
    np.testing.assert_array_equal(
        *(run(d, "bilinear_backward_input", x.shape, dy, *scale) for d in (device, "numpy"))
    )


@pytest.mark.parametrize("device", FAST)
@settings(max_examples=20)
@given(
    st.permutations(range(1, 6)), st.tuples(*[st.integers(1, 2 if gpu.SIMULATED else 4)] * 6), seeds
)
@example([1, 2, 3, 4, 5], (1,) * 6, 0)
def test_permutations_and_their_inverse(device, order, shape, seed):
    x = normal(np.random.default_rng(seed), *shape)
    permuted = (shape[0], *(shape[axis] for axis in order))
    y = [run(d, "permute_forward", permuted, x, *order) for d in (device, "numpy")]
    np.testing.assert_array_equal(*y)
    inverse = [order.index(axis) + 1 for axis in range(1, 6)]
    np.testing.assert_array_equal(run(device, "permute_forward", shape, y[1], *inverse), x)


@settings(max_examples=10)
@given(st.tuples(*[sizes] * 5), seeds)
def test_gradients_of_the_references(shape, seed):
    rng = np.random.default_rng(seed)
    x = normal(rng, *shape, dtype=np.float64)
    larger = (shape[0], shape[1] + 3, shape[2], shape[3] + 1, shape[4])
    check_gradient(
        lambda x: run("numpy", "pad_forward", larger, x, 1, 0, 1),
        lambda x, dy: run("numpy", "pad_forward", shape, dy, -1, 0, -1),
        x,
        rng,
    )
    larger = (shape[0], 2 * shape[1], shape[2], 3 * shape[3], shape[4])
    check_gradient(
        lambda x: run("numpy", "upsample_forward", larger, x, 2, 1, 3),
        lambda x, dy: run("numpy", "upsample_backward_input", shape, dy, 2, 1, 3),
        x,
        rng,
    )


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_bits_on_one_thread_and_on_all():
    rng, results = np.random.default_rng(0), []
    x, dy = normal(rng, 9, 24, 20, 17), normal(rng, 9, 72, 40, 17)
    x5, dy5, large = x[:, None], dy[:, None], (9, 1, 72, 40, 17)
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append((
            run("cpu", "pad_forward", (9, 1, 30, 19, 17), x5, 0, 3, -1),
            run("cpu", "upsample_forward", large, x5, 1, 3, 2),
            run("cpu", "upsample_backward_input", x5.shape, dy5, 1, 3, 2),
            run("cpu", "bilinear_forward", dy.shape, x, 3, 2),
            run("cpu", "bilinear_backward_input", x.shape, dy, 3, 2),
            run("cpu", "permute_forward", (9, 17, 1, 20, 1, 24), x[:, None, None], 5, 1, 4, 2, 3),
        ))  # fmt: skip
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


def test_agreement_with_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for size, scale in itertools.product([(1, 1), (3, 4), (5, 2)], [(2, 2), (3, 1), (4, 5)]):
        x = normal(rng, 2, *size, 3)
        large = (size[0] * scale[0], size[1] * scale[1])
        tensor = torch.tensor(x).permute(0, 3, 1, 2).requires_grad_()
        for mode, name in (("bilinear", "bilinear"), ("nearest", "upsample")):
            options = {"align_corners": False} if mode == "bilinear" else {}
            theirs = torch.nn.functional.interpolate(tensor, size=large, mode=mode, **options)
            dy = normal(rng, 2, *large, 3)
            (gradient,) = torch.autograd.grad(theirs, tensor, torch.tensor(dy).permute(0, 3, 1, 2))
            if mode == "nearest":
                y = run("cpu", f"{name}_forward", (2, 1, *large, 3), x[:, None], 1, *scale)[:, 0]
                shape = (2, 1, *size, 3)
                dx = run("cpu", f"{name}_backward_input", shape, dy[:, None], 1, *scale)[:, 0]
            else:
                y = run("cpu", f"{name}_forward", dy.shape, x, *scale)
                dx = run("cpu", f"{name}_backward_input", x.shape, dy, *scale)
            expected = theirs.detach().permute(0, 2, 3, 1).numpy()
            np.testing.assert_allclose(y, expected, atol=1e-6)
            np.testing.assert_allclose(dx, gradient.permute(0, 2, 3, 1).numpy(), atol=1e-5)
