"""`audio-assets sync`: what sensor and runs do, in one process, until bucket and table agree."""

import collections
import datetime as dt
import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from rich.console import Console

from audio_assets.cli.counts import count
from audio_assets.cli.project import open_project
from audio_assets.cli.sync import Result, Sync
from audio_assets.cli.sync_display import Display
from audio_assets.cli.sync_summary import summarise
from audio_assets.definitions import defs
from audio_assets.defs.audio_table_daily import DAILY, EQUALS_AUDIO_TABLE
from audio_assets.defs.check_results import last_looked
from audio_assets.defs.check_rules import CHECKS
from audio_assets.defs.partitions import AUDIO_TABLE
from audio_assets.partitions import SEPARATOR, FolderMinute
from audio_assets.read import daily_copy, open_audio_table
from audio_assets.settings import PROJECT
from audio_assets_tests.support.audio import UPLOADED, flac
from audio_assets_tests.support.checks import shown_result
from audio_assets_tests.support.command_line import here, in_process
from audio_assets_tests.support.environment import NO_AWS_FILES
from audio_assets_tests.support.places import Place
from audio_assets_tests.support.project import Project as Playground

pytestmark = pytest.mark.parametrize("place", ["local"], indirect=True)

KEY = FolderMinute("p225", UPLOADED.replace(second=0)).key


class Syncs:
    """Runs syncs on a playground, with a clock that goes on only while they sleep."""

    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        self.place = playground.place
        self.instance = playground.instance
        self.slept: list[float] = []
        self.said = io.StringIO()
        self.display: Display
        self.while_waiting: Callable[[], object] = lambda: None
        self.now = dt.datetime.now(dt.UTC).replace(second=10, microsecond=0)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += dt.timedelta(seconds=seconds)
        self.while_waiting()

    def __call__(self, **options: object) -> Result:
        self.said = io.StringIO()
        self.display = Display(Console(file=self.said, width=200))
        with open_project(defs()) as project:
            sync = Sync(project, self.display, sleep=self.sleep, clock=lambda: self.now, **options)  # type: ignore[arg-type]
            return sync.run()

    def table_keys(self) -> list[str]:
        return sorted(self.playground.table()["Key"])


@pytest.fixture
def sync(project: Playground, monkeypatch: pytest.MonkeyPatch) -> Syncs:
    monkeypatch.setenv("DAGSTER_HOME", project.instance.root_directory)
    return Syncs(project)


# --- the table becomes what the bucket says -------------------------------------------------------------


def test_the_table_becomes_what_the_bucket_says_and_stays_so_for_nothing(sync: Syncs):
    sync.place.put("p225/a.flac", flac())
    sync.place.put("p225/b.txt")
    sync.place.put("p226/c.txt")
    assert sync() == Result(runs=1, days=1)
    assert sync.table_keys() == ["p225/a.flac", "p225/b.txt", "p226/c.txt"]
    assert (sync.display.partitions, sync.display.clips) == (2, 1)
    assert sync() == Result(runs=0)
    assert "nothing to ask for now" in sync.said.getvalue()


@pytest.mark.parametrize("change", ["new", "overwritten", "deleted", "all gone"])
def test_a_change_is_followed(sync: Syncs, change: str):
    sync.place.put("p225/a.txt", b"1")
    sync.place.put("p225/b.txt", b"2")
    sync()
    if change == "new":
        sync.place.put("p226/c.txt", b"3")
    elif change == "overwritten":
        sync.place.put("p225/a.txt", b"4444")
    else:
        sync.place.delete("p225/a.txt")
    if change == "all gone":
        sync.place.delete("p225/b.txt")
    result = sync()
    assert result.runs == 1
    assert not result.differing
    found = sync.playground.table().set_index("Key")["Size"].to_dict()
    unchanged = {"p225/a.txt": 1, "p225/b.txt": 1}
    expected = {
        "new": unchanged | {"p226/c.txt": 1},
        "overwritten": unchanged | {"p225/a.txt": 4},
        "deleted": {"p225/b.txt": 1},
        "all gone": {},
    }
    assert found == expected[change]
    assert (KEY in sync.playground.partition_keys) == (change != "all gone")


