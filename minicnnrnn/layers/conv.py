"""Conv1D, Conv2D, Conv3D."""

from typing import Any

from minicnnrnn import shapes
from minicnnrnn.layers.activation import ActivationFunction
from minicnnrnn.layers.base import Layer, Shape, WeightView


class Conv(Layer):
    """Convolution in `rank` dimensions: what Conv1D, Conv2D and Conv3D share.

    A bank of filters slides over the sample; each gives one channel of the output. One- and
    two-dimensional samples are three-dimensional ones with leading axes of length one.
    """

    rank = 0
    paddings: tuple[str, ...] = ("valid", "same")
    kernel, bias = WeightView(), WeightView()

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        groups: int = 1,
        activation: str | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.check_data_format(data_format)
        self.refuse(
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )
        (self.filters,) = shapes.to_tuple(filters, 1, "filters", self.name)
        self.kernel_size = shapes.to_tuple(kernel_size, self.rank, "kernel_size", self.name)
        self.strides = shapes.to_tuple(strides, self.rank, "strides", self.name)
        self.dilation_rate = shapes.to_tuple(dilation_rate, self.rank, "dilation_rate", self.name)
        (self.groups,) = shapes.to_tuple(groups, 1, "groups", self.name)
        if padding not in self.paddings:
            self.fail(f"padding to be one of {self.paddings}", repr(padding))
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            self.fail(
                "strides or dilation_rate to be 1",
                f"strides={self.strides}, dilation_rate={self.dilation_rate}",
            )
        if self.filters % self.groups:
            self.fail(f"filters to be a multiple of groups={self.groups}", self.filters)
        self.padding = padding
        self.activation = ActivationFunction(activation, self)
        self.use_bias = bool(use_bias)
        self.initializers = (
            self.initializer(kernel_initializer),
            self.initializer(bias_initializer),
        )
        self._plans: dict[tuple[int, ...], Any] = {}

    def check_input(self, input_shape: Shape) -> None:
        """The right rank, known channels, and no spatial axis smaller than the kernel."""
        if len(input_shape) != self.rank + 2 or input_shape[-1] is None:
            axes = ", ".join(
                ["length", "height, width", "depth, height, width"][self.rank - 1 :][:1]
            )
            self.fail(f"inputs (batch, {axes}, channels) with known channels", input_shape)
        self.activation.check_outputs(self.filters)
        channels = int(input_shape[-1] or 0)
        if channels % self.groups:
            self.fail(f"channels to be a multiple of groups={self.groups}", input_shape)
        if self.built and channels != self.weights[0].shape[-2] * self.groups:
            self.fail(
                f"inputs with {self.weights[0].shape[-2] * self.groups} channels", input_shape
            )
        if any(n is not None and n < 1 for n in self.compute_output_shape(input_shape)[1:]):
            reach = tuple((k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation_rate))
            self.fail(f"inputs of at least the kernel's extent {reach}", input_shape)

    def build(self, input_shape: Shape) -> None:
        """Declare kernel and bias."""
        assert input_shape[-1] is not None
        shape = (*self.kernel_size, input_shape[-1] // self.groups, self.filters)
        self.add_weight("kernel", shape, self.initializers[0])
        if self.use_bias:
            self.add_weight("bias", (self.filters,), self.initializers[1])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(batch, outputs along each spatial axis, filters)."""
        lengths = (
            shapes.output_length(n, k, s, d, self.padding)
            for n, k, s, d in zip(
                input_shape[1:-1], self.kernel_size, self.strides, self.dilation_rate
            )
        )
        return (input_shape[0], *lengths, self.filters)

    def _plan(self, x_shape: tuple[int, ...]) -> Any:
        """All integers that the kernels want for inputs of this shape."""
        plan = self._plans.get(x_shape)
        if plan is None:
            ones = (1,) * (3 - self.rank)
            spatial = x_shape[1:-1]
            outputs = self.compute_output_shape(x_shape)
            pads = tuple(
                shapes.padding_before(n, k, s, d, self.padding)
                for n, k, s, d in zip(spatial, self.kernel_size, self.strides, self.dilation_rate)
            )
            zeros = (0,) * (3 - self.rank)
            x5 = (x_shape[0], *ones, *spatial, x_shape[-1])
            y5 = (x_shape[0], *ones, *outputs[1:-1], self.filters)
            strides, dilation = (*ones, *self.strides), (*ones, *self.dilation_rate)
            w5 = (*ones, *self.weights[0].shape)
            workspace = self.kernels.conv_workspace(
                *x5, *y5[1:], *w5[:3], *strides, *dilation, self.groups
            )
            geometry = (*strides, *dilation, *zeros, *pads, self.groups)
            if len(self._plans) > 64:  # sequences of ever new lengths
                self._plans.clear()
            plan = self._plans[x_shape] = (outputs, x5, y5, w5, geometry, workspace)
        return plan

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Convolve, add the bias, activate."""
        outputs, x5, y5, w5, geometry, size = self._plan(x.shape)
        w = self.weights[0].value.reshape(w5)
        ws, stale = self.workspace(size)
        if stale:
            self.kernels.conv_prepare(w, self.groups, ws)
        z, relu = self.buffer("y", *outputs), self.activation.is_relu
        self.kernels.conv_forward(
            z.reshape(y5), x.reshape(x5), w, self.bias_value(), *geometry, int(relu), ws
        )
        y = self.activation.forward(z, applied=relu)
        self._saved = x, y, ws
        return y, self.pass_mask(mask)

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Gradients of kernel, bias and input."""
        (x, y, ws), weight = self._saved, self.weights[0]
        _, x5, y5, w5, geometry, _ = self._plan(x.shape)
        if self.activation.is_relu and max(self.kernel_size) > 1:
            # The kernels undo the relu while they read dy: it takes no pass of its own.
            dz, y = dy.reshape(y5), y.reshape(y5)
        else:
            dz, y = self.activation.backward(dy).reshape(y5), self.buffer("no relu", *(0,) * 5)
        if weight.trainable:
            dw, db = weight.gradient.reshape(w5), self.bias_gradient()
            self.kernels.conv_backward_weight(dw, db, x.reshape(x5), dz, y, *geometry, ws)
        if not input_gradient:
            return None
        dx, w = self.buffer("dx", *x.shape), weight.value.reshape(w5)
        self.kernels.conv_backward_input(dx.reshape(x5), dz, y, w, *geometry, ws)
        return dx


class Conv1D(Conv):
    """Convolution along one axis: (batch, steps, channels) to (batch, new steps, filters).

    Parameters
    ----------
    filters : int
        Number of filters: channels of the output.
    kernel_size : int or tuple of 1 int
    strides : int or tuple of 1 int
    padding : {"valid", "same", "causal"}
        "causal" pads in front only: no output sees a later step.
    data_format : {None, "channels_last"}
    dilation_rate : int or tuple of 1 int
        Distance between the steps that a filter sees. Above 1 only with strides of 1.
    groups : int
        Channels and filters are cut into this many independent groups.
    activation : str, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer

    Notes
    -----
    Weights: kernel (kernel_size, channels / groups, filters), bias (filters,).

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer = layers.Conv1D(1, 2, kernel_initializer="ones")
    >>> layer(np.arange(4.0).reshape(1, 4, 1)).ravel()
    array([1., 3., 5.], dtype=float32)
    """

    rank = 1
    paddings = ("valid", "same", "causal")


class Conv2D(Conv):
    """Convolution of images: (batch, height, width, channels) to (batch, ..., ..., filters).

    Parameters
    ----------
    filters : int
        Number of filters: channels of the output.
    kernel_size : int or tuple of 2 ints
    strides : int or tuple of 2 ints
    padding : {"valid", "same"}
    data_format : {None, "channels_last"}
    dilation_rate : int or tuple of 2 ints
        Distance between the pixels that a filter sees. Above 1 only with strides of 1.
    groups : int
        Channels and filters are cut into this many independent groups.
    activation : str, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer

    Notes
    -----
    Weights: kernel (height, width, channels / groups, filters), bias (filters,).

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.Conv2D(8, 3, strides=2, padding="same")(np.zeros((5, 7, 7, 3))).shape
    (5, 4, 4, 8)
    """

    rank = 2


class Conv3D(Conv):
    """Convolution of volumes: (batch, depth, height, width, channels) to (..., filters).

    Parameters
    ----------
    filters : int
        Number of filters: channels of the output.
    kernel_size : int or tuple of 3 ints
    strides : int or tuple of 3 ints
    padding : {"valid", "same"}
    data_format : {None, "channels_last"}
    dilation_rate : int or tuple of 3 ints
        Distance between the voxels that a filter sees. Above 1 only with strides of 1.
    groups : int
        Channels and filters are cut into this many independent groups.
    activation : str, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer

    Notes
    -----
    Weights: kernel (depth, height, width, channels / groups, filters), bias (filters,).

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.Conv3D(4, 3)(np.zeros((2, 5, 6, 7, 1))).shape
    (2, 3, 4, 5, 4)
    """

    rank = 3
