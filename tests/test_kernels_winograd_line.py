"""Winograd's convolution along one axis: the direct one, within a bound from its own matrices."""

import functools
from unittest import mock

import checks
import numba
import numpy as np
import pytest
from checks import (
    DEVICES,
    EPSILON,
    FAST,
    assert_within,
    assume_affordable,
    check_gradient,
    integer_valued,
    normal,
)
from convolutions import Passes
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn import Sequential, layers
from minicnnrnn.kernels import gpu, transform_line, winograd_line

CPU_ALONE, NOWHERE = [False, True, False], [False] * 3  # where it pays: NumPy, CPU, CUDA


def shape(N=1, D=1, H=1, W=6, C=1, F=1, KW=5, PW=0, KH=1, PH=0):
    """The integers of a convolution."""
    sizes = {"N": N, "D": D, "H": H, "W": W, "C": C, "F": F}
    return {**sizes, "KH": KH, "KW": KW, "PH": PH, "PW": PW}


@st.composite
def shapes(draw, longest=27, channels=20):
    """Sequences and images, odd as often as not; any padding that leaves an output."""
    longest = 6 if gpu.SIMULATED else longest
    KW, KH = draw(st.sampled_from([3, 5])), draw(st.sampled_from([1, 1, 2, 3, 5]))
    PH, PW = draw(st.integers(0, KH - 1)), draw(st.integers(0, KW - 1))
    W = draw(st.integers(max(1, KW - 2 * PW), longest))
    H = draw(st.integers(max(1, KH - 2 * PH), 2 if KH == 1 else 6))
    N, D = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    return shape(N, D, H, W, *[draw(upto(channels)) for _ in range(2)], KW, PW, KH, PH)


class Convolution(Passes):
    """By these kernels, unless others are named."""

    room = "winograd_line"

    def geometry(self, g):
        return (1, g["KH"], g["KW"]), (0, g["PH"], g["PW"]), (1, 1, 1)


def absolute_matrices():
    """The reference, computing with the absolute values of its matrices."""
    matrices = {
        KW: tuple(np.abs(matrix) for matrix in three)
        for KW, three in transform_line.MATRICES.items()
    }
    return mock.patch.object(winograd_line, "MATRICES", matrices)


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    conv = Convolution(shape(W=6, KW=5), device)
    x = np.arange(6, dtype=np.float32).reshape(conv.x_shape)
    w = np.array([1, 0, -1, 2, 3], np.float32).reshape(conv.w_shape)
    y = conv.forward(x, w, np.array([-18], np.float32))
    # 0 - 2 + 2 * 3 + 3 * 4 - 18 and 1 - 3 + 2 * 4 + 3 * 5 - 18
    np.testing.assert_allclose(y.ravel(), [-2, 3], atol=1e-4)
    y = conv.forward(x, w, np.array([-18], np.float32), relu=1)
    np.testing.assert_allclose(y.ravel(), [0, 3], atol=1e-4)
    dy = np.array([1, 10], np.float32).reshape(y.shape)
    dx = conv.backward_input(dy, w)
    np.testing.assert_allclose(dx.ravel(), [1, 10, -1, -8, 23, 30], atol=1e-4)
    dw, db = conv.backward_weight(x, dy)
    np.testing.assert_allclose(dw.ravel(), [10, 21, 32, 43, 54], rtol=1e-5)
    assert db == [11]


@pytest.mark.parametrize("KW", [3, 5])
def test_the_formulas_are_the_matrices(KW):
    A, B, TAPS = transform_line.MATRICES[KW]
    for formula, matrix in (
        (transform_line.evaluate, B.T),
        (transform_line.evaluate, TAPS),
        (transform_line.evaluate, A),
        (transform_line.interpolate, A.T),
        (transform_line.interpolate, TAPS.T),
    ):
        columns = formula(matrix, *np.eye(matrix.shape[1]))
        np.testing.assert_allclose(np.array(columns), matrix, rtol=1e-14)


