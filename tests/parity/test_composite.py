"""Residual and Branches against the same networks in Keras' functional API."""

import keras
import numpy as np
import pytest
from parity.parity import check_models

import minicnnrnn as mini
from minicnnrnn import layers

RNG = np.random.default_rng(0)
MERGES = {
    "concat": keras.layers.Concatenate,
    "add": keras.layers.Add,
    "mul": keras.layers.Multiply,
    "average": keras.layers.Average,
    "max": keras.layers.Maximum,
}


def convolution(side, filters, strides=1, size=3):
    return side.layers.Conv2D(filters, size, strides=strides, padding="same")


@pytest.mark.parametrize("strides", [1, 2])
def test_a_residual_block(strides):
    ours = mini.Sequential(
        [
            layers.Input((7, 5, 3)),
            layers.Residual(
                [
                    convolution(mini, 4, strides),
                    layers.BatchNormalization(),
                    layers.Activation("relu"),
                    convolution(mini, 4),
                ],
                [convolution(mini, 4, strides, 1), layers.BatchNormalization()],
                activation="relu",
            ),
            layers.GlobalAveragePooling2D(),
        ]
    )
    # Keras orders the weights of a functional model by its layers' depth: here as they are made.
    x = keras.Input((7, 5, 3))
    main = [
        convolution(keras, 4, strides),
        keras.layers.BatchNormalization(),
        keras.layers.Activation("relu"),
        convolution(keras, 4),
    ]
    shortcut = [convolution(keras, 4, strides, 1), keras.layers.BatchNormalization()]
    block = keras.Model(
        x,
        keras.layers.Activation("relu")(
            keras.layers.Add()([keras.Sequential(main)(x), keras.Sequential(shortcut)(x)])
        ),
    )
    theirs = keras.Sequential([x, block, keras.layers.GlobalAveragePooling2D()])
    check_models(ours, theirs, RNG.standard_normal((3, 7, 5, 3)))


@pytest.mark.parametrize("merge", MERGES)
def test_branches(merge):
    def branches(side):
        return [
            [convolution(side, 3)],
            [side.layers.Conv2D(3, 1, activation="tanh"), convolution(side, 3)],
            [side.layers.MaxPooling2D(3, strides=1, padding="same"), convolution(side, 3, 1, 1)],
        ]

    ours = mini.Sequential([layers.Input((6, 5, 2)), layers.Branches(*branches(mini), merge=merge)])
    x = keras.Input((6, 5, 2))
    ends = [keras.Sequential(stack)(x) for stack in branches(keras)]
    theirs = keras.Sequential([x, keras.Model(x, MERGES[merge]()(ends))])
    check_models(ours, theirs, RNG.standard_normal((2, 6, 5, 2)))
