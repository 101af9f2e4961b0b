"""Train steps of this package and of PyTorch, side by side on the CPU.

    python benchmarks/cpu.py            # all rows: prints the table, writes results/cpu-*.json
    python benchmarks/cpu.py lstm128    # one row, or several

Each row runs in a process of its own, on two threads. Both sides get the same weights and the
same batch, and must compute the same loss before anything is timed. Then they take turns,
A B A B, each turn at least 30 ms long and its first step discarded, since the thread pools of
the two still spin when they hand over. A ratio compares two neighbouring turns; the figure is
the median of all ratios: above 1 this package is faster. PyTorch runs eagerly, in both memory
formats where that makes a difference; the faster one is the opponent.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

THREADS = int(os.environ.get("BENCHMARK_THREADS", "2"))
TURN, ROUNDS = 0.03, 40
RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"

# name: (what it is, batch size)
ROWS = {
    "cnn32": ("CNN (32, 64 filters), 28 x 28 x 1", 32),
    "cnn128": ("CNN (32, 64 filters), 28 x 28 x 1", 128),
    "lstm128": ("LSTM (128), 28 steps x 28", 64),
    "gru128": ("GRU (128), 28 steps x 28", 64),
    "rnn128": ("SimpleRNN (128), 28 steps x 28", 64),
    "mlp": ("MLP 784-512-512-10", 128),
}


def our_model(row):
    """The row's model in this package, built, with a fixed seed."""
    from minicnnrnn import Sequential, layers

    if row.startswith("cnn"):
        stack = [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
        ]
    elif row == "mlp":
        stack = [layers.Input((784,)), *(layers.Dense(512, activation="relu") for _ in range(2))]
    else:
        kind = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}[
            row.rstrip("0123456789")
        ]
        stack = [layers.Input((28, 28)), kind(128)]
    model = Sequential([*stack, layers.Dense(10, activation="softmax")], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def torch_model(row, weights):
    """The same model in PyTorch, with the same weights."""
    import torch
    from torch import nn

    def put(parameter, array):
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(array.copy()))

    head = nn.Linear(weights[-2].shape[0], 10)
    put(head.weight, weights[-2].T)
    put(head.bias, weights[-1])
    if row.startswith("cnn"):
        convs = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        for conv, kernel, bias in zip(convs, weights[0:4:2], weights[1:4:2]):
            put(conv.weight, kernel.transpose(3, 2, 0, 1))
            put(conv.bias, bias)
        # PyTorch flattens channels first: the head's inputs are in another order.
        put(head.weight, weights[4].reshape(5, 5, 64, 10).transpose(3, 2, 0, 1).reshape(10, 1600))
        pool = nn.MaxPool2d(2)
        return nn.Sequential(
            convs[0], nn.ReLU(), pool, convs[1], nn.ReLU(), pool, nn.Flatten(), head
        )
    if row == "mlp":
        linears = nn.Linear(784, 512), nn.Linear(512, 512)
        for linear, kernel, bias in zip(linears, weights[0:4:2], weights[1:4:2]):
            put(linear.weight, kernel.T)
            put(linear.bias, bias)
        return nn.Sequential(linears[0], nn.ReLU(), linears[1], nn.ReLU(), head)

    class Last(nn.Module):
        def __init__(self, recurrent):
            super().__init__()
            self.recurrent, self.head = recurrent, head

        def forward(self, x):
            return self.head(self.recurrent(x)[0][:, -1])

    kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[row.rstrip("0123456789")]
    recurrent = kind(28, 128, batch_first=True)
    kernel, recurrent_kernel, bias = weights[:3]
    biases = (bias, 0 * bias) if bias.ndim == 1 else bias
    if row.startswith("gru"):  # Keras has the gates z, r, h; PyTorch r, z, n
        order = [*range(128, 256), *range(128), *range(256, 384)]
        kernel, recurrent_kernel = kernel[:, order], recurrent_kernel[:, order]
        biases = tuple(part[order] for part in biases)
    put(recurrent.weight_ih_l0, kernel.T)
    put(recurrent.weight_hh_l0, recurrent_kernel.T)
    put(recurrent.bias_ih_l0, biases[0])
    put(recurrent.bias_hh_l0, biases[1])
    recurrent.bias_hh_l0.requires_grad_(bias.ndim > 1)  # of its two biases Keras has but one
    return Last(recurrent)


