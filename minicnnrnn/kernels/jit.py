"""How kernels are compiled, cached and spread over threads: decided here, once.

Three tools make a CPU kernel:

* ``@cpu`` compiles a function with the flags that every kernel shares;
* ``split(body, items, grain, args)`` runs ``body(start, stop, worker, *args)`` over a
  range of work items, cut among the threads when there are at least two grains of work;
* ``@once(count)`` compiles a function a single time for the whole process and lets
  every other kernel call it through a pointer, so that it is not compiled into each of them.

With ``NUMBA_DISABLE_JIT=1`` all three are plain Python and a debugger can step through them.
"""

import ctypes
import functools
import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache, _CacheLocator
from numba.core.ccallback import CFunc
from numba.extending import intrinsic
from numba.np.ufunc.parallel import _launch_threads

JIT = not numba.config.DISABLE_JIT
SIMD_WIDTHS = {"avx512": 16, "avx2": 8, "generic": 4}

# nsz and contract let LLVM fuse multiply-adds and forget the sign of zero. nnan, ninf, arcp
# and afn stay out: a NaN or an infinity must reach the loss, and bits must not depend on luck.
FLAGS = {
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
    "fastmath": {"contract", "nsz"},
}
REASSOCIATE = {"contract", "nsz", "reassoc"}
SPINS = "1000"  # of a waiting thread before it sleeps: some microseconds


def _simd() -> str:
    """The vector instructions that kernels use: what LLVM says of the host, or what is forced."""
    forced = os.environ.get("MINICNNRNN_SIMD")
    if forced is not None:
        if forced not in SIMD_WIDTHS:
            raise ValueError(
                f"MINICNNRNN_SIMD: Expected one of {sorted(SIMD_WIDTHS)}. Received {forced!r}."
            )
        return forced
    features = llvm.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512vl"):
        return "avx512"
    return "avx2" if features.get("avx2") and features.get("fma") else "generic"


SIMD = _simd()
VECTOR_WIDTH = SIMD_WIDTHS[SIMD]
MAX_WORKERS = numba.config.NUMBA_NUM_THREADS  # the most that set_num_threads allows


# ---------------------------------------------------------------------------------------
# The cache
# ---------------------------------------------------------------------------------------


def _fingerprint() -> str:
    """A name for exactly this version of the kernels.

    Numba looks only at the file of the function itself, so an edited callee would leave a
    stale caller behind. A directory named by all sources together cannot be stale, if it is also
    named by what they take for constants.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for fact in (numba.__version__, llvmlite.__version__, sys.version, SIMD, str(MAX_WORKERS)):
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest()[:16]


def _cache_directory() -> Path | None:
    """The first place that can be written to; ``None`` costs compile time at every start."""
    chosen = os.environ.get("MINICNNRNN_CACHE_DIR")
    candidates = [chosen] if chosen else [_user_cache(), tempfile.gettempdir()]
    for candidate in candidates:
        if candidate is None:
            continue
        directory = Path(candidate) / f"minicnnrnn-{_fingerprint()}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=directory).close()
        except OSError:
            continue
        return directory
    return None


def _user_cache() -> str | None:
    if sys.platform == "win32":
        return os.environ.get("LOCALAPPDATA")
    home = os.path.expanduser("~")
    if home == "~":
        return None
    default = os.path.join(home, "Library/Caches" if sys.platform == "darwin" else ".cache")
    return os.environ.get("XDG_CACHE_HOME") or default


CACHE_DIRECTORY = _cache_directory() if JIT else None


class _Locator(_CacheLocator):
    """Numba's hook for where to keep a compiled function."""

    def __init__(self, py_func: Any) -> None:
        self._py_file = py_func.__code__.co_filename
        self._line = py_func.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(CACHE_DIRECTORY)

    def get_source_stamp(self) -> str:
        return "the directory's name is the stamp"

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_Locator":
        return cls(py_func)


class _CacheImpl(CompileResultCacheImpl):
    def __init__(self, py_func: Any) -> None:
        configured = numba.config.CACHE_LOCATOR_CLASSES
        numba.config.CACHE_LOCATOR_CLASSES = ""
        try:
            super().__init__(py_func)
        finally:
            numba.config.CACHE_LOCATOR_CLASSES = configured

    _locator_classes = (_Locator,)


class _KernelCache(FunctionCache):
    """A disk cache whose failures cost time and nothing else."""

    _impl_class = _CacheImpl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # a truncated or foreign file: compile again
            found = None
        if found is None:
            _announce_compilation()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError:
            self.disable()


