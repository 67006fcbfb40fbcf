"""The partitions that all assets share: one key for each folder and minute that has audio.

How a key reads is a matter of `audio_assets/partitions.py`.
"""

from collections.abc import Sequence
from typing import TypeVar

import dagster as dg

from audio_assets import schema
from audio_assets.errors import ArgumentError
from audio_assets.partitions import FolderMinute
from audio_assets.settings import PARTITIONS_PER_RUN

FOLDER_MINUTE = "folder_minute"
ASSETS = [dg.AssetKey(name) for name in schema.TABLES]
"""The assets that have these partitions, in the order in which data flows."""
AUDIO_TABLE = ASSETS[-1]
# SQLite takes no more than 32,766 values in one statement.
KEYS_AT_A_TIME = 10_000

T = TypeVar("T")

folder_minute = dg.DynamicPartitionsDefinition(name=FOLDER_MINUTE)


def _partitions_per_run() -> int:
    """As many as the sensor asks for at a time, which says in its tick what is wrong with the setting."""
    try:
        return PARTITIONS_PER_RUN.get()
    except ArgumentError:
        # Here, while the code is loaded, an error would take every asset with it.
        return PARTITIONS_PER_RUN.check(str(PARTITIONS_PER_RUN.default))


backfill_policy = dg.BackfillPolicy.multi_run(max_partitions_per_run=_partitions_per_run())


def partitions_of(context: dg.AssetExecutionContext) -> list[FolderMinute]:
    """The partitions of this run, one or a range."""
    return [FolderMinute.parse(key) for key in context.partition_keys]


def parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in their order, at most `size` at a time."""
    return [items[first : first + size] for first in range(0, len(items), size)]
