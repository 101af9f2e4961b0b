"""BatchNormalization, LayerNormalization and GroupNormalization."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.layers.neighbours import Neighbour, plain, relu_at
from minicnnrnn.layers.reshape import inverse, permute
from minicnnrnn.parameters import WeightView
from minicnnrnn.shapes import is_integer, is_real


class _Normalizing(Layer):
    """What the layers of this family share: gamma and beta, and axes brought to the end."""

    supports_masking = True
    gamma, beta = WeightView(), WeightView()

    def _settle(self, epsilon: Any, center: Any, scale: Any, **makers: Any) -> None:
        """Check and keep the arguments that all of the family have."""
        if not is_real(epsilon, 0, math.inf):
            self.fail("epsilon to be a number of at least 0", repr(epsilon))
        self.epsilon = float(epsilon)
        self.center, self.scale = bool(center), bool(scale)
        for name, value in makers.items():  # gamma_initializer, beta_constraint, ...
            setattr(self, name, getattr(self, name.rpartition("_")[2])(value))

    def _add_gamma_and_beta(self, shape: tuple[int, ...]) -> None:
        for name, wanted in (("gamma", self.scale), ("beta", self.center)):
            if wanted:
                kinds = ("initializer", "regularizer", "constraint")
                self.add_weight(name, shape, *(getattr(self, f"{name}_{kind}") for kind in kinds))

    def _positive(self, axis: Any, rank: int, given: Any) -> int:
        """One axis, counted from the front; that of the samples is none."""
        if not 1 <= (axis if axis >= 0 else axis + rank) < rank:
            self.fail(f"an axis of the {rank} axes, without the first", f"axis={given!r}")
        return int(axis % rank)

    def _vectors(self) -> tuple[Any, Any]:
        """Gamma and beta as vectors, of size zero where there is none."""
        held = {weight.name: weight.value.reshape(-1) for weight in self.weights}
        none = self.buffer("none", 0)
        return held.get("gamma", none), held.get("beta", none)

    def _gradients(self, size: int) -> tuple[bool, Any, Any]:
        """Whether there is something to train, and where its gradients go."""
        trained = {w.name: w.gradient for w in self.weights if w.trainable}
        found = [
            self.buffer(f"d{name}", size)
            if trained.get(name) is None
            else trained[name].reshape(-1)
            for name in ("gamma", "beta")
        ]
        return any(gradient is not None for gradient in trained.values()), found[0], found[1]

    def _moved(self, name: str, x: Any, order: tuple[int, ...]) -> Any:
        """`x` with its axes behind the first in this order: `x` itself, if they are."""
        if order == tuple(range(1, x.ndim)):
            return x
        moved = self.buffer(name, len(x), *(x.shape[axis] for axis in order))
        permute(self.kernels, moved, x, order)
        return moved

    def _moved_back(self, name: str, y: Any, order: tuple[int, ...]) -> Any:
        return self._moved(name, y, inverse(order))

    def _order(self, rank: int, axes: tuple[int, ...]) -> tuple[int, ...]:
        """All axes behind the first, those that are normalized by (or over) last."""
        if axes != tuple(range(rank - len(axes), rank)) and rank > 6:
            self.fail("at most six axes, unless the last ones are meant", f"axis={axes}")
        return (*(axis for axis in range(1, rank) if axis not in axes), *axes)


class BatchNormalization(_Normalizing, Neighbour):
    """Give every channel mean 0 and variance 1 over the batch, then scale and shift it.

    In training, mean and variance are those of the batch, and moving averages of them are kept;
    otherwise, and always while ``trainable`` is false, the moving averages take their place.
    Masked steps are normalized, but do not count.

    Parameters
    ----------
    axis : int
        The channels.
    momentum : float
        Share of the moving averages that a batch leaves as it is.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there is a beta to add, and a gamma to multiply with.
    beta_initializer, gamma_initializer : str or Initializer
    moving_mean_initializer, moving_variance_initializer : str or Initializer
    beta_regularizer, gamma_regularizer : str or Regularizer, optional
    beta_constraint, gamma_constraint : str or Constraint, optional
    renorm, renorm_clipping, synchronized : not supported
    renorm_momentum : ignored without `renorm`, as in Keras

    Notes
    -----
    Weights: gamma, beta, moving_mean, moving_variance, each (channels,). Ioffe and Szegedy 2015,
    "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift".

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer = layers.BatchNormalization(momentum=0.5, epsilon=0)
    >>> layer(np.array([[1.0], [3.0]]), training=True)
    array([[-1.],
           [ 1.]], dtype=float32)
    >>> layer.moving_mean, layer.moving_variance
    (array([1.], dtype=float32), array([1.], dtype=float32))
    >>> layer(np.array([[1.0], [3.0]]))
    array([[0.],
           [2.]], dtype=float32)
    """

    moving_mean, moving_variance = WeightView(), WeightView()

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        renorm: bool = False,
        renorm_clipping: Any = None,
        renorm_momentum: float = 0.99,
        synchronized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.refuse(renorm=renorm, renorm_clipping=renorm_clipping, synchronized=synchronized)
        if not is_integer(axis, -(2**31)):
            self.fail("axis to be an integer", repr(axis))
        if not is_real(momentum, 0, 1):
            self.fail("momentum to be a number from 0 to 1", repr(momentum))
        self.axis, self.momentum = int(axis), float(momentum)
        self._settle(
            epsilon,
            center,
            scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            moving_mean_initializer=moving_mean_initializer,
            moving_variance_initializer=moving_variance_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
        )
        self.version = [0]  # grows whenever the moving averages move

    def check_input(self, input_shape: Shape) -> None:
        """A known number of channels, that which it was built for."""
        axis = self._positive(self.axis, len(input_shape), self.axis)
        self._order(len(input_shape), (axis,))
        if input_shape[axis] is None:
            self.fail(f"inputs of known size along axis {self.axis}", input_shape)
        if self.built and (len(input_shape), input_shape[axis]) != self._built_for:
            rank, channels = self._built_for
            self.fail(f"inputs of {rank} axes with {channels} channels", input_shape)

    def build(self, input_shape: Shape) -> None:
        """Declare gamma, beta and the moving statistics."""
        channels = input_shape[self.axis]
        assert channels is not None
        self._built_for = len(input_shape), channels
        self._add_gamma_and_beta((channels,))
        for name in ("moving_mean", "moving_variance"):
            initializer = getattr(self, f"{name}_initializer")
            self.add_weight(name, (channels,), initializer, state=True)

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Normalize by the batch's statistics, or by the moving ones."""
        return self._normalize(x, mask, training, False)

    def maps(self, axis: int) -> bool:
        """Whether it maps the channels along this last axis, each by itself, and does no more."""
        return self.axis in (-1, axis) and plain(self, BatchNormalization)

    def fold(self, y: Any, x: Any, offset: bool) -> None:
        """Apply the map of the moving statistics to rows of channels; or its factors alone."""
        inverse, (gamma, beta) = self.buffer("inverse", x.shape[1]), self._vectors()
        mean, variance = (weight.value for weight in self.weights[-2:])
        if not offset:
            mean, beta = self.device.zeros(mean.shape), self.buffer("none", 0)
        ws = self.buffer("workspace", self.kernels.batch_norm_workspace(*x.shape))
        self.kernels.batch_norm_inference(
            y, inverse, x, gamma, beta, mean, variance, self.epsilon, 0, ws
        )

    def run_among(
        self, layers: Sequence[Layer], index: int, x: Any, mask: Any, training: bool
    ) -> tuple[Any, Any, int]:
        """Rectify, too, if a relu follows."""
        if relu_at(layers, index + 1) and plain(self, BatchNormalization):
            return *self._normalize(x, mask, training, True), 2
        return *self.run_forward(x, mask, training), 1

    def _normalize(self, x: Any, mask: Any, training: bool, relu: bool) -> tuple[Any, Any]:
        axis = self._positive(self.axis, x.ndim, self.axis)
        if mask is not None and (x.ndim != 3 or axis != 2):
            self.fail(
                "a mask only with inputs (batch, steps, features) and the last axis",
                f"inputs {x.shape}, axis={self.axis}",
            )
        order = self._order(x.ndim, (axis,))
        moved = self._moved("x", x, order)
        C = moved.shape[-1]
        rows = moved.reshape(-1, C)
        y = self.buffer("y", *moved.shape)
        ws = self.buffer("workspace", self.kernels.batch_norm_workspace(len(rows), C))
        gamma, beta = self._vectors()
        moving = [weight.value for weight in self.weights[-2:]]
        inverse, flags = self.buffer("inverse", C), self.buffer("all", 0, dtype=np.uint8)
        batch = training and self.trainable
        if batch:
            mean = self.buffer("mean", C)
            assert self.context is not None
            self.version[0] += 1
            self.context.packings += 1
            flags = flags if mask is None else mask.reshape(-1)
            self.kernels.batch_norm_forward(
                y.reshape(-1, C), mean, inverse, *moving, rows, gamma, beta, flags,
                self.momentum, self.epsilon, int(relu), ws,
            )  # fmt: skip
        else:
            mean = moving[0]
            self.kernels.batch_norm_inference(
                y.reshape(-1, C), inverse, rows, gamma, beta, *moving, self.epsilon, int(relu), ws
            )
        rectified = y.reshape(-1, C) if relu else self.buffer("no relu", 0, 0)
        self._saved = order, rows, rectified, flags, batch, mean, inverse, ws
        return self._moved_back("y moved", y, order), mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Gradients of gamma and beta, and of the input, through the statistics too."""
        order, rows, rectified, flags, batch, mean, inverse, ws = self._saved
        moved = self._moved("dy", dy, order)
        C, dz = rows.shape[1], moved.reshape(rows.shape)
        trained, dgamma, dbeta = self._gradients(C)
        if trained or (batch and input_gradient):
            self.kernels.batch_norm_backward_weight(
                dgamma, dbeta, rows, dz, rectified, mean, inverse, ws
            )
        if not input_gradient:
            return None
        if not batch:
            dgamma = dbeta = self.buffer("none", 0)
        dx = self.gradient("dx", *moved.shape)
        self.kernels.batch_norm_backward_input(
            dx.reshape(rows.shape), rows, dz, rectified, self._vectors()[0], mean, inverse,
            dgamma, dbeta, flags, ws,
        )  # fmt: skip
        return self._moved_back("dx moved", dx, order)


class LayerNormalization(_Normalizing):
    """Give every sample (or every step of it) mean 0 and variance 1, then scale and shift it.

    Parameters
    ----------
    axis : int or list of int
        What is normalized together; gamma and beta have an element for each of its elements.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there is a beta to add, and a gamma to multiply with.
    beta_initializer, gamma_initializer : str or Initializer
    beta_regularizer, gamma_regularizer : str or Regularizer, optional
    beta_constraint, gamma_constraint : str or Constraint, optional
    rms_scaling : not supported

    Notes
    -----
    Weights: gamma and beta, of the shape of the axes. Ba, Kiros and Hinton 2016, "Layer
    Normalization".

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.LayerNormalization(epsilon=0)(np.array([[1.0, 3.0], [20.0, 10.0]]))
    array([[-1.,  1.],
           [ 1., -1.]], dtype=float32)
    """

    def __init__(
        self,
        axis: Any = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        rms_scaling: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.refuse(rms_scaling=rms_scaling)
        given = list(axis) if isinstance(axis, list | tuple) else [axis]
        if not given or not all(is_integer(a, -(2**31)) for a in given):
            self.fail("axis to be an integer or a list of integers", repr(axis), TypeError)
        self.axis = sorted(int(a) for a in given)
        self._settle(
            epsilon,
            center,
            scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
        )

    def _axes(self, rank: int) -> tuple[int, ...]:
        axes = tuple(sorted(self._positive(a, rank, self.axis) for a in self.axis))
        if len(set(axes)) < len(axes):
            self.fail("different axes", f"axis={self.axis}")
        return axes

    def check_input(self, input_shape: Shape) -> None:
        """Known sizes along the axes, those which it was built for."""
        axes = self._axes(len(input_shape))
        self._order(len(input_shape), axes)
        sizes = tuple(input_shape[axis] for axis in axes)
        if None in sizes:
            self.fail(f"inputs of known size along axis={self.axis}", input_shape)
        if self.built and sizes != self._built_for:
            self.fail(f"inputs of size {self._built_for} along axis={self.axis}", input_shape)

    def build(self, input_shape: Shape) -> None:
        """Declare gamma and beta."""
        self._built_for = tuple(input_shape[axis] for axis in self._axes(len(input_shape)))
        self._add_gamma_and_beta(tuple(input_shape[a] or 0 for a in self.axis))

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Normalize every row."""
        axes = self._axes(x.ndim)
        order = self._order(x.ndim, axes)
        moved = self._moved("x", x, order)
        rows = moved.reshape(-1, math.prod(moved.shape[-len(axes) :]))
        y, mean = self.buffer("y", *moved.shape), self.buffer("mean", len(rows))
        inverse, (gamma, beta) = self.buffer("inverse", len(rows)), self._vectors()
        self.kernels.layer_norm_forward(
            y.reshape(rows.shape), mean, inverse, rows, gamma, beta, self.epsilon
        )
        self._saved = order, rows, mean, inverse
        return self._moved_back("y moved", y, order), mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Gradients of gamma, beta and input."""
        order, rows, mean, inverse = self._saved
        moved = self._moved("dy", dy, order)
        dz = moved.reshape(rows.shape)
        trained, dgamma, dbeta = self._gradients(rows.shape[1])
        if trained:
            ws = self.buffer("workspace", self.kernels.layer_norm_workspace(*rows.shape))
            self.kernels.layer_norm_backward_weight(dgamma, dbeta, rows, dz, mean, inverse, ws)
        if not input_gradient:
            return None
        dx = self.gradient("dx", *moved.shape)
        self.kernels.layer_norm_backward_input(
            dx.reshape(rows.shape), rows, dz, self._vectors()[0], mean, inverse
        )
        return self._moved_back("dx moved", dx, order)


class GroupNormalization(_Normalizing):
    """Give every group of channels of a sample mean 0 and variance 1, then scale and shift it.

    Parameters
    ----------
    groups : int
        Number of groups, which has to divide the channels; -1 for a group for every channel.
    axis : int
        The channels.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there is a beta to add, and a gamma to multiply with.
    beta_initializer, gamma_initializer : str or Initializer
    beta_regularizer, gamma_regularizer : str or Regularizer, optional
    beta_constraint, gamma_constraint : str or Constraint, optional

    Notes
    -----
    Weights: gamma and beta, each (channels,). Wu and He 2018, "Group Normalization".

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.GroupNormalization(2, epsilon=0)(np.array([[1.0, 3.0, 20.0, 10.0]]))
    array([[-1.,  1.,  1., -1.]], dtype=float32)
    """

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not is_integer(groups, 1) and groups != -1:
            self.fail("groups to be a positive integer, or -1", repr(groups))
        if not is_integer(axis, -(2**31)):
            self.fail("axis to be an integer", repr(axis))
        self.groups, self.axis = int(groups), int(axis)
        self._settle(
            epsilon,
            center,
            scale,
            beta_initializer=beta_initializer,
            gamma_initializer=gamma_initializer,
            beta_regularizer=beta_regularizer,
            gamma_regularizer=gamma_regularizer,
            beta_constraint=beta_constraint,
            gamma_constraint=gamma_constraint,
        )

    def check_input(self, input_shape: Shape) -> None:
        """A known number of channels, in whole groups."""
        axis = self._positive(self.axis, len(input_shape), self.axis)
        self._order(len(input_shape), (axis,))
        channels = input_shape[axis]
        if channels is None:
            self.fail(f"inputs of known size along axis {self.axis}", input_shape)
        assert channels is not None
        if self.groups != -1 and channels % self.groups:
            self.fail(f"channels in {self.groups} groups of one size", f"{channels} channels")
        if self.built and (len(input_shape), channels) != self._built_for:
            rank, known = self._built_for
            self.fail(f"inputs of {rank} axes with {known} channels", input_shape)

    def build(self, input_shape: Shape) -> None:
        """Declare gamma and beta."""
        channels = input_shape[self.axis]
        assert channels is not None
        self._built_for = len(input_shape), channels
        self._add_gamma_and_beta((channels,))

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Normalize the groups of every sample."""
        order = self._order(x.ndim, (self._positive(self.axis, x.ndim, self.axis),))
        moved = self._moved("x", x, order)
        N, C = len(x), moved.shape[-1]
        images = moved.reshape(N, -1, C)
        y, groups = self.buffer("y", *moved.shape), C if self.groups == -1 else self.groups
        mean, inverse = self.buffer("mean", N, groups), self.buffer("inverse", N, groups)
        ws = self.buffer("workspace", self.kernels.group_norm_workspace(*images.shape))
        self.kernels.group_norm_forward(
            y.reshape(images.shape), mean, inverse, images, *self._vectors(), self.epsilon, ws
        )
        self._saved = order, images, mean, inverse, ws
        return self._moved_back("y moved", y, order), mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Gradients of gamma, beta and input."""
        order, images, mean, inverse, ws = self._saved
        moved = self._moved("dy", dy, order)
        dz = moved.reshape(images.shape)
        trained, dgamma, dbeta = self._gradients(images.shape[2])
        if trained:
            self.kernels.group_norm_backward_weight(dgamma, dbeta, images, dz, mean, inverse, ws)
        if not input_gradient:
            return None
        dx = self.gradient("dx", *moved.shape)
        self.kernels.group_norm_backward_input(
            dx.reshape(images.shape), images, dz, self._vectors()[0], mean, inverse, ws
        )
        return self._moved_back("dx moved", dx, order)
