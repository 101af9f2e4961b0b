"""Dropout and Gaussian noise, and the random numbers that every random kernel draws."""

import math

import numpy as np

from minicnnrnn.kernels.elementary import ONE, TWO, ZERO, always, choose, constants, log
from minicnnrnn.kernels.gpu import cuda, gpu, over
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
    x : (P,), or (0,) for ones: y is then what other elements are multiplied with
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
    drawn = np.stack(_draw(y.size, state, stream), axis=1)
    kept = drawn.reshape(-1)[: y.size] >= np.uint64(rate * 2**32)
    factors = kept * y.dtype.type(1 / (1 - rate) if rate < 1 else 0)
    np.multiply(x if x.size else y.dtype.type(1), factors, out=y)


def gaussian_forward_numpy(y, x, state, stream, deviation, multiply):
    r"""Add Gaussian noise to every element, or multiply every element by noise around one.

    .. math:: y_i = x_i + \sigma g_i \quad \text{or} \quad y_i = x_i (1 + \sigma g_i)

    The g are standard normal numbers by the method of Box and Muller, two from two random words
    r and s: the pair

    .. math:: \sqrt{-2 \ln u} \, \cos \varphi, \quad \sqrt{-2 \ln u} \, \sin \varphi

    with :math:`u = (\lfloor r / 2^9 \rfloor + 1/2) / 2^{23}` and
    :math:`\varphi = \frac{\pi}{2} (q + f - 1/2)`, where q is the two leading bits of s and
    :math:`f = (\lfloor s / 2^7 \rfloor \bmod 2^{23} + 1/2) / 2^{23}` the next 23. Element i has
    number ``i % 4`` of the four that follow from words (0, 1) and (2, 3) of block ``i // 4``,
    which is drawn as in ``dropout_forward``.

    Parameters
    ----------
    y, x : (P,)
    state, stream : as in ``dropout_forward``
    deviation : float
        Standard deviation of the noise.
    multiply : int
        0 adds, 1 multiplies.

    Notes
    -----
    Added noise has the gradient `dy`; the backward pass of multiplied noise is this kernel on
    `dy`. No g is beyond 5.77, which the normal distribution passes once in 10**8. Devices agree
    in all words, and in g within 2e-6. Box and Muller 1958, "A Note on the Generation of Random
    Normal Deviates"; multiplied noise: Srivastava et al. 2014, section 10.
    """
    drawn = _draw(y.size, state, stream)
    normals = (*_normal_pair(*drawn[:2]), *_normal_pair(*drawn[2:]))
    noise = deviation * np.stack(normals, axis=1).reshape(-1)[: y.size]
    y[:] = x * (1 + noise) if multiply else x + noise


