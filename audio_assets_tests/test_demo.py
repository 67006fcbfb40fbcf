"""What `make demo` runs, from an empty bucket to its exit status."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from audio_assets.demo.__main__ import main
from audio_assets.demo.make_sample import SAMPLE
from audio_assets.settings import PROJECT, SETTINGS

LAST_LINE = "Done in"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "home").mkdir()
    shutil.copy(PROJECT / "dagster.yaml", folder / "home")
    return folder


def in_process(folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """`python -m audio_assets.demo` with a bucket of its own."""
    command = (
        "import pathlib, sys; from audio_assets.demo.__main__ import main;"
        "sys.exit(main(pathlib.Path(sys.argv[1])))"
    )
    return subprocess.run(
        [sys.executable, "-c", command, str(folder / "bucket")],
        env=os.environ | broken(folder),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


def here(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> subprocess.CompletedProcess[str]:
    """The same in this process, which has PyTorch loaded by then."""
    for name, value in broken(folder).items():
        monkeypatch.setenv(name, value)
    code = main(folder / "bucket")
    return subprocess.CompletedProcess([], code, capsys.readouterr().out)


def broken(folder: pathlib.Path) -> dict[str, str]:
    """What is set in the shell does not count in the demo. It would break it, whichever setting did."""
    return {setting.name: "lots" for setting in SETTINGS} | {"DAGSTER_HOME": str(folder / "home")}


@pytest.mark.xdist_group("demo")
def test_demo_fills_the_table_repeats_for_nothing_and_notices_what_is_wrong(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = folder / "bucket"

    first = in_process(folder)
    assert first.returncode == 0, first.stdout
    assert "26 new objects of 26" in first.stdout
    assert "p225@2023-08-24-00:21" in first.stdout
    assert "word error rate" in first.stdout
    assert LAST_LINE in first.stdout

    second = here(folder, monkeypatch, capsys)
    assert second.returncode == 0, second.stdout
    assert "0 new objects" in second.stdout
    assert "nothing to do" in second.stdout

    # A file of the table is lost: it is made again.
    [file] = bucket.glob("output_parquet/audio_table/FolderName=p226/**/*00-23.parquet")
    kept = file.read_bytes()
    file.unlink()
    lost = here(folder, monkeypatch, capsys)
    assert lost.returncode == 0, lost.stdout
    assert "runs: 1" in lost.stdout
    assert file.read_bytes() == kept

    # Somebody else's speech under the sample's name, uploaded in the same second.
    victim = bucket / "p225/p225_001_mic1.flac"
    other = SAMPLE / "p228/p228_005_mic1.flac"
    uploaded = victim.stat().st_mtime
    shutil.copyfile(other, victim)
    os.utime(victim, (uploaded, uploaded))
    exchanged = here(folder, monkeypatch, capsys)
    assert exchanged.returncode == 1, exchanged.stdout
    assert "runs: 1" in exchanged.stdout
    assert "WRONG: p225/p225_001_mic1.flac says 'Eight.', not 'S" in exchanged.stdout
