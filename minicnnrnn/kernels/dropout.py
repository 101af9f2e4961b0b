"""Dropout, and the random numbers that every random kernel draws."""

import numpy as np

from minicnnrnn.kernels.jit import cpu, inner, split

# Multipliers of the two products, and what the key grows by from round to round.
MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
WORD, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
ROUNDS = 10

# ---------------------------------------------------------------------------------------
# The mathematics
# ---------------------------------------------------------------------------------------


def philox(c0, c1, c2, c3, k0, k1):
    """Four random words from a counter of four and a key of two: Philox4x32-10.

    One round, of ten, multiplies two of the words by constants to 64 bits:

    .. math::
        (c_0, c_1, c_2, c_3) \\leftarrow (hi(M_1 c_2) \\oplus c_1 \\oplus k_0, \\; lo(M_1 c_2), \\;
        hi(M_0 c_0) \\oplus c_3 \\oplus k_1, \\; lo(M_0 c_0))

    and then adds a constant to each word of the key. Equal counters and keys give equal words,
    so that any element's number can be computed on its own, in any order, on any device.

    Parameters
    ----------
    c0, c1, c2, c3, k0, k1 : uint64 or arrays of uint64
        Words, below 2**32.

    Returns
    -------
    tuple of four
        Uniform words below 2**32, as uint64.

    Notes
    -----
    Salmon, Moraes, Dror and Shaw 2011, "Parallel Random Numbers: As Easy as 1, 2, 3", section
    3.3. Cost: 20 products for four words.
    """
    for _ in range(ROUNDS):
        p0, p1 = MULTIPLIER_0 * c0, MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & WORD, (p0 >> HALF) ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + WEYL_0) & WORD, (k1 + WEYL_1) & WORD
    return c0, c1, c2, c3


def dropout_forward_numpy(y, x, state, stream, rate):
    """Set a random share of the elements to zero, and scale the others to keep the mean.

    .. math:: y_i = x_i \\, \\frac{[r_i \\ge 2^{32} \\cdot rate]}{1 - rate}

    where :math:`r_i` is word ``i % 4`` of Philox4x32-10 with the counter (i // 4, stream, lower
    and upper half of the step) and the key (lower and upper half of the seed).

    Parameters
    ----------
    y : (P,), overwritten
    x : (P,)
        At most 2**34 elements.
    state : int64 (2,)
        Seed, and number of the train step, which the caller advances.
    stream : int
        The layer's number within its model, below 2**32.
    rate : float
        Share to drop, from 0 to 1.

    Notes
    -----
    The backward pass is this kernel on `dy`: with the same state it draws the same numbers.
    Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
    scaled in training instead of at test time. A NaN stays, dropped or not.
    """
    seed, step = (int(number) & 2**64 - 1 for number in state)
    words = np.array([seed & 2**32 - 1, seed >> 32, stream, step & 2**32 - 1, step >> 32], "u8")
    blocks = np.arange((x.size + 3) // 4, dtype=np.uint64)
    drawn = philox(blocks, *words[2:], *words[:2])
    kept = np.stack(drawn, axis=1).reshape(-1)[: x.size] >= np.uint64(rate * 2**32)
    np.multiply(x, kept * y.dtype.type(1 / (1 - rate) if rate < 1 else 0), out=y)


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Blocks of four elements are independent and are cut among threads; several of them share the
# vector instructions.

GRAIN = 4096  # blocks that make it worth waking a second thread
ZERO = np.float32(0)


# Too long for LLVM to inline of itself, and a loop with a call does not vectorise.
_philox = cpu(philox, inline="always")


@inner
def _drop_blocks(start, stop, worker, y, x, state, stream, rate):
    seed, step = np.uint64(state[0]), np.uint64(state[1])
    k0, k1, c1, c2, c3 = seed & WORD, seed >> HALF, np.uint64(stream), step & WORD, step >> HALF
    limit = np.uint64(rate * 2**32)
    scale = np.float32(1 / (1 - rate)) if rate < 1 else ZERO
    whole = min(stop, x.size // 4) - start
    ys, xs = y[4 * start : 4 * stop], x[4 * start : 4 * stop]
    for b in range(whole):
        r0, r1, r2, r3 = _philox(np.uint64(start + b), c1, c2, c3, k0, k1)
        # A comparison as a factor: with a branch the loop would not vectorise.
        ys[4 * b] = xs[4 * b] * (scale * np.float32(r0 >= limit))
        ys[4 * b + 1] = xs[4 * b + 1] * (scale * np.float32(r1 >= limit))
        ys[4 * b + 2] = xs[4 * b + 2] * (scale * np.float32(r2 >= limit))
        ys[4 * b + 3] = xs[4 * b + 3] * (scale * np.float32(r3 >= limit))
    if whole < stop - start:  # the last block of the array, cut short
        r0, r1, r2, _ = _philox(np.uint64(start + whole), c1, c2, c3, k0, k1)
        for i in range(4 * whole, ys.size):
            r = r0 if i % 4 == 0 else r1 if i % 4 == 1 else r2
            ys[i] = xs[i] * (scale * np.float32(r >= limit))


@cpu
def dropout_forward_cpu(y, x, state, stream, rate):
    split(_drop_blocks, (x.size + 3) // 4, GRAIN, (y, x, state, stream, rate))
