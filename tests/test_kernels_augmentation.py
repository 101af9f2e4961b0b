"""Flips and translations: reference, CPU and mathematics agree."""

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, assert_within, check_gradient, kernel, nans, normal
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds

from minicnnrnn.kernels import gpu
from minicnnrnn.kernels.codes import CONSTANT, NEAREST, REFLECT, WRAP
from minicnnrnn.kernels.dropout import philox
from minicnnrnn.kernels.jit import JIT

MODES = [REFLECT, WRAP, CONSTANT, NEAREST]
images = st.tuples(*(st.integers(1, n) for n in ((2, 5, 5, 2) if gpu.SIMULATED else (5, 9, 9, 4))))


def flip(device, x, horizontal=1, vertical=0, seed=0, step=0, stream=0):
    y = nans(*x.shape, dtype=x.dtype)
    state = np.array([seed, step])
    kernel("augmentation", "flip_forward", device)(y, x, state, stream, horizontal, vertical)
    return y


def translate(device, x, factors, mode, bilinear, fill=0.5, state=(0, 0), stream=0):
    y = nans(*x.shape, dtype=x.dtype)
    ws = nans(kernel("augmentation", "translation_workspace", device)(*x.shape[1:]))
    kernel("augmentation", "translation_forward", device)(
        y, x, np.array(state), stream, np.array(factors, np.float32), fill, mode, bilinear, ws
    )
    return y


def translate_back(device, dy, factors, mode, bilinear, state=(0, 0), stream=0):
    dx = nans(*dy.shape, dtype=dy.dtype)
    ws = nans(kernel("augmentation", "translation_workspace", device)(*dy.shape[1:]))
    kernel("augmentation", "translation_backward_input", device)(
        dx, dy, np.array(state), stream, np.array(factors, np.float32), mode, bilinear, ws
    )
    return dx


def some_factors(rng):
    low, high = np.sort(rng.uniform(-1, 1, (2, 2)), axis=0).astype(np.float32)
    return np.array([low[0], high[0], low[1], high[1]])


@pytest.mark.parametrize("device", DEVICES)
def test_worked_flips(device):
    words = [int(philox(*np.array([n, 0, 0, 0, 0, 0], np.uint64))[0]) for n in range(4)]
    flipped = [word < 2**31 for word in words]
    assert flipped == [True, False, True, False]
    x = np.tile(np.array([[1, 2], [3, 4]], np.float32), (4, 1, 1))[..., None]
    for horizontal, vertical, expected in (
        (1, 0, [[2, 1], [4, 3]]),
        (0, 1, [[3, 4], [1, 2]]),
        (1, 1, [[4, 3], [2, 1]]),
    ):
        y = flip(device, x, horizontal, vertical)[..., 0]
        assert y[0].tolist() == expected
        assert y[2].tolist() == expected
        assert y[1].tolist() == y[3].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("mode", "shift", "expected"),
    [
        (REFLECT, 0.5, [2, 1, 1, 2]), (WRAP, 0.5, [3, 4, 1, 2]), (CONSTANT, 0.5, [9, 9, 1, 2]),
        (NEAREST, 0.5, [1, 1, 1, 2]), (REFLECT, -0.5, [3, 4, 4, 3]), (WRAP, -1, [1, 2, 3, 4]),
        (CONSTANT, 1, [9, 9, 9, 9]), (REFLECT, 1, [4, 3, 2, 1]), (NEAREST, 0, [1, 2, 3, 4]),
        (CONSTANT, 0.125, [5, 1.5, 2.5, 3.5]), (WRAP, 0.0625, [1.75, 1.75, 2.75, 3.75]),
    ],
)  # fmt: skip
def test_worked_translations(device, mode, shift, expected):
    row = np.array([1, 2, 3, 4], np.float32)
    right = translate(device, row.reshape(1, 1, 4, 1), (0, 0, shift, shift), mode, 1, fill=9)
    assert right.ravel().tolist() == expected
    down = translate(device, row.reshape(1, 4, 1, 1), (shift, shift, 0, 0), mode, 1, fill=9)
    assert down.ravel().tolist() == expected
    if shift in (-0.5, 0.5):
        nearest = translate(device, row.reshape(1, 1, 4, 1), (0, 0, shift, shift), mode, 0, fill=9)
        assert nearest.ravel().tolist() == expected


