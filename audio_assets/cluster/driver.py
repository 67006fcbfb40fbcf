"""The loop that goes over a run's partitions with the actors of a cluster."""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import logging
import time
import uuid
from collections.abc import Iterator, Sequence

from ray.exceptions import RayError

from audio_assets.audio import decoder_of
from audio_assets.cluster.actor_name import code_version, group_name
from audio_assets.cluster.actors import Actor, Actors, Ended, Event, Lost, Ready
from audio_assets.cluster.chunks import Chunks, expected_work
from audio_assets.cluster.connection import connected
from audio_assets.cluster.fleet import Fleet
from audio_assets.cluster.messages import ActorOptions, OpenPass, Report
from audio_assets.errors import ClusterError, WorkerLostError
from audio_assets.partition_rows import Finished
from audio_assets.partitions import FolderMinute
from audio_assets.table import THREADS, Table

SECONDS_BETWEEN_PROGRESS = 15.0
SECONDS_TO_STOP = 3.5
"""After *Terminate*, for the objects that actors have begun."""
SECONDS_FOR_A_PLACE = 900.0
"""How long no actor may have a place in the cluster: an autoscaler takes minutes to bring a node."""
CONNECTIONS = 5
"""How often a run connects to a cluster whose head ends while it works."""
_SECONDS_BETWEEN_LOOKS = 5.0


