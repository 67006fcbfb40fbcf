"""Who makes the pass over the audio of a run: its own process, or the actors of a Ray cluster (RAY_ADDRESS).

Ray is imported only where RAY_ADDRESS is set.
"""

import dataclasses
import functools
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg

from audio_assets import settings
from audio_assets.defs.metadata import markdown_table
from audio_assets.defs.resources import AudioTokeniser, Bucket, Whisper
from audio_assets.errors import ArgumentError
from audio_assets.partition_rows import Finished
from audio_assets.partitions import FolderMinute
from audio_assets.speech import SpeechPass, Transcribing

if TYPE_CHECKING:
    from audio_assets.cluster.driver import ClusterPass
    from audio_assets.transcription.recogniser import Recogniser

SECONDS_BETWEEN_PROGRESS = 5
_COUNTS = ("windows", "fallbacks", "halvings")
_SECONDS = ("mel_s", "encode_s", "language_s", "decode_s", "align_s", "second_s", "float32_s")
# What an actor goes by as the run does. All else of the environment is that of its node: credentials, too.
_OF_THE_RUN = (settings.AUDIO_FORMATS, settings.S3_ATTEMPTS, settings.S3_STALL_SECONDS)


class Pass(Protocol):
    """A pass over the audio of a run's partitions, whoever makes it."""

    def run(self, partitions: Sequence[FolderMinute]) -> Iterator[Finished]:
        """Make the partitions' files, yielding each once it is written."""
        ...

    def figures(self, table: str) -> dict[str, dg.MetadataValue]:
        """What the run as a whole achieved for a table, once `run` is through."""
        ...


@dataclasses.dataclass(frozen=True)
class PassOfRun:
    """What a run asks for. It opens the pass, here or in an actor: each of them has clients of its own.

    Attributes:
        bucket, whisper, tokeniser: give the resources.
        tables: which of `transcripts` and `tokens` are asked for.
        recompute: whether to make each row anew.
    """

    bucket: Callable[[], Bucket]
    whisper: Callable[[], Whisper]
    tokeniser: Callable[[], AudioTokeniser]
    tables: frozenset[str]
    recompute: bool

    def __call__(
        self,
        unreadable: Mapping[str, str] | None = None,
        stopped: threading.Event | None = None,
        log_load: Callable[[Transcribing], Transcribing] = lambda transcribing: transcribing,
    ) -> SpeechPass:
        """Open the pass; loads no weights.

        Raises:
            ArgumentError: a setting is wrong.
        """
        bucket = self.bucket()
        transcribing = None
        if "transcripts" in self.tables:
            transcribing = log_load(self.whisper().transcribing(bucket.transcripts))
        tokenising = self.tokeniser().tokenising(bucket.tokens) if "tokens" in self.tables else None
        return SpeechPass(
            bucket.source,
            bucket.inventory,
            transcribing,
            tokenising,
            recompute=self.recompute,
            unreadable=unreadable,
            stopped=stopped,
        )


def pass_of_run(
    bucket: Bucket,
    whisper: Whisper,
    tokeniser: AudioTokeniser,
    tables: Collection[str],
    log: logging.Logger,
    *,
    recompute: bool,
) -> Pass:
    """The pass of a run, as RAY_ADDRESS says.

    Raises:
        ArgumentError: a setting is wrong.
    """
    if not settings.RAY_ADDRESS.is_set:
        open_pass = PassOfRun(
            lambda: bucket, lambda: whisper, lambda: tokeniser, frozenset(tables), recompute
        )
        return _InProcess(open_pass, log)
    address = settings.RAY_ADDRESS.get()
    from audio_assets.cluster.connection import prepare
    from audio_assets.cluster.messages import ActorOptions

    prepare(address)
    # Not before: Ray reads its settings when it is imported.
    from audio_assets.cluster.driver import ClusterPass

    travels = PassOfRun(rebuilt(bucket), rebuilt(whisper), rebuilt(tokeniser), frozenset(tables), recompute)
    options = ActorOptions(
        gpus=settings.RAY_GPUS_PER_ACTOR.get(),
        cpus=settings.RAY_CPUS_PER_ACTOR.get(),
        most=settings.RAY_MAX_ACTORS.get(),
        idle_s=settings.RAY_ACTOR_IDLE_MINUTES.get() * 60,
        environment={setting.name: setting.text for setting in _OF_THE_RUN},
    )
    shape = (
        bucket.source_uri,
        bucket.table_uri,
        repr(travels.whisper),
        *whisper.expected_parts(),
        tokeniser.code_version,
    )
    cluster = ClusterPass(address, shape, travels, bucket.inventory, options, log)
    return _OnCluster(cluster)


def rebuilt(resource: Any) -> Callable[[], Any]:
    """What makes a resource again in another process: Dagster's resources cannot be pickled as they are.

    Raises:
        ArgumentError: it holds credentials, which do not travel.
    """
    if not isinstance(resource, dg.ConfigurableResource):
        return functools.partial(_same, resource)
    values = {name: getattr(resource, name) for name in type(resource).model_fields}
    if secret := [name for name, value in values.items() if value and name.startswith("aws_")]:
        raise ArgumentError(
            "RAY_ADDRESS",
            f" is set, and {type(resource).__name__} holds {', '.join(secret)}: credentials do not travel to"
            " Ray's nodes. Give each node an AWS account of its own instead",
        )
    nested = {
        name: rebuilt(value) for name, value in values.items() if isinstance(value, dg.ConfigurableResource)
    }
    plain = tuple((name, value) for name, value in values.items() if name not in nested)
    return functools.partial(_build, type(resource), plain, tuple(nested.items()))


