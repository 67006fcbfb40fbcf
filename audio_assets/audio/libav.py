"""The decoders of M4A, AAC and WebM. FFmpeg's libraries (PyAV) decode; the extra `formats` installs them.

They give what the program ffmpeg gives: encoder delay and padding are left out where the file tells of them.
A video beside the audio is passed over.
"""

import io
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from audio_assets.audio.framing import check_adts, check_mp4
from audio_assets.audio.kinds import corrupt, not_empty, other_kind
from audio_assets.audio.limits import check_length, check_rate
from audio_assets.audio.types import PcmStream
from audio_assets.errors import AudioError

if TYPE_CHECKING:
    import av
    import av.container

# A container says its length to the millisecond, and its last packet may be longer than what is heard of it.
_TOLERANCE_S = 0.1
_BLOCK_VALUES = 2**18


def read_m4a(body: bytes) -> PcmStream:
    """Begin to decode M4A: AAC or ALAC in MP4.

    Raises:
        AudioError: empty, not MP4, corrupt, truncated, or too long; some of it once blocks are taken.
        ImportError: PyAV is not installed.
    """
    return _open("M4A", "m4a", body, check_mp4)


def read_aac(body: bytes) -> PcmStream:
    """Begin to decode AAC in ADTS.

    Raises:
        AudioError: empty, not ADTS, corrupt, truncated, or too long; some of it once blocks are taken.
        ImportError: PyAV is not installed.
    """
    return _open("AAC", "aac", body, check_adts)


def read_webm(body: bytes) -> PcmStream:
    """Begin to decode WebM: Opus or Vorbis in Matroska.

    Raises:
        AudioError: empty, not Matroska, corrupt, truncated, or too long; some of it once blocks are taken.
        ImportError: PyAV is not installed.
    """
    return _open("WebM", "webm", body, _check_webm)


def _check_webm(body: bytes) -> None:
    if body[:4] != b"\x1aE\xdf\xa3":
        raise other_kind("WebM", body)


def _open(name: str, demuxer: str, body: bytes, check: Callable[[bytes], None]) -> PcmStream:
    import av
    import av.error

    not_empty(body)
    check(body)
    try:
        # The demuxer is named: others, such as those of playlists, open further files.
        container = av.open(io.BytesIO(body), mode="r", format=demuxer)
    except (av.error.FFmpegError, ValueError) as e:
        raise corrupt(name, "its header is damaged") from e
    if not container.streams.audio:
        container.close()
        raise AudioError(f"the {name} holds no audio; upload it again")
    frames = _frames(name, container)
    first = next(frames, None)
    if first is None:
        raise corrupt(name, "none of its audio is readable")
    rate = first.sample_rate
    claimed_s = _claimed_seconds(container)
    check_rate(name, rate)
    check_length(claimed_s)
    # The length of AAC in ADTS is estimated from its first frames.
    claimed_s = 0.0 if name == "AAC" else claimed_s
    channels = first.layout.nb_channels
    return PcmStream(
        rate, channels, _blocks(name, itertools.chain([first], frames), rate, channels, claimed_s)
    )


def _claimed_seconds(container: "av.container.InputContainer") -> float:
    stream = container.streams.audio[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6


def _frames(name: str, container: "av.container.InputContainer") -> "Iterator[av.AudioFrame]":
    import av.error

    seconds = 0.0
    try:
        with container:
            for frame in container.decode(container.streams.audio[0]):
                seconds += frame.samples / max(1, frame.sample_rate)
                yield frame
    except (av.error.FFmpegError, ValueError) as e:
        raise corrupt(name, f"only its first {seconds:.2f} s are readable") from e


def _blocks(
    name: str, frames: "Iterator[av.AudioFrame]", rate: int, channels: int, claimed_s: float
) -> Iterator[np.ndarray]:
    held: list[np.ndarray] = []
    values = 0
    total = 0
    for frame in frames:
        if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
            raise AudioError(f"the {name} changes its rate or channels on its way; encode it anew")
        held.append(_samples(frame))
        values += held[-1].size
        total += len(held[-1])
        if values >= _BLOCK_VALUES:
            yield np.concatenate(held)
            held = []
            values = 0
    if held:
        yield np.concatenate(held)
    if total / rate < claimed_s - _TOLERANCE_S:
        raise corrupt(name, f"only {total / rate:.2f} s of {claimed_s:.2f} s are readable")


def _samples(frame: "av.AudioFrame") -> np.ndarray:
    """int16, int32 or float32 [frames, channels]."""
    found = frame.to_ndarray()
    planes = found.T if frame.format.is_planar else found.reshape(frame.samples, -1)
    return planes.astype(np.float32) if planes.dtype == np.float64 else planes