def _draw(size, state, stream):
    """Four words, as arrays, for every block of four elements."""
    seed, step = (int(number) & 2**64 - 1 for number in state)
    words = np.array([seed & 2**32 - 1, seed >> 32, stream, step & 2**32 - 1, step >> 32], "u8")
    blocks = np.arange((size + 3) // 4, dtype=np.uint64)
    return philox(blocks, *words[2:], *words[:2])


def _normal_pair(r, s):
    """Two standard normal numbers, as arrays, from two words."""
    r, s = r.astype(np.int64), s.astype(np.int64)
    radius = np.sqrt(-2 * np.log(((r >> 9) + 0.5) / 2**23))
    angle = np.pi / 2 * ((s >> 30) + ((s >> 7) % 2**23 + 0.5) / 2**23 - 0.5)
    return radius * np.cos(angle), radius * np.sin(angle)


# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# Blocks of four elements are independent, and several of them share the vector instructions. A
# chunk is filled with random numbers first and meets its inputs then, while it is in the L1 cache.
# Threads get whole chunks, so that an element keeps its place in a vector: there a product and a
# sum may be one rounding, and behind the last vector two.

CHUNK, GRAIN = 256, 16  # blocks in a chunk; chunks that make it worth waking a second thread
HALF_ONE, MIDDLE, STEP = constants(0.5, 0.5 - 2**22, 2**-23)
QUARTER_TURN = np.float32(math.pi / 2)
TOP, SECOND, LOW_BITS = np.uint64(2**31), np.uint64(2**30), np.uint64(2**23 - 1)
SEVEN, NINE, NONE = np.uint64(7), np.uint64(9), np.uint64(0)
# Polynomials of sin and cos from -pi/4 to pi/4: S. Moshier, Cephes, single precision.
S3, S5, S7 = constants(-1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4)
K2, K4, K6, K8 = constants(-0.5, 4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5)

# Too long for LLVM to inline of itself, and a loop with a call does not vectorise.
_philox = cpu(philox, inline="always")


@inner
def _drop_chunks(start, stop, worker, y, x, state, stream, rate):
    seed, step = np.uint64(state[0]), np.uint64(state[1])
    k0, k1, c1, c2, c3 = seed & WORD, seed >> HALF, np.uint64(stream), step & WORD, step >> HALF
    limit = np.uint64(rate * 2**32)
    scale = np.float32(1 / (1 - rate)) if rate < 1 else ZERO
    for chunk in range(start, stop):
        first = 4 * CHUNK * chunk
        part, of = y[first : first + 4 * CHUNK], x[first : first + 4 * CHUNK]
        whole, block = part.size // 4, CHUNK * chunk
        for b in range(whole):
            r0, r1, r2, r3 = _philox(np.uint64(block + b), c1, c2, c3, k0, k1)
            # A comparison as a factor: with a branch the loop would not vectorise.
            part[4 * b] = scale * np.float32(r0 >= limit)
            part[4 * b + 1] = scale * np.float32(r1 >= limit)
            part[4 * b + 2] = scale * np.float32(r2 >= limit)
            part[4 * b + 3] = scale * np.float32(r3 >= limit)
        if 4 * whole < part.size:  # the last block of the array, cut short
            r0, r1, r2, _ = _philox(np.uint64(block + whole), c1, c2, c3, k0, k1)
            for i in range(4 * whole, part.size):
                r = r0 if i % 4 == 0 else r1 if i % 4 == 1 else r2
                part[i] = scale * np.float32(r >= limit)
        for i in range(of.size):  # none if x is absent
            part[i] *= of[i]


@cpu
def dropout_forward_cpu(y, x, state, stream, rate):
    """Parallel over chunks."""
    chunks = (y.size + 4 * CHUNK - 1) // (4 * CHUNK)
    split(_drop_chunks, chunks, GRAIN, (y, x, state, stream, rate))


@always
def _normals(r, s):
    """Two standard normal numbers from two words."""
    u = (np.float32(np.int32(r >> NINE)) + HALF_ONE) * STEP
    radius = math.sqrt(-TWO * log(u))
    a = (np.float32(np.int32((s >> SEVEN) & LOW_BITS)) + MIDDLE) * STEP * QUARTER_TURN
    z = a * a
    sine = a + a * z * ((S7 * z + S5) * z + S3)
    cosine = ONE + z * (((K8 * z + K6) * z + K4) * z + K2)
    radius = choose(s >= TOP, -radius, radius)
    turned = (s & SECOND) != NONE
    return radius * choose(turned, -sine, cosine), radius * choose(turned, cosine, sine)


@inner
def _noise_chunks(start, stop, worker, y, x, state, stream, deviation, multiply):
    seed, step = np.uint64(state[0]), np.uint64(state[1])
    k0, k1, c1, c2, c3 = seed & WORD, seed >> HALF, np.uint64(stream), step & WORD, step >> HALF
    sigma = np.float32(deviation)
    for chunk in range(start, stop):
        first = 4 * CHUNK * chunk
        part, of = y[first : first + 4 * CHUNK], x[first : first + 4 * CHUNK]
        whole, block = part.size // 4, CHUNK * chunk
        for b in range(whole):
            r0, r1, r2, r3 = _philox(np.uint64(block + b), c1, c2, c3, k0, k1)
            part[4 * b], part[4 * b + 1] = _normals(r0, r1)
            part[4 * b + 2], part[4 * b + 3] = _normals(r2, r3)
        if 4 * whole < part.size:  # the last block of the array, cut short
            r0, r1, r2, r3 = _philox(np.uint64(block + whole), c1, c2, c3, k0, k1)
            g0, g1 = _normals(r0, r1)
            g2, _ = _normals(r2, r3)
            for i in range(4 * whole, part.size):
                part[i] = g0 if i % 4 == 0 else g1 if i % 4 == 1 else g2
        for i in range(part.size):
            noise = sigma * part[i]
            part[i] = of[i] * (ONE + noise) if multiply else of[i] + noise


@cpu
def gaussian_forward_cpu(y, x, state, stream, deviation, multiply):
    """Parallel over chunks."""
    chunks = (y.size + 4 * CHUNK - 1) // (4 * CHUNK)
    split(_noise_chunks, chunks, GRAIN, (y, x, state, stream, deviation, multiply))


# ---------------------------------------------------------------------------------------
# CUDA
# ---------------------------------------------------------------------------------------
#
# A thread for every block of four elements.


@gpu
def _draw_block(block, state, stream):
    seed, step = np.uint64(state[0]), np.uint64(state[1])
    c1, c2, c3 = np.uint64(stream), step & WORD, step >> HALF
    return philox(np.uint64(block), c1, c2, c3, seed & WORD, seed >> HALF)


@gpu
def _drop_blocks(y, x, state, stream, limit, scale):
    least, kept = np.uint64(limit), np.float32(scale)
    for block in range(cuda.grid(1), (y.size + 3) // 4, cuda.gridsize(1)):
        r0, r1, r2, r3 = _draw_block(block, state, stream)
        for i in range(4 * block, min(4 * block + 4, y.size)):
            r = r0 if i % 4 == 0 else r1 if i % 4 == 1 else r2 if i % 4 == 2 else r3
            factor = kept if r >= least else ZERO
            y[i] = factor * x[i] if x.size else factor


def dropout_forward_cuda(y, x, state, stream, rate):
    scale = 1 / (1 - rate) if rate < 1 else 0
    limit = int(rate * 2**32)
    over(_drop_blocks, (y.size + 3) // 4, y, x, state, int(stream), limit, float(scale))


@gpu
def _noise_blocks(y, x, state, stream, deviation, multiply):
    sigma = np.float32(deviation)
    for block in range(cuda.grid(1), (y.size + 3) // 4, cuda.gridsize(1)):
        r0, r1, r2, r3 = _draw_block(block, state, stream)
        g0, g1 = _normals(r0, r1)
        g2, g3 = _normals(r2, r3)
        for i in range(4 * block, min(4 * block + 4, y.size)):
            g = g0 if i % 4 == 0 else g1 if i % 4 == 1 else g2 if i % 4 == 2 else g3
            y[i] = x[i] * (ONE + sigma * g) if multiply else x[i] + sigma * g


def gaussian_forward_cuda(y, x, state, stream, deviation, multiply):
    integers = int(stream), float(deviation), int(multiply)
    over(_noise_blocks, (y.size + 3) // 4, y, x, state, *integers)
