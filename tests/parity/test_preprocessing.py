"""Rescaling, Normalization and augmentations against Keras'."""

import itertools

import keras
import numpy as np
import pytest
from parity.parity import both, check, close


def data(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "scale", "offset"),
    [
        ((3, 4), 0.5, 0.0), ((2, 3, 3, 2), 1 / 127.5, -1), ((4, 3), [1.0, -2.0, 3.0], 0.5),
        ((4, 3), 2.0, [1.0, 2.0, 3.0]), ((2, 5, 3), [0.1, 0.2, 0.3], [1.0, 2.0, 3.0]),
        ((2, 5, 3), [[1.0], [2.0], [3.0], [4.0], [5.0]], 0.0), ((2, 5, 1, 3), [[2.0]], [1.0]),
    ],
)  # fmt: skip
def test_rescaling(shape, scale, offset):
    layers = [both("Rescaling", np.array(scale), np.array(offset)), both("Dense", 2)]
    check(layers, x=data(*shape))
    check([both("Dense", shape[-1]), *[both("Rescaling", np.array(scale), np.array(offset))]],
          x=data(*shape))  # fmt: skip


NORMALIZATIONS = [
    ((5, 3), -1), ((5, 3), 1), ((5, 3), None), ((1, 1), -1), ((4, 6, 3), -1), ((4, 6, 3), 1),
    ((4, 6, 3), (1, 2)), ((4, 6, 3), (-1, 1)), ((2, 3, 4, 5), (1, 3)), ((2, 3, 4, 5), 2),
    ((2, 3, 4, 5), None),
]  # fmt: skip


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(("shape", "axis"), NORMALIZATIONS)
def test_adapted_normalization(shape, axis, invert):
    x = 30 + 3 * data(9, *shape[1:])
    ours, theirs = both("Normalization", axis=axis, invert=invert)
    ours.adapt(x)
    theirs.adapt(x)
    for mine, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        close("weight", mine, expected, 1e-5)
    ours.set_weights(theirs.get_weights())
    close("output", ours(x[: shape[0]]), theirs(x[: shape[0]]), 1e-5)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis", "size"),
    [
        ((5, 3), -1, (3,)), ((5, 3), -1, ()), ((5, 3), None, ()), ((4, 6, 3), (1, 2), (6, 3)),
        ((4, 6, 3), (1, 2), (3,)), ((4, 6, 3), (1, 2), (6, 1)), ((4, 6, 3), 1, (6,)),
        ((2, 3, 4, 5), (1, 3), (3, 5)),
    ],
)  # fmt: skip
def test_given_normalization(shape, axis, size, invert):
    mean, variance = 100 * data(*size), data(*size, seed=1) ** 2
    arguments = {"axis": axis, "mean": mean, "variance": variance, "invert": invert}
    x = (100 + data(*shape)).astype(np.float32)
    check([both("Normalization", **arguments)], x=x, steps=0)


def test_normalization_inside_a_model():
    x = 1000 + 5 * data(20, 4)
    ours, theirs = both("Normalization")
    ours.adapt(x)
    theirs.adapt(x)
    check([(ours, theirs), both("Dense", 3, activation="tanh"), both("Dense", 1)], x=x)


@pytest.mark.parametrize("shape", [(2, 10, 8, 3), (1, 1, 1, 1), (2, 5, 7, 1), (1, 15, 1, 2)])
@pytest.mark.parametrize("fill_mode", ["reflect", "wrap", "constant", "nearest"])
def test_translations_by_a_fixed_amount(shape, fill_mode):
    x = data(*shape)
    for interpolation, height, width in itertools.product(
        ["bilinear", "nearest"], [0.0, 0.25, -0.3, 0.99, -1.0], [0.0, 0.5, -0.1, 0.7]
    ):
        arguments = (height, height), (width, width), fill_mode, interpolation
        ours, theirs = both("RandomTranslation", *arguments, fill_value=0.7)
        expected = np.asarray(theirs(x, training=True))
        close(str(arguments), ours(x, training=True), expected, 1e-5)
        np.testing.assert_array_equal(ours(x), x)


def test_the_gradient_of_a_translation():
    x, dy = data(2, 6, 5, 2), data(2, 6, 5, 2, seed=1)
    jax = pytest.importorskip("jax")
    for fill_mode in ("reflect", "wrap", "constant", "nearest"):
        arguments = (0.23, 0.23), (-0.41, -0.41), fill_mode
        ours, theirs = both("RandomTranslation", *arguments)
        _, pullback = jax.vjp(lambda x, layer=theirs: layer(x, training=True), x)
        ours(x, training=True)
        close(fill_mode, ours.backward(dy), pullback(keras.ops.convert_to_tensor(dy))[0], 1e-5)


@pytest.mark.parametrize("mode", ["horizontal", "vertical", "horizontal_and_vertical"])
def test_flips_are_those_of_keras(mode):
    x = data(40, 3, 4, 2)
    for layer in both("RandomFlip", mode, seed=1):
        y = np.asarray(layer(x, training=True))
        other = {"horizontal": x[:, :, ::-1], "vertical": x[:, ::-1]}.get(mode, x[:, ::-1, ::-1])
        flipped = [np.array_equal(a, b) for a, b in zip(y, other)]
        same = [np.array_equal(a, b) for a, b in zip(y, x)]
        assert all(a != b for a, b in zip(flipped, same))
        assert 8 < sum(flipped) < 32
