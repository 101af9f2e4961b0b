"""ModelCheckpoint: the model, or its weights, in a file while it trains."""

import os
import warnings
from typing import Any

from minicnnrnn.callbacks.base import Logs
from minicnnrnn.callbacks.monitor import MonitorCallback


class ModelCheckpoint(MonitorCallback):
    """Save the model after epochs, or after so many batches.

    Parameters
    ----------
    filepath : str or path
        Ends in ".keras", or with `save_weights_only` in ".weights.h5". May hold numbers of the
        epoch: ``"{epoch:02d}-{val_loss:.2f}.keras"``.
    monitor, mode : as for ``MonitorCallback``
    verbose : {0, 1}
        Whether it says what it does.
    save_best_only : bool
        Whether it saves only when `monitor` has improved.
    save_weights_only : bool
    save_freq : "epoch" or int
        After every epoch, or after so many batches.
    initial_value_threshold : float, optional
        The value that the first one has to improve on.
    """

    def __init__(
        self,
        filepath: Any,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: Any = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, initial_value_threshold)
        self.filepath: str = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        whole = isinstance(save_freq, int) and not isinstance(save_freq, bool) and save_freq > 0
        if save_freq != "epoch" and not whole:
            raise ValueError(
                "ModelCheckpoint: Expected save_freq to be 'epoch' or a positive integer. "
                f"Received: {save_freq!r}"
            )
        ending = ".weights.h5" if save_weights_only else ".keras"
        if not self.filepath.endswith(ending):
            raise ValueError(
                f"ModelCheckpoint: Expected filepath to end in {ending!r}, with "
                f"save_weights_only={bool(save_weights_only)}. Received: {self.filepath!r}"
            )
        self.save_freq = save_freq
        self.needs_batches = save_freq != "epoch"
        self._batches = 0  # since the last saving
        self._last_batch: int | None = None
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Note the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Save, if it is time."""
        if self.save_freq == "epoch":
            return
        last = self._last_batch
        self._batches += batch + 1 if last is None or batch <= last else batch - last
        self._last_batch = batch
        if self._batches >= self.save_freq:
            self._batches = 0
            self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Save, if it is time."""
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: dict[str, Any]) -> None:
        path = self._path(epoch, batch, logs)
        if not self._wanted(epoch, logs, path):
            return
        if os.path.isdir(path):
            raise IsADirectoryError(
                f"ModelCheckpoint: Expected filepath to be a file. Received a folder: {path!r}"
            )
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path, overwrite=True)
        else:
            self.model.save(path, overwrite=True)
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: finished saving model to {path}")

    def _path(self, epoch: int, batch: int | None, logs: dict[str, Any]) -> str:
        numbers = {"epoch": epoch + 1} | ({} if batch is None else {"batch": batch + 1}) | logs
        try:
            return self.filepath.format(**numbers)
        except KeyError as error:
            raise KeyError(
                f"ModelCheckpoint: Expected only {sorted(numbers)} in filepath. "
                f"Received: {self.filepath!r} ({error})"
            ) from None

    def _wanted(self, epoch: int, logs: dict[str, Any], path: str) -> bool:
        """Whether to save, and a message about it."""
        if not self.save_best_only:
            self._say(f"\nEpoch {epoch + 1}: saving model to {path}")
            return True
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(f"Can save best model only with {self.monitor} available.", stacklevel=2)
            return True
        best = "None" if self.best is None else f"{self.best:.5f}"
        if not self.is_improvement(current, self.best):
            self._say(f"\nEpoch {epoch + 1}: {self.monitor} did not improve from {best}")
            return False
        self._say(
            f"\nEpoch {epoch + 1}: {self.monitor} improved from {best} to {current:.5f}, "
            f"saving model to {path}"
        )
        self.best = current
        return True

    def _say(self, message: str) -> None:
        if self.verbose > 0:
            print(message)