class _NoCache(NullCache):
    def load_overload(self, sig: Any, target_context: Any) -> None:
        _announce_compilation()


def _cache_for(function: Any) -> Any:
    return _NoCache() if CACHE_DIRECTORY is None else _KernelCache(function)


# Called once for every kernel that has to be compiled; the progress bar listens here.
compilation_listeners: list[Callable[[], None]] = []


def _announce_compilation() -> None:
    for listener in compilation_listeners:
        listener()


def cpu(function: Any = None, **flags: Any) -> Any:
    """Compile a CPU kernel, or any function that one calls, with the shared flags."""
    if function is None:
        return lambda function: cpu(function, **flags)
    if not JIT:
        return function
    dispatcher = numba.njit(**{**FLAGS, **flags})(function)
    dispatcher._cache = _cache_for(function)
    return dispatcher


def inner(function: Any) -> Any:
    """Compile a function that only other compiled functions call: no wrapper for Python."""
    return cpu(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


# ---------------------------------------------------------------------------------------
# Functions compiled once
# ---------------------------------------------------------------------------------------

INT = ir.IntType(64)
POINTER = ir.IntType(8).as_pointer()
_bindings: list[Callable[[], None]] = []


def once(count: int, **flags: Any) -> Callable[[Any], Any]:
    """Compile a function of `count` integers a single time; call it through a pointer.

    A kernel that calls an ordinary jitted function carries its own copy of that function's
    machine code, and pays for it whenever it is compiled. A function marked ``once`` is
    compiled alone; callers pass one tuple of integers and load its address from a cell that
    LLVM knows by name. At first the cell holds a trampoline that compiles the function, so
    it does not matter what is compiled first.
    """

    def decorate(function: Any) -> Any:
        if not JIT:
            return lambda arguments: function(*arguments)
        symbol = f"minicnnrnn_{function.__name__}"
        cell = ctypes.c_void_p()
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)

        @functools.cache
        def compile_once() -> None:
            _start_threads()  # defines the symbol get_num_threads
            compiled = CFunc(
                function,
                ([types.intp] * count, types.void),
                locals={},
                options={**FLAGS, **flags, "nopython": True},
            )
            compiled._cache = _cache_for(function)
            compiled.compile()
            cell.value = compiled.address
            call.compiled = compiled

        def first_call(*arguments: int) -> None:
            bind()
            prototype(cell.value or 0)(*arguments)

        trampoline = prototype(first_call)
        cell.value = ctypes.cast(trampoline, ctypes.c_void_p).value
        llvm.add_symbol(symbol, ctypes.addressof(cell))
        _bindings.append(compile_once)

        @intrinsic
        def call(typingctx, arguments):
            def codegen(context, builder, signature, values):
                integers = [builder.extract_value(values[0], i) for i in range(count)]
                builder.call(load_cell(builder, symbol, [INT] * count), integers)
                return context.get_dummy_value()

            return types.void(arguments), codegen

        call.trampoline, call.cell = trampoline, cell  # LLVM holds their bare addresses
        return call

    return decorate


def load_cell(builder: ir.IRBuilder, symbol: str, parameters: list[ir.Type]) -> ir.Value:
    """Load the function pointer that the cell named `symbol` holds at run time."""
    kind = ir.FunctionType(ir.VoidType(), parameters).as_pointer()
    variable = builder.module.globals.get(symbol)
    if variable is None:
        variable = ir.GlobalVariable(builder.module, kind, symbol)
        variable.linkage = "external"
    return builder.load(variable)


@functools.cache
def _start_threads() -> None:
    """Start Numba's threads, and have them wait patiently.

    A thread of GNU's OpenMP that waits for another one spins, by default for milliseconds before
    it sleeps. Where another process wants the processor too, that takes the time from the very
    thread that is waited for: beside one busy process, a train step of a ResNet-20 on two cores
    takes 182 ms with short spins and 1,407 ms with the default ones.
    """
    spins = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()
    if spins:
        os.environ["GOMP_SPINCOUNT"] = SPINS  # read when the library is loaded
    try:
        _launch_threads()
    finally:
        if spins:
            del os.environ["GOMP_SPINCOUNT"]


def bind() -> None:
    """Compile or load everything marked ``once``; a device does so before its first kernel."""
    for binding in _bindings:
        binding()
    if JIT:
        _guard_workqueue()


# ---------------------------------------------------------------------------------------
# Threads
# ---------------------------------------------------------------------------------------

