"""What runs, driver and actors tell each other: small, and made of what any of them can unpickle."""

import dataclasses
import threading
from collections.abc import Mapping
from typing import Protocol

from audio_assets.partition_rows import Finished
from audio_assets.speech import SpeechPass


class OpenPass(Protocol):
    """Opens a pass over the audio, with what the settings of the run say; it travels to the actor.

    It holds no credentials: an actor has those of its node.
    """

    def __call__(self, unreadable: Mapping[str, str], stopped: threading.Event) -> SpeechPass:
        """A pass; `SpeechPass` says what the arguments are.

        Raises:
            ArgumentError: a setting is wrong on the actor's node.
        """
        ...


@dataclasses.dataclass(frozen=True)
class ActorOptions:
    """What the settings say of actors.

    Attributes:
        gpus, cpus: that each takes; parts of one as well.
        most: how many there may be; None for as many as the nodes hold.
        idle_s: seconds without work after which one ends by itself.
        environment: settings of the run that are set in an actor's process, by variable.
    """

    gpus: float
    cpus: float
    most: int | None
    idle_s: float
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Worker:
    """An actor, as it describes itself.

    Attributes:
        node: the address of its node.
        pid: of its process.
        code: what `actor_name.code_version` gives there.
        loads: how often it has loaded a recogniser since it was started.
    """

    node: str
    pid: int
    code: str
    loads: int


@dataclasses.dataclass(frozen=True)
class Report:
    """What an actor has to say of a chunk, while it works on it.

    Attributes:
        finished: partitions that are written since its last report.
        seconds: wall-clock seconds since its last report, loading left out.
        load_s: wall-clock seconds of a load since then; None where nothing was loaded.
        device: of the recogniser; empty where none was needed so far.
        stats: what the recogniser has done since its last report, by the names of `transcription.Stats`.
        warnings: of the package's log since its last report.
        touched: in a rehearsal, the object that is begun next.
        error: what ended the chunk, an error that another actor would meet as well.
    """

    finished: tuple[Finished, ...] = ()
    seconds: float = 0.0
    load_s: float | None = None
    device: str = ""
    stats: Mapping[str, float] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    touched: str | None = None
    error: Exception | None = None
