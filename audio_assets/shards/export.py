"""A slice of the table, day by day: as shards, or as a manifest of each split.

What reads the table here holds a day's selected rows without their audio, or, for a manifest, a batch.
"""

import collections
import contextlib
import datetime as dt
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from audio_assets.read import moment, read_batches
from audio_assets.shards.columns import TAKEN
from audio_assets.shards.files import Exported, ShardFiles
from audio_assets.shards.manifests import MANIFESTS
from audio_assets.shards.selection import COLUMNS, Selection
from audio_assets.shards.splits import SPLITS, Splits
from audio_assets.storage import ObjectStore
from audio_assets.table import Table

Told = Callable[[int], object]


def export_shards(
    table: Table,
    files: ShardFiles,
    selection: Selection,
    folder: str | Iterable[str] | None = None,
    start: object = None,
    end: object = None,
    *,
    looked: Told = lambda rows: None,
) -> Exported:
    """Make the shards of a slice what the table says now, those of days without rows included.

    Args:
        folder, start, end: as of `read_table`; a day of which only a part is asked for has that part alone.
        looked: told how many rows of the table were read by now.

    Raises:
        ValueError: a moment is none.
        ConflictError: another run replaced the same file meanwhile.
        StorageError: something cannot be read or written.
    """
    exported = Exported()
    stale = {day for day in files.days() if _is_in(day, start, end)}
    for day, rows in _days(table, selection, folder, start, end, exported.refused, looked):
        exported.add(files.make_day(day, rows))
        stale.discard(day)
    nothing = pa.schema([COLUMNS.field(name) for name in _NAMES]).empty_table()
    for day in sorted(stale):
        exported.add(files.make_day(day, nothing))
    return exported


def export_manifests(
    table: Table,
    store: ObjectStore,
    source_uri: str,
    kind: str,
    selection: Selection,
    splits: Splits | None = None,
    folder: str | Iterable[str] | None = None,
    start: object = None,
    end: object = None,
    *,
    looked: Told = lambda rows: None,
) -> Exported:
    """Write one manifest for each split that has rows, in place of those that are there.

    Args:
        store: where they go, right at its root.
        source_uri: where the audio lies, which the manifests name.
        kind: one of `MANIFESTS`.
        splits: how rows are divided; None for the default.
        folder, start, end, looked: as of `export_shards`.

    Raises:
        ValueError: a moment is none.
        ConflictError: another run replaced the same file meanwhile.
        StorageError: something cannot be read or written.
    """
    manifest = MANIFESTS[kind]
    divided = splits or Splits()
    exported = Exported()
    before = dict(store.list_files(""))
    with contextlib.ExitStack() as opened:
        place = opened.enter_context(tempfile.TemporaryDirectory(prefix="manifests_"))
        texts: dict[str, IO[str]] = {}
        for rows in _selected(table, selection, folder, start, end, exported.refused, looked):
            for row in rows.to_pylist():
                split = divided.of(row["FolderName"], row["Key"])
                if split not in texts:
                    texts[split] = opened.enter_context(manifest.open(os.path.join(place, split)))
                line = manifest.line(row, source_uri, split)
                texts[split].write(json.dumps(line, ensure_ascii=False) + "\n")
                exported.rows[split] += 1
                exported.duration_s += row["duration_s"]
        for text in texts.values():
            text.close()
        for split in SPLITS:
            name = f"{split}{manifest.suffix}"
            if split in texts:
                store.replace_by_file(name, os.path.join(place, split), before.get(name))
                exported.written.append(name)
                exported.size += os.path.getsize(os.path.join(place, split))
            elif name in before:
                store.delete(name, before[name])
                exported.deleted.append(name)
    return exported


# --- rows -----------------------------------------------------------------------------------------------

_NAMES = list(dict.fromkeys([*TAKEN.values(), "Size", "LastModifiedDate"]))


def _selected(
    table: Table,
    selection: Selection,
    folder: str | Iterable[str] | None,
    start: object,
    end: object,
    refused: "collections.Counter[str]",
    looked: Told,
) -> Iterator[pa.Table]:
    """The rows that are taken, batch by batch, day after day."""
    seen = 0
    columns = list(dict.fromkeys([*_NAMES, *selection.columns]))
    for batch in read_batches(table, folder, start, end, columns):
        taken, out = selection.split(pa.Table.from_batches([batch]))
        refused.update(out)
        seen += batch.num_rows
        looked(seen)
        yield taken.select(_NAMES)


def _days(*arguments: Any) -> Iterator[tuple[dt.date, pa.Table]]:
    """The same, a day's at a time."""
    held: list[pa.Table] = []
    day: dt.date | None = None
    for rows in _selected(*arguments):
        for one in rows["LastModifiedDate"].unique().to_pylist():
            if day is not None and one != day:
                yield day, pa.concat_tables(held)
                held = []
            day = one
            of_day = pc.call_function("equal", [rows["LastModifiedDate"], pa.scalar(one)])
            held.append(rows.filter(of_day))
    if day is not None:
        yield day, pa.concat_tables(held)


def _is_in(day: dt.date, start: object, end: object) -> bool:
    """Whether a slice has minutes of a day."""
    since = moment("start", start)
    until = moment("end", end)
    begins = dt.datetime.combine(day, dt.time(), dt.UTC)
    return (until is None or begins < until) and (since is None or begins + dt.timedelta(days=1) > since)
