"""The weights of a model: one flat vector, of which every weight is a view."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minicnnrnn import changes
from minicnnrnn.constraints import Projection
from minicnnrnn.device import Device
from minicnnrnn.penalties import Penalties

ALIGNMENT = 64  # floats: a segment begins on a cache line of its own


class Weight(changes.Watched):
    """One weight of a layer: its name, its shape, and where its values live.

    Parameters
    ----------
    name : str
        Keras' name: "kernel", "bias", ...
    shape : tuple of int
    initializer : callable
        ``(shape, rng) -> array``, asked when the values are first needed.
    regularizer : Regularizer, optional
    constraint : Constraint, optional
    state : bool
        Never trained: a layer's own record, such as moving statistics.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: Callable[..., Any],
        regularizer: Any = None,
        constraint: Any = None,
        state: bool = False,
    ) -> None:
        self.name, self.shape, self.initializer = name, shape, initializer
        self.regularizer, self.constraint, self.state = regularizer, constraint, state
        self.projection = None if constraint is None else Projection(constraint, shape)
        self.trainable = not state
        self.value: Any = None  # views into the model's vectors, once these exist
        self.gradient: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: the values, of which `Parameters` makes views again."""
        return self.__dict__ | {"gradient": None}

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


class WeightView:
    """A weight as an attribute of its layer: a read-only view, ``None`` where it does not exist."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type) -> Any:
        if layer is None:
            return self
        for weight in layer.weights:
            if weight.name == self.name:
                layer.allocate()
                view = np.asarray(weight.value).view()
                view.flags.writeable = False
                return view
        return None


class Parameters:
    """The flat vectors behind the weights of a model, and the table of their segments.

    Segments start at multiples of 64 floats with zeros between them, so that an optimizer
    update is one kernel over one vector, and a checkpoint a handful of arrays.

    Nothing is allocated before ``allocate``: counting parameters is free.
    """

    def __init__(self, weights: Sequence[Weight], device: Device) -> None:
        self.weights, self.device = list(weights), device
        self.offsets: list[int] = []
        size = 0
        for weight in self.weights:
            self.offsets.append(size)
            size += (weight.size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        self.size = size
        self.values: Any = None
        self.gradients: Any = None
        self._regularized = any(weight.regularizer is not None for weight in self.weights)
        self._tables: dict[Any, Any] = {}  # what depends on which weights are trained
        self.version = 0  # grows with every change: packed copies of weights compare it

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: whether there are vectors. The weights bring their values along."""
        vectors = {"values": self.values is not None, "gradients": self.gradients is not None}
        return self.__dict__ | vectors | {"_tables": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"values": None, "gradients": None}
        if state["values"]:
            self.allocate(None)
        if state["gradients"]:
            self.allocate_gradients()

    def allocate(self, rng: np.random.Generator | None) -> None:
        """Make the vector of values, keeping those that exist and initializing the others."""
        if self.values is not None:
            return
        values = self.device.zeros((self.size,))
        for weight, view in zip(self.weights, self._views(values), strict=True):
            held = weight.value
            view[...] = weight.initializer(weight.shape, rng) if held is None else held
        self.values = values
        for weight in self.weights:
            weight.gradient = None
        self.show()
        self.changed()

    def allocate_gradients(self) -> None:
        """Make the vector of gradients: only training needs it."""
        if self.gradients is None:
            self.gradients = self.device.zeros((self.size,))
            self.show()

    def moved(self, device: Device) -> dict[str, Any]:
        """What changes when the model moves to another device: copies of the vectors there."""
        vectors = {"values": self.values, "gradients": self.gradients}
        copies: dict[str, Any] = {"device": device, "_tables": {}}
        for name, vector in vectors.items():
            if vector is not None:
                copies[name] = device.empty((self.size,))
                copies[name][...] = np.asarray(vector)
        return copies

    def show(self) -> None:
        """Let the weights be views of the vectors."""
        for name in ("values", "gradients"):
            vector = getattr(self, name)
            if vector is not None:
                for weight, view in zip(self.weights, self._views(vector), strict=True):
                    setattr(weight, name[:-1], view)

    def changed(self) -> None:
        """Note that values were written, so that packed or transformed copies are made anew."""
        self.version += 1

    def segments(self, weights: Sequence[Weight], undecayed: frozenset[int] = frozenset()) -> Any:
        """(start, stop, decays) of those of the weights that an optimizer update visits.

        They are all of a model, or those of a model that stands in another one. The numbers of
        those that do not decay may be given.
        """

        def make(trained: tuple[bool, ...]) -> Any:
            table = [
                (start, start + weight.size, number not in undecayed)
                for number, (start, weight) in enumerate(zip(self.offsets, self.weights))
                if trained[number]
            ]
            return self.device.upload(np.array(table, np.int64).reshape(-1, 3))

        return self._table(("segments", undecayed), weights, make)

    def add_penalties(self, context: Any, weights: Sequence[Weight]) -> None:
        """Add to a context's penalty what the regularizers of those that are trained ask for."""
        if self._regularized:
            self._penalties(weights).add_value(context.penalty, self.values)

    def regularize(self, weights: Sequence[Weight]) -> None:
        """Add the gradients of these penalties to the gradients."""
        if self._regularized:
            self._penalties(weights).add_gradient(self.gradients, self.values)

    def _penalties(self, weights: Sequence[Weight]) -> Penalties:
        def make(trained: tuple[bool, ...]) -> Penalties:
            entries = [
                (start, weight.shape, weight.regularizer)
                for start, weight, chosen in zip(self.offsets, self.weights, trained, strict=True)
                if chosen and weight.regularizer is not None
            ]
            return Penalties(self.device, entries)

        made: Penalties = self._table("penalties", weights, make)
        return made

    def _table(self, kind: Any, weights: Sequence[Weight], make: Callable[..., Any]) -> Any:
        """The table of this kind for those of the weights that are trained, made once."""
        wanted = {id(weight) for weight in weights}
        trained = tuple(weight.trainable and id(weight) in wanted for weight in self.weights)
        found = self._tables.get((kind, trained))
        if found is None:
            if len(self._tables) > 16:
                self._tables.clear()
            found = self._tables[kind, trained] = make(trained)
        return found

    def constrain(self, weights: Sequence[Weight]) -> None:
        """Bring those of the weights that are trained back into what their constraints allow."""
        for weight in weights:
            if weight.trainable and weight.projection is not None:
                weight.projection.apply(self.device, weight.value)
                self.changed()

    def _views(self, vector: Any) -> list[Any]:
        return [
            vector[start : start + weight.size].reshape(weight.shape)
            for start, weight in zip(self.offsets, self.weights, strict=True)
        ]
