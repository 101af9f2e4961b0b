"""GRU: reference, CPU and mathematics agree."""

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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("reset_after", [0, 1])
def test_worked_example(device, reset_after):
    linear = {"activation": LINEAR, "recurrent_activation": LINEAR, "reset_after": reset_after}
    case = arrays("gru", {"N": 1, "T": 1, "C": 1, "U": 1, **linear})
    case["x"][:], case["u"][:], case["h0"][:], case["dy"][:] = 2, [[0, 0, 3]], 5, 1
    case["w"][:], case["b"][:] = [[1, 2, 3]], [[0, 0, 1], [0, 0, 10]] if reset_after else [0, 0, 1]
    values = train("gru", device, case)
    # z, r = 2, 4; seen = 5 * 3 + 10 after, and 5 * 4 before the product with 3
    a = 2 * 3 + 1 + (4 * 25 if reset_after else 20 * 3)
    assert values["y"].item() == values["h_last"].item() == 2 * 5 + (1 - 2) * a
    # dz = h0 - a, da = 1 - z, dr = da times what r multiplies
    gates = [5 - a, -25 if reset_after else -15, -1]
    assert values["db"].tolist() == ([gates, [*gates[:2], -4]] if reset_after else gates)
    assert values["dw"].tolist() == [[2 * g for g in gates]]
    assert values["du"].tolist() == [[5 * gates[0], 5 * gates[1], -20]]
    assert values["dx"].item() == gates[0] * 1 + gates[1] * 2 + gates[2] * 3


@pytest.mark.parametrize("device", FAST)
@given(cases)
@example({**DEFAULTS, "N": 1, "T": 1, "C": 1, "U": 1})
@example({**DEFAULTS, "N": 5, "T": 4, "C": 2, "U": 2, "dropped": True})  # sums in parts on CUDA
@example({**DEFAULTS, "N": 70, "T": 5, "C": 28, "U": 64, "masked": True, "dropped": True})
@example({**DEFAULTS, "N": 70, "U": 64, "masked": True, "dropped": True, "reset_after": 0})
@example({**DEFAULTS, "N": 300, "T": 2, "pair": (GELU, HARD_SIGMOID)})
def test_near_the_float64_reference(device, case):
    assume_affordable(device, case["N"] * case["T"] * case["C"])
    values = arrays("gru", case)
    expected = train("gru", "numpy", values, np.float64)
    assert_near(train("gru", device, values), expected)


@pytest.mark.parametrize("device", FAST)
@given(cases)
@settings(max_examples=4 if SIMULATED else 15)
def test_equal_to_the_reference_on_integers(device, case):
    rng = np.random.default_rng(case["seed"])
    draw = lambda *shape: rng.integers(-2, 3, shape).astype(np.float32)  # noqa: E731
    linear = {"T": 1, "C": 5, "U": 3, "pair": (LINEAR, LINEAR)}
    values = arrays("gru", {**case, **linear}, draw)
    values["u"] = draw(*values["u"].shape)
    assert_same(train("gru", device, values), train("gru", "numpy", values))


@given(cases)
@settings(max_examples=20)
def test_gradients_of_the_reference(case):
    values = arrays("gru", mild(case))
    rng = np.random.default_rng(case["seed"])
    for name in ["x", "w", "u", *(["b"] if case["bias"] else [])]:

        def function(a, name=name):
            return forward("gru", "numpy", {**values, name: a}, np.float64)["y"]

        def gradient(a, dy, name=name):
            return train("gru", "numpy", {**values, name: a, "dy": dy}, np.float64)[f"d{name}"]

        check_gradient(function, gradient, values[name], rng)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("T", [1, 2, 5])
@pytest.mark.parametrize("reset_after", [0, 1])
def test_two_slots_are_enough_to_predict(device, T, reset_after):
    for sequences in (True, False):
        values = arrays(
            "gru", {"T": T, "sequences": sequences, "masked": True, "reset_after": reset_after}
        )
        short, whole = (forward("gru", device, values, short=short) for short in (True, False))
        assert_same(short, whole, ["y", "h_last"])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("reset_after", [0, 1])
def test_a_masked_step_is_as_if_it_were_not_there(device, reset_after):
    values = arrays("gru", {"N": 1, "T": 5, "sequences": False, "reset_after": reset_after})
    keep = [1, 2, 4]
    values["mask"] = np.isin(np.arange(5), keep).astype(np.uint8)[None]
    shorter = {**values, "T": 3, "x": values["x"][:, keep].copy(), "mask": np.zeros((0, 0), "u1")}
    whole, part = train("gru", device, values), train("gru", device, shorter)
    assert_near(whole, part, ["y", "h_last", "dw", "du", "db"], 1e-6)
    np.testing.assert_array_equal(whole["dx"][:, [0, 3]], 0)


