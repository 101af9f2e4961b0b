"""The building block: every tile, every flag, and the products made of it."""

import numpy as np
import pytest
from checks import integer_valued, nans
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds

from minicnnrnn.kernels import gemm, panel
from minicnnrnn.kernels.jit import JIT, cpu


@cpu
def block(c, ldc, M, columns, a, am, ak, ws, b, ldb, br, K, R, bias, flags):
    gemm.block(c, 0, ldc, M, columns, a, 0, am, ak, ws, 0, b, 0, ldb, br, K, R, bias, 0, flags)


@cpu
def set_offsets(ws, offsets):
    for r in range(len(offsets)):
        gemm.set_offset(ws, 0, r, offsets[r])


@cpu
def product(c, a, b, bias, flags, ws):
    M, K = a.shape
    N = b.shape[1]
    panel.pack(ws, 0, b, 0, N, 1, K, N)
    gemm.product(c, 0, N, a, 0, K, 1, ws, 0, M, N, K, bias, flags)


@cpu
def product_transposed(c, a, b, ws):
    K, M = a.shape
    gemm.product_transposed(c, 0, a, 0, b, 0, M, b.shape[1], K, ws, 0)


@cpu
def pack(packed, b):
    K, N = b.shape
    panel.pack(packed, 0, b, 0, N, 1, K, N)


@cpu
def pack_turned(packed, b):
    N, K = b.shape
    panel.pack(packed, 0, b, 0, 1, K, K, N)


@cpu
def sum_rows(total, x, ws):
    gemm.sum_rows(total, x, x.shape[0], x.shape[1], ws, 0)


@settings(max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, panel.PANEL), st.integers(1, 9), st.integers(1, 4),
    st.sampled_from([0, 1]), st.booleans(), st.booleans(), seeds,
)  # fmt: skip
@example(1, 1, 1, 1, 0, True, True, 0)
@example(29, panel.PANEL, 9, 4, 1, False, True, 1)
@example(13, panel.VECTOR_WIDTH, 5, 2, 0, True, False, 2)
def test_a_block_is_its_definition(M, columns, K, R, accumulate, bias, relu, seed):
    rng = np.random.default_rng(seed)
    am, ak, ldc = int(rng.integers(1, 5)), int(rng.integers(1, 5)), columns + 3
    ldb = panel.PANEL if columns > panel.VECTOR_WIDTH else panel.VECTOR_WIDTH
    offsets = rng.integers(0, 50, R)
    a = integer_valued(rng, 50 + M * am + K * ak)
    b, beta = integer_valued(rng, R, K, ldb), integer_valued(rng, columns)
    c = integer_valued(rng, M, ldc) if accumulate else nans(M, ldc)
    expected = c.copy()
    start = c[:, :columns] if accumulate else np.zeros((M, columns), np.float32)
    add_bias = bias and not accumulate
    total = start + (beta if add_bias else 0)
    for r in range(R):
        rows = a[offsets[r] + np.arange(M)[:, None] * am + np.arange(K) * ak]
        total = total + np.einsum("mk,kn->mn", rows, b[r, :, :columns])
    expected[:, :columns] = np.maximum(total, 0) if relu else total
    flags = gemm.ACCUMULATE * accumulate + gemm.ADD_BIAS * add_bias + gemm.RELU * relu
    ws = nans(2 * R)
    set_offsets(ws, offsets)
    block(c, ldc, M, columns, a, am, ak, ws, b, ldb, K * ldb, K, R, beta, int(flags))
    np.testing.assert_array_equal(c, expected)  # the columns behind `columns` are untouched


WIDTH = panel.VECTOR_WIDTH


@settings(max_examples=60)
@given(
    st.sampled_from([1, 3, WIDTH, 2 * WIDTH, 4 * WIDTH + 5]),
    st.sampled_from([1, 2, 7, WIDTH, 2 * WIDTH, 2 * WIDTH + 1]),
    st.booleans(), st.integers(0, 3), st.sampled_from([0, 1]), st.booleans(), st.booleans(), seeds,
)  # fmt: skip
@example(4 * WIDTH + 5, WIDTH, False, 1, 0, True, True, 0)
@example(4 * WIDTH + 5, 2 * WIDTH, False, 1, 0, True, True, 0)
@example(2 * WIDTH, 7, True, 1, 1, False, True, 0)
def test_columns_of_one_vector(M, K, columns, apart, accumulate, bias, relu, seed):
    """Short B, and A column by column, have tiles of their own; each sum is still one chain."""
    rng = np.random.default_rng(seed)
    am, ak = (1, M + apart) if columns else (K + apart, 1)
    a, b, beta = (
        rng.standard_normal(n).astype(np.float32) for n in (3 + M * am + K * ak, (K, WIDTH), WIDTH)
    )
    c = rng.standard_normal((M, WIDTH + 1)).astype(np.float32) if accumulate else nans(M, WIDTH + 1)
    tall, add_bias, ws = c.copy(), bias and not accumulate, nans(2)
    flags = int(gemm.ACCUMULATE * accumulate + gemm.ADD_BIAS * add_bias + gemm.RELU * relu)
    rows = a[3 + np.arange(M)[:, None] * am + np.arange(K) * ak].copy()
    set_offsets(ws, np.array([3]))
    block(c, WIDTH + 1, M, WIDTH, a, am, ak, ws, b, WIDTH, 0, K, 1, beta, flags)
    whole = rows.astype(np.float64) @ b + (tall[:, :WIDTH] if accumulate else beta * add_bias)
    expected = np.maximum(whole, 0) if relu else whole
    np.testing.assert_allclose(c[:, :WIDTH], expected, rtol=1e-5, atol=1e-5)
    if JIT:  # the bits of elements that lie far apart
        spread = np.repeat(np.repeat(rows, 2, 0), 2, 1).reshape(-1)
        set_offsets(ws, np.zeros(1, np.int64))
        block(tall, WIDTH + 1, M, WIDTH, spread, 4 * K, 2, ws, b, WIDTH, 0, K, 1, beta, flags)
        np.testing.assert_array_equal(c, tall)


