"""Where an object belongs: object key <-> folder and minute <-> partition key <-> Hive path.

Only names and times live here; nothing in this module touches storage or Dagster. The partition keys
are sparse: one for each folder and minute in which an object was modified (docs/partitions.md).
"""

import dataclasses
import datetime as dt
import re
import urllib.parse

ROOT_FOLDER = "."
"""The `FolderName` of objects that lie right under the source's prefix."""

MINUTE_FORMAT = "%Y-%m-%d-%H:%M"

# Dagster refuses control characters and "..." in a partition key, and its UI reads , [ ] * " \ as syntax
# when partitions are typed; | separates folder and minute; % escapes. Blanks at the ends would be trimmed.
_KEY_ESCAPES = re.compile(r'[\x00-\x1f\x7f%|,\[\]*"\\]|\.{3,}|^\s+|\s+$')

_PATH = re.compile(
    r"(?:^|/)FolderName=(?P<folder>[^/]*)"
    r"/LastModifiedDate=(?P<date>\d{4}-\d\d-\d\d)/LastModifiedHour=(?P<hour>\d{1,2})"
    r"/LastModifiedMinute=(?P<minute>\d{1,2})/(?P<file>[^/]+\.parquet)$"
)


@dataclasses.dataclass(frozen=True, order=True)
class FolderMinute:
    """One partition: the objects of `folder` that were last modified in `minute`.

    Sorts by folder, then by time: the order in which partitions are registered, so that a folder's new
    minutes are one contiguous range.

    Attributes:
        folder: the part of an object's key before its file name, `.` for none.
        minute: UTC, whole minutes.
    """

    folder: str
    minute: dt.datetime

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
        """The partition key, e.g. `p225|2023-08-24-00:21`; `parse` reads it back."""
        folder = _KEY_ESCAPES.sub(lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), self.folder)
        return f"{folder}|{self.minute.strftime(MINUTE_FORMAT)}"

    @classmethod
    def parse(cls, key: str) -> "FolderMinute":
        """Read a partition key.

        Raises:
            ValueError: `key` is not `<FolderName>|<YYYY-MM-DD-HH:MM>`.
        """
        folder, separator, minute = key.rpartition("|")
        try:
            if not separator or "|" in folder:
                raise ValueError(key)
            parsed = dt.datetime.strptime(minute, MINUTE_FORMAT).replace(tzinfo=dt.UTC)
        except ValueError:
            message = f"{key!r} is not a partition key; it should read like p225|2023-08-24-00:21 (UTC)"
            raise ValueError(message) from None
        return cls(urllib.parse.unquote(folder), parsed)

    @property
    def path(self) -> str:
        """The partition's file below its table, in Hive directories.

        Folder names are percent-encoded as Hive readers decode them. The file name never starts with `.` or
        `_`, which readers take for a hidden file.
        """
        folder = urllib.parse.quote(self.folder, safe=" ")
        # A blank at either end, and a lone dot, are what file systems and readers stumble over.
        folder = re.sub(r"^ | $", "%20", folder)
        visible = re.sub(r"^[._]", lambda m: f"%{ord(m[0]):02X}", folder)
        file = f"{visible}_{self.minute:%Y-%m-%d_%H-%M}.parquet"
        return (
            f"FolderName={folder}/LastModifiedDate={self.minute:%Y-%m-%d}"
            f"/LastModifiedHour={self.minute.hour}/LastModifiedMinute={self.minute.minute}/{file}"
        )

    @classmethod
    def from_path(cls, path: str) -> "FolderMinute | None":
        """The partition that a file belongs to, None where `path` is no partition's file."""
        found = _PATH.search(path)
        if found is None:
            return None
        day = dt.date.fromisoformat(found["date"])
        time = dt.time(int(found["hour"]), int(found["minute"]))
        folder = urllib.parse.unquote(found["folder"])
        return cls(folder, dt.datetime.combine(day, time, dt.UTC))


def folder_of(key: str) -> str:
    """The `FolderName` of an object's key, e.g. `a/b` of `a/b/c.flac`."""
    folder, separator, _ = key.rpartition("/")
    return folder if separator else ROOT_FOLDER


def folder_prefix(folder: str) -> str:
    """What the keys of a folder's objects start with: `a/b/` for `a/b`, nothing for the root."""
    return "" if folder == ROOT_FOLDER else f"{folder}/"
