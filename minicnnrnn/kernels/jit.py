"""How kernels are compiled and spread over threads: decided here, once.

Four tools make a CPU kernel:

* ``@cpu`` compiles a function with the flags that every kernel shares;
* ``@inner`` does so for one that only compiled functions call;
* ``split(body, items, grain, args)`` runs ``body(start, stop, worker, *args)`` over a
  range of work items, cut among the threads when there are at least two grains of work;
* ``@once(count)`` compiles a function a single time for the whole process and lets
  every other kernel call it through a pointer, so that it is not compiled into each of them.

All wait with compiling until they are called. With ``NUMBA_DISABLE_JIT=1`` they are plain Python
and a debugger can step through them.
"""

import contextlib
import ctypes
import functools
import os
import pickle
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, typeof_impl
from numba.np.ufunc.parallel import _launch_threads

from minicnnrnn.kernels.compiler import (
    CACHE_DIRECTORY,
    FLAGS,
    JIT,
    MAX_WORKERS,
    SIMD,
    SIMD_WIDTHS,
    IngredientCompiler,
    KernelCompiler,
    address_of,
    cache_for,
    compilation_listeners,
)

__all__ = [
    "CACHE_DIRECTORY", "INT", "JIT", "MAX_WORKERS", "REASSOCIATE", "SIMD", "SIMD_WIDTHS",
    "VECTOR_WIDTH", "compilation_listeners", "cpu", "inner", "once", "split", "thread_count",
]  # fmt: skip

VECTOR_WIDTH = SIMD_WIDTHS[SIMD]
REASSOCIATE = {"contract", "nsz", "reassoc"}
# Of a waiting thread before it sleeps: some 20 microseconds. With 1,000 threads fall asleep between
# the layers of small models, and a CNN takes 1.1 times as long for a train step of 32 images and
# 1.3 times for one image; 20,000 gain nothing and cost 1.5 times as much beside a busy process.
SPINS = "5000"


