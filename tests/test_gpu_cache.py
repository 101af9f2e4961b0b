"""Compiled CUDA kernels are found again, and never where anything is different."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba_cuda")
from minicnnrnn.kernels.gpu_cache import describe

SETTINGS = {"NUMBA_ENABLE_CUDASIM": "0", "CUDA_VISIBLE_DEVICES": ""}
# Compiles kernels for a GPU that is not there, all the way to machine code.
COMPILE = """
import sys
from types import SimpleNamespace
import numpy as np
import numba.cuda.dispatcher
from numba import cuda
from numba.cuda import types
from numba.cuda.cudadrv import devices

loaded = []
function = SimpleNamespace(module=SimpleNamespace(initialized=True))
def create_module_image(cubin, *rest):
    loaded.append(cubin.code)
    return SimpleNamespace(get_function=lambda name: function)
capability = tuple(map(int, sys.argv[1].split(".")))
device = SimpleNamespace(compute_capability=capability, id=0)
context = SimpleNamespace(device=device, create_module_image=create_module_image)
devices.get_context = lambda devnum=None: context
numba.cuda.dispatcher.get_current_device = lambda: device

from minicnnrnn.kernels import gpu
from minicnnrnn.kernels.gpu import cuda as threads

def product(factor):
    @gpu.gpu
    def scaled(y, x):
        i = threads.grid(1)
        if i < y.size:
            y[i] = factor * x[i] + ONE
    return scaled
ONE = np.float32(1)
if sys.argv[2] == "edited":
    def product(factor):
        @gpu.gpu
        def scaled(y, x):
            i = threads.grid(1)
            if i < y.size:
                y[i] = factor * x[i] - ONE
        return scaled

vector = types.Array(types.float32, 1, "C")
compiled = []
from minicnnrnn.kernels.compiler import compilation_listeners
compilation_listeners.append(lambda: compiled.append(1))
import hashlib
for kernel, signature in (
    (product(np.float32(2)), (vector, vector)),
    (product(np.float32(3)), (vector, vector)),
    (gpu._copy, (vector, vector)),
    (gpu._copy, (types.Array(types.int64, 1, "C"),) * 2),
):
    made = kernel.dispatcher.compile(signature)
    made.bind()
    assert made.argument_types == signature
    assert kernel.dispatcher.overloads[signature] is made
    print(hashlib.sha256(loaded[-1]).hexdigest())
print(len(compiled))
"""


def run(directory, capability="9.0", change="none"):
    """What is loaded, kernel by kernel, and how many were compiled for it."""
    environment = {**os.environ, **SETTINGS, "MINICNNRNN_CACHE_DIR": str(directory)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, capability, change],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *loaded, compiled = done.stdout.split()
    return loaded, int(compiled)


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    first, compiled = run(tmp_path)
    assert compiled == 4
    assert len(set(first)) == 4  # closures do not collide
    assert run(tmp_path) == (first, 0)
    assert run(tmp_path, "8.0")[1] == 4
    for file in list(tmp_path.glob("*/_copy*.cubin")):
        file.write_bytes(file.read_bytes()[:-1])
    other, compiled = run(tmp_path, change="edited")
    assert compiled == 4  # two are new, and two files are damaged
    assert other[2:] == first[2:]
    assert not set(other[:2]) & set(first[:2])


def test_no_directory_costs_time_alone(tmp_path):
    nowhere = tmp_path / "file"
    nowhere.write_text("no directory")
    assert run(nowhere)[1] == 4


SOURCES = {
    "plain": ("K = 1", "y[0] = called(x) + K"),
    "constant": ("K = 2", "y[0] = called(x) + K"),
    "code": ("K = 1", "y[0] = called(x) - K"),
    "names": ("K, M = 1, 1", "y[0] = called(x) + M"),
    "type": ("K = 1.0", "y[0] = called(x) + K"),
    "callee": ("K = 1\nFACTOR = 3", "y[0] = called(x) + K"),
    "closure": ("K = 1\nINSIDE = 5", "y[0] = called(x) + K"),
}


def described(head, body):
    scope = {"FACTOR": 2, "INSIDE": 4}
    exec(head, scope)
    text = (
        "def outer(n):\n    def called(x):\n        return x * FACTOR * n\n    return called\n"
        f"called = outer(INSIDE)\ndef kernel(y, x):\n    {body}\n"
    )
    exec(text, scope)
    return describe(scope["kernel"])


def test_whatever_a_kernel_follows_from_is_in_its_name():
    names = {name: described(*source) for name, source in SOURCES.items()}
    assert len(set(names.values())) == len(names)
    assert names == {name: described(*source) for name, source in SOURCES.items()}
