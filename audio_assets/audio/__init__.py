"""Bytes of an object -> mono float32, the arrays that the recogniser and the tokeniser take.

formats.py      which suffixes are audio (AUDIO_FORMATS), and what decodes each
types.py        `Decoder`, `PcmStream`, what it gives, and `Audio`
limits.py       how large and how long an object may be
decoding.py     `decode`: blocks of any format -> mono, at each rate that is needed
processes.py    the same by processes, beside a recogniser on a GPU
decoding_process.py  one of these processes
flac.py         the decoder of FLAC
flac_header.py  what a FLAC says of itself before its audio
sndfile.py      the decoders of WAV, MP3 and Ogg, by libsndfile
libav.py        the decoders of M4A, AAC and WebM, by FFmpeg's libraries
framing.py      whether an object holds all that its framing says
kinds.py        what bytes are, by how they begin
"""

from audio_assets.audio.decoding import decode
from audio_assets.audio.flac import decode_flac, read_flac
from audio_assets.audio.formats import BUILT_IN, DECODERS, audio_suffixes, check_formats, decoder_of
from audio_assets.audio.limits import check_size
from audio_assets.audio.processes import decoding_processes
from audio_assets.audio.types import SAMPLE_RATE_HZ, Audio, Decoder, PcmStream

__all__ = [
    "BUILT_IN",
    "DECODERS",
    "SAMPLE_RATE_HZ",
    "Audio",
    "Decoder",
    "PcmStream",
    "audio_suffixes",
    "check_formats",
    "check_size",
    "decode",
    "decode_flac",
    "decoder_of",
    "decoding_processes",
    "read_flac",
]