@given(st.integers(1, 120), st.integers(1, 80), st.integers(1, 60), seeds, st.booleans())
@example(1, 1, 1, 0, True)
@example(1, 40, 9 * panel.PANEL + 3, 2, True)  # a single row of several panels at a time
@example(97, 300, 3 * panel.PANEL + 1, 1, False)  # a second block of rows, a second block of depth
def test_products_are_numpys(M, K, N, seed, bias):
    rng = np.random.default_rng(seed)
    a, b, beta = (integer_valued(rng, *s) for s in ((M, K), (K, N), (N,)))
    c, ws = nans(M, N), nans(K * (N + panel.PANEL))
    product(c, a, b, beta, gemm.ADD_BIAS if bias else gemm.OVERWRITE, ws)
    np.testing.assert_array_equal(c, a @ b + (beta if bias else 0))
    tall, other = integer_valued(rng, K, M), integer_valued(rng, K, N)
    product_transposed(c, tall, other, nans(gemm.product_transposed_workspace()))
    np.testing.assert_array_equal(c, tall.T @ other)


@given(st.integers(1, 700), st.integers(1, 40), seeds)
def test_sum_rows(rows, columns, seed):
    x = integer_valued(np.random.default_rng(seed), rows, columns)
    total = nans(columns)
    sum_rows(total, x, nans(gemm.PARTS * columns))
    np.testing.assert_array_equal(total, x.sum(0))


@pytest.mark.skipif(not JIT, reason="NumPy sums in an order of its own")
def test_an_element_is_one_chain_whatever_the_tile():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((40, 70), (70, panel.PANEL)))
    ws, nothing = nans(2), np.zeros(panel.PANEL, np.float32)
    set_offsets(ws, np.zeros(1, np.int64))
    whole = nans(40, panel.PANEL)
    block(whole, panel.PANEL, 40, panel.PANEL, a, 70, 1, ws, b, panel.PANEL, 0, 70, 1, nothing, 0)
    for rows in (1, 2, 3, 7, 11):
        part = nans(rows, panel.PANEL)
        block(
            part, panel.PANEL, rows, panel.PANEL, a, 70, 1, ws, b, panel.PANEL, 0, 70, 1, nothing, 0
        )
        np.testing.assert_array_equal(part, whole[:rows])


@pytest.mark.skipif(not JIT, reason="NumPy sums in an order of its own")
@pytest.mark.parametrize("panels", [1, 4, 11])
def test_a_single_row_is_summed_like_many(panels):
    rng, N = np.random.default_rng(0), panels * panel.PANEL - 3
    a, b, bias = (rng.standard_normal(s).astype(np.float32) for s in ((9, 70), (70, N), (N,)))
    ws, whole = nans(70 * panels * panel.PANEL), nans(9, N)
    product(whole, a, b, bias, gemm.ADD_BIAS | gemm.RELU, ws)
    for row in range(9):
        part = nans(1, N)
        product(part, a[row : row + 1], b, bias, gemm.ADD_BIAS | gemm.RELU, ws)
        np.testing.assert_array_equal(part[0], whole[row])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_pass_through_relu(value):
    c, b = nans(1, 1), np.ones((1, panel.PANEL), np.float32)
    ws = nans(2)
    set_offsets(ws, np.zeros(1, np.int64))
    a = np.array([value], np.float32)
    block(c, 1, 1, 1, a, 1, 1, ws, b, panel.VECTOR_WIDTH, 0, 1, 1, a, gemm.RELU)
    np.testing.assert_array_equal(c, [[value]])


@given(st.integers(1, 3 * panel.PANEL), st.integers(1, 2 * panel.PANEL), seeds)
@example(panel.VECTOR_WIDTH, panel.PANEL, 0)
def test_a_matrix_is_packed_from_its_transpose(K, N, seed):
    b = np.random.default_rng(seed).standard_normal((K, N)).astype(np.float32)
    straight, turned = (nans(panel.panel_size(K, N) + 5) for _ in range(2))
    pack(straight, b)
    pack_turned(turned, b.T.copy())
    np.testing.assert_array_equal(turned, straight)
    assert np.isnan(turned[-5:]).all()
    assert not np.isnan(turned[:-5]).any()
    first = turned[: K * panel.panel_width(N)].reshape(K, -1)
    np.testing.assert_array_equal(first[:, : min(N, panel.PANEL)], b[:, : panel.PANEL])
