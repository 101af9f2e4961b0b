"""Compiling, caching and threading: nothing stale, nothing fragile."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minicnnrnn
from minicnnrnn.kernels import jit
from minicnnrnn.kernels.dense import (
    dense_forward_cpu,
    dense_prepare_cpu,
    dense_workspace_cpu,
)

ROOT = Path(minicnnrnn.__file__).parent.parent

RUN = """
import numpy as np
from minicnnrnn.kernels.dense import dense_forward_cpu, dense_prepare_cpu, dense_workspace_cpu
def step(N=400, C=70, F=90):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((N, C), (C, F)))
    ws, y = np.zeros(dense_workspace_cpu(N, C, F), np.float32), np.zeros((N, F), np.float32)
    dense_prepare_cpu(w, ws)
    dense_forward_cpu(y, x, w, np.zeros(0, np.float32), 0, ws)
    assert np.allclose(y, x @ w, atol=1e-4)
    return y.tobytes()
"""


def run(code, root=ROOT, **environment):
    """Run a script in a fresh process; its output."""
    variables = {**os.environ, "PYTHONPATH": str(root), **environment}
    done = subprocess.run(
        [sys.executable, "-c", RUN + code],
        env=variables,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


needs_jit = pytest.mark.skipif(not jit.JIT, reason="there is nothing compiled")


@needs_jit
def test_an_edited_callee_takes_effect_at_the_next_run(tmp_path):
    shutil.copytree(ROOT / "minicnnrnn", tmp_path / "minicnnrnn")
    cache = {"MINICNNRNN_CACHE_DIR": str(tmp_path / "cache")}
    code = """if True:
        from minicnnrnn.kernels.dense import dense_backward_weight_cpu
        x, ws = np.ones((4, 3), np.float32), np.zeros(dense_workspace_cpu(4, 3, 3), np.float32)
        dw, db = np.zeros((3, 3), np.float32), np.zeros(3, np.float32)
        dense_backward_weight_cpu(dw, db, x, x, ws)
        print(int(db.sum()))
    """
    assert int(run(code, tmp_path, **cache)) == 12
    gemm = tmp_path / "minicnnrnn/kernels/gemm.py"  # a callee of a callee, through two pointers
    source = gemm.read_text()
    old = "total[j] += source[i * columns + j]"
    assert old in source
    gemm.write_text(source.replace(old, old + " * 2"))
    assert int(run(code, tmp_path, **cache)) == 24
    assert len(list((tmp_path / "cache").iterdir())) == 2


@needs_jit
def test_kernels_compiled_for_fewer_threads_are_not_taken_for_more(tmp_path):
    """The workspace has room for each thread, and was compiled with their number."""
    cache = {"MINICNNRNN_CACHE_DIR": str(tmp_path)}
    code = """if True:
        from minicnnrnn.kernels.gemm import product_transposed_workspace
        print(product_transposed_workspace())
    """
    one, two = (int(run(code, NUMBA_NUM_THREADS=count, **cache)) for count in ("1", "2"))
    assert two == 2 * one


COUNT = """
from minicnnrnn.kernels import jit
compiled = []
jit.compilation_listeners.append(lambda: compiled.append(1))
step()
print(len(compiled))
"""


@needs_jit
def test_a_second_start_compiles_nothing_and_a_damaged_cache_costs_time_only(tmp_path):
    cache = {"MINICNNRNN_CACHE_DIR": str(tmp_path)}
    first = int(run(COUNT, **cache))
    assert first > 0
    assert int(run(COUNT, **cache)) == 0
    for file in tmp_path.rglob("*.nbc"):
        file.write_bytes(file.read_bytes()[:100])
    assert int(run(COUNT, **cache)) == first


@needs_jit
def test_a_cache_that_cannot_be_used_costs_time_only(tmp_path):
    missing = tmp_path / "a file, no directory"
    missing.write_text("")
    assert int(run(COUNT, MINICNNRNN_CACHE_DIR=str(missing))) > 0


@needs_jit
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_computes_the_same_bits():
    code = """
