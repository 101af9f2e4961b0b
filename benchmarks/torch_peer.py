"""PyTorch's side: a model of this package translated layer by layer, with the same weights.

Images and sequences are in PyTorch's own layout, channels first, or in its ``channels_last``
memory format; the last softmax is left to PyTorch's loss. Where this package pads unevenly, as
"same" does with strides, PyTorch has a padding operation before the convolution.
"""

import itertools
import math
import time

import numpy as np
import torch
from torch import nn

FUNCTIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "linear": nn.Identity}


def put(parameter, weight, there=np.asarray):
    """Give a parameter the values of one of our weights; `there` brings them into its layout."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(there(np.asarray(weight.value)))))
    parameter.home = weight, there


def activated(module, layer):
    name = layer.activation.name
    return module if name == "linear" else nn.Sequential(module, FUNCTIONS[name]())


def convolution(layer):
    rank, weights = layer.rank, layer.weights
    spatial = layer.input_shape[1:-1]
    before, after = [0] * rank, [0] * rank
    if layer.padding == "same":
        for i, (n, k, s) in enumerate(zip(spatial, layer.kernel_size, layer.strides)):
            missing = max((-(-n // s) - 1) * s + k - n, 0)
            before[i], after[i] = missing // 2, missing - missing // 2
    even = before == after
    made = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](
        weights[0].shape[-2], layer.filters, layer.kernel_size, layer.strides,
        padding=tuple(before) if even else 0, bias=layer.use_bias,
    )  # fmt: skip
    put(made.weight, weights[0], lambda w: np.moveaxis(w, (-1, -2), (0, 1)))
    if layer.use_bias:
        put(made.bias, weights[1])
    if not even:
        pads = [n for pair in zip(reversed(before), reversed(after)) for n in pair]
        made = nn.Sequential(nn.ZeroPad2d(tuple(pads)), made)
    return activated(made, layer)


def dense(layer, previous):
    kernel, bias = layer.weights

    def there(w):
        if type(previous).__name__ == "Flatten" and len(previous.input_shape) > 2:
            shape = previous.input_shape[1:]  # PyTorch flattens channels first
            w = np.moveaxis(w.reshape(*shape, -1), -2, 0).reshape(w.shape)
        return w.T

    made = nn.Linear(*kernel.shape)
    put(made.weight, kernel, there)
    put(made.bias, bias)
    return made if layer.activation.name == "softmax" else activated(made, layer)


def pooling(layer):
    kind = nn.MaxPool2d if layer.rank == 2 else nn.MaxPool3d
    padding = 1 if layer.padding == "same" else 0  # three pixels and strides of one
    return kind(layer.pool_size, layer.strides, padding)


class Mean(nn.Module):
    def forward(self, x):
        return x.flatten(2).mean(2)


class Residual(nn.Module):
    def __init__(self, main, shortcut):
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x):
        return torch.relu(self.main(x) + self.shortcut(x))


class Branches(nn.Module):
    def __init__(self, branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class Last(nn.Module):
    """A recurrent layer's output after the last step, in both directions if there are two."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x):
        y = self.recurrent(x)[0]
        if not self.recurrent.bidirectional:
            return y[:, -1]
        units = y.shape[-1] // 2
        return torch.cat([y[:, -1, :units], y[:, 0, units:]], 1)


def recurrent(directions):
    kind = type(directions[0]).__name__
    units, channels = directions[0].units, directions[0].weights[0].shape[0]
    made = {"LSTM": nn.LSTM, "GRU": nn.GRU, "SimpleRNN": nn.RNN}[kind](
        channels, units, batch_first=True, bidirectional=len(directions) > 1
    )
    order = np.arange({"LSTM": 4, "GRU": 3, "SimpleRNN": 1}[kind] * units)
    if kind == "GRU":  # Keras has the gates z, r, h; PyTorch r, z, n
        order = order.reshape(3, units)[[1, 0, 2]].ravel()
    for layer, end in zip(directions, ("_l0", "_l0_reverse")):
        kernel, recurrent_kernel, bias = layer.weights
        put(getattr(made, f"weight_ih{end}"), kernel, lambda w: w[:, order].T)
        put(getattr(made, f"weight_hh{end}"), recurrent_kernel, lambda w: w[:, order].T)
        second = getattr(made, f"bias_hh{end}")
        put(getattr(made, f"bias_ih{end}"), bias, lambda b: np.atleast_2d(b)[0][order])
        if kind == "GRU":
            put(second, bias, lambda b: b[1][order])
        else:  # of its two biases Keras has but one
            nn.init.zeros_(second).requires_grad_(False)
    return Last(made)


