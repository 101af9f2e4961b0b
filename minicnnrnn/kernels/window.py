"""Windows on a GPU: which pixel an output sees through a tap, and which outputs see a pixel.

Nothing is copied. A kernel takes the index of a pixel and that of a tap apart into coordinates,
and reads the image where they meet.
"""

import functools

import numpy as np

from minicnnrnn.kernels.gpu import divided, divisor, gpu


def geometry_of(x, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G):
    """What ``seen`` wants to know of a convolution."""
    outputs, taps = y.shape[1:4], w.shape[1:4]  # KH, KW, C / G
    divisors = (*map(divisor, outputs), *map(divisor, taps))
    return x.shape[1:], (SD, SH, SW, LD, LH, LW, PD, PH, PW), divisors


@gpu
def seen(group, output, element, geometry):
    """Where in a flat x an output looks through an element of a filter; -1 outside the image."""
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
        return -1
    start, way = flat(n, first, (D, H, W)) * C, flat(0, step, (D, H, W)) * C
    return start + (way + group * by_CG[0] + c)


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
# taps that take a phase to outputs are evenly spaced, and so are these outputs. A kernel works on
# the pixels of one phase, which are counted apart from the others.

BY_PIXELS, BY_TAPS = 1, 2  # divisors in what describes a phase


@functools.cache
def phases_along(pixels, K, S, L, P):
    """The phases of an axis.

    For each: the phase; divisors by the number of its pixels and of its taps; the first tap, and
    from one to the next; the first tap's output less pixel // S, and from one to the next.
    """
    phases = []
    for phase in range(min(S, pixels)):
        met = [(k, (phase + P - k * L) // S) for k in range(K) if (phase + P - k * L) % S == 0]
        (first, output), (second, other) = (met + 2 * [(0, 0)])[:2]
        by_pixels, by_taps = divisor(-(-(pixels - phase) // S)), divisor(max(1, len(met)))
        steps = first, second - first, output, other - output
        phases.append((phase, by_pixels, by_taps, len(met), steps))
    return phases


@gpu
def coordinates(axes, kind, index):
    """An index of pixels or taps taken apart, the last of three axes running fastest."""
    index, w = divided(index, axes[2][kind])
    index, h = divided(index, axes[1][kind])
    index, d = divided(index, axes[0][kind])
    return index, (d, h, w)


@gpu
def taps_met(axes, by_FG, group, element):
    """An element of a sum over taps and filters: filter, taps, and output less pixel // S."""
    j, f = divided(element, by_FG)
    _, (i, j, k) = coordinates(axes, BY_TAPS, j)
    (i0, i1, d0, d1), (j0, j1, h0, h1), (k0, k1, w0, w1) = axes[0][4], axes[1][4], axes[2][4]
    tap, step = (i0 + i * i1, j0 + j * j1, k0 + k * k1), (d0 + i * d1, h0 + j * h1, w0 + k * w1)
    return group * by_FG[0] + f, tap, step
