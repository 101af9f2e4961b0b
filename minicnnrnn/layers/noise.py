"""Layers that do something in training only: dropout and noise; and a penalty on activity."""

import math
from typing import Any

import numpy as np

from minicnnrnn import regularizers, shapes
from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.recorded import assign


class RandomLayer(Layer):
    """A layer that draws random numbers in training, and passes its input through otherwise.

    Parameters
    ----------
    seed : int, optional
        For a stream of its own; left out, the model's seed decides.
    """

    supports_masking = True

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if seed is not None and not shapes.is_integer(seed, 0):
            self.fail("seed to be a non-negative integer or None", repr(seed))
        self.seed = seed

    def random(self) -> tuple[Any, int]:
        """What a random kernel wants: the state to draw from, and this layer's stream.

        The state changes from train step to train step, and not between ``forward`` and
        ``backward``.
        """
        assert self.context is not None
        if self.seed is None:
            return self.context.random_state, self.stream()
        state = self.buffer("state", 2, dtype=np.int64)
        assign(state[:1], self.seed)
        assign(state[1:], self.context.random_state[1:])
        return state, 0

    def share(self, rate: Any, below_one: bool = False) -> float:
        """A rate as a float; an error names the layer."""
        if not shapes.is_real(rate, 0, 1) or (below_one and rate == 1):
            end = "below 1" if below_one else "to 1"
            self.fail(f"rate to be a number from 0 {end}", repr(rate))
        return float(rate)


