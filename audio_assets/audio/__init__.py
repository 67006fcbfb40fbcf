"""Bytes of an object -> mono float32, the arrays that the recogniser and the tokeniser take.

formats.py      `DECODERS`: suffix -> decoder; another audio format is added there
types.py        `Decoder`, `PcmStream`, what it gives, and `Audio`; how large an object may be
decoding.py     `decode`: blocks of any format -> mono, at each rate that is needed
flac.py         the decoder of FLAC
flac_header.py  what a FLAC says of itself before its audio
"""

from audio_assets.audio.decoding import decode
from audio_assets.audio.flac import decode_flac, read_flac
from audio_assets.audio.formats import DECODERS, decoder_of
from audio_assets.audio.types import SAMPLE_RATE_HZ, Audio, Decoder, PcmStream, check_size

__all__ = [
    "DECODERS",
    "SAMPLE_RATE_HZ",
    "Audio",
    "Decoder",
    "PcmStream",
    "check_size",
    "decode",
    "decode_flac",
    "decoder_of",
    "read_flac",
]
