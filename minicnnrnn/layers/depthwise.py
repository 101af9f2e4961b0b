"""DepthwiseConv1D and 2D, SeparableConv1D and 2D."""

from typing import Any

from minicnnrnn import shapes
from minicnnrnn.layers.base import Shape
from minicnnrnn.layers.conv_base import BaseConv, Plan, Sizes
from minicnnrnn.parameters import WeightView


class BaseDepthwise(BaseConv):
    """What all layers with filters of their own for every channel share."""

    axes = 2
    depth_multiplier: int

    def kernel_outputs(self, channels: int) -> int:
        """`depth_multiplier` channels for each."""
        return channels * self.depth_multiplier

    def workspace_size(self, x: Sizes, y: Sizes, w: Sizes, integers: Sizes) -> int:
        """Floats of workspace for these shapes."""
        (height, width), multiplier = y[1:3], self.depth_multiplier
        size: int = self.kernels.depthwise_workspace(*x, height, width, multiplier, *w[:2])
        return size


class DepthwiseConv(BaseDepthwise):
    """Depthwise convolution in `rank` dimensions: what both layers share.

    Every channel is convolved with `depth_multiplier` filters of its own.
    """

    kernel = WeightView()

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: str | None = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        rules = {
            "kernel": (depthwise_initializer, depthwise_regularizer, depthwise_constraint),
            "bias": (bias_initializer, bias_regularizer, bias_constraint),
        }
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, rules,
            activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        (self.depth_multiplier,) = shapes.to_tuple(
            depth_multiplier, 1, "depth_multiplier", self.name
        )

    def build(self, input_shape: Shape) -> None:
        """Declare kernel and bias."""
        assert input_shape[-1] is not None
        self.channels = input_shape[-1]
        self.declare("kernel", *self.kernel_size, self.channels, self.depth_multiplier)
        if self.use_bias:
            self.declare("bias", self.channels * self.depth_multiplier)

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Convolve every channel, add the bias, activate."""
        plan = self.plan(x.shape)
        ws, _ = self.workspace(plan.workspace, training)
        w = self.weights[0].value.reshape(plan.w)
        z, relu = self.buffer("y", *plan.outputs), self.activation.is_relu
        self.kernels.depthwise_forward(
            z.reshape(plan.y), x.reshape(plan.x), w, self.bias_value(), *plan.integers,
            int(relu), ws,
        )  # fmt: skip
        self._saved = x
        return self.activation.forward(z, applied=relu), self.pass_mask(mask)

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Gradients of kernel, bias and input."""
        x, weight = self._saved, self.weights[0]
        plan = self.plan(x.shape)
        ws, _ = self.workspace(plan.workspace, training=True)
        dz = self.activation.backward(dy).reshape(plan.y)
        if weight.trainable:
            dw, db = weight.gradient.reshape(plan.w), self.bias_gradient()
            self.kernels.depthwise_backward_weight(
                dw, db, x.reshape(plan.x), dz, *plan.integers, ws
            )
        dx = None
        if input_gradient:
            dx, w = self.gradient("dx", *x.shape), weight.value.reshape(plan.w)
            self.kernels.depthwise_backward_input(dx.reshape(plan.x), dz, w, *plan.integers, ws)
        self.give_back(dz, dy)
        return dx


