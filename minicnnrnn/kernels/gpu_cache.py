"""Compiled CUDA kernels, kept from process to process, and never stale.

A kernel's file is named by everything that its machine code follows from: its own bytecode and
that of all functions that it calls, with the constants and closures of each; the types of its
arguments; the GPU's capability; the versions of what compiles. The directory is the one of the
CPU's kernels, which is named by all their sources. Whatever cannot be read or written costs the
time to compile, and nothing else.
"""

import contextlib
import dis
import hashlib
import importlib
import importlib.metadata
import os
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np

from minicnnrnn.kernels.compiler import CACHE_DIRECTORY, compilation_listeners

PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic, np.dtype)
PACKAGES = ("numba-cuda", "numba", "llvmlite", "cuda-core", "cuda-bindings", "numpy")


def describe(function: Any) -> str:
    """A name for exactly this kernel: for its code, what it names, and what those name.

    Parameters
    ----------
    function
        In whose scope names stand for what the GPU runs: ``GpuFunction.resolved``.
    """
    described = _Description()
    described.add(function)
    return described.digest.hexdigest()


class _Description:
    """What has been seen of a kernel so far."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._seen: dict[int, int] = {}  # functions, by identity: they may call themselves
        self._held: list[Any] = []

    def _note(self, *facts: Any) -> None:
        for fact in facts:
            text = repr(fact).encode()
            self.digest.update(b"%d:" % len(text) + text)

    def add(self, value: Any) -> None:
        """Describe a value that code refers to."""
        value = getattr(value, "py_func", value)  # of a dispatcher
        if isinstance(value, types.CodeType):
            self._add_code(value)
        elif isinstance(value, types.FunctionType):
            self._add_function(value)
        elif isinstance(value, PLAIN):
            self._note(type(value).__name__, value)
        elif isinstance(value, tuple | list):
            self._note("sequence", len(value))
            for item in value:
                self.add(item)
        elif isinstance(value, frozenset | set):
            self._note("set", sorted(map(repr, value)))
        elif isinstance(value, dict):
            self.add([part for item in value.items() for part in item])
        elif isinstance(value, np.ndarray):
            self._note(value.shape, value.dtype.str, value.tobytes())
        elif callable(getattr(value, "_defn", None)):  # an intrinsic
            self.add(value._defn)
        else:  # modules, types and compiler's objects: of packages with versions, or of kernels/
            name = getattr(value, "__qualname__", getattr(value, "__name__", ""))
            self._note(type(value).__qualname__, getattr(value, "__module__", ""), name)

    def _add_code(self, code: types.CodeType) -> None:
        self._note(code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_flags)
        self._note(code.co_cellvars, code.co_argcount, code.co_exceptiontable)
        self.add(code.co_consts)

    def _add_function(self, function: types.FunctionType) -> None:
        if id(function) in self._seen:
            self._note("again", self._seen[id(function)])
            return
        self._seen[id(function)] = len(self._seen)
        self._held.append(function)  # or another one might get its identity
        self._note(function.__module__, function.__qualname__)
        self.add(function.__code__)
        self.add(function.__defaults__)
        for name in sorted(_globals_of(function.__code__)):
            if name in function.__globals__:
                self._note(name)
                self.add(function.__globals__[name])
        for cell in function.__closure__ or ():
            self.add(cell.cell_contents)


def _globals_of(code: types.CodeType) -> set[str]:
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return names.union(*map(_globals_of, inner))


def _compilers() -> str:
    """Versions and settings of all that has a part in compiling."""
    facts = []
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts.append(f"{package} {importlib.metadata.version(package)}")
    nvjitlink: Any = importlib.import_module("cuda.bindings.nvjitlink")
    nvrtc: Any = importlib.import_module("cuda.bindings.nvrtc")
    from numba.cuda.cudadrv import nvvm

    facts += [repr(nvvm.NVVM().get_version()), repr(nvvm.NVVM().get_ir_version())]
    facts += [repr(nvrtc.nvrtcVersion()), repr(nvjitlink.version())]
    facts += sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith("NUMBA_CUDA_"))
    return " ".join(facts)


class KernelFiles:
    """Where numba-cuda's dispatcher of a kernel looks for its compiled versions.

    Parameters
    ----------
    function : function
        See ``describe``.
    options : mapping
        Those of the dispatcher.
    """

    def __init__(self, function: Any, options: Any) -> None:
        self._function, self._options = function, repr(sorted(options.items()))
        self._described: str | None = None

    def _path(self, signature: Any, capability: Any) -> Path | None:
        if CACHE_DIRECTORY is None or not isinstance(signature, tuple):
            return None
        if self._described is None:
            self._described = f"{describe(self._function)} {self._options} {_compilers()}"
        argument_types = [kind.key for kind in signature]
        name = hashlib.sha256(f"{self._described} {argument_types} {capability}".encode())
        return CACHE_DIRECTORY / f"{self._function.__name__}-{name.hexdigest()[:40]}.cubin"

    def load_overload(self, signature: Any, _: Any) -> Any:
        """The kernel compiled for arguments of these types, or ``None``."""
        kernel = None
        with contextlib.suppress(Exception):  # truncated, or foreign
            kernel = self._load(signature)
        if kernel is None:
            for listener in compilation_listeners:
                listener()
        return kernel

    def _load(self, signature: Any) -> Any:
        core: Any = importlib.import_module("cuda.core")
        from numba.cuda import types as cuda_types
        from numba.cuda import typing
        from numba.cuda.codegen import CUDACodeLibrary
        from numba.cuda.dispatcher import _Kernel

        capability = _capability()
        path = self._path(signature, capability)
        if path is None:
            return None
        content = path.read_bytes()
        digest, payload = content[:32], content[32:]
        if hashlib.sha256(payload).digest() != digest:
            return None
        entry, code = payload.split(b"\0", 1)
        library = CUDACodeLibrary(None, self._function.__name__, entry_name=entry.decode())
        library._cubin_cache[capability] = core.ObjectCode.from_cubin(code)
        library._llvm_strs, library._finalized = [], True
        return _Kernel._rebuild(
            cooperative=False,
            name=entry.decode(),
            signature=typing.signature(cuda_types.none, *signature),
            codelibrary=library,
            debug=False,
            lineinfo=False,
            call_helper=None,
            extensions=[],
        )

    def save_overload(self, signature: Any, kernel: Any) -> None:
        """Keep a kernel that was compiled."""
        with contextlib.suppress(Exception):  # a full disk, or another version's objects
            code, capability = kernel._codelibrary, _capability()
            path = self._path(signature, capability)
            alone = not (code._linking_files or code._setup_functions)
            if path is None or not alone or kernel.cooperative or kernel.launch_config_sensitive:
                return
            payload = code._entry_name.encode() + b"\0" + code.get_cubin(capability).code
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(hashlib.sha256(payload).digest() + payload)
            os.replace(file.name, path)


def _capability() -> tuple[int, int, str]:
    """As numba-cuda's ``CUDACodeLibrary`` calls that of the GPU."""
    from numba.cuda.codegen import CUDACodeLibrary

    found: tuple[int, int, str] = CUDACodeLibrary(None, "")._ensure_cc(None)
    return found
