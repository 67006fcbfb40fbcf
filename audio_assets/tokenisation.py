"""Audio -> 1-D int16 tokens: what the pipeline asks of a tokeniser, the built-in one, and those of one's own.

torch is imported where it is used: Dagster loads code locations without it.
"""

import functools
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import pathlib
import sys
import time
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from audio_assets.errors import ArgumentError

if TYPE_CHECKING:
    import torch

MIN_TOKENS = 20
MAX_TOKENS = 1000
SIMULATED_INFERENCE_S = 0.01
"""Stands for the time that a neural audio codec would take."""


class Tokeniser(Protocol):
    """What the pipeline asks of a tokeniser; `load_tokeniser` gives one.

    Attributes:
        identity: what makes the tokens, with its code or version. It is stored in the column `tokeniser`. A
            row of another identity is computed anew, so that no row outlives a change of the code.
        thread_safe: whether it may be called from several threads at once. If not, the pipeline calls it from
            one thread at a time.
    """

    @property
    def identity(self) -> str: ...

    @property
    def thread_safe(self) -> bool: ...

    def __call__(self, audio: np.ndarray, etag: str) -> np.ndarray:
        """Tokenise one object.

        Args:
            audio: float32 [samples], mono at 16 kHz, in [-1, 1].
            etag: of the object's content.

        Returns:
            int16 [tokens].

        Raises:
            Exception: of any kind; it becomes a row of status `failed`, and the other objects go on.
        """
        ...


def tokenise(audio: np.ndarray, *, generator: "torch.Generator | None" = None) -> "torch.Tensor":
    """Simulate a neural audio tokeniser.

    Args:
        audio: float [samples]; only its type matters to the simulation.
        generator: makes the tokens reproducible; torch's global one where None.

    Returns:
        torch.int16 tensor of shape [tokens], 20 <= tokens <= 1000, values in [0, 32767].

    Raises:
        ValueError: `audio` is no NumPy array.
    """
    if not isinstance(audio, np.ndarray):
        raise ValueError(f"tokenise takes audio as a NumPy array, not {type(audio).__name__}; load it first")
    import torch

    time.sleep(SIMULATED_INFERENCE_S)
    length = int(torch.randint(MIN_TOKENS, MAX_TOKENS + 1, (), generator=generator))
    return torch.randint(
        0, torch.iinfo(torch.int16).max + 1, (length,), generator=generator, dtype=torch.int16
    )


class _Simulated:
    """`tokenise`, seeded by the content, so that a partition that is computed again has the same tokens."""

    identity = "simulated"
    thread_safe = True

    def __call__(self, audio: np.ndarray, etag: str) -> np.ndarray:
        import torch

        seed = int.from_bytes(hashlib.sha256(etag.encode()).digest()[:8], "big", signed=True)
        return tokenise(audio, generator=torch.Generator().manual_seed(seed)).numpy()


def load_tokeniser(name: str) -> Tokeniser:
    """The tokeniser that a setting names. Imports the module of one's own, so only a run calls it.

    Args:
        name: `simulated`, or `package.module:name` for one's own: a function, or a class, which is made
            without arguments. It is called with audio (float32 [samples], mono, 16 kHz) and gives integers
            [tokens] that fit int16. It may have two attributes:

            identity: a text that names its version, such as that of its weights. Without it, a hash of the
                source file that defines it takes the place. That hash knows of no other file.
            thread_safe: True lets several threads call it at once; without it, one thread does at a time.

    Raises:
        ArgumentError: there is no such tokeniser, or nothing names its version.
    """
    if name == "simulated":
        return _Simulated()
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
        named = getattr(module, attribute)
        own = named() if isinstance(named, type) else named
        if not callable(own):
            raise ValueError(f"{attribute} is no function")
    except Exception as e:  # Whatever a module of somebody's own throws when it is imported.
        raise ArgumentError(
            "name", f"={name!r} is neither simulated nor package.module:function ({e})"
        ) from e
    version = _given_version(name, own) or _code_version(name, _defining_modules(named, module))
    return _OwnTokeniser(name, own, f"{name} {version}")


