"""What is read from S3 Inventory reports, in each format that AWS writes."""

import datetime as dt
import functools
import json
import pathlib
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.s3.responses import S3Response

from audio_assets.defs import sensor
from audio_assets.errors import ReportError, StorageError
from audio_assets.partitions import FolderMinute
from audio_assets.retire import retire
from audio_assets.sensor.inventory_report import Report
from audio_assets.source import AudioSource
from audio_assets.storage import ObjectStore
from audio_assets_tests.support.audio import UPLOADED
from audio_assets_tests.support.inventory_reports import ALL_VERSIONS, CURRENT, FORMATS, Row, report
from audio_assets_tests.support.places import S3Place
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.sqs import Queue

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


on_s3 = pytest.mark.parametrize("place", ["s3"], indirect=True)


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
        "d+é.flac/": UPLOADED,
    }
    outside = [
        "wav48 silence",
        "wav48 silence 2/x.flac",
        "wav48 silence/output_parquet/t/x.parquet",
        "y.flac",
    ]
    rows = [Row(s3_place.prefix + key, modified) for key, modified in inside.items()]
    rows += [Row(key) for key in [*outside, s3_place.prefix]]
    rows += [Row(f"{s3_place.prefix}marked folder/", size=0)]
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
        "kept@2023-08-24-03:21",
        "back@2023-08-24-03:21",
    }


# --- the sensor, with a report instead of listings ------------------------------------------------------


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The LIST requests that the server has answered."""
    seen: list[str] = []

    def counting(name: str):
        answer = getattr(S3Response, name)

        def counted(self: S3Response) -> object:
            seen.append(self.uri)
            return answer(self)

        return counted

    for name in ("list_objects", "list_objects_v2"):
        monkeypatch.setattr(S3Response, name, counting(name))
    return seen


@pytest.fixture
def seeded(s3_place: S3Place, reports: S3Place, project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that a report seeds: two data files over three partitions of two folders."""
    objects = ["p 225/a.txt", "p 225/b.txt", "p226/c.txt"]
    for minute, key in enumerate(objects):
        s3_place.put(key, uploaded=UPLOADED + dt.timedelta(minutes=minute))
    files = [[objects[0], objects[2]], [objects[1], objects[0]]]
    deliver_report(s3_place, reports, files)
    monkeypatch.setenv("S3_INVENTORY_MANIFEST", f"{reports.uri}/{MANIFEST.format(s3_place.bucket)}")
    project.reload()
    return project


def deliver_report(place: S3Place, reports: S3Place, files: list[list[str]]) -> None:
    """A report with what these objects are like now."""
    rows = []
    for keys in files:
        found = ((key, place.backend.get_object(place.bucket, place.prefix + key)) for key in keys)
        rows.append([Row(place.prefix + k, o.last_modified.replace(tzinfo=dt.UTC)) for k, o in found if o])
    assert deliver(reports, report("Parquet", rows, place.bucket)) == MANIFEST.format(place.bucket)


MANIFEST = "reports/{}/daily/2026-11-22T01-00Z/manifest.json"
FIRST = "p 225@2023-08-24-00:21"
SECOND = "p 225@2023-08-24-00:22"
THIRD = "p226@2023-08-24-00:23"


@on_s3
def test_a_report_seeds_the_partitions_without_a_listing(seeded: Project, listings: list[str]):
    [request] = seeded.tick()
    assert seeded.partition_keys == [FIRST, SECOND, THIRD]
    range_tags = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
    assert [request.tags[tag] for tag in range_tags] == [FIRST, THIRD]
    # What is listed are the tables.
    assert [url for url in listings if "output_parquet" not in url] == []
    assert seeded.execute(request).success
    assert sorted(seeded.table()["Key"]) == ["p 225/a.txt", "p 225/b.txt", "p226/c.txt"]
    # The run looks into its folders, and so does a reader.
    assert listings != []
    listings.clear()
    assert seeded.tick() == []
    # What is listed are the tables.
    assert [url for url in listings if "output_parquet" not in url] == []


@on_s3
def test_a_report_is_read_file_by_file_over_ticks(seeded: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sensor, "LISTING_SECONDS", -1)
    seeded.tick()
    assert seeded.partition_keys == [FIRST, THIRD]
    seeded.tick()
    assert seeded.partition_keys == [FIRST, THIRD, SECOND]
    seeded.cursor = "damaged"
    seeded.tick()
    assert seeded.partition_keys == [FIRST, THIRD, SECOND]
    assert json.loads(seeded.cursor or "")["report"]["files"] == 1


