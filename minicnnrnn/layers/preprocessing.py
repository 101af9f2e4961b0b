"""Rescaling, Normalization, and random flips and translations of images."""

import math
from typing import Any

import numpy as np

from minicnnrnn import data as batches
from minicnnrnn.arrays import has_arrays
from minicnnrnn.kernels.codes import CONSTANT, NEAREST, REFLECT, WRAP
from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.layers.noise import RandomLayer
from minicnnrnn.parameters import WeightView
from minicnnrnn.recorded import assign, needs_host
from minicnnrnn.shapes import is_integer, is_real

FILL_MODES = {"reflect": REFLECT, "wrap": WRAP, "constant": CONSTANT, "nearest": NEAREST}
SMALLEST = 1e-7  # a deviation below it counts as this much, as in Keras


class _Affine(Layer):
    """``(x - center) * scale + shift`` with numbers that are the same for all samples."""

    supports_masking = True
    _filled: tuple[int, ...] | None = None

    def _numbers(self, rank: int) -> tuple[Any, Any, Any]:
        """Center, scale and shift, which fit the last axes of the input."""
        raise TypeError(
            f"layer {self.name!r}: Expected a layer that can compute. Received: {self!r}"
        )

    def _lanes(self, shape: tuple[int, ...]) -> tuple[Any, Any, Any, Any]:
        """The numbers for the kernel, one for each element of the last axes, and its workspace."""
        numbers = self._numbers(len(shape))
        rank = max(number.ndim for number in numbers)
        last = shape[len(shape) - rank :]
        C = math.prod(last)
        size = self.kernels.affine_workspace(0, C)
        memory, stale = self.workspace(size + 3 * C)
        parts = [memory[size + i * C : size + (i + 1) * C] for i in range(3)]
        if stale or self._filled != last:
            needs_host()
            for part, number in zip(parts, numbers, strict=True):
                numbers_of_lanes = np.broadcast_to(number, last).reshape(-1)
                part[...] = numbers_of_lanes if C > 1 else float(numbers_of_lanes[0])
            assert self.context is not None
            self._filled = last
            self.context.packings += 1
        return parts[0], parts[1], parts[2], memory

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """One number in, one number out."""
        center, scale, shift, ws = self._lanes(x.shape)
        y = self.buffer("y", *x.shape)
        rows = (-1, scale.size)
        self.kernels.affine_forward(y.reshape(rows), x.reshape(rows), center, scale, shift, ws)
        self._saved = scale, ws
        return y, mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """The same factors."""
        if not input_gradient:
            return None
        scale, ws = self._saved
        dx, none, rows = self.gradient("dx", *dy.shape), self.buffer("none", 0), (-1, scale.size)
        self.kernels.affine_forward(dx.reshape(rows), dy.reshape(rows), none, scale, none, ws)
        return dx


