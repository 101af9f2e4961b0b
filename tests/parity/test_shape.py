"""Magnifying, padding, cropping, reordering; and what is inactive outside of training."""

import numpy as np
import pytest
from parity.parity import both, check

SEQUENCES, IMAGES, VOLUMES = (3, 5, 4), (2, 5, 4, 3), (2, 3, 4, 5, 2)
CASES = [
    ("UpSampling1D", SEQUENCES, {}),
    ("UpSampling1D", (1, 1, 1), {"size": 3}),
    ("UpSampling2D", IMAGES, {}),
    ("UpSampling2D", IMAGES, {"size": (3, 1)}),
    ("UpSampling2D", IMAGES, {"size": 3, "interpolation": "bilinear"}),
    ("UpSampling2D", IMAGES, {"size": (4, 2), "interpolation": "bilinear"}),
    ("UpSampling2D", (1, 1, 3, 1), {"size": (2, 5), "interpolation": "bilinear"}),
    ("UpSampling3D", VOLUMES, {}),
    ("UpSampling3D", VOLUMES, {"size": (1, 2, 3)}),
    ("ZeroPadding1D", SEQUENCES, {}),
    ("ZeroPadding1D", SEQUENCES, {"padding": (0, 3)}),
    ("ZeroPadding2D", IMAGES, {}),
    ("ZeroPadding2D", IMAGES, {"padding": (2, 0)}),
    ("ZeroPadding2D", IMAGES, {"padding": ((1, 2), (3, 0))}),
    ("ZeroPadding3D", VOLUMES, {"padding": 2}),
    ("ZeroPadding3D", VOLUMES, {"padding": (2, 0, 1)}),
    ("ZeroPadding3D", VOLUMES, {"padding": ((1, 2), (3, 0), (0, 0))}),
    ("Cropping1D", SEQUENCES, {}),
    ("Cropping1D", SEQUENCES, {"cropping": 2}),
    ("Cropping1D", SEQUENCES, {"cropping": (0, 4)}),
    ("Cropping2D", IMAGES, {}),
    ("Cropping2D", IMAGES, {"cropping": 1}),
    ("Cropping2D", IMAGES, {"cropping": (2, 1)}),
    ("Cropping2D", IMAGES, {"cropping": ((1, 0), (0, 3))}),
    ("Cropping3D", VOLUMES, {}),
    ("Cropping3D", VOLUMES, {"cropping": (0, 1, 2)}),
    ("Cropping3D", VOLUMES, {"cropping": ((0, 1), (2, 0), (0, 0))}),
    ("Flatten", VOLUMES, {}),
    ("Flatten", (3, 4), {}),
    ("Reshape", IMAGES, {"target_shape": (3, -1)}),
    ("Reshape", IMAGES, {"target_shape": (2, 5, 2, 3)}),
    ("Reshape", (2, 6), {"target_shape": (-1,)}),
    ("Permute", SEQUENCES, {"dims": (2, 1)}),
    ("Permute", VOLUMES, {"dims": (3, 1, 4, 2)}),
    ("Permute", (2, 1, 3, 1, 2, 4), {"dims": (5, 3, 1, 2, 4)}),
    ("RepeatVector", (3, 4), {"n": 5}),
    ("RepeatVector", (1, 1), {"n": 1}),
]


@pytest.mark.parametrize(("name", "shape", "arguments"), CASES)
def test_layers_of_shape(name, shape, arguments):
    x = np.random.default_rng(0).standard_normal(shape)
    pairs = [both("Dense", shape[-1]), both(name, **arguments)]
    check(pairs, x=x, steps=3, optimizer="sgd")


@pytest.mark.parametrize(
    ("name", "shape", "arguments"),
    [
        ("Dropout", SEQUENCES, {"rate": 0.5, "noise_shape": (None, 1, 4)}),
        ("SpatialDropout1D", SEQUENCES, {"rate": 0.5}),
        ("SpatialDropout2D", IMAGES, {"rate": 0.5}),
        ("SpatialDropout3D", VOLUMES, {"rate": 0.5}),
        ("GaussianNoise", SEQUENCES, {"stddev": 0.5}),
        ("GaussianDropout", SEQUENCES, {"rate": 0.5}),
    ],
)
def test_noise_is_off_outside_of_training_and_at_zero(name, shape, arguments):
    x = np.random.default_rng(0).standard_normal(shape)
    check([both("Dense", shape[-1]), both(name, **arguments)], x=x, steps=0)
    off = {key: 0.0 for key in arguments if key != "noise_shape"}
    check([both("Dense", shape[-1]), both(name, **off)], x=x, steps=2, optimizer="sgd")


@pytest.mark.parametrize("rates", [{"l1": 0.1}, {"l2": 0.2}, {"l1": 0.01, "l2": 0.3}, {}])
def test_activity_regularization(rates):
    x = np.random.default_rng(0).standard_normal(SEQUENCES)
    pairs = [both("Dense", 4), both("ActivityRegularization", **rates), both("Dense", 3)]
    check(pairs, x=x, steps=3, optimizer="sgd")


@pytest.mark.parametrize("name", ["Dropout", "GaussianNoise", "ActivityRegularization"])
def test_a_mask_passes(name):
    x = np.random.default_rng(0).standard_normal(SEQUENCES)
    mask = np.array([[1, 0, 1, 1, 0], [0, 0, 1, 0, 1], [1, 1, 1, 1, 1]])
    argument = {"l1": 0.1} if name == "ActivityRegularization" else 0.0
    pair = both(name, **argument) if isinstance(argument, dict) else both(name, argument)
    check([pair, both("LSTM", 3)], x=x, mask=mask, steps=2, optimizer="sgd")
