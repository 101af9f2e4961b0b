"""Devices: a table of kernels, name to function, and the memory that they work in."""

import math
import os
from functools import cached_property
from typing import Any

import numpy as np

from minicnnrnn.kernels import (
    activation,
    augmentation,
    clip,
    confusion,
    constraint,
    conv,
    conv_lstm,
    conv_transpose,
    cosine_similarity,
    crossentropy,
    ctc,
    dense,
    depthwise,
    dropout,
    embedding,
    focal,
    group_normalization,
    gru,
    hinge,
    lstm,
    merge,
    metric,
    normalization,
    penalty,
    pool,
    recurrent,
    regression_loss,
    relu,
    resample,
    scale,
    sequence,
    simple_rnn,
    softmax,
    update,
    winograd,
)

NUMPY: dict[str, Any] = {
    "activation_forward": activation.activation_forward_numpy,
    "activation_backward": activation.activation_backward_numpy,
    "flip_forward": augmentation.flip_forward_numpy,
    "translation_forward": augmentation.translation_forward_numpy,
    "translation_backward_input": augmentation.translation_backward_input_numpy,
    "translation_workspace": augmentation.translation_workspace_numpy,
    "clip_gradient": clip.clip_gradient_numpy,
    "threshold_counts": confusion.threshold_counts_numpy,
    "confusion_matrix": confusion.confusion_matrix_numpy,
    "sparse_confusion_matrix": confusion.sparse_confusion_matrix_numpy,
    "norm_constraint": constraint.norm_constraint_numpy,
    "nonneg_constraint": constraint.nonneg_constraint_numpy,
    "conv_prepare": conv.conv_prepare_numpy,
    "conv_forward": conv.conv_forward_numpy,
    "conv_backward_input": conv.conv_backward_input_numpy,
    "conv_backward_weight": conv.conv_backward_weight_numpy,
    "conv_workspace": conv.conv_workspace_numpy,
    "conv_lstm_forward": conv_lstm.conv_lstm_forward_numpy,
    "conv_lstm_backward": conv_lstm.conv_lstm_backward_numpy,
    "conv_lstm_workspace": conv_lstm.conv_lstm_workspace_numpy,
    "conv_transpose_forward": conv_transpose.conv_transpose_forward_numpy,
    "conv_transpose_backward_input": conv_transpose.conv_transpose_backward_input_numpy,
    "conv_transpose_backward_weight": conv_transpose.conv_transpose_backward_weight_numpy,
    "conv_transpose_workspace": conv_transpose.conv_transpose_workspace_numpy,
    "cosine_similarity_forward": cosine_similarity.cosine_similarity_forward_numpy,
    "cosine_similarity_backward": cosine_similarity.cosine_similarity_backward_numpy,
    "binary_crossentropy_forward": crossentropy.binary_crossentropy_forward_numpy,
    "binary_crossentropy_backward": crossentropy.binary_crossentropy_backward_numpy,
    "categorical_crossentropy_forward": crossentropy.categorical_crossentropy_forward_numpy,
    "categorical_crossentropy_backward": crossentropy.categorical_crossentropy_backward_numpy,
    "sparse_categorical_crossentropy_forward": crossentropy.sparse_categorical_crossentropy_forward_numpy,
    "sparse_categorical_crossentropy_backward": crossentropy.sparse_categorical_crossentropy_backward_numpy,
    "kl_divergence_forward": crossentropy.kl_divergence_forward_numpy,
    "kl_divergence_backward": crossentropy.kl_divergence_backward_numpy,
    "ctc_forward": ctc.ctc_forward_numpy,
    "ctc_backward": ctc.ctc_backward_numpy,
    "ctc_workspace": ctc.ctc_workspace_numpy,
    "dense_prepare": dense.dense_prepare_numpy,
    "dense_forward": dense.dense_forward_numpy,
    "dense_backward_input": dense.dense_backward_input_numpy,
    "dense_backward_weight": dense.dense_backward_weight_numpy,
    "dense_workspace": dense.dense_workspace_numpy,
    "depthwise_forward": depthwise.depthwise_forward_numpy,
    "depthwise_backward_input": depthwise.depthwise_backward_input_numpy,
    "depthwise_backward_weight": depthwise.depthwise_backward_weight_numpy,
    "depthwise_workspace": depthwise.depthwise_workspace_numpy,
    "dropout_forward": dropout.dropout_forward_numpy,
    "gaussian_forward": dropout.gaussian_forward_numpy,
    "embedding_forward": embedding.embedding_forward_numpy,
    "embedding_backward_weight": embedding.embedding_backward_weight_numpy,
    "embedding_mask": embedding.embedding_mask_numpy,
    "embedding_workspace": embedding.embedding_workspace_numpy,
    "binary_focal_crossentropy_forward": focal.binary_focal_crossentropy_forward_numpy,
    "binary_focal_crossentropy_backward": focal.binary_focal_crossentropy_backward_numpy,
    "categorical_focal_crossentropy_forward": focal.categorical_focal_crossentropy_forward_numpy,
    "categorical_focal_crossentropy_backward": focal.categorical_focal_crossentropy_backward_numpy,
    "layer_norm_forward": group_normalization.layer_norm_forward_numpy,
    "layer_norm_backward_input": group_normalization.layer_norm_backward_input_numpy,
    "layer_norm_backward_weight": group_normalization.layer_norm_backward_weight_numpy,
    "layer_norm_workspace": group_normalization.layer_norm_workspace_numpy,
    "group_norm_forward": group_normalization.group_norm_forward_numpy,
    "group_norm_backward_input": group_normalization.group_norm_backward_input_numpy,
    "group_norm_backward_weight": group_normalization.group_norm_backward_weight_numpy,
    "group_norm_workspace": group_normalization.group_norm_workspace_numpy,
    "gru_prepare": gru.gru_prepare_numpy,
    "gru_forward": gru.gru_forward_numpy,
    "gru_backward_input": gru.gru_backward_input_numpy,
    "gru_backward_weight": gru.gru_backward_weight_numpy,
    "gru_workspace": gru.gru_workspace_numpy,
    "hinge_forward": hinge.hinge_forward_numpy,
    "hinge_backward": hinge.hinge_backward_numpy,
    "categorical_hinge_forward": hinge.categorical_hinge_forward_numpy,
    "categorical_hinge_backward": hinge.categorical_hinge_backward_numpy,
    "lstm_prepare": lstm.lstm_prepare_numpy,
    "lstm_forward": lstm.lstm_forward_numpy,
    "lstm_backward_input": lstm.lstm_backward_input_numpy,
    "lstm_backward_weight": lstm.lstm_backward_weight_numpy,
    "lstm_workspace": lstm.lstm_workspace_numpy,
    "merge_forward": merge.merge_forward_numpy,
    "merge_backward": merge.merge_backward_numpy,
    "concatenate_forward": merge.concatenate_forward_numpy,
    "concatenate_backward": merge.concatenate_backward_numpy,
    "binary_accuracy": metric.binary_accuracy_numpy,
    "categorical_accuracy": metric.categorical_accuracy_numpy,
    "sparse_categorical_accuracy": metric.sparse_categorical_accuracy_numpy,
    "sparse_top_k": metric.sparse_top_k_numpy,
    "top_k": metric.top_k_numpy,
    "weighted_sum": metric.weighted_sum_numpy,
    "variance_sums": metric.variance_sums_numpy,
    "affine_forward": normalization.affine_forward_numpy,
    "batch_norm_forward": normalization.batch_norm_forward_numpy,
    "batch_norm_inference": normalization.batch_norm_inference_numpy,
    "batch_norm_backward_weight": normalization.batch_norm_backward_weight_numpy,
    "batch_norm_backward_input": normalization.batch_norm_backward_input_numpy,
    "batch_norm_workspace": normalization.batch_norm_workspace_numpy,
    "affine_workspace": normalization.affine_workspace_numpy,
    "penalty_forward": penalty.penalty_forward_numpy,
    "penalty_backward": penalty.penalty_backward_numpy,
    "max_pool_forward": pool.max_pool_forward_numpy,
    "max_pool_backward_input": pool.max_pool_backward_input_numpy,
    "average_pool_forward": pool.average_pool_forward_numpy,
    "average_pool_backward_input": pool.average_pool_backward_input_numpy,
    "masked_average_forward": pool.masked_average_forward_numpy,
    "masked_average_backward_input": pool.masked_average_backward_input_numpy,
    "steps_forward": recurrent.steps_forward_numpy,
    "regression_loss_forward": regression_loss.regression_loss_forward_numpy,
    "regression_loss_backward": regression_loss.regression_loss_backward_numpy,
    "relu_forward": relu.relu_forward_numpy,
    "relu_backward": relu.relu_backward_numpy,
    "prelu_forward": relu.prelu_forward_numpy,
    "prelu_backward_input": relu.prelu_backward_input_numpy,
    "prelu_backward_weight": relu.prelu_backward_weight_numpy,
    "prelu_workspace": relu.prelu_workspace_numpy,
    "pad_forward": resample.pad_forward_numpy,
    "upsample_forward": resample.upsample_forward_numpy,
    "upsample_backward_input": resample.upsample_backward_input_numpy,
    "bilinear_forward": resample.bilinear_forward_numpy,
    "bilinear_backward_input": resample.bilinear_backward_input_numpy,
    "permute_forward": resample.permute_forward_numpy,
    "scale_forward": scale.scale_forward_numpy,
    "masking_forward": sequence.masking_forward_numpy,
    "masking_backward_input": sequence.masking_backward_input_numpy,
    "bidirectional_forward": sequence.bidirectional_forward_numpy,
    "bidirectional_backward_input": sequence.bidirectional_backward_input_numpy,
    "simple_rnn_prepare": simple_rnn.simple_rnn_prepare_numpy,
    "simple_rnn_forward": simple_rnn.simple_rnn_forward_numpy,
    "simple_rnn_backward_input": simple_rnn.simple_rnn_backward_input_numpy,
    "simple_rnn_backward_weight": simple_rnn.simple_rnn_backward_weight_numpy,
    "simple_rnn_workspace": simple_rnn.simple_rnn_workspace_numpy,
    "softmax_forward": softmax.softmax_forward_numpy,
    "softmax_backward": softmax.softmax_backward_numpy,
    "log_softmax_forward": softmax.log_softmax_forward_numpy,
    "log_softmax_backward": softmax.log_softmax_backward_numpy,
    "sgd_update": update.sgd_update_numpy,
    "rmsprop_update": update.rmsprop_update_numpy,
    "adagrad_update": update.adagrad_update_numpy,
    "adam_update": update.adam_update_numpy,
    "winograd_prepare": winograd.winograd_prepare_numpy,
    "winograd_forward": winograd.winograd_forward_numpy,
    "winograd_backward_input": winograd.winograd_backward_input_numpy,
    "winograd_backward_weight": winograd.winograd_backward_weight_numpy,
    "winograd_workspace": winograd.winograd_workspace_numpy,
    "winograd_pays": winograd.winograd_pays_numpy,
}

