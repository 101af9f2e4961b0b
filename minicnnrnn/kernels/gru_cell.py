"""The cell of a GRU on a CPU: what a step does between its products.

The gates of a sample lie one behind the other on the tape, 4 U from `at` on: z, r, the candidate,
and what the candidate sees of the state. The usual cell, with tanh and sigmoid, which resets after
the product with u, is a formula of whole vectors, of all rows at once; any other goes sample by
sample.
"""

from minicnnrnn.kernels.activation import differentiate
from minicnnrnn.kernels.formula import elementwise, gate, tanh
from minicnnrnn.kernels.jit import inner, once
from minicnnrnn.kernels.panel import address
from minicnnrnn.kernels.recurrent import alpha_of, recall, settle
from minicnnrnn.kernels.tiles import copy_run


def _usual(z, r, a, seen, h):
    z, r = gate(z), gate(r)
    a = tanh(a + r * seen)
    new = z * h + (1 - z) * a
    return z, r, a, new, new


_usual_forward = elementwise(_usual, 5, 5)


def _through(dh, z, r, a, seen, h):
    """Gradients of z, r, the candidate and what it sees, before activation; and of the old h."""
    da = dh * (1 - z) * (1 - a * a)
    return dh * (h - a) * z * (1 - z), da * seen * r * (1 - r), da, da * r, dh * z


_usual_backward = elementwise(_through, 6, 5)
_add_product = elementwise(lambda a, r, seen: (a + r * seen,), 3, 1)
_reset = elementwise(lambda h, r: (r * h, r * h), 2, 2)


def _mixed(z, a, h):
    new = z * h + (1 - z) * a
    return new, new


_mix = elementwise(_mixed, 3, 2)
_through_mix = elementwise(lambda dh, z, a, h: (dh * (h - a), dh * (1 - z), dh * z), 4, 3)
_through_seen = elementwise(lambda d, h, r, dh: (d * h, dh + d * r), 4, 2)
_through_reset = elementwise(lambda da, seen, r: (da * seen, da * r), 3, 2)


@once(7)
def gru_usual_forward(rows, U, z, old, new, row, stride):
    """New states, from the gates' sums and the old states, to `new` and to where products read."""
    r, a, seen, G = z + 4 * U, z + 8 * U, z + 12 * U, 4 * U
    _usual_forward((
        rows, U, z, G, r, G, a, G, seen, G, old, U, z, G, r, G, a, G, new, U, row, stride,
    ))  # fmt: skip


@once(7)
def gru_usual_backward(rows, U, dz, stride, dh, z, old):
    """Gradients of the gates' sums, and what of dh reaches the old states past the gates."""
    r, a, seen, G = z + 4 * U, z + 8 * U, z + 12 * U, 4 * U
    _usual_backward((
        rows, U, dh, U, z, G, r, G, a, G, seen, G, old, U, dz, stride, dz + 4 * U, stride,
        dz + 8 * U, stride, dz + 12 * U, stride, dh, U,
    ))  # fmt: skip


@inner
def reset_state(row, gates, at, ws, scratch, U, recurrent_activation):
    """Reset the state of a sample that the product with u is about to see, at the address `row`."""
    r = settle(gates, at, ws, scratch, 2 * U, recurrent_activation) + 4 * U
    _reset((1, U, row, 0, r, 0, row, 0, address(gates, at + 3 * U), 0))


@inner
def cell_forward(
    h_new, h_old, row, gates, at, ws, scratch, U, activation, recurrent_activation, reset_after
):
    """The new state of a sample, whatever the activations."""
    if reset_after:
        r = settle(gates, at, ws, scratch, 2 * U, recurrent_activation) + 4 * U
        before, seen = address(gates, at + 2 * U), address(gates, at + 3 * U)
        _add_product((1, U, before, 0, r, 0, seen, 0, before, 0))
    z = recall(gates, at, ws, scratch, U, recurrent_activation)
    a = settle(gates, at + 2 * U, ws, scratch + 2 * U, U, activation)
    _mix((1, U, z, 0, a, 0, h_old, 0, h_new, 0, row, 0))


@inner
def cell_backward(
    ws, D, dh, h_old, gates, at, scratch, U, activation, recurrent_activation, reset_after
):
    """Gradients of a sample's gates, at `D`, as far as they do not wait for a product with u."""
    dz, z = address(ws, D), recall(gates, at, ws, scratch, 2 * U, recurrent_activation)
    a = recall(gates, at + 2 * U, ws, scratch + 2 * U, U, activation)
    seen = address(gates, at + 3 * U)
    _through_mix((1, U, dh, 0, z, 0, a, 0, h_old, 0, dz, 0, dz + 8 * U, 0, dh, 0))
    differentiate(ws, D + 2 * U, gates, at + 2 * U, U, activation, alpha_of(activation))
    if reset_after:
        r = z + 4 * U
        _through_reset((1, U, dz + 8 * U, 0, seen, 0, r, 0, dz + 4 * U, 0, dz + 12 * U, 0))
        _through_gates(ws, D, gates, at, U, recurrent_activation)
    else:
        copy_run((dz + 12 * U, seen, 0, U))


@inner
def through_reset(ws, D, dh, reset, h_old, gates, at, scratch, U, recurrent_activation):
    """The rest, where the reset comes before the product: `reset` has what came through that."""
    r = recall(gates, at + U, ws, scratch, U, recurrent_activation)
    _through_seen((1, U, reset, 0, h_old, 0, r, 0, dh, 0, address(ws, D + U), 0, dh, 0))
    _through_gates(ws, D, gates, at, U, recurrent_activation)


@inner
def _through_gates(ws, D, gates, at, U, recurrent_activation):
    alpha = alpha_of(recurrent_activation)
    differentiate(ws, D, gates, at, 2 * U, recurrent_activation, alpha)