@given(shapes(), seeds)
@example(shape(N=2, W=1, PW=2), 0)
@example(shape(N=2, H=1, W=1, PW=2, KH=5, PH=2), 1)
def test_the_reference_is_the_direct_convolution(g, seed):
    rng = np.random.default_rng(seed)
    ours, direct = Convolution(g, "numpy"), Convolution(g, "numpy", "conv")
    arrays = ours.arrays(normal, rng, dtype=np.float64)
    gate = ours.forward(*arrays[:3], relu=1)
    for a, b in zip(ours.all(*arrays, gate, relu=1), direct.all(*arrays, gate, relu=1)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("device", FAST)
@given(shapes(), seeds)
@example(shape(W=1, PW=2), 0)
@example(shape(W=5), 1)  # kernel == image
@example(shape(N=2, W=63, C=64, F=33, PW=2), 2)
@example(shape(N=3, W=301, C=17, F=70, KW=3, PW=1), 3)  # many blocks, a partial panel
@example(shape(N=90, W=30, C=9, F=10, PW=2), 4)  # parts of a weight gradient
@example(shape(N=90, H=7, W=8, C=9, F=10, KW=3, PW=1), 5)
@example(shape(W=2, C=3, F=160, PW=4), 6)  # groups of filters
@example(shape(H=5, W=5, C=2, F=3, KH=5), 7)  # kernel == image
@example(shape(N=2, D=2, H=13, W=61, C=20, F=33, PW=2, KH=5, PH=2), 8)  # blocks of an image
@example(shape(N=9, H=9, W=9, C=9, F=10, KW=3, PW=1, KH=3, PH=1), 9)  # parts of a gradient
@example(shape(N=2, H=3, W=500, C=17, F=9, PW=2, KH=2, PH=1), 10)  # a line exceeds a block
def test_within_rounding_of_the_float64_reference(device, g, seed):
    """Componentwise: as many roundings as operations in a row, of the sum of absolute values.

    Those are what the algorithm gives with the absolute values of its matrices and inputs.
    """
    rng = np.random.default_rng(seed)
    fast, reference = Convolution(g, device), Convolution(g, "numpy")
    x, w, b, dy = fast.arrays(normal, rng, bias=seed % 2 == 0)
    assume_affordable(device, 4 * x.size, 4 * dy.size, dy.size * w.size // g["F"] // 4)
    y = fast.forward(x, w, b, relu=1)
    gated = np.where(y <= 0, 0, dy)
    wide = [a.astype(np.float64) for a in (x, w, b, gated)]
    with absolute_matrices():
        sizes = reference.all(*[np.abs(a) for a in wide])
    tiles = np.prod(fast.y_shape[:3]) * (fast.y_shape[3] // (9 - g["KW"]) + 1)
    outputs = np.prod(fast.y_shape[:4])
    # And the terms of three transforms.
    terms = np.array([g["KH"] * g["C"], g["KH"] * g["F"], tiles, outputs]) + 20
    for ours, theirs, count, size in zip(
        [fast.forward(x, w, b), *fast.all(x, w, b, dy, y)[1:]], reference.all(*wide), terms, sizes
    ):
        assert_within(ours, theirs, count, size)
    np.testing.assert_array_equal(y, np.maximum(fast.forward(x, w, b), 0))
    assert np.all(np.isnan(fast.behind))  # nothing leaves the workspace


@pytest.mark.parametrize("KW", [3, 5])
@pytest.mark.parametrize(("channels", "bound"), [(16, 2e-6), (64, 3e-6), (256, 4e-6)])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_leaves_room_in_what_is_promised_against_keras(channels, bound, seed, KW):
    """Outputs within 1e-5 of Keras', of any layer in a network."""
    rng = np.random.default_rng(seed)
    KH, P = (KW, KW // 2) if seed else (1, 0)
    bound += 1e-6 if seed else 0
    g = shape(4, 1, 1 + 5 * P, 40, channels, min(channels, 64), KW, KW // 2, KH, P)
    cpu = Convolution(g, "cpu")
    x, w, b, dy = cpu.arrays(normal, rng)
    x, w = np.maximum(x, 0), w * np.float32((2 / (KH * KW * channels)) ** 0.5)
    wide = [a.astype(np.float64) for a in (x, w, b, dy)]
    direct = Convolution(cpu.g, "numpy", "conv").all(*wide)
    for ours, theirs in zip(cpu.all(x, w, b, dy), direct):
        assert np.abs(ours - theirs).max() <= bound * np.abs(theirs).max()


@given(shapes(), seeds)
def test_the_bias_gradient_is_exact_on_integers(g, seed):
    cpu, rng = Convolution(g, "cpu"), np.random.default_rng(seed)
    x, _, _, dy = cpu.arrays(integer_valued, rng)
    _, db = cpu.backward_weight(x, dy)
    np.testing.assert_array_equal(db, dy.sum((0, 1, 2, 3)))
    y = integer_valued(rng, *cpu.y_shape)
    _, db = cpu.backward_weight(x, dy, y=y)
    np.testing.assert_array_equal(db, np.where(y <= 0, 0, dy).sum((0, 1, 2, 3)))


@given(shapes(channels=70), seeds)
def test_the_bias_is_all_that_zeros_give(g, seed):
    """It is added to whole outputs, so not a bit of it is lost; partial vectors have theirs."""
    cpu, rng = Convolution(g, "cpu"), np.random.default_rng(seed)
    x, w, b, _ = cpu.arrays(normal, rng)
    for relu, expected in ((0, b), (1, np.maximum(b, 0))):
        y = cpu.forward(0 * x, w, b, relu)
        np.testing.assert_array_equal(y, np.broadcast_to(expected, y.shape))


@given(shapes(channels=5), seeds)
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


@settings(max_examples=10)
@given(shapes(), seeds)
@example(shape(N=9, W=120, C=24, F=40, PW=2), 0)
@example(shape(N=40, W=120, C=8, F=9, KW=3, PW=1), 0)
@example(shape(N=5, H=20, W=23, C=8, F=9, PW=2, KH=5, PH=2), 0)
def test_the_same_bits_on_one_thread_and_on_all(g, seed):
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        conv = Convolution(g, "cpu")
        results.append(conv.all(*conv.arrays(normal, np.random.default_rng(seed))))
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


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
        padding=(0, g["PH"], g["PW"]),
    )
    theirs = theirs.permute(0, 2, 3, 4, 1).numpy()
    np.testing.assert_allclose(conv.forward(x, w, b), theirs, rtol=1e-3, atol=1e-3)


pays = functools.partial(
    checks.pays, "winograd_line", N=16, D=1, H=1, W=128, C=64, F=64, K=(1, 1, 5)
)


def test_it_pays_where_it_was_measured_to():
    assert pays() == pays(C=32, F=32, K=(1, 1, 3)) == pays(C=16) == pays(H=9) == CPU_ALONE
    assert pays(C=3) == pays(N=1, W=24) == pays(C=8, F=32) == NOWHERE
    square = {"H": 28, "W": 28, "K": (1, 5, 5)}
    assert pays(C=3, **square) == pays(N=1, **square) == CPU_ALONE
    assert pays(C=8, H=32, W=32, K=(1, 3, 3)) == CPU_ALONE
    assert pays(C=1, **square) == pays(H=5, W=5, K=(1, 5, 5)) == NOWHERE


@pytest.mark.parametrize(
    "other",
    [
        {"K": (1, 1, 7)}, {"K": (3, 3, 3), "D": 8, "H": 8}, {"K": (1, 1, 1)}, {"S": (1, 1, 2)},
        {"L": (1, 1, 2)}, {"G": 2}, {"K": (1, 9, 5), "H": 9},
    ],
)  # fmt: skip
def test_it_leaves_other_convolutions_alone(other):
    assert pays(**other) == NOWHERE


def test_a_layer_changes_between_kernels_with_its_shapes():
    """Weights are packed anew for the other kernels, also where they have not changed."""
    x = normal(np.random.default_rng(0), 9, 32, 20)
    assert pays(N=8, W=32, C=20, F=20)[1]
    assert not pays(N=1, W=32, C=20, F=20)[1]
    model = Sequential([layers.Conv1D(20, 5, padding="same", activation="relu")], seed=0)
    y = model.predict(x, batch_size=8)  # eight samples, and one
    assert np.abs(y - model.predict(x, batch_size=1)).max() <= 200 * EPSILON * y.max()
    assert np.abs(y[:8] - model.predict(x[:8], batch_size=8)).max() == 0


def test_a_causal_layer_sees_no_later_step():
    """Padding in front alone: more of it than behind."""
    x = normal(np.random.default_rng(0), 8, 40, 32)
    model = Sequential([layers.Conv1D(32, 5, padding="causal")], seed=0)
    y = model.predict(x)
    assert model.layers[0].plan(x.shape).algorithm == "winograd_line"
    before = model.predict(x[:, :21])
    assert np.abs(y[:, :21] - before).max() <= 40 * EPSILON * np.abs(y).max()
