"""The actors of a run: found or started, given a chunk, replaced when they die, told to stop."""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from audio_assets.cluster.actor import CONTROL, SpeechActor
from audio_assets.cluster.actor_name import actor_name, group_of
from audio_assets.cluster.chunks import Chunk
from audio_assets.cluster.messages import ActorOptions, OpenPass, Report, Worker

# A control thread for each driver that may ask at the same time, and one to spare.
_CONTROL_THREADS = 4
# Idle actors of other groups may be between two chunks of a run.
_SECONDS_IDLE_TO_MAKE_ROOM = 10.0
_SECONDS_TO_CONFIRM = 1.0


@dataclasses.dataclass
class Actor:
    """An actor of the run, with what it is doing.

    Attributes:
        name: its name in the cluster.
        worker: as it describes itself; None until it has a place in the cluster.
        chunk: None while it waits for one.
        touched: in a rehearsal, the object that it has begun.
    """

    name: str
    handle: Any
    described: Any
    worker: Worker | None = None
    chunk: Chunk | None = None
    stream: Any = None
    touched: str | None = None


@dataclasses.dataclass(frozen=True)
class Ready:
    """An actor has a place in the cluster."""

    worker: Worker


@dataclasses.dataclass(frozen=True)
class Ended:
    """An actor is done with a chunk."""

    chunk: Chunk


@dataclasses.dataclass(frozen=True)
class Lost:
    """An actor died, or is of no more use.

    Attributes:
        chunk: what it was working on; None where it had nothing.
        why: what is known of its end, in words.
    """

    chunk: Chunk | None
    why: str


Event = Ready | Report | Ended | Lost


