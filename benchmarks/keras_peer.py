"""Keras' side, on the backend JAX: the same layers, with the same settings and weights.

``train_on_batch`` and ``predict_on_batch`` are compiled by XLA, as Keras does by default.
"""

import jax
import keras
import numpy as np


def translate(layer, x, homes):
    """Apply one layer, or a chain of them, to a symbolic tensor.

    `homes` gets pairs of our weights and Keras' variables.
    """
    kind = type(layer).__name__
    if kind in ("Sequential", "Chain"):
        for inner in layer.layers:
            x = translate(inner, x, homes)
        return x
    if kind == "Residual":
        ends = [translate(child, x, homes) for child in layer.children]
        return keras.layers.Activation("relu")(keras.layers.Add()(ends))
    if kind == "Branches":
        return keras.layers.Concatenate()([translate(child, x, homes) for child in layer.children])
    settings = {key: value for key, value in layer.get_config().items() if key != "name"}
    made = getattr(keras.layers, kind).from_config(settings)
    y = made(x)
    made.set_weights([weight.value for weight in layer.weights])
    homes += zip(layer.weights, made.weights)
    return y


def translated(model, shape, dtype="float32", metrics=None):
    """The whole model, compiled as ours is, and the pairs of our weights and Keras' variables."""
    homes, inputs = [], keras.Input(shape, dtype=dtype)
    made = keras.Model(inputs, translate(model, inputs, homes))
    made.compile("adam", "sparse_categorical_crossentropy", metrics=metrics)
    return made, homes


def steps(model, x, y):
    """Name -> (train step, predict the batch, gradients), as torch_peer.py's."""
    made, homes = translated(model, x.shape[1:], x.dtype.name)

    def loss_of(trained, x):
        fixed = [variable.value for variable in made.non_trainable_variables]
        predicted, _ = made.stateless_call(trained, fixed, x, training=True)
        return keras.losses.SparseCategoricalCrossentropy()(y, predicted)

    def gradients():
        variables = made.trainable_variables
        found = jax.jit(jax.grad(loss_of))([variable.value for variable in variables], x)
        ours = {id(variable): weight for weight, variable in homes}
        pairs = zip(variables, found)
        return [(ours[id(variable)].gradient, np.asarray(g)) for variable, g in pairs]

    return {"XLA": (lambda: made.train_on_batch(x, y), lambda: made.predict_on_batch(x), gradients)}
