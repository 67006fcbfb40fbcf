"""What bytes are, by how they begin, and the errors for those that are not what their key says."""

from audio_assets.errors import AudioError

_KINDS = {
    b"fLaC": "FLAC",
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


def not_empty(body: bytes) -> None:
    """Refuse an object without bytes.

    Raises:
        AudioError: it has none.
    """
    if not body:
        raise AudioError("the object is empty (0 bytes); upload it again")


def corrupt(name: str, reason: str) -> AudioError:
    """The error for bytes that begin as a format and are damaged."""
    return AudioError(f"corrupt or truncated {name}: {reason}; upload it again")


def other_kind(name: str, body: bytes) -> AudioError:
    """The error for bytes that are not of the format that the key's suffix says."""
    return AudioError(
        f"not {name} inside but {kind_of(body)}; upload {name} in its place, or name it by what it is"
    )


def length_of_id3_tag(body: bytes) -> int:
    """Bytes of an ID3 tag in front, 0 where there is none."""
    if body[:3] != b"ID3" or len(body) < 10:
        return 0
    # Its length comes in four bytes of seven bits.
    return 10 + sum(byte << 7 * power for power, byte in enumerate(reversed(body[6:10])))


def kind_of(body: bytes) -> str:
    """What bytes are, as a person would say it, by how they begin."""
    for magic, kind in _KINDS.items():
        if body.startswith(magic):
            return kind
    if body[4:8] == b"ftyp":
        return "MP4 or M4A"
    if _TEXT.issuperset(body[:64]):
        return "text, perhaps an error page that was saved in place of the audio"
    return "something unknown"
