"""SimpleRNN, LSTM, GRU."""

from typing import Any

from minicnnrnn.layers.recurrent_base import ForgetBias, Recurrent


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
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str or Regularizer, optional
    activity_regularizer : str or Regularizer, optional
    kernel_constraint, recurrent_constraint, bias_constraint : str or Constraint, optional
    dropout, recurrent_dropout : float
    seed : int, optional
    return_sequences, go_backwards, stateful : bool
        See ``Recurrent``, as for the rest.

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
        super().__init__(
            units, (activation, recurrent_activation), use_bias,
            (kernel_initializer, recurrent_initializer, bias_initializer),
            (kernel_regularizer, recurrent_regularizer, bias_regularizer),
            (kernel_constraint, recurrent_constraint, bias_constraint),
            dropout, recurrent_dropout, seed, return_sequences, return_state, go_backwards,
            stateful, unroll, use_cudnn, activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.unit_forget_bias = bool(unit_forget_bias)
        if self.unit_forget_bias:
            self.initializers = (*self.initializers[:2], ForgetBias(self.initializers[2]))


class GRU(Recurrent):
    """Gated recurrent unit: a state that is kept or replaced, as an update gate says.

    Parameters
    ----------
    units : int
    activation, recurrent_activation : str
    use_bias : bool
    kernel_initializer, recurrent_initializer, bias_initializer : str or Initializer
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str or Regularizer, optional
    activity_regularizer : str or Regularizer, optional
    kernel_constraint, recurrent_constraint, bias_constraint : str or Constraint, optional
    dropout, recurrent_dropout : float
    seed : int, optional
    return_sequences, go_backwards, stateful : bool
        See ``Recurrent``, as for the rest.
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
        super().__init__(
            units, (activation, recurrent_activation), use_bias,
            (kernel_initializer, recurrent_initializer, bias_initializer),
            (kernel_regularizer, recurrent_regularizer, bias_regularizer),
            (kernel_constraint, recurrent_constraint, bias_constraint),
            dropout, recurrent_dropout, seed, return_sequences, return_state, go_backwards,
            stateful, unroll, use_cudnn, activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
        self.reset_after = bool(reset_after)

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
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str or Regularizer, optional
    activity_regularizer : str or Regularizer, optional
    kernel_constraint, recurrent_constraint, bias_constraint : str or Constraint, optional
    dropout, recurrent_dropout : float
    seed : int, optional
    return_sequences, go_backwards, stateful : bool
        See ``Recurrent``, as for the rest.

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
        super().__init__(
            units, (activation,), use_bias,
            (kernel_initializer, recurrent_initializer, bias_initializer),
            (kernel_regularizer, recurrent_regularizer, bias_regularizer),
            (kernel_constraint, recurrent_constraint, bias_constraint),
            dropout, recurrent_dropout, seed, return_sequences, return_state, go_backwards,
            stateful, unroll, activity_regularizer=activity_regularizer, **kwargs,
        )  # fmt: skip
