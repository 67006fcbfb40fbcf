"""Whisper for many files at once: the answers of `whisper.transcribe`, in batches.

    transcriber = Transcriber.load("tiny", language="en")
    for key, transcript in transcriber.transcribe({"a.flac": audio}.items()):
        ...

How it is built, in the order in which audio flows:

    transcriber.py  the front door: settings in, transcripts out
    engine.py       runs many files side by side, in batches
    mel.py          audio -> log-mel spectrograms
    windows.py      the walk of `whisper.transcribe` over a file's windows, as a generator
    encoder.py      spectrogram -> audio features
    batch.py        the decodes under way: rows join, step and leave
    decoder.py      tokens and cached keys and values -> logits
    sampling.py     logits and Whisper's rules -> the next token
    layers.py       what encoder and decoder are made of
    workers.py      a CPU's threads, one window each
    graphs.py       decoding steps as CUDA graphs
    transcript.py   what comes out
    identity.py     what shaped it
    checkpoint.py   the weights, checked and loaded

Importing this package loads neither torch nor whisper; `Transcriber.load` does.
"""

from audio_assets.transcription.identity import model_identity
from audio_assets.transcription.transcriber import Transcriber
from audio_assets.transcription.transcript import Segment, Stats, Transcript

__all__ = ["Segment", "Stats", "Transcriber", "Transcript", "model_identity"]
