"""The partitions that all assets share: one key for each folder and minute that has audio."""

from collections.abc import Sequence
from typing import TypeVar

import dagster as dg

from audio_assets.partitions import FolderMinute

FOLDER_MINUTE = "folder_minute"
# SQLite takes no more than 32,766 values in one statement.
KEYS_AT_A_TIME = 10_000

T = TypeVar("T")

folder_minute = dg.DynamicPartitionsDefinition(name=FOLDER_MINUTE)

# A run covers a range, so that the model is loaded once; its size bounds what a failure can cost.
backfill_policy = dg.BackfillPolicy.multi_run(max_partitions_per_run=100)


def partitions_of(context: dg.AssetExecutionContext) -> list[FolderMinute]:
    """The partitions of this run, one or a range."""
    return [FolderMinute.parse(key) for key in context.partition_keys]


def parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """The items in their order, at most `size` at a time."""
    return [items[first : first + size] for first in range(0, len(items), size)]
