"""What the UI shows beside each asset: tags, table name, column schema, row counts, previews.

The UI breaks a text at blanks and hyphens alone, and cuts a table that is wider than its place. So no word
here is long: a file's path stands apart from the table's URI, an object's name apart from its folder.
"""

import base64
from collections.abc import Mapping, Sequence

import dagster as dg
import pyarrow as pa

from audio_assets.partitions import FolderMinute
from audio_assets.schema import FAILED, NOT_FLAC, OK, FieldMetadata
from audio_assets.table import Table

TAGS = {"domain": "speech"}
"""The tags of all assets, by which the UI's asset catalog selects them among those of other projects."""

PREVIEW_ROWS = 10
PREVIEW_CHARACTERS = 80
WORD_CHARACTERS = 40


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


def status_counts(rows: Mapping[str, int]) -> dict[str, dg.MetadataValue]:
    """Rows by `status`, those first that somebody looks for."""
    return {status: dg.MetadataValue.int(rows[status]) for status in (OK, FAILED, NOT_FLAC)}


def audio_hours(seconds: float) -> dg.MetadataValue:
    """Seconds of audio, in hours; four digits show a clip of half a second."""
    return dg.MetadataValue.float(round(seconds / 3600, 4))


def partition_metadata(table: Table, partition: FolderMinute, rows: int) -> dict[str, dg.MetadataValue]:
    """What every materialisation of a partition says of its file: rows, and `dagster/uri` + / + `file`."""
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(rows),
        "file": dg.MetadataValue.path(partition.path),
        "dagster/uri": dg.MetadataValue.text(f"{table.store.uri}/{table.name}"),
    }


def failures(rows: pa.Table) -> dict[str, dg.MetadataValue]:
    """Why objects of a partition failed, from its rows of `audio_table`; nothing where none did."""
    failed = [
        {"file": _file_name(row["Key"]), "error": row["error"]}
        for row in rows.select(["Key", "status", "error"]).to_pylist()
        if row["status"] == FAILED
    ]
    return {"failures": markdown_table(failed, characters=1000)} if failed else {}


def preview(rows: pa.Table) -> dg.MarkdownMetadataValue:
    """The first rows of `audio_table`, as somebody wants to see them who looks at one partition."""
    shown = rows.slice(0, PREVIEW_ROWS).to_pylist()
    return markdown_table(
        [
            {
                "file": _file_name(row["Key"]),
                "transcribed_text": row["transcribed_text"],
                "avg_logprob": row["avg_logprob"],
                "tokens": None if row["tokenized_info"] is None else len(row["tokenized_info"]),
                "seconds": row["duration_s"],
                "status": row["status"],
            }
            for row in shown
        ]
    )


def _file_name(key: str) -> str:
    """An object's key without its folder, which its partition's key names; a long one without its middle."""
    name = key.rpartition("/")[2]
    if len(name) <= WORD_CHARACTERS:
        return name
    half = WORD_CHARACTERS // 2
    return f"{name[: half - 1]}…{name[-half:]}"


def picture(svg: str, alt: str) -> dg.MarkdownMetadataValue:
    """An SVG as the UI shows it: within the Markdown itself, so that it needs no place of its own.

    Args:
        alt: what it shows, for those who do not see it.
    """
    encoded = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![{alt}](data:image/svg+xml;base64,{encoded})")


def markdown_table(
    rows: Sequence[Mapping[str, object]], characters: int = PREVIEW_CHARACTERS
) -> dg.MarkdownMetadataValue:
    """The first rows.

    Args:
        characters: the length that a longer cell is cut to.
    """
    if not rows:
        return dg.MetadataValue.md("no rows")
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += [
        "| " + " | ".join(_cell(value, characters) for value in row.values()) + " |"
        for row in rows[:PREVIEW_ROWS]
    ]
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: object, characters: int) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    text = str(value).replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= characters else text[: characters - 1] + "…"
