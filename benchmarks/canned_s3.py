"""An S3 server of one process whose bucket is a formula, so that the client is what is measured.

    python -m benchmarks.canned_s3 --objects 1000000 --per-folder 100

Answers ListObjectsV2 (prefix, delimiter, start-after, continuation-token, max-keys) for a million objects
as quickly as for ten: a page is made from digits, not read from a store. What is PUT lies in memory on top of
the formula, and is listed, read, replaced under If-Match and deleted as on S3; an SQS queue in the same
process is told of it. Listens on the loopback only, knows no credentials, and keeps nothing.
"""

import argparse
import asyncio
import bisect
import collections
import contextlib
import dataclasses
import datetime as dt
import functools
import hashlib
import itertools
import json
import re
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from email.utils import format_datetime
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from obstore.store import S3Store

PAGE = 1000
BUCKET = "canned"
TABLES = "tables"
SIZE = 300_000
FIRST_MINUTE = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
SYNTHETIC = re.compile(r"p(\d{7})/(\d{8})\.flac")
# 7 digits of the folder, 8 of the object in it; 24 characters of time; the object's number as its ETag.
ENTRY = (
    "<Contents><Key>p{folder}/{name}.flac</Key><LastModified>{time}</LastModified>"
    "<ETag>&quot;{etag}&quot;</ETag><Size>300000</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """A bucket of `objects`, `per_folder` to a folder, `per_minute` of a folder uploaded in a minute."""

    objects: int
    per_folder: int
    per_minute: int = 100

    def key(self, number: int) -> str:
        return f"p{number // self.per_folder:07}/{number % self.per_folder:08}.flac"

    def modified(self, number: int) -> dt.datetime:
        return FIRST_MINUTE + dt.timedelta(minutes=number % self.per_folder // self.per_minute)

    @staticmethod
    def etag(number: int) -> str:
        return f"{number:032}"

    @property
    def folders(self) -> int:
        return -(-self.objects // self.per_folder)

    @staticmethod
    def folder(number: int) -> str:
        return f"p{number:07}/"

    def prefixes(self, first: int, end: int) -> bytes:
        """The XML of folders `first` <= number < `end`."""
        said = (
            f"<CommonPrefixes><Prefix>{self.folder(n)}</Prefix></CommonPrefixes>" for n in range(first, end)
        )
        return "".join(said).encode()

    def number_after(self, key: str) -> int:
        """The number of the first object whose key is greater than `key`."""
        return bisect.bisect_right(range(self.objects), key, key=self.key)

    @functools.cached_property
    def _template(self) -> tuple[np.ndarray, dict[str, slice]]:
        """One entry as bytes, and where its fields lie."""
        widths = {"folder": 7, "name": 8, "time": 24, "etag": 32}
        text = ENTRY.format(**{name: chr(i) * width for i, (name, width) in enumerate(widths.items())})
        starts = {name: text.index(chr(i)) for i, name in enumerate(widths)}
        return (
            np.frombuffer(text.encode(), np.uint8),
            {name: slice(start, start + widths[name]) for name, start in starts.items()},
        )

    @functools.cached_property
    def _times(self) -> np.ndarray:
        """[minutes, 24] characters."""
        minutes = -(-min(self.per_folder, self.objects) // self.per_minute)
        first = np.datetime64(FIRST_MINUTE.replace(tzinfo=None), "ms")
        times = first + np.arange(minutes) * np.timedelta64(60_000, "ms")
        text = np.char.add(np.datetime_as_string(times), "Z").astype("S24")
        return text.view(np.uint8).reshape(minutes, 24)

    def entries(self, first: int, end: int) -> bytes:
        """The XML of objects `first` <= number < `end`."""
        template, fields = self._template
        numbers = np.arange(first, end)
        page = np.repeat(template[None], len(numbers), axis=0)
        page[:, fields["folder"]] = _digits(numbers // self.per_folder, 7)
        page[:, fields["name"]] = _digits(numbers % self.per_folder, 8)
        page[:, fields["time"]] = self._times[numbers % self.per_folder // self.per_minute]
        page[:, fields["etag"]] = _digits(numbers, 32)
        return page.tobytes()


def _digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """[n] -> [n, width] characters."""
    digits = np.full((len(numbers), width), ord("0"), np.uint8)
    for place in range(min(width, 9)):
        digits[:, width - 1 - place] += (numbers // 10**place % 10).astype(np.uint8)
    return digits


@dataclasses.dataclass
class Stored:
    """An object that somebody has PUT."""

    body: bytes
    modified: dt.datetime
    etag: str


class CannedBucket:
    """The objects of a shape, and those that were PUT on top."""

    def __init__(self, shape: Shape | None) -> None:
        self.shape = shape
        self.stored: dict[str, Stored] = {}
        self._keys: list[str] = []

    def put(self, key: str, body: bytes) -> Stored:
        if key not in self.stored:
            bisect.insort(self._keys, key)
        # In whole seconds, as S3 has it.
        modified = dt.datetime.now(dt.UTC).replace(microsecond=0)
        self.stored[key] = Stored(body, modified, hashlib.md5(body).hexdigest())
        return self.stored[key]

    def delete(self, key: str) -> None:
        if self.stored.pop(key, None):
            self._keys.remove(key)

    def page(self, prefix: str, delimiter: bool, after: str, limit: int) -> tuple[bytes, str | None]:
        """One page of a listing: its XML, and the key after which the next page begins, None at the end."""
        shape = self.shape or Shape(0, 1)
        behind = max(prefix, after)
        last = prefix + "\U0010ffff"
        root = delimiter and not prefix
        if root:
            # "/" < "0": what comes behind a folder's name is the next folder.
            first = -(-shape.number_after(after.removesuffix("/") + "0" if after else "") // shape.per_folder)
            end = shape.folders
        else:
            first = shape.number_after(behind)
            end = shape.number_after(last)
        said: list[bytes] = []
        count = 0
        reached = after
        for key in self._put(prefix, delimiter, after):
            # Of the formula's, all that come before what was PUT.
            number = shape.number_after(key)
            until = -(-number // shape.per_folder) if root else number
            until = min(end, until, first + limit - count)
            if until > first:
                said.append(shape.prefixes(first, until) if root else shape.entries(first, until))
                count += until - first
                first = until
                reached = shape.folder(until - 1) if root else shape.key(until - 1)
            if count == limit:
                return b"".join(said), reached
            said.append(self._entry(key))
            count += 1
            reached = key
            if count == limit:
                return b"".join(said), reached
        until = min(end, first + limit - count)
        if until > first:
            said.append(shape.prefixes(first, until) if root else shape.entries(first, until))
            reached = shape.folder(until - 1) if root else shape.key(until - 1)
        return b"".join(said), reached if until < end else None

    def _put(self, prefix: str, delimiter: bool, after: str) -> Iterator[str]:
        """The keys, and under a delimiter the common prefixes, of what was PUT."""
        last = after
        for at in range(bisect.bisect_left(self._keys, max(prefix, after)), len(self._keys)):
            key = self._keys[at]
            if not key.startswith(prefix):
                return
            if delimiter and "/" in key[len(prefix) :]:
                key = key[: key.index("/", len(prefix)) + 1]
                # The formula says its own folders.
                if not prefix and self.shape and SYNTHETIC.match(f"{key}00000000.flac"):
                    continue
            if key > last:
                last = key
                yield key

    def _entry(self, key: str) -> bytes:
        if key.endswith("/"):
            return f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>".encode()
        stored = self.stored[key]
        time = stored.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return (
            f"<Contents><Key>{escape(key)}</Key><LastModified>{time}</LastModified><ETag>&quot;{stored.etag}"
            f"&quot;</ETag><Size>{len(stored.body)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        ).encode()

    def number(self, key: str) -> int | None:
        """The number of an object of the formula."""
        found = SYNTHETIC.fullmatch(key)
        if self.shape is None or found is None:
            return None
        number = int(found[1]) * self.shape.per_folder + int(found[2])
        return number if number < self.shape.objects and self.shape.key(number) == key else None


class CannedQueue:
    """An SQS queue that S3 tells of created and removed objects; hides what was read until it is deleted."""

    def __init__(self) -> None:
        self.waiting: collections.deque[tuple[str, str]] = collections.deque()
        self.hidden: set[str] = set()
        self._number = itertools.count()

    def tell(self, bucket: str, key: str, event: str) -> None:
        quoted = urllib.parse.quote_plus(key, safe="/")
        about = {"bucket": {"name": bucket}, "object": {"key": quoted, "sequencer": "0"}}
        record = {"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": event, "s3": about}
        self.waiting.append((str(next(self._number)), json.dumps({"Records": [record]})))

    def answer(self, action: str, asked: dict[str, Any]) -> dict[str, Any]:
        if action == "ReceiveMessage":
            count = min(asked.get("MaxNumberOfMessages", 1), len(self.waiting))
            read = [self.waiting.popleft() for _ in range(count)]
            self.hidden.update(number for number, _ in read)
            return {
                "Messages": [
                    {
                        "MessageId": number,
                        "ReceiptHandle": number,
                        "Body": body,
                        "MD5OfBody": hashlib.md5(body.encode()).hexdigest(),
                    }
                    for number, body in read
                ]
            }
        if action == "DeleteMessageBatch":
            self.hidden.difference_update(entry["ReceiptHandle"] for entry in asked["Entries"])
            return {"Successful": [{"Id": entry["Id"]} for entry in asked["Entries"]], "Failed": []}
        if action == "GetQueueAttributes":
            counts = {"": self.waiting, "NotVisible": self.hidden}
            return {"Attributes": {f"ApproximateNumberOfMessages{n}": str(len(c)) for n, c in counts.items()}}
        raise NotImplementedError(action)


Answer = tuple[str, dict[str, Any], bytes]
"""Status, headers and body."""


class Server(asyncio.Protocol):
    """One connection: HTTP/1.1 with keep-alive, requests one after another.

    Args:
        delay_s: of each answer.
    """

    def __init__(self, buckets: dict[str, CannedBucket], queue: CannedQueue, delay_s: float) -> None:
        self.buckets = buckets
        self.delay_s = delay_s
        self.queue = queue
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            request, *lines = self.received[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body_end = end + 4 + int(headers.get("content-length", 0))
            if len(self.received) < body_end:
                return
            body = self.received[end + 4 : body_end]
            self.received = self.received[body_end:]
            method, target, _ = request.split(" ")
            status, extra, answer = self.answer(method, target, headers, body)
            length = {} if "Content-Length" in extra else {"Content-Length": len(answer)}
            head = "".join(f"{name}: {value}\r\n" for name, value in (extra | length).items())
            said = f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + answer
            if self.delay_s:
                asyncio.get_running_loop().call_later(self.delay_s, self.transport.write, said)
            else:
                self.transport.write(said)

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        if action := headers.get("x-amz-target"):
            said = self.queue.answer(action.removeprefix("AmazonSQS."), json.loads(body))
            return "200 OK", {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(said).encode()
        path, _, query = target.partition("?")
        name, _, key = urllib.parse.unquote(path).removeprefix("/").partition("/")
        bucket = self.buckets.get(name)
        if bucket is None:
            return "404 Not Found", {}, b"<Error><Code>NoSuchBucket</Code></Error>"
        if not key:
            return "200 OK", {"Content-Type": "application/xml"}, _list(bucket, query)
        if method == "PUT":
            return self._put(name, key, headers, body)
        if method == "DELETE":
            return self._delete(name, key, headers)
        if method == "HEAD":
            status, extra, _ = _head(bucket, key) or _get(bucket, key, headers)
            return status, extra, b""
        return _get(bucket, key, headers)

    def _put(self, name: str, key: str, headers: dict[str, str], body: bytes) -> Answer:
        bucket = self.buckets[name]
        stored = bucket.stored.get(key)
        wanted = headers.get("if-match", "").strip('"')
        if (headers.get("if-none-match") and stored) or (wanted and wanted != (stored and stored.etag)):
            return "412 Precondition Failed", {}, b"<Error><Code>PreconditionFailed</Code></Error>"
        if bucket.shape is not None:
            self.queue.tell(name, key, "ObjectCreated:Put")
        return "200 OK", {"ETag": f'"{bucket.put(key, body).etag}"'}, b""

    def _delete(self, name: str, key: str, headers: dict[str, str]) -> Answer:
        bucket = self.buckets[name]
        stored = bucket.stored.get(key)
        wanted = headers.get("if-match", "").strip('"')
        if wanted and wanted != (stored and stored.etag):
            return "412 Precondition Failed", {}, b"<Error><Code>PreconditionFailed</Code></Error>"
        bucket.delete(key)
        if bucket.shape is not None:
            self.queue.tell(name, key, "ObjectRemoved:Delete")
        return "204 No Content", {}, b""


def _head(bucket: CannedBucket, key: str) -> Answer | None:
    """What is said of an object of the formula, None where it is another."""
    number = None if key in bucket.stored else bucket.number(key)
    if number is None or bucket.shape is None:
        return None
    about = {"ETag": f'"{Shape.etag(number)}"', "Content-Length": SIZE}
    return "200 OK", about | _modified(bucket.shape.modified(number)), b""


def _get(bucket: CannedBucket, key: str, headers: dict[str, str]) -> Answer:
    """An object that was PUT; those of the formula have no bytes."""
    stored = bucket.stored.get(key)
    if stored is None:
        return "404 Not Found", {}, b"<Error><Code>NoSuchKey</Code></Error>"
    if headers.get("if-match", stored.etag).strip('"') != stored.etag:
        return "412 Precondition Failed", {}, b""
    about: dict[str, object] = {"ETag": f'"{stored.etag}"'} | _modified(stored.modified)
    size = len(stored.body)
    if found := re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("range", "")):
        # Without a first byte, the number is of bytes at the end.
        first = int(found[1]) if found[1] else max(0, size - int(found[2]))
        body = stored.body[first : int(found[2]) + 1 if found[1] and found[2] else size]
        about["Content-Range"] = f"bytes {first}-{first + len(body) - 1}/{size}"
        return "206 Partial Content", about | {"Content-Length": len(body)}, body
    return "200 OK", about | {"Content-Length": size}, stored.body


def _modified(moment: dt.datetime) -> dict[str, object]:
    return {"Last-Modified": format_datetime(moment, usegmt=True)}


def _list(bucket: CannedBucket, query: str) -> bytes:
    asked = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    after = asked.get("continuation-token") or asked.get("start-after", "")
    limit = min(PAGE, int(asked.get("max-keys", PAGE)))
    entries, following = bucket.page(asked.get("prefix", ""), "delimiter" in asked, after, limit)
    going_on = f"<NextContinuationToken>{escape(following)}</NextContinuationToken>" if following else ""
    head = f"<IsTruncated>{str(bool(following)).lower()}</IsTruncated>{going_on}"
    count = entries.count(b"<Key>") + entries.count(b"<CommonPrefixes>")
    return (
        b'<?xml version="1.0" encoding="UTF-8"?>\n'
        b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        + f"<Name>{BUCKET}</Name>{head}<KeyCount>{count}</KeyCount><MaxKeys>{limit}</MaxKeys>".encode()
        + entries
        + b"</ListBucketResult>"
    )


async def serve(shape: Shape, port: int, delay_s: float) -> None:
    buckets = {BUCKET: CannedBucket(shape), TABLES: CannedBucket(None)}
    queue = CannedQueue()
    server = await asyncio.get_running_loop().create_server(
        lambda: Server(buckets, queue, delay_s), "127.0.0.1", port
    )
    # Whoever started this process waits for the line, and ends it by closing its standard input.
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


@contextlib.contextmanager
def canned_s3(shape: Shape, delay_s: float = 0.0) -> Iterator[dict[str, str]]:
    """A server in a process of its own; gives the environment of its users.

    Args:
        delay_s: of each answer.
    """
    sizes = ("--objects", shape.objects, "--per-folder", shape.per_folder, "--per-minute", shape.per_minute)
    command = [sys.executable, "-m", "benchmarks.canned_s3", *map(str, sizes), "--delay-s", str(delay_s)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield {
            "AWS_ENDPOINT_URL": process.stdout.readline().strip(),
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AUDIO_SOURCE_URI": f"s3://{BUCKET}",
            "AUDIO_TABLE_URI": f"s3://{TABLES}/tables",
        }
    finally:
        process.stdin.close()
        process.wait(timeout=30)


def canned_store(endpoint: str) -> S3Store:
    """The bucket as its uploaders see it."""
    return S3Store(BUCKET, endpoint=endpoint, skip_signature=True, client_options={"allow_http": True})


def tables_store(endpoint: str) -> S3Store:
    """The place of the tables, as runs write there."""
    return S3Store(
        TABLES, prefix="tables", endpoint=endpoint, skip_signature=True, client_options={"allow_http": True}
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--per-folder", type=int, default=100)
    parser.add_argument("--per-minute", type=int, default=100)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-s", type=float, default=0.0, help="of each answer")
    args = parser.parse_args()
    asyncio.run(serve(Shape(args.objects, args.per_folder, args.per_minute), args.port, args.delay_s))


if __name__ == "__main__":
    main()
