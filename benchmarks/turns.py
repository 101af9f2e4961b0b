"""Two sides in turns: how a ratio is measured here, and on what."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
THREADS = int(os.environ.get("BENCHMARK_THREADS", "2"))
ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", "30"))  # pairs of turns for a ratio ...
SECONDS, FEWEST = 10, 5  # ... but no more after so many seconds, if there are so many pairs
HANDOVER, TURN = 0.01, 0.03
LIMIT = 600  # seconds that a process may take
ENVIRONMENT = os.environ | {"KERAS_BACKEND": "jax"}


def turn(step):
    """Seconds a step over at least 30 ms, after one step and 10 ms that do not count.

    The threads of the side that had its turn before still spin for a while.
    """
    start = time.perf_counter()
    step()
    while time.perf_counter() - start < HANDOVER:
        step()
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < TURN:
        step()
        count += 1
    return (time.perf_counter() - start) / count


def compare(mine, theirs, peak=None):
    """Turns A B A B: the median of the pairwise ratios, their quartiles, and milliseconds.

    With a function that measures operations a second, also how many these are, measured right
    behind our turns, in one of our steps: the speed of a machine changes within seconds.
    """
    pairs, possible, start = [], [], time.perf_counter()
    while len(pairs) < ROUNDS:
        if len(pairs) >= FEWEST and time.perf_counter() - start > SECONDS:
            break
        seconds = turn(mine)
        if peak:
            possible.append(seconds * peak(1))
        pairs.append((seconds, turn(theirs)))
    return summary(pairs) | ({"possible": statistics.median(possible)} if peak else {})


def summary(pairs):
    """What is kept of pairs of seconds (ours, theirs)."""
    ratios = sorted(theirs / ours for ours, theirs in pairs)
    return {
        "ratio": round(statistics.median(ratios), 3),
        "quartiles": [round(ratios[(len(ratios) - 1) * k // 4], 3) for k in (1, 3)],
        "ms": [round(1000 * statistics.median(column), 3) for column in zip(*pairs)],
        "rounds": len(pairs),
    }


def child(script, *arguments, threads=THREADS):
    """What a script of this folder prints, from JSON, run in a process on so many cores.

    If it fails: {"error": the last line of its complaint}.
    """

    def pin():
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

    try:
        done = subprocess.run(
            [sys.executable, str(HERE / script), "--child", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=True,
            env={**ENVIRONMENT, "BENCHMARK_THREADS": str(threads)},
            preexec_fn=pin,
            timeout=LIMIT,
        )
    except subprocess.SubprocessError as failure:
        lines = [str(failure)]
        if isinstance(failure, subprocess.CalledProcessError):
            lines += failure.stderr.strip().splitlines()
        say(f"{script} {' '.join(map(str, arguments))}: failed: {lines[-1]}")
        return {"error": lines[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def say(text):
    """Report progress."""
    print(text, file=sys.stderr, flush=True)


def close(what, difference, tolerance):
    """End this process if two results are further apart than they may be."""
    if not abs(difference) <= tolerance:
        raise SystemExit(f"{what}: apart by {difference:.1e}, more than {tolerance:.0e}")


def script(measure, one, lines):
    """The command line of a part: ``--child WHAT`` measures one thing, else all is printed."""
    words, eager = [word for word in sys.argv[1:] if word[:2] != "--"], "--eager" in sys.argv
    if "--child" in sys.argv:
        print(json.dumps(one(*words, eager)))
    else:
        print("\n".join(lines(measure(eager))))


def machine():
    """What the figures were measured on, and with which versions."""
    import peak

    from minicnnrnn.kernels.jit import SIMD

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    found = {
        "date": date.today().isoformat(),
        "cpu": next(named, platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "simd": SIMD,
        "threads": THREADS,
        "peak GFLOP/s": round(peak.prepare()() / 1e9),
        "python": platform.python_version(),
    }
    for name in ("numpy", "numba", "torch", "jax", "keras", "tinygrad"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    print(json.dumps(machine()))
