"""Callback: the hooks; and what always listens - the history, the progress bar."""

import sys
from collections.abc import Sequence
from typing import Any

Logs = dict[str, Any] | None


class Callback:
    """The base of all callbacks: a hook for every event, each doing nothing.

    Attributes
    ----------
    model : Sequential
        The model that is trained; set its ``stop_training`` to end after the current epoch.
    params : dict
        "epochs", "steps" (``None`` if unknown), "verbose".
    needs_batches : bool
        ``False`` says that the hooks of batches can do without numbers.
    """

    needs_batches = True

    def __init__(self) -> None:
        self.model: Any = None
        self.params: dict[str, Any] = {}

    def set_model(self, model: Any) -> None:
        """Be told the model."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Be told the parameters of the run."""
        self.params = params

    def on_train_begin(self, logs: Logs = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs = None) -> None:
        """After the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Before an epoch, counted from zero."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """After an epoch and its validation; `logs` has loss and metrics, also ``val_...``."""

    def on_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a train step: Keras' second name."""

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a train step: Keras' second name."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a train step."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a train step; `logs` has the means over the epoch so far."""
        self.on_batch_end(batch, logs)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Before an evaluation or a validation."""

    def on_test_end(self, logs: Logs = None) -> None:
        """After an evaluation or a validation."""

    def on_test_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a batch is evaluated."""

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a batch was evaluated."""

    def on_predict_begin(self, logs: Logs = None) -> None:
        """Before a prediction."""

    def on_predict_end(self, logs: Logs = None) -> None:
        """After a prediction."""

    def on_predict_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a batch is predicted."""

    def on_predict_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a batch was predicted."""


class History(Callback):
    """Loss and metrics of every epoch; ``fit`` returns one.

    Attributes
    ----------
    history : dict of lists
        A list a key: "loss", the metrics as they were named, and both with "val_" in front.
    epoch : list of int
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs = None) -> None:
        """Start afresh."""
        self.history, self.epoch = {}, []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Append the epoch's numbers."""
        self.epoch.append(epoch)
        for key, value in (logs or {}).items():
            self.history.setdefault(key, []).append(value)


class ProgressBar(Callback):
    """A bar an epoch with the means so far, by tqdm: in a terminal and in a notebook.

    While kernels are being compiled for the first time it says so.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._compiling = False

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Open a bar."""
        from tqdm.auto import tqdm

        label = f"Epoch {epoch + 1}/{self.params['epochs']}"
        # Where nobody can see a bar move, as in a log, it is drawn at the beginning and the end.
        seen = sys.stderr.isatty() or "ipykernel" in sys.modules
        self._bar = tqdm(
            total=self.params["steps"],
            desc=label,
            unit="batch",
            dynamic_ncols=True,
            mininterval=0.1 if seen else 3600,
        )
        from minicnnrnn.kernels.jit import compilation_listeners  # loads Numba

        compilation_listeners.append(self._on_compilation)

    def _on_compilation(self) -> None:
        if not self._compiling:
            self._compiling = True
            self._bar.set_postfix_str("compiling kernels, the first time only")

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Move the bar; tqdm decides when to draw."""
        compiled, self._compiling = self._compiling, False
        if self._bar.update() or compiled:
            self._bar.set_postfix_str(_numbers(self.model.read_logs()), refresh=compiled)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Show the epoch's numbers, validation included, and close the bar."""
        self._bar.set_postfix_str(_numbers(logs))
        self.close()

    def close(self) -> None:
        """Close a bar that is left open."""
        if self._bar is not None:
            from minicnnrnn.kernels.jit import compilation_listeners

            compilation_listeners.remove(self._on_compilation)
            self._bar.close()
            self._bar = None


class EpochLines(Callback):
    """One line an epoch: ``verbose=2``."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Print the line."""
        print(f"Epoch {epoch + 1}/{self.params['epochs']}: {_numbers(logs)}")


def _numbers(logs: Logs) -> str:
    return ", ".join(f"{key}: {value:.4g}" for key, value in (logs or {}).items())


def check(callbacks: Any) -> list[Callback]:
    """The callbacks as a list.

    Raises
    ------
    TypeError
        If one is none.
    """
    given = (
        [] if callbacks is None else [callbacks] if isinstance(callbacks, Callback) else callbacks
    )
    if not isinstance(given, Sequence) or not all(isinstance(c, Callback) for c in given):
        raise TypeError(f"callbacks: Expected Callback objects. Received: {callbacks!r}")
    return list(given)


class CallbackList:
    """Hands every event to all callbacks; knows whether anyone listens to batches."""

    def __init__(self, callbacks: Sequence[Callback], model: Any, params: dict[str, Any]) -> None:
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            callback.set_params(params)
            callback.set_model(model)

    def call(self, event: str, *arguments: Any) -> None:
        """Call this hook of every callback; they share the logs, which they may add to."""
        for callback in self.callbacks:
            getattr(callback, event)(*arguments)

    def listens(self, event: str) -> bool:
        """Whether any callback but the progress bar wants the numbers of this event."""
        plain = {getattr(Callback, event), getattr(Callback, event.replace("_train_", "_"))}
        return any(
            getattr(getattr(callback, name), "__func__", None) not in plain
            for callback in self.callbacks
            if callback.needs_batches and not isinstance(callback, ProgressBar)
            for name in (event, event.replace("_train_", "_"))
        )

    def close(self) -> None:
        """Close what callbacks hold open, also when training ends by an exception."""
        for callback in self.callbacks:
            getattr(callback, "close", _nothing)()


def _nothing() -> None:
    pass
