"""What `make demo` runs: sample speech into a folder, `audio-assets sync`, the table beside the true words.

Everything between the bucket and the table is what production uses. Only the settings have their defaults,
whatever `.env` and the shell say.
"""

import argparse
import csv
import dataclasses
import datetime as dt
import os
import pathlib
import shutil
import sys
import time
from typing import Any

import jiwer
import pandas as pd

from audio_assets.cli.project import open_project
from audio_assets.cli.sync import Sync
from audio_assets.cli.sync_display import Display
from audio_assets.definitions import defs
from audio_assets.demo.make_sample import SAMPLE, TRUTH
from audio_assets.partitions import FolderMinute
from audio_assets.read import open_audio_table, read_slice
from audio_assets.schema import OK
from audio_assets.settings import AUDIO_SOURCE_URI, DEMO_BUCKET, SETTINGS

# Synthetic speech of voices that training never hears; docs/demo.md has the model's figures.
MAX_WORD_ERROR_RATE = 0.05
# A row above this is not misheard but another object's.
MAX_ROW_ERROR_RATE = 0.6

# --- the bucket -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Sample:
    """One object of the sample and what the table must say of it."""

    key: str
    last_modified: dt.datetime
    status: str
    text: str


def read_truth() -> list[Sample]:
    """The objects of `sample.csv`."""
    with TRUTH.open(newline="") as file:
        return [
            Sample(row["Key"], dt.datetime.fromisoformat(row["LastModified"]), row["status"], row["text"])
            for row in csv.DictReader(file)
        ]


def lay_sample(bucket: pathlib.Path) -> int:
    """Copy the sample into a folder with its times of upload; returns how many objects were new."""
    new = 0
    for sample in read_truth():
        target = bucket / sample.key
        uploaded = sample.last_modified.timestamp()
        if target.exists() and target.stat().st_mtime == uploaded:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        # The name appears with its final time, so that a sensor that looks meanwhile sees no other minute.
        partial = bucket.parent / f".{bucket.name}.partial"
        shutil.copyfile(SAMPLE / sample.key, partial)
        os.utime(partial, (uploaded, uploaded))
        partial.replace(target)
        new += 1
    return new


# --- the table ------------------------------------------------------------------------------------------

Row = dict[str, Any]


def compare(table: pd.DataFrame) -> list[str]:
    """Print the table beside the true words, with the word error rate.

    Returns:
        What is wrong, in words; nothing if all is well.
    """
    compared, wrong = _match(table)
    spoken = [(sample, row) for sample, row in compared if sample.status == OK]
    wrong += [problem for sample, row in spoken for problem in _problems(sample, row)]
    said = [_normal(sample.text) for sample, _ in spoken]
    heard = [_normal(row["transcribed_text"]) for _, row in spoken]
    rate = jiwer.wer(said, heard) if said else 1.0
    if rate > MAX_WORD_ERROR_RATE:
        wrong.append(f"the word error rate {rate:.1%} is above {MAX_WORD_ERROR_RATE:.0%}")
    shown = pd.DataFrame([_shown(sample, row) for sample, row in compared])
    print(shown.to_string(index=False, max_colwidth=60))
    print(f"\nword error rate {rate:.1%} over {sum(len(text.split()) for text in said)} words")
    return wrong


def _match(table: pd.DataFrame) -> tuple[list[tuple[Sample, Row]], list[str]]:
    """The objects of the sample, each with its row, and what is wrong with those that have no such row."""
    rows: dict[str, list[Row]] = {}
    for row in table.to_dict("records"):
        rows.setdefault(row["Key"], []).append(row)
    matched: list[tuple[Sample, Row]] = []
    wrong: list[str] = []
    for sample in read_truth():
        found = rows.get(sample.key, [])
        if len(found) != 1:
            wrong.append(f"{sample.key} has {len(found)} rows")
        elif found[0]["status"] != sample.status:
            wrong.append(f"{sample.key} is {found[0]['status']}, not {sample.status}: {found[0]['error']}")
        else:
            matched.append((sample, found[0]))
    return matched, wrong


def _problems(sample: Sample, row: Row) -> list[str]:
    """What is wrong with the row of an object that holds speech."""
    problems = []
    if jiwer.wer(_normal(sample.text), _normal(row["transcribed_text"])) > MAX_ROW_ERROR_RATE:
        problems.append(f"{sample.key} says {sample.text!r}, not {row['transcribed_text']!r}")
    tokens = len(row["tokenized_info"])
    if not 20 <= tokens <= 1000:
        problems.append(f"{sample.key} has {tokens} tokens, not 20 to 1000")
    return problems


def _shown(sample: Sample, row: Row) -> Row:
    """What the console shows of an object."""
    spoken = sample.status == OK
    error = f": {row['error']}" if isinstance(row["error"], str) else ""
    return {
        "Key": sample.key,
        "partition": FolderMinute.of(sample.key, row["LastModified"]).key,
        "true words": sample.text,
        "transcribed_text": row["transcribed_text"] if spoken else "",
        "tokens": len(row["tokenized_info"]) if spoken else "",
        "status": row["status"] + error,
    }


def _normal(text: str) -> str:
    return text.lower().rstrip(".")


# --- all of it ------------------------------------------------------------------------------------------


def main(bucket: pathlib.Path | None = None) -> int:
    """Run the demo.

    Args:
        bucket: the folder that stands for a bucket, by default the one that `make dev` shows.

    Returns:
        The exit status: 0 if every row of the table is as it should be.
    """
    started = time.monotonic()
    bucket = bucket or DEMO_BUCKET
    # The demo is the same whatever .env or the shell says; real buckets are for `make dev`.
    for setting in SETTINGS:
        os.environ.pop(setting.name, None)
    os.environ[AUDIO_SOURCE_URI.name] = bucket.as_uri()

    print(f"1. Sample speech into the demo bucket {bucket}")
    bucket.mkdir(exist_ok=True)
    print(f"  {lay_sample(bucket)} new objects of {len(read_truth())}")

    print("2. The sensor looks at the bucket, Dagster runs what it asks for", flush=True)
    with open_project(defs()) as project:
        result = Sync(project, Display(), wait=False, retries=0).run()
    if result.differing:
        print(f"WRONG: a run failed: {' '.join(result.failed)}; `make dev` shows it")
        return 1
    print(f"  runs: {result.runs}" if result.runs else "  nothing to do: the table is what the bucket says")

    print("3. The resulting audio_table beside the true words")
    wrong = compare(read_slice(open_audio_table()))
    for problem in wrong:
        print(f"WRONG: {problem}")
    if wrong:
        return 1
    print(f"""
Done in {time.monotonic() - started:.0f} s. What next?
  make dev                                    the Dagster UI on this bucket: http://127.0.0.1:3000
  cp any.flac {bucket.name}/p225/                  the running sensor picks it up once its minute is over
  .venv/bin/audio-assets read p225            rows of the table that the settings name
  cp .env.example .env                        your own bucket and Whisper model (README.md)""")
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m audio_assets.demo",
        description="Lay the sample into demo_bucket/, process it, show the table beside the true words."
        " Objects of the sample that were changed there are laid anew; nothing else is.",
        epilog="example: make demo",
    ).parse_args()
    sys.exit(main())
