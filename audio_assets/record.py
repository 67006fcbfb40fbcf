"""What is recorded of a partition: what its file in `audio_table` was made from, and what is in it.

A record holds for one version of one file. Where the table's listing shows another version, or no file, the
record says nothing, so it cannot be believed of a table that was moved, restored or edited by hand. Where the
records are kept is a matter of `defs/records.py`.
"""

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping

import pyarrow as pa

from audio_assets.audio.formats import suffix_of
from audio_assets.digest import Digest
from audio_assets.rows import inventory_objects
from audio_assets.schema import FAILED, NOT_FLAC, OK

MANY = "many"
"""Takes the place of producers, or of suffixes, that are too many to be recorded."""

# Postgres indexes the text, and takes at most 2,704 bytes there.
LONGEST_BYTES = 2_000
# What is longer is no format of audio, but the end of a name that holds a dot.
LONGEST_SUFFIX = 8


@dataclasses.dataclass(frozen=True)
class PartitionRecord:
    """A partition of `audio_table` as the run that made it left it.

    Attributes:
        digest: `str(Digest)` of the objects that it was made from.
        version: of its file; empty where it has no objects and therefore no file.
        ok, failed, not_flac: rows by `status`.
        empty: rows of status `ok` that have no text.
        whisper_models: rows by `whisper_model`, null left out.
        tokenisers: rows by `tokeniser`, null left out.
        run: the id of the run that made it so; a later run that changes nothing leaves it.
        audio_s: seconds of audio; None where an earlier version recorded it, which did not say.
        suffixes: rows of status `not_flac` by the suffix of their object; none where an earlier version
            recorded it.
    """

    digest: str
    version: str
    ok: int = 0
    failed: int = 0
    not_flac: int = 0
    empty: int = 0
    whisper_models: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tokenisers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    run: str = ""
    audio_s: float | None = None
    suffixes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, rows: pa.Table, version: str, run: str = "") -> "PartitionRecord":
        """The record of some rows of `audio_table` in a file of this version."""
        statuses = _counts(rows["status"])
        texts = zip(rows["status"].to_pylist(), rows["transcribed_text"].to_pylist(), strict=True)
        return cls(
            digest=str(Digest.of(inventory_objects(rows))),
            version=version,
            ok=statuses.get(OK, 0),
            failed=statuses.get(FAILED, 0),
            not_flac=statuses.get(NOT_FLAC, 0),
            empty=sum(status == OK and not text for status, text in texts),
            whisper_models=_counts(rows["whisper_model"]),
            tokenisers=_counts(rows["tokeniser"]),
            run=run,
            audio_s=round(sum(filter(None, rows["duration_s"].to_pylist())), 3),
            suffixes=_suffixes(rows),
        )

    def after(self, before: "PartitionRecord | None") -> "PartitionRecord":
        """This record, or the one before it where that says the same but for the run."""
        return self if before is None or dataclasses.replace(self, run=before.run) != before else before

    @property
    def rows(self) -> int:
        return self.ok + self.failed + self.not_flac

    def to_json(self) -> str:
        """What `from_json` reads; at most LONGEST_BYTES, for which MANY takes the place of names."""
        text = json.dumps(dataclasses.asdict(self), separators=(",", ":"))
        if len(text) <= LONGEST_BYTES:
            return text
        named = ("whisper_models", "tokenisers", "suffixes")
        totals = {name: {MANY: sum(getattr(self, name).values())} for name in named}
        return dataclasses.replace(self, **totals).to_json()

    @classmethod
    def from_json(cls, text: str) -> "PartitionRecord":
        """Read what `to_json` gave.

        Raises:
            ValueError, TypeError: it is something else.
        """
        return cls(**json.loads(text))


def _suffixes(rows: pa.Table) -> dict[str, int]:
    """How many rows that are not audio have which suffix; what cannot be one counts as none."""
    keys = zip(rows["Key"].to_pylist(), rows["status"].to_pylist(), strict=True)
    suffixes = [suffix_of(key) for key, status in keys if status == NOT_FLAC]
    return dict(collections.Counter(s if len(s) <= LONGEST_SUFFIX else "" for s in suffixes))


def _counts(column: Iterable[pa.Scalar]) -> dict[str, int]:
    """How often each value occurs in a column of text, null left out."""
    counts: dict[str, int] = {}
    for value in column:
        text = value.as_py()
        if text is not None:
            counts[text] = counts.get(text, 0) + 1
    return counts
