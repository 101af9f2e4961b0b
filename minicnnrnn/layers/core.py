"""Input and Dense."""

from typing import Any

from minicnnrnn import shapes
from minicnnrnn.layers.activation import ActivationFunction
from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.parameters import WeightView


class InputLayer(Layer):
    """Declare the shape of the input, so that a model is built before it sees data.

    Parameters
    ----------
    shape : tuple
        Shape of one sample; ``None`` where any length goes.
    batch_size : int, optional
    dtype : str, optional
        "float32", or "int32" for ids.
    batch_shape : tuple, optional
        Instead of `shape` and `batch_size`: the shape with the batch in front.

    Examples
    --------
    >>> from minicnnrnn import Sequential, layers
    >>> Sequential([layers.Input((28, 28, 1)), layers.Flatten()]).output_shape
    (None, 784)
    """

    supports_masking = True

    def __init__(
        self,
        shape: Any = None,
        batch_size: int | None = None,
        dtype: str | None = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        batch_shape: Any = None,
        input_tensor: Any = None,
        optional: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.refuse(sparse=sparse, ragged=ragged, input_tensor=input_tensor, optional=optional)
        if dtype not in (None, "float32", "int32", "int64"):
            self.fail("dtype 'float32' or 'int32'", repr(dtype))
        if (shape is None) == (batch_shape is None):
            self.fail(
                "either shape or batch_shape", f"shape={shape!r}, batch_shape={batch_shape!r}"
            )
        if batch_shape is None:
            if not isinstance(shape, tuple | list):
                self.fail("shape to be a tuple, such as (28, 28, 1)", repr(shape))
            batch_shape = (batch_size, *shape)
        self.declared_shape = self.check_shape(batch_shape)

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Pass through."""
        return x, mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Pass through."""
        return dy


Input = InputLayer


class Dense(Layer):
    """Connect every input with every unit: ``activation(x @ kernel + bias)``.

    Parameters
    ----------
    units : int
        Size of the output's last axis.
    activation : str, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
        Penalties on the weights and on the output.
    kernel_constraint, bias_constraint : str or Constraint, optional
        What every update of the weights ends with.

    Notes
    -----
    Input (batch, ..., C), output (batch, ..., units); weights: kernel (C, units), bias (units,).

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer = layers.Dense(2, kernel_initializer="ones", bias_initializer="ones")
    >>> layer(np.array([[1.0, 2.0, 3.0]]))
    array([[7., 7.]], dtype=float32)
    """

    supports_masking = True
    kernel, bias = WeightView(), WeightView()

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        lora_rank: Any = None,
        lora_alpha: Any = None,
        quantization_config: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.refuse(
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            quantization_config=quantization_config,
        )
        (self.units,) = shapes.to_tuple(units, 1, "units", self.name)
        self.activation = ActivationFunction(activation, self)
        self.use_bias = bool(use_bias)
        self.initializers = (
            self.initializer(kernel_initializer),
            self.initializer(bias_initializer),
        )
        self.regularizers = (
            self.regularizer(kernel_regularizer),
            self.regularizer(bias_regularizer),
        )
        self.constraints = self.constraint(kernel_constraint), self.constraint(bias_constraint)

    def check_input(self, input_shape: Shape) -> None:
        """At least two axes, the last of them known and as it was built for."""
        if len(input_shape) < 2 or input_shape[-1] is None:
            self.fail("inputs (batch, ..., features) with a known last axis", input_shape)
        if self.built and input_shape[-1] != self.weights[0].shape[0]:
            self.fail(f"inputs with {self.weights[0].shape[0]} features", input_shape)
        self.activation.check_outputs(self.units)

    def build(self, input_shape: Shape) -> None:
        """Declare kernel and bias."""
        assert input_shape[-1] is not None
        kernel, bias = zip(self.initializers, self.regularizers, self.constraints)
        self.add_weight("kernel", (input_shape[-1], self.units), *kernel)
        if self.use_bias:
            self.add_weight("bias", (self.units,), *bias)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The last axis becomes `units`."""
        return (*input_shape[:-1], self.units)

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """``activation(x @ kernel + bias)``."""
        w, b = self.weights[0].value, self.bias_value()
        C, F = w.shape
        rows = x.reshape(-1, C)
        ws, stale = self.workspace(self.kernels.dense_workspace(len(rows), C, F), training)
        if stale:
            self.kernels.dense_prepare(w, ws)
        z = self.buffer("y", *x.shape[:-1], F)
        relu = self.activation.is_relu
        self.kernels.dense_forward(z.reshape(-1, F), rows, w, b, int(relu), ws)
        self._saved = x
        return self.activation.forward(z, applied=relu), mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Gradients of kernel, bias and input."""
        x, weight = self._saved, self.weights[0]
        C, F = weight.shape
        ws, _ = self.workspace(self.kernels.dense_workspace(x.size // C, C, F), training=True)
        dz = self.activation.backward(dy).reshape(-1, F)
        if weight.trainable:
            rows, db = x.reshape(-1, C), self.bias_gradient()
            self.kernels.dense_backward_weight(weight.gradient, db, rows, dz, ws)
        dx = None
        if input_gradient:
            dx = self.gradient("dx", *x.shape)
            self.kernels.dense_backward_input(dx.reshape(-1, C), dz, weight.value, ws)
        self.give_back(dz, dy)
        return dx
