"""Where an object belongs: object key <-> folder and minute <-> partition key <-> Hive path.

Only names and times live here; nothing in this module touches storage or Dagster. The partition keys
are sparse: one for each folder and minute in which an object was modified (docs/partitions.md).
"""

import dataclasses
import datetime as dt
import functools
import hashlib
import re
import urllib.parse

ROOT_FOLDER = "."
"""The `FolderName` of objects that lie right under the source's prefix."""

SEPARATOR = "@"
"""Stands between folder and minute in a partition key. No other module knows it.

Not `|`, which Dagster's UI takes for the separator of a multi-partition: it then offers half of the key.
"""

# Letters of all alphabets stay as they are: Spark and Hive decode %XX, but one byte at a time. The rest is
# what readers, shells or file systems stumble over: all other signs, blanks at the ends, lone dots.
_PATH_ESCAPES = re.compile(r"[^\w .~-]|^ | $|^\.+$")
LONGEST_FILE_NAME = 160
# A line of the UI's list of runs holds some 40 characters, at 1600 pixels.
LONGEST_SHOWN = 34
# What file systems allow for a directory's name, and S3 for a key together with date, file name and prefix.
LONGEST_SEGMENT = 255

_DOT_FOLDER = re.compile(r"\./*")

_PATH = re.compile(
    r"(?:^|/)FolderName=(?P<folder>[^/]*)"
    r"/LastModifiedDate=(?P<date>\d{4}-\d\d-\d\d)/LastModifiedHour=(?P<hour>\d{1,2})"
    r"/LastModifiedMinute=(?P<minute>\d{1,2})/(?P<file>[^/]+\.parquet)$"
)

_DAY_PATH = re.compile(
    r"(?:^|/)LastModifiedDate=(?P<day>\d{4}-\d\d-\d\d)/audio_table_(?P=day)\.parquet$", re.ASCII
)

_SHARD_PATH = re.compile(
    r"(?:^|/)LastModifiedDate=(?P<day>\d{4}-\d\d-\d\d)/(?:train|validation|test)-\d{5}-of-\d{5}\.parquet$",
    re.ASCII,
)


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class FolderMinute:
    """One partition: the objects of `folder` that were last modified in `minute`.

    Sorts by folder, then by time: the order in which partitions are registered, so that a folder's new
    minutes are one contiguous range.

    Attributes:
        folder: the part of an object's key before its file name, `.` for none.
        minute: UTC, whole minutes.
        shortened: whether `folder` is what a path holds of a name that is too long for a directory.
    """

    folder: str
    minute: dt.datetime
    shortened: bool = False

    def __post_init__(self) -> None:
        if self.minute.utcoffset() != dt.timedelta(0) or self.minute.second or self.minute.microsecond:
            raise ValueError(f"a partition's minute is a whole minute in UTC, not {self.minute.isoformat()}")

    @classmethod
    def of(cls, key: str, last_modified: dt.datetime) -> "FolderMinute":
        """The partition of an object.

        Args:
            key: relative to the source, e.g. `p225/p225_001.flac`.
            last_modified: with a time zone.
        """
        minute = last_modified.astimezone(dt.UTC).replace(second=0, microsecond=0)
        return cls(folder_of(key), minute)

    @property
    def key(self) -> str:
        """The partition key, e.g. `p225@2023-08-24-00:21`; `parse` reads it back."""
        folder = _key_escapes(SEPARATOR).sub(_percent, self.folder)
        # Not strftime, which takes ten times as long: a tick of the sensor does this for every partition.
        return f"{folder}{SEPARATOR}{self.minute.isoformat('-', 'minutes')[:16]}"

    @classmethod
    def parse(cls, key: str) -> "FolderMinute":
        """Read a partition key.

        Raises:
            ValueError: `key` is not a folder, `SEPARATOR` and a minute as `YYYY-MM-DD-HH:MM`.
        """
        folder, separator, minute = key.rpartition(SEPARATOR)
        try:
            if not separator or SEPARATOR in folder:
                raise ValueError(key)
            parsed = dt.datetime.fromisoformat(f"{minute[:10]}T{minute[11:]}Z")
            partition = cls(urllib.parse.unquote(folder), parsed)
            if partition.key != key:
                raise ValueError(key)
        except ValueError:
            example = f"p225{SEPARATOR}2023-08-24-00:21"
            message = f"{key!r} is not a partition key; it should read like {example} (UTC)"
            raise ValueError(message) from None
        return partition

    @property
    def path(self) -> str:
        """The partition's file below its table, in Hive directories.

        Folder names are percent-encoded as Hive readers decode them; one too long for a directory is
        shortened and ends in a digest instead. The file name never starts with `.` or `_`, which readers take
        for a hidden file.
        """
        folder = _shortened_directory(self.folder) if self.shortened else _directory(self.folder)
        # Only the directory says which folder it is; the name must fit what file systems and S3 allow.
        visible = re.sub(r"^[._]", _percent, folder).encode()[:LONGEST_FILE_NAME].decode(errors="ignore")
        # Not strftime, as in `key`.
        date = self.minute.isoformat()[:10]
        time = f"{self.minute.hour:02}-{self.minute.minute:02}"
        return (
            f"FolderName={folder}/LastModifiedDate={date}/LastModifiedHour={self.minute.hour}"
            f"/LastModifiedMinute={self.minute.minute}/{visible or '-'}_{date}_{time}.parquet"
        )

    @classmethod
    def from_path(cls, path: str) -> "FolderMinute | None":
        """The partition that a file belongs to, None where `path` is no partition's file.

        Its folder is the one that the path names, which `path` may have shortened.
        """
        found = _PATH.search(path)
        if found is None:
            return None
        time = f"{found['date']}T{int(found['hour']):02}:{int(found['minute']):02}Z"
        shortened = _SHORTENED.search(found["folder"]) is not None
        try:
            partition = cls(urllib.parse.unquote(found["folder"]), dt.datetime.fromisoformat(time), shortened)
        except ValueError:
            return None
        # Whatever else somebody lays beside it would be read as the same rows again.
        return partition if f"/{path}".endswith(f"/{partition.path}") else None


