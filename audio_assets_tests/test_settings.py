"""What is set wrongly is said by its name, before audio is fetched, and leaves nothing behind."""

import contextlib
import datetime as dt
import logging
import os
import pathlib
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest
import torch
import whisper
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster_aws.s3 import S3Resource

from audio_assets import read_table, schema
from audio_assets.defs import resources
from audio_assets.defs.resources import Bucket, Whisper
from audio_assets.errors import ArgumentError, StorageError
from audio_assets.settings import (
    DEMO_CHECKPOINT,
    PROJECT,
    S3_ATTEMPTS,
    SETTINGS,
    SETTLE_SECONDS,
    VARIABLES,
    WHISPER_BATCH_SIZE,
    WHISPER_LANGUAGE,
    env_example,
    markdown_table,
)
from audio_assets.storage import ObjectInfo, ObjectStore
from audio_assets.storage.types import WRITE_PROBE
from audio_assets.table import Table
from audio_assets.transcription.checkpoint import load_model
from audio_assets_tests.support.audio import flac
from audio_assets_tests.support.places import S3Place, delete_without_conditions
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.refusing_server import server_that_answers

KEY = "p225@2023-08-24-00:21"

# Where S3 makes no difference.
on_disk = pytest.mark.parametrize("place", ["local"], indirect=True)
on_s3 = pytest.mark.parametrize("place", ["s3"], indirect=True)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the objects that are fetched."""
    keys: list[str] = []
    read = ObjectStore.read

    def counted(self: ObjectStore, info: ObjectInfo, *args: object) -> bytes:
        keys.append(info.key)
        return read(self, info, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(ObjectStore, "read", counted)
    return keys


def failure(project: Project, step: str) -> str:
    """What the UI shows of a run that fails in a step."""
    result = project.run(KEY)
    [failed] = [e for e in result.all_events if e.is_step_failure]
    assert failed.step_key == step
    error = failed.step_failure_data.error
    assert error
    return (error.cause or error).message


# --- the table of settings ------------------------------------------------------------------------------


def test_readme_and_env_example_are_those_of_the_table():
    written = "run `python -m audio_assets.settings`"
    block = f"<!-- settings -->\n{markdown_table()}<!-- /settings -->"
    assert block in (PROJECT / "README.md").read_text(), written
    assert env_example() == (PROJECT / ".env.example").read_text(), written


def test_the_whole_environment_is_declared_in_the_table():
    """No other module reads the environment by itself."""
    readers = re.compile(r"os\.environ|getenv|EnvVar")
    package = PROJECT / "audio_assets"
    found = {str(p.relative_to(package)) for p in package.rglob("*.py") if readers.search(p.read_text())}
    # The demo drops what is set. An actor takes over what the run has set. Ray's own variables are read, and
    # written before Ray is imported, where this project connects to a cluster or starts one.
    ray = {f"cluster/{name}.py" for name in ("actor", "connection", "local_cluster")}
    assert found == {"settings.py", "demo/__main__.py", *ray}
    assert len({variable.name for variable in VARIABLES}) == len(VARIABLES)


@pytest.mark.parametrize("value", [None, ""])
def test_what_is_not_set_or_empty_has_its_default(monkeypatch: pytest.MonkeyPatch, value: str | None):
    for setting in SETTINGS:
        monkeypatch.delenv(setting.name, raising=False)
        if value is not None:
            monkeypatch.setenv(setting.name, value)
    assert {setting.name: setting.get() for setting in SETTINGS} == {
        "AUDIO_SOURCE_URI": (PROJECT / "demo_bucket").as_uri(),
        "AUDIO_TABLE_URI": (PROJECT / "demo_bucket" / "output_parquet").as_uri(),
        "AUDIO_EVENTS_QUEUE_URL": "",
        "S3_INVENTORY_MANIFEST": "",
        "S3_ATTEMPTS": 10,
        "S3_STALL_SECONDS": 60.0,
        "WHISPER_MODEL": str(PROJECT / "audio_assets" / "demo" / "checkpoint.pt"),
        "WHISPER_DEVICE": "auto",
        "WHISPER_LANGUAGE": None,
        "WHISPER_BATCH_SIZE": None,
        "AUDIO_FORMATS": {"flac"},
        "WHISPER_TASK": "transcribe",
        "WHISPER_INITIAL_PROMPT": None,
        "WHISPER_CONDITION_ON_PREVIOUS_TEXT": True,
        "WHISPER_TEMPERATURES": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
        "WHISPER_BEAM_SIZE": None,
        "WHISPER_PATIENCE": None,
        "WHISPER_BEST_OF": None,
        "WHISPER_COMPRESSION_RATIO_THRESHOLD": 2.4,
        "WHISPER_LOGPROB_THRESHOLD": -1.0,
        "WHISPER_NO_SPEECH_THRESHOLD": 0.6,
        "WHISPER_WORD_TIMESTAMPS": False,
        "WHISPER_HALLUCINATION_SILENCE_THRESHOLD": None,
        "WHISPER_LANGUAGE_DETECTION_THRESHOLD": 0.9,
        "WHISPER_SECOND_MODEL": None,
        "WHISPER_LOGIT_MARGIN_THRESHOLD": None,
        "TOKENISER": "simulated",
        "SETTLE_SECONDS": dt.timedelta(seconds=60),
        "DAILY_INTERVAL_MINUTES": dt.timedelta(hours=1),
        "SHARDS_SELECTION": None,
        "SHARDS_SPLITS": {},
        "BACKFILL_ORDER": "folder",
        "REDO_STALE": "job",
        "PARTITIONS_PER_RUN": 100,
        "OBJECTS_PER_RUN": 20_000,
        "MAX_RUNS_IN_FLIGHT": 25,
        "RAY_ADDRESS": "",
        "LISTENING_AUDIO_URL": "",
        "LISTENING_PAGE_URL": "",
        "RAY_GPUS_PER_ACTOR": 1.0,
        "RAY_CPUS_PER_ACTOR": 1.0,
        "RAY_MAX_ACTORS": None,
        "RAY_ACTOR_IDLE_MINUTES": 10.0,
        "KEEP_RUN_LOGS_DAYS": 30.0,
        "FAILURE_WEBHOOK_URL": "",
    }


def test_what_is_set_is_read_as_a_value(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("S3_ATTEMPTS", "3")
    monkeypatch.setenv("SETTLE_SECONDS", "-0.5")
    monkeypatch.setenv("WHISPER_BATCH_SIZE", "24")
    monkeypatch.setenv("WHISPER_LANGUAGE", "en")
    assert S3_ATTEMPTS.get() == 3
    assert SETTLE_SECONDS.get() == dt.timedelta(seconds=-0.5)
    assert WHISPER_BATCH_SIZE.get() == 24
    assert WHISPER_LANGUAGE.get() == "en"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("S3_ATTEMPTS", "lots", "S3_ATTEMPTS is a whole number from 1, not 'lots'"),
        ("S3_ATTEMPTS", "0", "S3_ATTEMPTS is a whole number from 1, not '0'"),
        ("S3_STALL_SECONDS", "-1", "S3_STALL_SECONDS is a number above 0, not '-1'"),
        ("S3_STALL_SECONDS", "nan", "S3_STALL_SECONDS is a number above 0, not 'nan'"),
        ("S3_STALL_SECONDS", "inf", "S3_STALL_SECONDS is a number above 0, not 'inf'"),
        ("WHISPER_BATCH_SIZE", "0", "WHISPER_BATCH_SIZE is a number of clips or auto, not '0'"),
        ("WHISPER_TASK", "sing", "WHISPER_TASK is transcribe or translate, not 'sing'"),
        ("WHISPER_WORD_TIMESTAMPS", "yes", "WHISPER_WORD_TIMESTAMPS is true or false, not 'yes'"),
        (
            "WHISPER_TEMPERATURES",
            "0.0,1.5",
            "WHISPER_TEMPERATURES is one temperature or several with commas between them, each from 0 to 1,"
            " not '0.0,1.5'",
        ),
        ("WHISPER_BEAM_SIZE", "0", "WHISPER_BEAM_SIZE is a number of texts or none, not '0'"),
        ("WHISPER_PATIENCE", "0", "WHISPER_PATIENCE is a number above 0, or none, not '0'"),
        ("WHISPER_LOGPROB_THRESHOLD", "nan", "WHISPER_LOGPROB_THRESHOLD is a number or none, not 'nan'"),
        (
            "WHISPER_HALLUCINATION_SILENCE_THRESHOLD",
            "0",
            "WHISPER_HALLUCINATION_SILENCE_THRESHOLD is a number of seconds above 0, or none, not '0'",
        ),
        ("SETTLE_SECONDS", "nan", "SETTLE_SECONDS is a number of seconds, not 'nan'"),
        ("KEEP_RUN_LOGS_DAYS", "-1", "KEEP_RUN_LOGS_DAYS is a number of days from 0, not '-1'"),
        ("DAILY_INTERVAL_MINUTES", "-1", "DAILY_INTERVAL_MINUTES is a number of minutes from 0, not '-1'"),
        ("BACKFILL_ORDER", "fastest", "BACKFILL_ORDER is folder or newest, not 'fastest'"),
        ("REDO_STALE", "always", "REDO_STALE is job or sensor, not 'always'"),
    ],
)
def test_a_wrong_value_is_said_with_what_is_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
):
    monkeypatch.setenv(name, value)
    [setting] = [setting for setting in SETTINGS if setting.name == name]
    with pytest.raises(ArgumentError) as e:
        setting.get()
    assert str(e.value) == said


def test_errors_of_arguments_are_raised_in_the_words_of_settings():
    error = ArgumentError("model", "='a device=b' does not fit on device='cpu', whose precision=float32")
    named = error.renamed({"model": "WHISPER_MODEL", "device": "WHISPER_DEVICE"})
    said = "does not fit on WHISPER_DEVICE='cpu', whose precision=float32"
    assert said in str(named)
    assert str(named).startswith("WHISPER_MODEL='a ")
    assert named.argument == "WHISPER_MODEL"


# --- models and tokenisers ------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self) -> tuple[Callable[[pathlib.Path], None], tuple[pathlib.Path]]:
        return pathlib.Path.touch, (pathlib.Path(os.environ["EXECUTED"]),)


def truncated(path: pathlib.Path) -> None:
    path.write_bytes(DEMO_CHECKPOINT.read_bytes()[: 2**20])


def one_byte_wrong(path: pathlib.Path) -> None:
    body = bytearray(DEMO_CHECKPOINT.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def text(path: pathlib.Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def another_model(path: pathlib.Path) -> None:
    torch.save({"model.encoder.conv1.weight": torch.zeros(3)}, path)


def oversized(path: pathlib.Path) -> None:
    checkpoint = torch.load(DEMO_CHECKPOINT, weights_only=True)
    checkpoint["dims"]["n_audio_state"] = 10**7
    torch.save(checkpoint, path)


def malicious(path: pathlib.Path) -> None:
    torch.save({"dims": Malicious(), "model_state_dict": {}}, path)


def malicious_pickle(path: pathlib.Path) -> None:
    path.write_bytes(pickle.dumps(Malicious()))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (truncated, "it is damaged, or no checkpoint of OpenAI's Whisper"),
        (one_byte_wrong, "is damaged; copy the file again"),
        (text, "it is damaged, or no checkpoint of OpenAI's Whisper"),
        (another_model, "it is damaged, or no checkpoint of OpenAI's Whisper"),
        (oversized, "its dimensions are not those of its weights"),
        (malicious, "nothing in it was executed"),
        (malicious_pickle, "nothing in it was executed"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_told_apart_without_executing_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, make: Callable[[pathlib.Path], None], reason: str
):
    model = tmp_path / "model.pt"
    executed = tmp_path / "executed"
    monkeypatch.setenv("EXECUTED", str(executed))
    make(model)
    transcripts = Table(ObjectStore(tmp_path.as_uri()), "transcripts", schema.TRANSCRIPTS)
    with pytest.raises(ValueError, match=f"WHISPER_MODEL='{model}' cannot be used: .*{reason}"):
        Whisper(model=str(model)).transcribing(transcripts)
    assert not executed.exists()


@pytest.mark.parametrize("make", [malicious, malicious_pickle])
def test_loading_executes_nothing_either(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, make: Callable[[pathlib.Path], None]
):
    monkeypatch.setenv("EXECUTED", str(tmp_path / "executed"))
    make(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model='.*model\.pt' cannot be used"):
        load_model(str(tmp_path / "model.pt"), "cpu")
    assert not (tmp_path / "executed").exists()


@on_disk
def test_a_malicious_checkpoint_fails_the_run_before_audio_is_fetched(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, fetched: list[str]
):
    project.place.put("p225/a.flac", flac())
    model = tmp_path / "model.pt"
    executed = tmp_path / "executed"
    monkeypatch.setenv("EXECUTED", str(executed))
    malicious(model)
    monkeypatch.setenv("WHISPER_MODEL", str(model))
    project.reload()
    assert f"WHISPER_MODEL='{model}' cannot be used" in failure(project, "speech")
    assert not fetched
    assert not executed.exists()
    assert not project.place.all_keys("output_parquet/transcripts/")


@on_disk
@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("WHISPER_MODEL", "no-such-model", "WHISPER_MODEL='no-such-model' is neither a file nor a model"),
        ("WHISPER_LANGUAGE", "klingon", "WHISPER_LANGUAGE='klingon'"),
        ("WHISPER_BATCH_SIZE", "many", "WHISPER_BATCH_SIZE is a number of clips or auto, not 'many'"),
        ("WHISPER_HALLUCINATION_SILENCE_THRESHOLD", "2", "SILENCE_THRESHOLD=2.0 needs word_timestamps"),
        ("WHISPER_PATIENCE", "2", "WHISPER_PATIENCE=2.0 needs beam_size"),
        ("WHISPER_DEVICE", "gpu", "WHISPER_DEVICE='gpu'"),
        ("WHISPER_DEVICE", "cuda:99", "WHISPER_DEVICE='cuda:99', but PyTorch sees"),
        ("TOKENISER", "no.such:thing", "TOKENISER='no.such:thing' is neither"),
        ("TOKENISER", "broken_tokeniser:tokenise", "no libcodec here"),
    ],
)
def test_a_wrong_setting_fails_the_run_before_audio_is_fetched(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    fetched: list[str],
    setting: str,
    value: str,
    message: str,
):
    (tmp_path / "broken_tokeniser.py").write_text("raise RuntimeError('no libcodec here')")
    monkeypatch.syspath_prepend(tmp_path)
    project.place.put("p225/a.flac", flac())
    monkeypatch.setenv(setting, value)
    project.reload()
    assert message in failure(project, "speech")
    assert not fetched


@on_disk
def test_a_model_that_does_not_fit_fails_the_run_by_model_and_device(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(whisper, "load_model", full)
    resources._loaded.clear()
    project.place.put("p225/a.flac", flac())
    said = failure(project, "speech")
    assert (
        f"WHISPER_MODEL='{DEMO_CHECKPOINT}' does not fit into the free memory of WHISPER_DEVICE='cpu'" in said
    )


@on_disk
def test_a_download_that_fails_says_so(project: Project, monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_: object, **__: object) -> object:
        raise OSError("Name or service not known")

    monkeypatch.setattr(whisper, "_download", unreachable)
    resources._loaded.clear()
    project.place.put("p225/a.flac", flac())
    monkeypatch.setenv("WHISPER_MODEL", "tiny")
    project.reload()
    said = failure(project, "speech")
    assert "WHISPER_MODEL='tiny' cannot be used: it cannot be downloaded or read: Name or service" in said


# --- places ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AUDIO_SOURCE_URI", "AUDIO_TABLE_URI"])
@pytest.mark.parametrize(
    "uri",
    [
        "bucket/prefix",
        "/data/wavs",
        "s3:/bucket",
        "s3://",
        "file://host/folder",
        "https://host/bucket?sign=s3cr3t",
        "s3://me:s3cr3t@bucket/a",
        "s3://bucket/a//b",
        "s3://bucket//a",
        "s3://bucket/a//",
        "s3://bucket/a/../b",
    ],
)
def test_what_is_no_location_is_said_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, name: str, uri: str
):
    monkeypatch.setenv(name, uri)
    said = rf"{name} is no location; it should read like s3://bucket/prefix or file:///folder"
    with pytest.raises(ValueError, match=said) as e:
        read_table()
    assert "s3cr3t" not in str(e.value)


@on_disk
def test_a_location_with_credentials_in_it_is_refused_when_the_project_loads(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AUDIO_SOURCE_URI", "s3://me:s3cr3t@bucket/a")
    said = ""
    try:
        project.reload()
    except Exception:
        said = str(serializable_error_info_from_exc_info(sys.exc_info()))
    assert "AUDIO_SOURCE_URI is no location" in said
    assert "s3cr3t" not in said


@on_disk
@pytest.mark.parametrize("seconds", ["a minute", "inf", "nan", "1e300"])
def test_settle_seconds_that_are_no_time_fail_the_tick(
    project: Project, monkeypatch: pytest.MonkeyPatch, seconds: str
):
    monkeypatch.setenv("SETTLE_SECONDS", seconds)
    with pytest.raises(ValueError, match=f"SETTLE_SECONDS is a number of seconds, not '{seconds}'"):
        project.tick()


@on_disk
def test_tables_that_cannot_be_written_fail_tick_and_run_before_any_work(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, fetched: list[str]
):
    project.place.put("p225/a.flac", flac())
    (tmp_path / "file").touch()
    place = f"file://{tmp_path}/file/tables"
    monkeypatch.setenv("AUDIO_TABLE_URI", place)
    project.reload()
    with pytest.raises(StorageError, match=rf"cannot write {place}/: .* \(AUDIO_TABLE_URI\)"):
        project.tick()
    assert "(AUDIO_TABLE_URI)" in failure(project, "s3_inventory")
    assert not fetched


def test_a_folder_of_somebody_else_cannot_be_written():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "tables").mkdir()
        for path in (folder / "tables", folder):
            path.chmod(0o555)
        tables = ObjectStore((folder / "tables").as_uri(), name="AUDIO_TABLE_URI")
        with unprivileged():
            with pytest.raises(StorageError, match=r"Permission denied.*\(AUDIO_TABLE_URI\)"):
                _ = tables.conditional_writes
            with pytest.raises(StorageError, match=r"Permission denied.*\(AUDIO_TABLE_URI\)"):
                tables.replace("a/b.parquet", b"", None)
        for path in (folder, folder / "tables"):
            path.chmod(0o755)
        assert tables.conditional_writes
        assert not list((folder / "tables").iterdir())


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Root is refused nothing."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@on_disk
def test_a_full_disk_fails_the_tick_and_the_run_and_leaves_what_was_there(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        monkeypatch.setenv("AUDIO_TABLE_URI", disk.as_uri())
        project.place.put("p225/a.flac", flac())
        project.reload()
        assert project.catch_up() == 1
        before = {path: path.read_bytes() for path in disk.rglob("*.parquet")}
        assert len(before) == 4
        project.place.put("p225/b.flac", flac(seed=1))
        with contextlib.suppress(OSError), (disk / "else").open("wb") as file:
            while True:
                file.write(bytes(4096))
        project.reload()
        with pytest.raises(StorageError, match=r"No space left on device.*\(AUDIO_TABLE_URI\)"):
            project.tick()
        # As if the disk had only got full after that.
        monkeypatch.setattr(ObjectStore, "conditional_writes", True)
        assert "No space left on device" in failure(project, "s3_inventory")
        assert {path: path.read_bytes() for path in disk.rglob("*.parquet")} == before
        assert not list(disk.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# --- S3 -------------------------------------------------------------------------------------------------


@on_s3
def test_tables_in_a_bucket_that_is_not_there_fail_the_tick(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    project.place.put("p225/a.flac", flac())
    monkeypatch.setenv("AUDIO_TABLE_URI", "s3://no-such-bucket/tables")
    project.reload()
    with pytest.raises(StorageError, match=r"s3://no-such-bucket/tables/: NoSuchBucket.*\(AUDIO_TABLE_URI\)"):
        project.tick()


@on_s3
@pytest.mark.parametrize(
    "code", ["AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"]
)
def test_credentials_that_are_refused_fail_the_tick_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch, code: str
):
    with server_that_answers(403, code) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        project.reload()
        with pytest.raises(StorageError, match=rf"{code}: .*mend AWS_PROFILE or AWS_ACCESS_KEY_ID") as e:
            project.tick()
    assert "attempts" not in str(e.value)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("AWS_PROFILE", "nobody", "profile \\(nobody\\) could not be found"),
        ("AWS_ENDPOINT_URL_S3", "nonsense", "Invalid endpoint: nonsense"),
        ("AWS_ACCESS_KEY_ID", "alone", "missing: AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_aws_settings_that_lead_nowhere_are_said(
    s3: str, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, said: str
):
    if value == "alone":
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv(setting, value)
    with pytest.raises(ValueError, match=rf"AWS_.*do not reach s3://bucket/x.*{said}"):
        ObjectStore("s3://bucket/x")


def test_what_lies_in_the_home_of_whoever_runs_the_tests_changes_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[default\nno configuration")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ObjectStore("s3://bucket/x")
    # Were it read, it would be refused.
    monkeypatch.delenv("AWS_CONFIG_FILE")
    with pytest.raises(ValueError, match=r"AWS_.*do not reach s3://bucket/x"):
        ObjectStore("s3://bucket/x")


def test_a_store_that_ignores_conditions_is_warned_of(
    s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with server_that_answers(200) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        bucket = Bucket(source_uri="s3://bucket/a", table_uri=f"s3://bucket/{url[-5:]}", s3=S3Resource())
        bucket.check(logging.getLogger())
    assert "ignores If-Match and If-None-Match (AUDIO_TABLE_URI)" in caplog.text


def test_a_store_that_honours_conditions_is_asked_once_and_keeps_one_empty_object(s3_place: S3Place):
    for _ in range(2):
        assert ObjectStore(f"{s3_place.uri}/tables").conditional_writes
    assert s3_place.all_keys("tables/") == [f"tables/{WRITE_PROBE}"]


def test_a_store_that_deletes_under_conditions_keeps_the_object_that_shows_it(s3_place: S3Place):
    tables = ObjectStore(f"{s3_place.uri}/tables")
    assert tables.conditional_deletes
    s3_place.delete(f"tables/{WRITE_PROBE}")
    assert ObjectStore(f"{s3_place.uri}/tables").conditional_deletes
    assert s3_place.all_keys("tables/") == [f"tables/{WRITE_PROBE}"]


def test_a_store_that_ignores_the_condition_of_a_deletion_is_found_out(
    s3_place: S3Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    delete_without_conditions(monkeypatch)
    for _ in range(2):
        tables = ObjectStore(f"{s3_place.uri}/tables")
        assert tables.conditional_writes
        assert not tables.conditional_deletes
    bucket = Bucket(source_uri=s3_place.uri, table_uri=f"{s3_place.uri}/tables", s3=S3Resource())
    bucket.check(logging.getLogger())
    assert "ignores If-Match when a file is deleted (AUDIO_TABLE_URI)" in caplog.text
