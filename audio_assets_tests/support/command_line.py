"""The command `audio-assets` in the bare environment that cron gives, in this process or in one of its own.

A process imports Dagster and, if it transcribes, PyTorch: seconds, where the command itself takes one.
"""

import contextlib
import io
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from audio_assets.cli.__main__ import app
from audio_assets.settings import PROJECT
from audio_assets_tests.support.environment import NO_AWS_FILES, is_setting

Done = subprocess.CompletedProcess[str]


def in_process(folder: pathlib.Path, *arguments: str, module: str = "audio_assets.cli") -> Done:
    """Run it, or another module, as a process of its own in a folder."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(PROJECT), **NO_AWS_FILES},
        capture_output=True,
        text=True,
        timeout=300,
    )


def here(folder: pathlib.Path, *arguments: str) -> Done:
    """Run it in this process, which is afterwards as it was before."""
    said = io.StringIO()
    complained = io.StringIO()
    with _bare(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        code = _exit_code(arguments)
    return subprocess.CompletedProcess(arguments, code, said.getvalue(), complained.getvalue())


def _exit_code(arguments: tuple[str, ...]) -> Any:
    try:
        app(arguments, prog_name="audio-assets")
    except SystemExit as e:
        return e.code
    raise AssertionError("the command does not say how it ended")


@contextlib.contextmanager
def _bare(folder: pathlib.Path) -> Iterator[None]:
    environment = dict(os.environ)
    path = list(sys.path)
    started_in = pathlib.Path.cwd()
    for name in [name for name in environment if is_setting(name)]:
        del os.environ[name]
    os.environ.update(NO_AWS_FILES)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(started_in)
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environment)