if JIT:

    @intrinsic
    def _run_range(typingctx, function, data, start, stop, worker):
        def codegen(context, builder, signature, values):
            kind = ir.FunctionType(ir.VoidType(), [INT] * 4).as_pointer()
            builder.call(builder.inttoptr(values[0], kind), values[1:])
            return context.get_dummy_value()

        return types.void(function, data, start, stop, worker), codegen

    @intrinsic
    def _thread_count(typingctx):
        # numba.get_num_threads() would embed an address and so could not be cached.
        def codegen(context, builder, signature, values):
            kind = ir.FunctionType(INT, [])
            return builder.call(
                cgutils.get_or_insert_function(builder.module, kind, "get_num_threads"), []
            )

        return types.intp(), codegen

    @once(4, parallel=True)
    def fork(function, data, items, grain):
        """Cut `items` into one range a thread, none smaller than `grain`: the only `prange`."""
        workers = max(1, min(_thread_count(), items // grain))
        for worker in prange(workers):
            start = items * worker // workers
            _run_range(function, data, start, items * (worker + 1) // workers, worker)

    _RANGE = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
    _serially = _RANGE(lambda function, data, items, grain: _RANGE(function)(data, 0, items, 0))

    def _stay_serial() -> None:
        """In a forked child the threads of the parent are gone, and OpenMP ends the process."""
        fork.cell.value = ctypes.cast(_serially, ctypes.c_void_p).value

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_stay_serial)

    @functools.cache
    def _guard_workqueue() -> None:
        """Let one Python thread at a time into Numba's own thread pool, others run serially.

        The pool "workqueue", which Numba takes where there is no OpenMP, ends the process when
        two threads enter it.
        """
        if numba.threading_layer() != "workqueue":
            return
        lock, parallel = threading.Lock(), _RANGE(fork.cell.value)

        def enter(function: int, data: int, items: int, grain: int) -> None:
            if not lock.acquire(blocking=False):
                _RANGE(function)(data, 0, items, 0)
                return
            try:
                parallel(function, data, items, grain)
            finally:
                lock.release()

        fork.guarded = _RANGE(enter)  # LLVM holds the bare address
        fork.cell.value = ctypes.cast(fork.guarded, ctypes.c_void_p).value

    @intrinsic
    def split(typingctx, body, items, grain, arguments):
        """``split(body, items, grain, arguments)``: run a body over a range, cut among threads.

        ``body(start, stop, worker, *arguments)`` must give the same result however the range
        is cut. `grain` is the least number of items worth a thread; below two grains, in a
        forked child and where another Python thread is inside Numba's own pool, the body runs
        serially in the caller.
        """
        integers = (types.intp, types.intp, types.intp)
        body.get_call_type(typingctx, integers + tuple(arguments), {})
        compiled = body.dispatcher.overloads[integers + tuple(arguments)]

        def codegen(context, builder, signature, values):
            _, items, grain, pack = values
            context.active_code_library.add_linking_library(compiled.library)
            ranged = _ranged_body(context, builder.module, compiled.fndesc, pack.type)
            data = cgutils.alloca_once_value(builder, pack)
            address = builder.ptrtoint(data, INT)
            alone = builder.icmp_signed("<", items, builder.mul(grain, INT(2)))
            with builder.if_else(alone) as (serial, parallel):
                with serial:
                    builder.call(ranged, [address, INT(0), items, INT(0)])
                with parallel:
                    pointer = builder.ptrtoint(ranged, INT)
                    target = load_cell(builder, "minicnnrnn_fork", [INT] * 4)
                    builder.call(target, [pointer, address, items, grain])
            return context.get_dummy_value()

        return types.void(body, items, grain, arguments), codegen

    def _ranged_body(context: Any, module: ir.Module, fndesc: Any, pack: ir.Type) -> ir.Function:
        """Wrap a body as ``void (data, start, stop, worker)`` that unpacks its arguments."""
        name = module.get_unique_name("ranged_body")
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [INT] * 4), name)
        function.linkage = "internal"
        builder = ir.IRBuilder(function.append_basic_block())
        data, *integers = function.args
        values = builder.load(builder.inttoptr(data, pack.as_pointer()))
        members = [builder.extract_value(values, i) for i in range(len(pack.elements))]
        target = context.declare_function(module, fndesc)
        context.call_conv.call_function(
            builder, target, fndesc.restype, fndesc.argtypes, integers + members
        )
        builder.ret_void()
        return function

else:

    def split(body: Any, items: int, grain: int, arguments: tuple[Any, ...]) -> None:
        """Run a body over its whole range: the plain Python twin."""
        body(0, items, 0, *arguments)
