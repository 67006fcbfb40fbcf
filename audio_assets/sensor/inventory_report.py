# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of its compute module at import)
"""S3 Inventory reports: which partitions a bucket has, without listing it.

AWS writes a report daily or weekly: a manifest.json that names data files as gzipped CSV, Parquet or ORC, a
row for each object (version). What is read here is which folders and minutes have objects; the objects
themselves are looked at when their partition is processed. How much of a report was read is kept in the
cursor (`state.py`).

https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html
"""

import dataclasses
import datetime as dt
import gzip
import hashlib
import json
import re
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.orc
import pyarrow.parquet as pq

from audio_assets.errors import ReportError
from audio_assets.partitions import FolderMinute
from audio_assets.sensor.state import ReportProgress
from audio_assets.source import AudioSource
from audio_assets.storage import ObjectStore

BLOCK_BYTES = 8 * 2**20
ROWS_AT_A_TIME = 65_536
# As a CSV's columns are named; Parquet and ORC write last_modified_date.
KEY = "Key"
MODIFIED = "LastModifiedDate"
LATEST = "IsLatest"
DELETED = "IsDeleteMarker"
SIZE = "Size"
_TYPES = {
    KEY: pa.string(),
    MODIFIED: pa.timestamp("ms", "UTC"),
    LATEST: pa.bool_(),
    DELETED: pa.bool_(),
    SIZE: pa.int64(),
}
# `Bucket, Key, …`, `message s3.inventory { required binary key (UTF8); … }` and `struct<key:string,…>`.
_COLUMNS = {"CSV": r"(\w+)", "Parquet": r"(?:required|optional)\s+\w+\s+(\w+)", "ORC": r"(\w+):"}


@dataclasses.dataclass(frozen=True)
class ReportFile:
    """A data file of a report, as the manifest names it."""

    key: str
    md5: str


