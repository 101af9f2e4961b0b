"""Optimizers, and schedules of their learning rates."""

from minicnnrnn.optimizers import schedules
from minicnnrnn.optimizers.algorithms import SGD, Adagrad, Adam, AdamW, RMSprop, get
from minicnnrnn.optimizers.base import Optimizer

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "get", "schedules"]
