"""Recorded steps on a CPU: every layer, loss, metric and optimizer has the bits of eager steps."""

import inspect

import numpy as np
import pytest

from minicnnrnn import Sequential, layers, losses, metrics, optimizers
from minicnnrnn.recorded import Launches

CUBE, IMAGE, LINE, ROW = (4, 4, 4, 2), (6, 6, 2), (8, 2), (6,)
SHAPES = {"1D": LINE, "2D": IMAGE, "3D": CUBE}
RECURRENT = {"stateful": True, "dropout": 0.3, "recurrent_dropout": 0.2, "return_sequences": True}

# What a layer is called with, where that is not ``()``, by the beginning of its name.
ARGUMENTS = {
    "ConvLSTM": lambda kind: kind(2, 2, stateful=True, recurrent_dropout=0.3),
    "Conv": lambda kind: kind(3, 2, activation="relu", kernel_regularizer="l2"),
    "SeparableConv": lambda kind: kind(3, 2, activation="gelu"),
    "DepthwiseConv": lambda kind: kind(2, activation="elu"),
    "Activation": lambda kind: kind("swish"),
    "ActivityRegularization": lambda kind: kind(0.1, 0.1),
    "Branches": lambda kind: kind([layers.Dense(6, activation="tanh")], [], merge="mul"),
    "Residual": lambda kind: kind([layers.Dense(6)], activation="relu"),
    "Dense": lambda kind: kind(3, activation="relu", kernel_constraint="max_norm"),
    "Embedding": lambda kind: kind(9, 3, mask_zero=True),
    "AveragePooling": lambda kind: kind(2),
    "MaxPooling": lambda kind: kind(2),
    "Spatial": lambda kind: kind(0.4, seed=3),
    "Dropout": lambda kind: kind(0.4),
    "Gaussian": lambda kind: kind(0.3),
    "BatchNormalization": lambda kind: kind(momentum=0.5),
    "GroupNormalization": lambda kind: kind(2),
    "Normalization": lambda kind: kind(mean=0.5, variance=2.0),
    "RandomFlip": lambda kind: kind(seed=1),
    "RandomTranslation": lambda kind: kind(0.3, 0.3),
    "Rescaling": lambda kind: kind(0.5),
    "GRU": lambda kind: kind(3, **RECURRENT),
    "LSTM": lambda kind: kind(3, **RECURRENT),
    "SimpleRNN": lambda kind: kind(3, **RECURRENT),
    "Permute": lambda kind: kind((2, 1)),
    "RepeatVector": lambda kind: kind(3),
    "Reshape": lambda kind: kind((3, 2)),
    "Bidirectional": lambda kind: kind(layers.LSTM(2, return_sequences=True, dropout=0.2)),
    "TimeDistributed": lambda kind: kind(
        Sequential([layers.Dense(2), layers.BatchNormalization()])
    ),
}
INPUTS = {
    "Embedding": ROW,
    "Permute": LINE,
    "Masking": LINE,
    "GRU": LINE,
    "LSTM": LINE,
    "SimpleRNN": LINE,
    "Bidirectional": LINE,
    "TimeDistributed": LINE,
    "RandomFlip": IMAGE,
    "RandomTranslation": IMAGE,
}
# Numbers that are laid out anew in every step, and layers that the first step makes for each time.
EAGER_IN_TRAINING = {"Normalization", "Rescaling", "TimeDistributed"}


def classes(module, base):
    """Those that a model can have."""
    found = (pair for pair in vars(module).items() if inspect.isclass(pair[1]))
    return sorted(name for name, value in found if issubclass(value, base) and value is not base)


LAYERS = [n for n in classes(layers, layers.Layer) if n not in ("Input", "InputLayer")]


def made(name):
    kind = getattr(layers, name)
    known = sorted((k for k in ARGUMENTS if name.startswith(k)), key=len)
    return ARGUMENTS[known[-1]](kind) if known else kind()


def shape_of(name):
    if name.startswith("ConvLSTM"):
        return (3, *SHAPES[name[-2:]][:-1], 2)
    rank = name.removesuffix("Transpose")[-2:]
    return INPUTS.get(name, SHAPES.get(rank, ROW))


