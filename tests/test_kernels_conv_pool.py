"""Convolution and maximum in one: what the two kernels give one after the other."""

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
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import convolutions, geometry, seeds


@st.composite
def windowed(draw):
    """A convolution with at least two outputs each way."""
    g = draw(convolutions())
    missing = [0, *(max(0, 2 - o) for o in g["O"][1:])]
    return {
        **g,
        "D": tuple(d + s * m for d, s, m in zip(g["D"], g["S"], missing)),
        "O": tuple(o + m for o, m in zip(g["O"], missing)),
    }


def workspace(device, g):
    return kernel("conv_pool", "conv_pool_workspace", device)(
        g["N"], *g["D"], g["C"], *g["O"], g["F"], *g["K"], *g["S"], *g["L"], g["G"]
    )


def pooled(device, g, x, w, b, relu=0, positions=False):
    """What the kernel makes of these arrays: the maxima, and where they were if wanted."""
    OD, OH, OW = g["O"]
    size = workspace(device, g)
    y, ws = nans(g["N"], OD, OH // 2, OW // 2, g["F"], dtype=x.dtype), nans(size)
    index = np.full(y.shape if positions else (0,) * 5, 77, np.uint8)
    kernel("conv", "conv_prepare", device)(w, g["G"], ws)
    kernel("conv_pool", "conv_pool_forward", device)(
        y, index, x, w, b, *g["S"], *g["L"], *g["P"], g["G"], relu, ws
    )
    return (y, index) if positions else y


def gradients(device, g, x, dy, y, index, bias=True):
    """Of filters and bias."""
    memory = nans(workspace(device, g) + 64)
    dw = nans(*g["K"], g["C"] // g["G"], g["F"], dtype=x.dtype)
    db = nans(g["F"] if bias else 0, dtype=x.dtype)
    kernel("conv_pool", "conv_pool_backward_weight", device)(
        dw, db, x, dy, y, index, *g["S"], *g["L"], *g["P"], g["G"], memory[:-64]
    )
    assert np.isnan(memory[-64:]).all()
    return dw, db


def arrays(g, make, rng):
    x = make(rng, g["N"], *g["D"], g["C"])
    w = make(rng, *g["K"], g["C"] // g["G"], g["F"])
    return x, w, make(rng, g["F"] if rng.random() < 0.7 else 0)


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    g = geometry(D=(1, 3, 3), K=(1, 2, 2), F=1)
    x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3, 1)
    w = np.array([1, 2, 3, 4], np.float32).reshape(1, 2, 2, 1, 1)  # 27, 37, 57, 67
    assert pooled(device, g, x, w, np.array([-30], np.float32)).item() == 37
    assert pooled(device, g, -x, w, np.array([3], np.float32)).item() == -24
    assert pooled(device, g, -x, w, np.array([3], np.float32), relu=1).item() == 0


@pytest.mark.parametrize("device", FAST)
@given(windowed(), seeds)
@example(geometry(D=(1, 28, 28), F=32), 0)  # a first layer
@example(geometry(N=3, D=(1, 9, 8), C=3, F=24, P=(0, 1, 1), O=(1, 9, 8)), 1)  # an odd line
@example(geometry(D=(1, 4, 4), K=(1, 3, 3), C=3, F=5), 2)  # one window
@example(geometry(D=(2, 9, 11), K=(2, 2, 3), S=(1, 2, 2), C=2, F=33), 3)
@example(geometry(D=(1, 11, 9), L=(1, 2, 2), C=2, F=17), 4)
@example(geometry(D=(1, 6, 6), C=4, F=18, G=2), 5)
@example(geometry(D=(1, 6, 40), K=(1, 1, 5), S=(1, 1, 3), F=16), 6)
def test_equals_the_reference_exactly_on_integers(device, g, seed):
    rng = np.random.default_rng(seed)
    x, w, b = arrays(g, integer_valued, rng)
    work = int(np.prod([g["N"], *g["O"], *g["K"], g["C"], g["F"]]))
    assume_affordable(device, 4 * x.size, work // 10)
    relu = seed % 2
    y, index = pooled(device, g, x, w, b, relu, positions=True)
    expected, where = pooled("numpy", g, x, w, b, relu, positions=True)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(pooled(device, g, x, w, b, relu), expected)
    if not relu:  # behind one that is closed, nobody asks
        np.testing.assert_array_equal(index, where)
    dy = integer_valued(rng, *y.shape)
    gate = y if relu else y[:0]
    for ours, theirs in zip(
        gradients(device, g, x, dy, gate, index, bias=seed % 3 > 0),
        gradients("numpy", g, x, dy, gate, where, bias=seed % 3 > 0),
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("device", FAST)
@given(windowed(), seeds)
def test_within_rounding_of_the_float64_reference(device, g, seed):
    x, w, b = arrays(g, normal, np.random.default_rng(seed))
    work = int(np.prod([g["N"], *g["O"], *g["K"], g["C"], g["F"]]))
    assume_affordable(device, 4 * x.size, work // 10)
    wide = [a.astype(np.float64) for a in (x, w, b)]
    terms = int(np.prod(g["K"])) * g["C"]
    magnitude = pooled("numpy", g, *(np.abs(a) for a in wide))
    assert_within(pooled(device, g, x, w, b), pooled("numpy", g, *wide), terms, magnitude)


@given(windowed(), seeds)
def test_gradients_of_the_reference(g, seed):
    rng = np.random.default_rng(seed)
    x, w, b = (a.astype(np.float64) for a in arrays(g, normal, rng))
    _, index = pooled("numpy", g, x, w, b, positions=True)
    for wrt, place in ((w, 0), (b, 1)):
        if wrt.size:
            check_gradient(
                lambda a, place=place: pooled("numpy", g, x, *((a, b), (w, a))[place]),
                lambda a, dy, place=place: gradients(
                    "numpy", g, x, dy, dy[:0], index, b.size > 0
                )[place],
                wrt,
                rng,
            )  # fmt: skip


@given(windowed(), seeds)
@example(geometry(N=5, D=(1, 28, 28), F=32), 1)
@example(geometry(N=3, D=(1, 2, 2), K=(1, 1, 1), F=2), 0)
def test_the_filters_gradient_has_the_bits_of_the_two_kernels(g, seed):
    rng = np.random.default_rng(seed)
    x, w, b = arrays(g, normal, rng)
    y, index = pooled("cpu", g, x, w, b, relu=1, positions=True)
    dy = normal(rng, *y.shape)
    dz = nans(g["N"], g["O"][0], *(2 * (n // 2) for n in g["O"][1:]), g["F"])
    gated = np.where(y <= 0, 0, dy).astype(np.float32)
    kernel("pool", "max_pool_backward_input", "cpu")(dz, gated, index, 1, 2, 2, 1, 2, 2, 0, 0, 0)
    dw, ws = nans(*w.shape), nans(workspace("cpu", g))
    steps = *g["S"], *g["L"], *g["P"], g["G"]
    # An open gate: without one, a kernel of one pixel would be another kind of product.
    kernel("conv", "conv_backward_weight", "cpu")(
        dw, dw[:0, 0, 0, 0, 0], x, dz, np.ones_like(dz), *steps, ws
    )
    np.testing.assert_array_equal(gradients("cpu", g, x, dy, y, index)[0], dw)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("relu", [0, 1])
def test_what_is_not_a_number_stays_so_and_infinity_wins(device, place, relu):
    g = geometry(D=(1, 2, 4), K=(1, 1, 1), F=9)
    x = np.full((1, 1, 2, 4, 1), -2, np.float32)
    x[0, 0, place[0], place[1]] = np.nan
    x[0, 0, place[0], 2 + place[1]] = np.inf
    w, b = np.ones((1, 1, 1, 1, 9), np.float32), np.zeros(9, np.float32)
    with np.errstate(invalid="ignore"):  # infinity meets the zeros behind a panel
        y = pooled(device, g, x, w, b, relu)
    assert np.isnan(y[0, 0, 0, 0]).all()
    assert np.isposinf(y[0, 0, 0, 1]).all()


@settings(max_examples=10)
@given(windowed(), seeds)
@example(geometry(N=9, D=(1, 20, 20), C=3, F=24), 0)
def test_the_same_bits_on_one_thread_and_on_all(g, seed):
    x, w, b = arrays(g, normal, np.random.default_rng(seed))
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        y, index = pooled("cpu", g, x, w, b, positions=True)
        results.append((y, index, *gradients("cpu", g, x, y, y[:0], index)))
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)
