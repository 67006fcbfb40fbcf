"""The scheduler's promises, on a device that is a dictionary: no torch, no model.

Each file leaves once, limits hold at every moment, files that have begun go first, and no file starves,
whatever the batch's size, the files' lengths, the fallbacks and the shortages of memory. The limits are
written out here, as the documentation states them.
"""

import ast
import itertools
import pathlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_assets.transcription import Transcript, longform, scheduler, transcribe_options, words
from audio_assets.transcription.longform import (
    Align,
    Answer,
    Decode,
    Decoded,
    Detected,
    DetectLanguage,
    LongForm,
    Request,
    Window,
)
from audio_assets.transcription.scheduler import File, Scheduler, Step

FILES_PER_SLOT = 2
MOST_AUDIO_S = 4 * 3600
INTAKE_S = 600
ENCODED_AHEAD = 64
AT_ONCE = 16
LONGEST_DECODE = 5


@dataclass(frozen=True)
class Clip:
    """What a file will ask for.

    Attributes:
        seconds: of audio.
        windows: for each, how many steps each of its decodes takes: the first one and its fallbacks.
    """

    seconds: float
    windows: tuple[tuple[int, ...], ...]

    @property
    def decodes(self) -> int:
        return sum(map(len, self.windows))


def ask(key: int, clip: Clip, detect: bool, align: bool = False) -> LongForm:
    """A long-form transcription that sees to it that each answer is the one that it asked for.

    Args:
        align: whether it asks for the times of each window's tokens.
    """
    if detect:
        assert (yield DetectLanguage(window(key))) == language_of(key)
    numbers = itertools.count()
    for lengths in clip.windows:
        shared = window(key)
        for steps in lengths:
            asked = (key, next(numbers), steps)
            assert (yield Decode(shared, "en", asked, 0.0)).tokens == asked
        if align:
            assert (yield Align(shared, "en", (key,), 1)).starts == (key,)
    return Transcript(str(key), "en", 0.0, 0.0, 0.0, 0.0, ())


def language_of(key: int) -> Detected:
    return Detected(f"language of {key}", 1.0, "en", 0.0)


def window(key: int) -> Window:
    return Window(cast(Any, key))


class OutOfMemoryError(Exception):
    pass


class Device:
    """Answers requests as the engine does; and sees that its slots suffice.

    Attributes:
        rows: steps that are left to each decode of the batch.
        failing: whether memory is short, at each occasion at which it can be.
    """

    def __init__(self, of: Scheduler, failing: Iterator[bool]) -> None:
        self.scheduler = of
        self.failing = failing
        self.rows: dict[File, int] = {}
        self.encoded: set[Window] = set()

    def run(self, step: Step) -> list[tuple[File, Answer]]:
        answers: list[tuple[File, Answer]] = []
        for detect in step.detect:
            assert len(detect) <= AT_ONCE
            self.encode([request for _, request in detect])
            answers += [(file, language_of(file.key)) for file, _ in detect]
        for align in step.align:
            assert len(align) <= min(AT_ONCE, self.scheduler.batch_size - len(self.rows))
            self.encode([request for _, request in align])
            self.may_fail()
            answers += [(file, words.Aligned(request.tokens, ())) for file, request in align]
        for join in step.join:
            assert len(join) <= AT_ONCE
            self.encode([request for _, request in join])
            self.may_fail()
            for file, request in join:
                assert file not in self.rows
                assert request is file.request
                self.rows[file] = request.prompt[-1]
            assert len(self.rows) <= self.scheduler.batch_size
        self.may_fail()
        self.rows = {file: left - 1 for file, left in self.rows.items()}
        for file in [file for file, left in self.rows.items() if left == 0]:
            del self.rows[file]
            assert isinstance(file.request, Decode)
            answers.append((file, Decoded(file.request.prompt, "", 0.0, 0.0, 0.0)))
        return answers

    def encode(self, requests: Sequence[Request]) -> None:
        while windows := self.scheduler.windows_to_encode(requests):
            assert len(windows) <= self.scheduler.encode_at_once <= AT_ONCE
            at_once = self.scheduler.encode_at_once
            if next(self.failing, False) and self.scheduler.halve_encoding():
                assert self.scheduler.encode_at_once == at_once // 2
                continue
            for w in windows:
                assert w not in self.encoded
                self.encoded.add(w)
                w.encoding = cast(Any, "features")
        assert all(r.window.encoding for r in requests)

    def may_fail(self) -> None:
        if self.scheduler.batch_size > 1 and next(self.failing, False):
            raise OutOfMemoryError


