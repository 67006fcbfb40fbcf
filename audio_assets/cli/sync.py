"""What the sensor and its runs do, in this process, until bucket and table agree.

A sync is a sensor that does not wait for its next tick and a daemon that executes what it asks for. It looks
with the sensor's own code, and makes the runs that the daemon would make. What is shown meanwhile is a matter
of `sync_display`.
"""

import collections
import dataclasses
import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator, Sequence

import dagster as dg

from audio_assets.cli.project import Project
from audio_assets.cli.sync_display import Display
from audio_assets.defs import speech
from audio_assets.defs.audio_table_daily import DAILY, DAY, EQUALS_AUDIO_TABLE, DayAttempt, look_at_days
from audio_assets.defs.check_results import last_looked, put_on_record, report
from audio_assets.defs.check_rules import CHECKS
from audio_assets.defs.checks import look_at_table
from audio_assets.defs.daily_checks import look_at_copy
from audio_assets.defs.internals.dynamic_partitions import delete_partition_keys
from audio_assets.defs.internals.instance_owner import claim
from audio_assets.defs.internals.partition_statuses import keep_partition_statuses, refresh_partition_statuses
from audio_assets.defs.internals.run_launcher import end_dead_runs
from audio_assets.defs.internals.run_origin import execute_here, was_asked_for
from audio_assets.defs.partitions import FOLDER_MINUTE, KEYS_AT_A_TIME, parts
from audio_assets.defs.records import InstanceRecords
from audio_assets.defs.sensor import producers_of, report_checks, run_request, tick_inputs
from audio_assets.sensor.run_requests import retry_delay
from audio_assets.sensor.tick import RunAttempt, TickOutcome, Unfinished, tick
from audio_assets.settings import MAX_RUNS_IN_FLIGHT, SETTLE_SECONDS

SENSOR = "new_s3_keys"
JOB = "process_audio"
DAYS_SENSOR = "changed_days"
DAYS_JOB = "compact_days"
SECONDS_BETWEEN_LOOKS = 2
# At the most, for runs of a daemon; when one ends, its partitions are looked at sooner.
SECONDS_FOR_OTHERS = 60
LOOKED = "audio_assets/last_sync"
"""Under this key the instance keeps when a sync last looked at the bucket, in seconds since 1970."""

CHECKS_HOLD = dt.timedelta(hours=1)
"""How long the results of the asset checks hold: as long as between two executions by their schedule."""

_log = logging.getLogger(__name__)

MINUTE = dt.timedelta(minutes=1)


@dataclasses.dataclass
class Result:
    """How a sync ended.

    Attributes:
        runs: how many were executed, without those of the daily copy.
        days: how many days of the daily copy were compacted.
        failed: the ids of those that failed, however the next try went.
        differing: partition keys in which bucket and table still differ, though every try was made.
        open: partitions that are left because their minute is not over.
    """

    runs: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)
    differing: set[str] = dataclasses.field(default_factory=set)
    open: int = 0
    days: int = 0


class _AtOnce(InstanceRecords):
    """The records of an instance for a caller that decides itself how long to wait after a failed run."""

    def tries(self, fingerprints: Sequence[str]) -> dict[str, list[float]]:
        return {name: [0.0] * len(ends) for name, ends in super().tries(fingerprints).items()}


