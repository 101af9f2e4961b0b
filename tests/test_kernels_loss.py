"""Losses: reference, CPU, CUDA, mathematics and other people's losses agree."""

import math
from typing import NamedTuple

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, check_gradient, kernel, nans, normal
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels import codes
from minicnnrnn.kernels.codes import FUSED, IGNORE_NONE, LOGITS, PROBABILITIES
from minicnnrnn.kernels.gpu import SIMULATED
from minicnnrnn.kernels.jit import JIT
from minicnnrnn.kernels.regression_loss import EPSILON

MODES = [PROBABILITIES, LOGITS, FUSED]


class Loss(NamedTuple):
    """A kernel, what it is told, and what it is given."""

    module: str
    name: str
    options: tuple = ()
    kind: str = "real"  # of outputs and targets

    def values(self, device, y, t):
        values = nans(len(y), dtype=y.dtype)
        kernel(self.module, f"{self.name}_forward", device)(values, y, t, *self.options)
        return values

    def gradient(self, device, y, t, weights):
        dy = nans(*y.shape, dtype=y.dtype)
        kernel(self.module, f"{self.name}_backward", device)(dy, y, t, weights, *self.options)
        return dy


def regression(code, delta=0.7, kind="real"):
    return Loss("regression_loss", "regression_loss", (code, delta), kind)


def entropy(name, *options, kind="probability"):
    return Loss("crossentropy", name, options, kind)


BINARY, CATEGORICAL = "binary_crossentropy", "categorical_crossentropy"
SPARSE = "sparse_categorical_crossentropy"
FOCAL = "binary_focal_crossentropy", "categorical_focal_crossentropy"
PER_CLASS = np.linspace(0.5, 1, 40, dtype=np.float32)
EVEN = np.array([0.25], np.float32)
LOSSES = {
    "squared": regression(codes.SQUARED),
    "absolute": regression(codes.ABSOLUTE),
    "huber": regression(codes.HUBER),
    "percentage": regression(codes.PERCENTAGE, kind="positive"),
    "logarithmic": regression(codes.LOGARITHMIC, kind="positive"),
    "log_cosh": regression(codes.LOG_COSH),
    "poisson": regression(codes.POISSON, kind="positive"),
    "hinge": Loss("hinge", "hinge", (1,), "signs"),
    "squared_hinge": Loss("hinge", "hinge", (2,), "binary"),
    "categorical_hinge": Loss("hinge", "categorical_hinge", (), "one-hot"),
    "cosine": Loss("cosine_similarity", "cosine_similarity", (), "positive"),
    "divergence": entropy("kl_divergence"),
    "binary": entropy(BINARY, PROBABILITIES, 0.0),
    "binary logits": entropy(BINARY, LOGITS, 0.1, kind="real, probability"),
    "binary fused": entropy(BINARY, FUSED, 0.1),
    "categorical": entropy(CATEGORICAL, PROBABILITIES, 0.1),
    "categorical logits": entropy(CATEGORICAL, LOGITS, 0.1, kind="real, probability"),
    "categorical fused": entropy(CATEGORICAL, FUSED, 0.0),
    "sparse": entropy(SPARSE, PROBABILITIES, 2, kind="probability, label"),  # ignores class 2
    "sparse logits": entropy(SPARSE, LOGITS, 2, kind="real, label"),
    "sparse fused": entropy(SPARSE, FUSED, 2, kind="probability, label"),
    "binary focal": Loss("focal", FOCAL[0], (1.0, 1.0, 2.0, PROBABILITIES, 0.0), "probability"),
    "binary focal logits": Loss(
        "focal", FOCAL[0], (0.25, 0.75, 1.5, LOGITS, 0.1), "real, probability"
    ),
    "categorical focal": Loss(
        "focal", FOCAL[1], (EVEN, 1.5, PROBABILITIES, 0.1), "probability"
    ),
    "categorical focal logits": Loss(
        "focal", FOCAL[1], (EVEN, 2.0, LOGITS, 0.0), "real, probability"
    ),
}  # fmt: skip
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
shapes = st.tuples(upto(40), upto(40))


