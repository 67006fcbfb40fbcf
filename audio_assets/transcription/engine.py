"""Runs many files' walks side by side and answers their requests in batches."""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import whisper
from whisper.audio import N_FRAMES, SAMPLE_RATE
from whisper.tokenizer import get_tokenizer

from audio_assets.transcription.mel import log_mels
from audio_assets.transcription.transcriber import Stats
from audio_assets.transcription.transcript import Transcript
from audio_assets.transcription.windows import (
    Decode,
    Decoded,
    DetectLanguage,
    Request,
    Walk,
    walk,
)

K = TypeVar("K")


@dataclass(eq=False)
class _File:
    """A file under way: its walk and what the walk asks for."""

    key: Any
    audio_s: float
    walk: Walk
    request: Request | None = None
    transcript: Transcript | None = None

    def answer(self, result: str | Decoded | None) -> None:
        try:
            self.request = self.walk.send(result)
        except StopIteration as stop:
            self.request, self.transcript = None, stop.value


class Engine:
    def __init__(
        self,
        model: whisper.Whisper,
        *,
        language: str | None,
        batch_size: int,
        stats: Stats,
    ) -> None:
        self.model = model
        self.device = model.device
        self.language = language if model.is_multilingual else language or "en"
        self.batch_size = batch_size
        self.stats = stats
        self.tokenizer = get_tokenizer(
            model.is_multilingual, num_languages=model.num_languages
        )

    @classmethod
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
        model = whisper.load_model(name, device=device).eval()
        return cls(model, language=language, batch_size=batch_size or 16, stats=stats)

    @torch.inference_mode()
    def transcribe(
        self, audio: Iterable[tuple[K, np.ndarray]]
    ) -> Iterator[tuple[K, Transcript | Exception]]:
        source = iter(audio)
        files: list[_File] = []
        while True:
            room = 4 * self.batch_size - len(files)
            taken = list(itertools.islice(source, max(0, room)))
            valid = []
            for key, array in taken:
                try:
                    check(array)
                except (TypeError, ValueError) as error:
                    yield key, error
                else:
                    valid.append((key, array))
            files += self._start(valid)
            if files:
                self._answer_some(files)
            elif not taken:
                return
            for file in [f for f in files if f.request is None]:
                files.remove(file)
                self.stats.files += 1
                self.stats.audio_s += file.audio_s
                yield file.key, file.transcript

    def _start(self, items: list[tuple[K, np.ndarray]]) -> list[_File]:
        with self._timed("mel_s"):
            mels = log_mels([a for _, a in items], self.model.dims.n_mels, self.device)
        files = []
        for (key, array), mel in zip(items, mels, strict=True):
            file = _File(
                key, len(array) / SAMPLE_RATE, walk(mel, self.tokenizer, self.language)
            )
            file.answer(None)
            files.append(file)
        return files

    def _answer_some(self, files: list[_File]) -> None:
        """Answer one batch of requests that can be run together."""
        groups: dict[Any, list[_File]] = defaultdict(list)
        for file in files:
            if isinstance(file.request, Decode):
                r = file.request
                groups[r.language, r.prompt, r.temperature].append(file)
            elif isinstance(file.request, DetectLanguage):
                groups[None].append(file)
        if not groups:
            return
        group = max(groups.values(), key=len)[: self.batch_size]
        self._encode(
            [f.request.window for f in group if f.request.window.encoding is None]
        )
        features = torch.stack([f.request.window.encoding for f in group])
        if isinstance(group[0].request, DetectLanguage):
            with self._timed("language_s"):
                _, probabilities = self.model.detect_language(features)
            for file, p in zip(group, probabilities, strict=True):
                file.answer(max(p, key=p.get))
            return
        request = group[0].request
        with self._timed("decode_s"):
            results = whisper.decode(
                self.model,
                features,
                language=request.language,
                prompt=list(request.prompt),
                temperature=request.temperature,
                fp16=False,
            )
        self.stats.fallbacks += len(group) * (request.temperature > 0)
        for file, r in zip(group, results, strict=True):
            self.stats.tokens += len(r.tokens)
            file.answer(
                Decoded(
                    tuple(r.tokens),
                    r.text,
                    r.avg_logprob,
                    r.no_speech_prob,
                    r.temperature,
                )
            )

    def _encode(self, windows: list) -> None:
        if not windows:
            return
        with self._timed("encode_s"):
            encodings = self.model.encoder(torch.stack([w.mel for w in windows]))
        self.stats.windows += len(windows)
        for window, encoding in zip(windows, encodings, strict=True):
            window.encoding = encoding

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(
                self.stats,
                stage,
                getattr(self.stats, stage) + time.perf_counter() - started,
            )


def check(audio: np.ndarray) -> None:
    """Raise TypeError or ValueError unless `audio` is float32 [samples] and finite."""
    if not isinstance(audio, np.ndarray):
        raise TypeError(f"audio is a {type(audio).__name__}, not a NumPy array")
    if audio.ndim != 1 or audio.dtype != np.float32:
        raise ValueError(
            f"audio has shape {audio.shape} and type {audio.dtype}, not [samples] and float32"
        )
    if not np.isfinite(audio).all():
        raise ValueError("audio holds NaN or infinite samples")


assert N_FRAMES == 3000
