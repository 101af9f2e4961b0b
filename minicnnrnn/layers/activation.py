"""Activations: as an argument of other layers, and as layers."""

import math
import warnings
from typing import Any

from minicnnrnn import shapes
from minicnnrnn.kernels import codes
from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.layers.reshape import inverse, permute
from minicnnrnn.parameters import WeightView

CODES = {
    "celu": codes.ELU,  # the same for an alpha of 1
    "elu": codes.ELU,
    "exponential": codes.EXPONENTIAL,
    "gelu": codes.GELU,
    "hard_shrink": codes.HARD_SHRINK,
    "hard_sigmoid": codes.HARD_SIGMOID,
    "hard_silu": codes.HARD_SILU,
    "hard_swish": codes.HARD_SILU,
    "hard_tanh": codes.HARD_TANH,
    "leaky_relu": codes.LEAKY_RELU,
    "linear": codes.LINEAR,
    "log_sigmoid": codes.LOG_SIGMOID,
    "mish": codes.MISH,
    "relu": codes.RELU,
    "relu6": codes.RELU6,
    "selu": codes.SELU,
    "sigmoid": codes.SIGMOID,
    "silu": codes.SILU,
    "soft_shrink": codes.SOFT_SHRINK,
    "softplus": codes.SOFTPLUS,
    "softsign": codes.SOFTSIGN,
    "sparse_plus": codes.SPARSE_PLUS,
    "sparse_sigmoid": codes.SPARSE_SIGMOID,
    "squareplus": codes.SQUAREPLUS,
    "swish": codes.SILU,
    "tanh": codes.TANH,
    "tanh_shrink": codes.TANH_SHRINK,
}
ROWS = ("softmax", "log_softmax")  # of all elements along the last axis together
ALPHAS = {"leaky_relu": 0.2}  # Keras' negative_slope; elu and selu have alpha 1 or none


