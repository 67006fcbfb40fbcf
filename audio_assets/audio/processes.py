"""Processes that decode, beside a recogniser on a GPU.

Between two launches on the GPU a recogniser works in Python. Threads that decode take the interpreter lock
from it; processes do not. An object that ends the process which decodes it costs no other object its row.
"""

import contextlib
import functools
import logging
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from audio_assets.audio.decoding import decode, joined
from audio_assets.audio.decoding_process import HEADER, READY, SIZES, Refusal, Request, receive
from audio_assets.audio.types import Audio, Decoder
from audio_assets.errors import AudioError, DecoderFailedError

LARGEST_BODY = 32 * 2**20
"""A larger object is decoded by the thread that has it: a process would hold it a second time."""
TRIES = 2
"""What ends so many processes in a row is to blame itself."""
_PROGRAM = "import sys; sys.path = sys.argv[2:]; from audio_assets.audio.decoding_process import main; main()"
_LOG = logging.getLogger(__name__)


class DecodingProcesses:
    """As many processes as threads decode at the same time, each of which decodes one object at a time.

    They start when they are first needed, and end with this process. No thread waits for one: those that
    have one may be waiting for memory until the object of that thread is done.
    """

    def __init__(self) -> None:
        self._idle: list[_DecodingProcess] = []
        self._start_fails = False

    def decode(
        self,
        decoder: Decoder,
        body: bytes,
        admit: Callable[[int], None] | None = None,
        *,
        rates_hz: Sequence[int] = (),
        evidence: bool = False,
    ) -> Audio:
        """As `audio.decode`, which does it itself where no process can be started.

        Raises:
            AudioError: as `audio.decode`; or it has ended `TRIES` processes.
            DecoderFailedError: the decoder raised another exception than AudioError.
        """
        here = functools.partial(decode, decoder, body, admit, rates_hz=rates_hz, evidence=evidence)
        request = _pickled(Request(decoder, rates_hz, evidence))
        if request is None or len(body) > LARGEST_BODY:
            return here()
        ends = []
        while len(ends) < TRIES:
            process = self._taken()
            if process is None:
                return here()
            try:
                return joined(process.ask(request, body), admit)
            except _NotImportedError:
                return here()
            except (EOFError, ConnectionError):
                ends.append(process.ended())
            except (AudioError, DecoderFailedError):
                raise
            except BaseException:
                # What it has still to say is of this object.
                process.kill()
                raise
            finally:
                if process.lives:
                    self._idle.append(process)
        died = ", ".join(ends)
        raise AudioError(
            f"each process that decoded it died ({died}); export it again, or look at this machine's memory"
        )

    def _taken(self) -> "_DecodingProcess | None":
        """One that nobody else uses; None where none can be started."""
        with contextlib.suppress(IndexError):
            while not (process := self._idle.pop()).lives:
                pass  # It was killed while nobody used it, as where memory is short.
            return process
        if self._start_fails:
            return None
        try:
            return _DecodingProcess()
        except (OSError, EOFError) as e:
            self._start_fails = True
            _LOG.warning(f"no process that decodes can be started ({e!r}); objects are decoded by threads")
            return None


class _NotImportedError(Exception):
    """A process cannot import a decoder that this one has, such as one of a script."""


class _DecodingProcess:
    """One process.

    Raises:
        OSError, EOFError: it does not start.
    """

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            # What this process can import, decoders of one's own too, that one can.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        try:
            receive(self._channel, len(READY))
        except BaseException:
            self.kill()
            raise

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: bytes, body: bytes) -> Iterator[tuple[int, np.ndarray] | Audio]:
        """As `decoded_parts`.

        Raises:
            AudioError, DecoderFailedError: there is no audio.
            _NotImportedError: it cannot import the decoder.
            EOFError, ConnectionError: it has ended.
        """
        self._channel.sendall(SIZES.pack(len(request), len(body)) + request)
        self._channel.sendall(body)
        while True:
            rate, size = HEADER.unpack(receive(self._channel, HEADER.size))
            held = receive(self._channel, size)
            if rate:
                yield rate, np.frombuffer(held, np.float32)
                continue
            last: Audio | Refusal | None = pickle.loads(held)
            if last is None:
                raise _NotImportedError
            if isinstance(last, Refusal):
                raise AudioError(last.said) if last.by_audio else DecoderFailedError(last.said)
            yield last
            return

    def ended(self) -> str:
        """How it ended, which it does by itself, in words."""
        self._channel.close()
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def kill(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()


def _pickled(request: Request) -> bytes | None:
    """None where another process cannot import the decoder, such as a function within a function."""
    try:
        return pickle.dumps(request)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


@functools.cache
def decoding_processes() -> DecodingProcesses:
    """Those of this process, which serve one pass after the other."""
    return DecodingProcesses()