class SeparableConv(BaseDepthwise):
    """Separable convolution in `rank` dimensions: what both layers share.

    A depthwise convolution without a bias, and a dense layer over the channels of every pixel.
    """

    depthwise_kernel, pointwise_kernel = WeightView(), WeightView()

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        depth_multiplier: int = 1,
        activation: str | None = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        depthwise = depthwise_initializer, depthwise_regularizer, depthwise_constraint
        pointwise = pointwise_initializer, pointwise_regularizer, pointwise_constraint
        rules = {
            "depthwise_kernel": depthwise,
            "pointwise_kernel": pointwise,
            "bias": (bias_initializer, bias_regularizer, bias_constraint),
        }
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, rules,
            activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        (self.filters,) = shapes.to_tuple(filters, 1, "filters", self.name)
        (self.depth_multiplier,) = shapes.to_tuple(
            depth_multiplier, 1, "depth_multiplier", self.name
        )

    def outputs(self, channels: int) -> int:
        """One channel for each filter."""
        return self.filters

    def build(self, input_shape: Shape) -> None:
        """Declare both kernels and the bias."""
        assert input_shape[-1] is not None
        self.channels = input_shape[-1]
        self.declare("depthwise_kernel", *self.kernel_size, self.channels, self.depth_multiplier)
        between = self.kernel_outputs(self.channels)
        self.declare("pointwise_kernel", *(1,) * self.rank, between, self.filters)
        if self.use_bias:
            self.declare("bias", self.filters)

    def _workspaces(self, plan: Plan, training: bool) -> tuple[Any, Any, bool]:
        """The workspaces of both halves, and whether the pointwise kernel has to be packed."""
        pixels = plan.y[0] * plan.y[1] * plan.y[2]
        size = self.kernels.dense_workspace(pixels, plan.y[-1], self.filters)
        size = (size + 15) // 16 * 16  # the second half begins on a cache line, too
        ws, stale = self.workspace(size + plan.workspace, training)
        return ws[size:], ws[:size], stale

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Convolve every channel, mix them, add the bias, activate."""
        plan = self.plan(x.shape)
        depthwise, pointwise = (weight.value for weight in self.weights[:2])
        depthwise_ws, pointwise_ws, stale = self._workspaces(plan, training)
        between, w = self.buffer("between", *plan.y), pointwise.reshape(-1, self.filters)
        self.kernels.depthwise_forward(
            between, x.reshape(plan.x), depthwise.reshape(plan.w), self.buffer("no bias", 0),
            *plan.integers, 0, depthwise_ws,
        )  # fmt: skip
        if stale:
            self.kernels.dense_prepare(w, pointwise_ws)
        z, relu = self.buffer("y", *plan.outputs), self.activation.is_relu
        self.kernels.dense_forward(
            z.reshape(-1, self.filters), between.reshape(-1, len(w)), w, self.bias_value(),
            int(relu), pointwise_ws,
        )  # fmt: skip
        self._saved = x, between
        return self.activation.forward(z, applied=relu), self.pass_mask(mask)

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Gradients of both kernels, the bias and the input."""
        x, between = self._saved
        plan, (depthwise, pointwise) = self.plan(x.shape), self.weights[:2]
        depthwise_ws, pointwise_ws, _ = self._workspaces(plan, training=True)
        w = pointwise.value.reshape(-1, self.filters)
        dz = self.activation.backward(dy).reshape(-1, self.filters)
        if pointwise.trainable:
            dw, db = pointwise.gradient.reshape(w.shape), self.bias_gradient()
            self.kernels.dense_backward_weight(
                dw, db, between.reshape(-1, len(w)), dz, pointwise_ws
            )
        if not (input_gradient or depthwise.trainable):
            return None
        dbetween = self.gradient("dbetween", *plan.y)
        self.kernels.dense_backward_input(dbetween.reshape(-1, len(w)), dz, w, pointwise_ws)
        self.give_back(dz, dy)
        if depthwise.trainable:
            self.kernels.depthwise_backward_weight(
                depthwise.gradient.reshape(plan.w), self.buffer("no bias", 0), x.reshape(plan.x),
                dbetween, *plan.integers, depthwise_ws,
            )  # fmt: skip
        dx = None
        if input_gradient:
            dx, w = self.gradient("dx", *x.shape), depthwise.value.reshape(plan.w)
            self.kernels.depthwise_backward_input(
                dx.reshape(plan.x), dbetween, w, *plan.integers, depthwise_ws
            )
        self.give_back(dbetween)
        return dx


