"""Rectifiers with parameters: reference, CPU and mathematics agree."""

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
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.jit import JIT

PARAMETERS = st.tuples(
    st.sampled_from([0.0, 0.25, 1.0]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([0.5, 2, np.inf]),
)


def relu(device, x, dy, slope, threshold, highest):
    y, dx = nans(x.size, dtype=x.dtype), nans(x.size, dtype=x.dtype)
    kernel("relu", "relu_forward", device)(y, x, slope, threshold, highest)
    kernel("relu", "relu_backward", device)(dx, dy, x, slope, threshold, highest)
    return y, dx


def prelu(device, x, w, dy):
    y, dx, dw = (nans(*a.shape, dtype=x.dtype) for a in (x, x, w))
    ws = nans(kernel("relu", "prelu_workspace", device)(w.size), dtype=x.dtype)
    kernel("relu", "prelu_forward", device)(y, x, w)
    kernel("relu", "prelu_backward_input", device)(dx, dy, x, w)
    kernel("relu", "prelu_backward_weight", device)(dw, dy, x, ws)
    return y, dx, dw


@pytest.mark.parametrize("device", DEVICES)
def test_worked_examples(device):
    x = np.array([-3, 0, 1, 1.5, 2, 9], np.float32)
    dy = np.full(6, 2, np.float32)
    y, dx = relu(device, x, dy, 0.5, 1.0, 2.0)
    assert y.tolist() == [-2, -0.5, 0, 1.5, 2, 2]
    assert dx.tolist() == [1, 1, 0, 2, 0, 0]
    x = np.array([[-3, 0], [1, -1.5]], np.float32).reshape(2, 1, 1, 1, 2)
    w = np.array([0.5, 2], np.float32).reshape(1, 1, 1, 1, 2)
    y, dx, dw = prelu(device, x, w, np.full(x.shape, 2, np.float32))
    assert y.ravel().tolist() == [-1.5, 0, 1, -3]
    assert dx.ravel().tolist() == [1, 0, 2, 4]
    assert dw.ravel().tolist() == [-6, -3]


@pytest.mark.parametrize("device", FAST)
@given(upto(60), PARAMETERS, seeds)
def test_relu_equals_its_reference(device, size, parameters, seed):
    rng = np.random.default_rng(seed)
    x, dy = integer_valued(rng, size) / 2, integer_valued(rng, size)
    for one, other in zip(*(relu(d, x, dy, *parameters) for d in ("numpy", device))):
        np.testing.assert_array_equal(one, other)
    x = rng.choice([-2.3, -0.7, 0.3, 0.8, 1.7, 2.2], size)  # away from the kinks
    check_gradient(
        lambda x: relu("numpy", x, x, *parameters)[0],
        lambda x, dy: relu("numpy", x, dy, *parameters)[1],
        x,
        rng,
    )


@pytest.mark.parametrize("device", FAST)
@given(st.tuples(*[upto(5)] * 5), st.tuples(*[st.booleans()] * 4), seeds)
@example((30, 1, 2, 1, 3), (True, True, True, False), 0)
@example((1, 1, 1, 1, 1), (False,) * 4, 0)
@example((20, 1, 2, 3, 40), (True, True, True, False), 0)
@example((20, 1, 2, 3, 40), (False, False, False, True), 0)
def test_prelu_equals_its_reference(device, shape, shared, seed):
    assume_affordable(device, np.prod(shape))
    rng = np.random.default_rng(seed)
    slopes = (1, *(1 if same else n for n, same in zip(shape[1:], shared)))
    x, dy = integer_valued(rng, *shape), integer_valued(rng, *shape)
    w = integer_valued(rng, *slopes)
    for one, other in zip(*(prelu(d, x, w, dy) for d in ("numpy", device))):
        np.testing.assert_array_equal(one, other)
    x, dy, w = normal(rng, *shape), normal(rng, *shape), normal(rng, *slopes)
    wide = prelu("numpy", *(a.astype(np.float64) for a in (x, w, dy)))
    terms = x.size // w.size
    for ours, reference in zip(prelu(device, x, w, dy), wide):
        assert_within(ours, reference, terms, np.abs(x).max() * (1 + np.abs(dy).max()) * terms)


@given(st.tuples(*[st.integers(1, 4)] * 5), st.tuples(*[st.booleans()] * 4), seeds)
def test_gradients_of_the_prelu_reference(shape, shared, seed):
    rng = np.random.default_rng(seed)
    slopes = (1, *(1 if same else n for n, same in zip(shape[1:], shared)))
    x, w = normal(rng, *shape, dtype=np.float64), normal(rng, *slopes, dtype=np.float64)
    x += np.where(x < 0, -1e-3, 1e-3)
    check_gradient(
        lambda x: prelu("numpy", x, w, x)[0], lambda x, dy: prelu("numpy", x, w, dy)[1], x, rng
    )
    check_gradient(
        lambda w: prelu("numpy", x, w, x)[0], lambda w, dy: prelu("numpy", x, w, dy)[2], w, rng
    )


@pytest.mark.parametrize("device", DEVICES)
def test_nan_stays_and_infinity_has_its_limit(device):
    x = np.array([np.nan, np.inf, -np.inf], np.float32)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(relu(device, x, x, 0.0, 1.0, 6.0)[0], [np.nan, 6, 0])
        np.testing.assert_array_equal(relu(device, x, x, 0.5, 0.0, np.inf)[0], x)
        x5, w = x.reshape(3, 1, 1, 1, 1), np.ones((1, 1, 1, 1, 1), np.float32)
        y, _, dw = prelu(device, x5, w, x5)
    np.testing.assert_array_equal(y, x5)
    assert np.isnan(dw).all()


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_bits_on_one_thread_and_on_all():
    rng, results = np.random.default_rng(0), []
    x, dy, w = (
        normal(rng, 33, 1, 8, 9, 21),
        normal(rng, 33, 1, 8, 9, 21),
        normal(rng, 1, 1, 1, 1, 21),
    )
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append(
            (*relu("cpu", x.ravel(), dy.ravel(), 0.3, 0.1, 2.0), *prelu("cpu", x, w, dy))
        )
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


def test_agreement_with_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, dy, w = normal(rng, 4, 1, 5, 6, 7), normal(rng, 4, 1, 5, 6, 7), normal(rng, 1, 1, 1, 1, 7)
    image = torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)
    slopes = torch.tensor(w.ravel(), requires_grad=True)
    expected = torch.nn.functional.prelu(image, slopes)
    expected.backward(torch.tensor(np.moveaxis(dy, -1, 1).copy()))
    y, dx, dw = prelu("cpu", x, w, dy)
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), expected.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(np.moveaxis(dx, -1, 1), image.grad.numpy(), rtol=1e-6)
    np.testing.assert_allclose(dw.ravel(), slopes.grad.numpy(), rtol=1e-5)
