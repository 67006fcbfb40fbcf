"""Secrets stay where they are set, names lead nowhere else, and servers listen to this machine alone."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value
from dagster._utils.error import serializable_error_info_from_exc_info
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audio_assets.errors import ConflictError, ObjectChangedError, StorageError
from audio_assets.storage import ObjectInfo, ObjectStore
from audio_assets_tests.support.audio import UPLOADED, flac
from audio_assets_tests.support.places import LocalPlace, Place
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.refusing_server import server_that_answers

KEY = "p225@2023-08-24-00:21"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "PLANTEDKEYID",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+key",
    "AWS_SESSION_TOKEN": "planted//session+token==",
}
PASSWORD = "planted-password"

on_s3 = pytest.mark.parametrize("place", ["s3"], indirect=True)


# --- secrets --------------------------------------------------------------------------------------------


@on_s3
def test_secrets_appear_nowhere_however_runs_and_ticks_end(
    project: Project,
    s3: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    capfd: pytest.CaptureFixture[str],
):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.replace("://", f"://somebody:{PASSWORD}@"))
    monkeypatch.setenv("S3_ATTEMPTS", "2")
    project.place.put("p225/sound.flac", flac())
    project.place.put("p225/damaged.flac", flac()[:60])
    project.reload()
    assert project.catch_up() == 1

    errors = []

    def fails(**changed: str) -> None:
        with monkeypatch.context() as patch:
            for name, value in changed.items():
                patch.setenv(name, value)
            project.reload()
            assert not project.run(KEY).success
            try:
                project.tick()
            except Exception:
                errors.append(str(serializable_error_info_from_exc_info(sys.exc_info())))

    for status, code in ((400, "ExpiredToken"), (403, "SignatureDoesNotMatch")):
        with server_that_answers(status, code) as url:
            fails(AWS_ENDPOINT_URL_S3=url.replace("://", f"://somebody:{PASSWORD}@"))
    fails(AWS_ENDPOINT_URL_S3=f"http://somebody:{PASSWORD}@127.0.0.1:1")
    fails(AUDIO_TABLE_URI="s3://no-such-bucket/tables")
    assert len(errors) == 4
    project.place.put("p225/new.flac", flac(seed=1))
    fails(WHISPER_MODEL="no-such-model")

    said = "".join(capfd.readouterr())
    recorded = "".join(records(project.instance))
    stored = "".join(tables(project.place))
    kept = b"".join(path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())
    shown = serialize_value(RepositorySnap.from_def(project.repository))
    # Each of them is where a secret would be seen.
    for text, known in (
        (recorded, "SignatureDoesNotMatch"),
        (stored, "damaged.flac"),
        (shown, "audio_table"),
    ):
        assert known in text
    assert KEY.encode() in kept
    assert "RUN_FAILURE" in said
    for secret in (*SECRETS.values(), PASSWORD):
        for text in (said, recorded, stored, shown, *errors):
            assert secret not in text
        assert secret.encode() not in kept


def records(instance: dg.DagsterInstance) -> Iterator[str]:
    """All that an instance tells of its runs; some of it is compressed in its files."""
    for run in instance.get_runs():
        yield serialize_value(run)
        yield from (serialize_value(entry) for entry in instance.all_logs(run.run_id))
        if run.job_snapshot_id:
            yield serialize_value(instance.get_job_snapshot(run.job_snapshot_id))
        if run.execution_plan_snapshot_id:
            yield serialize_value(instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id))


def tables(place: Place) -> Iterator[str]:
    for key in place.all_keys("output_parquet/"):
        found = place.store.read_latest(key)
        assert found
        if key.endswith(".parquet"):
            rows = pq.read_table(pa.BufferReader(found[0]))
            yield f"{rows.to_pylist()} {rows.schema.metadata}"


# --- names ----------------------------------------------------------------------------------------------

# fmt: off
HOSTILE = [
    "../secret", "../../secret", "a/../../secret", "/secret", "//secret", "a/../../../secret",
    "\0", "a\0b", "..", ".", "", "a//b", "./secret", "x" * 300, "x/" * 600 + "x", "\\..\\secret",
    "link/secret", "link/new/secret",
]
# fmt: on


@pytest.fixture
def jail(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with the root of a store, and a secret beside it that a link in the root leads to."""
    (tmp_path / "jail" / "root").mkdir(parents=True)
    (tmp_path / "jail" / "secret").write_text("secret")
    (tmp_path / "jail" / "root" / "link").symlink_to(tmp_path / "jail")
    return tmp_path / "jail"


