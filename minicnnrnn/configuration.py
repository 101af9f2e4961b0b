"""Objects that are described by their constructor's arguments, and found by name."""

import inspect
from collections.abc import Mapping
from typing import Any, Self

from minicnnrnn.changes import Watched


class Configured(Watched):
    """What is known by its constructor's arguments, kept as attributes of the same names.

    Examples
    --------
    >>> class Ramp(Configured):
    ...     def __init__(self, slope=2.0):
    ...         self.slope = slope
    >>> Ramp(3.0)
    Ramp(slope=3.0)
    >>> Ramp.from_config(Ramp(3.0).get_config()).slope
    3.0
    """

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as a dict."""
        names = inspect.signature(type(self).__init__).parameters
        return {name: getattr(self, name) for name in names if name in self.__dict__}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an object from what ``get_config`` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        """Show the constructor's call."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def find(identifier: Any, table: Mapping[str, Any]) -> Any:
    """What `table` makes of a name or of Keras' dict, what a class makes; else what is given.

    Parameters
    ----------
    identifier : str, mapping with "class_name" and "config", class, or anything else
    table : mapping
        Name to class, or to a function of the same arguments.

    Returns
    -------
    object
        ``None`` for a name that is not in the table.
    """
    if isinstance(identifier, str):
        return table[identifier]() if identifier in table else None
    if isinstance(identifier, Mapping):
        made = table.get(str(identifier.get("class_name")))
        return None if made is None else made(**(identifier.get("config") or {}))
    return identifier() if isinstance(identifier, type) else identifier


class Recorded(Watched):
    """What remembers the arguments that it was made from, whatever became of them.

    A class of your own needs nothing for it; it may override ``get_config``, as in Keras.

    Examples
    --------
    >>> class Scale(Recorded):
    ...     def __init__(self, factor, offset=0.0):
    ...         self.doubled = 2 * factor
    >>> Scale(3.0).get_config()
    {'factor': 3.0, 'offset': 0.0}
    """

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note the arguments."""
        made = super().__new__(cls)
        made._arguments = args, kwargs
        return made

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as a dict, in forms that JSON can hold.

        Raises
        ------
        ValueError
            If an argument has no such form, as a lambda.
        """
        from minicnnrnn.saving.objects import serialize

        args, kwargs = self._arguments
        signature = inspect.signature(type(self).__init__)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        config: dict[str, Any] = {}
        for name, value in list(bound.arguments.items())[1:]:
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                config |= {key: value[key] for key in value if key not in INPUT_SHAPES}
            else:
                config[name] = value
        config |= {
            name: getattr(self, name) for name in ("name", "trainable") if hasattr(self, name)
        }
        return {name: serialize(value, f"{self!r}, {name}") for name, value in config.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an object from what ``get_config`` returned."""
        from minicnnrnn.saving.objects import deserialize

        arguments = {name: deserialize(value) for name, value in config.items()}
        listed = []
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                listed = arguments.pop(name, [])
        return cls(*listed, **arguments)


# A model saves the shape of its input itself.
INPUT_SHAPES = frozenset(("input_shape", "input_dim", "batch_shape", "batch_input_shape"))
