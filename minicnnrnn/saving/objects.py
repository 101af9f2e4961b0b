"""Objects as Keras writes them into JSON: their class, and the arguments to make them again."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from minicnnrnn.configuration import Recorded

ROOMS = ("layers", "initializers", "regularizers", "constraints", "losses", "metrics", "optimizers")
OURS = frozenset(("Branches", "Residual"))  # layers that Keras does not have
# Arguments in Keras' files that mean nothing here.
MEANINGLESS = frozenset(("zero_output_for_mask", "autocast"))


def serialize(value: Any, where: str = "") -> Any:
    """Describe a value by what JSON can hold.

    Parameters
    ----------
    value : object
        Numbers, strings, lists, arrays, named functions, and objects with ``get_config``.
    where : str
        What an error says about where the value is from.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> from minicnnrnn import initializers
    >>> serialize(initializers.Constant(2.0))["config"]
    {'value': 2.0}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        config = {"value": value.tolist(), "dtype": value.dtype.name}
        return {"class_name": "__numpy__", "config": config}
    if isinstance(value, Mapping):
        return {str(key): serialize(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [serialize(item, where) for item in value]
    if hasattr(value, "get_config") and not isinstance(value, type):
        name = type(value).__name__
        module = public_module(type(value))
        config = serialize(value.get_config(), where or repr(value))
        return {
            "module": module,
            "class_name": name,
            "config": config,
            "registered_name": None if module.startswith(("keras", "minicnnrnn")) else name,
        }
    if inspect.isfunction(value) and value.__name__ != "<lambda>":
        name = value.__name__
        return {"module": value.__module__, "class_name": "function", "config": name,
                "registered_name": name}  # fmt: skip
    raise ValueError(
        f"{where}: Expected a value that can be saved: a number, a string, a named function or "
        f"an object with get_config. Received: {value!r}"
    )


def public_module(kind: type) -> str:
    """Where Keras has a class; for classes that are ours or a user's, where these are."""
    package, _, rest = kind.__module__.partition(".")
    if package != "minicnnrnn":
        return kind.__module__
    room = rest.partition(".")[0]
    if kind.__name__ in OURS:
        return "minicnnrnn.layers"
    if rest == "optimizers.schedules":
        return "keras.optimizers.schedules"
    return f"keras.{room}" if room in ROOMS else "keras"


def deserialize(value: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Make what ``serialize`` described; what it did not describe comes back as it is.

    Parameters
    ----------
    value : object
    custom_objects : dict, optional
        Classes and functions that are not part of this package, by name.

    Raises
    ------
    ValueError, TypeError
        For unknown classes, and arguments that they do not have.
    """
    custom = custom_objects or {}
    if isinstance(value, list):
        return [deserialize(item, custom) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "class_name" not in value or "config" not in value:
        return {key: deserialize(item, custom) for key, item in value.items()}
    name, config = value["class_name"], value["config"]
    if name == "__numpy__":
        return np.array(config["value"], config["dtype"])
    if name == "DTypePolicy":
        return config["name"]
    if name == "function":
        return _custom(custom, config)
    kind = find_class(name, value.get("module") or "", custom)
    if not isinstance(kind, type):
        return kind()  # a name that is left out: raises, and says what to use instead
    arguments = {key: deserialize(item, custom) for key, item in (config or {}).items()}
    if not hasattr(kind, "from_config"):
        return kind(**arguments)
    return kind.from_config(_fitting(kind, arguments))


def find_class(name: str, module: str, custom_objects: Mapping[str, Any]) -> Any:
    """The class of this name, as Keras' files name them."""
    import minicnnrnn

    if name in custom_objects:
        return custom_objects[name]
    package, _, room = module.partition(".")
    if package in ("keras", "minicnnrnn", ""):
        place: Any = minicnnrnn
        for part in room.split(".") if room else ():
            place = getattr(place, part, None)
        found = getattr(place, name, None)
        if found is not None:
            return found
    return _custom(custom_objects, name)


def _custom(custom_objects: Mapping[str, Any], name: str) -> Any:
    if name not in custom_objects:
        raise ValueError(
            f"Expected every class and function in the file to be known: give "
            f"custom_objects={{{name!r}: ...}}. Received: {name!r}"
        )
    return custom_objects[name]


def _fitting(kind: type, config: dict[str, Any]) -> dict[str, Any]:
    """The arguments without those that mean nothing here, and those left unset that it lacks."""
    known = _parameters(kind)
    if known is None:
        return config
    missing = {name: value for name, value in config.items() if name not in known}
    for name, value in missing.items():
        if name not in MEANINGLESS and value not in (None, False):
            raise ValueError(
                f"{kind.__name__}: Expected arguments that it has. Received: {name}={value!r}"
            )
    return {name: value for name, value in config.items() if name not in missing}


def _parameters(kind: type) -> set[str] | None:
    """The names that a constructor takes, those of its bases too; ``None`` if it takes any."""
    from minicnnrnn import Sequential, optimizers

    if issubclass(kind, Sequential | optimizers.Optimizer):  # they know Keras' names themselves
        return None
    names: set[str] = set()
    for base in kind.__mro__[:-1]:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD} - {"self"}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names
    return names if issubclass(kind, Recorded) else None
