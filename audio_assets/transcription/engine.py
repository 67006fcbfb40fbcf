"""Runs many files' walks side by side and answers their requests in batches."""

import itertools
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import whisper
from torch import Tensor
from whisper.audio import SAMPLE_RATE
from whisper.tokenizer import get_tokenizer

from audio_assets.transcription.batch import DecodeBatch
from audio_assets.transcription.checkpoint import load_model
from audio_assets.transcription.decoder import Decoder
from audio_assets.transcription.encoder import Encoder
from audio_assets.transcription.longform import Decode, Decoded, DetectLanguage, Request, Walk, Window, walk
from audio_assets.transcription.mel import log_mels
from audio_assets.transcription.sampling import Sampler
from audio_assets.transcription.transcript import Stats, Transcript
from audio_assets.transcription.workers import Workers

K = TypeVar("K")
MOST_SLOTS = {"cpu": 64, "cuda": 256}
ENCODED_AT_ONCE = 16
# Room that is waited for before windows join the decode batch: each join costs a pass over their prompts.
JOINED_AT_ONCE = 16
# How much is under way at a time: files for each slot of the decode batch, and hours of audio, whose
# spectrograms take 115 MB an hour (184 MB from large-v3 on).
FILES_PER_SLOT = 2
MOST_AUDIO_S = 4 * 3600.0
# Audio that is held besides, while its spectrograms are computed; or one file, if that is longer.
INTAKE_S = 600.0


@dataclass(eq=False)
class _File:
    """A file under way: its walk and what the walk asks for."""

    key: Any
    audio_s: float
    walk: Walk
    request: Request | None = None
    transcript: Transcript | None = None

    def answer(self, result: str | Decoded | None) -> None:
        """Send the walk what it asked for; the first answer, which starts it, is None."""
        try:
            self.request = self.walk.send(result)
        except StopIteration as stop:
            self.request, self.transcript = None, stop.value


