"""Train steps of this package and of PyTorch, side by side on an NVIDIA GPU.

    python benchmarks/gpu.py                   # everything: table, results/gpu-*.json, README
    python benchmarks/gpu.py lstm128 resnet20  # some rows, printed only
    python benchmarks/gpu.py --device cpu rnn128   # that both sides compute the same, no timing

Needs this package's dependencies, PyTorch and a GPU. Each row runs in a process of its own. Both
sides get the same weights and the same batch, which lies on the GPU, and must compute the same
losses of three steps and the same gradients before anything is timed; where one of them rounds to
TF32, they may be a hundred times further apart. Then they take turns, A B A B, each turn at least
30 ms between two CUDA events, from an idle GPU to an idle GPU. A ratio compares two neighbouring
turns; the figure is the median of all: above 1 this package is faster.

Our step is that of ``fit``: gathering the batch, forward, loss and accuracy, backward, update.
PyTorch's is forward, loss, backward and a fused Adam; eagerly, and captured as a whole in a CUDA
graph. It has its defaults, TF32 in cuDNN alone, and the arithmetic of our side: TF32 nowhere, or
everywhere. Images are in both memory formats, of which the faster one counts.

With everything, gpu_parts.py follows: matrix products, ``fit``, the host's share, starting.
"""

import argparse
import json
import platform
import re
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import cpu
import turns
from turns import say

ABSENT = 2  # exit status where there is nothing to measure on, or with
TF32_SLACK = 100  # TF32 keeps 10 bits behind the point, float32 23
LARGEST = 0.5  # relative difference of gradients that is never passed over
REPEATS = 16  # copies of the batch in our data set: batches of an epoch
ACCURACY = ["accuracy"]
# (row of rows.py, batch, precision), in the order of the table
ROWS = [
    ("cnn128", 128, "float32"),
    ("lstm128", 64, "float32"),
    ("gru128", 64, "float32"),
    ("rnn128", 64, "float32"),
    ("lstm256", 64, "float32"),
    ("vgg_like", 256, "float32"),
    ("resnet20", 256, "float32"),
    ("vgg_like", 256, "tf32"),
    ("resnet20", 256, "tf32"),
]
SAME = {"float32": "TF32 off", "tf32": "TF32 on"}
COLUMNS = ("eager, defaults", "eager, same", "graph, defaults", "graph, same")


def missing(device="cuda"):
    """Why nothing can be measured here; empty if it can."""
    if not find_spec("torch"):
        return "PyTorch is not installed"
    if device == "cpu":
        return ""
    import torch

    if not torch.cuda.is_available():
        return "PyTorch finds no NVIDIA GPU"
    from minicnnrnn.device import get_device

    try:
        get_device("cuda")
    except RuntimeError as error:
        return str(error)
    return ""


def options_of(device, precision):
    """What ``Sequential`` is told."""
    return {"device": device} | ({"precision": precision} if precision != "float32" else {})


class Ours:
    """Train steps of a model as ``fit`` makes them, on a batch that comes again and again."""

    def __init__(self, model, x, y):
        import numpy as np

        from minicnnrnn import data

        model.compile("adam", "sparse_categorical_crossentropy", metrics=ACCURACY)
        repeats = np.tile(x, (REPEATS, *[1] * (x.ndim - 1))), np.tile(y, REPEATS)
        source = data.source(*repeats, None, len(x), None)
        model._ready(source, True, 0)
        self.model, self._source = model, model.resident(source)
        model._reset_totals()
        self._batches = self._forever()

    def _forever(self):
        while True:
            yield from self._source.epoch(None, None)

    def step(self):
        """One train step; nobody waits for it."""
        self.model._train_step(next(self._batches))

    def loss(self):
        """The loss of one train step."""
        self.model._reset_totals()
        self.step()
        return self.model.read_logs()["loss"]


def verify(row, mine, ways, slack):
    """Raise unless all compute the same; the largest relative difference of gradients."""
    import numpy as np
    import rows

    tolerance, largest = slack * rows.GRADIENTS.get(row, 1e-3), 0.0
    losses = [mine.loss()]
    for name, (_, gradients) in ways.items():
        for ours, theirs in gradients():
            scale = max(np.linalg.norm(theirs), 1e-30)
            largest = max(largest, float(np.linalg.norm(ours - theirs) / scale))
        turns.close(f"{name}, gradients", largest, min(tolerance, LARGEST))
    losses += [mine.loss() for _ in range(2)]
    for name, (train, _) in ways.items():
        for number, ours in enumerate(losses):
            allowed = slack * 1e-5 if number == 0 else min(tolerance, LARGEST) / 10 * number
            turns.close(f"{name}, loss {number + 1}", float(train().detach()) / ours - 1, allowed)
    return largest


