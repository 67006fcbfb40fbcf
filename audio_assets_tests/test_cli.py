"""The commands `audio-assets read` and `status`, and that asking for help does nothing."""

import csv
import dataclasses
import importlib
import io
import json
import os
import pathlib
import re
import shutil
import tomllib
from collections.abc import Iterator

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from rich.console import Console

from audio_assets import schema
from audio_assets.cli import completion
from audio_assets.cli.counts import FailedRow, count
from audio_assets.cli.export import as_term
from audio_assets.cli.project import open_project
from audio_assets.cli.rows import print_table
from audio_assets.cli.status import show, status
from audio_assets.definitions import defs
from audio_assets.demo.__main__ import read_truth
from audio_assets.demo.make_sample import SAMPLE
from audio_assets.settings import PROJECT
from audio_assets.storage import ObjectInfo
from audio_assets.table import Table
from audio_assets_tests.support.audio import flac
from audio_assets_tests.support.command_line import here, in_process
from audio_assets_tests.support.places import LocalPlace, Place
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.rows import at, row, write

LONG = "nine eight seven " * 40
COMMANDS = ("sync", "status", "read", "report", "export", "worst", "transcribe", "retire")


@pytest.fixture
def folder(local_place: LocalPlace, tmp_path: pathlib.Path) -> pathlib.Path:
    """A working directory whose `.env` names a table of two rows."""
    table = Table(local_place.store, "output_parquet/audio_table", schema.AUDIO_TABLE)
    said = row("p225/a.flac", transcribed_text=LONG, tokenized_info=[1, -2])
    write(table, at("p225"), said, row("p225/b.txt", status="not_flac"))
    work = tmp_path / "work"
    work.mkdir()
    (work / ".env").write_text(f"AUDIO_SOURCE_URI='{local_place.uri}'\nDAGSTER_HOME='{tmp_path}/home'\n")
    return work