class ClusterPass:
    """One pass over some partitions, on a cluster.

    Args:
        address: as RAY_ADDRESS says.
        shape: whatever tells its actors from others: model, settings, source, table.
        open_pass: what an actor works with.
        inventory: says how much is in each partition.
        options: what the settings say of actors.
        log: of the run.

    Attributes:
        fleet: what each actor has done; of the run that is under way or has ended.
        dashboard: the URL of Ray's dashboard; empty where there is none.
    """

    def __init__(
        self,
        address: str,
        shape: Sequence[str],
        open_pass: OpenPass,
        inventory: Table,
        options: ActorOptions,
        log: logging.Logger,
    ) -> None:
        self.fleet = Fleet(options.gpus)
        self.dashboard = ""
        self._address = address
        self._group = group_name([*shape, code_version(), repr(options)])
        self._open_pass = open_pass
        self._inventory = inventory
        self._options = options
        self._log = log
        self._progress = time.monotonic()
        self._looked = 0.0
        self._without_place = time.monotonic()
        self._done = 0
        self._wanted = 0

    def run(self, partitions: Sequence[FolderMinute]) -> Iterator[Finished]:
        """Make the partitions' files, yielding each once it is written.

        Raises:
            ClusterError: the cluster cannot be reached, or has no place for an actor.
            WorkerLostError: partitions keep killing whoever works on them; all others are made by then.
            StorageError, MissingInputError, ConflictError, ArgumentError: as on one machine.
        """
        chunks = Chunks(self._expected_work(partitions))
        self._total = len(partitions)
        for connection in itertools.count(1):
            try:
                yield from self._work(chunks, again=connection > 1)
                break
            except RayError as e:
                if connection == CONNECTIONS:
                    raise ClusterError(
                        f"the Ray cluster at {self._address} was lost {connection} times: {e}"
                    ) from e
                # All of a cluster ends with its head; a new one may come at its address.
                self._log.warning(
                    f"the Ray cluster at {self._address} is gone; going on as soon as it is back"
                )
                chunks.put_back()
        self.fleet.end()
        self._say_summary()
        if chunks.given_up:
            raise WorkerLostError(_given_up(chunks))

    def _work(self, chunks: Chunks, *, again: bool) -> Iterator[Finished]:
        """Go over the chunks with the actors of one connection.

        Raises:
            RayError: the cluster is gone.
        """
        with connected(self._address, self._log, again=again) as self.dashboard:
            if self.dashboard:
                self._log.info(f"Ray's dashboard: {self.dashboard}")
            if not again:
                self.fleet = Fleet(self._options.gpus)
            self._without_place = time.monotonic()
            actors = Actors(self._group, uuid.uuid4().hex, self._open_pass, self._options)
            try:
                while not chunks.done:
                    self._hand_out(chunks, actors)
                    for actor, event in actors.wait(1.0):
                        yield from self._take(actor, event, chunks)
                    self._say_progress(chunks, actors)
            except RayError:
                raise
            except BaseException:
                self._stop(actors)
                raise
            self._stop(actors)

    def _stop(self, actors: Actors) -> None:
        with contextlib.suppress(RayError):
            if ended := actors.stop(SECONDS_TO_STOP):
                self._log.warning(f"{ended} actors did not come to an end of their object and were ended")

    def _expected_work(self, partitions: Sequence[FolderMinute]) -> dict[FolderMinute, float]:
        """By the sizes of the objects that are audio; an actor says what else is wrong with a partition."""

        def sizes(partition: FolderMinute) -> list[int]:
            rows = self._inventory.read(partition).rows
            if rows is None:
                return []
            listed = zip(rows["Key"].to_pylist(), rows["Size"].to_pylist(), strict=True)
            return [size for key, size in listed if decoder_of(key) is not None]

        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            return expected_work(dict(zip(partitions, pool.map(sizes, partitions), strict=True)))

    # --- who works ------------------------------------------------------------------------------------

    def _hand_out(self, chunks: Chunks, actors: Actors) -> None:
        self._look_at_cluster(chunks, actors)
        for actor in actors.idle():
            chunk = chunks.take(max(actors.placed(), self._wanted), self._rate(chunks))
            if chunk is None:
                return
            actors.give(actor, chunk)

    def _rate(self, chunks: Chunks) -> float | None:
        """What one actor does in a second, in the unit of the expected work."""
        seconds = sum(figures.seconds for figures in self.fleet.workers.values())
        return chunks.work_done / seconds if seconds >= 1 and chunks.work_done else None

    def _look_at_cluster(self, chunks: Chunks, actors: Actors) -> None:
        """See now and then how many actors there can be: nodes come and go."""
        now = time.monotonic()
        if now - self._looked >= _SECONDS_BETWEEN_LOOKS:
            self._looked = now
            self._wanted = self._options.most or actors.capacity()
            if self._looked and actors.waiting_for_place():
                actors.make_room()
        # One where the cluster has no place: its autoscaler goes by who waits.
        actors.ensure(min(max(self._wanted, 1), chunks.waiting + actors.busy()))
        if actors.placed():
            self._without_place = now
        elif now - self._without_place > SECONDS_FOR_A_PLACE:
            raise ClusterError(self._no_place())

    def _no_place(self) -> str:
        return (
            f"no node of the Ray cluster at {self._address} had a place for an actor of"
            f" {self._options.gpus:g} GPUs (RAY_GPUS_PER_ACTOR) and {self._options.cpus:g} CPUs"
            f" (RAY_CPUS_PER_ACTOR) for {SECONDS_FOR_A_PLACE / 60:.0f} minutes: add a node, or set them to"
            " what the nodes have"
        )

    # --- what became of it ----------------------------------------------------------------------------

    def _take(self, actor: Actor, event: Event, chunks: Chunks) -> Iterator[Finished]:
        match event:
            case Ready(worker):
                self._check_code(worker.node, worker.code)
                self.fleet.joined(actor.name, worker)
            case Report():
                yield from self._reported(actor, event, chunks)
            case Ended(chunk):
                chunks.ended(chunk)
            case Lost(chunk, why):
                self.fleet.left(actor.name)
                self._log.warning(f"{_where(actor)} died: {why}")
                if chunk is not None:
                    chunks.lost(chunk, why, actor.touched)

    def _check_code(self, node: str, code: str) -> None:
        if code != code_version():
            raise ClusterError(
                f"the node {node} of the Ray cluster at {self._address} has another version of audio_assets"
                f" ({code}) than this run ({code_version()}): install the same one on all nodes"
            )

    def _reported(self, actor: Actor, report: Report, chunks: Chunks) -> Iterator[Finished]:
        for warning in report.warnings:
            self._log.warning(f"{actor.name}: {warning}")
        if report.error is not None:
            raise report.error
        assert actor.chunk is not None
        new = tuple(
            finished for finished in report.finished if chunks.finished(actor.chunk, finished.partition)
        )
        self.fleet.add(actor.name, dataclasses.replace(report, finished=new))
        if report.load_s is not None:
            self._log.info(f"{_where(actor)}: the model is on {report.device} after {report.load_s:.1f} s")
        self._done += len(new)
        yield from new

    # --- what is said ---------------------------------------------------------------------------------

    def _say_progress(self, chunks: Chunks, actors: Actors) -> None:
        if time.monotonic() - self._progress < SECONDS_BETWEEN_PROGRESS:
            return
        self._progress = time.monotonic()
        words = [f"{self._done} of {self._total} partitions, {self._total - self._done} to go"]
        seconds = self.fleet.seconds
        words.append(f"{self.fleet.audio_s / seconds:.1f} s of audio a second by {actors.placed()} actors")
        if each := self.fleet.per_worker():
            words[-1] += f" ({each})"
        if chunks.work_done:
            left = chunks.work_left() / chunks.work_done * seconds
            words.append(f"about {_duration(left)} left")
        if missing := actors.waiting_for_place():
            words.append(f"{missing} actors wait for a place in the cluster")
        self._log.info("; ".join(words))

    def _say_summary(self) -> None:
        fleet = self.fleet
        self._log.info(
            f"{self._done} of {self._total} partitions by {len(fleet.workers)} actors in"
            f" {_duration(fleet.seconds)}; {fleet.loads} loaded the model, the others had it;"
            f" {fleet.audio_s / 3600:.2f} h of audio in {fleet.gpu_hours:.3f} hours of"
            f" {'a GPU' if self._options.gpus else 'an actor'}, {fleet.audio_hours_per_gpu_hour:.0f} an hour"
        )


def _where(actor: Actor) -> str:
    """The name of an actor, and its node and process once it has a place."""
    worker = actor.worker
    return f"{actor.name} on {worker.node} (process {worker.pid})" if worker else actor.name


def _given_up(chunks: Chunks) -> str:
    said = "; ".join(f"{partition.key}: {why}" for partition, why in list(chunks.given_up.items())[:5])
    return (
        f"{len(chunks.given_up)} partitions keep ending whoever works on them, all others are written: {said}"
        "; look at the memory of the nodes, or at the objects of these partitions"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
