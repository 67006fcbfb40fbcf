"""The services that `make dev` starts (webserver, daemon, code server), on a temporary instance."""

import contextlib
import dataclasses
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from audio_assets.cluster.local_cluster import free_port
from audio_assets.services import STOP
from audio_assets_tests.support.environment import NO_AWS_FILES, is_setting

T = TypeVar("T")

PROJECT = pathlib.Path(__file__).parents[2]
# Generous: the machine may be slow and busy with other tests. Nothing waits longer than it must.
START_SECONDS = 180
PATIENCE_SECONDS = 400
LISTEN = "0A"


class DagsterError(AssertionError):
    """GraphQL refused, or what a test waits for did not come about."""


@dataclasses.dataclass(frozen=True)
class DagsterDev:
    """The running services.

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
        pause = 0.25
        while not (seen := look()):
            if self._process.poll() is not None:
                raise DagsterError(f"all has ended; {self._said()}")
            if time.monotonic() > deadline:
                raise DagsterError(f"no {what} within {seconds} s; {self._said()}")
            # A look costs the services work, which whatever is waited for needs as well.
            time.sleep(pause)
            pause = min(1.2 * pause, 1.0)
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

    @property
    def pid(self) -> int:
        """The process id of what all of it descends from; its session, too."""
        return self._process.pid

    def kill(self) -> None:
        """Kill all of it at once, the processes of runs too, as a power cut does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

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
def dagster_dev(
    folder: pathlib.Path, environment: Mapping[str, str], home: pathlib.Path | None = None
) -> Iterator[DagsterDev]:
    """Start the services as `make dev` does, on an instance of its own.

    Args:
        folder: for the instance and the log; a `.env` in it is read.
        environment: the settings; those of whoever runs the tests do not count.
        home: an instance that exists already.
    """
    if home is None:
        home = folder / "home"
        home.mkdir()
        shutil.copy(PROJECT / "dagster.yaml", home)
    # The `.env` that is read lies beside pyproject.toml: here that of the test, not the developer's own.
    for name in ("pyproject.toml", "audio_assets"):
        if not (folder / name).exists():
            (folder / name).symlink_to(PROJECT / name)
    own = {name for name in os.environ if is_setting(name) or name.startswith("DAGSTER_")}
    clean = {name: value for name, value in os.environ.items() if name not in own}
    port = free_port("127.0.0.1")
    log = folder / "services.log"
    # The second of the two processes. It ends all as soon as its input closes: when the test run dies.
    command = [sys.executable, "-m", "audio_assets.services", "--supervised", "--port", str(port)]
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=clean | NO_AWS_FILES | {"DAGSTER_HOME": str(home), **environment},
            start_new_session=True,
        )
    running = DagsterDev(f"http://127.0.0.1:{port}", log, process)
    try:
        running.wait_for("UI with assets", running._loaded, START_SECONDS)
        yield running
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.communicate(STOP, timeout=60)
        running.kill()
