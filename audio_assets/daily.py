"""The daily copy of a table: one large Parquet file for each day, of all folders' minutes of that day.

A day's file says in its footer, by folder, from which versions of which minute files it was made. So whoever
lists the minute files can tell whether the day holds the same rows, without reading one of them. How a day is
made is the business of `daily_compaction`, how it is read that of `read`, and when it is made that of
`sensor/days.py`.
"""

import dataclasses
import datetime as dt
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from audio_assets import schema
from audio_assets.digest import EMPTY, Digest
from audio_assets.errors import ObjectChangedError, StorageError
from audio_assets.partitions import FolderMinute, day_of, day_path
from audio_assets.storage import ObjectInfo, ObjectStore
from audio_assets.storage.types import LAST

# It imports pandas, which a code location does without.
if TYPE_CHECKING:
    import pyarrow.dataset as ds

MADE_FROM = b"audio_assets.made_from"
"""In a day's footer: by folder, `str` of the digest of its minute files."""


def file_digest(path: str, version: str) -> Digest:
    """What a day's digest says of one minute file.

    Args:
        path: below the table, as `FolderMinute.path` gives it.
        version: of the file.
    """
    hashed = hashlib.blake2b(f"{path}\0{version}".encode(), digest_size=8)
    return Digest(1, int.from_bytes(hashed.digest(), "big"))


def total(digests: Iterable[Digest]) -> Digest:
    """The digest of all folders together."""
    return sum(digests, EMPTY)


@dataclasses.dataclass(frozen=True)
class DayRecord:
    """What is recorded of a day, as the run that compacted it left it.

    It holds for one version of one file, as a `record.PartitionRecord` does.

    Attributes:
        digest: `str` of the digest of the minute files that the day was made from.
        version: of the day's file; empty where it has no rows and therefore no file.
        made_at: when it was compacted, in seconds since 1970.
        run: the id of the run that did so.
    """

    digest: str
    version: str
    made_at: float
    run: str = ""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "DayRecord":
        """Read what `to_json` gave.

        Raises:
            ValueError, TypeError: it is something else.
        """
        return cls(**json.loads(text))


@dataclasses.dataclass(frozen=True)
class DailyTable:
    """The daily copy of a table, beside it.

    Attributes:
        store: where all tables lie.
        name: the folder of the copy, which is its asset's name.
        schema: of the files: all columns that readers see, but for the day, which the path carries.
    """

    store: ObjectStore
    name: str
    schema: pa.Schema

    @property
    def uri(self) -> str:
        return f"{self.store.uri}/{self.name}"

    def path(self, day: dt.date) -> str:
        """The key of a day's file in the store."""
        return f"{self.name}/{day_path(day)}"

    def files(self) -> dict[str, ObjectInfo]:
        """All files below the copy by their path there, those of others included, from one listing.

        Raises:
            StorageError: the store cannot be listed.
        """
        below = f"{self.name}/"
        if next(self.store.list_files(below), None) is None:
            return {}
        pages = self.store.scan(below, below + LAST)
        return {o.key.removeprefix(below): o for _, page in pages for o in page}

    def version(self, day: dt.date) -> str | None:
        """The version of a day's file, None where there is none.

        Raises:
            StorageError: the store cannot be listed.
        """
        path = self.path(day)
        return dict(self.store.list_files(path[: path.rindex("/") + 1])).get(path)

    def days(self) -> dict[dt.date, ObjectInfo]:
        """The days that have a file."""
        days = ((day_of(path), info) for path, info in self.files().items())
        return {day: info for day, info in days if day is not None}

    def open(self, day: dt.date, info: ObjectInfo) -> "DayFile":
        """Open a day's file in the version that was listed, and read its footer.

        Raises:
            ObjectChangedError: it was replaced or deleted since.
            StorageError: it cannot be read, or is no Parquet file.
        """
        file = Ranges(self.store, info)
        constant = pc.field(schema.DAY_COLUMN) == pa.scalar(day)
        try:
            fragment = _format().make_fragment(pa.PythonFile(file, "r"), partition_expression=constant)
            footer = fragment.metadata
        except (pa.ArrowException, OSError) as e:
            if isinstance(e.__cause__ or e, ObjectChangedError | StorageError):
                raise
            raise StorageError(
                f"{self.store.uri}/{info.key} is no Parquet file: {e}; delete it, and it is made again"
            ) from e
        return DayFile(day, info, fragment, _made_from(footer.metadata or {}), footer.num_rows)


@dataclasses.dataclass(frozen=True)
class DayFile:
    """A day's file that is open.

    Attributes:
        day: whose rows it has.
        info: what the listing said of it.
        fragment: its rows, which are read from the store as they are asked for.
        made_from: by folder, the digest of the minute files that it was made from.
        rows: how many it has.
    """

    day: dt.date
    info: ObjectInfo
    fragment: "ds.ParquetFileFragment"
    made_from: Mapping[str, Digest]
    rows: int


def _made_from(metadata: Mapping[bytes, bytes]) -> dict[str, Digest]:
    """None of any folder where the file was made by something else: it is then fresh for none."""
    try:
        said = json.loads(metadata.get(MADE_FROM, b"{}"))
        return {folder: Digest.parse(digest) for folder, digest in said.items()}
    except (ValueError, AttributeError):
        return {}


def folder_digests(files: Mapping[FolderMinute, str]) -> dict[str, Digest]:
    """By folder, the digest of minute files.

    Args:
        files: by partition, the version of its file.
    """
    digests: dict[str, Digest] = {}
    for partition, version in files.items():
        known = digests.get(partition.folder, EMPTY)
        digests[partition.folder] = known + file_digest(partition.path, version)
    return digests


def _format() -> "ds.ParquetFileFormat":
    import pyarrow.dataset as ds

    options = ds.ParquetFragmentScanOptions(pre_buffer=True, page_checksum_verification=True)
    return ds.ParquetFileFormat(default_fragment_scan_options=options)


class Ranges(io.RawIOBase):
    """An object of a store as a file of Python's, of which only what is asked for is read."""

    def __init__(self, store: ObjectStore, info: ObjectInfo) -> None:
        super().__init__()
        self._store = store
        self._info = info
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._info.size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._info.size if size < 0 else min(self._at + size, self._info.size)
        if end <= self._at:
            return b""
        body = self._store.read_range(self._info, self._at, end)
        self._at = end
        return body
