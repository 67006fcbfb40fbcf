"""Decides what the engine does next. Plain Python: it holds no tensor, and needs neither torch nor whisper.

`Engine.step` asks `schedule` what to run, runs it on the device, and gives the answers to `postprocess`. The
policy, as in the continuous batching of language models (Yu et al. 2022, "Orca", OSDI):

intake   Files are taken in while there are fewer than two for each slot, and less than four hours of audio.
order    A file that has begun goes before those that have not. So a long file, whose windows follow one
         another, ends early. Within both kinds it is first come, first served; a file whose words are aligned
         keeps its place.
detect   A file's language is detected shortly before it joins, as the features of its first window are kept.
join     Decode requests join the batch in groups of up to 16, once there is room for the whole group: each
         join costs a pass over the prompts. A request takes a slot for each of its texts.
leave    A file leaves when it asks for nothing more.
memory   When the device runs out of it, the batch is halved, and the decodes that were in it start again.

How a request is answered is the engine's business, and what a file asks for next is that of `longform`.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from audio_assets.transcription.longform import (
    Align,
    Answer,
    Decode,
    Decoded,
    DetectLanguage,
    LongForm,
    Request,
    Window,
)
from audio_assets.transcription.transcript import Transcript

T = TypeVar("T")

FILES_PER_SLOT = 2
# Spectrograms take 115 MB for each hour of audio, 184 MB from large-v3 on.
MOST_AUDIO_S = 4 * 3600.0
# Samples that are held besides, while their spectrograms are computed; or one file, if that is longer.
INTAKE_S = 600.0
JOINED_AT_ONCE = 16
# Files whose language is known wait with their first window's features, 4 MB each for a large model.
ENCODED_AHEAD = 64
ENCODED_AT_ONCE = 16


@dataclass(eq=False)
class File:
    """A file under way: its long-form transcription, and what that asks for now.

    Attributes:
        request: None once the file is done.
        transcript: None until then.
        begun: whether a decode of it has joined the batch.
    """

    key: Any
    audio_s: float
    long_form: LongForm
    request: Request | None = None
    transcript: Transcript | None = None
    begun: bool = False

    def answer(self, result: Answer | None) -> None:
        """Send what was asked for: a language, a decode or an alignment; at first None, to start the file."""
        try:
            self.request = self.long_form.send(result)
        except StopIteration as stop:
            self.request = None
            self.transcript = stop.value


@dataclass(frozen=True)
class Step:
    """What to run now, in this order; then all rows of the decode batch take a step.

    Attributes:
        detect: groups of requests for a language.
        align: groups of requests for the times of tokens; a group fits into the free slots.
        join: groups of decode requests that join the batch; all of them together fit.
    """

    detect: list[list[tuple[File, DetectLanguage]]] = field(default_factory=list)
    join: list[list[tuple[File, Decode]]] = field(default_factory=list)
    align: list[list[tuple[File, Align]]] = field(default_factory=list)


class Scheduler:
    """Which files and requests go next.

    Attributes:
        batch_size: slots of the decode batch.
        most_rows: how many slots a decode takes at the most.
        encode_at_once: how many windows the encoder is given at a time.
        files: the files under way, in the order in which they were taken in.
    """

    def __init__(self, batch_size: int, most_rows: int = 1) -> None:
        self.batch_size = batch_size
        self.most_rows = most_rows
        self.encode_at_once = ENCODED_AT_ONCE
        self.clear()

    def clear(self) -> None:
        """Forget all files."""
        self.files: list[File] = []
        self._decoding: set[File] = set()
        self._continuing: deque[File] = deque()
        self._fresh: deque[File] = deque()

    # --- intake -------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether to take in files: a whole group at a time, as spectrograms are cheaper together."""
        return self._free_files >= self._group and sum(f.audio_s for f in self.files) < MOST_AUDIO_S

    def take(self, source: Iterator[T], seconds: Callable[[T], float]) -> list[T]:
        """Pull files from `source`, up to the limits; none if it is at its end.

        Args:
            seconds: how much audio an item is.
        """
        taken = []
        audio_s = 0.0
        for item in itertools.islice(source, self._free_files):
            taken.append(item)
            audio_s += seconds(item)
            if audio_s > INTAKE_S:
                break
        return taken

    def add(self, file: File) -> None:
        """Start a file that was taken in."""
        file.answer(None)
        self.files.append(file)
        if file.request is not None:
            self._fresh.append(file)

    @property
    def _free_files(self) -> int:
        return max(0, FILES_PER_SLOT * (self.batch_size // self.most_rows) - len(self.files))

    @property
    def _group(self) -> int:
        return min(JOINED_AT_ONCE, self.batch_size // self.most_rows)

    # --- steps --------------------------------------------------------------------------------------

    def schedule(self) -> Step:
        """What to run now. All that is scheduled is to be run, and its answers go to `postprocess`."""
        room = self.batch_size - sum(_rows(f.request) for f in self._decoding)
        waiting = [(f, f.request) for f in itertools.chain(self._continuing, self._fresh)]
        # These work in free slots, which stay free.
        aligns = self._if_room([(f, r) for f, r in waiting if isinstance(r, Align)], room)
        decodes = [(f, r) for f, r in waiting if isinstance(r, Decode)]
        languages = [(f, r) for f, r in waiting if isinstance(r, DetectLanguage)]
        languages = languages[: max(0, ENCODED_AHEAD - len(decodes))]
        join = self._that_fit(_groups(decodes, self._group), room)
        self._begin(f for group in join for f, _ in group)
        return Step(_groups(languages, self._group), join, _groups(aligns, self._group))

    def _that_fit(
        self, groups: list[list[tuple[File, Decode]]], room: int
    ) -> list[list[tuple[File, Decode]]]:
        """The first groups that the free slots hold, all of them together."""
        ends = itertools.accumulate(sum(request.rows for _, request in group) for group in groups)
        return [group for group, end in zip(groups, ends, strict=True) if end <= room]

    def _if_room(self, requests: list[T], room: int) -> list[T]:
        """All requests, or none yet where a group of them has no room."""
        return requests if room >= min(self._group, len(requests)) else []

    def postprocess(self, answers: Iterable[tuple[File, Answer]]) -> list[File]:
        """Hand out answers.

        Args:
            answers: of requests that were scheduled: language codes, alignments, and decodes that have left
                the batch.

        Returns:
            The files that are done; each leaves once.
        """
        for file, result in answers:
            file.answer(result)
            if isinstance(result, Decoded):
                self._decoding.remove(file)
                if file.request is not None:
                    self._continuing.append(file)
        done = [f for f in self.files if f.request is None]
        if done:
            self.files = [f for f in self.files if f.request is not None]
            # A file whose last words have been aligned waited among those that go on.
            self._continuing = deque(f for f in self._continuing if f.request is not None)
        return done

    def windows_to_encode(self, requests: Iterable[Request]) -> list[Window]:
        """The windows to give to the encoder now; ask again until there are none."""
        missing = (r.window for r in requests if r.window.encoding is None)
        return list(itertools.islice(missing, self.encode_at_once))

    def _begin(self, files: Iterable[File]) -> None:
        joining = set(files)
        if not joining:
            return
        for file in joining:
            file.begun = True
        self._decoding |= joining
        self._continuing = deque(f for f in self._continuing if f not in joining)
        self._fresh = deque(f for f in self._fresh if f not in joining)

    # --- out of memory ------------------------------------------------------------------------------

    def halve_batch(self) -> bool:
        """Halve the decode batch and start its decodes again; False where a decode may not fit then."""
        if self.batch_size // 2 < self.most_rows:
            return False
        self.batch_size //= 2
        self._decoding.clear()
        self._continuing = deque(f for f in self.files if f.begun)
        return True

    def halve_encoding(self) -> bool:
        """Encode half as many windows at a time; False where it is but one."""
        if self.encode_at_once == 1:
            return False
        self.encode_at_once //= 2
        return True


def _rows(request: Request | None) -> int:
    return request.rows if isinstance(request, Decode) else 0


def _groups(items: Sequence[T], size: int) -> list[list[T]]:
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
