"""Residual and Branches: layers made of layers, for networks that are not a plain chain.

They are this package's own: in Keras, the functional API and its merge layers do this. ResNet,
Inception and U-Net need nothing else.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from minicnnrnn.kernels import codes
from minicnnrnn.layers.activation import ActivationFunction
from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.layers.container import Chain, Container
from minicnnrnn.layers.neighbours import Neighbour, plain
from minicnnrnn.recorded import assign, change


def _chain(owner: Layer, given: Any, label: str) -> Layer:
    """One branch: a layer as it is, several as a chain, none as a chain that passes through."""
    if isinstance(given, Layer):
        return given
    if given is not None and not isinstance(given, Sequence):
        owner.fail("a layer or a list of layers for each branch", repr(given), TypeError)
    return Chain(given, name=label)


class Parallel(Container):
    """Branches that see the same input: what Residual and Branches share."""

    supports_masking = True

    def __init__(self, branches: Sequence[Any], labels: Sequence[str], **kwargs: Any) -> None:
        self._branches: list[Layer] = []
        super().__init__(**kwargs)
        chains = [_chain(self, given, label) for given, label in zip(branches, labels)]
        try:
            for chain in chains:
                self._branches.append(self.take(chain))
        except Exception:
            for chain in self._branches:  # they may try again elsewhere
                chain.owner = None
            raise
        if not self._trainable:
            self.trainable = False

    @property
    def children(self) -> list[Layer]:
        """The branches."""
        return self._branches

    def build(self, input_shape: Shape) -> None:
        """Build all branches."""
        for branch in self._branches:
            branch.build_once(input_shape)

    def outputs_of(self, input_shape: Shape) -> list[Shape]:
        """The shapes of what the branches give."""
        for branch in self._branches:
            branch.check_input(input_shape)
        return [branch.compute_output_shape(input_shape) for branch in self._branches]

    def run_branches(self, x: Any, mask: Any, training: bool) -> tuple[list[Any], Any]:
        """What the branches give, and the mask that is left where all of them have a step."""
        results = [branch.run_forward(x, mask, training) for branch in self._branches]
        masks = [passed for _, passed in results if passed is not None]
        left = masks[0] if masks else None
        for passed in masks[1:]:
            if passed is not left:
                both = self.buffer("mask", *passed.shape, dtype=passed.dtype)
                assign(both, left)
                change(operator.iand, both, passed)
                left = both
        return [y for y, _ in results], left

    def gather(
        self,
        gradient_of: Callable[[int], Any],
        kept: Sequence[Any],
        input_gradient: bool,
        gate: Any = None,
    ) -> Any:
        """Go back through the branches; the sum of what arrives.

        Parameters
        ----------
        gradient_of : function that makes the gradient of a branch's output, given its number
        kept : device arrays whose memory is not to be given back
        input_gradient : bool
        gate : device array, optional
            The sum is zero where this is not above zero, if there is more than one branch.
        """
        total, last = None, len(self._branches) - 1
        for i, branch in enumerate(self._branches):
            dy = gradient_of(i)
            dx = branch.run_backward(dy, input_gradient)
            self.give_back(dy, dx, total, *kept)
            if not input_gradient:
                continue
            if total is not None:
                held = self.gradient(f"dx {i}", *dx.shape)
                self.merge(held, total, dx, gate=gate if i == last else None)
                self.give_back(total, *kept)
                self.give_back(dx, *kept)
                dx = held
            total = dx
        return total

    def merge(
        self,
        y: Any,
        a: Any,
        b: Any,
        scale: float = 1.0,
        code: int = codes.ADD,
        relu: bool = False,
        gate: Any = None,
    ) -> None:
        """Merge two arrays of one shape into a third."""
        gate = self.buffer("no gate", 0) if gate is None else gate.reshape(-1)
        self.kernels.merge_forward(
            y.reshape(-1), a.reshape(-1), b.reshape(-1), gate, scale, code, int(relu)
        )


class Residual(Parallel, Neighbour):
    """Add a shortcut: ``activation(layers(x) + shortcut(x))``.

    Ours, not Keras'; as Flux's ``SkipConnection``.

    Parameters
    ----------
    layers : list of Layer, or Layer
        The way that learns the difference.
    shortcut : list of Layer, or Layer, optional
        What the input passes on the other way; left out, it arrives as it is. Needed where the
        shapes differ, usually a convolution of size one with the same strides.
    activation : str, optional
        Of the sum.

    Notes
    -----
    He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 3.2.
    Weights: those of `layers`, then those of `shortcut`.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> block = layers.Residual([layers.Dense(2, kernel_initializer="ones")], activation="relu")
    >>> block(np.array([[1.0, 2.0], [-5.0, 4.0]]))
    array([[4., 5.],
           [0., 3.]], dtype=float32)
    """

    def __init__(
        self, layers: Any, shortcut: Any = None, activation: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__((layers, shortcut), ("layers", "shortcut"), **kwargs)
        self.activation = ActivationFunction(activation, self)
        self._gate: Any = None  # the input, where backward undoes the relu that it comes from
        self._undone = False  # whether the block behind undoes this one's relu

    def check_input(self, input_shape: Shape) -> None:
        """Both ways have to end in the same shape."""
        ends = self.outputs_of(input_shape)
        if ends[0] != ends[1]:
            self.fail("layers and shortcut to end in the same shape", f"{ends[0]} and {ends[1]}")
        self.activation.check_outputs(ends[0][-1])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """That of both ways."""
        return self._branches[0].compute_output_shape(input_shape)

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Go both ways, add, activate."""
        self._gate, self._undone = None, False
        (a, b), mask = self.run_branches(x, mask, training)
        z, relu = self.buffer("y", *a.shape), self.activation.is_relu
        self.merge(z, a, b, relu=relu)
        return self.activation.forward(z, applied=relu), mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Both ways get the gradient of the sum."""
        dz = dy if self._undone else self.activation.backward(dy)
        dx = self.gather(lambda branch: dz, (dy, dz), input_gradient, self._gate)
        self.give_back(dz, dy, dx)
        return dx

    def run_among(
        self, layers: Sequence[Layer], index: int, x: Any, mask: Any, training: bool
    ) -> tuple[Any, Any, int]:
        """Undo the relu of a block before this one, going back, where gradients are added.

        One pass less over memory.
        """
        y, mask = self.run_forward(x, mask, training)
        before = layers[index - 1] if index and training else None
        if isinstance(before, Residual) and before.activation.is_relu and plain(before, Residual):
            self._gate, before._undone = x, True
        return y, mask, 1


class Branches(Parallel):
    """Give the same input to several branches and merge what they give.

    Ours, not Keras'; as Flux's ``Parallel``.

    Parameters
    ----------
    *branches : lists of Layer, or Layers
        At least one; an empty list passes the input on.
    merge : {"concat", "add", "mul", "average", "max"}
        "concat" joins the last axis; the others want branches that end in the same shape.

    Notes
    -----
    Szegedy et al. 2015, "Going Deeper with Convolutions", arXiv:1409.4842, section 4, joins
    convolutions of several sizes so. Weights: those of the branches, in order.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> wide = layers.Branches([], [layers.Dense(3)], [layers.Dense(4), layers.Dense(1)])
    >>> wide(np.zeros((5, 2))).shape
    (5, 6)
    >>> layers.Branches([], [layers.Activation("relu")], merge="mul")(np.array([[3.0, -1.0]]))
    array([[ 9., -0.]], dtype=float32)
    """

    merges = ("concat", "add", "mul", "average", "max")

    def __init__(self, *branches: Any, merge: str = "concat", **kwargs: Any) -> None:
        labels = [f"branch_{i}" for i in range(len(branches))]
        super().__init__(branches, labels, **kwargs)
        if not branches:
            self.fail("at least one branch", "none")
        if merge not in self.merges:
            self.fail(f"merge to be one of {self.merges}", repr(merge))
        self.merging = merge
        self._code = {"mul": codes.MULTIPLY, "max": codes.MAXIMUM}.get(merge, codes.ADD)

    def check_input(self, input_shape: Shape) -> None:
        """The branches have to end in shapes that can be merged."""
        ends = self.outputs_of(input_shape)
        kept = [end[:-1] if self.merging == "concat" else end for end in ends]
        if any(len(end) != len(ends[0]) for end in ends) or any(k != kept[0] for k in kept):
            self.fail(f"branches that end in shapes for {self.merging!r}", ends)
        if self.merging == "concat" and any(end[-1] is None for end in ends):
            self.fail("branches with known last axes", ends)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """That of the branches; "concat" adds up their last axes."""
        ends = [branch.compute_output_shape(input_shape) for branch in self._branches]
        if self.merging != "concat":
            return ends[0]
        return (*ends[0][:-1], sum(end[-1] or 0 for end in ends))

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Go through all branches, and merge two at a time."""
        given, mask = self.run_branches(x, mask, training)
        self._saved = given
        if len(given) == 1:
            return given[0], mask
        if self.merging == "concat":
            return self._join(given), mask
        last = 1 / len(given) if self.merging == "average" else 1.0
        self._saved, total = [given[0]], given[0]
        for i, other in enumerate(given[1:], 1):
            y = self.buffer(f"y {i}", *total.shape)
            self.merge(y, total, other, last if i == len(given) - 1 else 1.0, self._code)
            self._saved += [other, y]
            total = y
        return total, mask

    def _join(self, given: list[Any]) -> Any:
        y = self.buffer("y", *given[0].shape[:-1], sum(part.shape[-1] for part in given))
        offset = 0
        for part in given:
            C = part.shape[-1]
            self.kernels.concatenate_forward(
                y.reshape(-1, y.shape[-1]), part.reshape(-1, C), offset
            )
            offset += C
        return y

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Take the merge apart, then go back through all branches."""
        if len(self._branches) > 1 and self.merging == "concat":
            return self.gather(lambda branch: self._part(dy, branch), (dy,), input_gradient)
        parts = self._parts(dy)
        dx = self.gather(parts.__getitem__, (dy, *parts), input_gradient)
        for part in parts:
            self.give_back(part, dy, dx)
        return dx

    def _parts(self, dy: Any) -> list[Any]:
        count = len(self._branches)
        if count == 1:
            return [dy]
        return [self._scaled(dy, count)] * count if self._code == codes.ADD else self._unmerge(dy)

    def _part(self, dy: Any, branch: int) -> Any:
        """What a join took from this branch."""
        offset, given = sum(y.shape[-1] for y in self._saved[:branch]), self._saved[branch]
        part = self.gradient(f"dy {branch}", *given.shape)
        self.kernels.concatenate_backward(
            part.reshape(-1, given.shape[-1]), dy.reshape(-1, dy.shape[-1]), offset
        )
        return part

    def _scaled(self, dy: Any, count: int) -> Any:
        if self.merging == "add":
            return dy
        scaled, none = self.gradient("dy", *dy.shape), self.buffer("none", 0)
        self.kernels.merge_backward(
            scaled.reshape(-1), none, dy.reshape(-1), none, none, 1 / count, codes.ADD
        )
        return scaled

    def _unmerge(self, dy: Any) -> list[Any]:
        """Of a product or maximum: the merges in the opposite order."""
        parts: list[Any] = []
        for i in reversed(range(1, len(self._branches))):
            a, b = self._saved[2 * i - 2], self._saved[2 * i - 1]
            da, db = self.gradient(f"da {i}", *dy.shape), self.gradient(f"db {i}", *dy.shape)
            flat = (array.reshape(-1) for array in (da, db, dy, a, b))
            self.kernels.merge_backward(*flat, 1.0, self._code)
            parts.insert(0, db)
            dy = da
        return [dy, *parts]