@dataclasses.dataclass(frozen=True)
class Report:
    """A report that was opened.

    Attributes:
        store: the bucket that holds it.
        version: of its manifest; another one is another report.
        format: `CSV`, `Parquet` or `ORC`.
        columns: their names, as this format spells them.
        files: in the manifest's order.
    """

    store: ObjectStore
    version: str
    format: str
    columns: list[str]
    files: list[ReportFile]

    @classmethod
    def open(cls, store: ObjectStore, key: str, source: ObjectStore) -> "Report":
        """Read a manifest.

        Args:
            store: the bucket that reports are delivered to.
            key: of manifest.json in it.
            source: where the audio lies; the report must be of its bucket.

        Raises:
            ReportError: there is no manifest, or it is of no use here; says what to configure in S3.
            StorageError: it cannot be read.
        """
        where = f"{store.uri}/{key}"
        found = store.read_latest(key)
        if found is None:
            raise ReportError(f"{where} does not exist")
        body, version = found
        try:
            manifest = json.loads(body)
            bucket = manifest["sourceBucket"]
            form = manifest["fileFormat"]
            columns = re.findall(_COLUMNS[form], manifest["fileSchema"])
            files = [ReportFile(file["key"], file["MD5checksum"]) for file in manifest["files"]]
        except (ValueError, KeyError, TypeError) as e:
            raise ReportError(f"{where} is no manifest.json of an S3 Inventory report: {e!r}") from e
        if not f"{source.uri}/".startswith(f"s3://{bucket}/"):
            raise ReportError(
                f"{where} is a report of the bucket {bucket!r}, but the audio lies in {source.uri}"
            )
        report = cls(store, version, form, columns, files)
        missing = [name for name in (KEY, MODIFIED) if name not in report._spelt]
        # Without the flags, old versions and delete markers would count as objects.
        if "versionid" in map(_plain, columns):
            missing += [name for name in (LATEST, DELETED) if name not in report._spelt]
        if missing:
            raise ReportError(
                f"{where} has no {' and no '.join(missing)}; add that to the bucket's inventory "
                "configuration (LastModifiedDate is its field 'Last modified') and name the next report"
            )
        return report

    def advance(
        self, source: AudioSource, done: ReportProgress, stop: Callable[[], bool]
    ) -> tuple[set[FolderMinute], ReportProgress]:
        """Read on, file by file; another report than that of `done` is read from its start.

        Args:
            stop: whether to leave the rest to a later call.

        Raises:
            ReportError: a file is not the one that the manifest means.
            StorageError: it cannot be read.
        """
        found: set[FolderMinute] = set()
        files = done.files if done.version == self.version else 0
        for file in self.files[files:]:
            found |= self.partitions(file, source)
            files += 1
            if stop():
                break
        return found, ReportProgress(self.version, files)

    def partitions(self, file: ReportFile, source: AudioSource) -> set[FolderMinute]:
        """The folders and minutes of the objects in one file, streamed: memory grows with them alone.

        Raises:
            ReportError: the file is not the one that the manifest means.
            StorageError: it cannot be read.
        """
        found: set[tuple[str, int]] = set()
        root = _root(source)
        # On disk: nothing is believed before the checksum is, and Parquet is read from its end.
        with tempfile.TemporaryFile() as copy:
            digest = hashlib.md5(usedforsecurity=False)
            for chunk in self.store.stream(file.key):
                digest.update(chunk)
                copy.write(chunk)
            if digest.hexdigest() != file.md5:
                raise ReportError(
                    f"{self.store.uri}/{file.key} has MD5 {digest.hexdigest()}, the manifest says {file.md5}"
                )
            copy.seek(0)
            try:
                for rows in self._batches(copy):
                    found.update(self._pairs(rows, root))
            except (pa.ArrowException, OSError, EOFError) as e:
                raise ReportError(f"{self.store.uri}/{file.key} is no {self.format} of a report: {e}") from e
        return set(_partitions(found, source, root))

    @property
    def _spelt(self) -> dict[str, str]:
        """How this report spells the columns that are read."""
        spelt = {_plain(name): name for name in self.columns}
        return {name: spelt[_plain(name)] for name in _TYPES if _plain(name) in spelt}

    def _batches(self, file: IO[bytes]) -> Iterator[pa.Table]:
        """The file's rows with the columns that are read, named and typed as in `_TYPES`."""
        spelt = self._spelt
        if self.format == "CSV":
            text = gzip.GzipFile(fileobj=file)
            if not text.peek(1):
                return
            batches = pyarrow.csv.open_csv(
                text,
                pyarrow.csv.ReadOptions(column_names=self.columns, block_size=BLOCK_BYTES),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=list(spelt.values()), column_types={spelt[n]: _TYPES[n] for n in spelt}
                ),
            )
        elif self.format == "Parquet":
            batches = pq.ParquetFile(file).iter_batches(ROWS_AT_A_TIME, columns=list(spelt.values()))
        else:
            orc = pyarrow.orc.ORCFile(file)
            batches = (orc.read_stripe(i, columns=list(spelt.values())) for i in range(orc.nstripes))
        for batch in batches:
            yield pa.table({name: pc.cast(batch[spelt[name]], _TYPES[name]) for name in spelt})

    def _pairs(self, rows: pa.Table, root: str) -> set[tuple[str, int]]:
        """What the rows' keys start with, up to their last slash, and their minutes since 1970.

        Args:
            root: the key of the source itself, with a slash at its end.
        """
        for name, wanted in ((LATEST, True), (DELETED, False)):
            if name in rows.column_names:
                rows = rows.filter(pc.equal(rows[name], wanted))
        if rows[KEY].null_count or rows[MODIFIED].null_count:
            raise pa.ArrowInvalid("a row without key or without time of last modification")
        keys = rows[KEY]
        if self.format == "CSV":
            # Decoded is only what is left of the keys, folder by folder; its slashes may be encoded as well.
            keys = pc.replace_substring(pc.replace_substring(keys, "%2F", "/"), "%2f", "/")
        minutes = pc.cast(pc.floor_temporal(rows[MODIFIED], unit="minute"), pa.int64())
        like_folders = pc.ends_with(keys, "/")
        files = pc.invert(like_folders)
        found = self._folders(keys.filter(files), minutes.filter(files))
        if SIZE in rows.column_names:
            # The console of S3 marks a folder by an empty object of its own name, which is no audio. A report
            # without sizes leaves it to the run to find out.
            like_folders = pc.and_kleene(like_folders, pc.fill_null(pc.not_equal(rows[SIZE], 0), True))
        columns = (column.filter(like_folders).to_pylist() for column in (keys, minutes))
        objects = {(self._read(key), minute // 60_000) for key, minute in zip(*columns, strict=True)}
        return found | {(key, minute) for key, minute in objects if key != root}

    def _folders(self, keys: pa.ChunkedArray, minutes: pa.ChunkedArray) -> set[tuple[str, int]]:
        """The same of keys that end in no slash, of which few folders are told apart before they are read."""
        split = pc.split_pattern(keys, "/", max_splits=1, reverse=True)
        folders = pc.if_else(pc.equal(pc.list_value_length(split), 2), pc.list_element(split, 0), None)
        distinct = (
            pa.table({"folder": folders, "minute": minutes}).group_by(["folder", "minute"]).aggregate([])
        )
        columns = (distinct[name].to_pylist() for name in ("folder", "minute"))
        return {
            ("" if folder is None else self._read(folder) + "/", minute // 60_000)
            for folder, minute in zip(*columns, strict=True)
        }

    def _read(self, key: str) -> str:
        """A key, or its beginning, as S3 has it."""
        return urllib.parse.unquote_plus(key) if self.format == "CSV" else key


def _plain(column: str) -> str:
    return column.replace("_", "").lower()


def _root(source: AudioSource) -> str:
    """What all keys of the source start with in its bucket."""
    return f"{source.store.uri}/".split("/", 3)[3]


def _partitions(pairs: set[tuple[str, int]], source: AudioSource, root: str) -> Iterator[FolderMinute]:
    """The partitions that lie in the source, and not in the tables inside it."""
    tables = source.store.relative(source.tables)
    for start, minute in pairs:
        relative = start.removeprefix(root)
        if start.startswith(root) and (tables is None or not relative.startswith(tables)):
            # Any file name in the folder will do.
            yield FolderMinute.of(f"{relative}-", dt.datetime.fromtimestamp(60 * minute, dt.UTC))
