"""One sample at a time: ``predict_on_batch(x1)`` against PyTorch's call in ``inference_mode``.

    python benchmarks/single.py [--eager]

PyTorch runs eagerly in both memory formats and compiled; it has its tensor already and gives one,
ours takes and gives NumPy arrays. Also what ``predict(x1)`` takes longer than
``predict_on_batch(x1)``.
"""

import statistics

import rows as models
import turns

ROWS = ("cnn32", "lstm128")


def one(row, eager):
    """Both comparisons for one row, in this process."""
    import numba
    import numpy as np
    import torch
    import torch_peer

    numba.set_num_threads(turns.THREADS)
    torch.set_num_threads(turns.THREADS)
    model, x, y = models.build(row)
    x1 = np.ascontiguousarray(x[:1])
    ways = torch_peer.steps(model, x1, y[:1], compiled=not eager)
    expected = model.predict_on_batch(x1)
    for name, (_, predict, _) in ways.items():
        turns.close(f"{name}, predictions", np.abs(predict().numpy() - expected).max(), 1e-5)
    best = {name: min(turns.turn(way[1]) for _ in range(3)) for name, way in ways.items()}
    fastest = min(best, key=best.get)
    found = turns.compare(lambda: model.predict_on_batch(x1), ways[fastest][1])
    pairs = [
        (turns.turn(lambda: model.predict_on_batch(x1)), turns.turn(lambda: model.predict(x1)))
        for _ in range(turns.ROUNDS)
    ]
    more = statistics.median(whole - bare for bare, whole in pairs)
    best = {name: round(1000 * seconds, 4) for name, seconds in best.items()}
    return {"row": row, "opponent": fastest, **found, "best ms": best,
            "predict adds us": round(1e6 * more, 1)}  # fmt: skip


def measure(eager):
    """Both rows, each in a process of its own."""
    results = []
    for row in ROWS:
        results.append({"row": row} | turns.child("single.py", row, *["--eager"] * eager))
        turns.say(f"one sample, {results[-1]}")
    return results


def lines(results):
    """Rows of a Markdown table: what, ours, PyTorch's, how many times as fast."""
    for r in results:
        title = f"one sample, {models.ROWS[r['row']][0]}"
        if "error" in r:
            yield f"| {title} | failed | | |"
            continue
        ours, theirs = r["ms"]
        yield (
            f"| {title}; `predict` adds {r['predict adds us']:.0f} µs | {1000 * ours:.0f} µs "
            f"| {1000 * theirs:.0f} µs ({r['opponent']}) | **{r['ratio']:.2f}** |"
        )


if __name__ == "__main__":
    turns.script(measure, one, lines)
