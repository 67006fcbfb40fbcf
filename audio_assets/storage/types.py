"""What a store is: what each backend must give, and the types in which it gives it.

How a request is tried again and how bytes are verified is `store`'s business; each store's own ways are in a
file of its own (`s3`, `local`).
"""

import dataclasses
import datetime as dt
import enum
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import boto3

PAGE = 1000
"""How many objects S3 gives in an answer."""

LAST = "\U0010ffff" * 256
"""The last character of Unicode, as often as a key of S3 can hold it: `folder/` + LAST sorts after all keys
in the folder."""

WRITE_PROBE = ".write-probe"
"""The empty file by which a store shows whether it honours conditional writes."""

STALL_S = 60.0
"""Seconds without a byte after which a connection is given up, unless a setting says otherwise."""

LOCATIONS = "s3://bucket/prefix or file:///folder"
"""How a location reads, for errors."""

ONE_SLASH = "with a single / between folders"
"""What else holds for a location of S3, for errors."""


class ObjectInfo(NamedTuple):
    """What a listing says of an object. A tuple, for a listing makes a million.

    Attributes:
        key: relative to the store's root.
        etag: the version, without quotes; another one whenever the bytes are others.
        size: bytes.
        last_modified: UTC.
    """

    key: str
    etag: str
    size: int
    last_modified: dt.datetime


class Streamed(NamedTuple):
    """A file that is being read piece by piece.

    Attributes:
        version: of the file, without quotes, for reading on in the same one.
        size: bytes of the whole file, also where reading begins in the middle.
        pieces: the bytes from the offset on.
    """

    version: str
    size: int
    pieces: Iterator[bytes]


@dataclasses.dataclass(frozen=True)
class BackendOptions:
    """How a store is reached. Each backend takes what concerns it and ignores the rest.

    Attributes:
        stall_s: seconds without a byte after which a connection is given up.
        open_session: gives the AWS session with credentials and region; called again when the credentials
            have expired. None means as every AWS client finds them.
        endpoint_url: of a server other than the provider's own, None for that one.
    """

    stall_s: float = STALL_S
    open_session: "Callable[[], boto3.Session] | None" = None
    endpoint_url: str | None = None


class Failure(enum.Enum):
    """What is done about an exception that a backend raised."""

    PASSING = "the same request is made again after a pause"
    EXPIRED = "the credentials are renewed, then the same request is made again"
    ONE_OBJECT = "the store refuses this object and may give others: a read raises ObjectRefusedError"
    LASTING = "the store does not work until somebody mends it: StorageError"


