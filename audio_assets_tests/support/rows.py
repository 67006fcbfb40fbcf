"""Rows of `audio_table` for tests, and how they are written."""

import datetime as dt
from typing import Any

import pyarrow as pa

from audio_assets import schema
from audio_assets.partitions import FolderMinute
from audio_assets.table import Table
from audio_assets_tests.support.audio import MINUTE


def row(key: str, **values: Any) -> dict[str, Any]:
    required = dict(Key=key, ETag="e", Size=3, LastModified=MINUTE, status="ok")
    return required | values


def rows(*made: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(made), schema=schema.AUDIO_TABLE)


def at(folder: str, minutes: int = 0) -> FolderMinute:
    return FolderMinute(folder, MINUTE + dt.timedelta(minutes=minutes))


def write(table: Table, partition: FolderMinute, *made: dict[str, Any]) -> None:
    table.replace(partition, rows(*made), table.read(partition))
