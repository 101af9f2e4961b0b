"""Devices: a table of kernels, name to function, and the memory that they work in."""

import math
import os
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from minicnnrnn.kernels import (
    activation,
    augmentation,
    conv,
    dense,
    dropout,
    group_normalization,
    gru,
    jit,
    loss,
    lstm,
    merge,
    metric,
    normalization,
    pool,
    simple_rnn,
    update,
)

NUMPY: dict[str, Any] = {
    "activation_forward": activation.activation_forward_numpy,
    "activation_backward": activation.activation_backward_numpy,
    "softmax_forward": activation.softmax_forward_numpy,
    "softmax_backward": activation.softmax_backward_numpy,
    "flip_forward": augmentation.flip_forward_numpy,
    "translation_forward": augmentation.translation_forward_numpy,
    "translation_backward_input": augmentation.translation_backward_input_numpy,
    "translation_workspace": augmentation.translation_workspace_numpy,
    "conv_prepare": conv.conv_prepare_numpy,
    "conv_forward": conv.conv_forward_numpy,
    "conv_backward_input": conv.conv_backward_input_numpy,
    "conv_backward_weight": conv.conv_backward_weight_numpy,
    "conv_workspace": conv.conv_workspace_numpy,
    "dense_prepare": dense.dense_prepare_numpy,
    "dense_forward": dense.dense_forward_numpy,
    "dense_backward_input": dense.dense_backward_input_numpy,
    "dense_backward_weight": dense.dense_backward_weight_numpy,
    "dense_workspace": dense.dense_workspace_numpy,
    "dropout_forward": dropout.dropout_forward_numpy,
    "group_norm_forward": group_normalization.group_norm_forward_numpy,
    "group_norm_backward_input": group_normalization.group_norm_backward_input_numpy,
    "group_norm_backward_weight": group_normalization.group_norm_backward_weight_numpy,
    "group_norm_workspace": group_normalization.group_norm_workspace_numpy,
    "layer_norm_forward": group_normalization.layer_norm_forward_numpy,
    "layer_norm_backward_input": group_normalization.layer_norm_backward_input_numpy,
    "layer_norm_backward_weight": group_normalization.layer_norm_backward_weight_numpy,
    "layer_norm_workspace": group_normalization.layer_norm_workspace_numpy,
    "gru_prepare": gru.gru_prepare_numpy,
    "gru_forward": gru.gru_forward_numpy,
    "gru_backward_input": gru.gru_backward_input_numpy,
    "gru_backward_weight": gru.gru_backward_weight_numpy,
    "gru_workspace": gru.gru_workspace_numpy,
    "mean_squared_error_forward": loss.mean_squared_error_forward_numpy,
    "mean_squared_error_backward": loss.mean_squared_error_backward_numpy,
    "mean_absolute_error_forward": loss.mean_absolute_error_forward_numpy,
    "mean_absolute_error_backward": loss.mean_absolute_error_backward_numpy,
    "huber_forward": loss.huber_forward_numpy,
    "huber_backward": loss.huber_backward_numpy,
    "binary_crossentropy_forward": loss.binary_crossentropy_forward_numpy,
    "binary_crossentropy_backward": loss.binary_crossentropy_backward_numpy,
    "categorical_crossentropy_forward": loss.categorical_crossentropy_forward_numpy,
    "categorical_crossentropy_backward": loss.categorical_crossentropy_backward_numpy,
    "sparse_categorical_crossentropy_forward": loss.sparse_categorical_crossentropy_forward_numpy,
    "sparse_categorical_crossentropy_backward": loss.sparse_categorical_crossentropy_backward_numpy,
    "weighted_sum": loss.weighted_sum_numpy,
    "lstm_prepare": lstm.lstm_prepare_numpy,
    "lstm_forward": lstm.lstm_forward_numpy,
    "lstm_backward_input": lstm.lstm_backward_input_numpy,
    "lstm_backward_weight": lstm.lstm_backward_weight_numpy,
    "lstm_workspace": lstm.lstm_workspace_numpy,
    "concatenate_forward": merge.concatenate_forward_numpy,
    "concatenate_backward": merge.concatenate_backward_numpy,
    "merge_forward": merge.merge_forward_numpy,
    "merge_backward": merge.merge_backward_numpy,
    "binary_accuracy": metric.binary_accuracy_numpy,
    "categorical_accuracy": metric.categorical_accuracy_numpy,
    "sparse_categorical_accuracy": metric.sparse_categorical_accuracy_numpy,
    "sparse_top_k": metric.sparse_top_k_numpy,
    "top_k": metric.top_k_numpy,
    "affine_forward": normalization.affine_forward_numpy,
    "affine_workspace": normalization.affine_workspace_numpy,
    "batch_norm_forward": normalization.batch_norm_forward_numpy,
    "batch_norm_inference": normalization.batch_norm_inference_numpy,
    "batch_norm_backward_input": normalization.batch_norm_backward_input_numpy,
    "batch_norm_backward_weight": normalization.batch_norm_backward_weight_numpy,
    "batch_norm_workspace": normalization.batch_norm_workspace_numpy,
    "max_pool_forward": pool.max_pool_forward_numpy,
    "max_pool_backward_input": pool.max_pool_backward_input_numpy,
    "average_pool_forward": pool.average_pool_forward_numpy,
    "average_pool_backward_input": pool.average_pool_backward_input_numpy,
    "simple_rnn_prepare": simple_rnn.simple_rnn_prepare_numpy,
    "simple_rnn_forward": simple_rnn.simple_rnn_forward_numpy,
    "simple_rnn_backward_input": simple_rnn.simple_rnn_backward_input_numpy,
    "simple_rnn_backward_weight": simple_rnn.simple_rnn_backward_weight_numpy,
    "simple_rnn_workspace": simple_rnn.simple_rnn_workspace_numpy,
    "sgd_update": update.sgd_update_numpy,
    "rmsprop_update": update.rmsprop_update_numpy,
    "adam_update": update.adam_update_numpy,
}

