"""Which suffixes are audio, and what decodes each: another format is added here."""

from audio_assets.audio.flac import decode_flac
from audio_assets.audio.types import Decoder

DECODERS: dict[str, Decoder] = {".flac": decode_flac}
"""Suffix of an object's key, in lower case, with its dot -> what decodes it.

A module of one's own adds a format by `DECODERS[".wav"] = decode_wav`. An object of any other suffix is never
fetched; its row has the status `not_flac`.
"""


def decoder_of(key: str) -> Decoder | None:
    """What decodes an object by the suffix of its key, None where the suffix is no audio's."""
    return DECODERS.get(suffix_of(key))


def suffix_of(key: str) -> str:
    """The suffix of an object's key, in lower case, with its dot."""
    _, dot, suffix = key.rpartition(".")
    return f"{dot}{suffix}".lower()
