"""Optimizers: SGD, RMSprop, Adam, AdamW."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minicnnrnn.parameters import Parameters, Weight

UNSUPPORTED = (
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)


def _number(owner: str, name: str, value: Any, low: float, high: float = np.inf) -> float:
    """`value` as a float in [low, high)."""
    real = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not real or not low <= value < high:
        bounds = f"at least {low:g}" + (f" and below {high:g}" if high < np.inf else "")
        raise ValueError(f"{owner}: Expected {name} to be a number {bounds}. Received: {value!r}")
    return float(value)


class Optimizer:
    """The base of all optimizers: learning rate, weight decay, slots, number of steps.

    Parameters
    ----------
    learning_rate : float
    weight_decay : float, optional
        Share of every weight, times the learning rate, that is taken off before each step.
    name : str, optional

    Attributes
    ----------
    iterations : int
        Updates made so far.
    """

    kernel = ""

    def __init__(
        self, learning_rate: float, weight_decay: float | None, name: str | None, kwargs: Any
    ) -> None:
        self.name = name or type(self).__name__
        for argument, value in kwargs.items():
            if argument not in UNSUPPORTED:
                raise TypeError(f"{self.name}: Expected known arguments. Received: {argument!r}")
            if value not in (None, False):
                raise ValueError(
                    f"{self.name}: Expected {argument} to be left out: it is not supported. "
                    f"Received: {value!r}"
                )
        self._rates = np.array([self.number("learning_rate", learning_rate, 0), 0.0])
        if weight_decay is not None:
            self._rates[1] = self.number("weight_decay", weight_decay, 0)
        self._step = np.zeros(1, np.int64)
        self._model: Any = None  # the one that it trains
        self._weights: list[Weight] | None = None  # those that the slots were made for
        self._slots: dict[str, Any] = {}

    def number(self, name: str, value: Any, low: float, high: float = np.inf) -> float:
        """Check a hyper-parameter; an error names this optimizer."""
        return _number(self.name, name, value, low, high)

    def add_rates(self, *rates: float) -> None:
        """Append the optimizer's own hyper-parameters, in the order of its kernel."""
        self._rates = np.append(self._rates, rates)

    def slot_names(self) -> dict[str, bool]:
        """The slots that the kernel takes, in order, and whether each is in use."""
        return {}

    @property
    def learning_rate(self) -> float:
        """The learning rate; setting it takes effect at the next step."""
        return float(self._rates[0])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._rates[0] = self.number("learning_rate", value, 0)

    @property
    def iterations(self) -> int:
        """Updates made so far."""
        return int(self._step[0])

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

    def update(self, parameters: Parameters, weights: Sequence[Weight]) -> None:
        """Change those of the weights that are trainable by one step along their gradients.

        Slots are made at the first step, and anew when the parameters are others than before.
        """
        device = parameters.device
        if self._weights is not parameters.weights:
            self._weights = parameters.weights
            self._step[0] = 0
            self._slots = {
                name: device.zeros((parameters.size if used else 0,))
                for name, used in self.slot_names().items()
            }
        getattr(device.kernels, self.kernel)(
            parameters.values,
            *self._slots.values(),
            parameters.gradients,
            self._rates,
            self._step,
            parameters.segments(weights),
            *self.options(),
        )
        parameters.changed()

    def options(self) -> tuple[int, ...]:
        """Integers that the kernel takes last."""
        return ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} learning_rate={self.learning_rate:g}>"


class SGD(Optimizer):
    """Gradient descent, with momentum if asked.

    Parameters
    ----------
    learning_rate : float
    momentum : float
        From 0 to 1; 0 is plain gradient descent.
    nesterov : bool
        Nesterov's momentum.
    weight_decay : float, optional

    Examples
    --------
    >>> from minicnnrnn.optimizers import SGD
    >>> SGD(0.1, momentum=0.9)
    <SGD learning_rate=0.1>
    """

    kernel = "sgd_update"

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, name, kwargs)
        self.momentum = self.number("momentum", momentum, 0, 1.0000001)
        self.nesterov = bool(nesterov)
        self.add_rates(self.momentum)

    def slot_names(self) -> dict[str, bool]:
        """The velocity."""
        return {"velocity": self.momentum > 0}

    def options(self) -> tuple[int, ...]:
        """Whether the momentum is Nesterov's."""
        return (int(self.nesterov),)


class RMSprop(Optimizer):
    """Gradients measured by their own recent size.

    Parameters
    ----------
    learning_rate : float
    rho : float
        Share of the past in the running mean of squared gradients.
    momentum : float
    epsilon : float
        Keeps the quotient finite.
    centered : bool
        Subtract the squared running mean: measure by the variance.
    weight_decay : float, optional
    """

    kernel = "rmsprop_update"

    def __init__(
        self,
        learning_rate: float = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, name, kwargs)
        self.momentum, self.centered = self.number("momentum", momentum, 0, 1), bool(centered)
        self.add_rates(
            self.number("rho", rho, 0, 1), self.momentum, self.number("epsilon", epsilon, 0)
        )

    def slot_names(self) -> dict[str, bool]:
        """Running means of the square and of the gradient, and the velocity."""
        return {"square": True, "velocity": self.momentum > 0, "mean": self.centered}


class Adam(Optimizer):
    """Adaptive moments: momentum, measured by the recent size of the gradient.

    Parameters
    ----------
    learning_rate : float
    beta_1, beta_2 : float
        Share of the past in the running means of the gradient and of its square.
    epsilon : float
        Keeps the quotient finite.
    amsgrad : bool
        Measure by the largest running mean so far.
    weight_decay : float, optional

    Notes
    -----
    Kingma and Ba 2015, arXiv:1412.6980, in the form of its section 2: epsilon is outside the
    bias correction, as in Keras.
    """

    kernel = "adam_update"

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, name, kwargs)
        self.amsgrad = bool(amsgrad)
        self.add_rates(
            self.number("beta_1", beta_1, 0, 1),
            self.number("beta_2", beta_2, 0, 1),
            self.number("epsilon", epsilon, 0),
        )

    def slot_names(self) -> dict[str, bool]:
        """First and second moment, and the largest second one."""
        return {"m": True, "v": True, "v_max": self.amsgrad}


class AdamW(Adam):
    """Adam with weight decay apart from the gradient.

    Parameters are those of ``Adam``; Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, name, **kwargs
        )


OPTIMIZERS: dict[str, Any] = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}


def get(identifier: Any) -> Optimizer:
    """The optimizer of this name, or the one that is given.

    Examples
    --------
    >>> from minicnnrnn import optimizers
    >>> optimizers.get("adam")
    <Adam learning_rate=0.001>
    """
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, Mapping) and set(identifier) >= {"class_name", "config"}:
        kind: Any = type(get(identifier["class_name"]))
        made: Optimizer = kind(**identifier["config"])
        return made
    if isinstance(identifier, str) and identifier.lower() in OPTIMIZERS:
        return get(OPTIMIZERS[identifier.lower()]())
    raise ValueError(
        f"optimizer: Expected an Optimizer or one of {sorted(OPTIMIZERS)}. Received: {identifier!r}"
    )
