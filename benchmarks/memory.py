"""Peak resident memory of training, each side in a process of its own, imports included.

    python benchmarks/memory.py

PyTorch trains the same model on the same batch, handed over in a file so that nothing of ours is
imported, eagerly and in the memory format that needs less. Also what a repeated train step of
ours allocates in Python and NumPy, and by how much the process grows over 1,000 steps.
"""

import gc
import tempfile
import tracemalloc
from pathlib import Path

import turns

STEPS = 10
GROWTH, WARM, MANY = ("mlp", "cnn32", "lstm64"), 100, 1000


def resident(field):
    """Bytes of memory of this process: VmHWM, its peak, or VmRSS, what it has now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise SystemExit(f"/proc/self/status has no {field}")


def ours(row):
    """Train with this package."""
    import rows as models

    model, x, y = models.build(row)
    for _ in range(STEPS):
        model.train_on_batch(x, y)
    peak = resident("VmHWM")
    tracemalloc.start()
    for _ in range(3):
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        model.train_on_batch(x, y)
        allocated = tracemalloc.get_traced_memory()[1] - before
    return {"peak": peak, "allocated in a step": allocated}


def growth(row):
    """Bytes by which the process grows over many steps."""
    import rows as models

    model, x, y = models.build(row)
    for _ in range(WARM):
        model.train_on_batch(x, y)
    # Python keeps up to 2,000 freed pairs until it looks for garbage, two more with every step:
    # 0.14 MB that it has here from the beginning.
    gc.collect()
    pairs = [(i, i) for i in range(4000)]
    del pairs
    before = resident("VmRSS")
    for _ in range(MANY):
        model.train_on_batch(x, y)
    return resident("VmRSS") - before


def hand_over(row, file):
    """Write the row's model as PyTorch has it, and the batch; the memory formats there are."""
    import rows as models
    import torch
    import torch_peer

    model, x, y = models.build(row)
    module, inputs = torch_peer.translate(model), torch_peer.images(model, x)
    for parameter in module.parameters():
        parameter.__dict__.pop("home", None)
    torch.save((module, inputs, torch.from_numpy(y).long()), file)
    return list(torch_peer.formats(inputs))


def theirs(file, name):
    """Train with PyTorch alone."""
    import torch
    import torch_peer

    torch.set_num_threads(turns.THREADS)
    module, inputs, labels = torch.load(file, weights_only=False)
    if name != "contiguous":
        memory_format = torch_peer.formats(inputs)[name]
        module, inputs = module.to(memory_format=memory_format), inputs.contiguous(
            memory_format=memory_format
        )  # fmt: skip
    train, *_ = torch_peer.run_by(module, module, inputs, labels)
    for _ in range(STEPS):
        train()
    return {"peak": resident("VmHWM")}


def one(what, *arguments):
    """One process."""
    *arguments, _ = arguments
    return {"ours": ours, "growth": growth, "hand over": hand_over, "theirs": theirs}[what](
        *arguments
    )


def measure(eager):
    """All rows, and the growth of some."""
    import rows as models

    results = []
    for row in models.ROWS:
        found = {"row": row} | turns.child("memory.py", "ours", row)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.pt"
            names = turns.child("memory.py", "hand over", row, file)
            for name in names if isinstance(names, list) else ():
                peak = turns.child("memory.py", "theirs", file, name)
                found |= {f"PyTorch, {name}": peak.get("peak", peak)}
        if row in GROWTH:
            found["growth"] = turns.child("memory.py", "growth", row)
        results.append(found)
        turns.say(f"memory, {found}")
    return results


def lines(results):
    """Rows of a Markdown table."""
    import rows as models

    for r in results:
        what, _, batch = models.ROWS[r["row"]]
        title = f"peak memory of training, {what}, batch {batch}"
        peers = [value for key, value in r.items() if key[:2] == "Py" and isinstance(value, int)]
        if "error" in r or not peers:
            yield f"| {title} | failed | | |"
            continue
        ours, peer = r["peak"] / 1e6, min(peers) / 1e6
        yield f"| {title} | {ours:.0f} MB | {peer:.0f} MB | **{peer / ours:.2f}** |"
    grown = ", ".join(
        f"{r['growth'] / 1024:.0f} KiB" for r in results if isinstance(r.get("growth"), int)
    )
    yield f"| growth over {MANY:,} steps ({', '.join(GROWTH)}) | {grown} | | |"
    most = max(r.get("allocated in a step", 0) for r in results)
    yield f"| Python objects and arrays of a repeated step, at most | {most:,} bytes | | |"


if __name__ == "__main__":
    turns.script(measure, one, lines)