CPU: dict[str, Any] = {
    "activation_forward": activation.activation_forward_cpu,
    "activation_backward": activation.activation_backward_cpu,
    "softmax_forward": activation.softmax_forward_cpu,
    "softmax_backward": activation.softmax_backward_cpu,
    "flip_forward": augmentation.flip_forward_cpu,
    "translation_forward": augmentation.translation_forward_cpu,
    "translation_backward_input": augmentation.translation_backward_input_cpu,
    "translation_workspace": augmentation.translation_workspace_cpu,
    "conv_prepare": conv.conv_prepare_cpu,
    "conv_forward": conv.conv_forward_cpu,
    "conv_backward_input": conv.conv_backward_input_cpu,
    "conv_backward_weight": conv.conv_backward_weight_cpu,
    "conv_workspace": conv.conv_workspace_cpu,
    "dense_prepare": dense.dense_prepare_cpu,
    "dense_forward": dense.dense_forward_cpu,
    "dense_backward_input": dense.dense_backward_input_cpu,
    "dense_backward_weight": dense.dense_backward_weight_cpu,
    "dense_workspace": dense.dense_workspace_cpu,
    "dropout_forward": dropout.dropout_forward_cpu,
    "group_norm_forward": group_normalization.group_norm_forward_cpu,
    "group_norm_backward_input": group_normalization.group_norm_backward_input_cpu,
    "group_norm_backward_weight": group_normalization.group_norm_backward_weight_cpu,
    "group_norm_workspace": group_normalization.group_norm_workspace_cpu,
    "layer_norm_forward": group_normalization.layer_norm_forward_cpu,
    "layer_norm_backward_input": group_normalization.layer_norm_backward_input_cpu,
    "layer_norm_backward_weight": group_normalization.layer_norm_backward_weight_cpu,
    "layer_norm_workspace": group_normalization.layer_norm_workspace_cpu,
    "gru_prepare": gru.gru_prepare_cpu,
    "gru_forward": gru.gru_forward_cpu,
    "gru_backward_input": gru.gru_backward_input_cpu,
    "gru_backward_weight": gru.gru_backward_weight_cpu,
    "gru_workspace": gru.gru_workspace_cpu,
    "mean_squared_error_forward": loss.mean_squared_error_forward_cpu,
    "mean_squared_error_backward": loss.mean_squared_error_backward_cpu,
    "mean_absolute_error_forward": loss.mean_absolute_error_forward_cpu,
    "mean_absolute_error_backward": loss.mean_absolute_error_backward_cpu,
    "huber_forward": loss.huber_forward_cpu,
    "huber_backward": loss.huber_backward_cpu,
    "binary_crossentropy_forward": loss.binary_crossentropy_forward_cpu,
    "binary_crossentropy_backward": loss.binary_crossentropy_backward_cpu,
    "categorical_crossentropy_forward": loss.categorical_crossentropy_forward_cpu,
    "categorical_crossentropy_backward": loss.categorical_crossentropy_backward_cpu,
    "sparse_categorical_crossentropy_forward": loss.sparse_categorical_crossentropy_forward_cpu,
    "sparse_categorical_crossentropy_backward": loss.sparse_categorical_crossentropy_backward_cpu,
    "weighted_sum": loss.weighted_sum_cpu,
    "lstm_prepare": lstm.lstm_prepare_cpu,
    "lstm_forward": lstm.lstm_forward_cpu,
    "lstm_backward_input": lstm.lstm_backward_input_cpu,
    "lstm_backward_weight": lstm.lstm_backward_weight_cpu,
    "lstm_workspace": lstm.lstm_workspace_cpu,
    "concatenate_forward": merge.concatenate_forward_cpu,
    "concatenate_backward": merge.concatenate_backward_cpu,
    "merge_forward": merge.merge_forward_cpu,
    "merge_backward": merge.merge_backward_cpu,
    "binary_accuracy": metric.binary_accuracy_cpu,
    "categorical_accuracy": metric.categorical_accuracy_cpu,
    "sparse_categorical_accuracy": metric.sparse_categorical_accuracy_cpu,
    "sparse_top_k": metric.sparse_top_k_cpu,
    "top_k": metric.top_k_cpu,
    "affine_forward": normalization.affine_forward_cpu,
    "affine_workspace": normalization.affine_workspace_cpu,
    "batch_norm_forward": normalization.batch_norm_forward_cpu,
    "batch_norm_inference": normalization.batch_norm_inference_cpu,
    "batch_norm_backward_input": normalization.batch_norm_backward_input_cpu,
    "batch_norm_backward_weight": normalization.batch_norm_backward_weight_cpu,
    "batch_norm_workspace": normalization.batch_norm_workspace_cpu,
    "max_pool_forward": pool.max_pool_forward_cpu,
    "max_pool_backward_input": pool.max_pool_backward_input_cpu,
    "average_pool_forward": pool.average_pool_forward_cpu,
    "average_pool_backward_input": pool.average_pool_backward_input_cpu,
    "simple_rnn_prepare": simple_rnn.simple_rnn_prepare_cpu,
    "simple_rnn_forward": simple_rnn.simple_rnn_forward_cpu,
    "simple_rnn_backward_input": simple_rnn.simple_rnn_backward_input_cpu,
    "simple_rnn_backward_weight": simple_rnn.simple_rnn_backward_weight_cpu,
    "simple_rnn_workspace": simple_rnn.simple_rnn_workspace_cpu,
    "sgd_update": update.sgd_update_cpu,
    "rmsprop_update": update.rmsprop_update_cpu,
    "adam_update": update.adam_update_cpu,
}