class Dropout(RandomLayer):
    """In training, set a share of the elements to zero and scale up the others.

    Parameters
    ----------
    rate : float
        The share, from 0 to 1.
    noise_shape : tuple, optional
        As long as the input's shape: ``None`` or the input's size for an axis along which
        elements are dropped one by one, 1 for an axis along which they are dropped together.
    seed : int, optional
        For a stream of its own; left out, the model's seed decides.

    Notes
    -----
    Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.Dropout(0.5)(np.ones((1, 3)))
    array([[1., 1., 1.]], dtype=float32)
    """

    def __init__(
        self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, **kwargs)
        self.rate = self.share(rate)
        self.noise_shape = None if noise_shape is None else self._noise_shape(noise_shape)

    def _noise_shape(self, given: Any) -> tuple[int | None, ...]:
        """Check and keep what the constructor was given."""
        if not isinstance(given, tuple | list) or not all(
            n is None or shapes.is_integer(n, 1) for n in given
        ):
            self.fail("noise_shape to be a tuple of positive integers and None", repr(given))
        return tuple(None if n is None else int(n) for n in given)

    def check_input(self, input_shape: Shape) -> None:
        """The noise has to fit."""
        noise = self.noise_shape
        if noise is None:
            return
        fits = len(noise) == len(input_shape) and all(
            m in (None, 1) or n is None or m == n for m, n in zip(noise, input_shape)
        )
        if not fits:
            self.fail(f"inputs that noise_shape={noise} can be stretched to", input_shape)

    def shared(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the noise for inputs of this shape."""
        if self.noise_shape is None:
            return shape
        return tuple(n if m is None else m for m, n in zip(self.noise_shape, shape))

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Drop in training; pass through otherwise."""
        self._dropped = training and self.rate > 0
        if not self._dropped:
            return x, mask
        noise = self.shared(x.shape)
        self._saved = None
        if noise != x.shape:
            factors, absent = self.buffer("factors", math.prod(noise)), self.buffer("absent", 0)
            self.kernels.dropout_forward(factors, absent, *self.random(), self.rate)
            x_axes, w_axes = shapes.merge_axes(x.shape, noise, 5)
            self._saved = x_axes, factors.reshape(w_axes)
        return self._drop("y", x), mask

    def _drop(self, name: str, x: Any) -> Any:
        y = self.buffer(name, *x.shape)
        if self._saved is None:
            self.kernels.dropout_forward(y.reshape(-1), x.reshape(-1), *self.random(), self.rate)
        else:
            axes, factors = self._saved
            self.kernels.scale_forward(y.reshape(axes), x.reshape(axes), factors)
        return y

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Drop the same elements: the kernel draws the same numbers again."""
        if not input_gradient or not self._dropped:
            return dy if input_gradient else None
        return self._drop("dx", dy)


class SpatialDropout(Dropout):
    """In training, set whole channels of a sample to zero and scale up the others.

    Parameters
    ----------
    rate : float
        The share of channels, from 0 to 1.
    seed : int, optional
        For a stream of its own; left out, the model's seed decides.

    Notes
    -----
    Neighbouring pixels are much alike, so that dropping some of them takes little away. Tompson
    et al. 2015, "Efficient Object Localization Using Convolutional Networks", section 3.2.
    """

    rank = 0

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, None, seed, **kwargs)

    def check_input(self, input_shape: Shape) -> None:
        """The right number of axes."""
        if len(input_shape) != self.rank + 2:
            self.fail(f"inputs with {self.rank + 2} axes, batch included", input_shape)

    def shared(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """One number a channel of a sample."""
        return (shape[0], *(1,) * self.rank, shape[-1])


class SpatialDropout1D(SpatialDropout):
    """Drop whole channels of a sequence (batch, steps, channels).

    Parameters and behaviour are those of ``SpatialDropout``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.SpatialDropout1D(0.5, seed=2)(np.ones((1, 2, 3)), training=True)
    array([[[0., 0., 2.],
            [0., 0., 2.]]], dtype=float32)
    """

    rank = 1


class SpatialDropout2D(SpatialDropout):
    """Drop whole channels of an image (batch, height, width, channels).

    Parameters and behaviour are those of ``SpatialDropout``; `data_format` is "channels_last".

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.SpatialDropout2D(0.5)(np.ones((1, 2, 3, 4)), training=True).std(axis=(1, 2))
    array([[0., 0., 0., 0.]], dtype=float32)
    """

    rank = 2

    def __init__(
        self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(rate, seed, **kwargs)
        self.check_data_format(data_format)


class SpatialDropout3D(SpatialDropout):
    """Drop whole channels of a volume (batch, depth, height, width, channels).

    Parameters and behaviour are those of ``SpatialDropout``; `data_format` is "channels_last".

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.SpatialDropout3D(0.5)(np.ones((1, 2, 3, 4, 5)), training=True).std(axis=(1, 2, 3))
    array([[0., 0., 0., 0., 0.]], dtype=float32)
    """

    rank = 3

    def __init__(
        self, rate: float, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(rate, seed, **kwargs)
        self.check_data_format(data_format)


class GaussianNoise(RandomLayer):
    """In training, add Gaussian noise to every element.

    Parameters
    ----------
    stddev : float
        Standard deviation of the noise, from 0 to 1.
    seed : int, optional
        For a stream of its own; left out, the model's seed decides.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.GaussianNoise(0.1, seed=0)(np.ones((1, 3)), training=True).round(3)
    array([[1.005, 0.865, 0.922]], dtype=float32)
    """

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        if not shapes.is_real(stddev, 0, 1):
            self.fail("stddev to be a number from 0 to 1", repr(stddev))
        self.stddev = float(stddev)

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Add noise in training; pass through otherwise."""
        if not training or self.stddev == 0:
            return x, mask
        y = self.buffer("y", *x.shape)
        self.kernels.gaussian_forward(y.reshape(-1), x.reshape(-1), *self.random(), self.stddev, 0)
        return y, mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Pass through: what is added has no part in the gradient."""
        return dy if input_gradient else None


class GaussianDropout(RandomLayer):
    """In training, multiply every element by Gaussian noise around one.

    Parameters
    ----------
    rate : float
        The noise has the variance ``rate / (1 - rate)`` that dropout with this rate has.
    seed : int, optional
        For a stream of its own; left out, the model's seed decides.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.GaussianDropout(0.2, seed=0)(np.ones((1, 3)), training=True).round(3)
    array([[1.024, 0.323, 0.611]], dtype=float32)
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.rate = self.share(rate, below_one=True)

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Multiply in training; pass through otherwise."""
        self._noisy = training and self.rate > 0
        return (self._multiply("y", x) if self._noisy else x), mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Multiply by the same noise: the kernel draws the same numbers again."""
        if not input_gradient or not self._noisy:
            return dy if input_gradient else None
        return self._multiply("dx", dy)

    def _multiply(self, name: str, x: Any) -> Any:
        y, deviation = self.buffer(name, *x.shape), math.sqrt(self.rate / (1 - self.rate))
        self.kernels.gaussian_forward(y.reshape(-1), x.reshape(-1), *self.random(), deviation, 1)
        return y


class ActivityRegularization(Layer):
    """Pass through, and add a penalty on the size of what passes to the loss.

    Parameters
    ----------
    l1, l2 : float
        Factors of the sum of absolute values and of the sum of squares; as every
        `activity_regularizer`, the penalty is divided by the size of the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import Sequential, layers
    >>> model = Sequential([layers.ActivityRegularization(l1=0.1)])
    >>> model.compile("sgd", "mse")
    >>> round(model.evaluate(np.ones((4, 3)), np.ones((4, 3))), 6)
    0.3
    """

    supports_masking = True

    def __init__(self, l1: float = 0.0, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        try:
            self.activity_regularizer = regularizers.L1L2(l1, l2)
        except ValueError as error:
            raise ValueError(f"layer {self.name!r}: {error}") from None
        self.l1, self.l2 = self.activity_regularizer.l1, self.activity_regularizer.l2

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Pass through."""
        return x, mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Pass through."""
        return dy if input_gradient else None
