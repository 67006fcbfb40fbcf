"""Whatever is named .flac becomes audio as it was recorded, or a reason, within bounded memory."""

import collections
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_assets.audio import SAMPLE_RATE_HZ, Audio, decode_flac, limits
from audio_assets.errors import AudioError
from audio_assets_tests.support.bad_audio import constant_flac, constant_frame, damaged, stream_info
from audio_assets_tests.support.project import Project

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


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """FLAC whose every checksum is right, whatever its fields say."""
    rate = draw(st.integers(0, 2**20 - 1))
    channels = draw(st.integers(1, 8))
    bits = draw(st.integers(1, 32))
    frame_channels = draw(st.just(channels) | st.integers(1, 8))
    frames = [
        constant_frame(number, frame_channels, bits, samples)
        for number, samples in enumerate(draw(st.lists(st.integers(1, 65_535), max_size=4)))
    ]
    claimed = draw(st.just(0) | st.integers(0, 300_000) | st.integers(0, 2**36 - 1))
    md5 = draw(st.just(bytes(16)) | st.binary(min_size=16, max_size=16))
    return stream_info(rate, channels, bits, claimed, md5) + b"".join(frames) + draw(st.binary(max_size=8))


@settings(max_examples=300, deadline=None)
@given(streams() | st.binary(max_size=200).map(lambda junk: b"fLaC\0\0\0\x22" + junk) | st.binary())
def test_any_bytes_are_audio_of_what_their_header_says_or_are_refused(body: bytes):
    became = outcome(body)
    if isinstance(became, str):
        assert UNDERSTANDABLE.fullmatch(became)
        return
    fixed = int.from_bytes(body[18:26], "big")
    assert (became.sample_rate_hz, became.channels) == (fixed >> 44, (fixed >> 41 & 7) + 1)
    expected = became.duration_s * SAMPLE_RATE_HZ
    assert abs(len(became.samples) - expected) <= 2 * SAMPLE_RATE_HZ / became.sample_rate_hz + 1
    assert np.isfinite(became.samples).all()


# --- length and memory ----------------------------------------------------------------------------------


def test_hours_of_silence_are_audio():
    silence = decode_flac(constant_flac(3 * 3600, level=100))
    assert silence.duration_s == 3 * 3600
    assert len(silence.samples) == 3 * 3600 * SAMPLE_RATE_HZ
    np.testing.assert_array_equal(silence.samples[::SAMPLE_RATE_HZ], np.float32(100 / 2**15))


@pytest.mark.parametrize("claimed", [-1, 0], ids=["said", "unsaid"])
def test_audio_longer_than_the_limit_is_refused(claimed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "LONGEST_S", 60)
    assert decode_flac(constant_flac(60, claimed=claimed)).duration_s == 60
    with pytest.raises(AudioError, match="cut it into pieces"):
        decode_flac(constant_flac(60.1, claimed=claimed))


def test_memory_follows_the_audio_inside_whatever_an_object_claims_or_expands_to():
    code = """if True:
        import resource
        from audio_assets import audio
        from audio_assets.audio import limits
        from audio_assets.errors import AudioError
        from audio_assets_tests.support.bad_audio import constant_flac, damaged

        def peak_mb():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

        bodies = [damaged(seed).body for seed in range(0, 1_000, 3)]
        bodies.append(constant_flac(1, claimed=16_000 * 86_400 * 40))
        # 80 kB that decode to 11 GB in float32, where nobody stops them.
        bodies.append(constant_flac(30 * 60, rate=192_000, channels=8, claimed=0))
        limits.LONGEST_S = 60
        before = peak_mb()
        for body in bodies:
            try:
                audio.decode_flac(body)
            except AudioError:
                pass
        print(peak_mb() - before)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 100


# --- through Dagster ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_every_object_ends_in_a_row_with_its_status_and_reason(project: Project):
    objects = {f"p225/{seed:03}.flac": damaged(seed) for seed in range(28)}
    for key, found in objects.items():
        project.place.put(key, found.body)
    assert project.catch_up() == 1
    rows = {row["Key"]: row for row in project.table().to_dict("records")}
    assert rows.keys() == objects.keys()
    for key, found in objects.items():
        became = outcome(found.body)
        row = rows[key]
        if isinstance(became, str):
            assert (row["status"], row["error"]) == ("failed", became)
            assert isinstance(row["transcribed_text"], float)
        else:
            assert row["status"] == "ok", (found.kind, row["error"])
            assert (row["duration_s"], row["channels"]) == (became.duration_s, became.channels)
    assert project.tick() == []
