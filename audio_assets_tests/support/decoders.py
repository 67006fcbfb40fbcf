"""Decoders of one's own that do harm, in a module that a process which decodes can import."""

import os
import pathlib
import signal

from audio_assets.audio import PcmStream, read_flac

PID_FILE = "PID_FILE"
"""The variable that names a file, to which each decode appends its process."""


def read_noted(body: bytes) -> PcmStream:
    """FLAC; an object that says `kill` ends the process that decodes it, one that says `raise` is a fault."""
    with pathlib.Path(os.environ[PID_FILE]).open("a") as file:
        file.write(f"{os.getpid()}\n")
    if body == b"kill":
        os.kill(os.getpid(), signal.SIGSEGV)
    if body == b"raise":
        raise ZeroDivisionError("a fault of the decoder")
    return read_flac(body)
