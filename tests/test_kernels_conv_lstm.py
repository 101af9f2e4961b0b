"""The cell of a convolutional LSTM: reference, CPU and mathematics agree.

The convolution with u is a matrix product here: a kernel of one pixel. The layer's tests have the
real ones.
"""

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, assume_affordable, check_gradient, kernel, nans
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recurrent_cases import PAIRS, assert_near, assert_same
from recurrent_cases import train as train_rows
from strategies import seeds, upto

from minicnnrnn.kernels import gpu
from minicnnrnn.kernels.codes import GELU, HARD_SIGMOID, LINEAR, SIGMOID, TANH
from minicnnrnn.kernels.jit import JIT

NAMES = ["y", "h_last", "c_last", "dz", "du"]

cases = st.fixed_dictionaries(
    {
        "N": upto(4),
        "T": upto(5),
        "P": upto(6),
        "F": upto(20),
        "seed": seeds,
        "sequences": st.booleans(),
        "masked": st.booleans(),
        "dropped": st.booleans(),
        "started": st.booleans(),
        "backwards": st.integers(0, 1),
        "pair": st.sampled_from(PAIRS),
    }
)
DEFAULTS = {
    "N": 2, "T": 4, "P": 3, "F": 5, "seed": 0, "sequences": True, "masked": False,
    "dropped": False, "started": True, "backwards": 0, "pair": (TANH, SIGMOID),
}  # fmt: skip


def arrays(case, draw=None):
    case = {**DEFAULTS, **case}
    N, T, P, F = (case[name] for name in "NTPF")
    rng = np.random.default_rng(case["seed"])
    draw = draw or (lambda *shape: rng.standard_normal(shape).astype(np.float32) / 2)
    mask = rng.integers(0, 2, (N, T) if case["masked"] else (0, 0))
    keep = 2 * rng.integers(0, 2, (N, P, F) if case["dropped"] else (0, 0, 0))
    started = np.float32(case["started"])
    return {
        **case,
        "z": draw(T, N, P, 4 * F),
        "u": draw(F, 4 * F) / np.float32(max(1, round(F**0.5))),
        "h0": draw(N, P, F) * started,
        "c0": draw(N, P, F) * started,
        "dy": draw(N, T if case["sequences"] else 1, P, F),
        "mask": mask.astype(np.uint8),
        "keep": keep.astype(np.float32),
    }


def forward(device, given, dtype=np.float32, short=False):
    """All steps of a sequence, with the whole history or with two slots only."""
    values = {
        name: value.astype(dtype) if getattr(value, "dtype", None) == np.float32 else value
        for name, value in given.items()
    }
    N, T, P, F = (values[name] for name in "NTPF")
    slots = 2 if short else T + 1
    h, c = nans(slots, N, P, F, dtype=dtype), nans(slots, N, P, F, dtype=dtype)
    h[0], c[0] = values["h0"], values["c0"]
    gates, y = nans(slots - 1, N, P, 4 * F, dtype=dtype), nans(*values["dy"].shape, dtype=dtype)
    ws = nans(max(1, kernel("conv_lstm", "conv_lstm_workspace", device)(F)))
    for s in range(T):
        gates[s % len(gates)] = values["z"][s]
        old = h[s % slots] * values["keep"] if given["dropped"] else h[s % slots]
        seen = old @ values["u"] if s or given["started"] else nans(0, 0, 0, dtype=dtype)
        kernel("conv_lstm", "conv_lstm_forward", device)(
            y, h, c, gates, seen, values["mask"], *given["pair"], T, s, given["backwards"], ws
        )
    last = {"h_last": h[T % slots], "c_last": c[T % slots]}
    return {**values, **last, "y": y, "h": h, "c": c, "gates": gates, "ws": ws}


def train(device, given, dtype=np.float32, in_place=True):
    """Forward, and back again."""
    values = forward(device, given, dtype)
    N, T, P, F = (values[name] for name in "NTPF")
    gates, keep, u = values["gates"], values["keep"], values["u"]
    dgates = gates if in_place else nans(*gates.shape, dtype=dtype)
    dh, dc = nans(N, P, F, dtype=dtype), nans(N, P, F, dtype=dtype)
    arriving, du = nans(0, 0, 0, dtype=dtype), np.zeros_like(u)
    for s in range(T - 1, -1, -1):
        kernel("conv_lstm", "conv_lstm_backward", device)(
            dgates, dh, dc, values["dy"], gates, values["c"], arriving, keep, values["mask"],
            *given["pair"], T, s, given["backwards"], values["ws"],
        )  # fmt: skip
        arriving = dgates[s] @ u.T
        old = values["h"][s] * keep if given["dropped"] else values["h"][s]
        du += np.tensordot(old, dgates[s], ((0, 1), (0, 1)))
    return {**values, "dz": dgates, "du": du}


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    case = arrays({"N": 1, "T": 2, "P": 1, "F": 1, "pair": (LINEAR, LINEAR), "started": False})
    case["z"][:, 0, 0], case["u"][:] = [[2, 3, 4, 5], [1, 1, 1, 1]], [[0, 0, 0, 1]]
    case["dy"][:] = 1
    values = train(device, case)
    # c = 2 * 4, h = 5 * 8; then o = 1 + 40, c = 1 * 8 + 1 * 1, h = 41 * 9
    assert values["y"].ravel().tolist() == [40, 369]
    assert values["c_last"].item() == 9
    # Second step: do = 9, dc = 41, di, df, dg = 41 * (1, 8, 1). First: dh = 1 + 9,
    # do = 10 * 8, dc = 10 * 5 + 41 * 1, di = 91 * 4, dg = 91 * 2.
    assert values["dz"][1].ravel().tolist() == [41, 41 * 8, 41, 9]
    assert values["dz"][0].ravel().tolist() == [364, 0, 182, 80]


