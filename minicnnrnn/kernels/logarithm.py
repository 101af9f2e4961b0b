"""Logarithms for loops on the CPU, as polynomials that vectorise."""

import numpy as np

from minicnnrnn.kernels.jit import inner

HALF, ONE = np.float32(0.5), np.float32(1)
INFINITY = np.float32(np.inf)
# ln(1 + m) for 1 + m in [sqrt(1/2), sqrt(2)]: S. Moshier, Cephes, single precision.
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
L3, L4, L5, L6, L7, L8, L9, L10, L11 = (
    np.float32(x)
    for x in (
        3.3333331174e-1, -2.4999993993e-1, 2.0000714765e-1, -1.6668057665e-1, 1.4249322787e-1,
        -1.2420140846e-1, 1.1676998740e-1, -1.1514610310e-1, 7.0376836292e-2,
    )
)  # fmt: skip
ROOT_HALF_BITS = np.int32(0x3F3504F3)
MANTISSA_BITS = np.int32(23)


@inner
def log(x):
    """Within 1e-7 of ln(x) for a normal x > 0; NaN and infinity stay."""
    bits = np.float32(x).view(np.int32)
    exponent = np.int32(np.int32(bits - ROOT_HALF_BITS) >> MANTISSA_BITS)
    m = np.int32(bits - np.int32(exponent << MANTISSA_BITS)).view(np.float32) - ONE
    p = ((((((L11 * m + L10) * m + L9) * m + L8) * m + L7) * m + L6) * m + L5) * m + L4
    n = np.float32(exponent)
    z = m * m
    logarithm = (p * m + L3) * m * z + n * LN2_LOW - HALF * z + m + n * LN2_HIGH
    return logarithm if x < INFINITY else x


@inner
def log1p(x):
    """ln(1 + x) for x >= 0, without losing a small x."""
    whole = ONE + x
    return log(whole) + (x - (whole - ONE)) / whole  # and what rounding `whole` took away
