"""What is read from S3 Inventory reports, in each format that AWS writes."""

import datetime as dt
import functools
import json
import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_assets.inventory_report import Report, ReportError
from audio_assets.partitions import FolderMinute
from audio_assets.source import AudioSource
from audio_assets.storage import ObjectStore, StorageError
from audio_assets_tests.conftest import UPLOADED, S3Place
from audio_assets_tests.inventory_reports import ALL_VERSIONS, CURRENT, FORMATS, Row, report

LATER = UPLOADED + dt.timedelta(hours=3)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
MOMENTS = st.datetimes(dt.datetime(2006, 3, 14), dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC))


@pytest.fixture
def reports(s3_place: S3Place) -> S3Place:
    """A bucket that holds reports, beside the one with audio."""
    s3_place.backend.create_bucket(f"{s3_place.bucket}-reports", "us-east-1")
    return S3Place(f"{s3_place.bucket}-reports", prefix="")


def source(place: S3Place) -> AudioSource:
    return AudioSource(place.store, ObjectStore(f"{place.uri}/output_parquet"))


@functools.cache
def whole_bucket() -> AudioSource:
    return AudioSource(ObjectStore("s3://bucket"), ObjectStore("s3://tables"))


def deliver(place: S3Place, objects: dict[str, bytes]) -> str:
    """Lay a report down; gives the key of its manifest."""
    for key, body in objects.items():
        place.put(key, body)
    return next(key for key in objects if key.endswith("manifest.json"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_report_gives_the_partitions_of_the_source(s3_place: S3Place, reports: S3Place, form: str):
    inside = {
        "p225/a.flac": UPLOADED,
        "p225/b.flac": LATER,
        'p225/c+d %41/ü, "日本"/e.flac': UPLOADED,
        "top.flac": LATER,
        "a//b.flac": UPLOADED,
        "./c.flac": UPLOADED,
    }
    outside = [
        "wav48 silence",
        "wav48 silence 2/x.flac",
        "wav48 silence/output_parquet/t/x.parquet",
        "y.flac",
    ]
    rows = [Row(s3_place.prefix + key, modified) for key, modified in inside.items()]
    rows += [Row(key) for key in [*outside, f"{s3_place.prefix}marked folder/"]]
    manifest = deliver(reports, report(form, [rows[:3], rows[3:], []], s3_place.bucket))
    opened = Report.open(reports.store, manifest, s3_place.store)
    found = [opened.partitions(file, source(s3_place)) for file in opened.files]
    assert set().union(*found) == {FolderMinute.of(key, modified) for key, modified in inside.items()}
    assert found[0] == {FolderMinute.of(key, modified) for key, modified in list(inside.items())[:3]}


@pytest.mark.parametrize("form", FORMATS)
def test_old_versions_and_deleted_objects_do_not_count(s3_place: S3Place, reports: S3Place, form: str):
    rows = [
        Row("wav48 silence/kept/a.flac", LATER),
        Row("wav48 silence/kept/a.flac", UPLOADED, latest=False),
        Row("wav48 silence/gone/a.flac", LATER, deleted=True),
        Row("wav48 silence/gone/a.flac", UPLOADED, latest=False),
        Row("wav48 silence/back/a.flac", LATER),
        Row("wav48 silence/back/a.flac", UPLOADED, latest=False, deleted=True),
    ]
    manifest = deliver(reports, report(form, [rows], s3_place.bucket, ALL_VERSIONS))
    opened = Report.open(reports.store, manifest, s3_place.store)
    assert {p.key for p in opened.partitions(opened.files[0], source(s3_place))} == {
        "kept|2023-08-24-03:21",
        "back|2023-08-24-03:21",
    }


@settings(max_examples=40, deadline=None)
@given(form=st.sampled_from(FORMATS), objects=st.dictionaries(KEYS, MOMENTS, max_size=8))
def test_every_key_comes_back_from_every_format(form: str, objects: dict[str, dt.datetime]):
    rows = [Row(key, modified) for key, modified in objects.items()]
    with tempfile.TemporaryDirectory() as folder:
        for key, body in report(form, [rows], "bucket").items():
            path = pathlib.Path(folder, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        store = ObjectStore(pathlib.Path(folder).as_uri())
        everything = whole_bucket()
        manifest = next(key for key in store.list("") if key.endswith("manifest.json"))
        opened = Report.open(store, manifest, everything.store)
        [file] = opened.files
        assert opened.partitions(file, everything) == {
            FolderMinute.of(key, modified) for key, modified in objects.items() if not key.endswith("/")
        }


def test_another_report_has_another_version(s3_place: S3Place, reports: S3Place):
    manifest = deliver(reports, report("CSV", [[Row("wav48 silence/a/b")]], s3_place.bucket))
    first = Report.open(reports.store, manifest, s3_place.store)
    assert first == Report.open(reports.store, manifest, s3_place.store)
    deliver(reports, report("CSV", [[Row("wav48 silence/a/c")]], s3_place.bucket))
    assert Report.open(reports.store, manifest, s3_place.store).version != first.version


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_file_is_refused(s3_place: S3Place, reports: S3Place, form: str):
    objects = report(form, [[Row("wav48 silence/a/b.flac")]], s3_place.bucket)
    manifest = deliver(reports, objects)
    opened = Report.open(reports.store, manifest, s3_place.store)
    [file] = opened.files
    reports.put(file.key, objects[file.key][:-1] + b"?")
    with pytest.raises(ReportError, match=rf"{file.key} has MD5 \w+, the manifest says {file.md5}"):
        opened.partitions(file, source(s3_place))
    reports.delete(file.key)
    with pytest.raises(StorageError, match=file.key):
        opened.partitions(file, source(s3_place))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ([name for name in CURRENT if name != "LastModifiedDate"], "LastModifiedDate"),
        ([name for name in ALL_VERSIONS if name != "IsDeleteMarker"], "IsDeleteMarker"),
    ],
)
def test_a_report_without_a_field_says_what_to_configure(
    s3_place: S3Place, reports: S3Place, form: str, fields: list[str], missing: str
):
    manifest = deliver(reports, report(form, [[]], s3_place.bucket, fields))
    with pytest.raises(
        ReportError, match=rf"{manifest} has no {missing}; add that to the bucket's inventory"
    ):
        Report.open(reports.store, manifest, s3_place.store)


def test_a_report_of_another_bucket_is_refused(s3_place: S3Place, reports: S3Place):
    manifest = deliver(reports, report("CSV", [[]], "elsewhere"))
    with pytest.raises(ReportError, match=f"of the bucket 'elsewhere', but the audio lies in {s3_place.uri}"):
        Report.open(reports.store, manifest, s3_place.store)


@pytest.mark.parametrize("body", [b"", b"[]", json.dumps({"fileFormat": "CSV"}).encode(), b"\xff"])
def test_what_is_no_manifest_is_refused(s3_place: S3Place, reports: S3Place, body: bytes):
    reports.put("manifest.json", body)
    with pytest.raises(ReportError, match=r"manifest\.json is no manifest\.json of an S3 Inventory report"):
        Report.open(reports.store, "manifest.json", s3_place.store)
    with pytest.raises(ReportError, match=r"other\.json does not exist"):
        Report.open(reports.store, "other.json", s3_place.store)
