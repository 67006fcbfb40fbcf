"""What the evidence columns cost beside a pass.

    python -m benchmarks.evidence

Decodes FLAC with and without evidence, in turns, and takes the processor's seconds, of which a machine's
other work takes no part. The share is of what a pass with large-v3-turbo has for each window, in the cores
beside the GPU that `benchmarks.engine --device cuda` was measured on.
"""

import argparse
import io
import json
import statistics
import time
from typing import Any

import numpy as np
import soundfile

from audio_assets.audio import decode, read_flac
from audio_assets.evidence import text_evidence
from benchmarks.common import RESULTS, machine

ROUNDS = 15
CLIPS = ((8, 16_000), (8, 48_000), (30, 48_000))
"""Seconds and sample rate."""
TEXT = " ".join(f"word{i}" for i in range(30))


def clip(seconds: int, rate_hz: int) -> bytes:
    noise = np.random.default_rng(0).normal(0, 0.1, seconds * rate_hz).clip(-1, 1)
    file = io.BytesIO()
    soundfile.write(file, noise, rate_hz, format="FLAC")
    return file.getvalue()


def cpu_ms(work: Any) -> float:
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started)


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    gpu = json.loads((RESULTS / "engine_cuda_large-v3-turbo_wall.json").read_text())
    [engine] = [row for row in gpu["engines"] if row["engine"] == "this engine"]
    available_ms = 1000 * engine["median_s"] / gpu["settings"]["clips"] * gpu["machine"]["threads"]
    rows = []
    for seconds, rate_hz in CLIPS:
        body = clip(seconds, rate_hz)
        without = []
        with_it = []
        for _ in range(ROUNDS):
            without.append(cpu_ms(lambda body=body: decode(read_flac, body)))
            with_it.append(cpu_ms(lambda body=body: decode(read_flac, body, evidence=True)))
        signal_ms = statistics.median(with_it) - statistics.median(without)
        text_ms = statistics.median(cpu_ms(lambda: text_evidence(TEXT, "en", 8.0)) for _ in range(ROUNDS))
        row = {
            "seconds": seconds,
            "rate_hz": rate_hz,
            "decode_ms": round(statistics.median(without), 2),
            "signal_ms": round(signal_ms, 2),
            "text_ms": round(text_ms, 3),
            "share_of_cores": round((signal_ms + text_ms) / available_ms, 4),
        }
        print(row)
        rows.append(row)
    path = RESULTS / "evidence.json"
    path.write_text(
        json.dumps({"machine": machine(), "pass_of": gpu["machine"], "clips": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
