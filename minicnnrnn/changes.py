"""Changes: how a recorded train step learns that it does not hold any more.

A recording has the addresses of its arrays and the numbers that its kernels were given. Whatever
moves an array, or changes such a number, says so here. It happens seldom, so one note serves all
models: those that nothing has happened to are recorded once more.
"""

import itertools
from typing import Any

_numbers = itertools.count(1)
_last = [0, 0]  # of all notes; of those of changed attributes
PLAIN = (bool, int, float, str, type(None))


def note() -> None:
    """Say that recordings made so far do not hold any more."""
    _last[0] = next(_numbers)


def latest() -> int:
    """A number that is another one after every note."""
    return _last[0]


def settings() -> int:
    """The same for notes of changed attributes alone."""
    return _last[1]


class Watched:
    """What notes a change of its public attributes, a layer's rate or a loss's smoothing."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; one that gets its first value changes nothing."""
        if name[0] != "_":
            held = self.__dict__.get(name, getattr(type(self), name, value))
            if hasattr(held, "__set__"):  # a property has attributes of its own
                held = value
            same = type(held) is type(value) and isinstance(value, PLAIN) and held == value
            if held is not value and not same:
                note()
                _last[1] = _last[0]
        super().__setattr__(name, value)
