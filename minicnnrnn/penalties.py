"""Penalties: what regularizers add to a loss and to a gradient, on a device."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minicnnrnn.device import Device
from minicnnrnn.kernels.codes import PARTS
from minicnnrnn.recorded import needs_host
from minicnnrnn.regularizers import kernel_rates


class Penalties:
    """The penalties on segments of one vector: the weights of a model, or one output.

    A kernel computes all L1 and L2 penalties together; the others compute themselves.

    Parameters
    ----------
    device : Device
    entries : sequence of (start, shape, regularizer)
        Where a segment begins, the shape of the array that it holds, and what it is up to.
    """

    def __init__(self, device: Device, entries: Sequence[tuple[int, Any, Any]]) -> None:
        self.device = device
        self._others = []
        rows, rates = [], []
        for start, shape, regularizer in entries:
            stop = start + int(np.prod(shape, dtype=np.int64))
            kernel = kernel_rates(regularizer)
            if kernel is None:
                self._others.append((slice(start, stop), shape, regularizer))
            elif any(kernel):
                rows.append((start, stop))
                rates.append(kernel)
        self._segments = device.upload(np.array(rows, np.int64).reshape(-1, 2))
        self._rates = device.upload(np.array(rates, np.float64).reshape(-1, 2))
        self._sums = device.zeros((PARTS, len(rows)), np.float64)

    def add_value(self, total: Any, w: Any, parts: int = 1) -> None:
        """Add the penalties, divided by `parts`, to a float64 total on the device.

        Parameters
        ----------
        total : float64 device array (1,)
        w : device array, a vector
        parts : int
        """
        if len(self._segments):
            self.device.kernels.penalty_forward(
                total, self._sums, w, self._segments, self._rates, parts
            )
        for where, shape, regularizer in self._others:
            needs_host()
            total += float(regularizer.value(np.asarray(w[where]).reshape(shape))) / parts

    def add_gradient(self, g: Any, w: Any, parts: int = 1) -> None:
        """Add the gradients of the penalties, divided by `parts`, to a gradient.

        Parameters
        ----------
        g, w : device arrays, vectors
        parts : int
        """
        if len(self._segments):
            self.device.kernels.penalty_backward(g, w, self._segments, self._rates, parts)
        for where, shape, regularizer in self._others:
            needs_host()
            gradient = np.asarray(regularizer.gradient(np.asarray(w[where]).reshape(shape)))
            if gradient.shape != tuple(shape):
                raise ValueError(
                    f"{regularizer!r}: Expected a gradient of shape {tuple(shape)}. "
                    f"Received: {gradient.shape}"
                )
            g[where] = np.asarray(g[where]) + gradient.reshape(-1) / parts


class OutputPenalty:
    """The penalty on the output of a layer: a mean over the batch, as in Keras.

    Parameters
    ----------
    regularizer : Regularizer
    """

    def __init__(self, regularizer: Any) -> None:
        self.regularizer = regularizer
        self._y: Any = None  # the output
        self._made: dict[Any, Any] = {}  # the penalties for outputs of a shape
        self._penalties: Any = None

    def add_value(self, context: Any, y: Any) -> None:
        """Add the penalty on an output to that of a model's context.

        The gradient will be taken at the same output.
        """
        self._y = y
        kind = context.device, y.shape
        if kind not in self._made:
            if len(self._made) > 16:  # sequences of ever new lengths
                self._made.clear()
            self._made[kind] = Penalties(context.device, [(0, y.shape, self.regularizer)])
        self._penalties = self._made[kind]
        self._penalties.add_value(context.penalty, y.reshape(-1), len(y))

    def add_gradient(self, dy: Any) -> None:
        """Add the gradient of the penalty to that of the loss."""
        self._penalties.add_gradient(dy.reshape(-1), self._y.reshape(-1), len(self._y))
