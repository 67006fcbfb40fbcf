"""Names that keep an actor from runs of another model, setting, table or code."""

import functools
import hashlib
import pathlib
from collections.abc import Iterable

PREFIX = "speech"


def group_name(parts: Iterable[str]) -> str:
    """The common part of the names of actors that do the same.

    Args:
        parts: whatever shapes what they do: the identity of the model, settings, source, table, code.

    Returns:
        `speech-` and 12 hex digits.
    """
    text = "\0".join(parts)
    return f"{PREFIX}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def actor_name(group: str, number: int) -> str:
    """The name of an actor within its group."""
    return f"{group}-{number}"


def group_of(name: str) -> str | None:
    """The group of an actor, None where the name is none of `actor_name`."""
    group, _, number = name.rpartition("-")
    return group if number.isdecimal() and group.startswith(f"{PREFIX}-") else None


@functools.cache
def code_version() -> str:
    """First 12 hex digits of the SHA-256 of this package's sources, as they lie on this machine.

    An actor keeps the code that it was started with.
    """
    package = pathlib.Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix()):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]
