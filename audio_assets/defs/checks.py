"""The asset checks of `audio_table`. They describe the whole table, always.

Executed on their own (by the schedule, the job, or *Execute all*) they read the table's files and list the
bucket. In a run over partitions they read nothing: each repeats its last result, so that a run which made one
healthy partition says nothing better of the table than is so.

What is counted is in `quality.py` and `comparison.py`; which of it fails a check, and how badly, is said
here.
"""

import concurrent.futures
import dataclasses
import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg

from audio_assets.audio import DECODERS
from audio_assets.comparison import Differences, UnderWay, differing, look_again, partition_files
from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.check_results import CHECKED_AT, latest_results, repeated
from audio_assets.defs.metadata import markdown_table
from audio_assets.defs.records import InstanceRecords
from audio_assets.defs.resources import AudioTokeniser, Bucket, Whisper
from audio_assets.digest import Digest
from audio_assets.errors import StorageError
from audio_assets.parallel import map_ahead
from audio_assets.partitions import FolderMinute
from audio_assets.quality import Findings, PartitionFile, Producers, Sample, Summary
from audio_assets.settings import MAX_RUNS_IN_FLIGHT, SETTLE_SECONDS
from audio_assets.table import THREADS
from audio_assets.transcription.identity import is_current

MAX_FAILED_SHARE = 0.05
MAX_EMPTY_SHARE = 0.05
SENSOR_SECONDS = 60
"""How long the sensor is given to notice a change of the bucket: two of its ticks."""

DESCRIPTIONS = {
    "schema": "Every file has exactly the columns and types of the table, but for nullable columns that are "
    "younger than the file.",
    "unique_keys": "No object has two rows, in one file or in several.",
    "equals_bucket": "Every object of the bucket has exactly one row in its present version, every row is of "
    "an object that exists, and no other files lie in the table. Objects whose run is to come are waiting.",
    "allowed_values": "Every value is one of those, or in the range, that its column allows.",
    "failed_rows": f"At most {MAX_FAILED_SHARE:.0%} of the objects of an audio format failed.",
    "empty_transcripts": f"At most {MAX_EMPTY_SHARE:.0%} of the transcripts are empty.",
    "current_settings": "Every row was made by today's WHISPER_MODEL, WHISPER_LANGUAGE and TOKENISER.",
    "audio_found": "Where the bucket has objects, some are of an audio format.",
    "bucket_readable": "The bucket can be listed.",
}
CHECKS = tuple(DESCRIPTIONS)


@dg.multi_asset_check(
    name="audio_table_checks",
    # None blocks: a run over one partition is not to fail for the fault of another one.
    specs=[
        dg.AssetCheckSpec(name, asset=audio_table, description=text) for name, text in DESCRIPTIONS.items()
    ],
    # Without this, the UI refuses to execute them on their own.
    can_subset=True,
)
def audio_table_checks(
    context: dg.AssetCheckExecutionContext, bucket: Bucket, whisper: Whisper, tokeniser: AudioTokeniser
) -> Iterator[dg.AssetCheckResult]:
    run = context.op_execution_context
    selected = [
        name for name in CHECKS if dg.AssetCheckKey(audio_table.key, name) in run.selected_asset_check_keys
    ]
    if run.has_partition_key or run.has_partition_key_range:
        latest = latest_results(context.instance, selected)
        if len(latest) == len(selected):
            yield from map(repeated, latest.values())
            return
    results = _look_at_table(context.instance, context.log, bucket, whisper, tokeniser)
    yield from (result for result in results if result.check_name in selected)


def current_producers(bucket: Bucket, whisper: Whisper, tokeniser: AudioTokeniser) -> Producers:
    """What tells rows that today's settings would make from others.

    Raises:
        ValueError: a setting is wrong.
    """
    parts = whisper.expected_parts()
    made_today = tokeniser.tokenising(bucket.tokens).identity
    return Producers(lambda identity: is_current(identity, parts), made_today.__eq__)


# --- looking at the whole table -------------------------------------------------------------------------


def _look_at_table(
    instance: dg.DagsterInstance,
    log: logging.Logger,
    bucket: Bucket,
    whisper: Whisper,
    tokeniser: AudioTokeniser,
) -> Iterator[dg.AssetCheckResult]:
    now = dt.datetime.now(dt.UTC)
    result = Results(now)
    # First, and yielded at once: where the tables lie in the same bucket, they cannot be read either.
    listing = _list(bucket)
    yield result.bucket_readable(listing.error)

    partitions, strays = partition_files(path for path, _ in bucket.audio_table.files())
    log.info(f"{len(partitions)} partitions to read")
    findings = Findings()
    made: dict[FolderMinute, str] = {}
    for file in _read(bucket, partitions):
        findings.add(file)
        made[file.partition] = file.record.digest
    second_look = _SecondLook(instance, bucket, now)
    differences = Differences()
    if listing.digests is not None:
        differences = second_look.differences(listing.digests, made)
    repeats = second_look.repeated(findings)

    yield result.of("schema", findings.wrong_schema, "wrong", findings.summary)
    yield result.of("unique_keys", repeats, "repeated", findings.summary)
    yield result.equals_bucket(differences, strays, findings.summary, listing)
    yield from result.of_values(findings)
    try:
        producers = current_producers(bucket, whisper, tokeniser)
    except ValueError as e:
        yield result.unusable_settings(str(e))
    else:
        yield result.current_settings(findings.summary, producers)
    yield result.audio_found(findings.summary, bucket.source_uri)


