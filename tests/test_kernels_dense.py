"""Dense: reference, CPU and mathematics agree."""

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

shapes = st.tuples(upto(40), upto(300), upto(70))


def forward(device, x, w, b, relu=0):
    N, C, F = *x.shape, w.shape[1]
    ws = nans(kernel("dense", "dense_workspace", device)(N, C, F))
    y = nans(N, F, dtype=x.dtype)
    kernel("dense", "dense_prepare", device)(w, ws)
    kernel("dense", "dense_forward", device)(y, x, w, b, relu, ws)
    return y


def backward(device, x, w, dy, bias=True):
    N, C, F = *x.shape, w.shape[1]
    ws = nans(kernel("dense", "dense_workspace", device)(N, C, F))
    dx, dw, db = (nans(*a.shape, dtype=x.dtype) for a in (x, w, np.empty(F if bias else 0)))
    kernel("dense", "dense_backward_input", device)(dx, dy, w, ws)
    kernel("dense", "dense_backward_weight", device)(dw, db, x, dy, ws)
    return dx, dw, db


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    x = np.array([[1, 2]], np.float32)
    w = np.array([[1, 0, -1], [2, 1, -3]], np.float32)
    b = np.array([10, 20, 0], np.float32)
    assert forward(device, x, w, b).tolist() == [[15, 22, -7]]
    assert forward(device, x, w, b, relu=1).tolist() == [[15, 22, 0]]
    dx, dw, db = backward(device, x, w, np.array([[1, 2, 0]], np.float32))
    assert dx.tolist() == [[1, 4]]
    assert dw.tolist() == [[1, 2, 0], [2, 4, 0]]
    assert db.tolist() == [1, 2, 0]


@pytest.mark.parametrize("device", FAST)
@given(shapes, seeds, st.booleans(), st.integers(0, 1))
@example((1, 1, 1), 0, True, 0)
@example((50, 3, 2), 0, True, 0)  # on a GPU a weight gradient in parts
@example((4, 64, 4), 1, True, 1)  # on a GPU an output in parts, an input's gradient
@example((3, 6, 70), 1, False, 0)
@example((200, 300, 64), 1, True, 1)
def test_equals_the_reference_exactly_on_integers(device, shape, seed, bias, relu):
    rng = np.random.default_rng(seed)
    N, C, F = shape
    assume_affordable(device, N * C, C * F)
    x, w, dy = (integer_valued(rng, *s) for s in ((N, C), (C, F), (N, F)))
    b = integer_valued(rng, F if bias else 0)
    np.testing.assert_array_equal(forward(device, x, w, b, relu), forward("numpy", x, w, b, relu))
    for ours, reference in zip(
        backward(device, x, w, dy, bias), backward("numpy", x, w, dy, bias), strict=True
    ):
        np.testing.assert_array_equal(ours, reference)


@pytest.mark.parametrize("device", FAST)
@given(shapes, seeds)
def test_within_rounding_of_the_float64_reference(device, shape, seed):
    rng = np.random.default_rng(seed)
    N, C, F = shape
    x, w, b, dy = (normal(rng, *s) for s in ((N, C), (C, F), (F,), (N, F)))
    wide = [a.astype(np.float64) for a in (x, w, b, dy)]
    assert_within(
        forward(device, x, w, b), forward("numpy", *wide[:3]), C, np.abs(x) @ np.abs(w) + np.abs(b)
    )
    dx, dw, db = backward(device, x, w, dy)
    ex, ew, eb = backward("numpy", wide[0], wide[1], wide[3])
    assert_within(dx, ex, F, np.abs(dy) @ np.abs(w).T)
    assert_within(dw, ew, N, np.abs(x).T @ np.abs(dy))
    assert_within(db, eb, N, np.abs(dy).sum(0))


@given(shapes, seeds)
def test_gradients_of_the_reference(shape, seed):
    rng = np.random.default_rng(seed)
    N, C, F = shape
    x, w, b = (normal(rng, *s, dtype=np.float64) for s in ((N, C), (C, F), (F,)))
    check_gradient(
        lambda x: forward("numpy", x, w, b), lambda x, dy: backward("numpy", x, w, dy)[0], x, rng
    )
    check_gradient(
        lambda w: forward("numpy", x, w, b), lambda w, dy: backward("numpy", x, w, dy)[1], w, rng
    )
    check_gradient(
        lambda b: forward("numpy", x, w, b), lambda b, dy: backward("numpy", x, w, dy)[2], b, rng
    )


@pytest.mark.parametrize("device", FAST)
def test_nan_passes_through_relu(device):
    x = np.array([[np.nan, 1]], np.float32)
    w = np.ones((2, 3), np.float32)
    assert np.isnan(forward(device, x, w, np.zeros(3, np.float32), relu=1)).all()
