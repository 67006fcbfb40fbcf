"""FLAC bytes -> mono float32 at 16 kHz, the array that Whisper and the tokenisers take.

Decoding is libsndfile's (soundfile) and resampling soxr's; both release the interpreter lock, so that
threads decode side by side. The bytes come from anywhere: what is no sound FLAC is refused with a reason
that says what to do, and memory follows the audio inside, up to a limit.
"""

import dataclasses
import hashlib
import io
from collections.abc import Callable

import numpy as np
import soundfile
import soxr

from audio_assets.errors import AudioError

SAMPLE_RATE_HZ = 16_000
"""What Whisper was trained on (Radford et al. 2022, section 2.2)."""

LONGEST_S = 12 * 3600
"""What one object may hold: 2.8 GB of float32. A few kilobytes of FLAC can really hold hours of silence."""
LARGEST_BYTES = 4 * 2**30
"""What is fetched into memory at most."""
LOWEST_RATE_HZ = 1_000

# Samples of all channels in a block: bounds what decoding needs besides its result, whatever a header says.
_BLOCK_VALUES = 2**20

# The rates that a frame's header names by a number (RFC 9639, section 9.1.2); it may leave the rate out.
_FRAME_RATES_HZ = dict(
    enumerate([88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000], 1)
)
# Of metadata; there are seven types, and any number of them would be walked through.
_MOST_BLOCKS = 1_000
_BYTES_PER_SAMPLE = {8: 1, 16: 2, 24: 3}

_KINDS = {
    b"RIFF": "WAV",
    b"OggS": "Ogg",
    b"FORM": "AIFF",
    b"ID3": "MP3",
    b"\xff\xf3": "MP3",
    b"\xff\xfa": "MP3",
    b"\xff\xfb": "MP3",
    b"\xff\xf1": "AAC",
    b"\xff\xf9": "AAC",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "gzip",
    b"\0\0\0\0": "zeros",
}
_TEXT = frozenset(b"\t\n\r" + bytes(range(32, 127)))


@dataclasses.dataclass(frozen=True)
class Audio:
    """Decoded audio and what it was decoded from.

    Attributes:
        samples: float32 [samples], mono, 16 kHz, nominally in [-1, 1].
        duration_s: of the source, in seconds.
        sample_rate_hz: of the source.
        channels: of the source.
    """

    samples: np.ndarray
    duration_s: float
    sample_rate_hz: int
    channels: int


class _SequentialFile(soundfile.SoundFile):
    """Reads front to back: libsndfile cannot seek where a stream encoder left the length unknown."""

    def seekable(self) -> bool:
        return False


@dataclasses.dataclass(frozen=True)
class _Header:
    """What a FLAC says of itself before its audio (RFC 9639, section 8.2).

    Attributes:
        frames: samples of each channel, 0 where unknown.
        md5: of the decoded samples, zeros where unknown.
    """

    rate_hz: int
    channels: int
    bits: int
    frames: int
    md5: bytes


def is_flac(key: str) -> bool:
    """Whether an object's name says that it is FLAC."""
    return key.lower().endswith(".flac")


def check_size(size: int) -> None:
    """Refuse an object that is too large to be fetched.

    Args:
        size: bytes.

    Raises:
        AudioError: it is.
    """
    if size > LARGEST_BYTES:
        raise AudioError(
            f"the object has {size / 2**30:.1f} GiB, more than the {LARGEST_BYTES / 2**30:.0f} GiB that are"
            " read; cut it into pieces"
        )