class Rescaling(_Affine):
    """Multiply the input by a number and add another: ``x * scale + offset``.

    Parameters
    ----------
    scale, offset : float or array
        An array has to fit the last axes of the input, such as (channels,).

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.Rescaling(2, offset=-1)(np.array([[0, 1]], np.uint8))
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = finite_array(self, "scale", scale)
        self.offset = finite_array(self, "offset", offset)

    def check_input(self, input_shape: Shape) -> None:
        """Scale and offset have to fit the last axes, and these have to be known."""
        rank = max(self.scale.ndim, self.offset.ndim)
        last = input_shape[len(input_shape) - rank :]
        if (
            rank >= len(input_shape)
            or None in last
            or not all(fits(number.shape, last) for number in (self.scale, self.offset))
        ):
            shapes = f"{self.scale.shape} and {self.offset.shape}"
            self.fail(
                f"inputs whose last axes fit scale and offset of shapes {shapes}", input_shape
            )

    def _numbers(self, rank: int) -> tuple[Any, Any, Any]:
        return np.zeros(()), self.scale, self.offset


class Normalization(_Affine):
    """Shift and scale features to mean 0 and variance 1, by numbers that are known beforehand.

    Mean and variance are given, or found by ``adapt`` before training.

    Parameters
    ----------
    axis : int, tuple of ints, or None
        Axes whose elements have a mean and a variance each; ``None`` for one of all.
    mean, variance : float or array, optional
        Both or none of them.
    invert : bool
        Turn what is normalized back into what it was.

    Notes
    -----
    Weights, unless mean and variance are given: mean, variance, and a count, which is 0, as in
    Keras. They are never trained.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer = layers.Normalization()
    >>> layer.adapt(np.array([[0.0, 7.0], [2.0, 9.0], [0.0, 7.0], [2.0, 9.0]]))
    >>> layer(np.array([[0.0, 9.0]]))
    array([[-1.,  1.]], dtype=float32)
    """

    mean, variance = WeightView(), WeightView()

    def __init__(
        self,
        axis: Any = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        given = () if axis is None else tuple(axis) if isinstance(axis, tuple | list) else (axis,)
        if not all(is_integer(a, -(2**31)) for a in given):
            self.fail("axis to be an integer, a tuple of integers, or None", repr(axis))
        self.axis, self.invert = tuple(int(a) for a in given), bool(invert)
        if (mean is None) != (variance is None):
            self.fail("mean and variance together", f"mean={mean!r}, variance={variance!r}")
        self._given: Any = None
        if mean is not None:
            self._given = finite_array(self, "mean", mean), finite_array(self, "variance", variance)
            if self._given[0].shape != self._given[1].shape or (self._given[1] < 0).any():
                self.fail("mean and variance of one shape, the latter not negative", repr(variance))
            if self._given[0].ndim > len(self.axis):
                self.fail(f"mean with no more axes than axis={self.axis}", f"{np.shape(mean)}")

    def _kept(self, rank: int) -> tuple[int, ...]:
        """The axes whose elements are apart, counted from the front."""
        kept = sorted({a if a >= 0 else a + rank for a in self.axis})
        if kept and not 1 <= kept[0] <= kept[-1] < rank:
            advice = "axis=None for samples that are numbers"
            self.fail(f"axes without that of the samples ({advice})", f"axis={self.axis}")
        return tuple(kept)

    def check_input(self, input_shape: Shape) -> None:
        """Known sizes along the axes, those which it was built for."""
        sizes = tuple(input_shape[a] for a in self._kept(len(input_shape)))
        if None in sizes:
            self.fail(f"inputs of known size along axis={self.axis}", input_shape)
        if self.built and sizes != self._built_for:
            self.fail(f"inputs of size {self._built_for} along axis={self.axis}", input_shape)
        if self._given is not None and not fits(self._given[0].shape, sizes):
            self.fail(f"inputs that fit a mean of shape {self._given[0].shape}", input_shape)

    def build(self, input_shape: Shape) -> None:
        """Declare mean, variance and count, unless they are given."""
        sizes = tuple(input_shape[a] or 0 for a in self._kept(len(input_shape)))
        self._built_for = sizes
        if self._given is None:
            self.add_weight("mean", sizes, self.initializer("zeros"), state=True)
            self.add_weight("variance", sizes, self.initializer("ones"), state=True)
            self.add_weight("count", (), self.initializer("zeros"), state=True)

    def adapt(self, data: Any) -> None:
        """Find mean and variance of some data, and keep them.

        Parameters
        ----------
        data : array-like, or iterable of batches
            A batch is ``x``, ``(x, y)`` or ``(x, y, sample_weight)``, of which x counts.
        """
        if self._given is not None:
            self.fail("a layer without mean and variance of its own", "adapt()")
        if isinstance(data, list | tuple) and has_arrays(data):
            data = iter(data)
        with np.errstate(all="ignore"):
            found = [number.astype(np.float32) for number in self._measure(data)]
        if not all(np.isfinite(number).all() for number in found):
            self.fail("finite data", "NaN or infinity")
        self.allocate()
        assert self.context is not None
        with self.context.lock:
            for weight, number in zip(self.weights, found, strict=False):
                weight.value[...] = number
            self.context.parameters.changed()

    def _measure(self, data: Any) -> tuple[Any, Any]:
        """Mean and variance of all batches, joined as they come."""
        count, mean, squares = 0, np.zeros(()), np.zeros(())
        for batch in batches.source(data, batch_size=4096).epoch():
            x = np.asarray(batch.x, np.float64)
            if x.ndim == 1 and self.axis:
                x = x[:, None]
            self.build_once((None, *x.shape[1:]))
            others = tuple(a for a in range(x.ndim) if a not in self._kept(x.ndim))
            n = math.prod(x.shape[a] for a in others)
            away = x.mean(others) - mean
            squares = squares + x.var(others) * n + away**2 * (count * n / (count + n))
            mean = mean + away * (n / (count + n))
            count += n
        return mean, squares / count

    def _numbers(self, rank: int) -> tuple[Any, Any, Any]:
        mean, variance = self._given or [weight.value for weight in self.weights[:2]]
        kept = self._kept(rank)
        sizes = dict(zip(reversed(kept), reversed(mean.shape)))
        first = kept[0] if mean.ndim else rank
        shape = tuple(sizes.get(axis, 1) for axis in range(first, rank))
        mean = mean.reshape(shape)
        deviation = np.maximum(np.sqrt(variance.reshape(shape), dtype=np.float64), SMALLEST)
        if self.invert:
            return np.zeros(()), deviation, mean
        return mean, 1 / deviation, np.zeros(())


def finite_array(layer: Layer, name: str, value: Any) -> Any:
    """A number, or an array of numbers, as float32."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        layer.fail(f"{name} to be a finite number, or an array of them", repr(value))
    return array.astype(np.float32)


