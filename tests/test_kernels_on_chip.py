"""Products with a matrix that stays on the chip: how they are shared out, and where weights lie."""

import numpy as np
import pytest
from checks import CUDA
from hypothesis import example, given
from hypothesis import strategies as st
from recurrent_cases import arrays, assert_near, assert_same, train
from strategies import upto

from minicnnrnn.kernels import gpu, on_chip

LAYERS = [("simple_rnn", 0), ("lstm", 0), ("gru", 1), ("gru", 0)]
LIMITS = [48, 64, 99, 227]  # KB of shared memory on one GPU or another


@given(upto(400), upto(300), st.integers(1, 4), st.booleans(), st.sampled_from(LIMITS))
@example(64, 128, 4, False, 227)
@example(1, 3000, 4, True, 48)
def test_every_row_has_its_place_and_blocks_fit(N, U, gates, forward, limit):
    K, W = (U, gates * U) if forward else (gates * U, U)
    planned = on_chip.plan(N, U, K, W, 3, 0, limit * 1024)
    quads, slices, rows, stored, *_ = planned.sharing
    assert (quads - 1) * 4 < W <= quads * 4
    assert (slices - 1) * rows < K <= slices * rows
    assert rows % 4 == 0
    assert slices == 1 or quads * slices <= planned.threads
    assert planned.threads <= on_chip.MOST
    assert planned.shared <= limit * 1024
    assert stored == 0 or on_chip.KEPT + stored <= rows
    samples = 2 if planned.variant == 1 else 1
    assert (planned.blocks - 1) * samples < N <= planned.blocks * samples
    assert (planned.far > 0) == (planned.variant == 2) == (planned.shared == 0)
    elsewhere = on_chip.plan(N, U, K, W, 3, 0, 48 * 1024)
    assert elsewhere.sharing[:3] == planned.sharing[:3]  # so is the order of every sum
    assert elsewhere[:3] == planned[:3]


@pytest.mark.skipif(gpu.SIMULATED, reason="simulated blocks are smaller")
def test_usual_layers_stay_on_the_chip():
    for gates, U in ((1, 128), (3, 128), (4, 64), (4, 128)):
        for K, W in ((U, gates * U), (gates * U, U)):
            _, _, rows, stored, *_ = on_chip.plan(64, U, K, W, 3, 0, 227 * 1024).sharing
            assert stored >= rows - on_chip.KEPT


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize(("U", "G"), [(1, 1), (5, 20), (9, 27), (13, 13), (3, 36)])
def test_packed_weights(device, U, G):
    u = np.arange(1, U * G + 1, dtype=np.float32).reshape(U, G)
    size = on_chip.packed_size(U, G)
    ws = gpu.upload(np.full(on_chip.packed_pair_size(U, G), np.nan, np.float32))
    on_chip.pack_both_ways(ws, gpu.upload(u))
    packed = np.asarray(ws)
    for part, matrix in ((packed[:size], u), (packed[size:], u.T)):
        quads, slices, rows = on_chip.shared_out(*matrix.shape)
        whole = part.reshape(rows, slices, quads * 4).swapaxes(0, 1).reshape(-1, quads * 4)
        (K, W), rest = matrix.shape, whole.copy()
        np.testing.assert_array_equal(whole[:K, :W], matrix)
        rest[:K, :W] = 0
        assert not rest.any()


def trained(monkeypatch, layer, values, shared, limit):
    """What a layer computes where every block has `shared` bytes and this GPU gives `limit`."""
    monkeypatch.setattr(on_chip, "SHARED", shared)
    monkeypatch.setattr(on_chip, "shared_limit", lambda: limit)
    on_chip.plan.cache_clear()
    try:
        return train(layer, "cuda", values)
    finally:
        monkeypatch.undo()
        on_chip.plan.cache_clear()


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize(("layer", "reset_after"), LAYERS)
@pytest.mark.parametrize(("N", "U"), [(3, 9), (5, 6)])
def test_the_same_bits_wherever_weights_lie(device, layer, reset_after, N, U, monkeypatch):
    if not gpu.SIMULATED:
        N, U = 40 * N, 25 * U
    case = {"N": N, "T": 2, "C": 2, "U": U, "masked": True, "dropped": True}
    values = arrays(layer, {**case, "reset_after": reset_after})
    most = gpu.shared_limit()
    on_chip = trained(monkeypatch, layer, values, gpu.SHARED, most)
    assert_near(on_chip, train(layer, "numpy", values, np.float64))
    streamed = trained(monkeypatch, layer, values, gpu.SHARED, 0)
    assert_same(streamed, on_chip)
    far = trained(monkeypatch, layer, values, 0, most)
    assert_same(far, on_chip)


@pytest.mark.gpu
@pytest.mark.parametrize(("layer", "reset_after"), LAYERS)
@pytest.mark.parametrize(
    ("N", "T", "U"), [(64, 28, 128), (131, 5, 127), (64, 9, 256), (3, 2, 601), (2, 2, 1100)]
)
def test_large_layers_on_a_gpu(layer, reset_after, N, T, U):
    case = {"N": N, "T": T, "C": 28, "U": U, "dropped": True, "reset_after": reset_after}
    values = arrays(layer, case)
    results = [train(layer, "cuda", values) for _ in range(2)]
    assert_same(*results)
    assert_near(results[0], train(layer, "numpy", values, np.float64), tolerance=1e-4)
