"""What the bytes of a FLAC say of themselves before the first sample, and why they cannot be FLAC.

No audio is decoded here; `flac.py` does that.
"""

import dataclasses

from audio_assets.audio.kinds import corrupt, length_of_id3_tag, not_empty, other_kind
from audio_assets.audio.limits import check_rate
from audio_assets.errors import AudioError

BYTES_PER_SAMPLE = {8: 1, 16: 2, 24: 3}
"""Bits of a sample that are read -> its bytes."""

# The rates that a frame's header names by a number (RFC 9639, section 9.1.2); it may leave the rate out.
_FRAME_RATES_HZ = dict(
    enumerate([88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000], 1)
)
# Blocks of metadata that are looked at. FLAC has seven types of them; a damaged file may claim any number.
_MOST_BLOCKS = 1_000


@dataclasses.dataclass(frozen=True)
class FlacHeader:
    """What a FLAC says of itself before its audio (RFC 9639, section 8.2).

    Attributes:
        start: where FLAC starts in the bytes: some software puts an ID3 tag in front.
        rate_hz: sample rate of the source.
        channels: 1 to 8.
        bits: of a sample; a key of `BYTES_PER_SAMPLE`.
        frames: samples of each channel, 0 where unknown.
        md5: of the decoded samples, zeros where unknown.
    """

    start: int
    rate_hz: int
    channels: int
    bits: int
    frames: int
    md5: bytes


def read_header(body: bytes) -> FlacHeader:
    """Read the header of a FLAC.

    Raises:
        AudioError: empty, not FLAC, or with a header that is damaged or says what is not read here.
    """
    not_empty(body)
    start = length_of_id3_tag(body)
    if body[start : start + 4] != b"fLaC":
        raise other_kind("FLAC", body)
    stream_info = body[start + 8 : start + 42]
    if len(stream_info) < 34 or body[start + 4] & 127:
        raise corrupt("FLAC", "its header is damaged")
    # 20 bits of rate, 3 of channels, 5 of bits of a sample, 36 of frames.
    fields = int.from_bytes(stream_info[10:18], "big")
    header = FlacHeader(
        start=start,
        rate_hz=fields >> 44,
        channels=(fields >> 41 & 7) + 1,
        bits=(fields >> 36 & 31) + 1,
        frames=fields & (1 << 36) - 1,
        md5=stream_info[18:34],
    )
    _check(header, body)
    return header


def _check(header: FlacHeader, body: bytes) -> None:
    check_rate("FLAC", header.rate_hz)
    if header.bits not in BYTES_PER_SAMPLE:
        raise AudioError(
            f"the FLAC's header says {header.bits} bits a sample; only 8, 16 and 24 are read:"
            " encode it with 24 bits"
        )
    # The checksum does not cover the rate.
    repeated_hz = _first_frame_rate(body, header.start + 4)
    if repeated_hz not in (None, header.rate_hz):
        raise corrupt("FLAC", f"its header says {header.rate_hz} Hz, its first frame {repeated_hz} Hz")


def _first_frame_rate(body: bytes, at: int) -> int | None:
    """The rate that the first frame says, None where the frame leaves it to the header.

    Args:
        at: where the blocks of metadata begin; the last one is marked by its highest bit.
    """
    for _ in range(_MOST_BLOCKS):
        last = body[at] > 127
        at += 4 + int.from_bytes(body[at + 1 : at + 4], "big")
        if last or len(body) < at + 10:
            break
    if len(body) < at + 10:
        return None
    block_code, rate_code = divmod(body[at + 2], 16)
    # After the frame's number, which is 0 in one byte, and after the block's size, where that is no code.
    number = at + 5 + {6: 1, 7: 2}.get(block_code, 0)
    width, unit = {12: (1, 1_000), 13: (2, 1), 14: (2, 10)}.get(rate_code, (0, 0))
    rate_hz = _FRAME_RATES_HZ.get(rate_code) or int.from_bytes(body[number : number + width], "big") * unit
    return rate_hz or None