def folder_of(key: str) -> str:
    """The `FolderName` of an object's key, e.g. `a/b` of `a/b/c.flac`; `folder_prefix` reads it back."""
    folder, separator, _ = key.rpartition("/")
    if not separator:
        return ROOT_FOLDER
    # S3 knows folders that are really called `.`; a slash more tells them from the root.
    return f"{folder}/" if _DOT_FOLDER.fullmatch(folder) else folder


def folder_prefix(folder: str) -> str:
    """What the keys of a folder's objects start with: `a/b/` for `a/b`, nothing for the root."""
    if folder == ROOT_FOLDER:
        return ""
    return folder if _DOT_FOLDER.fullmatch(folder) else f"{folder}/"


# A tick asks for the folder of every partition that Dagster knows.
@functools.lru_cache(maxsize=2**17)
def folder_of_partition(key: str) -> str | None:
    """The folder of a partition key, None where somebody registered by hand what is no such key."""
    partition = partition_or_none(key)
    return None if partition is None else partition.folder


def partition_or_none(key: str) -> FolderMinute | None:
    """As `FolderMinute.parse`, None where somebody registered by hand what is no partition key."""
    try:
        return FolderMinute.parse(key)
    except ValueError:
        return None


def shortened_key(key: str) -> str:
    """A partition key to look at in the UI's list of runs; what is too long loses the end of its folder."""
    folder, separator, minute = key.rpartition(SEPARATOR)
    room = LONGEST_SHOWN - len(separator + minute)
    return key if len(folder) <= room else f"{folder[: room - 1]}…{separator}{minute}"


def minute_of_partition(key: str) -> str:
    """The minute of a partition key as it reads there, e.g. `2023-08-24-00:21`; sorts by time.

    Costs a tenth of `FolderMinute.parse`, and checks nothing.
    """
    return key.rpartition(SEPARATOR)[2]


# A tick asks for the path of every partition.
@functools.lru_cache(maxsize=2**17)
def path_of_partition(key: str) -> str | None:
    """The path of a partition key's file, None where somebody registered by hand what is no such key."""
    partition = partition_or_none(key)
    return None if partition is None else partition.path


def day_of_partition(key: str) -> str:
    """The day of a minute's partition key, e.g. `2023-08-24`, which is the day's own partition key.

    Checks nothing, as `minute_of_partition`.
    """
    return minute_of_partition(key)[:10]


def day_path(day: dt.date) -> str:
    """Where a day's file lies below the daily copy of a table."""
    return f"LastModifiedDate={day.isoformat()}/audio_table_{day.isoformat()}.parquet"


def day_of(path: str) -> dt.date | None:
    """The day that a file of the daily copy belongs to, None where `path` is no such file."""
    return _day_in(_DAY_PATH.search(path))


def shard_path(day: dt.date, split: str, file: int, files: int) -> str:
    """Where one of the shards of a day lies below their folder; Hugging Face finds the split in the name.

    Args:
        file: its number, from 0 on.
        files: how many the day has of this split.
    """
    return f"LastModifiedDate={day.isoformat()}/{split}-{file:05}-of-{files:05}.parquet"


def day_of_shard(path: str) -> dt.date | None:
    """The day that a shard belongs to, None where `path` is no such file."""
    return _day_in(_SHARD_PATH.search(path))


def _day_in(found: re.Match[str] | None) -> dt.date | None:
    try:
        return dt.date.fromisoformat(found["day"]) if found else None
    except ValueError:
        return None


@functools.cache
def _key_escapes(separator: str) -> re.Pattern[str]:
    r"""What a folder's name is not allowed to have in a partition key.

    Dagster refuses control characters and "..." in a key. Its UI reads , [ ] * " \ as syntax where partitions
    are typed, takes | for the separator of a multi-partition, and trims blanks at the ends. % escapes.
    """
    return re.compile(rf'[\x00-\x1f\x7f%|{re.escape(separator)},\[\]*"\\]|\.{{3,}}|^\s+|\s+$')


# What is encoded nowhere else, so that no folder's own name can be taken for a shortened one.
_TILDE = "%7E"
_SHORTENED = re.compile(rf"{_TILDE}[0-9a-f]{{32}}$")


def _directory(folder: str) -> str:
    """The encoded folder where its directory's name fits, else its beginning and a digest of all of it."""
    encoded = _PATH_ESCAPES.sub(_percent, folder)
    kept = folder
    end = ""
    while (size := len(f"FolderName={encoded}{end}".encode())) > LONGEST_SEGMENT:
        end = f"{_TILDE}{hashlib.sha256(folder.encode()).hexdigest()[:32]}"
        # One sign takes at most 12 bytes: four, each as %XX.
        kept = kept[: -max(1, (size - LONGEST_SEGMENT) // 12)]
        encoded = _PATH_ESCAPES.sub(_percent, kept)
    return encoded + end


def _shortened_directory(shortened: str) -> str:
    """The directory that a shortened name was read from."""
    kept, _, digest = shortened.rpartition("~")
    return f"{_PATH_ESCAPES.sub(_percent, kept)}{_TILDE}{digest}"


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())
