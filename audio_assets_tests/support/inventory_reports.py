"""S3 Inventory reports as AWS writes them; the test server has none of its own."""

import csv
import dataclasses
import datetime as dt
import gzip
import hashlib
import io
import json
import urllib.parse
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq

from audio_assets_tests.support.audio import UPLOADED

FORMATS = ("CSV", "Parquet", "ORC")
_EXTENSIONS = {"CSV": "csv.gz", "Parquet": "parquet", "ORC": "orc"}
_ARROW = {
    "Bucket": pa.string(),
    "Key": pa.string(),
    "VersionId": pa.string(),
    "IsLatest": pa.bool_(),
    "IsDeleteMarker": pa.bool_(),
    "Size": pa.int64(),
    "LastModifiedDate": pa.timestamp("ms", "UTC"),
    "ETag": pa.string(),
}
_SPELT = {
    "Bucket": ("required binary bucket (UTF8)", "bucket:string"),
    "Key": ("required binary key (UTF8)", "key:string"),
    "VersionId": ("optional binary version_id (UTF8)", "version_id:string"),
    "IsLatest": ("optional boolean is_latest", "is_latest:boolean"),
    "IsDeleteMarker": ("optional boolean is_delete_marker", "is_delete_marker:boolean"),
    "Size": ("optional int64 size", "size:bigint"),
    "LastModifiedDate": (
        "optional int64 last_modified_date (TIMESTAMP_MILLIS)",
        "last_modified_date:timestamp",
    ),
    "ETag": ("optional binary e_tag (UTF8)", "e_tag:string"),
}
CURRENT = ("Bucket", "Key", "Size", "LastModifiedDate", "ETag")
ALL_VERSIONS = tuple(_ARROW)


@dataclasses.dataclass(frozen=True)
class Row:
    """One object (version) of a report."""

    key: str
    modified: dt.datetime = UPLOADED
    latest: bool = True
    deleted: bool = False
    size: int = 3

    def values(self, bucket: str) -> dict[str, object]:
        return {
            "Bucket": bucket,
            "Key": self.key,
            "VersionId": "3sL4kqtJlcpXroDTDmJ",
            "IsLatest": self.latest,
            "IsDeleteMarker": self.deleted,
            "Size": None if self.deleted else self.size,
            "LastModifiedDate": self.modified,
            "ETag": None if self.deleted else "900150983cd24fb0d6963f7d28e17f72",
        }


def report(
    form: str, files: Sequence[Sequence[Row]], bucket: str, fields: Sequence[str] = CURRENT
) -> dict[str, bytes]:
    """The objects that AWS delivers: manifest.json and its data files, by key."""
    folder = f"reports/{bucket}/daily"
    bodies = {
        f"{folder}/data/939c6d46-{number}.{_EXTENSIONS[form]}": _data(form, rows, bucket, fields)
        for number, rows in enumerate(files)
    }
    parquet, orc = ([_SPELT[name][i] for name in fields] for i in (0, 1))
    schema = {
        "CSV": ", ".join(fields),
        "Parquet": "message s3.inventory {  " + "".join(f"{line};  " for line in parquet) + "}",
        "ORC": f"struct<{','.join(orc)}>",
    }
    manifest = {
        "sourceBucket": bucket,
        "destinationBucket": "arn:aws:s3:::reports",
        "version": "2016-11-30",
        "creationTimestamp": "1514944800000",
        "fileFormat": form,
        "fileSchema": schema[form],
        "files": [
            {"key": key, "size": len(body), "MD5checksum": hashlib.md5(body).hexdigest()}
            for key, body in bodies.items()
        ],
    }
    return bodies | {f"{folder}/2026-11-22T01-00Z/manifest.json": json.dumps(manifest).encode()}


def _data(form: str, rows: Sequence[Row], bucket: str, fields: Sequence[str]) -> bytes:
    values = [{name: row.values(bucket)[name] for name in fields} for row in rows]
    if form == "CSV":
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([_csv(name, value) for name, value in row.items()] for row in values)
        return gzip.compress(text.getvalue().encode())
    schema = pa.schema([(name, _ARROW[name]) for name in fields])
    table = pa.Table.from_pylist(values, schema)
    names = [_SPELT[name][1].partition(":")[0] for name in fields]
    file = io.BytesIO()
    if form == "Parquet":
        pq.write_table(table.rename_columns(names), file, row_group_size=2)
    else:
        pyarrow.orc.write_table(table.rename_columns(names), file)
    return file.getvalue()


def _csv(name: str, value: object) -> str:
    if name == "Key":
        return urllib.parse.quote_plus(str(value), safe="/")
    if isinstance(value, dt.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
