"""Arrays on a GPU, and how kernels get there; with ``stream.py`` all that knows numba-cuda.

Kernels are written with ``@gpu``, which only records the function: the first launch on a GPU
imports numba-cuda and compiles. With ``NUMBA_ENABLE_CUDASIM=1`` the same kernels run as plain
Python, a thread of the operating system for every thread of the grid, which shows on any machine
whether they compute the right thing, and nothing of their speed.
"""

import contextlib
import dis
import functools
import importlib
import importlib.util
import math
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from minicnnrnn.kernels.stream import SIMULATED as SIMULATED
from minicnnrnn.kernels.stream import own_stream, stream
from minicnnrnn.recorded import needs_host, perform

# Threads of a block, a power of two. A simulated thread takes a millisecond to start.
THREADS = 4 if SIMULATED else 256
BLOCKS = 2 if SIMULATED else 2048  # at most, where threads walk through the items in strides
TABLE = 4096  # elements of an array of the host that a kernel may read, at most


class _SharedArrays(dict[Any, Any]):
    """Shared arrays of a simulated block by the line that asks for them.

    The simulator looks for one and makes it if there is none, and two threads that do so at the
    same time would have one each: who finds none keeps the others waiting until it is made.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def get(self, line: Any, default: Any = None) -> Any:
        self.lock.acquire()
        found = super().get(line)
        if found is not None:
            self.lock.release()
        return default if found is None else found

    def __setitem__(self, line: Any, array: Any) -> None:
        super().__setitem__(line, array)
        self.lock.release()


class _Cuda:
    """What kernels call ``cuda``: numba-cuda's module, or in a simulated kernel, its stand-in."""

    lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        from numba.cuda.simulator import kernel

        context = kernel._get_kernel_context()
        if name == "shared":
            with self.lock:
                if not isinstance(context.shared._allocations, _SharedArrays):
                    context.shared._allocations = _SharedArrays()
        return getattr(context, name)


cuda = _Cuda()


class GpuFunction:
    """A function for a GPU, compiled when it is first launched.

    It may call what is written for the CPU, too: functions marked ``cpu`` or ``inner`` that work
    on numbers are compiled for the GPU from the same source, and where ``twin`` named something
    to take in the place of one of them, that is taken.

    Attributes
    ----------
    function
        What it does, in Python.
    launched : set
        The types of the arguments that it has been launched with under the simulator.
    bounds : int, (int, int) or None
        Of a kernel: threads of its largest block, and blocks that a processor is to hold at least,
        if the compiler is to know: it limits their registers.
    dynamic : bool
        Whether a kernel may be launched with more than ``SHARED`` bytes of shared memory.
    """

    def __init__(
        self, function: Callable[..., Any], bounds: Any = None, dynamic: bool = False
    ) -> None:
        self.__name__, self.__module__ = function.__name__, function.__module__
        self.__doc__, self.function = function.__doc__, function
        self.bounds, self.dynamic = bounds, dynamic
        self.launched: set[str] = set()

    @functools.cached_property
    def dispatcher(self) -> Any:
        """What numba-cuda makes of a kernel."""
        from numba import cuda as numba_cuda

        if SIMULATED:
            return numba_cuda.jit(_quiet(self.resolved))
        made = numba_cuda.jit(self.resolved, lto=False, launch_bounds=self.bounds)
        made._cache = importlib.import_module("minicnnrnn.kernels.gpu_cache").KernelFiles(
            self.resolved, made.targetoptions
        )
        return _allow_shared(made) if self.dynamic else made

    @functools.cached_property
    def callee(self) -> Any:
        """What kernels call, of a function that they name."""
        from numba import cuda as numba_cuda

        if SIMULATED:
            return self.resolved
        # Linked, shared memory that a kernel reaches in two ways would be defined twice.
        inline = "always" if "shared" in self.function.__code__.co_names else "never"
        return numba_cuda.jit(device=True, inline=inline)(self.resolved)

    @functools.cached_property
    def resolved(self) -> Any:
        """The function, in whose scope names stand for what a GPU can run."""
        function = self.function
        scope = dict(function.__globals__)
        named = [i.argval for i in dis.get_instructions(function) if i.opname == "LOAD_GLOBAL"]
        scope |= {name: _resolve(scope[name]) for name in named if name in scope}
        cells = tuple(types.CellType(_resolve(c.cell_contents)) for c in function.__closure__ or ())
        made = types.FunctionType(function.__code__, scope, function.__name__, None, cells)
        made.__module__, made.__qualname__ = function.__module__, function.__qualname__
        return made


