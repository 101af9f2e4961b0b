"""What the recurrent kernels share: sequences in another order, and dropout over all steps."""

import numpy as np
import pytest
from checks import DEVICES, FAST, assume_affordable, kernel, nans
from hypothesis import example, given
from hypothesis import strategies as st
from recurrent_cases import GATES, arrays, assert_near, assert_same, train
from strategies import upto

from minicnnrnn.kernels.codes import AS_IT_IS, FROM_SAMPLES, FROM_STEPS
from minicnnrnn.kernels.product import precision

SIZES = upto(9)


def copied(device, x, keep, turn, backwards):
    a, b, P = x.shape
    y = nans(a, b, P, dtype=x.dtype) if turn == AS_IT_IS else nans(b, a, P, dtype=x.dtype)
    kernel("recurrent", "steps_forward", device)(y, x, keep, turn, backwards)
    return y


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    x = np.array([[[1, 2], [3, 4], [5, 6]]], np.float32)  # a sample, three steps
    keep, nothing = np.array([[0, 2]], np.float32), np.zeros((0, 0), np.float32)
    assert copied(device, x, keep, AS_IT_IS, 0).tolist() == [[[0, 4], [0, 8], [0, 12]]]
    assert copied(device, x, nothing, FROM_SAMPLES, 0).tolist() == [[[1, 2]], [[3, 4]], [[5, 6]]]
    turned = copied(device, x, keep, FROM_SAMPLES, 1)
    assert turned.tolist() == [[[0, 12]], [[0, 8]], [[0, 4]]]
    assert copied(device, turned, nothing, FROM_STEPS, 1).tolist() == [[[0, 4], [0, 8], [0, 12]]]


@pytest.mark.parametrize("device", FAST)
@given(SIZES, SIZES, upto(40), st.integers(0, 2), st.integers(0, 1), st.booleans())
@example(64, 80, 90, FROM_SAMPLES, 1, True)
def test_equal_to_the_reference_and_the_way_back(device, N, T, P, turn, backwards, dropped):
    assume_affordable(device, N * T * P)
    rng = np.random.default_rng(N)
    shape = (T, N, P) if turn == FROM_STEPS else (N, T, P)
    x = rng.standard_normal(shape).astype(np.float32)
    keep = rng.integers(0, 3, (N, P) if dropped else (0, 0)).astype(np.float32)
    y = copied("numpy", x, keep, turn, backwards)
    np.testing.assert_array_equal(copied(device, x, keep, turn, backwards), y)
    # The way back is the adjoint: <dy, y> = <dx, x>.
    dy = rng.standard_normal(y.shape)
    back = {FROM_SAMPLES: FROM_STEPS, FROM_STEPS: FROM_SAMPLES}.get(turn, AS_IT_IS)
    dx = copied("numpy", dy, keep.astype(float), back, backwards)
    np.testing.assert_allclose(
        np.vdot(dy, y.astype(float)), np.vdot(dx, x.astype(float)), atol=1e-9
    )


@pytest.mark.parametrize("device", DEVICES)
def test_in_place(device):
    rng = np.random.default_rng(0)
    x, keep = (rng.standard_normal(s).astype(np.float32) for s in ((3, 4, 5), (3, 5)))
    expected = x * keep[:, None]
    kernel("recurrent", "steps_forward", device)(x, x, keep, AS_IT_IS, 0)
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("device", FAST)
def test_nan_is_not_dropped(device):
    x, keep = np.full((1, 1, 2), np.nan, np.float32), np.zeros((1, 2), np.float32)
    assert np.isnan(copied(device, x, keep, AS_IT_IS, 0)).all()


@pytest.mark.parametrize("layer", GATES)
@pytest.mark.parametrize("U", [13, 50])  # narrow layers sum over two halves of the samples
@pytest.mark.parametrize("more", [{}, {"dropped": True, "backwards": 1}, {"reset_after": 0}])
def test_sums_over_more_rows_than_a_block(layer, U, more):
    values = arrays(layer, {"N": 37, "T": 20, "C": 5, "U": U, "masked": True, **more})
    assert_near(train(layer, "cpu", values), train(layer, "numpy", values, np.float64))


@pytest.mark.cuda
@pytest.mark.gpu
@pytest.mark.parametrize("layer", GATES)
@pytest.mark.parametrize(("C", "U"), [(8, 12), (5, 8), (8, 7)])
def test_products_in_tf32_where_sizes_allow(layer, C, U):
    case = {"N": 3, "T": 2, "C": C, "U": U, "dropped": True, "backwards": 1}
    given = arrays(layer, case)
    exact = train(layer, "cuda", given)
    with precision("tf32"):
        reduced = train(layer, "cuda", given)
    assert_near(exact, train(layer, "numpy", given))
    assert_near(reduced, exact, tolerance=5e-3)
    if U % 4 == 0:
        assert np.any(reduced["du"] != exact["du"])
    if C % 4 and U % 4 == 0:  # the products with the inputs stay in float32
        assert_same(reduced, exact, ["y", "dw"])