def against(row, batch, precision, device):
    """Measure one row in this process; the result as a dict."""
    import gpu_peer
    import rows

    found = {"gradients differ by": {}}
    for setting in ("defaults", SAME[precision]):
        model, x, y = rows.build(row, batch, **options_of(device, precision))
        with gpu_peer.setting(setting):
            ways = gpu_peer.steps(model, x, y, device)
            mine = Ours(model, x, y)
            exact = device == "cpu" or (setting == "TF32 off" and precision == "float32")
            differ = verify(row, mine, ways, 1 if exact else TF32_SLACK)
            found["gradients differ by"][setting] = differ
            if device == "cuda":
                kind = "defaults" if setting == "defaults" else "same"
                found |= timed(mine, ways, device, kind)
    return found


def timed(mine, ways, device, setting):
    """Our step in turns with the fastest eager way and the fastest graph."""
    from gpu_peer import turner

    turn_of = {name: turner(train, device) for name, (train, _) in ways.items()}
    best = {name: min(turn() for _ in range(3)) for name, turn in turn_of.items()}
    ours, found = turner(mine.step, device), {}
    for kind in ("eager", "graph"):
        fastest = min((name for name in best if name.startswith(kind)), key=best.get)
        pairs = [(ours(), turn_of[fastest]()) for _ in range(turns.ROUNDS)]
        found[f"{kind}, {setting}"] = {"opponent": fastest} | turns.summary(pairs)
    found[f"best ms, {setting}"] = {name: round(1000 * t, 4) for name, t in best.items()}
    return found


def measure(rows, device):
    """The rows of these names, each in a process of its own."""
    results = []
    for row, batch, precision in ROWS:
        if row in rows:
            about = {"row": row, "batch": batch, "precision": precision}
            found = turns.child("gpu.py", row, str(batch), precision, "--device", device)
            results.append(about | found)
            say(f"{row}, {precision}: {found}")
    return results


def machine():
    """What the figures were measured on, and with which versions."""
    import torch

    about = torch.cuda.get_device_properties(0)
    found = {
        "date": date.today().isoformat(),
        "device": about.name,
        "capability": f"{about.major}.{about.minor}",
        "multiprocessors": about.multi_processor_count,
        "memory GB": round(about.total_memory / 2**30, 1),
        "python": platform.python_version(),
        "CUDA of torch": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
    }
    for name in ("torch", "numba", "numba-cuda", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def table(results, about):
    """The rows as a Markdown table."""
    import rows

    lines = [
        f"{about['device']}, PyTorch {about['torch']}, numba-cuda {about['numba-cuda']}, "
        f"{about['date']}. How many times as fast as PyTorch a train step is, and in brackets the "
        "quartiles; eagerly and as a CUDA graph, with its defaults (TF32 in cuDNN) and in the "
        "same arithmetic as this package:",
        "",
        "| | batch | | train step | eager, its defaults | eager, same arithmetic "
        "| graph, its defaults | graph, same arithmetic |",
        "| --- | ---: | --- |" + 5 * " ---: |",
    ]
    for found in results:
        parts = [found.get(column) for column in COLUMNS]
        ours = next((part["ms"][0] for part in parts if part), None)
        cells = [
            "**{:.2f}** ({:.2f} - {:.2f})".format(part["ratio"], *part["quartiles"])
            if part
            else "failed"
            for part in parts
        ]
        lines.append(
            f"| {rows.ROWS[found['row']][0]} | {found['batch']} | {found['precision']} | "
            f"{'failed' if ours is None else f'{ours:.3f} ms'} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def keep(about, results, parts):
    """Write everything to a file, and the tables to README.md."""
    import gpu_parts

    name = re.sub(r"[^a-z0-9]+", "-", about["device"].lower()).strip("-")
    whole = {"machine": about, "rows": results, "parts": parts}
    cpu.RESULTS.mkdir(exist_ok=True)
    file = cpu.RESULTS / f"gpu-{about['date']}-{name}.json"
    file.write_text(json.dumps(whole, indent=1) + "\n")
    lines = ["| | this package | PyTorch | |", "| --- | ---: | ---: | ---: |"]
    text = "\n".join([table(results, about), "", *lines, *gpu_parts.lines(parts)])
    cpu.put("gpu", text)
    return text


def main(arguments=None):
    """Run the rows and print their table; if everything ran, keep it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = list(dict.fromkeys(row for row, _, _ in ROWS))
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(known)}; or all")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        row, batch, precision = options.rows
        print(json.dumps(against(row, int(batch), precision, options.device)))
        return 0
    if unknown := set(options.rows) - set(known):
        parser.error(f"Expected rows of {known}. Received: {sorted(unknown)}")
    if why := missing(options.device):
        say(f"Nothing can be measured here: {why}.")
        return ABSENT
    results = measure(options.rows or known, options.device)
    if options.device == "cpu":
        return int(any("error" in found for found in results))
    about = machine()
    if options.rows:
        print(table(results, about))
    else:
        import gpu_parts

        print(keep(about, results, gpu_parts.measure()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
