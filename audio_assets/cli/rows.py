"""Rows printed: as a table in which every text can be read, as CSV, as JSON."""

import csv
import datetime as dt
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

SHOWN = ("Key", "transcribed_text", "avg_logprob", "duration_s", "status", "error")
"""The columns that a terminal is wide enough for; `--columns` names others."""


def print_table(console: Console, rows: pa.Table, *, more: bool = False) -> None:
    """Print rows with long texts wrapped, nothing left out, and how many they are.

    Args:
        more: whether there are others that are not among them.
    """
    shown = Table(box=box.SIMPLE_HEAD)
    for field in rows.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        shown.add_column(field.name, overflow="fold", justify="right" if number else "left")
    for row in rows.to_pylist():
        shown.add_row(*(_cell(value) for value in row.values()))
    console.print(shown)
    said = "; there are more, --limit 0 shows all" if more else ""
    console.print(f"{len(rows):,} rows{said}", highlight=False)


def small_table(
    console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Print a table with a title, and nothing where it has no rows."""
    shown = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_header=any(columns),
    )
    for name in columns:
        shown.add_column(name, overflow="fold")
    for row in rows:
        shown.add_row(*map(_cell, row))
    if shown.row_count:
        console.print(shown)


def print_csv(rows: pa.Table) -> None:
    """Print a line of names and one for each row; null is empty, lists are JSON."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows.column_names)
    for row in rows.to_pylist():
        writer.writerow("" if value is None else _text(value) for value in row.values())


def print_json(rows: pa.Table) -> None:
    """Print one object a line, with moments in ISO 8601."""
    for row in rows.to_pylist():
        print(json.dumps(row, ensure_ascii=False, default=_iso))


def _cell(value: Any) -> Text:
    """A value for a terminal, which must not take what somebody has named an object for a command."""
    if value is None:
        return Text()
    said = f"{value:.2f}" if isinstance(value, float) else _text(value)
    return Text(re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", said))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return _iso(value) if isinstance(value, dt.date) else str(value)


def _iso(value: dt.date) -> str:
    return value.isoformat()
