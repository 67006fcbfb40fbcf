"""What Dagster has on record of the partitions: their keys, what they were made from, runs under way.

The sensor and `audio_assets.retire` go by it.
"""

from collections.abc import Collection, Sequence

import dagster as dg

from audio_assets.daily import DayRecord
from audio_assets.defs.internals.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    DATA_VERSION_TAG,
    HIDDEN_TAG_PREFIX,
    PARTITION_NAME_TAG,
)
from audio_assets.defs.partitions import AUDIO_TABLE, FOLDER_MINUTE, KEYS_AT_A_TIME, parts
from audio_assets.record import PartitionRecord
from audio_assets.sensor.tick import Unfinished

RECORD_TAG = DATA_VERSION_TAG
"""Holds a `PartitionRecord` or a `DayRecord`, on the observation of a partition.

It is the only tag whose latest value Dagster gives for all partitions in one query.
"""
FINGERPRINT_TAG = f"{HIDDEN_TAG_PREFIX}audio_assets/request"
"""Names what a run was asked for by `RunRange.fingerprint`."""
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def log_record(
    context: dg.AssetExecutionContext, partition: str, record: PartitionRecord | DayRecord, description: str
) -> None:
    """Record what a partition was made from; a sensor compares this with what there is.

    It is an observation because the materialisations of a range share their tags, and each partition needs
    its own.
    """
    context.log_event(
        dg.AssetObservation(
            context.asset_key,
            partition=partition,
            description=description,
            tags={RECORD_TAG: record.to_json()},
        )
    )


class InstanceRecords:
    """The `Records` of an instance."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def registered(self) -> list[str]:
        """The partition keys, in the order in which they were registered."""
        return list(self._instance.get_dynamic_partitions(FOLDER_MINUTE))

    def records(self, keys: Collection[str] | None = None) -> dict[str, PartitionRecord]:
        """By partition key, what is recorded of it.

        Args:
            keys: of which partitions, None for all.
        """
        some = [None] if keys is None else parts(sorted(keys), KEYS_AT_A_TIME)
        found = {
            key: _record(tags[RECORD_TAG])
            for part in some
            for key, tags in self._instance.event_log_storage.get_latest_tags_by_partition(
                AUDIO_TABLE, dg.DagsterEventType.ASSET_OBSERVATION, [RECORD_TAG], part
            ).items()
        }
        return {key: record for key, record in found.items() if record is not None}

    def unfinished(self, registered: Sequence[str]) -> Unfinished:
        """The runs that are queued or under way."""
        runs = self._instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
        return Unfinished(len(runs), covered(runs, registered))

    def tries(self, fingerprints: Sequence[str]) -> dict[str, list[float]]:
        """By fingerprint, when each run that was asked for by it ended or last did something, in seconds
        since 1970."""
        tries: dict[str, list[float]] = {fingerprint: [] for fingerprint in fingerprints}
        for record in self._instance.get_run_records(dg.RunsFilter(tags={FINGERPRINT_TAG: list(tries)})):
            ended = record.end_time or record.update_timestamp.timestamp()
            tries[record.dagster_run.tags[FINGERPRINT_TAG]].append(ended)
        return tries


def _record(text: str) -> PartitionRecord | None:
    """None for what another version of this project recorded: its partition is made again."""
    try:
        return PartitionRecord.from_json(text)
    except (ValueError, TypeError):
        return None


def covered(runs: Collection[dg.DagsterRun], registered: Sequence[str]) -> set[str]:
    """The partition keys that runs will write."""
    place = {key: at for at, key in enumerate(registered)} if runs else {}
    covered: set[str] = set()
    for run in runs:
        if run.asset_selection is not None and AUDIO_TABLE not in run.asset_selection:
            continue
        if key := run.tags.get(PARTITION_NAME_TAG):
            covered.add(key)
        start = place.get(run.tags.get(ASSET_PARTITION_RANGE_START_TAG, ""))
        end = place.get(run.tags.get(ASSET_PARTITION_RANGE_END_TAG, ""))
        if start is not None and end is not None:
            covered.update(registered[start : end + 1])
    return covered
