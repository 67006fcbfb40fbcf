"""The exceptions of this package, grouped by what happens then.

becomes a row of status `failed`, and the others go on
    AudioError              the bytes are no audio that can be read
    ObjectChangedError      the object is gone, or another version by now
    ObjectRefusedError      the store does not give this object, but gives others

fails the run or the tick, which names what to fix; the sensor asks again later
    StorageError            the store did not do what was asked, after all retries
      ObjectRefusedError    the store gives none of a run's objects
    MissingInputError       a partition was asked for before what it is made from
    EventQueueError         the queue of the bucket's notifications does not answer
    ReportError             the S3 Inventory report is of no use here
    ArgumentError           a setting is wrong

is tried again at once, a few times
    ConflictError           another run replaced the same file meanwhile (optimistic concurrency)
"""

from collections.abc import Mapping


class AudioError(ValueError):
    """The bytes are no audio that can be transcribed; says what is wrong and what to do."""


class ObjectChangedError(RuntimeError):
    """The object is gone, or is no longer the version that was asked for."""


class StorageError(RuntimeError):
    """The store did not do what was asked, after all retries; names the object and the store."""


class ObjectRefusedError(StorageError):
    """The store does not give this object, for good; it may give others."""


class MissingInputError(RuntimeError):
    """A partition was asked for before what it is made from."""


class EventQueueError(RuntimeError):
    """The queue does not answer or refuses; names the setting."""


class ReportError(ValueError):
    """The report is none, is not of this bucket, lacks a field, or a file of it is damaged."""


class ConflictError(RuntimeError):
    """Somebody else replaced the file since it was read; read again and decide anew."""


class ArgumentError(ValueError):
    """An argument is wrong, as a setting that a person typed may be.

    Plain code names its own argument; whoever took the value from a setting says so by `renamed`.

    Attributes:
        argument: the name of the argument, e.g. `batch_size`.
        problem: what is wrong and what to do, such as `='x' is not a whole number`; follows the name.
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}{problem}")
        self.argument = argument
        self.problem = problem

    def renamed(self, names: Mapping[str, str]) -> "ArgumentError":
        """The same error in the words of a setting, e.g. by `{"batch_size": "WHISPER_BATCH_SIZE"}`."""
        return ArgumentError(names.get(self.argument, self.argument), self.problem)
