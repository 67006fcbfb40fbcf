"""The cluster of this machine: found or started, and the machine as a node of another one's cluster."""

import contextlib
import logging
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence

import filelock

from audio_assets.errors import ClusterError

SECONDS_TO_START = 120.0
_COMMAND = (sys.executable, "-m", "ray.scripts.scripts")
# Reports are small; by default Ray keeps a third of the memory for objects.
OBJECT_STORE_BYTES = 128 * 2**20
_PROC = pathlib.Path("/proc")
# Below those that Linux and macOS give to whoever asks for any port, and above those of Ray's workers.
_PORTS = range(20000, 32768)


def local_address(log: logging.Logger) -> str:
    """The `host:port` of the cluster that runs on this machine, started if there is none.

    It outlives this process, so that its actors serve the next run as well; `ray stop` ends it.

    Raises:
        ClusterError: it does not start.
    """
    folder = pathlib.Path(tempfile.gettempdir()) / f"audio_assets_ray_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ClusterError(f"{folder} belongs to somebody else; remove it")
    file = folder / "address"
    # Two runs that begin at once must not start two.
    with filelock.FileLock(folder / "lock"):
        if file.is_file() and answers(address := file.read_text().strip()):
            return address
        address = start_head()
        file.write_text(address)
        log.info(f"Started a Ray cluster on this machine at {address}; `ray stop` ends it")
        return address


def make_token() -> None:
    """Make the token of this user's clusters, where Ray looks for it: `~/.ray/auth_token`.

    Raises:
        ClusterError: it cannot be written.
    """
    _run([*_COMMAND, "get-auth-token", "--generate"], None)
    # Ray leaves it readable for everybody on the machine.
    default_token().chmod(0o600)


def default_token() -> pathlib.Path:
    """Where Ray looks for the token that no variable names."""
    return pathlib.Path.home() / ".ray" / "auth_token"


def start_head(
    options: Sequence[str] = (), environment: Mapping[str, str] | None = None, port: int | None = None
) -> str:
    """Start a head on this machine; gives its `host:port`.

    Args:
        options: further ones of `ray start`.
        environment: of its processes; that of this process where None.
        port: to listen on; a free one where None.

    Raises:
        ClusterError: it does not start; says why.
    """
    # The machine's own address may change while the cluster runs; Ray turns 127.0.0.1 into it.
    host = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
    port = port or free_port(host)
    head = ["--head", f"--node-ip-address={host}", f"--port={port}", "--dashboard-host=127.0.0.1"]
    memory = f"--object-store-memory={OBJECT_STORE_BYTES}"
    _run([*_COMMAND, "start", *head, memory, "--disable-usage-stats", *options], environment)
    return f"{host}:{port}"


def free_port(host: str) -> int:
    """A port of this machine that nobody listens on, for a process that is yet to start.

    Linux itself gives it to nobody in the meantime, unlike the port that it answers with when asked for any.

    Raises:
        ClusterError: all are in use.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind((host, port))
            return port
    raise ClusterError(f"all ports from {_PORTS.start} to {_PORTS.stop - 1} are in use on {host}")


@contextlib.contextmanager
def joined(address: str, log: logging.Logger) -> Iterator[None]:
    """Make this machine a node of a cluster without CPUs and GPUs, where it is none: Ray's drivers need one.

    Raises:
        ClusterError: the node does not start.
    """
    if _has_node_of(address):
        yield
        return
    log.info(f"This machine is no node of the Ray cluster at {address}; joining it without CPUs and GPUs")
    resources = ["--num-cpus=0", "--num-gpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    command = [*_COMMAND, "start", f"--address={address}", *resources, "--disable-usage-stats", "--block"]
    with tempfile.TemporaryFile("w+") as said:
        node = subprocess.Popen(
            command, stdout=said, stderr=subprocess.STDOUT, env=_environment(None), start_new_session=True
        )
        try:
            deadline = time.monotonic() + SECONDS_TO_START
            while not _has_node_of(address):
                if node.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise ClusterError(f"no node of {address} starts here: {said.read()[-500:]}")
                time.sleep(0.2)
            yield
        finally:
            node.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(10)


def answers(address: str) -> bool:
    """Whether something listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, ValueError):
        return False
    return True


def _has_node_of(address: str) -> bool:
    """Whether a node's process on this machine belongs to a cluster."""
    if not _PROC.is_dir():
        return True
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        host = socket.gethostbyname(host)
    heads = [head.rpartition(":") for head in _heads_of_nodes()]
    return any(
        their_port == port and (their_host == host or (_is_here(host) and _is_here(their_host)))
        for their_host, _, their_port in heads
    )


def _heads_of_nodes() -> Iterator[str]:
    """The `host:port` of the cluster of each node's process on this machine."""
    for path in _PROC.glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"raylet"):
                # The name of the option has been written with either sign.
                options = [
                    word.decode(errors="replace").replace("gcs_address", "gcs-address") for word in words
                ]
                yield from (o.partition("=")[2] for o in options if o.startswith("--gcs-address="))


def _is_here(host: str) -> bool:
    """Whether an address is one of this machine: Ray turns 127.0.0.1 into another one of them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _run(command: list[str], environment: Mapping[str, str] | None) -> None:
    done = subprocess.run(
        command,
        env=_environment(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_TO_START,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        said = " ".join(f"{done.stdout} {done.stderr}".split())[-1000:]
        raise ClusterError(f"no Ray cluster starts on this machine: {said}")


def _environment(environment: Mapping[str, str] | None) -> dict[str, str]:
    """Without RAY_ADDRESS, by which `ray start` would go."""
    given = os.environ if environment is None else environment
    return {name: text for name, text in given.items() if name != "RAY_ADDRESS"}
