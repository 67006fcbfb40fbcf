"""Dagster's services on this machine: webserver, daemon and code server, started, watched and ended together.

    python -m audio_assets.services --port 3000

`make dev` runs this, and so may a supervisor such as systemd. If the webserver or the daemon ends, all ends,
with an exit code other than 0. A code server that ends or no longer answers is started anew: without one
there are no ticks and no runs, while all daemons of Dagster read healthy.

There are two processes. The first one stays in the terminal's process group and waits for signals. The second
one has a session of its own with all that it starts, so that nothing outlives the first one, however that
ends. What the services do belongs elsewhere.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Sequence
from types import FrameType

from audio_assets.defs.internals.code_server_ping import answers

HOST = "127.0.0.1"
STOP = b"stop\n"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_PINGS = 5
SECONDS_FOR_AN_ANSWER = 10
UNANSWERED_PINGS = 3
SECONDS_TO_START = 180
SECONDS_TO_END = 5


# --- the first process ----------------------------------------------------------------------------------


def main() -> int:
    """Run the services until a signal ends them or one of them dies; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m audio_assets.services", description="Dagster's services on this machine."
    )
    parser.add_argument("--port", type=int, default=3000, help="of the UI, on 127.0.0.1 (default: 3000)")
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.supervised:
        return _Supervisor(arguments.port).run()
    if not _is_free(arguments.port):
        print(f"Port {arguments.port} is in use; name another one: make dev PORT={arguments.port + 1}")
        return 1
    return _run_supervisor(arguments.port)


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        # Connections of a webserver that has just ended do not count.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError:
            return False
    return True


def _run_supervisor(port: int) -> int:
    command = [sys.executable, "-m", "audio_assets.services", "--supervised", "--port", str(port)]
    supervisor = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert supervisor.stdin
    pipe = supervisor.stdin.fileno()
    told: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if not told:
            os.write(pipe, STOP)
        told.append(number)

    for number in SIGNALS:
        signal.signal(number, stop)
    code = supervisor.wait()
    _kill_group(supervisor.pid)
    # One that was killed has a negative code, which a shell would not see as it is.
    return 0 if told else abs(code)


# --- the second process ---------------------------------------------------------------------------------


class _Supervisor:
    """Starts the services and watches them, until standard input closes or a service ends."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()

    def run(self) -> int:
        """Gives the exit code: 0 if told to stop, 1 if a service has ended."""
        for number in SIGNALS:
            signal.signal(number, lambda number, frame: self._stop.set())
        threading.Thread(target=self._read_orders, daemon=True).start()
        project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["tool"]["dg"]["project"]
        with tempfile.TemporaryDirectory() as folder:
            code_server = _CodeServer(pathlib.Path(folder) / "code_server", project)
            workspace = pathlib.Path(folder) / "workspace.yaml"
            # JSON is YAML.
            workspace.write_text(json.dumps({"load_from": [{"grpc_server": code_server.address}]}))
            services: dict[str, subprocess.Popen[bytes]] = {}
            try:
                return self._watch(code_server, workspace, services)
            finally:
                _end(list(services.values()))

    def _read_orders(self) -> None:
        # Not through `sys.stdin`, which Python cannot close at its end while a thread reads.
        if os.read(0, len(STOP)) != STOP:
            # The first process was killed. The port must be free for whoever starts all anew.
            _kill_group(os.getpid())
        self._stop.set()

    def _watch(
        self,
        code_server: "_CodeServer",
        workspace: pathlib.Path,
        services: dict[str, subprocess.Popen[bytes]],
    ) -> int:
        while not self._stop.wait(SECONDS_BETWEEN_LOOKS):
            if not services:
                if code_server.process.poll() is not None or code_server.age > SECONDS_TO_START:
                    _say("the code server does not start; its messages are above")
                    return 1
                if answers(code_server.socket, SECONDS_FOR_AN_ANSWER):
                    services |= self._start_services(workspace)
                continue
            for name, process in services.items():
                if (code := process.poll()) is not None:
                    _say(f"the {name} has ended with exit code {code}, so all ends")
                    return 1
            code_server.watch()
        return 0

    def _start_services(self, workspace: pathlib.Path) -> dict[str, subprocess.Popen[bytes]]:
        common = ["--workspace", str(workspace)]
        where = ["--host", HOST, "--port", str(self._port)]
        services = {
            "webserver": _start("dagster_webserver", *common, *where),
            "daemon": _start("audio_assets.defs.internals.daemon", "run", *common),
        }
        _say(f"the UI will be at http://{HOST}:{self._port}; Ctrl-C ends it")
        return services


class _CodeServer:
    """The server that has the project's code, and starts the processes of runs."""

    def __init__(self, socket: pathlib.Path, project: dict[str, str]) -> None:
        self.socket = socket
        self.address = {"socket": str(socket), "location_name": project["code_location_name"]}
        self._module = project["code_location_target_module"]
        self._start()

    def _start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.process = _start(
            "dagster",
            "code-server",
            "start",
            *("--socket", str(self.socket), "--location-name", self.address["location_name"]),
            *("--module-name", self._module, "--working-directory", os.getcwd()),
            # Reads `.env`, at each reload as well.
            *("--inject-env-vars-from-instance", "--log-level", "warning"),
        )
        self._started = time.monotonic()
        self._asked = self._started
        self._unanswered = 0
        self._ready = False

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started

    def watch(self) -> None:
        """Start it anew if it has ended, or has not answered several times on end."""
        if (code := self.process.poll()) is not None:
            _say(f"the code server has ended with exit code {code}; starting another one")
            self._start()
        elif time.monotonic() - self._asked > SECONDS_BETWEEN_PINGS:
            self._ask()

    def _ask(self) -> None:
        answered = answers(self.socket, SECONDS_FOR_AN_ANSWER)
        self._asked = time.monotonic()
        self._ready = self._ready or answered
        self._unanswered = 0 if answered else self._unanswered + 1
        # While it loads the code it does not answer yet.
        if self._unanswered >= UNANSWERED_PINGS and (self._ready or self.age > SECONDS_TO_START):
            _say("the code server does not answer; starting another one")
            self.process.kill()
            self.process.wait()
            self._start()


def _start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, *arguments], stdin=subprocess.DEVNULL)


def _end(services: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let webserver and daemon end what they are doing.

    The first process kills whatever is left then: the code server, which would wait for its runs, and those
    runs. They are found dead at the next start, and retried.
    """
    for process in services:
        process.terminate()
    deadline = time.monotonic() + SECONDS_TO_END
    for process in services:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0, deadline - time.monotonic()))


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _say(text: str) -> None:
    print(f"audio_assets: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