keys = st.sampled_from(HOSTILE) | st.text(st.sampled_from("./a\\\0~%") | st.characters(), max_size=60)
many = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@many
@given(keys)
def test_no_key_leads_out_of_a_local_root(jail: pathlib.Path, key: str):
    # What an earlier example has made is there already.
    with contextlib.suppress(StorageError, ConflictError):
        ObjectStore((jail / "root").as_uri()).replace(key, b"planted", None)
    assert {path.name for path in jail.iterdir()} == {"root", "secret"}
    assert (jail / "secret").read_text() == "secret"


@many
@given(keys)
def test_no_key_of_an_inventory_reads_what_lies_outside(jail: pathlib.Path, key: str):
    (jail / "root" / "link").unlink(missing_ok=True)
    store = ObjectStore((jail / "root").as_uri())
    with pytest.raises((StorageError, ObjectChangedError)):
        store.read(ObjectInfo(key, "etag", 6, UPLOADED))
    with contextlib.suppress(StorageError):
        assert store.read_latest(key) is None


@on_s3
def test_objects_of_any_name_get_rows_and_files_below_the_tables_root(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
):
    keys = [
        "../../outside/a.txt",
        "/absolute/a.txt",
        "..",
        "a/../../b/c.txt",
        "nul\0/a.txt",
        "x" * 1_000 + ".txt",
        "#" * 900 + "/a.txt",
        "日" * 300 + "/a.txt",
        ".write-probe",
        "output_parquet.txt",
    ]
    for key in keys:
        project.place.put(key, uploaded=UPLOADED)
    keys.append("full/")
    project.place.put("full/", b"called like a folder", UPLOADED)
    project.place.put("empty/", b"", UPLOADED)
    tables = tmp_path / "jail" / "tables"
    tables.mkdir(parents=True)
    monkeypatch.setenv("AUDIO_TABLE_URI", tables.as_uri())
    project.reload()
    assert project.catch_up() == 1
    assert sorted(project.table()["Key"]) == sorted(keys)
    assert list(project.table("full")["status"]) == ["not_flac"]
    for folder in ("#" * 900, "日" * 300, "../../outside"):
        assert list(project.table(folder)["Key"]) == [f"{folder}/a.txt"]
    assert list((tmp_path / "jail").iterdir()) == [tables]
    assert {path.name for path in tables.iterdir()} == {
        "s3_inventory",
        "transcripts",
        "tokens",
        "audio_table",
    }


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_names_on_a_disk_get_rows_and_one_that_is_not_utf8_says_so(project: Project):
    assert isinstance(project.place, LocalPlace)
    for key in ("take#1", "bell\x07/a.txt"):
        project.place.put(key, uploaded=UPLOADED)
    # Alone in its partition, whose run must not fail for it.
    folder = os.fsencode(project.place.folder) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/a.flac", "wb") as file:
        file.write(flac())
    os.utime(folder + b"/a.flac", (UPLOADED.timestamp(), UPLOADED.timestamp()))
    assert project.catch_up() == 1
    rows = project.table().set_index("Key").sort_index()
    assert list(rows.index) == ["bell\x07/a.txt", "caf\\xe9/a.flac", "take#1"]
    assert list(rows["status"]) == ["not_flac", "failed", "not_flac"]
    assert rows["FolderName"].iloc[1] == "caf\\xe9"
    assert rows["error"].iloc[1].endswith("its name is not UTF-8; rename the file")


@pytest.mark.parametrize("key", ["../../x@2023-08-24-00:21", "/etc@2023-08-24-00:21", "..@2023-08-24-00:21"])
@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_no_partition_key_leads_out_of_the_tables_root(project: Project, tmp_path: pathlib.Path, key: str):
    before = set(tmp_path.iterdir())
    project.run(key, assets=["s3_inventory"])
    assert set(tmp_path.iterdir()) == before
    assert not list(tmp_path.glob("*.parquet"))
    root = pathlib.Path(project.place.folder) / "output_parquet" / "s3_inventory"  # type: ignore[attr-defined]
    for file in root.rglob("*.parquet"):
        assert len(file.relative_to(root).parts) == 5
