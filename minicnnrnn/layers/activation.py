"""Activations: as an argument of other layers, and as a layer."""

from typing import Any

from minicnnrnn.kernels import activation as codes
from minicnnrnn.layers.base import Layer, Shape

CODES = {
    "linear": codes.LINEAR,
    "relu": codes.RELU,
    "leaky_relu": codes.LEAKY_RELU,
    "elu": codes.ELU,
    "selu": codes.SELU,
    "gelu": codes.GELU,
    "silu": codes.SILU,
    "swish": codes.SILU,
    "softplus": codes.SOFTPLUS,
    "tanh": codes.TANH,
    "sigmoid": codes.SIGMOID,
    "hard_sigmoid": codes.HARD_SIGMOID,
}
ALPHAS = {"leaky_relu": 0.2}  # Keras' negative_slope; elu and selu have alpha 1 or none


class ActivationFunction:
    """The activation of a layer: works in the layer's own buffers.

    Parameters
    ----------
    identifier : str or None
        A name that Keras knows; ``None`` is linear.
    layer : Layer
        Whose activation this is; errors name it.

    Attributes
    ----------
    fused : bool
        While true, ``backward`` passes its argument through: a loss that has the derivative of
        softmax or sigmoid in its own gradient sets this around its backward pass.
    """

    def __init__(self, identifier: str | None, layer: Layer) -> None:
        name = "linear" if identifier is None else identifier
        if not isinstance(name, str) or (name not in CODES and name != "softmax"):
            known = ", ".join(sorted([*CODES, "softmax"]))
            layer.fail(f"activation to be None or one of {known}", repr(identifier))
        self.name, self.layer = name, layer
        self.code, self.alpha = CODES.get(name, -1), ALPHAS.get(name, 1.0)
        self.is_relu = name == "relu"
        self.fused = False
        self._saved: Any = None  # what `forward` keeps for `backward`

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: no memory of a batch."""
        return self.__dict__ | {"_saved": None}

    def check_outputs(self, outputs: int | None) -> None:
        """Raise if a last axis of this size makes no sense."""
        if self.name == "softmax" and outputs == 1:
            self.layer.fail("at least two outputs for softmax (one would always be 1)", outputs)

    def forward(self, z: Any, applied: bool = False) -> Any:
        """The activation of `z`, which is the layer's own and may be overwritten.

        Parameters
        ----------
        z : device array, before the activation
        applied : bool
            The kernel that made `z` has applied the activation already (a fused relu).
        """
        kernels, y = self.layer.kernels, z
        if self.name == "softmax":
            rows = z.reshape(-1, z.shape[-1])
            kernels.softmax_forward(rows, rows)
        elif self.code != codes.LINEAR and not applied:
            if self.code not in codes.FROM_OUTPUT:
                y = self.layer.buffer("activated", *z.shape)
            kernels.activation_forward(y.reshape(-1), z.reshape(-1), self.code, self.alpha)
        self._saved = y, z
        return y

    def backward(self, dy: Any) -> Any:
        """The gradient with respect to `z`; `dy` itself where that is the same."""
        if self.fused or self.code == codes.LINEAR:
            return dy
        kernels, dz = self.layer.kernels, self.layer.buffer("dz", *dy.shape)
        y, z = self._saved
        if self.name == "softmax":
            shape = (-1, dy.shape[-1])
            kernels.softmax_backward(dz.reshape(shape), dy.reshape(shape), y.reshape(shape))
        else:
            kernels.activation_backward(
                dz.reshape(-1), dy.reshape(-1), z.reshape(-1), y.reshape(-1), self.code, self.alpha
            )
        return dz


class Activation(Layer):
    """Apply an activation to every element (softmax: along the last axis).

    Parameters
    ----------
    activation : str or None
        "relu", "leaky_relu", "elu", "selu", "gelu", "silu" (or "swish"), "softplus", "tanh",
        "sigmoid", "hard_sigmoid", "softmax", "linear".

    Examples
    --------
    >>> from minicnnrnn import layers
    >>> layers.Activation("relu")([[-1.0, 2.0]])
    array([[0., 2.]], dtype=float32)
    """

    supports_masking = True

    def __init__(self, activation: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = ActivationFunction(activation, self)

    def check_input(self, input_shape: Shape) -> None:
        """Anything but a softmax over a single number."""
        self.activation.check_outputs(input_shape[-1])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The same shape."""
        return input_shape

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Copy `x` and activate the copy."""
        z = self.buffer("z", *x.shape)
        z[...] = x
        return self.activation.forward(z), mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Multiply with the derivative."""
        return self.activation.backward(dy) if input_gradient else None