@on_s3
def test_what_a_report_seeds_is_asked_for_in_bounded_runs(
    seeded: Project, monkeypatch: pytest.MonkeyPatch, reports: S3Place
):
    monkeypatch.setenv("MAX_RUNS_IN_FLIGHT", "1")
    monkeypatch.setenv("PARTITIONS_PER_RUN", "1")
    [first] = seeded.tick()
    assert seeded.execute(first).success
    # What was read of a report is not needed again.
    for key in reports.all_keys():
        if not key.endswith("manifest.json"):
            reports.delete(key)
    [second] = seeded.tick()
    assert (first.partition_key, second.partition_key) == (FIRST, SECOND)


@on_s3
def test_a_new_report_seeds_what_is_new(seeded: Project, s3_place: S3Place, reports: S3Place):
    assert seeded.catch_up() == 1
    retire(seeded.instance, [FIRST])
    s3_place.put("p226/new.txt", uploaded=LATER)
    assert seeded.catch_up() == 0
    deliver_report(s3_place, reports, [["p 225/a.txt", "p 225/b.txt"], ["p226/c.txt", "p226/new.txt"]])
    assert seeded.catch_up() == 1
    assert seeded.partition_keys == [SECOND, THIRD, "p226@2023-08-24-03:21"]
    assert len(seeded.table()) == 4


@on_s3
def test_events_tell_what_has_changed_since_the_report(
    seeded: Project, s3_place: S3Place, s3_server: str, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise AssertionError("the whole bucket is listed")

    monkeypatch.setattr(AudioSource, "digests", fail)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", s3_server)
    monkeypatch.setenv("AUDIO_EVENTS_QUEUE_URL", Queue(s3_place, s3_server).url)
    seeded.reload()
    assert seeded.catch_up() == 1
    s3_place.put("p226/new.txt", uploaded=LATER)
    s3_place.put("p 225/a.txt", b"other")
    s3_place.delete("p 225/b.txt")
    assert seeded.catch_up() == 1
    sizes = seeded.table().set_index("Key")["Size"].to_dict()
    assert sizes == {"p 225/a.txt": 5, "p226/c.txt": 0, "p226/new.txt": 0}
    assert seeded.partition_keys == [FIRST, THIRD, "p226@2023-08-24-03:21"]


@on_s3
def test_what_is_gone_since_the_report_leaves_nothing_behind(seeded: Project, s3_place: S3Place):
    s3_place.delete("p226/c.txt")
    assert seeded.catch_up() == 1
    assert seeded.partition_keys == [FIRST, SECOND]
    assert len(seeded.table()) == 2


@on_s3
@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("s3://no-such-bucket/manifest.json", r"no-such-bucket/manifest\.json"),
        ("/tmp/manifest.json", r"'/tmp/manifest\.json' does not read like s3://bucket/…/manifest\.json"),
    ],
)
def test_a_report_that_is_not_there_fails_the_tick_by_its_settings_name(
    seeded: Project, monkeypatch: pytest.MonkeyPatch, manifest: str, message: str
):
    monkeypatch.setenv("S3_INVENTORY_MANIFEST", manifest)
    seeded.reload()
    with pytest.raises((ValueError, StorageError), match=rf"{message}.* \(S3_INVENTORY_MANIFEST\)"):
        seeded.tick()


# --- what is read ---------------------------------------------------------------------------------------


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
        manifest = next(key for key, _ in store.list_files("") if key.endswith("manifest.json"))
        opened = Report.open(store, manifest, everything.store)
        [file] = opened.files
        assert opened.partitions(file, everything) == {
            FolderMinute.of(key, modified) for key, modified in objects.items()
        }


def test_without_sizes_a_key_that_ends_in_a_slash_is_taken_for_an_object(s3_place: S3Place, reports: S3Place):
    rows = [Row(f"{s3_place.prefix}marked or full/", size=0)]
    fields = [name for name in CURRENT if name != "Size"]
    manifest = deliver(reports, report("CSV", [rows], s3_place.bucket, fields))
    opened = Report.open(reports.store, manifest, s3_place.store)
    [file] = opened.files
    assert opened.partitions(file, source(s3_place)) == {FolderMinute.of("marked or full/", UPLOADED)}


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