CPU: dict[str, Any] = {
    "activation_forward": activation.activation_forward_cpu,
    "activation_backward": activation.activation_backward_cpu,
    "flip_forward": augmentation.flip_forward_cpu,
    "translation_forward": augmentation.translation_forward_cpu,
    "translation_backward_input": augmentation.translation_backward_input_cpu,
    "translation_workspace": augmentation.translation_workspace_cpu,
    "clip_gradient": clip.clip_gradient_cpu,
    "threshold_counts": confusion.threshold_counts_cpu,
    "confusion_matrix": confusion.confusion_matrix_cpu,
    "sparse_confusion_matrix": confusion.sparse_confusion_matrix_cpu,
    "norm_constraint": constraint.norm_constraint_cpu,
    "nonneg_constraint": constraint.nonneg_constraint_cpu,
    "conv_prepare": conv.conv_prepare_cpu,
    "conv_forward": conv.conv_forward_cpu,
    "conv_backward_input": conv.conv_backward_input_cpu,
    "conv_backward_weight": conv.conv_backward_weight_cpu,
    "conv_workspace": conv.conv_workspace_cpu,
    "conv_lstm_forward": conv_lstm.conv_lstm_forward_cpu,
    "conv_lstm_backward": conv_lstm.conv_lstm_backward_cpu,
    "conv_lstm_workspace": conv_lstm.conv_lstm_workspace_cpu,
    "conv_transpose_forward": conv_transpose.conv_transpose_forward_cpu,
    "conv_transpose_backward_input": conv_transpose.conv_transpose_backward_input_cpu,
    "conv_transpose_backward_weight": conv_transpose.conv_transpose_backward_weight_cpu,
    "conv_transpose_workspace": conv_transpose.conv_transpose_workspace_cpu,
    "cosine_similarity_forward": cosine_similarity.cosine_similarity_forward_cpu,
    "cosine_similarity_backward": cosine_similarity.cosine_similarity_backward_cpu,
    "binary_crossentropy_forward": crossentropy.binary_crossentropy_forward_cpu,
    "binary_crossentropy_backward": crossentropy.binary_crossentropy_backward_cpu,
    "categorical_crossentropy_forward": crossentropy.categorical_crossentropy_forward_cpu,
    "categorical_crossentropy_backward": crossentropy.categorical_crossentropy_backward_cpu,
    "sparse_categorical_crossentropy_forward": crossentropy.sparse_categorical_crossentropy_forward_cpu,
    "sparse_categorical_crossentropy_backward": crossentropy.sparse_categorical_crossentropy_backward_cpu,
    "kl_divergence_forward": crossentropy.kl_divergence_forward_cpu,
    "kl_divergence_backward": crossentropy.kl_divergence_backward_cpu,
    "ctc_forward": ctc.ctc_forward_cpu,
    "ctc_backward": ctc.ctc_backward_cpu,
    "ctc_workspace": ctc.ctc_workspace_cpu,
    "dense_prepare": dense.dense_prepare_cpu,
    "dense_forward": dense.dense_forward_cpu,
    "dense_backward_input": dense.dense_backward_input_cpu,
    "dense_backward_weight": dense.dense_backward_weight_cpu,
    "dense_workspace": dense.dense_workspace_cpu,
    "depthwise_forward": depthwise.depthwise_forward_cpu,
    "depthwise_backward_input": depthwise.depthwise_backward_input_cpu,
    "depthwise_backward_weight": depthwise.depthwise_backward_weight_cpu,
    "depthwise_workspace": depthwise.depthwise_workspace_cpu,
    "dropout_forward": dropout.dropout_forward_cpu,
    "gaussian_forward": dropout.gaussian_forward_cpu,
    "embedding_forward": embedding.embedding_forward_cpu,
    "embedding_backward_weight": embedding.embedding_backward_weight_cpu,
    "embedding_mask": embedding.embedding_mask_cpu,
    "embedding_workspace": embedding.embedding_workspace_cpu,
    "binary_focal_crossentropy_forward": focal.binary_focal_crossentropy_forward_cpu,
    "binary_focal_crossentropy_backward": focal.binary_focal_crossentropy_backward_cpu,
    "categorical_focal_crossentropy_forward": focal.categorical_focal_crossentropy_forward_cpu,
    "categorical_focal_crossentropy_backward": focal.categorical_focal_crossentropy_backward_cpu,
    "layer_norm_forward": group_normalization.layer_norm_forward_cpu,
    "layer_norm_backward_input": group_normalization.layer_norm_backward_input_cpu,
    "layer_norm_backward_weight": group_normalization.layer_norm_backward_weight_cpu,
    "layer_norm_workspace": group_normalization.layer_norm_workspace_cpu,
    "group_norm_forward": group_normalization.group_norm_forward_cpu,
    "group_norm_backward_input": group_normalization.group_norm_backward_input_cpu,
    "group_norm_backward_weight": group_normalization.group_norm_backward_weight_cpu,
    "group_norm_workspace": group_normalization.group_norm_workspace_cpu,
    "gru_prepare": gru.gru_prepare_cpu,
    "gru_forward": gru.gru_forward_cpu,
    "gru_backward_input": gru.gru_backward_input_cpu,
    "gru_backward_weight": gru.gru_backward_weight_cpu,
    "gru_workspace": gru.gru_workspace_cpu,
    "hinge_forward": hinge.hinge_forward_cpu,
    "hinge_backward": hinge.hinge_backward_cpu,
    "categorical_hinge_forward": hinge.categorical_hinge_forward_cpu,
    "categorical_hinge_backward": hinge.categorical_hinge_backward_cpu,
    "lstm_prepare": lstm.lstm_prepare_cpu,
    "lstm_forward": lstm.lstm_forward_cpu,
    "lstm_backward_input": lstm.lstm_backward_input_cpu,
    "lstm_backward_weight": lstm.lstm_backward_weight_cpu,
    "lstm_workspace": lstm.lstm_workspace_cpu,
    "merge_forward": merge.merge_forward_cpu,
    "merge_backward": merge.merge_backward_cpu,
    "concatenate_forward": merge.concatenate_forward_cpu,
    "concatenate_backward": merge.concatenate_backward_cpu,
    "binary_accuracy": metric.binary_accuracy_cpu,
    "categorical_accuracy": metric.categorical_accuracy_cpu,
    "sparse_categorical_accuracy": metric.sparse_categorical_accuracy_cpu,
    "sparse_top_k": metric.sparse_top_k_cpu,
    "top_k": metric.top_k_cpu,
    "weighted_sum": metric.weighted_sum_cpu,
    "variance_sums": metric.variance_sums_cpu,
    "affine_forward": normalization.affine_forward_cpu,
    "batch_norm_forward": normalization.batch_norm_forward_cpu,
    "batch_norm_inference": normalization.batch_norm_inference_cpu,
    "batch_norm_backward_weight": normalization.batch_norm_backward_weight_cpu,
    "batch_norm_backward_input": normalization.batch_norm_backward_input_cpu,
    "batch_norm_workspace": normalization.batch_norm_workspace_cpu,
    "affine_workspace": normalization.affine_workspace_cpu,
    "penalty_forward": penalty.penalty_forward_cpu,
    "penalty_backward": penalty.penalty_backward_cpu,
    "max_pool_forward": pool.max_pool_forward_cpu,
    "max_pool_backward_input": pool.max_pool_backward_input_cpu,
    "average_pool_forward": pool.average_pool_forward_cpu,
    "average_pool_backward_input": pool.average_pool_backward_input_cpu,
    "masked_average_forward": pool.masked_average_forward_cpu,
    "masked_average_backward_input": pool.masked_average_backward_input_cpu,
    "steps_forward": recurrent.steps_forward_cpu,
    "regression_loss_forward": regression_loss.regression_loss_forward_cpu,
    "regression_loss_backward": regression_loss.regression_loss_backward_cpu,
    "relu_forward": relu.relu_forward_cpu,
    "relu_backward": relu.relu_backward_cpu,
    "prelu_forward": relu.prelu_forward_cpu,
    "prelu_backward_input": relu.prelu_backward_input_cpu,
    "prelu_backward_weight": relu.prelu_backward_weight_cpu,
    "prelu_workspace": relu.prelu_workspace_cpu,
    "pad_forward": resample.pad_forward_cpu,
    "upsample_forward": resample.upsample_forward_cpu,
    "upsample_backward_input": resample.upsample_backward_input_cpu,
    "bilinear_forward": resample.bilinear_forward_cpu,
    "bilinear_backward_input": resample.bilinear_backward_input_cpu,
    "permute_forward": resample.permute_forward_cpu,
    "scale_forward": scale.scale_forward_cpu,
    "masking_forward": sequence.masking_forward_cpu,
    "masking_backward_input": sequence.masking_backward_input_cpu,
    "bidirectional_forward": sequence.bidirectional_forward_cpu,
    "bidirectional_backward_input": sequence.bidirectional_backward_input_cpu,
    "simple_rnn_prepare": simple_rnn.simple_rnn_prepare_cpu,
    "simple_rnn_forward": simple_rnn.simple_rnn_forward_cpu,
    "simple_rnn_backward_input": simple_rnn.simple_rnn_backward_input_cpu,
    "simple_rnn_backward_weight": simple_rnn.simple_rnn_backward_weight_cpu,
    "simple_rnn_workspace": simple_rnn.simple_rnn_workspace_cpu,
    "softmax_forward": softmax.softmax_forward_cpu,
    "softmax_backward": softmax.softmax_backward_cpu,
    "log_softmax_forward": softmax.log_softmax_forward_cpu,
    "log_softmax_backward": softmax.log_softmax_backward_cpu,
    "sgd_update": update.sgd_update_cpu,
    "rmsprop_update": update.rmsprop_update_cpu,
    "adagrad_update": update.adagrad_update_cpu,
    "adam_update": update.adam_update_cpu,
    "winograd_prepare": winograd.winograd_prepare_cpu,
    "winograd_forward": winograd.winograd_forward_cpu,
    "winograd_backward_input": winograd.winograd_backward_input_cpu,
    "winograd_backward_weight": winograd.winograd_backward_weight_cpu,
    "winograd_workspace": winograd.winograd_workspace_cpu,
    "winograd_pays": winograd.winograd_pays_cpu,
}

TABLES = {"numpy": NUMPY, "cpu": CPU}


class Launchers:
    """The launchers of one device by name: those that are asked for, made ready to be called."""

    def __init__(self, table: dict[str, Any]) -> None:
        self._table = table

    def __getattr__(self, name: str) -> Any:
        kernel = self._table.get(name)
        if kernel is None:
            raise AttributeError(name)
        launcher = getattr(kernel, "dispatcher", kernel)
        setattr(self, name, launcher)
        return launcher


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
    def kernels(self) -> "Launchers":
        """Every public launcher under its name without the device."""
        return Launchers(TABLES[self.name])

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
