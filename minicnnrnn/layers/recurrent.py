"""SimpleRNN, LSTM, GRU."""

from typing import Any

import numpy as np

from minicnnrnn import shapes
from minicnnrnn.layers.activation import CODES
from minicnnrnn.layers.base import Layer, Shape, WeightView


class Recurrent(Layer):
    """A layer that goes through a sequence step by step: what the three share.

    Input (batch, steps, channels); output (batch, units) after the last step, or
    (batch, steps, units) with `return_sequences`. A masked step leaves the state as it is.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    activation, recurrent_activation : str or None
        Of the candidate state, and of the gates.
    use_bias : bool
    kernel_initializer, recurrent_initializer, bias_initializer : str or Initializer
    return_sequences : bool
        Return the output of every step.
    go_backwards : bool
        Read the sequence from its end; outputs are in the order of reading.
    stateful : bool
        Begin a batch with the states that the last one ended with (sample by sample), until
        ``reset_states``. All batches have one size: that of `batch_shape`, else of the first.
    """

    operation = ""
    gates = 1  # of the weights
    kept = 1  # numbers a unit and a step that the kernel keeps for the way back
    states = 1
    backward_states = slice(0)  # the states that `backward_input` wants to see
    kernel, recurrent_kernel, bias = WeightView(), WeightView(), WeightView()

    def setup(
        self,
        units: int,
        activations: tuple[Any, ...],
        use_bias: bool,
        initializers: tuple[Any, Any, Any],
        return_sequences: bool,
        go_backwards: bool,
        stateful: bool,
        unsupported: dict[str, Any],
    ) -> None:
        """Check and keep what the constructors share."""
        use_cudnn = unsupported.pop("use_cudnn", "auto")
        if use_cudnn not in ("auto", True, False):
            self.fail("use_cudnn 'auto', True or False", repr(use_cudnn))
        dropouts = {k: v or None for k, v in unsupported.items() if k.endswith("dropout")}
        self.refuse(**(unsupported | dropouts))
        (self.units,) = shapes.to_tuple(units, 1, "units", self.name)
        self.codes = tuple(self._code(activation) for activation in activations)
        self.use_bias = bool(use_bias)
        self.initializers = tuple(self.initializer(identifier) for identifier in initializers)
        self.return_sequences, self.go_backwards = bool(return_sequences), bool(go_backwards)
        self.stateful = bool(stateful)
        self._last: list[Any] | None = None

    def _code(self, activation: Any) -> int:
        name = "linear" if activation is None else activation
        if not isinstance(name, str) or name not in CODES:
            self.fail(f"activation to be None or one of {sorted(CODES)}", repr(activation))
        return CODES[name]

    def fixes_batch(self) -> bool:
        """A state belongs to a sample."""
        return self.stateful

    def check_input(self, input_shape: Shape) -> None:
        """Three axes, the last known and as it was built for; so is a stateful layer's first."""
        if len(input_shape) != 3 or input_shape[-1] is None:
            self.fail("inputs (batch, steps, channels) with known channels", input_shape)
        if self.built and input_shape[-1] != self.weights[0].shape[0]:
            self.fail(f"inputs with {self.weights[0].shape[0]} channels", input_shape)
        if self.stateful and input_shape[0] is None:
            self.fail("a batch_shape with the batch size, as the layer is stateful", input_shape)
        if self.stateful and self.input_shape and self.input_shape[0] != input_shape[0]:
            fixed = self.input_shape[0]
            self.fail(f"batches of {fixed} samples, as the layer is stateful", input_shape)

    def build(self, input_shape: Shape) -> None:
        """Declare kernel, recurrent kernel and bias."""
        assert input_shape[-1] is not None
        width = self.gates * self.units
        self.add_weight("kernel", (input_shape[-1], width), self.initializers[0])
        self.add_weight("recurrent_kernel", (self.units, width), self.initializers[1])
        if self.use_bias:
            self.add_weight("bias", self.bias_shape(), self.initializers[2])

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

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Go through the sequence; in training the whole history of states is kept."""
        N, T, C = x.shape
        U, slots = self.units, T + 1 if training else 2
        w, u = self.weights[0].value, self.weights[1].value
        ws, stale = self.workspace(self.kernels_of("workspace")(N, T, C, U))
        if stale:
            self.kernels_of("prepare")(w, u, ws)
        states = [self.buffer(f"state {i}", slots, N, U) for i in range(self.states)]
        if self._last is not None and len(self._last[0]) != N:
            self.fail(f"batches of {len(self._last[0])} samples, as the layer is stateful", x.shape)
        for i, state in enumerate(states):
            state[0] = 0 if self._last is None else self._last[i]
        gates = self.buffer("gates", slots - 1, N, self.kept * U)
        y = self.buffer("y", N, T if self.return_sequences else 1, U)
        steps = self.buffer("no mask", 0, 0, dtype=np.uint8) if mask is None else mask
        self._integers = (*self.codes, *self.options(), int(self.go_backwards))
        self.kernels_of("forward")(
            y, *states, gates, x, w, u, self.bias_value(), steps, *self._integers, ws
        )
        if self.stateful:
            final = T if slots == T + 1 else T % 2
            self._last = [np.array(state[final]) for state in states]
        self._saved = (x, states, gates, steps, ws)
        if self.return_sequences:
            return y, mask
        return y.reshape(N, U), None

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Go back in time; then the weights' gradients, as one product over all steps."""
        x, states, gates, mask, ws = self._saved
        N = len(x)
        w, u = (weight.value for weight in self.weights[:2])
        dx = self.buffer("dx", *x.shape) if input_gradient else self.buffer("no dx", 0, 0, 0)
        dy3 = dy.reshape(N, -1, self.units)
        # The gradients of the gates take the place of the gates, which nobody needs any more.
        self.kernels_of("backward_input")(
            dx, gates, dy3, gates, *states[self.backward_states], w, u, mask, *self._integers, ws
        )
        if self.weights[0].trainable:
            dw, du = (weight.gradient for weight in self.weights[:2])
            self.kernels_of("backward_weight")(
                dw, du, self.bias_gradient(), x, states[0], gates, *self.options(),
                int(self.go_backwards), ws,
            )  # fmt: skip
        return dx if input_gradient else None

    def unbuild(self) -> None:
        """Forget what ``build`` did, and the states."""
        super().unbuild()
        self._last = None

    def reset_states(self) -> None:
        """Let a stateful layer begin its next batch with states of zero."""
        self._last = None

    reset_state = reset_states