class Run:
    """All clips through a scheduler and a device, with what holds at every moment checked.

    Attributes:
        begun_at, left_at: in which step a file's first decode joined, and in which step the file left.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        batch_size: int,
        *,
        detect: bool,
        align: bool = False,
        failing: Sequence[bool] = (),
    ):
        self.clips = clips
        self.detect = detect
        self.align = align
        self.scheduler = Scheduler(batch_size)
        self.device = Device(self.scheduler, iter(failing))
        self.begun_at: dict[int, int] = {}
        self.left_at: dict[int, int] = {}
        self.asked_at: dict[File, int] = {}
        self.asks = itertools.count()
        self.halvings = 0
        source = iter(enumerate(clips))
        for self.step_number in itertools.count():
            while self.scheduler.has_room and self.take(source):
                pass
            if not self.scheduler.files:
                break
            self.step()

    def take(self, source: Iterator[tuple[int, Clip]]) -> int:
        before = list(self.scheduler.files)
        held_s = sum(f.audio_s for f in before)
        free = FILES_PER_SLOT * self.scheduler.batch_size - len(before)
        taken = self.scheduler.take(source, seconds=lambda item: item[1].seconds)
        for key, clip in taken:
            self.scheduler.add(File(key, clip.seconds, ask(key, clip, self.detect, self.align)))
        # A whole group at a time, and within the limits: the last file may exceed those of audio.
        assert not before or (held_s < MOST_AUDIO_S and free >= min(AT_ONCE, self.scheduler.batch_size))
        assert len(taken) <= free
        assert sum(clip.seconds for _, clip in taken[:-1]) <= INTAKE_S
        return len(taken)

    def step(self) -> None:
        scheduled = self.scheduler.schedule()
        joining = [file for group in scheduled.join for file, _ in group]
        self.room_is_used(joining)
        self.order_is_kept(joining)
        answers = []
        try:
            answers = self.device.run(scheduled)
            # A step in which nothing happens would be followed by another one for ever.
            assert answers or self.device.rows or not any(f.request for f in self.scheduler.files)
        except OutOfMemoryError:
            size = self.scheduler.batch_size
            assert self.scheduler.halve_batch()
            assert self.scheduler.batch_size == size // 2
            self.device.rows.clear()
            self.halvings += 1
            self.asked_at = {f: next(self.asks) for f in self.scheduler.files if f.key in self.begun_at}
        for file in self.scheduler.postprocess(answers):
            assert file.transcript
            assert file.transcript.text == str(file.key)
            assert file.key not in self.left_at
            self.left_at[file.key] = self.step_number
        for file, result in answers:
            # An alignment costs a file no place in the queue.
            if isinstance(result, Decoded):
                self.asked_at[file] = next(self.asks)

    def order_is_kept(self, joining: list[File]) -> None:
        """Those that have begun come first, as their last decodes ended; then the others, as taken in."""
        begun = [f for f in joining if f.key in self.begun_at]
        fresh = [f for f in joining if f.key not in self.begun_at]
        assert joining == begun + fresh
        assert begun == sorted(begun, key=lambda f: self.asked_at[f])
        if fresh:
            waiting = [
                f for f in self.scheduler.files if f.key in self.begun_at and f not in self.device.rows
            ]
            assert {f for f in waiting if isinstance(f.request, Decode)} == set(begun)
        for file in fresh:
            self.begun_at[file.key] = self.step_number
        wanted = [f.key for f in self.scheduler.files if f.key in self.begun_at]
        assert wanted == sorted(wanted)
        assert list(self.begun_at) == sorted(self.begun_at)

    def room_is_used(self, joining: list[File]) -> None:
        """Who waits does so because a whole group of them does not fit."""
        placed = {*self.device.rows, *joining}
        waiting = [f for f in self.scheduler.files if isinstance(f.request, Decode) and f not in placed]
        group = min(AT_ONCE, self.scheduler.batch_size, len(waiting))
        assert not waiting or self.scheduler.batch_size - len(placed) < group


lengths = st.lists(st.integers(1, LONGEST_DECODE), min_size=1, max_size=3).map(tuple)
clips = st.lists(
    st.builds(
        Clip,
        seconds=st.sampled_from([0.0, 1.0, 30.0, 299.0, 3000.0, 20_000.0]),
        windows=st.lists(lengths, max_size=5).map(tuple),
    ),
    max_size=60,
)
batch_sizes = st.integers(1, 7) | st.integers(8, 40)


@settings(max_examples=300, deadline=None)
@given(clips, batch_sizes, st.booleans(), st.booleans(), st.lists(st.booleans(), max_size=40))
def test_each_file_leaves_once_whatever_happens(
    clips: list[Clip], batch_size: int, detect: bool, align: bool, failing: list[bool]
):
    run = Run(clips, batch_size, detect=detect, align=align, failing=failing)
    assert sorted(run.left_at) == list(range(len(clips)))
    assert run.scheduler.batch_size == batch_size >> run.halvings


@settings(max_examples=200, deadline=None)
@given(clips, batch_sizes, st.booleans())
def test_a_file_that_has_begun_ends_within_a_bound_that_other_files_have_no_part_in(
    clips: list[Clip], batch_size: int, detect: bool
):
    run = Run(clips, batch_size, detect=detect)
    # Before a request joins, each group of files that began earlier may have to join and to leave.
    rounds = (batch_size - 1) // min(AT_ONCE, batch_size) + 2
    for key, begun in run.begun_at.items():
        assert run.left_at[key] - begun <= clips[key].decodes * rounds * LONGEST_DECODE


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_a_long_file_among_short_ones_never_waits(batch_size: int):
    long = Clip(3600.0, ((2,),) * 50)
    short = Clip(1.0, ((2,),))
    run = Run([long, *[short] * 50 * batch_size], batch_size, detect=False)
    assert run.left_at[0] == 2 * 50 - 1
    assert max(run.left_at.values()) > run.left_at[0]


def test_a_file_that_asks_for_nothing_leaves_without_a_decode():
    run = Run([Clip(0.001, ())] * 5, 2, detect=False)
    assert sorted(run.left_at) == [0, 1, 2, 3, 4]
    assert not run.begun_at


def test_languages_are_detected_for_no_more_files_than_may_wait_with_their_features():
    held = Scheduler(256)
    for key in range(512):
        held.add(File(key, 1.0, ask(key, Clip(1.0, ((2,),)), detect=True)))
    step = held.schedule()
    assert [len(group) for group in step.detect] == [AT_ONCE] * (ENCODED_AHEAD // AT_ONCE)
    held.postprocess([(f, language_of(f.key)) for group in step.detect for f, _ in group])
    step = held.schedule()
    assert not step.detect
    assert sum(map(len, step.join)) == ENCODED_AHEAD
    assert len(held.schedule().detect) == ENCODED_AHEAD // AT_ONCE


def test_no_more_is_taken_in_once_four_hours_are_held():
    held = Scheduler(40)
    endless = itertools.repeat(1000.0)
    while held.has_room:
        for seconds in held.take(endless, seconds=float):
            held.add(File(0, seconds, ask(0, Clip(seconds, ((1,),)), False)))
    assert sum(f.audio_s for f in held.files) == 15_000


def test_what_is_taken_in_at_a_time_ends_with_the_file_that_exceeds_ten_minutes():
    assert Scheduler(40).take(itertools.repeat(200.0), seconds=float) == [200.0] * 4
    assert Scheduler(40).take(itertools.repeat(5000.0), seconds=float) == [5000.0]


def test_room_is_filled_by_whole_groups_while_many_wait():
    run = Scheduler(40)
    for key in range(60):
        run.add(File(key, 1.0, ask(key, Clip(1.0, ((1,),)), False)))
    assert [len(group) for group in run.schedule().join] == [16, 16]
    assert run.schedule().join == []


def test_the_last_ones_need_no_group():
    run = Scheduler(40)
    for key in range(35):
        run.add(File(key, 1.0, ask(key, Clip(1.0, ((1,),)), False)))
    assert [len(group) for group in run.schedule().join] == [16, 16, 3]


def test_a_batch_of_one_cannot_be_halved():
    run = Scheduler(1)
    assert not run.halve_batch()
    assert run.batch_size == 1
    run.encode_at_once = 1
    assert not run.halve_encoding()
    assert run.encode_at_once == 1


def test_what_an_earlier_call_left_behind_is_forgotten():
    run = Scheduler(4)
    run.add(File("old", 1.0, ask(0, Clip(1.0, ((1,),)), False)))
    assert run.schedule().join
    run.clear()
    assert not run.files
    assert run.schedule() == Step()


@pytest.mark.parametrize("module", [scheduler, longform, words, transcribe_options])
def test_the_policy_imports_the_standard_library_alone(module: Any):
    """But for types, and for modules of this package, which are held to the same."""
    tree = ast.parse(pathlib.Path(module.__file__).read_text())
    imported = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    names = ("longform", "transcript", "transcribe_options", "words")
    ours = {"audio_assets.errors", "audio_assets.transcription"}
    ours |= {f"audio_assets.transcription.{name}" for name in names}
    assert {
        name for name in imported - ours if name.partition(".")[0] not in sys.stdlib_module_names
    } == set()
