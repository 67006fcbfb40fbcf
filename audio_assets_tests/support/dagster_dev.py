"""A real `dg dev` (webserver, daemon, code server) on a temporary instance, that surely ends.

    python dagster_dev.py <command>    run a command until standard input closes, then end all it started

`dg dev` ends by SIGINT, which a process that was started in the background ignores, and a test run that is
killed cannot clean up. So a process stands between both; it notices when the test run is gone.
"""

import contextlib
import dataclasses
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

PROJECT = pathlib.Path(__file__).parents[2]
# Generous: the machine may be slow and busy with other tests. Nothing waits longer than it must.
START_SECONDS = 180
PATIENCE_SECONDS = 180
LISTEN = "0A"


class DagsterError(AssertionError):
    """GraphQL refused, or what a test waits for did not come about."""


@dataclasses.dataclass(frozen=True)
class DagsterDev:
    """A running `dg dev`.

    Attributes:
        url: of its UI.
        log: the file with what it prints.
    """

    url: str
    log: pathlib.Path
    _process: subprocess.Popen[bytes]

    def query(self, document: str, **variables: object) -> Any:
        """The data that GraphQL answers with, as the UI gets it."""
        body = json.dumps({"query": document, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as e:
            answer = json.load(e)
        if answer.get("errors"):
            raise DagsterError(answer["errors"])
        return answer["data"]

    def wait_for(self, what: str, look: Callable[[], T | None], seconds: float = PATIENCE_SECONDS) -> T:
        """Look until there is something to see, and give that."""
        deadline = time.monotonic() + seconds
        while not (seen := look()):
            if self._process.poll() is not None:
                raise DagsterError(f"dg dev has ended; {self._said()}")
            if time.monotonic() > deadline:
                raise DagsterError(f"no {what} within {seconds} s; {self._said()}")
            time.sleep(0.25)
        return seen

    def listening(self) -> set[tuple[str, int]]:
        """Addresses and ports on which it and all that it started listen, as Linux tells them."""
        family = {self._process.pid}
        parents = dict(_processes())
        while grown := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= grown
        sockets = set()
        for pid in family:
            with contextlib.suppress(OSError):
                sockets |= {os.readlink(fd) for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir()}
        found = set()
        for table in ("tcp", "tcp6"):
            for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN and f"socket:[{fields[9]}]" in sockets:
                    address, port = fields[1].split(":")
                    words = (bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8))
                    found.add((str(ipaddress.ip_address(b"".join(words))), int(port, 16)))
        return found

    def _said(self) -> str:
        return f"it said:\n{self.log.read_text(errors='replace')[-6000:]}"

    def _loaded(self) -> bool:
        try:
            return bool(self.query("{ assetNodes { id } }")["assetNodes"])
        except OSError:
            return False


def _processes() -> Iterator[tuple[int, int]]:
    """All processes of this machine, each with its parent."""
    for path in pathlib.Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(path.name), int((path / "stat").read_text().rpartition(")")[2].split()[1])


@contextlib.contextmanager
def dagster_dev(folder: pathlib.Path, environment: Mapping[str, str]) -> Iterator[DagsterDev]:
    """Start `dg dev` as `make dev` does, on an instance of its own.

    Args:
        folder: for the instance and the log; a `.env` in it is read.
        environment: the settings; those of whoever runs the tests do not count.
    """
    # Not at the top: this file also runs as a command, which knows its own folder alone.
    from audio_assets_tests.support.environment import NO_AWS_FILES, is_setting

    home = folder / "home"
    home.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home)
    # `dg` reads the `.env` beside pyproject.toml: here that of the test, not the developer's own.
    for name in ("pyproject.toml", "audio_assets"):
        (folder / name).symlink_to(PROJECT / name)
    own = {name for name in os.environ if is_setting(name) or name.startswith("DAGSTER_")}
    clean = {name: value for name, value in os.environ.items() if name not in own}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dev = [str(pathlib.Path(sys.executable).with_name("dg")), "dev", "--port", str(port)]
    log = folder / "dg_dev.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, __file__, *dev],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=clean | NO_AWS_FILES | {"DAGSTER_HOME": str(home), **environment},
            # What ends the test run as a whole must leave the one alive that cleans up after it.
            start_new_session=True,
        )
    running = DagsterDev(f"http://127.0.0.1:{port}", log, process)
    try:
        running.wait_for("UI with assets", running._loaded, START_SECONDS)
        yield running
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)


def _supervise(command: list[str]) -> int:
    # A handler of our own is not inherited, being ignored would be.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def end_with_input() -> None:
        sys.stdin.buffer.read()
        _kill_group(child.pid, signal.SIGINT)
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            _kill_group(child.pid, signal.SIGKILL)

    threading.Thread(target=end_with_input, daemon=True).start()
    code = child.wait()
    _kill_group(child.pid, signal.SIGKILL)
    return code


def _kill_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(_supervise(sys.argv[1:]))
