"""What the sensor keeps between two ticks: its cursor, and nothing else.

Everything in it can be lost: the next tick then begins a full scan, which costs time and nothing more.
"""

import dataclasses
import datetime as dt
import json
import zlib
from collections.abc import Mapping
from typing import Any

from audio_assets.sensor.full_scan import FullScan
from audio_assets.storage import ObjectInfo

FULL_SCAN_INTERVAL = dt.timedelta(hours=1)


@dataclasses.dataclass(frozen=True)
class ReportProgress:
    """How much of which S3 Inventory report has been read.

    Attributes:
        version: of the report's manifest; another one is another report.
        files: how many of its data files.
    """

    version: str = ""
    files: int = 0


@dataclasses.dataclass(frozen=True)
class Cursor:
    """Where the last tick left off.

    Attributes:
        full_scan: where the pass over the whole source stands.
        full_scan_began: when the last one began, in seconds since 1970; None to begin one now.
        marked: folders to be listed since an event named them, the one that has waited longest first.
        created: objects that events named in folders too large to be listed, by key.
        report: how far the S3 Inventory report has been read.
    """

    full_scan: FullScan = dataclasses.field(default_factory=FullScan)
    full_scan_began: float | None = None
    marked: tuple[str, ...] = ()
    created: Mapping[str, ObjectInfo] = dataclasses.field(default_factory=dict)
    report: ReportProgress = dataclasses.field(default_factory=ReportProgress)

    @property
    def scanning(self) -> bool:
        """Whether a full scan ran out of time and goes on in the next tick."""
        return bool(self.full_scan.left)

    def full_scan_due(self, now: dt.datetime) -> bool:
        """Whether a full scan is to begin or to go on."""
        if self.scanning or self.full_scan_began is None:
            return True
        return now.timestamp() - self.full_scan_began >= FULL_SCAN_INTERVAL.total_seconds()

    def without_events(self) -> "Cursor":
        """What is left of it where the bucket sends no events: full scans follow one another."""
        return Cursor(full_scan=self.full_scan, report=self.report)

    def to_json(self) -> str:
        """What `from_json` reads.

        What is as it is at the beginning is left out. The text is never empty: Dagster would keep the last
        cursor.
        """
        stored: dict[str, Any] = {}
        if self.scanning:
            stored["full_scan"] = self.full_scan.to_json()
        if self.full_scan_began is not None:
            stored["full_scan_began"] = self.full_scan_began
        if self.marked:
            stored["marked"] = self.marked
        if self.created:
            stored["created"] = [
                (o.key, o.etag, o.size, o.last_modified.timestamp()) for o in self.created.values()
            ]
        if self.report != ReportProgress():
            stored["report"] = dataclasses.asdict(self.report)
        return json.dumps(stored)

    @classmethod
    def from_json(cls, text: str | None) -> "Cursor":
        """Read what `to_json` gave. What says nothing sensible, be it damaged or older, begins anew."""
        try:
            return cls._from_stored(json.loads(text or "{}"))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, zlib.error):
            return cls()

    @classmethod
    def _from_stored(cls, stored: Mapping[str, Any]) -> "Cursor":
        marked = tuple(stored.get("marked", ()))
        report = ReportProgress(**stored.get("report", {}))
        if not all(isinstance(text, str) for text in (*marked, report.version)):
            raise TypeError(stored)
        return cls(
            FullScan.from_json(stored["full_scan"]) if "full_scan" in stored else FullScan(),
            float(stored["full_scan_began"]) if "full_scan_began" in stored else None,
            marked,
            {str(key): _object(str(key), *about) for key, *about in stored.get("created", ())},
            dataclasses.replace(report, files=int(report.files)),
        )


def _object(key: str, etag: str, size: int, modified: float) -> ObjectInfo:
    return ObjectInfo(key, str(etag), int(size), dt.datetime.fromtimestamp(modified, dt.UTC))
