"""Train steps and predictions of this package and of its peers, side by side on the CPU.

    python benchmarks/cpu.py                   # all rows: the table, results/cpu-*.json, README
    python benchmarks/cpu.py lstm128 gru128    # some rows
    python benchmarks/cpu.py --peers torch     # against PyTorch alone

Each pair of a row and a peer runs in a process of its own, on two threads. Both sides get the
same weights and the same batch, and must compute the same losses before anything is timed. Then
they take turns, A B A B, each turn at least 30 ms long and its first step discarded, since the
thread pools of the two still spin when they hand over. A ratio compares two neighbouring turns;
the figure is the median of all ratios: above 1 this package is faster. PyTorch runs eagerly in
both memory formats, and through ``torch.compile``; the fastest of them is the opponent.

The share of the peak is what matrix products and convolutions need (forward, and twice that
backward), over what the building block reaches in the first-level cache on as many threads.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import rows as models

THREADS = int(os.environ.get("BENCHMARK_THREADS", "2"))
TURN, ROUNDS = 0.03, 30
RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
PEERS = {"torch": "PyTorch", "jax": "JAX", "keras": "Keras on JAX"}


def turn(step):
    """Seconds a step, over at least 30 ms after one discarded step."""
    step()
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < TURN:
        step()
        count += 1
    return (time.perf_counter() - start) / count


def peak():
    """Operations a second of the building block in the first-level cache, on all threads."""
    import numpy as np

    from minicnnrnn.device import get_device
    from minicnnrnn.kernels.gemm import OVERWRITE, WIDE_ROWS, block
    from minicnnrnn.kernels.jit import cpu, inner, split
    from minicnnrnn.kernels.panel import PANEL

    M, K, repeats = 4 * WIDE_ROWS, 128, 2000

    @inner
    def body(start, stop, worker, c, a, b, table):
        for item in range(start, stop):
            for _ in range(repeats):
                block(
                    c, item * M * PANEL, PANEL, M, PANEL, a, 0, K, 1, table, 0, b, 0, PANEL, 0, K,
                    1, b, 0, OVERWRITE,
                )  # fmt: skip

    @cpu
    def run(c, a, b, table):
        split(body, THREADS, 1, (c, a, b, table))

    device = get_device("cpu")
    device.kernels  # noqa: B018 (binds the building block)
    c, a, b = (device.zeros((n,)) for n in (THREADS * M * PANEL, M * K, K * PANEL))
    table = np.zeros(2, np.float32)
    run(c, a, b, table)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        run(c, a, b, table)
        times.append(time.perf_counter() - start)
    return 2 * M * PANEL * K * repeats * THREADS / min(times)


def check(row, name, ours, theirs, tolerance):
    if abs(theirs - ours) > tolerance * abs(ours):
        raise SystemExit(f"{row}, {name}: this package {ours}, the peer {theirs}")


def against(row, peer):
    """Measure one row against one peer in this process; the result as a dict."""
    import numba
    import numpy as np

    numba.set_num_threads(THREADS)
    module = importlib.import_module(f"{peer}_peer")
    if peer == "torch":
        import torch

        torch.set_num_threads(THREADS)
    model, x, y = models.build(row)
    ways = module.steps(model, x, y)
    expected = model.predict_on_batch(x)
    for name, (_, predict) in ways.items():
        error = np.abs(np.asarray(predict()) - expected).max()
        if error > 1e-4:
            raise SystemExit(f"{row}, {name}: predictions differ by {error}")
    # The first losses show that forward agrees, the second ones backward and update, where Adam
    # may take a weight with a vanishing gradient the other way.
    for tolerance in (1e-4, 5e-3):
        ours = model.train_on_batch(x, y)
        for name, (train, _) in ways.items():
            check(row, name, ours, float(train()), tolerance)
    result = {"row": row, "peer": peer}
    for pass_, mine, index in (
        ("train", lambda: model.train_on_batch(x, y), 0),
        ("predict", lambda: model.predict_on_batch(x), 1),
    ):
        fastest = min(ways, key=lambda name: min(turn(ways[name][index]) for _ in range(4)))
        pairs = [(turn(mine), turn(ways[fastest][index])) for _ in range(ROUNDS)]
        ratios = sorted(b / a for a, b in pairs)
        quartiles = ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]
        result[pass_] = {
            "opponent": fastest,
            "ratio": round(statistics.median(ratios), 3),
            "quartiles": [round(ratio, 3) for ratio in quartiles],
            "ms": [round(1000 * statistics.median(column), 3) for column in zip(*pairs)],
        }
    if peer == "torch":
        forward = models.operations(row)
        for pass_, factor in (("train", 3), ("predict", 1)):
            seconds = result[pass_]["ms"][0] / 1000
            result[pass_]["share of peak"] = round(factor * forward / seconds / peak(), 3)
    return result


def machine():
    """What the figures were measured on, and with which versions."""
    from importlib.metadata import version

    from minicnnrnn.kernels.jit import SIMD

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    installed = [name for name in ("numpy", "numba", "torch", "jax", "keras")
                 if importlib.util.find_spec(name)]  # fmt: skip
    return {
        "date": date.today().isoformat(),
        "cpu": next(named, platform.processor()),
        "simd": SIMD,
        "threads": THREADS,
        "peak GFLOP/s": round(peak() / 1e9),
        "python": platform.python_version(),
        **{name: version(name) for name in installed},
    }


def table(found, results):
    """The results as a Markdown table."""
    peers = [peer for peer in PEERS if any(r["peer"] == peer for r in results)]
    lines = [
        f"{found['cpu']} ({found['simd']}, {found['peak GFLOP/s']} GFLOP/s), {found['threads']} "
        f"threads, Python {found['python']}, Numba {found['numba']}, PyTorch "
        f"{found.get('torch')}, JAX {found.get('jax')}, {found['date']}. How many times as fast "
        "as each peer, and in brackets the quartiles of the comparisons with PyTorch:",
        "",
        "| | batch | train step | " + " | ".join(PEERS[p] for p in peers)
        + " | predict | " + " | ".join(PEERS[p] for p in peers) + " |",
        "| --- | ---: |" + 2 * (" ---: |" * (1 + len(peers))),
    ]  # fmt: skip
    for row, (title, _, batch) in models.ROWS.items():
        of_row = {r["peer"]: r for r in results if r["row"] == row}
        if not of_row:
            continue
        cells = []
        for pass_ in ("train", "predict"):
            first = next(iter(of_row.values()))[pass_]
            share = first.get("share of peak")
            cells.append(f"{first['ms'][0]:.2f} ms" + (f" ({share:.0%} of peak)" if share else ""))
            for peer in peers:
                if peer not in of_row:
                    cells.append("")
                    continue
                part = of_row[peer][pass_]
                cell = f"**{part['ratio']:.2f}**"
                if peer == "torch":
                    cell += " ({:.2f} - {:.2f})".format(*part["quartiles"])
                cells.append(cell)
        lines.append(f"| {title} | {batch} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    """Run the rows, print the table, and keep it if all rows ran."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(models.ROWS)}; or all")
    parser.add_argument("--peers", default=",".join(PEERS), help="separated by commas")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    peers = [p for p in options.peers.split(",") if importlib.util.find_spec(p)]
    if options.child:
        print(json.dumps(against(options.rows[0], peers[0])))
        return
    results = []
    for row in options.rows or models.ROWS:
        for peer in peers:
            done = subprocess.run(
                [sys.executable, __file__, "--child", "--peers", peer, row],
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            if done.returncode:
                print(f"{row}, {peer}: failed", file=sys.stderr, flush=True)
                continue
            results.append(json.loads(done.stdout.splitlines()[-1]))
            ratios = [results[-1][pass_]["ratio"] for pass_ in ("train", "predict")]
            print(f"{row}, {peer}: train {ratios[0]}, predict {ratios[1]}", file=sys.stderr,
                  flush=True)  # fmt: skip
    found = machine()
    text = table(found, results)
    print(text)
    if not options.rows and len(peers) > 1:
        name = f"cpu-{found['date']}-{found['simd']}.json"
        (RESULTS / name).write_text(
            json.dumps({"machine": found, "rows": results}, indent=1) + "\n"
        )
        begin, end = "<!-- benchmark: cpu -->\n", "<!-- end -->"
        before, _, rest = README.read_text().partition(begin)
        README.write_text(before + begin + text + "\n" + end + rest.partition(end)[2])


if __name__ == "__main__":
    main()
