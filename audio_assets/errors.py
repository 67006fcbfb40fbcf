"""The exceptions of this package, grouped by what happens then.

becomes a row of status `failed`; the other objects go on
    AudioError            the bytes are no audio that can be read
    DecoderFailedError    a decoder raised another exception than that
    ObjectChangedError    the object is gone, or has another version by now
    ObjectRefusedError    the store does not give this object, but gives others
      ObjectNameError     it never gives an object of this name, whatever becomes of the others

fails the run or the sensor's tick, and says what to fix; the sensor asks for the run again later
    StorageError          the store did not do what was asked, after all retries
      ObjectRefusedError  the store gives none of the run's objects, or none any more
    EventQueueError       the queue of the bucket's notifications does not answer
    MissingInputError     a partition was asked for before what it is made from
    StaleRowsError        rows would be joined that other settings made
    InstanceInUseError    the Dagster instance serves another source or table
    ReportError           the S3 Inventory report cannot be used
    ArgumentError         an argument or a setting is wrong
    NotificationError     a webhook has not taken a message
    CodecError            the weights of a codec cannot be loaded
    ClusterError          the Ray cluster cannot be reached, or has no place for an actor
    WorkerLostError       processes that work on the same partition keep dying

ends a pass that nobody waits for any more
    StoppedError          the run was terminated

is tried again at once, a few times
    ConflictError         another run replaced the same file meanwhile (optimistic concurrency)
"""

import contextlib
import re
from collections.abc import Iterator, Mapping

# --- of one object --------------------------------------------------------------------------------------


class AudioError(ValueError):
    """The bytes are no audio that can be transcribed; says what is wrong and what to do."""


class DecoderFailedError(RuntimeError):
    """In a process that decodes, a decoder raised an exception that it should not; says what that said."""


class ObjectChangedError(RuntimeError):
    """The object is gone, or is no longer the version that was asked for."""


# --- of a store or a queue ------------------------------------------------------------------------------


class StorageError(RuntimeError):
    """The store did not do what was asked, after all retries; names the object and the store."""


class ObjectRefusedError(StorageError):
    """The store does not give this object, for good; it may give others."""


class ObjectNameError(ObjectRefusedError):
    """The store never gives an object of this name; says what to rename."""


class EventQueueError(RuntimeError):
    """The queue does not answer, or refuses; names the queue."""


class NotificationError(RuntimeError):
    """Nobody has taken a message."""


class ConflictError(RuntimeError):
    """Another run replaced the file since it was read; read it again and decide anew."""


# --- of a cluster ---------------------------------------------------------------------------------------


class ClusterError(RuntimeError):
    """The Ray cluster cannot be reached, refuses, or has no place for an actor; says what to fix."""


class WorkerLostError(RuntimeError):
    """The processes that work on a partition keep dying; names the partition."""


class StoppedError(RuntimeError):
    """Whoever asked for the work does not want it any more."""


# --- of what was asked for ------------------------------------------------------------------------------


class CodecError(RuntimeError):
    """The weights of a codec cannot be loaded; names the codec."""


class MissingInputError(RuntimeError):
    """A partition was asked for before what it is made from."""


class StaleRowsError(RuntimeError):
    """Rows that other settings made would be joined by a run that does not make them anew."""


class InstanceInUseError(RuntimeError):
    """The Dagster instance serves another source or table at the moment; names both."""


class ReportError(ValueError):
    """The file is no S3 Inventory report of this bucket, lacks a field, or is damaged."""


class ArgumentError(ValueError):
    """An argument is wrong.

    Plain code names its own argument. Whoever took the value from a setting names that instead, by
    `renaming`.

    Attributes:
        argument: its name, e.g. `batch_size`.
        problem: what is wrong and what to do, such as `='x' is not a whole number`. It follows the name,
            and may show other arguments in the same way: ` device='cuda'`.
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}{problem}")
        self.argument = argument
        self.problem = problem

    def __reduce__(self) -> tuple[type["ArgumentError"], tuple[str, str]]:
        # An exception is pickled by its message alone, which is not what this one is made from.
        return type(self), (self.argument, self.problem)

    def renamed(self, names: Mapping[str, str]) -> "ArgumentError":
        """The same error in the words of settings, e.g. by `{"batch_size": "WHISPER_BATCH_SIZE"}`."""
        # The space before it and the = behind it tell an argument from other words.
        problem = re.sub(r"(?<= )(\w+)(?==)", lambda found: names.get(found[1], found[1]), self.problem)
        return ArgumentError(names.get(self.argument, self.argument), problem)


@contextlib.contextmanager
def renaming(names: Mapping[str, str]) -> Iterator[None]:
    """Raise errors of arguments under other names, as `ArgumentError.renamed` says."""
    try:
        yield
    except ArgumentError as error:
        raise error.renamed(names) from error.__cause__
