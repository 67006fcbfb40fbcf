"""Rows by reference: what NeMo and Lhotse read beside audio that stays where it is.

NeMo's keys are those of its JSONL manifests (`audio_filepath`, `duration`, `text`, `lang`); what else a line
holds, NeMo keeps in `cut.custom`. A line for Lhotse is a cut as `CutSet.to_jsonl` writes one. Lhotse opens
objects of S3 by `smart_open`, NeMo by Lhotse.
"""

import dataclasses
import gzip
import io
import urllib.parse
from collections.abc import Callable, Mapping
from typing import IO, Any

NEMO = "nemo"
LHOTSE = "lhotse"

Row = Mapping[str, Any]

CUSTOM = ("avg_logprob", "no_speech_prob", "compression_ratio", "whisper_model")
"""Columns of `audio_table` that each line has beside what its reader asks for."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A kind of manifest.

    Attributes:
        suffix: of its file, behind the name of the split.
        line: row of `audio_table`, URI of the source, split -> what a line holds, as JSON.
    """

    suffix: str
    line: Callable[[Row, str, str], dict[str, Any]]

    def open(self, path: str) -> IO[str]:
        """A local file to write lines to; the same lines give the same bytes."""
        if not self.suffix.endswith(".gz"):
            return open(path, "w", encoding="utf-8")
        return io.TextIOWrapper(_Gzip(path), encoding="utf-8")


class _Gzip(gzip.GzipFile):
    """Without a name and a time in it, which are others each time."""

    def __init__(self, path: str) -> None:
        self._file = io.FileIO(path, "wb")
        super().__init__("", "wb", 6, self._file, 0)

    def close(self) -> None:
        super().close()
        self._file.close()


def location(source_uri: str, key: str) -> str:
    """Where a reader finds an object: a path on a disk, or a URI such as `s3://bucket/a.flac`."""
    parts = urllib.parse.urlsplit(source_uri)
    return f"{urllib.parse.unquote(parts.path) if parts.scheme == 'file' else source_uri}/{key}"


def nemo_line(row: Row, source_uri: str, split: str) -> dict[str, Any]:
    """A line of a NeMo manifest."""
    line = {
        "audio_filepath": location(source_uri, row["Key"]),
        "duration": row["duration_s"],
        "text": row["transcribed_text"],
        "lang": row["language"],
        "id": row["Key"],
        "speaker": row["FolderName"],
        "split": split,
        **_custom(row),
    }
    # With it NeMo does not open each file beforehand; it takes the audio for mono then.
    if row["channels"] == 1:
        line["sampling_rate"] = row["sample_rate_hz"]
    return line


def lhotse_line(row: Row, source_uri: str, split: str) -> dict[str, Any]:
    """A cut of Lhotse over a whole object, with one supervision."""
    key = row["Key"]
    where = location(source_uri, key)
    channels = list(range(row["channels"]))
    channel = 0 if len(channels) == 1 else channels
    about = {"id": key, "recording_id": key, "start": 0.0, "duration": row["duration_s"], "channel": channel}
    return {
        "id": key,
        "start": 0.0,
        "duration": row["duration_s"],
        "channel": channel,
        "supervisions": [
            {
                **about,
                "text": row["transcribed_text"],
                "language": row["language"],
                "speaker": row["FolderName"],
            }
        ],
        "recording": {
            "id": key,
            "sources": [{"type": "url" if "://" in where else "file", "channels": channels, "source": where}],
            "sampling_rate": row["sample_rate_hz"],
            "num_samples": round(row["duration_s"] * row["sample_rate_hz"]),
            "duration": row["duration_s"],
            "channel_ids": channels,
        },
        "custom": {"split": split, **_custom(row)},
        "type": "MonoCut" if len(channels) == 1 else "MultiCut",
    }


def _custom(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in CUSTOM}


MANIFESTS = {NEMO: Manifest(".jsonl", nemo_line), LHOTSE: Manifest(".jsonl.gz", lhotse_line)}