class ActivationFunction:
    """The activation of a layer: works in the layer's own buffers.

    Parameters
    ----------
    identifier : str, Activation or None
        A name that Keras knows, or a layer that stands for one; ``None`` is linear.
    layer : Layer
        Whose activation this is; errors name it.
    alpha : float, optional
        Of "leaky_relu" and "elu", if it is not Keras' default.

    Attributes
    ----------
    fused : bool
        While true, ``backward`` passes its argument through: a loss that has the derivative of
        softmax or sigmoid in its own gradient sets this around its backward pass.
    """

    def __init__(self, identifier: Any, layer: Layer, alpha: float | None = None) -> None:
        if isinstance(identifier, Activation) and type(identifier.activation) is ActivationFunction:
            identifier, alpha = identifier.activation.name, identifier.activation.alpha
        name = "linear" if identifier is None else identifier
        if not isinstance(name, str) or (name not in CODES and name not in ROWS):
            known = ", ".join(sorted([*CODES, *ROWS]))
            layer.fail(f"activation to be None or one of {known}", repr(identifier))
        self.name: str = name
        self.layer = layer
        self.code = CODES.get(name, -1)
        self.alpha = ALPHAS.get(name, 1.0) if alpha is None else alpha
        self.is_relu = name == "relu"
        self.fused = False
        self._saved: Any = None  # what `forward` keeps for `backward`

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: no memory of a batch."""
        return self.__dict__ | {"_saved": None}

    def check_outputs(self, outputs: int | None) -> None:
        """Raise if a last axis of this size makes no sense."""
        if self.name in ROWS and outputs == 1:
            self.layer.fail(
                f"at least two outputs for {self.name} (one would always be 1)", outputs
            )

    def forward(self, z: Any, applied: bool = False, own: bool = True) -> Any:
        """The activation of `z`.

        Parameters
        ----------
        z : device array, before the activation
        applied : bool
            The kernel that made `z` has applied the activation already (a fused relu).
        own : bool
            `z` is the layer's own and may be overwritten.
        """
        kernels, y = self.layer.kernels, z
        if self.code != codes.LINEAR and not applied:
            if not own or (self.code not in codes.FROM_OUTPUT and self.name not in ROWS):
                y = self.layer.buffer("activated", *z.shape)
            if self.name in ROWS:
                shape = (-1, z.shape[-1])
                getattr(kernels, f"{self.name}_forward")(y.reshape(shape), z.reshape(shape))
            else:
                kernels.activation_forward(y.reshape(-1), z.reshape(-1), self.code, self.alpha)
        self._saved = y, z
        return y

    def backward(self, dy: Any) -> Any:
        """The gradient with respect to `z`; `dy` itself where that is the same."""
        if self.fused or self.code == codes.LINEAR:
            return dy
        kernels, dz = self.layer.kernels, self.layer.gradient("dz", *dy.shape)
        y, z = self._saved
        if self.name in ROWS:
            rows = (array.reshape(-1, dy.shape[-1]) for array in (dz, dy, y))
            getattr(kernels, f"{self.name}_backward")(*rows)
        else:
            kernels.activation_backward(
                dz.reshape(-1), dy.reshape(-1), z.reshape(-1), y.reshape(-1), self.code, self.alpha
            )
        return dz


class Activation(Layer):
    """Apply an activation to every element (softmax: along the last axis).

    Parameters
    ----------
    activation : str or None
        "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu" (or "swish"), "mish",
        "softplus", "softsign", "tanh", "sigmoid", "hard_sigmoid", "hard_silu" (or "hard_swish"),
        "hard_tanh", "exponential", "log_sigmoid", "squareplus", "sparse_plus", "sparse_sigmoid",
        "soft_shrink", "hard_shrink", "tanh_shrink", "softmax", "log_softmax", "linear".

    Examples
    --------
    >>> from minicnnrnn import layers
    >>> layers.Activation("relu")([[-1.0, 2.0]])
    array([[0., 2.]], dtype=float32)
    """

    supports_masking = True

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = ActivationFunction(activation, self)

    def number(self, name: str, value: Any) -> float:
        """An argument that has to be a number, and not a negative one."""
        if not shapes.is_real(value, 0, math.inf) or value == math.inf:
            self.fail(f"{name} to be a number of at least 0", repr(value))
        return float(value)

    def check_input(self, input_shape: Shape) -> None:
        """Anything but a softmax over a single number."""
        self.activation.check_outputs(input_shape[-1])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The same shape."""
        return input_shape

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """The activation of `x`."""
        return self.activation.forward(x, own=False), mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Multiply with the derivative."""
        return self.activation.backward(dy) if input_gradient else None


class Rectifier(ActivationFunction):
    """A rectifier with a threshold or a highest value of its own; see ``ReLU``."""

    def __init__(self, layer: Layer, slope: float, threshold: float, highest: float) -> None:
        super().__init__("relu", layer)
        self.name, self.is_relu = "rectifier", False
        self._parameters = slope, threshold, highest

    def forward(self, z: Any, applied: bool = False, own: bool = True) -> Any:
        """The activation of `z`, in memory of its own."""
        y = self.layer.buffer("activated", *z.shape)
        self.layer.kernels.relu_forward(y.reshape(-1), z.reshape(-1), *self._parameters)
        self._saved = z
        return y

    def backward(self, dy: Any) -> Any:
        """The gradient with respect to `z`."""
        dz = self.layer.gradient("dz", *dy.shape)
        arrays = (array.reshape(-1) for array in (dz, dy, self._saved))
        self.layer.kernels.relu_backward(*arrays, *self._parameters)
        return dz


class ReLU(Activation):
    """Rectify: x above a threshold and no more than a highest value, below it a slope.

    ``min(x, max_value)`` for x > threshold, else ``negative_slope * (x - threshold)``.

    Parameters
    ----------
    max_value : float, optional
    negative_slope : float
    threshold : float

    Examples
    --------
    >>> from minicnnrnn import layers
    >>> layers.ReLU(max_value=6.0, negative_slope=0.5)([[-2.0, 0.0, 3.0, 8.0]])
    array([[-1.,  0.,  3.,  6.]], dtype=float32)
    """

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__("relu", **kwargs)
        self.max_value = None if max_value is None else self.number("max_value", max_value)
        self.negative_slope = self.number("negative_slope", negative_slope)
        self.threshold = self.number("threshold", threshold)
        if self.max_value is not None or self.threshold:
            highest = math.inf if self.max_value is None else self.max_value
            self.activation = Rectifier(self, self.negative_slope, self.threshold, highest)
        elif self.negative_slope:
            self.activation = ActivationFunction("leaky_relu", self, self.negative_slope)


class LeakyReLU(Activation):
    """Rectify, with a slope below zero: ``max(x, 0) + negative_slope * min(x, 0)``.

    Parameters
    ----------
    negative_slope : float
        `alpha` is its name of old.

    Notes
    -----
    Maas et al. 2013, "Rectifier Nonlinearities Improve Neural Network Acoustic Models".

    Examples
    --------
    >>> from minicnnrnn import layers
    >>> layers.LeakyReLU(0.5)([[-2.0, 2.0]])
    array([[-1.,  2.]], dtype=float32)
    """

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        if "alpha" in kwargs:
            negative_slope = kwargs.pop("alpha")
            warnings.warn("Use negative_slope instead of alpha.", stacklevel=2)
        super().__init__("relu", **kwargs)
        self.negative_slope = self.number("negative_slope", negative_slope)
        if self.negative_slope:
            self.activation = ActivationFunction("leaky_relu", self, self.negative_slope)


class ELU(Activation):
    """The exponential linear unit: x, and ``alpha * (exp(x) - 1)`` below zero.

    Parameters
    ----------
    alpha : float

    Notes
    -----
    Clevert et al. 2015, arXiv:1511.07289.

    Examples
    --------
    >>> from minicnnrnn import layers
    >>> layers.ELU(2.0)([[-50.0, 2.0]])
    array([[-2.,  2.]], dtype=float32)
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__("elu", **kwargs)
        self.alpha = self.number("alpha", alpha)
        self.activation = ActivationFunction("elu", self, self.alpha)


