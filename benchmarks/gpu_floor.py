"""What products and convolutions of a train step cost a GPU at least: counted, not measured.

    python benchmarks/gpu_floor.py [row ...]

For every layer with a kernel and each of its three products: multiply-adds, the bytes of its
factors and its result if each passes through memory once, the tile and the parts that
``kernels/product.py`` chooses, blocks and rounds of them on all processors, and the times that an
H100 would need for the arithmetic (in float32, on tensor cores) and for the bytes. No GPU needed.
"""

import sys

import numpy as np
from rows import ROWS, build

from minicnnrnn.kernels import product

BATCHES = {"cnn128": 128, "vgg_like": 256, "resnet20": 256}
# Of an H100 SXM: data sheet, dense; float32 and tf32 per second, bytes per second.
FLOAT32, TF32, BANDWIDTH = 67e12, 494e12, 3.35e12


def layers_of(layer):
    """All that have a kernel and multiply with it as a whole, in order."""
    inside = layer.layers if hasattr(layer, "layers") else layer.children
    found = [one for child in inside for one in layers_of(child)]
    kind = type(layer).__name__
    return found + [layer] * (kind in ("Conv1D", "Conv2D", "Conv3D", "Dense"))


def products(layer, batch):
    """Name, (M, N, K), elements that are read and written, whether the sum is cut in parts."""
    kernel = next(w for w in layer._weights if w.name == "kernel")
    rows = batch * int(np.prod(layer.output_shape[1:-1]))
    x, y = (batch * int(np.prod(shape[1:])) for shape in (layer.input_shape, layer.output_shape))
    F, window = kernel.shape[-1], int(np.prod(kernel.shape[:-1]))
    C, taps = kernel.shape[-2], int(np.prod(kernel.shape[:-2]))
    elements, dense = x + y + kernel.size, taps == 1
    pixels = batch * int(np.prod(layer.input_shape[1:-1]))
    yield "forward", (rows, F, window), elements, dense
    yield "weight", (window + 1, F, rows), elements, True
    # with strides, each phase of pixels meets its own taps: their mean
    yield "input", (pixels, C, window // C * F * rows // pixels), elements, dense


def main(names):
    """Print a table for every row."""
    for row in names:
        model, x, _ = build(row)
        batch = BATCHES.get(row, len(x))
        print(f"\n{ROWS[row][0]}, batch {batch}")
        print("layer, product, M x N x K, GFLOP, MB, tile, parts, blocks, rounds, us: ", end="")
        print("float32, tf32, bytes")
        totals = np.zeros(4)
        for number, layer in enumerate(layers_of(model)):
            for name, (M, N, K), elements, cut in products(layer, batch):
                if name == "input" and number == 0:
                    continue
                parts = product.parts_of_sum(M, N, K, 1) if cut else 1
                tile = product.tile_of(M, N, K, 1, parts)
                rows, columns = product.TILES[tile].extent
                blocks = -(-M // rows) * -(-N // columns) * parts
                work, size = 2 * M * N * K, 4 * elements
                times = [1e6 * work / FLOAT32, 1e6 * work / TF32, 1e6 * size / BANDWIDTH]
                floor = max(times[0], times[2]), max(times[1], times[2])
                totals += work / 1e9, size / 1e6, *floor
                print(
                    f"{layer.name:12} {name:8} {M:7} x {N:4} x {K:6} {work / 1e9:7.3f} "
                    f"{size / 1e6:7.1f} {tile:>8} {parts:4} {blocks:5} "
                    f"{blocks / product.PROCESSORS:6.1f} "
                    + " ".join(f"{time:7.1f}" for time in times)
                )
        print(
            f"in all: {totals[0]:.1f} GFLOP, {totals[1]:.0f} MB; the larger of arithmetic and "
            f"bytes, product by product: {totals[2]:.0f} us in float32, {totals[3]:.0f} in tf32"
        )


if __name__ == "__main__":
    main(sys.argv[1:] or BATCHES)
