"""Dropout and noise: known answers, the same numbers everywhere, the right distribution."""

import math

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, assume_affordable, check_gradient, kernel, nans, normal
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.dropout import dropout_forward_numpy, philox
from minicnnrnn.kernels.jit import JIT


def drop(device, x, seed=0, step=0, stream=0, rate=0.5):
    y, state = nans(*x.shape, dtype=x.dtype), np.array([seed, step], np.int64)
    kernel("dropout", "dropout_forward", device)(y, x, state, stream, rate)
    assert state.tolist() == [seed, step]
    return y


def noise(device, x, seed=0, step=0, stream=0, deviation=1.0, multiply=0):
    y, state = nans(*x.shape, dtype=x.dtype), np.array([seed, step], np.int64)
    kernel("dropout", "gaussian_forward", device)(y, x, state, stream, deviation, multiply)
    return y


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # kat_vectors of Random123 1.14
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers(counter, key, words):
    drawn = philox(*np.array([*counter, *key], np.uint64))
    assert [int(word) for word in drawn] == words


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    # Counter and key 0 draw these words; 0.75 keeps what is at least 0xC0000000.
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert [word >= 0xC0000000 for word in words] == [False, True, False, False]
    x = np.array([1, 2, 3, 4], np.float32)
    assert drop(device, x, rate=0.75).tolist() == [0, 8, 0, 0]
    assert drop(device, x[:3], rate=0.75).tolist() == [0, 8, 0]
    assert drop(device, x, rate=0.0).tolist() == [1, 2, 3, 4]
    assert drop(device, x, rate=1.0).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("device", DEVICES)
def test_every_part_of_the_state_reaches_the_generator(device):
    stream, low, high, *key = 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0
    words = [int(w) for w in philox(*np.array([5, stream, low, high, *key], np.uint64))]
    x = np.ones(24, np.float32)
    seed, step = key[0] + (key[1] << 32), low + (high << 32)
    kept = drop(device, x, seed, step, stream, 0.5)[20:]
    assert kept.tolist() == [2.0 * (word >= 2**31) for word in words]


@pytest.mark.parametrize("device", FAST)
@given(
    upto(300), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**63 - 1),
    st.integers(0, 2**32 - 1), st.floats(0, 1), seeds,
)  # fmt: skip
@example(5, -1, 2**63 - 1, 2**32 - 1, 1.0, 0)
def test_equals_reference_bit_by_bit(device, size, seed, step, stream, rate, data):
    x = normal(np.random.default_rng(data), size)
    one, other = (drop(d, x, seed, step, stream, rate) for d in (device, "numpy"))
    np.testing.assert_array_equal(one, other)
    factors = nans(size)
    kernel("dropout", "dropout_forward", device)(
        factors, np.empty(0, np.float32), np.array([seed, step]), stream, rate
    )
    np.testing.assert_array_equal(factors, drop("numpy", np.ones_like(x), seed, step, stream, rate))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_right_share_is_dropped_and_the_mean_stays(rate):
    size = 20_000
    kept = drop("numpy", np.ones(size, np.float32), seed=1, rate=rate) > 0
    deviation = (rate * (1 - rate) / size) ** 0.5
    assert abs(kept.mean() - (1 - rate)) < 5 * deviation
    # Neighbours, streams, steps and seeds are independent of each other.
    others = [drop("numpy", np.ones(size, np.float32), **{"seed": 1, "rate": rate, **change}) > 0
              for change in ({"seed": 2}, {"step": 1}, {"stream": 1})]  # fmt: skip
    for other in [np.roll(kept, 1), np.roll(kept, 4), *others]:
        both = (1 - rate) ** 2
        assert abs((kept & other).mean() - both) < 5 * (both * (1 - both) / size) ** 0.5


