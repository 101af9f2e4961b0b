"""Compile and assemble every CUDA kernel, as it was launched in simulated tests; no GPU needed.

    NUMBA_ENABLE_CUDASIM=1 MINICNNRNN_SIGNATURES=signatures.txt pytest -m cuda
    python tests/codegen.py signatures.txt

fails if a kernel does not compile, spills registers, keeps a stack, or is missing from the table
beside this file, which ``--write`` makes anew. Where the table was made from the same sources by
the same versions, looking there is enough. With ``--hopper`` it compiles for 9.0a, as
numba-cuda does on an H100, and leaves the table alone.
"""

import contextlib
import hashlib
import importlib
import importlib.metadata
import multiprocessing
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Kernels are compiled for the lowest capability, tensor cores' for the next, and assembled for all.
CAPABILITIES = ("75", "80", "90")
HOPPER, WRITE = "--hopper", "--write"
TABLE = Path(__file__).with_name("cuda_kernels.txt")


def types_of(words: list[str]) -> list[Any]:
    """Numba's types from their names, as ``gpu.describe`` writes them: ``float32[2] ( int64 )``."""
    from numba import types

    found: list[Any] = []
    while words and (word := words.pop(0)) != ")":
        if word == "(":
            found.append(types.Tuple(types_of(words)))
            continue
        name, rank = re.fullmatch(r"(\w+)(?:\[(\d)\])?", word).groups()
        kind = types.boolean if name == "bool" else getattr(types, name)
        found.append(types.Array(kind, int(rank), "C") if rank else kind)
    return found


def compiled(line: str) -> str:
    """The table's row of a kernel: registers for each capability, bytes of shared memory."""
    import numba.cuda.dispatcher
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import cuda, types

    lowest, *_ = capabilities = CAPABILITIES[1:] if "tf32]" in line else CAPABILITIES
    capability: Any = int(lowest[0]), int(lowest[1])
    if HOPPER in sys.argv:
        capability, capabilities = (9, 0, "a"), ("90a",)
    numba.cuda.dispatcher.get_current_device = lambda: SimpleNamespace(
        compute_capability=capability
    )
    name, signature = line.split(" | ")
    module, function = name.rsplit(".", 1)
    function, *key = function.rstrip("]").split("[")
    kernel = getattr(importlib.import_module(module), function)
    if key:  # one of the kernels of a product
        kernel = kernel[key[0]]
    try:
        assembly, _ = cuda.compile_ptx(
            kernel.resolved,
            types.void(*types_of(signature.split())),
            cc=capability,
            launch_bounds=kernel.bounds,
        )
    except Exception as error:
        return f"{line} | does not compile: {str(error)[-500:]!r}"
    registers, wrong = [], []
    for assembled in capabilities:
        options = LinkerOptions(arch=f"sm_{assembled}", ptxas_options=["-v"])
        linker = Linker(ObjectCode.from_ptx(assembly.encode()), options=options)
        linker.link("cubin")
        log = linker.get_info_log()
        registers.append(re.search(r"Used (\d+) registers", log)[1])
        spilt = re.findall(r"(\d+) bytes (?:stack frame|spill stores|spill loads)", log)
        if any(int(count) for count in spilt):
            wrong.append(f"{assembled}: stack, spill stores, spill loads of {spilt} bytes")
    shared = sum(map(int, re.findall(r"\.shared [^;]*\.b8 \S+\[(\d+)\]", assembly)))
    wide = " float64" if re.search(r"\.f64", assembly) else ""
    row = f"{line} | {' '.join(registers)} | {shared}{wide}"
    return row + (f" | {'; '.join(wrong)}" if wrong else "")


def made_from() -> str:
    """The versions of the compilers, and a name for the sources of all kernels."""
    import minicnnrnn.kernels

    digest = hashlib.sha256()
    for path in sorted(Path(minicnnrnn.kernels.__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    packages = (
        "numba-cuda",
        "numba",
        "cuda-core",
        "nvidia-cuda-nvcc-cu12",
        "nvidia-nvjitlink-cu12",
    )
    versions = []
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    return f"{' '.join(versions)} kernels {digest.hexdigest()[:16]}"


def main() -> None:
    """Compile all and compare with the table."""
    lines, made = sorted(set(Path(sys.argv[1]).read_text().splitlines())), made_from()
    table = TABLE.read_text().splitlines() if TABLE.exists() else []
    if made in "".join(table[:2]) and not {HOPPER, WRITE} & set(sys.argv):
        known = {tuple(row.split(" | ")[:2]) for row in table if row.count(" | ") == 3}
        lines = [line for line in lines if tuple(line.split(" | ")) not in known]
        print(f"{len(known)} kernels are in the table, made from the same sources")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rows = pool.map(compiled, lines, chunksize=4)
    wrong = [row for row in rows if row.count(" | ") != 3]
    if WRITE in sys.argv:
        head = (
            "Registers of every CUDA kernel on capability 7.5, 8.0 and 9.0, and its bytes of "
            f"shared memory.\nkernel | types of its arguments | registers | shared | {made}\n"
        )
        TABLE.write_text(head + "".join(f"{row}\n" for row in rows))
    known = {tuple(row.split(" | ")[:2]) for row in TABLE.read_text().splitlines()}
    missing = [line for line in lines if tuple(line.split(" | ")) not in known]
    for title, listed in (("Wrong:", wrong), ("Not in the table:", missing)):
        if listed:
            print(title, *listed, sep="\n")
    chosen = "9.0a" if HOPPER in sys.argv else f"{CAPABILITIES[0]}, assembled for {CAPABILITIES}"
    print(f"{len(rows)} kernels compiled for {chosen}")
    sys.exit(bool(wrong or missing))


if __name__ == "__main__":
    main()
