"""What a day of audio looks like: counts that are gathered file by file, and their picture.

The picture is an SVG of horizontal bars, some kilobytes, which Dagster's UI shows in an asset's metadata.
"""

import collections
import dataclasses
import html
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from audio_assets.schema import FAILED

SECONDS = (0, 1, 2, 4, 6, 8, 10, 15, 20, 30, 60)
"""Where the bars of durations begin; the last is open."""
LOGPROBS = (-1.2, -1.0, -0.8, -0.6, -0.4, -0.3, -0.2, -0.1)
"""Where the bars of `avg_logprob` begin; what is less stands in a bar before them."""
MOST_BARS = 10
REASON_CHARACTERS = 44

Bars = list[tuple[str, float]]


@dataclasses.dataclass
class DayCounts:
    """What is counted of the rows of a day.

    Attributes:
        hours: of audio, by folder.
        durations: rows by the bar of `SECONDS` that they fall into.
        logprobs: rows by the bar of `LOGPROBS`, that of lower values first.
        reasons: failed rows by the reason, cut to `REASON_CHARACTERS`.
    """

    hours: dict[str, float] = dataclasses.field(default_factory=dict)
    durations: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(len(SECONDS), int))
    logprobs: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(len(LOGPROBS) + 1, int))
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def add(self, folder: str, rows: pa.Table) -> None:
        """Count the rows of one minute's file."""
        seconds = rows["duration_s"].drop_null().to_numpy()
        self.hours[folder] = self.hours.get(folder, 0.0) + float(seconds.sum()) / 3600
        self.durations += _counts(seconds, SECONDS[1:])
        self.logprobs += _counts(rows["avg_logprob"].drop_null().to_numpy(), LOGPROBS)
        pairs = zip(rows["status"].to_pylist(), rows["error"].to_pylist(), strict=True)
        self.reasons.update(_short(error) for status, error in pairs if status == FAILED)

    def panels(self) -> list[tuple[str, str, Bars]]:
        """Title, unit and bars of each part of the picture; a part without bars is left out."""
        panels: list[tuple[str, str, Bars]] = [
            ("hours of audio by folder", "h", _largest(self.hours)),
            ("duration of a clip, s", "rows", list(zip(_seconds(), self.durations.tolist(), strict=True))),
            ("avg_logprob", "rows", list(zip(_logprobs(), self.logprobs.tolist(), strict=True))),
            ("failed rows by reason", "rows", _largest(self.reasons)),
        ]
        return [panel for panel in panels if any(value for _, value in panel[2])]


def _counts(values: np.ndarray, inner: Sequence[float]) -> np.ndarray:
    """How many values fall before, between and behind the limits: int [limits + 1]."""
    return np.bincount(np.digitize(values, inner), minlength=len(inner) + 1)


def _short(error: str | None) -> str:
    text = " ".join((error or "no reason").split())
    return text if len(text) <= REASON_CHARACTERS else text[: REASON_CHARACTERS - 1] + "…"


def _largest(counts: Mapping[str, float]) -> Bars:
    """The largest bars, and the sum of the others."""
    ordered = sorted(counts.items(), key=lambda one: -one[1])
    rest = ordered[MOST_BARS:]
    others = [(f"{len(rest):,} others", sum(value for _, value in rest))] if rest else []
    return [*ordered[:MOST_BARS], *others]


def _seconds() -> list[str]:
    between = [f"{a}–{b}" for a, b in itertools.pairwise(SECONDS)]
    return [*between, f"{SECONDS[-1]} and more"]


def _logprobs() -> list[str]:
    between = [f"{a:g} to {b:g}" for a, b in itertools.pairwise([*LOGPROBS, 0])]
    return [f"below {LOGPROBS[0]:g}", *between]


# --- the picture ----------------------------------------------------------------------------------------

WIDTH = 1180
COLUMNS = 2
LABEL = 300
BAR_HEIGHT = 16
TITLE_HEIGHT = 34
GAP = 20
# Both can be read on a light and on a dark page.
INK = "#8a8f98"
BAR = "#4f8fd9"


def svg(counts: DayCounts) -> str:
    """The picture of a day, in two columns; it grows with the number of bars."""
    panels = counts.panels()
    parts: list[str] = []
    tops = [0] * COLUMNS
    for at, (title, unit, bars) in enumerate(panels):
        column = at % COLUMNS
        parts += _panel(title, unit, bars, column * (WIDTH // COLUMNS), tops[column])
        tops[column] += TITLE_HEIGHT + BAR_HEIGHT * len(bars) + GAP
    size = f'width="{WIDTH}" height="{max(tops)}" viewBox="0 0 {WIDTH} {max(tops)}"'
    font = f'font-family="sans-serif" font-size="12" fill="{INK}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>', *parts, "</svg>"])


def _panel(title: str, unit: str, bars: Bars, left: int, top: int) -> Iterator[str]:
    yield f'<text x="{left}" y="{top + 18}" font-size="14" font-weight="bold">{html.escape(title)}</text>'
    largest = max(value for _, value in bars)
    room = WIDTH // COLUMNS - LABEL - 110
    for at, (label, value) in enumerate(bars):
        y = top + TITLE_HEIGHT + at * BAR_HEIGHT
        width = room * value / largest
        said = f"{value:,.{2 if value >= 0.1 else 4}f} {unit}" if unit == "h" else f"{value:,.0f}"
        yield f'<text x="{left + LABEL - 8}" y="{y + 11}" text-anchor="end">{html.escape(label)}</text>'
        box = f'x="{left + LABEL}" y="{y + 2}" width="{width:.1f}" height="{BAR_HEIGHT - 4}"'
        yield f'<rect {box} fill="{BAR}"/>'
        yield f'<text x="{left + LABEL + width + 6:.1f}" y="{y + 11}">{said}</text>'
