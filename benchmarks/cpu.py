"""Train steps and predictions of this package and of its peers, side by side on the CPU.

    python benchmarks/cpu.py                   # everything: tables, results/cpu-*.json, README
    python benchmarks/cpu.py lstm128 gru128    # some rows, printed only
    python benchmarks/cpu.py --peers torch     # against PyTorch alone, printed only
    python benchmarks/cpu.py --eager           # without torch.compile, which takes a minute a row

Each pair of a row and a peer runs in a process of its own, on two threads. Both sides get the
same weights and the same batch, and must compute the same predictions, losses and gradients of
every weight before anything is timed. Then they take turns, A B A B, each turn at least 30 ms
long after a step and 10 ms that do not count, since the thread pools of the two still spin when
they hand over. A ratio compares two neighbouring turns; the figure is the median of all ratios:
above 1 this package is faster. PyTorch runs eagerly in both memory formats, and through
``torch.compile`` in the faster of the two; the fastest of them is the opponent.

The share of the peak is what matrix products and convolutions need (forward, and twice that
backward, but no gradient of the model's input), over what the building block reaches in the
first-level cache on as many threads, just before and just after in the same process.

With everything, fitting.py, single.py, starting.py, memory.py, scale.py and limits.py follow;
what the last one finds goes into results/README.md.
"""

import argparse
import importlib
import json
import os
import shutil
from importlib.util import find_spec

import rows as models
import turns
from turns import HERE, THREADS, say

RESULTS, README = HERE / "results", HERE.parent / "README.md"
PEERS = {"torch": "PyTorch", "jax": "JAX", "keras": "Keras on JAX", "tinygrad": "tinygrad"}
SECTIONS = ("fitting", "single", "starting", "memory", "scale", "limits")


def missing(peer):
    """Why a peer cannot run here; empty if it can."""
    needs = ("keras", "jax") if peer == "keras" else (peer,)
    for name in needs:
        if not find_spec(name):
            return f"{name} is not installed"
    compiler = os.environ.get("CC", "clang")
    if peer == "tinygrad" and not shutil.which(compiler):
        return f"its CPU kernels need a compiler, and there is no {compiler}"
    return ""


def verify(row, model, ways, x, y):
    """Raise unless all compute the same; the largest relative difference of gradients."""
    import numpy as np

    expected = model.predict_on_batch(x)
    for name, (_, predict, _) in ways.items():
        turns.close(f"{name}, predictions", np.abs(np.asarray(predict()) - expected).max(), 1e-4)
    tolerance, largest = models.GRADIENTS.get(row, 1e-3), 0.0
    first = model.train_on_batch(x, y)
    for name, (train, _, gradients) in ways.items():
        for ours, theirs in gradients():
            scale = max(np.linalg.norm(theirs), 1e-30)
            largest = max(largest, float(np.linalg.norm(ours - theirs) / scale))
        turns.close(f"{name}, gradients", largest, tolerance)
        turns.close(f"{name}, first loss", float(train()) / first - 1, 1e-5)
    second = model.train_on_batch(x, y)
    for name, (train, *_) in ways.items():
        turns.close(f"{name}, loss after a step", float(train()) / second - 1, tolerance / 10)
    return largest


def against(row, peer, eager):
    """Measure one row against one peer in this process; the result as a dict."""
    import numba
    from peak import prepare

    module, options = importlib.import_module(f"{peer}_peer"), {}
    if peer == "torch":
        import torch

        torch.set_num_threads(THREADS)
        options["compiled"] = not eager
    # Only now: with Numba's OpenMP in the process before its own, PyTorch's small loops take forty
    # times as long (a SimpleRNN 90 ms instead of 2.3).
    numba.set_num_threads(THREADS)
    model, x, y = models.build(row)
    ways = module.steps(model, x, y, **options)
    result = {"row": row, "peer": peer, "gradients differ by": verify(row, model, ways, x, y)}
    peak, operations = prepare(), models.operations(row)
    for pass_, mine, index in (
        ("train", lambda: model.train_on_batch(x, y), 0),
        ("predict", lambda: model.predict_on_batch(x), 1),
    ):
        best = {name: min(turns.turn(way[index]) for _ in range(3)) for name, way in ways.items()}
        fastest = min(best, key=best.get)
        result[pass_] = {"opponent": fastest} | turns.compare(mine, ways[fastest][index], peak)
        result[pass_]["best ms"] = {name: round(1000 * t, 3) for name, t in best.items()}
        share = operations[pass_] / result[pass_].pop("possible")
        result[pass_]["share of peak"] = round(share, 3)
    return result


def measure(rows, peers, eager):
    """All rows against all peers, each pair in a process of its own."""
    results = []
    for row in rows:
        for peer in peers:
            if peer == "tinygrad" and row not in models.TINYGRAD:
                continue
            found = turns.child("cpu.py", row, "--peers", peer, *["--eager"] * eager)
            results.append({"row": row, "peer": peer} | found)
            if "error" not in found:
                say(f"{row}, {peer}: " + "; ".join(described(found, p) for p in PASSES))
    return results


PASSES = ("train", "predict")


def described(found, pass_):
    part = found[pass_]
    low, high = part["quartiles"]
    return "{} {:.2f} ms ({:.0%} of peak) to {:.2f} ({}): {:.2f} ({:.2f} - {:.2f})".format(
        pass_, part["ms"][0], part["share of peak"], part["ms"][1], part["opponent"],
        part["ratio"], low, high,
    )  # fmt: skip