@dataclasses.dataclass(frozen=True)
class Listing:
    """What the bucket holds.

    Attributes:
        digests: of each partition, None where the bucket was not listed.
        error: why it could not be listed, empty where it could or should not be.
    """

    digests: Mapping[FolderMinute, Digest] | None
    error: str = ""


def _list(bucket: Bucket) -> Listing:
    if bucket.inventory_manifest:
        return Listing(None)
    try:
        source = bucket.source
        digests, _ = source.digests(source.spans())
    except StorageError as e:
        return Listing(None, str(e))
    return Listing(digests)


def _read(bucket: Bucket, partitions: list[FolderMinute]) -> Iterator[PartitionFile]:
    """The partitions' files in order; what was removed since it was listed is passed over."""
    table = bucket.audio_table
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for file in map_ahead(pool, lambda p: PartitionFile.read(table, p), partitions, ahead=64):
            if file is not None:
                yield file


class _SecondLook:
    """Looks again at what seems wrong, once the sensor had time to notice what has changed.

    Args:
        began: when the first look began.
    """

    def __init__(self, instance: dg.DagsterInstance, bucket: Bucket, began: dt.datetime) -> None:
        self._records = InstanceRecords(instance)
        self._bucket = bucket
        self._closed = began - dt.timedelta(minutes=1) - SETTLE_SECONDS.get()
        self._paused = False

    def differences(
        self, listed: Mapping[FolderMinute, Digest], made: Mapping[FolderMinute, str]
    ) -> Differences:
        """What differs between bucket and table and will not be mended by a run."""
        source = self._bucket.source
        table = self._bucket.audio_table
        differ = differing(listed, made)
        wrong = self._not_waiting(differ, made.keys())
        found = Differences()
        if wrong:
            self._pause()
            found = look_again(source, table, self._not_waiting(wrong, made.keys()), self._under_way())
        # A run that was asked for meanwhile has changed under that look what it works on.
        still = set(self._not_waiting(list(found.wrong), made.keys()))
        found.wrong = {p: what for p, what in found.wrong.items() if p in still}
        waiting = {*differ} - {*self._not_waiting(differ, made.keys())}
        found.waiting += sum(listed[p].count for p in waiting if p in listed)
        return found

    def repeated(self, findings: Findings) -> Sample[dict[str, str]]:
        """The keys that have several rows and will not be left with one by a run."""
        if not findings.repeats:
            return Sample()
        self._pause()
        return findings.repeated(self._bucket.audio_table, self._under_way().waits)

    def _not_waiting(self, partitions: list[FolderMinute], made: Any) -> list[FolderMinute]:
        if not partitions:
            return []
        under_way = self._under_way()
        return [p for p in partitions if not under_way.waits(p, made=p in made)]

    def _under_way(self) -> UnderWay:
        unfinished = self._records.unfinished(self._records.registered())
        return UnderWay(self._closed, unfinished.covered, unfinished.runs >= MAX_RUNS_IN_FLIGHT.get())

    def _pause(self) -> None:
        if not self._paused:
            time.sleep(SENSOR_SECONDS)
        self._paused = True


# --- what is a fault ------------------------------------------------------------------------------------


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
            endings = " or ".join(DECODERS)
            description = (
                f"no object of {source_uri} ends in {endings}; convert the audio to FLAC, or add a decoder "
                "of its format (CONTRIBUTING.md)"
            )
        metadata = {"audio": summary.ok + summary.failed, "other": summary.not_flac}
        return self._result("audio_found", not description, metadata, description=description, warn=True)

    def current_settings(self, summary: Summary, producers: Producers) -> dg.AssetCheckResult:
        """Of the whole table."""
        models = _by_producer(summary.whisper_models, producers.is_current_model, "whisper_model")
        tokenisers = _by_producer(summary.tokenisers, producers.is_current_tokeniser, "tokeniser")
        stale = {
            "stale_transcripts": sum(row["rows"] for row in models if not row["current"]),
            "stale_tokens": sum(row["rows"] for row in tokenisers if not row["current"]),
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
            asset_key=audio_table.key,
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
        {column: name or "not said", "rows": rows, "current": bool(name) and is_current(name)}
        for name, rows in sorted(counts.items(), key=lambda item: -item[1])
    ]
    return found or [{column: "none", "rows": 0, "current": True}]
