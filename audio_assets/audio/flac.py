"""FLAC -> mono float32 at 16 kHz. libsndfile (soundfile) decodes and soxr resamples.

Both release the interpreter lock, so that threads decode side by side. The bytes come from anywhere: what
cannot be decoded is refused with a reason that says what to do, and memory follows the audio inside, up to a
limit. How a FLAC's header is read is in `flac_header.py`.
"""

import hashlib
import io
from collections.abc import Callable, Iterator

import numpy as np
import soundfile
import soxr

from audio_assets.audio import types
from audio_assets.audio.flac_header import BYTES_PER_SAMPLE, FlacHeader, corrupt_flac, read_header
from audio_assets.audio.types import SAMPLE_RATE_HZ, Audio
from audio_assets.errors import AudioError

# Samples of all channels in a block: bounds what decoding needs besides its result, whatever a header says.
_BLOCK_VALUES = 2**20


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
    if claimed_s > types.LONGEST_S:
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
                if frames > types.LONGEST_S * rate:
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
    hours = types.LONGEST_S / 3600
    return AudioError(f"more than {hours:.0f} h of audio in one object ({reason}); cut it into pieces")
