"""Callbacks that watch one number of every epoch: stop early, reduce the learning rate."""

import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from minicnnrnn.callbacks.base import Callback, Logs

# Metrics that are better when larger, by the names of their classes; most others are errors.
UP = frozenset(
    ("BinaryAccuracy", "CategoricalAccuracy", "SparseCategoricalAccuracy", "Accuracy",
     "TopKCategoricalAccuracy", "SparseTopKCategoricalAccuracy", "AUC", "Precision", "Recall",
     "PrecisionAtRecall", "RecallAtPrecision", "SensitivityAtSpecificity",
     "SpecificityAtSensitivity", "F1Score", "FBetaScore", "IoU", "CosineSimilarity", "R2Score"),
)  # fmt: skip
UNKNOWN = frozenset(
    ("TruePositives", "FalsePositives", "TrueNegatives", "FalseNegatives", "Mean", "Sum",
     "MeanMetricWrapper", "Metric"),
)  # fmt: skip


def direction_of(metric: Any) -> str | None:
    """Whether larger values of a metric are better ("up"), worse ("down"), or neither.

    A metric of your own says so by an attribute ``direction``.
    """
    if getattr(metric, "direction", None) is not None:
        return str(metric.direction)
    names = [k.__name__ for k in type(metric).__mro__ if k.__module__.startswith("minicnnrnn")]
    if UP.intersection(names):
        return "up"
    return None if not names or names[0] in UNKNOWN else "down"


class MonitorCallback(Callback):
    """The base of callbacks that ask whether a number has improved.

    Parameters
    ----------
    monitor : str
        A key of the epoch's numbers: "loss", "val_accuracy", ...
    mode : {"auto", "min", "max"}
        Whether smaller or larger is better; "auto" knows losses and metrics.
    baseline : float, optional
        The best value so far.
    min_delta : float
        The least change that counts.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: str = "auto",
        baseline: float | None = None,
        min_delta: float = 0,
    ) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            warnings.warn(
                f"{type(self).__name__} mode {mode!r} is unknown, fallback to auto mode.",
                stacklevel=3,
            )
            mode = "auto"
        self.monitor, self.mode, self.best = monitor, mode, baseline
        self.min_delta = abs(min_delta)
        self.monitor_op: Callable[[float, float], bool] | None = None

    def is_improvement(self, value: float, reference: float | None) -> bool:
        """Whether a value is better than another one by more than `min_delta`."""
        self.resolve()
        assert self.monitor_op is not None
        if reference is None:
            return True
        margin = self.min_delta if self.monitor_op is operator.gt else -self.min_delta
        return bool(self.monitor_op(value - margin, reference))

    def resolve(self) -> None:
        """Settle what is better.

        Raises
        ------
        ValueError
            If the mode is "auto" and the number neither the loss nor a metric known to be either.
        """
        if self.monitor_op is not None:
            return
        name = self.monitor.removeprefix("val_")
        direction = {"min": "down", "max": "up"}.get(self.mode)
        if direction is None:
            found = [m for m in self.model.compiled_metrics() if m.name == name]
            direction = "down" if name == "loss" else direction_of(found[0]) if found else None
        if direction is None:
            raise ValueError(
                f"{type(self).__name__}: Expected mode='min' or mode='max', since it is not known "
                f"whether {self.monitor!r} should be small or large. Received: mode='auto'"
            )
        self.monitor_op = operator.gt if direction == "up" else operator.lt


class EarlyStopping(MonitorCallback):
    """Stop when a number has not improved for some epochs.

    Parameters
    ----------
    monitor, min_delta, mode : as for ``MonitorCallback``
    patience : int
        Epochs without improvement after which training stops.
    verbose : {0, 1}
        Whether it says so.
    baseline : float, optional
        A value that has to be improved on as well.
    restore_best_weights : bool
        Whether the model gets the weights of its best epoch when training ends.
    start_from_epoch : int
        Epochs before this one are not watched.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import Sequential, callbacks, layers
    >>> model = Sequential([layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> stopping = callbacks.EarlyStopping("loss", patience=2, min_delta=10)
    >>> x = np.ones((8, 1))
    >>> len(model.fit(x, x, epochs=50, verbose=0, callbacks=[stopping]).epoch)
    3
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best_weights: list[Any] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start afresh."""
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best = self.best_weights = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Look at the number; stop training if it has not improved for too long."""
        self.resolve()
        current = self.get_monitor_value(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self._remember(epoch)
        self.wait += 1
        if self.is_improvement(current, self.best):
            self.best = current
            self._remember(epoch)
            if self.baseline is None or self.is_improvement(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def _remember(self, epoch: int) -> None:
        self.best_epoch = epoch
        if self.restore_best_weights:
            self.best_weights = self.model.get_weights()

    def on_train_end(self, logs: Logs = None) -> None:
        """Say that it stopped, and bring back the best weights if asked to."""
        if self.stopped_epoch > 0 and self.verbose > 0:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose > 0:
                print(
                    "Restoring model weights from the end of the best epoch: "
                    f"{self.best_epoch + 1}."
                )
            self.model.restore_weights(self.best_weights)

    def get_monitor_value(self, logs: Logs) -> Any:
        """The number that is watched; warns where the epoch has none of that name."""
        found = (logs or {}).get(self.monitor)
        if found is None:
            warnings.warn(
                f"Early stopping conditioned on metric `{self.monitor}` which is not available. "
                f"Available metrics are: {','.join(logs or {})}",
                stacklevel=2,
            )
        return found


class ReduceLROnPlateau(MonitorCallback):
    """Reduce the learning rate when a number has not improved for some epochs.

    The epoch's numbers, and so the history, get a "learning_rate".

    Parameters
    ----------
    monitor, mode, min_delta : as for ``MonitorCallback``
    factor : float
        Below 1: what the learning rate is multiplied by.
    patience : int
        Epochs without improvement after which it is.
    verbose : {0, 1}
        Whether it says so.
    cooldown : int
        Epochs after a reduction in which nothing is counted.
    min_lr : float
        The smallest learning rate.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta=min_delta)
        if factor >= 1.0:
            raise ValueError(f"ReduceLROnPlateau: Expected factor below 1. Received: {factor!r}")
        self.factor, self.patience, self.verbose = factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr
        self.cooldown_counter = self.wait = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start afresh."""
        self.best = None
        self.cooldown_counter = self.wait = 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Look at the number; reduce the rate if it has not improved for too long."""
        self.resolve()
        logs = {} if logs is None else logs
        logs["learning_rate"] = self.model.optimizer.learning_rate
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(
                f"Learning rate reduction is conditioned on metric `{self.monitor}` which is not "
                f"available. Available metrics are: {','.join(logs)}.",
                stacklevel=2,
            )
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self.is_improvement(current, self.best):
            self.best, self.wait = current, 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience and self._reduce(epoch):
                self.cooldown_counter, self.wait = self.cooldown, 0

    def _reduce(self, epoch: int) -> bool:
        optimizer = self.model.optimizer
        before = optimizer.learning_rate
        if before <= np.float32(self.min_lr):
            return False
        optimizer.learning_rate = max(before * self.factor, self.min_lr)
        if self.verbose > 0:
            print(
                f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to "
                f"{optimizer.learning_rate}."
            )
        return True

    def in_cooldown(self) -> bool:
        """Whether nothing is counted now."""
        return self.cooldown_counter > 0