class Softmax(Activation):
    """Turn the numbers along an axis into probabilities: ``exp(x) / sum(exp(x))``.

    Parameters
    ----------
    axis : int, or tuple of ints
        Along several axes, all numbers together have the sum one. The batch is axis 0.

    Examples
    --------
    >>> from minicnnrnn import layers
    >>> layers.Softmax(axis=1)([[[0.0, 1.0], [0.0, 1.0]]])
    array([[[0.5, 0.5],
            [0.5, 0.5]]], dtype=float32)
    """

    def __init__(self, axis: Any = -1, **kwargs: Any) -> None:
        super().__init__("softmax", **kwargs)
        axes = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
        if not axes or not all(shapes.is_integer(n, -9) and n != 0 for n in axes):
            self.fail("axis to be an integer, or a tuple of them, but not the batch", repr(axis))
        self.axis = axes if isinstance(axis, tuple | list) else axis
        self._axes = axes

    def _order(self, rank: int) -> tuple[int, ...]:
        """The axes behind the batch, those of the softmax last."""
        chosen = {n % rank for n in self._axes}
        return (*(n for n in range(1, rank) if n not in chosen), *sorted(chosen))

    def _is_last(self, rank: int) -> bool:
        return [n % rank for n in self._axes] == [rank - 1]

    def last_activation(self) -> Any:
        """The softmax, if it is along the last axis alone."""
        rank = len(self.input_shape) if self.input_shape else None
        last = self._is_last(rank) if rank else self._axes == (-1,)
        return self.activation if last else None

    def check_input(self, input_shape: Shape) -> None:
        """Has the axes, and not just one number along them."""
        rank = len(input_shape)
        chosen = {n % rank for n in self._axes if -rank < n < rank}
        if len(chosen) < len(self._axes) or 0 in chosen or rank > 6:
            self.fail(f"inputs with the axes {self.axis}, different ones", input_shape)
        if all(input_shape[n] == 1 for n in chosen):
            self.activation.check_outputs(1)

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Probabilities; other axes than the last are moved there first."""
        if mask is not None:
            self.fail(
                "no mask, which Keras would take as one over the axis: Activation('softmax') lets "
                "a mask of steps pass", f"a mask of shape {mask.shape}"
            )  # fmt: skip
        if self._is_last(x.ndim):
            return super().forward(x, mask, training)
        order = self._order(x.ndim)
        z, y = self._moved("z", x, order), self.buffer("y", *x.shape)
        rows = z.reshape(-1, self._columns(x.shape))
        self.kernels.softmax_forward(rows, rows)
        permute(self.kernels, y, z, inverse(order))
        self._saved = z
        return y, None

    def _columns(self, shape: tuple[int, ...]) -> int:
        """How many numbers have the sum one."""
        return math.prod(shape[n % len(shape)] for n in self._axes)

    def _moved(self, name: str, x: Any, order: tuple[int, ...]) -> Any:
        z = self.buffer(name, len(x), *(x.shape[n] for n in order))
        permute(self.kernels, z, x, order)
        return z

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """The gradient of the softmax, with axes moved as before."""
        if self._is_last(dy.ndim) or not input_gradient:
            return super().backward(dy, input_gradient)
        order, z = self._order(dy.ndim), self._saved
        dz, dx = self._moved("dz", dy, order), self.gradient("dx", *dy.shape)
        rows, probabilities = (a.reshape(-1, self._columns(dy.shape)) for a in (dz, z))
        self.kernels.softmax_backward(rows, rows, probabilities)
        permute(self.kernels, dx, dz, inverse(order))
        return dx


class PReLU(Layer):
    """Rectify, with slopes below zero that are learnt: ``max(x, 0) + alpha * min(x, 0)``.

    Parameters
    ----------
    alpha_initializer : str or Initializer
    alpha_regularizer : str or Regularizer, optional
    alpha_constraint : str or Constraint, optional
    shared_axes : int or list of ints, optional
        Axes, counted from 1, along which all elements share a slope: [1, 2] for images.

    Notes
    -----
    Weight: alpha, of the shape of a sample with ones for the shared axes. He et al. 2015,
    arXiv:1502.01852.

    Examples
    --------
    >>> from minicnnrnn import layers
    >>> layers.PReLU(alpha_initializer="ones")([[-2.0, 2.0]])
    array([[-2.,  2.]], dtype=float32)
    """

    supports_masking = True
    alpha = WeightView()

    def __init__(
        self,
        alpha_initializer: Any = "zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._alpha = (
            self.initializer(alpha_initializer),
            self.regularizer(alpha_regularizer),
            self.constraint(alpha_constraint),
        )
        given = shared_axes if isinstance(shared_axes, tuple | list) else (shared_axes,)
        axes = () if shared_axes is None else tuple(given)
        if not all(shapes.is_integer(axis, 1) for axis in axes):
            self.fail("shared_axes to be axes behind the batch, counted from 1", repr(shared_axes))
        self.shared_axes = axes

    def _alpha_shape(self, input_shape: Shape) -> Shape:
        sizes = enumerate(input_shape[1:], 1)
        return tuple(1 if axis in self.shared_axes else n for axis, n in sizes)

    def check_input(self, input_shape: Shape) -> None:
        """Axes that are not shared have to be known, and as they were built for."""
        wanted = self._alpha_shape(input_shape)
        if (
            None in wanted
            or len(input_shape) < 2
            or len(input_shape) <= max(self.shared_axes, default=1)
        ):
            self.fail("inputs with known axes, but for the shared ones", input_shape)
        if self.built and wanted != self.weights[0].shape:
            self.fail(f"inputs for slopes of shape {self.weights[0].shape}", input_shape)

    def build(self, input_shape: Shape) -> None:
        """Declare the slopes."""
        shape = tuple(n for n in self._alpha_shape(input_shape) if n is not None)
        self.add_weight("alpha", shape, *self._alpha)

    def _axes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Five axes for the input, the batch first, and for the slopes."""
        x_axes, w_axes = shapes.merge_axes(shape[1:], self.weights[0].shape, 4)
        return (shape[0], *x_axes), (1, *w_axes)

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Rectify."""
        axes, slopes = self._axes(x.shape)
        y, w = self.buffer("y", *x.shape), self.weights[0].value.reshape(slopes)
        self.kernels.prelu_forward(y.reshape(axes), x.reshape(axes), w)
        self._saved = x
        return y, mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Gradients of slopes and input."""
        (axes, slopes), weight = self._axes(dy.shape), self.weights[0]
        x5, dy5 = self._saved.reshape(axes), dy.reshape(axes)
        if weight.trainable:
            ws = self.buffer("sums", max(self.kernels.prelu_workspace(weight.size), 1))
            self.kernels.prelu_backward_weight(weight.gradient.reshape(slopes), dy5, x5, ws)
        if not input_gradient:
            return None
        dx = self.gradient("dx", *dy.shape)
        self.kernels.prelu_backward_input(dx.reshape(axes), dy5, x5, weight.value.reshape(slopes))
        return dx
