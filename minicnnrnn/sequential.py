"""Sequential: layers one after another, and the three verbs of training."""

from collections.abc import Iterable
from typing import Any

from minicnnrnn import changes
from minicnnrnn.device import Device, get_device
from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.layers.context import Context
from minicnnrnn.layers.core import InputLayer
from minicnnrnn.shapes import is_integer
from minicnnrnn.summary import describe
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
        "cpu", "cuda" or "numpy"; left out, what ``set_device`` or ``MINICNNRNN_DEVICE`` say, else
        "cpu".
    seed : int, optional
        Fixes initial weights, shuffling and dropout. Left out they are random, unless
        ``set_random_seed`` was called.
    trainable : bool
        ``False`` freezes all layers, also those that are added later.
    cuda_graph : bool
        On a GPU, steps become CUDA graphs: the second one of a kind is recorded, and
        replayed for all that follow, with the same bits. ``False`` launches every kernel of every
        step, as for a layer of your own whose Python does something else each time that no kernel
        sees. May be set at any time.
    precision : str
        "float32", or "tf32" to multiply on a GPU's tensor cores, which takes a fraction of the
        time: factors are rounded to 10 bits behind the point, sums are not. It is about products
        and convolutions whose channels are multiples of 4; the others, GPUs before compute
        capability 8.0, the CPU and NumPy compute in float32 either way, so a model may say it
        wherever it runs.

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

    def __init__(
        self,
        layers: Iterable[Layer] | None = None,
        name: str | None = None,
        device: str | None = None,
        seed: int | None = None,
        trainable: bool = True,
        cuda_graph: bool = True,
        precision: str = "float32",
        **kwargs: Any,
    ) -> None:
        if seed is not None and not is_integer(seed, 0):
            raise ValueError(f"seed: Expected a non-negative integer or None. Received: {seed!r}")
        self._device = get_device(device, precision)
        self._seed, self.cuda_graph = seed, bool(cuda_graph)
        self._checked: dict[Shape, Shape] = {}
        super().__init__(layers, name=name, **kwargs)
        if not trainable:
            self.trainable = False

    # --- the layers ----------------------------------------------------------------

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
        if isinstance(layer, InputLayer):
            if self._layers or self.declared_shape is not None:
                self.fail("an Input only in front", repr(layer))
            self.declared_shape = layer.declared_shape
            return
        super().add(layer)

    def pop(self) -> Layer:
        """Remove the last layer and return it."""
        if not self._layers:
            self.fail("a model with layers", "one without")
        layer = self._layers.pop()
        layer.owner = None
        layer.bind(Context(self.device))
        assert layer.context is not None
        layer.context.adopt(layer.weights)
        self.rearranged()
        if not self._layers:
            self.built = False
        return layer

    def rearranged(self) -> None:
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

    # --- building ------------------------------------------------------------------

    def build(self, input_shape: Any = None) -> None:
        """Build all layers for inputs of this shape, the batch included. Allocates nothing.

        Raises
        ------
        ValueError
            If there is no layer, or one cannot take what the one before it gives; the model is
            unbuilt then.
        """
        self._require_layers()
        super().build(input_shape)

    def forget(self, layers: list[Layer]) -> None:
        """Unbuild the model and these of its layers; the weights of the others are kept."""
        super().forget(layers)
        if self.owner is None and not self.weights:
            self.context = None  # the next building draws the same initial weights

    def output_shape_of(self, shape: tuple[int, ...]) -> Any:
        """The output's shape for a batch of this shape, building the model if need be."""
        found = self._checked.get(shape)
        if found is None:
            if not self.built:
                self._require_layers()
                self.build_once((shape[0] if self.fixes_batch() else None, *shape[1:]))
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

    def allocate(self) -> None:
        """Make sure that the weights have values."""
        context = self.model_context()
        if self.owner is None and len(context.parameters.weights) != len(self.weights):
            self._lay_out()
        context.parameters.allocate(context.rng)

    def to(self, device: Any) -> "Sequential":
        """Move to another device: weights, optimizer and random numbers go along.

        Parameters
        ----------
        device : str or Device
            "cpu", "cuda" or "numpy".

        Returns
        -------
        Sequential
            The model itself.

        Raises
        ------
        ValueError, RuntimeError, MemoryError
            If there is no such device, or too little memory on it, or if the model stands in
            another one. It is as it was then.

        Examples
        --------
        >>> from minicnnrnn import Sequential, layers
        >>> model = Sequential([layers.Input((2,)), layers.Dense(3)], device="cpu")
        >>> model.to("numpy").device
        Device('numpy')
        """
        if self.owner is not None:
            self.fail("a model that stands alone: move the outermost one", self.owner.name)
        found, context = get_device(device, self.device.precision), self.context
        if context is None:
            self._device = found
            return self
        with context.lock:
            models = [layer for layer in self.walk() if isinstance(layer, Training)]
            trained = [model.optimizer for model in models if model.optimizer is not None]
            parts: list[Any] = [context, context.parameters, *trained]
            moved = [(part, part.moved(found)) for part in parts]
            for part, changed in moved:
                part.__dict__ |= changed
            context.parameters.show()
            context.parameters.changed()
            changes.note()
            for layer in self.walk():
                layer.release()
            for model in models:
                model._targets = model._totals = model._recorded = None
        return self

    # --- computing -----------------------------------------------------------------

    def forward(self, x: Any, mask: Any = None, training: bool = False) -> tuple[Any, Any]:
        """Compute the output, and the mask that goes with it: see ``Chain``.

        A NumPy array is copied to the model's device first, if that has memory of its own.
        """
        if self.owner is None:
            x, mask = self.device.upload(x), None if mask is None else self.device.upload(mask)
        return super().forward(x, mask, training)

    def backward(self, dy: Any, input_gradient: bool = False) -> Any:
        """Go back through the layers: fill all gradients; see ``Chain`` and ``forward``."""
        dy = self.device.upload(dy)
        if self.owner is None:
            self.model_context().gradients.begin(dy)
        return super().backward(dy, input_gradient)

    # --- looking -------------------------------------------------------------------

    def summary(
        self,
        print_fn: Any = print,
        expand_nested: bool = True,
        batch_size: int = 32,
    ) -> None:
        """Print the layers with their output shapes and numbers of parameters.

        Parameters
        ----------
        print_fn : callable
            Gets every line.
        expand_nested : bool
            Show the layers inside of layers, unlike Keras unless it is told.
        batch_size : int
            What the memory of the outputs is counted for.

        Examples
        --------
        >>> from minicnnrnn import Sequential, layers
        >>> block = layers.Residual([layers.Dense(4, name="inside", trainable=False)], name="add")
        >>> model = Sequential([layers.Input((4,)), block, layers.Dense(2, name="out")], "tiny")
        >>> model.summary()
        Model: "tiny"
        Layer (type)          Output shape    Parameters
        ------------------------------------------------
        add (Residual)        (None, 4)        frozen 20
          layers (Chain)      (None, 4)        frozen 20
            inside (Dense)    (None, 4)        frozen 20
          shortcut (Chain)    (None, 4)                0
        out (Dense)           (None, 2)               10
        ------------------------------------------------
        Parameters: 30 (trainable: 10)
        Memory: 120 bytes of weights, 1,792 bytes of outputs for a batch of 32
        """
        for line in describe(self, expand_nested, batch_size):
            print_fn(line)

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
