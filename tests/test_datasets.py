"""Data sets: the files are the canonical ones, wherever the package was installed."""

import gzip
import hashlib
import importlib.util
import types
from pathlib import Path

import numpy as np
import pytest

from minicnnrnn import datasets
from minicnnrnn.datasets import digits, fashion_mnist, idx, mnist

ROOT = Path(__file__).parents[1]


def test_names_as_in_keras():
    assert (datasets.mnist, datasets.digits) == (mnist, digits)
    assert datasets.fashion_mnist is fashion_mnist


def test_mnist():
    (x_train, y_train), (x_test, y_test) = mnist.load_data()
    assert x_train.shape == x_test.shape == (10_000, 28, 28)
    assert y_train.shape == y_test.shape == (10_000,)
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    # The counts of the canonical set, in its first 10,000 training samples and its test set.
    assert np.bincount(y_train).tolist() == [1001, 1127, 991, 1032, 980, 863, 1014, 1070, 944, 978]
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert x_train[0].sum() == 27525  # a five
    assert (x_train.min(), x_train.max()) == (0, 255)
    x_train[0] = 0  # an array of the user's own


def test_fashion_mnist():
    (x_train, y_train), (x_test, y_test) = fashion_mnist.load_data()
    assert x_train.shape == x_test.shape == (10_000, 28, 28)
    assert {a.dtype for a in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    assert np.bincount(y_train).tolist() == [
        942, 1027, 1016, 1019, 974, 989, 1021, 1022, 990, 1000,
    ]  # fmt: skip
    assert np.bincount(y_test).tolist() == [1000] * 10
    assert x_train[0].sum() == 76247
    assert (x_train.min(), x_train.max()) == (0, 255)
    assert len(set(fashion_mnist.class_names)) == 10
    # Sandals leave most of the picture empty, what has sleeves fills most of it.
    ink = [x_test[y_test == label].mean() for label in range(10)]
    names = fashion_mnist.class_names
    assert names[int(np.argmin(ink))] == "Sandal"
    assert names[int(np.argmax(ink))] in ("Pullover", "Coat")
    readme = (ROOT / "datasets" / "fashion_mnist" / "README.md").read_text()
    for label, (name, count) in enumerate(zip(names, np.bincount(y_train), strict=True)):
        assert f"| {label} | {name} | {count} | 1000 |" in readme


LICENCES = {
    "mnist": "Creative Commons Attribution-Share Alike 3.0",
    "fashion_mnist": "The MIT License (MIT)\n\nCopyright © 2017 Zalando SE",
}


@pytest.mark.parametrize("name", LICENCES)
def test_files_have_the_sums_of_their_description(name):
    readme = (ROOT / "datasets" / name / "README.md").read_text()
    for path in sorted((ROOT / "datasets" / name).glob("*.gz")):
        assert hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest() in readme
    assert LICENCES[name] in readme


@pytest.mark.parametrize("name", LICENCES)
def test_the_test_set_is_the_whole_canonical_one(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "datasets")
    prepare = load_script(name)
    for part in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        content = gzip.decompress((ROOT / "datasets" / name / f"{part}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == prepare.SHA256[part]


def load_script(name):
    path = ROOT / "datasets" / f"prepare_{name}.py"
    spec = importlib.util.spec_from_file_location(f"prepare_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("compressed", [False, True])
def test_preparing_cuts_and_repeats_itself(compressed, tmp_path, monkeypatch, capsys):
    prepare = load_script("mnist").prepare
    values = bytes(range(24))
    content = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (4, 2, 3)) + values
    source, sums = tmp_path / "source", {"images": hashlib.sha256(content).hexdigest()}
    source.mkdir()
    if compressed:
        (source / "images.gz").write_bytes(gzip.compress(content))
    else:
        (source / "images").write_bytes(content)
    made = []
    for _ in range(2):
        prepare(source, tmp_path / "mnist", sums, 3)
        made.append((tmp_path / "mnist" / "images.gz").read_bytes())
    assert made[0] == made[1]
    assert "images" in capsys.readouterr().out
    monkeypatch.setattr(idx, "PACKAGED", tmp_path)
    assert idx.read("mnist/images.gz").tolist() == np.arange(18).reshape(3, 2, 3).tolist()
    with pytest.raises(SystemExit, match="Expected SHA-256 0. Received"):
        prepare(source, tmp_path / "mnist", {"images": "0"}, 3)


@pytest.mark.parametrize(
    "content",
    [b"\0\0\x08\x01\0\0\0\x03ab", b"\0\0\x0d\x01\0\0\0\x02ab", b"\x01\0\x08\x01\0\0\0\x02ab"],
)
def test_a_file_that_is_not_idx(content, tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "PACKAGED", tmp_path)
    (tmp_path / "some.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match="some.gz: Expected an IDX file of unsigned bytes"):
        idx.read("some.gz")


def test_the_full_set_comes_from_openml(monkeypatch):
    module = pytest.importorskip("sklearn.datasets")
    rows = np.zeros((70_000, 784), np.float64)
    rows[:, 5] = np.arange(70_000) % 256
    texts = (np.arange(70_000) % 10).astype(str).astype(object)
    asked = types.SimpleNamespace()

    def fetch(name, **arguments):
        asked.name, asked.arguments = name, arguments
        return rows, texts

    monkeypatch.setattr(module, "fetch_openml", fetch)
    (x_train, y_train), (x_test, y_test) = mnist.load_data(full=True)
    assert asked.name == "mnist_784"
    assert asked.arguments == {"version": 1, "as_frame": False, "return_X_y": True}
    assert x_train.shape == (60_000, 28, 28)
    assert x_test.shape == (10_000, 28, 28)
    assert x_train.dtype == y_test.dtype == np.uint8
    assert x_test[1, 0, 5] == 60_001 % 256
    assert y_train[:11].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_digits():
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    assert x_train.shape == (1437, 8, 8)
    assert x_test.shape == (360, 8, 8)
    assert y_train.shape == (1437,)
    assert x_train.dtype == y_train.dtype == x_test.dtype == y_test.dtype == np.uint8
    assert x_train.max() == 16
    assert np.bincount(y_test).min() > 30
