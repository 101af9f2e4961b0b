"""Winograd's convolution along the height: the direct one, within a bound from its matrices."""

import functools
from unittest import mock

import checks
import numba
import numpy as np
import pytest
from checks import (
    EPSILON,
    assert_within,
    check_gradient,
    integer_valued,
    normal,
)
from convolutions import NO_RELU, Passes
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn import Sequential, layers
from minicnnrnn.kernels import gemm, transform_line, winograd_rows
from minicnnrnn.kernels.jit import JIT
from minicnnrnn.kernels.winograd_rows import ROWS

CPU_ALONE, NOWHERE = [False, True, False], [False] * 3  # where it pays: NumPy, CPU, CUDA


def shape(N=1, D=1, H=6, W=6, C=1, F=1, KD=1, KW=3, PD=0, PH=0, PW=0):
    """The integers of a convolution."""
    sizes = {"N": N, "D": D, "H": H, "W": W, "C": C, "F": F}
    return {**sizes, "K": (KD, 3, KW), "P": (PD, PH, PW)}


@st.composite
def shapes(draw, longest=17, channels=8):
    """Images from one row on, odd as often as not; any padding that leaves an output."""
    KD, KW = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    P = [draw(st.integers(0, K - 1)) for K in (KD, 3, KW)]
    lengths = [
        draw(st.integers(max(1, K - 2 * p), most))
        for K, p, most in zip((KD, 3, KW), P, (5, longest, longest))
    ]
    C, F = draw(st.integers(1, channels)), draw(upto(40))
    return shape(draw(st.integers(1, 3)), *lengths, C, F, KD, KW, *P)


class Convolution(Passes):
    """By these kernels, unless others are named."""

    room = "winograd_rows"

    def geometry(self, g):
        return g["K"], g["P"], (1, 1, 1)


def absolute_matrices():
    """The reference, computing with the absolute values of its matrices."""
    matrices = {3: tuple(np.abs(matrix) for matrix in transform_line.MATRICES[3])}
    return mock.patch.object(winograd_rows, "MATRICES", matrices)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_worked_example(device):
    conv = Convolution(shape(H=4, W=1, KW=1), device)
    x = np.array([1, 2, 4, 8], np.float32).reshape(conv.x_shape)
    w = np.array([1, 0, -1], np.float32).reshape(conv.w_shape)
    y = conv.forward(x, w, np.array([4], np.float32))
    np.testing.assert_allclose(y.ravel(), [1 - 4 + 4, 2 - 8 + 4], atol=1e-5)
    y = conv.forward(x, w, np.array([4], np.float32), relu=1)
    np.testing.assert_allclose(y.ravel(), [1, 0], atol=1e-5)
    dy = np.array([1, 10], np.float32).reshape(y.shape)
    np.testing.assert_allclose(conv.backward_input(dy, w).ravel(), [1, 10, -1, -10], atol=1e-5)
    dw, db = conv.backward_weight(x, dy)
    np.testing.assert_allclose(dw.ravel(), [1 + 20, 2 + 40, 4 + 80], rtol=1e-5)
    assert db == [11]


