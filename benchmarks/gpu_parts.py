"""Parts of the benchmark on a GPU that are not a row: products, ``fit``, the host, starting.

python benchmarks/gpu_parts.py
"""

import statistics
import tempfile
import time

import starting
import turns

SIZE = 4096  # of the square matrices
BATCH, EPOCHS, ROUNDS = 32, 3, min(5, turns.ROUNDS)
COLD = min(2, turns.ROUNDS)
PARTS = ("product float32", "product tf32", "fit", "host", "warm", "cold")


def product(precision):
    """Seconds of ours and of cuBLAS for one product of square matrices, in turns."""
    import gpu
    import gpu_peer
    import numpy as np
    import torch

    from minicnnrnn import Sequential, layers

    rng = np.random.default_rng(0)
    a, b = (rng.random((SIZE, SIZE), dtype=np.float32) - 0.5 for _ in range(2))
    stack = [layers.Input((SIZE,)), layers.Dense(SIZE, use_bias=False)]
    model = Sequential(stack, **gpu.options_of("cuda", precision))
    model.allocate()
    model.set_weights([b])
    x = model.device.upload(a)
    theirs_a, theirs_b = (torch.from_numpy(array).cuda() for array in (a, b))
    out = torch.empty_like(theirs_a)

    def ours():
        return model.forward(x, None, False)[0]

    def theirs():
        return torch.matmul(theirs_a, theirs_b, out=out)

    with gpu_peer.setting(gpu.SAME[precision]):
        apart = np.abs(np.asarray(ours()) - theirs().cpu().numpy()).max()
        turns.close("product", apart, 1e-3 if precision == "float32" else 1e-1)
        turn = [gpu_peer.turner(step, "cuda") for step in (ours, theirs)]
        found = turns.summary([(turn[0](), turn[1]()) for _ in range(turns.ROUNDS)])
    return found | {"TFLOP/s": [round(2 * SIZE**3 / ms / 1e9, 1) for ms in found["ms"]]}


def fit():
    """MNIST, 10,000 images, three epochs: ``fit`` in turns with a plain loop on the GPU."""
    import fitting
    import gpu_peer
    import rows
    import torch
    import torch_peer

    (model, _, _), (untrained, _, _) = (rows.build("cnn32", device="cuda") for _ in range(2))
    begin = untrained.get_weights()
    images, labels = fitting.data()
    x = torch.from_numpy(images).movedim(-1, 1).contiguous().cuda()
    y = torch.from_numpy(labels).cuda()

    def ours():
        model.set_weights(begin)
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return fitting.ours(model, images, labels)

    def theirs():
        module = torch_peer.translate(untrained).cuda()
        batches = lambda: fitting.torch_batches(x, y)  # noqa: E731
        return fitting.torch_fit(module, batches, torch.contiguous_format)

    def taken(way):
        gpu_peer.wait("cuda")
        start = time.perf_counter()
        _, accuracy = way()
        turns.close("accuracy", 1 - accuracy, 1 - fitting.ACCURACY)
        return time.perf_counter() - start

    pairs = [(taken(ours), taken(theirs)) for _ in range(ROUNDS + 1)]
    return turns.summary(pairs[1:])  # the first compiles and chooses


def host():
    """What the calls of a train step take the host, in turns; PyTorch's as a graph and eagerly."""
    import gpu
    import gpu_peer
    import rows

    model, x, y = rows.build("cnn128", device="cuda")
    ways = gpu_peer.steps(model, x, y, "cuda")
    mine, found = gpu.Ours(model, x, y), {}
    for kind in ("graph", "eager"):
        train = ways[f"{kind}, contiguous"][0]
        for step in (mine.step, train):
            gpu_peer.host_seconds(step, "cuda")
        pairs = [
            (gpu_peer.host_seconds(mine.step, "cuda"), gpu_peer.host_seconds(train, "cuda"))
            for _ in range(turns.ROUNDS)
        ]
        found[kind] = turns.summary(pairs)
    return found


def start(what):
    """Whole processes to the end of the first train step: kernels cached (in turns), or not."""
    import os

    os.environ["MINICNNRNN_DEVICE"] = "cuda"
    theirs = starting.TORCH.replace(
        "import torch\n", "import torch\ntorch.set_default_device('cuda')\n", 1
    )
    times = []
    for _ in range(COLD if what == "cold" else 1):
        with tempfile.TemporaryDirectory() as cache:
            times.append(starting.run(starting.OURS, cache)[0])
            if what == "warm":
                return starting.in_turns(starting.OURS, theirs, cache)
    return {"seconds": round(statistics.median(times), 2)}


def one(what, eager):
    """One of the parts, in this process."""
    if what.startswith("product"):
        return product(what.split()[1])
    return {"fit": fit, "host": host}[what]() if what in ("fit", "host") else start(what)


def measure(eager=True):
    """All parts, each in a process of its own."""
    results = {}
    for what in PARTS:
        results[what] = turns.child("gpu_parts.py", *what.split())
        turns.say(f"{what}: {results[what]}")
    return results


def lines(results):
    """Rows of a Markdown table: what, ours, PyTorch's, how many times as fast."""
    for precision in ("float32", "tf32"):
        yield _line(
            f"product of matrices {SIZE}x{SIZE}, {precision} (PyTorch: cuBLAS)",
            results[f"product {precision}"], "{:.3f} ms", 1,
        )  # fmt: skip
    yield _line("MNIST, 10,000 images, 3 epochs by `fit`", results["fit"], "{:.2f} s", 1e-3)
    for kind, title in (("graph", "its replayed graph"), ("eager", "eagerly")):
        part = results["host"] if "error" in results["host"] else results["host"][kind]
        yield _line(f"the host's share of a train step (CNN); {title}", part, "{:.1f} µs", 1e3)
    title = "script to the end of its first train step (CNN), kernels cached"
    yield _line(title, results["warm"], "{:.2f} s", 1e-3)
    yield f"| the same with an empty cache | {results['cold'].get('seconds', 'failed')} s | | |"


def _line(title, found, unit, factor):
    if "error" in found:
        return f"| {title} | failed | | |"
    ours, theirs = (unit.format(factor * milliseconds) for milliseconds in found["ms"])
    return f"| {title} | {ours} | {theirs} | **{found['ratio']:.2f}** |"


if __name__ == "__main__":
    turns.script(measure, lambda *words: one(" ".join(words[:-1]), words[-1]), lines)
