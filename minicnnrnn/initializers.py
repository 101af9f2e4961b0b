"""Initializers: the values that weights start from, under Keras' names and with its defaults.

An initializer is called as ``initializer(shape, rng)`` with a NumPy generator and returns a
float32 array. One that has a `seed` of its own draws from that seed alone, the same values at
every call.
"""

import inspect
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]
Shape = tuple[int, ...]

# The standard deviation of a standard normal distribution cut off at -2 and 2.
TRUNCATED_STDDEV = 0.87962566103423978


class Initializer(ABC):
    """What all initializers share: a call, a configuration and a seed.

    A class of your own overrides ``__call__`` and keeps its constructor's arguments as
    attributes of the same names.
    """

    seed: int | None = None

    @abstractmethod
    def __call__(self, shape: Shape, rng: np.random.Generator) -> Weights:
        """Draw an array of the given shape.

        Parameters
        ----------
        shape : tuple of ints
        rng : numpy.random.Generator
            Used unless the initializer has a seed of its own.

        Returns
        -------
        float32 array of `shape`
        """

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as a dict.

        Examples
        --------
        >>> RandomNormal(stddev=0.1).get_config()
        {'mean': 0.0, 'stddev': 0.1, 'seed': None}
        """
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Initializer":
        """Make an initializer from what ``get_config`` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        """Show the constructor's call."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"

    def _generator(self, rng: np.random.Generator) -> np.random.Generator:
        return rng if self.seed is None else np.random.default_rng(self.seed)


class Zeros(Initializer):
    """All zeros."""

    def __call__(self, shape: Shape, rng: np.random.Generator) -> Weights:
        """Return zeros; `rng` is left alone."""
        return np.zeros(shape, np.float32)


class Ones(Initializer):
    """All ones."""

    def __call__(self, shape: Shape, rng: np.random.Generator) -> Weights:
        """Return ones; `rng` is left alone."""
        return np.ones(shape, np.float32)


class Constant(Initializer):
    """One value everywhere, or an array that is broadcast to the shape."""

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Shape, rng: np.random.Generator) -> Weights:
        """Return copies of the value; `rng` is left alone."""
        return np.full(shape, self.value, np.float32)


class Identity(Initializer):
    """The identity matrix times `gain`, for weights of two dimensions."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: Shape, rng: np.random.Generator) -> Weights:
        """Return an identity matrix, not necessarily square; `rng` is left alone."""
        if len(shape) != 2:
            raise ValueError(f"Identity: Expected a shape of 2 dimensions. Received: {shape}")
        return np.float32(self.gain) * np.eye(*shape, dtype=np.float32)


class RandomUniform(Initializer):
    """A uniform distribution on [minval, maxval)."""

    def __init__(
        self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None
    ) -> None:
        self.minval = minval
        self.maxval = maxval
        self.seed = seed

    def __call__(self, shape: Shape, rng: np.random.Generator) -> Weights:
        """Draw from the uniform distribution."""
        return _uniform(self._generator(rng), shape, self.minval, self.maxval)


class RandomNormal(Initializer):
    """A normal distribution."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        self.mean = mean
        self.stddev = stddev
        self.seed = seed

    def __call__(self, shape: Shape, rng: np.random.Generator) -> Weights:
        """Draw from the normal distribution."""
        return _normal(self._generator(rng), shape, self.mean, self.stddev)


class TruncatedNormal(RandomNormal):
    """A normal distribution without what is more than two `stddev` from the mean.

    So the standard deviation of what is drawn is 0.88 `stddev`.
    """

    def __call__(self, shape: Shape, rng: np.random.Generator) -> Weights:
        """Draw from the truncated normal distribution."""
        return _truncated_normal(self._generator(rng), shape, self.mean, self.stddev)


class VarianceScaling(Initializer):
    """A variance of `scale` divided by how many numbers meet in a weight's input or output.

    Parameters
    ----------
    scale : float
        Positive.
    mode : str
        ``"fan_in"``, ``"fan_out"`` or ``"fan_avg"``, the mean of the two: see `compute_fans`.
    distribution : str
        ``"truncated_normal"``, ``"untruncated_normal"`` or ``"uniform"``; all three reach the
        same variance.
    seed : int, optional

    Raises
    ------
    ValueError
        For a scale that is not positive, another mode or another distribution.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        if not scale > 0:
            raise ValueError(f"Expected scale to be positive. Received: {scale!r}")
        _check_choice("mode", mode, ("fan_in", "fan_out", "fan_avg"))
        distributions = ("truncated_normal", "untruncated_normal", "uniform")
        _check_choice("distribution", distribution, distributions)
        self.scale = scale
        self.mode = mode
        self.distribution = distribution
        self.seed = seed

    def __call__(self, shape: Shape, rng: np.random.Generator) -> Weights:
        """Draw weights whose variance fits the shape."""
        rng = self._generator(rng)
        fan_in, fan_out = compute_fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return _uniform(rng, shape, -limit, limit)
        if self.distribution == "untruncated_normal":
            return _normal(rng, shape, 0.0, math.sqrt(variance))
        return _truncated_normal(rng, shape, 0.0, math.sqrt(variance) / TRUNCATED_STDDEV)


class GlorotUniform(VarianceScaling):
    """Uniform, variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, AISTATS, section 4.2.1)."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1.0, "fan_avg", "uniform", seed)


class GlorotNormal(VarianceScaling):
    """Truncated normal, variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1.0, "fan_avg", "truncated_normal", seed)