def gpu(function: Callable[..., Any]) -> GpuFunction:
    """Record a kernel, or a function that kernels call."""
    return GpuFunction(function)


def bounded(threads: int) -> Callable[[Callable[..., Any]], GpuFunction]:
    """Record a kernel whose blocks have so many threads at most, and any shared memory."""
    return lambda function: GpuFunction(function, threads, dynamic=True)


def twin(original: Any) -> Callable[[Callable[..., Any]], GpuFunction]:
    """Record a function to be taken on the GPU where a kernel names `original`."""

    def record(function: Callable[..., Any]) -> GpuFunction:
        _twins[original] = GpuFunction(function)
        return _twins[original]

    return record


_twins: dict[Any, GpuFunction] = {}


def _resolve(value: Any) -> Any:
    """What a name stands for on a GPU."""
    from minicnnrnn.kernels.jit import Kernel

    if value is cuda and not SIMULATED:
        from numba import cuda as numba_cuda

        return numba_cuda
    if not isinstance(value, GpuFunction | Kernel | types.FunctionType) and not callable(value):
        return value
    if value in _twins:
        return _twins[value].callee
    if isinstance(value, Kernel):
        value = _twins[value] = GpuFunction(value.function)
    elif isinstance(value, types.FunctionType) and value.__module__.startswith("minicnnrnn."):
        value = _twins[value] = GpuFunction(value)
    return value.callee if isinstance(value, GpuFunction) else value


def _quiet(function: Any) -> Any:
    """A GPU divides by zero without a word; so does a simulated thread then."""

    @functools.wraps(function)
    def quiet(*arguments: Any) -> None:
        with np.errstate(all="ignore"):
            function(*arguments)

    return quiet


# ---------------------------------------------------------------------------------------
# Launching
# ---------------------------------------------------------------------------------------


def launch(kernel: GpuFunction, grid: Any, block: Any, *arguments: Any, shared: int = 0) -> None:
    """Run a kernel on a grid of blocks.

    Parameters
    ----------
    kernel : GpuFunction
    grid, block : int or tuple of up to three int
        Blocks, and threads in each; a grid of none does nothing.
    *arguments : DeviceArray, int, float, small NumPy array, or tuple of these
        See ``constant`` for the NumPy array.
    shared : int
        Bytes of shared memory that the kernel finds by ``dynamic``: at most ``shared_limit()`` if
        it is ``bounded``, and ``SHARED`` otherwise.

    Raises
    ------
    TypeError
        For an array that is not on the GPU, or not contiguous.
    """
    grid, block = (  # NumPy's integers, which numba-cuda takes, its launcher does not
        tuple(map(int, n)) if isinstance(n, tuple) else int(n) for n in (grid, block)
    )
    if 0 in (grid if isinstance(grid, tuple) else (grid,)):
        return
    if SIMULATED:
        kernel.launched.add(" ".join(map(describe, arguments)))
    perform(_launch, kernel, grid, block, shared, tuple(map(_handle, arguments)))


def _launch(
    kernel: GpuFunction, grid: Any, block: Any, shared: int, handles: tuple[Any, ...]
) -> None:
    if SIMULATED:
        kernel.dispatcher[(grid, block, 0, shared) if shared else (grid, block)](*handles)
    else:
        kernel.dispatcher[grid, block, stream(), shared](*handles)


