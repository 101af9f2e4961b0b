"""Winograd's convolution of few tiles: its filters are transformed where they are used.

A transformed filter is 36 numbers for 9: those of 512 channels, 512 of them, are 38 MB, which
``winograd.py`` writes to memory and reads from there. The launchers here have the same signatures
and compute the same, with the filters as they are: a thread takes a group of them, transforms a
block of their channels into its L2 cache, adds up the products with all tiles, and goes on to the
next block. With eight images of 4 x 4 a train step through 512 to 512 filters takes 0.45 of the
time, with 8 x 8 pixels 0.6. From some 100 tiles on, filters that are transformed once are faster.
"""

from minicnnrnn.kernels.gemm import gemm_block
from minicnnrnn.kernels.jit import MAX_WORKERS, cpu, inner, split
from minicnnrnn.kernels.microkernel import ACCUMULATE, FAR, OVERWRITE
from minicnnrnn.kernels.panel import PANEL, address, grain, integers, pack_panel_at
from minicnnrnn.kernels.tiles import V, copy_run, read_tiles, write_tiles
from minicnnrnn.kernels.transform import transform_filter, transform_weight
from minicnnrnn.kernels.winograd import (
    winograd_backward_input_cuda,
    winograd_backward_input_numpy,
    winograd_backward_weight_cuda,
    winograd_backward_weight_numpy,
    winograd_forward_cuda,
    winograd_forward_numpy,
    winograd_pays_cuda,
    winograd_pays_numpy,
    winograd_prepare_cuda,
    winograd_prepare_numpy,
    winograd_workspace_cuda,
    winograd_workspace_numpy,
)

# ---------------------------------------------------------------------------------------
# The mathematics: those of ``winograd.py``
# ---------------------------------------------------------------------------------------

winograd_streamed_prepare_numpy = winograd_prepare_numpy
winograd_streamed_forward_numpy = winograd_forward_numpy
winograd_streamed_backward_input_numpy = winograd_backward_input_numpy
winograd_streamed_backward_weight_numpy = winograd_backward_weight_numpy
winograd_streamed_workspace_numpy = winograd_workspace_numpy
winograd_streamed_pays_numpy = winograd_pays_numpy

# ---------------------------------------------------------------------------------------
# CPU
# ---------------------------------------------------------------------------------------
#
# In the workspace lie the transformed pixels, 36 matrices of (tiles, channels) for each block of
# channels; then the transformed gradients, 36 of (tiles, filters) for each panel of filters; then
# the scratch of each thread: a table of offsets, a tile or the taps of filters, 36 matrices of
# transformed filters or of sums of weights, (channels, filters), and 36 of products, (tiles,
# filters).

CHANNELS = 64  # in a block
FILTERS = 2 * PANEL  # in a group
TILES = 64  # of all images, at most

TABLE = 16
ASIDE = max(36 * CHANNELS, 9 * CHANNELS * PANEL, FILTERS + 16 * V)


@inner
def _apart(size):
    """The distance of 36 matrices of `size` floats, of which a transform writes to all.

    `size` itself may be a power of two, which would put them into the same set of the cache.
    """
    return size + 16


@inner
def _tiles(H, W):
    """Tiles along either axis."""
    return (H + 3) // 4, (W + 3) // 4


@inner
def _places(tiles, C, F):
    """Where gradients and scratch of the threads begin, and the size of one's scratch."""
    gradients = C // CHANNELS * 36 * _apart(tiles * CHANNELS)
    scratch = gradients + F // PANEL * 36 * _apart(tiles * PANEL)
    products = TABLE + ASIDE + 36 * _apart(CHANNELS * FILTERS)
    return gradients, scratch, products + 36 * _apart(tiles * FILTERS)


