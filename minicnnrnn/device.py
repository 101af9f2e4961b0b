"""Devices: which kernels there are and where, and the memory that they work in."""

import importlib
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from minicnnrnn import changes, recorded
from minicnnrnn.rooms import ROOMS

DEVICES = ("cpu", "cuda", "numpy")
PRECISIONS = ("float32", "tf32")
LARGE = 1 << 15  # floats of a batch that take longer to copy than kernels to be shown to it
_ROOM_OF = {launcher: room for room, launchers in ROOMS.items() for launcher in launchers}


class Launchers:
    """The launchers of one device by name; a room is entered when one of its own is asked for."""

    def __init__(self, device: str, precision: str = "float32") -> None:
        self._device, self._precision = device, precision

    def __getattr__(self, name: str) -> Any:
        if name not in _ROOM_OF:
            raise AttributeError(name)
        room = importlib.import_module(f"minicnnrnn.kernels.{_ROOM_OF[name]}")
        kernel = getattr(room, f"{name}_{self._device}")
        launcher = getattr(kernel, "dispatcher", kernel)
        if name.endswith(("_workspace", "_pays")):  # functions of integers, asked at every step
            launcher = lru_cache(1024)(launcher)
        elif self._device == "cuda" and self._precision != "float32":
            from minicnnrnn.kernels.product import in_precision

            launcher = in_precision(self._precision, launcher)
        setattr(self, name, launcher)
        return launcher


class Device:
    """Where a model computes: kernels by name, and arrays in that device's memory.

    Parameters
    ----------
    name : str
        ``"cpu"``: Numba kernels on all cores; ``"cuda"``: Numba kernels on an NVIDIA GPU;
        ``"numpy"``: the mathematics, as written in the reference, for reading and for stepping
        through with a debugger.
    precision : str
        "float32" or "tf32": how a GPU multiplies matrices; see ``Sequential``.
    """

    def __init__(self, name: str, precision: str = "float32") -> None:
        self.name, self.precision = name, precision
        self.cache = 1 << 20 if name == "cpu" else 0  # bytes of outputs that stay in it; 0: any

    @cached_property
    def launchers(self) -> Any:
        """Every public launcher under its name without the device."""
        return Launchers(self.name, self.precision)

    @cached_property
    def _noting(self) -> recorded.NotingLaunchers:
        return recorded.NotingLaunchers(self.launchers)

    @property
    def kernels(self) -> Any:
        """The launchers; while this thread records a step, those that note what they shall do."""
        return self.launchers if recorded.recording() is None else self._noting

    def __repr__(self) -> str:
        return f"Device({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return get_device, (self.name, self.precision)

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """An array of this device whose contents are undefined.

        It begins on a cache line, so that vectors do not straddle two.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = np.empty(size + 64, np.uint8)
        start = -memory.ctypes.data % 64
        return memory[start : start + size].view(dtype).reshape(shape)

    def zeros(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """An array of zeros on this device."""
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def copy_finite(self, array: Any, rows: Any) -> bool:
        """Copy a batch into an array of this device, if it is done quickly.

        That is, if both are of float32, in the order of memory, and all numbers finite. Checked on
        the way, a batch of 1.5 MB takes a third of the time.
        """
        return self._alike(array, rows) and bool(self._batches.copy_finite(array, rows))

    def reads_in_place(self, array: Any, rows: Any) -> bool:
        """Whether kernels may read a batch where it lies, in place of a copy in an array of ours.

        That is, if it is large, lies in memory as the copy would, and all numbers are finite. An
        average pooling of a batch of 8 MB takes 0.76 of the time.
        """
        if rows.size < LARGE or not rows.flags.writeable or not self._alike(array, rows):
            return False
        return bool(self._batches.all_finite(rows))

    def _alike(self, array: Any, rows: Any) -> bool:
        """Whether both are of float32, in the order of memory, and of one shape."""
        if self.name != "cpu" or (array.dtype, rows.dtype) != (np.float32, np.float32):
            return False
        flags = rows.flags
        return bool(array.shape == rows.shape and flags.c_contiguous and flags.aligned)

    @cached_property
    def _batches(self) -> Any:
        return importlib.import_module("minicnnrnn.kernels.gather")

    def upload(self, array: Any) -> Any:
        """A NumPy array as kernels of this device want it: itself, or a copy."""
        return array

    def recorder(self, cuda_graph: bool) -> Any:
        """What records a step for a model that wants CUDA graphs or not; None if nothing does."""
        return recorded.record if self.name == "cpu" else None

    def free_memory(self) -> int:
        """Bytes for data sets that are copied to the device: none where the host's memory is its own."""
        return 0

    @contextmanager
    def writing(self, array: Any) -> Iterator[Any]:
        """Memory of the host for what an array of this device shall hold when the block ends.

        If it ends by an exception, the array holds what it held, or nothing of worth.
        """
        yield array