def code_version(name: str) -> str:
    """What Dagster knows the code of a tokeniser by; imports none of it.

    Args:
        name: as `load_tokeniser` takes it.

    Returns:
        The name, with a hash of the source file of its module. Where there is no such file, the name alone.
    """
    module = name.partition(":")[0]
    try:
        path = _source_path(module)
        return f"{name} sha256={hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    except Exception:  # It is built in, compiled or not there; whatever else is wrong shows in a run.
        return name


def _source_path(module: str) -> pathlib.Path:
    """The file of a module. Its packages are not imported, as `find_spec` would do for `package.module`."""
    top, *inner = module.split(".")
    spec = importlib.util.find_spec(top)
    for part in inner:
        assert spec is not None
        found_in = spec.submodule_search_locations
        spec = importlib.machinery.PathFinder.find_spec(f"{spec.name}.{part}", found_in)
    if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
        raise ImportError(f"{module} has no source file")
    return pathlib.Path(spec.loader.path)


class _OwnTokeniser:
    """Somebody's own function, whose tokens are checked."""

    def __init__(self, name: str, function: Callable[[np.ndarray], object], identity: str) -> None:
        self._name = name
        self._function = function
        self.identity = identity
        self.thread_safe = getattr(function, "thread_safe", False) is True

    def __call__(self, audio: np.ndarray, etag: str) -> np.ndarray:
        tokens = np.asarray(self._function(audio))
        if tokens.ndim != 1 or not np.can_cast(tokens.dtype, np.int64):
            raise ValueError(
                f"{self._name} gave {tokens.dtype} {list(tokens.shape)}; wanted integers [tokens]"
            )
        if len(tokens) and (tokens.min() < -(2**15) or tokens.max() >= 2**15):
            raise ValueError(
                f"{self._name} gave tokens from {tokens.min()} to {tokens.max()}, which int16 cannot hold"
            )
        return tokens.astype(np.int16)


# --- the version of a tokeniser of one's own ------------------------------------------------------------


def _given_version(name: str, own: object) -> str | None:
    """The `identity` that a tokeniser gives itself, None where it gives none."""
    identity = getattr(own, "identity", None)
    if identity is not None and (not isinstance(identity, str) or not identity.strip()):
        raise ArgumentError("name", f"={name!r} has the identity {identity!r}; it should be a text")
    return identity


def _code_version(name: str, modules: tuple[types.ModuleType, ...]) -> str:
    """What code is known by: a hash of its source, or the version of the distribution that it came with."""
    if digest := _source_digest(modules):
        return f"sha256={digest}"
    packages = {module.__name__.partition(".")[0] for module in modules}
    installed = importlib.metadata.packages_distributions()
    distributions = sorted({d for package in packages for d in installed.get(package, [])})
    if not distributions:
        raise ArgumentError(
            "name",
            f"={name!r} has no source file and is part of no installed distribution; give it an attribute"
            " `identity`, a text that names its version",
        )
    return " ".join(f"{d}={importlib.metadata.version(d)}" for d in distributions)


def _defining_modules(named: object, module: types.ModuleType) -> tuple[types.ModuleType, ...]:
    """The modules that define an object; `module`, where it was found, may import it from another one."""
    defined_in = sys.modules.get(getattr(named, "__module__", None) or "", module)
    if inspect.isroutine(named) or isinstance(named, type) or defined_in is module:
        return (defined_in,)
    # Its class is defined elsewhere; what it was made with stands where it was found.
    return module, defined_in


# Read once for each module that is imported: of a file that changes later, the old code still runs.
@functools.lru_cache(maxsize=8)
def _source_digest(modules: tuple[types.ModuleType, ...]) -> str | None:
    """First 12 hex digits of the SHA-256 of the modules' source files, None where they have none."""
    sources = [source for module in modules if (source := _source(module)) is not None]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:12] if sources else None


def _source(module: types.ModuleType) -> bytes | None:
    try:
        file = inspect.getsourcefile(module)
        return pathlib.Path(file).read_bytes() if file else None
    except (TypeError, OSError):  # It is built in, or was loaded from elsewhere than a file.
        return None
