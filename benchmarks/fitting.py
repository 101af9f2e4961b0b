"""``fit`` from the call to its end: three epochs of the CNN on 10,000 MNIST images.

    python benchmarks/fitting.py

Kernels are warm, everything else is included: shuffling, batches, loss and accuracy. Opponents
are a plain PyTorch loop over shuffled tensors, the same with a DataLoader (both in the memory
format that is faster here), and Keras' own ``fit`` on JAX.
"""

import time

import rows as models
import turns

ROUNDS, EPOCHS, BATCH = min(7, turns.ROUNDS), 3, 32
ACCURACY = 0.95  # what each must reach on its training images in the last epoch


def data():
    """The images from 0 to 1, with one channel, and their labels."""
    import numpy as np

    from minicnnrnn.datasets import mnist

    (x, y), _ = mnist.load_data()
    return (x / 255).astype(np.float32).reshape(-1, 28, 28, 1), y.astype(np.int64)


def ours(model, x, y):
    """Loss and accuracy of the last epoch."""
    history = model.fit(x, y, BATCH, EPOCHS, verbose=0).history
    return history["loss"][-1], history["accuracy"][-1]


def torch_batches(x, y):
    """Batches of shuffled tensors."""
    import torch

    order = torch.randperm(len(x), device=x.device)
    for start in range(0, len(x), BATCH):
        chosen = order[start : start + BATCH]
        yield x[chosen], y[chosen]


def torch_fit(module, batches, memory_format, epochs=EPOCHS):
    """PyTorch's training loop; loss and accuracy add up as in ``fit``."""
    import torch

    optimizer = torch.optim.Adam(module.parameters(), eps=1e-7, fused=True)
    place = next(module.parameters()).device
    for _ in range(epochs):
        loss_sum, seen = torch.zeros((), device=place), 0
        correct = torch.zeros((), dtype=torch.long, device=place)
        for x, y in batches():
            optimizer.zero_grad(set_to_none=True)
            scores = module(x.contiguous(memory_format=memory_format))
            loss = torch.nn.functional.cross_entropy(scores, y)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(x)
            correct += (scores.detach().argmax(1) == y).sum()
            seen += len(x)
        measured = loss_sum.item() / seen, correct.item() / seen
    return measured


def torch_ways(model, x, y):
    """Name -> a whole training with PyTorch."""
    import torch
    import torch_peer

    torch.set_num_threads(turns.THREADS)
    x, y = torch.from_numpy(x).movedim(-1, 1).contiguous(), torch.from_numpy(y)
    formats = torch_peer.formats(x)

    def fitted(memory_format, batches, epochs=EPOCHS):
        module = torch_peer.translate(model).to(memory_format=memory_format)
        return torch_fit(module, batches, memory_format, epochs)

    def timed(memory_format):
        start = time.perf_counter()
        fitted(memory_format, lambda: torch_batches(x[:2000], y[:2000]), 1)
        return time.perf_counter() - start

    fastest = min(formats.values(), key=lambda kind: min(timed(kind) for _ in range(3)))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, y), batch_size=BATCH, shuffle=True
    )
    return {
        "PyTorch, shuffled tensors": lambda: fitted(fastest, lambda: torch_batches(x, y)),
        "PyTorch, DataLoader": lambda: fitted(fastest, lambda: loader),
    }


def keras_ways(model, x, y):
    """Name -> a whole training with Keras; compiled before, as our kernels are."""
    import keras_peer

    made, _ = keras_peer.translated(model, x.shape[1:], metrics=["accuracy"])
    begin = made.get_weights()
    made.fit(x[: 10 * BATCH + len(x) % BATCH], y[: 10 * BATCH + len(x) % BATCH], BATCH, verbose=0)

    def fit():
        made.set_weights(begin)
        history = made.fit(x, y, BATCH, EPOCHS, verbose=0).history
        return history["loss"][-1], history["accuracy"][-1]

    return {"Keras on JAX": fit}


def one(peer, eager):
    """Ours in turns with one peer's ways, in this process."""
    import numba

    (model, _, _), (untrained, _, _) = models.build("cnn32"), models.build("cnn32")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = data()
    ways = {"torch": torch_ways, "keras": keras_ways}[peer](untrained, x, y)
    numba.set_num_threads(turns.THREADS)  # behind PyTorch's OpenMP, see cpu.py
    model.fit(x[: 10 * BATCH + len(x) % BATCH], y[: 10 * BATCH + len(x) % BATCH], BATCH, verbose=0)
    found = {name: {"pairs": [], "reached": []} for name in ways}
    reached = []
    for _ in range(ROUNDS):
        model.set_weights(untrained.get_weights())
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        start = time.perf_counter()
        reached.append(ours(model, x, y))
        mine = time.perf_counter() - start
        for name, way in ways.items():
            start = time.perf_counter()
            found[name]["reached"].append(way())
            found[name]["pairs"].append((mine, time.perf_counter() - start))
    results = []
    for name, part in found.items():
        worst = min(accuracy for _, accuracy in reached + part["reached"])
        turns.close(f"{name}, accuracy", 1 - worst, 1 - ACCURACY)
        results.append({
            "opponent": name, **turns.summary(part["pairs"]), "loss, accuracy": reached[-1],
            "opponent's": part["reached"][-1],
        })  # fmt: skip
    return results


def measure(eager):
    """Both processes."""
    results = []
    for peer in ("torch", "keras"):
        found = turns.child("fitting.py", peer)
        results += found if isinstance(found, list) else [{"opponent": peer} | found]
    for r in results:
        turns.say(f"MNIST by fit, {r}")
    return results


def lines(results):
    """Rows of a Markdown table."""
    for r in results:
        title = f"MNIST, 10,000 images, 3 epochs by `fit`; {r['opponent']}"
        if "error" in r:
            yield f"| {title} | failed | | |"
            continue
        ours, theirs = (milliseconds / 1000 for milliseconds in r["ms"])
        yield f"| {title} | {ours:.1f} s | {theirs:.1f} s | **{r['ratio']:.2f}** |"


if __name__ == "__main__":
    turns.script(measure, one, lines)
