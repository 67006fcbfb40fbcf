"""What the UI shows beside each asset: column schema, row counts, previews."""

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


def markdown_table(rows: pa.Table) -> dg.MarkdownMetadataValue:
    """The first rows, cells cut to a readable length."""
    lines = ["| " + " | ".join(rows.schema.names) + " |", "|" + "---|" * rows.num_columns]
    shown = rows.slice(0, PREVIEW_ROWS).to_pylist()
    lines += ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in shown]
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:4]))
        return f"{len(value)} tokens: {shown}, …"
    text = str(value).replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= PREVIEW_CHARACTERS else text[: PREVIEW_CHARACTERS - 1] + "…"
