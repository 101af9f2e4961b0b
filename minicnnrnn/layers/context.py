"""Context: what the layers of one model share; and the names that layers get."""

import re
import threading
from collections import Counter
from typing import Any

import numpy as np

from minicnnrnn.device import Buffer, Device
from minicnnrnn.layers.relay import Relay
from minicnnrnn.parameters import Parameters, Weight
from minicnnrnn.random import generator
from minicnnrnn.recorded import assign

_names: Counter[str] = Counter()


def unique_name(kind: str) -> str:
    """Keras' automatic names: ``dense``, ``dense_1``, ``dense_2``, ..."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
    count = _names[snake]
    _names[snake] += 1
    return f"{snake}_{count}" if count else snake


class Context:
    """What the layers of one model share: device, random numbers, parameters and a lock.

    Parameters
    ----------
    device : Device
    seed : int or None
        ``None`` draws one.
    """

    def __init__(self, device: Device, seed: int | None = None) -> None:
        self.device = device
        self.rng = generator(seed, "weights")
        self.shuffle_rng = generator(seed, "shuffle")
        # [seed, number of the train step]: all that random kernels draw from.
        self.random_state = device.zeros((2,), np.int64)
        self.random_state[0] = generator(seed, "kernels").integers(2**62)
        self._penalty = device.zeros((1,), np.float64)
        self.penalized = False
        self.parameters = Parameters([], device)
        self.workspace = Buffer(device)  # in which the kernels of all layers train, one by one
        self.gradients = Relay(device)  # of what layers compute, on the way down
        self.updates = 0  # made so far, as the host counts them
        self.packings = 0  # how often what predictions have packed has become another one
        self.streams = 0  # random layers so far: each draws from a stream of its own
        self.lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: all but the lock, and the memory of a step."""
        own = ("lock", "workspace", "gradients")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"lock": threading.RLock()} | self._memory(state["device"])

    @staticmethod
    def _memory(device: Device) -> dict[str, Any]:
        return {"workspace": Buffer(device), "gradients": Relay(device)}

    def moved(self, device: Device) -> dict[str, Any]:
        """What changes when the model moves to another device, parameters apart."""
        state, penalty = device.empty((2,), np.int64), device.zeros((1,), np.float64)
        state[...] = np.asarray(self.random_state)
        moved = {"device": device, "random_state": state, "_penalty": penalty}
        return moved | self._memory(device)

    @property
    def penalty(self) -> Any:
        """What layers and weights add to the loss of a batch: a number on the device.

        It is set to zero when somebody first asks for it, so that models without penalties, most
        of them, spend nothing on it.
        """
        if not self.penalized:
            self.penalized = True
            assign(self._penalty, 0)
        return self._penalty

    @penalty.setter
    def penalty(self, value: Any) -> None:
        self._penalty = value

    def forget_penalty(self) -> None:
        """Begin another batch."""
        self.penalized = False

    def adopt(self, weights: list[Weight]) -> None:
        """Lay out the parameters for these weights; values that exist are kept."""
        version = self.parameters.version
        self.parameters = Parameters(weights, self.device)
        self.parameters.version = version + 1