class DepthwiseConv1D(DepthwiseConv):
    """Depthwise convolution of sequences: every channel with its own filters.

    Parameters
    ----------
    kernel_size : int or tuple of 1 int
    strides : int or tuple of 1 int
    padding : {"valid", "same"}
    depth_multiplier : int
        Filters of every channel.
    data_format : {None, "channels_last"}
    dilation_rate : int or tuple of 1 int
        Distance between the steps that a filter sees.
    activation : str, optional
    use_bias : bool
    depthwise_initializer, bias_initializer : str or Initializer
    depthwise_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    depthwise_constraint, bias_constraint : str or Constraint, optional

    Notes
    -----
    Weights: kernel (kernel_size, channels, depth_multiplier), bias
    (channels depth_multiplier,). The filters of a channel lie side by side in the output.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer = layers.DepthwiseConv1D(2, depthwise_initializer="ones")
    >>> layer(np.arange(6.0).reshape(1, 3, 2))
    array([[[2., 4.],
            [6., 8.]]], dtype=float32)
    """

    rank = 1


class DepthwiseConv2D(DepthwiseConv):
    """Depthwise convolution of images: every channel with its own filters.

    Parameters
    ----------
    kernel_size : int or tuple of 2 ints
    strides : int or tuple of 2 ints
    padding : {"valid", "same"}
    depth_multiplier : int
        Filters of every channel.
    data_format : {None, "channels_last"}
    dilation_rate : int or tuple of 2 ints
        Distance between the pixels that a filter sees.
    activation : str, optional
    use_bias : bool
    depthwise_initializer, bias_initializer : str or Initializer
    depthwise_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    depthwise_constraint, bias_constraint : str or Constraint, optional

    Notes
    -----
    Weights: kernel (height, width, channels, depth_multiplier), bias
    (channels depth_multiplier,). The filters of a channel lie side by side in the output.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)
    >>> layer(np.zeros((5, 7, 7, 3))).shape
    (5, 7, 7, 6)
    """

    rank = 2


class SeparableConv1D(SeparableConv):
    """Depthwise convolution of sequences, then a mix of the channels.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size : int or tuple of 1 int
    strides : int or tuple of 1 int
    padding : {"valid", "same"}
    data_format : {None, "channels_last"}
    dilation_rate : int or tuple of 1 int
        Distance between the steps that a filter sees.
    depth_multiplier : int
        Filters of every channel.
    activation : str, optional
    use_bias : bool
    depthwise_initializer, pointwise_initializer, bias_initializer : str or Initializer
    depthwise_regularizer, pointwise_regularizer, bias_regularizer, activity_regularizer :
        str or Regularizer, optional
    depthwise_constraint, pointwise_constraint, bias_constraint : str or Constraint, optional

    Notes
    -----
    Weights: depthwise_kernel (kernel_size, channels, depth_multiplier), pointwise_kernel
    (1, channels depth_multiplier, filters), bias (filters,). Chollet 2017, "Xception: Deep
    Learning with Depthwise Separable Convolutions", arXiv:1610.02357.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.SeparableConv1D(8, 3)(np.zeros((2, 9, 4))).shape
    (2, 7, 8)
    """

    rank = 1


class SeparableConv2D(SeparableConv):
    """Depthwise convolution of images, then a mix of the channels.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size : int or tuple of 2 ints
    strides : int or tuple of 2 ints
    padding : {"valid", "same"}
    data_format : {None, "channels_last"}
    dilation_rate : int or tuple of 2 ints
        Distance between the pixels that a filter sees.
    depth_multiplier : int
        Filters of every channel.
    activation : str, optional
    use_bias : bool
    depthwise_initializer, pointwise_initializer, bias_initializer : str or Initializer
    depthwise_regularizer, pointwise_regularizer, bias_regularizer, activity_regularizer :
        str or Regularizer, optional
    depthwise_constraint, pointwise_constraint, bias_constraint : str or Constraint, optional

    Notes
    -----
    Weights: depthwise_kernel (height, width, channels, depth_multiplier), pointwise_kernel
    (1, 1, channels depth_multiplier, filters), bias (filters,). Chollet 2017, "Xception: Deep
    Learning with Depthwise Separable Convolutions", arXiv:1610.02357.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer = layers.SeparableConv2D(8, 3)
    >>> layer(np.zeros((5, 7, 7, 3))).shape, layer.count_params()
    ((5, 5, 5, 8), 59)
    """

    rank = 2
