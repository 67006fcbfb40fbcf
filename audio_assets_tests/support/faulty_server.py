"""An S3 server that fails by plan: moto's, with faults between it and whoever asks.

Moto's own server runs in the same process, so that both serve the same buckets.
"""

import collections
import contextlib
import dataclasses
import datetime as dt
import json
import math
import pathlib
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

STALL_S = 4.0
"""How long a stalled answer takes; whoever asks should have given up before."""

# Before and after the request took effect.
EVERYWHERE = ("500", "503", "expired", "reset before", "reset after", "stall before", "stall after")
FAULTS = {
    "GET": (*EVERYWHERE, "stall amid", "truncated", "damaged"),
    # A damaged listing ends early, with a Content-Length that fits: only the XML tells.
    "LIST": (*EVERYWHERE, "stall amid", "truncated", "damaged"),
    # S3 itself finds a damaged upload by the hash that the request is signed with.
    "PUT": (*EVERYWHERE, "409", "damaged"),
    "DELETE": (*EVERYWHERE, "409"),
}
ANSWERS = {
    "500": ("500 Internal Server Error", "InternalError", "We encountered an internal error."),
    "503": ("503 Service Unavailable", "SlowDown", "Please reduce your request rate."),
    "409": ("409 Conflict", "ConditionalRequestConflict", "A conflicting operation occurred."),
    "damaged": ("400 Bad Request", "XAmzContentSHA256Mismatch", "The content does not match its hash."),
    "expired": ("403 Forbidden", "ExpiredToken", "The provided token has expired."),
    "denied": ("403 Forbidden", "AccessDenied", "Access Denied"),
    "archived": (
        *("403 Forbidden", "InvalidObjectState"),
        "The operation is not valid for the object's storage class",
    ),
    "unknown account": ("403 Forbidden", "InvalidAccessKeyId", "The key does not exist in our records."),
}


@dataclasses.dataclass
class Plan:
    """Which requests fail, and how; the same for the same seed, whatever order threads ask in.

    Attributes:
        share: of the requests that fail.
        always: for a method of FAULTS and a part of the path, the fault that every such request
            meets.
        times: how many of these requests meet it, where not all do.
    """

    seed: int = 0
    share: float = 0.0
    always: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    times: float = math.inf
    asked: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    injected: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)

    def fault(self, method: str, target: str) -> str | None:
        self.asked[method, target] += 1
        # Not by the bucket's name, which depends on the tests before.
        path = re.sub(r"^/[^/?]*", "", target)
        chance = random.Random(f"{self.seed} {method} {path} {self.asked[method, target]}")
        found = next((f for (m, part), f in self.always.items() if m == method and part in target), None)
        if found and self.injected[method, found] >= self.times:
            return None
        if found is None and method in FAULTS and chance.random() < self.share:
            found = chance.choice(FAULTS[method])
        if found:
            self.injected[method, found] += 1
        return found


class _Handler(MotoRequestHandler):
    def handle(self) -> None:
        # A connection that was reset by plan is no news.
        with contextlib.suppress(OSError, ValueError):
            super().handle()


class FaultyServer:
    """Moto's S3 behind faults, on loopback.

    Attributes:
        url: its endpoint.
        plan: what fails now; replace it at any time.
        token: the session token that was issued last.
        tokens: those that requests came with.
    """

    def __init__(self, credentials: pathlib.Path) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._credentials = credentials
        self._valid: set[str] = set()
        self._issued = 0
        self.tokens: set[str] = set()
        self.plan = Plan()
        self.issue_token()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["FaultyServer"]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()

    def heal(self) -> None:
        """Fail no more."""
        self.plan = Plan()

    def issue_token(self, *, expire: bool = True) -> None:
        """Put new credentials where `credential_process` fetches them, and by default let the old ones
        expire before their time."""
        self._issued += 1
        self.token = f"token-{self._issued}"
        self._valid = {self.token} if expire else {*self._valid, self.token}
        expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        found = {
            "Version": 1,
            "AccessKeyId": "somebody",
            "SecretAccessKey": "secret",
            "SessionToken": self.token,
            "Expiration": expires.isoformat(),
        }
        # In one step: whoever fetches them meanwhile gets the old ones or the new ones.
        complete = self._credentials.with_suffix(".new")
        complete.write_text(json.dumps(found))
        complete.replace(self._credentials)

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        target = f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        if method == "GET" and "list-type=2" in target:
            method = "LIST"
        fault = self._fault(method, target, environ)
        if fault == "reset before":
            return _reset(environ)
        if fault == "stall before":
            time.sleep(STALL_S)
            return _reset(environ)
        # What was asked for comes damaged; only an upload that is damaged is refused.
        if fault in ANSWERS and (fault != "damaged" or method == "PUT"):
            return _refuse(start, fault)
        answer = self._ask_moto(environ)
        if fault == "stall after":
            time.sleep(STALL_S)
        if fault in ("reset after", "stall after"):
            return _reset(environ)
        return _send(start, method, fault, *answer)

    def _fault(self, method: str, target: str, environ: dict[str, Any]) -> str | None:
        """What a request meets: a fault by plan, or the end of the token that it comes with."""
        with self._lock:
            fault = self.plan.fault(method, target)
            if fault == "expired":
                self.issue_token()
            token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN", self.token)
            self.tokens.add(token)
            return fault if token in self._valid else "expired"

    def _ask_moto(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
        answered: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], _: object = None) -> Callable[[bytes], object]:
            answered[:] = status, headers
            return lambda _: None

        body = b"".join(self._moto(environ, start))
        return answered[0], answered[1], body


def _refuse(start: Callable[..., Any], fault: str) -> list[bytes]:
    status, code, message = ANSWERS[fault]
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _send(
    start: Callable[..., Any],
    method: str,
    fault: str | None,
    status: str,
    headers: list[tuple[str, str]],
    body: bytes,
) -> Iterable[bytes]:
    """Send moto's answer, whole or with a fault in its body."""
    if fault == "damaged" and body:
        body = _damaged(body) if method == "GET" else body[: len(body) // 2]
    # A truncated answer keeps the length that it should have had.
    if fault != "truncated" or not body:
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        headers.append(("Content-Length", str(len(body))))
    start(status, headers)
    if fault == "truncated":
        return [body[: len(body) // 2]]
    if fault == "stall amid":
        return _stalling(body)
    return [body]


def _damaged(body: bytes) -> bytes:
    """A bit flipped somewhere, never the same twice."""
    damaged = bytearray(body)
    damaged[random.randrange(len(body))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def _reset(environ: dict[str, Any]) -> Iterable[bytes]:
    connection: socket.socket = environ["werkzeug.socket"]
    # With these, closing sends RST at once rather than the orderly end of the stream.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    socket.socket(fileno=connection.detach()).close()
    raise ConnectionResetError


def _stalling(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    time.sleep(STALL_S)
