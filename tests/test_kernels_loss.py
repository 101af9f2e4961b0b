"""Losses: reference, CPU, mathematics and other people's losses agree."""

import math

import numba
import numpy as np
import pytest
from checks import check_gradient, kernel, nans, normal
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds

from minicnnrnn.kernels.jit import JIT
from minicnnrnn.kernels.loss import FUSED, IGNORE_NONE, LOGITS, PROBABILITIES

DEVICES = ["numpy", "cpu"]
MODES = [PROBABILITIES, LOGITS, FUSED]
REGRESSIONS = [("mean_squared_error", ()), ("mean_absolute_error", ()), ("huber", (0.7,))]
ENTROPIES = [
    (name, (mode, *rest))
    for name, rest in (
        ("binary_crossentropy", ()),
        ("categorical_crossentropy", ()),
        ("sparse_categorical_crossentropy", (2,)),  # class 2 is to be ignored
    )
    for mode in MODES
]
LOSSES = REGRESSIONS + ENTROPIES
every_loss = pytest.mark.parametrize(("name", "options"), LOSSES)
shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def values_of(device, name, options, y, t):
    values = nans(len(y), dtype=y.dtype)
    kernel("loss", f"{name}_forward", device)(values, y, t, *options)
    return values


def gradient_of(device, name, options, y, t, weights):
    dy = nans(*y.shape, dtype=y.dtype)
    kernel("loss", f"{name}_backward", device)(dy, y, t, weights, *options)
    return dy


def case(name, options, shape, seed):
    """Outputs, targets and weights that the loss may meet."""
    rng = np.random.default_rng(seed)
    y, t = normal(rng, *shape), normal(rng, *shape)
    if "crossentropy" in name:
        if options[0] != LOGITS:
            y = 1 / (1 + np.exp(-2 * y))
            if "categorical" in name:
                y /= y.sum(axis=1, keepdims=True) + np.float32(0.01)  # nearly a distribution
        t = rng.random(shape, np.float32)
    if name.startswith("sparse"):
        t = rng.integers(0, shape[1], shape[0]).astype(np.int32)
    return y, t, rng.random(shape[0], np.float32)


def wide(array):
    return array.astype(np.float64) if array.dtype == np.float32 else array


# name, options, y, t, value, gradient for a weight of 1
EXAMPLES = [
    ("mean_squared_error", (), [1, 4], [0, 1], 5, [1, 3]),
    ("mean_absolute_error", (), [1, 1], [1, 4], 1.5, [0, -0.5]),
    ("huber", (2.0,), [1, 5], [0, 0], (0.5 + 8) / 2, [0.5, 1]),
    ("binary_crossentropy", (PROBABILITIES,), [0.5, 0.8], [1, 0], 1.1512925, [-1, 2.5]),
    ("binary_crossentropy", (LOGITS,), [0, math.log(4)], [1, 0], 1.1512925, [-0.25, 0.4]),
    ("binary_crossentropy", (FUSED,), [0.5, 0.8], [1, 0], 1.1512925, [-0.25, 0.4]),
    ("categorical_crossentropy", (PROBABILITIES,), [1, 3], [0, 1], 0.2876821, [0.25, -1 / 12]),
    ("categorical_crossentropy", (LOGITS,), [0, math.log(3)], [0, 1], 0.2876821, [0.25, -0.25]),
    ("categorical_crossentropy", (FUSED,), [0.25, 0.75], [0, 1], 0.2876821, [0.25, -0.25]),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "options", "y", "t", "value", "gradient"), EXAMPLES)
def test_worked_example(device, name, options, y, t, value, gradient):
    y, t, weights = (np.array([a], np.float32) for a in (y, t, 2))
    losses = [(name, options, t)]
    if name.startswith("categorical"):
        losses.append((f"sparse_{name}", (*options, IGNORE_NONE), np.array([1], np.int32)))
    for name, options, t in losses:
        np.testing.assert_allclose(values_of(device, name, options, y, t), [value], rtol=1e-6)
        dy = gradient_of(device, name, options, y, t, weights)
        np.testing.assert_allclose(dy, 2 * np.array([gradient]), rtol=1e-6, atol=1e-7)