def is_fused(loss):
    return loss.module == "crossentropy" and loss.options[:1] == (FUSED,)


def case(loss, shape, seed):
    """Outputs, targets and weights that the loss may meet."""
    rng = np.random.default_rng(seed)
    y, t = normal(rng, *shape), normal(rng, *shape)
    outputs, *targets = loss.kind.split(", ")
    if outputs == "positive":
        y, t = np.abs(y) + np.float32(0.1), np.abs(t) + np.float32(0.1)
    elif outputs in ("signs", "binary"):
        t = np.sign(t) if outputs == "signs" else (t > 0).astype(np.float32)
    elif outputs == "one-hot":
        t = np.eye(shape[1], dtype=np.float32)[rng.integers(0, shape[1], shape[0])]
    elif outputs == "probability":
        y = 1 / (1 + np.exp(-2 * y))
        if not loss.name.startswith("binary"):
            y /= y.sum(axis=1, keepdims=True) + np.float32(0.01)  # nearly a distribution
    if "probability" in (targets or [outputs]):
        t = rng.random(shape, np.float32)
    if targets == ["label"]:
        t = rng.integers(0, shape[1], shape[0]).astype(np.int32)
    return y, t, rng.random(shape[0], np.float32)


def wide(array):
    return array.astype(np.float64) if array.dtype == np.float32 else array


def even(loss):
    """The loss with what float64 needs."""
    return loss._replace(
        options=tuple(wide(o) if isinstance(o, np.ndarray) else o for o in loss.options)
    )


