"""SimpleRNN: reference, CPU and mathematics agree."""

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
    train,
)

from minicnnrnn.kernels.codes import GELU, LINEAR, RELU
from minicnnrnn.kernels.gpu import SIMULATED
from minicnnrnn.kernels.jit import JIT


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example(device):
    case = arrays("simple_rnn", {"N": 1, "T": 2, "C": 1, "U": 1, "activation": RELU})
    case["x"][:] = [[[2], [1]]]
    case["w"][:], case["u"][:], case["b"][:], case["h0"][:], case["dy"][:] = 3, 2, -5, 1, 1
    values = train("simple_rnn", device, case)
    assert values["y"].tolist() == [[[3], [4]]]  # 2 * 3 + 1 * 2 - 5, then 1 * 3 + 3 * 2 - 5
    assert values["h_last"].item() == 4
    assert values["dgates"].tolist() == [[[3]], [[1]]]  # the first: 1 and 2 from the second
    assert values["dx"].tolist() == [[[9], [3]]]
    assert values["dw"].item() == 2 * 3 + 1 * 1
    assert values["du"].item() == 1 * 3 + 3 * 1
    assert values["db"].item() == 4


@pytest.mark.parametrize("device", DEVICES)
def test_worked_example_of_recurrent_dropout(device):
    case = arrays("simple_rnn", {"N": 1, "T": 2, "C": 1, "U": 1, "activation": LINEAR})
    case["x"][:], case["u"][:], case["b"][:], case["h0"][:], case["dy"][:] = 0, 1, 0, 3, 1
    case["keep"] = np.array([[2]], np.float32)
    values = train("simple_rnn", device, case)
    assert values["y"].tolist() == [[[6], [12]]]
    assert values["dgates"].tolist() == [[[3]], [[1]]]  # the first: 1, and 2 * 1 from the second
    assert values["du"].item() == 2 * 3 * 3 + 2 * 6 * 1


@pytest.mark.parametrize("device", FAST)
@given(cases)
@example({**DEFAULTS, "N": 1, "T": 1, "C": 1, "U": 1})
@example({**DEFAULTS, "N": 5, "T": 4, "C": 2, "U": 2, "dropped": True})  # sums in parts on CUDA
@example({**DEFAULTS, "N": 70, "T": 5, "C": 28, "U": 64, "masked": True, "dropped": True})
@example({**DEFAULTS, "N": 300, "T": 2, "activation": GELU})
def test_near_the_float64_reference(device, case):
    assume_affordable(device, case["N"] * case["T"] * case["C"])
    values = arrays("simple_rnn", case)
    expected = train("simple_rnn", "numpy", values, np.float64)
    assert_near(train("simple_rnn", device, values), expected)


@pytest.mark.parametrize("device", FAST)
@given(cases)
@settings(max_examples=4 if SIMULATED else 15)
def test_equal_to_the_reference_on_integers(device, case):
    rng = np.random.default_rng(case["seed"])
    draw = lambda *shape: rng.integers(-2, 3, shape).astype(np.float32)  # noqa: E731
    linear = {"T": 2, "C": 5, "U": 3, "pair": (LINEAR, LINEAR)}
    values = arrays("simple_rnn", {**case, **linear}, draw)
    values["u"] = draw(*values["u"].shape)
    assert_same(train("simple_rnn", device, values), train("simple_rnn", "numpy", values))


@given(cases)
@settings(max_examples=20)
def test_gradients_of_the_reference(case):
    values = arrays("simple_rnn", case)
    rng = np.random.default_rng(case["seed"])
    for name in ["x", "w", "u", *(["b"] if case["bias"] else [])]:

        def function(a, name=name):
            return forward("simple_rnn", "numpy", {**values, name: a}, np.float64)["y"]

        def gradient(a, dy, name=name):
            return train("simple_rnn", "numpy", {**values, name: a, "dy": dy}, np.float64)[
                f"d{name}"
            ]

        check_gradient(function, gradient, values[name], rng)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("T", [1, 2, 5])
def test_two_slots_are_enough_to_predict(device, T):
    for sequences in (True, False):
        values = arrays("simple_rnn", {"T": T, "sequences": sequences, "masked": True})
        short, whole = (
            forward("simple_rnn", device, values, short=short) for short in (True, False)
        )
        assert_same(short, whole, ["y", "h_last"])