@cpu
def winograd_streamed_workspace_cpu(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    TH, TW = _tiles(OH, OW)
    back_TH, back_TW = _tiles(H, W)
    _, first, size = _places(N * D * TH * TW, C, F)
    _, second, back_size = _places(N * D * back_TH * back_TW, F, C)
    return max(first + MAX_WORKERS * size, second + MAX_WORKERS * back_size)


def winograd_streamed_prepare_cpu(w, G, ws):
    """Nothing: filters are transformed where they are used."""


@inner
def _pixels_range(
    start, stop, worker, v, x, gate, N, H, W, C, TH, TW, PH, PW, scratch, size
):  # fmt: skip
    """Transform the pixels of a block of channels a work item."""
    distance = _apart(N * TH * TW * CHANNELS)
    aside = scratch + 4 * (worker * size + TABLE)
    for block in range(start, stop):
        read_tiles((
            6, v + 4 * block * 36 * distance, distance, CHANNELS, x, gate, x + 4 * N * H * W * C,
            1, H, W, C, TH, TW, PH, PW, block * CHANNELS, CHANNELS, 0, 1, 0, N * TH * TW, aside, 0,
        ))  # fmt: skip


# --- forward, and backward to the input ------------------------------------------------


@inner
def _transform_block(u, taps, w, c, f, C, F, flipped):
    """Transform a block of channels from `c` on of a group of filters from `f` on into panels.

    `flipped`: the filters lie upside down, and theirs and the channels' axes are exchanged.
    """
    distance = _apart(CHANNELS * FILTERS)
    for n in range(0, FILTERS, PANEL):
        source, row, tap_step = w + 4 * (c * F + f + n), F, C * F
        if flipped:
            source, row, tap_step = taps, PANEL, CHANNELS * PANEL
            for tap in range(9):
                of = w + 4 * ((8 - tap) * C * F + (f + n) * C + c)
                pack_panel_at(taps + 4 * tap * tap_step, of, 1, C, CHANNELS, PANEL)
        for k in range(CHANNELS):
            for lane in range(0, PANEL, V):
                transform_filter((
                    u + 4 * (n * CHANNELS + k * PANEL + lane), 6 * distance, distance,
                    source + 4 * (k * row + lane), 3 * tap_step, tap_step,
                ))  # fmt: skip


@inner
def _filters_range(
    start, stop, worker, y, b, relu, w, v, N, C, OH, OW, F, TH, TW, flipped, scratch, size
):  # fmt: skip
    """A group of filters a work item: all channels, block by block."""
    tiles, u_distance = N * TH * TW, _apart(CHANNELS * FILTERS)
    v_distance, distance = _apart(tiles * CHANNELS), _apart(tiles * FILTERS)
    table = scratch + 4 * worker * size
    aside, u = table + 4 * TABLE, table + 4 * (TABLE + ASIDE)
    products = u + 4 * 36 * u_distance
    integers(table)[0] = 0
    for f in range(start * FILTERS, stop * FILTERS, FILTERS):
        for c in range(0, C, CHANNELS):
            _transform_block(u, aside, w, c, f, C, F, flipped)
            pixels = v + 4 * (c // CHANNELS * 36 * v_distance)
            for product in range(36):
                for n in range(0, FILTERS, PANEL):
                    gemm_block((
                        products + 4 * (product * distance + n), FILTERS, tiles, PANEL,
                        pixels + 4 * product * v_distance, CHANNELS, 1, table,
                        u + 4 * (product * u_distance + n * CHANNELS), PANEL, 0, CHANNELS, 1,
                        0, FAR + (ACCUMULATE if c else OVERWRITE),
                    ))  # fmt: skip
        copy_run((aside, b + 4 * f if b else 0, 0, FILTERS))
        write_tiles((
            y, aside, relu, 1, OH, OW, F, TH, TW, f, FILTERS, 0, 1, 0, tiles, products, distance,
            aside + 4 * FILTERS,
        ))  # fmt: skip


@cpu
def _convolve(y, x, gate, w, b, relu, PH, PW, flipped, ws):
    """Convolve `x`, or what a relu's `gate` leaves of it."""
    (N, D, H, W, C), (OH, OW, F) = x.shape, y.shape[2:]
    TH, TW = _tiles(OH, OW)
    N *= D
    _, scratch, size = _places(N * TH * TW, C, F)
    v, scratch = address(ws, 0), address(ws, scratch)
    split(
        _pixels_range, C // CHANNELS, grain(8 * N * TH * TW * CHANNELS * PANEL),
        (
            v, address(x, 0), address(gate, 0) if gate.size else 0, N, H, W, C, TH, TW, PH, PW,
            scratch, size,
        ),
    )  # fmt: skip
    split(
        _filters_range, F // FILTERS, grain(36 * N * TH * TW * C * FILTERS),
        (
            address(y, 0), address(b, 0) if b.size else 0, relu, address(w, 0), v, N, C, OH, OW, F,
            TH, TW, flipped, scratch, size,
        ),
    )  # fmt: skip


def winograd_streamed_forward_cpu(
    y, x, w, b, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, relu, ws
):  # fmt: skip
    _convolve(y, x, y[:0], w, b, relu, PH, PW, 0, ws)


def winograd_streamed_backward_input_cpu(
    dx, dy, y, w, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    _convolve(dx, dy, y, w, ws[:0], 0, 2 - PH, 2 - PW, 1, ws)


# --- backward, weight ------------------------------------------------------------------


@inner
def _gradients_range(
    start, stop, worker, db, g, dy, gate, N, OH, OW, F, TH, TW, scratch, size
):  # fmt: skip
    """Transform the gradients of a panel of filters a work item, and add them up."""
    distance = _apart(N * TH * TW * PANEL)
    sums = scratch + 4 * (worker * size + TABLE)
    for panel in range(start, stop):
        copy_run((sums, 0, 0, PANEL))
        read_tiles((
            4, g + 4 * panel * 36 * distance, distance, PANEL, dy, gate, dy + 4 * N * OH * OW * F,
            1, OH, OW, F, TH, TW, 0, 0, panel * PANEL, PANEL, 0, 1, 0, N * TH * TW,
            sums + 4 * PANEL, sums,
        ))  # fmt: skip
        if db:
            copy_run((db + 4 * panel * PANEL, sums, 0, PANEL))


@inner
def _weights_range(start, stop, worker, dw, v, g, C, F, tiles, scratch, size):
    """A group of filters and a block of channels a work item: products summed over all tiles."""
    v_distance, g_distance = _apart(tiles * CHANNELS), _apart(tiles * PANEL)
    distance, blocks = _apart(CHANNELS * FILTERS), C // CHANNELS
    table = scratch + 4 * worker * size
    sums = table + 4 * (TABLE + ASIDE)
    integers(table)[0] = 0
    for item in range(start, stop):
        f, block = item // blocks * FILTERS, item % blocks
        for product in range(36):
            for n in range(0, FILTERS, PANEL):
                gemm_block((
                    sums + 4 * (product * distance + n), FILTERS, CHANNELS, PANEL,
                    v + 4 * (block * 36 + product) * v_distance, 1, CHANNELS, table,
                    g + 4 * ((f + n) // PANEL * 36 + product) * g_distance, PANEL, 0, tiles, 1, 0,
                    OVERWRITE,
                ))  # fmt: skip
        for c in range(CHANNELS):
            to = dw + 4 * ((block * CHANNELS + c) * F + f)
            for lane in range(0, FILTERS, V):
                transform_weight((
                    to + 4 * lane, 3 * C * F, C * F, sums + 4 * (c * FILTERS + lane), 6 * distance,
                    distance,
                ))  # fmt: skip


@cpu
def _backward_weight(dw, db, x, dy, gate, PH, PW, ws):
    (N, D, H, W, C), (OH, OW, F) = x.shape, dy.shape[2:]
    TH, TW = _tiles(OH, OW)
    N *= D
    tiles = N * TH * TW
    gradients, scratch, size = _places(tiles, C, F)
    v, g, scratch = address(ws, 0), address(ws, gradients), address(ws, scratch)
    split(
        _pixels_range, C // CHANNELS, grain(8 * tiles * CHANNELS * PANEL),
        (v, address(x, 0), 0, N, H, W, C, TH, TW, PH, PW, scratch, size),
    )  # fmt: skip
    split(
        _gradients_range, F // PANEL, grain(8 * tiles * PANEL * PANEL),
        (
            address(db, 0) if db.size else 0, g, address(dy, 0),
            address(gate, 0) if gate.size else 0, N, OH, OW, F, TH, TW, scratch, size,
        ),
    )  # fmt: skip
    split(
        _weights_range, F // FILTERS * (C // CHANNELS), grain(36 * tiles * CHANNELS * FILTERS),
        (address(dw, 0), v, g, C, F, tiles, scratch, size),
    )  # fmt: skip


def winograd_streamed_backward_weight_cpu(
    dw, db, x, dy, y, SD, SH, SW, LD, LH, LW, PD, PH, PW, G, ws
):  # fmt: skip
    _backward_weight(dw, db, x, dy, y, PH, PW, ws)


def winograd_streamed_pays_cpu(
    N, D, H, W, C, OD, OH, OW, F, KD, KH, KW, SD, SH, SW, LD, LH, LW, G
):  # fmt: skip
    if (KD, KH, KW) != (1, 3, 3) or max(SD, SH, SW, LH, LW, G) > 1:
        return False
    # Measured with AVX2 and with AVX-512, on one thread and on two, where both numbers are whole
    # blocks: from two tiles on (direct: 0.6 to 0.7 of the time with two of 512 filters, 0.3 to 0.5
    # with 32), and up to 64 with 128 filters of as many channels (0.9 of that of transforming
    # them first). Below that the others are faster, and with 128 tiles the transform's own cost
    # tells. A tile costs as much as six pixels of the direct sum.
    TH, TW = _tiles(OH, OW)
    tiles = N * D * TH * TW
    blocks = C % CHANNELS == 0 and F % CHANNELS == 0 and C * F >= 128 * 128
    return blocks and 2 <= tiles <= TILES and 6 * tiles <= N * OD * OH * OW


# ---------------------------------------------------------------------------------------
# CUDA: the direct sum, as in ``winograd.py``
# ---------------------------------------------------------------------------------------

winograd_streamed_prepare_cuda = winograd_prepare_cuda
winograd_streamed_forward_cuda = winograd_forward_cuda
winograd_streamed_backward_input_cuda = winograd_backward_input_cuda
winograd_streamed_backward_weight_cuda = winograd_backward_weight_cuda
winograd_streamed_workspace_cuda = winograd_workspace_cuda
winograd_streamed_pays_cuda = winograd_pays_cuda
