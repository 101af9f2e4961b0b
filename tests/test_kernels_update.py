"""Updates: reference, CPU, CUDA and other people's optimizers agree."""

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, kernel, normal
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels.jit import JIT

# Optimizer, which of its slots exist, its own rates, its integers.
CASES = {
    "sgd": ("sgd", (0,), (0.0,), (0,)),
    "momentum": ("sgd", (1,), (0.9,), (0,)),
    "nesterov": ("sgd", (1,), (0.9,), (1,)),
    "rmsprop": ("rmsprop", (1, 0, 0), (0.9, 0.0, 1e-7), ()),
    "rmsprop momentum": ("rmsprop", (1, 1, 0), (0.9, 0.5, 1e-7), ()),
    "rmsprop centered": ("rmsprop", (1, 0, 1), (0.9, 0.0, 1e-3), ()),
    "rmsprop both": ("rmsprop", (1, 1, 1), (0.9, 0.5, 1e-3), ()),
    "adagrad": ("adagrad", (1,), (1e-7,), ()),
    "adam": ("adam", (1, 1, 0), (0.9, 0.999, 1e-7), ()),
    "amsgrad": ("adam", (1, 1, 1), (0.9, 0.9, 1e-7), ()),
}
layouts = st.lists(st.tuples(upto(200), st.booleans(), st.booleans()), max_size=4)


def segments_of(layout):
    """(size, trained, decays) for each segment, at multiples of 64 -> (size of all, table)."""
    rows, end = [], 0
    for size, trained, decays in layout:
        if trained:
            rows.append((end, end + size, decays))
        end += -(-size // 64) * 64
    return end, np.array(rows, np.int64).reshape(-1, 3)


class Optimizer:
    """The state of an optimizer, and one step of its kernel."""

    def __init__(self, case, device, w, rate=0.1, decay=0.0):
        name, slots, rates, self.integers = CASES[case]
        self.update = kernel("update", f"{name}_update", device)
        self.w = w.copy()
        self.slots = [np.zeros(w.size if used else 0, w.dtype) for used in slots]
        self.rates, self.moves = np.array([rate, decay, *rates]), np.zeros(1, np.int64)

    def step(self, g, segments=None):
        if segments is None:
            segments = np.array([[0, g.size, 1]])
        state = (self.w, *self.slots)
        self.update(*state, g, self.rates, self.moves, segments, *self.integers)
        return self.w


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("case", "after_one", "after_two"),
    [
        ("sgd", -0.2, -0.4),
        ("momentum", -0.2, -0.2 + (0.9 * -0.2 - 0.2)),
        ("nesterov", 0.9 * -0.2 - 0.2, 0.9 * -0.2 - 0.2 + 0.9 * -0.38 - 0.2),
        ("rmsprop", -0.2 / 0.4**0.5, -0.2 / 0.4**0.5 - 0.2 / 0.76**0.5),
        ("rmsprop centered", -0.2 / 0.361**0.5, -0.2 / 0.361**0.5 - 0.2 / 0.6166**0.5),
        ("adagrad", -0.2 / 4**0.5, -0.2 / 4**0.5 - 0.2 / 8**0.5),
        ("adam", -0.1, -0.2),
    ],
)
def test_worked_example(device, case, after_one, after_two):
    optimizer = Optimizer(case, device, np.zeros(1, np.float32))
    g = np.array([2], np.float32)
    np.testing.assert_allclose(optimizer.step(g), [after_one], rtol=1e-5)
    np.testing.assert_allclose(optimizer.step(g), [after_two], rtol=1e-5)
    assert optimizer.moves.tolist() == [2]


@pytest.mark.parametrize("device", DEVICES)
def test_weight_decay_shrinks_only_what_decays(device):
    optimizer = Optimizer("sgd", device, np.ones(128, np.float32), rate=0.5, decay=0.1)
    w = optimizer.step(np.zeros(128, np.float32), np.array([[0, 64, 1], [64, 100, 0]]))
    np.testing.assert_allclose(w[:64], 0.95, rtol=1e-6)
    np.testing.assert_array_equal(w[64:], 1)


