"""The GPU's building block: every tile, every way to read, every precision."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from checks import assert_within, integer_valued, nans, normal
from codegen import types_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels import dense, gpu, product
from minicnnrnn.kernels.gpu import cuda
from minicnnrnn.kernels.vector import WIDTH, rounded

SIZES = st.tuples(upto(20), upto(20), upto(20)) if gpu.SIMULATED else st.tuples(*3 * [upto(300)])


def multiplied(tile, precision, sizes, a, b, passes, vectors=True):
    """``a b`` on the GPU, each read along k or across it, in parts where only these can be had."""
    M, N, K = sizes
    kernels, turn_a, turn_b = {
        "forward": (dense._forward, False, False),
        "backward_input": (dense._backward_input, False, True),
        "backward_weight": (dense._backward_weight, True, False),
    }[passes]
    parts = min(2, -(-K // 32)) if turn_a else 1
    a, b = (np.ascontiguousarray(x.T if turn else x) for x, turn in ((a, turn_a), (b, turn_b)))
    c, x, w = (gpu.upload(array) for array in (nans(parts * M * N), a.ravel(), b.ravel()))
    bias = gpu.upload(np.zeros(0, np.float32))
    letters = [("a", x, a.shape[1]), ("b", w, b.shape[1]), ("c", c, N)] if vectors else []
    with product.precision(precision):
        product.launch_product(
            kernels, M, N, K, 1, parts, c, x, w, N, M, a.shape[1], *([] if turn_a else [bias, 0]),
            vectors=product.vectors_of(*letters), tile=tile,
        )  # fmt: skip
    return np.asarray(c).reshape(parts, M, N).sum(0)


def tf32(x):
    """NumPy's model: to the nearest of 11 bits, ties away from zero."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    scaled = np.abs(mantissa) * 2**11
    return np.copysign(np.floor(scaled + 0.5), x) * np.exp2(exponent - 11.0)


@pytest.mark.cuda
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize("tile", product.TILES)
@settings(max_examples=2 if gpu.SIMULATED else 30)
@given(SIZES, st.sampled_from(["forward", "backward_input", "backward_weight"]), seeds)
@example((1, 1, 1), "forward", 0)
@example((16, 8, 20), "forward", 1)  # vectors everywhere, whole tiles
@example((18, 10, 22), "backward_input", 2)  # vectors, and tiles that are cut
@example((17, 12, 9), "backward_weight", 3)  # vectors of B and C alone
def test_products_are_numpys(tile, precision, sizes, passes, seed):
    rng = np.random.default_rng(seed)
    if precision == "tf32":  # others are products of float32
        sizes = tuple(-(-n // WIDTH) * WIDTH for n in sizes)
    M, N, K = sizes
    a, b = integer_valued(rng, M, K), integer_valued(rng, K, N)
    for vectors in (True, False) if seed < 4 else (True,):
        c = multiplied(tile, precision, sizes, a, b, passes, vectors)
        np.testing.assert_array_equal(c, a @ b)
    a, b = normal(rng, M, K), normal(rng, K, N)
    exact = [tf32(x) if precision == "tf32" else x.astype(np.float64) for x in (a, b)]
    c = multiplied(tile, precision, sizes, a, b, passes)
    assert_within(c, exact[0] @ exact[1], K, np.abs(exact[0]) @ np.abs(exact[1]))


@gpu.gpu
def _round(y, x):
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        y[i] = rounded(x[i])


@pytest.mark.cuda
@pytest.mark.gpu
def test_rounding_is_its_model():
    x = normal(np.random.default_rng(0), 40) * np.float32(2) ** np.arange(-20, 20, dtype=np.float32)
    ties = np.array([1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-11, 0.0, -0.0], np.float32)
    special = np.array([np.nan, np.inf, -np.inf], np.float32)
    x = np.concatenate([x, ties, special])
    y = gpu.upload(nans(len(x)))
    gpu.over(_round, len(x), y, gpu.upload(x))
    expected = np.concatenate([tf32(x[:-3]), special])
    np.testing.assert_array_equal(np.asarray(y), expected)


@pytest.mark.cuda
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "tf32"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_pass(precision, value):
    a, b = np.ones((3, 8), np.float32), np.ones((8, 4), np.float32)
    a[1, 2] = value
    c = multiplied("32x32", precision, (3, 4, 8), a, b, "forward")
    np.testing.assert_array_equal(c, [[8] * 4, [value] * 4, [8] * 4])


@pytest.mark.skipif(gpu.SIMULATED, reason="its tiles are small")
def test_tiles_and_parts_fill_a_gpu():
    assert product.tile_of(4096, 4096, 4096, 1, 1) == "128x128"
    assert product.tile_of(128 * 26 * 26, 32, 9, 1, 1) == "128x32"
    assert product.tile_of(1, 1, 1, 1, 1) == "32x32"
    assert product.parts_of_sum(1, 1, 1, 1) == 1
    assert product.parts_of_sum(10, 32, 128 * 26 * 26, 1) > 100
    for K in (1, 255, 256, 5000, 10**6):  # a part is never empty
        assert product.parts_of_sum(64, 64, K, 1) <= max(1, K // 32)


@pytest.mark.skipif(gpu.SIMULATED, reason="nothing is compiled")
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_the_instructions_of_a_large_tile(precision, monkeypatch):
    """A slice is read, kept and multiplied as the room says, in registers alone."""
    pytest.importorskip("numba_cuda")
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import cuda as numba_cuda
    from numba import types
    from numba.cuda import dispatcher

    capability = SimpleNamespace(compute_capability=(8, 0))
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: capability)
    kernel = dense._forward[f"128x128 -abc {precision}"]
    operands = "float32[1] float32[1] float32[1] int64 int64 int64 float32[1] int64"
    kinds = types_of(f"int64 int64 int64 int64 ( {operands} )".split())
    assembly, _ = numba_cuda.compile_ptx(
        kernel.resolved, types.void(*kinds), cc=(8, 0), launch_bounds=kernel.bounds
    )
    tile = product.TILES["128x128"]
    count = tile.extent[0] * tile.extent[1] // tile.threads
    if precision == "float32":
        assert assembly.count("fma.rn.f32") == count * product.UNROLLED
        assert assembly.count("ld.shared.v4") == 4 * product.UNROLLED
        assert not re.search(r"ld\.shared\.[bfu]32", assembly)
        assert "st.global.v4" in assembly
    else:  # 16 x 8 x 8 each
        assert assembly.count("mma.sync.aligned.m16n8k8") == count // 4 * tile.depth // 8
        assert "cvt.rna.tf32" in assembly
    assert re.search(r"ld\.global(\.nc)?\.v4", assembly)
    assert not re.search(r"(ld|st)\.local", assembly)
    linker = Linker(
        ObjectCode.from_ptx(assembly.encode()),
        options=LinkerOptions(arch="sm_90", ptxas_options=["-v"]),
    )
    linker.link("cubin")
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill" in linker.get_info_log()