class HeUniform(VarianceScaling):
    """Uniform, variance 2 / fan_in (He et al. 2015, arXiv:1502.01852, section 2.2)."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(2.0, "fan_in", "uniform", seed)


class HeNormal(VarianceScaling):
    """Truncated normal, variance 2 / fan_in (He et al. 2015)."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(2.0, "fan_in", "truncated_normal", seed)


class LecunUniform(VarianceScaling):
    """Uniform, variance 1 / fan_in (LeCun et al. 1998, "Efficient BackProp", section 4.6)."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1.0, "fan_in", "uniform", seed)


class LecunNormal(VarianceScaling):
    """Truncated normal, variance 1 / fan_in (LeCun et al. 1998)."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1.0, "fan_in", "truncated_normal", seed)


class Orthogonal(Initializer):
    """Orthonormal columns, or rows where there are fewer of them, times `gain`.

    All axes but the last are taken together as rows (Saxe et al. 2013, arXiv:1312.6120).
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        self.gain = gain
        self.seed = seed

    def __call__(self, shape: Shape, rng: np.random.Generator) -> Weights:
        """Draw an orthogonal matrix, uniformly among all of them."""
        if len(shape) < 2:
            raise ValueError(
                f"Orthogonal: Expected a shape of at least 2 dimensions. Received: {shape}"
            )
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = (max(rows, columns), min(rows, columns))
        q, r = np.linalg.qr(self._generator(rng).standard_normal(tall))
        q *= np.where(np.diag(r) < 0, -1.0, 1.0)  # without it QR's own choice of signs is kept
        matrix = q if rows >= columns else q.T
        return np.ascontiguousarray(self.gain * matrix.reshape(shape), np.float32)


def compute_fans(shape: Shape) -> tuple[int, int]:
    """Count the inputs and the outputs that one unit of a weight array connects.

    The last two axes are channels in and channels out, those before them the receptive field.

    Examples
    --------
    >>> compute_fans((784, 10)), compute_fans((3, 3, 32, 64))
    ((784, 10), (288, 576))
    """
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def get(identifier: Any) -> Callable[[Shape, np.random.Generator], Weights] | None:
    """Find an initializer.

    Parameters
    ----------
    identifier : str, dict, class, callable or None
        A name in either of Keras' spellings (``"glorot_uniform"``, ``"GlorotUniform"``), a dict
        with ``class_name`` and ``config``, a subclass of `Initializer`, or something that is
        called as ``(shape, rng)``, which comes back as it is, as ``None`` does.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> get("he_normal")
    HeNormal(seed=None)
    >>> get({"class_name": "Constant", "config": {"value": 2.0}})
    Constant(value=2.0)
    """
    if isinstance(identifier, str):
        if identifier in _BY_NAME:
            return _BY_NAME[identifier]()
    elif isinstance(identifier, Mapping):
        name = identifier.get("class_name")
        if name in _BY_NAME:
            return _BY_NAME[name].from_config(identifier.get("config") or {})
    elif isinstance(identifier, type) and issubclass(identifier, Initializer):
        return identifier()
    elif identifier is None or callable(identifier):
        found: Callable[..., Weights] | None = identifier
        return found
    names = ", ".join(sorted(map(_snake_case, (cls.__name__ for cls in _CLASSES))))
    raise ValueError(f"Expected an initializer, one of: {names}. Received: {identifier!r}")


def serialize(initializer: Initializer) -> dict[str, Any]:
    """Describe an initializer by a dict from which ``get`` makes another one.

    Examples
    --------
    >>> serialize(Orthogonal(seed=3))
    {'class_name': 'Orthogonal', 'config': {'gain': 1.0, 'seed': 3}}
    """
    return {"class_name": type(initializer).__name__, "config": initializer.get_config()}


def _uniform(rng: np.random.Generator, shape: Shape, low: float, high: float) -> Weights:
    values = rng.random(shape, np.float32)
    values *= np.float32(high - low)
    values += np.float32(low)
    return values


def _normal(rng: np.random.Generator, shape: Shape, mean: float, stddev: float) -> Weights:
    values = rng.standard_normal(shape, np.float32)
    values *= np.float32(stddev)
    values += np.float32(mean)
    return values


def _truncated_normal(
    rng: np.random.Generator, shape: Shape, mean: float, stddev: float
) -> Weights:
    values = rng.standard_normal(math.prod(shape), np.float32)
    (outside,) = np.nonzero(np.abs(values) > 2)
    while outside.size:
        values[outside] = rng.standard_normal(outside.size, np.float32)
        outside = outside[np.abs(values[outside]) > 2]
    values *= np.float32(stddev)
    values += np.float32(mean)
    return values.reshape(shape)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"Expected {name} to be one of {choices}. Received: {value!r}")


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


_CLASSES: tuple[type[Initializer], ...] = (
    Zeros,
    Ones,
    Constant,
    Identity,
    RandomUniform,
    RandomNormal,
    TruncatedNormal,
    VarianceScaling,
    GlorotUniform,
    GlorotNormal,
    HeUniform,
    HeNormal,
    LecunUniform,
    LecunNormal,
    Orthogonal,
)
_BY_NAME: dict[Any, type[Initializer]] = {
    **{cls.__name__: cls for cls in _CLASSES},
    **{_snake_case(cls.__name__): cls for cls in _CLASSES},
    "zero": Zeros,
    "one": Ones,
    "normal": RandomNormal,
    "uniform": RandomUniform,
    "OrthogonalInitializer": Orthogonal,
    "IdentityInitializer": Identity,
}
