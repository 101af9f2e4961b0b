"""Conv1DTranspose, Conv2DTranspose, Conv3DTranspose."""

from typing import Any

from minicnnrnn import shapes
from minicnnrnn.layers.base import Shape
from minicnnrnn.layers.conv_base import BaseConv, Sizes
from minicnnrnn.parameters import WeightView


def output_length(
    length: int, kernel: int, stride: int, dilation: int, padding: str, output_padding: int | None
) -> int:
    """Length of a transposed convolution's output along one axis, by Keras' rules.

    Parameters
    ----------
    length, kernel, stride, dilation : int
        Length of the input, extent of the kernel, distance of neighbouring inputs and of
        neighbouring taps in the output.
    padding : str
        ``"valid"``: all that the inputs reach, and at least `stride` for each. ``"same"``:
        `stride` outputs for each input.
    output_padding : int or None
        Outputs behind those that the last input's tap in the middle gives ("same") or its last
        tap ("valid"); ``None`` is as described above.

    Examples
    --------
    >>> output_length(4, 3, 2, 1, "valid", None), output_length(4, 3, 2, 1, "same", None)
    (9, 8)
    >>> output_length(4, 3, 2, 1, "same", 0)
    7
    """
    extent = shapes.dilated_extent(kernel, dilation)
    if padding == "valid":
        behind = max(stride - extent, 0) if output_padding is None else output_padding
        return (length - 1) * stride + extent + behind
    if output_padding is None:
        return length * stride
    return (length - 1) * stride + extent % 2 + output_padding


