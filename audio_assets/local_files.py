"""Replacing a file of a local folder: a lock on its directory, a comparison of versions, a rename."""

import contextlib
import fcntl
import os
import pathlib
import secrets
from collections.abc import Iterator

from obstore.store import LocalStore

from audio_assets.listing import is_plain


class ConflictError(RuntimeError):
    """Somebody else replaced the file since it was read; read again and decide anew."""


def replace_file(root: pathlib.Path, key: str, body: bytes, version: str | None) -> None:
    """Replace a file as a whole, if it is still the one that was read; make its folders where they miss.

    Args:
        key: relative to `root`, with `/` between folders.
        version: the `e_tag` that obstore gives for the file that was read, None where there was none.

    Raises:
        ConflictError: the file has another version by now.
        OSError: it cannot be written, or lies outside of `root`.
    """
    path = root / key
    # Before anything is made: a link, or a key that is no relative path, may lead elsewhere.
    if not is_plain(key) or not path.parent.resolve().is_relative_to(root.resolve()):
        raise OSError("it lies outside by a link or by its name")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        # Whoever left a temporary file died while holding the lock.
        for litter in path.parent.glob(".*.tmp"):
            litter.unlink()
        if _version(path) != version:
            raise ConflictError
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _version(path: pathlib.Path) -> str | None:
    try:
        return LocalStore(path.parent).head(path.name)["e_tag"]
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Hold an exclusive lock on a directory itself, so that no lock file is left behind."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
