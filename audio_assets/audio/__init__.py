"""Bytes of an object -> mono float32 at 16 kHz, the array that the recogniser and the tokeniser take.

formats.py      `DECODERS`: suffix -> decoder; another audio format is added there
types.py        `Audio`, what a decoder gives; `Decoder`, what it must do; how large an object may be
flac.py         the decoder of FLAC
flac_header.py  what a FLAC says of itself before its audio
"""

from audio_assets.audio.flac import decode_flac
from audio_assets.audio.formats import DECODERS, decoder_of
from audio_assets.audio.types import SAMPLE_RATE_HZ, Audio, Decoder, check_size

__all__ = ["DECODERS", "SAMPLE_RATE_HZ", "Audio", "Decoder", "check_size", "decode_flac", "decoder_of"]
