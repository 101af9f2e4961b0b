"""Convolution: reference, CPU and mathematics agree, whatever the geometry."""

import numba
import numpy as np
import pytest
from checks import (
    DEVICES,
    FAST,
    assert_within,
    assume_affordable,
    check_gradient,
    integer_valued,
    kernel,
    nans,
    normal,
)
from hypothesis import example, given, settings
from strategies import convolutions, geometry, seeds

NO_RELU = np.zeros((0,) * 5, np.float32)


def products(g):
    """Multiply-adds of one pass."""
    return int(np.prod([g["N"], *g["O"], *g["K"], g["C"], g["F"]])) // g["G"]


class Convolution:
    """The passes of one convolution on one device."""

    def __init__(self, device, g):
        self.device, self.g = device, g
        self.integers = (*g["S"], *g["L"], *g["P"], g["G"])
        size = self.call("workspace", g["N"], *g["D"], g["C"], *g["O"], g["F"], *g["K"], *g["S"],
                         *g["L"], g["G"])  # fmt: skip
        self.ws = nans(size)

    def call(self, name, *arguments):
        return kernel("conv", f"conv_{name}", self.device)(*arguments)

    def forward(self, x, w, b, relu=0):
        y = nans(self.g["N"], *self.g["O"], self.g["F"], dtype=x.dtype)
        self.call("prepare", w, self.g["G"], self.ws)
        self.call("forward", y, x, w, b, *self.integers, relu, self.ws)
        return y

    def backward_input(self, dy, w, y=NO_RELU):
        dx = nans(self.g["N"], *self.g["D"], self.g["C"], dtype=dy.dtype)
        self.call("backward_input", dx, dy, y, w, *self.integers, self.ws)
        return dx

    def backward_weight(self, x, dy, bias=True, y=NO_RELU):
        dw = nans(*self.g["K"], self.g["C"] // self.g["G"], self.g["F"], dtype=x.dtype)
        db = nans(self.g["F"] if bias else 0, dtype=x.dtype)
        self.call("backward_weight", dw, db, x, dy, y, *self.integers, self.ws)
        return dw, db


def arrays(g, make, rng, bias=True, **kwargs):
    x = make(rng, g["N"], *g["D"], g["C"], **kwargs)
    w = make(rng, *g["K"], g["C"] // g["G"], g["F"], **kwargs)
    b = make(rng, g["F"] if bias else 0, **kwargs)
    dy = make(rng, g["N"], *g["O"], g["F"], **kwargs)
    return x, w, b, dy


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    g = geometry(D=(1, 3, 3), K=(1, 2, 2))
    x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3, 1)
    w = np.array([1, 2, 3, 4], np.float32).reshape(1, 2, 2, 1, 1)
    conv = Convolution(device, g)
    y = conv.forward(x, w, np.array([-30], np.float32))
    assert y.ravel().tolist() == [27 - 30, 37 - 30, 57 - 30, 67 - 30]
    assert conv.forward(x, w, np.array([-40], np.float32), relu=1).ravel().tolist() == [
        0,
        0,
        17,
        27,
    ]
    dy = np.array([1, 0, 0, 10], np.float32).reshape(y.shape)
    assert conv.backward_input(dy, w).ravel().tolist() == [1, 2, 0, 3, 14, 20, 0, 30, 40]
    dw, db = conv.backward_weight(x, dy)
    assert dw.ravel().tolist() == [40, 51, 73, 84]
    assert db.tolist() == [11]


@pytest.mark.parametrize("device", FAST)
@given(convolutions(), seeds)
@example(geometry(D=(1, 1, 1), K=(1, 1, 1)), 0)
@example(geometry(D=(1, 4, 4), K=(1, 4, 4), C=3, F=5), 1)  # kernel == image
@example(geometry(D=(3, 7, 7), K=(1, 2, 2), S=(2, 3, 3), C=2, F=33), 2)  # stride > kernel
@example(geometry(D=(1, 4, 7), K=(1, 1, 2), S=(2, 2, 3), C=2, F=3), 6)
@example(geometry(D=(1, 5, 7), K=(1, 3, 2), S=(1, 2, 4), L=(1, 1, 2), C=2, F=4, G=2), 0)
@example(geometry(N=5, D=(1, 9, 17), K=(1, 1, 1), C=19, F=70), 3)  # one matrix product
@example(geometry(N=2, D=(1, 3, 3), K=(1, 1, 1), C=3, F=5), 1)
@example(geometry(N=4, D=(1, 4, 4), K=(1, 2, 2), F=3), 6)  # a weight gradient in parts
@example(geometry(N=2, D=(1, 12, 30), K=(1, 3, 3), C=40, F=50, P=(0, 1, 1), O=(1, 12, 30)), 4)
@example(geometry(N=7, D=(1, 28, 28), K=(1, 3, 3), C=1, F=8), 5)  # a first layer: batch in parts
@example(
    geometry(N=2, D=(1, 1, 40), K=(1, 1, 5), L=(1, 1, 2), C=6, F=4, P=(0, 0, 8), O=(1, 1, 40)), 6
)
def test_equals_the_reference_exactly_on_integers(device, g, seed):
    rng = np.random.default_rng(seed)
    x, w, b, dy = arrays(g, integer_valued, rng, bias=seed % 2 == 0)
    assume_affordable(device, 4 * x.size, 4 * dy.size, products(g) // 10)
    relu = seed % 3 == 0
    fast, reference = Convolution(device, g), Convolution("numpy", g)
    y = fast.forward(x, w, b, relu)
    np.testing.assert_array_equal(y, reference.forward(x, w, b, relu))
    gate = y if relu else NO_RELU
    dx = reference.backward_input(dy, w, gate)
    np.testing.assert_array_equal(fast.backward_input(dy, w, gate), dx)
    for ours, theirs in zip(
        fast.backward_weight(x, dy, b.size, gate), reference.backward_weight(x, dy, b.size, gate)
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("device", FAST)
@given(convolutions(), seeds)
def test_within_rounding_of_the_float64_reference(device, g, seed):
    rng = np.random.default_rng(seed)
    x, w, b, dy = arrays(g, normal, rng)
    assume_affordable(device, 4 * x.size, 4 * dy.size, products(g) // 10)
    wide = [a.astype(np.float64) for a in (x, w, b, dy)]
    size = [np.abs(a) for a in wide]
    fast, reference = Convolution(device, g), Convolution("numpy", g)
    terms = int(np.prod(g["K"])) * g["C"]
    assert_within(
        fast.forward(x, w, b), reference.forward(*wide[:3]), terms, reference.forward(*size[:3])
    )
    terms = int(np.prod(g["K"])) * g["F"]
    assert_within(
        fast.backward_input(dy, w),
        reference.backward_input(wide[3], wide[1]),
        terms,
        reference.backward_input(size[3], size[1]),
    )
    terms = g["N"] * int(np.prod(g["O"]))
    for ours, theirs, magnitude in zip(
        fast.backward_weight(x, dy),
        reference.backward_weight(wide[0], wide[3]),
        reference.backward_weight(size[0], size[3]),
    ):
        assert_within(ours, theirs, terms, magnitude)


@given(convolutions(), seeds)
def test_gradients_of_the_reference(g, seed):
    rng = np.random.default_rng(seed)
    x, w, b, _ = arrays(g, normal, rng, dtype=np.float64)
    conv = Convolution("numpy", g)
    check_gradient(
        lambda x: conv.forward(x, w, b), lambda x, dy: conv.backward_input(dy, w), x, rng
    )
    check_gradient(
        lambda w: conv.forward(x, w, b), lambda w, dy: conv.backward_weight(x, dy)[0], w, rng
    )
    check_gradient(
        lambda b: conv.forward(x, w, b), lambda b, dy: conv.backward_weight(x, dy)[1], b, rng
    )


@given(convolutions(), seeds)
def test_the_gradient_behind_a_relu(g, seed):
    rng = np.random.default_rng(seed)
    x, w, b, dy = arrays(g, integer_valued, rng)
    conv = Convolution("numpy", g)
    y = conv.forward(x, w, b, relu=1)
    gated = np.where(y > 0, dy, 0)
    np.testing.assert_array_equal(conv.backward_input(dy, w, y), conv.backward_input(gated, w))
    for a, b in zip(conv.backward_weight(x, dy, True, y), conv.backward_weight(x, gated)):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=10)
@given(convolutions(), seeds)
@example(geometry(N=9, D=(1, 20, 20), K=(1, 3, 3), C=3, F=20), 0)
def test_the_same_bits_on_one_thread_and_on_all(g, seed):
    x, w, b, dy = arrays(g, normal, np.random.default_rng(seed))
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        conv = Convolution("cpu", g)
        results.append(
            [conv.forward(x, w, b), conv.backward_input(dy, w), *conv.backward_weight(x, dy)]
        )
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


@settings(max_examples=20)
@given(convolutions(), seeds)
def test_torch_agrees(g, seed):
    torch = pytest.importorskip("torch")
    x, w, b, _ = arrays(g, normal, np.random.default_rng(seed))
    ends = [
        max((o - 1) * s + (k - 1) * l + 1 - d - p, 0)
        for o, s, k, l, d, p in zip(g["O"], g["S"], g["K"], g["L"], g["D"], g["P"])
    ]
    pads = [n for p, e in zip(reversed(g["P"]), reversed(ends)) for n in (p, e)]
    padded = torch.nn.functional.pad(torch.from_numpy(x).permute(0, 4, 1, 2, 3), pads)
    theirs = torch.nn.functional.conv3d(
        padded, torch.from_numpy(w).permute(4, 3, 0, 1, 2), torch.from_numpy(b),
        stride=g["S"], dilation=g["L"], groups=g["G"],
    )  # fmt: skip
    theirs = theirs.permute(0, 2, 3, 4, 1).numpy()
    theirs = theirs[:, : g["O"][0], : g["O"][1], : g["O"][2]]
    np.testing.assert_allclose(Convolution("cpu", g).forward(x, w, b), theirs, rtol=1e-4, atol=1e-4)
