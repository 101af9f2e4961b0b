"""Activations: reference, CPU and mathematics agree."""

import importlib

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, check_gradient, kernel, nans, normal
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels import activation
from minicnnrnn.kernels.codes import FROM_OUTPUT
from minicnnrnn.kernels.jit import JIT

NAMES = [
    "LINEAR", "RELU", "LEAKY_RELU", "ELU", "SELU", "GELU", "GELU_TANH", "SILU", "SOFTPLUS", "TANH",
    "SIGMOID", "HARD_SIGMOID", "RELU6", "HARD_TANH", "SPARSE_SIGMOID", "HARD_SILU", "SOFT_SHRINK",
    "HARD_SHRINK", "EXPONENTIAL", "SOFTSIGN", "LOG_SIGMOID", "MISH", "TANH_SHRINK", "SQUAREPLUS",
    "SPARSE_PLUS",
]  # fmt: skip
CODES = {name: getattr(activation, name) for name in NAMES}
alphas = st.sampled_from([0.1, 0.2, 0.3, 1.0])


def forward(device, x, code, alpha=0.3):
    y = nans(x.size, dtype=x.dtype)
    kernel("activation", "activation_forward", device)(y, x, code, alpha)
    return y


def backward(device, dy, x, y, code, alpha=0.3):
    """Gives each derivative only the array that its code promises to need."""
    dx, none = nans(x.size, dtype=x.dtype), np.empty(0, x.dtype)
    x, y = (none, y) if code in FROM_OUTPUT else (x, none)
    kernel("activation", "activation_backward", device)(dx, dy, x, y, code, alpha)
    return dx


def assert_close(actual, expected, x):
    """Within 1e-6 of the size of what comes in or out."""
    assert actual.shape == expected.shape
    assert np.all(np.abs(actual - expected) <= 1e-6 * (1 + np.abs(x) + np.abs(expected)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("name", "expected", "slope"),
    [
        ("LINEAR", [-2, 0, 2], [1, 1, 1]),
        ("RELU", [0, 0, 2], [0, 0, 1]),
        ("LEAKY_RELU", [-0.6, 0, 2], [0.3, 1, 1]),
        ("ELU", [-0.259399, 0, 2], [0.0406006, 0.3, 1]),
        ("SELU", [-1.520167, 0, 2.101402], [0.237933, 1.758099, 1.050701]),
        ("GELU", [-0.0455003, 0, 1.9545], [-0.0852318, 0.5, 1.085232]),
        ("GELU_TANH", [-0.0454023, 0, 1.954598], [-0.0860993, 0.5, 1.086099]),
        ("SILU", [-0.238406, 0, 1.761594], [-0.0907842, 0.5, 1.090784]),
        ("SOFTPLUS", [0.126928, 0.693147, 2.126928], [0.119203, 0.5, 0.880797]),
        ("TANH", [-0.9640276, 0, 0.9640276], [0.0706508, 1, 0.0706508]),
        ("SIGMOID", [0.119203, 0.5, 0.880797], [0.1049936, 0.25, 0.1049936]),
        ("HARD_SIGMOID", [1 / 6, 0.5, 5 / 6], [1 / 6, 1 / 6, 1 / 6]),
        ("RELU6", [0, 0, 2], [0, 0, 1]),
        ("HARD_TANH", [-1, 0, 1], [0, 1, 0]),
        ("SPARSE_SIGMOID", [0, 0.5, 1], [0, 0.5, 0]),
        ("HARD_SILU", [-1 / 3, 0, 5 / 3], [-1 / 6, 0.5, 7 / 6]),
        ("SOFT_SHRINK", [-1.5, 0, 1.5], [1, 0, 1]),
        ("HARD_SHRINK", [-2, 0, 2], [1, 0, 1]),
        ("EXPONENTIAL", [0.135335, 1, 7.389056], [0.135335, 1, 7.389056]),
        ("SOFTSIGN", [-2 / 3, 0, 2 / 3], [1 / 9, 1, 1 / 9]),
        ("LOG_SIGMOID", [-2.126928, -0.693147, -0.126928], [0.880797, 0.5, 0.119203]),
        ("MISH", [-0.252501, 0, 1.943959], [-0.108355, 0.6, 1.069318]),
        ("TANH_SHRINK", [-1.035972, 0, 1.035972], [0.929349, 0, 0.929349]),
        ("SQUAREPLUS", [0.414214, 1, 2.414214], [0.146447, 0.5, 0.853553]),
        ("SPARSE_PLUS", [0, 0.25, 2], [0, 0.5, 1]),
    ],
)
def test_worked_examples(device, name, expected, slope):
    x = np.array([-2, 0, 2], np.float32)
    y = forward(device, x, CODES[name])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-7)
    dx = backward(device, np.array([1, 1, 10], np.float32), x, y, CODES[name])
    np.testing.assert_allclose(dx / [1, 1, 10], slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("device", FAST)
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5)
@given(upto(300), seeds, alphas)
@example(1, 0, 0.0)
def test_near_the_float64_reference(device, name, size, seed, alpha):
    rng, code = np.random.default_rng(seed), CODES[name]
    x, dy = 4 * normal(rng, size), normal(rng, size)
    wide = x.astype(np.float64)
    y, expected = forward(device, x, code, alpha), forward("numpy", wide, code, alpha)
    assert_close(y, expected, x)
    gradient = backward("numpy", dy.astype(np.float64), wide, expected, code, alpha)
    assert_close(backward(device, dy, x, y, code, alpha), gradient, 3 * dy * (1 + np.abs(x)))