def _same(value: Any) -> Any:
    return value


def _build(
    kind: type, plain: tuple[tuple[str, Any], ...], nested: tuple[tuple[str, Callable[[], Any]], ...]
) -> Any:
    return kind(**dict(plain), **{name: build() for name, build in nested})


class _InProcess:
    """The pass in the process of the run."""

    def __init__(self, open_pass: PassOfRun, log: logging.Logger) -> None:
        self._log = log
        self._done_before: dict[str, float] = {}
        self._pass = open_pass(log_load=self._logged)
        self._done = 0
        self._audio_s = 0.0
        self._computed = 0
        self._reused = 0
        self._reported = time.monotonic()

    def run(self, partitions: Sequence[FolderMinute]) -> Iterator[Finished]:
        for finished in self._pass.run(partitions):
            self._done += 1
            self._audio_s += finished.audio_s
            self._computed += finished.computed
            self._reused += finished.reused
            self._say_progress(len(partitions))
            yield finished

    def _say_progress(self, partitions: int) -> None:
        if time.monotonic() - self._reported > SECONDS_BETWEEN_PROGRESS or self._done == partitions:
            self._reported = time.monotonic()
            self._log.info(
                f"{self._done} of {partitions} partitions, {self._computed} clips,"
                f" {self._audio_s:.0f} s of audio, {self._reused} clips reused"
            )

    def figures(self, table: str) -> dict[str, dg.MetadataValue]:
        figures: dict[str, dg.MetadataValue] = {}
        if self._computed:
            figures["audio_s_per_s"] = dg.MetadataValue.float(round(self._audio_s / self._pass.seconds, 1))
        if table == "transcripts" and (recogniser := self._pass.recogniser):
            figures["device"] = dg.MetadataValue.text(recogniser.device)
            stats = dataclasses.asdict(recogniser.stats)
            figures |= _stages({name: value - self._done_before[name] for name, value in stats.items()})
        return figures

    def _logged(self, transcribing: Transcribing) -> Transcribing:
        """The same, with what loading takes in the log."""

        def load() -> "Recogniser":
            name = transcribing.identity
            # A first download of a large model takes minutes, in which a run would seem to hang.
            self._log.info(f"Loading {name[:1].upper()}{name[1:]}")
            started = time.monotonic()
            recogniser = transcribing.load()
            self._log.info(f"The model is on {recogniser.device} after {time.monotonic() - started:.1f} s")
            # The recogniser may outlive a run.
            self._done_before.update(dataclasses.asdict(recogniser.stats))
            return recogniser

        return dataclasses.replace(transcribing, load=load)


class _OnCluster:
    """The pass on a Ray cluster."""

    def __init__(self, cluster: "ClusterPass") -> None:
        self._cluster = cluster

    def run(self, partitions: Sequence[FolderMinute]) -> Iterator[Finished]:
        return self._cluster.run(partitions)

    def figures(self, table: str) -> dict[str, dg.MetadataValue]:
        fleet = self._cluster.fleet
        figures: dict[str, dg.MetadataValue] = {
            "audio_s_per_s": dg.MetadataValue.float(round(fleet.audio_s / fleet.seconds, 1)),
            "gpu_hours": dg.MetadataValue.float(round(fleet.gpu_hours, 4)),
            "audio_hours_per_gpu_hour": dg.MetadataValue.float(round(fleet.audio_hours_per_gpu_hour, 1)),
            "models_loaded": dg.MetadataValue.int(fleet.loads),
            "workers": markdown_table(
                [
                    {
                        "worker": name,
                        "node": figures.worker.node,
                        "device": figures.device,
                        "partitions": figures.partitions,
                        "audio s/s": round(figures.audio_s_per_s, 1),
                        "busy s": round(figures.seconds, 1),
                        "loads": figures.loads,
                    }
                    for name, figures in sorted(fleet.workers.items())
                ]
            ),
        }
        if self._cluster.dashboard:
            figures["ray_dashboard"] = dg.MetadataValue.url(self._cluster.dashboard)
        if table == "transcripts" and fleet.stats:
            devices = sorted({figures.device for figures in fleet.workers.values() if figures.device})
            figures["device"] = dg.MetadataValue.text(", ".join(devices))
            figures |= _stages(fleet.stats)
        return figures


def _stages(done: Mapping[str, float]) -> dict[str, dg.MetadataValue]:
    """What the engine did in this run: windows of 30 s, seconds of each stage, fallbacks, halved batches."""
    return {
        **{name: dg.MetadataValue.int(int(done.get(name, 0))) for name in _COUNTS},
        **{name: dg.MetadataValue.float(round(done.get(name, 0.0), 2)) for name in _SECONDS},
    }
