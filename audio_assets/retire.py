"""Retire old partitions from Dagster: `python -m audio_assets.retire --before 2025-01-01`.

Dagster advises at most 100,000 partitions for an asset, which a busy bucket has after some years. Retiring
deletes partition keys and nothing else: objects, rows and the records of runs stay, `read_table` gives them
as before, and the sensor, which goes by those records, does not ask for them again. An object that changes
later brings its partition back.
"""

import argparse
import collections
import dataclasses
import datetime as dt

import dagster as dg
from dagster._core.storage.event_log.schema import DynamicPartitionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from audio_assets.defs.internals.partition_statuses import keep_partition_statuses
from audio_assets.defs.partitions import FOLDER_MINUTE, KEYS_AT_A_TIME, parts
from audio_assets.defs.sensor import UNFINISHED, covered, recorded_digests
from audio_assets.partitions import FolderMinute


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
    registered = list(instance.get_dynamic_partitions(FOLDER_MINUTE))
    busy = covered(instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)), registered)
    # The sensor registers anew what it has no record of.
    done = recorded_digests(instance).keys() - busy
    old = [key for key in registered if (minute := _minute(key)) is not None and minute < before]
    return Choice([key for key in old if key in done], [key for key in old if key not in done])


def retire(instance: dg.DagsterInstance, keys: list[str]) -> None:
    """Delete partition keys: all of them or none, where the instance's database is SQL."""
    keep_partition_statuses(instance, instance.get_dynamic_partitions(FOLDER_MINUTE), delete=keys)
    storage = instance.event_log_storage
    if isinstance(storage, SqlEventLogStorage):
        # Dagster itself deletes one key at a time, which takes minutes for 100,000.
        with storage.index_transaction() as connection:
            for some in parts(keys, KEYS_AT_A_TIME):
                connection.execute(
                    DynamicPartitionsTable.delete().where(
                        DynamicPartitionsTable.c.partitions_def_name == FOLDER_MINUTE,
                        DynamicPartitionsTable.c.partition.in_(some),
                    )
                )
    else:
        for key in keys:
            instance.delete_dynamic_partition(FOLDER_MINUTE, key)


def _minute(key: str) -> dt.datetime | None:
    try:
        return FolderMinute.parse(key).minute
    except ValueError:
        return None


def parse_moment(text: str) -> dt.datetime:
    """Read an ISO date or moment, in UTC where it names no zone."""
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _table(choice: Choice) -> str:
    """How many partitions of each month are retired, and how many stay."""
    retired, kept = (
        collections.Counter(key.rpartition("|")[2][:7] for key in keys)
        for keys in (choice.retire, choice.keep)
    )
    lines = [f"{'month':10}{'retire':>10}{'keep':>10}"]
    lines += [f"{month:10}{retired[month]:10,}{kept[month]:10,}" for month in sorted(retired | kept)]
    return "\n".join([*lines, f"{'all':10}{len(choice.retire):10,}{len(choice.keep):10,}"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--before", type=parse_moment, required=True, help="a date or an ISO moment, UTC by default"
    )
    parser.add_argument("--yes", action="store_true", help="do it; without this, only the table is printed")
    args = parser.parse_args(arguments)
    with dg.DagsterInstance.get() as instance:
        choice = choose(instance, args.before)
        print(_table(choice))
        if choice.keep:
            print("Kept are partitions that are not in the table yet, or that a run is working on.")
        if not args.yes:
            print("Nothing has been changed; add --yes to retire these partitions. Rows and objects stay.")
            return
        retire(instance, choice.retire)
        print(f"{len(choice.retire):,} partitions retired. Rows and objects stay.")


if __name__ == "__main__":
    main()
