"""Whatever is named .flac becomes audio as it was recorded, or a reason, within bounded memory."""

import collections
import re

import numpy as np
import pytest

from audio_assets.audio import Audio, AudioError, decode_flac
from audio_assets_tests.bad_audio import damaged

OBJECTS = 1_000
# What is wrong, then what to do; nothing that only a programmer reads.
UNDERSTANDABLE = re.compile(
    r"(the object|not FLAC inside|the FLAC|corrupt or truncated FLAC|more than 12 h).*"
    r"(upload it again|upload FLAC in its place, or name it by what it is|cut it into pieces|encode it .*)"
)
FOREIGN = re.compile(r"0x|<|Error|Exception|unknown error|None|nan")


def outcome(body: bytes) -> Audio | str:
    try:
        return decode_flac(body)
    except AudioError as e:
        return str(e)


def same(one: Audio, other: Audio) -> bool:
    described = [(a.duration_s, a.sample_rate_hz, a.channels) for a in (one, other)]
    return described[0] == described[1] and np.array_equal(one.samples, other.samples)


# --- a thousand objects ---------------------------------------------------------------------------------


def test_of_a_thousand_damaged_objects_each_is_read_as_it_was_recorded_or_refused_with_a_reason():
    seen = collections.Counter()
    for seed in range(OBJECTS):
        found = damaged(seed)
        became = outcome(found.body)
        if isinstance(became, Audio):
            assert found.sound is not None, (seed, found.kind)
            expected = outcome(found.sound)
            assert isinstance(expected, Audio), (seed, found.kind, expected)
            assert same(became, expected), (seed, found.kind)
        else:
            assert not found.intact, (seed, found.kind, became)
            assert UNDERSTANDABLE.fullmatch(became), (seed, found.kind, became)
            assert not FOREIGN.search(became), (seed, found.kind, became)
        seen[found.kind, isinstance(became, Audio)] += 1
    assert all(seen[kind, True] for kind in ("sound", "ID3 tag in front"))
    assert all(seen[kind, False] for kind, _ in list(seen) if kind not in ("sound", "ID3 tag in front"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("renamed WAV", "not FLAC inside but WAV; upload FLAC"),
        ("renamed OGG", "not FLAC inside but Ogg; upload FLAC"),
        ("renamed MP3", "not FLAC inside but MP3; upload FLAC"),
        ("renamed AIFF", "not FLAC inside but AIFF; upload FLAC"),
        (
            "error page",
            "not FLAC inside but text, perhaps an error page that was saved in place of the audio",
        ),
        ("header claims days", r"more than 12 h of audio in one object \(its header says [\d.]+ h\); cut it"),
        ("width that is not read", "bits a sample; only 8, 16 and 24 are read: encode it with 24 bits"),
        ("no rate of audio", "less than 1000 Hz"),
    ],
)
def test_a_reason_says_what_the_object_is(kind: str, reason: str):
    found = next(o for o in map(damaged, range(OBJECTS)) if o.kind == kind)
    became = outcome(found.body)
    assert isinstance(became, str)
    assert re.search(reason, became), became