@pytest.mark.parametrize("device", FAST)
@pytest.mark.parametrize("case", CASES)
@given(layouts, seeds, st.integers(1, 3))
@example([], 0, 1)
@example([(1, True, False), (64, False, True), (65, True, True)], 0, 2)
def test_near_the_float64_reference_and_leaves_the_rest_alone(device, case, layout, seed, steps):
    rng = np.random.default_rng(seed)
    size, segments = segments_of(layout)
    start, trained = normal(rng, size), np.zeros(size, bool)
    for first, last, _ in segments:
        trained[first:last] = True
    ours = Optimizer(case, device, start, decay=0.01)
    reference = Optimizer(case, "numpy", start.astype(np.float64), decay=0.01)
    for _ in range(steps):
        g = normal(rng, size)
        g += np.copysign(np.float32(0.1), g)  # where g vanishes, RMSprop magnifies rounding
        ours.step(g, segments)
        reference.step(g.astype(np.float64), segments)
    np.testing.assert_allclose(ours.w, reference.w, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours.w[~trained], start[~trained])
    for one, other in zip(ours.slots, reference.slots, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
        assert not one.size or not one[~trained].any()
    assert ours.moves == reference.moves == steps


@pytest.mark.parametrize("device", FAST)
@pytest.mark.parametrize("moves", [0, 9, 999, 10**5, 10**7])
def test_adam_corrects_its_rate_after_any_number_of_steps(device, moves):
    g, results = np.array([0.5, -2], np.float32), []
    for each, kind in (("numpy", np.float64), (device, np.float32)):
        optimizer = Optimizer("adam", each, np.zeros(2, kind))
        optimizer.moves[0] = moves
        results.append(optimizer.step(g.astype(kind)))
        assert optimizer.moves == moves + 1
    np.testing.assert_allclose(*results, rtol=1e-6)


@pytest.mark.parametrize("device", FAST)
@pytest.mark.parametrize("case", CASES)
def test_nan_stays(device, case):
    optimizer = Optimizer(case, device, np.zeros(70, np.float32))
    g = np.zeros(70, np.float32)
    g[3] = g[69] = np.nan
    for _ in range(2):
        w = optimizer.step(g)
    assert np.flatnonzero(np.isnan(w)).tolist() == [3, 69]


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_on_one_thread_and_on_all(case):
    rng = np.random.default_rng(0)
    w, g, segments = (
        normal(rng, 70_000),
        normal(rng, 70_000),
        np.array([[7, 33_333, 1], [33_344, 70_000, 0]]),
    )
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        optimizer = Optimizer(case, "cpu", w, decay=0.01)
        for _ in range(2):
            optimizer.step(g, segments)
        results.append([optimizer.w, *optimizer.slots])
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize(
    "case", ["sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adam decay"]
)
def test_torch_agrees(case):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    start = normal(rng, 100)
    w = torch.from_numpy(start.copy()).requires_grad_()
    # Epsilon is added in other places there, so it is made to vanish in both.
    theirs = {
        "sgd": lambda: torch.optim.SGD([w], 0.1),
        "momentum": lambda: torch.optim.SGD([w], 0.1, momentum=0.9),
        "nesterov": lambda: torch.optim.SGD([w], 0.1, momentum=0.9, nesterov=True),
        "rmsprop": lambda: torch.optim.RMSprop([w], 0.1, alpha=0.9, eps=0),
        "adagrad": lambda: torch.optim.Adagrad([w], 0.1, eps=0),
        "adam": lambda: torch.optim.Adam([w], 0.1, eps=0),
        "adam decay": lambda: torch.optim.AdamW([w], 0.1, eps=0, weight_decay=0.01),
    }[case]()
    decay = 0.01 if case == "adam decay" else 0
    optimizer = Optimizer(case.removesuffix(" decay"), "cpu", start, decay=decay)
    if case in ("rmsprop", "adagrad", "adam", "adam decay"):
        optimizer.rates[-1] = 0
    for _ in range(5):
        g = normal(rng, 100)
        w.grad = torch.from_numpy(g)
        theirs.step()
        np.testing.assert_allclose(optimizer.step(g), w.detach(), rtol=1e-5, atol=1e-6)