class Kernel:
    """A function that becomes Numba's dispatcher when it is first called, or called for.

    Hundreds of dispatchers would cost a tenth of a second whenever the package is imported.

    Attributes
    ----------
    dispatcher
        What Numba makes of the function.
    """

    def __init__(self, function: Any, ingredient: bool, flags: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function, self._ingredient, self.flags = function, ingredient, flags
        _functions[f"{function.__module__}.{function.__qualname__}"] = self

    @functools.cached_property
    def dispatcher(self) -> Any:
        chosen = IngredientCompiler if self._ingredient else KernelCompiler
        wrappers = {"no_cfunc_wrapper": True, "no_cpython_wrapper": self._ingredient}
        made = numba.njit(pipeline_class=chosen, **{**FLAGS, **wrappers, **self.flags})(
            self.function
        )
        made._cache = cache_for(self.function, self._ingredient)
        return made

    def __call__(self, *arguments: Any) -> Any:
        return (self.function if self._ingredient else self.dispatcher)(*arguments)

    def address(self, arguments: tuple[Any, ...]) -> int:
        """The address of the function compiled for these types, for LLVM code to call."""
        with _compiling:
            if arguments not in self._addresses:
                self._addresses[arguments] = address_of(self.function, arguments, self.flags)
            return self._addresses[arguments][0]

    @functools.cached_property
    def _addresses(self) -> dict[tuple[Any, ...], tuple[int, Any]]:
        return {}


_functions: dict[str, Kernel] = {}  # by module and name
_compiling = threading.RLock()


@typeof_impl.register(Kernel)
def _type_of_kernel(kernel: Kernel, _: Any) -> Any:
    return types.Dispatcher(kernel.dispatcher)


def cpu(function: Any = None, **flags: Any) -> Any:
    """Compile a CPU kernel, or any function that one calls, with the shared flags."""
    if function is None:
        return lambda function: cpu(function, **flags)
    return Kernel(function, False, flags) if JIT else function


def inner(function: Any) -> Any:
    """Compile a function that other compiled functions call; from Python it is plain Python."""
    return Kernel(function, True, {}) if JIT else function


# ---------------------------------------------------------------------------------------
# Functions compiled once
# ---------------------------------------------------------------------------------------

INT = ir.IntType(64)
POINTER = ir.IntType(8).as_pointer()


def once(
    count: int, guard: Callable[[int], int] = lambda address: address, **flags: Any
) -> Callable[[Any], Any]:
    """Compile a function of `count` integers a single time; call it through a pointer.

    A kernel that calls an ordinary jitted function carries its own copy of that function's
    machine code, and pays for it whenever it is compiled. A function marked ``once`` is
    compiled alone; callers pass one tuple of integers and load its address from a cell that
    LLVM knows by name. At first the cell holds a trampoline that compiles the function, so
    it does not matter what is compiled first, and what is not called is not compiled. A guard
    may give the address of something else to call in its place.
    """

    def decorate(function: Any) -> Any:
        if not JIT:
            plain: Any = functools.wraps(function)(lambda arguments: function(*arguments))
            plain.function = function
            return plain
        symbol, kernel = f"minicnnrnn_{function.__name__}", Kernel(function, True, flags)
        cell = ctypes.c_void_p()
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)

        def first_call(*arguments: int) -> None:
            with _compiling, _usual_arithmetic():
                if cell.value == first:
                    _start_threads()  # defines the symbols that `fork` calls
                    cell.value = guard(kernel.address((types.intp,) * count))
            prototype(cell.value or 0)(*arguments)

        trampoline = prototype(first_call)
        cell.value = first = ctypes.cast(trampoline, ctypes.c_void_p).value
        llvm.add_symbol(symbol, ctypes.addressof(cell))

        @intrinsic
        def call(typingctx, arguments):
            def codegen(context, builder, signature, values):
                integers = [builder.extract_value(values[0], i) for i in range(count)]
                builder.call(load_cell(builder, symbol, [INT] * count), integers)
                return context.get_dummy_value()

            return types.void(arguments), codegen

        call.trampoline, call.cell = trampoline, cell  # LLVM holds their bare addresses
        call.function = function
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


# Where numbers below the least normal one are taken for zero: see ``_flushing_to_zero``.
FLUSHES = sys.platform == "linux" and platform.machine() == "x86_64"


@contextlib.contextmanager
def _usual_arithmetic() -> Iterator[None]:
    """Let Python, and threads that it starts, compute as usual in the midst of a kernel."""
    if not FLUSHES:
        yield
        return
    library, kept = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    library.fegetenv(kept)
    library.fesetenv(ctypes.c_void_p(-1))  # C's FE_DFL_ENV
    try:
        yield
    finally:
        library.fesetenv(kept)


@functools.cache
def _start_threads() -> None:
    """Start Numba's threads, and have them wait patiently.

    A thread of GNU's OpenMP that waits for another one spins, by default for milliseconds before
    it sleeps. Where another process wants the processor too, that takes the time from the very
    thread that is waited for: beside one busy process, a train step of a ResNet-20 on two cores
    takes 240 ms with these spins and 1,407 ms with the default ones.
    """
    spins = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()
    if spins:
        os.environ["GOMP_SPINCOUNT"] = SPINS  # read when the library is loaded
    try:
        _launch_threads()
    finally:
        if spins:
            del os.environ["GOMP_SPINCOUNT"]


# ---------------------------------------------------------------------------------------
# Threads
# ---------------------------------------------------------------------------------------