def torch_steps(row, weights, x, y):
    """PyTorch's train steps by memory format: functions that return the loss."""
    import torch

    def make(channels_last):
        model = torch_model(row, weights)
        inputs, labels = torch.from_numpy(x), torch.from_numpy(y).long()
        if row.startswith("cnn"):
            inputs = inputs.permute(0, 3, 1, 2).contiguous()
            if channels_last:
                model = model.to(memory_format=torch.channels_last)
                inputs = inputs.contiguous(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), eps=1e-7, fused=True)

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
            return loss

        return step

    formats = (False, True) if row.startswith("cnn") else (False,)
    return {"channels last" if last else "contiguous": make(last) for last in formats}


def turn(step):
    """Seconds a step, over at least 30 ms after one discarded step."""
    step()
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < TURN:
        step()
        count += 1
    return passed / count


def run_row(row):
    """Measure one row in this process; the result as a dict."""
    import numba
    import numpy as np
    import torch

    numba.set_num_threads(THREADS)
    torch.set_num_threads(THREADS)
    rng = np.random.default_rng(0)
    title, batch = ROWS[row]
    shape = {"c": (28, 28, 1), "m": (784,)}.get(row[0], (28, 28))
    x = rng.random((batch, *shape), dtype=np.float32)
    y = rng.integers(0, 10, batch).astype(np.int32)
    model = our_model(row)
    theirs = torch_steps(row, model.get_weights(), x, y)
    # The first losses show that forward agrees, the second ones backward and update, where Adam
    # may take a weight with a vanishing gradient the other way.
    for tolerance in (1e-5, 1e-3):
        ours = model.train_on_batch(x, y)
        for name, step in theirs.items():
            loss = step().item()
            if abs(loss - ours) > tolerance * abs(ours):
                raise SystemExit(f"{row}, {name}: this package {ours}, PyTorch {loss}")
    fastest = min(theirs, key=lambda name: min(turn(theirs[name]) for _ in range(5)))
    pairs = [
        (turn(lambda: model.train_on_batch(x, y)), turn(theirs[fastest])) for _ in range(ROUNDS)
    ]
    ratios = sorted(b / a for a, b in pairs)
    return {
        "row": row,
        "model": title,
        "batch": batch,
        "opponent": fastest,
        "ratio": round(statistics.median(ratios), 2),
        "quartiles": [round(ratios[len(ratios) // 4], 2), round(ratios[3 * len(ratios) // 4], 2)],
        "ms": [round(1000 * statistics.median(column), 3) for column in zip(*pairs)],
    }


def machine():
    """What the figures were measured on, and with which versions."""
    import numba
    import numpy
    import torch

    from minicnnrnn.kernels.jit import SIMD

    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "date": date.today().isoformat(),
        "cpu": model,
        "simd": SIMD,
        "threads": THREADS,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "numba": numba.__version__,
        "torch": torch.__version__,
    }


def table(found, results):
    """The results as a Markdown table."""
    lines = [
        f"Train step, {found['cpu']} ({found['simd']}), {found['threads']} threads, Python "
        f"{found['python']}, Numba {found['numba']}, PyTorch {found['torch']}, {found['date']}:",
        "",
        "| model | batch | this package | PyTorch | times as fast (quartiles) |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        low, high = r["quartiles"]
        lines.append(
            f"| {r['model']} | {r['batch']} | {r['ms'][0]:.2f} ms | {r['ms'][1]:.2f} ms | "
            f"**{r['ratio']:.2f}** ({low:.2f} - {high:.2f}) |"
        )
    return "\n".join(lines)


def main():
    """Run the rows, print the table, and keep it if all rows ran."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; all if none is named")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_row(options.rows[0])))
        return
    results = []
    for row in options.rows or ROWS:
        done = subprocess.run(
            [sys.executable, __file__, "--child", row],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{row}: {results[-1]['ratio']}", file=sys.stderr, flush=True)
    found = machine()
    text = table(found, results)
    print(text)
    if not options.rows:
        name = f"cpu-{found['date']}-{found['simd']}.json"
        (RESULTS / name).write_text(
            json.dumps({"machine": found, "rows": results}, indent=1) + "\n"
        )
        begin, end = "<!-- benchmark: cpu -->\n", "<!-- end -->"
        before, _, rest = README.read_text().partition(begin)
        README.write_text(before + begin + text + "\n" + end + rest.partition(end)[2])


if __name__ == "__main__":
    main()