@pytest.mark.parametrize("device", DEVICES)
def test_masked_outputs_repeat_the_state(device):
    values = arrays("gru", {"N": 2, "T": 3})
    values["mask"] = np.array([[0, 0, 0], [0, 1, 0]], np.uint8)
    result = train("gru", device, values)
    np.testing.assert_array_equal(result["y"][0], values["h0"][[0, 0, 0]])
    np.testing.assert_array_equal(result["y"][1, 0], values["h0"][1])
    np.testing.assert_array_equal(result["y"][1, 1], result["y"][1, 2])
    np.testing.assert_array_equal(result["dgates"][:, 0], 0)


@pytest.mark.parametrize("device", DEVICES)
def test_backwards_reads_the_sequence_from_its_end(device):
    values = arrays("gru", {"masked": True})
    ahead, back = train("gru", device, values), train("gru", device, flipped(values))
    assert_near(ahead, back, ["y", "h_last", "dw", "du", "db"], 1e-6)
    np.testing.assert_allclose(ahead["dx"], back["dx"][:, ::-1], atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("reset_after", [0, 1])
def test_options_of_the_backward_pass(device, reset_after):
    values = arrays(
        "gru", {"masked": True, "recurrent_activation": GELU, "reset_after": reset_after}
    )
    usual = train("gru", device, values)
    assert_same(train("gru", device, values, in_place=False), usual)
    without = train("gru", device, values, input_gradient=False)
    assert_same(without, usual, ["dw", "du", "db"])


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_bits_on_any_number_of_threads():
    values = arrays("gru", {"N": 37, "T": 20, "C": 20, "U": 30, "masked": True})
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append(train("gru", "cpu", values))
    assert_same(*results)


@pytest.mark.parametrize("device", FAST)
def test_nan_reaches_the_output(device):
    values = arrays("gru", {"N": 2, "U": 9})
    values["x"][0, 1, 0] = np.nan
    y = forward("gru", device, values)["y"]
    assert np.isfinite(y[0, 0]).all()
    assert np.isnan(y[0, 1:]).all()
    assert np.isfinite(y[1]).all()


@pytest.mark.parametrize("backwards", [0, 1])
def test_agreement_with_pytorch(backwards):
    """PyTorch has the gates r, z, n and resets after."""
    torch = pytest.importorskip("torch")
    values = arrays("gru", {"N": 6, "T": 7, "C": 10, "U": 33, "backwards": backwards})
    ours = train("gru", "cpu", values)

    def swapped(a):
        z, r, n = np.split(a, 3, axis=-1)
        return np.concatenate([r, z, n], axis=-1)

    theirs = torch.nn.GRU(10, 33, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.tensor(swapped(values["w"]).T))
        theirs.weight_hh_l0.copy_(torch.tensor(swapped(values["u"]).T))
        theirs.bias_ih_l0.copy_(torch.tensor(swapped(values["b"])[0]))
        theirs.bias_hh_l0.copy_(torch.tensor(swapped(values["b"])[1]))
    order = slice(None, None, -1 if backwards else 1)
    x = torch.tensor(values["x"][:, order].copy(), requires_grad=True)
    y, h = theirs(x, torch.tensor(values["h0"][None]))
    y.backward(torch.tensor(values["dy"]))
    biases = torch.stack([theirs.bias_ih_l0.grad, theirs.bias_hh_l0.grad])
    expected = {
        "y": y.detach().numpy(), "h_last": h[0].detach().numpy(), "dx": x.grad.numpy()[:, order],
        "dw": swapped(theirs.weight_ih_l0.grad.T.numpy()),
        "du": swapped(theirs.weight_hh_l0.grad.T.numpy()), "db": swapped(biases.numpy()),
    }  # fmt: skip
    assert_near(ours, expected)


@pytest.mark.parametrize("device", FAST)
def test_large_inputs_saturate(device):
    values = arrays("gru", {})
    values["x"] *= 1e4
    expected = forward("gru", "numpy", values, np.float64)
    with np.errstate(over="ignore"):  # seen only without compilation
        assert_near(forward("gru", device, values), expected, ["y", "h_last"])


def test_recurrent_dropout_agrees_with_pytorch():
    values = arrays("gru", {"N": 5, "T": 6, "C": 4, "U": 18, "dropped": True})
    assert_near(train("gru", "cpu", values), by_pytorch("gru", values))
