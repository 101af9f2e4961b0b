"""Containers: layers made of layers, and the plainest of them, one layer after another."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.layers.context import Context
from minicnnrnn.layers.neighbours import Neighbour
from minicnnrnn.layers.stages import layers_of_stage, parts_of_batch, run_stage
from minicnnrnn.parameters import Weight


class Container(Layer):
    """A layer with layers inside; a subclass says which, by ``children``.

    It builds them by ``build_once``, and calls them by ``run_forward`` and ``run_backward``.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        for child in self.children:
            child.owner = self

    def take(self, layer: Layer) -> Layer:
        """Let a layer live in here, and nowhere else.

        Raises
        ------
        TypeError, ValueError
            If it is no layer, or lives in a model already.
        """
        if not isinstance(layer, Layer):
            self.fail("a Layer", repr(layer), TypeError)
        if layer.owner is not None or layer is self:
            self.fail(f"a layer of its own ({layer.name!r} lives in a model already)", repr(layer))
        layer.owner = self
        return layer

    @property
    def weights(self) -> list[Weight]:
        """The weights of all layers inside, in order."""
        return [weight for child in self.children for weight in child.weights]

    @property
    def trainable(self) -> bool:
        """Whether an optimizer changes the weights; setting it sets it for all layers inside."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for child in self.children:
            child.trainable = self._trainable

    @property
    def input_dtype(self) -> str:  # type: ignore[override]  # others have it as a constant
        """What the first layer inside wants."""
        return self.children[0].input_dtype if self.children else "float32"

    def bind(self, context: Context) -> None:
        """Move into another model, with all layers."""
        super().bind(context)
        for child in self.children:
            child.bind(context)

    def check_batch(self, x: Any) -> None:
        """Ask the first layer inside."""
        if self.children:
            self.children[0].check_batch(x)

    def trust_batch(self, x: Any) -> None:
        """Tell the first layer inside."""
        if self.children:
            self.children[0].trust_batch(x)

    def fixes_batch(self) -> bool:
        """Whether a layer inside keeps the states of its samples."""
        return any(child.fixes_batch() for child in self.children)

    def reset_states(self) -> None:
        """Let the stateful layers inside begin their next batch with states of zero."""
        for child in self.children:
            child.reset_states()


class Chain(Container):
    """Layers one after another: the output of each is the input of the next.

    Parameters
    ----------
    layers : iterable of Layer, optional
    """

    supports_masking = True

    def __init__(self, layers: Iterable[Layer] | None = None, **kwargs: Any) -> None:
        self._layers: list[Layer] = []
        super().__init__(**kwargs)
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
            self.forget(
                [inner for layer in fresh if layer in self._layers for inner in layer.walk()]
            )
            raise

    # --- the layers ----------------------------------------------------------------

    @property
    def children(self) -> list[Layer]:
        """The layers."""
        return self._layers

    @property
    def layers(self) -> list[Layer]:
        """The layers, without an input layer."""
        return list(self._layers)

    def add(self, layer: Layer) -> None:
        """Append a layer; the weights of the others are kept.

        Raises
        ------
        TypeError, ValueError
            If it is no layer, lives in a model already, has another layer's name, or cannot
            take the output before it. The model is as it was then.
        """
        self.take(layer)
        try:
            self._append(layer)
        except Exception:
            layer.owner = None
            raise
        if not self.trainable:
            layer.trainable = False

    def _append(self, layer: Layer) -> None:
        if any(layer.name == other.name for other in self._layers):
            self.fail("layers with different names", repr(layer.name))
        if self.built:
            layer.build_once(self.output_shape)
        self._layers.append(layer)
        self.rearranged()
        if not self.built:
            first = self.declared_shape or self._layers[0].declared_shape
            if first is not None:
                try:
                    self.build_once(first)
                except Exception:
                    self._layers.remove(layer)
                    raise

    def rearranged(self) -> None:
        """Be told that there are other layers than before."""

    def last_activation(self) -> Any:
        """That of the last layer, unless a penalty on a container stands behind it."""
        last = self._layers[-1] if self._layers else None
        if isinstance(last, Container) and last.activity_regularizer is not None:
            return None
        return last.last_activation() if last else None

    # --- building ------------------------------------------------------------------

    def build(self, input_shape: Any = None) -> None:
        """Build all layers for inputs of this shape, the batch included. Allocates nothing.

        Raises
        ------
        ValueError
            If a layer cannot take what the one before it gives; the model is unbuilt then.
        """
        shape = self.check_shape(self.declared_shape if input_shape is None else input_shape)
        fresh = self.unbuilt()
        try:
            current = shape
            for layer in self._layers:
                current = layer.build_once(current)
        except Exception:
            for layer in fresh:
                layer.unbuild()
            raise
        self.input_shape, self.built = shape, True

    def unbuilt(self) -> list[Layer]:
        """The layers inside that are not built yet, at any depth."""
        return [layer for layer in self.walk() if layer is not self and not layer.built]

    def forget(self, layers: list[Layer]) -> None:
        """Unbuild this and these of its layers; the weights of the others are kept."""
        for layer in layers:
            layer.unbuild()
        self.unbuild()
        self.rearranged()

    def check_input(self, input_shape: Shape) -> None:
        """Every layer checks the shape that it gets, and what was declared must fit."""
        declared = self.declared_shape
        if declared is None and self._layers:
            declared = self._layers[0].declared_shape
        if declared is not None and (
            len(declared) != len(input_shape)
            or any(
                d is not None and n is not None and d != n for d, n in zip(declared, input_shape)
            )
        ):
            self.fail(f"inputs of the declared shape {declared}", input_shape)
        current = input_shape
        for layer in self._layers:
            layer.check_input(current)
            current = layer.compute_output_shape(current)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The shape behind the last layer."""
        for layer in self._layers:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    # --- computing -----------------------------------------------------------------

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
        self._saved = []
        layers, index = self._layers, 0
        cache = 0 if training or mask is not None else self.device.cache
        while index < len(layers):
            count = layers_of_stage(layers, index, x.shape) if cache else 0
            stage = layers[index : index + count]
            if stage and (parts := parts_of_batch(stage, x.shape, cache)) > 1:
                run = functools.partial(self._run_some, stage)
                x = run_stage(run, layers[index + count], x, parts)
                index += count + 1
            else:
                x, mask, count = self._run_at(layers, index, x, mask, training)
                self._saved.append(layers[index])
                index += count
        return x, mask

    def _run_some(self, layers: Sequence[Layer], x: Any) -> Any:
        """What comes out of some layers, if nobody goes back through them."""
        index, mask = 0, None
        while index < len(layers):
            x, mask, count = self._run_at(layers, index, x, mask, False)
            index += count
        return x

    def _run_at(
        self, layers: Sequence[Layer], index: int, x: Any, mask: Any, training: bool
    ) -> tuple[Any, Any, int]:
        """Output and mask of the layer that stands there, and of how many layers they are."""
        layer = layers[index]
        if isinstance(layer, Neighbour):
            return layer.run_among(layers, index, x, mask, training)
        return *layer.run_forward(x, mask, training), 1

    def backward(self, dy: Any, input_gradient: bool = False) -> Any:
        """Go back through the layers: fill all gradients.

        Parameters
        ----------
        dy : float32 device array
            Gradient of the loss with respect to the last output.
        input_gradient : bool
            Whether the gradient with respect to the input is wanted too.
        """
        ran = self._saved  # without the layers that others stood for
        lowest = 0 if input_gradient else self._lowest_trained(ran)
        given = dx = dy
        for layer in reversed(ran[lowest:]):
            dx = layer.run_backward(dy, input_gradient or layer is not ran[lowest])
            self.give_back(dy, given, dx)
            dy = dx
        return dx

    def _lowest_trained(self, layers: list[Layer]) -> int:
        """The first layer with weights to train: nobody asks for gradients below it."""
        for index, layer in enumerate(layers):
            if any(weight.trainable for weight in layer.weights):
                return index
        return max(len(layers) - 1, 0)
