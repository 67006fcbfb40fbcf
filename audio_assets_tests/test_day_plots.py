"""What a day looks like: counts against those of the rows themselves, and a picture that can be drawn."""

import itertools
import xml.etree.ElementTree as ET

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from audio_assets.day_plots import LOGPROBS, MOST_BARS, SECONDS, DayCounts, svg
from audio_assets.schema import FAILED
from audio_assets_tests.support.rows import row, rows

SVG = "{http://www.w3.org/2000/svg}"


@given(
    st.lists(st.tuples(st.floats(0, 90) | st.none(), st.floats(-2, 0) | st.none()), min_size=1, max_size=30),
    st.integers(1, 4),
)
def test_each_row_is_counted_once_in_the_bar_that_it_falls_into(
    values: list[tuple[float | None, float | None]], files: int
):
    made = [row(f"{i}.flac", duration_s=s, avg_logprob=p) for i, (s, p) in enumerate(values)]
    counts = DayCounts()
    for file in range(files):
        if part := made[file::files]:
            counts.add("p225", rows(*part))
    seconds = [s for s, _ in values if s is not None]
    logprobs = [float(np.float32(p)) for _, p in values if p is not None]
    limits = [*SECONDS, float("inf")]
    assert counts.durations.tolist() == [
        sum(low <= s < high for s in seconds) for low, high in itertools.pairwise(limits)
    ]
    limits = [-float("inf"), *LOGPROBS, float("inf")]
    assert counts.logprobs.tolist() == [
        sum(low <= p < high for p in logprobs) for low, high in itertools.pairwise(limits)
    ]
    assert np.isclose(counts.hours["p225"], sum(seconds) / 3600)


def test_a_picture_shows_folders_durations_confidence_and_reasons():
    counts = DayCounts()
    counts.add("p225 & <more>", rows(row("a.flac", duration_s=7200.0, avg_logprob=-0.25)))
    counts.add("p226", rows(row("b.flac", status=FAILED, error="no FLAC | but <html>" + 99 * "x")))
    drawn = ET.fromstring(svg(counts))
    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    assert {"hours of audio by folder", "duration of a clip, s", "avg_logprob"} < set(texts)
    assert {"p225 & <more>", "2.00 h", "60 and more", "-0.3 to -0.2"} < set(texts)
    assert "failed rows by reason" in texts
    assert any(text and text.startswith("no FLAC | but <html>x") and text.endswith("…") for text in texts)
    bars = list(drawn.iter(f"{SVG}rect"))
    assert max(float(bar.attrib["width"]) for bar in bars) <= float(drawn.attrib["width"]) / 2


def test_many_folders_become_the_largest_and_the_rest():
    counts = DayCounts()
    for i in range(30):
        counts.add(f"p{i}", rows(row("a.flac", duration_s=3600.0 * (i + 1))))
    [(title, _, bars), *_] = counts.panels()
    assert title == "hours of audio by folder"
    assert len(bars) == MOST_BARS + 1
    assert bars[0] == ("p29", 30.0)
    assert bars[-1] == ("20 others", sum(range(1, 21)))
    assert len(svg(counts)) < 15_000


def test_a_day_of_nothing_has_no_panels():
    counts = DayCounts()
    counts.add("p225", rows(row("a.txt", status="not_flac")))
    assert counts.panels() == []
