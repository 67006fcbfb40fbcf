"""Whatever moves (the table, the source, the instance, a file), bucket and table agree in the end.

Nobody is told that anything has moved. What the table must hold is found by brute force, from a listing of
the bucket.
"""

import datetime as dt
import pathlib
import shutil
from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from audio_assets.defs.internals import instance_owner
from audio_assets.defs.records import InstanceRecords
from audio_assets.errors import InstanceInUseError
from audio_assets.partitions import FolderMinute
from audio_assets.schema import AUDIO_TABLE
from audio_assets.settings import AUDIO_TABLE_URI, PROJECT
from audio_assets.storage import ObjectStore
from audio_assets.table import Table
from audio_assets_tests.support.audio import MINUTE, UPLOADED
from audio_assets_tests.support.places import LocalPlace, Place, S3Place, delete_without_conditions
from audio_assets_tests.support.project import Project

P225 = FolderMinute("p225", MINUTE)
TABLES = ("s3_inventory", "transcripts", "tokens", "audio_table")


on_disk = pytest.mark.parametrize("place", ["local"], indirect=True)
on_s3 = pytest.mark.parametrize("place", ["s3"], indirect=True)


def audio_table() -> Table:
    return Table(ObjectStore(AUDIO_TABLE_URI.get()), "audio_table", AUDIO_TABLE)


def agree(project: Project) -> None:
    """Each object of the bucket has its row, once, and there is no other row and no file without rows."""
    table = audio_table()
    everything = [o for _, page in project.place.store.scan() for o in page]
    listed = [o for o in everything if not o.key.startswith("output_parquet/")]
    wanted = sorted((o.key, o.etag, o.last_modified.replace(microsecond=0)) for o in listed)
    rows = project.table()
    found = zip(rows["Key"], rows["ETag"], rows["LastModified"].dt.floor("s"), strict=True)
    assert sorted(found) == wanted
    with_rows = {FolderMinute.of(o.key, o.last_modified).path for o in listed}
    assert {path for path, _ in table.files()} == with_rows


