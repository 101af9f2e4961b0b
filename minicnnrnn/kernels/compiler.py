"""Numba's compiler, fitted to kernels: no function compiled twice, a cache that is never stale.

Only ``jit.py`` imports this file, and nothing else reaches into Numba. Three things differ from
``numba.njit``:

* functions go through those passes alone that kernels need;
* a function that only compiled functions call, an *ingredient*, is handed to its callers as LLVM
  bitcode and never becomes machine code of its own;
* the cache is a directory named by the sources of all kernels.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba import _dynfunc, types
from numba.core import compiler, typed_passes, untyped_passes
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache, _CacheLocator
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_machinery import PassManager, register_pass

JIT = not numba.config.DISABLE_JIT
MAX_WORKERS = numba.config.NUMBA_NUM_THREADS  # the most that set_num_threads allows
SIMD_WIDTHS = {"avx512": 16, "avx2": 8, "generic": 4}

# nsz and contract let LLVM fuse multiply-adds and forget the sign of zero. nnan, ninf, arcp
# and afn stay out: a NaN or an infinity must reach the loss, and bits must not depend on luck.
FLAGS = {
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
    "fastmath": {"contract", "nsz"},
}


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


# ---------------------------------------------------------------------------------------
# Passes
# ---------------------------------------------------------------------------------------


class _Library(JITCodeLibrary):
    """Machine code that LLVM optimizes once, as a whole.

    Numba optimizes every function by itself first, and the whole twice, so that it can drop
    counts of references: kernels have none.
    """

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerKernel(typed_passes.NativeLowering):
    """Lower to machine code."""

    _name = "kernel_lowering"

    def run_pass(self, state: Any) -> bool:
        library = _Library(state.targetctx.codegen(), state.func_id.func_qualname)
        library.enable_object_caching()
        state["library"] = library
        done: bool = super().run_pass(state)
        return done


class KernelCompiler(compiler.CompilerBase):
    """Numba's pipeline without what kernels do not use: closures, ``with``, array expressions."""

    lowering: Any = _LowerKernel

    def define_pipelines(self) -> list[PassManager]:
        """The one pipeline."""
        passes = PassManager("kernel")
        for step in (
            untyped_passes.TranslateByteCode,
            untyped_passes.FixupArgs,
            untyped_passes.IRProcessing,
            untyped_passes.RewriteSemanticConstants,
            untyped_passes.GenericRewrites,
            untyped_passes.ReconstructSSA,
            typed_passes.NopythonTypeInference,
            typed_passes.PreLowerStripPhis,
            typed_passes.IRLegalization,
            self.lowering,
            typed_passes.NoPythonBackend,
        ):
            passes.add_pass(step, step.__name__)
        passes.finalize()
        return [passes]


# ---------------------------------------------------------------------------------------
# Ingredients
# ---------------------------------------------------------------------------------------


class _Bitcode(_Library):
    """The code of an ingredient and of those inside it, for linking into callers."""

    def finalize(self) -> None:
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalized = True

    def serialize_using_object_code(self) -> tuple[str, str, bytes]:
        self._ensure_finalized()
        return self.name, "bitcode", self._final_module.as_bitcode()

    @classmethod
    def restore(cls, codegen: Any, name: str, bitcode: bytes) -> "_Bitcode":
        self = cls(codegen, name)
        self._final_module = llvm.parse_bitcode(bitcode)
        self._finalized = True
        return self


def _entry_point(fndesc: Any, environment: Any, library: Any) -> Any:
    """The object under which Numba files a function's code; calling it is not possible."""
    return _dynfunc.make_function(
        fndesc.lookup_module(), fndesc.qualname, "an ingredient", 0, environment, (library,)
    )


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerIngredient(typed_passes.NativeLowering):
    """Lower to bitcode, and let callers find it."""

    _name = "kernel_ingredient_lowering"

    def run_pass(self, state: Any) -> bool:
        library = _Bitcode(state.targetctx.codegen(), state.func_id.func_qualname)
        state["library"] = library
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        entry = _entry_point(lowered.fndesc, lowered.env, library)
        state.targetctx.insert_user_function(entry, lowered.fndesc, [library])
        state["cr"] = lowered._replace(cfunc=entry)
        return True


class IngredientCompiler(KernelCompiler):
    """What compiles a function that only compiled functions call."""

    lowering = _LowerIngredient


# ---------------------------------------------------------------------------------------
# Functions with an address
# ---------------------------------------------------------------------------------------


def address_of(function: Any, arguments: tuple[Any, ...], flags: dict[str, Any]) -> tuple[int, Any]:
    """Compile a function, or load it: its address for the C calling convention, and what owns it.

    Arrays and tuples are passed as LLVM's aggregates, so only LLVM code can call it with those.
    """
    options = {**FLAGS, **flags, "nopython": True}
    compiled = CFunc(function, (arguments, types.void), {}, options, KernelCompiler)
    compiled._cache = cache_for(function)
    compiled.compile()
    return compiled.address, compiled


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


class _KernelFiles(CompileResultCacheImpl):
    """How a compiled function becomes a file, and comes back from it."""

    _locator_classes = (_Locator,)

    def __init__(self, py_func: Any) -> None:
        configured = numba.config.CACHE_LOCATOR_CLASSES
        numba.config.CACHE_LOCATOR_CLASSES = ""
        try:
            super().__init__(py_func)
        finally:
            numba.config.CACHE_LOCATOR_CLASSES = configured


class _IngredientFiles(_KernelFiles):
    """The same for an ingredient, which comes back as bitcode."""

    def rebuild(self, target_context: Any, payload: tuple[Any, ...]) -> Any:
        (name, _, bitcode), fndesc, environment, signature, *_ = payload
        library = _Bitcode.restore(target_context.codegen(), name, bitcode)
        return compiler.compile_result(
            typing_context=target_context.typing_context,
            target_context=target_context,
            entry_point=_entry_point(fndesc, environment, library),
            library=library,
            fndesc=fndesc,
            environment=environment,
            signature=signature,
            objectmode=False,
            lifted=(),
            reload_init=(),
        )


class _Cache(FunctionCache):
    """A disk cache whose failures cost time and nothing else."""

    _impl_class = _KernelFiles

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


class _IngredientCache(_Cache):
    _impl_class = _IngredientFiles


class _NoCache(NullCache):
    def load_overload(self, sig: Any, target_context: Any) -> None:
        _announce_compilation()


def cache_for(function: Any, ingredient: bool = False) -> Any:
    """Where to look for the compiled versions of a function."""
    if CACHE_DIRECTORY is None:
        return _NoCache()
    return (_IngredientCache if ingredient else _Cache)(function)


# Called once for every function that has to be compiled; the progress bar listens here.
compilation_listeners: list[Callable[[], None]] = []


def _announce_compilation() -> None:
    for listener in compilation_listeners:
        listener()
