"""The decoder of FLAC. libsndfile (soundfile) decodes.

It releases the interpreter lock, so that threads decode side by side. The bytes come from anywhere: what
cannot be decoded is refused with a reason that says what to do. How a FLAC's header is read is in
`flac_header.py`.
"""

import hashlib
import io
from collections.abc import Callable, Iterator

import numpy as np
import soundfile

from audio_assets.audio.decoding import decode
from audio_assets.audio.flac_header import BYTES_PER_SAMPLE, FlacHeader, read_header
from audio_assets.audio.kinds import corrupt
from audio_assets.audio.limits import check_length
from audio_assets.audio.types import Audio, PcmStream
from audio_assets.errors import AudioError

# Samples of all channels in a block: bounds what decoding needs besides its result, whatever a header says.
_BLOCK_VALUES = 2**20


def read_flac(body: bytes) -> PcmStream:
    """Begin to decode FLAC of any rate and channel count.

    Args:
        body: 8, 16 or 24 bits a sample; an ID3 tag in front is passed over.

    Raises:
        AudioError: empty, not FLAC, corrupt, truncated, or too long; some of it once blocks are taken.
    """
    header = read_header(body)
    return PcmStream(header.rate_hz, header.channels, _read_blocks(body, header))


def decode_flac(body: bytes, admit: Callable[[int], None] | None = None) -> Audio:
    """Decode FLAC to mono float32 at 16 kHz, as `decode` does with `read_flac`."""
    return decode(read_flac, body, admit)


class _SequentialFile(soundfile.SoundFile):
    """Reads front to back: libsndfile cannot seek where a stream encoder left the length unknown."""

    def seekable(self) -> bool:
        return False


def _read_blocks(body: bytes, header: FlacHeader) -> Iterator[np.ndarray]:
    """The samples as libsndfile gives them: int16 or int32 [frames, channels], one block after the other.

    Raises:
        AudioError: once all that is readable was given: it is not what the header says.
    """
    rate = header.rate_hz
    claimed_s = header.frames / rate
    check_length(claimed_s)
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
                # libsndfile fills up samples with zeros below; the checksum is of the bytes above.
                md5.update(block.view(np.uint8).reshape(-1, item)[:, item - width :].tobytes())
                yield block
    except soundfile.LibsndfileError as e:
        raise corrupt("FLAC", f"only its first {frames / rate:.2f} s are readable") from e
    if not frames:
        raise AudioError("the FLAC holds no audio, or its first frame is corrupt; upload it again")
    if frames < header.frames:
        raise corrupt("FLAC", f"only {frames / rate:.2f} s of {claimed_s:.2f} s are readable")
    if any(header.md5) and md5.digest() != header.md5:
        raise corrupt("FLAC", "the audio is not what its checksum says")
