"""Runs on a device what the scheduler decides: `step` reads schedule, run, postprocess.

Which files and requests go next belongs into `scheduler`, what a file asks for into `longform`, and how a
decode is computed into `batch`.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import whisper
from torch import Tensor
from whisper.audio import SAMPLE_RATE
from whisper.tokenizer import get_tokenizer

from audio_assets.errors import ArgumentError
from audio_assets.transcription.alignment import Aligner
from audio_assets.transcription.batch import DecodeBatch
from audio_assets.transcription.checkpoint import load_model
from audio_assets.transcription.decoder import Decoder
from audio_assets.transcription.encoder import Encoder
from audio_assets.transcription.language import LanguageDetector
from audio_assets.transcription.longform import Answer, Request, transcribe_windows
from audio_assets.transcription.mel import log_mels
from audio_assets.transcription.memory import free_bytes, is_out_of_memory
from audio_assets.transcription.options import Options
from audio_assets.transcription.sampling import Sampler
from audio_assets.transcription.scheduler import File, Scheduler, Step
from audio_assets.transcription.transcript import Stats, Transcript
from audio_assets.transcription.workers import Workers

K = TypeVar("K")
MOST_SLOTS = {"cpu": 64, "cuda": 256}
# The part of a device's free memory that the KV cache may take: a machine's memory serves others too.
CACHE_SHARE = {"cpu": 4, "cuda": 2}
# The stages by their names in a profile, with the figure of `Stats` that counts their seconds.
STAGES = {
    "mel": "mel_s",
    "encode": "encode_s",
    "language": "language_s",
    "prefill": "decode_s",
    "decode step": "decode_s",
    "align": "align_s",
}


class Engine:
    """A model with the batch that it works on.

    Attributes:
        stats: what it has done since it was made.
        scheduler: decides what it does next.
    """

    def __init__(self, model: whisper.Whisper, options: Options) -> None:
        """options: resolved ones."""
        self.device = model.device
        self.dims = model.dims
        self.language = options.language if model.is_multilingual else options.language or "en"
        self.options = options.transcribe
        self.tokenizer = get_tokenizer(
            model.is_multilingual,
            num_languages=model.num_languages,
            language="en",
            task=self.options.task,
        )
        self.stats = Stats()
        dtype = getattr(torch, options.precision)
        workers = Workers() if self.device.type == "cpu" else None
        most_slots = MOST_SLOTS[self.device.type]
        self.encoder = Encoder(model.encoder, dtype, workers)
        self.decoder = Decoder(model.decoder, dtype, most_slots, workers)
        self.detect_languages = LanguageDetector(self.decoder, self.tokenizer)
        margins = self.options.logit_margin_threshold is not None
        self.sampler = Sampler(model, self.tokenizer, margins=margins)
        self.aligner = Aligner(model)
        share = free_bytes(self.device) // CACHE_SHARE[self.device.type]
        slots = min(most_slots, share // self.decoder.slot_bytes(self.dims.n_audio_ctx))
        most_rows = self.options.most_rows
        self.scheduler = Scheduler(options.batch_size or max(most_rows, slots), most_rows)
        self._batch: DecodeBatch | None = None

    @classmethod
    @torch.inference_mode()
    def load(cls, options: Options) -> "Engine":
        """Load the model that resolved options name.

        Raises:
            ArgumentError: it cannot be loaded, or does not fit.
        """
        try:
            return cls(load_model(options.model, options.device), options)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ArgumentError(
                "model",
                f"={options.model!r} does not fit into the free memory of device={options.device!r}; end what"
                " else is there, or take a smaller model or another device",
            ) from error

    def transcribe(self, audio: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, Transcript | Exception]]:
        """As `Transcriber.transcribe`."""
        # What an earlier call left behind when its caller stopped asking is dropped.
        self.scheduler.clear()
        if self._batch is not None:
            self._batch.rows.clear()
        source = iter(audio)
        exhausted = False
        while True:
            while not exhausted and self.scheduler.has_room:
                taken = self.scheduler.take(source, seconds=lambda item: np.size(item[1]) / SAMPLE_RATE)
                exhausted = not taken
                yield from self._start(taken)
                # The spectrograms are what is needed from here on.
                taken.clear()
            if not self.scheduler.files:
                return
            with torch.inference_mode(), self._tiny_numbers_as_zero():
                done = self.step()
            for file in done:
                self.stats.files += 1
                self.stats.audio_s += file.audio_s
                assert file.transcript is not None
                yield file.key, file.transcript

    def step(self) -> list[File]:
        """Schedule, run, postprocess; gives the files that are done.

        Out of memory, the batch is halved, and the decodes that were in it start again.
        """
        try:
            answers = self._run(self.scheduler.schedule())
        except (RuntimeError, MemoryError) as error:
            self._recover(error, self.scheduler.halve_batch)
            self._batch = None
            answers = []
        if self._batch is None and self.device.type == "cuda":
            torch.cuda.empty_cache()
        return self.scheduler.postprocess(answers)

    def _start(self, taken: list[tuple[K, np.ndarray]]) -> Iterator[tuple[K, Exception]]:
        """Start the files that can be read; yields the others."""
        readable = []
        for key, array in taken:
            try:
                check(array)
            except (TypeError, ValueError) as error:
                yield key, error
            else:
                readable.append((key, array))
        with torch.inference_mode(), self._stage("mel"):
            mels = log_mels([a for _, a in readable], self.dims.n_mels, self.device)
            for (key, array), mel in zip(readable, mels, strict=True):
                long_form = transcribe_windows(mel, self.tokenizer, self.language, self.options)
                self.scheduler.add(File(key, len(array) / SAMPLE_RATE, long_form))

    def _run(self, step: Step) -> list[tuple[File, Answer]]:
        """Answers to what was asked, as far as there are any yet."""
        if self._batch is None:
            self._batch = DecodeBatch(
                self.decoder,
                self.sampler,
                self.tokenizer,
                self.dims.n_audio_ctx,
                self.scheduler.batch_size,
                self.options.beam_size,
            )
        answers = list(self._answer_at_once(self._batch, step))
        for join in step.join:
            features = self._encode([request for _, request in join])
            with self._stage("prefill"):
                self._batch.join(join, features)
        if self._batch.rows:
            with self._stage("decode step"):
                finished = self._batch.step()
            for file, decoded in finished:
                self.stats.tokens += len(decoded.tokens)
                self.stats.fallbacks += decoded.temperature > 0
                answers.append((file, decoded))
        return answers

    def _answer_at_once(self, batch: DecodeBatch, step: Step) -> Iterator[tuple[File, Answer]]:
        """Answers to what takes no decode steps: languages and alignments."""
        for detect in step.detect:
            features = self._encode([request for _, request in detect])
            with self._stage("language"):
                languages = self.detect_languages(features)
            yield from zip((file for file, _ in detect), languages, strict=True)
        for align in step.align:
            requests = [request for _, request in align]
            features = self._encode(requests)
            with self._stage("align"):
                aligned = batch.align(self.aligner, requests, features)
            yield from zip((file for file, _ in align), aligned, strict=True)

    def _encode(self, requests: Sequence[Request]) -> list[Tensor]:
        """Features of each request's window, `dtype` [1500, n_state]; computed once for a window."""
        with self._stage("encode"):
            while windows := self.scheduler.windows_to_encode(requests):
                try:
                    encodings = self.encoder([w.mel for w in windows])
                except (RuntimeError, MemoryError) as error:
                    self._recover(error, self.scheduler.halve_encoding)
                    continue
                for window, encoding in zip(windows, encodings, strict=True):
                    window.encoding = encoding
                self.stats.windows += len(windows)
        return [r.window.encoding for r in requests if r.window.encoding is not None]

    def _recover(self, error: Exception, halve: Callable[[], bool]) -> None:
        """Go on with half, if memory has run out; raise any other error, and this one if there is no half."""
        if not is_out_of_memory(error) or not halve():
            raise error
        self.stats.halvings += 1

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Count a stage's seconds, and mark it for `torch.profiler`."""
        started = time.perf_counter()
        try:
            with torch.profiler.record_function(name):
                yield
        finally:
            counter = STAGES[name]
            setattr(self.stats, counter, getattr(self.stats, counter) + time.perf_counter() - started)

    @contextmanager
    def _tiny_numbers_as_zero(self) -> Iterator[None]:
        """Flush denormals as `Workers` does, in the caller's thread, which has its own back afterwards."""
        if self.device.type != "cpu":
            yield
            return
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)


def check(audio: Any) -> None:
    """Raise TypeError or ValueError unless `audio` is float32 [samples] and finite."""
    if not isinstance(audio, np.ndarray):
        raise TypeError(f"audio is a {type(audio).__name__}, not a NumPy array")
    if audio.ndim != 1 or audio.dtype != np.float32:
        raise ValueError(f"audio has shape {audio.shape} and type {audio.dtype}, not [samples] and float32")
    if not np.isfinite(audio).all():
        raise ValueError("audio holds NaN or infinite samples")