def heading(found, eager):
    """What the tables were measured on."""
    versions = ", ".join(
        f"{title} {found[name]}"
        for name, title in {"numba": "Numba", "torch": "PyTorch", "jax": "JAX", "keras": "Keras",
                            "tinygrad": "tinygrad"}.items()
        if found[name] != "not installed"
    )  # fmt: skip
    return (
        f"{found['cpu']} ({found['simd']}, {found['peak GFLOP/s']} GFLOP/s on {found['threads']} "
        f"threads), Python {found['python']}, {versions}, {found['date']}"
        + (", PyTorch without torch.compile" if eager else "")
    )


def table(results, titled):
    """The rows as a Markdown table."""
    peers = [peer for peer in PEERS if any(r["peer"] == peer for r in results)]
    names = " | ".join(PEERS[peer] for peer in peers)
    lines = [
        f"{titled}. How many times as fast as each peer, and in brackets the quartiles of the "
        "comparisons with PyTorch:",
        "",
        f"| | batch | train step | {names} | predict | {names} |",
        "| --- | ---: |" + 2 * (" ---: |" * (1 + len(peers))),
    ]
    for row, (title, _, batch) in models.ROWS.items():
        of_row = {r["peer"]: r for r in results if r["row"] == row}
        if of_row:
            cells = [cell for pass_ in PASSES for cell in cells_of(of_row, pass_, peers)]
            lines.append(f"| {title} | {batch} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cells_of(of_row, pass_, peers):
    """Our milliseconds and the ratio to each peer."""
    parts = {peer: of_row[peer].get(pass_) if peer in of_row else {} for peer in peers}
    ours = next((part for part in parts.values() if part), None)
    yield f"{ours['ms'][0]:.2f} ms ({ours['share of peak']:.0%} of peak)" if ours else "failed"
    for peer, part in parts.items():
        if not part:
            yield "" if part == {} else "failed"
        elif peer == "torch":
            yield "**{:.2f}** ({:.2f} - {:.2f})".format(part["ratio"], *part["quartiles"])
        else:
            yield f"**{part['ratio']:.2f}**"


def put(name, text, file=None):
    """Replace what stands between two comments of a file, README.md unless another is given."""
    file, begin, end = file or README, f"<!-- benchmark: {name} -->\n", "<!-- end -->"
    before, found, rest = file.read_text().partition(begin)
    if found:
        file.write_text(before + begin + text + "\n" + end + rest.partition(end)[2])


def main():
    """Run the rows and print their table; if everything ran, keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(models.ROWS)}; or all")
    parser.add_argument("--peers", help=f"of {','.join(PEERS)}, separated by commas; or all")
    parser.add_argument(
        "--again", action="store_true",
        help=f"put the rows into the newest results, or any of {', '.join(SECTIONS)}",
    )  # fmt: skip
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    asked = options.peers.split(",") if options.peers else list(PEERS)
    if options.child:
        print(json.dumps(against(options.rows[0], asked[0], options.eager)))
        return
    absent = {peer: why for peer in asked if (why := missing(peer))}
    for peer, why in absent.items():
        say(f"{PEERS[peer]} is left out: {why}")
    peers = [peer for peer in asked if peer not in absent]
    if options.again:
        again(options.rows, peers, options.eager)
        return
    results = measure(options.rows or models.ROWS, peers, options.eager)
    found = turns.child("turns.py")
    text = table(results, heading(found, options.eager))
    print(text)
    if options.rows or options.peers:
        return
    whole = {"machine": found, "left out": absent, "torch.compile": not options.eager}
    whole["rows"] = results
    file = RESULTS / f"cpu-{found['date']}-{found['simd']}.json"
    file.write_text(json.dumps(whole, indent=1) + "\n")
    for name in SECTIONS:
        whole[name] = importlib.import_module(name).measure(options.eager)
        file.write_text(json.dumps(whole, indent=1) + "\n")
    publish(whole)


def again(names, peers, eager):
    """Measure rows or sections again, and put them into the newest results."""
    file = max(RESULTS.glob("cpu-*.json"))
    for name in names:
        if name in SECTIONS:
            found = {name: importlib.import_module(name).measure(eager)}
        else:
            found = {"rows": measure([name], peers, eager)}
        whole = json.loads(file.read_text())
        if "rows" in found:
            kept = [r for r in whole["rows"] if r["row"] != name or r["peer"] not in peers]
            found["rows"] += kept
        machine = turns.child("turns.py")
        whole |= found
        whole.setdefault("measured again", {})[name] = machine
        file.write_text(json.dumps(whole, indent=1) + "\n")
        publish(whole)


def publish(whole):
    """Print the tables and put them into README.md."""
    later = whole.get("measured again", {})
    dates = sorted({machine["date"] for machine in later.values()})
    note = f"; {', '.join(later)} again on {', '.join(dates)}" if later else ""
    text = table(whole["rows"], heading(whole["machine"], not whole["torch.compile"]) + note)
    lines = ["| | this package | peer | |", "| --- | ---: | ---: | ---: |"]
    for name in SECTIONS[:-1]:
        lines += importlib.import_module(name).lines(whole[name])
    print(text, *lines, sep="\n")
    against_torch = {
        (r["row"], name): r[name]
        for r in whole["rows"] if r["peer"] == "torch" for name in PASSES if name in r
    }  # fmt: skip
    if "limits" in whole:
        limits = importlib.import_module("limits").table(whole["limits"], against_torch)
        put("limits", "\n".join(limits), RESULTS / "README.md")
    put("cpu", text)
    put("cpu: more", "\n".join(lines))


if __name__ == "__main__":
    main()