def test_the_sensor_has_nothing_to_ask_for_afterwards(sync: Syncs):
    sync.place.put("p225/a.txt")
    sync()
    assert sync.playground.catch_up() == 0


def test_its_runs_are_those_of_the_sensor_and_of_the_code_location(sync: Syncs):
    sync.place.put("p225/a.txt")
    sync()
    runs = sync.instance.get_runs(dg.RunsFilter(tags={".dagster/repository": "__repository__@audio_assets"}))
    named = ("dagster/sensor_name", "dagster/partition")
    assert [(run.job_name, *map(run.tags.get, named)) for run in runs] == [
        ("compact_days", "changed_days", KEY.partition(SEPARATOR)[2][:10]),
        ("process_audio", "new_s3_keys", KEY),
    ]


def test_it_ends_with_the_daily_copy_fresh_though_the_day_is_open(sync: Syncs):
    sync.place.put("p225/a.txt", b"1", uploaded=sync.now - dt.timedelta(minutes=9))
    assert sync(wait=False) == Result(runs=1, days=1)
    sync.place.put("p226/b.txt", b"22", uploaded=sync.now - dt.timedelta(minutes=8))
    assert sync(wait=False) == Result(runs=1, days=1)
    copy = daily_copy(open_audio_table())
    [(day, info)] = copy.days().items()
    assert day == sync.now.date()
    assert copy.open(day, info).rows == 2
    assert "sensor changed_days asks for" in sync.said.getvalue()
    assert sync(wait=False) == Result()


# --- minutes that are open ------------------------------------------------------------------------------


def test_an_open_minute_is_waited_for(sync: Syncs):
    sync.place.put("p225/a.txt", uploaded=sync.now)
    assert sync() == Result(runs=1, days=1)
    # 50 s to the end of the minute, and the 60 s of SETTLE_SECONDS.
    assert sum(sync.slept) == 110
    assert "waiting for 1 open minutes" in sync.said.getvalue()
    assert sync.table_keys() == ["p225/a.txt"]


def test_an_open_minute_is_left_if_so_asked(sync: Syncs):
    sync.place.put("p225/a.txt", uploaded=sync.now)
    assert sync(wait=False) == Result(open=1)
    assert not sync.slept
    assert sync.playground.partition_keys == []


def test_what_is_uploaded_after_the_beginning_is_not_waited_for(sync: Syncs):
    """A bucket that audio keeps coming into would else keep a sync for ever."""
    sync.place.put("p225/a.txt", uploaded=sync.now)
    sync.while_waiting = lambda: sync.place.put(f"p225/{sync.now:%H%M%S}.txt", uploaded=sync.now)
    result = sync()
    assert result.runs == 1
    assert result.open >= 1
    assert sum(sync.slept) == 110
    assert "p225/a.txt" in sync.table_keys()


# --- runs that fail, and runs of others -----------------------------------------------------------------


def test_a_run_that_fails_is_made_again_and_may_succeed(sync: Syncs, monkeypatch: pytest.MonkeyPatch):
    sync.place.put("p225/a.txt")
    inventory = sync.playground.place.folder / "output_parquet" / "s3_inventory"  # type: ignore[attr-defined]
    inventory.parent.mkdir()
    inventory.write_text("no folder")
    sync.while_waiting = lambda: inventory.unlink(missing_ok=True)
    result = sync()
    assert result.runs == 2
    assert len(result.failed) == 1
    assert not result.differing
    assert "s3_inventory: failed:" in sync.said.getvalue()
    assert "is made again" in sync.said.getvalue()
    # As the sensor would.
    assert sum(sync.slept) == 60
    assert sync.table_keys() == ["p225/a.txt"]


def test_a_run_that_keeps_failing_is_given_up_after_its_tries_and_the_others_are_made(sync: Syncs):
    sync.place.put("p225/a.txt")
    sync.place.put("p226/b.txt")
    wrong = sync.playground.place.folder / "output_parquet" / "s3_inventory" / "FolderName=p225"  # type: ignore[attr-defined]
    wrong.parent.mkdir(parents=True)
    wrong.write_text("no folder")
    result = sync(retries=1)
    assert (result.runs, len(result.failed)) == (2, 2)
    assert KEY in result.differing
    # The same state is tried anew by another sync, whatever the delay of the sensor.
    again = sync(retries=0)
    assert again.runs == 1
    wrong.unlink()
    assert sync(retries=0) == Result(runs=1, days=1)


