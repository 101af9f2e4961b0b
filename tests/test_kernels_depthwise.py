"""Depthwise convolution: reference, CPU and mathematics agree, whatever the geometry."""

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
from hypothesis import strategies as st
from strategies import seeds, upto, windows


def geometry(N=1, size=(5, 5), C=1, M=1, K=(3, 3), S=(1, 1), L=(1, 1), P=(0, 0), O=None):
    """A depthwise convolution's integers; outputs without padding unless given."""
    if O is None:
        O = tuple((d - (k - 1) * l - 1) // s + 1 for d, k, s, l in zip(size, K, S, L))
    return {"N": N, "size": size, "C": C, "M": M, "K": K, "S": S, "L": L, "P": P, "O": O}


@st.composite
def geometries(draw):
    """With strides and dilation at once, kernels beyond the image, and channels of any number."""
    axes = [draw(windows(longest=14)) for _ in range(draw(st.integers(1, 2)))]
    size, K, S, L, P, O = zip(*([(1, 1, 1, 1, 0, 1)] * (2 - len(axes)) + axes))
    C, M = draw(upto(40)), draw(st.sampled_from([1, 1, 2, 3]))
    return geometry(draw(upto(3)), size, C, M, K, S, L, P, O)


class Depthwise:
    """The passes of one depthwise convolution on one device."""

    def __init__(self, device, g):
        self.device, self.g = device, g
        self.integers = (*g["S"], *g["L"], *g["P"])
        size = self.call("workspace", g["N"], *g["size"], g["C"], *g["O"], g["M"], *g["K"])
        self.ws = nans(size)

    def call(self, name, *arguments):
        return kernel("depthwise", f"depthwise_{name}", self.device)(*arguments)

    def forward(self, x, w, b, relu=0):
        y = nans(self.g["N"], *self.g["O"], self.g["C"] * self.g["M"], dtype=x.dtype)
        self.call("forward", y, x, w, b, *self.integers, relu, self.ws)
        return y

    def backward_input(self, dy, w):
        dx = nans(self.g["N"], *self.g["size"], self.g["C"], dtype=dy.dtype)
        self.call("backward_input", dx, dy, w, *self.integers, self.ws)
        return dx

    def backward_weight(self, x, dy, bias=True):
        dw = nans(*self.g["K"], self.g["C"], self.g["M"], dtype=x.dtype)
        db = nans(self.g["C"] * self.g["M"] if bias else 0, dtype=x.dtype)
        self.call("backward_weight", dw, db, x, dy, *self.integers, self.ws)
        return dw, db


def arrays(g, make, rng, bias=True, **kwargs):
    F = g["C"] * g["M"]
    x = make(rng, g["N"], *g["size"], g["C"], **kwargs)
    w = make(rng, *g["K"], g["C"], g["M"], **kwargs)
    b = make(rng, F if bias else 0, **kwargs)
    dy = make(rng, g["N"], *g["O"], F, **kwargs)
    return x, w, b, dy


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    # One step of two channels, each with two filters of two taps.
    depthwise = Depthwise(device, geometry(size=(1, 3), C=2, M=2, K=(1, 2)))
    x = np.array([1, 10, 2, 20, 3, 30], np.float32).reshape(1, 1, 3, 2)
    w = np.array([[1, 2, 3, 4], [0, 1, -1, 0]], np.float32).reshape(1, 2, 2, 2)
    b = np.array([0, 0, 0, -50], np.float32)
    y = depthwise.forward(x, w, b)
    assert y.tolist() == [[[[1, 4, 10, -10], [2, 7, 30, 30]]]]
    assert depthwise.forward(x, w, b, relu=1).tolist() == [[[[1, 4, 10, 0], [2, 7, 30, 30]]]]
    dy = np.array([1, 0, 0, 0, 0, 1, 2, 0], np.float32).reshape(y.shape)
    assert depthwise.backward_input(dy, w).tolist() == [[[[1, 0], [2, 6], [1, -2]]]]
    dw, db = depthwise.backward_weight(x, dy)
    assert dw.tolist() == [[[[1, 2], [40, 0]], [[2, 3], [60, 0]]]]
    assert db.tolist() == [1, 1, 2, 0]


@pytest.mark.parametrize("device", FAST)
@given(geometries(), seeds)
@example(geometry(size=(1, 1), K=(1, 1)), 0)
@example(geometry(N=2, size=(4, 4), C=33, K=(4, 4)), 1)  # kernel == image
@example(geometry(size=(7, 9), C=3, K=(2, 2), S=(3, 4)), 2)  # stride > kernel
@example(geometry(N=2, size=(9, 9), C=2, K=(3, 2), S=(2, 1), P=(1, 0), O=(5, 8)), 4)
@example(geometry(N=1, size=(8, 9), C=1, M=2, K=(3, 2), S=(4, 3), L=(2, 2)), 6)
@example(geometry(N=5, size=(30, 30), C=16, K=(3, 3), P=(1, 1), O=(30, 30)), 3)  # in parts
@example(geometry(size=(1, 1), C=9, K=(4, 4), L=(2, 2), P=(3, 3), O=(1, 1)), 6)  # no tap inside
@example(geometry(N=2, size=(11, 13), C=70, K=(5, 3), S=(2, 4), L=(3, 2), P=(2, 1), O=(3, 3)), 6)
@example(geometry(N=2, size=(9, 9), C=5, M=3, K=(3, 3), S=(2, 2), P=(1, 1), O=(5, 5)), 7)
def test_equals_the_reference_exactly_on_integers(device, g, seed):
    rng = np.random.default_rng(seed)
    x, w, b, dy = arrays(g, integer_valued, rng, bias=seed % 2 == 0)
    assume_affordable(device, x.size, dy.size)
    fast, reference = Depthwise(device, g), Depthwise("numpy", g)
    relu = int(seed % 3 == 0)
    np.testing.assert_array_equal(fast.forward(x, w, b, relu), reference.forward(x, w, b, relu))
    np.testing.assert_array_equal(fast.backward_input(dy, w), reference.backward_input(dy, w))
    for ours, theirs in zip(
        fast.backward_weight(x, dy, b.size), reference.backward_weight(x, dy, b.size)
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("device", FAST)
@given(geometries(), seeds)
def test_within_rounding_of_the_float64_reference(device, g, seed):
    x, w, b, dy = arrays(g, normal, np.random.default_rng(seed))
    assume_affordable(device, x.size, dy.size)
    wide = [a.astype(np.float64) for a in (x, w, b, dy)]
    size = [np.abs(a) for a in wide]
    fast, reference = Depthwise(device, g), Depthwise("numpy", g)
    terms = int(np.prod(g["K"])) * g["M"]
    magnitude = reference.forward(*size[:3])
    assert_within(fast.forward(x, w, b), reference.forward(*wide[:3]), terms, magnitude)
    magnitude = reference.backward_input(size[3], size[1])
    dx = reference.backward_input(wide[3], wide[1])
    assert_within(fast.backward_input(dy, w), dx, terms, magnitude)
    terms = g["N"] * int(np.prod(g["O"]))
    for ours, theirs, magnitude in zip(
        fast.backward_weight(x, dy),
        reference.backward_weight(wide[0], wide[3]),
        reference.backward_weight(size[0], size[3]),
    ):
        assert_within(ours, theirs, terms, magnitude)


@given(geometries(), seeds)
def test_gradients_of_the_reference(g, seed):
    rng = np.random.default_rng(seed)
    x, w, b, _ = arrays(g, normal, rng, dtype=np.float64)
    layer = Depthwise("numpy", g)
    check_gradient(
        lambda x: layer.forward(x, w, b), lambda x, dy: layer.backward_input(dy, w), x, rng
    )
    check_gradient(
        lambda w: layer.forward(x, w, b), lambda w, dy: layer.backward_weight(x, dy)[0], w, rng
    )
    check_gradient(
        lambda b: layer.forward(x, w, b), lambda b, dy: layer.backward_weight(x, dy)[1], b, rng
    )


@settings(max_examples=10)
@given(geometries(), seeds)
@example(geometry(N=9, size=(20, 20), C=40), 0)
@example(geometry(N=3, size=(20, 20), C=40, M=2), 0)
def test_the_same_bits_on_one_thread_and_on_all(g, seed):
    x, w, b, dy = arrays(g, normal, np.random.default_rng(seed))
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        layer = Depthwise("cpu", g)
        results.append(
            [layer.forward(x, w, b), layer.backward_input(dy, w), *layer.backward_weight(x, dy)]
        )
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("device", FAST)
def test_a_nan_stays_in_its_channel_and_passes_through_relu(device):
    g = geometry(size=(3, 3), C=20, P=(1, 1), O=(3, 3))
    x, w, b, dy = arrays(g, normal, np.random.default_rng(0))
    x[0, 0, 0, 3] = np.nan
    y = Depthwise(device, g).forward(x, w, b, relu=1)
    assert np.isnan(y[0, :2, :2, 3]).all()
    assert np.isfinite(np.delete(y, 3, axis=-1)).all()
    dw, _ = Depthwise(device, g).backward_weight(x, dy)
    assert np.isnan(dw[:2, :2, 3]).all()
    assert np.isfinite(np.delete(dw, 3, axis=2)).all()


@settings(max_examples=20)
@given(geometries(), seeds)
def test_torch_agrees(g, seed):
    torch = pytest.importorskip("torch")
    x, w, b, _ = arrays(g, normal, np.random.default_rng(seed))
    axes = zip(g["O"], g["S"], g["K"], g["L"], g["size"], g["P"])
    ends = [max((o - 1) * s + (k - 1) * l + 1 - d - p, 0) for o, s, k, l, d, p in axes]
    pads = [n for p, e in zip(reversed(g["P"]), reversed(ends)) for n in (p, e)]
    padded = torch.nn.functional.pad(torch.from_numpy(x).permute(0, 3, 1, 2), pads)
    filters = torch.from_numpy(w).permute(2, 3, 0, 1).reshape(-1, 1, *g["K"])
    theirs = torch.nn.functional.conv2d(
        padded, filters, torch.from_numpy(b), stride=g["S"], dilation=g["L"], groups=g["C"]
    )
    theirs = theirs.permute(0, 2, 3, 1).numpy()[:, : g["O"][0], : g["O"][1]]
    np.testing.assert_allclose(Depthwise("cpu", g).forward(x, w, b), theirs, rtol=1e-4, atol=1e-4)
