"""Max and average pooling in one to three dimensions, over windows and over everything."""

import math
from collections.abc import Sequence
from typing import Any

from minicnnrnn import shapes
from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.layers.neighbours import plain

AXES = ("length", "height, width", "depth, height, width")
PAIRS = (1, 2, 2, 1, 2, 2, 0, 0, 0)  # what kernels are told of windows of 2 x 2, side by side


class Pooling(Layer):
    """Pooling in `rank` dimensions: what all pooling layers share.

    Every window of a channel becomes one number: its maximum or its average. Padding never
    counts: it is no maximum, and it is not averaged.

    Parameters
    ----------
    pool_size : int or tuple of ints
        Size of the window along each spatial axis; 2 if left out, for maxima only.
    strides : int or tuple of ints, optional
        Distance of neighbouring windows; `pool_size` if left out.
    padding : {"valid", "same"}
    data_format : {None, "channels_last"}
    """

    rank = 0
    maximum = False

    def __init__(
        self,
        pool_size: Any,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.check_data_format(data_format)
        self.pool_size = shapes.to_tuple(pool_size, self.rank, "pool_size", self.name)
        self.strides = (
            self.pool_size
            if strides is None
            else shapes.to_tuple(strides, self.rank, "strides", self.name)
        )
        if padding not in ("valid", "same"):
            self.fail("padding to be 'valid' or 'same'", repr(padding))
        self.padding = padding

    def windows(self, spatial: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Size and strides of the windows on an image of this size."""
        return self.pool_size, self.strides

    def check_input(self, input_shape: Shape) -> None:
        """The right rank, and no spatial axis smaller than the window."""
        if len(input_shape) != self.rank + 2:
            self.fail(f"inputs (batch, {AXES[self.rank - 1]}, channels)", input_shape)
        if any(n is not None and n < 1 for n in self._lengths(input_shape[1:-1])):
            self.fail(f"inputs of at least pool_size={self.pool_size}", input_shape)

    def _lengths(self, spatial: Shape) -> tuple[int | None, ...]:
        return tuple(
            shapes.output_length(n, k, s, 1, self.padding)
            for n, k, s in zip(spatial, self.pool_size, self.strides)
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(batch, windows along each spatial axis, channels)."""
        return (input_shape[0], *self._lengths(input_shape[1:-1]), input_shape[-1])

    def _plan(self, x_shape: tuple[int, ...]) -> Any:
        """All integers that the kernels want for inputs of this shape."""
        plan = self._plans.get(x_shape)
        if plan is None:
            ones = (1,) * (3 - self.rank)
            spatial = x_shape[1:-1]
            sizes, strides = self.windows(spatial)
            pads = tuple(
                shapes.padding_before(n, k, s, 1, self.padding)
                for n, k, s in zip(spatial, sizes, strides)
            )
            lengths = self._lengths(spatial)
            x5 = (x_shape[0], *ones, *spatial, x_shape[-1])
            y5 = (x_shape[0], *ones, *lengths, x_shape[-1])
            geometry = (*ones, *sizes, *ones, *strides, *(0,) * (3 - self.rank), *pads)
            outputs = self.compute_output_shape(x_shape)
            if len(self._plans) > 64:  # sequences of ever new lengths
                self._plans.clear()
            plan = self._plans[x_shape] = (outputs, x5, y5, geometry)
        return plan

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """The maximum or the average of every window."""
        outputs, _, y5, geometry = self._plan(x.shape)
        y, index = self.buffer("y", *outputs), None
        if training and self.maximum:
            index = self._index(geometry, *y5)
        self.pool(y, x, index)
        self._saved = x.shape, index
        return y, self.pass_mask(mask)

    def pool(self, y: Any, x: Any, index: Any = None) -> None:
        """Write the maxima, and where they were unless `index` is ``None``; or the averages."""
        _, x5, y5, geometry = self._plan(x.shape)
        if self.maximum:
            index = self._index(geometry, *(0,) * 5) if index is None else index
            self.kernels.max_pool_forward(y.reshape(y5), index, x.reshape(x5), *geometry)
        else:
            self.kernels.average_pool_forward(y.reshape(y5), x.reshape(x5), *geometry)

    def _index(self, geometry: tuple[int, ...], *shape: int) -> Any:
        """Memory for the numbers of positions in a window."""
        dtype = "uint8" if math.prod(geometry[:3]) <= 256 else "int32"
        return self.buffer(f"index {dtype}", *shape, dtype=dtype)

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Every input collects from the windows that it was in (maximum: that chose it)."""
        if not input_gradient:
            return None
        shape, index = self._saved
        _, x5, y5, geometry = self._plan(shape)
        dx, dy5 = self.gradient("dx", *shape), dy.reshape(y5)
        if self.maximum:
            self.kernels.max_pool_backward_input(dx.reshape(x5), dy5, index, *geometry)
        else:
            self.kernels.average_pool_backward_input(dx.reshape(x5), dy5, *geometry)
        return dx


class GlobalPooling(Pooling):
    """Pooling with one window over all of a sample: one number a channel.

    Parameters
    ----------
    data_format : {None, "channels_last"}
    keepdims : bool
        Keep the pooled axes, with length one.
    """

    def __init__(
        self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(1, data_format=data_format, **kwargs)
        self.keepdims = bool(keepdims)

    def windows(self, spatial: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """One window: the image."""
        return spatial, spatial

    def _lengths(self, spatial: Shape) -> tuple[int | None, ...]:
        return (1,) * self.rank

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(batch, channels), with ones between if `keepdims`."""
        ones = (1,) * self.rank if self.keepdims else ()
        return (input_shape[0], *ones, input_shape[-1])


class MaxPooling(Pooling):
    """Maximum over windows in `rank` dimensions; see ``Pooling``."""

    maximum = True

    def __init__(
        self,
        pool_size: Any = 2,
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(pool_size, strides, padding, data_format, name, **kwargs)


def pairs_at(layers: Sequence[Layer], index: int) -> MaxPooling | None:
    """The layer at this place of a chain if it finds the maxima of windows of 2 x 2, side by side.

    In volumes these are windows of 1 x 2 x 2.
    """
    layer = layers[index] if index < len(layers) else None
    if not isinstance(layer, MaxPooling) or not plain(layer, MaxPooling):
        return None
    pairs = layer.rank > 1 and layer.pool_size == layer.strides == PAIRS[3 - layer.rank : 3]
    return layer if pairs and layer.padding == "valid" else None


class MaxPooling1D(MaxPooling):
    """The maximum over windows of steps.

    (batch, steps, channels) to (batch, ..., channels).

    Parameters and behaviour are those of ``Pooling``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.MaxPooling1D()(np.zeros((2, 4, 3))).shape
    (2, 2, 3)
    """

    rank = 1


class MaxPooling2D(MaxPooling):
    """The maximum over windows of pixels.

    (batch, height, width, channels) to (batch, ..., channels).

    Parameters and behaviour are those of ``Pooling``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.MaxPooling2D()(np.zeros((2, 4, 6, 3))).shape
    (2, 2, 3, 3)
    """

    rank = 2


class MaxPooling3D(MaxPooling):
    """The maximum over windows of voxels.

    (batch, depth, height, width, channels) to (batch, ..., channels).

    Parameters and behaviour are those of ``Pooling``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.MaxPooling3D()(np.zeros((2, 4, 6, 8, 3))).shape
    (2, 2, 3, 4, 3)
    """

    rank = 3


class AveragePooling1D(Pooling):
    """The average over windows of steps.

    (batch, steps, channels) to (batch, ..., channels).

    Parameters and behaviour are those of ``Pooling``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.AveragePooling1D(2)(np.zeros((2, 4, 3))).shape
    (2, 2, 3)
    """

    rank = 1


class AveragePooling2D(Pooling):
    """The average over windows of pixels.

    (batch, height, width, channels) to (batch, ..., channels).

    Parameters and behaviour are those of ``Pooling``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.AveragePooling2D(2)(np.zeros((2, 4, 6, 3))).shape
    (2, 2, 3, 3)
    """

    rank = 2


class AveragePooling3D(Pooling):
    """The average over windows of voxels.

    (batch, depth, height, width, channels) to (batch, ..., channels).

    Parameters and behaviour are those of ``Pooling``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.AveragePooling3D(2)(np.zeros((2, 4, 6, 8, 3))).shape
    (2, 2, 3, 4, 3)
    """

    rank = 3


class GlobalMaxPooling1D(GlobalPooling):
    """The maximum over all steps.

    (batch, steps, channels) to (batch, channels).

    Parameters and behaviour are those of ``GlobalPooling``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.GlobalMaxPooling1D()(np.zeros((2, 4, 3))).shape
    (2, 3)
    """

    rank, maximum = 1, True


class GlobalMaxPooling2D(GlobalPooling):
    """The maximum over all pixels.

    (batch, height, width, channels) to (batch, channels).

    Parameters and behaviour are those of ``GlobalPooling``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.GlobalMaxPooling2D()(np.zeros((2, 4, 6, 3))).shape
    (2, 3)
    """

    rank, maximum = 2, True


class GlobalMaxPooling3D(GlobalPooling):
    """The maximum over all voxels.

    (batch, depth, height, width, channels) to (batch, channels).

    Parameters and behaviour are those of ``GlobalPooling``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.GlobalMaxPooling3D()(np.zeros((2, 4, 6, 8, 3))).shape
    (2, 3)
    """

    rank, maximum = 3, True


class GlobalAveragePooling1D(GlobalPooling):
    """The average over all steps, or over those that a mask leaves.

    (batch, steps, channels) to (batch, channels).

    Parameters and behaviour are those of ``GlobalPooling``. The average over a sequence that is
    masked from end to end is 0 (in Keras it is NaN).

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.GlobalAveragePooling1D()(np.zeros((2, 4, 3))).shape
    (2, 3)
    """

    rank = 1
    supports_masking = True

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """The average; there are no steps any more that a mask could be about."""
        if mask is None:
            return super().forward(x, None, training)
        shape: Any = self.compute_output_shape(x.shape)
        y = self.buffer("y", *shape)
        self.kernels.masked_average_forward(y.reshape(len(x), -1), x, mask)
        self._saved = x.shape, mask
        return y, None

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Every step that counts has its share."""
        shape, mask = self._saved
        if mask is None or not input_gradient:
            return super().backward(dy, input_gradient)
        dx = self.gradient("dx", *shape)
        self.kernels.masked_average_backward_input(dx, dy.reshape(len(dy), -1), mask)
        return dx


class GlobalAveragePooling2D(GlobalPooling):
    """The average over all pixels.

    (batch, height, width, channels) to (batch, channels).

    Parameters and behaviour are those of ``GlobalPooling``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.GlobalAveragePooling2D()(np.zeros((2, 4, 6, 3))).shape
    (2, 3)
    """

    rank = 2


class GlobalAveragePooling3D(GlobalPooling):
    """The average over all voxels.

    (batch, depth, height, width, channels) to (batch, channels).

    Parameters and behaviour are those of ``GlobalPooling``.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.GlobalAveragePooling3D()(np.zeros((2, 4, 6, 8, 3))).shape
    (2, 3)
    """

    rank = 3
