"""Pooling, over windows and over everything."""

import numpy as np
import pytest
from parity.parity import both, check

SHAPES = {1: (3, 7, 4), 2: (2, 7, 6, 3), 3: (2, 5, 4, 6, 2)}
WINDOWS = [
    (1, {"pool_size": 2}),
    (1, {"pool_size": 3, "strides": 2, "padding": "same"}),
    (1, {"pool_size": 2, "strides": 3}),
    (1, {"pool_size": 7, "strides": 1}),
    (1, {"pool_size": 9, "strides": 4, "padding": "same"}),
    (2, {"pool_size": 2}),
    (2, {"pool_size": (2, 3), "strides": (1, 2)}),
    (2, {"pool_size": 3, "strides": 2, "padding": "same"}),
    (2, {"pool_size": (3, 2), "padding": "same"}),
    (2, {"pool_size": 1, "strides": 2, "padding": "same"}),
    (3, {"pool_size": 2}),
    (3, {"pool_size": (1, 2, 3), "strides": (2, 1, 2), "padding": "same"}),
]


def data(shape):
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize(("rank", "arguments"), WINDOWS)
def test_windows(kind, rank, arguments):
    shape = SHAPES[rank]
    pairs = [both("Dense", shape[-1]), both(f"{kind}Pooling{rank}D", **arguments)]
    check(pairs, x=data(shape), steps=3, optimizer="sgd")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_defaults(rank):
    shape = SHAPES[rank]
    check([both("Dense", 2), both(f"MaxPooling{rank}D")], x=data(shape), steps=2, optimizer="sgd")
    check([both("Dense", 2), both(f"AvgPool{rank}D", 2, None, "same")], x=data(shape), steps=0)


@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_everything(kind, rank, keepdims):
    shape = SHAPES[rank]
    pairs = [both("Dense", 3), both(f"Global{kind}Pooling{rank}D", keepdims=keepdims)]
    check(pairs, x=data(shape), steps=3, optimizer="sgd")


@pytest.mark.parametrize("keepdims", [False, True])
def test_average_of_the_steps_that_a_mask_leaves(keepdims):
    mask = np.array([[1, 0, 1, 1, 0, 0, 1], [0, 0, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
    pairs = [both("Dense", 3), both("GlobalAveragePooling1D", keepdims=keepdims), both("Dense", 2)]
    check(pairs, x=data(SHAPES[1]), mask=mask, steps=3, optimizer="sgd")


def test_one_channel_and_one_sample():
    pairs = [both("Dense", 1), both("MaxPooling2D", 3, 2, "same"), both("GlobalAveragePooling2D")]
    check(pairs, x=data((1, 9, 8, 1)), steps=3, optimizer="sgd")
