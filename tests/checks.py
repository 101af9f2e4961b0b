"""What every kernel test does: outputs full of NaN, a reference to meet, gradients to project."""

import functools
import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import assume

from minicnnrnn.kernels import gpu

EPSILON = np.finfo(np.float32).eps

CUDA = pytest.param("cuda", marks=(pytest.mark.cuda, pytest.mark.gpu))
FAST = ["cpu", CUDA]  # what is held to the reference
DEVICES = ["numpy", *FAST]


def kernel(module: str, name: str, device: str) -> Any:
    """The launcher ``name_device`` of ``minicnnrnn.kernels.module``.

    One for CUDA takes NumPy arrays here: it works on copies, which come back.
    """
    launcher = getattr(importlib.import_module(f"minicnnrnn.kernels.{module}"), f"{name}_{device}")
    counts = name.endswith(("_workspace", "_pays"))
    return launcher if device != "cuda" or counts else functools.partial(_with_copies, launcher)


def _with_copies(launcher: Any, *arguments: Any) -> None:
    copies = {id(a): (a, gpu.upload(a)) for a in arguments if isinstance(a, np.ndarray)}
    launcher(*(copies[id(a)][1] if id(a) in copies else a for a in arguments))
    for array, copy in copies.values():
        array[...] = np.asarray(copy)


def assume_affordable(device: str, *sizes: int) -> None:
    """Leave out what a simulated GPU would compute for minutes: more than some hundred elements."""
    assume(device != "cuda" or not gpu.SIMULATED or max(sizes) <= 600)


def nans(*shape: int, dtype: Any = np.float32) -> Any:
    """An output that nobody has written yet."""
    return np.full(shape, np.nan, dtype)


def integer_valued(rng: np.random.Generator, *shape: int) -> Any:
    """Small whole numbers as float32: sums of their products are exact in any order."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def normal(rng: np.random.Generator, *shape: int, dtype: Any = np.float32) -> Any:
    return rng.standard_normal(shape).astype(dtype)


def assert_within(actual: Any, expected: Any, terms: int, magnitude: Any = None) -> None:
    """A Higham-type bound: `terms` roundings, each relative to the size of what is summed.

    `magnitude` bounds the sum of absolute values behind each element; left out, it is the
    largest absolute element of `expected`.
    """
    if magnitude is None:
        magnitude = np.max(np.abs(expected), initial=0)
    bound = 2 * (terms + 4) * EPSILON * (np.asarray(magnitude, np.float64) + 1e-6)
    error = np.abs(np.asarray(actual, np.float64) - expected)
    assert actual.shape == expected.shape
    assert np.all(error <= bound), f"largest error {error.max():.3g}, bound {np.min(bound):.3g}"


def check_gradient(function: Any, gradient: Any, x: Any, rng: np.random.Generator) -> None:
    """Hold ``<v, J^T u>`` against a central difference of ``<u, f(x)>`` along v, in float64.

    `function` maps x to y, `gradient` maps (x, dy) to dx; both work in float64.
    """
    x = x.astype(np.float64)
    u, v = rng.standard_normal(function(x).shape), rng.standard_normal(x.shape)
    step = 1e-6
    numeric = np.sum(u * (function(x + step * v) - function(x - step * v))) / (2 * step)
    analytic = np.sum(v * gradient(x, u))
    scale = np.abs(u).sum() ** 0.5 + abs(numeric)
    assert abs(numeric - analytic) <= 1e-6 * scale + 1e-8, (numeric, analytic)


def pays(room, N, D, H, W, C, F, K, S=(1, 1, 1), L=(1, 1, 1), G=1):
    """Whether a way to convolve, padded to outputs as large as the image, pays on each device."""
    outputs = [-(-n // s) for n, s in zip((D, H, W), S)]
    return [
        kernel(room, f"{room}_pays", device)(N, D, H, W, C, *outputs, F, *K, *S, *L, G)
        for device in ("numpy", "cpu", "cuda")
    ]