@given(shapes(), seeds)
@example(shape(H=1, W=1, PH=2, PW=2), 0)
@example(shape(D=1, KD=3, PD=1, H=3), 1)
def test_the_reference_is_the_direct_convolution(g, seed):
    rng = np.random.default_rng(seed)
    ours, direct = Convolution(g, "numpy"), Convolution(g, "numpy", "conv")
    arrays = ours.arrays(normal, rng, dtype=np.float64)
    gate = ours.forward(*arrays[:3], relu=1)
    for a, b in zip(ours.all(*arrays, gate, relu=1), direct.all(*arrays, gate, relu=1)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@given(shapes(), seeds)
@example(shape(H=1, W=1, PH=2, PW=2), 0)
@example(shape(H=3, W=3), 1)  # kernel == image
@example(shape(N=2, D=5, H=20, W=30, C=3, F=16, KD=3, PD=1, PH=1, PW=1), 2)  # rows in place
@example(shape(N=2, D=9, H=14, W=9, C=2, F=70, KD=3, KW=2, PH=1), 3)  # panels, one partial
@example(shape(N=9, D=4, H=14, W=9, C=4, F=9, KD=3, PD=1, PW=1), 4)  # parts of a gradient
def test_within_rounding_of_the_float64_reference(g, seed):
    """Componentwise: as many roundings as operations in a row, of the sum of absolute values.

    Those are what the algorithm gives with the absolute values of its matrices and inputs.
    """
    rng = np.random.default_rng(seed)
    fast, reference = Convolution(g, "cpu"), Convolution(g, "numpy")
    x, w, b, dy = fast.arrays(normal, rng, bias=seed % 2 == 0)
    y = fast.forward(x, w, b, relu=1)
    gated = np.where(y <= 0, 0, dy)
    wide = [a.astype(np.float64) for a in (x, w, b, gated)]
    with absolute_matrices():
        sizes = reference.all(*[np.abs(a) for a in wide])
    taps, (N, OD, OH, OW, _) = w.size // g["F"] // 3, fast.y_shape
    columns = N * OD * (OH // ROWS + 1) * OW
    terms = np.array([taps, 3 * taps * g["F"], columns, N * OD * OH * OW]) + 20
    for ours, theirs, count, size in zip(
        [fast.forward(x, w, b), *fast.all(x, w, b, dy, y)[1:]], reference.all(*wide), terms, sizes
    ):
        assert_within(ours, theirs, count, size)
    np.testing.assert_array_equal(y, np.maximum(fast.forward(x, w, b), 0))
    assert np.all(np.isnan(fast.behind))  # nothing leaves the workspace


@pytest.mark.parametrize("seed", range(3))
def test_the_error_leaves_room_in_what_is_promised_against_keras(seed):
    """Outputs within 1e-5 of Keras', of any layer in a network."""
    rng = np.random.default_rng(seed)
    g = shape(N=2, D=8, H=32, W=32, C=4, F=16, KD=3, PD=1, PH=1, PW=1)
    cpu = Convolution(g, "cpu")
    x, w, b, dy = cpu.arrays(normal, rng)
    wide = [a.astype(np.float64) for a in (x, w, b, dy)]
    direct = Convolution(g, "numpy", "conv").all(*wide)
    for ours, theirs in zip(cpu.all(x, w, b, dy), direct):
        assert np.abs(ours - theirs).max() <= 3e-6 * np.abs(theirs).max()


@given(shapes(), seeds)
def test_the_bias_is_exact(g, seed):
    """Zeros give it, whole numbers sum up to its gradient."""
    cpu, rng = Convolution(g, "cpu"), np.random.default_rng(seed)
    x, w, b, _ = cpu.arrays(normal, rng)
    for relu, expected in ((0, b), (1, np.maximum(b, 0))):
        y = cpu.forward(0 * x, w, b, relu)
        np.testing.assert_array_equal(y, np.broadcast_to(expected, y.shape))
    _, _, _, dy = cpu.arrays(integer_valued, rng)
    y = integer_valued(rng, *cpu.y_shape)
    for gate, gated in ((NO_RELU, dy), (y, np.where(y <= 0, 0, dy))):
        _, db = cpu.backward_weight(x, dy, y=gate)
        np.testing.assert_array_equal(db, gated.sum((0, 1, 2, 3)))


@given(shapes(channels=3), seeds)
def test_gradients_of_the_reference(g, seed):
    rng = np.random.default_rng(seed)
    conv = Convolution(g, "numpy")
    x, w, b, _ = conv.arrays(normal, rng, dtype=np.float64)
    check_gradient(
        lambda x: conv.forward(x, w, b), lambda x, dy: conv.backward_input(dy, w), x, rng
    )
    check_gradient(
        lambda w: conv.forward(x, w, b), lambda w, dy: conv.backward_weight(x, dy)[0], w, rng
    )
    check_gradient(
        lambda b: conv.forward(x, w, b), lambda b, dy: conv.backward_weight(x, dy)[1], b, rng
    )


@given(shapes(), seeds)
def test_the_gradient_behind_a_relu(g, seed):
    conv = Convolution(g, "cpu")
    x, w, b, dy = conv.arrays(normal, np.random.default_rng(seed))
    y = conv.forward(x, w, b, relu=1)
    gated = np.where(y > 0, dy, np.float32(0))
    for one, other in zip(conv.all(x, w, b, dy, y)[1:], conv.all(x, w, b, gated)[1:]):
        np.testing.assert_array_equal(one, other)


@given(shapes(), seeds)
def test_a_nan_reaches_what_it_would_reach_directly(g, seed):
    rng = np.random.default_rng(seed)
    cpu, direct = Convolution(g, "cpu"), Convolution(g, "numpy", "conv")
    arrays = cpu.arrays(normal, rng)
    for array in (arrays[0], arrays[3]):
        array.ravel()[rng.integers(array.size)] = np.nan
    for ours, theirs in zip(cpu.all(*arrays, relu=1), direct.all(*arrays)):
        assert np.all(np.isnan(ours[np.isnan(theirs)]))


@pytest.mark.skipif(not JIT, reason="plain Python has one thread")
@settings(max_examples=10)
@given(shapes(), seeds)
@example(shape(N=5, D=6, H=30, W=20, C=3, F=16, KD=3, PD=1, PH=1, PW=1), 0)
@example(shape(N=1, D=11, H=13, W=40, C=3, F=40, KD=3, PD=2, PH=1, PW=1), 1)
def test_the_same_bits_on_one_thread_and_on_all(g, seed):
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        conv = Convolution(g, "cpu")
        results.append(conv.all(*conv.arrays(normal, np.random.default_rng(seed))))
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


@pytest.mark.skipif(not JIT, reason="plain Python takes minutes for so many")
def test_outputs_that_outgrow_the_caches_are_the_same():
    """Asking for their memory ahead changes nothing; the last one's is not all there is."""
    g = shape(N=3, D=9, H=38, W=33, C=3, F=16, KD=3, PD=1, PH=1, PW=1)
    many, rng = Convolution(g, "cpu"), np.random.default_rng(0)
    x, w, b, _ = many.arrays(normal, rng)
    assert x.size // 3 * 16 > gemm.CACHED
    y = many.forward(x, w, b)
    for one in range(3):
        alone = Convolution({**g, "N": 1}, "cpu").forward(x[one : one + 1], w, b)
        np.testing.assert_array_equal(alone[0], y[one])


@settings(max_examples=20)
@given(shapes(), seeds)
def test_torch_agrees(g, seed):
    torch = pytest.importorskip("torch")
    conv = Convolution(g, "cpu")
    x, w, b, _ = conv.arrays(normal, np.random.default_rng(seed))
    theirs = torch.nn.functional.conv3d(
        torch.from_numpy(x).permute(0, 4, 1, 2, 3),
        torch.from_numpy(w).permute(4, 3, 0, 1, 2),
        torch.from_numpy(b),
        padding=g["P"],
    )
    theirs = theirs.permute(0, 2, 3, 4, 1).numpy()
    np.testing.assert_allclose(conv.forward(x, w, b), theirs, rtol=1e-3, atol=1e-3)


pays = functools.partial(
    checks.pays, "winograd_rows", N=8, D=16, H=32, W=32, C=3, F=16, K=(3, 3, 3)
)


def test_it_pays_where_it_was_measured_to():
    flat = {"D": 1, "K": (1, 3, 3)}
    assert pays() == pays(N=1) == pays(H=16, W=16, F=32) == pays(C=12, H=64, **flat) == CPU_ALONE
    assert pays(C=1) == pays(H=8) == pays(C=3, **flat) == pays(C=8, **flat) == NOWHERE
    assert pays(C=64, F=64, D=1, K=(1, 3, 1)) == CPU_ALONE
    assert pays(C=64, F=16, D=1, K=(1, 3, 1)) == NOWHERE


@pytest.mark.parametrize(
    "other", [{"K": (3, 5, 3)}, {"S": (1, 2, 2)}, {"L": (1, 2, 2)}, {"G": 3, "F": 15}]
)
def test_it_leaves_other_convolutions_alone(other):
    assert pays(**other) == NOWHERE


def test_a_layer_agrees_with_the_direct_sum():
    x = normal(np.random.default_rng(0), 2, 6, 32, 20, 3)
    model = Sequential([layers.Conv3D(16, 3, padding="same", activation="relu")], seed=0)
    y = model.predict(x)
    assert model.layers[0].plan(x.shape).algorithm == "winograd_rows"
    direct = Sequential([layers.Conv3D(16, 3, padding="same", activation="relu")], device="numpy")
    direct.build((None, *x.shape[1:]))
    direct.set_weights(model.get_weights())
    assert np.abs(y - direct.predict(x)).max() <= 40 * EPSILON * y.max()
