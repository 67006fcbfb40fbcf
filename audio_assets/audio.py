"""Bytes of an object -> mono float32 at 16 kHz, the array that the recogniser and the tokeniser take.

`DECODERS` says which suffixes are audio and what decodes them. FLAC's own decoder is here too: libsndfile
(soundfile) decodes and soxr resamples. Both release the interpreter lock, so that threads decode side by
side. The bytes come from anywhere: what cannot be decoded is refused with a reason that says what to do,
and memory follows the audio inside, up to a limit. How a FLAC's header is read is in `flac_header.py`.
"""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import soundfile
import soxr

from audio_assets.errors import AudioError
from audio_assets.flac_header import BYTES_PER_SAMPLE, FlacHeader, corrupt_flac, read_header

SAMPLE_RATE_HZ = 16_000
"""What Whisper was trained on (Radford et al. 2022, section 2.2)."""

LONGEST_S = 12 * 3600
"""What one object may hold: 2.8 GB of float32. A few kilobytes of FLAC can really hold hours of silence."""
LARGEST_BYTES = 4 * 2**30
"""What is fetched into memory at most."""

# Samples of all channels in a block: bounds what decoding needs besides its result, whatever a header says.
_BLOCK_VALUES = 2**20


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


class Decoder(Protocol):
    """Decodes the objects of one audio format. The pipeline calls it from several threads at once."""

    def __call__(self, body: bytes, admit: Callable[[int], None] | None) -> Audio:
        """Decode one object.

        Args:
            body: its bytes, `LARGEST_BYTES` at most.
            admit: where it is given, to be told the bytes of each further block of `Audio.samples` before
                that block is held. It bounds the memory of all threads together: it may wait, or raise an
                exception, which must pass through. Once with all bytes is enough for short audio.

        Raises:
            AudioError: the bytes are no audio of this format; says what is wrong and what to do.
        """
        ...


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


# --- FLAC -----------------------------------------------------------------------------------------------


def decode_flac(body: bytes, admit: Callable[[int], None] | None = None) -> Audio:
    """Decode FLAC of any rate and channel count; channels are averaged.

    Memory follows what the file holds, not what its header claims.

    Args:
        body: 8, 16 or 24 bits a sample; an ID3 tag in front is passed over.
        admit: as `Decoder` says.

    Raises:
        AudioError: empty, not FLAC, corrupt, truncated, or too long.
    """
    header = read_header(body)
    rate = header.rate_hz
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE_HZ, 1, dtype="float32")
    # Grows in place: parts that are joined at the end would need the memory twice.
    samples = bytearray()
    frames = 0
    for block in _read_blocks(body, header):
        frames += len(block)
        mono = _mix_down(block)
        part = mono if rate == SAMPLE_RATE_HZ else resampler.resample_chunk(mono)
        if admit:
            admit(part.nbytes)
        samples += part.tobytes()
    if rate != SAMPLE_RATE_HZ:
        samples += resampler.resample_chunk(np.zeros(0, np.float32), last=True).tobytes()
    return Audio(np.frombuffer(samples, np.float32), frames / rate, rate, header.channels)


class _SequentialFile(soundfile.SoundFile):
    """Reads front to back: libsndfile cannot seek where a stream encoder left the length unknown."""

    def seekable(self) -> bool:
        return False


def _read_blocks(body: bytes, header: FlacHeader) -> Iterator[np.ndarray]:
    """The samples as libsndfile gives them: int16 or int32 [frames, channels], one block after the other.

    Raises:
        AudioError: once all that is readable was given: it is not what the header says, or too long.
    """
    rate = header.rate_hz
    claimed_s = header.frames / rate
    if claimed_s > LONGEST_S:
        raise _too_long(f"its header says {claimed_s / 3600:.1f} h")
    width = BYTES_PER_SAMPLE[header.bits]
    integer = "int16" if width == 2 else "int32"
    item = np.dtype(integer).itemsize
    block_frames = min(_BLOCK_VALUES // header.channels, 30 * rate)
    md5 = hashlib.md5(usedforsecurity=False)
    frames = 0
    try:
        # libsndfile itself does not find FLAC behind every tag.
        with _SequentialFile(io.BytesIO(body[header.start :])) as file:
            while len(block := file.read(block_frames, dtype=integer, always_2d=True)):
                frames += len(block)
                if frames > LONGEST_S * rate:
                    raise _too_long("it goes on after that")
                # libsndfile fills up samples with zeros below; the checksum is of the bytes above.
                md5.update(block.view(np.uint8).reshape(-1, item)[:, item - width :].tobytes())
                yield block
    except soundfile.LibsndfileError as e:
        raise corrupt_flac(f"only its first {frames / rate:.2f} s are readable") from e
    if not frames:
        raise AudioError("the FLAC holds no audio, or its first frame is corrupt; upload it again")
    if frames < header.frames:
        raise corrupt_flac(f"only {frames / rate:.2f} s of {claimed_s:.2f} s are readable")
    if any(header.md5) and md5.digest() != header.md5:
        raise corrupt_flac("the audio is not what its checksum says")


def _mix_down(block: np.ndarray) -> np.ndarray:
    """int16 or int32 [frames, channels] -> float32 [frames] in [-1, 1), the mean of the channels."""
    scale = np.float32(1 / (1 << (8 * block.itemsize - 1)))
    values = block.astype(np.float32) * scale
    return values[:, 0] if values.shape[1] == 1 else values.mean(axis=1)


def _too_long(reason: str) -> AudioError:
    hours = LONGEST_S / 3600
    return AudioError(f"more than {hours:.0f} h of audio in one object ({reason}); cut it into pieces")


# --- which decoder --------------------------------------------------------------------------------------

DECODERS: dict[str, Decoder] = {".flac": decode_flac}
"""Suffix of an object's key, in lower case, with its dot -> what decodes it.

A module of one's own adds a format by `DECODERS[".wav"] = decode_wav`. An object of any other suffix is never
fetched; its row has the status `not_flac`.
"""


def decoder_of(key: str) -> Decoder | None:
    """What decodes an object by the suffix of its key, None where the suffix is no audio's."""
    _, dot, suffix = key.rpartition(".")
    return DECODERS.get(f"{dot}{suffix}".lower())
