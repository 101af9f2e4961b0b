"""Transposed convolution: reference, CPU and mathematics agree, whatever the geometry."""

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
from strategies import seeds, upto

from minicnnrnn.kernels import gpu


def geometry(
    N=1, D=(1, 3, 3), C=1, F=1, K=(1, 3, 3), S=(1, 1, 1), L=(1, 1, 1), P=(0, 0, 0), O=None
):
    """A transposed convolution's integers; all that the inputs reach unless `O` says otherwise."""
    if O is None:
        O = tuple((d - 1) * s + (k - 1) * l + 1 for d, s, k, l in zip(D, S, K, L))
    return {"N": N, "D": D, "C": C, "F": F, "K": K, "S": S, "L": L, "P": P, "O": O}


@st.composite
def axes(draw):
    """(length, kernel, stride, dilation, cut in front, outputs): some of them beyond reach."""
    length = draw(st.integers(1, 3 if gpu.SIMULATED else 7))
    kernel = draw(st.integers(1, 4))
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    reach = (length - 1) * stride + (kernel - 1) * dilation + 1
    before = draw(st.integers(0, (kernel - 1) * dilation))
    outputs = draw(st.integers(max(1, reach - before - 2), reach - before + 2))
    return length, kernel, stride, dilation, before, outputs


@st.composite
def geometries(draw):
    drawn = [draw(axes()) for _ in range(draw(st.integers(1, 3)))]
    D, K, S, L, P, O = zip(*([(1, 1, 1, 1, 0, 1)] * (3 - len(drawn)) + drawn))
    C, F = draw(upto(20)), draw(upto(20))
    return geometry(draw(upto(3)), D, C, F, K, S, L, P, O)


def products(g):
    """Multiply-adds of one pass."""
    return int(np.prod([g["N"], *g["D"], *g["K"], g["C"], g["F"]]))


class Transposed:
    """The passes of one transposed convolution on one device."""

    def __init__(self, device, g):
        self.device, self.g = device, g
        self.integers = (*g["S"], *g["L"], *g["P"])
        self.ws = nans(
            self.call(
                "workspace", g["N"], *g["D"], g["C"], *g["O"], g["F"], *g["K"], *g["S"], *g["L"]
            )
        )

    def call(self, name, *arguments):
        return kernel("conv_transpose", f"conv_transpose_{name}", self.device)(*arguments)

    def forward(self, x, w, b, relu=0):
        y = nans(self.g["N"], *self.g["O"], self.g["F"], dtype=x.dtype)
        self.call("forward", y, x, w, b, *self.integers, relu, self.ws)
        return y

    def backward_input(self, dy, w):
        dx = nans(self.g["N"], *self.g["D"], self.g["C"], dtype=dy.dtype)
        self.call("backward_input", dx, dy, w, *self.integers, self.ws)
        return dx

    def backward_weight(self, x, dy, bias=True):
        dw = nans(*self.g["K"], self.g["F"], self.g["C"], dtype=x.dtype)
        db = nans(self.g["F"] if bias else 0, dtype=x.dtype)
        self.call("backward_weight", dw, db, x, dy, *self.integers, self.ws)
        return dw, db


def arrays(g, make, rng, bias=True, **kwargs):
    x = make(rng, g["N"], *g["D"], g["C"], **kwargs)
    w = make(rng, *g["K"], g["F"], g["C"], **kwargs)
    b = make(rng, g["F"] if bias else 0, **kwargs)
    dy = make(rng, g["N"], *g["O"], g["F"], **kwargs)
    return x, w, b, dy


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    # Two inputs, two apart, spread by three taps; the first output is cut off, one added.
    layer = Transposed(
        device, geometry(D=(1, 1, 2), K=(1, 1, 3), S=(1, 1, 2), P=(0, 0, 1), O=(1, 1, 5))
    )
    x = np.array([1, 10], np.float32).reshape(1, 1, 1, 2, 1)
    w = np.array([1, 2, 3], np.float32).reshape(1, 1, 3, 1, 1)
    y = layer.forward(x, w, np.array([100], np.float32))
    assert y.ravel().tolist() == [102, 113, 120, 130, 100]
    y = layer.forward(x, w, np.array([-20], np.float32), relu=1)
    assert y.ravel().tolist() == [0, 0, 0, 10, 0]
    dy = np.array([1, 2, 0, 0, 5], np.float32).reshape(y.shape)
    assert layer.backward_input(dy, w).ravel().tolist() == [8, 2]
    dw, db = layer.backward_weight(x, dy)
    assert dw.ravel().tolist() == [20, 1, 2]
    assert db.tolist() == [8]


