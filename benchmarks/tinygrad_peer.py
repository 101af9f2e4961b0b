"""tinygrad's side, for chains of dense layers and convolutions, with the same weights.

A train step and a forward pass are a ``TinyJit`` each. On a CPU tinygrad needs ``clang``, or what
CC names. It has no recurrent layers, and an LSTM written out over 28 steps is left out: compiling
its train step had not ended after 80 seconds of processor time.
"""

import numpy as np
from tinygrad import Tensor, TinyJit
from tinygrad.helpers import DEV, Context
from tinygrad.nn.optim import Adam

DEV.value = "CPU"


def tensor(array):
    return Tensor(np.ascontiguousarray(array, np.float32)).realize()


def convolution(layer, put):
    kernel = put(layer.weights[0], lambda w: w.transpose(3, 2, 0, 1))
    bias = put(layer.weights[1])
    return lambda x: x.conv2d(kernel, bias).relu()


def flatten(layer, put):
    """Channels last, as ours."""
    return lambda x: x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x.flatten(1)


def dense(layer, put):
    kernel, bias = (put(weight) for weight in layer.weights)
    relu = layer.activation.name == "relu"
    return lambda x: x.linear(kernel, bias).relu() if relu else x.linear(kernel, bias)


LAYERS = {
    "Conv2D": convolution,
    "MaxPooling2D": lambda layer, put: lambda x: x.max_pool2d(layer.pool_size),
    "Flatten": flatten,
    "Dense": dense,
}


def steps(model, x, y):
    """Name -> (train step, predict the batch, gradients), as torch_peer.py's."""
    homes = []

    def put(weight, there=np.asarray):
        homes.append((weight, there, tensor(there(weight.value))))
        return homes[-1][2]

    apply = [LAYERS[type(layer).__name__](layer, put) for layer in model.layers]
    weights = [held for *_, held in homes]
    optimizer = Adam(weights, lr=0.001)
    power = tensor(np.ones(1))
    inputs = tensor(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x)
    labels = Tensor(y.astype(np.int32)).realize()

    def forward():
        return Tensor.sequential(inputs, apply)

    def loss():
        return forward().sparse_categorical_crossentropy(labels)

    @TinyJit
    def train_step():
        optimizer.zero_grad()
        # Keras adds its epsilon before the correction of the root's bias, tinygrad after it.
        power.assign(power * optimizer.b2)
        optimizer.eps = 1e-7 / (1 - power).sqrt()
        return loss().backward().realize(*optimizer.schedule_step(), power)

    @TinyJit
    def predict():
        return forward().softmax().realize()

    def train():
        with Context(TRAINING=1):
            return train_step().item()

    def gradients():
        found = loss().gradient(*weights)
        return [(there(w.gradient), g.numpy()) for (w, there, _), g in zip(homes, found)]

    return {"TinyJit": (train, lambda: predict().numpy(), gradients)}
