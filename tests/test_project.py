"""The project: documented, in readable pieces, light to import, complete when installed."""

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import minicnnrnn
from minicnnrnn.device import DEVICES
from minicnnrnn.rooms import ROOMS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minicnnrnn"
LINES, KERNEL_LINES = 500, 800  # all three versions of an operation stay in one file


def modules():
    names = (info.name for info in pkgutil.walk_packages(minicnnrnn.__path__, "minicnnrnn."))
    return ["minicnnrnn", *(name for name in names if not name.endswith("__main__"))]


def public_objects(module):
    """Classes and functions that a module defines, and the methods that its classes define."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            yield name, value
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{name}.{method}", getattr(value, method)
        elif inspect.isfunction(value):
            yield name, value


@pytest.mark.parametrize("name", modules())
def test_everything_public_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__, name
    # A kernel is documented once, on its NumPy reference.
    missing = [
        name
        for name, value in public_objects(module)
        if not inspect.getdoc(value) and not name.endswith(("_cpu", "_cuda"))
    ]
    assert not missing


@pytest.mark.parametrize("folder", ["minicnnrnn", "tests", "datasets", "examples", "benchmarks"])
def test_files_are_short_enough_to_read(folder):
    long = {}
    for path in (ROOT / folder).rglob("*.py"):
        lines = len(path.read_text().splitlines())
        if lines > (KERNEL_LINES if path.parent.name == "kernels" else LINES):
            long[str(path.relative_to(ROOT))] = lines
    assert long == {}


IMPORT = """
import sys
import minicnnrnn
heavy = {"numba", "sklearn", "matplotlib", "pandas", "torch"} & set(sys.modules)
assert not heavy, heavy
from minicnnrnn.kernels import jit
if jit.CACHE_DIRECTORY is not None:
    assert list(jit.CACHE_DIRECTORY.iterdir()) == []
"""


def test_importing_is_light_and_compiles_nothing(tmp_path):
    # With an empty cache, whatever is compiled leaves a file there.
    environment = {**os.environ, "MINICNNRNN_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", IMPORT], check=True, env=environment, cwd=tmp_path)


def launchers_of(room):
    """The public launchers in a room by name and device."""
    module = importlib.import_module(f"minicnnrnn.kernels.{room}")
    found = {device: {} for device in DEVICES}
    for name, value in vars(module).items():
        operation, _, device = name.rpartition("_")
        if device not in DEVICES or not operation or name.startswith("_"):
            continue
        if value.__module__ == module.__name__ or value.__name__ != name:  # made or named here
            found[device][operation] = list(inspect.signature(value).parameters)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_every_device_has_the_same_kernels_with_the_same_parameters(room):
    found = launchers_of(room)
    for device in DEVICES:
        assert found[device] == found["numpy"]
        assert set(found[device]) == set(ROOMS[room])


def test_every_room_with_launchers_is_listed():
    files = {path.stem for path in (ROOT / "minicnnrnn/kernels").glob("*.py")} - {"__init__"}
    assert {file for file in files if any(launchers_of(file).values())} == set(ROOMS)


def test_license_and_metadata():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "MIT License" in (ROOT / "LICENSE").read_text()
    assert settings["project"]["license"] == "MIT"
    assert (ROOT / settings["project"]["readme"]).is_file()
    assert (PACKAGE / "py.typed").is_file()


def test_the_list_of_packages_is_complete():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")
    }
    files = {
        "minicnnrnn.datasets.files" + "".join(f".{part}" for part in path.parts)
        for path in (p.parent.relative_to(ROOT / "datasets") for p in ROOT.glob("datasets/**/*.md"))
    }
    assert set(settings["packages"]) == packages | files


def test_everything_is_installed(tmp_path):
    # What pip builds, without its isolation.
    pytest.importorskip("setuptools")
    command = ["-q", "egg_info", "-e", str(tmp_path), "build_py", "-d", str(tmp_path)]
    script = f"import setuptools; setuptools.setup(script_args={command})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, cwd=ROOT)
    installed = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    expected = {path.relative_to(ROOT) for path in PACKAGE.rglob("*.py")}
    files = Path("minicnnrnn", "datasets", "files")
    for path in (ROOT / "datasets").rglob("*"):
        if path.suffix in (".gz", ".md"):
            expected.add(files / path.relative_to(ROOT / "datasets"))
    assert expected <= installed
