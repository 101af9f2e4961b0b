"""Winograd's convolution: the direct one, within a bound that follows from its own matrices."""

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
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from strategies import seeds

from minicnnrnn import Sequential, layers
from minicnnrnn.kernels import gpu, transform, winograd

CPU_ALONE, NOWHERE = [False, True, False], [False] * 3  # where it pays: NumPy, CPU, CUDA


def shape(N=1, D=1, H=6, W=6, C=1, F=1, PH=0, PW=0, KD=1, LD=1, PD=0):
    """The integers of a convolution."""
    sizes = {"N": N, "D": D, "H": H, "W": W, "C": C, "F": F}
    return {**sizes, "PH": PH, "PW": PW, "KD": KD, "LD": LD, "PD": PD}


@st.composite
def shapes(draw, longest=11, channels=20):
    """Images from one pixel on, odd as often as not; any padding that leaves an output."""
    longest, channels = (3, 2) if gpu.SIMULATED else (longest, channels)
    PH, PW = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    H, W = (draw(st.integers(max(1, 3 - 2 * P), longest)) for P in (PH, PW))
    C, F = draw(st.integers(1, channels)), draw(st.integers(1, channels))
    KD, LD = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    reach = (KD - 1) * LD
    PD = draw(st.integers(0, reach))
    D = draw(st.integers(max(1, reach + 1 - 2 * PD), reach + 4 - PD))
    return shape(draw(st.integers(1, 3)), D, H, W, C, F, PH, PW, KD, LD, PD)


class Convolution(Passes):
    """By these kernels, unless others are named."""

    room = "winograd"

    def geometry(self, g):
        return (g["KD"], 3, 3), (g["PD"], g["PH"], g["PW"]), (g["LD"], 1, 1)


def absolute_matrices():
    """The reference, computing with the absolute values of its matrices."""
    matrices = {name: np.abs(getattr(winograd, name)) for name in ("A", "B", "TAPS")}
    return mock.patch.multiple(winograd, **matrices)


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    conv = Convolution(shape(H=3, W=4), device)
    x = np.arange(12, dtype=np.float32).reshape(conv.x_shape)
    w = np.array([1, 0, -1, 2, 0, 0, 0, 3, 0], np.float32).reshape(conv.w_shape)
    y = conv.forward(x, w, np.array([-35], np.float32))
    # 0 - 2 + 2 * 4 + 3 * 9 - 35 and 1 - 3 + 2 * 5 + 3 * 10 - 35
    np.testing.assert_allclose(y.ravel(), [-2, 3], atol=1e-4)
    y = conv.forward(x, w, np.array([-35], np.float32), relu=1)
    np.testing.assert_allclose(y.ravel(), [0, 3], atol=1e-4)
    dy = np.array([1, 10], np.float32).reshape(y.shape)
    dx = conv.backward_input(dy, w)
    expected = [1, 10, -1, -10, 2, 20, 0, 0, 0, 3, 30, 0]
    np.testing.assert_allclose(dx.ravel(), expected, atol=1e-4)
    dw, db = conv.backward_weight(x, dy)
    expected = [10, 21, 32, 54, 65, 76, 98, 109, 120]
    np.testing.assert_allclose(dw.ravel(), expected, rtol=1e-5)
    assert db == [11]


def test_the_formulas_are_the_matrices():
    formulas = {
        "pixel_line": winograd.B.T,
        "filter_line": winograd.TAPS,
        "output_line": winograd.A.T,
        "gradient_line": winograd.A,
        "weight_line": winograd.TAPS.T,
    }
    for name, matrix in formulas.items():
        columns = getattr(transform, name)(*np.eye(matrix.shape[1]))
        np.testing.assert_allclose(np.array(columns), matrix, rtol=1e-14)