@pytest.mark.parametrize("device", DEVICES)
def test_half_a_pixel_rounds_away_from_zero(device):
    x = np.array([1, 2], np.float32).reshape(1, 1, 2, 1)
    y = translate(device, x, (0, 0, 0.25, 0.25), CONSTANT, 0, fill=9)  # at -0.5 and 0.5
    assert y.ravel().tolist() == [9, 2]


@pytest.mark.parametrize("device", DEVICES)
def test_every_part_of_the_state_is_used(device):
    x = normal(np.random.default_rng(0), 64, 1, 2, 1)
    kept = flip(device, x)
    for change in ({"seed": 1}, {"seed": 2**40}, {"step": 1}, {"step": 2**40}, {"stream": 1}):
        assert not np.array_equal(flip(device, x, **change), kept)
    assert 15 < sum(np.array_equal(a, b) for a, b in zip(kept, x)) < 49
    many = np.zeros((2000, 1, 1, 1), np.float32)  # fill shows how far: a pixel comes from outside
    gone = translate(device, many, (-1, 1, 0, 0), CONSTANT, 1, fill=1).ravel()
    assert abs(gone.mean() - 0.5) < 0.03  # |shift| is uniform from 0 to 1
    assert abs(gone.var() - 1 / 12) < 0.01
    other = translate(device, many, (0, 0, -1, 1), CONSTANT, 1, fill=1).ravel()
    assert abs(np.corrcoef(gone, other)[0, 1]) < 0.1  # the axes are independent


@pytest.mark.parametrize("device", FAST)
@given(images, seeds, st.sampled_from([(1, 0), (0, 1), (1, 1)]))
@example((1, 1, 1, 1), 0, (1, 1))
def test_flips_equal_the_reference(device, shape, seed, axes):
    x = normal(np.random.default_rng(seed), *shape)
    y = flip(device, x, *axes, seed=seed)
    np.testing.assert_array_equal(y, flip("numpy", x, *axes, seed=seed))
    np.testing.assert_array_equal(flip(device, y, *axes, seed=seed), x)


@pytest.mark.parametrize("device", FAST)
@given(images, seeds, st.sampled_from(MODES), st.integers(0, 1))
@example((1, 1, 1, 1), 0, REFLECT, 1)
@example((2, 1, 9, 2), 0, WRAP, 1)
def test_translations_are_near_the_float64_reference(device, shape, seed, mode, bilinear):
    rng = np.random.default_rng(seed)
    x, dy, factors = normal(rng, *shape), normal(rng, *shape), some_factors(rng)
    arguments = (factors, mode, bilinear)
    random = {"state": (seed, 3), "stream": 2}
    expected = translate("numpy", x.astype(np.float64), *arguments, **random)
    assert_within(translate(device, x, *arguments, **random), expected, 8, 1 + np.abs(x).max())
    expected = translate_back("numpy", dy.astype(np.float64), *arguments, **random)
    bound = (1 + np.abs(dy).sum((1, 2), keepdims=True)) + np.zeros(shape)
    assert_within(translate_back(device, dy, *arguments, **random), expected, 8, bound)


@given(images, seeds, st.sampled_from(MODES), st.integers(0, 1))
def test_gradients_of_the_reference(shape, seed, mode, bilinear):
    rng = np.random.default_rng(seed)
    x, factors = normal(rng, *shape, dtype=np.float64), some_factors(rng)
    check_gradient(
        lambda x: translate("numpy", x, factors, mode, bilinear),
        lambda x, dy: translate_back("numpy", dy, factors, mode, bilinear),
        x,
        rng,
    )
    check_gradient(lambda x: flip("numpy", x), lambda x, dy: flip("numpy", dy), x, rng)


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_bits_on_any_number_of_threads():
    x, results = normal(np.random.default_rng(0), 50, 20, 20, 3), []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        arguments = ((-0.3, 0.3, -0.3, 0.3), REFLECT, 1)
        results.append(
            (flip("cpu", x), translate("cpu", x, *arguments), translate_back("cpu", x, *arguments))
        )
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_agreement_with_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    x = normal(np.random.default_rng(0), 1, 7, 6, 1)
    names = {REFLECT: "reflect", WRAP: "grid-wrap", CONSTANT: "grid-constant", NEAREST: "nearest"}
    for mode, name in names.items():
        ours = translate("cpu", x, (0.3, 0.3, -0.45, -0.45), mode, 1)
        moved = np.float32(0.3) * np.float32(7), np.float32(-0.45) * np.float32(6)
        theirs = ndimage.shift(x[0, ..., 0], moved, order=1, mode=name, cval=0.5)
        np.testing.assert_allclose(ours[0, ..., 0], theirs, atol=1e-5)
