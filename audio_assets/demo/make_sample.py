"""Synthesise the demo's sample: FLAC speech at 48 kHz in VCTK's layout, and its true words.

    python -m audio_assets.demo.make_sample

Four speakers whose voices training never hears, a few upload minutes each, one object that is not FLAC
and one FLAC that is corrupt. Writes `sample/` and `sample.csv` beside this file.
"""

import csv
import datetime as dt
import io
import pathlib
import random
import shutil

import soundfile

from audio_assets.demo.synthesis import Voice, sentence, speak
from audio_assets.schema import FAILED, NOT_FLAC, OK

SAMPLE = pathlib.Path(__file__).with_name("sample")
TRUTH = pathlib.Path(__file__).with_name("sample.csv")
SAMPLE_RATE_HZ = 48_000
SPEAKERS = {
    "p225": Voice("en-gb", "f4", 145, 55),
    "p226": Voice("en-us", "m7", 148, 40),
    "p227": Voice("en-gb-scotland", "paul", 142, 45),
    "p228": Voice("en-gb-x-rp", "linda", 194, 50),
}
CLIPS_PER_SPEAKER = 6
CLIPS_PER_MINUTE = 2
FIRST_UPLOAD = dt.datetime(2023, 8, 24, 0, 21, 7, tzinfo=dt.UTC)
FIELDS = ("Key", "LastModified", "status", "text")


def main() -> None:
    shutil.rmtree(SAMPLE, ignore_errors=True)
    rng = random.Random(20230824)
    rows = []
    for s, (speaker, voice) in enumerate(SPEAKERS.items()):
        for clip in range(CLIPS_PER_SPEAKER):
            uploaded = FIRST_UPLOAD + dt.timedelta(minutes=s + clip // CLIPS_PER_MINUTE, seconds=3 * clip)
            key = f"{speaker}/{speaker}_{clip + 1:03}_mic1.flac"
            text = sentence(rng)
            wave = speak(text, voice, SAMPLE_RATE_HZ)
            flac = io.BytesIO()
            soundfile.write(
                flac, 0.8 * wave / abs(wave).max(), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16"
            )
            rows.append((key, uploaded, OK, text))
            _write(key, flac.getvalue())
            if (speaker, clip) == ("p227", 2):
                damaged = f"{speaker}/{speaker}_900_damaged.flac"
                rows.append((damaged, uploaded, FAILED, ""))
                _write(damaged, flac.getvalue()[: len(flac.getvalue()) // 2])
    rows.append(("p225/speaker-info.txt", FIRST_UPLOAD, NOT_FLAC, ""))
    _write(
        "p225/speaker-info.txt",
        b"Speakers of the sample are synthetic (espeak-ng); no person was recorded.\n",
    )
    with TRUTH.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(
            (key, uploaded.isoformat(), status, text) for key, uploaded, status, text in sorted(rows)
        )
    print(f"{len(rows)} objects in {SAMPLE}")


def _write(key: str, body: bytes) -> None:
    path = SAMPLE / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


if __name__ == "__main__":
    main()