if JIT:

    @intrinsic
    def thread_count(typingctx):
        """How many threads there are; ``numba.get_num_threads`` would embed an address."""

        def codegen(context, builder, signature, values):
            kind = ir.FunctionType(INT, [])
            return builder.call(
                cgutils.get_or_insert_function(builder.module, kind, "get_num_threads"), []
            )

        return types.intp(), codegen

    @intrinsic
    def _run_team(typingctx, function, data, items, workers, threads):
        """Call ``function(data, start, stop, worker)`` for every worker, each on a thread.

        Numba's ``prange`` compiles to the same call of its thread pool, but takes half a second
        to load the machinery for it.
        """

        def codegen(context, builder, signature, values):
            pointer = INT.as_pointer()
            member = _team_member(builder.module)
            task = cgutils.pack_array(builder, values[:4])
            task = builder.ptrtoint(cgutils.alloca_once_value(builder, task), INT)
            first = cgutils.alloca_once_value(builder, task)  # workers are told apart by an
            step = cgutils.alloca_once_value(builder, INT(1))  # address, a byte further each
            count = cgutils.alloca_once_value(builder, values[3])
            kind = ir.FunctionType(
                ir.VoidType(), [member.type, pointer, pointer, pointer, INT, INT, INT,
                                ir.IntType(32)]
            )  # fmt: skip
            builder.call(
                cgutils.get_or_insert_function(builder.module, kind, "numba_parallel_for"),
                [member, first, count, step, task, INT(0), INT(1),
                 builder.trunc(values[4], ir.IntType(32))],
            )  # fmt: skip
            return context.get_dummy_value()

        return types.void(function, data, items, workers, threads), codegen

    def _team_member(module: ir.Module) -> ir.Function:
        """What a thread of the pool runs: ``void (addresses, counts, steps, task)``."""
        pointer = INT.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, pointer, pointer, INT])
        member = ir.Function(module, kind, "team_member")
        member.linkage = "internal"
        builder = ir.IRBuilder(member.append_basic_block())
        addresses, counts, _, task = member.args
        fields = builder.inttoptr(task, pointer)
        function, data, items, workers = (
            builder.load(builder.gep(fields, [INT(i)])) for i in range(4)
        )
        first = builder.sub(builder.load(addresses), task)
        run = builder.inttoptr(function, ir.FunctionType(ir.VoidType(), [INT] * 4).as_pointer())
        with cgutils.for_range(builder, builder.load(counts)) as loop:
            worker = builder.add(first, loop.index)
            begin, end = (
                builder.sdiv(builder.mul(items, n), workers)
                for n in (worker, builder.add(worker, INT(1)))
            )
            builder.call(run, [data, begin, end, worker])
        builder.ret_void()
        return member

    _RANGE = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
    _kept: list[Any] = []  # what LLVM holds the bare addresses of

    def _one_at_a_time(address: int) -> int:
        """Let one Python thread at a time into Numba's own thread pool, others run serially.

        The pool "workqueue", which Numba takes where there is no OpenMP, ends the process when
        two threads enter it.
        """
        if numba.threading_layer() != "workqueue":
            return address
        lock, parallel = threading.Lock(), _RANGE(address)

        def enter(function: int, data: int, items: int, grain: int) -> None:
            if not lock.acquire(blocking=False):
                _RANGE(function)(data, 0, items, 0)
                return
            try:
                parallel(function, data, items, grain)
            finally:
                lock.release()

        _kept.append(_RANGE(enter))
        return ctypes.cast(_kept[-1], ctypes.c_void_p).value or 0

    @once(4, guard=_one_at_a_time)
    def fork(function, data, items, grain):
        """Cut `items` into one range a thread, none smaller than `grain`."""
        threads = thread_count()
        workers = max(1, min(threads, items // grain))
        _run_team(function, data, items, workers, threads)

    _serially = _RANGE(lambda function, data, items, grain: _RANGE(function)(data, 0, items, 0))

    def _stay_serial() -> None:
        """In a forked child the threads of the parent are gone, and OpenMP ends the process."""
        fork.cell.value = ctypes.cast(_serially, ctypes.c_void_p).value

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_stay_serial)

    def _resolve(cell: int, key: int, size: int) -> None:
        """Write the address of a body, named by a key, to the cell of a kernel that runs it."""
        name, arguments = pickle.loads(ctypes.string_at(key, size))
        ctypes.c_int64.from_address(cell).value = _functions[name].address(arguments)

    _resolver = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(_resolve)
    _resolver_cell = ctypes.c_void_p(ctypes.cast(_resolver, ctypes.c_void_p).value)
    llvm.add_symbol("minicnnrnn_resolve", ctypes.addressof(_resolver_cell))

    @intrinsic
    def split(typingctx, body, items, grain, arguments):
        """``split(body, items, grain, arguments)``: run a body over a range, cut among threads.

        ``body(start, stop, worker, *arguments)`` must give the same result however the range
        is cut. `grain` is the least number of items worth a thread; below two grains, in a
        forked child and where another Python thread is inside Numba's own pool, the body runs
        serially in the caller.

        The body is compiled alone and called by its address, which a kernel that comes from the
        cache asks for at its first call.
        """
        function = body.dispatcher.py_func
        name = f"{function.__module__}.{function.__qualname__}"
        members = (types.intp, types.intp, types.intp, *arguments)
        _functions[name].address(members)  # raises here what is wrong with the body
        key = pickle.dumps((name, members))

        def codegen(context, builder, signature, values):
            _, items, grain, pack = values
            cell = cgutils.add_global_variable(builder.module, INT, f".cell.{name}")
            cell.linkage, cell.initializer = "internal", INT(0)
            with builder.if_then(builder.icmp_signed("==", builder.load(cell), INT(0))):
                text = cgutils.make_bytearray(key)
                text = cgutils.global_constant(builder.module, f".key.{name}", text)
                known = [builder.ptrtoint(cell, INT), builder.ptrtoint(text, INT), INT(len(key))]
                builder.call(load_cell(builder, "minicnnrnn_resolve", [INT] * 3), known)
            ranged = _ranged_body(context, builder.module, members, cell, pack.type)
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

    def _ranged_body(
        context: Any, module: ir.Module, members: Any, cell: ir.Value, pack: ir.Type
    ) -> ir.Function:
        """Wrap a body as ``void (data, start, stop, worker)`` that unpacks its arguments."""
        name = module.get_unique_name("ranged_body")
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [INT] * 4), name)
        function.linkage = "internal"
        builder = ir.IRBuilder(function.append_basic_block())
        data, *integers = function.args
        values = builder.load(builder.inttoptr(data, pack.as_pointer()))
        unpacked = [builder.extract_value(values, i) for i in range(len(pack.elements))]
        kinds = [context.get_value_type(member) for member in members]
        body = ir.FunctionType(ir.VoidType(), kinds).as_pointer()
        with _flushing_to_zero(builder):
            builder.call(builder.inttoptr(builder.load(cell), body), integers + unpacked)
        builder.ret_void()
        return function

    @contextlib.contextmanager
    def _flushing_to_zero(builder: ir.IRBuilder) -> Iterator[None]:
        """Emit code in which numbers below the least normal one, 1.2e-38, are zero.

        An x86 processor takes a hundred times as long for those: gradients that vanish on their
        way back through 100 steps of an LSTM slow it down to a tenth. TensorFlow and JAX do the
        same. The caller's own arithmetic stays as it was.
        """
        if not FLUSHES:
            yield
            return
        word = ir.IntType(32)
        old, new = builder.alloca(word), builder.alloca(word)

        def control(name: str, place: ir.Value) -> None:
            kind = ir.FunctionType(ir.VoidType(), [POINTER])
            called = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}")
            builder.call(called, [builder.bitcast(place, POINTER)])

        control("stmxcsr", old)
        flags = word(0x8040)  # results, and what is read
        builder.store(builder.or_(builder.load(old), flags), new)
        control("ldmxcsr", new)
        yield
        control("ldmxcsr", old)

else:

    def split(body: Any, items: int, grain: int, arguments: tuple[Any, ...]) -> None:
        """Run a body over its whole range: the plain Python twin."""
        body(0, items, 0, *arguments)

    def thread_count() -> int:
        """How many threads there are."""
        return 1
