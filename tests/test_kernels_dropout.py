"""Dropout: the generator's known answers, the same masks everywhere, the right share."""

import numba
import numpy as np
import pytest
from checks import check_gradient, kernel, nans, normal
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds

from minicnnrnn.kernels.dropout import dropout_forward_numpy, philox
from minicnnrnn.kernels.jit import JIT

DEVICES = ["numpy", "cpu"]


def drop(device, x, seed=0, step=0, stream=0, rate=0.5):
    y, state = nans(*x.shape, dtype=x.dtype), np.array([seed, step], np.int64)
    kernel("dropout", "dropout_forward", device)(y, x, state, stream, rate)
    assert state.tolist() == [seed, step]
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


@given(
    st.integers(1, 300), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**63 - 1),
    st.integers(0, 2**32 - 1), st.floats(0, 1), seeds,
)  # fmt: skip
@example(5, -1, 2**63 - 1, 2**32 - 1, 1.0, 0)
def test_cpu_equals_reference_bit_by_bit(size, seed, step, stream, rate, data):
    x = normal(np.random.default_rng(data), size)
    one, other = (drop(device, x, seed, step, stream, rate) for device in DEVICES)
    np.testing.assert_array_equal(one, other)


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
def test_nan_stays(device):
    x = np.full(40, np.nan, np.float32)
    assert np.isnan(drop(device, x)).all()


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_mask_on_one_thread_and_on_all():
    x, masks = np.ones(100_003, np.float32), []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        masks.append(drop("cpu", x, seed=9))
    np.testing.assert_array_equal(*masks)
