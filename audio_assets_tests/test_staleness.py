"""Which rows are stale: one rule, for rows and for what is recorded of them."""

from collections.abc import Iterator

import hypothesis
import hypothesis.strategies as st
import pytest

from audio_assets.audio import DECODERS, read_flac
from audio_assets.record import MANY, PartitionRecord
from audio_assets.schema import FAILED, NOT_FLAC, OK
from audio_assets.staleness import Producers, stale_partitions
from audio_assets.transcription.identity import is_current
from audio_assets_tests.support.rows import row, rows

TODAY = Producers("new".__eq__, "t".__eq__)
NAMES = st.none() | st.sampled_from(["", "new", "old", "t", "u"])
AUDIO = st.tuples(st.sampled_from(["a.flac", "a.fla"]), st.sampled_from([OK, FAILED]), NAMES, NAMES)
OTHER = st.tuples(
    st.sampled_from(["a.txt", "a.fla", "fla", "a.2023-08-24 fla"]), st.just(NOT_FLAC), st.none(), st.none()
)


@pytest.fixture(scope="module", autouse=True)
def decoder() -> Iterator[None]:
    """`.fla` has a decoder, which was added since."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(DECODERS, ".fla", read_flac)
        yield


@pytest.mark.parametrize(
    ("made", "stale"),
    [
        (("a.flac", OK, "new", "t"), False),
        (("a.flac", OK, "old", "t"), True),
        (("a.flac", FAILED, "new", "u"), True),
        (("a.flac", OK, None, "t"), True),
        (("a.flac", OK, "new", ""), True),
        (("a.txt", NOT_FLAC, None, None), False),
        (("a.FLA", NOT_FLAC, None, None), True),
    ],
)
def test_a_row_is_stale_that_today_s_settings_would_make_otherwise(made: tuple, stale: bool):
    table = rows(row(made[0], status=made[1], whisper_model=made[2], tokeniser=made[3]))
    assert TODAY.stale_rows(table) == stale
    assert bool(TODAY.stale_rows_of(PartitionRecord.of(table, "v"))) is stale


@hypothesis.given(st.lists(AUDIO | OTHER, max_size=6))
def test_a_record_tells_of_a_stale_row_just_where_there_is_one(made: list[tuple]):
    table = rows(*(row(key, status=s, whisper_model=m, tokeniser=t) for key, s, m, t in made))
    record = PartitionRecord.from_json(PartitionRecord.of(table, "v").to_json())
    stale = TODAY.stale_rows(table)
    assert TODAY.cached().stale_rows(table) == stale
    assert TODAY.stale_rows_of(record) <= stale
    assert (TODAY.stale_rows_of(record) > 0) == (stale > 0)
    assert stale_partitions({"p": record}, TODAY) == ({"p": TODAY.stale_rows_of(record)} if stale else {})


def test_what_a_run_makes_itself_is_not_compared():
    table = rows(row("a.flac", whisper_model="old", tokeniser="t"), row("b.flac", whisper_model="new"))
    assert TODAY.stale_rows(table) == 2
    assert Producers(None, "t".__eq__).stale_rows(table) == 1
    assert Producers("new".__eq__, None).stale_rows(table) == 1
    assert Producers(None, None).stale_rows(table) == 0


def test_a_model_is_today_s_by_the_parts_that_are_known_before_a_run():
    parts = ("whisper turbo", "language=en", "engine=2")
    made = "whisper turbo sha256=1 language=en precision=float16 engine=2"
    today = Producers(lambda identity: is_current(identity, parts), None)
    assert today.made_by_model(made)
    assert not today.made_by_model(made.replace("en", "de"))


def test_producers_that_are_too_many_to_be_recorded_are_stale():
    record = PartitionRecord("", "", ok=2, whisper_models={MANY: 2}, tokenisers={"t": 2})
    assert TODAY.stale_rows_of(record) == 2


def test_what_an_earlier_version_recorded_has_no_suffix_that_matters():
    record = PartitionRecord.from_json('{"digest": "1-0", "version": "v", "not_flac": 1}')
    assert TODAY.stale_rows_of(record) == 0
    assert record.audio_s is None
