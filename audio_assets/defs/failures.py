"""Errors where people look: the sentence that says what to fix, as the description of the step's failure.

Dagster shows the description of a `Failure` above the stack trace; of another exception it shows the trace.
"""

import contextlib
from collections.abc import Iterator

import dagster as dg

from audio_assets.errors import (
    ArgumentError,
    ClusterError,
    ConflictError,
    InstanceInUseError,
    MissingInputError,
    StaleRowsError,
    StorageError,
    WorkerLostError,
)

# Those whose text says what is wrong and what to do.
_KNOWN = (
    ArgumentError,
    ClusterError,
    ConflictError,
    InstanceInUseError,
    MissingInputError,
    StaleRowsError,
    StorageError,
    WorkerLostError,
)


@contextlib.contextmanager
def known_errors() -> Iterator[None]:
    """Raise errors of this package as failures that Dagster shows in words.

    Raises:
        Failure: described by the text of an error of this package.
    """
    try:
        yield
    except _KNOWN as e:
        raise dg.Failure(description=f"{type(e).__name__}: {e}") from e
