"""Devices: choosing one, moving to another, and having no GPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
from checks import CUDA

from minicnnrnn import Sequential, layers
from minicnnrnn.optimizers import Adam

WITHOUT = """
import sys
if sys.argv[1] == "no package":
    import importlib.util
    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "numba_cuda" else found(name)
import numpy as np
from minicnnrnn import Sequential, layers, set_device
model = Sequential([layers.Dense(1)])
model.fit(np.ones((4, 2)), np.ones(4), verbose=0)
for ask in (lambda: Sequential(device="cuda"), lambda: model.to("cuda"),
            lambda: (set_device("cuda"), Sequential([layers.Dense(1)]).predict(np.ones((1, 2))))):
    try:
        ask()
    except RuntimeError as error:
        assert "minicnnrnn[cuda]" in str(error) and "device 'cuda': Expected" in str(error), error
    else:
        raise AssertionError("no error")
set_device(None)
assert model.predict(np.ones((2, 2)), verbose=0).shape == (2, 1)
assert "numba.cuda" not in sys.modules or sys.argv[1] == "no GPU"
"""


@pytest.mark.parametrize("lacking", ["no package", "no GPU"])
def test_without_a_gpu_there_is_one_error_and_all_else_works(lacking):
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "0", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", WITHOUT, lacking], check=True, env=environment)


def trained(device):
    """A model in the middle of its training: slots, moving statistics, random numbers."""
    stack = [
        layers.Input((6,)),
        layers.Dense(5, activation="relu", kernel_regularizer="l2", kernel_constraint="max_norm"),
        layers.BatchNormalization(),
        layers.Dropout(0.5),
        layers.Dense(3, activation="softmax"),
    ]
    model = Sequential(stack, seed=1, device=device)
    model.compile(Adam(0.01, clipnorm=1.0), "sparse_categorical_crossentropy")
    model.fit(*DATA, batch_size=4, verbose=0)
    return model


RNG = np.random.default_rng(0)
DATA = RNG.standard_normal((10, 6)).astype(np.float32), RNG.integers(0, 3, 10)


@pytest.mark.parametrize("device", ["numpy", CUDA])
def test_a_model_goes_on_elsewhere_as_if_it_had_stayed(device):
    stayed, moved = trained("cpu"), trained("cpu")
    assert moved.to(device) is moved
    assert moved.device.name == device
    for model in (stayed, moved):
        model.fit(*DATA, batch_size=4, epochs=2, verbose=0)
    for one, other in zip(stayed.get_weights(), moved.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    moved.to("cpu")
    assert moved.optimizer.iterations == stayed.optimizer.iterations == 9
    for model in (stayed, moved):
        model.fit(*DATA, batch_size=4, verbose=0)
    np.testing.assert_allclose(stayed.predict(DATA[0]), moved.predict(DATA[0]), atol=1e-5)


def test_an_unbuilt_model_moves():
    model = Sequential([layers.Dense(2)]).to("numpy")
    assert model.predict(np.ones((1, 3))).shape == (1, 2)
    assert model.device.name == "numpy"


def test_what_cannot_move_stays():
    inner = Sequential([layers.Dense(2)])
    outer = Sequential([inner], device="cpu")
    outer.predict(np.ones((1, 3)))
    with pytest.raises(ValueError, match="outermost"):
        inner.to("numpy")
    with pytest.raises(ValueError, match="Expected one of"):
        outer.to("tpu")
    assert outer.device.name == "cpu"