@pytest.mark.parametrize("device", FAST)
@pytest.mark.parametrize(
    "name", ["TANH", "SIGMOID", "SOFTPLUS", "ELU", "SELU", "EXPONENTIAL", "SOFTSIGN"]
)
def test_small_results_keep_their_digits(device, name):
    x = np.concatenate([-np.geomspace(1e-20, 80, 300), [0.0]]).astype(np.float32)
    expected = forward("numpy", x.astype(np.float64), CODES[name])
    if name == "SIGMOID":
        expected = 1 / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(forward(device, x, CODES[name]), expected, rtol=5e-7)


@given(st.sampled_from(NAMES), st.integers(1, 50), seeds)
def test_gradients_of_the_reference(name, size, seed):
    rng, code = np.random.default_rng(seed), CODES[name]
    x = 3 * normal(rng, size, dtype=np.float64)
    # Away from the kinks: at 0, and at whole and half numbers up to 6.
    nearest = np.round(2 * x) / 2
    x = np.where(np.abs(x - nearest) < 1e-3, nearest + 2e-3, x)

    def gradient(x, dy):
        return backward("numpy", dy, x, forward("numpy", x, code), code)

    check_gradient(lambda x: forward("numpy", x, code), gradient, x, rng)


@pytest.mark.parametrize("device", DEVICES)
def test_memory_may_be_shared(device):
    rng = np.random.default_rng(0)
    x, dy = normal(rng, 100), normal(rng, 100)
    for code in CODES.values():
        y = forward(device, x, code)
        dx = backward(device, dy, x, y, code)
        same, gradient = x.copy(), dy.copy()
        kernel("activation", "activation_forward", device)(same, same, code, 0.3)
        kernel("activation", "activation_backward", device)(gradient, gradient, x, y, code, 0.3)
        np.testing.assert_array_equal(same, y)
        np.testing.assert_array_equal(gradient, dx)


@pytest.mark.parametrize("device", FAST)
@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_and_infinity_has_its_limit(device, name):
    code = CODES[name]
    with np.errstate(all="ignore"):
        x = np.full(40, np.nan, np.float32)
        assert np.isnan(forward(device, x, code)).all()
        x[:] = np.inf
        ones = ("TANH", "HARD_TANH", "SIGMOID", "HARD_SIGMOID", "SPARSE_SIGMOID")
        limit = 1 if name in ones else {"RELU6": 6, "LOG_SIGMOID": 0}.get(name, np.inf)
        if name != "SOFTSIGN":  # infinity over infinity
            assert forward(device, x, code)[0] == limit
        limits = {
            "LINEAR": -np.inf, "RELU": 0, "LEAKY_RELU": -np.inf, "ELU": -0.3, "SELU": -1.7580993,
            "SOFTPLUS": 0, "TANH": -1, "SIGMOID": 0, "HARD_SIGMOID": 0, "RELU6": 0, "HARD_TANH": -1,
            "SPARSE_SIGMOID": 0, "SOFT_SHRINK": -np.inf, "HARD_SHRINK": -np.inf, "EXPONENTIAL": 0,
            "LOG_SIGMOID": -np.inf, "TANH_SHRINK": -np.inf, "SQUAREPLUS": 0, "SPARSE_PLUS": 0,
        }  # fmt: skip
        if name in limits:  # the others are minus infinity times zero
            np.testing.assert_allclose(forward(device, -x, code), limits[name], rtol=1e-6)


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
@pytest.mark.parametrize("name", ["TANH", "GELU"])
def test_the_same_bits_on_any_number_of_threads(name):
    rng, code = np.random.default_rng(0), CODES[name]
    x, dy = normal(rng, 70_001), normal(rng, 70_001)
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        y = forward("cpu", x, code)
        results.append((y, backward("cpu", dy, x, y, code)))
    np.testing.assert_array_equal(results[0], results[1])


def test_agreement_with_pytorch():
    torch = pytest.importorskip("torch")
    functional = importlib.import_module("torch.nn.functional")
    theirs = {
        "RELU": functional.relu,
        "LEAKY_RELU": lambda x: functional.leaky_relu(x, 0.3),
        "ELU": lambda x: functional.elu(x, 0.3),
        "SELU": functional.selu,
        "GELU": functional.gelu,
        "GELU_TANH": lambda x: functional.gelu(x, approximate="tanh"),
        "SILU": functional.silu,
        "SOFTPLUS": functional.softplus,
        "TANH": torch.tanh,
        "SIGMOID": torch.sigmoid,
        "HARD_SIGMOID": functional.hardsigmoid,
        "RELU6": functional.relu6,
        "HARD_TANH": functional.hardtanh,
        "HARD_SILU": functional.hardswish,
        "SOFT_SHRINK": functional.softshrink,
        "HARD_SHRINK": functional.hardshrink,
        "EXPONENTIAL": torch.exp,
        "SOFTSIGN": functional.softsign,
        "LOG_SIGMOID": functional.logsigmoid,
        "MISH": functional.mish,
        "TANH_SHRINK": functional.tanhshrink,
    }
    rng = np.random.default_rng(0)
    x, dy = 3 * normal(rng, 500), normal(rng, 500)
    for name, function in theirs.items():
        tensor = torch.tensor(x, requires_grad=True)
        expected = function(tensor)
        expected.backward(torch.tensor(dy))
        y = forward("cpu", x, CODES[name])
        assert_close(y, expected.detach().numpy(), x)
        assert_close(backward("cpu", dy, x, y, CODES[name]), tensor.grad.numpy(), 3 * x)
