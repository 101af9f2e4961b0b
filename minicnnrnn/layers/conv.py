"""Conv1D, Conv2D, Conv3D, and what all convolutions share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from minicnnrnn import shapes
from minicnnrnn.kernels.codes import LINEAR
from minicnnrnn.layers.activation import ActivationFunction
from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.layers.neighbours import Neighbour, plain, relu_at
from minicnnrnn.layers.normalization import BatchNormalization
from minicnnrnn.layers.pool import Pooling, pairs_at
from minicnnrnn.parameters import WeightView

Sizes = tuple[int, ...]
Rule = tuple[Any, Any, Any]  # how to initialize, regularize and constrain a weight


class Plan(NamedTuple):
    """What the kernels want to know about inputs of one shape.

    Attributes
    ----------
    outputs : shape of the layer's output
    x, y, w : shapes of input, output and weights, with the axes that the kernels have
    integers : strides, dilation and padding along each axis
    workspace : floats
    algorithm : the kernels to call, where there are several that compute the same
    pooled : floats of workspace with the maxima of 2 x 2 outputs in one; 0 where that is slower
    """

    outputs: Sizes
    x: Sizes
    y: Sizes
    w: Sizes
    integers: Sizes
    workspace: int
    algorithm: str = ""
    pooled: int = 0


class Followers(NamedTuple):
    """What predictions take into a convolution, and how many layers that is with its own."""

    normalization: BatchNormalization | None
    relu: bool
    pooling: Pooling | None
    taken: int


def fastest(kernels: Any, sizes: Sizes) -> str:
    """The prefix of the kernels that convolve such sizes fastest."""
    for name in ("winograd_streamed", "winograd", "winograd_line"):
        if getattr(kernels, f"{name}_pays")(*sizes):
            return name
    return "conv"


class BaseConv(Layer, ABC):
    """What all convolutions share: windows that slide over `rank` axes, a bias, an activation.

    The kernels have `axes` spatial axes; samples with fewer have leading ones.

    Parameters
    ----------
    rules : dict
        For each weight its initializer, regularizer and constraint, or their names.
    """

    rank = 0
    axes = 3
    paddings: tuple[str, ...] = ("valid", "same")
    bias = WeightView()

    def __init__(
        self,
        kernel_size: Any,
        strides: Any,
        padding: str,
        data_format: str | None,
        dilation_rate: Any,
        activation: Any,
        use_bias: bool,
        rules: dict[str, Rule],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.check_data_format(data_format)
        self.kernel_size = shapes.to_tuple(kernel_size, self.rank, "kernel_size", self.name)
        self.strides = shapes.to_tuple(strides, self.rank, "strides", self.name)
        self.dilation_rate = shapes.to_tuple(dilation_rate, self.rank, "dilation_rate", self.name)
        self.padding = padding.lower() if isinstance(padding, str) else padding
        if self.padding not in self.paddings:
            self.fail(f"padding to be one of {self.paddings}", repr(padding))
        self.activation = ActivationFunction(activation, self)
        self.use_bias = bool(use_bias)
        self.rules = {
            name: (
                self.initializer(initializer),
                self.regularizer(regularizer),
                self.constraint(constraint),
            )
            for name, (initializer, regularizer, constraint) in rules.items()
        }
        self.channels: int | None = None  # of the inputs that it is built for

    def check_steps(self) -> None:
        """Strides and dilation exclude each other, as in Keras."""
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            self.fail(
                "strides or dilation_rate to be 1",
                f"strides={self.strides}, dilation_rate={self.dilation_rate}",
            )

    def declare(self, name: str, *shape: int) -> None:
        """Declare a weight by its rules."""
        self.add_weight(name, shape, *self.rules[name])

    def check_input(self, input_shape: Shape) -> None:
        """The right rank, known channels, and enough of them for an output."""
        if len(input_shape) != self.rank + 2 or input_shape[-1] is None:
            axes = ("length", "height, width", "depth, height, width")[self.rank - 1]
            self.fail(f"inputs (batch, {axes}, channels) with known channels", input_shape)
        if self.built and input_shape[-1] != self.channels:
            self.fail(f"inputs with {self.channels} channels", input_shape)
        outputs = self.compute_output_shape(input_shape)
        self.activation.check_outputs(outputs[-1])
        if any(n is not None and n < 1 for n in outputs[1:]):
            self.fail(self.least_input(), input_shape)

    def least_input(self) -> str:
        """What an error says is expected where nothing would come out."""
        reach = tuple(map(shapes.dilated_extent, self.kernel_size, self.dilation_rate))
        return f"inputs of at least the kernel's extent {reach}"

    @abstractmethod
    def kernel_outputs(self, channels: int) -> int:
        """Channels that come out of the windows."""

    def outputs(self, channels: int) -> int:
        """Channels of the layer's output."""
        return self.kernel_outputs(channels)

    def output_length(self, axis: int, length: int | None) -> int | None:
        """Outputs along an axis of this length."""
        k, s, d = self.kernel_size[axis], self.strides[axis], self.dilation_rate[axis]
        return shapes.output_length(length, k, s, d, self.padding)

    def padding_before(self, axis: int, length: int) -> int:
        """Padding before the first element of an axis of this length."""
        k, s, d = self.kernel_size[axis], self.strides[axis], self.dilation_rate[axis]
        return shapes.padding_before(length, k, s, d, self.padding)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(batch, outputs along each spatial axis, channels)."""
        lengths = (self.output_length(*axis) for axis in enumerate(input_shape[1:-1]))
        channels = None if input_shape[-1] is None else self.outputs(input_shape[-1])
        return (input_shape[0], *lengths, channels)

    @abstractmethod
    def workspace_size(self, x: Sizes, y: Sizes, w: Sizes, integers: Sizes) -> int:
        """Floats of workspace for these shapes."""

    def algorithm(self, x: Sizes, y: Sizes, w: Sizes, integers: Sizes) -> str:
        """The kernels to call for these shapes, where there are several."""
        return ""

    def plan(self, x_shape: Sizes) -> Plan:
        """Everything that the kernels want for inputs of this shape."""
        found = self._plans.get(x_shape)
        if found is None:
            missing = self.axes - self.rank
            ones, zeros = (1,) * missing, (0,) * missing
            outputs: Any = self.compute_output_shape(x_shape)
            pads = (self.padding_before(*axis) for axis in enumerate(x_shape[1:-1]))
            x = (x_shape[0], *ones, *x_shape[1:])
            y = (x_shape[0], *ones, *outputs[1:-1], self.kernel_outputs(x_shape[-1]))
            w = (*ones, *self.weights[0].shape)
            integers = (*ones, *self.strides, *ones, *self.dilation_rate, *zeros, *pads)
            size = self.workspace_size(x, y, w, integers)
            if len(self._plans) > 64:  # sequences of ever new lengths
                self._plans.clear()
            algorithm = self.algorithm(x, y, w, integers)
            pooled = self.pooled_size(algorithm, x, y, w, integers)
            found = Plan(outputs, x, y, w, integers, size, algorithm, pooled)
            self._plans[x_shape] = found
        return found

    def pooled_size(self, algorithm: str, x: Sizes, y: Sizes, w: Sizes, integers: Sizes) -> int:
        """Floats of workspace for a convolution with the maxima behind it; 0 for none."""
        return 0


class Conv(BaseConv, Neighbour):
    """Convolution in `rank` dimensions: what Conv1D, Conv2D and Conv3D share.

    A bank of filters slides over the sample; each gives one channel of the output.
    """

    kernel = WeightView()

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
        (self.groups,) = shapes.to_tuple(groups, 1, "groups", self.name)
        self._packed: Any = None  # what the weights are packed for
        if self.filters % self.groups:
            self.fail(f"filters to be a multiple of groups={self.groups}", self.filters)

    def kernel_outputs(self, channels: int) -> int:
        """One channel for each filter."""
        return self.filters

    def check_input(self, input_shape: Shape) -> None:
        """Channels that the groups can share, too."""
        super().check_input(input_shape)
        if (input_shape[-1] or 0) % self.groups:
            self.fail(f"channels to be a multiple of groups={self.groups}", input_shape)

    def build(self, input_shape: Shape) -> None:
        """Declare kernel and bias."""
        assert input_shape[-1] is not None
        self.channels = input_shape[-1]
        self.declare("kernel", *self.kernel_size, self.channels // self.groups, self.filters)
        if self.use_bias:
            self.declare("bias", self.filters)

    def workspace_size(self, x: Sizes, y: Sizes, w: Sizes, integers: Sizes) -> int:
        """Floats of workspace for these shapes."""
        kernel = self.kernel_of(self.algorithm(x, y, w, integers), "workspace")
        size: int = kernel(*x, *y[1:], *w[:3], *integers[:6], self.groups)
        return size

    def algorithm(self, x: Sizes, y: Sizes, w: Sizes, integers: Sizes) -> str:
        """Winograd's convolutions where they are faster, else the direct one."""
        return fastest(self.kernels, (*x, *y[1:], *w[:3], *integers[:6], self.groups))

    def pooled_size(self, algorithm: str, x: Sizes, y: Sizes, w: Sizes, integers: Sizes) -> int:
        """Floats of workspace for a convolution with the maxima behind it; 0 for none."""
        sizes = (*x, *y[1:], *w[:3], *integers[:6], self.groups)
        if algorithm != "conv" or not self.kernels.conv_pool_pays(*sizes):
            return 0
        size: int = self.kernels.conv_pool_workspace(*sizes)
        return size

    def kernel_of(self, algorithm: str, name: str) -> Any:
        """One of the algorithm's kernels; their parameters are the same."""
        return getattr(self.kernels, f"{algorithm}_{name}")

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Convolve, add the bias, activate."""
        relu = self.activation.is_relu
        y = self.activation.forward(self._convolve(x, relu, training), applied=relu)
        self._saved = x, y
        return y, self.pass_mask(mask)

    def run_among(
        self, layers: Sequence[Layer], index: int, x: Any, mask: Any, training: bool
    ) -> tuple[Any, Any, int]:
        """Without training, take what follows into the convolution.

        A batch normalization's map of every channel is one of every filter and bias. It is made
        where the weights are packed, and predictions of a ResNet-20 take 0.8 of the time without
        its pass over memory and that of the relu behind it. Maxima over 2 x 2 outputs are found
        before these are written, where that is faster: predictions of a small CNN take 0.86.
        """
        if training or mask is not None or not plain(self, Conv):
            return *self.run_forward(x, mask, training), 1
        found = self.followers(layers, index, x.shape)
        if found.taken == 1:
            return *self.run_forward(x, mask, training), 1
        y = self._convolve(x, found.relu, training, found.normalization, found.pooling)
        return y, None, found.taken

    def followers(self, layers: Sequence[Layer], index: int, x_shape: Sizes) -> Followers:
        """The layers behind this one of a chain that predictions take into it."""
        normalization, relu, count = None, self.activation.is_relu, 1
        behind = layers[index + 1] if index + 1 < len(layers) else None
        linear = self.activation.code == LINEAR
        if linear and isinstance(behind, BatchNormalization) and behind.maps(self.rank + 1):
            normalization, relu = behind, relu_at(layers, index + 2)
            count = 3 if relu else 2
        pooling = pairs_at(layers, index + count) if relu or linear else None
        if pooling is not None and not self.plan(x_shape).pooled:
            pooling = None
        return Followers(normalization, relu, pooling, count + (pooling is not None))

    def _convolve(
        self,
        x: Any,
        relu: bool,
        training: bool,
        normalization: BatchNormalization | None = None,
        pooling: Pooling | None = None,
    ) -> Any:
        """The outputs, before an activation other than a relu, or their maxima."""
        plan = self.plan(x.shape)
        ws, stale = self.workspace(max(plan.workspace, plan.pooled), training)
        w, b = self.weights[0].value.reshape(plan.w), self.bias_value()
        packed: Any = plan.algorithm, normalization and normalization.version[0]
        stale = stale or self._packed != packed
        if normalization is not None:
            w, b = self._normalized(w, b, normalization, stale)
        if stale:
            self.kernel_of(plan.algorithm, "prepare")(w, self.groups, ws)
        if not training and self._packed != packed:
            assert self.context is not None
            self._packed = packed
            self.context.packings += 1
        if pooling is None:
            forward, shape = self.kernel_of(plan.algorithm, "forward"), plan.y
            y = self.buffer("y", *plan.outputs)
        else:
            forward, (N, D, H, W, F) = self.kernels.conv_pool_forward, plan.y
            shape = (N, D, H // 2, W // 2, F)
            outputs: Any = pooling.compute_output_shape(plan.outputs)
            y = pooling.buffer("y", *outputs)
        forward(
            y.reshape(shape), x.reshape(plan.x), w, b, *plan.integers, self.groups, int(relu), ws
        )
        return y

    def _normalized(
        self, w: Any, b: Any, normalization: BatchNormalization, stale: bool
    ) -> tuple[Any, Any]:
        """Kernel and bias with a normalization in them, in memory of their own."""
        folded, offset = self.buffer("folded", *w.shape), self.buffer("offset", self.filters)
        if stale:
            normalization.fold(folded.reshape(-1, self.filters), w.reshape(-1, self.filters), False)
            bias = b if b.size else self.device.zeros((self.filters,))
            normalization.fold(offset.reshape(1, -1), bias.reshape(1, -1), True)
        return folded, offset

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Gradients of kernel, bias and input."""
        (x, y), weight = self._saved, self.weights[0]
        plan = self.plan(x.shape)
        ws, _ = self.workspace(plan.workspace, training=True)
        if self.activation.is_relu and max(self.kernel_size) > 1:
            # The kernels undo the relu while they read dy: it takes no pass of its own.
            dz, y = dy.reshape(plan.y), y.reshape(plan.y)
        else:
            dz, y = self.activation.backward(dy).reshape(plan.y), self.buffer("no relu", *(0,) * 5)
        if weight.trainable:
            dw, db = weight.gradient.reshape(plan.w), self.bias_gradient()
            self.kernel_of(plan.algorithm, "backward_weight")(
                dw, db, x.reshape(plan.x), dz, y, *plan.integers, self.groups, ws
            )
        dx = None
        if input_gradient:
            dx, w = self.gradient("dx", *x.shape), weight.value.reshape(plan.w)
            self.kernel_of(plan.algorithm, "backward_input")(
                dx.reshape(plan.x), dz, y, w, *plan.integers, self.groups, ws
            )
        self.give_back(dz, dy)
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
    kernel_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional

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
    kernel_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional

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
    kernel_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional

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
