"""How time grows: with the batch, the image, the sequence, and how it shrinks with threads.

    python benchmarks/scale.py

Milliseconds a train step of ours, and between neighbours the exponent of growth: 1 is linear. The
number of threads has a process for each, on as many cores.
"""

import math
import os

import turns

REPEATS = min(5, turns.ROUNDS)
BATCHES = (1, 4, 16, 64, 256, 1024)
IMAGES = (16, 32, 64, 128, 256)
STEPS = (25, 50, 100, 200, 400, 800)
THREADS = (1, 2, 4, 8, 16)
THREADED = ("cnn128", "vgg_like", "lstm256", "mlp")


def timed(model, shape):
    """Seconds a train step on a random batch."""
    import numpy as np

    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.random(shape, dtype=np.float32), rng.integers(0, 10, shape[0])
    return min(turns.turn(lambda: model.train_on_batch(x, y)) for _ in range(REPEATS))


def curve(name):
    """Name -> [[size, ms, exponent of growth since the one before], ...]."""
    import rows as models

    from minicnnrnn import Sequential, layers

    def model(body):
        return Sequential([*body, layers.Dense(10, activation="softmax")], seed=0)

    def images(size):
        body = [layers.Input((size, size, 3))]
        for filters in (32, 64):
            body += [layers.Conv2D(filters, 3, padding="same", activation="relu")]
            body += [layers.MaxPooling2D()]
        return [*body, layers.GlobalAveragePooling2D()]

    if name.startswith("batch"):
        _, body, _ = models.ROWS[name.split()[-1]]
        sizes = [(n, body(), n) for n in BATCHES]
    elif name == "image":
        sizes = [(size, images(size), 8) for size in IMAGES]
    else:
        sizes = [(steps, models.recurrent(name, 64, steps, 64)(), 32) for steps in STEPS]
    points = []
    for size, body, batch in sizes:
        made = model(body)
        amount = size**2 if name == "image" else size
        points.append((size, amount, timed(made, (batch, *made.input_shape[1:]))))
    return with_exponents(points)


def with_exponents(points):
    """[size, ms, exponent] of points (size, amount of work, seconds)."""
    found = []
    for i, (size, amount, seconds) in enumerate(points):
        exponent = None
        if i:
            _, less, before = points[i - 1]
            exponent = round(math.log(seconds / before) / math.log(amount / less), 3)
        found.append([size, round(1000 * seconds, 3), exponent])
    return found


def threaded(row):
    """Milliseconds a train step of a row on the threads that this process was given."""
    import rows as models

    model, x, y = models.build(row)
    best = min(turns.turn(lambda: model.train_on_batch(x, y)) for _ in range(REPEATS))
    return round(1000 * best, 3)


def one(what, name, eager):
    """One process."""
    return {"curve": curve, "threads": threaded}[what](name)


CURVES = {
    "batch cnn32": "batch of the CNN",
    "batch mlp": "batch of the MLP",
    "batch lstm128": "batch of the LSTM (128)",
    "image": "pixels of an image (two convolutions, batch of 8)",
    "LSTM": "time steps of LSTM (64)",
    "GRU": "time steps of GRU (64)",
    "SimpleRNN": "time steps of SimpleRNN (64)",
}


def measure(eager):
    """All curves; threads as far as there are cores."""
    cores = len(os.sched_getaffinity(0))
    results = {"growth": {}, "threads": {}}
    for name in CURVES:
        results["growth"][name] = turns.child("scale.py", "curve", name)
        turns.say(f"growth with {name}: {results['growth'][name]}")
    for row in THREADED:
        results["threads"][row] = {
            str(n): turns.child("scale.py", "threads", row, threads=n)
            for n in THREADS if n <= cores
        }  # fmt: skip
        turns.say(f"threads, {row}: {results['threads'][row]}")
    return results


def lines(results):
    """Rows of a Markdown table."""
    import rows as models

    for name, points in results["growth"].items():
        if isinstance(points, dict):
            yield f"| growth with the {CURVES[name]} | failed | | |"
            continue
        largest = max(exponent for *_, exponent in points if exponent is not None)
        sizes, times = f"{points[0][0]} to {points[-1][0]}", (points[0][1], points[-1][1])
        yield (
            f"| growth with the {CURVES[name]}, {sizes} | {times[0]:.2f} to {times[1]:.1f} ms "
            f"| | exponent at most {largest:.2f} |"
        )
    for row, by_threads in results["threads"].items():
        cells = ", ".join(f"{n}: {ms} ms" for n, ms in by_threads.items())
        yield f"| threads, {models.ROWS[row][0]}, batch {models.ROWS[row][2]} | {cells} | | |"


if __name__ == "__main__":
    turns.script(measure, one, lines)
