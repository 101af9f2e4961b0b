"""Compiling beside the first train step: the same results, and no process left behind."""

import os
import sys

import pytest
from test_jit import needs_jit, run

from minicnnrnn import Sequential, ahead, layers
from minicnnrnn.device import get_device

STEP = """
from minicnnrnn import Sequential, ahead, layers
from minicnnrnn.kernels import jit
forked, compiled, fork = [], [], os.fork
def counted():
    forked.append(fork())
    return forked[-1]
os.fork = counted
model = Sequential([layers.Input((6,)), layers.Dense(4, "relu"), layers.Dense(2)], seed=0)
model.compile("adam", "mse")
rng = np.random.default_rng(0)
x, y = rng.random((8, 6)), rng.random((8, 2))
{between}
jit.compilation_listeners.append(lambda: compiled.append(1))
losses = [model.train_on_batch(x, y) for _ in range(3)]
print(len(forked), len(compiled), losses, [w.tolist() for w in model.get_weights()])
"""
ALONE = "ahead._begun = True"


@needs_jit
@pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked elsewhere")
def test_the_first_step_is_the_same_alone_and_in_company(tmp_path):
    cold = {"MINICNNRNN_CACHE_DIR": str(tmp_path / "company")}
    code = "import os\n" + STEP
    company = run(code.format(between=""), **cold).split(maxsplit=2)
    again = run(code.format(between=""), **cold).split(maxsplit=2)
    alone = run(code.format(between=ALONE), MINICNNRNN_CACHE_DIR=str(tmp_path / "alone")).split(
        maxsplit=2
    )
    processors = len(os.sched_getaffinity(0))
    assert company[0] == str(int(processors > 1))
    assert again[0] == alone[0] == "0"
    assert company[2] == again[2] == alone[2]
    assert again[1] == "0"
    if processors > 1:
        assert int(company[1]) < int(alone[1])


def test_the_other_process_leaves_out_the_way_forward():
    kernels = ahead._WayBack("numpy")
    for name in ("dense_forward", "relu_backward", "softmax_forward", "sgd_update"):
        assert getattr(kernels, name)("its arguments") is None
    assert kernels.dense_workspace(3, 4, 5) == 0
    names = [launch.func.__name__ for launch in kernels.noted]
    assert names == ["relu_backward_numpy", "sgd_update_numpy"]
    kernels.noted = list("abcde")
    assert kernels.in_order() == list("abedc")


def test_nothing_happens_on_other_devices(monkeypatch):
    monkeypatch.setattr(ahead, "_begun", False)
    monkeypatch.setattr(ahead.os, "fork", lambda: pytest.fail("forked"))
    ahead.compile_beside(get_device("numpy"), lambda: None)
    assert not ahead._begun


def test_a_fork_that_fails_is_no_error(monkeypatch):
    def refuse():
        raise OSError("no process left")

    monkeypatch.setattr(ahead, "_begun", False)
    monkeypatch.setattr(ahead, "_worthwhile", lambda: True)
    monkeypatch.setattr(ahead.os, "fork", refuse)
    ahead.compile_beside(get_device("cpu"), lambda: pytest.fail("run here"))
    model = Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.train_on_batch([[1.0, 2.0]], [[1.0]])
