"""The identity of a process, asked about by another one."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from audio_assets import process_identity
from audio_assets.process_identity import is_alive, this_process

CODE = "from audio_assets.process_identity import this_process; print(this_process(), flush=True); input()"


@pytest.fixture(params=["by /proc", "by ps"])
def tell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways in which starts are found; other systems than Linux have no boot id to read."""
    code = CODE
    if request.param == "by ps":
        absent = pathlib.Path("/nowhere/boot_id")
        monkeypatch.setattr(process_identity, "_BOOT_ID", absent)
        code = (
            "import pathlib, audio_assets.process_identity as p;"
            f" p._BOOT_ID = pathlib.Path({str(absent)!r}); {CODE}"
        )
    return code


@pytest.fixture
def other(tell: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process, and what it says of itself."""
    with subprocess.Popen(
        [sys.executable, "-c", tell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        yield child, child.stdout.readline().strip()
        child.kill()


def test_this_process_lives(tell: str):
    assert is_alive(this_process()) is True


def test_another_process_lives_until_it_is_killed(other: tuple[subprocess.Popen[str], str]):
    child, identity = other
    assert is_alive(identity) is True
    child.kill()
    child.wait()
    assert is_alive(identity) is False


def test_a_killed_process_that_nobody_has_waited_for_is_dead(other: tuple[subprocess.Popen[str], str]):
    child, identity = other
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_alive(identity) is False


@pytest.mark.parametrize("part", [1, 3], ids=["another boot", "another start"])
def test_another_process_that_has_the_id_now_is_not_taken_for_it(tell: str, part: int):
    parts = this_process().split(maxsplit=3)
    parts[part] = "7"
    assert is_alive(" ".join(parts)) is False


@pytest.mark.parametrize("identity", ["", "otherhost/1 2 3 4", "words", "a b c d"])
def test_what_is_of_another_host_or_no_identity_is_not_judged(identity: str):
    assert is_alive(identity) is None


def test_the_same_host_name_on_another_machine_is_another_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
):
    monkeypatch.setattr(process_identity, "_MACHINE_IDS", (tmp_path / "id",))
    (tmp_path / "id").write_text("a\n")
    identity = this_process()
    assert is_alive(identity) is True
    (tmp_path / "id").write_text("b\n")
    assert is_alive(identity) is None
