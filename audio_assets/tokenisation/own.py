"""Tokenisers of one's own: a function or a class of a module, and the version of its code."""

import functools
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import pathlib
import sys
import types
from collections.abc import Callable

import numpy as np

from audio_assets.errors import ArgumentError
from audio_assets.tokenisation.types import SAMPLE_RATE_HZ, TokenFormat

LOWEST_RATE_HZ = 1_000
HIGHEST_RATE_HZ = 192_000


def load(name: str) -> "OwnTokeniser":
    """The tokeniser of one's own that a setting names, as `load_tokeniser` says.

    Raises:
        ArgumentError: there is none, or nothing names its version.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
        named = getattr(module, attribute)
        own = named() if isinstance(named, type) else named
        if not callable(own):
            raise ValueError(f"{attribute} is no function")
    except Exception as e:  # Whatever a module of somebody's own throws when it is imported.
        problem = f"={name!r} is neither simulated, nor a codec, nor package.module:function ({e})"
        raise ArgumentError("name", problem) from e
    version = _given_version(name, own) or _code_version(name, _defining_modules(named, module))
    return OwnTokeniser(name, own, f"{name} {version}")


def source_version(name: str) -> str:
    """First 12 hex digits of the SHA-256 of the source file that a setting names; imports none of it.

    Raises:
        Exception: there is no such file.
    """
    path = _source_path(name.partition(":")[0])
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


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


class OwnTokeniser:
    """Somebody's own function, whose tokens are checked."""

    def __init__(self, name: str, function: Callable[[np.ndarray], object], identity: str) -> None:
        self._name = name
        self._function = function
        self.identity = identity
        self.thread_safe = getattr(function, "thread_safe", False) is True
        self.sample_rate_hz = _sample_rate(name, function)
        self.token_format = _token_format(name, function)

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


def _sample_rate(name: str, own: object) -> int:
    rate = getattr(own, "sample_rate_hz", SAMPLE_RATE_HZ)
    if not isinstance(rate, int) or not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ:
        raise ArgumentError(
            "name",
            f"={name!r} has sample_rate_hz={rate!r}; it should be from {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ}",
        )
    return rate


def _token_format(name: str, own: object) -> TokenFormat | None:
    found = getattr(own, "token_format", None)
    if found is not None and not isinstance(found, TokenFormat):
        raise ArgumentError("name", f"={name!r} has token_format={found!r}; it should be a TokenFormat")
    return found


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
