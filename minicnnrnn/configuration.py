"""Objects that are described by their constructor's arguments, and found by name."""

import inspect
from collections.abc import Mapping
from typing import Any, Self


class Configured:
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
