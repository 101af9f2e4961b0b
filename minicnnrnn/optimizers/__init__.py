"""Optimizers, and schedules of their learning rates."""

from typing import TYPE_CHECKING, Any

from minicnnrnn import left_out
from minicnnrnn.optimizers import schedules
from minicnnrnn.optimizers.algorithms import SGD, Adagrad, Adam, AdamW, RMSprop, get
from minicnnrnn.optimizers.base import Optimizer

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "get", "schedules"]

if not TYPE_CHECKING:  # a type checker is to complain about names that do not exist

    def __getattr__(name: str) -> Any:
        """Names that are left out, which raise when they are called."""
        if name in left_out.OPTIMIZERS:
            return left_out.stand_in(name, left_out.OPTIMIZERS[name])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