def test_a_run_of_somebody_else_is_waited_for_and_not_repeated(sync: Syncs):
    sync.place.put("p225/a.txt")
    [request] = sync.playground.tick()
    theirs = create_run_for_test(
        sync.instance,
        job_name="process_audio",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": KEY},
    )

    def they_finish() -> None:
        if sync.instance.get_run_by_id(theirs.run_id).is_finished:  # type: ignore[union-attr]
            return
        sync.playground.execute(request)
        sync.instance.report_run_canceled(theirs)

    sync.while_waiting = they_finish
    assert sync() == Result(days=1)
    assert "waiting for 1 other runs to end" in sync.said.getvalue()
    assert sync.table_keys() == ["p225/a.txt"]


def test_a_wrong_setting_of_the_model_is_said_before_a_run_is_made(
    sync: Syncs, monkeypatch: pytest.MonkeyPatch
):
    sync.place.put("p225/a.flac", flac())
    monkeypatch.setenv("WHISPER_MODEL", "no-such-model")
    with pytest.raises(ValueError, match="WHISPER_MODEL='no-such-model' is neither a file nor a model"):
        sync()
    assert sync.instance.get_runs() == []


# --- the asset checks -----------------------------------------------------------------------------------


def test_all_checks_have_results_once_a_sync_has_ended_and_hold_for_an_hour(sync: Syncs):
    sync.place.put("p225/a.flac", flac())
    sync.place.put("p225/bad.flac", b"fLaC")
    assert last_looked(sync.instance, CHECKS) is None
    sync()
    assert "9 of 10 asset checks passed" in sync.said.getvalue()
    assert "    failed_rows: " in sync.said.getvalue()
    looked = last_looked(sync.instance, CHECKS)
    assert looked is not None
    keys = [dg.AssetCheckKey(AUDIO_TABLE, name) for name in CHECKS]
    shown = sync.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    results = {str(key.name): execution.evaluation for key, execution in shown.items()}
    assert {name for name, result in results.items() if result and result.passed} == {*CHECKS} - {
        "failed_rows"
    }

    of_copy = dg.AssetCheckKey(DAILY, EQUALS_AUDIO_TABLE)
    before = shown_result(sync.instance, of_copy)
    assert before
    assert before.passed

    sync.place.put("p226/b.txt")
    sync()
    assert "asset checks" not in sync.said.getvalue()
    assert last_looked(sync.instance, CHECKS) == looked
    # Its day was compacted once more.
    after = shown_result(sync.instance, of_copy)
    assert after
    assert after.metadata == before.metadata
    sync.now += dt.timedelta(hours=1, minutes=1)
    sync()
    assert "asset checks passed" in sync.said.getvalue()


# --- what is shown --------------------------------------------------------------------------------------


def test_the_bar_counts_partitions_clips_and_seconds_and_steps_do_not_interrupt_it(sync: Syncs):
    sync.place.put("p225/a.flac", flac())
    sync.place.put("p226/b.txt")
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=True, width=160))
    with open_project(defs()) as project:
        Sync(project, display).run()
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "2/2 partitions, 1 clips" in shown
    assert "Finished execution of step" not in shown


def test_without_a_terminal_each_step_is_a_line_and_there_once(sync: Syncs):
    sync.place.put("p225/a.flac", flac())
    sync()
    lines = sync.said.getvalue().splitlines()
    assert f"  sensor new_s3_keys asks for {KEY}" in lines
    assert "\x1b" not in sync.said.getvalue()
    repeated = [line for line, times in collections.Counter(lines).items() if times > 1]
    assert not repeated
    # The three of process_audio, and the compaction of the day.
    assert sum("Finished execution of step" in line for line in lines) == 4