def lived(build, x, y, steps=4):
    """What a model says while it is trained and asked in turns, and what becomes of its weights."""
    said, kinds = [], []
    for eager in (True, False):
        model, options = build()
        model.compile(run_eagerly=eager, **options)
        rng, results = np.random.default_rng(0), []
        for _ in range(steps):
            order = rng.permutation(len(x))
            for _ in range(3):
                results.append(model.predict_on_batch(x[rng.permutation(len(x))]))
                results += model.test_on_batch(x[order], y[order], return_dict=True).values()
            results += model.train_on_batch(x[order], y[order], return_dict=True).values()
        said.append([*results, *model.get_weights()])
        kinds.append([list(steps._known.values()) for steps in model._recorded or ()])
    assert not kinds[0]
    for one, other in zip(*said, strict=True):
        np.testing.assert_array_equal(one, other)
    passes, training = kinds[1]
    return all(isinstance(k, Launches) for k in passes), isinstance(training[0], Launches)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    shape, rng = shape_of(name), np.random.default_rng(1)
    x = rng.integers(0, 9, (3, *shape)) if name == "Embedding" else rng.random((3, *shape)) - 0.3
    if name == "Masking":
        x[:, 3:5] = 0

    def build():
        first = [] if name in ("Embedding", "Masking") else [layers.Activation("tanh")]
        last = [layers.LSTM(2)] if name in ("Embedding", "Masking") else [layers.Flatten()]
        stack = [*first, made(name), *last, layers.Dense(2)]
        model = Sequential([layers.Input(shape, batch_size=3), *stack], seed=0)
        return model, {"optimizer": "sgd", "loss": "mse"}

    passes, training = lived(build, x.astype(np.float32), rng.random((3, 2)))
    assert passes
    assert training == (name not in EAGER_IN_TRAINING)


def case(name):
    """Targets for a loss or a metric of that name, and the last layer."""
    rng = np.random.default_rng(2)
    if name == "CTC":
        return np.array([[1, 2], [1, 0], [2, 2]]), [layers.Reshape((6, 1)), layers.Dense(4)]
    if "Sparse" in name or name in ("MeanIoU", "IoU"):
        return rng.integers(0, 4, 3), [layers.Dense(4, activation="softmax")]
    if name == "BinaryIoU":
        return rng.integers(0, 2, (3, 1)), [layers.Dense(1, activation="sigmoid")]
    return np.eye(4)[rng.integers(0, 4, 3)], [layers.Dense(4, activation="softmax")]


def judged(name, **options):
    y, last = case(name)
    x = np.random.default_rng(3).random((3, *ROW), dtype=np.float32)

    def build():
        fresh = [type(layer).from_config(layer.get_config()) for layer in last]
        chosen = {k: v() if callable(v) else v for k, v in options.items()}
        return Sequential([layers.Input(ROW), *fresh], seed=0), chosen

    assert lived(build, x, y) == (True, True)


BASES = {"Loss", "RegressionLoss", "CrossEntropy", "Metric", "MeanMetricWrapper", "Mean", "Sum"}


@pytest.mark.parametrize("name", [n for n in classes(losses, losses.Loss) if n not in BASES])
def test_losses(name):
    judged(name, loss=lambda: getattr(losses, name)())


NEEDED = {
    "PrecisionAtRecall": (0.5,),
    "RecallAtPrecision": (0.5,),
    "SensitivityAtSpecificity": (0.5,),
    "SpecificityAtSensitivity": (0.5,),
    "IoU": (4, [0, 1]),
    "MeanIoU": (4,),
    "OneHotIoU": (4, [0, 1]),
    "OneHotMeanIoU": (4,),
}


@pytest.mark.parametrize("name", [n for n in classes(metrics, metrics.Metric) if n not in BASES])
def test_metrics(name):
    options = {"sparse_y_pred": False} if name in ("MeanIoU", "IoU") else {}
    metric = getattr(metrics, name)(*NEEDED.get(name, ()), **options)
    loss = "sparse_categorical_crossentropy" if case(name)[0].ndim == 1 else "mse"
    judged(name, loss=loss, metrics=[metric])


@pytest.mark.parametrize("name", classes(optimizers, optimizers.Optimizer))
@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_optimizers(name, clip):
    rate = optimizers.schedules.ExponentialDecay(0.1, 2, 0.9)
    judged("mse", loss="mse", optimizer=lambda: getattr(optimizers, name)(rate, **{clip: 0.01}))
