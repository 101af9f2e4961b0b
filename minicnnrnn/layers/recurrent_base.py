"""Recurrent: what SimpleRNN, LSTM, GRU and the convolutional LSTMs share."""

from typing import Any

import numpy as np

from minicnnrnn import changes, shapes
from minicnnrnn.kernels.codes import AS_IT_IS
from minicnnrnn.layers.activation import CODES
from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.parameters import WeightView
from minicnnrnn.recorded import assign

Three = tuple[Any, Any, Any]  # for the kernel, the recurrent kernel and the bias


class Recurrent(Layer):
    """A layer that goes through a sequence step by step: what all recurrent layers share.

    Input (batch, steps, channels); output (batch, units) after the last step, or
    (batch, steps, units) with `return_sequences`. A masked step leaves the state as it is.

    The constructors of the layers show every argument of Keras; this one takes them in groups.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    activations : tuple of str or None
        Of the candidate state and, if there are any, of the gates: `activation` and
        `recurrent_activation`.
    use_bias : bool
    initializers, regularizers, constraints : tuples of three
        Of the kernel, the recurrent kernel and the bias.
    dropout : float
        Share of the input's channels that a sample does without, in training: the same ones at
        all its steps. What is left is scaled up to keep the mean.
    recurrent_dropout : float
        Share of the state that a sample does without where the state meets the recurrent kernel,
        in training, at all steps the same. All gates miss the same channels and units, where
        Keras' gates, with recurrent dropout, each miss others.
    seed : int, optional
        For a random stream of its own; left out, the model's seed decides.
    return_sequences : bool
        Return the output of every step.
    return_state : bool
        Only ``False``.
    go_backwards : bool
        Read the sequence from its end; outputs are in the order of reading.
    stateful : bool
        Begin a batch with the states that the last one ended with (sample by sample), until
        ``reset_states``. All batches have one size: that of `batch_shape`, else of the first.
    unroll : bool
        Only ``False``.
    use_cudnn : {"auto", True, False}
        Means nothing here.
    **kwargs
        As in ``Layer``.
    """

    supports_masking = True
    operation = ""
    size_name = "units"  # what Keras calls the size of the state
    gates = 1  # of the weights
    kept = 1  # numbers a unit and a step that the kernel keeps for the way back
    states = 1
    backward_states = slice(0)  # the states that `backward_input` wants to see
    kernel, recurrent_kernel, bias = WeightView(), WeightView(), WeightView()

    def __init__(
        self,
        units: int,
        activations: tuple[str | None, ...],
        use_bias: bool,
        initializers: Three,
        regularizers: Three,
        constraints: Three,
        dropout: float,
        recurrent_dropout: float,
        seed: int | None,
        return_sequences: bool,
        return_state: bool,
        go_backwards: bool,
        stateful: bool,
        unroll: bool = False,
        use_cudnn: Any = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._refuse(return_state, unroll, use_cudnn)
        (self.units,) = shapes.to_tuple(units, 1, self.size_name, self.name)
        self.codes = tuple(self._code(activation) for activation in activations)
        self.use_bias = bool(use_bias)
        self.initializers = tuple(self.initializer(identifier) for identifier in initializers)
        self.regularizers = tuple(self.regularizer(identifier) for identifier in regularizers)
        self.constraints = tuple(self.constraint(identifier) for identifier in constraints)
        for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if not shapes.is_real(rate, 0, 1):
                self.fail(f"{name} to be a number from 0 to 1", repr(rate))
        if seed is not None and not shapes.is_integer(seed, 0):
            self.fail("seed to be a non-negative integer or None", repr(seed))
        self.dropout, self.recurrent_dropout = float(dropout), float(recurrent_dropout)
        self.seed = seed
        self.return_sequences, self.go_backwards = bool(return_sequences), bool(go_backwards)
        self.stateful = bool(stateful)
        self._last: list[Any] | None = None

    def _refuse(self, return_state: Any, unroll: Any, use_cudnn: Any) -> None:
        if return_state:
            self.fail(
                "return_state to be False, as a layer has one output (return_sequences=True shows "
                "the state after every step, stateful=True carries it on to the next batch)",
                repr(return_state),
            )
        if unroll:
            self.fail(
                "unroll to be False, as there is no graph to unroll (leave it out: the loop over "
                "the steps is compiled)",
                repr(unroll),
            )
        if use_cudnn not in ("auto", True, False):
            self.fail("use_cudnn 'auto', True or False", repr(use_cudnn))

    def _code(self, activation: Any) -> int:
        name = "linear" if activation is None else activation
        if not isinstance(name, str) or name not in CODES:
            self.fail(
                f"activation and recurrent_activation to be None or one of {sorted(CODES)}",
                repr(activation),
            )
        return CODES[name]

    def fixes_batch(self) -> bool:
        """A state belongs to a sample."""
        return self.stateful

    def check_input(self, input_shape: Shape) -> None:
        """Three axes, the last known and as it was built for; so is a stateful layer's first."""
        if len(input_shape) != 3 or input_shape[-1] is None:
            self.fail("inputs (batch, steps, channels) with known channels", input_shape)
        self.check_channels_and_batch(input_shape)

    def check_channels_and_batch(self, input_shape: Shape) -> None:
        """What a built layer, and a stateful one, does not let change."""
        if self.built and input_shape[-1] != self.weights[0].shape[-2]:
            self.fail(f"inputs with {self.weights[0].shape[-2]} channels", input_shape)
        if self.stateful and input_shape[0] is None:
            self.fail("a batch_shape with the batch size, as the layer is stateful", input_shape)
        if self.stateful and self.input_shape and self.input_shape[0] != input_shape[0]:
            fixed = self.input_shape[0]
            self.fail(f"batches of {fixed} samples, as the layer is stateful", input_shape)

    def build(self, input_shape: Shape) -> None:
        """Declare kernel, recurrent kernel and bias."""
        assert input_shape[-1] is not None
        width = self.gates * self.units
        self.declare((input_shape[-1], width), (self.units, width), self.bias_shape())

    def declare(self, *weight_shapes: tuple[int, ...]) -> None:
        """Declare the weights, the bias only if it is wanted."""
        names = ("kernel", "recurrent_kernel", "bias")[: 3 if self.use_bias else 2]
        details = zip(self.initializers, self.regularizers, self.constraints)
        for name, shape, detail in zip(names, weight_shapes, details):
            self.add_weight(name, shape, *detail)

    def bias_shape(self) -> tuple[int, ...]:
        """Shape of the bias."""
        return (self.gates * self.units,)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(batch, units), with the steps between if they are returned."""
        steps = (input_shape[1],) if self.return_sequences else ()
        return (input_shape[0], *steps, self.units)

    def options(self) -> tuple[int, ...]:
        """Integers of the kernel between the activations and the direction."""
        return ()

    def kernels_of(self, step: str) -> Any:
        """The kernel of this operation and pass."""
        return getattr(self.kernels, f"{self.operation}_{step}")

    # --- dropout and states --------------------------------------------------------

    def draw(self, training: bool, inputs: int, N: int, *state: int) -> tuple[Any, Any]:
        """Factors of the inputs of a step, and of the state; of size zero where nothing drops.

        Parameters
        ----------
        training : bool
        inputs : int
            Numbers in a sample's step.
        N : int
            Samples.
        *state : int
            Shape of a sample's state.
        """
        nothing = (0,) * (1 + len(state))
        keep_x, keep_h = self.buffer("keep no x", 0, 0), self.buffer("keep no h", *nothing)
        if training and self.dropout > 0:
            keep_x = self._factors("keep x", self.dropout, 0, N, inputs)
        if training and self.recurrent_dropout > 0:
            keep_h = self._factors("keep h", self.recurrent_dropout, 2**31, N, *state)
        return keep_x, keep_h

    def _factors(self, name: str, rate: float, stream: int, *shape: int) -> Any:
        assert self.context is not None
        state = self.context.random_state
        if self.seed is None:
            stream += self.stream()
        else:
            step, state = state[1:], self.buffer("random state", 2, dtype=np.int64)
            assign(state[:1], self.seed)
            assign(state[1:], step)
        factors, ones = self.buffer(name, *shape), self.buffer("ones", *shape)
        assign(ones, 1)
        self.kernels.dropout_forward(factors.reshape(-1), ones.reshape(-1), state, stream, rate)
        return factors

    def begin(self, x_shape: tuple[int, ...], slots: int, *shape: int) -> list[Any]:
        """Histories of the states, (slots, N, ...), with the initial states in slot 0."""
        if self._last is not None and len(self._last[0]) != x_shape[0]:
            self.fail(f"batches of {len(self._last[0])} samples, as the layer is stateful", x_shape)
        states = [self.buffer(f"state {i}", slots, x_shape[0], *shape) for i in range(self.states)]
        for i, state in enumerate(states):
            assign(state[0], 0 if self._last is None else self._last[i])
        return states

    def end(self, states: list[Any], T: int) -> None:
        """Keep the states after the last step, for the next batch of a stateful layer."""
        if self.stateful:
            self._last = []
            for i, state in enumerate(states):
                last = self.buffer(f"last {i}", *state.shape[1:])
                assign(last, state[T % len(state)])
                self._last.append(last)

    def unbuild(self) -> None:
        """Forget what ``build`` did, and the states."""
        super().unbuild()
        self.reset_states()

    def reset_states(self) -> None:
        """Let a stateful layer begin its next batch with states of zero."""
        changes.note()
        self._last = None

    reset_state = reset_states

    # --- computing -----------------------------------------------------------------

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Go through the sequence; in training the whole history of states is kept."""
        N, T, C = x.shape
        U, slots = self.units, T + 1 if training else 2
        w, u = self.weights[0].value, self.weights[1].value
        ws, stale = self.workspace(self.kernels_of("workspace")(N, T, C, U))
        if stale:
            self.kernels_of("prepare")(w, u, ws)
        states = self.begin(x.shape, slots, U)
        gates = self.buffer("gates", slots - 1, N, self.kept * U)
        y = self.buffer("y", N, T if self.return_sequences else 1, U)
        steps = self.buffer("no mask", 0, 0, dtype=np.uint8) if mask is None else mask
        keep_x, keep_h = self.draw(training, C, N, U)
        if keep_x.size:
            whole, x = x, self.buffer("dropped x", N, T, C)
            self.kernels.steps_forward(x, whole, keep_x, AS_IT_IS, 0)
        self._integers = (*self.codes, *self.options(), int(self.go_backwards))
        self.kernels_of("forward")(
            y, *states, gates, x, w, u, self.bias_value(), steps, keep_h, *self._integers, ws
        )
        self.end(states, T)
        self._saved = (x, states, gates, steps, keep_x, keep_h, ws)
        if self.return_sequences:
            return y, mask
        return y.reshape(N, U), None

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Go back in time; then the weights' gradients, as one product over all steps."""
        x, states, gates, mask, keep_x, keep_h, ws = self._saved
        N = len(x)
        w, u = (weight.value for weight in self.weights[:2])
        dx = self.gradient("dx", *x.shape) if input_gradient else self.buffer("no dx", 0, 0, 0)
        dy3 = dy.reshape(N, -1, self.units)
        # The gradients of the gates take the place of the gates, which nobody needs any more.
        self.kernels_of("backward_input")(
            dx, gates, dy3, gates, *states[self.backward_states], w, u, mask, keep_h,
            *self._integers, ws,
        )  # fmt: skip
        if self.weights[0].trainable:
            dw, du = (weight.gradient for weight in self.weights[:2])
            self.kernels_of("backward_weight")(
                dw, du, self.bias_gradient(), x, states[0], gates, keep_h, *self.options(),
                int(self.go_backwards), ws,
            )  # fmt: skip
        if not input_gradient:
            return None
        if keep_x.size:
            self.kernels.steps_forward(dx, dx, keep_x, AS_IT_IS, 0)
        return dx


class ForgetBias:
    """An LSTM's initial bias: ones for the forget gate, what another initializer draws around it.

    Parameters
    ----------
    initializer : callable
        For the other gates.
    """

    def __init__(self, initializer: Any) -> None:
        self.initializer = initializer

    def __call__(self, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
        """Draw the bias (4 units,)."""
        units = shape[0] // 4
        first, rest = self.initializer((units,), rng), self.initializer((2 * units,), rng)
        return np.concatenate([first, np.ones(units), rest])
