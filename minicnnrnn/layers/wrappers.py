"""Bidirectional, TimeDistributed: a layer around a layer."""

import copy
import operator
from typing import Any

import numpy as np

from minicnnrnn.initializers import Constant
from minicnnrnn.kernels import codes
from minicnnrnn.layers.base import Layer, Shape
from minicnnrnn.layers.container import Container
from minicnnrnn.recorded import assign, change

MODES = {
    "concat": codes.CONCAT,
    "sum": codes.ADD,
    "mul": codes.MULTIPLY,
    "ave": codes.AVERAGE,
}


class Bidirectional(Container):
    """Read a sequence in both directions, and merge what the two readings give.

    Parameters
    ----------
    layer : SimpleRNN, LSTM, GRU or a ConvLSTM
        Read forwards by a copy of it, whose name gets "forward" in front.
    merge_mode : {"concat", "sum", "mul", "ave"}
        What to do with the two outputs of a step.
    weights : list of arrays, optional
        Initial weights, those of the forward layer first.
    backward_layer : Layer, optional
        With `go_backwards`; left out, it is a copy of `layer`.

    Notes
    -----
    Input and output are those of the layer, the output twice as deep with "concat". The steps of
    the backward reading are turned around before merging; those that are masked give zero. Weights:
    those of the forward layer, then those of the backward layer. Schuster and Paliwal 1997,
    "Bidirectional Recurrent Neural Networks".

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layer = layers.Bidirectional(layers.LSTM(3, return_sequences=True))
    >>> layer(np.zeros((2, 5, 4))).shape
    (2, 5, 6)
    """

    supports_masking = True

    def __init__(
        self,
        layer: Layer,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self._directions: list[Layer] = []
        super().__init__(**kwargs)
        if merge_mode is None:
            self.fail(f"merge_mode to be one of {sorted(MODES)}: a model has one output", "None")
        if not isinstance(merge_mode, str) or merge_mode not in MODES:
            self.fail(f"merge_mode to be one of {sorted(MODES)}", repr(merge_mode))
        for given in (layer, backward_layer):
            if given is not None and not hasattr(given, "go_backwards"):
                self.fail("a recurrent layer", repr(given), TypeError)
        assert merge_mode is not None
        self.merge_mode, self._code = merge_mode, MODES[merge_mode]
        forward, backward = self._copy(layer, "forward"), backward_layer
        if backward is None:
            backward = self._copy(layer, "backward")
            vars(backward)["go_backwards"] = True
        self._check_pair(forward, backward)
        self._given = self._initial(weights)
        self.return_sequences = bool(getattr(forward, "return_sequences", False))
        self.stateful = bool(getattr(forward, "stateful", False))
        self._directions = [self.take(forward), self.take(backward)]
        if not self._trainable:
            self.trainable = False

    def _copy(self, layer: Layer, direction: str) -> Layer:
        """An unbuilt layer with the same arguments."""
        made = copy.deepcopy(layer, {id(layer.context): None})
        made.unbuild()
        made.context = None
        made.name = f"{direction}_{layer.name.removeprefix(f'{direction}_')}"
        return made

    def _check_pair(self, forward: Any, backward: Any) -> None:
        if forward.go_backwards == backward.go_backwards:
            self.fail(
                "one layer with go_backwards and one without (a layer that goes backwards needs a "
                "backward_layer that goes forwards)",
                f"go_backwards={forward.go_backwards} twice",
            )
        for name in ("stateful", "return_sequences"):
            pair = getattr(forward, name), getattr(backward, name)
            if pair[0] != pair[1]:
                self.fail(f"the same {name} in both directions", f"{pair[0]} and {pair[1]}")

    def _initial(self, weights: Any) -> list[Any]:
        if weights is None:
            return []
        if not isinstance(weights, list | tuple):
            self.fail("weights to be a list of arrays", repr(weights), TypeError)
        return [np.asarray(array) for array in weights]

    @property
    def children(self) -> list[Layer]:
        """The forward and the backward layer."""
        return self._directions

    @property
    def forward_layer(self) -> Layer:
        """The layer whose output is taken as it comes."""
        return self._directions[0]

    @property
    def backward_layer(self) -> Layer:
        """The layer whose steps are turned around."""
        return self._directions[1]

    def check_input(self, input_shape: Shape) -> None:
        """Both directions have to take it, and their outputs have to fit each other."""
        for layer in self._directions:
            layer.check_input(input_shape)
        ends = [layer.compute_output_shape(input_shape) for layer in self._directions]
        kept = [end[:-1] if self.merge_mode == "concat" else end for end in ends]
        if kept[0] != kept[1]:
            self.fail(f"directions that end in shapes for {self.merge_mode!r}", ends)

    def build(self, input_shape: Shape) -> None:
        """Build both directions."""
        for layer in self._directions:
            layer.build_once(input_shape)
        if not self._given:
            return
        wanted, given = [w.shape for w in self.weights], [array.shape for array in self._given]
        if wanted != given:
            self.unbuild()
            self.fail(f"weights of shapes {wanted}", given)
        for weight, array in zip(self.weights, self._given, strict=True):
            weight.initializer = Constant(array)

    def unbuild(self) -> None:
        """Forget what ``build`` did, in both directions."""
        super().unbuild()
        for layer in self._directions:
            layer.unbuild()

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """That of the layer; "concat" adds up the last axes."""
        a, b = (layer.compute_output_shape(input_shape) for layer in self._directions)
        if self.merge_mode != "concat" or a[-1] is None or b[-1] is None:
            return a
        return (*a[:-1], a[-1] + b[-1])

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """Read in both directions, and merge."""
        a, b = (layer.run_forward(x, mask, training)[0] for layer in self._directions)
        C = a.shape[-1] + (b.shape[-1] if self._code == codes.CONCAT else 0)
        y = self.buffer("y", *a.shape[:-1], C)
        passed = mask if self.return_sequences else None
        steps = self._merged_steps(passed)
        self._saved = x, a, b, steps
        self.kernels.bidirectional_forward(
            *(self._by_step(array) for array in (y, a, b)), steps, self._code
        )
        return y, passed

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """Take the merge apart, then go back through both directions."""
        x, a, b, steps = self._saved
        da, db = self.gradient("da", *a.shape), self.gradient("db", *b.shape)
        self.kernels.bidirectional_backward_input(
            *(self._by_step(array) for array in (da, db, dy, a, b)), steps, self._code
        )
        one, other = (
            layer.run_backward(gradient, input_gradient)
            for layer, gradient in zip(self._directions, (da, db), strict=True)
        )
        dx = None
        if input_gradient:
            dx = self.gradient("dx", *x.shape)
            flat = (array.reshape(-1) for array in (dx, one, other))
            self.kernels.merge_forward(*flat, self.buffer("no gate", 0), 1.0, codes.ADD, 0)
            self.give_back(one)
            self.give_back(other)
        self.give_back(da)
        self.give_back(db)
        return dx

    def _by_step(self, array: Any) -> Any:
        """Seen as (N, T, R, U), as the kernels want it; T is 1 for the last output alone."""
        T = array.shape[1] if self.return_sequences else 1
        return array.reshape(len(array), T, -1, array.shape[-1])

    def _merged_steps(self, mask: Any) -> Any:
        """Which steps of the merged output count: the mask in the order of the forward layer."""
        if mask is None:
            return self.buffer("no mask", 0, 0, dtype=np.uint8)
        if not vars(self.forward_layer)["go_backwards"]:
            return mask
        turned = self.buffer("mask", *mask.shape, dtype=np.uint8)
        assign(turned, np.asarray(mask)[:, ::-1])
        return turned


class TimeDistributed(Container):
    """Apply a layer to every step of a sequence, with the same weights.

    Parameters
    ----------
    layer : Layer
        Any that takes a single step: Dense, Conv2D, a recurrent layer, a Sequential.

    Notes
    -----
    Input (batch, steps, ...), output (batch, steps, ...): the layer sees (batch, ...). A mask is
    handed on, and not shown to the layer. As in Keras, an `activity_regularizer` of the layer
    itself adds no penalty; give it to TimeDistributed.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import layers
    >>> layers.TimeDistributed(layers.Conv2D(4, 3))(np.zeros((2, 5, 8, 8, 3))).shape
    (2, 5, 6, 6, 4)
    """

    supports_masking = True

    def __init__(self, layer: Layer, **kwargs: Any) -> None:
        self._inner: list[Layer] = []
        self._steps: list[Layer] = []  # copies of the layer, made when first needed
        self._stepwise = False
        super().__init__(**kwargs)
        if not isinstance(layer, Layer):
            self.fail("a Layer", repr(layer), TypeError)
        if layer.fixes_batch():
            self.fail("a layer without stateful=True inside", repr(layer))
        self._inner.append(self.take(layer))
        if not self._trainable:
            self.trainable = False

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: no copies of the layer."""
        return super().__getstate__() | {"_steps": []}

    def release(self) -> None:
        """Drop the memory of batches, and the copies of the layer."""
        super().release()
        self._steps.clear()

    @property
    def children(self) -> list[Layer]:
        """The layer."""
        return self._inner

    @property
    def layer(self) -> Layer:
        """The layer that is applied to every step."""
        return self._inner[0]

    def last_activation(self) -> Any:
        """That of the layer, unless a penalty lies between."""
        return None if self.activity_regularizer else self.layer.last_activation()

    def _step_shape(self, input_shape: Shape) -> Shape:
        """What the layer sees: all steps of all samples, as one batch."""
        if len(input_shape) < 3:
            self.fail("inputs (batch, steps, ...) of at least three axes", input_shape)
        N, T = input_shape[:2]
        return (None if N is None or T is None else N * T, *input_shape[2:])

    def check_input(self, input_shape: Shape) -> None:
        """The layer has to take a step."""
        self.layer.check_input(self._step_shape(input_shape))

    def build(self, input_shape: Shape) -> None:
        """Build the layer for a step."""
        self.layer.build_once((None, *input_shape[2:]))

    def unbuild(self) -> None:
        """Forget what ``build`` did, here and in the layer."""
        super().unbuild()
        self._steps.clear()
        self.layer.unbuild()

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """What the layer makes of a step, behind batch and steps."""
        step = self.layer.compute_output_shape(self._step_shape(input_shape))
        return (*input_shape[:2], *step[1:])

    def forward(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """All steps of all samples at once, where that makes no difference."""
        self._stepwise = self._tells_steps_apart(training)
        if self._stepwise:
            return self._forward_by_step(x, training), mask
        y, _ = self.layer.forward(x.reshape(-1, *x.shape[2:]), None, training)
        return y.reshape(*x.shape[:2], *y.shape[1:]), mask

    def backward(self, dy: Any, input_gradient: bool = True) -> Any:
        """All steps of all samples at once, or one after the other, as in ``forward``."""
        if self._stepwise:
            return self._backward_by_step(dy, input_gradient)
        dx = self.layer.backward(dy.reshape(-1, *dy.shape[2:]), input_gradient)
        return dx.reshape(*dy.shape[:2], *dx.shape[1:]) if input_gradient else None

    # --- one step after the other ---------------------------------------------------

    def _tells_steps_apart(self, training: bool) -> bool:
        """Whether statistics or penalties are taken over the batch of a step."""
        inside = list(self.layer.walk())
        return any(layer.activity_regularizer is not None for layer in inside[1:]) or (
            training and any(weight.state for weight in self.layer.weights)
        )

    def _copies(self, T: int) -> list[Layer]:
        """A layer for every step, as each keeps something for its way back; weights are shared."""
        shared = {id(weight): weight for weight in self.layer.weights}
        memo = {id(self.layer.context): self.layer.context, **shared}
        while len(self._steps) < T - 1:
            made = copy.deepcopy(self.layer, dict(memo))
            for layer in made.walk():
                layer._stream = None  # random numbers of its own
            self._steps.append(made)
        activation = self.layer.last_activation()
        for made in self._steps:
            for layer, first in zip(made.walk(), self.layer.walk(), strict=True):
                layer._trainable = first._trainable
            if activation is not None:
                made.last_activation().fused = activation.fused
        return [self.layer, *self._steps[: T - 1]]

    def _forward_by_step(self, x: Any, training: bool) -> Any:
        N, T, *rest = x.shape
        xs = self.buffer("steps", T, N, *rest, dtype=x.dtype)
        y: Any = None
        for t, layer in enumerate(self._copies(T)):
            assign(xs[t], x[:, t])
            step, _ = layer.forward(xs[t], None, training)
            if y is None:
                y = self.buffer("y", N, T, *step.shape[1:])
            assign(y[:, t], step)
        self._saved = x.shape
        return y

    def _backward_by_step(self, dy: Any, input_gradient: bool) -> Any:
        N, T = dy.shape[:2]
        dys = self.buffer("dy steps", T, N, *dy.shape[2:])
        dx: Any = self.gradient("dx", *self._saved) if input_gradient else None
        weights = [weight for weight in self.layer.weights if weight.trainable]
        sums = [self.buffer(f"sum {i}", *weight.shape) for i, weight in enumerate(weights)]
        for t, layer in enumerate(self._copies(T)):
            assign(dys[t], dy[:, t])
            step = layer.backward(dys[t], input_gradient)
            if input_gradient:
                assign(dx[:, t], step)
                self.give_back(step)
            for total, weight in zip(sums, weights, strict=True):
                if t:
                    change(operator.iadd, total, weight.gradient)
                else:
                    assign(total, weight.gradient)
        for total, weight in zip(sums, weights, strict=True):
            assign(weight.gradient, total)
        return dx
