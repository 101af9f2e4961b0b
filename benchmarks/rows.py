"""What is measured: the models of this package, built with a fixed seed, and a batch for each."""

import numpy as np

from minicnnrnn import Sequential, applications, layers
from minicnnrnn.layers import Conv1D, Conv2D, Conv3D, Dense, Flatten, Input, MaxPooling2D


def cnn():
    return [
        Input((28, 28, 1)),
        Conv2D(32, 3, activation="relu"),
        MaxPooling2D(),
        Conv2D(64, 3, activation="relu"),
        MaxPooling2D(),
        Flatten(),
    ]


def vgg_like():
    stack = [Input((32, 32, 3))]
    for filters in (32, 64, 128):
        stack += [Conv2D(filters, 3, padding="same", activation="relu") for _ in range(2)]
        stack.append(MaxPooling2D())
    return [*stack, Flatten(), Dense(128, activation="relu")]


def vgg16():
    """The convolutions of VGG-16, and the mean of what they see."""
    stack = [Input((64, 64, 3))]
    for filters, count in zip((64, 128, 256, 512, 512), (2, 2, 3, 3, 3)):
        stack += [Conv2D(filters, 3, padding="same", activation="relu") for _ in range(count)]
        stack.append(MaxPooling2D())
    return [*stack, layers.GlobalAveragePooling2D()]


def resnet20():
    return [Input((32, 32, 3)), *_body(applications.resnet(20))]


def inception():
    """Two of GoogLeNet's blocks."""
    whole = applications.inception((32, 32, 64))
    blocks = [layer for layer in _body(whole) if isinstance(layer, layers.Branches)][:2]
    return [Input((32, 32, 64)), *blocks, layers.GlobalAveragePooling2D()]


def _body(model):
    """The layers of a model but its last one, for another model."""
    stack = model.layers[:-1]
    while model.layers:
        model.pop()
    for layer in stack:
        for inner in layer.walk():
            inner.unbuild()
    return stack


def conv1d():
    return [
        Input((128, 16)),
        *(Conv1D(64, 5, padding="same", activation="relu") for _ in range(3)),
        layers.GlobalAveragePooling1D(),
    ]


def conv3d():
    return [
        Input((16, 32, 32, 3)),
        Conv3D(16, 3, padding="same", activation="relu"),
        layers.MaxPooling3D(),
        Conv3D(32, 3, padding="same", activation="relu"),
        layers.MaxPooling3D(),
        Conv3D(64, 3, padding="same", activation="relu"),
        layers.GlobalAveragePooling3D(),
    ]


def recurrent(kind, units, steps, channels):
    return lambda: [Input((steps, channels)), getattr(layers, kind)(units)]


def text():
    return [
        Input((200,)),
        layers.Embedding(20000, 128),
        layers.Bidirectional(layers.LSTM(64)),
    ]


def conv_lstm():
    return [
        Input((10, 32, 32, 1)),
        layers.ConvLSTM2D(32, 3, padding="same"),
        layers.GlobalAveragePooling2D(),
    ]


def mlp():
    return [Input((784,)), Dense(512, activation="relu"), Dense(512, activation="relu")]


# name: (what it is, layers before the last Dense(10), batch)
ROWS = {
    "cnn32": ("CNN (32, 64 filters), 28x28x1", cnn, 32),
    "cnn128": ("CNN (32, 64 filters), 28x28x1", cnn, 128),
    "vgg_like": ("VGG-like (32, 32, 64, 64, 128, 128), 32x32x3", vgg_like, 64),
    "resnet20": ("ResNet-20, 32x32x3", resnet20, 64),
    "vgg16": ("VGG-16 without its head, 64x64x3", vgg16, 8),
    "inception": ("two Inception blocks, 32x32x64", inception, 32),
    "conv1d": ("Conv1D (3 x 64 filters of 5), 128 x 16", conv1d, 64),
    "conv3d": ("Conv3D (16, 32, 64 filters), 16x32x32x3", conv3d, 8),
    "rnn128": ("SimpleRNN (128), 28 x 28", recurrent("SimpleRNN", 128, 28, 28), 64),
    "gru128": ("GRU (128), 28 x 28", recurrent("GRU", 128, 28, 28), 64),
    "lstm128": ("LSTM (128), 28 x 28", recurrent("LSTM", 128, 28, 28), 64),
    "lstm64": ("LSTM (64), 100 x 64", recurrent("LSTM", 64, 100, 64), 32),
    "lstm256": ("LSTM (256), 100 x 128", recurrent("LSTM", 256, 100, 128), 64),
    "text": ("Embedding (20000, 128), bidirectional LSTM (64), 200 ids", text, 32),
    "convlstm": ("ConvLSTM2D (32 filters of 3), 10x32x32x1", conv_lstm, 8),
    "mlp": ("MLP 784-512-512-10", mlp, 128),
}

# How far the gradients of a weight may be apart, relative to their norm, where it is not 1e-3:
# deep networks of relus have some inputs so near zero that rounding decides on which side they
# are, in any two implementations. One of the 8,192 active outputs before VGG-16's last pooling
# moves the gradients below it by 1 %.
GRADIENTS = {"vgg_like": 1e-2, "resnet20": 5e-2, "vgg16": 3e-2}
TINYGRAD = ("cnn32", "cnn128", "mlp")  # what tinygrad_peer.py translates


def build(row, batch=None, **options):
    """The row's model, compiled with Adam, and a batch: (model, x, y).

    `batch` is another number of samples than the row's; the options are for ``Sequential``.
    """
    _, make, usual = ROWS[row]
    batch = batch or usual
    model = Sequential([*make(), Dense(10, activation="softmax")], seed=0, **options)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.allocate()
    rng = np.random.default_rng(0)
    shape = (batch, *model.input_shape[1:])
    ids = row == "text"
    x = rng.integers(0, 20000, shape) if ids else rng.random(shape, dtype=np.float32)
    return model, x.astype(np.int32 if ids else np.float32), rng.integers(0, 10, batch)


def operations(row):
    """Floating-point operations of products and convolutions: of a train step, of a forward pass.

    Going back takes as many for the weights and as many for the input, which the first layer
    leaves out.
    """
    model, x, _ = build(row)
    forward = len(x) * _operations(model, {"kernel", "recurrent_kernel"})
    first = len(x) * sum(_operations(layer, {"kernel"}) for layer in _first(model))
    return {"train": 3 * forward - first, "predict": forward}


def _first(layer):
    """The layers inside that see the input itself."""
    inside = layer.layers[:1] if hasattr(layer, "layers") else layer.children
    return [first for child in inside for first in _first(child)] if inside else [layer]


def _operations(layer, names):
    """Those of the weights of these names, in a layer and the layers inside, for one sample."""
    total = sum(_operations(child, names) for child in layer.children)
    kernels = [w for w in layer._weights if w.name in names]
    if not kernels:
        return total
    name = type(layer).__name__
    inputs, outputs = layer.input_shape, layer.output_shape
    if name.startswith("Conv"):
        steps = inputs[1] if "LSTM" in name else 1
        places = np.prod(outputs[1:-1])
    else:
        steps, places = (inputs[1] if hasattr(layer, "units") and len(inputs) == 3 else 1), 1
    return total + 2 * int(steps * places) * sum(w.size for w in kernels)