def decode_flac(body: bytes, admit: Callable[[int], None] | None = None) -> Audio:
    """Decode FLAC of any rate and channel count; channels are averaged.

    Memory follows what the file holds, not what its header claims.

    Args:
        body: 8, 16 or 24 bits a sample; an ID3 tag in front is passed over.
        admit: told the bytes of each further block of `samples` before there is one; may wait or raise.

    Raises:
        AudioError: empty, not FLAC, corrupt, truncated, or too long.
    """
    header, start = _read_header(body)
    claimed_s = header.frames / header.rate_hz
    if claimed_s > LONGEST_S:
        raise _too_long(f"its header says {claimed_s / 3600:.1f} h")
    rate, channels = header.rate_hz, header.channels
    width = _BYTES_PER_SAMPLE[header.bits]
    integer = "int16" if width == 2 else "int32"
    item = np.dtype(integer).itemsize
    scale = np.float32(1 / (1 << (8 * item - 1)))
    block_frames = min(_BLOCK_VALUES // channels, 30 * rate)
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE_HZ, 1, dtype="float32")
    # Grows in place: parts that are joined at the end would need the memory twice.
    samples, frames, md5 = bytearray(), 0, hashlib.md5(usedforsecurity=False)
    try:
        # libsndfile itself does not find FLAC behind every tag.
        with _SequentialFile(io.BytesIO(body[start:])) as file:
            while len(block := file.read(block_frames, dtype=integer, always_2d=True)):
                frames += len(block)
                if frames > LONGEST_S * rate:
                    raise _too_long("it goes on after that")
                # libsndfile fills up samples with zeros below; the checksum is of the bytes above.
                md5.update(block.view(np.uint8).reshape(-1, item)[:, item - width :].tobytes())
                values = block.astype(np.float32) * scale
                mono = values[:, 0] if channels == 1 else values.mean(axis=1)
                part = mono if rate == SAMPLE_RATE_HZ else resampler.resample_chunk(mono)
                if admit:
                    admit(part.nbytes)
                samples += part.tobytes()
    except soundfile.LibsndfileError as e:
        raise _corrupt(f"only its first {frames / rate:.2f} s are readable") from e
    if not frames:
        raise AudioError("the FLAC holds no audio, or its first frame is corrupt; upload it again")
    if frames < header.frames:
        raise _corrupt(f"only {frames / rate:.2f} s of {claimed_s:.2f} s are readable")
    if any(header.md5) and md5.digest() != header.md5:
        raise _corrupt("the audio is not what its checksum says")
    if rate != SAMPLE_RATE_HZ:
        samples += resampler.resample_chunk(np.zeros(0, np.float32), last=True).tobytes()
    return Audio(np.frombuffer(samples, np.float32), frames / rate, rate, channels)


def _read_header(body: bytes) -> tuple[_Header, int]:
    """The header, and where FLAC starts: some software puts an ID3 tag in front."""
    if not body:
        raise AudioError("the object is empty (0 bytes); upload it again")
    start = 0
    if body[:3] == b"ID3" and len(body) >= 10:
        # Its length comes in four bytes of seven bits.
        start = 10 + sum(byte << 7 * power for power, byte in enumerate(reversed(body[6:10])))
    if body[start : start + 4] != b"fLaC":
        raise AudioError(
            f"not FLAC inside but {_kind(body)}; upload FLAC in its place, or name it by what it is"
        )
    info = body[start + 8 : start + 42]
    if len(info) < 34 or body[start + 4] & 127:
        raise _corrupt("its header is damaged")
    fixed = int.from_bytes(info[10:18], "big")
    rate_hz, bits = fixed >> 44, (fixed >> 36 & 31) + 1
    if rate_hz < LOWEST_RATE_HZ:
        raise AudioError(
            f"the FLAC's header says {rate_hz} Hz, less than {LOWEST_RATE_HZ} Hz; upload it again"
        )
    if bits not in _BYTES_PER_SAMPLE:
        raise AudioError(
            f"the FLAC's header says {bits} bits a sample; only 8, 16 and 24 are read: encode it with 24 bits"
        )
    # The checksum does not cover the rate.
    repeated_hz = _first_frame_rate(body, start + 4)
    if repeated_hz not in (None, rate_hz):
        raise _corrupt(f"its header says {rate_hz} Hz, its first frame {repeated_hz} Hz")
    return _Header(rate_hz, (fixed >> 41 & 7) + 1, bits, fixed & (1 << 36) - 1, info[18:34]), start


def _first_frame_rate(body: bytes, at: int) -> int | None:
    """What the first frame says of the rate, None where it leaves that to the header.

    Args:
        at: where the blocks of metadata begin; the last one is marked by its highest bit.
    """
    for _ in range(_MOST_BLOCKS):
        last, at = body[at] > 127, at + 4 + int.from_bytes(body[at + 1 : at + 4], "big")
        if last or len(body) < at + 10:
            break
    if len(body) < at + 10:
        return None
    block_code, rate_code = divmod(body[at + 2], 16)
    # Behind the frame's number, which is 0 in one byte, and the block's size, where that is no code.
    number = at + 5 + {6: 1, 7: 2}.get(block_code, 0)
    width, unit = {12: (1, 1_000), 13: (2, 1), 14: (2, 10)}.get(rate_code, (0, 0))
    rate_hz = _FRAME_RATES_HZ.get(rate_code) or int.from_bytes(body[number : number + width], "big") * unit
    return rate_hz or None


def _kind(body: bytes) -> str:
    """What bytes are that are no FLAC, as a person would say it."""
    for magic, kind in _KINDS.items():
        if body.startswith(magic):
            return kind
    if body[4:8] == b"ftyp":
        return "MP4 or M4A"
    if _TEXT.issuperset(body[:64]):
        return "text, perhaps an error page that was saved in place of the audio"
    return "something unknown"


def _corrupt(reason: str) -> AudioError:
    return AudioError(f"corrupt or truncated FLAC: {reason}; upload it again")


def _too_long(reason: str) -> AudioError:
    hours = LONGEST_S / 3600
    return AudioError(f"more than {hours:.0f} h of audio in one object ({reason}); cut it into pieces")
