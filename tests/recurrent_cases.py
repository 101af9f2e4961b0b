"""What the tests of the three recurrent layers share: random cases and one way to run them."""

import inspect

import numpy as np
import pytest
from checks import kernel, nans
from hypothesis import strategies as st
from strategies import seeds, upto

from minicnnrnn.kernels import codes

GATES = {"simple_rnn": 1, "lstm": 4, "gru": 3}
TAPE = {"simple_rnn": 1, "lstm": 4, "gru": 4}
# Activations of the candidate and of the gates, not both without a bound: states would explode.
PAIRS = [
    (codes.TANH, codes.SIGMOID), (codes.SIGMOID, codes.TANH), (codes.SOFTPLUS, codes.SIGMOID),
    (codes.SILU, codes.TANH), (codes.GELU, codes.SIGMOID), (codes.LINEAR, codes.SIGMOID),
    (codes.TANH, codes.GELU), (codes.SIGMOID, codes.SILU),
]  # fmt: skip

cases = st.fixed_dictionaries(
    {
        "N": st.one_of(upto(9), upto(20)),
        "T": upto(6),
        "C": upto(20),
        "U": upto(40),
        "seed": seeds,
        "sequences": st.booleans(),
        "masked": st.booleans(),
        "dropped": st.booleans(),
        "bias": st.booleans(),
        "backwards": st.integers(0, 1),
        "reset_after": st.integers(0, 1),
        "pair": st.sampled_from(PAIRS),
    }
)
DEFAULTS = {
    "N": 3, "T": 4, "C": 5, "U": 7, "seed": 0, "sequences": True, "masked": False,
    "dropped": False, "bias": True, "backwards": 0, "reset_after": 1, "activation": codes.TANH,
    "recurrent_activation": codes.SIGMOID,
}  # fmt: skip


def mild(case):
    """The case, in two steps if its gates have no bound.

    Such gates multiply the state at every step: after some of them no difference quotient is near
    the derivative, which two steps show as well.
    """
    unbounded = case["pair"][1] in (codes.GELU, codes.SILU)
    return {**case, "T": min(case["T"], 2)} if unbounded else case


def arrays(layer, case, draw=None):
    """The inputs of one case; `draw(shape)` makes the numbers, by default moderate normal ones."""
    case = {**DEFAULTS, **case}
    if "pair" in case:
        case["activation"], case["recurrent_activation"] = case["pair"]
    N, T, C, U = (case[name] for name in "NTCU")
    rng = np.random.default_rng(case["seed"])
    draw = draw or (lambda *shape: rng.standard_normal(shape).astype(np.float32) / 2)
    G = GATES[layer] * U
    two_biases = layer == "gru" and case["reset_after"]
    mask = rng.integers(0, 2, (N, T)) if case["masked"] else np.zeros((0, 0))
    keep = 2 * rng.integers(0, 2, (N, U)) if case["dropped"] else np.zeros((0, 0))
    return {
        **case,
        "x": draw(N, T, C),
        "w": draw(C, G),
        "u": draw(U, G) / np.float32(max(1, round(U**0.5))),
        "b": draw(*([2, G] if two_biases else [G])) if case["bias"] else np.zeros(0, np.float32),
        "mask": mask.astype(np.uint8),
        "keep": keep.astype(np.float32),
        "h0": draw(N, U),
        "c0": draw(N, U),
        "dy": draw(N, T if case["sequences"] else 1, U),
    }


def call(layer, device, name, values):
    """Call a launcher with its parameters taken from `values` by name."""
    parameters = inspect.signature(kernel(layer, f"{layer}_{name}", "numpy")).parameters
    return kernel(layer, f"{layer}_{name}", device)(*(values[p] for p in parameters))


def begin(layer, device, given, dtype, slots):
    """Add everything that a forward pass needs, outputs filled with NaN."""
    values = {
        name: value.astype(dtype) if getattr(value, "dtype", None) == np.float32 else value
        for name, value in given.items()
    }
    N, U = values["N"], values["U"]
    values["h"], values["c"] = (nans(slots, N, U, dtype=dtype) for _ in "hc")
    values["h"][0], values["c"][0] = values["h0"], values["c0"]
    values["gates"] = nans(slots - 1, N, TAPE[layer] * U, dtype=dtype)
    values["y"] = nans(*values["dy"].shape, dtype=dtype)
    values["ws"] = nans(call(layer, device, "workspace", values))
    return values


def forward(layer, device, given, dtype=np.float32, short=False):
    """A forward pass, with the whole history or with two slots only."""
    values = begin(layer, device, given, dtype, 2 if short else given["T"] + 1)
    call(layer, device, "prepare", values)
    call(layer, device, "forward", values)
    last = given["T"] % len(values["h"])
    return {**values, "h_last": values["h"][last], "c_last": values["c"][last]}


def train(layer, device, given, dtype=np.float32, in_place=True, input_gradient=True):
    """A forward pass and both backward passes."""
    values = forward(layer, device, given, dtype)
    for name in ("x", "w", "u", "b"):
        values[f"d{name}"] = nans(*values[name].shape, dtype=dtype)
    if not input_gradient:
        values["dx"] = nans(0, 0, 0, dtype=dtype)
    gates = values["gates"]
    values["dgates"] = gates if in_place else nans(*gates.shape, dtype=dtype)
    call(layer, device, "backward_input", values)
    call(layer, device, "backward_weight", values)
    return values


OUTPUTS = ["y", "h_last", "dx", "dw", "du", "db"]


def assert_near(actual, expected, names=OUTPUTS, tolerance=2e-5):
    """Within `tolerance` of each array's largest element, or of one."""
    for name in names:
        assert actual[name].shape == expected[name].shape
        bound = tolerance * max(1, np.max(np.abs(expected[name]), initial=0))
        error = np.abs(actual[name] - expected[name])
        assert np.all(error <= bound), (name, error.max(), bound)


def assert_same(actual, expected, names=OUTPUTS):
    for name in names:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


def flipped(given):
    """The case whose sequences are turned round, to be read the other way."""
    turned = {name: np.ascontiguousarray(given[name][:, ::-1]) for name in ("x", "mask")}
    return {**given, **turned, "backwards": 1 - given["backwards"]}


def by_pytorch(layer, given):
    """Outputs and gradients of a loop over PyTorch's operations, recurrent dropout included."""
    torch = pytest.importorskip("torch")
    names = ("x", "w", "u", "b", "h0", "c0")
    x, w, u, b, h, c = (torch.tensor(given[name], requires_grad=True) for name in names)
    parameters = {"dx": x, "dw": w, "du": u, "db": b}
    keep, ys = torch.tensor(given["keep"]), []
    for time in range(given["T"]):
        kept = h * keep
        if layer == "gru":
            z, r, a = (x[:, time] @ w + b[0]).chunk(3, 1)
            uz, ur, ua = (kept @ u + b[1]).chunk(3, 1)
            z, r = torch.sigmoid(z + uz), torch.sigmoid(r + ur)
            h = z * h + (1 - z) * torch.tanh(a + r * ua)
        elif layer == "lstm":
            i, f, g, o = (x[:, time] @ w + kept @ u + b).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        else:
            h = torch.tanh(x[:, time] @ w + kept @ u + b)
        ys.append(h)
    y = torch.stack(ys, 1)
    y.backward(torch.tensor(given["dy"]))
    gradients = {name: value.grad.numpy() for name, value in parameters.items()}
    return {"y": y.detach().numpy(), "h_last": h.detach().numpy(), **gradients}