@pytest.fixture
def bucket(project: Project) -> Project:
    """Five objects in three folders, all of them in the table."""
    for minute, key in enumerate(("top.txt", "p225/a.txt", "p225/b.txt", "p226/a.txt", "p227/deep/a.txt")):
        project.place.put(key, b"1", UPLOADED + dt.timedelta(minutes=minute // 2))
    assert project.catch_up()
    agree(project)
    return project


@pytest.fixture
def elsewhere(place: Place, tmp_path: pathlib.Path) -> Place:
    """Another place of the same kind."""
    if isinstance(place, S3Place):
        other = S3Place(f"{place.bucket}-2", "other/")
        other.backend.create_bucket(other.bucket, "us-east-1")
        return other
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return LocalPlace(folder)


# --- the table moves ------------------------------------------------------------------------------------


@on_s3
def test_a_table_that_moves_is_made_in_its_new_place(
    bucket: Project, elsewhere: Place, monkeypatch: pytest.MonkeyPatch
):
    before = [path for path, _ in audio_table().files()]
    monkeypatch.setenv("AUDIO_TABLE_URI", f"{elsewhere.uri}/tables")
    bucket.reload()
    assert bucket.catch_up()
    # Those in the old place, inside the source, are no audio.
    agree(bucket)
    assert sorted(path for path, _ in audio_table().files()) == sorted(before)
    assert bucket.catch_up() == 0


@on_disk
def test_a_table_outside_of_the_source_that_moves(
    project: Project, elsewhere: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AUDIO_TABLE_URI", f"{elsewhere.uri}/one")
    project.reload()
    project.place.put("p225/a.txt")
    project.place.put("p226/a.txt")
    assert project.catch_up()
    monkeypatch.setenv("AUDIO_TABLE_URI", f"{elsewhere.uri}/two")
    project.reload()
    assert project.catch_up()
    agree(project)
    assert project.catch_up() == 0
    # What was left behind is as it was.
    monkeypatch.setenv("AUDIO_TABLE_URI", f"{elsewhere.uri}/one")
    assert len(project.table()) == 2


def test_a_table_that_was_copied_with_its_bytes_is_taken_over(
    project: Project, elsewhere: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AUDIO_TABLE_URI", f"{elsewhere.uri}/one")
    project.reload()
    project.place.put("p225/a.txt")
    assert project.catch_up()
    copied = ObjectStore(f"{elsewhere.uri}/two")
    for path, _ in ObjectStore(f"{elsewhere.uri}/one").list_files(""):
        found = ObjectStore(f"{elsewhere.uri}/one").read_latest(path)
        assert found is not None
        copied.replace(path, found[0], None)
    monkeypatch.setenv("AUDIO_TABLE_URI", f"{elsewhere.uri}/two")
    project.reload()
    # On S3 the version of a file is that of its bytes; on a disk a copy is another file, and looked at once.
    assert project.catch_up() == (0 if isinstance(elsewhere, S3Place) else 1)
    agree(project)
    assert project.catch_up() == 0


# --- the source moves -----------------------------------------------------------------------------------


def test_a_source_that_moves_to_a_replica(bucket: Project, elsewhere: Place, monkeypatch: pytest.MonkeyPatch):
    for _, page in bucket.place.store.scan():
        for o in page:
            elsewhere.put(o.key, bucket.place.store.read(o), o.last_modified)
    monkeypatch.setenv("AUDIO_SOURCE_URI", elsewhere.uri)
    bucket.place = elsewhere
    bucket.reload()
    bucket.catch_up()
    assert len(bucket.table()) == 5
    agree(bucket)
    assert bucket.catch_up() == 0


@on_s3
def test_the_demo_first_and_then_a_bucket_of_ones_own(
    bucket: Project, elsewhere: Place, monkeypatch: pytest.MonkeyPatch
):
    elsewhere.put("mine/a.txt")
    monkeypatch.setenv("AUDIO_SOURCE_URI", elsewhere.uri)
    bucket.place = elsewhere
    bucket.reload()
    assert bucket.catch_up() == 1
    agree(bucket)
    mine = FolderMinute("mine", MINUTE)
    assert bucket.partition_keys == [mine.key]
    written = [key for key, _ in elsewhere.store.list_files("output_parquet/") if key.endswith(".parquet")]
    assert sorted(written) == sorted(f"output_parquet/{name}/{mine.path}" for name in TABLES)


# --- files of the table are lost or changed -------------------------------------------------------------


def remove(place: Place, *prefixes: str) -> int:
    doomed = [key for key, _ in place.store.list_files("output_parquet/") if key.startswith(prefixes)]
    for key in doomed:
        place.delete(key)
    return len(doomed)


@on_s3
def test_files_that_were_deleted_by_hand_are_made_again(bucket: Project):
    # A whole folder of the table, and of each table that it is made from one file.
    assert remove(bucket.place, "output_parquet/audio_table/FolderName=p225/") == 2
    for table, folder in zip(TABLES, ("p226", "p227%2Fdeep", "%2E"), strict=False):
        assert remove(bucket.place, f"output_parquet/{table}/FolderName={folder}/") == 1
    assert bucket.catch_up()
    agree(bucket)
    assert len(list(bucket.place.store.list_files("output_parquet/"))) >= 4 * len(bucket.partition_keys)
    assert bucket.catch_up() == 0


@on_disk
def test_a_table_that_was_deleted_as_a_whole_is_made_again(bucket: Project):
    assert remove(bucket.place, "output_parquet/")
    assert bucket.catch_up()
    agree(bucket)


@on_disk
def test_a_file_that_was_edited_by_hand_is_made_again(bucket: Project):
    table = audio_table()
    found = table.read(P225)
    assert found.rows is not None
    edited = found.rows.set_column(0, "Key", [["p225/else.txt"] * len(found.rows)])
    table.replace(P225, edited, found)
    assert "p225/else.txt" in set(bucket.table("p225")["Key"])
    assert bucket.catch_up() == 1
    agree(bucket)


@on_disk
def test_a_file_of_a_partition_without_objects_is_removed(bucket: Project):
    table = audio_table()
    found = table.read(P225)
    assert found.rows is not None
    stranger = FolderMinute("stranger", MINUTE)
    table.replace(stranger, found.rows, table.read(stranger))
    assert bucket.catch_up() == 1
    agree(bucket)


@on_s3
def test_where_a_file_cannot_be_deleted_safely_it_stays_without_rows_and_all_agree(
    bucket: Project, monkeypatch: pytest.MonkeyPatch
):
    delete_without_conditions(monkeypatch)
    bucket.reload()
    for key in ("p225/a.txt", "p225/b.txt"):
        bucket.place.delete(key)
    assert bucket.catch_up()
    assert set(bucket.table()["Key"]) == {"top.txt", "p226/a.txt", "p227/deep/a.txt"}
    assert [len(audio_table().read(p).rows or ()) for p in audio_table().partitions("p225")] == [0, 0]
    assert not [key for key in bucket.partition_keys if key.startswith("p225")]
    assert bucket.catch_up() == 0
    bucket.place.put("p225/a.txt", b"2", UPLOADED)
    assert bucket.catch_up() == 1
    assert "p225/a.txt" in set(bucket.table()["Key"])


# --- the instance is another one ------------------------------------------------------------------------


@pytest.fixture
def new_instance(tmp_path: pathlib.Path) -> Iterator[Callable[[], dg.DagsterInstance]]:
    opened: list[dg.DagsterInstance] = []

    def make() -> dg.DagsterInstance:
        home = tmp_path / f"home {len(opened)}"
        home.mkdir()
        shutil.copy(PROJECT / "dagster.yaml", home)
        opened.append(dg.DagsterInstance.from_config(str(home)))
        return opened[-1]

    yield make
    for instance in opened:
        instance.dispose()


@on_s3
def test_a_new_instance_over_an_existing_table(
    bucket: Project, new_instance: Callable[[], dg.DagsterInstance]
):
    bucket.place.put("p225/a.txt", b"uploaded again", UPLOADED + dt.timedelta(minutes=9))
    bucket.place.delete("p226/a.txt")
    bucket.place.delete("p227/deep/a.txt")
    anew = Project(bucket.place, new_instance())
    assert anew.catch_up()
    agree(anew)
    assert anew.catch_up() == 0
    assert [FolderMinute.parse(key).folder for key in anew.partition_keys] == [".", "p225", "p225"]


def test_a_new_instance_removes_a_folder_whose_name_is_too_long_for_a_directory(
    s3_place: S3Place, new_instance: Callable[[], dg.DagsterInstance], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AUDIO_SOURCE_URI", s3_place.uri)
    project = Project(s3_place, new_instance())
    key = f"{'x' * 400}/a.txt"
    s3_place.put(key)
    s3_place.put("p225/a.txt")
    assert project.catch_up()
    agree(project)
    s3_place.delete(key)
    anew = Project(s3_place, new_instance())
    assert anew.catch_up()
    agree(anew)
    assert anew.catch_up() == 0


@on_disk
def test_two_sources_on_one_instance_are_refused_in_words(
    bucket: Project, elsewhere: Place, monkeypatch: pytest.MonkeyPatch
):
    elsewhere.put("p999/a.txt")
    here = bucket.partition_keys
    monkeypatch.setenv("AUDIO_SOURCE_URI", elsewhere.uri)
    bucket.reload()
    # As another process that lives would see it.
    monkeypatch.setattr(instance_owner, "this_process", lambda: "another process")
    monkeypatch.setattr(instance_owner, "is_alive", lambda process: True)
    with pytest.raises(
        InstanceInUseError, match=r"serves .* at the moment.*give this one a DAGSTER_HOME"
    ) as caught:
        bucket.tick()
    assert elsewhere.uri in str(caught.value)
    assert bucket.place.uri in str(caught.value)
    assert bucket.partition_keys == here
    assert not list(elsewhere.store.list_files("output_parquet/"))
    # The first one goes on; the second one may begin when it has ended.
    monkeypatch.setattr(instance_owner, "is_alive", lambda process: False)
    bucket.place = elsewhere
    assert bucket.catch_up() == 1
    agree(bucket)


@on_disk
@pytest.mark.parametrize("job", ["process_audio", "check_audio_table", "redo_stale", "retry_failed_objects"])
def test_a_run_for_another_source_than_that_of_the_instance_is_refused_in_words(
    bucket: Project, elsewhere: Place, monkeypatch: pytest.MonkeyPatch, job: str
):
    elsewhere.put("p225/a.txt", b"another one", UPLOADED)
    records = InstanceRecords(bucket.instance).records()
    monkeypatch.setenv("AUDIO_SOURCE_URI", elsewhere.uri)
    bucket.reload()
    # As a run of another code location sees it, while the one that ticks lives.
    monkeypatch.setattr(instance_owner, "this_process", lambda: "the process of a run")
    monkeypatch.setattr(instance_owner, "is_alive", lambda process: True)
    done = bucket.repository.get_job(job).execute_in_process(
        instance=bucket.instance,
        partition_key=P225.key if job == "process_audio" else None,
        raise_on_error=False,
    )
    assert not done.success
    [failed] = [e for e in done.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    said = failed.step_failure_data.user_failure_data
    assert said is not None
    assert f"serves {bucket.place.uri}" in (said.description or "")
    assert InstanceRecords(bucket.instance).records() == records
    assert not bucket.instance.get_backfills()
    assert not list(elsewhere.store.list_files("output_parquet/"))


# --- what comes back ------------------------------------------------------------------------------------


@on_s3
def test_a_partition_that_returns_to_an_earlier_state_does_not_wait(bucket: Project):
    bucket.place.put("p225/late.txt", b"1")
    assert bucket.catch_up() == 1
    bucket.place.delete("p225/late.txt")
    assert bucket.catch_up() == 1
    bucket.place.put("p225/late.txt", b"1")
    if isinstance(bucket.place, S3Place):
        # To a disk, a file that is written again is another one.
        assert bucket.catch_up() == 1
    bucket.place.delete("p225/late.txt")
    bucket.catch_up()
    agree(bucket)


@on_s3
def test_the_same_bytes_again_in_the_same_minute_have_their_new_time(bucket: Project):
    again = UPLOADED + dt.timedelta(seconds=2)
    bucket.place.put("top.txt", b"1", again)
    assert bucket.catch_up() == 1
    agree(bucket)
    [row] = bucket.table(".").to_dict("records")
    assert row["LastModified"].to_pydatetime().replace(microsecond=0) == again.replace(microsecond=0)


# --- what was overwritten -------------------------------------------------------------------------------


@on_disk
def test_an_overwritten_object_is_in_the_table_before_its_new_minute_is_over(bucket: Project):
    bucket.place.put("p225/a.txt", b"new", dt.datetime.now(dt.UTC))
    requests = bucket.tick()
    assert requests
    for request in requests:
        assert bucket.execute(request).success
        assert "p225/a.txt" in set(bucket.table("p225", columns=["Key"])["Key"])
    agree(bucket)
