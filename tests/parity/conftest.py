"""Comparisons with Keras 3 on JAX, where both are installed (extra ``parity``)."""

import os
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

INSTALLED = all(find_spec(name) for name in ("keras", "jax"))

if INSTALLED:
    # Keras reads its backend, JAX its platform, when they are first imported: which is here.
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_ENABLE_X64"] = "0"
    # Nearly all of the time goes into compiling models that are run a few times.
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say of themselves while they load
        import keras

    assert keras.backend.backend() == "jax", "keras was imported before KERAS_BACKEND was set"
    keras.config.set_floatx("float32")
else:
    collect_ignore_glob = ["*.py"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Deprecations inside Keras and JAX are no failures here; our own warnings stay errors."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for module in ("keras", "jax"):
                item.add_marker(pytest.mark.filterwarnings(rf"ignore:::{module}\."))


@pytest.fixture(autouse=True)
def _the_same_weights_in_every_run():
    """Initial weights are Keras' own, drawn when a layer is made."""
    if INSTALLED:
        keras.utils.set_random_seed(0)
