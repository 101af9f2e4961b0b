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


def measured(whole, recording, count, peak):
    """Medians: milliseconds of the whole, and of the launches by name, in falling order.

    And what kernels that multiply, `count` operations, reach of the peak measured behind them.
    """
    steps, parts, possible = [], {}, []
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
        products = sum(seconds for name, seconds in spent.items() if name.startswith(MULTIPLY))
        possible.append(products * peak(1))
    found = {name: round(1000 * statistics.median(times), 4) for name, times in parts.items()}
    by_time = dict(sorted(found.items(), key=lambda part: -part[1]))
    share = round(count / statistics.median(possible), 3)
    return {"ms": round(1000 * statistics.median(steps), 4), "kernels": by_time, "of peak": share}


def one(row, eager):
    """One row, in this process."""
    import numba
    from peak import prepare

    numba.set_num_threads(turns.THREADS)
    model, x, y = models.build(row)
    peak, result, operations = prepare(), {}, models.operations(row)
    ways = {
        "predict": lambda: model.predict_on_batch(x),
        "train": lambda: model.train_on_batch(x, y),
    }
    for name, whole in ways.items():
        for _ in range(4):
            whole()
        passes, training = model._recorded
        (recording,) = (training if name == "train" else passes)._known.values()
        result[name] = measured(whole, recording, operations[name], peak)
    return result


def measure(eager):
    """All rows."""
    results = {}
    for row in models.ROWS:
        results[row] = turns.child("limits.py", row)
        turns.say(f"limits, {row}: {results[row]}")
    return results


def table(results, against_torch):
    """Markdown: for each row and pass what is wanted and reached, and where our time goes.

    `against_torch` has the comparisons with PyTorch by row and pass. At the peak is what the ratio
    would be if the step were nothing but its multiply-adds at the speed of the building block.
    """
    yield "| | pass | wanted | reached | at the peak | products | beside kernels | most time |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
    for row, found in results.items():
        title, _, batch = models.ROWS[row]
        for pass_, wanted in zip(("train", "predict"), WANTED[row]):
            if "error" in found or wanted is None:
                continue
            part, kernels = found[pass_], found[pass_]["kernels"]
            reached, possible = said_of(against_torch.get((row, pass_)), wanted, kernels)
            beside = max(0.0, 1 - sum(kernels.values()) / part["ms"])
            shares = {name: ms / part["ms"] for name, ms in kernels.items()}
            most = [f"{name} {share:.0%}" for name, share in shares.items() if share > 0.02]
            yield (
                f"| {title}, {batch} | {pass_} | {wanted:.1f} | {reached} | {possible} "
                f"| {part['of peak']:.0%} of peak | {beside:.0%} | {', '.join(most[:4])} |"
            )


def said_of(compared, wanted, kernels):
    """What was reached, bold where that is short; and what the peak would give."""
    if not compared:
        return "", ""
    ratio, share = compared["ratio"], compared["share of peak"]
    winograd = any(name.startswith("winograd") for name in kernels)
    possible = "" if winograd else f"{ratio / share:.2f}"
    short = f"**{ratio:.2f}**, {1 - ratio / wanted:.0%} short"
    return short if ratio < wanted else f"{ratio:.2f}", possible


def lines(results):
    """Rows of a Markdown table, without a peer."""
    return table(results, {})


if __name__ == "__main__":
    turns.script(measure, one, lines)