class Sync:
    """Brings the table up to date.

    Args:
        project: what is worked with.
        display: is told of everything.
        wait: whether to wait for the minutes that are open when it begins.
        retries: how often a run that had no effect is made again.
        sleep: waits for so many seconds.
        clock: gives the time.
    """

    def __init__(
        self,
        project: Project,
        display: Display,
        *,
        wait: bool = True,
        retries: int = 2,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._instance = project.instance
        self._project = project
        self._display = display
        self._wait = wait
        self._tries = 1 + retries
        self._sleep = sleep
        self._clock = clock
        # Without this, a bucket that audio keeps coming into would keep a sync for ever.
        self._until = _floor(self._clock()) + MINUTE + SETTLE_SECONDS.get()
        self._cursor: str | None = None
        self._ended: dict[str, list[dt.datetime]] = collections.defaultdict(list)
        self._checked = False
        self._result = Result()
        resources = project.resources
        # A wrong setting is said once, when a run needs it.
        self._producers = producers_of(_log.debug, project.bucket, resources.whisper, resources.tokeniser)
        shown = dg.Definitions.merge(
            project.definitions, dg.Definitions(loggers={"console": display.logger()})
        )
        jobs = shown.get_repository_def()
        self._job = jobs.get_job(JOB)
        self._days_job = jobs.get_job(DAYS_JOB)

    def run(self) -> Result:
        """Look and execute until there is nothing left to do.

        Raises:
            ValueError: a setting is wrong.
            StorageError: bucket or table cannot be read.
        """
        speech.watchers.append(self._display.finished)
        try:
            with self._display.shown():
                claim(self._instance, self._project.bucket.source_uri, self._project.bucket.table_uri)
                self._project.bucket.check(_log)
                while self._once():
                    pass
                self._compact_days()
                self._check_table()
        finally:
            speech.watchers.remove(self._display.finished)
        return self._result

    # --- one round ------------------------------------------------------------------------------------

    def _once(self) -> bool:
        """Look, do what can be done now or wait; gives whether to look again."""
        outcome = self._look()
        self._display.pending(set(outcome.pending))
        self._result.open = outcome.open
        if due := [attempt for attempt in outcome.runs if self._is_due(attempt)]:
            self._check_settings()
            for attempt in due:
                self._execute(attempt)
            return True
        if outcome.delete:
            return True
        pause = min(self._pauses(outcome), key=lambda pause: pause.seconds, default=None)
        if pause is None:
            self._result.differing = set(outcome.pending)
            said = f"{outcome.summary}; {len(outcome.pending)} differ" if outcome.pending else outcome.summary
            self._display.say(f"  sensor {SENSOR}: {said}")
            return False
        self._display.wait(pause.why)
        self._rest(pause.seconds)
        return True

    def _look(self) -> TickOutcome:
        """What the sensor does in a tick, but for the queue of events: that is left to the sensor."""
        self._display.doing("looking at the bucket")
        # Whatever is uploaded after the beginning counts as open.
        now = min(self._clock(), self._until)
        for run_id in end_dead_runs(self._instance):
            self._display.say(f"  run {run_id} has no process any more; its partitions are looked at again")
        inputs = tick_inputs(
            self._project.bucket, _AtOnce(self._instance), now, self._cursor, producers=self._producers
        )
        outcome = tick(inputs)
        self._cursor = outcome.cursor.to_json()
        keep_partition_statuses(self._instance, inputs.registered, add=outcome.add, delete=outcome.delete)
        if outcome.add:
            self._display.say(f"  sensor {SENSOR}: {len(outcome.add)} new partitions")
        for part in parts(outcome.add, KEYS_AT_A_TIME):
            self._instance.add_dynamic_partitions(FOLDER_MINUTE, list(part))
        if outcome.delete:
            delete_partition_keys(self._instance, FOLDER_MINUTE, outcome.delete)
        if outcome.idle:
            refresh_partition_statuses(self._instance)
        report_checks(self._instance, self._project.bucket, outcome, self._producers, now)
        self._instance.daemon_cursor_storage.set_cursor_values({LOOKED: str(self._clock().timestamp())})
        return outcome

    def _check_table(self) -> None:
        """Execute the asset checks where the schedule has not done so within its hour.

        They read every file of the table, which a sync that is started every few minutes does not do again
        and again.
        """
        of_copy = last_looked(self._instance, [EQUALS_AUDIO_TABLE], DAILY)
        looked = [last_looked(self._instance, CHECKS), of_copy]
        if all(moment and self._clock() - moment < CHECKS_HOLD for moment in looked):
            report(self._instance, [], [EQUALS_AUDIO_TABLE], DAILY, working=False)
            return
        self._display.doing("checking the whole table")
        of = self._project.resources
        found = list(look_at_table(self._instance, _log, of.bucket, of.whisper, of.tokeniser, patience_s=0))
        put_on_record(self._instance, found)
        copy = look_at_copy(self._instance, of.bucket, patience_s=0)
        put_on_record(self._instance, [copy], DAILY)
        found.append(copy)
        self._display.say(f"  {sum(result.passed for result in found)} of {len(found)} asset checks passed")
        for result in found:
            if not result.passed:
                why = result.description or "its page in the UI says why"
                self._display.say(f"    {result.check_name}: {why}")

    def _check_settings(self) -> None:
        """Refuse a wrong model or tokeniser before a run is made that would fail by it."""
        if not self._checked:
            bucket = self._project.bucket
            self._project.resources.whisper.transcribing(bucket.transcripts)
            self._project.resources.tokeniser.tokenising(bucket.tokens)
        self._checked = True

    # --- runs -----------------------------------------------------------------------------------------

    def _is_due(self, attempt: RunAttempt) -> bool:
        moment = self._due_at(attempt)
        return moment is not None and moment <= self._clock()

    def _due_at(self, attempt: RunAttempt) -> dt.datetime | None:
        """When a run is to be made, None where every try has been made."""
        ends = self._ended[attempt.range.fingerprint]
        if len(ends) >= self._tries:
            return None
        return max(ends) + retry_delay(len(ends)) if ends else dt.datetime.min.replace(tzinfo=dt.UTC)

    def _execute(self, attempt: RunAttempt) -> None:
        # A daemon on the same instance may have been quicker; the next look sees its run.
        if was_asked_for(self._instance, SENSOR, attempt.run_key):
            return
        wanted = attempt.range
        with self._display.run(" … ".join(dict.fromkeys((wanted.start, wanted.end)))):
            run = execute_here(
                self._instance,
                self._job,
                run_request(attempt),
                sensor=SENSOR,
                location=self._project.location,
                run_config={"loggers": {"console": {}}},
            )
        self._ended[wanted.fingerprint].append(self._clock())
        self._result.runs += 1
        if not run.is_success:
            self._result.failed.append(run.run_id)
            self._display.say(f"  run {run.run_id} failed")

    # --- the daily copy -----------------------------------------------------------------------------------

    def _compact_days(self) -> None:
        """Bring the daily copy up to date, open days included; a day whose runs all failed is left."""
        done: collections.Counter[str] = collections.Counter()
        while True:
            outcome = look_at_days(
                self._instance,
                self._project.bucket,
                self._clock(),
                dt.timedelta(),
                wait_after_failure=False,
            )
            self._instance.add_dynamic_partitions(DAY, outcome.plan.add)
            delete_partition_keys(self._instance, DAY, outcome.plan.delete)
            attempts = [attempt for attempt in outcome.runs if done[attempt.request.day] < self._tries]
            if not attempts:
                return
            for attempt in attempts:
                done[attempt.request.day] += 1
                self._compact(attempt)

    def _compact(self, attempt: DayAttempt) -> None:
        request = attempt.run_request
        if was_asked_for(self._instance, DAYS_SENSOR, request.run_key or ""):
            return
        with self._display.run(attempt.request.day, DAYS_SENSOR):
            run = execute_here(
                self._instance,
                self._days_job,
                request,
                sensor=DAYS_SENSOR,
                location=self._project.location,
                run_config={"loggers": {"console": {}}},
            )
        self._result.days += run.is_success
        if not run.is_success:
            self._result.failed.append(run.run_id)
            self._display.say(f"  run {run.run_id} failed")

    # --- waiting --------------------------------------------------------------------------------------

    def _pauses(self, outcome: TickOutcome) -> Iterator["_Pause"]:
        """What there is to wait for."""
        now = self._clock()
        if others := self._others(outcome):
            yield _Pause(f"waiting for {others} other runs to end", SECONDS_FOR_OTHERS)
        due = [moment for attempt in outcome.runs if (moment := self._due_at(attempt)) is not None]
        if due:
            until = min(due)
            why = f"a run had no effect; it is made again at {until:%H:%M:%S} UTC"
            yield _Pause(why, max(0.1, (until - now).total_seconds()))
        if self._wait and outcome.open and now < self._until:
            why = f"waiting for {outcome.open} open minutes, until {self._until:%H:%M:%S} UTC at the latest"
            yield _Pause(why, _seconds_to_next_close(now))

    def _others(self, outcome: TickOutcome) -> int:
        """How many runs of others stand between this and what is to be made; 0 where they do not."""
        unfinished = self._unfinished()
        enough = unfinished.runs >= MAX_RUNS_IN_FLIGHT.get()
        in_the_way = outcome.pending & set(unfinished.covered) or enough
        return unfinished.runs if outcome.pending and in_the_way else 0

    def _unfinished(self) -> Unfinished:
        """The runs that are queued or under way; none is of this process."""
        records = InstanceRecords(self._instance)
        return records.unfinished(records.registered())

    def _rest(self, seconds: float) -> None:
        """Wait, no longer than until a run of others ends: to look again costs a listing."""
        runs = self._unfinished().runs
        while seconds > 0 and self._unfinished().runs == runs:
            self._sleep(min(seconds, SECONDS_BETWEEN_LOOKS))
            seconds -= SECONDS_BETWEEN_LOOKS


@dataclasses.dataclass(frozen=True)
class _Pause:
    """Why to look again only after so many seconds."""

    why: str
    seconds: float


def _seconds_to_next_close(now: dt.datetime) -> float:
    """When a minute counts as closed next."""
    settle = SETTLE_SECONDS.get()
    closes = _floor(now - settle) + MINUTE + settle
    return max(0.1, (closes - now).total_seconds())


def _floor(moment: dt.datetime) -> dt.datetime:
    return moment.replace(second=0, microsecond=0)
