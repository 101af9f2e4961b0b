"""Devices: a table of kernels, name to function, and the memory they work in."""

from typing import Any

from minicnnrnn.kernels import dense, jit

NUMPY: dict[str, Any] = {
    "dense_workspace": dense.dense_workspace_numpy,
    "dense_prepare": dense.dense_prepare_numpy,
    "dense_forward": dense.dense_forward_numpy,
    "dense_backward_input": dense.dense_backward_input_numpy,
    "dense_backward_weight": dense.dense_backward_weight_numpy,
}

CPU: dict[str, Any] = {
    "dense_workspace": dense.dense_workspace_cpu,
    "dense_prepare": dense.dense_prepare_cpu,
    "dense_forward": dense.dense_forward_cpu,
    "dense_backward_input": dense.dense_backward_input_cpu,
    "dense_backward_weight": dense.dense_backward_weight_cpu,
}
