"""Relay: the memory of gradients on their way down a model."""

import math
from typing import Any

from minicnnrnn.device import Buffer, Device


class Relay:
    """Memory that layers hand on: whoever has read a gradient gives its memory back.

    A gradient is wanted from the layer that makes it to the one below, so that a whole chain does
    with two memories in turn. Nobody has to give back: what is held under a key is taken again by
    the next call with it. Passes over the same shapes get the same memories in the same order.

    Parameters
    ----------
    device : Device

    Examples
    --------
    >>> from minicnnrnn.device import get_device
    >>> from minicnnrnn.layers.relay import Relay
    >>> relay = Relay(get_device("cpu"))
    >>> upper, lower = relay.take("upper", 2, 3), relay.take("lower", 6)
    >>> relay.give_back(upper, lower)
    >>> relay.take("below", 3, 2).base is upper.base
    True
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._memories: list[Buffer] = []
        self._held: dict[Any, int] = {}  # who holds which memory
        self._usual: dict[Any, int] = {}  # what they got the last time

    def begin(self, dy: Any) -> None:
        """Begin a pass over the model: all is given back, but what holds its first gradient."""
        taken, self._held = self._held.values(), {}
        for index in taken:
            if _memory(self._memories[index].memory) is _memory(dy):
                self._held[None] = index

    def take(self, key: Any, *shape: int) -> Any:
        """An array of float32 whose contents are undefined."""
        index = self._held.get(key)
        if index is None:
            index = self._held[key] = self._usual[key] = self._free(key, math.prod(shape))
        return self._memories[index](*shape)

    def give_back(self, array: Any, *wanted: Any) -> None:
        """Let others have the memory of an array, unless one that is still wanted lies there."""
        memory = _memory(array)
        if any(other is not None and _memory(other) is memory for other in wanted):
            return
        for key, index in self._held.items():
            if _memory(self._memories[index].memory) is memory:
                del self._held[key]
                return

    def _free(self, key: Any, size: int) -> int:
        """The memory that `key` had before, the smallest that suffices, or else the largest."""
        taken, usual = set(self._held.values()), self._usual.get(key)
        if usual is not None and usual not in taken:
            return usual
        free = {i: m.memory.size for i, m in enumerate(self._memories) if i not in taken}
        enough = [i for i in free if free[i] >= size]
        if enough:
            return min(enough, key=free.__getitem__)
        if free:
            return max(free, key=free.__getitem__)
        self._memories.append(Buffer(self._device))
        return len(self._memories) - 1


def _memory(array: Any) -> Any:
    """The array whose memory a view shows."""
    return array if array.base is None else array.base
