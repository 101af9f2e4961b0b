"""Weights in HDF5, laid out as Keras 3 does: ``layers/dense/vars/0``, ``optimizer/vars/1``."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from minicnnrnn.layers.base import Layer
from minicnnrnn.parameters import Weight

# Layers whose weights Keras keeps in a layer inside, the cell.
CELLS = frozenset(("SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"))
# Layers inside that Keras finds under a name of their own; all others are in a list "layers".
INSIDE = ("layer", "forward_layer", "backward_layer")


def h5py() -> Any:
    """The package h5py, which not everyone has."""
    try:
        import h5py as module
    except ImportError:
        raise ImportError(
            "Expected h5py, which reads and writes HDF5: pip install 'minicnnrnn[hdf5]'. "
            "Received: no such package"
        ) from None
    return module


def to_snake_case(name: str) -> str:
    """Keras' way of it.

    Examples
    --------
    >>> to_snake_case("MaxPooling2D"), to_snake_case("ConvLSTM1D"), to_snake_case("GRU")
    ('max_pooling2d', 'conv_lstm1d', 'gru')
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def groups(layer: Layer, path: str = "") -> Iterator[tuple[str, Layer, list[Weight]]]:
    """Every group of weights: its path, its layer, its weights.

    Parameters
    ----------
    layer : Layer
        A model, or a layer inside.
    path : str
        Where it is.
    """
    inside = {id(weight) for child in layer.children for weight in child.weights}
    own = [weight for weight in layer.weights if id(weight) not in inside]
    cell = any(kind.__name__ in CELLS for kind in type(layer).__mro__)
    yield f"{path}cell/vars" if cell else f"{path}vars", layer, own
    named = {id(getattr(layer, name, None)): name for name in INSIDE}
    seen: Counter[str] = Counter()
    for child in layer.children:
        if id(child) in named:
            yield from groups(child, f"{path}{named[id(child)]}/")
            continue
        name = to_snake_case(type(child).__name__)
        count, seen[name] = seen[name], seen[name] + 1
        yield from groups(child, f"{path}layers/{name}{f'_{count}' if count else ''}/")


def write(file: Any, model: Any) -> None:
    """Write the weights, and the state of the optimizer if there is one.

    Parameters
    ----------
    file : h5py.File
    model : Sequential
    """
    for path, layer, weights in groups(model):
        group = file.create_group(path)
        group.attrs["name"] = layer.name
        for number, weight in enumerate(weights):
            group[str(number)] = np.array(weight.value)
    if model.optimizer is not None:
        group = file.create_group("optimizer/vars")
        group.attrs["name"] = model.optimizer.name.lower()
        parameters = model.model_context().parameters
        for number, array in enumerate(model.optimizer.get_state(parameters, model.weights)):
            group[str(number)] = array


def read(file: Any, model: Any, skip_mismatch: bool = False) -> list[tuple[Weight, Any]]:
    """The new values of the weights, once all are known to fit. Nothing is changed.

    Parameters
    ----------
    file : h5py.File
    model : Sequential
    skip_mismatch : bool
        Whether layers that do not fit are left as they are, with a warning.

    Raises
    ------
    ValueError
        If a weight is missing, has another shape or no finite values, or is not the model's.
    """
    found, used = [], set()
    for path, layer, weights in groups(model):
        used.add(path)
        try:
            found += _read_group(file, path, layer, weights)
        except ValueError as error:
            if not skip_mismatch:
                raise
            warnings.warn(f"Skipped: {error}", stacklevel=4)
    others = [path for path in _groups_in(file) if path not in used]
    if others and not skip_mismatch:
        raise ValueError(
            f"model {model.name!r}: Expected a file with its weights alone. "
            f"Received: weights of {', '.join(others)}"
        )
    return found


def _read_group(file: Any, path: str, layer: Layer, weights: list[Weight]) -> list[Any]:
    group = (file.get(path) or {}) if weights else {}
    given = sorted(group, key=int)
    if len(given) != len(weights):
        layer.fail(f"{len(weights)} weights at {path!r} in the file", f"{len(given)}")
    arrays = [np.asarray(group[name]) for name in given]
    for weight, array in zip(weights, arrays, strict=True):
        if array.shape != weight.shape or array.dtype.kind not in "fiu":
            layer.fail(
                f"weight {weight.name!r} to have shape {weight.shape} in the file",
                f"shape {array.shape}, dtype {array.dtype}",
            )
    return list(zip(weights, arrays, strict=True))


def _groups_in(file: Any) -> list[str]:
    """Groups with weights of layers; not the states of random generators and optimizers."""
    found: list[str] = []

    def visit(path: str, item: Any) -> None:
        if path.endswith("vars") and len(item) and not path.startswith("optimizer"):
            found.append(path)

    file.visititems(visit)
    return [path for path in found if "seed_generator" not in path]


def read_optimizer(file: Any, model: Any) -> list[Any] | None:
    """The optimizer's state in the file, if the model's optimizer can take it."""
    group = file.get("optimizer/vars")
    if group is None or model.optimizer is None:
        return None
    arrays = [np.asarray(group[name]) for name in sorted(group, key=int)]
    parameters = model.model_context().parameters
    expected = model.optimizer.get_state(parameters, model.weights)
    if [a.shape for a in arrays] == [e.shape for e in expected]:
        return arrays
    warnings.warn(
        f"{model.optimizer.name}: skipped the state of the optimizer in the file: it has "
        f"{len(arrays)} arrays of other numbers or shapes, {len(expected)} are expected.",
        stacklevel=4,
    )
    return None