@pytest.mark.parametrize("device", FAST)
@given(cases)
@example({**DEFAULTS, "N": 1, "T": 1, "P": 1, "F": 1})
@example({**DEFAULTS, "N": 3, "P": 200, "F": 32, "masked": True, "dropped": True})
@example({**DEFAULTS, "pair": (GELU, HARD_SIGMOID), "started": False, "sequences": False})
def test_near_the_float64_reference(device, case):
    values = arrays(case)
    assume_affordable(device, values["z"].size // 4)
    assert_near(train(device, values), train("numpy", values, np.float64), NAMES)


@pytest.mark.parametrize("device", FAST)
@given(cases)
@settings(max_examples=6 if gpu.SIMULATED else 15)
def test_equals_the_reference_exactly_on_integers(device, case):
    rng = np.random.default_rng(case["seed"])
    draw = lambda *shape: rng.integers(-2, 3, shape).astype(np.float32)  # noqa: E731
    values = arrays({**case, "T": 1, "F": 3, "pair": (LINEAR, LINEAR)}, draw)
    values["u"] = draw(*values["u"].shape)
    assert_same(train(device, values), train("numpy", values), NAMES)


@given(cases)
@settings(max_examples=20)
def test_gradients_of_the_reference(case):
    values = arrays(case)
    rng = np.random.default_rng(case["seed"])
    for name in ("z", "u"):

        def function(a, name=name):
            return forward("numpy", {**values, name: a}, np.float64)["y"]

        def gradient(a, dy, name=name):
            return train("numpy", {**values, name: a, "dy": dy}, np.float64)[f"d{name}"]

        check_gradient(function, gradient, values[name], rng)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backwards", [0, 1])
def test_pixels_are_samples_of_an_lstm(device, backwards):
    values = arrays({"N": 2, "T": 4, "P": 3, "F": 5, "masked": True, "dropped": True})
    values["backwards"], rows = backwards, 6
    z = values["z"].reshape(4, rows, 20).swapaxes(0, 1)[:, :: -1 if backwards else 1]
    as_rows = {
        **values, "N": rows, "C": 20, "U": 5, "x": np.ascontiguousarray(z),
        "w": np.eye(20, dtype=np.float32), "b": np.zeros(0, np.float32),
        "mask": np.repeat(values["mask"], 3, axis=0), "keep": values["keep"].reshape(rows, 5),
        "h0": values["h0"].reshape(rows, 5), "c0": values["c0"].reshape(rows, 5),
        "dy": np.ascontiguousarray(values["dy"].swapaxes(1, 2).reshape(rows, 4, 5)),
        "activation": TANH, "recurrent_activation": SIGMOID,
    }  # fmt: skip
    ours, theirs = train(device, values), train_rows("lstm", "numpy", as_rows)
    by_pixel = {
        "y": ours["y"].swapaxes(1, 2).reshape(rows, 4, 5),
        "dgates": ours["dz"].reshape(4, rows, 20),
        "du": ours["du"],
    }
    assert_near(by_pixel, theirs, list(by_pixel), 1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("T", [1, 2, 5])
def test_two_slots_are_enough_to_predict(device, T):
    for sequences in (True, False):
        values = arrays({"T": T, "sequences": sequences, "masked": True})
        short, whole = (forward(device, values, short=short) for short in (True, False))
        assert_same(short, whole, ["y", "h_last", "c_last"])


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_may_take_the_place_of_the_gates(device):
    values = arrays({"masked": True, "pair": (TANH, GELU)})
    assert_same(train(device, values, in_place=False), train(device, values), NAMES)


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_bits_on_any_number_of_threads():
    values = arrays({"N": 5, "P": 64, "F": 33, "masked": True})
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append(train("cpu", values))
    assert_same(*results, NAMES)


@pytest.mark.parametrize("device", FAST)
def test_nan_stays_in_its_pixel(device):
    values = arrays({"N": 1, "F": 20})
    values["z"][1, 0, 1, 3] = np.nan
    y = forward(device, values)["y"]
    assert np.isfinite(y[0, :, [0, 2]]).all()
    assert np.isfinite(y[0, 0]).all()
    assert np.isnan(y[0, 1, 1, 3])
    assert np.isnan(y[0, 2:, 1]).all()
