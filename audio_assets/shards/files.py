"""The shards of one day: which files there shall be, and their replacement where they are others.

A file is named by its day, split and number, and a row's file follows from its key. So a file is made from
known rows, and one that was made from the same rows is left as it is: its footer says from which. Each file
is replaced in one step. What a day's rows are without their audio is held in memory, and of their audio one
row group and what is fetched ahead.
"""

import collections
import concurrent.futures
import dataclasses
import datetime as dt
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audio_assets.daily import Ranges
from audio_assets.errors import ObjectChangedError, ObjectRefusedError
from audio_assets.parallel import map_ahead
from audio_assets.partitions import day_of_shard, shard_path
from audio_assets.shards.columns import SCHEMA, with_audio, without_audio
from audio_assets.shards.splits import SPLITS, Splits, file_of, files_for
from audio_assets.storage import ObjectInfo, ObjectStore

FILE_BYTES = 500_000_000
"""About how much audio a file has at most."""
ROW_GROUP_BYTES = 30_000_000
"""Of audio in a row group, unless one object alone has more: what each worker of a training holds at a time,
and what is shuffled as one. Hugging Face's viewer refuses scans above 300 MB."""
ROW_GROUP_ROWS = 10_000
ROWS_AT_A_TIME = 10_000
AHEAD = 32
"""How many objects are fetched ahead at a time, at most; and `AHEAD_BYTES` of them."""
AHEAD_BYTES = 64 * 2**20

GONE = "gone or another by now"
"""Why a row has no place in a shard though it was selected: its object is not the one that the row is of."""

MADE_FROM = b"audio_assets.made_from"
"""In a file's footer: the digest of its rows, empty where some could not be fetched."""
VERSION = 1
"""Of what a shard is made of; another one makes every file anew."""

_TEXTS = [name for name in SCHEMA.names if name != "audio"]


@dataclasses.dataclass
class Exported:
    """The files of a day or of a slice, as they were left.

    Attributes:
        rows: by split.
        duration_s: of the audio, in seconds.
        refused: rows that were left out, by reason.
        written: paths of the files that were made or replaced, below where they were asked for.
        kept: of those that had the same rows already.
        deleted: of those that had nothing left.
        size: of all files, in bytes.
    """

    rows: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    duration_s: float = 0.0
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    written: list[str] = dataclasses.field(default_factory=list)
    kept: list[str] = dataclasses.field(default_factory=list)
    deleted: list[str] = dataclasses.field(default_factory=list)
    size: int = 0

    def add(self, other: "Exported") -> None:
        """Count another one's files with these."""
        self.rows += other.rows
        self.duration_s += other.duration_s
        self.refused += other.refused
        self.written += other.written
        self.kept += other.kept
        self.deleted += other.deleted
        self.size += other.size

    def _count(self, split: str, shard: "_Shard") -> None:
        self.rows[split] += shard.rows
        self.duration_s += shard.duration_s
        self.size += shard.size
        if shard.missing:
            self.refused[GONE] += shard.missing


