"""Settings that all tests share."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from minicnnrnn.kernels import gpu, product

# The first example compiles kernels, so no example has a deadline.
settings.register_profile(
    "default", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("simulated", settings.get_profile("default"), max_examples=6)
settings.load_profile("simulated" if gpu.SIMULATED else "default")
if gpu.SIMULATED:
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    def shared_array(self, shape, dtype, alignment=None):
        """The simulator's own gives two threads an array each if they ask at the same moment."""
        if shape == 0:  # what the launch asked for
            return self._dynshared.view(dtype)
        caller = sys._getframe(1)
        place = caller.f_code, caller.f_lineno
        return self._allocations.setdefault(place, np.empty(shape, dtype))

    FakeCUDAShared.array = shared_array
    sys.setswitchinterval(1e-4)  # simulated threads wait for one another: five times as fast


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU, real or simulated, where there is none."""
    try:
        gpu.require()
    except RuntimeError as error:
        skip = pytest.mark.skip(reason=f"{error}; or NUMBA_ENABLE_CUDASIM=1")
        for item in items:
            if item.get_closest_marker("cuda") or item.get_closest_marker("gpu"):
                item.add_marker(skip)
    else:
        if gpu.SIMULATED:
            for item in items:
                if item.get_closest_marker("gpu") and not item.get_closest_marker("cuda"):
                    item.add_marker(pytest.mark.skip(reason="too large for the simulator"))


def pytest_sessionfinish():
    """Note what kernels were launched with, for the script that compiles them all."""
    if gpu.SIMULATED and (path := os.environ.get("MINICNNRNN_SIGNATURES")):
        kernels = [name for name in sys.modules if name.startswith("minicnnrnn.kernels.")]
        found = [(m, *pair) for m in kernels for pair in vars(sys.modules[m]).items()]
        lines = {
            f"{module}.{name} | {signature}"
            for module, name, value in found
            if isinstance(value, gpu.GpuFunction)
            for signature in value.launched
            if value.function.__module__ == module or "<locals>" in value.function.__qualname__
        }
        # Which kernels of a product are launched is a matter of shapes: the table has the same.
        lines |= {
            f"{module}.{name}[{key}] | {signature}"
            for module, name, value in found
            if isinstance(value, product.Product)
            for key in value.listed()
            for kernel in value.kernels.values()
            for signature in kernel.launched
        }
        with Path(path).open("a") as file:
            file.writelines(f"{line}\n" for line in sorted(lines))