TABLES = {"numpy": NUMPY, "cpu": CPU}


class Device:
    """Where a model computes: kernels by name, and arrays in that device's memory.

    Parameters
    ----------
    name : str
        ``"cpu"``: Numba kernels on all cores; ``"numpy"``: the mathematics, as written in the
        reference, for reading and for stepping through with a debugger.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def kernels(self) -> SimpleNamespace:
        """Every public launcher under its name without the device."""
        if self.name == "cpu":
            jit.bind()
        return SimpleNamespace(**TABLES[self.name])

    def __repr__(self) -> str:
        return f"Device({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return get_device, (self.name,)

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """An array of this device whose contents are undefined.

        It begins on a cache line, so that vectors do not straddle two.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = np.empty(size + 64, np.uint8)
        start = -memory.ctypes.data % 64
        return memory[start : start + size].view(dtype).reshape(shape)

    def zeros(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """An array of zeros on this device."""
        array = self.empty(shape, dtype)
        array[...] = 0
        return array


class Buffer:
    """Memory that keeps its capacity: allocated when first needed, grown when more is.

    Called with a shape it returns a view, the same one every time, so that a repeated train
    step allocates nothing. What the view holds is undefined after a call with another shape.

    Examples
    --------
    >>> from minicnnrnn.device import Buffer, get_device
    >>> buffer = Buffer(get_device("numpy"))
    >>> a = buffer(4, 3)
    >>> buffer(2, 3).base is buffer(4, 3).base, buffer(4, 3) is a
    (True, True)
    """

    def __init__(self, device: Device, dtype: Any = np.float32) -> None:
        self.device, self.dtype = device, dtype
        self.memory: Any = None
        self._views: dict[tuple[int, ...], Any] = {}

    def __call__(self, *shape: int) -> Any:
        """A view of this shape."""
        view = self._views.get(shape)
        if view is None:
            size = int(np.prod(shape, dtype=np.int64))
            if self.memory is None or self.memory.size < size:
                self.memory = self.device.empty((size,), self.dtype)
                self._views.clear()
            elif len(self._views) > 64:  # sequences of ever new lengths
                self._views.clear()
            view = self._views[shape] = self.memory[:size].reshape(shape)
        return view


_devices: dict[str, Device] = {}
_default: str | None = None


def get_device(name: str | Device | None = None) -> Device:
    """The device of this name, or the default one.

    The default is what ``set_device`` set, else the environment variable
    ``MINICNNRNN_DEVICE``, else ``"cpu"``. This is the only place that branches on a device.

    Parameters
    ----------
    name : str, Device or None

    Raises
    ------
    ValueError
        If there is no such device.
    """
    if isinstance(name, Device):
        return name
    chosen = name if name is not None else _default or os.environ.get("MINICNNRNN_DEVICE") or "cpu"
    _check(chosen)
    if chosen not in _devices:
        _devices[chosen] = Device(chosen)
    return _devices[chosen]


def set_device(name: str | None) -> None:
    """Choose the device of the models made from now on; ``None`` returns to the default.

    Examples
    --------
    >>> import minicnnrnn
    >>> minicnnrnn.set_device("numpy")
    >>> minicnnrnn.Sequential().device
    Device('numpy')
    >>> minicnnrnn.set_device(None)
    """
    global _default
    if name is not None:
        _check(name)
    _default = name


def _check(name: Any) -> None:
    if not isinstance(name, str) or name not in TABLES:
        raise ValueError(f"device: Expected one of {sorted(TABLES)}. Received: {name!r}")