# loss, y, t, value, gradient for a weight of 1
EXAMPLES = [
    (regression(codes.SQUARED), [1, 4], [0, 1], 5, [1, 3]),
    (regression(codes.ABSOLUTE), [1, 1], [1, 4], 1.5, [0, -0.5]),
    (regression(codes.HUBER, 2.0), [1, 5], [0, 0], (0.5 + 8) / 2, [0.5, 1]),
    (regression(codes.PERCENTAGE), [3, 1], [2, -4], (50 + 125) / 2, [25, 12.5]),
    (regression(codes.LOGARITHMIC), [3, -1], [1, 0], 0.2402265, [0.1732868, 0]),
    (regression(codes.LOG_COSH), [1, -0.5], [0, -0.5], 0.2168904, [0.3807971, 0]),
    (regression(codes.POISSON), [2, 1], [4, 0], (2 - 4 * math.log(2) + 1) / 2, [-0.5, 0.5]),
    (Loss("hinge", "hinge", (1,)), [0.5, -2, 1], [1, -1, 1], 1 / 6, [-1 / 3, 0, -1 / 6]),
    (Loss("hinge", "hinge", (1,)), [0.5, -2, 1], [1, 0, 1], 1 / 6, [-1 / 3, 0, -1 / 6]),
    (Loss("hinge", "hinge", (2,)), [0.5, 2], [1, -1], (0.25 + 9) / 2, [-0.5, 3]),
    (Loss("hinge", "categorical_hinge"), [1, 3, 3], [1, 0, 0], 3, [-1, 0.5, 0.5]),
    (Loss("cosine_similarity", "cosine_similarity"), [3, 4], [1, 0], -0.6, [-0.128, 0.096]),
    (entropy("kl_divergence"), [0.5, 0.25], [1, 0.5], 1.0397208, [-2, -2]),
    (entropy(BINARY, PROBABILITIES, 0.0), [0.5, 0.8], [1, 0], 1.1512925, [-1, 2.5]),
    (entropy(BINARY, LOGITS, 0.0), [0, math.log(4)], [1, 0], 1.1512925, [-0.25, 0.4]),
    (entropy(BINARY, FUSED, 0.0), [0.5, 0.8], [1, 0], 1.1512925, [-0.25, 0.4]),
    (entropy(BINARY, FUSED, 0.5), [0.5, 0.8], [1, 0], 0.9780058, [-0.125, 0.275]),
    (entropy(CATEGORICAL, PROBABILITIES, 0.0), [1, 3], [0, 1], 0.2876821, [0.25, -1 / 12]),
    (entropy(CATEGORICAL, LOGITS, 0.0), [0, math.log(3)], [0, 1], 0.2876821, [0.25, -0.25]),
    (entropy(CATEGORICAL, FUSED, 0.0), [0.25, 0.75], [0, 1], 0.2876821, [0.25, -0.25]),
    (entropy(CATEGORICAL, FUSED, 0.5), [0.25, 0.75], [0, 1], 0.5623351, [0, 0]),
    (
        Loss("focal", FOCAL[0], (2.0, 1.0, 2.0, PROBABILITIES, 0.0)),
        [0.5],
        [1],
        2 * 0.25 * math.log(2),
        [2 * (-0.5 - math.log(2))],
    ),
    (
        Loss("focal", FOCAL[1], (EVEN, 2.0, LOGITS, 0.0)),
        [0, 0],
        [0, 1],
        0.25 * 0.25 * math.log(2),
        [(0.25 + 0.5 * math.log(2)) / 8, (-0.25 - 0.5 * math.log(2)) / 8],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("loss", "y", "t", "value", "gradient"), EXAMPLES)
def test_worked_example(device, loss, y, t, value, gradient):
    y, t, weights = (np.array([a], np.float32) for a in (y, t, 2))
    losses = [(loss, t)]
    if loss.name == CATEGORICAL and not loss.options[1]:
        losses.append((entropy(SPARSE, loss.options[0], IGNORE_NONE), np.array([1], np.int32)))
    for loss, t in losses:
        np.testing.assert_allclose(loss.values(device, y, t), [value], rtol=2e-6)
        dy = loss.gradient(device, y, t, weights)
        np.testing.assert_allclose(dy, 2 * np.array([gradient]), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("device", FAST)
@every_loss
@settings(max_examples=3 if SIMULATED else 15)
@given(shapes, seeds)
@example((1, 1), 0)
@example((3, 100), 0)
def test_near_the_float64_reference(device, loss, shape, seed):
    y, t, weights = case(loss, shape, seed)
    value = even(loss).values("numpy", wide(y), wide(t))
    ours = loss.values(device, y, t)
    np.testing.assert_allclose(ours, value, rtol=5e-6, atol=1e-6)
    gradient = even(loss).gradient("numpy", wide(y), wide(t), wide(weights))
    ours = loss.gradient(device, y, t, weights)
    tolerance = 1e-5 * np.abs(gradient).max() + 1e-6
    np.testing.assert_allclose(ours, gradient, rtol=1e-5, atol=tolerance)


@every_loss
@settings(max_examples=10)
@given(shapes, seeds)
def test_gradients_of_the_reference(loss, shape, seed):
    y, t, _ = (wide(a) for a in case(loss, shape, seed))
    loss, rng = even(loss), np.random.default_rng(seed)
    forward, logits = loss, y
    if is_fused(loss):  # through its activation
        forward = loss._replace(options=(LOGITS, *loss.options[1:]))
        y = 1 / (1 + np.exp(-logits))
        if "categorical" in loss.name:
            y = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    elif loss.kind.startswith("probability"):
        logits = y = rng.uniform(0.1, 0.9, y.shape)  # near 0 a quotient is no derivative
    check_gradient(
        lambda x: forward.values("numpy", x, t),
        lambda x, weights: loss.gradient("numpy", y, t, weights),
        logits,
        rng,
    )


@pytest.mark.parametrize("device", DEVICES)
def test_probabilities_are_clipped_and_a_clipped_one_has_no_gradient(device):
    y, one = np.array([[0, 1]], np.float32), np.ones(1, np.float32)
    for t in ([[1, 0]], [[0, 1]]):
        t = np.array(t, np.float32)
        expected = -math.log(1e-7) if t[0, 0] else 0
        for loss in (entropy(BINARY, PROBABILITIES, 0.0), entropy(CATEGORICAL, PROBABILITIES, 0.0)):
            # 1 - 1e-7 is 1 - 1.19e-7 in float32
            value = loss.values(device, y, t)
            np.testing.assert_allclose(value, [expected], rtol=0.01, atol=2e-7)
            assert not loss.gradient(device, y, t, one).any()
        dy = entropy("kl_divergence").gradient(device, y, t, one)
        assert dy[0, 0] == 0
    t, sparse = np.array([0], np.int32), entropy(SPARSE, PROBABILITIES, IGNORE_NONE)
    np.testing.assert_allclose(sparse.values(device, y, t), [-math.log(1e-7)], rtol=1e-6)
    assert not sparse.gradient(device, y, t, one).any()


@pytest.mark.parametrize("device", DEVICES)
def test_large_logits_stay_finite_and_small_tails_are_not_lost(device):
    y = np.array([[200, -200, 15, -15]], np.float32)
    right, wrong = np.array([[1, 0, 1, 0]], np.float32), np.array([[0, 1, 0, 1]], np.float32)
    tail, loss = math.log1p(math.exp(-15)), entropy(BINARY, LOGITS, 0.0)
    np.testing.assert_allclose(loss.values(device, y, right), [2 * tail / 4], rtol=1e-6)
    value = loss.values(device, y, wrong)
    np.testing.assert_allclose(value, [(400 + 30 + 2 * tail) / 4], rtol=1e-6)
    with np.errstate(over="ignore"):  # exp(200) is infinite, 1 / (1 + exp(200)) is right
        dy = loss.gradient(device, y, wrong, np.ones(1, np.float32))
    np.testing.assert_allclose(dy, [[0.25, -0.25, 0.25, -0.25]], rtol=1e-6)
    loss = entropy(CATEGORICAL, LOGITS, 0.0)
    np.testing.assert_allclose(loss.values(device, y, np.float32([[0, 1, 0, 0]])), [400])
    loss = regression(codes.LOG_COSH)
    np.testing.assert_allclose(loss.values(device, y, 0 * y), [(430 - 4 * math.log(2)) / 4], 1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ignore", [-1, 255, IGNORE_NONE])
def test_rows_to_ignore_have_neither_value_nor_gradient(device, mode, ignore):
    y = np.full((3, 4), 0.25, np.float32)
    y[1] = np.nan
    t, loss = np.array([2, ignore, 0], np.int32), entropy(SPARSE, mode, ignore)
    value = loss.values(device, y, t)
    np.testing.assert_allclose(value, [math.log(4), 0, math.log(4)], rtol=1e-6)
    dy = loss.gradient(device, y, t, np.ones(3, np.float32))
    assert not dy[1].any()
    assert np.isfinite(dy).all()
    t[1] = 4  # no class, and ignored likewise
    np.testing.assert_allclose(loss.values(device, y, t), value)


@pytest.mark.parametrize("device", DEVICES)
def test_edges(device):
    one = np.ones(1, np.float32)
    y, t = np.array([[-1, 0.5]], np.float32), np.array([[1, 1]], np.float32)
    assert np.isnan(regression(codes.POISSON).values(device, y, t)).all()
    zero = np.zeros((1, 2), np.float32)
    cosine = LOSSES["cosine"]
    assert cosine.values(device, zero, t).tolist() == [0]
    assert np.isfinite(cosine.gradient(device, zero, t, one)).all()
    assert cosine.gradient(device, t, zero, one).tolist() == [[0, 0]]
    value = regression(codes.PERCENTAGE).values(device, t, zero)
    np.testing.assert_allclose(value, [1e9], rtol=1e-6)
    # The derivative of a power of zero: 1 - p is 0 where the answer is right for certain.
    for gamma in (0.0, 1.0, 1.5, 2.0):
        focal = Loss("focal", FOCAL[0], (1.0, 1.0, gamma, PROBABILITIES, 0.0))
        assert np.isfinite(focal.gradient(device, t, t, one)).all()


@pytest.mark.parametrize("device", FAST)
def test_each_class_may_have_a_focal_weight_of_its_own(device):
    loss = Loss("focal", FOCAL[1], (PER_CLASS[:5], 2.0, LOGITS, 0.0), "real, probability")
    y, t, weights = case(loss, (7, 5), 0)
    exact = even(loss)
    np.testing.assert_allclose(
        loss.values(device, y, t), exact.values("numpy", wide(y), wide(t)), rtol=1e-5
    )
    dy = exact.gradient("numpy", wide(y), wide(t), wide(weights))
    np.testing.assert_allclose(loss.gradient(device, y, t, weights), dy, rtol=1e-4, atol=1e-6)
    rng = np.random.default_rng(0)
    check_gradient(
        lambda x: exact.values("numpy", x, wide(t)),
        lambda x, weights: exact.gradient("numpy", x, wide(t), weights),
        wide(y),
        rng,
    )


@pytest.mark.parametrize("device", FAST)
@every_loss
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_stays_and_infinity_is_no_small_loss(device, loss, bad):
    y, t, weights = case(loss, (5, 20), 0)
    if loss.kind.endswith("label"):
        t[:], t[1] = 0, 3
    y[1, 3] = bad
    with np.errstate(invalid="ignore"):
        value = loss.values(device, y, t)
        dy = loss.gradient(device, y, t, weights)
    assert np.isfinite(value[[0, 2, 3, 4]]).all()
    assert np.isfinite(dy[[0, 2, 3, 4]]).all()
    if np.isnan(bad):
        assert np.isnan(value[1])
        assert np.isnan(dy[1, 3])
    elif loss.module == "regression_loss":
        assert not np.isfinite(value[1])


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
@every_loss
def test_the_same_bits_on_one_thread_and_on_all(loss):
    y, t, weights = case(loss, (3001, 37), 0)
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append((loss.values("cpu", y, t), loss.gradient("cpu", y, t, weights)))
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


def torch_rows(functional, loss, output, target):
    """Torch's value of every row, where it has the loss."""
    none = {"reduction": "none"}
    if loss.module == "regression_loss":
        theirs = {
            codes.SQUARED: functional.mse_loss,
            codes.ABSOLUTE: functional.l1_loss,
            codes.HUBER: functional.huber_loss,
            codes.POISSON: functional.poisson_nll_loss,
        }.get(loss.options[0])
        more = {"delta": loss.options[1]} if loss.options[0] == codes.HUBER else {}
        if loss.options[0] == codes.POISSON:
            more = {"log_input": False, "eps": EPSILON}
        return theirs and theirs(output, target, **none, **more).mean(1)
    if loss.name == "cosine_similarity":
        return -functional.cosine_similarity(output, target)
    if loss.name == "kl_divergence":
        return functional.kl_div(output.log(), target, **none).sum(1)
    if loss.name == BINARY and loss.options[0] == PROBABILITIES:
        return functional.binary_cross_entropy(output, target, **none).mean(1)
    if loss.name == BINARY:
        target = target * (1 - loss.options[1]) + loss.options[1] / 2
        return functional.binary_cross_entropy_with_logits(output, target, **none).mean(1)
    if loss.name in (CATEGORICAL, SPARSE):
        if loss.options[0] == PROBABILITIES:
            output = (output / output.sum(1, keepdim=True)).log()
        if loss.name == SPARSE:
            return functional.cross_entropy(output, target, ignore_index=loss.options[1], **none)
        target = target * (1 - loss.options[1]) + loss.options[1] / target.shape[1]
        return functional.cross_entropy(output, target, **none)
    return None


@every_loss
def test_torch_agrees(loss):
    torch = pytest.importorskip("torch")
    y, t, weights = case(loss, (6, 5), 0)
    if is_fused(loss) and "categorical" in loss.name:
        y /= y.sum(axis=1, keepdims=True)
    output = torch.from_numpy(y).requires_grad_()
    target = torch.from_numpy(t).long() if t.ndim == 1 else torch.from_numpy(t)
    if is_fused(loss):  # logits that have these probabilities
        output = torch.log(output) - (torch.log1p(-output) if loss.name == BINARY else 0)
        output = output.detach().requires_grad_()
    rows = torch_rows(torch.nn.functional, loss, output, target)
    if rows is None:
        pytest.skip("torch has no such loss")
    np.testing.assert_allclose(
        loss.values("cpu", y, t), rows.detach().numpy(), rtol=1e-5, atol=1e-6
    )
    (gradient,) = torch.autograd.grad(rows, output, torch.from_numpy(weights))
    dy = loss.gradient("cpu", y, t, weights)
    np.testing.assert_allclose(dy, gradient.numpy(), rtol=1e-4, atol=1e-6)
