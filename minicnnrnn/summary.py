"""Summary: a model as a table of its layers."""

import math
from collections.abc import Iterator

from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.layers.container import Chain

Row = tuple[str, str, str]


def describe(model: Chain, nested: bool, batch_size: int) -> Iterator[str]:
    """The lines of a model's summary. Allocates nothing.

    Parameters
    ----------
    model : Chain
    nested : bool
        Whether the layers inside of layers are shown.
    batch_size : int
        What the memory of the outputs is counted for.
    """
    rows: list[Row] = [("Layer (type)", "Output shape", "Parameters")]
    for layer in model.layers:
        rows += _rows(layer, nested, "")
    first, second = (max(len(row[i]) for row in rows) + 4 for i in (0, 1))
    third = max(len(row[2]) for row in rows)
    lines = [f"{a:<{first}}{b:<{second}}{c:>{third}}" for a, b, c in rows]
    rule = "-" * len(lines[0])
    yield f'Model: "{model.name}"'
    yield from (lines[0], rule, *lines[1:], rule)
    if not model.built:
        yield "Parameters: ? (build the model, or give the first layer an input shape)"
        return
    total = sum(weight.size for weight in model.weights)
    trainable = sum(weight.size for weight in model.weights if weight.trainable)
    yield f"Parameters: {total:,} (trainable: {trainable:,})"
    outputs = _outputs(model, batch_size)
    size = "? bytes" if outputs is None else f"{4 * outputs:,} bytes"
    yield f"Memory: {4 * total:,} bytes of weights, {size} of outputs for a batch of {batch_size}"


def _rows(layer: Layer, nested: bool, indent: str) -> Iterator[Row]:
    """The layer's own row, and if asked those of the layers inside."""
    shape, count = "?", "?"
    if layer.built and layer.input_shape is not None:
        shape = str(layer.output_shape)
        count = f"{layer.count_params():,}"
        weights = layer.weights
        if weights and not any(weight.trainable for weight in weights):
            count = f"frozen {count}"
    yield f"{indent}{layer.name} ({type(layer).__name__})", shape, count
    for child in layer.children if nested else ():
        yield from _rows(child, nested, indent + "  ")


def _outputs(layer: Layer, batch_size: int) -> int | None:
    """Elements of the outputs of this layer and of those inside; ``None`` if a length is open."""
    total = 0
    for child in layer.children:
        inside = _outputs(child, batch_size)
        if inside is None:
            return None
        total += inside
    if isinstance(layer, Chain) and layer.children:
        return total  # its output is that of its last layer
    shape: Shape = layer.output_shape
    if None in shape[1:]:
        return None
    return total + batch_size * math.prod(n for n in shape[1:] if n is not None)
