"""Files: whole models in Keras' format ``.keras``, and weights alone in ``.weights.h5``.

Keras reads what is written here, and the other way round; only the layers that Keras does not
have, such as Residual, are read here alone. A file that does not fit changes nothing, and a file
is replaced only when its successor is complete.
"""

import contextlib
import datetime
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from minicnnrnn.saving import weights
from minicnnrnn.saving.objects import deserialize, serialize

KERAS = "3.0.0"  # the first version that reads this format
OURS = "minicnnrnn.json"  # beside Keras' files: what it takes to go on training exactly


def save_weights(model: Any, filepath: Any, overwrite: bool = True) -> None:
    """Write the weights of a model, and the state of its optimizer, to a file.

    Parameters
    ----------
    model : Sequential
    filepath : str or path
        Ends in ".weights.h5".
    overwrite : bool
        Whether a file that exists is replaced.
    """
    path = _path(filepath, ".weights.h5")
    _require_built(model)
    content = _weights_content(model)
    with _replacing(path, overwrite) as file:
        file.write(content)


def load_weights(model: Any, filepath: Any, skip_mismatch: bool = False) -> None:
    """Read weights from a file; the state of the optimizer too, if it fits.

    Parameters
    ----------
    model : Sequential
        Built.
    filepath : str or path
        Ends in ".weights.h5", or in ".keras" for those of a whole model.
    skip_mismatch : bool
        Whether layers that do not fit are left as they are, with a warning.

    Raises
    ------
    ValueError
        If a weight is missing or does not fit; nothing has changed then.
    """
    path = _path(filepath, ".weights.h5", ".keras")
    _require_built(model)
    if path.endswith(".keras"):
        with _opened(path) as archive:
            content = archive.read("model.weights.h5")
    else:
        with open(path, "rb") as file:
            content = file.read()
    _assign(model, content, path, skip_mismatch)


def save_model(model: Any, filepath: Any, overwrite: bool = True) -> None:
    """Write a model to a file: layers, weights, what it was compiled with, its optimizer's state.

    Parameters
    ----------
    model : Sequential
        Built.
    filepath : str or path
        Ends in ".keras".
    overwrite : bool
        Whether a file that exists is replaced.

    Raises
    ------
    ValueError
        If it is not built, or an argument of a layer cannot be saved.
    """
    path = _path(filepath, ".keras")
    _require_built(model)
    config = serialize(model)
    config["build_config"] = {"input_shape": serialize(model.input_shape)}
    if model.optimizer is not None:
        config["compile_config"] = model.get_compile_config()
    now = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
    contents: dict[str, str | bytes] = {
        "metadata.json": json.dumps({"keras_version": KERAS, "date_saved": now}),
        "config.json": json.dumps(config),
        "model.weights.h5": _weights_content(model),
        OURS: json.dumps(_random_state(model) | _undecayed(model)),
    }
    with _replacing(path, overwrite) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def load_model(
    filepath: Any,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    device: str | None = None,
) -> Any:
    """Read a model from a file.

    Parameters
    ----------
    filepath : str or path
        Ends in ".keras".
    custom_objects : dict, optional
        Your own classes and functions, by name.
    compile : bool
        Whether it is compiled as it was, with the state of the optimizer.
    device : str, optional
        As for ``Sequential``.

    Returns
    -------
    Sequential

    Raises
    ------
    ValueError, TypeError
        If the file is damaged, or holds what this package does not have.
    """
    path = _path(filepath, ".keras")
    with _opened(path) as archive:
        config = json.loads(archive.read("config.json"))
        content = archive.read("model.weights.h5")
        extra = json.loads(archive.read(OURS)) if OURS in archive.namelist() else None
    model = deserialize(_with_device(config, device), custom_objects)
    if not model.built:
        model.build((config.get("build_config") or {}).get("input_shape"))
    if compile and config.get("compile_config"):
        model.compile_from_config(config["compile_config"], custom_objects)
        spared = [model.weights[number] for number in (extra or {}).get("undecayed", ())]
        model.optimizer.exclude_from_weight_decay(spared)
    _assign(model, content, path)
    if extra is not None:
        _restore_random_state(model, extra)
    return model


def _with_device(config: Any, device: str | None) -> Any:
    if config.get("class_name") != "Sequential":
        raise ValueError(
            "Expected a file with a Sequential, since this package has no other models. "
            f"Received: {config.get('class_name')!r}"
        )
    return config if device is None else config | {"config": config["config"] | {"device": device}}


# --- weights -------------------------------------------------------------------------------


def _weights_content(model: Any) -> bytes:
    model.allocate()
    memory = io.BytesIO()
    with weights.h5py().File(memory, "w") as file:
        weights.write(file, model)
    return memory.getvalue()


def _assign(model: Any, content: bytes, path: str, skip_mismatch: bool = False) -> None:
    """Check all of a file's weights, then take them over."""
    module = weights.h5py()
    try:
        opened = module.File(io.BytesIO(content), "r")
    except OSError as error:
        raise ValueError(f"Expected a file in HDF5. Received: {path!r} ({error})") from None
    with opened as file:
        model.allocate()
        values = weights.read(file, model, skip_mismatch)
        state = weights.read_optimizer(file, model)
    context = model.model_context()
    with context.lock:
        for weight, array in values:
            weight.value[...] = array
        context.parameters.changed()
        if state is not None:
            model.optimizer.set_state(context.parameters, model.weights, state)


def _random_state(model: Any) -> dict[str, Any]:
    context = model.model_context()
    return {
        "generators": [
            serialize(g.bit_generator.state) for g in (context.rng, context.shuffle_rng)
        ],
        "kernels": [int(number) for number in context.random_state],
        "streams": [layer.__dict__.get("_stream") for layer in model.walk()],
    }


def _undecayed(model: Any) -> dict[str, Any]:
    """The numbers of the weights that the optimizer does not let decay."""
    if model.optimizer is None:
        return {}
    spared = model.optimizer.spares
    return {"undecayed": [number for number, w in enumerate(model.weights) if spared(w)]}


def _restore_random_state(model: Any, state: dict[str, Any]) -> None:
    context = model.model_context()
    for generator, saved in zip((context.rng, context.shuffle_rng), state["generators"]):
        generator.bit_generator.state = deserialize(saved)
    context.random_state[:] = state["kernels"]
    for layer, stream in zip(model.walk(), state["streams"], strict=True):
        layer._stream = stream
    context.streams = 1 + max((s for s in state["streams"] if s is not None), default=-1)


# --- files ---------------------------------------------------------------------------------


def _path(filepath: Any, *endings: str) -> str:
    path: str = os.fspath(filepath)
    if not path.endswith(endings):
        raise ValueError(
            f"filepath: Expected it to end in {' or '.join(endings)}. Received: {path!r}"
        )
    return path


def _require_built(model: Any) -> None:
    if not model.built:
        model.fail("a built model (call it on data, or build it with a shape)", "an unbuilt one")


@contextlib.contextmanager
def _replacing(path: str, overwrite: bool) -> Iterator[Any]:
    """A file that takes the place of `path` when all has been written, or leaves no trace."""
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(f"Expected no file of this name. Received: {path!r}")
    folder = os.path.dirname(path) or "."
    descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # as a file that is opened in the usual way
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextlib.contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(
            f"Expected a file in Keras' format. Received: {path!r} ({error})"
        ) from None