def test_the_summary_names_failed_rows_and_strict_makes_them_a_failure(sync: Syncs):
    sync.place.put("p225/a.flac", flac())
    sync.place.put("p225/bad.flac", b"fLaC")
    result = sync()
    with open_project(defs()) as project:
        counts = count(project.bucket.audio_table, {})
    assert summarise(sync.display, result, counts, "s3://b/audio_table", 1.0)
    assert not summarise(sync.display, result, counts, "s3://b/audio_table", 1.0, strict=True)
    said = sync.said.getvalue()
    assert "2 (1 failed, 1 ok)" in said
    assert "s3://b/audio_table" in said
    assert "WARNING: 1 rows failed" in said
    assert "FAILED: 1 rows failed" in said
    assert "p225/bad.flac: " in said


def test_a_bucket_without_audio_is_a_warning(sync: Syncs):
    sync.place.put("p225/a.wav", b"RIFF")
    result = sync()
    with open_project(defs()) as project:
        counts = count(project.bucket.audio_table, {})
    assert summarise(sync.display, result, counts, "s3://b/audio_table", 1.0)
    assert "WARNING: no object is of an audio format" in sync.said.getvalue()
    assert "no object is of an audio format, so nothing is transcribed" in sync.said.getvalue()


def test_partitions_that_still_differ_are_a_failure(sync: Syncs):
    sync.place.put("p225/a.txt")
    sync()
    with open_project(defs()) as project:
        counts = count(project.bucket.audio_table, {})
    assert not summarise(sync.display, Result(differing={KEY}, failed=["run"]), counts, "", 1.0)
    assert f"such as {KEY}" in sync.said.getvalue()


# --- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def workdir(tmp_path: pathlib.Path, place: Place) -> pathlib.Path:
    """A working directory with a `.env` for the place and an instance of its own."""
    folder = tmp_path / "work"
    folder.mkdir()
    home = tmp_path / "dagster_home"
    (folder / ".env").write_text(f"AUDIO_SOURCE_URI='{place.uri}'\nDAGSTER_HOME='{home}'\n")
    return folder


