"""Ray clusters for tests: nodes on this machine, whose processes are found again by a variable."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping

from audio_assets.cluster.local_cluster import start_head
from audio_assets.settings import PROJECT
from audio_assets_tests.support.environment import NO_AWS_FILES

TOKEN = "a-token-of-the-tests-that-is-long-enough"
_MARK = "AUDIO_ASSETS_TEST_CLUSTER"
ACTOR = b"ray::SpeechActor"
RAYLET = b"raylet/raylet"
# What a node needs of the object store at the least.
_STORE_BYTES = 80 * 2**20


@dataclasses.dataclass
class RayCluster:
    """A head and further nodes on this machine.

    Attributes:
        folder: of Ray's files; its name is the mark by which the processes are found.
    """

    folder: pathlib.Path
    address: str = ""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def running(cls, *, gpus: int, environment: Mapping[str, str] | None = None) -> Iterator["RayCluster"]:
        """A head with logical GPUs, and nothing left of it afterwards."""
        # Short: Ray puts sockets below it.
        folder = pathlib.Path(tempfile.mkdtemp(prefix="ray-"))
        kept = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
        cluster = cls(
            folder,
            environment=kept
            | NO_AWS_FILES
            | {
                _MARK: folder.name,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": TOKEN,
                "PYTHONPATH": str(PROJECT),
                # A node starts processes ahead of need; each imports Ray.
                "RAY_enable_worker_prestart": "0",
                "RAY_prestart_worker_first_driver": "0",
            }
            | dict(environment or {}),
        )
        try:
            cluster.start_head(gpus)
            yield cluster
        finally:
            cluster.kill()
            shutil.rmtree(folder, ignore_errors=True)

    def start_head(self, gpus: int) -> None:
        """Start a head, at the address of the last one if there was one."""
        port = int(self.address.rpartition(":")[2]) if self.address else None
        self.address = start_head(_options(self.folder, gpus), self.environment, port)

    def add_node(self, number: int, gpus: int) -> None:
        """Start a further node, as a machine of its own would be."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={self.address}"]
        host = f"--node-ip-address=127.0.0.{2 + number}"
        environment = self.environment | {_MARK: f"{self.folder.name}-{number}"}
        command += [host, *_options(None, gpus)]
        # A head that has just begun may take longer for its first answer than a node waits for it.
        said = ""
        for _ in range(3):
            started = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=120, check=False
            )
            if not started.returncode:
                return
            said = f"{started.stdout} {started.stderr}"
        raise AssertionError(said)

    def processes(self, node: int | None = None) -> dict[int, bytes]:
        """The command lines of the processes of a node, of all where None, by process id."""
        mark = f"{_MARK}={self.folder.name}".encode()
        marks = None if node is None else {mark + (f"-{node}".encode() if node else b"")}
        found = {}
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                variables = (path / "environ").read_bytes().split(b"\0")
                ours = [variable for variable in variables if variable.startswith(mark)]
                if ours and (marks is None or ours[0] in marks):
                    found[int(path.name)] = (path / "cmdline").read_bytes()
        return found

    def actors(self) -> list[int]:
        """The process ids of the actors, oldest first."""
        return sorted(pid for pid, command in self.processes().items() if command.startswith(ACTOR))

    def at_work(self) -> list[int]:
        """The process ids of those that work on a chunk, as Ray titles them."""
        return sorted(pid for pid, line in self.processes().items() if line.startswith(ACTOR + b".process"))

    def until_ended(self, node: int) -> None:
        """Wait until a node's raylet has ended; what it leaves behind is killed, as with a container."""
        deadline = time.monotonic() + 180
        while raylets := [
            pid for pid, line in self.processes(node).items() if RAYLET in line.split(b"\0")[0]
        ]:
            assert time.monotonic() < deadline, raylets
            time.sleep(0.5)
        self.kill(node)

    def kill(self, node: int | None = None) -> None:
        """SIGKILL of all processes of a node, of all nodes where None."""
        deadline = time.monotonic() + 10
        while (pids := self.processes(node)) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)


def _options(folder: pathlib.Path | None, gpus: int) -> list[str]:
    # Both are the head's alone.
    head = ["--include-dashboard=false", f"--temp-dir={folder}"] if folder else []
    return [
        f"--num-cpus={gpus}",
        f"--num-gpus={gpus}",
        f"--object-store-memory={_STORE_BYTES}",
        *head,
    ]
