"""Whether an object holds all that its framing says, in WAV, Ogg, ADTS and MP4.

Decoders of these formats end in silence where an upload was cut off, and go on behind what is damaged. Here
the framing is followed to the end, so that such an object is refused. No audio is decoded.
"""

import zlib

from audio_assets.audio.kinds import corrupt, length_of_id3_tag, other_kind

# Sizes that a writer leaves in a WAV whose length it does not know yet.
_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF)
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_END_OF_STREAM = 4
_ADTS_HEADER = 7


def check_wav(body: bytes) -> None:
    """Follow the chunks of RIFF up to the samples (Multimedia Programming Interface 1.0, 1991).

    Raises:
        AudioError: it is no WAV, or holds fewer bytes of samples than it says.
    """
    if body[:4] not in (b"RIFF", b"RF64", b"RIFX") or body[8:12] != b"WAVE":
        raise other_kind("WAV", body)
    if body[:4] != b"RIFF":
        return  # The sizes stand elsewhere.
    at = 12
    while at + 8 <= len(body):
        name = body[at : at + 4]
        size = int.from_bytes(body[at + 4 : at + 8], "little")
        at += 8
        if name == b"data":
            if size not in _UNKNOWN_SIZES and at + size > len(body):
                raise corrupt("WAV", f"only {len(body) - at} of {size} bytes of samples are there")
            return
        # Chunks begin at even places.
        at += size + size % 2
    raise corrupt("WAV", "it has no samples")


def check_ogg(body: bytes) -> None:
    """Follow the pages of Ogg, and their checksums, to the end of the stream (RFC 3533, section 6).

    Raises:
        AudioError: it is no Ogg, a page is damaged, or its last page is missing.
    """
    if body[:4] != b"OggS":
        raise other_kind("Ogg", body)
    at = 0
    flags = 0
    while at < len(body):
        segments = body[at + 26] if at + 27 <= len(body) else 0
        end = at + 27 + segments + sum(body[at + 27 : at + 27 + segments])
        if body[at : at + 4] != b"OggS" or end > len(body) or at + 27 > len(body):
            raise corrupt("Ogg", f"its pages end at byte {at} of {len(body)}")
        if _ogg_checksum(body[at:end]) != int.from_bytes(body[at + 22 : at + 26], "little"):
            raise corrupt("Ogg", f"the page at byte {at} is not what its checksum says")
        flags = body[at + 5]
        at = end
    if not flags & _END_OF_STREAM:
        raise corrupt("Ogg", "its last page is missing")


def check_adts(body: bytes) -> None:
    """Follow the frames of AAC in ADTS (ISO/IEC 14496-3, 1.A.2) to the last byte.

    Raises:
        AudioError: it is no ADTS, or a frame is damaged or cut off.
    """
    at = start = length_of_id3_tag(body)
    # A tag of 128 bytes may stand at the end.
    end = len(body) - 128 if body[-128:-125] == b"TAG" else len(body)
    while at < end:
        header = body[at : at + _ADTS_HEADER]
        if len(header) < _ADTS_HEADER or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
            if at == start:
                raise other_kind("AAC", body)
            raise corrupt("AAC", f"its frames end at byte {at} of {len(body)}")
        length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
        if length < _ADTS_HEADER or at + length > end:
            raise corrupt("AAC", f"the frame at byte {at} is damaged or cut off")
        at += length
    if at == start:
        raise other_kind("AAC", body)


def check_mp4(body: bytes) -> None:
    """Follow the boxes of MP4 (ISO/IEC 14496-12, 4.2) to the last byte.

    Raises:
        AudioError: it is no MP4, or a box is cut off.
    """
    if body[4:8] != b"ftyp":
        raise other_kind("M4A", body)
    at = 0
    while at < len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(body[at + 8 : at + 16], "big")
        elif size == 0:
            return  # To the end, wherever that is.
        if size < 8 or at + size > len(body):
            raise corrupt("M4A", f"the box at byte {at} is damaged or cut off")
        at += size


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 with the most significant bit first, of a page whose own checksum is taken for zeros.

    zlib's takes the least significant bit first, and inverts before and after.
    """
    zeroed = page[:22] + bytes(4) + page[26:]
    found = zlib.crc32(zeroed.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{found:032b}"[::-1], 2)
