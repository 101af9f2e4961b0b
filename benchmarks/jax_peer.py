"""JAX's side: a model of this package as one jitted function, with the same weights.

Arrays are in the same layout as here, channels last. Optimizer and update are inside the jitted
step, whose buffers are donated.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

FUNCTIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "softmax": lambda x: x, "linear": lambda x: x}
LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


def convolution(layer):
    layout, activate = LAYOUTS[layer.rank], FUNCTIONS[layer.activation.name]

    def apply(weights, x, training):
        y = lax.conv_general_dilated(
            x, weights[0], layer.strides, layer.padding.upper(), dimension_numbers=layout
        )
        return activate(y + weights[1] if layer.use_bias else y)

    return apply


def pooling(layer):
    window, strides = (1, *layer.pool_size, 1), (1, *layer.strides, 1)
    return lambda weights, x, training: lax.reduce_window(
        x, -jnp.inf, lax.max, window, strides, layer.padding.upper()
    )


def normalize(layer):
    """Moving statistics are left out: they are of no use to what is compared."""

    def apply(weights, x, training):
        gamma, beta, mean, variance = weights
        if training:
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) * (gamma * lax.rsqrt(variance + layer.epsilon)) + beta

    return apply


def recurrent(layer):
    units, kind = layer.units, type(layer).__name__

    def step(u, b, state, z):
        h = state[0]
        if kind == "LSTM":
            i, f, g, o = jnp.split(z + h @ u, 4, -1)
            c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c)
        if kind == "SimpleRNN":
            return (jnp.tanh(z + h @ u),)
        zz, zr, zh = jnp.split(z, 3, -1)
        hz, hr, hh = jnp.split(h @ u + b[1], 3, -1)
        update = jax.nn.sigmoid(zz + hz)
        return (update * h + (1 - update) * jnp.tanh(zh + jax.nn.sigmoid(zr + hr) * hh),)

    def apply(weights, x, training):
        w, u, b = weights
        z = jnp.swapaxes(x, 0, 1) @ w + (b if b.ndim == 1 else b[0])
        start = tuple(jnp.zeros((x.shape[0], units)) for _ in range(2 if kind == "LSTM" else 1))
        end, _ = lax.scan(
            lambda state, z: (step(u, b, state, z), None), start, z, reverse=layer.go_backwards
        )
        return end[0]

    return apply


def conv_lstm(layer):
    def convolve(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=LAYOUTS[2])

    def apply(weights, x, training):
        w, u, b = weights
        N, T = x.shape[:2]
        z = (convolve(x.reshape(N * T, *x.shape[2:]), w) + b).reshape(N, T, *x.shape[2:4], -1)

        def step(state, z):
            i, f, g, o = jnp.split(z + convolve(state[0], u), 4, -1)
            c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        zeros = jnp.zeros((N, *x.shape[2:4], layer.filters))
        return lax.scan(step, (zeros, zeros), jnp.swapaxes(z, 0, 1))[0][0]

    return apply


def joined(layer, merge):
    parts = [translate(child) for child in layer.children]
    counts = [len(child.weights) for child in layer.children]

    def apply(weights, x, training):
        given, start = [], 0
        for part, count in zip(parts, counts):
            given.append(part(weights[start : start + count], x, training))
            start += count
        return merge(given)

    return apply


def chain(layer):
    parts = [(translate(inner), len(inner.weights)) for inner in layer.layers]

    def apply(weights, x, training):
        start = 0
        for part, count in parts:
            x = part(weights[start : start + count], x, training)
            start += count
        return x

    return apply


def translate(layer):
    """One layer, or a chain of them, as a function (weights, x, training) -> y."""
    kind = type(layer).__name__
    if kind in ("Sequential", "Chain"):
        return chain(layer)
    if kind == "Dense":
        return lambda w, x, training: FUNCTIONS[layer.activation.name](x @ w[0] + w[1])
    if kind == "Bidirectional":
        return joined(layer, lambda parts: jnp.concatenate(parts, -1))
    if kind == "Branches":
        return joined(layer, lambda parts: jnp.concatenate(parts, -1))
    if kind == "Residual":
        return joined(layer, lambda parts: jax.nn.relu(parts[0] + parts[1]))
    plain = {
        "Flatten": lambda w, x, training: x.reshape(len(x), -1),
        "Activation": lambda w, x, training: FUNCTIONS[layer.activation.name](x),
        "Embedding": lambda w, x, training: w[0][x],
    }
    if kind.startswith("GlobalAverage"):
        return lambda w, x, training: x.mean(tuple(range(1, x.ndim - 1)))
    if kind in plain:
        return plain[kind]
    if kind in ("Conv1D", "Conv2D", "Conv3D"):
        return convolution(layer)
    if kind.startswith("MaxPooling"):
        return pooling(layer)
    if kind == "BatchNormalization":
        return normalize(layer)
    return conv_lstm(layer) if kind == "ConvLSTM2D" else recurrent(layer)


def steps(model, x, y):
    """Name -> (train step, predict the batch, gradients), as torch_peer.py's."""
    apply = translate(model)
    weights = [jnp.asarray(w) for w in model.get_weights()]
    trained = [weight.trainable for weight in model.weights]
    given = jnp.asarray(x), jnp.asarray(y)  # arguments: XLA would compute with constants at once

    def loss_of(weights, inputs, labels):
        z = jax.nn.log_softmax(apply(weights, inputs, True))
        return -jnp.mean(jnp.take_along_axis(z, labels[:, None], 1))

    def train_step(weights, m, v, t, inputs, labels):
        loss, gradients = jax.value_and_grad(loss_of)(weights, inputs, labels)
        rate = 0.001 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        out = ([], [], [])
        for w, a, b, g, train in zip(weights, m, v, gradients, trained):
            if train:
                a, b = a + 0.1 * (g - a), b + 0.001 * (g * g - b)
                w = w - rate * a / (jnp.sqrt(b) + 1e-7)
            for column, value in zip(out, (w, a, b)):
                column.append(value)
        return (*out, t + 1, loss)

    donating = jax.jit(train_step, donate_argnums=(0, 1, 2))
    zeros = [jnp.zeros_like(w) for w in weights]
    held = [weights, zeros, [jnp.zeros_like(w) for w in weights], jnp.float32(1)]
    forward = jax.jit(lambda weights, inputs: jax.nn.softmax(apply(weights, inputs, False)))

    def train():
        *held[:], loss = donating(*held, *given)
        return loss.block_until_ready()

    def gradients():
        found = zip(model.weights, jax.jit(jax.grad(loss_of))(held[0], *given))
        return [(weight.gradient, np.asarray(g)) for weight, g in found if weight.trainable]

    return {"jit": (train, lambda: forward(held[0], given[0]).block_until_ready(), gradients)}
