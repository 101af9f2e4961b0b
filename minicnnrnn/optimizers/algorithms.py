"""The algorithms: SGD, RMSprop, Adagrad, Adam, AdamW; and how they are found by name."""

from collections.abc import Mapping
from typing import Any

from minicnnrnn.optimizers.base import Optimizer


class SGD(Optimizer):
    """Gradient descent, with momentum if asked.

    Parameters
    ----------
    learning_rate : float, LearningRateSchedule or callable
    momentum : float
        From 0 to 1; 0 is plain gradient descent.
    nesterov : bool
        Nesterov's momentum.
    weight_decay, clipnorm, clipvalue, global_clipnorm : float, optional
        As for ``Optimizer``.

    Examples
    --------
    >>> from minicnnrnn.optimizers import SGD
    >>> SGD(0.1, momentum=0.9)
    <SGD learning_rate=0.1>
    """

    kernel = "sgd_update"

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, kwargs)
        self.momentum = self.number("momentum", momentum, 0, 1.0000001)
        self.nesterov = bool(nesterov)

    def rates(self) -> tuple[float, ...]:
        """The momentum."""
        return (self.momentum,)

    def slots(self) -> dict[str, float | None]:
        """The velocity."""
        return {"velocity": 0.0 if self.momentum > 0 else None}

    def options(self) -> tuple[int, ...]:
        """Whether the momentum is Nesterov's."""
        return (int(self.nesterov),)


class RMSprop(Optimizer):
    """Gradients measured by their own recent size.

    Parameters
    ----------
    learning_rate : float, LearningRateSchedule or callable
    rho : float
        Share of the past in the running mean of squared gradients.
    momentum : float
    epsilon : float
        Keeps the quotient finite.
    centered : bool
        Subtract the squared running mean: measure by the variance.
    weight_decay, clipnorm, clipvalue, global_clipnorm : float, optional
        As for ``Optimizer``.
    """

    kernel = "rmsprop_update"

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, kwargs)
        self.momentum, self.centered = self.number("momentum", momentum, 0, 1), bool(centered)
        self.rho, self.epsilon = self.number("rho", rho, 0, 1), self.number("epsilon", epsilon, 0)

    def rates(self) -> tuple[float, ...]:
        """Share of the past, momentum, epsilon."""
        return self.rho, self.momentum, self.epsilon

    def slots(self) -> dict[str, float | None]:
        """Running means of the square and of the gradient, and the velocity."""
        velocity, mean = 0.0 if self.momentum > 0 else None, 0.0 if self.centered else None
        return {"square": 0.0, "velocity": velocity, "mean": mean}


class Adagrad(Optimizer):
    """Gradients measured by the size of all of them so far.

    Parameters
    ----------
    learning_rate : float, LearningRateSchedule or callable
    initial_accumulator_value : float
        What the sums of squared gradients begin with.
    epsilon : float
        Keeps the quotient finite.
    weight_decay, clipnorm, clipvalue, global_clipnorm : float, optional
        As for ``Optimizer``.
    """

    kernel = "adagrad_update"

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, kwargs)
        self.epsilon = self.number("epsilon", epsilon, 0)
        self.initial_accumulator_value = self.number(
            "initial_accumulator_value", initial_accumulator_value, 0
        )

    def rates(self) -> tuple[float, ...]:
        """Epsilon."""
        return (self.epsilon,)

    def slots(self) -> dict[str, float | None]:
        """Sums of squared gradients."""
        return {"square": self.initial_accumulator_value}


class Adam(Optimizer):
    """Adaptive moments: momentum, measured by the recent size of the gradient.

    Parameters
    ----------
    learning_rate : float, LearningRateSchedule or callable
    beta_1, beta_2 : float
        Share of the past in the running means of the gradient and of its square.
    epsilon : float
        Keeps the quotient finite.
    amsgrad : bool
        Measure by the largest running mean so far.
    weight_decay, clipnorm, clipvalue, global_clipnorm : float, optional
        As for ``Optimizer``.

    Notes
    -----
    Kingma and Ba 2015, arXiv:1412.6980, in the form of its section 2: epsilon is outside the
    bias correction, as in Keras.
    """

    kernel = "adam_update"
    interleaved = 2

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, kwargs)
        self.amsgrad = bool(amsgrad)
        self.beta_1, self.beta_2 = (
            self.number("beta_1", beta_1, 0, 1),
            self.number("beta_2", beta_2, 0, 1),
        )
        self.epsilon = self.number("epsilon", epsilon, 0)

    def rates(self) -> tuple[float, ...]:
        """Shares of the past, epsilon."""
        return self.beta_1, self.beta_2, self.epsilon

    def slots(self) -> dict[str, float | None]:
        """First and second moment, and the largest second one."""
        return {"m": 0.0, "v": 0.0, "v_max": 0.0 if self.amsgrad else None}


class AdamW(Adam):
    """Adam with weight decay apart from the gradient.

    Parameters are those of ``Adam``; Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | None = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        arguments = (learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay)
        super().__init__(*arguments, clipnorm, clipvalue, global_clipnorm, **kwargs)


OPTIMIZERS: dict[str, Any] = {
    "sgd": SGD,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "adam": Adam,
    "adamw": AdamW,
}


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
        made: Optimizer = kind.from_config(identifier["config"])
        return made
    if isinstance(identifier, str) and identifier.lower() in OPTIMIZERS:
        return get(OPTIMIZERS[identifier.lower()]())
    raise ValueError(
        f"optimizer: Expected an Optimizer or one of {sorted(OPTIMIZERS)}. Received: {identifier!r}"
    )