@given(shapes(), seeds)
@example(shape(N=2, H=1, W=1, PH=1, PW=1), 0)
def test_the_reference_is_the_direct_convolution(g, seed):
    rng = np.random.default_rng(seed)
    ours, direct = Convolution(g, "numpy"), Convolution(g, "numpy", "conv")
    arrays = ours.arrays(normal, rng, dtype=np.float64)
    gate = ours.forward(*arrays[:3], relu=1)
    for a, b in zip(ours.all(*arrays, gate, relu=1), direct.all(*arrays, gate, relu=1)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("device", FAST)
@given(shapes(), seeds)
@example(shape(H=1, W=1, PH=1, PW=1), 0)
@example(shape(H=3, W=3), 1)  # kernel == image
@example(shape(N=2, H=5, W=3, C=64, F=33, PH=1, PW=1), 2)
@example(shape(N=3, H=13, W=30, C=17, F=70, PH=1, PW=1), 3)  # many blocks, a partial panel
@example(shape(N=30, H=7, W=8, C=9, F=10, PH=1, PW=1), 4)  # blocks of a weight gradient
@example(shape(N=65, H=7, W=8, C=2, F=3, PH=1, PW=1), 9)  # partial sums of one
@example(shape(H=4, W=2, C=3, F=160, PH=2, PW=2), 5)  # groups of filters
@example(shape(D=21, H=4, W=5, C=24, F=9, KD=3, PD=1, PH=1, PW=1), 6)  # blocks of planes
@example(shape(D=1, H=4, W=5, C=3, F=2, KD=2, LD=2, PD=1), 7)  # a kernel that meets no plane
@example(shape(N=2, D=5, H=9, W=6, C=90, F=100, KD=2, PD=1, PH=1), 8)  # groups, both ways
def test_within_rounding_of_the_float64_reference(device, g, seed):
    """Componentwise: as many roundings as operations in a row, of the sum of absolute values.

    Those are what the algorithm gives with the absolute values of its matrices and inputs.
    """
    rng = np.random.default_rng(seed)
    fast, reference = Convolution(g, device), Convolution(g, "numpy")
    x, w, b, dy = fast.arrays(normal, rng, bias=seed % 2 == 0)
    assume_affordable(device, 4 * x.size, 4 * dy.size, dy.size * w.size // g["F"])
    y = fast.forward(x, w, b, relu=1)
    gated = np.where(y <= 0, 0, dy)
    wide = [a.astype(np.float64) for a in (x, w, b, gated)]
    with absolute_matrices():
        sizes = reference.all(*[np.abs(a) for a in wide])
    tiles = g["N"] * fast.y_shape[1] * (np.array(fast.y_shape[2:4]) // 4 + 1).prod()
    sums = np.array([g["KD"] * g["C"], g["KD"] * g["F"], tiles, 16 * tiles])
    terms = sums + 24  # and those of three transforms
    for ours, theirs, count, size in zip(
        [fast.forward(x, w, b), *fast.all(x, w, b, dy, y)[1:]], reference.all(*wide), terms, sizes
    ):
        assert_within(ours, theirs, count, size)
    np.testing.assert_array_equal(y, np.maximum(fast.forward(x, w, b), 0))


@given(shapes(), seeds)
def test_the_error_is_small_beside_the_largest_output(g, seed):
    cpu = Convolution(g, "cpu")
    arrays = cpu.arrays(normal, np.random.default_rng(seed))
    direct = Convolution(g, "numpy", "conv").all(*[a.astype(np.float64) for a in arrays])
    assume(direct[0].size >= 16)  # the largest of few may be small by chance
    for ours, theirs in zip(cpu.all(*arrays), direct):
        assert np.abs(ours - theirs).max() <= 40 * EPSILON * (1 + np.abs(theirs).max())


@pytest.mark.parametrize(("channels", "bound"), [(16, 1.7e-6), (64, 2.5e-6), (256, 4e-6)])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_leaves_room_in_what_is_promised_against_keras(channels, bound, seed):
    """Outputs within 1e-5 of Keras', of any layer in a network: points at 1 and 2 do not do."""
    rng = np.random.default_rng(seed)
    cpu = Convolution(shape(H=12, W=12, C=channels, F=min(channels, 64), PH=1, PW=1), "cpu")
    x, w, b, dy = cpu.arrays(normal, rng)
    x, w = np.maximum(x, 0), w * np.float32((2 / (9 * channels)) ** 0.5)
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
def test_a_nan_reaches_all_that_is_computed_from_it(g, seed):
    """Those are the elements to which it adds a term in a direct convolution of ones."""
    rng = np.random.default_rng(seed)
    cpu, direct = Convolution(g, "cpu"), Convolution(g, "numpy", "conv")
    x, w, b, dy = cpu.arrays(normal, rng)
    for array in (x, dy):
        array.ravel()[rng.integers(array.size)] = np.nan
    pixel, gradient = (np.isnan(array).astype(np.float32) for array in (x, dy))
    ones = [np.ones_like(array) for array in (x, w, dy)]
    by_gradient, db = direct.backward_weight(ones[0], gradient)
    reached = [
        direct.forward(pixel, ones[1], b[:0]),
        direct.backward_input(gradient, ones[1]),
        direct.backward_weight(pixel, ones[2])[0] + by_gradient,
        db,
    ]
    for ours, terms in zip(cpu.all(x, w, b, dy, relu=1), reached):
        assert np.all(np.isnan(ours[terms > 0]))


@settings(max_examples=10)
@given(shapes(), seeds)
@example(shape(N=11, H=20, W=20, C=12, F=40, PH=1, PW=1), 0)  # partial sums of weights
@example(shape(N=2, D=6, H=8, W=8, C=20, F=70, PH=1, PW=1, KD=3, PD=1), 1)
def test_the_same_bits_on_one_thread_and_on_all(g, seed):
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        conv = Convolution(g, "cpu")
        results.append(conv.all(*conv.arrays(normal, np.random.default_rng(seed))))
        assert np.all(np.isnan(conv.behind))  # no thread leaves the workspace
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
        padding=(g["PD"], g["PH"], g["PW"]),
        dilation=(g["LD"], 1, 1),
    )
    theirs = theirs.permute(0, 2, 3, 4, 1).numpy()
    np.testing.assert_allclose(conv.forward(x, w, b), theirs, rtol=1e-3, atol=1e-3)


pays = functools.partial(checks.pays, "winograd", N=16, D=1, H=16, W=16, C=64, F=64, K=(1, 3, 3))


def test_it_pays_where_it_was_measured_to():
    assert pays() == pays(C=32, F=32) == pays(N=1, C=128, F=128) == CPU_ALONE
    assert pays(K=(3, 3, 3), D=8, C=16, F=32) == pays(N=8, H=4, W=4, C=512, F=512) == CPU_ALONE
    assert pays(K=(3, 3, 3), D=8, C=3, F=16) == NOWHERE
    assert pays(C=3) == pays(N=1, H=4, W=4) == pays(H=2, W=2) == NOWHERE


@pytest.mark.parametrize(
    "other",
    [
        {"K": (1, 5, 5)}, {"K": (3, 1, 1), "D": 8}, {"K": (1, 1, 3)}, {"S": (1, 2, 2)},
        {"K": (3, 3, 3), "D": 8, "S": (2, 1, 1)}, {"L": (1, 2, 2)}, {"G": 2},
    ],
)  # fmt: skip
def test_it_leaves_other_convolutions_alone(other):
    assert pays(**other) == NOWHERE


def test_a_layer_changes_between_kernels_with_its_shapes():
    """Weights are packed anew for the other kernels, also where they have not changed."""
    rng = np.random.default_rng(0)
    x = normal(rng, 9, 8, 8, 12)
    assert pays(N=8, H=8, W=8, C=12, F=20)[1]
    assert not pays(N=1, H=8, W=8, C=12, F=20)[1]
    model = Sequential([layers.Conv2D(20, 3, padding="same", activation="relu")], seed=0)
    y = model.predict(x, batch_size=8)  # eight samples, and one
    assert np.abs(y - model.predict(x, batch_size=1)).max() <= 200 * EPSILON * y.max()
    assert np.abs(y[:8] - model.predict(x[:8], batch_size=8)).max() == 0


def test_a_layer_transforms_its_weights_again_after_a_backward_pass():
    """Also where no update changes them between: the gradients' passes take the workspace."""
    x = normal(np.random.default_rng(0), 8, 8, 8, 16)
    assert pays(N=8, H=8, W=8, C=16, F=16)[1]
    model = Sequential([layers.Input((8, 8, 16)), layers.Conv2D(16, 3, padding="same")], seed=0)
    y = model(x, training=True)
    model.backward(y, input_gradient=True)
    np.testing.assert_array_equal(model(x), y)