class CudaDevice(Device):
    """An NVIDIA GPU: arrays in its memory, kernels by numba-cuda.

    Raises
    ------
    RuntimeError
        If there is no GPU, or no numba-cuda.
    """

    def __init__(self, name: str, precision: str = "float32") -> None:
        super().__init__(name, precision)
        from minicnnrnn.kernels import gpu, stream

        gpu.require()
        self._gpu, self._stream = gpu, stream
        self._staged: dict[Any, Any] = {}  # memory of the host by type
        self._staging = threading.RLock()  # models of several threads share it

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """An array on the GPU whose contents are undefined.

        Raises
        ------
        MemoryError
            If the GPU has too little memory left.
        """
        return self._gpu.empty(shape, dtype)

    def upload(self, array: Any) -> Any:
        """A copy on the GPU; the array itself if it lies there."""
        return self._gpu.upload(array) if isinstance(array, np.ndarray) else array

    @property
    def kernels(self) -> Any:
        """The launchers: what they launch knows whether it is recorded."""
        return self.launchers

    def recorder(self, cuda_graph: bool) -> Any:
        """What makes CUDA graphs of steps."""
        return self._graph if cuda_graph else None

    def _graph(self, work: Callable[[], Any], parts: Any) -> Any:
        return self._stream.record(work)

    def free_memory(self) -> int:
        """Bytes of the GPU's memory that nobody uses."""
        return self._gpu.free_memory()

    @contextmanager
    def writing(self, array: Any) -> Iterator[Any]:
        """Memory of the host, which the GPU gets when the block ends."""
        with self._staging:
            staging = self._staged.get(array.dtype)
            if staging is None:
                staging = self._staged[array.dtype] = self._gpu.Staging(array.dtype)
            memory = staging.memory(array.size)
            yield memory.reshape(array.shape)
            staging.send(array, memory)


class Buffer:
    """Memory that keeps its capacity: allocated when first needed, grown when more is.

    Called with a shape it returns a view, the same one every time, so that a repeated train
    step allocates nothing. What the view holds is undefined after a call with another shape.

    Examples
    --------
    >>> from minicnnrnn.device import Buffer, get_device
    >>> buffer = Buffer(get_device("numpy"))
    >>> a = buffer(4, 3)
    >>> buffer(2, 3).base is buffer(4, 3).base, buffer(4, 3) is a
    (True, True)
    """

    def __init__(self, device: Device, dtype: Any = np.float32) -> None:
        self.device, self.dtype = device, dtype
        self.memory: Any = None
        self.moves = 0  # how often the memory has become another one
        self._views: dict[tuple[int, ...], Any] = {}

    def __call__(self, *shape: int) -> Any:
        """A view of this shape."""
        view = self._views.get(shape)
        if view is None:
            size = int(np.prod(shape, dtype=np.int64))
            if self.memory is None or self.memory.size < size:
                if self.memory is not None:
                    changes.note()  # it moves
                self._views.clear()
                self.memory = None  # so that there are never two
                self.memory = self.device.empty((size,), self.dtype)
                self.moves += 1
            elif len(self._views) > 64:  # sequences of ever new lengths
                self._views.clear()
            view = self._views[shape] = self.memory[:size].reshape(shape)
        return view


_devices: dict[tuple[str, str], Device] = {}
_default: str | None = None


def get_device(name: str | Device | None = None, precision: str = "float32") -> Device:
    """The device of this name, or the default one.

    The default is what ``set_device`` set, else the environment variable
    ``MINICNNRNN_DEVICE``, else ``"cpu"``. This is the only place that branches on a device.

    Parameters
    ----------
    name : str, Device or None
    precision : str
        "float32" or "tf32".

    Raises
    ------
    ValueError
        If there is no such device or precision.
    RuntimeError
        For ``"cuda"`` without a GPU or without numba-cuda.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: Expected 'float32' or 'tf32'. Received: {precision!r}")
    if isinstance(name, Device):
        return name
    chosen = name if name is not None else _default or os.environ.get("MINICNNRNN_DEVICE") or "cpu"
    _check(chosen)
    key = chosen, precision
    if key not in _devices:
        _devices[key] = (CudaDevice if chosen == "cuda" else Device)(*key)
    return _devices[key]


def get_host_device() -> Device:
    """The default device if it works in the memory of the host, else the CPU.

    It computes what has no model, such as a metric that is called with arrays.
    """
    device = get_device()
    return get_device("cpu") if isinstance(device, CudaDevice) else device


def set_device(name: str | None) -> None:
    """Choose the device of the models made from now on; ``None`` returns to the default.

    Examples
    --------
    >>> import minicnnrnn
    >>> minicnnrnn.set_device("numpy")
    >>> minicnnrnn.Sequential().device
    Device('numpy')
    >>> minicnnrnn.set_device(None)
    """
    global _default
    if name is not None:
        _check(name)
    _default = name


def _check(name: Any) -> None:
    if not isinstance(name, str) or name not in DEVICES:
        raise ValueError(f"device: Expected one of {list(DEVICES)}. Received: {name!r}")
