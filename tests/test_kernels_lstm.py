"""LSTM: reference, CPU and mathematics agree."""

import numba
import numpy as np
import pytest
from checks import DEVICES, FAST, assume_affordable, check_gradient
from hypothesis import example, given, settings
from recurrent_cases import (
    DEFAULTS,
    arrays,
    assert_near,
    assert_same,
    by_pytorch,
    cases,
    flipped,
    forward,
    mild,
    train,
)

from minicnnrnn.kernels.codes import GELU, HARD_SIGMOID, LINEAR
from minicnnrnn.kernels.gpu import SIMULATED
from minicnnrnn.kernels.jit import JIT

NAMES = ["y", "h_last", "c_last", "dx", "dw", "du", "db"]


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    linear = {"activation": LINEAR, "recurrent_activation": LINEAR}
    case = arrays("lstm", {"N": 1, "T": 1, "C": 1, "U": 1, **linear})
    case["x"][:], case["u"][:], case["b"][:] = 2, 0, [0, 0, 0, 1]
    case["h0"][:], case["c0"][:], case["dy"][:] = 5, 10, 1
    case["w"][:] = [[1, 2, 3, 4]]  # i, f, g, o = 2, 4, 6, 9
    values = train("lstm", device, case)
    assert values["c_last"].item() == 4 * 10 + 2 * 6
    assert values["y"].item() == values["h_last"].item() == 9 * 52
    # do = c, dc = o; di = dc g, df = dc c0, dg = dc i
    assert values["db"].tolist() == [54, 90, 18, 52]
    assert values["dw"].tolist() == [[108, 180, 36, 104]]
    assert values["du"].tolist() == [[270, 450, 90, 260]]
    assert values["dx"].item() == 54 * 1 + 90 * 2 + 18 * 3 + 52 * 4


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example_with_the_usual_activations(device):
    case = arrays("lstm", {"N": 1, "T": 1, "C": 1, "U": 1, "bias": False})
    case["x"][:], case["w"][:], case["h0"][:], case["c0"][:] = 1, 1, 0, 0
    values = forward("lstm", device, case)
    np.testing.assert_allclose(values["c_last"], 0.7310586 * 0.7615942, rtol=1e-6)
    np.testing.assert_allclose(values["y"], 0.3696063, rtol=1e-6)


@pytest.mark.parametrize("device", FAST)
@given(cases)
@example({**DEFAULTS, "N": 1, "T": 1, "C": 1, "U": 1})
@example({**DEFAULTS, "N": 5, "T": 4, "C": 2, "U": 2, "dropped": True})  # sums in parts on CUDA
@example({**DEFAULTS, "N": 70, "T": 5, "C": 28, "U": 64, "masked": True, "dropped": True})
@example({**DEFAULTS, "N": 300, "T": 2, "pair": (GELU, HARD_SIGMOID)})
def test_near_the_float64_reference(device, case):
    assume_affordable(device, case["N"] * case["T"] * case["C"])
    values = arrays("lstm", case)
    expected = train("lstm", "numpy", values, np.float64)
    assert_near(train("lstm", device, values), expected, NAMES)


@pytest.mark.parametrize("device", FAST)
@given(cases)
@settings(max_examples=4 if SIMULATED else 15)
def test_equal_to_the_reference_on_integers(device, case):
    rng = np.random.default_rng(case["seed"])
    draw = lambda *shape: rng.integers(-2, 3, shape).astype(np.float32)  # noqa: E731
    linear = {"T": 1, "C": 5, "U": 3, "pair": (LINEAR, LINEAR)}
    values = arrays("lstm", {**case, **linear}, draw)
    values["u"] = draw(*values["u"].shape)
    assert_same(train("lstm", device, values), train("lstm", "numpy", values), NAMES)


@given(cases)
@settings(max_examples=20)
def test_gradients_of_the_reference(case):
    values = arrays("lstm", mild(case))
    rng = np.random.default_rng(case["seed"])
    for name in ["x", "w", "u", *(["b"] if case["bias"] else [])]:

        def function(a, name=name):
            return forward("lstm", "numpy", {**values, name: a}, np.float64)["y"]

        def gradient(a, dy, name=name):
            return train("lstm", "numpy", {**values, name: a, "dy": dy}, np.float64)[f"d{name}"]

        check_gradient(function, gradient, values[name], rng)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("T", [1, 2, 5])
def test_two_slots_are_enough_to_predict(device, T):
    for sequences in (True, False):
        values = arrays("lstm", {"T": T, "sequences": sequences, "masked": True})
        short, whole = (forward("lstm", device, values, short=short) for short in (True, False))
        assert_same(short, whole, ["y", "h_last", "c_last"])


@pytest.mark.parametrize("device", DEVICES)
def test_a_masked_step_is_as_if_it_were_not_there(device):
    values = arrays("lstm", {"N": 1, "T": 5, "sequences": False})
    keep = [1, 2, 4]
    values["mask"] = np.isin(np.arange(5), keep).astype(np.uint8)[None]
    shorter = {**values, "T": 3, "x": values["x"][:, keep].copy(), "mask": np.zeros((0, 0), "u1")}
    whole, part = train("lstm", device, values), train("lstm", device, shorter)
    assert_near(whole, part, ["y", "h_last", "c_last", "dw", "du", "db"], 1e-6)
    np.testing.assert_array_equal(whole["dx"][:, [0, 3]], 0)


