"""What the tests of Winograd's kernels share: one way to run all passes of a convolution."""

import numpy as np
from checks import kernel, nans

NO_RELU = np.zeros((0,) * 5, np.float32)


class Passes:
    """The passes of one convolution, by Winograd's kernels or by the direct ones.

    Parameters
    ----------
    g : dict
        The integers of a convolution, of which ``geometry`` makes kernel, padding and dilation.
    device : str
    name : str, optional
        The kernels' room, if it is not the one that these tests are about.
    """

    room = ""

    def __init__(self, g, device, name=None):
        self.device, self.name, self.g = device, name or self.room, g
        K, P, L = self.geometry(g)
        lengths = g["D"], g["H"], g["W"]
        outputs = [n + 2 * p - (k - 1) * step for n, k, p, step in zip(lengths, K, P, L)]
        self.x_shape = (g["N"], *lengths, g["C"])
        self.y_shape = (g["N"], *outputs, g["F"])
        self.w_shape = (*K, g["C"], g["F"])
        self.integers = (1, 1, 1, *L, *P, 1)  # strides of one, and one group
        sizes = (*self.x_shape, *self.y_shape[1:], *K, 1, 1, 1, *L, 1)
        memory = nans(self.call("workspace", *sizes) + 64)
        self.ws, self.behind = memory[:-64], memory[-64:]

    def geometry(self, g):
        """Kernel, padding and dilation along depth, height and width."""
        raise NotImplementedError

    def call(self, name, *arguments):
        return kernel(self.name, f"{self.name}_{name}", self.device)(*arguments)

    def forward(self, x, w, b, relu=0):
        y = nans(*self.y_shape, dtype=x.dtype)
        self.call("prepare", w, 1, self.ws)
        self.call("forward", y, x, w, b, *self.integers, relu, self.ws)
        return y

    def backward_input(self, dy, w, y=NO_RELU):
        dx = nans(*self.x_shape, dtype=dy.dtype)
        self.call("backward_input", dx, dy, y, w, *self.integers, self.ws)
        return dx

    def backward_weight(self, x, dy, bias=True, y=NO_RELU):
        dw = nans(*self.w_shape, dtype=x.dtype)
        db = nans(self.g["F"] if bias else 0, dtype=x.dtype)
        self.call("backward_weight", dw, db, x, dy, y, *self.integers, self.ws)
        return dw, db

    def all(self, x, w, b, dy, y=NO_RELU, relu=0):
        """y, dx, dw, db."""
        return [
            self.forward(x, w, b, relu),
            self.backward_input(dy, w, y),
            *self.backward_weight(x, dy, b.size > 0, y),
        ]

    def arrays(self, make, rng, bias=True, **kwargs):
        """x, w, b, dy."""
        sizes = self.x_shape, self.w_shape, (self.g["F"] if bias else 0,), self.y_shape
        return [make(rng, *size, **kwargs) for size in sizes]
