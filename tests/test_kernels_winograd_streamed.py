"""Winograd's convolution with filters transformed where they are used: the same numbers."""

import functools

import checks
import numba
import numpy as np
import pytest
from checks import EPSILON, normal
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds
from test_kernels_winograd import Convolution, shape

from minicnnrnn import Sequential, layers
from minicnnrnn.kernels.jit import JIT
from minicnnrnn.kernels.winograd_streamed import CHANNELS, TILES


@st.composite
def shapes(draw):
    """Few tiles, of images from one pixel on; channels and filters in whole blocks."""
    PH, PW = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    H, W = (draw(st.integers(max(1, 3 - 2 * P), 9)) for P in (PH, PW))
    C, F = (draw(st.integers(1, 3)) * CHANNELS for _ in range(2))
    N, D = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (1, 2)]))
    return shape(N, D, H, W, C, F, PH, PW)


@pytest.mark.skipif(not JIT, reason="NumPy sums in an order of its own")
@settings(max_examples=30)
@given(shapes(), seeds)
@example(shape(H=1, W=1, C=64, F=64, PH=1, PW=1), 0)
@example(shape(H=3, W=3, C=64, F=128), 1)  # kernel == image
@example(shape(N=4, H=16, W=16, C=128, F=64, PH=1, PW=1), 2)  # as many tiles as may be
def test_the_same_bits_as_transforming_all_filters_first(g, seed):
    rng = np.random.default_rng(seed)
    streamed, whole = Convolution(g, "cpu", "winograd_streamed"), Convolution(g, "cpu")
    x, w, b, dy = streamed.arrays(normal, rng, bias=seed % 2 == 0)
    gate = whole.forward(x, w, b, relu=1)
    results = zip(streamed.all(x, w, b, dy, gate, 1), whole.all(x, w, b, dy, gate, 1))
    for ours, theirs in results:
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(streamed.all(x, w, b, dy), whole.all(x, w, b, dy)):
        np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=20)
@given(shapes(), seeds)
def test_the_direct_convolution_agrees(g, seed):
    streamed = Convolution(g, "cpu", "winograd_streamed")
    arrays = streamed.arrays(normal, np.random.default_rng(seed))
    direct = Convolution(g, "numpy", "conv").all(*[a.astype(np.float64) for a in arrays])
    for ours, theirs in zip(streamed.all(*arrays), direct):
        assert np.abs(ours - theirs).max() <= 40 * EPSILON * (1 + np.abs(theirs).max())


@pytest.mark.skipif(not JIT, reason="plain Python has one thread")
@settings(max_examples=10)
@given(shapes(), seeds)
def test_the_same_bits_on_one_thread_and_on_all(g, seed):
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        conv = Convolution(g, "cpu", "winograd_streamed")
        results.append(conv.all(*conv.arrays(normal, np.random.default_rng(seed))))
        assert np.all(np.isnan(conv.behind))  # no thread leaves the workspace
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


pays = functools.partial(
    checks.pays, "winograd_streamed", N=8, D=1, H=4, W=4, C=512, F=512, K=(1, 3, 3)
)


def test_it_pays_where_it_was_measured_to():
    alone = [False, True, False]
    assert pays() == pays(N=2) == pays(H=8, W=8) == pays(H=5, W=5) == pays(C=128, F=128) == alone
    assert pays(N=TILES)[1]
    assert not pays(N=TILES + 1)[1]
    assert pays(N=1, D=2, H=8, W=8)[1]


@pytest.mark.parametrize(
    "other",
    [
        {"N": 1}, {"H": 2, "W": 2}, {"C": 64, "F": 128}, {"C": 96}, {"F": 500}, {"G": 2},
        {"K": (3, 3, 3)}, {"K": (1, 5, 5)}, {"S": (1, 2, 2)}, {"L": (1, 2, 2)},
    ],
)  # fmt: skip
def test_it_leaves_other_convolutions_alone(other):
    assert pays(**other) == [False] * 3


@pytest.mark.skipif(not JIT, reason="NumPy sums in an order of its own")
def test_a_layer_changes_between_kernels_with_its_shapes():
    """One sample directly, eight by streams, more with all filters transformed: as they were."""
    x = normal(np.random.default_rng(0), 73, 4, 4, 128)
    model = Sequential([layers.Conv2D(128, 3, padding="same", activation="relu")], seed=0)
    assert [pays(N=N, C=128, F=128)[1] for N in (1, 8, 73)] == [False, True, False]
    one, eight, all_of_them = (model.predict(x, batch_size=N) for N in (1, 8, 73))
    assert np.abs(one - eight).max() <= 200 * EPSILON * one.max()
    np.testing.assert_array_equal(eight[:72], all_of_them[:72])
    np.testing.assert_array_equal(model.predict(x, batch_size=8), eight)
