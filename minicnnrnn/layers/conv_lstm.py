"""ConvLSTM1D, ConvLSTM2D, ConvLSTM3D."""

import math
from typing import Any, NamedTuple

import numpy as np

from minicnnrnn import shapes
from minicnnrnn.kernels.codes import AS_IT_IS, FROM_SAMPLES, FROM_STEPS
from minicnnrnn.layers.base import Shape
from minicnnrnn.layers.conv_base import fastest
from minicnnrnn.layers.recurrent_base import ForgetBias, Recurrent


class Plan(NamedTuple):
    """What the kernels want to know for inputs of one shape."""

    image: tuple[int, ...]  # depth, height, width, channels of the input
    state: tuple[int, ...]  # depth, height, width of the state
    over_x: tuple[int, ...]  # strides, dilation, padding and groups of the input's convolution
    over_h: tuple[int, ...]  # and of the state's
    algorithms: tuple[str, str]  # prefixes of the kernels of both convolutions
    places: tuple[int, ...]  # where the workspaces of the state's convolution and the cell begin
    workspace: int


class ConvLSTM(Recurrent):
    """An LSTM over images: what ConvLSTM1D, ConvLSTM2D and ConvLSTM3D share.

    The states are images of `filters` channels, and convolutions stand where the LSTM has matrix
    products: one of the input, with `strides`, `padding` and `dilation_rate`, and one of the
    state, which keeps its size. The rest is as in ``LSTM``.
    """

    rank = 0
    size_name = "filters"
    states = 2

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: str | None = "tanh",
        recurrent_activation: str | None = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            filters, (activation, recurrent_activation), use_bias,
            (kernel_initializer, recurrent_initializer, bias_initializer),
            (kernel_regularizer, recurrent_regularizer, bias_regularizer),
            (kernel_constraint, recurrent_constraint, bias_constraint),
            dropout, recurrent_dropout, seed, return_sequences, return_state, go_backwards,
            stateful, activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.check_data_format(data_format)
        self.filters = self.units
        self.kernel_size = shapes.to_tuple(kernel_size, self.rank, "kernel_size", self.name)
        self.strides = shapes.to_tuple(strides, self.rank, "strides", self.name)
        self.dilation_rate = shapes.to_tuple(dilation_rate, self.rank, "dilation_rate", self.name)
        if padding not in ("valid", "same"):
            self.fail("padding to be one of ('valid', 'same')", repr(padding))
        self.padding = padding
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            self.fail(
                "strides or dilation_rate to be 1",
                f"strides={self.strides}, dilation_rate={self.dilation_rate}",
            )
        self.unit_forget_bias = bool(unit_forget_bias)
        if self.unit_forget_bias:
            self.initializers = (*self.initializers[:2], ForgetBias(self.initializers[2]))
        self._packed: tuple[Any, ...] = ()  # the algorithms and places that weights are packed for

    # --- shapes and weights --------------------------------------------------------

    def check_input(self, input_shape: Shape) -> None:
        """The right rank, known channels, images not smaller than the kernel."""
        axes = ("length", "height, width", "depth, height, width")[self.rank - 1]
        if len(input_shape) != self.rank + 3 or input_shape[-1] is None:
            self.fail(f"inputs (batch, steps, {axes}, channels) with known channels", input_shape)
        self.check_channels_and_batch(input_shape)
        if any(n is not None and n < 1 for n in self._lengths(input_shape)):
            reach = tuple((k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation_rate))
            self.fail(f"images of at least the kernel's extent {reach}", input_shape)
        if self.stateful and None in input_shape[2:]:
            self.fail(f"a known {axes}, as the layer is stateful", input_shape)
        if self.stateful and self.input_shape and self.input_shape[2:] != input_shape[2:]:
            fixed = self.input_shape[2:]
            self.fail(f"images of shape {fixed}, as the layer is stateful", input_shape)

    def build(self, input_shape: Shape) -> None:
        """Declare kernel, recurrent kernel and bias."""
        assert input_shape[-1] is not None
        gates = 4 * self.filters
        self.declare(
            (*self.kernel_size, input_shape[-1], gates),
            (*self.kernel_size, self.filters, gates),
            (gates,),
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(batch, lengths of the state, filters), with the steps behind the batch if returned."""
        steps = (input_shape[1],) if self.return_sequences else ()
        return (input_shape[0], *steps, *self._lengths(input_shape), self.filters)

    def _lengths(self, input_shape: Shape) -> list[int | None]:
        return [
            shapes.output_length(n, k, s, d, self.padding)
            for n, k, s, d in zip(
                input_shape[2:-1], self.kernel_size, self.strides, self.dilation_rate
            )
        ]

    def _plan(self, x_shape: tuple[int, ...]) -> Plan:
        plan = self._plans.get(x_shape)
        if plan is None:
            if len(self._plans) > 64:  # sequences of ever new lengths
                self._plans.clear()
            plan = self._plans[x_shape] = self._new_plan(x_shape)
        return plan

    def _new_plan(self, x_shape: tuple[int, ...]) -> Plan:
        N, T, *lengths, C = x_shape
        ones, zeros = (1,) * (3 - self.rank), (0,) * (3 - self.rank)
        kernel, strides = (*ones, *self.kernel_size), (*ones, *self.strides)
        dilation = (*ones, *self.dilation_rate)
        state_lengths = [int(n or 0) for n in self._lengths(x_shape)]
        image, state = (*ones, *lengths, C), (*ones, *state_lengths)
        before = [
            shapes.padding_before(n, k, s, d, self.padding)
            for n, k, s, d in zip(lengths, self.kernel_size, self.strides, self.dilation_rate)
        ]
        before_h = [
            shapes.padding_before(n, k, 1, 1, "same")
            for n, k in zip(state_lengths, self.kernel_size)
        ]
        over_x = (*strides, *dilation, *zeros, *before, 1)
        over_h = (1,) * 6 + (*zeros, *before_h, 1)
        F = self.filters
        taps_x = (*image, *state, 4 * F, *kernel, *strides, *dilation, 1)
        taps_h = (*state, F, *state, 4 * F, *kernel, *(1,) * 6, 1)
        # One step at a time has to pay.
        algorithms = fastest(self.kernels, (N, *taps_x)), fastest(self.kernels, (N, *taps_h))
        sizes = [
            getattr(self.kernels, f"{algorithm}_workspace")(N * T, *taps)
            for algorithm, taps in zip(algorithms, (taps_x, taps_h))
        ]
        # Every workspace begins on a cache line.
        place_h = -(-sizes[0] // 16) * 16
        place_cell = place_h + -(-sizes[1] // 16) * 16
        total = place_cell + self.kernels.conv_lstm_workspace(F)
        return Plan(image, state, over_x, over_h, algorithms, (place_h, place_cell), total)

    def _workspaces(self, plan: Plan, training: bool, packed: bool = True) -> tuple[Any, Any, Any]:
        """Those of the input's convolution, the state's and the cell, weights packed."""
        ws, stale = self.workspace(plan.workspace, training)
        place_h, place_cell = plan.places
        parts = ws[:place_h], ws[place_h:place_cell], ws[place_cell:]
        stale = stale or self._packed != (plan.algorithms, plan.places)
        if packed and stale:
            for algorithm, weight, part in zip(plan.algorithms, self.weights, parts):
                self._kernel(algorithm, "prepare")(self._five(weight.value), 1, part)
        if not training and stale:
            assert self.context is not None
            self._packed = plan.algorithms, plan.places
            self.context.packings += 1
        return parts

    def _kernel(self, algorithm: str, name: str) -> Any:
        return getattr(self.kernels, f"{algorithm}_{name}")

    def _five(self, weight: Any) -> Any:
        """A kernel, its value or its gradient, with the axes that a smaller rank lacks."""
        return weight.reshape((1,) * (3 - self.rank) + weight.shape)

    # --- computing -----------------------------------------------------------------

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Go through the sequence; in training the whole history of states is kept."""
        N, T, F, kernels = x.shape[0], x.shape[1], self.filters, self.kernels
        plan = self._plan(x.shape)
        P, slots = math.prod(plan.state), T + 1 if training else 2
        w, u = (self._five(weight.value) for weight in self.weights[:2])
        ws_x, ws_h, ws = self._workspaces(plan, training)
        steps = self.buffer("no mask", 0, 0, dtype=np.uint8) if mask is None else mask
        backwards = int(self.go_backwards)
        keep_x, keep_h = self.draw(training, math.prod(plan.image), N, P, F)
        xs = self.buffer("x by step", T, N, math.prod(plan.image))
        kernels.steps_forward(xs, x.reshape(N, T, -1), keep_x, FROM_SAMPLES, backwards)
        xs = xs.reshape(T * N, *plan.image)
        h, c = self.begin(x.shape, slots, P, F)
        y = self.buffer("y", N, T if self.return_sequences else 1, P, F)
        gates = self.buffer("gates", slots - 1, N, P, 4 * F)
        sums = gates.reshape(-1, *plan.state, 4 * F)
        b, no_bias = self.bias_value(), self.buffer("no bias", 0)
        forward_x, forward_h = (self._kernel(name, "forward") for name in plan.algorithms)
        if training:
            forward_x(sums, xs, w, b, *plan.over_x, 0, ws_x)
        seen, nothing = self.buffer("seen", N, P, 4 * F), self.buffer("nothing", 0, 0, 0)
        seen_images = seen.reshape(N, *plan.state, 4 * F)
        kept = self.buffer("kept h", T, N, P, F) if keep_h.size else h
        for s in range(T):
            if not training:
                forward_x(sums, xs[s * N : (s + 1) * N], w, b, *plan.over_x, 0, ws_x)
            if keep_h.size:
                self._keep(kept[s], h[s], keep_h)
            empty = s == 0 and self._last is None  # a state of zeros adds nothing
            if not empty:
                state = kept[s % slots].reshape(N, *plan.state, F)
                forward_h(seen_images, state, u, no_bias, *plan.over_h, 0, ws_h)
            kernels.conv_lstm_forward(
                y, h, c, gates, nothing if empty else seen, steps, *self.codes, T, s, backwards, ws
            )
        self.end([h, c], T)
        self._saved = (x.shape, xs, kept, c, gates, steps, keep_x, keep_h)
        lengths = plan.state[3 - self.rank :]
        if self.return_sequences:
            return y.reshape(N, T, *lengths, F), mask
        return y.reshape(N, *lengths, F), None

    def _keep(self, kept: Any, h: Any, keep: Any) -> None:
        """What recurrent dropout leaves of one state."""
        rows = (len(h), 1, -1)
        self.kernels.steps_forward(
            kept.reshape(rows), h.reshape(rows), keep.reshape(len(h), -1), AS_IT_IS, 0
        )

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Go back in time; then the weights' gradients, as one convolution over all steps."""
        x_shape, xs, kept, c, gates, mask, keep_x, keep_h = self._saved
        N, T, F, kernels = x_shape[0], x_shape[1], self.filters, self.kernels
        plan, backwards = self._plan(x_shape), int(self.go_backwards)
        ws_x, ws_h, ws = self._workspaces(plan, training=True, packed=False)
        P = math.prod(plan.state)
        w, u = (self._five(weight.value) for weight in self.weights[:2])
        no_relu, nothing = self.buffer("no relu", *(0,) * 5), self.buffer("nothing", 0, 0, 0)
        dh, dc, arriving = (self.buffer(name, N, P, F) for name in ("dh", "dc", "arriving"))
        dy4 = dy.reshape(N, -1, P, F)
        back_x, back_h = (self._kernel(name, "backward_input") for name in plan.algorithms)
        dsums = gates.reshape(T * N, *plan.state, 4 * F)
        # The gradients of the gates take the place of the gates, which nobody needs any more.
        for s in range(T - 1, -1, -1):
            kernels.conv_lstm_backward(
                gates, dh, dc, dy4, gates, c, arriving if s < T - 1 else nothing, keep_h, mask,
                *self.codes, T, s, backwards, ws,
            )  # fmt: skip
            if s > 0:
                back_h(
                    arriving.reshape(N, *plan.state, F), dsums[s * N : (s + 1) * N], no_relu, u,
                    *plan.over_h, ws_h,
                )  # fmt: skip
        if self.weights[0].trainable:
            dw, du = (self._five(weight.gradient) for weight in self.weights[:2])
            history = kept[:T].reshape(T * N, *plan.state, F)
            no_bias = self.buffer("no bias", 0)
            weight_x, weight_h = (self._kernel(name, "backward_weight") for name in plan.algorithms)
            weight_x(dw, self.bias_gradient(), xs, dsums, no_relu, *plan.over_x, ws_x)
            weight_h(du, no_bias, history, dsums, no_relu, *plan.over_h, ws_h)
        if not input_gradient:
            return None
        dxs, dx = self.gradient("dx by step", *xs.shape), self.gradient("dx", *x_shape)
        back_x(dxs, dsums, no_relu, w, *plan.over_x, ws_x)
        kernels.steps_forward(
            dx.reshape(N, T, -1), dxs.reshape(T, N, -1), keep_x, FROM_STEPS, backwards
        )
        self.give_back(dxs)
        return dx


class ConvLSTM1D(ConvLSTM):
    """LSTM over sequences of one-dimensional images: (batch, steps, length, channels).

    The output is (batch, new length, filters) after the last step, or with `return_sequences`
    (batch, steps, new length, filters).

    Parameters
    ----------
    filters : int
        Channels of the states and of the output.
    kernel_size : int or tuple of 1 int
        Of both convolutions.
    strides, dilation_rate : int or tuple of 1 int
        Of the input's convolution. Not both above 1.
    padding : {"valid", "same"}
        Of the input's convolution.
    data_format : {None, "channels_last"}
    activation, recurrent_activation, use_bias, ..., stateful
        As in ``LSTM``; `dropout` and `recurrent_dropout` drop single elements of the images.

    Notes
    -----
    Weights, gates in the order i, f, c, o: kernel (kernel_size, channels, 4 filters),
    recurrent_kernel (kernel_size, filters, 4 filters), bias (4 filters,).

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.ConvLSTM1D(4, 3)(np.zeros((2, 5, 8, 3))).shape
    (2, 6, 4)
    """

    rank = 1


class ConvLSTM2D(ConvLSTM):
    """LSTM over sequences of images: (batch, steps, height, width, channels).

    The output is (batch, new height, new width, filters) after the last step, or with
    `return_sequences` (batch, steps, new height, new width, filters).

    Parameters
    ----------
    filters : int
        Channels of the states and of the output.
    kernel_size : int or tuple of 2 ints
        Of both convolutions.
    strides, dilation_rate : int or tuple of 2 ints
        Of the input's convolution. Not both above 1.
    padding : {"valid", "same"}
        Of the input's convolution.
    data_format : {None, "channels_last"}
    activation, recurrent_activation, use_bias, ..., stateful
        As in ``LSTM``; `dropout` and `recurrent_dropout` drop single elements of the images.

    Notes
    -----
    Weights, gates in the order i, f, c, o: kernel (height, width, channels, 4 filters),
    recurrent_kernel (height, width, filters, 4 filters), bias (4 filters,). Shi et al. 2015,
    "Convolutional LSTM Network", arXiv:1506.04214, without the peepholes, as Keras.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer = layers.ConvLSTM2D(4, 3, padding="same", return_sequences=True)
    >>> layer(np.zeros((2, 5, 8, 9, 3))).shape
    (2, 5, 8, 9, 4)
    """

    rank = 2


class ConvLSTM3D(ConvLSTM):
    """LSTM over sequences of volumes: (batch, steps, depth, height, width, channels).

    The output is (batch, new depth, ..., filters) after the last step, or with
    `return_sequences` (batch, steps, new depth, ..., filters).

    Parameters
    ----------
    filters : int
        Channels of the states and of the output.
    kernel_size : int or tuple of 3 ints
        Of both convolutions.
    strides, dilation_rate : int or tuple of 3 ints
        Of the input's convolution. Not both above 1.
    padding : {"valid", "same"}
        Of the input's convolution.
    data_format : {None, "channels_last"}
    activation, recurrent_activation, use_bias, ..., stateful
        As in ``LSTM``; `dropout` and `recurrent_dropout` drop single elements of the volumes.

    Notes
    -----
    Weights: those of ``ConvLSTM2D`` with one axis more.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.ConvLSTM3D(2, 2)(np.zeros((1, 3, 4, 5, 6, 1))).shape
    (1, 3, 4, 5, 2)
    """

    rank = 3
