"""Retire old partitions from Dagster: what `audio-assets retire` does.

Dagster advises at most 100,000 partitions for an asset, which a busy bucket has after some years. Retiring
deletes partition keys and nothing else: objects, rows and the records of runs stay, `read_table` gives them
as before, and the sensor, which goes by those records, does not ask for them again. An object that changes
later brings its partition back.
"""

import collections
import dataclasses
import datetime as dt

import dagster as dg

from audio_assets.defs.internals.dynamic_partitions import delete_partition_keys
from audio_assets.defs.internals.partition_statuses import keep_partition_statuses
from audio_assets.defs.partitions import FOLDER_MINUTE
from audio_assets.defs.records import InstanceRecords
from audio_assets.partitions import minute_of_partition, partition_or_none


@dataclasses.dataclass(frozen=True)
class Choice:
    """The partition keys whose minute lies before a moment.

    Attributes:
        retire: those that are in the table.
        keep: those that are not yet, or that a queued or running run covers.
    """

    retire: list[str]
    keep: list[str]


def choose(instance: dg.DagsterInstance, before: dt.datetime) -> Choice:
    """Look at what can be retired; changes nothing."""
    records = InstanceRecords(instance)
    registered = records.registered()
    # The sensor registers anew what it has no record of.
    done = records.records().keys() - records.unfinished(registered).covered
    old = [key for key in registered if (minute := _minute(key)) is not None and minute < before]
    return Choice([key for key in old if key in done], [key for key in old if key not in done])


def retire(instance: dg.DagsterInstance, keys: list[str]) -> None:
    """Delete partition keys, and keep what the UI counts of the others."""
    keep_partition_statuses(instance, instance.get_dynamic_partitions(FOLDER_MINUTE), delete=keys)
    delete_partition_keys(instance, FOLDER_MINUTE, keys)


def _minute(key: str) -> dt.datetime | None:
    partition = partition_or_none(key)
    return None if partition is None else partition.minute


def _month(key: str) -> str:
    """Such as `2023-08`."""
    return minute_of_partition(key)[:7]


def parse_moment(text: str) -> dt.datetime:
    """Read an ISO date or moment, in UTC where it names no zone."""
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def month_table(choice: Choice) -> str:
    """How many partitions of each month are retired, and how many stay."""
    retired = collections.Counter(map(_month, choice.retire))
    kept = collections.Counter(map(_month, choice.keep))
    lines = [f"{'month':10}{'retire':>10}{'keep':>10}"]
    lines += [f"{month:10}{retired[month]:10,}{kept[month]:10,}" for month in sorted(retired | kept)]
    return "\n".join([*lines, f"{'all':10}{len(choice.retire):10,}{len(choice.keep):10,}"])