class Backend(Protocol):
    """One kind of store, asked once: what is tried again, `ObjectStore` decides by `failure`.

    To add a store, write a subclass and enter it in `BACKENDS` under its URI scheme. It is opened by
    `(uri, options)` and raises ValueError where the URI is none of its own. Methods that have a body here may
    be left as they are. All methods are called from several threads at a time.

    Keys are relative to the place that the URI names, with `/` between folders; a key that ends with `/` is
    no object. They sort by code point, as Python's `str` does, which is the order of their UTF-8 bytes. A
    folder is "" for the root or a prefix that ends with `/`. Iterators are opened anew at the key that was
    reached when one of them fails in the middle, so a listing must begin at any key, present or not.

    Two kinds of exception are answers and are not tried again: ObjectChangedError and ConflictError, where a
    method names them. A StorageError is taken as the whole message. Anything else may be raised too, as the
    client library raises it: `failure` and `reason` are asked what it means.

    Attributes:
        uri: as it was given, without a slash at the end.
        etags_are_md5: whether an ETag of 32 hexadecimal digits is the MD5 of the bytes, as a rule;
            `ObjectStore` then verifies what it reads.
    """

    uri: str
    etags_are_md5: bool = False

    @property
    @abstractmethod
    def root(self) -> str:
        """The place in its one spelling, without a slash at the end.

        A place lies inside another if its root begins with the other's root and a slash.
        """
        ...

    # --- listing ------------------------------------------------------------------------------------------

    @abstractmethod
    def scan(self, after: str, until: str | None) -> Iterator[tuple[str, list[ObjectInfo]]]:
        """All objects with `after` < key <= `until` at any depth, in key order, a page at a time.

        Must hold no more than a few pages of objects at a time.

        Args:
            after: any text, "" for the beginning.
            until: None for the end.

        Yields:
            The key up to which the store has been listed, and the objects since the last such key. A page
            may be empty.

        Raises:
            StorageError: the place does not exist.
        """
        ...

    @abstractmethod
    def scan_folder(self, folder: str, after: str) -> Iterator[tuple[str, list[ObjectInfo]]]:
        """The objects right in one folder, not those below it at any depth; yields and raises as `scan`."""
        ...

    def files(self, folder: str, after: str) -> Iterator[list[tuple[str, str]]]:
        """Key > `after` and version of each file below a folder at any depth, in key order, a page at a time.

        A place that does not exist yet has none. To be written where `scan` raises then, or is slower than a
        listing of keys and versions alone.
        """
        for _, page in self.scan(max(after, folder), folder + LAST):
            if page:
                yield [(o.key, o.etag) for o in page]

    def cuts(self, after: str, until: str | None) -> list[str]:
        """Some folders between two keys, in order, where a scan may be cut into scans side by side.

        A hint, for a few requests at most; [] where scans side by side are no faster.
        """
        return []

    def find(self, key: str) -> ObjectInfo | None:
        """What a listing says of one object, None where there is none."""
        folder = key[: key.rfind("/") + 1]
        return next((o for _, page in self.scan_folder(folder, "") for o in page if o.key == key), None)

    # --- reading and writing ------------------------------------------------------------------------------

    @abstractmethod
    def read(self, key: str, etag: str) -> bytes:
        """The whole object, in the version that a listing gave.

        Raises:
            ObjectChangedError: there is no such object, or it has another ETag. Its text is not used.
        """
        ...

    @abstractmethod
    def read_latest(self, key: str) -> tuple[bytes, str] | None:
        """The newest bytes of a file and their version, None where there is no such file or place.

        The version is the text that a listing gives as the file's ETag.
        """
        ...

    @abstractmethod
    def stream(self, key: str, offset: int, version: str | None) -> Streamed:
        """Open a file that may be larger than memory.

        Args:
            offset: the byte to begin at; less than the size, or 0.
            version: what an earlier `stream` gave, None for the newest. Anything is raised where the file has
                another version by now.
        """
        ...

    def read_range(self, key: str, etag: str, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end` of an object, in the version that a listing gave.

        To be written where a store gives a part of an object for less than the whole.

        Raises:
            ObjectChangedError: there is no such object, or it has another ETag. Its text is not used.
        """
        return self.read(key, etag)[start:end]

    @abstractmethod
    def put(self, key: str, body: bytes, version: str | None) -> str:
        """Create or replace a file as a whole, in one step that no reader and no other writer sees half of.

        Args:
            version: of the file that is to be replaced, None where there must be none.

        Returns:
            The new version, as a listing gives it.

        Raises:
            ConflictError: the file has another version, or is there, or is gone. Its text is not used.
        """
        ...

    def put_file(self, key: str, path: str, version: str | None) -> str:
        """As `put`, of the bytes of a local file.

        To be written where a store can take a file that is larger than memory.
        """
        with open(path, "rb") as file:
            return self.put(key, file.read(), version)

    @abstractmethod
    def delete(self, key: str, version: str) -> None:
        """Delete a file in the version that was read; a file that is gone already is fine.

        Raises:
            ConflictError: the file has another version. Its text is not used.
        """
        ...

    @abstractmethod
    def has_conditional_writes(self) -> bool:
        """Whether `put` honours the version here; asked once, before the first `put`.

        May write a file `.write-probe`. Raises as `put` does where nothing can be written.
        """
        ...

    def has_conditional_deletes(self) -> bool:
        """Whether `delete` honours the version here; asked once, after `has_conditional_writes`.

        May delete `.write-probe`. To be written where a server may ignore the condition.
        """
        return True

    # --- failures -----------------------------------------------------------------------------------------

    @abstractmethod
    def failure(self, error: Exception) -> Failure:
        """What to do about what a method raised, or about a DamagedError of `verify`."""
        ...

    def reason(self, error: Exception) -> str:
        """Why it failed and what a person should mend, as part of a sentence; never a secret.

        As it stands, the first line of the exception: to be written where a client's errors hold secrets.
        """
        return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__

    def renew_credentials(self, since: float) -> bool:
        """Fetch credentials again, unless another thread has done so.

        Args:
            since: when the failed request began, in seconds of `time.monotonic`.

        Returns:
            Whether the request should be made again.
        """
        return False


class OpenBackend(Protocol):
    """What `BACKENDS` holds for a URI scheme: a subclass of `Backend`, or a function that gives one."""

    def __call__(self, uri: str, options: BackendOptions, /) -> Backend:
        """Open the place that a URI names, without asking it anything.

        Raises:
            ValueError: the URI is none of this scheme, or its settings lead nowhere; the whole message.
        """
        ...
