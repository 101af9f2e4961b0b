"""Callbacks: what is told of the course of training, and may steer it."""

from typing import TYPE_CHECKING, Any

from minicnnrnn import left_out
from minicnnrnn.callbacks.base import (
    Callback,
    CallbackList,
    EpochLines,
    History,
    ProgressBar,
    check,
)
from minicnnrnn.callbacks.checkpoint import ModelCheckpoint
from minicnnrnn.callbacks.monitor import EarlyStopping, MonitorCallback, ReduceLROnPlateau
from minicnnrnn.callbacks.plain import (
    CSVLogger,
    LambdaCallback,
    LearningRateScheduler,
    TerminateOnNaN,
)

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "EpochLines",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "MonitorCallback",
    "ProgressBar",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
    "check",
]

if not TYPE_CHECKING:  # a type checker is to complain about names that do not exist

    def __getattr__(name: str) -> Any:
        """Names that are left out, which raise when they are called."""
        if name in left_out.CALLBACKS:
            return left_out.stand_in(name, left_out.CALLBACKS[name])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
