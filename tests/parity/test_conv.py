"""Convolutions of every kind against Keras."""

import numpy as np
import pytest
from parity.parity import both, check, close

SIZES = {1: (11,), 2: (9, 7), 3: (5, 7, 6)}
EVERYTHING = {
    "kernel_regularizer": "l2",
    "bias_regularizer": "l1",
    "activity_regularizer": "l2",
    "kernel_constraint": "max_norm",
    "bias_constraint": "non_neg",
}


def images(rank, channels=4, batch=3, size=None):
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, *(size or SIZES[rank]), channels))


@pytest.mark.parametrize(
    ("rank", "arguments"),
    [
        (1, {"kernel_size": 3, "padding": "causal", "dilation_rate": 3}),
        (1, {"kernel_size": 4, "padding": "causal", "strides": 3, "activation": "relu"}),
        (1, {"kernel_size": 5, "padding": "same", "strides": 4}),
        (1, {"kernel_size": 11, "activation": "softmax"}),
        (2, {"kernel_size": (3, 4), "strides": (2, 3), "padding": "SAME", "activation": "relu"}),
        (2, {"kernel_size": 3, "dilation_rate": (2, 3), "padding": "same", "groups": 2}),
        (2, {"kernel_size": 2, "dilation_rate": 2, "groups": 4, "use_bias": False}),
        (2, {"kernel_size": 1, "strides": 5, "activation": "gelu"}),
        (2, {"kernel_size": (9, 7), "activation": "tanh", **EVERYTHING}),
        (3, {"kernel_size": (2, 3, 1), "strides": (3, 1, 2), "padding": "same"}),
        (3, {"kernel_size": 2, "dilation_rate": 2, "groups": 2, "activation": "relu"}),
    ],
)
def test_convolution(rank, arguments):
    check(both(f"Conv{rank}D", 8, **arguments), x=images(rank))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_the_lengths_of_a_transposed_convolution(padding, kernel):
    x = images(1, 1, 1, (4,)).astype(np.float32)
    steps = [(1, 1, p) for p in (None, 0)] + [(1, 2, None), (1, 3, 0)]
    steps += [(2, 1, p) for p in (None, 0, 1)] + [(3, 1, p) for p in (None, 0, 1, 2)]
    for stride, dilation, output_padding in steps:
        ours, theirs = both(
            "Conv1DTranspose", 1, kernel, stride, padding, output_padding, dilation_rate=dilation
        )
        expected = np.asarray(theirs(x))
        ours.build_once(x.shape)
        ours.set_weights(theirs.get_weights())
        close(f"{stride=}, {dilation=}, {output_padding=}", ours(x), expected, 1e-5)


@pytest.mark.parametrize(
    ("rank", "arguments"),
    [
        (1, {"kernel_size": 4, "dilation_rate": 3, "padding": "same"}),
        (1, {"kernel_size": 2, "dilation_rate": 2, "activation": "relu"}),
        (2, {"kernel_size": 4, "strides": 2, "padding": "same", "activation": "relu"}),
        (2, {"kernel_size": (3, 2), "strides": (2, 3), "output_padding": (1, 2)}),
        (2, {"kernel_size": 3, "strides": (2, 3), "padding": "same", "output_padding": (0, 1)}),
        (2, {"kernel_size": 2, "strides": 5, "use_bias": False, "activation": "sigmoid"}),
        (2, {"kernel_size": 3, "dilation_rate": (1, 2), "padding": "same", **EVERYTHING}),
        (3, {"kernel_size": (3, 2, 1), "strides": (2, 1, 3), "padding": "same"}),
    ],
)
def test_transposed_convolution(rank, arguments):
    size = tuple(n // 2 for n in SIZES[rank])
    check(both(f"Conv{rank}DTranspose", 3, **arguments), x=images(rank, size=size))


DEPTHWISE = [
    (1, 1, {"kernel_size": 3, "strides": 2, "padding": "same", "depth_multiplier": 2}),
    (1, 5, {"kernel_size": 4, "dilation_rate": 3, "activation": "relu"}),
    (2, 40, {"kernel_size": 3, "padding": "same", "activation": "relu"}),
    (2, 5, {"kernel_size": (2, 5), "strides": 2, "padding": "same", "depth_multiplier": 3}),
    (2, 1, {"kernel_size": 2, "dilation_rate": (2, 3), "padding": "same", "use_bias": False}),
    (2, 3, {"kernel_size": 3, "strides": 3, "dilation_rate": 2, "activation": "tanh"}),
    (2, 17, {"kernel_size": (9, 7), "activation": "softmax"}),
]


@pytest.mark.parametrize(("rank", "channels", "arguments"), DEPTHWISE)
def test_depthwise_convolution(rank, channels, arguments):
    check(both(f"DepthwiseConv{rank}D", **arguments), x=images(rank, channels))


@pytest.mark.parametrize(("rank", "channels", "arguments"), DEPTHWISE)
def test_separable_convolution(rank, channels, arguments):
    check(both(f"SeparableConv{rank}D", 6, **arguments), x=images(rank, channels))


def test_regularizers_and_constraints_of_both_halves():
    penalties = {
        "depthwise_regularizer": "l2",
        "bias_regularizer": "l1",
        "activity_regularizer": "l1",
        "depthwise_constraint": "unit_norm",
        "bias_constraint": "non_neg",
    }
    check(both("DepthwiseConv2D", 3, **penalties), x=images(2))
    penalties |= {"pointwise_regularizer": "l1", "pointwise_constraint": "max_norm"}
    check(both("SeparableConv2D", 5, 3, **penalties), x=images(2))


def test_one_step_of_one_sample():
    for name in ("Conv1D", "Conv1DTranspose", "SeparableConv1D"):
        check(both(name, 2, 3, padding="same"), x=images(1, 3, 1, (1,)))
    check(both("DepthwiseConv1D", 4, padding="same", dilation_rate=2), x=images(1, 3, 1, (1,)))


def test_an_autoencoder():
    check(
        [
            both("Conv2D", 6, 3, strides=2, padding="same", activation="relu"),
            both("SeparableConv2D", 4, 3, activation="elu"),
            both("Conv2DTranspose", 5, 3, activation="relu"),
            both("DepthwiseConv2D", 3, padding="same"),
            both("Conv2DTranspose", 2, 4, strides=2, padding="same", activation="sigmoid"),
        ],
        x=images(2, 2, 4, (10, 8)),
        loss="binary_crossentropy",
        y=np.random.default_rng(1).uniform(size=(4, 10, 8, 2)),
    )
