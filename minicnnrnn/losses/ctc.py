"""CTC: the loss of sequences of labels whose places in time are unknown."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minicnnrnn.losses.base import MEAN, Loss

NO_MASK = np.empty((0, 0), np.uint8)


class CTC(Loss):
    """Connectionist temporal classification: minus the log-probability of the labels.

    The output is (samples, time steps, classes), logits; the targets are (samples, most labels)
    of integers from 1, with zeros behind the last label: class 0 is the blank. There is one loss
    a sample, so sample weights are (samples,). Steps that the output's mask leaves out do not
    exist for it (in Keras, CTC knows no masks).

    Parameters
    ----------
    reduction, name, dtype : as in ``Loss``

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import losses
    >>> even = np.zeros((1, 2, 3))  # two steps, three classes: the label 1 has 3 paths of 9
    >>> round(float(np.exp(-losses.CTC()([[1, 0]], even))), 4)
    0.3333
    """

    sparse = True
    by_row = False

    def __init__(
        self, reduction: str = MEAN, name: str | None = "ctc", dtype: str | None = None
    ) -> None:
        super().__init__(name, reduction, dtype)

    def targets(self, kernels: Any, t: Any, y: Any, mask: Any, buffer: Callable[..., Any]) -> Any:
        """Labels, mask and workspace."""
        workspace = buffer("ctc workspace", kernels.ctc_workspace(y.shape[1], t.shape[1]))
        return t, NO_MASK if mask is None else mask, workspace

    def value(self, kernels: Any, values: Any, y: Any, t: Any) -> None:
        """Minus the log-probability of a sample's labels; `y` is (N, T, C)."""
        labels, mask, workspace = t
        kernels.ctc_forward(values, y, labels, mask, workspace)

    def gradient(
        self, kernels: Any, dy: Any, y: Any, t: Any, weights: Any, fused: bool = False
    ) -> None:
        """The softmax less the probability of being at each class, given the labels; weighted."""
        labels, mask, workspace = t
        kernels.ctc_backward(dy, y, labels, weights, mask, workspace)
