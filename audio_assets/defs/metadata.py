"""What the UI shows beside each asset: tags, table name, column schema, row counts, previews."""

from collections.abc import Mapping, Sequence

import dagster as dg
import pyarrow as pa

from audio_assets.schema import FieldMetadata
from audio_assets.table import Table

TAGS = {"domain": "speech"}
"""The tags of all assets, by which the UI's asset catalog selects them among those of other projects."""

PREVIEW_ROWS = 10
PREVIEW_CHARACTERS = 80


def table_metadata(name: str, columns: pa.Schema) -> dict[str, dg.TableSchema | str]:
    """Definition metadata of an asset that is a table, under the keys that Dagster gives them.

    Args:
        name: of the table, which is its asset's.
        columns: as readers see them.
    """
    return {
        "dagster/table_name": name,
        "dagster/storage_kind": "parquet",
        "dagster/column_schema": dg.TableSchema([_column(field) for field in columns]),
    }


def _column(field: pa.Field) -> dg.TableColumn:
    metadata = FieldMetadata.of(field)
    other = [f"unit: {metadata.unit}"] if metadata.unit else []
    if metadata.allowed:
        other.append(f"allowed: {metadata.allowed}")
    return dg.TableColumn(
        field.name,
        str(field.type),
        description=metadata.description,
        constraints=dg.TableColumnConstraints(nullable=field.nullable, other=other),
    )


def partition_metadata(table: Table, path: str, rows: int) -> dict[str, dg.MetadataValue]:
    """What every materialisation of a partition says of its file."""
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(rows),
        "dagster/uri": dg.MetadataValue.text(f"{table.store.uri}/{path}"),
    }


def preview(rows: pa.Table) -> dg.MarkdownMetadataValue:
    """The first rows of `audio_table`, as somebody wants to see them who looks at one partition."""
    shown = rows.slice(0, PREVIEW_ROWS).to_pylist()
    return markdown_table(
        [
            {
                "Key": row["Key"],
                "transcribed_text": row["transcribed_text"],
                "avg_logprob": row["avg_logprob"],
                "tokens": None if row["tokenized_info"] is None else len(row["tokenized_info"]),
                "seconds": row["duration_s"],
                "status": ": ".join(filter(None, (row["status"], row["error"]))),
            }
            for row in shown
        ]
    )


def markdown_table(rows: Sequence[Mapping[str, object]]) -> dg.MarkdownMetadataValue:
    """The first rows, with cells cut to a readable length."""
    if not rows:
        return dg.MetadataValue.md("no rows")
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(map(_cell, row.values())) + " |" for row in rows[:PREVIEW_ROWS]]
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    text = str(value).replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= PREVIEW_CHARACTERS else text[: PREVIEW_CHARACTERS - 1] + "…"
