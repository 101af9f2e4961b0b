"""Layers that give the elements of a sample another shape or order."""

import math
from collections.abc import Sequence
from typing import Any

from minicnnrnn import shapes
from minicnnrnn.layers.base import Layer, Shape

AXES = 5  # behind the batch, that the kernel can permute


class Flatten(Layer):
    """Flatten every sample to one axis.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.Flatten()(np.zeros((5, 2, 3))).shape
    (5, 6)
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check_data_format(data_format)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(batch, product of the rest); unknown if an axis is."""
        sizes = input_shape[1:]
        if None in sizes:
            return (input_shape[0], None)
        return (input_shape[0], math.prod(n for n in sizes if n is not None))

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """The same memory, seen with two axes."""
        self._saved = x.shape
        return x.reshape(len(x), -1), self.pass_mask(mask)

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """The same memory, seen as the input was."""
        return dy.reshape(self._saved)


class Reshape(Layer):
    """Give every sample another shape.

    Parameters
    ----------
    target_shape : tuple of int
        Without the batch; one entry may be -1.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.Reshape((3, -1))(np.zeros((5, 6))).shape
    (5, 3, 2)
    """

    def __init__(self, target_shape: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        given = tuple(target_shape) if isinstance(target_shape, tuple | list) else (target_shape,)
        whole = bool(given) and all(shapes.is_integer(n, 1) or n == -1 for n in given)
        if not whole or given.count(-1) > 1:
            self.fail("target_shape of positive integers, at most one -1", repr(target_shape))
        self.target_shape = tuple(int(n) for n in given)

    def check_input(self, input_shape: Shape) -> None:
        """The number of elements has to fit."""
        sizes = [n for n in input_shape[1:] if n is not None]
        if len(sizes) < len(input_shape) - 1:
            return
        have, want = math.prod(sizes), math.prod(n for n in self.target_shape if n != -1)
        if have % want if -1 in self.target_shape else have != want:
            self.fail(f"inputs that can be reshaped to {self.target_shape}", input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The target shape behind the batch, -1 resolved if the input is known."""
        if -1 not in self.target_shape:
            return (input_shape[0], *self.target_shape)
        known = None
        if None not in input_shape[1:]:
            rest = math.prod(n for n in self.target_shape if n != -1)
            known = math.prod(n for n in input_shape[1:] if n is not None) // rest
        return (input_shape[0], *(known if n == -1 else n for n in self.target_shape))

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """The same memory in another shape."""
        self._saved = x.shape
        return x.reshape(len(x), *self.target_shape), self.pass_mask(mask)

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """The same memory in the input's shape."""
        return dy.reshape(self._saved)


def permute(kernels: Any, y: Any, x: Any, order: Sequence[int]) -> None:
    """Fill `y` with `x`, whose axes are put in another order.

    Parameters
    ----------
    kernels : the kernels of a device
    y, x : device arrays
    order : sequence of int
        The axis of `x` that becomes axis 1, 2, ... of `y`; axis 0 is the batch, and stays.
    """
    missing = AXES - len(order)
    ones, full = (1,) * missing, (*range(1, missing + 1), *(axis + missing for axis in order))
    y6, x6 = (array.reshape(len(array), *ones, *array.shape[1:]) for array in (y, x))
    kernels.permute_forward(y6, x6, *full)


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """The permutation that takes this one back.

    Examples
    --------
    >>> inverse((2, 3, 1))
    (3, 1, 2)
    """
    return tuple(order.index(axis) + 1 for axis in range(1, len(order) + 1))


class Permute(Layer):
    """Put the axes of every sample into another order.

    Parameters
    ----------
    dims : tuple of int
        The input's axes, counted from 1, in the order that the output is to have.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.Permute((2, 1))(np.zeros((5, 2, 3))).shape
    (5, 3, 2)
    """

    def __init__(self, dims: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        given = tuple(dims) if isinstance(dims, tuple | list) else ()
        whole = bool(given) and all(shapes.is_integer(axis, 1) for axis in given)
        if not whole or sorted(given) != list(range(1, len(given) + 1)) or len(given) > AXES:
            self.fail(f"dims to be 1 to n in some order, n not above {AXES}", repr(dims))
        self.dims = tuple(int(axis) for axis in given)

    def check_input(self, input_shape: Shape) -> None:
        """As many axes as are permuted."""
        if len(input_shape) != len(self.dims) + 1:
            self.fail(f"inputs with {len(self.dims)} axes behind the batch", input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The sizes of the axes in their new order."""
        return (input_shape[0], *(input_shape[axis] for axis in self.dims))

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Move every element."""
        y = self.buffer("y", len(x), *(x.shape[axis] for axis in self.dims))
        permute(self.kernels, y, x, self.dims)
        self._saved = x.shape
        return y, self.pass_mask(mask)

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Move every element back."""
        if not input_gradient:
            return None
        dx = self.gradient("dx", *self._saved)
        permute(self.kernels, dx, dy, inverse(self.dims))
        return dx


class RepeatVector(Layer):
    """Repeat a vector: (batch, features) to (batch, n, features).

    Parameters
    ----------
    n : int
        How often.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.RepeatVector(2)(np.array([[1.0, 2.0]]))
    array([[[1., 2.],
            [1., 2.]]], dtype=float32)
    """

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        (self.n,) = shapes.to_tuple(n, 1, "n", self.name)

    def check_input(self, input_shape: Shape) -> None:
        """Two axes."""
        if len(input_shape) != 2:
            self.fail("inputs (batch, features)", input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(batch, n, features)."""
        return (input_shape[0], self.n, input_shape[1])

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Copy every sample `n` times."""
        N, C = x.shape
        y = self.buffer("y", N, self.n, C)
        self.kernels.upsample_forward(
            y.reshape(N, 1, 1, self.n, C), x.reshape(N, 1, 1, 1, C), 1, 1, self.n
        )
        return y, self.pass_mask(mask)

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Add up the copies."""
        if not input_gradient:
            return None
        N, _, C = dy.shape
        dx = self.gradient("dx", N, C)
        self.kernels.upsample_backward_input(
            dx.reshape(N, 1, 1, 1, C), dy.reshape(N, 1, 1, self.n, C), 1, 1, self.n
        )
        return dx