@every_loss
@settings(max_examples=20)
@given(shapes, seeds)
@example((1, 1), 0)
@example((3, 100), 0)
def test_cpu_is_near_the_float64_reference(name, options, shape, seed):
    y, t, weights = case(name, options, shape, seed)
    value = values_of("numpy", name, options, wide(y), wide(t))
    ours = values_of("cpu", name, options, y, t)
    np.testing.assert_allclose(ours, value, rtol=5e-6, atol=1e-6)
    gradient = gradient_of("numpy", name, options, wide(y), wide(t), wide(weights))
    ours = gradient_of("cpu", name, options, y, t, weights)
    np.testing.assert_allclose(ours, gradient, rtol=1e-5, atol=1e-5 * np.abs(gradient).max())


@every_loss
@settings(max_examples=10)
@given(shapes, seeds)
def test_gradients_of_the_reference(name, options, shape, seed):
    y, t, _ = (wide(a) for a in case(name, options, shape, seed))
    rng = np.random.default_rng(seed)
    if "crossentropy" in name and options[0] == FUSED:  # through its activation
        logits, forward = y, (LOGITS, *options[1:])
        y = 1 / (1 + np.exp(-logits))
        if "categorical" in name:
            y = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    else:
        if options[:1] == (PROBABILITIES,) and "crossentropy" in name:
            y = rng.uniform(0.1, 0.9, y.shape)  # near 0 a difference quotient is no derivative
        logits, forward = y, options
    check_gradient(
        lambda x: values_of("numpy", name, forward, x, t),
        lambda x, weights: gradient_of("numpy", name, options, y, t, weights),
        logits,
        rng,
    )


@pytest.mark.parametrize("device", DEVICES)
def test_probabilities_are_clipped_and_a_clipped_one_has_no_gradient(device):
    y, one = np.array([[0, 1]], np.float32), np.ones(1, np.float32)
    for t in ([[1, 0]], [[0, 1]]):
        t = np.array(t, np.float32)
        expected = -math.log(1e-7) if t[0, 0] else 0
        for name in ("binary_crossentropy", "categorical_crossentropy"):
            value = values_of(device, name, (PROBABILITIES,), y, t)
            # 1 - 1e-7 is 1 - 1.19e-7 in float32
            np.testing.assert_allclose(value, [expected], rtol=0.01, atol=2e-7)
            assert not gradient_of(device, name, (PROBABILITIES,), y, t, one).any()
    t = np.array([0], np.int32)
    options = (PROBABILITIES, IGNORE_NONE)
    value = values_of(device, "sparse_categorical_crossentropy", options, y, t)
    np.testing.assert_allclose(value, [-math.log(1e-7)], rtol=1e-6)
    assert not gradient_of(device, "sparse_categorical_crossentropy", options, y, t, one).any()


@pytest.mark.parametrize("device", DEVICES)
def test_large_logits_stay_finite_and_small_tails_are_not_lost(device):
    y = np.array([[200, -200, 15, -15]], np.float32)
    right, wrong = np.array([[1, 0, 1, 0]], np.float32), np.array([[0, 1, 0, 1]], np.float32)
    tail = math.log1p(math.exp(-15))
    value = values_of(device, "binary_crossentropy", (LOGITS,), y, right)
    np.testing.assert_allclose(value, [2 * tail / 4], rtol=1e-6)
    value = values_of(device, "binary_crossentropy", (LOGITS,), y, wrong)
    np.testing.assert_allclose(value, [(400 + 30 + 2 * tail) / 4], rtol=1e-6)
    with np.errstate(over="ignore"):  # exp(200) is infinite, 1 / (1 + exp(200)) is right
        dy = gradient_of(device, "binary_crossentropy", (LOGITS,), y, wrong, np.ones(1, np.float32))
    np.testing.assert_allclose(dy, [[0.25, -0.25, 0.25, -0.25]], rtol=1e-6)
    value = values_of(device, "categorical_crossentropy", (LOGITS,), y, np.float32([[0, 1, 0, 0]]))
    np.testing.assert_allclose(value, [400])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ignore", [-1, 255])