class LSTM(Recurrent):
    """Long short-term memory: a cell that forgets, takes in and gives out through gates.

    Parameters
    ----------
    units : int
    activation, recurrent_activation : str
    use_bias : bool
    kernel_initializer, recurrent_initializer, bias_initializer : str or Initializer
    unit_forget_bias : bool
        Begin with a bias of 1 on the forget gate.
    return_sequences, go_backwards, stateful : bool
        See ``Recurrent``.

    Notes
    -----
    Weights, gates in the order i, f, c, o: kernel (channels, 4 units), recurrent_kernel
    (units, 4 units), bias (4 units,). Hochreiter and Schmidhuber 1997, "Long Short-Term Memory";
    forget gates by Gers et al. 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.LSTM(8, return_sequences=True)(np.zeros((2, 5, 3))).shape
    (2, 5, 8)
    """

    operation, gates, kept, states, backward_states = "lstm", 4, 4, 2, slice(1, 2)

    def __init__(
        self,
        units: int,
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
        unroll: bool = False,
        use_cudnn: Any = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.setup(
            units,
            (activation, recurrent_activation),
            use_bias,
            (kernel_initializer, recurrent_initializer, bias_initializer),
            return_sequences,
            go_backwards,
            stateful,
            {
                "kernel_regularizer": kernel_regularizer,
                "recurrent_regularizer": recurrent_regularizer,
                "bias_regularizer": bias_regularizer,
                "activity_regularizer": activity_regularizer,
                "kernel_constraint": kernel_constraint,
                "recurrent_constraint": recurrent_constraint,
                "bias_constraint": bias_constraint,
                "dropout": dropout,
                "recurrent_dropout": recurrent_dropout,
                "return_state": return_state,
                "unroll": unroll,
                "use_cudnn": use_cudnn,
            },
        )
        self.unit_forget_bias = bool(unit_forget_bias)
        if self.unit_forget_bias:
            self.initializers = (*self.initializers[:2], ForgetBias(self.initializers[2]))


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


class GRU(Recurrent):
    """Gated recurrent unit: a state that is kept or replaced, as an update gate says.

    Parameters
    ----------
    units : int
    activation, recurrent_activation : str
    use_bias : bool
    kernel_initializer, recurrent_initializer, bias_initializer : str or Initializer
    return_sequences, go_backwards, stateful : bool
        See ``Recurrent``.
    reset_after : bool
        Apply the reset gate after the product with the recurrent kernel (as cuDNN does), or
        before it (as in the paper).

    Notes
    -----
    Weights, gates in the order z, r, h: kernel (channels, 3 units), recurrent_kernel
    (units, 3 units), bias (2, 3 units) with `reset_after`, else (3 units,). Cho et al. 2014,
    arXiv:1406.1078.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.GRU(8)(np.zeros((2, 5, 3))).shape
    (2, 8)
    """

    operation, gates, kept, backward_states = "gru", 3, 4, slice(0, 1)

    def __init__(
        self,
        units: int,
        activation: str | None = "tanh",
        recurrent_activation: str | None = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
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
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: Any = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.reset_after = bool(reset_after)
        self.setup(
            units,
            (activation, recurrent_activation),
            use_bias,
            (kernel_initializer, recurrent_initializer, bias_initializer),
            return_sequences,
            go_backwards,
            stateful,
            {
                "kernel_regularizer": kernel_regularizer,
                "recurrent_regularizer": recurrent_regularizer,
                "bias_regularizer": bias_regularizer,
                "activity_regularizer": activity_regularizer,
                "kernel_constraint": kernel_constraint,
                "recurrent_constraint": recurrent_constraint,
                "bias_constraint": bias_constraint,
                "dropout": dropout,
                "recurrent_dropout": recurrent_dropout,
                "return_state": return_state,
                "unroll": unroll,
                "use_cudnn": use_cudnn,
            },
        )

    def bias_shape(self) -> tuple[int, ...]:
        """One bias for the input and one for the state if the reset gate comes after."""
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)

    def options(self) -> tuple[int, ...]:
        """Where the reset gate acts."""
        return (int(self.reset_after),)


class SimpleRNN(Recurrent):
    """A fully recurrent layer: ``h = activation(x @ kernel + h @ recurrent_kernel + bias)``.

    Parameters
    ----------
    units : int
    activation : str
    use_bias : bool
    kernel_initializer, recurrent_initializer, bias_initializer : str or Initializer
    return_sequences, go_backwards, stateful : bool
        See ``Recurrent``.

    Notes
    -----
    Weights: kernel (channels, units), recurrent_kernel (units, units), bias (units,).
    Elman 1990, "Finding Structure in Time".

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.SimpleRNN(8)(np.zeros((2, 5, 3))).shape
    (2, 8)
    """

    operation = "simple_rnn"

    def __init__(
        self,
        units: int,
        activation: str | None = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.setup(
            units,
            (activation,),
            use_bias,
            (kernel_initializer, recurrent_initializer, bias_initializer),
            return_sequences,
            go_backwards,
            stateful,
            {
                "kernel_regularizer": kernel_regularizer,
                "recurrent_regularizer": recurrent_regularizer,
                "bias_regularizer": bias_regularizer,
                "activity_regularizer": activity_regularizer,
                "kernel_constraint": kernel_constraint,
                "recurrent_constraint": recurrent_constraint,
                "bias_constraint": bias_constraint,
                "dropout": dropout,
                "recurrent_dropout": recurrent_dropout,
                "return_state": return_state,
                "unroll": unroll,
            },
        )