def padding_before(
    kernel: int, stride: int, dilation: int, padding: str, output_padding: int | None
) -> int:
    """Count the outputs that are cut off before the first; parameters as in `output_length`.

    Of what "same" leaves of an input's window, the odd one lies in front.

    Examples
    --------
    >>> padding_before(3, 2, 1, "same", None), padding_before(4, 1, 1, "same", None)
    (0, 1)
    """
    extent = shapes.dilated_extent(kernel, dilation)
    if padding == "valid":
        return 0
    if output_padding is None:
        kept = stride + extent - 2
    else:
        kept = extent + extent % 2 - 2 + output_padding
    return max(extent - 1 - (kept + 1) // 2, 0)


class ConvTranspose(BaseConv):
    """Transposed convolution in `rank` dimensions: what the three layers share.

    Every input element is spread over a window of outputs, `strides` apart: the way of a
    convolution's gradient, which makes small images large.
    """

    kernel = WeightView()

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        output_padding: Any = None,
        data_format: str | None = None,
        dilation_rate: Any = 1,
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
        rules = {
            "kernel": (kernel_initializer, kernel_regularizer, kernel_constraint),
            "bias": (bias_initializer, bias_regularizer, bias_constraint),
        }
        super().__init__(
            kernel_size, strides, padding, data_format, dilation_rate, activation, use_bias, rules,
            activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.check_steps()
        (self.filters,) = shapes.to_tuple(filters, 1, "filters", self.name)
        self.output_padding: tuple[int, ...] | None = None
        if output_padding is not None:
            self.output_padding = shapes.to_tuple(
                output_padding, self.rank, "output_padding", self.name, minimum=0
            )
            if any(p >= s for p, s in zip(self.output_padding, self.strides)):
                self.fail(f"output_padding below strides={self.strides}", self.output_padding)

    def kernel_outputs(self, channels: int) -> int:
        """One channel for each filter."""
        return self.filters

    def _axis(self, axis: int) -> tuple[int, int, int, str, int | None]:
        extra = None if self.output_padding is None else self.output_padding[axis]
        steps = self.strides[axis], self.dilation_rate[axis]
        return self.kernel_size[axis], *steps, self.padding, extra

    def output_length(self, axis: int, length: int | None) -> int | None:
        """Outputs along an axis of this length."""
        return None if length is None else output_length(length, *self._axis(axis))

    def padding_before(self, axis: int, length: int) -> int:
        """Outputs cut off before the first."""
        return padding_before(*self._axis(axis))

    def least_input(self) -> str:
        """Only a single input can be without an output: cut at both sides, none added."""
        return "inputs of at least 2 along each axis, or output_padding"

    def build(self, input_shape: Shape) -> None:
        """Declare kernel and bias."""
        assert input_shape[-1] is not None
        self.channels = input_shape[-1]
        self.declare("kernel", *self.kernel_size, self.filters, self.channels)
        if self.use_bias:
            self.declare("bias", self.filters)

    def workspace_size(self, x: Sizes, y: Sizes, w: Sizes, integers: Sizes) -> int:
        """Floats of workspace for these shapes."""
        size: int = self.kernels.conv_transpose_workspace(*x, *y[1:], *w[:3], *integers[:6])
        return size

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Spread, add the bias, activate."""
        plan = self.plan(x.shape)
        ws, _ = self.workspace(plan.workspace, training)
        w = self.weights[0].value.reshape(plan.w)
        z, relu = self.buffer("y", *plan.outputs), self.activation.is_relu
        self.kernels.conv_transpose_forward(
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
            self.kernels.conv_transpose_backward_weight(
                dw, db, x.reshape(plan.x), dz, *plan.integers, ws
            )
        dx = None
        if input_gradient:
            dx, w = self.gradient("dx", *x.shape), weight.value.reshape(plan.w)
            self.kernels.conv_transpose_backward_input(
                dx.reshape(plan.x), dz, w, *plan.integers, ws
            )
        self.give_back(dz, dy)
        return dx


class Conv1DTranspose(ConvTranspose):
    """Transposed convolution of sequences: (batch, steps, channels) to (..., filters).

    Parameters
    ----------
    filters : int
        Number of filters: channels of the output.
    kernel_size : int or tuple of 1 int
    strides : int or tuple of 1 int
        Outputs from one input to the next.
    padding : {"valid", "same"}
        "same": `strides` outputs for each input.
    output_padding : int or tuple of 1 int, optional
        Below `strides`. Left out, the output is as long as `padding` says.
    data_format : {None, "channels_last"}
    dilation_rate : int or tuple of 1 int
        Distance of the outputs that a filter reaches. Above 1 only with strides of 1.
    activation : str, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional

    Notes
    -----
    Weights: kernel (kernel_size, filters, channels), bias (filters,).

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer = layers.Conv1DTranspose(1, 2, strides=2, kernel_initializer="ones")
    >>> layer(np.arange(1.0, 4.0).reshape(1, 3, 1)).ravel()
    array([1., 1., 2., 2., 3., 3.], dtype=float32)
    """

    rank = 1


class Conv2DTranspose(ConvTranspose):
    """Transposed convolution of images: (batch, height, width, channels) to (..., filters).

    Parameters
    ----------
    filters : int
        Number of filters: channels of the output.
    kernel_size : int or tuple of 2 ints
    strides : int or tuple of 2 ints
        Outputs from one input to the next.
    padding : {"valid", "same"}
        "same": `strides` outputs for each input.
    output_padding : int or tuple of 2 ints, optional
        Below `strides`. Left out, the output is as long as `padding` says.
    data_format : {None, "channels_last"}
    dilation_rate : int or tuple of 2 ints
        Distance of the outputs that a filter reaches. Above 1 only with strides of 1.
    activation : str, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional

    Notes
    -----
    Weights: kernel (height, width, filters, channels), bias (filters,).

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.Conv2DTranspose(8, 3, strides=2, padding="same")(np.zeros((5, 7, 7, 3))).shape
    (5, 14, 14, 8)
    """

    rank = 2


class Conv3DTranspose(ConvTranspose):
    """Transposed convolution of volumes: (batch, depth, height, width, channels) to (..., filters).

    Parameters
    ----------
    filters : int
        Number of filters: channels of the output.
    kernel_size : int or tuple of 3 ints
    strides : int or tuple of 3 ints
        Outputs from one input to the next.
    padding : {"valid", "same"}
        "same": `strides` outputs for each input.
    output_padding : int or tuple of 3 ints, optional
        Below `strides`. Left out, the output is as long as `padding` says.
    data_format : {None, "channels_last"}
    dilation_rate : int or tuple of 3 ints
        Distance of the outputs that a filter reaches. Above 1 only with strides of 1.
    activation : str, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional

    Notes
    -----
    Weights: kernel (depth, height, width, filters, channels), bias (filters,).

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.Conv3DTranspose(4, 3)(np.zeros((2, 3, 4, 5, 1))).shape
    (2, 5, 6, 7, 4)
    """

    rank = 3
