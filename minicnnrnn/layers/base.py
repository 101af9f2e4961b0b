"""Layer: what all layers share - names, weights, memory and the way of a call."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from minicnnrnn import changes, constraints, initializers, regularizers
from minicnnrnn.arrays import as_array, copy_batch
from minicnnrnn.configuration import Recorded
from minicnnrnn.device import Buffer, Device, get_device
from minicnnrnn.layers.context import Context, unique_name
from minicnnrnn.parameters import Weight
from minicnnrnn.penalties import OutputPenalty
from minicnnrnn.recorded import assign
from minicnnrnn.shapes import is_integer

Shape = tuple[int | None, ...]


class Layer(Recorded):
    """The base of all layers.

    A layer checks its arguments and shapes, owns weights and buffers, and calls the kernels of
    its device. A subclass defines ``build``, ``compute_output_shape``, ``forward`` and
    ``backward``.

    Parameters
    ----------
    name : str, optional
        Keras' automatic name if left out.
    trainable : bool
        Whether an optimizer changes the weights.
    dtype : str
        Only ``"float32"``.
    activity_regularizer : str or Regularizer, optional
        Penalty on the output, a mean over the batch.
    input_shape : tuple, optional
        Shape of one sample, for a first layer; so is ``input_dim`` for one-dimensional samples,
        and ``batch_shape`` (or ``batch_input_shape``) with the batch in front.
    """

    supports_masking = False
    input_dtype = "float32"  # of the batches that a first layer wants: "int32" for ids

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
        activity_regularizer: Any = None,
        input_shape: Any = None,
        input_dim: int | None = None,
        batch_shape: Any = None,
        batch_input_shape: Any = None,
        **unknown: Any,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name or "/" in name):
            raise ValueError(f"name: Expected a non-empty string without '/'. Received: {name!r}")
        self.name = unique_name(type(self).__name__) if name is None else name
        if unknown:
            self.fail("arguments that this layer has", f"{', '.join(sorted(unknown))}", TypeError)
        if dtype not in (None, "float32"):
            self.fail("dtype 'float32'", repr(dtype))
        self.built = False
        self.owner: Layer | None = None
        self.context: Context | None = None
        self.input_shape: Shape | None = None
        self._weights: list[Weight] = []
        self.activity_regularizer = self.regularizer(activity_regularizer)
        self._output_penalty: OutputPenalty | None = None
        self._trainable = bool(trainable)
        self.declared_shape = self._declared(input_shape, input_dim, batch_shape, batch_input_shape)
        self._buffers: dict[str, Buffer] = {}
        self._saved: Any = None  # what `forward` keeps for `backward`
        self._stream: int | None = None
        self._plans: dict[Any, Any] = {}  # what was worked out for inputs of a shape
        self._prepared = (-1, -1)  # what the packed weights were made from, and where they are
        self._warned = False  # that it does not carry a mask

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: no owner, and no memory of a batch."""
        fresh: dict[str, Any] = {"owner": None, "_buffers": {}, "_saved": None, "_plans": {}}
        return self.__dict__ | fresh | {"_output_penalty": None, "_prepared": (-1, -1)}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name!r} built={self.built}>"

    def fail(self, expected: str, received: Any, kind: type[Exception] = ValueError) -> None:
        """Raise the one form of error: the layer's name, Expected, Received."""
        raise kind(f"layer {self.name!r}: Expected {expected}. Received: {received}")

    def refuse(self, **arguments: Any) -> None:
        """Raise for arguments that Keras has and this layer does not, unless they are unset."""
        for argument, value in arguments.items():
            if value is not None and value is not False:
                self.fail(f"{argument} to be left out: it is not supported", f"{value!r}")

    def _declared(
        self, input_shape: Any, input_dim: Any, batch_shape: Any, batch_input_shape: Any
    ) -> Shape | None:
        given = [
            s for s in (input_shape, input_dim, batch_shape, batch_input_shape) if s is not None
        ]
        if not given:
            return None
        if len(given) > 1:
            self.fail("one of input_shape, input_dim, batch_shape", given)
        batched = batch_shape if batch_shape is not None else batch_input_shape
        if batched is not None:
            return self.check_shape(batched)
        sample = (input_dim,) if input_dim is not None else input_shape
        if not isinstance(sample, tuple | list):
            self.fail("input_shape to be a tuple", repr(sample))
        return self.check_shape((None, *sample))

    def check_shape(self, shape: Any) -> Shape:
        """A shape with the batch in front, as a tuple of positive integers and ``None``."""
        if not isinstance(shape, tuple | list) or not all(
            n is None or is_integer(n, 1) for n in shape
        ):
            self.fail("a shape of positive integers and None, batch included", repr(shape))
        return tuple(None if n is None else int(n) for n in shape)

    # --- building ------------------------------------------------------------------

    def add_weight(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: Any,
        regularizer: Any = None,
        constraint: Any = None,
        state: bool = False,
    ) -> Weight:
        """Declare a weight; its values are made when first needed.

        Parameters
        ----------
        name : str
        shape : tuple of int
        initializer : callable ``(shape, rng) -> array``
        regularizer : Regularizer, optional
            Its penalty is part of the loss while the weight is trained.
        constraint : Constraint, optional
            What every update ends with.
        state : bool
            Not trained, but kept with the weights: moving statistics.
        """
        weight = Weight(name, shape, initializer, regularizer, constraint, state)
        weight.trainable = self.trainable and not state
        self._weights.append(weight)
        return weight

    def initializer(self, identifier: Any) -> Any:
        """The initializer of this name; an error names the layer."""
        return self._named(initializers.get, identifier)

    def regularizer(self, identifier: Any) -> Any:
        """The regularizer of this name, or ``None``; an error names the layer."""
        return self._named(regularizers.get, identifier)

    def constraint(self, identifier: Any) -> Any:
        """The constraint of this name, or ``None``; an error names the layer."""
        return self._named(constraints.get, identifier)

    def _named(self, get: Any, identifier: Any) -> Any:
        try:
            return get(identifier)
        except (ValueError, TypeError) as error:
            raise type(error)(f"layer {self.name!r}: {error}") from None

    def check_data_format(self, data_format: str | None) -> None:
        """Channels are last, here as in Keras' default."""
        if data_format not in (None, "channels_last"):
            self.fail("data_format 'channels_last' (transpose the data)", repr(data_format))

    def build(self, input_shape: Shape) -> None:
        """Declare weights for inputs of this shape (batch included). Nothing is allocated."""

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output (batch included) for this shape of the input."""
        return input_shape

    def check_input(self, input_shape: Shape) -> None:
        """Raise if inputs of this shape cannot be taken, by the layer's kind or as it was built."""

    def check_batch(self, x: Any) -> None:
        """Raise if a first layer cannot take these values, a NumPy array; nothing is computed."""

    def trust_batch(self, x: Any) -> None:
        """Note that this device array holds a batch that was checked."""

    def fixes_batch(self) -> bool:
        """Whether the layer is built for one size of batches."""
        return False

    def reset_states(self) -> None:
        """Forget what a stateful layer keeps from batch to batch."""

    @property
    def children(self) -> list["Layer"]:
        """The layers inside: see ``Container``."""
        return []

    def walk(self) -> Iterator["Layer"]:
        """The layer itself and all that are inside it, at any depth."""
        yield self
        for child in self.children:
            yield from child.walk()

    def last_activation(self) -> Any:
        """The activation that the output comes from, or ``None`` if the layer has none."""
        return getattr(self, "activation", None)

    def build_once(self, input_shape: Any) -> Shape:
        """Build for this shape unless it is built, else check that the shape still fits.

        Returns
        -------
        tuple
            The shape of the output.
        """
        shape = self.check_shape(input_shape)
        self.check_input(shape)
        output = self.compute_output_shape(shape)
        if not self.built:
            self.build(shape)
            self.input_shape, self.built = shape, True
        return output

    @property
    def output_shape(self) -> Shape:
        """Shape of the output (batch included)."""
        if self.input_shape is None:
            raise ValueError(f"layer {self.name!r}: Expected a built layer. Received: none built.")
        return self.compute_output_shape(self.input_shape)

    def unbuild(self) -> None:
        """Forget what ``build`` did: a model whose building failed half-way starts afresh."""
        self.built, self.input_shape = False, None
        self._weights.clear()

    def bind(self, context: Context) -> None:
        """Move into a model: use its device, its random numbers and its lock."""
        if self.context is not context:
            self.context, self._stream = context, None
            self.release()

    def release(self) -> None:
        """Drop the memory of batches, and what was worked out for their shapes."""
        changes.note()
        self._buffers, self._plans = {}, {}
        self._saved, self._output_penalty, self._prepared = None, None, (-1, -1)

    # --- memory --------------------------------------------------------------------

    @property
    def device(self) -> Device:
        """Where this layer computes."""
        return self.context.device if self.context else get_device()

    @property
    def kernels(self) -> Any:
        """The kernels of this layer's device."""
        return self.device.kernels

    def buffer(self, name: str, *shape: int, dtype: Any = np.float32) -> Any:
        """Memory of the layer of that name, as a view of that shape."""
        found = self._buffers.get(name)
        if found is None:
            found = self._buffers[name] = Buffer(self.device, dtype)
        return found(*shape)

    def gradient(self, name: str, *shape: int) -> Any:
        """Memory for a gradient that the layer below reads, and nobody afterwards."""
        assert self.context is not None
        return self.context.gradients.take((id(self), name), *shape)

    def give_back(self, gradient: Any, *wanted: Any) -> None:
        """Say that nobody reads this gradient any more, unless it is one that is still wanted."""
        assert self.context is not None
        self.context.gradients.give_back(gradient, *wanted)

    def allocate(self) -> None:
        """Make sure that the weights have values."""
        if self.context is None:
            self.bind(Context(get_device()))
            assert self.context is not None
            self.context.adopt(self.weights)
        assert self.context is not None
        self.context.parameters.allocate(self.context.rng)

    def bias_value(self) -> Any:
        """The bias, the last weight if the layer has one, else an array of size zero."""
        return self.weights[-1].value if self._has_bias() else self.buffer("no bias", 0)

    def bias_gradient(self) -> Any:
        """The bias' gradient, or an array of size zero."""
        return self.weights[-1].gradient if self._has_bias() else self.buffer("no bias", 0)

    def _has_bias(self) -> bool:
        return bool(self.weights) and self.weights[-1].name == "bias"

    def stream(self) -> int:
        """The number of this layer's random stream within its model."""
        assert self.context is not None
        if self._stream is None:
            self._stream = self.context.streams
            self.context.streams += 1
        return self._stream

    def workspace(self, size: int, training: bool = False) -> tuple[Any, bool]:
        """The kernels' workspace, and whether weights have to be packed into it (again).

        Train steps change the weights every time, and all layers of a model train in the same
        memory. Predictions find theirs as they left it.
        """
        assert self.context is not None
        if training:
            return self.context.workspace(max(size, 1)), True
        ws = self.buffer("workspace", max(size, 1))
        state = (self.context.parameters.version, self._buffers["workspace"].moves)
        if state == self._prepared:
            return ws, False
        self._prepared = state
        self.context.packings += 1
        return ws, True

    # --- weights -------------------------------------------------------------------

    @property
    def weights(self) -> list[Weight]:
        """All weights, in Keras' order."""
        return self._weights

    @property
    def trainable(self) -> bool:
        """Whether an optimizer changes the weights; may be set at any time."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for weight in self._weights:
            weight.trainable = self._trainable and not weight.state

    def get_weights(self) -> list[Any]:
        """Copies of the weights, in Keras' order."""
        self._require_built()
        self.allocate()
        return [np.array(weight.value) for weight in self.weights]

    def set_weights(self, weights: Any) -> None:
        """Replace all weights.

        Raises
        ------
        ValueError
            If their number, a shape or a value (NaN, infinity) is not as expected; nothing has
            changed then.
        """
        self._require_built()
        if not isinstance(weights, list | tuple):
            self.fail("a list of weights", repr(weights), TypeError)
        given = [np.asarray(w) for w in weights]
        if len(given) != len(self.weights):
            self.fail(f"{len(self.weights)} weights", f"{len(given)}")
        for weight, array in zip(self.weights, given, strict=True):
            if array.shape != weight.shape or array.dtype.kind not in "fiub":
                self.fail(
                    f"weight {weight.name!r} to have shape {weight.shape} and a real dtype",
                    f"shape {array.shape}, dtype {array.dtype}",
                )
            with np.errstate(over="ignore"):
                finite = np.isfinite(array.astype(np.float32)).all()
            if not finite:
                self.fail(f"weight {weight.name!r} to be finite in float32", "NaN or infinity")
        self.allocate()
        assert self.context is not None
        with self.context.lock:
            for weight, array in zip(self.weights, given, strict=True):
                weight.value[...] = array
            self.context.parameters.changed()

    def count_params(self) -> int:
        """Number of elements in all weights. Allocates nothing."""
        self._require_built()
        return sum(weight.size for weight in self.weights)

    def _require_built(self) -> None:
        if not self.built:
            self.fail("a built layer (call it on data, or build it with a shape)", "an unbuilt one")

    # --- computing -----------------------------------------------------------------

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Compute the output, and the mask that goes with it.

        Parameters
        ----------
        x : device array
            Not written to, and kept until ``backward``.
        mask : device array of uint8 (N, T), or None
        training : bool
            Whether ``backward`` may follow, and whether random layers are active.
        """
        raise TypeError(f"layer {self.name!r}: Expected one that can compute. Received: {self!r}")

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Go back: fill the gradients of the weights, return that of the input.

        Parameters
        ----------
        dy : device array
            Gradient of the loss with respect to the last output. Not written to, and not kept:
            a chain gives its memory to other layers afterwards.
        input_gradient : bool
            ``False`` saves the work where nobody asks for it, as in a first layer; the result
            is ``None`` then.
        """
        raise TypeError(f"layer {self.name!r}: Expected one that can compute. Received: {self!r}")

    def add_loss(self, value: Any) -> None:
        """Add a penalty to the reported loss of this batch; to be called in ``forward``.

        `value` is a float, or a device array with one element; its gradient is the layer's own.
        """
        assert self.context is not None
        self.context.penalty += value

    def run_forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """``forward``, and the penalty on what comes out: what containers call."""
        y, mask = self.forward(x, mask, training)
        if self.activity_regularizer is not None:
            self._output_penalty = self._output_penalty or OutputPenalty(self.activity_regularizer)
            self._output_penalty.add_value(self.context, y)
        return y, mask

    def run_backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """``backward``, with the gradient of the penalty on the output."""
        if self._output_penalty is not None:
            total = self.buffer("dy and penalty", *dy.shape)
            assign(total, dy)
            self._output_penalty.add_gradient(total)
            dy = total
        return self.backward(dy, input_gradient)

    def __call__(self, x: Any, training: bool = False, mask: Any = None) -> Any:
        """Apply the layer to an array, building it first if need be; returns a new array."""
        array = self._array(x)
        mask = None if mask is None else self._mask(mask, array.shape)
        self.build_once((len(array) if self.fixes_batch() else None, *array.shape[1:]))
        self.allocate()
        assert self.context is not None
        with self.context.lock:
            if training:
                self.context.parameters.allocate_gradients()
            self.check_batch(array)
            x = self.device.upload(array)
            self.trust_batch(x)
            mask = None if mask is None else self.device.upload(mask)
            return np.array(self.run_forward(x, mask, training)[0])

    def _array(self, x: Any) -> Any:
        """A copy of what a user passed, as numbers or ids; an error names the layer."""
        try:
            rows = as_array(x, "x")
            array = np.empty(rows.shape, self.input_dtype)
            copy_batch(array, rows)
        except (ValueError, TypeError) as error:
            raise type(error)(f"layer {self.name!r}: {error}") from None
        return array

    def _mask(self, mask: Any, shape: tuple[int, ...]) -> Any:
        """The mask as uint8 (N, T): kernels trust its shape."""
        given = np.asarray(mask)
        if given.shape != shape[:2] or given.dtype.kind not in "biuf":
            self.fail(
                f"mask of shape {shape[:2]}, one number a step",
                f"shape {given.shape}, dtype {given.dtype}",
            )
        return np.ascontiguousarray(given != 0, dtype=np.uint8)

    def pass_mask(self, mask: Any) -> Any:
        """The mask behind this layer; warns, once, if the layer cannot carry one."""
        if mask is None or self.supports_masking:
            return mask
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"layer {self.name!r} ({type(self).__name__}) does not carry a mask: "
                "what follows it sees all steps.",
                stacklevel=2,
            )
        return None
