"""Windows on a GPU: which pixel an output sees through a tap, and which outputs see a pixel.

Nothing is copied. A kernel takes the index of a pixel and that of a tap apart into coordinates,
and reads the image where they meet.
"""

import math

import numpy as np

from minicnnrnn.kernels.gpu import divided, divisor, gpu

ZERO = np.float32(0)


def geometry_of(x, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G):
    """What ``seen`` wants to know of a convolution."""
    outputs, taps = y.shape[1:4], w.shape[1:4]  # KH, KW, C / G
    divisors = (*map(divisor, outputs), *map(divisor, taps))
    return x.shape[1:], (SD, SH, SW, LD, LH, LW, PD, PH, PW), divisors


@gpu
def seen(x, group, output, element, geometry):
    """What an output sees of a flat x through an element of a filter; zero outside the image."""
    (D, H, W, C), (SD, SH, SW, LD, LH, LW, PD, PH, PW), divisors = geometry
    by_OD, by_OH, by_OW, by_KH, by_KW, by_CG = divisors
    tap, c = divided(element, by_CG)
    tap, k = divided(tap, by_KW)
    i, j = divided(tap, by_KH)
    n, w = divided(output, by_OW)
    n, h = divided(n, by_OH)
    n, d = divided(n, by_OD)
    first, step = (d * SD - PD, h * SH - PH, w * SW - PW), (i * LD, j * LH, k * LW)
    if outside(first, step, (D, H, W)):
        return ZERO
    start, way = flat(n, first, (D, H, W)) * C, flat(0, step, (D, H, W)) * C
    return x[start + (way + group * by_CG[0] + c)]


# What an output alone decides and what a tap alone decides is computed apart, so that a thread can
# keep the one in registers, as 32 bits where these are enough, while it goes through the other.


@gpu
def flat(n, place, sizes):
    """The index of a place in an image."""
    return ((n * sizes[0] + place[0]) * sizes[1] + place[1]) * sizes[2] + place[2]


@gpu
def outside(first, step, sizes):
    """Whether a place, a step away from another one, lies outside the image."""
    d, h, w = np.int32(first[0]), np.int32(first[1]), np.int32(first[2])
    d, h, w = d + np.int32(step[0]), h + np.int32(step[1]), w + np.int32(step[2])
    D, H, W = np.int32(sizes[0]), np.int32(sizes[1]), np.int32(sizes[2])
    return d < 0 or d >= D or h < 0 or h >= H or w < 0 or w >= W


# --- from pixels to outputs ------------------------------------------------------------
#
# With strides, the pixels of an axis fall into phases by their position modulo the stride. The
# taps that take a phase to outputs are evenly spaced, as (phase + P - k L) % S = 0 has one
# solution k modulo S / gcd(S, L), and so are these outputs.

PHASE, TAP, PIXEL = 0, 3, 4  # divisors of an axis: phases, taps and pixels of one phase
NOWHERE = 1 << 30  # so far away that there is neither tap nor pixel


def phases_along(pixels, K, S, L, P):
    """What the functions below want to know of one axis: divisors, and other integers."""
    both = math.gcd(S, L)
    step = S // both
    divisors = tuple(map(divisor, (S, both, step, -(-K // step), -(-pixels // S))))
    return divisors, (K, L, P, L // both, pow(L // both, -1, step))


@gpu
def met(axis, phase, j):
    """The j-th tap that takes a phase to an output, which lies how far behind pixel // S."""
    (by_S, by_both, by_step, _, _), (_, L, P, apart, inverse) = axis
    whole, rest = divided(phase + P, by_both)
    _, first = divided(whole * inverse, by_step)
    nearest, _ = divided(phase + P + (by_S[0] - first) * L, by_S)
    return first + j * by_step[0] if rest == 0 else NOWHERE, nearest - L - j * apart


@gpu
def coordinates(axes, kind, index):
    """An index of phases, taps or pixels taken apart, the last of three axes running fastest."""
    index, w = divided(index, axes[2][0][kind])
    index, h = divided(index, axes[1][0][kind])
    index, d = divided(index, axes[0][0][kind])
    return index, (d, h, w)


@gpu
def taps_met(axes, by_FG, group, element):
    """An element of a sum over taps and filters, in a group and phase of pixels.

    Its filter, taps, and how far behind the pixels the outputs lie: NOWHERE for no tap.
    """
    group, phase = coordinates(axes, PHASE, group)
    j, f = divided(element, by_FG)
    _, (j_d, j_h, j_w) = coordinates(axes, TAP, j)
    i, d = met(axes[0], phase[0], j_d)
    j, h = met(axes[1], phase[1], j_h)
    k, w = met(axes[2], phase[2], j_w)
    if i >= axes[0][1][0] or j >= axes[1][1][0] or k >= axes[2][1][0]:
        d = NOWHERE
    return group * by_FG[0] + f, (i, j, k), (d, h, w)
