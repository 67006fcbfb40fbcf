"""The decoders of WAV, MP3 and Ogg (Vorbis, Opus, FLAC). libsndfile (soundfile) decodes.

It gives what the formats' own libraries give (mpg123, libvorbis, libopus). Encoder delay is left out as they
do it. It releases the interpreter lock, so that threads decode side by side.
"""

import io
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import soundfile

from audio_assets.audio.framing import check_ogg, check_wav
from audio_assets.audio.kinds import corrupt, not_empty, other_kind
from audio_assets.audio.limits import check_length, check_rate
from audio_assets.audio.types import PcmStream

# Values of all channels in a block.
_BLOCK_VALUES = 2**20
# What libsndfile reads without loss; all else is read as floats.
_INTEGERS: dict[str, Literal["int16", "int32"]] = {
    "PCM_S8": "int16",
    "PCM_U8": "int16",
    "PCM_16": "int16",
    "ALAW": "int16",
    "ULAW": "int16",
    "PCM_24": "int32",
    "PCM_32": "int32",
}


def read_wav(body: bytes) -> PcmStream:
    """Begin to decode WAV: integers and floats of any width, and what else libsndfile reads in it.

    Raises:
        AudioError: empty, not WAV, corrupt, truncated, or too long; some of it once blocks are taken.
    """
    return _open("WAV", body, check_wav)


def read_ogg(body: bytes) -> PcmStream:
    """Begin to decode Ogg: Vorbis, Opus or FLAC.

    Raises:
        AudioError: empty, not Ogg, corrupt, truncated, or too long; some of it once blocks are taken.
    """
    return _open("Ogg", body, check_ogg)


def read_mp3(body: bytes) -> PcmStream:
    """Begin to decode MP3.

    Raises:
        AudioError: empty, not MP3, corrupt, truncated, or too long; some of it once blocks are taken.
    """
    return _open("MP3", body, _check_mp3)


def _check_mp3(body: bytes) -> None:
    if body[:4] in (b"fLaC", b"RIFF", b"OggS", b"FORM") or body[4:8] == b"ftyp":
        raise other_kind("MP3", body)


def _open(name: str, body: bytes, check: Callable[[bytes], None]) -> PcmStream:
    not_empty(body)
    check(body)
    try:
        file = soundfile.SoundFile(io.BytesIO(body))
    except soundfile.LibsndfileError as e:
        if name == "MP3":
            raise other_kind(name, body) from e
        raise corrupt(name, "its header is damaged") from e
    rate = file.samplerate
    check_rate(name, rate)
    check_length(file.frames / rate)
    return PcmStream(rate, file.channels, _blocks(name, file))


def _blocks(name: str, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    dtype: Literal["int16", "int32", "float32"] = _INTEGERS.get(file.subtype) or "float32"
    block_frames = max(1, min(_BLOCK_VALUES // file.channels, 30 * file.samplerate))
    frames = 0
    try:
        with file:
            while len(block := file.read(block_frames, dtype=dtype, always_2d=True)):
                frames += len(block)
                yield block
            claimed = file.frames
    except soundfile.LibsndfileError as e:
        raise corrupt(name, f"only its first {frames / file.samplerate:.2f} s are readable") from e
    if frames < claimed:
        rate = file.samplerate
        raise corrupt(name, f"only {frames / rate:.2f} s of {claimed / rate:.2f} s are readable")
