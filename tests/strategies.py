"""Shapes and seeds for property tests: hypothesis draws integers, never floats."""

from hypothesis import strategies as st

from minicnnrnn.kernels import gpu

seeds = st.integers(0, 2**32 - 1)


def upto(largest):
    """A size from 1 to the largest, which is a small one where a GPU is simulated."""
    return st.integers(1, min(largest, 6) if gpu.SIMULATED else largest)


@st.composite
def windows(draw, dilated=True, longest=9):
    """One axis of a convolution or pooling: (length, kernel, stride, dilation, pad, outputs).

    Either without padding, where the kernel may be as long as the axis, or "same"-like, where it
    may be longer and the padding is odd as often as not. Strides may exceed the kernel.
    """
    length = draw(upto(longest))
    dilation = draw(st.integers(1, 2)) if dilated else 1
    stride = draw(st.integers(1, 3))
    if draw(st.booleans()):
        kernel = draw(st.integers(1, (length - 1) // dilation + 1))
        return (
            length,
            kernel,
            stride,
            dilation,
            0,
            (length - (kernel - 1) * dilation - 1) // stride + 1,
        )
    kernel = draw(st.integers(1, 4))
    outputs = -(-length // stride)
    missing = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
    return length, kernel, stride, dilation, missing // 2, outputs


def geometry(
    N=1, D=(1, 5, 5), C=1, F=1, K=(1, 3, 3), S=(1, 1, 1), L=(1, 1, 1), P=(0, 0, 0), O=None, G=1
):
    """A convolution's integers; outputs without padding unless given."""
    if O is None:
        O = tuple((d - (k - 1) * l - 1) // s + 1 for d, k, s, l in zip(D, K, S, L))
    return {"N": N, "D": D, "C": C, "F": F, "K": K, "S": S, "L": L, "P": P, "O": O, "G": G}


@st.composite
def convolutions(draw):
    """All integers of a convolution, in the contract's letters."""
    axes = [draw(windows()) for _ in range(draw(st.integers(1, 3)))]
    axes = [(1, 1, 1, 1, 0, 1)] * (3 - len(axes)) + axes
    D, K, S, L, P, O = zip(*axes)
    G = draw(st.integers(1, 3))
    C, F = G * draw(upto(9)), G * draw(upto(20))
    return {"N": draw(upto(3)), "D": D, "C": C, "F": F, "K": K, "S": S, "L": L, "P": P,
            "O": O, "G": G}  # fmt: skip
