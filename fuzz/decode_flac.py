"""Fuzz target: any bytes become audio as their header says, or are refused with a reason.

    python -m fuzz.decode_flac [folder of a corpus] [options of libFuzzer]

Checksums stop almost every mutation at the first frame, so one half of the inputs is built with right ones.
"""

import sys

# Installed in an environment of its own; its types are in typings/.
import atheris  # pyright: ignore[reportMissingModuleSource]

with atheris.instrument_imports(include=["audio_assets"]):
    from audio_assets import audio
    from audio_assets.audio import limits
    from audio_assets.errors import AudioError

from audio_assets_tests.support.bad_audio import frame, stream_info


def one_input(data: bytes) -> None:
    chosen = atheris.FuzzedDataProvider(data)
    body = _stream(chosen) if chosen.ConsumeBool() else chosen.ConsumeBytes(len(data))
    try:
        decoded = audio.decode_flac(body)
    except AudioError:
        return
    fixed = int.from_bytes(body[body.index(b"fLaC") + 18 :][:8], "big")
    assert (decoded.sample_rate_hz, decoded.channels) == (fixed >> 44, (fixed >> 41 & 7) + 1)
    expected = decoded.duration_s * audio.SAMPLE_RATE_HZ
    assert abs(len(decoded.samples) - expected) <= 2 * audio.SAMPLE_RATE_HZ / decoded.sample_rate_hz + 1


def _stream(chosen: atheris.FuzzedDataProvider) -> bytes:
    """A header of any fields, and frames of any content."""
    rate = chosen.ConsumeIntInRange(0, 2**20 - 1)
    bits = chosen.PickValueInList([8, 16, 24, 32])
    channels = chosen.ConsumeIntInRange(1, 8)
    claimed = chosen.ConsumeIntInRange(0, 2**36 - 1) if chosen.ConsumeBool() else 0
    body = stream_info(rate, channels, bits, claimed)
    for number in range(chosen.ConsumeIntInRange(0, 4)):
        samples = chosen.ConsumeIntInRange(1, 65_535)
        body += frame(number, channels, samples, chosen.ConsumeBytes(chosen.ConsumeIntInRange(0, 500)))
    return body + chosen.ConsumeBytes(8)


if __name__ == "__main__":
    limits.LONGEST_S = 60  # A bomb ends here instead of after 12 h of audio.
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
