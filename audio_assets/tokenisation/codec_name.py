"""What TOKENISER says of a codec, and which weights that names; without torch and transformers.

A codec is named as `from_pretrained` takes it: a repository of a model hub, such as
`facebook/encodec_24khz`, with `@` and a revision behind it where one is pinned, or a folder. Options follow
behind `?`, as in a URL: `facebook/encodec_24khz?bandwidth=6&layout=metavoice`.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import os
import pathlib
import urllib.parse

from audio_assets.errors import ArgumentError
from audio_assets.tokenisation.layouts import INTERLEAVED, LAYOUTS

# Raised when this code changes in a way that can change tokens.
ENCODER_VERSION = 2
CONFIG_FILE = "config.json"
_FILES = (CONFIG_FILE, "preprocessor_config.json", "*.safetensors", "pytorch_model*.bin")
_OPTIONS = ("bandwidth", "codebooks", "layout")


@dataclasses.dataclass(frozen=True)
class CodecName:
    """A codec and how it is used.

    Attributes:
        name: a repository, or a folder.
        revision: of the repository; None for its main branch, and for a folder.
        bandwidth: in kbit/s, of EnCodec; None for the codec's default, which is the least.
        codebooks: how many codebooks are kept, the first ones; None for all that the codec gives.
        layout: one of `layouts.LAYOUTS`.
    """

    name: str
    revision: str | None = None
    bandwidth: float | None = None
    codebooks: int | None = None
    layout: str = INTERLEAVED

    @property
    def is_folder(self) -> bool:
        return os.path.isdir(self.name)

    @property
    def location(self) -> str:
        """The name with its revision."""
        return f"{self.name}@{self.revision}" if self.revision else self.name


def is_codec(name: str) -> bool:
    """Whether a setting names a codec: a folder, or a repository such as `facebook/encodec_24khz`."""
    location = name.partition("?")[0]
    return os.path.isdir(location) or ("/" in location and ":" not in location)


def parse(name: str) -> CodecName:
    """Read a codec's name and its options.

    Raises:
        ArgumentError: an option is unknown or wrong.
    """
    location, _, query = name.partition("?")
    given = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(given) - set(_OPTIONS)):
        raise _wrong(name, f"the option {unknown[0]!r}; there are {', '.join(_OPTIONS)}")
    layout = given.get("layout", INTERLEAVED)
    if layout not in LAYOUTS:
        raise _wrong(name, f"layout={layout!r}; there are {', '.join(LAYOUTS)}")
    codebooks = _number(name, "codebooks", given)
    repository, _, revision = (location, "", "") if os.path.isdir(location) else location.partition("@")
    return CodecName(
        repository,
        revision or None,
        _number(name, "bandwidth", given),
        None if codebooks is None else int(codebooks),
        layout,
    )


def _number(name: str, option: str, given: dict[str, str]) -> float | None:
    if option not in given:
        return None
    try:
        value = float(given[option])
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6 or (option == "codebooks" and value != int(value)):
        raise _wrong(name, f"{option}={given[option]!r}; it should be a number above 0")
    return value


def _wrong(name: str, what: str) -> ArgumentError:
    return ArgumentError("name", f"={name!r} has {what}")


# --- which weights --------------------------------------------------------------------------------------


def identity_of(codec: CodecName) -> str:
    """What tokens of a codec are known by: its weights, its options and this code's version.

    The name of a folder's parent is no part of it, so that a folder may be moved.

    Raises:
        ArgumentError: there is no such codec, or transformers is not installed.
    """
    parts = {
        "bandwidth": codec.bandwidth and f"{codec.bandwidth:g}",
        "codebooks": codec.codebooks,
        "layout": codec.layout,
        "encoder": ENCODER_VERSION,
    }
    name = os.path.basename(os.path.abspath(codec.name)) if codec.is_folder else codec.name
    said = (f"{key}={value}" for key, value in parts.items() if value is not None)
    return " ".join([name, weights_of(codec), *said])


def weights_of(codec: CodecName) -> str:
    """The version of a codec's weights: a digest of a folder's files, or the commit of a repository.

    Raises:
        ArgumentError: there is no such codec, or transformers is not installed.
    """
    if codec.is_folder:
        return f"sha256={_digest(tuple(_versions(codec.name)))[:12]}"
    return f"revision={commit_of(codec)[:12]}"


@functools.lru_cache(maxsize=8)
def commit_of(codec: CodecName) -> str:
    """The commit of a repository that is used, asked for once in a process.

    Raises:
        ArgumentError: there is no such repository, or it cannot be reached and was never downloaded.
    """
    check_installed(codec)
    import huggingface_hub

    try:
        path = huggingface_hub.hf_hub_download(codec.name, CONFIG_FILE, revision=codec.revision)
    except Exception as e:  # Whatever the network, the hub or its cache says.
        reason = " ".join(str(e).split())
        problem = f"={codec.location!r} is no folder here, and cannot be loaded from the model hub: {reason}"
        raise ArgumentError("name", problem) from e
    return pathlib.Path(path).parent.name


def check_installed(codec: CodecName) -> None:
    """See that codecs can be loaded.

    Raises:
        ArgumentError: transformers is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        problem = f"={codec.location!r} needs transformers: pip install 'audio-assets[codecs]'"
        raise ArgumentError("name", problem)


def _versions(folder: str) -> list[tuple[str, int, int]]:
    """Path, time of modification in ns and size of each file that shapes the tokens."""
    paths = sorted({path for pattern in _FILES for path in pathlib.Path(folder).glob(pattern)})
    if not any(path.name == CONFIG_FILE for path in paths):
        raise ArgumentError(
            "name", f"={folder!r} is a folder without {CONFIG_FILE}; save_pretrained makes one"
        )
    return [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths]


@functools.lru_cache(maxsize=8)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, _, size in files:
        digest.update(f"{os.path.basename(path)} {size}\n".encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
