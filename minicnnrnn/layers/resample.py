"""Layers that magnify, pad and crop, in one to three dimensions."""

from typing import Any

from minicnnrnn import shapes
from minicnnrnn.layers.base import Layer, Shape

AXES = ("steps", "height, width", "depth, height, width")
Pairs = tuple[tuple[int, int], ...]


class Spatial(Layer):
    """A layer that changes the spatial axes of (batch, ..., channels) and nothing else."""

    rank = 0

    def check_input(self, input_shape: Shape) -> None:
        """The right number of axes."""
        if len(input_shape) != self.rank + 2:
            self.fail(f"inputs (batch, {AXES[self.rank - 1]}, channels)", input_shape)

    def lengths(self, spatial: Shape) -> Shape:
        """Sizes of the output's spatial axes."""
        raise TypeError(
            f"layer {self.name!r}: Expected a layer that can compute. Received: {self!r}"
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The same batch and channels; other spatial axes."""
        return (input_shape[0], *self.lengths(input_shape[1:-1]), input_shape[-1])

    def output(self, x: Any) -> Any:
        """Memory for the output."""
        shape: Any = self.compute_output_shape(x.shape)
        return self.buffer("y", *shape)

    def five(self, array: Any) -> Any:
        """The array with ones for the spatial axes that it does not have."""
        return array.reshape(len(array), *(1,) * (3 - self.rank), *array.shape[1:])


class UpSampling(Spatial):
    """Magnify: what all upsampling layers share.

    Parameters
    ----------
    size : int or tuple of ints
        How often each element is repeated along each spatial axis.
    """

    def __init__(self, size: Any = 2, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check_data_format(data_format)
        self.size = shapes.to_tuple(size, self.rank, "size", self.name)

    def lengths(self, spatial: Shape) -> Shape:
        """Every axis times its size."""
        return tuple(None if n is None else n * s for n, s in zip(spatial, self.size))

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Repeat every element."""
        y = self.output(x)
        scale = (*(1,) * (3 - self.rank), *self.size)
        self.kernels.upsample_forward(self.five(y), self.five(x), *scale)
        self._saved = x.shape
        return y, self.pass_mask(mask)

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Add up the repetitions."""
        if not input_gradient:
            return None
        dx = self.gradient("dx", *self._saved)
        scale = (*(1,) * (3 - self.rank), *self.size)
        self.kernels.upsample_backward_input(self.five(dx), self.five(dy), *scale)
        return dx


class UpSampling1D(UpSampling):
    """Repeat every step: (batch, steps, channels) to (batch, size * steps, channels).

    Parameters
    ----------
    size : int

    Examples
    --------
    >>> from minicnnrnn import layers
    >>> layers.UpSampling1D(2)([[[1.0], [5.0]]])[0, :, 0]
    array([1., 1., 5., 5.], dtype=float32)
    """

    rank = 1

    def __init__(self, size: int = 2, **kwargs: Any) -> None:
        super().__init__(size, **kwargs)


class UpSampling2D(UpSampling):
    """Magnify images (batch, height, width, channels).

    Parameters
    ----------
    size : int or tuple of 2 ints
    data_format : {None, "channels_last"}
    interpolation : {"nearest", "bilinear"}
        "bilinear" with half-pixel centres, as in Keras.

    Examples
    --------
    >>> from minicnnrnn import layers
    >>> layers.UpSampling2D((1, 2), interpolation="bilinear")([[[[0.0], [4.0]]]])[0, 0, :, 0]
    array([0., 1., 3., 4.], dtype=float32)
    """

    rank = 2

    def __init__(
        self,
        size: Any = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ) -> None:
        super().__init__(size, data_format, **kwargs)
        known = interpolation.lower() if isinstance(interpolation, str) else interpolation
        if known not in ("nearest", "bilinear"):
            self.fail("interpolation 'nearest' or 'bilinear'", repr(interpolation))
        self.interpolation = known

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Repeat every pixel, or interpolate between them."""
        if self.interpolation == "nearest":
            return super().forward(x, mask, training)
        y = self.output(x)
        self.kernels.bilinear_forward(y, x, *self.size)
        self._saved = x.shape
        return y, self.pass_mask(mask)

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Every pixel gets back what it gave."""
        if self.interpolation == "nearest" or not input_gradient:
            return super().backward(dy, input_gradient)
        dx = self.gradient("dx", *self._saved)
        self.kernels.bilinear_backward_input(dx, dy, *self.size)
        return dx


class UpSampling3D(UpSampling):
    """Repeat every voxel of (batch, depth, height, width, channels).

    Parameters
    ----------
    size : int or tuple of 3 ints
    data_format : {None, "channels_last"}

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.UpSampling3D((1, 2, 3))(np.zeros((5, 2, 2, 2, 4))).shape
    (5, 2, 4, 6, 4)
    """

    rank = 3

    def __init__(self, size: Any = (2, 2, 2), data_format: str | None = None, **kw: Any) -> None:
        super().__init__(size, data_format, **kw)


class Shifted(Spatial):
    """Padding and cropping: one kernel, and the other way round on the way back."""

    def pairs(self, value: Any, name: str) -> Pairs:
        """(before, after) for each spatial axis, from any of Keras' forms of `value`."""
        given = value
        if self.rank == 1:
            given = (value,)
        elif shapes.is_integer(value, 0):
            given = (value,) * self.rank
        if isinstance(given, tuple | list) and len(given) == self.rank:
            entries = [(n, n) if shapes.is_integer(n, 0) else n for n in given]
            if all(
                isinstance(entry, tuple | list)
                and len(entry) == 2
                and all(shapes.is_integer(n, 0) for n in entry)
                for entry in entries
            ):
                return tuple((int(before), int(after)) for before, after in entries)
        axis = "a pair (before, after)" if self.rank == 1 else f"{self.rank} of them or of pairs"
        self.fail(f"{name} to be a non-negative integer, or {axis}", repr(value))
        raise AssertionError

    def added(self) -> Pairs:
        """(before, after) that each spatial axis grows by; negative where it shrinks."""
        raise TypeError(
            f"layer {self.name!r}: Expected a layer that can compute. Received: {self!r}"
        )

    def lengths(self, spatial: Shape) -> Shape:
        """Every axis and what it grows by."""
        return tuple(None if n is None else n + sum(p) for n, p in zip(spatial, self.added()))

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Copy the part that remains, and fill the rest with zeros."""
        y = self.output(x)
        self._shift(y, x, 1)
        self._saved = x.shape
        return y, self.pass_mask(mask)

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """The same, the other way round."""
        if not input_gradient:
            return None
        dx = self.gradient("dx", *self._saved)
        self._shift(dx, dy, -1)
        return dx

    def _shift(self, y: Any, x: Any, sign: int) -> None:
        before = (*(0,) * (3 - self.rank), *(sign * p[0] for p in self.added()))
        self.kernels.pad_forward(self.five(y), self.five(x), *before)


class ZeroPadding(Shifted):
    """Put zeros around: what all padding layers share.

    Parameters
    ----------
    padding : int, tuple
        Zeros before and after: one number for all, or one entry a spatial axis, which is a number
        or a pair (before, after). With one spatial axis: a number, or a pair.
    data_format : {None, "channels_last"}
    """

    def __init__(self, padding: Any = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check_data_format(data_format)
        self.padding = self.pairs(padding, "padding")

    def added(self) -> Pairs:
        """The padding."""
        return self.padding


class ZeroPadding1D(ZeroPadding):
    """Put steps of zeros before and after a sequence (batch, steps, channels).

    Parameters and behaviour are those of ``ZeroPadding``.

    Examples
    --------
    >>> from minicnnrnn import layers
    >>> layers.ZeroPadding1D((2, 1))([[[3.0], [4.0]]])[0, :, 0]
    array([0., 0., 3., 4., 0.], dtype=float32)
    """

    rank = 1


class ZeroPadding2D(ZeroPadding):
    """Put zeros around images (batch, height, width, channels).

    Parameters and behaviour are those of ``ZeroPadding``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.ZeroPadding2D(((1, 2), (3, 4)))(np.zeros((1, 5, 5, 2))).shape
    (1, 8, 12, 2)
    """

    rank = 2


class ZeroPadding3D(ZeroPadding):
    """Put zeros around volumes (batch, depth, height, width, channels).

    Parameters and behaviour are those of ``ZeroPadding``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.ZeroPadding3D((0, 1, (2, 0)))(np.zeros((1, 5, 5, 5, 2))).shape
    (1, 5, 7, 7, 2)
    """

    rank = 3


class Cropping(Shifted):
    """Cut the edges off: what all cropping layers share.

    Parameters
    ----------
    cropping : int, tuple
        Elements to cut off before and after, in the forms of ``ZeroPadding``.
    data_format : {None, "channels_last"}
    """

    def __init__(self, cropping: Any, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check_data_format(data_format)
        self.cropping = self.pairs(cropping, "cropping")

    def added(self) -> Pairs:
        """The cropping, as negative padding."""
        return tuple((-before, -after) for before, after in self.cropping)

    def check_input(self, input_shape: Shape) -> None:
        """Something has to remain."""
        super().check_input(input_shape)
        if any(n is not None and n < 1 for n in self.lengths(input_shape[1:-1])):
            self.fail(f"inputs larger than cropping={self.cropping}", input_shape)


class Cropping1D(Cropping):
    """Cut steps off a sequence (batch, steps, channels).

    Parameters and behaviour are those of ``Cropping``.

    Examples
    --------
    >>> from minicnnrnn import layers
    >>> layers.Cropping1D((1, 0))([[[3.0], [4.0]]])[0, :, 0]
    array([4.], dtype=float32)
    """

    rank = 1

    def __init__(self, cropping: Any = (1, 1), **kwargs: Any) -> None:
        super().__init__(cropping, **kwargs)


class Cropping2D(Cropping):
    """Cut the edges off images (batch, height, width, channels).

    Parameters and behaviour are those of ``Cropping``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.Cropping2D(((1, 0), (2, 1)))(np.zeros((1, 5, 5, 2))).shape
    (1, 4, 2, 2)
    """

    rank = 2

    def __init__(
        self, cropping: Any = ((0, 0), (0, 0)), data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(cropping, data_format, **kwargs)


class Cropping3D(Cropping):
    """Cut the edges off volumes (batch, depth, height, width, channels).

    Parameters and behaviour are those of ``Cropping``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.Cropping3D(1)(np.zeros((1, 5, 5, 5, 2))).shape
    (1, 3, 3, 3, 2)
    """

    rank = 3

    def __init__(
        self,
        cropping: Any = ((1, 1), (1, 1), (1, 1)),
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cropping, data_format, **kwargs)