@given(st.integers(1, 50), seeds)
def test_the_gradient_is_the_same_kernel(size, seed):
    x = normal(np.random.default_rng(seed), size, dtype=np.float64)
    state = np.array([seed, 3])

    def function(x):
        y = np.empty_like(x)
        dropout_forward_numpy(y, x, state, 0, 0.3)
        return y

    check_gradient(function, lambda x, dy: function(dy), x, np.random.default_rng(seed))


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example_of_noise(device):
    # Words 0x6627E8D5 and 0xE169C58D: u = 0x3313F4.8 / 2^23, quarter 3, f = 0x42D38B.8 / 2^23.
    u, f = (0x3313F4 + 0.5) / 2**23, (0x42D38B + 0.5) / 2**23
    radius, angle = math.sqrt(-2 * math.log(u)), math.pi / 2 * (3 + f - 0.5)
    expected = np.array([radius * math.cos(angle), radius * math.sin(angle)])
    np.testing.assert_allclose(expected, [0.047005, -1.354675], atol=1e-6)
    x = np.array([10, 20, 0, 0], np.float32)
    np.testing.assert_allclose(noise(device, x)[:2], x[:2] + expected, rtol=1e-6)
    multiplied = noise(device, x, deviation=0.5, multiply=1)
    np.testing.assert_allclose(multiplied, [*x[:2] * (1 + 0.5 * expected), 0, 0], rtol=1e-6)


@pytest.mark.parametrize("device", FAST)
@given(
    upto(2000), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**63 - 1),
    st.integers(0, 2**32 - 1), st.integers(0, 1), seeds,
)  # fmt: skip
@example(1, 0, 0, 0, 0, 0)
@example(1027, 1, 2, 3, 1, 0)
@example(43, 1, 2, 3, 1, 0)
def test_noise_is_near_the_float64_reference(device, size, seed, step, stream, multiply, data):
    assume_affordable(device, size)
    x = normal(np.random.default_rng(data), size)
    y = noise(device, x, seed, step, stream, 0.7, multiply)
    wide = noise("numpy", x.astype(np.float64), seed, step, stream, 0.7, multiply)
    np.testing.assert_allclose(y, wide, atol=2e-6 * (1 + np.abs(x).max()))


@pytest.mark.skipif(not JIT, reason="a million numbers in plain Python take a minute")
def test_noise_is_standard_normal():
    stats = pytest.importorskip("scipy.stats")
    zeros = np.zeros(100_000, np.float32)
    g = noise("cpu", zeros, seed=1)
    assert stats.kstest(g, "norm").pvalue > 1e-3
    assert stats.kstest(g[0::2] * g[1::2], noise("cpu", zeros, 2)[0::2] * g[1::2]).pvalue > 1e-3
    others = [np.roll(g, 1), np.roll(g, 2), noise("cpu", zeros, 2), noise("cpu", zeros, 1, 1),
              noise("cpu", zeros, 1, 0, 1)]  # fmt: skip
    for other in others:
        assert abs(np.corrcoef(g, other)[0, 1]) < 5 / len(g) ** 0.5
        assert abs(np.corrcoef(g**2, other**2)[0, 1]) < 5 / len(g) ** 0.5
    np.testing.assert_array_equal(noise("cpu", zeros, seed=1), g)


@pytest.mark.skipif(not JIT, reason="a million numbers in plain Python take a minute")
def test_the_tail_of_the_noise_ends_where_it_says():
    zeros = np.zeros(1_000_000, np.float32)
    assert 4.5 < np.abs(noise("cpu", zeros, seed=3)).max() < 5.78
    assert np.isfinite(noise("cpu", zeros, seed=4)).all()


@pytest.mark.parametrize("multiply", [0, 1])
def test_gradients_of_noise(multiply):
    x = normal(np.random.default_rng(0), 30, dtype=np.float64)
    check_gradient(
        lambda x: noise("numpy", x, 5, 6, 7, 0.5, multiply),
        lambda x, dy: noise("numpy", dy, 5, 6, 7, 0.5, 1) if multiply else dy,
        x,
        np.random.default_rng(1),
    )


@pytest.mark.parametrize("device", DEVICES)
def test_nan_stays(device):
    x = np.full(40, np.nan, np.float32)
    assert np.isnan(drop(device, x)).all()
    assert np.isnan(noise(device, x)).all()
    assert np.isnan(noise(device, x, multiply=1)).all()


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_numbers_on_one_thread_and_on_all():
    x, masks = np.ones(100_003, np.float32), []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        masks.append((drop("cpu", x, seed=9), noise("cpu", x, 9), noise("cpu", x, 9, multiply=1)))
    np.testing.assert_array_equal(*masks)
