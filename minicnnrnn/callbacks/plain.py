"""Callbacks for one purpose each: a rate an epoch, a table, functions, an end to nonsense."""

import csv
import inspect
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from minicnnrnn.callbacks.base import Callback, Logs


class LearningRateScheduler(Callback):
    """Set the learning rate at the beginning of every epoch.

    The epoch's numbers, and so the history, get a "learning_rate".

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate)``, or ``schedule(epoch)``, gives the new rate; epochs
        count from 0.
    verbose : {0, 1}
        Whether it says so.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import Sequential, callbacks, layers
    >>> model = Sequential([layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> halve = callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    >>> x = np.ones((8, 1))
    >>> model.fit(x, x, epochs=2, verbose=0, callbacks=[halve]).history["learning_rate"]
    [0.005, 0.0025]
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Set the rate."""
        optimizer = self.model.optimizer
        arguments: tuple[Any, ...] = (epoch, optimizer.learning_rate)
        try:
            inspect.signature(self.schedule).bind(*arguments)
        except TypeError:
            arguments = (epoch,)
        rate = self.schedule(*arguments)
        if not isinstance(rate, float | np.floating):
            raise ValueError(
                "LearningRateScheduler: Expected the schedule to return a float. "
                f"Received: {rate!r}"
            )
        optimizer.learning_rate = rate
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Add the rate to the epoch's numbers."""
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.learning_rate


class CSVLogger(Callback):
    """Write the numbers of every epoch to a file, a line each.

    Parameters
    ----------
    filename : str or path
    separator : str
    append : bool
        Whether lines are added to a file that exists.
    """

    def __init__(self, filename: Any, separator: str = ",", append: bool = False) -> None:
        super().__init__()
        self.filename, self.sep, self.append = os.fspath(filename), separator, append
        self.keys: list[str] | None = None
        self.csv_file: Any = None
        self.writer: Any = None
        self.append_header = True

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: no open file."""
        return self.__dict__ | {"csv_file": None, "writer": None}

    def on_train_begin(self, logs: Logs = None) -> None:
        """Open the file."""
        self.close()
        self.append_header = True
        if self.append and os.path.exists(self.filename):
            self.append_header = os.path.getsize(self.filename) == 0
        self.csv_file = open(self.filename, "a" if self.append else "w", newline="")  # noqa: SIM115
        self.writer = self.keys = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Write a line; the first one says which columns there are."""
        logs = logs or {}
        if self.keys is None:
            self.keys = sorted(logs)
            if not any(key.startswith("val_") for key in self.keys):
                self.keys.extend([f"val_{key}" for key in self.keys])
        if self.writer is None:
            fields = ["epoch", *self.keys]
            self.writer = csv.DictWriter(self.csv_file, fields, delimiter=self.sep)
            if self.append_header:
                self.writer.writeheader()
        self.writer.writerow({"epoch": epoch} | {key: logs.get(key, "NA") for key in self.keys})
        self.csv_file.flush()

    def on_train_end(self, logs: Logs = None) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self.csv_file is not None:
            self.csv_file.close()
            self.csv_file = self.writer = None


class LambdaCallback(Callback):
    """A callback from functions.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end : callable ``(epoch, logs)``, optional
    on_train_begin, on_train_end : callable ``(logs)``, optional
    on_train_batch_begin, on_train_batch_end : callable ``(batch, logs)``, optional
    kwargs
        Further attributes, other hooks among them.

    Examples
    --------
    >>> import numpy as np
    >>> from minicnnrnn import Sequential, callbacks, layers
    >>> model = Sequential([layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> tell = callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: print("epoch", epoch))
    >>> history = model.fit(np.ones((8, 1)), np.ones(8), epochs=2, verbose=0, callbacks=[tell])
    epoch 0
    epoch 1
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **kwargs,
        }
        self.__dict__ |= {name: hook for name, hook in given.items() if hook is not None}


class TerminateOnNaN(Callback):
    """End training as soon as the loss is no number.

    Parameters
    ----------
    raise_error : bool
        Whether it raises a ``RuntimeError`` instead of ending after the batch.
    """

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Look at the loss."""
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            raise RuntimeError(
                f"NaN or Inf loss encountered at batch {batch}. Loss value: {loss}. "
                "Terminating training immediately."
            )
        print(f"Batch {batch}: Invalid loss, terminating training")
        self.model.stop_training = True