import os, sys, warnings
warnings.simplefilter("ignore")
mine = step()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, b"same" if step() == mine else b"other")
    os._exit(0)
os.wait()
print(os.read(read, 5).decode())
"""
    assert run(code).strip() == "same"


@needs_jit
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_two_python_threads_may_compute_at_once(layer):
    code = """
import threading
expected, wrong = step(), []
def work():
    for _ in range(50):
        if step() != expected:
            wrong.append(1)
threads = [threading.Thread(target=work) for _ in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(wrong))
"""
    assert int(run(code, NUMBA_THREADING_LAYER=layer)) == 0


def test_an_unknown_instruction_set_is_refused():
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "MINICNNRNN_SIMD": "sse9"}
    done = subprocess.run(
        [sys.executable, "-c", "import minicnnrnn.kernels.jit"],
        env=variables,
        capture_output=True,
        text=True,
    )
    assert "Expected one of ['avx2', 'avx512', 'generic']. Received 'sse9'" in done.stderr


@needs_jit
@pytest.mark.skipif(not jit.FLUSHES, reason="kernels compute with such numbers here")
@pytest.mark.parametrize("rows", [1, 2000])  # on one thread, and on all
def test_vanished_numbers_are_zero_in_kernels_and_nowhere_else(rows):
    tiny, w = np.full((rows, 64), 1e-30, np.float32), np.eye(64, dtype=np.float32)
    w *= np.float32(1e-15)
    y, ws = np.full_like(tiny, np.nan), np.zeros(dense_workspace_cpu(rows, 64, 64), np.float32)
    dense_prepare_cpu(w, ws)
    dense_forward_cpu(y, tiny, w, np.zeros(0, np.float32), 0, ws)
    np.testing.assert_array_equal(y, 0)
    assert np.all(tiny * w[0, 0] > 0)


FIRST_CALLS = """
import numpy as np
from numba import njit, prange
from minicnnrnn import Sequential, layers
from minicnnrnn.kernels import jit
tiny, seen = np.full(100_000, 1e-30, np.float32), []
@njit(parallel=True)
def product(out, x, factor):
    for i in prange(x.size):
        out[i] = x[i] * factor
jit.compilation_listeners.append(lambda: seen.append(np.float32(1e-30) * np.float32(1e-10) > 0))
x = np.ones((2, 6, 4), np.float32)
Sequential([layers.Activation("gelu"), layers.Dense(3)], seed=1).predict(x)
out = np.empty_like(tiny)
product(out, tiny, np.float32(1e-10))
print(len(seen) > 2 and all(seen) and bool(np.all(out > 0)))
"""


@needs_jit
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_what_is_compiled_and_started_inside_a_kernel_computes_as_usual(layer, tmp_path):
    environment = {"NUMBA_THREADING_LAYER": layer, "MINICNNRNN_CACHE_DIR": str(tmp_path)}
    assert run(FIRST_CALLS, **environment).strip() == "True"


@pytest.mark.parametrize("simd", sorted(jit.SIMD_WIDTHS))
def test_every_instruction_set_gives_the_right_product(simd):
    assert run("step(); print(1)", MINICNNRNN_SIMD=simd).strip() == "1"


@needs_jit
def test_after_a_warm_up_a_usual_model_compiles_nothing(tmp_path):
    variables = {
        **os.environ, "PYTHONPATH": str(ROOT), "MINICNNRNN_CACHE_DIR": str(tmp_path),
    }  # fmt: skip
    command = [sys.executable, "-m", "minicnnrnn", "warmup", "LSTM"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert str(tmp_path) in done.stdout
    code = """
from minicnnrnn import Sequential, layers
from minicnnrnn.kernels import jit
compiled = []
jit.compilation_listeners.append(lambda: compiled.append(1))
model = Sequential([layers.Input((5, 3)), layers.LSTM(7), layers.Dense(2, activation="softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(np.zeros((9, 5, 3)), np.zeros(9), verbose=0)
model.predict(np.zeros((1, 5, 3)), verbose=0)
print(len(compiled))
"""
    assert int(run(code, MINICNNRNN_CACHE_DIR=str(tmp_path))) == 0