@dataclasses.dataclass(frozen=True)
class _Shard:
    """What a file holds."""

    rows: int
    duration_s: float
    size: int
    missing: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardFiles:
    """Where shards lie, and how large they are.

    Attributes:
        store: where they lie.
        folder: of all days in the store, empty or with `/` at its end.
        source: where the audio lies.
        splits: how rows are divided.
        file_bytes: of audio in a file, about.
        row_group_bytes: of audio in a row group.
    """

    store: ObjectStore
    folder: str
    source: ObjectStore
    splits: Splits = dataclasses.field(default_factory=Splits)
    file_bytes: int = FILE_BYTES
    row_group_bytes: int = ROW_GROUP_BYTES

    def days(self) -> set[dt.date]:
        """The days that have shards.

        Raises:
            StorageError: they cannot be listed.
        """
        found = (day_of_shard(path) for path, _ in self.store.list_files(self.folder))
        return {day for day in found if day is not None}

    def make_day(self, day: dt.date, rows: pa.Table) -> Exported:
        """Make the shards of a day what its rows ask for.

        Args:
            rows: of `audio_table`, those that were selected, each key once; none for a day without shards.

        Raises:
            ConflictError: another run replaced the same file meanwhile.
            StorageError: something cannot be read or written.
        """
        made = Exported()
        before = self._files(day)
        there: set[str] = set()
        for split, file, files, part in self._parts(rows):
            path = shard_path(day, split, file, files)
            shard = self._kept(path, part) if path in before else None
            if shard is not None:
                made.kept.append(path)
            else:
                shard = self._write(path, before.get(path), part)
                if shard.rows:
                    made.written.append(path)
            if shard.rows:
                there.add(path)
            made._count(split, shard)
        # Last, so that no row is missing meanwhile.
        for path, version in before.items():
            if path not in there:
                self.store.delete(f"{self.folder}{path}", version)
                made.deleted.append(path)
        return made

    def _files(self, day: dt.date) -> dict[str, str]:
        """The shards of a day that there are: path below the folder -> version."""
        below = f"{self.folder}LastModifiedDate={day.isoformat()}/"
        files = {path.removeprefix(self.folder): v for path, v in self.store.list_files(below)}
        return {path: version for path, version in files.items() if day_of_shard(path) == day}

    def _parts(self, rows: pa.Table) -> Iterator[tuple[str, int, int, pa.Table]]:
        """Split, number, number of files, rows in their order; of each file that shall be there."""
        keys = rows["Key"].to_pylist()
        splits = [self.splits.of(*both) for both in zip(rows["FolderName"].to_pylist(), keys, strict=True)]
        of_shard = without_audio(rows, splits)
        for split in SPLITS:
            some = of_shard.filter(pa.array([one == split for one in splits], pa.bool_()))
            files = files_for(sum(some["Size"].to_pylist()), self.file_bytes)
            numbers = np.array([file_of(key, files) for key in some["id"].to_pylist()], np.int64)
            for file in np.unique(numbers).tolist():
                part = some.filter(pa.array(numbers == file))
                yield split, file, files, part.take(pa.array(self.splits.order(part["id"].to_pylist())))

    def _kept(self, path: str, rows: pa.Table) -> _Shard | None:
        """What a file holds, where that is these rows; None where it has to be made anew."""
        info = self.store.find(f"{self.folder}{path}")
        if info is None:
            return None
        try:
            footer = pq.read_metadata(pa.PythonFile(Ranges(self.store, info), "r"))
        except (ObjectChangedError, pa.ArrowException, OSError):
            return None
        if (footer.metadata or {}).get(MADE_FROM, b"").decode() != self._digest(rows):
            return None
        return _Shard(len(rows), _seconds(rows), info.size)

    def _digest(self, rows: pa.Table) -> str:
        """Of all that shapes a file; the audio by its ETag. No version of a library has a part in it."""
        shape = f"{VERSION} {self.row_group_bytes} {rows.column_names}"
        hashed = hashlib.blake2b(shape.encode(), digest_size=16)
        for some in rows.to_batches(ROWS_AT_A_TIME):
            for row in zip(*(column.to_pylist() for column in some.columns), strict=True):
                hashed.update(f"{json.dumps(row, default=str)}\n".encode())
        return hashed.hexdigest()

    def _write(self, path: str, version: str | None, rows: pa.Table) -> _Shard:
        """Fetch the audio of rows and write the file, if any of it is there."""
        missing = 0
        seconds = 0.0
        with tempfile.TemporaryDirectory(prefix="training_shards_") as folder:
            local = os.path.join(folder, "shard.parquet")
            with _writer(local) as writer:
                for some, bodies in self._row_groups(rows):
                    missing += bodies.count(None)
                    found = some.filter(pa.array([body is not None for body in bodies], pa.bool_()))
                    seconds += _seconds(found)
                    if len(found):
                        writer.write_table(
                            with_audio(found, [body for body in bodies if body is not None]),
                            row_group_size=len(found),
                        )
                said = "" if missing else self._digest(rows)
                writer.add_key_value_metadata({MADE_FROM: said.encode()})
            count = len(rows) - missing
            if not count:
                return _Shard(0, 0.0, 0, missing)
            self.store.replace_by_file(f"{self.folder}{path}", local, version)
            return _Shard(count, seconds, os.path.getsize(local), missing)

    def _row_groups(self, rows: pa.Table) -> Iterator[tuple[pa.Table, list[bytes | None]]]:
        """Rows with the bytes of their objects, as many at a time as make a row group."""
        infos = [
            ObjectInfo(one["id"], one["etag"], one["Size"], one["last_modified"])
            for one in rows.select(["id", "etag", "Size", "last_modified"]).to_pylist()
        ]
        with concurrent.futures.ThreadPoolExecutor(AHEAD) as pool:
            bodies = map_ahead(
                pool,
                self._fetch,
                infos,
                ahead=AHEAD,
                weight=lambda info: info.size,
                max_weight=AHEAD_BYTES,
            )
            for first, end in _cuts([info.size for info in infos], self.row_group_bytes):
                yield rows.slice(first, end - first), [next(bodies) for _ in range(first, end)]

    def _fetch(self, info: ObjectInfo) -> bytes | None:
        """The bytes of exactly the version that the row is of; None where there are none any more."""
        try:
            return self.source.read(info)
        except (ObjectChangedError, ObjectRefusedError):
            return None


def _cuts(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each row group."""
    first = 0
    held = 0
    for at, size in enumerate(sizes):
        if at > first and (held + size > most or at - first == ROW_GROUP_ROWS):
            yield first, at
            first = at
            held = 0
        held += size
    if first < len(sizes):
        yield first, len(sizes)


def _seconds(rows: pa.Table) -> float:
    return sum(filter(None, rows["duration"].to_pylist()))


def _writer(path: str) -> pq.ParquetWriter:
    """Audio is stored as it is: it is compressed already, and its least and greatest bytes tell nothing."""
    # pyarrow's types know of one value for all columns alone.
    by_column: dict[str, Any] = {
        "compression": dict.fromkeys([*_TEXTS, "audio.path"], "zstd"),
        "use_dictionary": ["text", "lang", "speaker", "whisper_model", "split"],
        "write_statistics": _TEXTS,
    }
    return pq.ParquetWriter(
        path,
        SCHEMA,
        **by_column,
        write_page_index=True,
        write_page_checksum=True,
        # Or a page holds a thousand clips, before its size is looked at.
        write_batch_size=16,
    )
