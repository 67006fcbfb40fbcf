"""The asset checks of `audio_table`. They describe the whole table, always.

Executed on their own (by the schedule, the job, or *Execute all*) they read the table's files and list the
bucket. In a run over partitions they read nothing: each repeats its last result, so that a run which made one
healthy partition says nothing better of the table than is so.

What is counted is in `quality.py` and `bucket_comparison.py`; which of it fails a check, and how badly, is
said in `check_rules.py`.
"""

import concurrent.futures
import datetime as dt
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from audio_assets.bucket_comparison import Differences, UnderWay, differing, look_again, partition_files
from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.check_results import latest_results, repeated
from audio_assets.defs.check_rules import CHECKS, DESCRIPTIONS, Listing, Results
from audio_assets.defs.failures import known_errors
from audio_assets.defs.producers import current_producers
from audio_assets.defs.records import InstanceRecords
from audio_assets.defs.resources import AudioTokeniser, Bucket, Whisper
from audio_assets.digest import Digest
from audio_assets.errors import StorageError
from audio_assets.parallel import map_ahead
from audio_assets.partitions import FolderMinute
from audio_assets.quality import Findings, PartitionFile, Sample
from audio_assets.settings import MAX_RUNS_IN_FLIGHT, SETTLE_SECONDS
from audio_assets.table import THREADS

SENSOR_SECONDS = 60
"""How long the sensor is given to notice a change of the bucket: two of its ticks."""


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
    with known_errors():
        bucket.claim_for_run()
    run = context.op_execution_context
    selected = [
        name for name in CHECKS if dg.AssetCheckKey(audio_table.key, name) in run.selected_asset_check_keys
    ]
    if run.has_partition_key or run.has_partition_key_range:
        latest = latest_results(context.instance, selected)
        if len(latest) == len(selected):
            yield from map(repeated, latest.values())
            return
    results = look_at_table(context.instance, context.log, bucket, whisper, tokeniser, SENSOR_SECONDS)
    yield from (result for result in results if result.check_name in selected)


# --- looking at the whole table -------------------------------------------------------------------------


def look_at_table(
    instance: dg.DagsterInstance,
    log: logging.Logger,
    bucket: Bucket,
    whisper: Whisper,
    tokeniser: AudioTokeniser,
    patience_s: float,
) -> Iterator[dg.AssetCheckResult]:
    """The results of all checks, from one reading of the whole table.

    Args:
        patience_s: seconds that are waited before what differs is looked at again; 0 where no sensor is there
            to notice a change meanwhile.

    Raises:
        StorageError: the table cannot be read.
    """
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
    second_look = _SecondLook(instance, bucket, now, patience_s)
    differences = Differences()
    if listing.digests is not None:
        differences = second_look.differences(listing.digests, made)
    repeats = second_look.repeated(findings)

    yield result.of("schema", findings.wrong_schema, "wrong", findings.summary)
    yield result.of("unique_keys", repeats, "repeated", findings.summary)
    yield result.equals_bucket(differences, strays, findings.summary, listing)
    yield from result.of_values(findings)
    try:
        producers = current_producers(whisper, tokeniser)
    except ValueError as e:
        yield result.unusable_settings(str(e))
    else:
        yield result.current_settings(findings.summary, producers)
    yield result.audio_found(findings.summary, bucket.source_uri)


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
        patience_s: the seconds that the sensor is given.
    """

    def __init__(
        self, instance: dg.DagsterInstance, bucket: Bucket, began: dt.datetime, patience_s: float
    ) -> None:
        self._records = InstanceRecords(instance)
        self._bucket = bucket
        self._closed = began - dt.timedelta(minutes=1) - SETTLE_SECONDS.get()
        self._patience_s = patience_s
        self._paused = False

    def differences(
        self, listed: Mapping[FolderMinute, Digest], made: Mapping[FolderMinute, str]
    ) -> Differences:
        """What differs between bucket and table and will not be mended by a run."""
        source = self._bucket.source
        table = self._bucket.audio_table
        differ = differing(listed, made, table)
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
            time.sleep(self._patience_s)
        self._paused = True
