"""The benchmark on a GPU, as far as a machine without one can tell."""

import importlib
import json
import time
import types
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu")


def part(ratio):
    return {"ratio": ratio, "quartiles": [ratio, ratio], "ms": [0.25, 0.25 * ratio]}


def test_tables_and_results_are_written(gpu, monkeypatch, tmp_path):
    cpu, parts = importlib.import_module("cpu"), importlib.import_module("gpu_parts")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmark: gpu -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(cpu, "README", readme)
    monkeypatch.setattr(cpu, "RESULTS", tmp_path / "results")
    about = {"device": "A GPU (80 GB)", "torch": "2", "numba-cuda": "0", "date": "2030-01-01"}
    good = {"row": "cnn128", "batch": 128, "precision": "float32"}
    good |= {column: part(2.0) for column in gpu.COLUMNS}
    bad = {"row": "resnet20", "batch": 256, "precision": "tf32", "error": "no"}
    found = {name: part(3.0) for name in parts.PARTS} | {"cold": {"seconds": 21.5}}
    found |= {"host": {"graph": part(1.5), "eager": part(9.0)}, "fit": {"error": "no"}}
    gpu.keep(about, [good, bad], found)
    text = readme.read_text()
    assert text.startswith("before\n<!-- benchmark: gpu -->\nA GPU (80 GB), PyTorch 2, ")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    cells = " | ".join(["**2.00** (2.00 - 2.00)"] * 4)
    assert f"| 128 | float32 | 0.250 ms | {cells} |\n" in text
    assert f"| 256 | tf32 | failed | {' | '.join(['failed'] * 4)} |\n" in text
    assert "eagerly | 250.0 µs | 2250.0 µs | **9.00** |\n" in text
    assert "| 21.5 s |" in text
    assert "by `fit` | failed |" in text
    (file,) = (tmp_path / "results").iterdir()
    assert file.name == "gpu-2030-01-01-a-gpu-80-gb.json"
    assert json.loads(file.read_text())["rows"] == [good, bad]


@pytest.mark.parametrize("why", ["PyTorch is not installed", ""])
def test_what_is_missing_is_said_once(gpu, monkeypatch, capsys, why):
    measured = []
    monkeypatch.setattr(gpu, "missing", lambda device: why)
    monkeypatch.setattr(gpu, "measure", lambda *given: measured.append(given) or [])
    status = gpu.main(["--device", "cpu", "rnn128"])
    expected = f"Nothing can be measured here: {why}.\n" if why else ""
    assert (status, capsys.readouterr().err) == (2 if why else 0, expected)
    assert measured == ([] if why else [(["rnn128"], "cpu")])


def test_unknown_rows_are_refused(gpu, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["lenet"])
    assert "Received: ['lenet']" in capsys.readouterr().err


@pytest.mark.parametrize("row", ["rnn128", "gru128"])
def test_both_sides_compute_the_same(gpu, row):
    pytest.importorskip("torch")
    found = gpu.against(row, 3, "float32", "cpu")
    assert set(found) == {"gradients differ by"}
    assert max(found["gradients differ by"].values()) < 1e-4


def test_different_models_are_told_apart(gpu, monkeypatch):
    pytest.importorskip("torch")

    peer = importlib.import_module("gpu_peer")
    steps = peer.steps
    monkeypatch.setattr(peer, "steps", lambda model, x, *rest: steps(model, 1.01 * x, *rest))
    with pytest.raises(SystemExit, match="apart by"):
        gpu.against("rnn128", 3, "float32", "cpu")


def test_turns_compare_with_the_faster_way(gpu, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(gpu.turns, "ROUNDS", 2)
    mine = types.SimpleNamespace(step=lambda: time.sleep(1e-3))
    slow, fast = ((lambda s=s: time.sleep(s), None) for s in (4e-3, 2e-3))
    ways = {"eager, a": slow, "eager, b": fast, "graph, a": fast}
    found = gpu.timed(mine, ways, "cpu", "same")
    assert found["eager, same"]["opponent"] == "eager, b"
    assert 1 < found["eager, same"]["ratio"] < 3
    assert found["graph, same"]["opponent"] == "graph, a"
