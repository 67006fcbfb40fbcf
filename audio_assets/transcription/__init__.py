"""Whisper for many files at once: the answers of `whisper.transcribe`, by continuous batching.

    transcriber = Transcriber.load("tiny", language="en")
    for key, transcript in transcriber.transcribe({"a.flac": audio}.items()):
        ...

What users call, and what the rest of the package may know of it:

    transcriber.py  `Transcriber`: options in, transcripts out
    recogniser.py   `Recogniser`: what the pipeline asks of a recogniser; `Transcriber` is one
    transcript.py   `Transcript`, `Segment`, `Word`, `Stats`: what comes out
    close_choices.py   half precision first, float32 again where a choice was close
    second_opinion.py  a second model's text beside each transcript, and how far the two agree
    options.py      `Options`: model, device, language, batch size, precision; checked and resolved
    transcribe_options.py  `TranscribeOptions`: the options of `whisper.transcribe`
    identity.py     names what shaped a transcript, and whether a run would make it anew
    whisper_names.py  the models and languages that Whisper knows

What decides, in plain Python without torch:

    scheduler.py    which files are taken in, what is encoded together, which decodes join, who leaves
    longform.py     `whisper.transcribe` for one file as a generator: windows, prompts, fallbacks, silence
    beam.py         several texts for one window, of which the best is kept: beam search, samples
    words.py        the tokens' times -> words, and where the next window starts after them

What computes, in the order in which audio flows:

    engine.py       schedule, run, postprocess: runs on the device what the scheduler decides
    mel.py          audio -> log-mel spectrograms
    encoder.py      log-mel windows -> audio features
    language.py     audio features -> the language that is spoken
    batch.py        the decode batch: prefill, decode steps, finished rows
    kv_cache.py     the KV cache and the state of each row: every tensor of the decode batch
    decoder.py      tokens and the KV cache -> logits
    sampling.py     logits and Whisper's rules -> the next token
    alignment.py    cross-attention -> the tokens' times, where words are asked for

What these stand on:

    checkpoint.py   the weights, checked and loaded
    layers.py       what encoder and decoder are made of
    kernels.py      loops on a CPU, compiled by numba
    workers.py      a CPU's threads, one window each
    graphs.py       decode steps as CUDA graphs
    memory.py       how much memory is free, and whether it has run out

Importing this package loads neither torch nor whisper; `Transcriber.load` does.
"""

from audio_assets.transcription.identity import model_identity
from audio_assets.transcription.recogniser import Recogniser
from audio_assets.transcription.transcriber import Transcriber
from audio_assets.transcription.transcript import Segment, Stats, Transcript, Word

__all__ = ["Recogniser", "Segment", "Stats", "Transcriber", "Transcript", "Word", "model_identity"]
