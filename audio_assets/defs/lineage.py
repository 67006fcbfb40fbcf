"""Which columns of a table are made from which columns of the tables before it, for the UI's column lineage.

Dagster shows the lineage of the latest materialisation alone, and each partition's event would hold it. So a
run of `audio_table` tells it with one of its partitions. The order of a range's events is not
fixed, so the lineage shows for sure after a run of one partition only.
"""

from collections.abc import Mapping

import dagster as dg

from audio_assets import schema
from audio_assets.shards.columns import AUDIO, TAKEN

_MADE_BY = {
    "s3_inventory": schema.INVENTORY.names,
    "transcripts": schema.TRANSCRIPTS.names,
    "tokens": schema.TOKENS.names,
}
_BOTH = ("status", "error")
"""Columns that `audio_table` makes from those of `transcripts` and `tokens`."""


def of_audio_table() -> dict[str, dg.TableColumnLineageMetadataValue]:
    """Each column and the table that it is taken from."""
    deps: dict[str, list[dg.TableColumnDep]] = {}
    for column in schema.AUDIO_TABLE.names:
        having = [table for table, names in _MADE_BY.items() if column in names]
        taken = having if column in _BOTH else having[:1]
        deps[column] = [_of(table, column) for table in taken]
    return _lineage(deps)


def of_daily() -> dict[str, dg.TableColumnLineageMetadataValue]:
    names = schema.with_partition_columns(schema.AUDIO_TABLE).names
    return _lineage({name: [_of("audio_table", name)] for name in names})


def of_shards() -> dict[str, dg.TableColumnLineageMetadataValue]:
    deps = {name: [_of(schema.AUDIO_TABLE_DAILY, source)] for name, source in TAKEN.items()}
    return _lineage({AUDIO.name: [_of(schema.AUDIO_TABLE_DAILY, "Key")], **deps})


def _of(table: str, column: str) -> dg.TableColumnDep:
    return dg.TableColumnDep(asset_key=dg.AssetKey(table), column_name=column)


def _lineage(
    deps: Mapping[str, list[dg.TableColumnDep]],
) -> dict[str, dg.TableColumnLineageMetadataValue]:
    lineage = dg.TableColumnLineage(deps_by_column=dict(deps))
    return {"dagster/column_lineage": dg.MetadataValue.column_lineage(lineage)}
