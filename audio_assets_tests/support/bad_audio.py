"""FLAC as no encoder writes it, and sound FLAC that is damaged by a seed."""

import dataclasses
import io
import random

import numpy as np
import soundfile

BLOCK = 65_535
"""samples in a frame, the most that FLAC allows"""

RATES = (8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000)
PAGES = (
    b'{"error": {"code": 403, "message": "expired"}}\n',
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
    b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head></html>",
)


# --- damage by a seed -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Object:
    """What somebody put into the bucket under a name that ends in .flac.

    Attributes:
        kind: what was done to it.
        sound: the FLAC that it was made from, None where it must be refused.
        intact: whether it must be read as `sound`; a damaged one may also be refused.
    """

    kind: str
    body: bytes
    sound: bytes | None = None
    intact: bool = False


def damaged(seed: int) -> Object:
    """One object of a collection that has every kind in turn."""
    chance = random.Random(seed)
    return _MAKERS[seed % len(_MAKERS)](chance)


def encoded(chance: random.Random, form: str = "FLAC", subtype: str | None = None) -> bytes:
    """Quiet noise of any rate, with any number of channels and bits."""
    channels = chance.randint(1, 2 if form in ("MP3", "OGG") else 8)
    rate = 48_000 if form in ("MP3", "OGG") else chance.choice(RATES)
    frames = int(chance.uniform(0.02, 0.3) * rate)
    noise = np.random.default_rng(chance.randrange(2**32)).normal(0, 0.1, (frames, channels)).clip(-1, 1)
    if subtype == "FLOAT":
        noise[frames // 2] = np.nan
    if form == "FLAC":
        subtype = chance.choice(["PCM_S8", "PCM_16", "PCM_24"])
    file = io.BytesIO()
    soundfile.write(file, noise, rate, format=form, subtype=subtype)
    return file.getvalue()


def _sound(chance: random.Random) -> Object:
    body = encoded(chance)
    return Object("sound", body, body, intact=True)


def _tagged(chance: random.Random) -> Object:
    body = encoded(chance)
    tag = bytes(chance.randrange(1, 128))
    return Object(
        "ID3 tag in front", b"ID3\x04\0\0\0\0\0" + bytes([len(tag)]) + tag + body, body, intact=True
    )


def _bits_flipped(chance: random.Random, *, within: int | None = None) -> Object:
    body = encoded(chance)
    damaged = bytearray(body)
    for _ in range(chance.choice([1, 1, 2, 8, 64])):
        damaged[chance.randrange(within or len(body))] ^= 1 << chance.randrange(8)
    return Object("bits flipped", bytes(damaged), body)


def _header_bits_flipped(chance: random.Random) -> Object:
    return _bits_flipped(chance, within=42)


def _truncated(chance: random.Random) -> Object:
    body = encoded(chance)
    return Object("truncated", body[: chance.randrange(1, len(body))])


def _hole(chance: random.Random) -> Object:
    body = encoded(chance)
    start = chance.randrange(len(body))
    length = chance.randrange(1, 2_000)
    return Object("bytes missing", body[:start] + body[start + length :], body)


def _filled(chance: random.Random) -> Object:
    body = encoded(chance)
    start = chance.randrange(len(body))
    junk = chance.choice([bytes, chance.randbytes])(chance.randrange(1, 2_000))
    return Object("bytes overwritten", (body[:start] + junk + body[start + len(junk) :])[: len(body)], body)


def _other_header(chance: random.Random) -> Object:
    body = encoded(chance)
    fixed = int.from_bytes(body[18:26], "big")
    shift, width = chance.choice([(44, 20), (41, 3), (36, 5), (0, 36)])
    mask = (1 << width) - 1 << shift
    fixed = fixed & ~mask | (chance.getrandbits(width) << shift)
    return Object("header field overwritten", body[:18] + fixed.to_bytes(8, "big") + body[26:], body)


def _renamed(chance: random.Random) -> Object:
    form, subtype = chance.choice(
        [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("AIFF", None), ("OGG", None), ("MP3", None)]
    )
    return Object(f"renamed {form}", encoded(chance, form, subtype))


def _page(chance: random.Random) -> Object:
    return Object("error page", chance.choice(PAGES))


def _nothing(chance: random.Random) -> Object:
    junk = chance.randbytes(chance.randrange(1, 4_000))
    return Object("no audio", chance.choice([b"", bytes(4096), b"fLaC", b"fLaC" + junk, b"ID3" + junk, junk]))


def _odd_width(chance: random.Random) -> Object:
    bits = chance.choice([4, 12, 20, 32])
    return Object("width that is not read", constant_flac(0.1, bits=bits, level=3))


def _claim(chance: random.Random) -> Object:
    claimed = chance.randrange(16_000 * 86_400, 1 << 36)
    return Object("header claims days", constant_flac(0.1, claimed=claimed))


def _odd_rate(chance: random.Random) -> Object:
    return Object("no rate of audio", constant_flac(5, rate=chance.randrange(1, 1_000)))


_MAKERS = (
    *(_sound, _tagged, _bits_flipped, _header_bits_flipped, _truncated, _hole, _filled, _other_header),
    *(_renamed, _page, _nothing, _odd_width, _claim, _odd_rate),
)


# --- a small encoder ------------------------------------------------------------------------------------


def stream_info(rate: int, channels: int, bits: int, samples: int, md5: bytes = bytes(16)) -> bytes:
    """The magic and the one metadata block that FLAC must have (RFC 9639, section 8.2)."""
    fixed = rate << 44 | (channels - 1) << 41 | (bits - 1) << 36 | samples
    sizes = (16).to_bytes(2, "big") + BLOCK.to_bytes(2, "big") + bytes(6)
    return b"fLaC\x80\0\0\x22" + sizes + fixed.to_bytes(8, "big") + md5


def frame(number: int, channels: int, samples: int, subframes: bytes) -> bytes:
    """A frame whose checksums are right, whatever is in it; rate and bits are those of the header."""
    head = bytes([0xFF, 0xF8, 0x70, (channels - 1) << 4]) + chr(number).encode()
    head += (samples - 1).to_bytes(2, "big")
    body = head + _crc(head, 0x07, 8).to_bytes(1, "big") + subframes
    return body + _crc(body, 0x8005, 16).to_bytes(2, "big")


def constant_frame(number: int, channels: int, bits: int, samples: int = BLOCK, level: int = 0) -> bytes:
    """A frame of one level in about 14 bytes."""
    subframes = f"{0:08b}{level % (1 << bits):0{bits}b}" * channels
    subframes += "0" * (-len(subframes) % 8)
    return frame(number, channels, samples, int(subframes, 2).to_bytes(len(subframes) // 8, "big"))


def constant_flac(
    seconds: float,
    rate: int = 16_000,
    channels: int = 1,
    bits: int = 16,
    *,
    level: int = 0,
    claimed: int = -1,
) -> bytes:
    """One level for some time.

    Args:
        claimed: the samples that the header says it has; by default those that it has, 0 for unknown.
    """
    samples = int(seconds * rate)
    frames = [
        constant_frame(number, channels, bits, min(BLOCK, samples - number * BLOCK), level)
        for number in range(-(-samples // BLOCK))
    ]
    return stream_info(rate, channels, bits, samples if claimed < 0 else claimed) + b"".join(frames)


def _crc(data: bytes, polynomial: int, width: int) -> int:
    value = 0
    for byte in data:
        value ^= byte << (width - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> (width - 1) else 0)
            value &= (1 << width) - 1
    return value