def over(kernel: GpuFunction, items: int, *arguments: Any) -> None:
    """Run a kernel whose threads walk through `items` in strides of the grid's size."""
    launch(kernel, min(-(-items // THREADS), BLOCKS), THREADS, *arguments)


# Every block may have this much shared memory, in bytes; more has to be allowed for each kernel.
SHARED = 48 * 1024

if SIMULATED:

    @gpu
    def dynamic():
        return cuda.shared.array(0, np.float32)

else:

    @gpu
    def dynamic():
        """The shared memory that ``launch`` was asked for, of floats; 128-bit loads may read it."""
        return cuda.shared.array(0, np.float32, alignment=16)


@functools.cache
def shared_limit() -> int:
    """Bytes of shared memory that a block on this GPU may ask for; the least where simulated."""
    if SIMULATED:
        return SHARED
    from numba import cuda as numba_cuda

    device: Any = numba_cuda.get_current_device()
    return max(SHARED, int(device.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN))


def _allow_shared(dispatcher: Any) -> Any:
    """Let what a dispatcher compiles ask for all the shared memory: numba-cuda does not."""
    compile_one = dispatcher.compile

    def compile_and_allow(signature: Any) -> Any:
        from numba.cuda.cudadrv.driver import binding, driver

        attributes: Any = binding.CUfunction_attribute
        attribute = attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        compiled = compile_one(signature)
        function = compiled._codelibrary.get_cufunc()
        limit = shared_limit() - function.attrs.shared  # what is static counts, too
        driver.cuKernelSetAttribute(attribute, limit, function.handle, function.device.id)
        return compiled

    dispatcher.compile = compile_and_allow
    return dispatcher


@gpu
def place(i, D, H, W, C):
    """Sample, depth, row, column and channel of element number `i` of an array of five axes."""
    i, c = i // C, i % C
    i, w = i // W, i % W
    i, h = i // H, i % H
    return i // D, i % D, h, w, c


def _handle(argument: Any) -> Any:
    if isinstance(argument, DeviceArray):
        if not argument.contiguous:
            raise TypeError(f"Expected a contiguous array. Received: a view of {argument.shape}")
        return argument.handle
    if isinstance(argument, np.ndarray):
        return constant(argument).handle
    return tuple(map(_handle, argument)) if isinstance(argument, tuple) else argument


def describe(argument: Any) -> str:
    """The type that a kernel sees, as in the table of compiled kernels."""
    if isinstance(argument, tuple):
        return f"( {' '.join(map(describe, argument))} )"
    if isinstance(argument, DeviceArray | np.ndarray):
        return f"{argument.dtype}[{argument.ndim}]"
    if isinstance(argument, np.generic):
        return str(argument.dtype)
    return {bool: "bool", int: "int64", float: "float64"}[type(argument)]


def constant(array: Any) -> "DeviceArray":
    """A table of the host, such as thresholds or segments, as kernels read it.

    It is copied to the GPU once, and known again by what it holds.

    Raises
    ------
    TypeError
        For more than a table: a kernel would not get the array itself, but a copy.
    """
    if array.size > TABLE:
        raise TypeError(f"Expected an array on the GPU. Received: one of the host, {array.shape}")
    return _constant(array.tobytes(), array.shape, array.dtype.str)


@functools.lru_cache(256)
def _nothing(shape: tuple[int, ...], dtype: str) -> "DeviceArray":
    return empty(shape, dtype)


@functools.lru_cache(256)
def _constant(content: bytes, shape: tuple[int, ...], dtype: str) -> "DeviceArray":
    return upload(np.frombuffer(content, dtype).reshape(shape))


# ---------------------------------------------------------------------------------------
# Indices
# ---------------------------------------------------------------------------------------
#
# A GPU divides integers by some seventy instructions, so that taking an index apart may cost more
# than what is done with it. Where the divisor is known beforehand, a multiplication is enough.


@functools.cache
def divisor(number: int) -> tuple[int, int, int]:
    """What ``divided`` needs of a positive number: itself, a factor, and a shift.

    With ``factor = ceil(2**shift / number)`` and ``shift = 31 + ceil(log2(number))`` the quotient
    is exact: Granlund and Montgomery 1994, "Division by Invariant Integers using
    Multiplication", theorem 4.2.
    """
    shift = 31 + (number - 1).bit_length()
    return number, -(-(1 << shift) // number), shift


@gpu
def divided(index, by):
    """Quotient and remainder of an index in [0, 2**31) by a ``divisor``."""
    quotient = (index * by[1]) >> by[2]
    return quotient, index - quotient * by[0]


# ---------------------------------------------------------------------------------------
# Memory
# ---------------------------------------------------------------------------------------


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in a GPU's memory.

    It has what layers need of an array: its shape, views of it, and copies to and from NumPy.
    Arithmetic on it is done by kernels. NumPy's functions and operators take it, too, so that a
    layer or a loss of your own may be written in NumPy: they work on copies in the memory of the
    host, which is slow.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    size, ndim : int
    base : DeviceArray or None
        The array whose memory this one shows, if it is a view.
    handle
        numba-cuda's array.
    """

    __slots__ = ("base", "contiguous", "dtype", "handle", "ndim", "shape", "size")

    def __init__(self, handle: Any, base: "DeviceArray | None" = None) -> None:
        self.handle, self.base = handle, base
        self.shape: tuple[int, ...] = tuple(handle.shape)
        self.dtype = np.dtype(handle.dtype)
        self.size, self.ndim = math.prod(self.shape), len(self.shape)
        self.contiguous = self.size == 0 or bool(handle.is_c_contiguous())

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: Any) -> "DeviceArray":
        """The same memory in another shape."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        if -1 in wanted:
            rest = math.prod(n for n in wanted if n != -1)
            wanted = tuple(self.size // max(rest, 1) if n == -1 else int(n) for n in wanted)
        if wanted == self.shape:
            return self
        if not self.size:  # numba-cuda reshapes no empty array
            return _nothing(wanted, self.dtype.str)
        return DeviceArray(self.handle.reshape(*wanted), self.base or self)

    def __getitem__(self, key: Any) -> Any:
        """A view for slices; a number, read from the GPU, for one index an axis."""
        if key is Ellipsis:
            return self
        keys = key if isinstance(key, tuple) else (key,)
        if self._is_element(keys):
            return np.asarray(self[self._around(keys)]).flat[0]
        return DeviceArray(self.handle[key], self.base or self)

    def _is_element(self, keys: tuple[Any, ...]) -> bool:
        return len(keys) == self.ndim and all(isinstance(k, int | np.integer) for k in keys)

    def _around(self, keys: tuple[int, ...]) -> tuple[slice, ...]:
        """Slices with one element."""
        if any(not -n <= k < n for k, n in zip(keys, self.shape, strict=True)):
            raise IndexError(f"Expected an index in {self.shape}. Received: {keys}")
        first = (int(k) % n for k, n in zip(keys, self.shape, strict=True))
        return tuple(slice(k, k + 1) for k in first)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Copy a number, some numbers, a NumPy array or another array of this GPU here."""
        if key is Ellipsis or (isinstance(key, slice) and key == slice(None)):
            self._assign(value)
            return
        keys = key if isinstance(key, tuple) else (key,)
        if self._is_element(keys):
            key = self._around(keys)  # a view, instead of the element
        DeviceArray(self.handle[key])._assign(value)

    def _assign(self, value: Any) -> None:
        if not self.size:
            return
        kind = float if self.dtype.kind == "f" else int
        if isinstance(value, DeviceArray):
            if self.contiguous and value.contiguous and value.shape == self.shape:
                over(_copy, self.size, self.reshape(-1), value.reshape(-1))
            else:
                perform(_set, self.handle, value.handle)
        elif isinstance(value, int | float | np.generic) and self.contiguous:
            over(_fill, self.size, self.reshape(-1), kind(value))
        elif isinstance(value, list | tuple) and self.size == len(value) <= 8 and self.contiguous:
            launch(_write, 1, 1, self.reshape(-1), tuple(map(kind, value)))
        else:
            needs_host()
            host = np.ascontiguousarray(value, self.dtype)
            if host.shape != self.shape:
                host = np.array(np.broadcast_to(host, self.shape))
            if self.contiguous:
                self.reshape(-1).handle.copy_to_device(host.reshape(-1), stream=own_stream())
            else:
                _set(self.handle, host)
            own_stream().synchronize()  # from now on the host may change what was copied

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        (target,) = options.pop("out", (None,))
        host = (np.asarray(a) if isinstance(a, DeviceArray) else a for a in inputs)
        result = getattr(ufunc, method)(*host, **options)
        if target is None:
            return result
        target[...] = result
        return target

    def __iadd__(self, value: Any) -> "DeviceArray":
        """Add a number, or another array of this GPU."""
        if isinstance(value, DeviceArray):
            over(_add, self.size, self.reshape(-1), value.reshape(-1))
        else:
            over(_increase, self.size, self.reshape(-1), self.dtype.type(value))
        return self

    # The operators of NumPy return arrays of the host; in place, an array stays on the GPU.
    def __iand__(self, value: Any) -> "DeviceArray":  # type: ignore[misc]
        """Keep the ones of a mask where another one has ones, too."""
        over(_both, self.size, self.reshape(-1), value.reshape(-1))
        return self

    def __iter__(self) -> Any:
        return iter(np.asarray(self))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if copy is False:
            raise ValueError("Expected a copy to be allowed. Received: an array on the GPU")
        needs_host()
        source = self if self.contiguous else self.__copy__()
        host = source.handle.copy_to_host(stream=own_stream())
        own_stream().synchronize()
        return host if dtype is None else host.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"DeviceArray({np.asarray(self)!r})"

    def __copy__(self) -> "DeviceArray":
        copy = empty(self.shape, self.dtype)
        copy[...] = self
        return copy

    def __deepcopy__(self, memo: Any) -> "DeviceArray":
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return upload, (np.asarray(self),)


def _set(to: Any, of: Any) -> None:
    """Copy an array where one of the two is not contiguous; nobody waits for it."""
    if SIMULATED:
        to[:] = of
    else:
        to.setitem(slice(None), of, stream=stream())


@gpu
def _copy(to, of):
    for i in range(cuda.grid(1), to.size, cuda.gridsize(1)):
        to[i] = of[i]


@gpu
def _fill(to, value):
    for i in range(cuda.grid(1), to.size, cuda.gridsize(1)):
        to[i] = value


@gpu
def _write(to, values):
    for i in range(to.size):
        to[i] = values[i]


@gpu
def _add(to, of):
    for i in range(cuda.grid(1), to.size, cuda.gridsize(1)):
        to[i] += of[i]


@gpu
def _increase(to, value):
    for i in range(cuda.grid(1), to.size, cuda.gridsize(1)):
        to[i] += value


@gpu
def _both(to, of):
    for i in range(cuda.grid(1), to.size, cuda.gridsize(1)):
        to[i] &= of[i]


def upload(array: Any) -> DeviceArray:
    """A copy of a NumPy array on the GPU."""
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def empty(shape: tuple[int, ...], dtype: Any = np.float32) -> DeviceArray:
    """An array on the GPU whose contents are undefined.

    Raises
    ------
    MemoryError
        If the GPU has too little memory left.
    RuntimeError
        If there is no GPU, or no numba-cuda.
    """
    require()
    needs_host()
    from numba import cuda as numba_cuda

    try:
        return DeviceArray(numba_cuda.device_array(shape, dtype))
    except Exception as error:
        if "OUT_OF_MEMORY" not in str(error):
            raise
        wanted = math.prod(shape) * np.dtype(dtype).itemsize
        raise MemoryError(
            f"device 'cuda': Expected {wanted:,} bytes of free memory. "
            f"Received: {free_memory():,} bytes"
        ) from error


class Staging:
    """Memory of the host by which batches reach a GPU, in two halves that take turns.

    While the GPU fetches one half, the next batch is written to the other. Both are page-locked,
    as a copy that goes on by itself wants it.

    Parameters
    ----------
    dtype : numpy.dtype
    """

    def __init__(self, dtype: Any) -> None:
        self._dtype, self._halves, self._fetched = dtype, [np.empty(0, dtype)] * 2, [None, None]
        self._turn = 0

    def memory(self, size: int) -> Any:
        """A vector for the next batch, once the GPU has fetched what was there."""
        from numba import cuda as numba_cuda

        needs_host()
        self._turn = 1 - self._turn
        fetched: Any = self._fetched[self._turn]
        if fetched is not None:
            fetched.synchronize()
        if self._halves[self._turn].size < size:
            self._halves[self._turn] = numba_cuda.pinned_array(size, self._dtype)
        return self._halves[self._turn][:size]

    def send(self, array: DeviceArray, memory: Any) -> None:
        """Let the GPU fetch a vector that ``memory`` gave."""
        from numba import cuda as numba_cuda

        fetched = numba_cuda.event()
        array.reshape(-1).handle.copy_to_device(memory, stream=own_stream())
        fetched.record(own_stream())
        self._fetched[self._turn] = fetched


def free_memory() -> int:
    """Bytes of the GPU's memory that are free; much where it is simulated."""
    if SIMULATED:
        return 2**34
    from numba import cuda as numba_cuda

    return int(numba_cuda.current_context().get_memory_info().free)


@functools.cache
def require() -> None:
    """Raise the one error that says what a CUDA device lacks on this machine.

    Raises
    ------
    RuntimeError
        If numba-cuda is not installed, or finds no GPU.
    """
    how = "pip install 'minicnnrnn[cuda]'"
    if importlib.util.find_spec("numba_cuda") is None:
        raise RuntimeError(
            f"device 'cuda': Expected the package numba-cuda ({how}). Received: none"
        )
    with contextlib.suppress(Exception):
        from numba import cuda as numba_cuda

        if numba_cuda.is_available():
            if not SIMULATED:
                config: Any = importlib.import_module("numba.cuda.core.config")
                config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # small models have small grids
            return
    raise RuntimeError(
        "device 'cuda': Expected an NVIDIA GPU and its driver, and CUDA's libraries "
        f"({how}). Received: none that numba-cuda finds"
    )