def test_the_entry_point_is_there():
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["audio-assets"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize(
    "command",
    [
        ("audio_assets.cli", "--help"),
        *(("audio_assets.cli", name, "--help") for name in COMMANDS),
        ("audio_assets.demo", "--help"),
    ],
)
def test_help_does_nothing(folder: pathlib.Path, tmp_path: pathlib.Path, command: tuple[str, ...]):
    before = sorted(tmp_path.rglob("*"))
    done = in_process(folder, *command[1:], module=command[0])
    assert done.returncode == 0, done.stderr
    assert command == ("audio_assets.cli", "--help") or "example" in done.stdout.lower()
    assert "Sample speech" not in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


# --- completion -----------------------------------------------------------------------------------------


def completed(folder: pathlib.Path, line: str) -> list[str]:
    """What a shell offers in the place of the last word of a line, empty after a blank."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = in_process(folder, environment={"_AUDIO_ASSETS_COMPLETE": "complete_bash", **asked})
    assert done.stderr == ""
    return done.stdout.split()


def test_a_shell_completes_commands_options_folders_and_columns(folder: pathlib.Path):
    assert completed(folder, "audio-assets re") == ["read", "retire", "report"]
    assert completed(folder, "audio-assets read --col") == ["--columns"]
    assert completed(folder, "audio-assets read p2") == ["p225"]
    assert completed(folder, "audio-assets worst --folder ") == ["p225"]
    assert completed(folder, "audio-assets read --columns Key,tran") == ["Key,transcribed_text"]
    assert completed(folder, "audio-assets export --format n") == ["nemo"]


def test_a_folder_is_completed_by_nothing_and_without_a_word_where_the_settings_are_wrong(
    folder: pathlib.Path,
):
    (folder / ".env").write_text("AUDIO_SOURCE_URI=nowhere\n")
    assert completed(folder, "audio-assets read p2") == []


@pytest.mark.parametrize(("requests", "found"), [(20, ["a b", "p1", "p2", "p3"]), (2, ["a b", "p1"])])
def test_folders_are_found_by_a_request_each_and_few_of_them(
    place: Place, monkeypatch: pytest.MonkeyPatch, requests: int, found: list[str]
):
    table = Table(place.store, "audio_table", schema.AUDIO_TABLE)
    for name in ("a b", "p1", "p2", "p3"):
        for minute in range(3):
            write(table, at(name, minute), row(f"{name}/a.flac"))
    scan = place.store.scan
    monkeypatch.setattr(place.store, "scan", lambda *asked: by_two(scan(*asked)))
    monkeypatch.setattr("audio_assets.read.open_audio_table", lambda: table)
    monkeypatch.setattr("audio_assets.cli.command.use_settings", lambda: None)
    monkeypatch.setattr(completion, "REQUESTS", requests)
    assert completion.folders("") == found
    assert completion.folders("p") == [name for name in found if name.startswith("p")]


def by_two(pages: Iterator[tuple[str, list[ObjectInfo]]]) -> Iterator[tuple[str, list[ObjectInfo]]]:
    """A listing in pages of two objects."""
    listed = [info for _, page in pages for info in page]
    for first in range(0, len(listed), 2):
        page = listed[first : first + 2]
        yield page[-1].key, page


# --- read -----------------------------------------------------------------------------------------------


def test_read_gives_csv_to_a_pipe_with_every_value_in_full(folder: pathlib.Path):
    done = in_process(folder, "read", "p225")
    assert done.stderr.strip().endswith("/output_parquet/audio_table")
    spoken, other = csv.DictReader(io.StringIO(done.stdout))
    assert spoken["transcribed_text"] == LONG
    assert spoken["tokenized_info"] == "[1, -2]"
    assert (other["status"], other["transcribed_text"]) == ("not_flac", "")


def test_read_gives_json_lines_of_the_columns_and_rows_asked_for(folder: pathlib.Path):
    done = here(folder, "read", "--json", "--columns", "Key,LastModified", "--limit", "1")
    [line] = done.stdout.splitlines()
    assert json.loads(line) == {"Key": "p225/a.flac", "LastModified": "2023-08-24T00:21:00+00:00"}


def test_report_makes_a_page_of_a_slice_where_it_was_told_to(folder: pathlib.Path):
    done = here(folder, "report", "a page", "--folder", "p225", "--audio", "none")
    said, index = done.stdout.splitlines()
    assert said.startswith("2 rows, ")
    assert pathlib.Path(index) == folder / "a page" / "index.html"
    assert pathlib.Path(index).read_text().startswith("<!doctype html>")


def test_report_refuses_a_place_among_the_audio(folder: pathlib.Path, local_place: LocalPlace):
    done = here(folder, "report", str(local_place.folder / "page"))
    assert done.returncode == 2
    assert "lies in the source" in done.stderr
    assert not (local_place.folder / "page").exists()


# --- export ---------------------------------------------------------------------------------------------


@pytest.fixture
def clips(folder: pathlib.Path, local_place: LocalPlace) -> pathlib.Path:
    """The same working directory, with 20 clips of which two are no speech, and one is not heard."""
    table = Table(local_place.store, "output_parquet/audio_table", schema.AUDIO_TABLE)
    made = []
    for i in range(20):
        local_place.put(f"p226/{i:02}.flac", flac(0.05, seed=i))
        info = local_place.store.find(f"p226/{i:02}.flac")
        assert info
        heard = dict(no_speech_prob=0.9 if i < 2 else 0.1, duration_s=0.05, language="en")
        heard |= dict(transcribed_text=f"clip {i}", sample_rate_hz=16_000, channels=1)
        found = dict(ETag=info.etag, Size=info.size, LastModified=info.last_modified)
        made.append(row(info.key, **heard, **found))
    write(table, at("p226"), *made, row("p226/x.txt", status="not_flac"))
    return folder


def test_export_writes_shards_and_says_what_was_left_out_and_why(clips: pathlib.Path):
    wanted = ("export", "p226", "--to", "my shards", "--split-by", "key", "--validation", "0.3")
    done = here(clips, *wanted, "--filter", "no_speech_prob < 0.5")
    assert done.returncode == 0, done.stderr
    first, files, *left_out, place = done.stdout.splitlines()
    assert first.startswith("18 rows (")
    assert "validation" in first
    assert " written; " in files
    assert "left out: 3" in left_out[0]
    assert re.search(r"refused by the filter +2", done.stdout)
    assert re.search(r"status is not ok +1", done.stdout)
    assert place == str(clips / "my shards")
    shards = sorted((clips / "my shards").rglob("*.parquet"))
    assert sum(pq.read_metadata(path).num_rows for path in shards) == 18
    # Again, nothing is written.
    again = here(clips, *wanted, "--filter", "no_speech_prob < 0.5")
    assert " unchanged; " in again.stdout
    assert "written" not in again.stdout


@pytest.mark.parametrize(("format", "name"), [("nemo", "train.jsonl"), ("lhotse", "train.jsonl.gz")])
def test_export_writes_manifests(clips: pathlib.Path, format: str, name: str):
    shares = ("--validation", "0", "--test", "0")
    done = here(clips, "export", "p226", "--format", format, "--to", "out", *shares)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("20 rows (train 20)")
    assert [path.name for path in (clips / "out").iterdir()] == [name]


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("--filter", "duration_s"), "is no term; it should read like", 2),
        (("--filter", "seconds < 3"), "does not fit the columns", 2),
        (("--start", "soon"), "--start 'soon' is no moment", 2),
        (("--validation", "0.6", "--test", "0.6"), "are more than all", 2),
        (("p999",), "has no folder 'p999'", 1),
    ],
)
def test_export_refuses_in_words(clips: pathlib.Path, arguments: tuple[str, ...], message: str, code: int):
    done = here(clips, "export", "--to", "out", *arguments)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert not (clips / "out").exists()


def test_export_refuses_a_place_among_the_audio(clips: pathlib.Path, local_place: LocalPlace):
    done = here(clips, "export", "--to", str(local_place.folder / "shards"))
    assert done.returncode == 2
    assert "lies in the source" in done.stderr


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("duration_s<=30", ("duration_s", "<=", 30)),
        ("language == en", ("language", "==", "en")),
        ('language not in ["en", "de"]', ("language", "not in", ["en", "de"])),
        ('transcribed_text != ""', ("transcribed_text", "!=", "")),
    ],
)
def test_a_filter_reads_like_a_comparison(text: str, term: tuple[str, str, object]):
    assert as_term(text) == term


# --- worst ----------------------------------------------------------------------------------------------


def test_worst_prints_the_least_sure_rows_of_all_partitions(folder: pathlib.Path, local_place: LocalPlace):
    table = Table(local_place.store, "output_parquet/audio_table", schema.AUDIO_TABLE)
    for minutes in range(3):
        key = f"p226/{minutes}.flac"
        sure = row(key, avg_logprob=-0.5 + minutes / 4, transcribed_text=LONG)
        write(table, at("p226", minutes), sure, row(f"p226/bad{minutes}.flac", status="failed"))
    done = here(folder, "worst", "-n", "2", "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["Key"] for one in found] == ["p226/0.flac", "p226/1.flac"]
    assert found[0]["transcribed_text"] == LONG


def test_transcribe_says_what_is_heard_in_files_and_which_cannot_be_read(tmp_path: pathlib.Path):
    spoken = SAMPLE / "p226" / "p226_001_mic1.flac"
    samples, rate = soundfile.read(spoken)
    soundfile.write(tmp_path / "same.wav", samples, rate)
    (tmp_path / "notes.txt").write_text("no audio")
    files = (str(spoken), "same.wav", "notes.txt", "absent.flac")
    done = here(tmp_path, "transcribe", *files, "--json")
    heard = {one["file"]: one for one in map(json.loads, done.stdout.splitlines())}
    truth = {sample.key: sample.text for sample in read_truth()}["p226/p226_001_mic1.flac"]
    assert {name: one["text"] for name, one in heard.items()} == {str(spoken): truth, "same.wav": truth}
    assert heard["same.wav"]["segments"][0]["end_s"] > 0
    assert done.returncode == 1
    assert "notes.txt: no audio that libsndfile reads" in done.stderr
    assert "absent.flac: No such file" in done.stderr
    assert "--model turbo" in done.stderr


def test_transcribe_says_when_each_word_was_said_where_asked(tmp_path: pathlib.Path):
    spoken = str(SAMPLE / "p226" / "p226_001_mic1.flac")
    plain, timed = (
        json.loads(here(tmp_path, "transcribe", spoken, "--json", *more).stdout)
        for more in ((), ("--words",))
    )
    assert "words" not in plain["segments"][0]
    [segment] = timed["segments"]
    assert "".join(word["word"] for word in segment["words"]).strip() == timed["text"] == plain["text"]
    ends = [word["end_s"] for word in segment["words"]]
    assert ends == sorted(ends)
    assert 0 < ends[-1] <= timed["duration_s"]


@pytest.mark.parametrize("wrong", [("--start", "soon"), ("--columns", "Key,Key"), ("--csv", "--json")])
def test_read_refuses_what_it_does_not_understand_in_one_sentence(
    folder: pathlib.Path, wrong: tuple[str, ...]
):
    done = here(folder, "read", *wrong)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("audio-assets: ")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("p252",), r"audio_table has no folder 'p252'; the nearest that it has: 'p225'"),
        (("p225", "--start", "2030-01-01"), ""),
    ],
)
def test_read_fails_where_the_table_has_no_such_folder_but_not_where_a_slice_is_empty(
    folder: pathlib.Path, asked: tuple[str, ...], said: str
):
    done = here(folder, "read", *asked)
    assert done.returncode == (1 if said else 0)
    assert len(done.stdout.splitlines()) == (0 if said else 1)
    # Besides the line that says which table it is.
    assert re.fullmatch(rf"\S+\n{f'audio-assets: .*{said}' if said else ''}\n?", done.stderr)


def test_read_fails_where_there_is_no_table(folder: pathlib.Path, local_place: LocalPlace):
    shutil.rmtree(local_place.folder / "output_parquet")
    done = here(folder, "read", "--json")
    assert done.returncode == 1
    assert "audio_table has no rows; is AUDIO_TABLE_URI right" in done.stderr
    assert done.stdout == ""


def test_counts_read_no_file_that_a_record_speaks_of(local_place: LocalPlace):
    table = Table(local_place.store, "audio_table", schema.AUDIO_TABLE)
    good = (row("p225/a.flac", duration_s=2.5, whisper_model="m"), row("p225/b.txt", status="not_flac"))
    write(table, at("p225"), *good)
    write(table, at("p226"), row("p226/a.flac", status="failed", error="cut off", duration_s=1.0))
    write(table, at("p227"), row("p227/a.flac", duration_s=4.0))
    # Its path does not name the folder.
    long = "d" * 300
    write(table, at(long), row(f"{long}/a.flac", duration_s=8.0))
    from_files = count(table, {})
    assert from_files.files_read == 4
    assert set(from_files.records) == {at(f).key for f in ("p225", "p226", "p227", long)}
    assert count(table, from_files.records) == dataclasses.replace(from_files, files_read=1)
    assert from_files.statuses == {"ok": 3, "failed": 1, "not_flac": 1}
    assert from_files.audio_s == 15.5
    assert from_files.failed == [FailedRow(at("p226").key, "p226/a.flac", "cut off")]

    older = dict(from_files.records)
    older[at("p225").key] = dataclasses.replace(older[at("p225").key], audio_s=None)
    assert count(table, older) == dataclasses.replace(from_files, files_read=2)
    write(table, at("p227"), row("p227/a.flac", duration_s=5.0))
    assert count(table, from_files.records).audio_s == 16.5
    assert count(table, from_files.records).files_read == 2


def test_a_terminal_shows_every_text_in_full_and_obeys_none():
    out = io.StringIO()
    rows = pa.table({"Key": ["a\x1b[31m", "[bold]b"], "text": [LONG, None]})
    print_table(Console(file=out, force_terminal=True, width=80), rows, more=True)
    shown = out.getvalue()
    assert shown.count("nine") == shown.count("seven") == 40
    assert "…" not in shown
    assert "a\N{REPLACEMENT CHARACTER}[31m" in shown
    assert "[bold]b" in shown
    assert "2 rows; there are more" in shown


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_status_says_what_waits_failed_is_stale_and_runs(project: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_HOME", project.instance.root_directory)
    project.place.put("p225/a.flac", flac())
    project.place.put("p225/bad.flac", b"fLaC")
    project.catch_up()
    project.place.put("p226/new.txt")
    files = sorted(os.walk(project.place.folder))  # type: ignore[attr-defined]

    def look() -> tuple[dict, str]:
        out = io.StringIO()
        with open_project(defs()) as opened:
            found = status(opened)
        show(Console(file=out, width=200), found)
        return json.loads(json.dumps(found.as_json())), out.getvalue()

    found, shown = look()
    assert found["rows"] == {"ok": 1, "failed": 1}
    [waiting] = found["waiting"]
    assert waiting.startswith("p226")
    [failed] = found["failed_rows"]
    assert failed["key"] == "p225/bad.flac"
    assert failed["error"] in shown
    assert found["stale"] == {}
    assert found["running"] == found["failed_runs"] == []
    assert (found["looked"], found["daemon_lives"]) == (None, False)
    assert "none lives" in shown
    # To look changes nothing.
    assert sorted(os.walk(project.place.folder)) == files  # type: ignore[attr-defined]
    assert waiting not in project.partition_keys

    monkeypatch.setenv("WHISPER_LANGUAGE", "en")
    found, shown = look()
    [(partition, rows)] = found["stale"].items()
    assert partition.startswith("p225")
    assert rows >= 1
    assert "Stale rows" in shown

    monkeypatch.setenv("WHISPER_LANGUAGE", "auto")
    monkeypatch.setenv("WHISPER_MODEL", "no-such-model")
    project.reload()
    project.run(waiting)
    monkeypatch.delenv("WHISPER_MODEL")
    found, shown = look()
    [run_] = found["failed_runs"]
    assert "WHISPER_MODEL='no-such-model'" in run_["error"]
    assert run_["status"] == dg.DagsterRunStatus.FAILURE.value
    assert run_["id"] in shown
