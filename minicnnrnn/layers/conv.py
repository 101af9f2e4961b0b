"""Conv1D, Conv2D and Conv3D."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from minicnnrnn import shapes
from minicnnrnn.kernels.codes import LINEAR
from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.layers.conv_base import BaseConv, Sizes, fastest
from minicnnrnn.layers.neighbours import Neighbour, plain, relu_at
from minicnnrnn.layers.normalization import BatchNormalization
from minicnnrnn.layers.pool import PAIRS, Pooling, pairs_at
from minicnnrnn.parameters import WeightView


class Followers(NamedTuple):
    """What is taken into a convolution, and how many layers that is with its own."""

    normalization: BatchNormalization | None
    relu: bool
    pooling: Pooling | None
    taken: int


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
        y, _ = self._convolve(x, relu, training)
        y = self.activation.forward(y, applied=relu)
        self._saved = x, y, None
        return y, self.pass_mask(mask)

    def run_among(
        self, layers: Sequence[Layer], index: int, x: Any, mask: Any, training: bool
    ) -> tuple[Any, Any, int]:
        """Take what follows into the convolution.

        A batch normalization's map of every channel is one of every filter and bias, without
        training. It is made where the weights are packed, and predictions of a ResNet-20 take 0.8
        of the time without its pass over memory and that of the relu behind it. Maxima over 2 x 2
        outputs are found before these are written, where that is faster: predictions of a small
        CNN take 0.86 of the time, train steps 0.8.
        """
        if mask is not None or not plain(self, Conv):
            return *self.run_forward(x, mask, training), 1
        found = self.followers(layers, index, x.shape, training)
        if found.taken == 1:
            return *self.run_forward(x, mask, training), 1
        y, won = self._convolve(x, found.relu, training, found.normalization, found.pooling)
        if training:
            self._saved = x, self.activation.forward(y, applied=found.relu), won
        return y, None, found.taken

    def followers(
        self, layers: Sequence[Layer], index: int, x_shape: Sizes, training: bool = False
    ) -> Followers:
        """The layers behind this one of a chain that are taken into it."""
        normalization, relu, count = None, self.activation.is_relu, 1
        behind = layers[index + 1] if index + 1 < len(layers) else None
        linear = self.activation.code == LINEAR
        folds = linear and not training
        if folds and isinstance(behind, BatchNormalization) and behind.maps(self.rank + 1):
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
    ) -> tuple[Any, Any]:
        """The outputs, before an activation other than a relu, or their maxima and which won."""
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
        steps = *plan.integers, self.groups, int(relu), ws
        if pooling is None:
            y = self.buffer("y", *plan.outputs)
            forward = self.kernel_of(plan.algorithm, "forward")
            forward(y.reshape(plan.y), x.reshape(plan.x), w, b, *steps)
            return y, None
        N, D, H, W, F = plan.y
        outputs: Any = pooling.compute_output_shape(plan.outputs)
        y, shape = pooling.buffer("y", *outputs), (N, D, H // 2, W // 2, F)
        won = pooling.buffer("index uint8", *(shape if training else (0,) * 5), dtype="uint8")
        self.kernels.conv_pool_forward(y.reshape(shape), won, x.reshape(plan.x), w, b, *steps)
        return y, won

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
        (x, y, won), weight = self._saved, self.weights[0]
        plan, pooled = self.plan(x.shape), won is not None
        ws, _ = self.workspace(max(plan.workspace, plan.pooled), training=True)
        shape = won.shape if pooled else plan.y
        if (
            self.activation.is_relu
            and max(self.kernel_size) > 1
            and not (pooled and input_gradient)
        ):
            # The kernels undo the relu while they read dy: it takes no pass of its own.
            dz, y = dy.reshape(shape), y.reshape(shape)
        else:
            dz, y = self.activation.backward(dy).reshape(shape), self.buffer("no relu", *(0,) * 5)
        steps = *plan.integers, self.groups, ws
        if weight.trainable:
            dw, db = weight.gradient.reshape(plan.w), self.bias_gradient()
            arrays = dw, db, x.reshape(plan.x), dz, y
            if pooled:
                self.kernels.conv_pool_backward_weight(*arrays, won, *steps)
            else:
                self.kernel_of(plan.algorithm, "backward_weight")(*arrays, *steps)
        dx = None
        if input_gradient:
            if pooled:
                whole = self.gradient("dz of all outputs", *plan.y)
                self.kernels.max_pool_backward_input(whole, dz, won, *PAIRS)
                self.give_back(dz, dy)
                dz = whole
            dx, w = self.gradient("dx", *x.shape), weight.value.reshape(plan.w)
            backward = self.kernel_of(plan.algorithm, "backward_input")
            backward(dx.reshape(plan.x), dz, y, w, *steps)
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
