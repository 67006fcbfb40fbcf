"""What the UI shows beside each asset: column schema, row counts, previews."""

from collections.abc import Mapping, Sequence

import dagster as dg
import pyarrow as pa

from audio_assets.table import Table

PREVIEW_ROWS = 10
PREVIEW_CHARACTERS = 80


def column_schema(schema: pa.Schema) -> dict[str, dg.TableSchema]:
    """Definition metadata with a table's columns, derived from its Arrow schema."""
    columns = [
        dg.TableColumn(
            field.name,
            str(field.type),
            description=(field.metadata or {}).get(b"description", b"").decode(),
            constraints=dg.TableColumnConstraints(nullable=field.nullable),
        )
        for field in schema
    ]
    return {"dagster/column_schema": dg.TableSchema(columns)}


def partition_metadata(table: Table, path: str, rows: int) -> dict[str, dg.MetadataValue]:
    """What every materialisation of a partition says of its file."""
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(rows),
        "dagster/uri": dg.MetadataValue.text(f"{table.store.uri}/{path}"),
    }


def add_partition_metadata(
    context: dg.AssetExecutionContext, asset: str, metadata: Mapping[str, Mapping[str, dg.MetadataValue]]
) -> None:
    """`context.add_asset_metadata` for many partitions of this run, by partition key.

    That method reads all registered partition keys from the instance at every call, only to check one. With
    tens of thousands registered, that takes longer than the work; these keys come from the run itself.
    """
    step = context.get_step_execution_context()
    accumulator = step._metadata_accumulator
    for key, values in metadata.items():
        accumulator = accumulator.with_additional_asset_metadata(dg.AssetKey(asset), key, values)
    step._metadata_accumulator = accumulator


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
