"""Windows on a GPU: which pixel an output sees through a tap, and which outputs see a pixel.

Nothing is copied. A kernel takes the index of a pixel and that of a tap apart into coordinates,
and reads the image where they meet.
"""

import functools
import math

import numpy as np

from minicnnrnn.kernels.gpu import SIMULATED, cuda, divided, divisor, gpu
from minicnnrnn.kernels.product import launch_product, tiled_product, vectors_of
from minicnnrnn.kernels.vector import WIDTH, load_vector, store_vector

ZERO = np.float32(0)


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


@functools.cache
def axis_of(pixels, K, S, L, P):
    """What ``phase_along`` wants to know of an axis.

    Divisors by the number of phases, by the pixels of one, by the stride, and by the most taps
    that a phase meets and one less; the padding, as whole strides and the rest; and of the taps
    that a phase meets: how many there may be at most, how far they and their outputs lie apart,
    how many there are in all, and the strides of one, made whole, and what that added.
    """
    between, whole = S // math.gcd(S, L), -(-L // S)
    most = -(-K // between)
    counts = min(S, pixels), -(-pixels // S), S, most, max(1, most - 1)
    taps = most, between, -(L * between // S), K, whole, whole * S - L
    return (*map(divisor, counts), divmod(P, S), taps)


@gpu
def _narrow(number):
    # What a block computes for itself lies in registers, which are as short as this.
    return number if SIMULATED else np.int32(number)


@gpu
def phase_along(axis, phase):
    """One of the phases of an axis, as ``phases_along`` says, of all with as many pixels.

    The first tap is looked for, in remainders above zero only, as ``divided`` wants them.
    """
    _, by_pixels, by_S, by_most, by_fewer, (strides, rest), sizes = axis
    most, between, apart, K, whole, added = sizes
    tap = 0
    output, remainder = divided(phase + rest, by_S)
    while remainder and tap < between - 1:
        tap += 1
        output, remainder = divided(phase + rest + tap * added, by_S)
    met = remainder == 0
    enough = met and tap + (most - 1) * between < K
    taps = most if enough else (most - 1 if met else 0)
    count, factor, shift = by_most if enough else by_fewer
    by_taps = _narrow(count), factor if SIMULATED else np.uint32(factor), _narrow(shift)
    steps = _narrow(tap), between, _narrow(output + strides - tap * whole), apart
    return _narrow(phase), by_pixels, by_taps, taps, steps


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
    j, k = divided(j, axes[2][BY_TAPS])
    i, j = divided(j, axes[1][BY_TAPS])
    (i0, i1, d0, d1), (j0, j1, h0, h1), (k0, k1, w0, w1) = axes[0][4], axes[1][4], axes[2][4]
    tap, step = (i0 + i * i1, j0 + j * j1, k0 + k * k1), (d0 + i * d1, h0 + j * h1, w0 + k * w1)
    return group * by_FG[0] + f, tap, step


# --- what is read and written -----------------------------------------------------------


@gpu
def load_or_zeros(array, at, into, i):
    """A vector; zeros for a place outside the image, which is negative."""
    if at >= 0:
        load_vector(array, at, into, i)
    else:
        for j in range(WIDTH):
            into[i + j] = ZERO


@gpu
def load_gated(dy, y, at, into, i):
    """A vector of a gradient before a relu of which y came, if that is given; see above."""
    gate = cuda.local.array(WIDTH, np.float32)
    load_or_zeros(dy, at, into, i)
    if y.size and at >= 0:
        load_vector(y, at, gate, 0)
        for j in range(WIDTH):
            if gate[j] <= ZERO:
                into[i + j] = ZERO


@gpu
def finished(total, b, relu, f):
    """A sum with its bias and its relu, where there are these."""
    if b.size:
        total += b[f]
    return ZERO if relu and total < ZERO else total


# --- the product that goes back ---------------------------------------------------------
#
# As on the CPU each phase of pixels is a product of its own. Blocks for all of them start
# together: they are groups, too. Phases that have fewer pixels than the first get blocks for as
# many, and what lies outside the image is not written.


@gpu
def _enter_phase(operands, number, K):
    dx, dy, y, w, b, relu, image, outputs, kernel, strides, axes, by_FG, by_G = operands
    number, group = divided(number, by_G)
    number, v = divided(number, axes[2][0])
    d, h = divided(number, axes[1][0])
    phases = phase_along(axes[0], d), phase_along(axes[1], h), phase_along(axes[2], v)
    K = phases[0][3] * phases[1][3] * phases[2][3] * by_FG[0]
    own = (dx, dy, y, w, b, relu, image, outputs, kernel, strides, phases, by_FG)
    return own, _narrow(group), K


@gpu
def _place_in_dy(operands, group, pixel, element):
    dx, dy, y, w, b, relu, image, outputs, kernel, strides, axes, by_FG = operands
    f, _, step = taps_met(axes, by_FG, group, element)
    n, first = coordinates(axes, BY_PIXELS, pixel)
    if outside(first, step, outputs):
        return -1
    return flat(n, first, outputs) * outputs[3] + (flat(0, step, outputs) * outputs[3] + f)


@gpu
def _dy_of_pixel(operands, group, pixel, element):
    dy, y, at = operands[1], operands[2], _place_in_dy(operands, group, pixel, element)
    return ZERO if at < 0 or (y.size and y[at] <= ZERO) else dy[at]


@gpu
def _dy_vector_of_pixel(operands, group, pixel, element, into, i):
    at = _place_in_dy(operands, group, pixel, element)
    load_gated(operands[1], operands[2], at, into, i)


@gpu
def _place_in_w(operands, group, element, c):
    dx, dy, y, w, b, relu, image, outputs, kernel, strides, axes, by_FG = operands
    f, tap, _ = taps_met(axes, by_FG, group, element)
    return (flat(0, tap, kernel) * kernel[3] + c) * outputs[3] + f


@gpu
def _w_of_tap(operands, group, element, c):
    return operands[3][_place_in_w(operands, group, element, c)]


@gpu
def _w_vector_of_tap(operands, group, c, element, into, i):
    load_vector(operands[3], _place_in_w(operands, group, element, c), into, i)


@gpu
def _place_in_dx(operands, group, pixel, c):
    dx, dy, y, w, b, relu, image, outputs, kernel, strides, axes, by_FG = operands
    n, (d, h, v) = coordinates(axes, BY_PIXELS, pixel)
    place = (
        d * strides[0] + axes[0][0],
        h * strides[1] + axes[1][0],
        v * strides[2] + axes[2][0],
    )
    if place[0] >= image[0] or place[1] >= image[1] or place[2] >= image[2]:
        return -1
    return flat(n, place, image) * image[3] + c + group * kernel[3]


@gpu
def _store_dx(operands, group, part, pixel, c, total):
    dx, b, relu, kernel = operands[0], operands[4], operands[5], operands[8]
    at = _place_in_dx(operands, group, pixel, c)
    if at >= 0:
        dx[at] = finished(total, b, relu, c + group * kernel[3])


@gpu
def _store_dx_vector(operands, group, part, pixel, c, totals, i):
    dx, b, relu, kernel = operands[0], operands[4], operands[5], operands[8]
    at = _place_in_dx(operands, group, pixel, c)
    for j in range(WIDTH):
        totals[i + j] = finished(totals[i + j], b, relu, c + group * kernel[3] + j)
    if at >= 0:
        store_vector(dx, at, totals, i)


_backward_input = tiled_product(
    _dy_of_pixel, _w_of_tap, _store_dx, True, True,
    (_dy_vector_of_pixel, _w_vector_of_tap, _store_dx_vector), _enter_phase,
)  # fmt: skip


def gather_product(dx, dy, y, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu):
    """The input gradient, plus a bias and with a relu."""
    image, kernel, strides = dx.shape[1:], w.shape[:4], (SD, SH, SW)
    axes = tuple(map(axis_of, image[:3], kernel[:3], strides, (LD, LH, LW), (PD, PH, PW)))
    FG, arrays = dy.shape[4] // G, [array.reshape(-1) for array in (dx, dy, y, w, b)]
    gated = vectors_of(("a", dy, FG)) and vectors_of(("a", y, FG))
    vectors = gated + vectors_of(("b", w, FG), ("c", dx, image[3] // G))
    # To find single elements takes registers that the largest tiles do not leave.
    tile = None if {"a", "b"} <= set(vectors) else "64x64"
    phases, pixels = (math.prod(axis[i][0] for axis in axes) for i in (0, BY_PIXELS))
    launch_product(
        _backward_input, len(dx) * pixels, image[3] // G, math.prod(kernel[:3]) * FG // phases,
        phases * G, 1, *arrays, int(relu), image, dy.shape[1:], kernel, strides, axes,
        divisor(FG), divisor(G), vectors=vectors, tile=tile,
    )  # fmt: skip
