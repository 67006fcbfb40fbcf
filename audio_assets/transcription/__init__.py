"""Whisper for many files at once: the answers of `whisper.transcribe`, in batches.

    transcriber = Transcriber.load("tiny", language="en")
    for key, transcript in transcriber.transcribe({"a.flac": audio}.items()):
        ...

How it is built, in the order in which audio flows:

    mel.py          audio -> log-mel spectrograms, many clips at once
    windows.py      the walk of `whisper.transcribe` over one file's windows, as a generator that asks for decodes
    engine.py       runs many walks side by side and answers their requests in batches
    transcript.py   what comes out
    identity.py     what shaped it

Importing this package loads neither torch nor whisper; `Transcriber.load` does.
"""

from audio_assets.transcription.identity import model_identity
from audio_assets.transcription.transcriber import Stats, Transcriber
from audio_assets.transcription.transcript import Segment, Transcript

__all__ = ["Segment", "Stats", "Transcriber", "Transcript", "model_identity"]