@pytest.mark.parametrize("device", DEVICES)
def test_a_masked_step_is_as_if_it_were_not_there(device):
    values = arrays("simple_rnn", {"N": 1, "T": 5, "sequences": False})
    keep = [1, 2, 4]
    values["mask"] = np.isin(np.arange(5), keep).astype(np.uint8)[None]
    shorter = {**values, "T": 3, "x": values["x"][:, keep].copy(), "mask": np.zeros((0, 0), "u1")}
    whole, part = train("simple_rnn", device, values), train("simple_rnn", device, shorter)
    assert_near(whole, part, ["y", "h_last", "dw", "du", "db"], 1e-6)
    np.testing.assert_array_equal(whole["dx"][:, [0, 3]], 0)


@pytest.mark.parametrize("device", DEVICES)
def test_masked_outputs_repeat_the_state(device):
    values = arrays("simple_rnn", {"N": 2, "T": 3})
    values["mask"] = np.array([[0, 0, 0], [0, 1, 0]], np.uint8)
    result = train("simple_rnn", device, values)
    np.testing.assert_array_equal(result["y"][0], values["h0"][[0, 0, 0]])
    np.testing.assert_array_equal(result["y"][1, 0], values["h0"][1])
    np.testing.assert_array_equal(result["y"][1, 1], result["y"][1, 2])
    np.testing.assert_array_equal(result["dgates"][:, 0], 0)


@pytest.mark.parametrize("device", DEVICES)
def test_backwards_reads_the_sequence_from_its_end(device):
    values = arrays("simple_rnn", {"masked": True})
    ahead, back = train("simple_rnn", device, values), train("simple_rnn", device, flipped(values))
    assert_near(ahead, back, ["y", "h_last", "dw", "du", "db"], 1e-6)
    np.testing.assert_allclose(ahead["dx"], back["dx"][:, ::-1], atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_options_of_the_backward_pass(device):
    values = arrays("simple_rnn", {"masked": True, "activation": GELU})
    usual = train("simple_rnn", device, values)
    assert_same(train("simple_rnn", device, values, in_place=False), usual)
    without = train("simple_rnn", device, values, input_gradient=False)
    assert_same(without, usual, ["dw", "du", "db"])


@pytest.mark.skipif(not JIT, reason="threads need compiled kernels")
def test_the_same_bits_on_any_number_of_threads():
    values = arrays("simple_rnn", {"N": 37, "T": 20, "C": 20, "U": 30, "masked": True})
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(threads)
        results.append(train("simple_rnn", "cpu", values))
    assert_same(*results)


@pytest.mark.parametrize("device", FAST)
def test_nan_reaches_the_output(device):
    values = arrays("simple_rnn", {"N": 2, "U": 9})
    values["x"][0, 1, 0] = np.nan
    y = forward("simple_rnn", device, values)["y"]
    assert np.isfinite(y[0, 0]).all()
    assert np.isnan(y[0, 1:]).all()
    assert np.isfinite(y[1]).all()


@pytest.mark.parametrize("backwards", [0, 1])
def test_agreement_with_pytorch(backwards):
    torch = pytest.importorskip("torch")
    values = arrays("simple_rnn", {"N": 6, "T": 7, "C": 10, "U": 33, "backwards": backwards})
    ours = train("simple_rnn", "cpu", values)
    theirs = torch.nn.RNN(10, 33, batch_first=True)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.tensor(values["w"].T))
        theirs.weight_hh_l0.copy_(torch.tensor(values["u"].T))
        theirs.bias_ih_l0.copy_(torch.tensor(values["b"]))
        theirs.bias_hh_l0.zero_()
    order = slice(None, None, -1 if backwards else 1)
    x = torch.tensor(values["x"][:, order].copy(), requires_grad=True)
    y, h = theirs(x, torch.tensor(values["h0"][None]))
    y.backward(torch.tensor(values["dy"]))
    expected = {
        "y": y, "h_last": h[0], "dw": theirs.weight_ih_l0.grad.T, "du": theirs.weight_hh_l0.grad.T,
        "db": theirs.bias_ih_l0.grad,
    }  # fmt: skip
    expected = {name: value.detach().numpy() for name, value in expected.items()}
    assert_near(ours, {**expected, "dx": x.grad.numpy()[:, order]})


@pytest.mark.parametrize("device", FAST)
def test_large_inputs_saturate(device):
    values = arrays("simple_rnn", {})
    values["x"] *= 1e4
    expected = forward("simple_rnn", "numpy", values, np.float64)
    with np.errstate(over="ignore"):  # seen only without compilation
        assert_near(forward("simple_rnn", device, values), expected, ["y", "h_last"])


def test_recurrent_dropout_agrees_with_pytorch():
    values = arrays("simple_rnn", {"N": 5, "T": 6, "C": 4, "U": 18, "dropped": True})
    assert_near(train("simple_rnn", "cpu", values), by_pytorch("simple_rnn", values))
