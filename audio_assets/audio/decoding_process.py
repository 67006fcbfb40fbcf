"""A process that decodes, one object after the other.

`processes.py` starts it and talks to it over a socket. What is said there, after a `READY`:

    asked     the `SIZES` of a pickle and of an object, then both; the pickle is a `Request`
    answered  for each part its `HEADER`, then its float32 samples; at last, with a rate of 0, a pickle: the
              audio without its samples, a `Refusal`, or None where the decoder cannot be imported
"""

import dataclasses
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from audio_assets.audio.decoding import decoded_parts
from audio_assets.audio.types import Audio, Decoder
from audio_assets.errors import AudioError

READY = b"!"
SIZES = struct.Struct("!QQ")
HEADER = struct.Struct("!IQ")
"""Of a part: its rate in Hz, and its bytes."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What `decoded_parts` takes beside the object."""

    decoder: Decoder
    rates_hz: Sequence[int]
    evidence: bool


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why there is no audio.

    Attributes:
        by_audio: whether it is an AudioError, rather than another exception of the decoder.
    """

    said: str
    by_audio: bool


def receive(channel: socket.socket, size: int) -> bytearray:
    """So many bytes.

    Raises:
        EOFError: the other side is gone.
    """
    held = bytearray(size)
    view = memoryview(held)
    while view:
        if not (count := channel.recv_into(view, 0, socket.MSG_WAITALL)):
            raise EOFError
        view = view[count:]
    return held


def main() -> None:
    """Serve on the socket of the file descriptor that is the first argument, until it closes."""
    # Ctrl-C reaches all processes of a terminal; who asks decides when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        channel.sendall(READY)
        while True:
            try:
                pickle_size, size = SIZES.unpack(receive(channel, SIZES.size))
                request = _unpickled(receive(channel, pickle_size))
                _serve(channel, request, bytes(receive(channel, size)))
            except (EOFError, ConnectionError):
                return


def _unpickled(request: bytearray) -> Request | None:
    try:
        return pickle.loads(request)
    except Exception:  # Whatever the module of somebody's own decoder raises when it is imported.
        return None


def _serve(channel: socket.socket, request: Request | None, body: bytes) -> None:
    part: tuple[int, np.ndarray] | Audio | Refusal | None = None
    if request is not None:
        parts = decoded_parts(request.decoder, body, request.rates_hz, evidence=request.evidence)
        while isinstance(part := _next(parts), tuple):
            rate, samples = part
            channel.sendall(HEADER.pack(rate, samples.nbytes))
            channel.sendall(samples.data)
    last = pickle.dumps(part)
    channel.sendall(HEADER.pack(0, len(last)) + last)


def _next(parts: Iterator[tuple[int, np.ndarray] | Audio]) -> tuple[int, np.ndarray] | Audio | Refusal:
    try:
        return next(parts)
    except Exception as e:
        return Refusal(str(e), isinstance(e, AudioError))
