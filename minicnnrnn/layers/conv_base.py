"""What all convolutions share: windows that slide over an image, and their kernels."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from minicnnrnn import shapes
from minicnnrnn.layers.activation import ActivationFunction
from minicnnrnn.layers.base import Layer, Shape
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


def fastest(kernels: Any, sizes: Sizes) -> str:
    """The prefix of the kernels that convolve such sizes fastest."""
    for name in ("winograd_streamed", "winograd", "winograd_line", "winograd_rows"):
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