@pytest.mark.parametrize("device", FAST)
@given(geometries(), seeds)
@example(geometry(D=(1, 1, 1), K=(1, 1, 1)), 0)
@example(geometry(N=3, D=(1, 4, 5), K=(1, 1, 1), C=19, F=35), 1)  # one matrix product
@example(geometry(D=(2, 3, 3), K=(1, 2, 2), S=(2, 3, 3), C=2, F=33), 2)  # outputs out of reach
@example(geometry(D=(1, 2, 2), K=(1, 2, 2), S=(1, 3, 3), C=2, F=3), 6)
@example(geometry(N=2, D=(1, 14, 14), K=(1, 4, 4), S=(1, 2, 2), C=16, F=3, P=(0, 1, 1)), 3)
def test_equals_the_reference_exactly_on_integers(device, g, seed):
    x, w, b, dy = arrays(g, integer_valued, np.random.default_rng(seed), bias=seed % 2 == 0)
    assume_affordable(device, 4 * x.size, 4 * dy.size, products(g) // 10)
    fast, reference = Transposed(device, g), Transposed("numpy", g)
    relu = int(seed % 3 == 0)
    np.testing.assert_array_equal(fast.forward(x, w, b, relu), reference.forward(x, w, b, relu))
    np.testing.assert_array_equal(fast.backward_input(dy, w), reference.backward_input(dy, w))
    for ours, theirs in zip(
        fast.backward_weight(x, dy, b.size), reference.backward_weight(x, dy, b.size)
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("device", FAST)
@settings(max_examples=6 if gpu.SIMULATED else 15)
@given(geometries(), seeds)
def test_within_rounding_of_the_float64_reference(device, g, seed):
    x, w, b, dy = arrays(g, normal, np.random.default_rng(seed))
    assume_affordable(device, 4 * x.size, 4 * dy.size, products(g) // 10)
    wide = [a.astype(np.float64) for a in (x, w, b, dy)]
    size = [np.abs(a) for a in wide]
    fast, reference = Transposed(device, g), Transposed("numpy", g)
    terms = int(np.prod(g["K"])) * max(g["C"], g["F"])
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


@settings(max_examples=15)
@given(geometries(), seeds)
def test_gradients_of_the_reference(g, seed):
    rng = np.random.default_rng(seed)
    x, w, b, _ = arrays(g, normal, rng, dtype=np.float64)
    layer = Transposed("numpy", g)
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
@example(geometry(N=9, D=(1, 12, 12), S=(1, 2, 2), C=20, F=3), 0)
def test_the_same_bits_on_one_thread_and_on_all(g, seed):
    x, w, b, dy = arrays(g, normal, np.random.default_rng(seed))
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        layer = Transposed("cpu", g)
        results.append(
            [layer.forward(x, w, b), layer.backward_input(dy, w), *layer.backward_weight(x, dy)]
        )
    for one, many in zip(*results):
        np.testing.assert_array_equal(one, many)


@settings(max_examples=15)
@given(geometries(), seeds)
def test_torch_agrees(g, seed):
    torch = pytest.importorskip("torch")
    x, w, b, _ = arrays(g, normal, np.random.default_rng(seed))
    theirs = torch.nn.functional.conv_transpose3d(
        torch.from_numpy(x).permute(0, 4, 1, 2, 3), torch.from_numpy(w).permute(4, 3, 0, 1, 2),
        stride=g["S"], dilation=g["L"],
    ).permute(0, 2, 3, 4, 1).numpy()  # fmt: skip
    expected = np.zeros((g["N"], *g["O"], g["F"]), np.float32)
    cut = theirs[(slice(None), *(slice(p, p + o) for p, o in zip(g["P"], g["O"])))]
    expected[tuple(slice(n) for n in cut.shape)] = cut
    actual = Transposed("cpu", g).forward(x, w, b)
    np.testing.assert_allclose(actual, expected + b, rtol=1e-4, atol=1e-4)
