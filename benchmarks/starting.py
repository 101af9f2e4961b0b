"""Starting: whole processes, from ``python script.py`` to the end of the first train step.

    python benchmarks/starting.py

The CNN, with our kernels cached and in turns with PyTorch; then with an empty cache, with the
seconds that each phase takes; and ``import minicnnrnn`` in turns with ``import numba``.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

import turns

ROUNDS, COLD = min(7, turns.ROUNDS), min(2, turns.ROUNDS)

OURS = """
import sys, time
import numpy as np
from minicnnrnn import Sequential, layers
imported = time.time()
model = Sequential([
    layers.Input((28, 28, 1)),
    layers.Conv2D(32, 3, activation="relu"),
    layers.MaxPooling2D(),
    layers.Conv2D(64, 3, activation="relu"),
    layers.MaxPooling2D(),
    layers.Flatten(),
    layers.Dense(10, activation="softmax"),
])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
x, y = np.random.rand(32, 28, 28, 1), np.random.randint(0, 10, 32)
built = time.time()
model.train_on_batch(x, y)
print(imported, built, time.time())
"""

TORCH = """
import torch
from torch import nn
model = nn.Sequential(
    nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(1600, 10),
)
optimizer = torch.optim.Adam(model.parameters())
x, y = torch.rand(32, 1, 28, 28), torch.randint(0, 10, (32,))
scores = model(x)
loss = nn.functional.cross_entropy(scores, y)
loss.backward()
optimizer.step()
print(loss.item(), (scores.argmax(1) == y).float().mean().item())
"""


def run(script, cache):
    """Seconds of a whole process, and what it printed."""
    cached = {"MINICNNRNN_CACHE_DIR": str(cache), "CUDA_CACHE_PATH": str(cache)}
    environment = {**os.environ, **cached}
    start = time.time()
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    return time.time() - start, start, done.stdout


def phases(start, printed):
    """Seconds of each phase of OURS."""
    moments = [start, *map(float, printed.split())]
    names = ("import", "build", "train step")
    return {n: round(b - a, 3) for n, a, b in zip(names, moments, moments[1:])}


def in_turns(ours, theirs, cache):
    """Whole processes A B A B, after one each that does not count."""
    pairs = [(run(ours, cache)[0], run(theirs, cache)[0]) for _ in range(ROUNDS + 1)]
    return turns.summary(pairs[1:])


def one(what, eager):
    """One of the three comparisons."""
    with tempfile.TemporaryDirectory() as cache:
        if what == "warm":
            run(OURS, cache)
            found = in_turns(OURS, TORCH, cache)
            _, start, printed = run(OURS, cache)
            return found | {"phases": phases(start, printed)}
        if what == "import":
            return in_turns("import minicnnrnn", "import numba", cache)
    times, found = [], []
    for _ in range(COLD):
        with tempfile.TemporaryDirectory() as cache:
            seconds, start, printed = run(OURS, cache)
            times.append(seconds)
            found.append(phases(start, printed))
    return {"seconds": round(statistics.median(times), 2), "phases": found}


def measure(eager):
    """All three."""
    results = {}
    for what in ("warm", "cold", "import"):
        results[what] = turns.child("starting.py", what)
        turns.say(f"starting, {what}: {results[what]}")
    return results


def lines(results):
    """Rows of a Markdown table."""
    for what, title in (
        ("warm", "script to the end of its first train step (CNN), kernels cached"),
        ("import", "`import minicnnrnn`; `import numba`"),
    ):
        r = results[what]
        if "error" in r:
            yield f"| {title} | failed | | |"
        else:
            ours, theirs = (milliseconds / 1000 for milliseconds in r["ms"])
            yield f"| {title} | {ours:.2f} s | {theirs:.2f} s | **{r['ratio']:.2f}** |"
    cold = results["cold"]
    yield f"| the same with an empty cache | {cold.get('seconds', 'failed')} s | | |"


if __name__ == "__main__":
    turns.script(measure, one, lines)
