"""What of all that is found in the table fails a check of `audio_table`, and how badly.

What is looked at is a matter of `checks.py`.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg

from audio_assets.audio import audio_suffixes
from audio_assets.bucket_comparison import Differences
from audio_assets.defs.check_results import CHECKED_AT
from audio_assets.defs.metadata import markdown_table
from audio_assets.defs.partitions import AUDIO_TABLE
from audio_assets.digest import Digest
from audio_assets.partitions import FolderMinute
from audio_assets.quality import Findings, Sample, Summary
from audio_assets.staleness import UNNAMED, Producers, decodable

MAX_FAILED_SHARE = 0.05
MAX_EMPTY_SHARE = 0.05

DESCRIPTIONS = {
    "schema": "Every file has exactly the columns and types of the table, but for nullable columns that are "
    "younger than the file.",
    "unique_keys": "No object has two rows, in one file or in several.",
    "equals_bucket": "Every object of the bucket has exactly one row in its present version, every row is of "
    "an object that exists, and no other files lie in the table. Objects whose run is to come are waiting.",
    "allowed_values": "Every value is one of those, or in the range, that its column allows.",
    "failed_rows": f"At most {MAX_FAILED_SHARE:.0%} of the objects of an audio format failed.",
    "empty_transcripts": f"At most {MAX_EMPTY_SHARE:.0%} of the transcripts are empty.",
    "current_settings": "Every row was made by today's WHISPER_MODEL, WHISPER_LANGUAGE, TOKENISER "
    "and decoders.",
    "audio_found": "Where the bucket has objects, some are of an audio format.",
    "bucket_readable": "The bucket can be listed.",
}
CHECKS = tuple(DESCRIPTIONS)


@dataclasses.dataclass(frozen=True)
class Listing:
    """What the bucket holds.

    Attributes:
        digests: of each partition, None where the bucket was not listed.
        error: why it could not be listed, empty where it could or should not be.
    """

    digests: Mapping[FolderMinute, Digest] | None
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of the checks, as of one moment.

    The sensor makes `bucket_readable`, `audio_found` and `current_settings` too, from what is on record.

    Attributes:
        checked_at: when the table was looked at.
    """

    checked_at: dt.datetime

    def bucket_readable(self, error: str) -> dg.AssetCheckResult:
        """Of the error that a listing of the bucket has raised, empty for none."""
        return self._result("bucket_readable", not error, {}, description=error)

    def audio_found(self, summary: Summary, source_uri: str) -> dg.AssetCheckResult:
        """Of the whole table."""
        description = ""
        if summary.lacks_audio:
            endings = " or ".join(audio_suffixes())
            description = (
                f"no object of {source_uri} ends in {endings}; name the formats of your audio in"
                " AUDIO_FORMATS, or convert it to FLAC"
            )
        metadata = {"audio": summary.ok + summary.failed, "other": summary.not_flac}
        return self._result("audio_found", not description, metadata, description=description, warn=True)

    def current_settings(self, summary: Summary, producers: Producers) -> dg.AssetCheckResult:
        """Of the whole table."""
        models = _by_producer(summary.whisper_models, producers.made_by_model, "whisper_model")
        tokenisers = _by_producer(summary.tokenisers, producers.made_by_tokeniser, "tokeniser")
        stale = {
            "stale_transcripts": sum(row["rows"] for row in models if not row["current"]),
            "stale_tokens": sum(row["rows"] for row in tokenisers if not row["current"]),
            "stale_not_flac": decodable(summary.suffixes),
        }
        tables = {"whisper_models": markdown_table(models), "tokenisers": markdown_table(tokenisers)}
        description = ""
        if any(stale.values()):
            what = " and ".join(name.removeprefix("stale_") for name, rows in stale.items() if rows)
            description = f"some {what} were made by other settings than today's; launch the job redo_stale"
        passed = not description
        return self._result("current_settings", passed, stale | tables, description=description, warn=True)

    def unusable_settings(self, error: str) -> dg.AssetCheckResult:
        """Of settings that no row can be compared with."""
        return self._result("current_settings", False, {}, description=error, warn=True)

    def of(
        self, name: str, found: Sample[dict[str, str]], word: str, summary: Summary
    ) -> dg.AssetCheckResult:
        """Of a check that fails at anything that was found."""
        rows = found.first or [{word: "none"}]
        metadata = _looked_at(summary) | {"found": found.count, word: markdown_table(rows)}
        return self._result(name, not found.count, metadata)

    def equals_bucket(
        self, differences: Differences, strays: Sample[str], summary: Summary, listing: Listing
    ) -> dg.AssetCheckResult:
        """Of the whole table and a listing of the bucket."""
        objects = differences.objects
        metadata = _looked_at(summary) | {
            "differing_partitions": len(differences.wrong),
            "differing_objects": objects.count,
            "differing": markdown_table(objects.first or [{"Key": "none", "partition": "", "what": ""}]),
            "waiting": differences.waiting,
            "stray_files": strays.count,
            "strays": dg.MetadataValue.json(strays.first),
        }
        wrong = [listing.error] if listing.error else []
        if differences.wrong:
            wrong.append(f"{len(differences.wrong)} partitions differ from the bucket")
        if strays.count:
            wrong.append(
                f"{strays.count} files are no partition's and would be read with the table; delete them"
            )
        description = "; ".join(wrong)
        if listing.digests is None and not wrong:
            description = "not compared: S3_INVENTORY_MANIFEST says that the bucket is not to be listed"
        return self._result("equals_bucket", not wrong, metadata, description=description)

    def of_values(self, findings: Findings) -> Iterator[dg.AssetCheckResult]:
        """Of what the rows say. Warnings: such a row is odd, but neither missing nor doubled."""
        summary = findings.summary
        looked_at = _looked_at(summary)
        values = findings.disallowed
        metadata = looked_at | {
            "disallowed": values.count,
            "examples": markdown_table(
                values.first or [dict.fromkeys(("Key", "column", "value", "allowed"), "")]
            ),
        }
        yield self._result("allowed_values", not values.count, metadata, warn=True)
        metadata = looked_at | {
            "failed": summary.failed,
            "share": summary.failed_share,
            "reasons": markdown_table(findings.failures.first or [{"Key": "none", "error": ""}]),
        }
        yield self._result("failed_rows", summary.failed_share <= MAX_FAILED_SHARE, metadata, warn=True)
        metadata = looked_at | {"empty": summary.empty, "share": summary.empty_share}
        yield self._result("empty_transcripts", summary.empty_share <= MAX_EMPTY_SHARE, metadata, warn=True)

    def _result(
        self,
        name: str,
        passed: bool,
        metadata: Mapping[str, Any],
        *,
        description: str = "",
        warn: bool = False,
    ) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            asset_key=AUDIO_TABLE,
            check_name=name,
            passed=passed,
            severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
            metadata={CHECKED_AT: dg.MetadataValue.timestamp(self.checked_at), **metadata},
            description=description or None,
        )


def _looked_at(summary: Summary) -> dict[str, Any]:
    return {"partitions": summary.partitions, "rows": summary.rows}


def _by_producer(
    counts: Mapping[str, int], is_current: Callable[[str], bool], column: str
) -> list[dict[str, Any]]:
    """What made how many rows, the most first; "not said" for rows of audio without it."""
    found = [
        {column: "not said" if name == UNNAMED else name, "rows": rows, "current": is_current(name)}
        for name, rows in sorted(counts.items(), key=lambda item: -item[1])
    ]
    return found or [{column: "none", "rows": 0, "current": True}]
