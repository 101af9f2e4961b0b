"""Optimizer: what all optimizers share - learning rate, decay, clipping, slots, a step."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from minicnnrnn import changes
from minicnnrnn.device import Device
from minicnnrnn.kernels.codes import GLOBAL_NORM, NORM, PARTS, VALUE
from minicnnrnn.optimizers import schedules
from minicnnrnn.optimizers.schedules import LearningRateSchedule
from minicnnrnn.parameters import Parameters, Weight
from minicnnrnn.recorded import assign

CLIPPINGS = {"clipnorm": NORM, "clipvalue": VALUE, "global_clipnorm": GLOBAL_NORM}
# What Keras has besides, with the values that ask for nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "use_ema": (None, False),
    "loss_scale_factor": (None,),
    "gradient_accumulation_steps": (None,),
}
IDLE = {"ema_momentum": 0.99, "ema_overwrite_frequency": None}  # nothing without use_ema


def _number(owner: str, name: str, value: Any, low: float, high: float = np.inf) -> float:
    """`value` as a float in [low, high)."""
    real = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not real or not low <= value < high:
        bounds = f"at least {low:g}" + (f" and below {high:g}" if high < np.inf else "")
        raise ValueError(f"{owner}: Expected {name} to be a number {bounds}. Received: {value!r}")
    return float(value)


class Optimizer(changes.Watched):
    """The base of all optimizers: learning rate, weight decay, clipping, slots, number of steps.

    Parameters
    ----------
    learning_rate : float, LearningRateSchedule or callable
        A schedule gets the number of the update, from 0; so does a function of one argument.
    weight_decay : float, optional
        Share of every weight, times the learning rate, that is taken off before each step.
    clipnorm, clipvalue, global_clipnorm : float, optional
        At most one of them: the largest norm of the gradient of each weight, the largest
        element, or the largest norm of all gradients together; 0 for no clipping.
    options : mapping
        Further arguments: "name", and those of Keras that are not supported.

    Attributes
    ----------
    iterations : int
        Updates made so far.
    """

    kernel = ""
    interleaved = 0  # slots that Keras keeps together, weight by weight

    def __init__(
        self,
        learning_rate: Any,
        weight_decay: float | None,
        clipnorm: float | None,
        clipvalue: float | None,
        global_clipnorm: float | None,
        options: Mapping[str, Any],
    ) -> None:
        self.name = options.get("name") or type(self).__name__
        self._refuse(options)
        self._learning_rate = self._rate(learning_rate)
        self.weight_decay = (
            None if weight_decay is None else self.number("weight_decay", weight_decay, 0)
        )
        given = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        if sum(value is not None for value in given.values()) > 1:
            raise ValueError(
                f"{self.name}: Expected only one of clipnorm, clipvalue and global_clipnorm. "
                f"Received: {given}"
            )
        self.clipnorm, self.clipvalue, self.global_clipnorm = (
            None if value is None else self.number(name, value, 0) for name, value in given.items()
        )
        self._iterations = 0
        self._step: Any = None  # the same number, on the device
        self._written: tuple[float, ...] = ()  # the rates that lie there
        self._model: Any = None  # the one that it trains
        self._weights: list[Weight] | None = None  # those that the slots were made for
        self._slots: dict[str, Any] = {}
        self._rates: Any = None  # what the kernels read, on the device
        self._threshold: Any = None
        self._sums: Any = None
        self.spares: Callable[[Weight], bool] = _never  # whether a weight does not decay
        self._undecayed: frozenset[int] = frozenset()

    def _refuse(self, options: Mapping[str, Any]) -> None:
        for argument, value in options.items():
            if argument in UNSUPPORTED and value not in UNSUPPORTED[argument]:
                raise ValueError(
                    f"{self.name}: Expected {argument} to be left out: it is not supported. "
                    f"Received: {value!r}"
                )
            if argument not in {*UNSUPPORTED, *IDLE, "name"}:
                raise TypeError(f"{self.name}: Expected known arguments. Received: {argument!r}")

    def number(self, name: str, value: Any, low: float, high: float = np.inf) -> float:
        """Check a hyper-parameter; an error names this optimizer."""
        return _number(self.name, name, value, low, high)

    def rates(self) -> tuple[float, ...]:
        """The optimizer's own hyper-parameters, in the order of its kernel."""
        return ()

    def slots(self) -> dict[str, float | None]:
        """The slots that the kernel takes, in order: first values, ``None`` where not in use."""
        return {}

    # --- the learning rate ---------------------------------------------------------

    def _rate(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return schedules.deserialize(value)
        return value if callable(value) else self.number("learning_rate", value, 0)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step; setting it takes effect there.

        Raises
        ------
        TypeError
            If a number is set while a schedule or a function is in use.
        """
        rate = self._learning_rate
        if callable(rate):
            counts = isinstance(rate, LearningRateSchedule) or _takes_argument(rate)
            return self.number("learning_rate", rate(self.iterations) if counts else rate(), 0)
        return float(rate)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if callable(self._learning_rate) and not callable(value):
            raise TypeError(
                f"{self.name}: Expected a schedule, since the learning rate is one "
                f"({self._learning_rate!r}): give the optimizer a float to set it later. "
                f"Received: {value!r}"
            )
        self._learning_rate = self._rate(value)

    @property
    def iterations(self) -> int:
        """Updates made so far."""
        return self._iterations

    @property
    def written(self) -> tuple[float, ...]:
        """The rates that the device has."""
        return self._written

    # --- which model, which weights ------------------------------------------------

    def claim(self, model: Any) -> None:
        """Train this model, and no other from now on.

        Raises
        ------
        ValueError
            If it is another one's: rates may be shared by making two, slots and steps never.
        """
        if self._model not in (None, model):
            raise ValueError(
                f"{self.name}: Expected an optimizer of its own for model {model.name!r}. "
                f"Received: that of model {self._model.name!r}"
            )
        self._model = model

    def exclude_from_weight_decay(
        self, var_list: Iterable[Weight] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Let some weights not decay; to be called before the first step.

        Parameters
        ----------
        var_list : list of Weight, optional
            Of a layer's ``weights``.
        var_names : list of str, optional
            Regular expressions; a weight is left out if one is found in its name, as "bias".

        Examples
        --------
        >>> from minicnnrnn.optimizers import AdamW
        >>> optimizer = AdamW(weight_decay=0.01)
        >>> optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        """
        if self._weights is not None:
            raise ValueError(f"{self.name}: Expected exclusions before the first step.")
        listed = list(var_list or ())
        if not all(isinstance(weight, Weight) for weight in listed):
            raise TypeError(f"{self.name}: Expected weights of layers. Received: {var_list!r}")
        patterns = [re.compile(name) for name in var_names or ()]
        self.spares = _Exclusion(listed, patterns)

    def prepare(self, parameters: Parameters) -> None:
        """Make the slots, unless they are those of these parameters."""
        if self._weights is parameters.weights:
            return
        changes.note()
        self._weights = parameters.weights
        self._iterations, self._written = 0, ()
        self._undecayed = frozenset(
            number for number, weight in enumerate(parameters.weights) if self.spares(weight)
        )
        device, self._slots = parameters.device, {}
        for name, first in self.slots().items():
            self._slots[name] = device.zeros((0 if first is None else parameters.size,))
            self._slots[name][...] = first or 0
        self._step = device.zeros((1,), np.int64)
        self._rates = device.zeros((2 + len(self.rates()),), np.float64)
        self._threshold = device.zeros((1,), np.float64)
        self._sums = device.zeros((PARTS, len(parameters.weights)), np.float64)

    def moved(self, device: Device) -> dict[str, Any]:
        """What changes when the model moves to another device: copies of all slots there."""
        if self._weights is None:
            return {}
        arrays = {"_step": self._step, "_rates": self._rates, "_threshold": self._threshold}
        copies: dict[str, Any] = {"_slots": {}}
        for held, name, array in (
            *((copies["_slots"], name, slot) for name, slot in self._slots.items()),
            *((copies, name, array) for name, array in arrays.items()),
            (copies, "_sums", self._sums),
        ):
            held[name] = device.empty(array.shape, array.dtype)
            held[name][...] = np.asarray(array)
        return copies

    # --- a step --------------------------------------------------------------------

    def update(self, parameters: Parameters, weights: Sequence[Weight]) -> None:
        """Change those of the weights that are trainable by one step along their gradients.

        Gradients are clipped first. Slots are made at the first step, and anew when the
        parameters are others than before.
        """
        self.begin(parameters)
        self.step(parameters, weights)

    def begin(self, parameters: Parameters) -> None:
        """Bring to the device what the kernels of the next step read there."""
        self.prepare(parameters)
        rates = (self.learning_rate, self.weight_decay or 0.0, *self.rates())
        if rates != self._written:
            self._rates[:] = self._written = rates

    def step(self, parameters: Parameters, weights: Sequence[Weight]) -> None:
        """Do what ``update`` does, but for what ``begin`` does."""
        kernels, g = parameters.device.kernels, parameters.gradients
        segments = parameters.segments(weights, self._undecayed)
        for name, kind in CLIPPINGS.items():
            if getattr(self, name):
                assign(self._threshold, getattr(self, name))
                kernels.clip_gradient(g, self._sums, segments, self._threshold, kind)
        getattr(kernels, self.kernel)(
            parameters.values,
            *self._slots.values(),
            g,
            self._rates,
            self._step,
            segments,
            *self.options(),
        )
        self.count(parameters)

    def count(self, parameters: Parameters) -> None:
        """Note that a step was made: on the device it counts itself."""
        self._iterations += 1
        parameters.changed()

    def options(self) -> tuple[int, ...]:
        """Integers that the kernel takes last."""
        return ()

    # --- what is saved -------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of an optimizer like this one; Keras takes them too."""
        config = {"name": self.name, **{name: values[-1] for name, values in UNSUPPORTED.items()}}
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                config[name] = getattr(self, name)
        rate = self._learning_rate
        if isinstance(rate, LearningRateSchedule):
            rate = schedules.serialize(rate)
        elif callable(rate):
            raise ValueError(
                f"{self.name}: Expected a LearningRateSchedule, which can be saved. "
                f"Received: {rate!r}"
            )
        return config | IDLE | {"learning_rate": rate}

    def get_state(self, parameters: Parameters, weights: Sequence[Weight]) -> list[Any]:
        """Number of steps, learning rate and slots, in Keras' order; copies."""
        self.prepare(parameters)
        rate = [] if callable(self._learning_rate) else [np.float32(self._learning_rate)]
        state = [np.array(self._iterations), *map(np.asarray, rate)]
        return state + [np.array(view) for view in self._views(parameters, weights)]

    def set_state(
        self, parameters: Parameters, weights: Sequence[Weight], state: Sequence[Any]
    ) -> None:
        """Take over what ``get_state`` gave."""
        self.prepare(parameters)
        number, *rest = state
        self._iterations = int(number)
        self._step[:] = self._iterations
        if not callable(self._learning_rate):
            rate = rest.pop(0)
            if np.float32(self._learning_rate) != rate:  # else it has more digits than the state
                self.learning_rate = float(rate)
        for view, array in zip(self._views(parameters, weights), rest, strict=True):
            view[...] = array

    def _views(self, parameters: Parameters, weights: Sequence[Weight]) -> list[Any]:
        """The slots of the weights that are trained, one by one."""
        wanted = {id(weight) for weight in weights if weight.trainable}
        used = [slot for slot in self._slots.values() if slot.size]
        together = used[: self.interleaved]
        return [
            slot[start : start + weight.size].reshape(weight.shape)
            for group in (together, *([slot] for slot in used[self.interleaved :]))
            for start, weight in zip(parameters.offsets, parameters.weights, strict=True)
            if id(weight) in wanted
            for slot in group
        ]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an optimizer from what ``get_config`` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} learning_rate={self.learning_rate:g}>"


def _never(weight: Weight) -> bool:
    return False


class _Exclusion:
    """Whether a weight is listed, or has one of the names."""

    def __init__(self, listed: list[Weight], patterns: list[re.Pattern[str]]) -> None:
        self.listed, self.patterns = listed, patterns

    def __call__(self, weight: Weight) -> bool:
        return any(weight is other for other in self.listed) or any(
            pattern.search(weight.name) for pattern in self.patterns
        )


def _takes_argument(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD for p in parameters)
