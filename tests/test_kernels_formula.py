"""Formulas of whole vectors: what they compute, and that they touch nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicnnrnn.kernels import elementary, formula
from minicnnrnn.kernels.jit import cpu
from minicnnrnn.kernels.panel import address

_tanh = formula.elementwise(lambda x: (formula.tanh(x),), 1, 1)
_gate = formula.elementwise(lambda x: (formula.gate(x),), 1, 1)
_line = formula.elementwise(lambda x, y: (2 - x, x * y - 3, (x + 1) / (1 + y), 0), 2, 4)


@cpu
def tanh_of(y, x):
    _tanh((1, x.size, address(x, 0), 0, address(y, 0), 0))


@cpu
def gate_of(y, x):
    _gate((1, x.size, address(x, 0), 0, address(y, 0), 0))


@cpu
def line_of(out, x, y):
    rows, n = y.shape
    step = out.shape[2]
    _line((
        rows, n, address(x, 0), 0, address(y, 0), n, address(out, 0), step,
        address(out, rows * step), step, address(out, 2 * rows * step), step,
        address(out, 3 * rows * step), step,
    ))  # fmt: skip


@cpu
def elementary_tanh(y, x):
    for i in range(x.size):
        y[i] = elementary.tanh(x[i])


def numbers():
    """From tiny to large, of both signs, the end of tanh among them."""
    sizes = np.geomspace(1e-30, 1e30, 1001)
    near = np.linspace(0, 20, 1001)
    positive = np.concatenate([sizes, near, [elementary.TANH_END]])
    return np.concatenate([positive, -positive]).astype(np.float32)


def test_tanh_is_that_of_single_numbers():
    x = numbers()
    y, other = np.full_like(x, np.nan), np.full_like(x, np.nan)
    tanh_of(y, x)
    elementary_tanh(other, x)
    np.testing.assert_allclose(y, other, rtol=2.5e-7)
    np.testing.assert_allclose(y, np.tanh(x.astype(np.float64)), rtol=3e-7)
    assert np.abs(y).max() <= 1


def test_gates_are_sigmoids():
    x = numbers()
    y = np.full_like(x, np.nan)
    gate_of(y, x)
    expected = 0.5 + 0.5 * np.tanh(0.5 * x.astype(np.float64))
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-7)
    assert y.min() >= 0
    assert y.max() <= 1


@pytest.mark.parametrize("function", [tanh_of, gate_of])
def test_a_nan_stays_and_infinity_saturates(function):
    x = np.array([np.nan, np.inf, -np.inf, 0], np.float32)
    y = np.zeros(4, np.float32)
    function(y, x)
    assert np.isnan(y[0])
    assert y[1] == pytest.approx(1, abs=2e-7)  # 1 with fused multiply-adds
    assert y[2] == pytest.approx(-1 if function is tanh_of else 0, abs=2e-7)


@given(st.integers(0, 4), st.integers(1, 70), st.integers(0, 20), st.integers(0, 99))
def test_any_rows_and_no_other_memory(rows, count, between, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 2, count).astype(np.float32)  # the same for all rows
    y = rng.uniform(0, 2, (rows, count)).astype(np.float32)
    out = np.full((4, rows, count + between), np.nan, np.float32)
    line_of(out, x, y)
    expected = [2 - x + 0 * y, x * y - 3, (x + 1) / (1 + y), 0 * y]
    np.testing.assert_allclose(out[:, :, :count], expected, rtol=1e-6, atol=1e-6)
    assert np.isnan(out[:, :, count:]).all()


def test_a_result_may_take_the_place_of_what_was_read():
    x = np.linspace(-2, 2, 21, dtype=np.float32)
    y = np.empty_like(x)
    tanh_of(y, x)
    tanh_of(x, x)
    np.testing.assert_array_equal(x, y)
