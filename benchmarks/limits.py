"""What a train step and a prediction take their time for: kernels, and what is beside them.

    python benchmarks/limits.py

Each row in a process of its own: whole steps in turns with the launches of a recorded step one by
one, and the peak of the building block. What kernels that multiply reach of that peak counts the
multiply-adds of the direct sums, so that Winograd's algorithm may pass it.
"""

import statistics
import time

import rows as models
import turns

ROUNDS = max(3, turns.ROUNDS)
# How many times as fast as PyTorch each row shall be: train step, prediction of the batch.
WANTED = {
    "cnn32": (2.0, 2.0),
    "cnn128": (2.0, 2.0),
    "vgg_like": (2.0, 2.0),
    "resnet20": (2.0, 1.5),
    "vgg16": (2.0, 2.0),
    "inception": (1.5, 1.5),
    "conv1d": (2.0, 2.0),
    "conv3d": (1.5, 1.5),
    "rnn128": (4.0, 2.0),
    "gru128": (5.0, 2.0),
    "lstm128": (2.0, 1.5),
    "lstm64": (2.5, 1.5),
    "lstm256": (1.8, 1.3),
    "text": (2.0, 1.5),
    "convlstm": (1.5, None),
    "mlp": (1.8, 1.8),
}
MULTIPLY = ("conv_", "winograd_", "dense_", "lstm_", "gru_", "simple_rnn_")


def launches(recording):
    """(name, what it does) of all that a recording holds, in order."""
    for work, arguments in recording._performed:
        name = getattr(work, "__name__", type(work).__name__)
        yield name.removesuffix("_cpu"), lambda work=work, arguments=arguments: work(*arguments)


def measured(whole, recording):
    """Medians: milliseconds of the whole, and of the launches by name, in falling order."""
    steps, parts = [], {}
    for _ in range(ROUNDS):
        whole()
        start = time.perf_counter()
        whole()
        steps.append(time.perf_counter() - start)
        spent = {}
        for name, launch in launches(recording):
            start = time.perf_counter()
            launch()
            spent[name] = spent.get(name, 0) + time.perf_counter() - start
        for name, seconds in spent.items():
            parts.setdefault(name, []).append(seconds)
    found = {name: round(1000 * statistics.median(times), 4) for name, times in parts.items()}
    by_time = dict(sorted(found.items(), key=lambda part: -part[1]))
    return {"ms": round(1000 * statistics.median(steps), 4), "kernels": by_time}


def one(row, eager):
    """One row, in this process."""
    import numba
    from peak import prepare

    numba.set_num_threads(turns.THREADS)
    model, x, y = models.build(row)
    peak, result, peaks = prepare(), {}, []
    ways = {
        "predict": lambda: model.predict_on_batch(x),
        "train": lambda: model.train_on_batch(x, y),
    }
    for name, whole in ways.items():
        for _ in range(4):
            whole()
        passes, training = model._recorded
        (recording,) = (training if name == "train" else passes)._known.values()
        peaks.append(peak())
        result[name] = measured(whole, recording)
        peaks.append(peak())
    for name, count in models.operations(row).items():
        kernels = result[name]["kernels"]
        products = sum(ms for kernel, ms in kernels.items() if kernel.startswith(MULTIPLY))
        result[name]["of peak"] = round(count / products / 1e-3 / max(peaks), 3)
    return result | {"peak GFLOP/s": [round(value / 1e9) for value in peaks]}


def measure(eager):
    """All rows."""
    results = {}
    for row in models.ROWS:
        results[row] = turns.child("limits.py", row)
        turns.say(f"limits, {row}: {results[row]}")
    return results


def table(results, ratios):
    """Markdown: for each row and pass what is wanted and reached, and where our time goes."""
    yield "| | pass | wanted | reached | products | beside kernels | kernels that take most |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | --- |"
    for row, found in results.items():
        title, _, batch = models.ROWS[row]
        for pass_, wanted in zip(("train", "predict"), WANTED[row]):
            if "error" in found or wanted is None:
                continue
            part, reached = found[pass_], ratios.get((row, pass_))
            whole, kernels = part["ms"], part["kernels"]
            beside = max(0.0, 1 - sum(kernels.values()) / whole)
            most = [f"{name} {ms / whole:.0%}" for name, ms in kernels.items() if ms > whole / 50]
            short = reached is not None and reached < wanted
            said = "not measured" if reached is None else f"{reached:.2f}"
            said = f"**{said}**, {1 - reached / wanted:.0%} short" if short else said
            yield (
                f"| {title}, {batch} | {pass_} | {wanted:.1f} | {said} "
                f"| {part['of peak']:.0%} of peak "
                f"| {beside:.0%} | {', '.join(most[:4])} |"
            )


def lines(results):
    """Rows of a Markdown table, without a peer."""
    return table(results, {})


if __name__ == "__main__":
    turns.script(measure, one, lines)