def test_rows_to_ignore_have_neither_value_nor_gradient(device, mode, ignore):
    y = np.full((3, 4), 0.25, np.float32)
    y[1] = np.nan
    t, options = np.array([2, ignore, 0], np.int32), (mode, ignore)
    name = "sparse_categorical_crossentropy"
    value = values_of(device, name, options, y, t)
    np.testing.assert_allclose(value, [math.log(4), 0, math.log(4)], rtol=1e-6)
    dy = gradient_of(device, name, options, y, t, np.ones(3, np.float32))
    assert not dy[1].any()
    assert np.isfinite(dy).all()


@every_loss
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_stays_and_infinity_is_no_small_loss(name, options, bad):
    y, t, weights = case(name, options, (5, 20), 0)
    if name.startswith("sparse"):
        t[:], t[1] = 0, 3
    y[1, 3] = bad
    with np.errstate(invalid="ignore"):
        value = values_of("cpu", name, options, y, t)
        dy = gradient_of("cpu", name, options, y, t, weights)
    assert np.isfinite(value[[0, 2, 3, 4]]).all()
    assert np.isfinite(dy[[0, 2, 3, 4]]).all()
    if np.isnan(bad):
        assert np.isnan(value[1])
        assert np.isnan(dy[1, 3])
    elif "crossentropy" not in name:
        assert value[1] == np.inf


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
@every_loss
def test_the_same_bits_on_one_thread_and_on_all(name, options):
    y, t, weights = case(name, options, (3001, 37), 0)
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append(
            (
                values_of("cpu", name, options, y, t),
                gradient_of("cpu", name, options, y, t, weights),
            )
        )
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("device", DEVICES)
def test_weighted_sum_adds_to_the_totals(device):
    totals = np.array([10, 1], np.float64)
    values, weights = np.array([1, 2, 4], np.float32), np.array([1, 0, 0.5], np.float32)
    kernel("loss", "weighted_sum", device)(totals, values, weights)
    assert totals.tolist() == [13, 2.5]


@given(st.integers(0, 500), seeds)
def test_weighted_sum_is_exact_to_float64(rows, seed):
    rng = np.random.default_rng(seed)
    values, weights = normal(rng, rows), rng.random(rows, np.float32)
    ours, reference = np.zeros(2), np.zeros(2)
    kernel("loss", "weighted_sum", "cpu")(ours, values, weights)
    kernel("loss", "weighted_sum", "numpy")(reference, values, weights)
    np.testing.assert_allclose(ours, reference, rtol=1e-12, atol=1e-12)


@every_loss
def test_torch_agrees(name, options):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    y, t, weights = case(name, options, (6, 5), 0)
    if "categorical" in name and options[0] == FUSED:
        y /= y.sum(axis=1, keepdims=True)
    mode = options[0] if "crossentropy" in name else None
    output = torch.from_numpy(y).requires_grad_()
    target = torch.from_numpy(t).long() if name.startswith("sparse") else torch.from_numpy(t)
    # For FUSED, logits that have these probabilities.
    logits = output
    if mode == FUSED:
        logits = torch.log(output) - (torch.log1p(-output) if name.startswith("binary") else 0)
        logits = logits.detach().requires_grad_()
    if name == "mean_squared_error":
        rows = functional.mse_loss(output, target, reduction="none").mean(1)
    elif name == "mean_absolute_error":
        rows = functional.l1_loss(output, target, reduction="none").mean(1)
    elif name == "huber":
        rows = functional.huber_loss(output, target, reduction="none", delta=options[0]).mean(1)
    elif name == "binary_crossentropy" and mode == PROBABILITIES:
        rows = functional.binary_cross_entropy(output, target, reduction="none").mean(1)
    elif name == "binary_crossentropy":
        rows = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
    else:
        if mode == PROBABILITIES:
            logits = torch.log(output / output.sum(1, keepdim=True))
        ignored = {"ignore_index": options[1]} if name.startswith("sparse") else {}
        rows = functional.cross_entropy(logits, target, reduction="none", **ignored)
    value = values_of("cpu", name, options, y, t)
    np.testing.assert_allclose(value, rows.detach().numpy(), rtol=1e-5, atol=1e-6)
    variable = logits if mode == FUSED else output
    (gradient,) = torch.autograd.grad(rows, variable, torch.from_numpy(weights))
    dy = gradient_of("cpu", name, options, y, t, weights)
    np.testing.assert_allclose(dy, gradient.numpy(), rtol=1e-4, atol=1e-6)
