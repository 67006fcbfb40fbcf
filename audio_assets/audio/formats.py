"""Which suffixes are audio (AUDIO_FORMATS), and what decodes each: another format is added here."""

import importlib.util

from audio_assets import settings
from audio_assets.audio.flac import read_flac
from audio_assets.audio.libav import read_aac, read_m4a, read_webm
from audio_assets.audio.sndfile import read_mp3, read_ogg, read_wav
from audio_assets.audio.types import Decoder
from audio_assets.errors import ArgumentError

_OF_PYAV: dict[str, Decoder] = {"m4a": read_m4a, "aac": read_aac, "webm": read_webm}

BUILT_IN: dict[str, Decoder] = {
    "flac": read_flac,
    "wav": read_wav,
    "mp3": read_mp3,
    "ogg": read_ogg,
    "opus": read_ogg,
    **_OF_PYAV,
}
"""Format, which is the suffix of its objects -> what decodes it, once AUDIO_FORMATS names it."""

DECODERS: dict[str, Decoder] = {}
"""Decoders of one's own: suffix, in lower case, with its dot -> what decodes it.

A module of one's own adds a format by `DECODERS[".aiff"] = read_aiff`. It is audio whatever AUDIO_FORMATS
says, and comes before a built-in decoder.
"""


def audio_suffixes() -> list[str]:
    """The suffixes of objects that are audio, in lower case, with their dots.

    Raises:
        ArgumentError: AUDIO_FORMATS is wrong.
    """
    return sorted({*DECODERS, *(f".{name}" for name in settings.AUDIO_FORMATS.get())})


def decoder_of(key: str) -> Decoder | None:
    """What decodes an object by the suffix of its key, None where the suffix is no audio's.

    An object without a decoder is never fetched; its row has the status `not_flac`.

    Raises:
        ArgumentError: AUDIO_FORMATS is wrong.
    """
    suffix = suffix_of(key)
    if own := DECODERS.get(suffix):
        return own
    name = suffix.removeprefix(".")
    return BUILT_IN[name] if suffix != name in settings.AUDIO_FORMATS.get() else None


def any_decoder_of(key: str) -> Decoder | None:
    """What can decode an object by the suffix of its key, whether or not AUDIO_FORMATS names its format."""
    suffix = suffix_of(key)
    return DECODERS.get(suffix) or BUILT_IN.get(suffix.removeprefix("."))


def check_formats() -> None:
    """See that what AUDIO_FORMATS names can be decoded here.

    Raises:
        ArgumentError: it is wrong, or PyAV is missing.
    """
    needed = [name for name in _OF_PYAV if name in settings.AUDIO_FORMATS.get()]
    if needed and importlib.util.find_spec("av") is None:
        problem = f" names {', '.join(needed)}, which need PyAV: pip install 'audio-assets[formats]'"
        raise ArgumentError(settings.AUDIO_FORMATS.name, problem)


def suffix_of(key: str) -> str:
    """The suffix of an object's key, in lower case, with its dot."""
    _, dot, suffix = key.rpartition(".")
    return f"{dot}{suffix}".lower()