def fits(shape: tuple[int, ...], last: Shape) -> bool:
    """Whether an array of this shape can be repeated to fill these axes."""
    trailing = last[len(last) - len(shape) :]
    return len(shape) <= len(last) and all(n in (1, size) for n, size in zip(shape, trailing))


class _Augmentation(RandomLayer):
    """What the random layers for images share: they are active in training only."""

    supports_masking = False

    def __init__(self, seed: int | None, data_format: str | None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.check_data_format(data_format)

    def check_input(self, input_shape: Shape) -> None:
        """Images."""
        if len(input_shape) != 4:
            self.fail("images (batch, height, width, channels)", input_shape)

    def _apply(self, y: Any, x: Any) -> None:
        raise TypeError(
            f"layer {self.name!r}: Expected a layer that can compute. Received: {self!r}"
        )

    def _apply_backward(self, dx: Any, dy: Any) -> None:
        raise TypeError(
            f"layer {self.name!r}: Expected a layer that can compute. Received: {self!r}"
        )

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Change the images in training; pass them through otherwise."""
        self._saved = training
        if not training:
            return x, self.pass_mask(mask)
        y = self.buffer("y", *x.shape)
        self._apply(y, x)
        return y, self.pass_mask(mask)

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """The same numbers are drawn again; the gradient goes where the pixels came from."""
        if not input_gradient or not self._saved:
            return dy if input_gradient else None
        dx = self.gradient("dx", *dy.shape)
        self._apply_backward(dx, dy)
        return dx


class RandomFlip(_Augmentation):
    """In training, mirror every other image, by chance.

    Parameters
    ----------
    mode : {"horizontal_and_vertical", "horizontal", "vertical"}
        Left and right are exchanged, top and bottom, or both at once, as in Keras 3.
    seed : int, optional
        For a stream of its own; left out, the model's seed decides.
    data_format : {None, "channels_last"}

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer, image = layers.RandomFlip("horizontal", seed=0), np.array([[[[1.0], [2.0]]]])
    >>> layer(image, training=False).ravel()
    array([1., 2.], dtype=float32)
    >>> sorted(layer(image, training=True).ravel().tolist())
    [1.0, 2.0]
    """

    def __init__(
        self,
        mode: str = "horizontal_and_vertical",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        modes = ("horizontal", "vertical", "horizontal_and_vertical")
        if mode not in modes:
            self.fail(f"mode to be one of {modes}", repr(mode))
        self.mode = mode

    def _apply(self, y: Any, x: Any) -> None:
        horizontal, vertical = int("horizontal" in self.mode), int("vertical" in self.mode)
        self.kernels.flip_forward(y, x, *self.random(), horizontal, vertical)

    def _apply_backward(self, dx: Any, dy: Any) -> None:
        self._apply(dx, dy)  # a flip undoes itself


class RandomTranslation(_Augmentation):
    """In training, move every image by a random part of its height and width.

    Parameters
    ----------
    height_factor, width_factor : float or tuple (low, high)
        Bounds of the move as shares of the image, from -1 to 1, positive ones down and to the
        right; a number f stands for (-f, f).
    fill_mode : {"reflect", "wrap", "constant", "nearest"}
        What appears at the other side.
    interpolation : {"bilinear", "nearest"}
        How pixels are made of those between which they fall.
    seed : int, optional
        For a stream of its own; left out, the model's seed decides.
    fill_value : float
        What appears with fill_mode "constant".
    data_format : {None, "channels_last"}

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer = layers.RandomTranslation(0, (0.5, 0.5), fill_mode="constant", fill_value=9)
    >>> layer(np.array([[[[1.0], [2.0], [3.0], [4.0]]]]), training=True).ravel()
    array([9., 9., 1., 2.], dtype=float32)
    """

    def __init__(
        self,
        height_factor: Any,
        width_factor: Any,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        if fill_mode not in FILL_MODES:
            self.fail(f"fill_mode to be one of {list(FILL_MODES)}", repr(fill_mode))
        if interpolation not in ("nearest", "bilinear"):
            self.fail("interpolation to be 'nearest' or 'bilinear'", repr(interpolation))
        if not is_real(fill_value, -math.inf, math.inf) or math.isinf(fill_value):
            self.fail("fill_value to be a finite number", repr(fill_value))
        self.fill_mode, self.interpolation = fill_mode, interpolation
        self.fill_value = float(fill_value)
        self.height_factor = self._bounds("height_factor", height_factor)
        self.width_factor = self._bounds("width_factor", width_factor)

    def _bounds(self, name: str, given: Any) -> tuple[float, float]:
        pair = tuple(given) if isinstance(given, tuple | list) else (given,)
        if not 1 <= len(pair) <= 2 or not all(is_real(number, -1, 1) for number in pair):
            self.fail(f"{name} to be a number from -1 to 1, or two of them", repr(given))
        if not isinstance(given, tuple | list):
            pair = (-abs(given), abs(given))
        return float(min(pair)), float(max(pair))

    def _translation(self, shape: tuple[int, ...]) -> Any:
        factors = self.buffer("factors", 4)
        assign(factors, (*self.height_factor, *self.width_factor))
        ws = self.buffer("workspace", max(1, self.kernels.translation_workspace(*shape[1:])))
        return factors, (FILL_MODES[self.fill_mode], int(self.interpolation == "bilinear"), ws)

    def _apply(self, y: Any, x: Any) -> None:
        factors, rest = self._translation(x.shape)
        self.kernels.translation_forward(y, x, *self.random(), factors, self.fill_value, *rest)

    def _apply_backward(self, dx: Any, dy: Any) -> None:
        factors, rest = self._translation(dy.shape)
        self.kernels.translation_backward_input(dx, dy, *self.random(), factors, *rest)
