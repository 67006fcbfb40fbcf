"""What several benchmarks share: synthesised clips, the rate of wrong words, and what the machine is."""

import json
import pathlib
import platform
import random
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jiwer
import numpy as np
import torch

from audio_assets.demo.synthesis import Voice, sentence, speak
from audio_assets.transcription import Transcriber, Transcript

RESULTS = pathlib.Path(__file__).with_name("results")


def spoken_clips(count: int) -> list[tuple[str, np.ndarray]]:
    """Sentences and float32 audio at 16 kHz, other than those that training checks itself with."""

    def make(i: int) -> tuple[str, np.ndarray]:
        rng = random.Random(f"agreement-{i}")
        text = sentence(rng)
        return text, np.ascontiguousarray(speak(text, Voice.draw(rng, held_out=True), 16_000), np.float32)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(make, range(count)))


def flac_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Human speech of the user's own, in order."""
    if found := sorted(folder.rglob("*.flac")):
        return found
    raise SystemExit(f"{folder} holds no .flac; --speech names a folder of human speech")


def transcripts(transcriber: Transcriber, clips: Iterable[np.ndarray]) -> list[Transcript]:
    """In the order of the clips; none may fail."""
    answers: dict[int, Transcript] = {}
    for i, answer in transcriber.transcribe(enumerate(clips)):
        if isinstance(answer, Exception):
            raise answer
        answers[i] = answer
    return [answers[i] for i in range(len(answers))]


def word_error_rate(said: list[str], heard: list[str]) -> float:
    """Letters only, as the demo's grammar speaks."""
    if len(said) != len(heard):
        raise RuntimeError(f"{len(heard)} texts for {len(said)} clips")
    return jiwer.wer([plain(text) for text in said], [plain(text) for text in heard])


def plain(text: str) -> str:
    return " ".join("".join(c for c in text.lower() if c.isalpha() or c == " ").split())


def write_results(name: str, results: Mapping[str, Any]) -> None:
    """Write what was measured into `RESULTS`, and say where."""
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {path}")


def machine() -> dict[str, Any]:
    """What the figures were taken on, in words that matter to them."""
    cpu = torch.backends.cpu.get_cpu_capability()
    flags = pathlib.Path("/proc/cpuinfo").read_text() if pathlib.Path("/proc/cpuinfo").exists() else ""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        **{"cpu": cpu, "processor": platform.machine(), "threads": torch.get_num_threads(), "gpu": device},
        **{"avx512_bf16": "avx512_bf16" in flags, "amx": "amx_bf16" in flags, "torch": torch.__version__},
    }
