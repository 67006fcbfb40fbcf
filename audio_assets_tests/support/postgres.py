"""A Postgres server of its own for a test or a benchmark, from the programs of Debian's package `postgresql`.

It listens on a socket in its folder, without a password, and on a port of 127.0.0.1, with one.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

from audio_assets.cluster.local_cluster import free_port
from audio_assets.settings import PROJECT

SECONDS_TO_START = 60
PROGRAMS = ("postgres", "initdb", "pg_isready", "psql")
# Debian keeps the server's programs out of the PATH, those of each version in a folder of its own.
DEBIAN = pathlib.Path("/usr/lib/postgresql")
USER = "postgres"
# Each of these would break a URL that took it as it is.
PASSWORD = "p@ss:w/rd?#%"


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        folder: of its socket; who connects there needs no password.
        port: on 127.0.0.1, where `PASSWORD` is asked for. The socket's name has it too.
    """

    folder: str
    port: int

    def environment(self, database: str) -> dict[str, str]:
        """What deploy/dagster.yaml reads."""
        return {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(self.port),
            "DAGSTER_PG_USERNAME": USER,
            "DAGSTER_PG_PASSWORD": PASSWORD,
            "DAGSTER_PG_DB": database,
        }

    def new_database(self, template: str = "template1") -> str:
        """The name of a new database.

        Args:
            template: the database that it is a copy of, to which nobody is connected.
        """
        name = f"test{next(_names)}"
        connected = ["-h", self.folder, "-p", str(self.port), "-U", USER]
        command = f"CREATE DATABASE {name} TEMPLATE {template}"
        subprocess.run([program("psql"), "-q", *connected, "-c", command], check=True)
        return name

    def url(self, database: str) -> str:
        """As Dagster's `postgres_url` takes it."""
        return f"postgresql+psycopg2://{USER}@/{database}?host={self.folder}&port={self.port}"


NewHome = Callable[[pathlib.Path], pathlib.Path]
"""Makes a DAGSTER_HOME of a folder that does not exist yet."""

_names = itertools.count()


def program(name: str) -> str:
    """The path of one of Postgres's programs: on the PATH, else that of Debian's newest version.

    Raises:
        FileNotFoundError: there is none.
    """
    debian = sorted(DEBIAN.glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    if found := shutil.which(name) or (str(debian[-1]) if debian else None):
        return found
    raise FileNotFoundError(f"Postgres's program {name} is not here: apt-get install postgresql")


def missing() -> str:
    """What is to be done before `postgres` can start a server; empty where nothing is."""
    try:
        for name in PROGRAMS:
            program(name)
    except FileNotFoundError as e:
        return str(e)
    return ""


def instance_yaml(server: Server | None, database: str | None = None) -> str:
    """The project's dagster.yaml, on SQLite or on a database of a server, by default a new one."""
    configured = (PROJECT / "dagster.yaml").read_text()
    if server is None:
        return configured
    url = server.url(database or server.new_database())
    return f"{configured}storage: {{postgres: {{postgres_url: '{url}'}}}}\n"


@contextlib.contextmanager
def postgres() -> Iterator[Server]:
    """A server, until the end of the `with`."""
    # Postgres refuses to run as root.
    user = USER if os.getuid() == 0 else None
    # Short, as the path of a socket has to be, and open to that user.
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder = pathlib.Path(name)
        (folder / "password").write_text(PASSWORD)
        if user:
            shutil.chown(folder, user)
            shutil.chown(folder / "password", user)
        common = ["-D", str(folder / "data")]
        access = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={folder / 'password'}"]
        subprocess.run(
            [program("initdb"), *common, f"--username={USER}", *access, "--no-sync"],
            user=user,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        port = free_port("127.0.0.1")
        listening = ["-k", name, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen(
                [program("postgres"), *common, *listening], user=user, cwd=folder, stdout=log, stderr=log
            )
        try:
            deadline = time.monotonic() + SECONDS_TO_START
            ready = [program("pg_isready"), "-q", "-h", name, "-p", str(port)]
            while subprocess.run(ready, check=False).returncode:
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
            yield Server(name, port)
        finally:
            # At once, whoever is still connected.
            server.send_signal(signal.SIGQUIT)
            server.wait(60)