class Actors:
    """The actors of one run.

    Args:
        group: the common part of their names.
        run: tells this run from others that use the same actors.
    """

    def __init__(self, group: str, run: str, open_pass: OpenPass, options: ActorOptions) -> None:
        self._group = group
        self._run = run
        # Once for all chunks.
        self._open_pass = open_pass
        self._options = options
        self._actors: dict[int, Actor] = {}
        remote: Any = ray.remote
        self._class = remote(concurrency_groups={CONTROL: _CONTROL_THREADS})(SpeechActor)

    # --- how many -------------------------------------------------------------------------------------

    def capacity(self) -> int:
        """How many actors the cluster's nodes hold, whether or not others are there already."""
        # Of a head that was started anew, `ray.nodes` ends the process, and this raises an error.
        ray.util.list_named_actors()
        return sum(places(node["Resources"], self._options) for node in ray.nodes() if node["Alive"])

    def ensure(self, wanted: int) -> None:
        """Find or start actors until there are as many as wanted."""
        for number in range(wanted):
            if number not in self._actors:
                self._actors[number] = self._find_or_start(actor_name(self._group, number))

    def _find_or_start(self, name: str) -> Actor:
        options = self._options
        handle = self._class.options(
            name=name,
            lifetime="detached",
            get_if_exists=True,
            num_gpus=options.gpus,
            num_cpus=options.cpus,
            # The driver itself replaces an actor and decides what becomes of its chunk: Ray would give the
            # same chunk to the next process, and a poisonous object with it.
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=1,
        ).remote(options.idle_s, dict(options.environment))
        return Actor(name, handle, handle.describe.remote())

    def make_room(self) -> None:
        """Ask idle actors of other groups to end: they hold GPUs that the actors of this run wait for."""
        for name in ray.util.list_named_actors():
            if group_of(name) not in (None, self._group):
                try:
                    ray.get_actor(name).leave_if_idle.remote(_SECONDS_IDLE_TO_MAKE_ROOM)
                except ValueError:
                    continue  # It has ended meanwhile.

    # --- work -----------------------------------------------------------------------------------------

    def idle(self) -> list[Actor]:
        """Those that have a place in the cluster and no chunk."""
        return [actor for actor in self._actors.values() if actor.worker and actor.chunk is None]

    def busy(self) -> int:
        """How many have a chunk."""
        return sum(actor.chunk is not None for actor in self._actors.values())

    def placed(self) -> int:
        """How many have a place in the cluster."""
        return sum(actor.worker is not None for actor in self._actors.values())

    def waiting_for_place(self) -> int:
        """How many have none yet."""
        return len(self._actors) - self.placed()

    def give(self, actor: Actor, chunk: Chunk) -> None:
        """Let an idle actor work on a chunk."""
        actor.chunk = chunk
        actor.touched = None
        method = actor.handle.process.options(
            num_returns="streaming",
            # A rehearsal goes on once the driver knows which object is next.
            _generator_backpressure_num_objects=1 if chunk.rehearse else -1,
        )
        actor.stream = method.remote(self._run, chunk, self._open_pass)

    def wait(self, seconds: float) -> Iterator[tuple[Actor, Event]]:
        """What has happened, as soon as something has; nothing if that takes longer than `seconds`."""
        awaited = {
            actor.stream or actor.described: actor for actor in self._actors.values() if _awaits(actor)
        }
        if not awaited:
            time.sleep(min(seconds, 0.2))
            return
        ready, _ = ray.wait(list(awaited), num_returns=1, timeout=seconds)
        # One more look finds all others that are ready by now, so that none is served last for ever.
        ready, _ = ray.wait(list(awaited), num_returns=len(awaited), timeout=0) if ready else (ready, None)
        for reference in ready:
            actor = awaited[reference]
            yield actor, self._event(actor)

    def _event(self, actor: Actor) -> Event:
        try:
            if actor.stream is None:
                worker: Any = ray.get(actor.described)
                actor.worker = worker
                return Ready(worker)
            try:
                report: Any = ray.get(next(actor.stream))
            except StopIteration:
                return self._ended(actor)
        except RayTaskError as e:
            # Its GPU may be broken, as CUDA leaves it after some errors: another process takes its place.
            return self._lost(actor, f"{type(e.cause).__name__}: {e.cause}", end=True)
        except RayError as e:
            return self._lost(actor, _in_words(e), end=not isinstance(e, RayActorError))
        actor.touched = report.touched or actor.touched
        return report

    def _ended(self, actor: Actor) -> Ended:
        chunk = actor.chunk
        assert chunk is not None
        actor.chunk = actor.stream = None
        return Ended(chunk)

    def _lost(self, actor: Actor, why: str, *, end: bool) -> Lost:
        if end:
            self._end(actor)
        self._actors = {number: other for number, other in self._actors.items() if other is not actor}
        return Lost(actor.chunk, why)

    # --- the end --------------------------------------------------------------------------------------

    def stop(self, seconds: float) -> int:
        """End all chunks under way, ask for no further place, and leave the actors that have one.

        Gives how many had to be ended for that.

        Args:
            seconds: how long an actor may take to come to the end of an object; then its process is ended.
        """
        busy = [actor for actor in self._actors.values() if actor.chunk is not None]
        for actor in busy:
            assert actor.chunk is not None
            actor.handle.stop.remote(self._run, actor.chunk.number)
        deadline = time.monotonic() + seconds
        self._withdraw()
        late = [actor for actor in busy if not self._ends_until(actor, deadline)]
        for actor in late:
            self._end(actor)
        return len(late)

    def _withdraw(self) -> None:
        """Ask no more for a place for the actors that have none yet.

        They outlive the run: one that got its place later would keep it from the runs that have work, and an
        autoscaler would bring a node for it.
        """
        asked = {actor.described: actor for actor in self._actors.values() if actor.worker is None}
        if not asked:
            return
        _, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=0)
        for described in waiting:
            self._end(asked[described])
        # The connection ends next: what the cluster has not confirmed may not have been sent.
        if waiting:
            ray.wait(waiting, num_returns=len(waiting), timeout=_SECONDS_TO_CONFIRM)

    def _ends_until(self, actor: Actor, deadline: float) -> bool:
        try:
            ended, _ = ray.wait([actor.stream.completed()], timeout=max(0.0, deadline - time.monotonic()))
        except (RayError, GetTimeoutError):
            return True
        return bool(ended)

    def _end(self, actor: Actor) -> None:
        ray.kill(actor.handle, no_restart=True)


def places(resources: Mapping[str, float], options: ActorOptions) -> int:
    """How many actors a node holds.

    Args:
        resources: of the node, as `ray.nodes()` gives them.
    """
    wanted = {"GPU": options.gpus, "CPU": options.cpus}
    return min(
        (
            # Ray counts in ten-thousandths: three actors of a third of a GPU fit.
            math.floor(resources.get(name, 0.0) / each + 1e-3)
            for name, each in wanted.items()
            if each
        ),
        default=0,
    )


def _awaits(actor: Actor) -> bool:
    return actor.stream is not None or actor.worker is None


def _in_words(error: Exception) -> str:
    """What Ray says of an actor's end, on one line; the causes that it only supposes left out."""
    said = " ".join(str(error).split()).partition(" Some common causes")[0]
    detail = said.partition("exit detail: ")[2] or said.rpartition("namespace: ")[2] or said
    return detail[:300].rstrip(".") or type(error).__name__
