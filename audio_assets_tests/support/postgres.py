"""A Postgres server of its own for a test, which listens on a socket in a folder and nowhere else."""

import contextlib
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator

from audio_assets.settings import PROJECT

SECONDS_TO_START = 60


def has_postgres() -> bool:
    return all(map(shutil.which, ("postgres", "initdb", "pg_isready", "psql")))


_names = itertools.count()


def new_database(server: str) -> str:
    """The URL of an empty database, as Dagster's `postgres_url` takes it.

    Args:
        server: as `postgres` gives it.
    """
    name = f"test{next(_names)}"
    subprocess.run(
        ["psql", "-q", "-h", server, "-U", "postgres", "-c", f"CREATE DATABASE {name}"], check=True
    )
    return f"postgresql+psycopg2://postgres@/{name}?host={server}"


def instance_yaml(server: str | None) -> str:
    """The project's dagster.yaml, on SQLite or on an empty database of a server."""
    configured = (PROJECT / "dagster.yaml").read_text()
    if server is None:
        return configured
    return f"{configured}storage: {{postgres: {{postgres_url: '{new_database(server)}'}}}}\n"


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A server; gives the folder of its socket."""
    # Postgres refuses to run as root.
    user = "postgres" if os.getuid() == 0 else None
    # Short, as the path of a socket has to be, and open to that user.
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder = pathlib.Path(name)
        if user:
            shutil.chown(folder, user)
        common = ["-D", str(folder / "data")]
        subprocess.run(
            ["initdb", *common, "--username=postgres", "--auth=trust", "--no-sync"],
            user=user,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        listening = ["-k", name, "-c", "listen_addresses=", "-c", "fsync=off"]
        with open(folder / "log", "wb") as log:
            server = subprocess.Popen(
                ["postgres", *common, *listening], user=user, cwd=folder, stdout=log, stderr=log
            )
        try:
            deadline = time.monotonic() + SECONDS_TO_START
            while subprocess.run(["pg_isready", "-q", "-h", name], check=False).returncode:
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
            yield name
        finally:
            # At once, whoever is still connected.
            server.send_signal(signal.SIGQUIT)
            server.wait(60)