class Engine:
    """A model with the batches that it works on.

    Attributes:
        batch_size: slots of the decode batch.
    """

    def __init__(
        self,
        model: whisper.Whisper,
        *,
        language: str | None,
        batch_size: int | None,
        dtype: torch.dtype,
        stats: Stats,
    ) -> None:
        self.device, self.dims = model.device, model.dims
        self.language = language if model.is_multilingual else language or "en"
        self.tokenizer = get_tokenizer(
            model.is_multilingual, num_languages=model.num_languages, language="en"
        )
        self.stats = stats
        workers = Workers() if self.device.type == "cpu" else None
        self.encoder = Encoder(model.encoder, dtype, workers)
        self.decoder = Decoder(model.decoder, dtype, MOST_SLOTS[self.device.type], workers)
        self.sampler = Sampler(model, self.tokenizer)
        slot_bytes = self.decoder.slot_bytes(self.dims.n_audio_ctx)
        self.batch_size = batch_size or default_slots(slot_bytes, self.device)
        self.encoded_at_once = ENCODED_AT_ONCE
        self._batch: DecodeBatch | None = None
        self._under_way: list[_File] = []
        self._waiting: deque[_File] = deque()

    @classmethod
    @torch.inference_mode()
    def load(
        cls,
        name: str,
        *,
        device: str,
        language: str | None,
        batch_size: int | None,
        precision: str,
        stats: Stats,
    ) -> "Engine":
        """Settings as in `Transcriber.load`, checked and resolved."""
        dtype = getattr(torch, precision)
        try:
            model = load_model(name, device)
            return cls(model, language=language, batch_size=batch_size, dtype=dtype, stats=stats)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(
                f"WHISPER_MODEL={name!r} does not fit into the free memory of WHISPER_DEVICE={device!r}; end"
                " what else is there, or take a smaller model or another device"
            ) from error

    def transcribe(self, audio: Iterable[tuple[K, np.ndarray]]) -> Iterator[tuple[K, Transcript | Exception]]:
        """As `Transcriber.transcribe`."""
        # What an earlier call left behind when its caller stopped asking is dropped.
        self._under_way, self._waiting = [], deque()
        if self._batch is not None:
            self._batch.rows.clear()
        source = iter(audio)
        exhausted = False
        while True:
            while not exhausted and self._has_room():
                taken = self._take(source)
                exhausted = not taken
                yield from self._start(taken)
                # The spectrograms are what is needed from here on.
                taken.clear()
            if not self._under_way:
                return
            with torch.inference_mode(), self._tiny_numbers_as_zero():
                self._work()
            done = [f for f in self._under_way if f.request is None]
            self._under_way = [f for f in self._under_way if f.request is not None]
            for file in done:
                self.stats.files += 1
                self.stats.audio_s += file.audio_s
                assert file.transcript is not None
                yield file.key, file.transcript

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

    @property
    def _handful(self) -> int:
        return min(JOINED_AT_ONCE, self.batch_size)

    # --- files come in ------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        """Whether to take in files: in handfuls, as spectrograms are cheaper together."""
        files = FILES_PER_SLOT * self.batch_size - len(self._under_way)
        audio_s = MOST_AUDIO_S - sum(f.audio_s for f in self._under_way)
        return not self._under_way or (audio_s > 0 and files >= self._handful)

    def _take(self, source: Iterator[tuple[K, np.ndarray]]) -> list[tuple[K, np.ndarray]]:
        taken, audio_s = [], 0.0
        for item in itertools.islice(source, FILES_PER_SLOT * self.batch_size - len(self._under_way)):
            taken.append(item)
            audio_s += np.size(item[1]) / SAMPLE_RATE
            if audio_s > INTAKE_S:
                break
        return taken

    def _start(self, taken: list[tuple[K, np.ndarray]]) -> Iterator[tuple[K, Exception]]:
        """Start the walks of sound files; yields the faulty ones."""
        sound = []
        for key, array in taken:
            try:
                check(array)
            except (TypeError, ValueError) as error:
                yield key, error
            else:
                sound.append((key, array))
        with torch.inference_mode(), self._timed("mel_s"):
            mels = log_mels([a for _, a in sound], self.dims.n_mels, self.device)
            for (key, array), mel in zip(sound, mels, strict=True):
                file = _File(key, len(array) / SAMPLE_RATE, walk(mel, self.tokenizer, self.language))
                file.answer(None)
                self._under_way.append(file)
                if file.request is not None:
                    self._waiting.append(file)

    # --- requests are answered ----------------------------------------------------------------------

    def _work(self) -> None:
        """Let waiting requests into the decode batch, and take a step of it.

        Out of memory, the batch is cut in half, and the decodes that were in it start again.
        """
        try:
            if self._batch is None:
                self._batch = DecodeBatch(
                    self.decoder, self.sampler, self.tokenizer, self.dims.n_audio_ctx, self.batch_size
                )
            self._detect_languages(self._batch)
            self._join(self._batch)
            if self._batch.rows:
                with self._timed("decode_s"):
                    finished = self._batch.step()
                for file, result in finished:
                    self._answer(file, result)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.batch_size == 1:
                raise
            self._batch = None
            self.batch_size //= 2
            self.stats.halvings += 1
            self._waiting = deque(f for f in self._under_way if f.request is not None)
        if self._batch is None and self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _answer(self, file: _File, result: str | Decoded) -> None:
        if isinstance(result, Decoded):
            self.stats.tokens += len(result.tokens)
            self.stats.fallbacks += result.temperature > 0
        file.answer(result)
        if file.request is not None:
            # Files under way come first, so that long ones, whose windows follow one another, end early.
            self._waiting.appendleft(file)

    def _detect_languages(self, batch: DecodeBatch) -> None:
        """Answer all waiting requests for a language, as `whisper.decoding.detect_language` does."""
        asking = [(f, f.request) for f in self._waiting if isinstance(f.request, DetectLanguage)]
        if batch.room < min(self._handful, len(asking)):
            return
        self._waiting = deque(f for f in self._waiting if not isinstance(f.request, DetectLanguage))
        for some in chunks(asking, self._handful):
            features = self._encode([request.window for _, request in some])
            with self._timed("language_s"):
                languages = batch.languages(features)
            for (file, _), language in zip(some, languages, strict=True):
                self._answer(file, language)

    def _join(self, batch: DecodeBatch) -> None:
        while True:
            asking = ((f, f.request) for f in self._waiting if isinstance(f.request, Decode))
            ready = list(itertools.islice(asking, self._handful))
            if not ready or batch.room < len(ready):
                return
            features = self._encode([request.window for _, request in ready])
            with self._timed("decode_s"):
                batch.join(ready, features)
            joined = {file for file, _ in ready}
            self._waiting = deque(f for f in self._waiting if f not in joined)

    def _encode(self, windows: Sequence[Window]) -> list[Tensor]:
        """Features of each window, `dtype` [1500, n_state]; computed once for a window."""
        missing = [w for w in windows if w.encoding is None]
        self.stats.windows += len(missing)
        with self._timed("encode_s"):
            while missing:
                some = missing[: self.encoded_at_once]
                try:
                    features = self.encoder([w.mel for w in some])
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error) or self.encoded_at_once == 1:
                        raise
                    self.encoded_at_once //= 2
                    self.stats.halvings += 1
                    continue
                for window, encoding in zip(some, features, strict=True):
                    window.encoding = encoding
                del missing[: len(some)]
        return [w.encoding for w in windows if w.encoding is not None]

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self.stats, stage, getattr(self.stats, stage) + time.perf_counter() - started)


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def check(audio: np.ndarray) -> None:
    """Raise TypeError or ValueError unless `audio` is float32 [samples] and finite."""
    if not isinstance(audio, np.ndarray):
        raise TypeError(f"audio is a {type(audio).__name__}, not a NumPy array")
    if audio.ndim != 1 or audio.dtype != np.float32:
        raise ValueError(f"audio has shape {audio.shape} and type {audio.dtype}, not [samples] and float32")
    if not np.isfinite(audio).all():
        raise ValueError("audio holds NaN or infinite samples")


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory has run out; PyTorch's allocator for CPUs says so only in its message."""
    out = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return out or "can't allocate memory" in str(error)


def default_slots(slot_bytes: int, device: torch.device) -> int:
    """Slots for the decode batch: half of a GPU's free memory, a quarter of a CPU's, up to a limit."""
    if device.type == "cuda":
        memory = torch.cuda.mem_get_info(device)[0] // 2
    elif hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") // 4
    else:
        memory = 2 << 30
    return max(1, min(MOST_SLOTS[device.type], memory // slot_bytes))
