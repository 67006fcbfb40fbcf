"""The commands `audio-assets read` and `status`, and that asking for help does nothing."""

import csv
import importlib
import io
import json
import os
import pathlib
import tomllib

import dagster as dg
import pyarrow as pa
import pytest
from rich.console import Console

from audio_assets import schema
from audio_assets.cli.project import open_project
from audio_assets.cli.rows import print_table
from audio_assets.cli.status import show, status
from audio_assets.definitions import defs
from audio_assets.settings import PROJECT
from audio_assets.table import Table
from audio_assets_tests.support.audio import flac
from audio_assets_tests.support.command_line import here, in_process
from audio_assets_tests.support.places import LocalPlace
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.rows import at, row, write

LONG = "nine eight seven " * 40


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
        *(("audio_assets.cli", name, "--help") for name in ("sync", "status", "read", "retire")),
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


@pytest.mark.parametrize("wrong", [("--start", "soon"), ("--columns", "Key,Key"), ("--csv", "--json")])
def test_read_refuses_what_it_does_not_understand_in_one_sentence(
    folder: pathlib.Path, wrong: tuple[str, ...]
):
    done = here(folder, "read", *wrong)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("audio-assets: ")


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
