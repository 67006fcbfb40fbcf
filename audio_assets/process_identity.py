"""Which process this is, as a text that another process can ask about later: is it still alive?

A process id alone says little: after a restart another process may have it. So the text names the host, its
boot, the process id and the start of the process. No two processes share all four.

What is done about a process that has died does not belong here.
"""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess

_PROC = pathlib.Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"
_MACHINE_IDS = (pathlib.Path("/etc/machine-id"), pathlib.Path("/var/lib/dbus/machine-id"))
_ABSENT = "-"


def this_process() -> str:
    """The identity of this process: host, boot, process id and start, separated by blanks."""
    pid = os.getpid()
    return f"{_host()} {_boot()} {pid} {_start(pid) or _ABSENT}"


def is_alive(identity: str) -> bool | None:
    """Whether a process still lives.

    Args:
        identity: what `this_process` returned there.

    Returns:
        None where this process cannot know: the other one is of another host, or the text is no identity.
    """
    match identity.split(maxsplit=3):
        case [host, boot, pid, start] if host == _host() and pid.isdecimal():
            return boot == _boot() and start == _start(int(pid))
        case _:
            return None


def interrupt(identity: str) -> None:
    """Do to a process of this host what Ctrl-C does; nothing if it has ended.

    Args:
        identity: what `this_process` returned there.
    """
    if is_alive(identity):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(identity.split()[2]), signal.SIGINT)


def _host() -> str:
    """Host names are not always told apart by who sets up machines: `ubuntu`, `localhost`."""
    machine = next((path.read_text().strip() for path in _MACHINE_IDS if path.is_file()), "")
    return f"{socket.gethostname()}/{machine or _ABSENT}"


def _boot() -> str:
    """The boot that a start is counted from; elsewhere than on Linux, a start is a date and needs none."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.is_file() else _ABSENT


def _start(pid: int) -> str | None:
    """When a process started, None where there is none of this id or it has ended.

    On Linux in ticks since the boot: unlike a date, they do not move when the clock is set. Elsewhere the
    date that `ps` prints, the same for whoever asks.
    """
    if _BOOT_ID.is_file():
        try:
            # The name of the program, in brackets, may hold anything.
            fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state = fields[0]
        start = fields[19]
    else:
        command = ["ps", "-o", "state=,lstart=", "-p", str(pid)]
        said = subprocess.run(command, capture_output=True, text=True, env={"LC_ALL": "C", "TZ": "UTC"})
        state, _, start = said.stdout.strip().partition(" ")
    # A process that has ended stays in the list until its parent asks how.
    return None if not state or state[0] in "ZX" else start.strip()
