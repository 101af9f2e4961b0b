"""Sequential: layers one after another, and the three verbs of training."""

from collections.abc import Iterable
from typing import Any

from minicnnrnn.device import Device, get_device
from minicnnrnn.layers.base import Context, Layer, Shape
from minicnnrnn.layers.core import InputLayer
from minicnnrnn.parameters import Weight
from minicnnrnn.shapes import is_integer
from minicnnrnn.training import Training


class Sequential(Training):
    """Layers one after another: the output of each is the input of the next.

    A Sequential is a layer too, and can stand in another one. Training needs only its three
    public verbs ``forward``, ``backward`` and ``update``; ``fit`` is a loop around them.

    Parameters
    ----------
    layers : list of Layer, optional
    name : str, optional
    device : str, optional
        "cpu" or "numpy"; left out, what ``set_device`` or ``MINICNNRNN_DEVICE`` say, else "cpu".
    seed : int, optional
        Fixes initial weights, shuffling and dropout. Left out they are random, unless
        ``set_random_seed`` was called.
    trainable : bool
        ``False`` freezes all layers, also those that are added later.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import Sequential, layers
    >>> model = Sequential([layers.Dense(8, activation="relu"), layers.Dense(1)], seed=0)
    >>> x = np.linspace(-1, 1, 200).reshape(-1, 1)
    >>> history = model.fit(x, x**2, epochs=100, verbose=0)
    >>> history.history["loss"][-1] < 0.01
    True
    >>> model.predict(x).shape
    (200, 1)
    """

    supports_masking = True

    def __init__(
        self,
        layers: Iterable[Layer] | None = None,
        name: str | None = None,
        device: str | None = None,
        seed: int | None = None,
        trainable: bool = True,
        **kwargs: Any,
    ) -> None:
        self._layers: list[Layer] = []
        super().__init__(name=name, **kwargs)
        if seed is not None and not is_integer(seed, 0):
            self.fail("seed to be a non-negative integer or None", repr(seed))
        self._device = get_device(device)
        self._seed = seed
        self._checked: dict[Shape, Shape] = {}
        if layers is not None and not isinstance(layers, Iterable):
            self.fail("a list of layers", repr(layers), TypeError)
        given = list(layers or ())
        fresh = [layer for layer in given if isinstance(layer, Layer) and not layer.built]
        try:
            for layer in given:
                self.add(layer)
        except Exception:
            for layer in self._layers:  # they may try again elsewhere
                layer.owner = None
            self.forget([layer for layer in fresh if layer in self._layers])
            raise
        if not trainable:
            self.trainable = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        for layer in self._layers:
            layer.owner = self

    # --- the layers ----------------------------------------------------------------

    @property
    def layers(self) -> list[Layer]:
        """The layers, without an input layer."""
        return list(self._layers)

    @property
    def device(self) -> Device:
        """Where the model computes."""
        return self.context.device if self.context else self._device

    def add(self, layer: Layer) -> None:
        """Append a layer; the weights of the others are kept.

        Raises
        ------
        TypeError, ValueError
            If it is no layer, lives in a model already, has another layer's name, or cannot
            take the output before it. The model is as it was then.
        """
        if not isinstance(layer, Layer):
            self.fail("a Layer", repr(layer), TypeError)
        if layer.owner is not None or layer is self:
            self.fail(f"a layer of its own ({layer.name!r} lives in a model already)", repr(layer))
        if any(layer.name == other.name for other in self._layers):
            self.fail("layers with different names", repr(layer.name))
        if isinstance(layer, InputLayer):
            if self._layers or self.declared_shape is not None:
                self.fail("an Input only in front", repr(layer))
            self.declared_shape = layer.declared_shape
            return
        if self.built:
            layer.build_once(self.output_shape)
        self._layers.append(layer)
        layer.owner = self
        self._rearranged()
        if not self.built:
            first = self.declared_shape or self._layers[0].declared_shape
            if first is not None:
                try:
                    self.build_once(first)
                except Exception:
                    self._layers.remove(layer)
                    layer.owner = None
                    raise
        if not self.trainable:
            layer.trainable = False

    def pop(self) -> Layer:
        """Remove the last layer and return it."""
        if not self._layers:
            self.fail("a model with layers", "one without")
        layer = self._layers.pop()
        layer.owner = None
        layer.bind(Context(self.device))
        assert layer.context is not None
        layer.context.adopt(layer.weights)
        self._rearranged()
        if not self._layers:
            self.built = False
        return layer

    def _rearranged(self) -> None:
        """The parameters have to be laid out anew; values are kept, optimizer slots are not."""
        self._checked.clear()
        self._resolved = None
        if self.context is not None and self.owner is None:
            self._lay_out()

    def _lay_out(self) -> None:
        assert self.context is not None
        for layer in self._layers:
            layer.bind(self.context)
        self.context.adopt(self.weights)

    @property
    def weights(self) -> list[Weight]:
        """The weights of all layers, in order."""
        return [weight for layer in self._layers for weight in layer.weights]

    @property
    def trainable(self) -> bool:
        """Whether an optimizer changes the weights; setting it sets it for all layers."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for layer in self._layers:
            layer.trainable = self._trainable

    # --- building ------------------------------------------------------------------

    def build(self, input_shape: Any = None) -> None:
        """Build all layers for inputs of this shape, the batch included. Allocates nothing.

        Raises
        ------
        ValueError
            If a layer cannot take what the one before it gives; the model is unbuilt then.
        """
        shape = self.check_shape(self.declared_shape if input_shape is None else input_shape)
        self._require_layers()
        fresh = [layer for layer in self._layers if not layer.built]
        try:
            current = shape
            for layer in self._layers:
                current = layer.build_once(current)
        except Exception:
            for layer in fresh:
                layer.unbuild()
            raise
        self.input_shape, self.built = shape, True

    def unbuild(self) -> None:
        """Forget what ``build`` did."""
        self.built, self.input_shape = False, None
        self._checked.clear()
        for layer in self._layers:
            layer.unbuild()

    def unbuilt(self) -> list[Layer]:
        """The layers that are not built yet."""
        return [layer for layer in self._layers if not layer.built]

    def forget(self, layers: list[Layer]) -> None:
        """Unbuild the model and these of its layers; the weights of the others are kept."""
        for layer in layers:
            layer.unbuild()
        self.built, self.input_shape = False, None
        self._rearranged()
        if self.owner is None and not self.weights:
            self.context = None  # the next building draws the same initial weights

    def fixes_batch(self) -> bool:
        """Whether a layer keeps the states of its samples."""
        return any(layer.fixes_batch() for layer in self._layers)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The shape behind the last layer; every layer checks the shape it gets."""
        current = input_shape
        for layer in self._layers:
            layer.check_input(current)
            current = layer.compute_output_shape(current)
        return current

    def build_once(self, input_shape: Any) -> Shape:
        """Build for this shape unless built, else check that it still fits."""
        shape = self.check_shape(input_shape)
        if not self.built:
            self.build(shape)
        self._check_declared(shape)
        return self.compute_output_shape(shape)

    def _check_declared(self, shape: Shape) -> None:
        declared = self.declared_shape
        if declared is None and self._layers:
            declared = self._layers[0].declared_shape
        if declared is not None and (
            len(declared) != len(shape)
            or any(d is not None and n is not None and d != n for d, n in zip(declared, shape))
        ):
            self.fail(f"inputs of the declared shape {declared}", shape)

    def output_shape_of(self, shape: tuple[int, ...]) -> Any:
        """The output's shape for a batch of this shape, building the model if need be."""
        found = self._checked.get(shape)
        if found is None:
            if not self.built:
                self._require_layers()
                self._check_declared(shape)
                self.build((shape[0] if self.fixes_batch() else None, *shape[1:]))
            if len(self._checked) > 64:  # sequences of ever new lengths
                self._checked.clear()
            found = self._checked[shape] = self.build_once(shape)
        return found

    def _require_layers(self) -> None:
        if not self._layers:
            self.fail("a model with at least one layer", "one without layers")

    # --- memory --------------------------------------------------------------------

    def model_context(self) -> Context:
        """What all layers of this model share."""
        if self.context is None:
            self.bind(Context(self._device, self._seed))
            assert self.context is not None
            self.context.adopt([])
        return self.context

    def bind(self, context: Context) -> None:
        """Move into another model, with all layers."""
        super().bind(context)
        for layer in self._layers:
            layer.bind(context)

    def allocate(self) -> None:
        """Make sure that the weights have values."""
        context = self.model_context()
        if self.owner is None and len(context.parameters.weights) != len(self.weights):
            self._lay_out()
        context.parameters.allocate(context.rng)

    # --- the three verbs -----------------------------------------------------------

    def forward(self, x: Any, mask: Any = None, training: bool = False) -> tuple[Any, Any]:
        """Compute the output, and the mask that goes with it.

        Parameters
        ----------
        x : float32 device array
            Not written to, and kept until ``backward``.
        mask : uint8 device array (N, T), optional
        training : bool
            Whether ``backward`` may follow, and whether dropout is active.

        Returns
        -------
        output, mask
            The output lies in the model's buffers: the next call overwrites it.
        """
        for layer in self._layers:
            x, mask = layer.forward(x, mask, training)
        return x, mask

    def backward(self, dy: Any, input_gradient: bool = False) -> Any:
        """Go back through the layers: fill all gradients.

        Parameters
        ----------
        dy : float32 device array
            Gradient of the loss with respect to the last output.
        input_gradient : bool
            Whether the gradient with respect to the input is wanted too.
        """
        lowest = 0 if input_gradient else self._lowest_trained()
        for layer in reversed(self._layers[lowest + 1 :]):
            dy = layer.backward(dy, True)
        return self._layers[lowest].backward(dy, input_gradient)

    def _lowest_trained(self) -> int:
        """The first layer with weights to train: nobody asks for gradients below it."""
        for index, layer in enumerate(self._layers):
            if any(weight.trainable for weight in layer.weights):
                return index
        return len(self._layers) - 1

    def last_activation(self) -> Any:
        """The activation that the output comes from, or ``None`` if its layer has none."""
        last = self._layers[-1]
        if isinstance(last, Sequential):
            return last.last_activation()
        return getattr(last, "activation", None)

    # --- looking -------------------------------------------------------------------

    def summary(self, print_fn: Any = print) -> None:
        """Print the layers with their output shapes and numbers of parameters.

        Parameters
        ----------
        print_fn : callable
            Gets every line.

        Examples
        --------
        >>> from minicnnrnn import Sequential, layers
        >>> Sequential([layers.Input((4,)), layers.Dense(2, name="out")], name="tiny").summary()
        Model: "tiny"
        Layer (type)    Output shape    Parameters
        ------------------------------------------
        out (Dense)     (None, 2)               10
        ------------------------------------------
        Parameters: 10 (trainable: 10), 40 bytes
        """
        rows = [("Layer (type)", "Output shape", "Parameters")]
        shape = self.input_shape
        for layer in self._layers:
            shape = layer.compute_output_shape(shape) if shape is not None else None
            count = f"{layer.count_params():,}" if layer.built else "?"
            kind = type(layer).__name__
            rows.append((f"{layer.name} ({kind})", "?" if shape is None else str(shape), count))
        first, second = (max(len(row[i]) for row in rows) + 4 for i in (0, 1))
        third = max(len(row[2]) for row in rows)
        lines = [f"{a:<{first}}{b:<{second}}{c:>{third}}" for a, b, c in rows]
        rule = "-" * len(lines[0])
        print_fn(f'Model: "{self.name}"')
        for line in (lines[0], rule, *lines[1:], rule):
            print_fn(line)
        if self.built:
            total = self.count_params()
            trainable = sum(weight.size for weight in self.weights if weight.trainable)
            print_fn(f"Parameters: {total:,} (trainable: {trainable:,}), {4 * total:,} bytes")
        else:
            print_fn("Parameters: ? (build the model, or give the first layer an input shape)")

    def __call__(self, x: Any, training: bool = False, mask: Any = None) -> Any:
        """Apply the model to an array: a new array.

        Parameters
        ----------
        x : array-like
        training : bool
        mask : array-like (N, T), optional
        """
        self._require_layers()
        return super().__call__(x, training, mask)

    def _array(self, x: Any) -> Any:
        array = super()._array(x)
        return array.reshape(self._batch_shape(array))

    def __repr__(self) -> str:
        return f"<Sequential name={self.name!r} layers={len(self._layers)} built={self.built}>"
