"""``python -m minicnnrnn warmup``: compile what usual models need, before somebody waits for it."""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minicnnrnn import Sequential, layers


def _images() -> list[layers.Layer]:
    """A convolutional network with what is usually in one, large enough for every algorithm."""
    return [
        layers.Input((16, 16, 3)),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.BatchNormalization(),
        layers.Residual([layers.Conv2D(32, 3, padding="same"), layers.BatchNormalization()]),
        layers.Activation("relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
        layers.AveragePooling2D(2),
        layers.Dropout(0.25),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
    ]


def _sequences(kind: Callable[..., layers.Layer]) -> Callable[[], list[layers.Layer]]:
    return lambda: [layers.Input((8, 16)), kind(32, return_sequences=True), kind(32)]


def _text() -> list[layers.Layer]:
    return [
        layers.Input((8,)),
        layers.Embedding(100, 32, mask_zero=True),
        layers.Bidirectional(layers.LSTM(32)),
    ]


def _series() -> list[layers.Layer]:
    return [
        layers.Input((32, 16)),
        layers.Conv1D(32, 5, padding="same", activation="relu"),
        layers.MaxPooling1D(),
        layers.GlobalAveragePooling1D(),
    ]


MODELS = {
    "images": _images,
    "series": _series,
    "text": _text,
    "LSTM": _sequences(layers.LSTM),
    "GRU": _sequences(layers.GRU),
    "SimpleRNN": _sequences(layers.SimpleRNN),
}


def warm_up(stack: list[layers.Layer], optimizer: str = "adam") -> None:
    """Train, evaluate and ask a model once, as a classifier and as a regressor.

    Parameters
    ----------
    stack : list of Layer
        An `Input` and all layers but the last.
    optimizer : str

    Examples
    --------
    >>> from minicnnrnn.__main__ import warm_up
    >>> from minicnnrnn.layers import Dense, Input
    >>> warm_up([Input((3,)), Dense(4, activation="relu")])
    """
    rng = np.random.default_rng(0)
    model = Sequential([*stack, layers.Dense(10, activation="softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    shape: Any = (64, *(model.input_shape or ())[1:])
    x = rng.integers(0, 100, shape) if model.input_dtype == "int32" else rng.random(shape)
    model.fit(x, rng.integers(0, 10, 64), validation_split=0.5, verbose=0)
    model.predict(x, verbose=0)
    model.pop()
    model.add(layers.Dense(1))
    model.compile(optimizer, "mse", metrics=["mae"])
    model.fit(x, rng.random((64, 1)), verbose=0)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, optional
        In place of the process' own.

    Examples
    --------
    >>> from minicnnrnn.__main__ import main
    >>> main(["warmup", "--help"])
    Traceback (most recent call last):
        ...
    SystemExit: 0
    """
    parser = argparse.ArgumentParser(prog="python -m minicnnrnn", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    warmup = commands.add_parser("warmup", help="compile what usual models need")
    warmup.add_argument(
        "models", nargs="*", choices=[*MODELS, []], metavar="model",
        help=f"any of {', '.join(MODELS)}; all, if none is named",
    )  # fmt: skip
    warmup.add_argument("--optimizer", default="adam", help='"adam", if left out')
    chosen = parser.parse_args(arguments)
    for name in chosen.models or MODELS:
        start = time.perf_counter()
        warm_up(MODELS[name](), chosen.optimizer)
        print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
    from minicnnrnn.kernels.jit import CACHE_DIRECTORY

    print(f"Compiled kernels: {CACHE_DIRECTORY or 'not kept, no directory can be written to'}")


if __name__ == "__main__":
    main()