class ConvLSTM(nn.Module):
    """All inputs are convolved at once, the state step by step."""

    def __init__(self, layer):
        super().__init__()
        kernel, recurrent_kernel, bias = layer.weights
        self.units = layer.filters
        self.inputs = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding=1)
        self.state = nn.Conv2d(self.units, kernel.shape[3], 3, padding=1, bias=False)
        put(self.inputs.weight, kernel, lambda w: w.transpose(3, 2, 0, 1))
        put(self.state.weight, recurrent_kernel, lambda w: w.transpose(3, 2, 0, 1))
        put(self.inputs.bias, bias)

    def forward(self, x):
        N, T = x.shape[:2]
        z = self.inputs(x.flatten(0, 1)).unflatten(0, (N, T))
        h = c = torch.zeros(N, self.units, *x.shape[3:])
        for t in range(T):
            i, f, g, o = (z[:, t] + self.state(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h


def translate(layer, previous=None):
    """One layer, or a chain of them, as a module."""
    kind = type(layer).__name__
    if kind in ("Sequential", "Chain"):
        stack, before = [], None
        for inner in layer.layers:
            stack.append(translate(inner, before))
            before = inner
        return nn.Sequential(*stack)
    if kind in ("Conv1D", "Conv2D", "Conv3D"):
        return convolution(layer)
    if kind in ("LSTM", "GRU", "SimpleRNN"):
        return recurrent([layer])
    if kind == "Bidirectional":
        return recurrent(layer.children)
    if kind == "Residual":
        return Residual(*(translate(branch) for branch in layer.children))
    if kind == "Branches":
        return Branches([translate(branch) for branch in layer.children])
    if kind == "BatchNormalization":
        made = nn.BatchNorm2d(layer.weights[0].size, eps=layer.epsilon, momentum=0.01)
        put(made.weight, layer.weights[0])
        put(made.bias, layer.weights[1])
        return made
    if kind == "Embedding":
        made = nn.Embedding(*layer.weights[0].shape)
        put(made.weight, layer.weights[0])
        return made
    return {
        "Dense": lambda: dense(layer, previous),
        "Flatten": nn.Flatten,
        "Activation": lambda: FUNCTIONS[layer.activation.name](),
        "MaxPooling2D": lambda: pooling(layer),
        "MaxPooling3D": lambda: pooling(layer),
        "GlobalAveragePooling1D": Mean,
        "GlobalAveragePooling2D": Mean,
        "GlobalAveragePooling3D": Mean,
        "ConvLSTM2D": lambda: ConvLSTM(layer),
    }[kind]()


def images(model, x):
    """The batch in PyTorch's own layout."""
    first = type(model.layers[0]).__name__
    inputs = torch.from_numpy(x)
    if first == "Embedding":
        return inputs.long()
    if first == "ConvLSTM2D":
        return inputs.permute(0, 1, 4, 2, 3).contiguous()
    if first.startswith("Conv") or first == "Branches":
        return inputs.movedim(-1, 1).contiguous()
    return inputs


def formats(inputs):
    """The memory formats that such inputs can have, by name."""
    found = {"contiguous": torch.contiguous_format}
    if inputs.ndim == 4:
        found["channels last"] = torch.channels_last
    if inputs.ndim == 5 and inputs.shape[1] < inputs.shape[2]:  # a volume, no sequence of images
        found["channels last"] = torch.channels_last_3d
    return found


def seconds(module, inputs, labels):
    """What a train step takes, roughly."""
    train, *_ = run_by(module, module, inputs, labels)
    train()
    start = time.perf_counter()
    for _ in range(2):
        train()
    return time.perf_counter() - start


def steps(model, x, y, compiled=True):
    """The ways to run the model: name -> (train step, predict the batch, gradients).

    Eagerly in both memory formats, and compiled in the one in which it trains faster. A train
    step returns the loss; gradients come as pairs of ours, in PyTorch's layout, and PyTorch's
    for the weights as they are.
    """
    inputs, labels = images(model, x), torch.from_numpy(y).long()

    def formatted(memory_format):
        if memory_format is torch.contiguous_format:
            return translate(model), inputs
        module = translate(model).to(memory_format=memory_format)
        return module, inputs.contiguous(memory_format=memory_format)

    ways, found = {}, formats(inputs)
    for name, memory_format in found.items():
        module, given = formatted(memory_format)
        ways[name] = run_by(module, module, given, labels)
    if compiled:
        name = min(found, key=lambda name: seconds(*formatted(found[name]), labels))
        module, given = formatted(found[name])
        ways[f"{name}, compiled"] = run_by(module, torch.compile(module), given, labels)
    return ways


def run_by(module, run, inputs, labels):
    """Train step, predict and gradients of a module that `run` runs."""
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, fused=True)
    taken = itertools.count(1)

    def backward():
        module.train()
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(run(inputs), labels)
        loss.backward()
        return loss

    def train():
        loss = backward()
        # Keras adds its epsilon, 1e-7, before the correction of the root's bias, PyTorch after
        # it. Where gradients are as small as VGG-16's first ones that decides the loss after a
        # step: 2.84 with Keras' epsilon, 6.39 with PyTorch's.
        optimizer.param_groups[0]["eps"] = 1e-7 / math.sqrt(1 - 0.999 ** next(taken))
        optimizer.step()
        return loss

    def predict():
        module.eval()
        with torch.inference_mode():
            return torch.softmax(run(inputs), -1)

    def gradients():
        backward()
        homes = (p.home for p in trained)
        return [
            (there(np.asarray(w.gradient)), p.grad.cpu().numpy())
            for p, (w, there) in zip(trained, homes)
        ]

    return train, predict, gradients