@pytest.mark.parametrize("device", DEVICES)
def test_masked_outputs_repeat_the_state(device):
    values = arrays("lstm", {"N": 2, "T": 3})
    values["mask"] = np.array([[0, 0, 0], [0, 1, 0]], np.uint8)
    result = train("lstm", device, values)
    np.testing.assert_array_equal(result["y"][0], values["h0"][[0, 0, 0]])
    np.testing.assert_array_equal(result["y"][1, 0], values["h0"][1])
    np.testing.assert_array_equal(result["y"][1, 1], result["y"][1, 2])
    np.testing.assert_array_equal(result["c_last"][0], values["c0"][0])
    np.testing.assert_array_equal(result["dgates"][:, 0], 0)


@pytest.mark.parametrize("device", DEVICES)
def test_backwards_reads_the_sequence_from_its_end(device):
    values = arrays("lstm", {"masked": True})
    ahead, back = train("lstm", device, values), train("lstm", device, flipped(values))
    assert_near(ahead, back, ["y", "h_last", "c_last", "dw", "du", "db"], 1e-6)
    np.testing.assert_allclose(ahead["dx"], back["dx"][:, ::-1], atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_options_of_the_backward_pass(device):
    values = arrays("lstm", {"masked": True, "recurrent_activation": GELU})
    usual = train("lstm", device, values)
    assert_same(train("lstm", device, values, in_place=False), usual, NAMES)
    without = train("lstm", device, values, input_gradient=False)
    assert_same(without, usual, ["dw", "du", "db"])


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_bits_on_any_number_of_threads():
    values = arrays("lstm", {"N": 37, "T": 20, "C": 20, "U": 30, "masked": True})
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append(train("lstm", "cpu", values))
    assert_same(*results, NAMES)


@pytest.mark.skipif(not JIT, reason="NumPy sums in an order of its own")
@given(cases)
@settings(max_examples=20)
@example({**DEFAULTS, "N": 2, "T": 28, "C": 28, "U": 128, "backwards": 1, "masked": True})
def test_a_sample_alone_gets_the_bits_that_it_gets_in_a_batch(case):
    """Its inputs meet their weights before the first step: the sums are the same chains."""
    values = arrays("lstm", {**case, "N": case["N"] + 1})
    alone = {
        name: value[:1] if name in ("x", "mask", "keep", "h0", "c0", "dy") else value
        for name, value in values.items()
    }
    alone["N"] = 1
    for short in (True, False):
        together, one = (forward("lstm", "cpu", each, short=short) for each in (values, alone))
        assert_same({name: together[name][:1] for name in NAMES[:3]}, one, NAMES[:3])


@pytest.mark.parametrize("device", FAST)
def test_nan_reaches_the_output(device):
    values = arrays("lstm", {"N": 2, "U": 9})
    values["x"][0, 1, 0] = np.nan
    y = forward("lstm", device, values)["y"]
    assert np.isfinite(y[0, 0]).all()
    assert np.isnan(y[0, 1:]).all()
    assert np.isfinite(y[1]).all()


@pytest.mark.parametrize("backwards", [0, 1])
def test_agreement_with_pytorch(backwards):
    torch = pytest.importorskip("torch")
    values = arrays("lstm", {"N": 6, "T": 7, "C": 10, "U": 33, "backwards": backwards})
    ours = train("lstm", "cpu", values)
    theirs = torch.nn.LSTM(10, 33, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.tensor(values["w"].T))
        theirs.weight_hh_l0.copy_(torch.tensor(values["u"].T))
        theirs.bias_ih_l0.copy_(torch.tensor(values["b"]))
        theirs.bias_hh_l0.zero_()
    order = slice(None, None, -1 if backwards else 1)
    x = torch.tensor(values["x"][:, order].copy(), requires_grad=True)
    state = tuple(torch.tensor(values[name][None]) for name in ("h0", "c0"))
    y, (h, c) = theirs(x, state)
    y.backward(torch.tensor(values["dy"]))
    expected = {
        "y": y, "h_last": h[0], "c_last": c[0], "dw": theirs.weight_ih_l0.grad.T,
        "du": theirs.weight_hh_l0.grad.T, "db": theirs.bias_ih_l0.grad,
    }  # fmt: skip
    expected = {name: value.detach().numpy() for name, value in expected.items()}
    assert_near(ours, {**expected, "dx": x.grad.numpy()[:, order]}, NAMES)


@pytest.mark.parametrize("device", FAST)
def test_large_inputs_saturate(device):
    values = arrays("lstm", {})
    values["x"] *= 1e4
    expected = forward("lstm", "numpy", values, np.float64)
    with np.errstate(over="ignore"):  # seen only without compilation
        assert_near(forward("lstm", device, values), expected, ["y", "h_last"])


def test_recurrent_dropout_agrees_with_pytorch():
    values = arrays("lstm", {"N": 5, "T": 6, "C": 4, "U": 18, "dropped": True})
    assert_near(train("lstm", "cpu", values), by_pytorch("lstm", values))