def test_cron_needs_nothing_but_the_env_file(workdir: pathlib.Path, place: Place, tmp_path: pathlib.Path):
    place.put("p225/a.flac", flac())
    # A tokeniser of one's own lies beside `.env`.
    (workdir / "loud.py").write_text(
        "def tokenise(audio):\n    return [1, 2]\ntokenise.identity = 'loud 1'\n"
    )
    with (workdir / ".env").open("a") as env:
        env.write("TOKENISER=loud:tokenise\n")
    # As if the project lay here: its `.env` is read from any working directory, such as that of cron.
    for name in ("audio_assets", "dagster.yaml", "pyproject.toml"):
        (workdir / name).symlink_to(PROJECT / name)
    home = tmp_path / "home"
    home.mkdir()
    cron = {"HOME": str(home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "PYTHONPATH": str(workdir)}
    done = in_process(pathlib.Path("/"), "sync", environment=cron)
    assert done.returncode == 0, done.stderr
    assert f"{place.uri}/output_parquet/audio_table" in done.stdout.splitlines()[0]
    assert "1 (1 ok)" in done.stdout
    assert done.stderr == ""
    # The instance is made as `make` makes it.
    made = tmp_path / "dagster_home" / "dagster.yaml"
    assert made.read_text() == (PROJECT / "dagster.yaml").read_text()


def test_a_source_is_a_folder_of_the_working_directory_or_a_uri(
    workdir: pathlib.Path, tmp_path: pathlib.Path
):
    other = workdir / "other wavs" / "x"
    other.mkdir(parents=True)
    (other / "a.txt").write_text("x")
    os.utime(other / "a.txt", (0, 0))
    done = here(workdir, "sync", "other wavs")
    assert done.returncode == 0, done.stderr
    assert list((workdir / "other wavs" / "output_parquet" / "audio_table").rglob("*.parquet"))


def test_another_source_never_writes_into_the_table_of_the_first(workdir: pathlib.Path, place: Place):
    other = workdir / "other"
    (other / "p225").mkdir(parents=True)
    (other / "p225/a.flac").write_bytes(flac())
    # Its minute is over, so that `sync` has nothing to wait for.
    os.utime(other / "p225/a.flac", (1e9, 1e9))
    with (workdir / ".env").open("a") as env:
        env.write(f"AUDIO_TABLE_URI={workdir.as_uri()}/tables\n")
    refused = here(workdir, "sync", str(other))
    assert refused.returncode == 2
    assert "say with --table where the tables of" in refused.stderr
    named = here(workdir, "sync", str(other), "--table", "elsewhere")
    assert named.returncode == 0, named.stderr
    assert f"{workdir.as_uri()}/elsewhere/audio_table" in named.stdout


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("AUDIO_SOURCE_URI=s3://me:s3cr3t@bucket", "AUDIO_SOURCE_URI is no location"),
        ("SETTLE_SECONDS=soon", "SETTLE_SECONDS is a number of seconds, not 'soon'"),
        ("WHISPER_MODEL=no-such", "WHISPER_MODEL='no-such' is neither a file nor a model"),
        ("TOKENISER=no.such:thing", "TOKENISER='no.such:thing'"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_exit_code_2(
    workdir: pathlib.Path, place: Place, setting: str, said: str
):
    place.put("p225/a.flac", flac())
    with (workdir / ".env").open("a") as env:
        env.write(f"{setting}\n")
    done = here(workdir, "sync")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert said in line
    assert "s3cr3t" not in done.stdout + done.stderr


def test_wrong_usage_is_exit_code_2(workdir: pathlib.Path):
    assert in_process(workdir, "sync", "--no-such-option").returncode == 2
    assert here(workdir, "sync", "--retries", "-1").returncode == 2


def test_a_failed_run_is_exit_code_1_and_strict_counts_failed_rows(workdir: pathlib.Path, place: Place):
    place.put("p225/bad.flac", b"fLaC")
    assert here(workdir, "sync").returncode == 0
    assert here(workdir, "sync", "--strict").returncode == 1
    place.put("p226/a.txt")
    wrong = pathlib.Path(place.folder, "output_parquet", "s3_inventory", "FolderName=p226")  # type: ignore[attr-defined]
    wrong.write_text("no folder")
    failed = here(workdir, "sync", "--retries", "0")
    assert failed.returncode == 1
    assert "s3_inventory: failed:" in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr


def test_a_sync_that_is_ended_leaves_no_run_that_seems_to_go_on(
    workdir: pathlib.Path, place: Place, tmp_path: pathlib.Path
):
    place.put("p225/a.flac", flac())
    (workdir / "slow.py").write_text(
        "import time, pathlib\n"
        "def tokenise(audio):\n    pathlib.Path('begun').touch(); time.sleep(5); return [1]\n"
    )
    with (workdir / ".env").open("a") as env:
        env.write("TOKENISER=slow:tokenise\n")
    with subprocess.Popen(
        [sys.executable, "-m", "audio_assets.cli", "sync"],
        cwd=workdir,
        env={"PYTHONPATH": str(PROJECT), **NO_AWS_FILES},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A group of its own has not been told to ignore signals.
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not (workdir / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, complaint = process.communicate(timeout=60)
    assert_ended(process.returncode, complaint, tmp_path / "dagster_home")


def test_a_sync_that_is_interrupted_leaves_no_run_that_seems_to_go_on(
    workdir: pathlib.Path, place: Place, tmp_path: pathlib.Path
):
    place.put("p225/a.flac", flac())
    (workdir / "interrupting.py").write_text(
        "import os, signal, time\n"
        "def tokenise(audio):\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(1); return [1]\n"
    )
    with (workdir / ".env").open("a") as env:
        env.write("TOKENISER=interrupting:tokenise\n")
    done = here(workdir, "sync")
    assert_ended(done.returncode, done.stderr, tmp_path / "dagster_home")


def assert_ended(code: int, complaint: str, home: pathlib.Path) -> None:
    """It ended as what is interrupted ends, and so did its run."""
    assert code == 130
    assert "interrupted; what is done stays" in complaint
    assert "Traceback" not in complaint
    with dg.DagsterInstance.from_config(str(home)) as instance:
        [run] = instance.get_runs()
        assert run.is_finished
        assert not run.is_success
