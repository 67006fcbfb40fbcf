"""Synthetic speech: a small closed grammar and the voices that speak it.

Whatever makes *speech* for the demo lives here; training lives in `make_checkpoint`, the sample's
layout in `make_sample`. Needs the `espeak-ng` program, which only these makers use: running the demo
does not.
"""

import dataclasses
import io
import random
import shutil
import subprocess

import numpy as np
import soundfile
import soxr

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VERBS = ("place", "set", "move", "send")
COLOURS = ("red", "green", "blue", "white", "black", "yellow")
PREPOSITIONS = ("by", "near", "under", "with")
ADVERBS = ("now", "again", "please", "soon")
WORDS = DIGITS + VERBS + COLOURS + PREPOSITIONS + ADVERBS

# fmt: off
LANGUAGES = (
    "en-gb", "en-us", "en-gb-scotland", "en-029",
    "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc",
)
# The variants of espeak-ng that sound like people; robots, whispers and demons are left out.
HELD_OUT_VARIANTS = (
    "f4", "m6", "m7", "Annie", "linda", "Marco", "paul",
    "grandpa", "steph2", "david", "Hugo", "edward", "travis", "iven2",
)
TRAINING_VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m8", "f1", "f2", "f3", "f5", "klatt", "klatt2", "klatt3", "klatt4",
    "adam", "Alex", "Alicia", "Andrea", "Andy", "anika", "antonio", "aunty", "belinda", "benjamin",
    "boris", "caleb", "Denis", "Diogo", "ed", "edward2", "Gene", "Gene2", "grandma", "gustave",
    "Henrique", "iven", "iven3", "Jacky", "john", "kaukovalta", "Lee", "marcelo", "Mario", "max",
    "Michael", "michel", "miguel", "Mike", "norbert", "pablo", "pedro", "quincy", "rob", "robert",
    "sandro", "shelby", "steph", "steph3", "victor", "zac",
)
# fmt: on
TRAINING_RATES = tuple(r for r in range(120, 226) if not (140 <= r < 150 or 190 <= r < 200))
HELD_OUT_RATES = (*range(140, 150), *range(190, 200))


@dataclasses.dataclass(frozen=True)
class Voice:
    """One speaker: espeak-ng's language and variant, words per minute, and pitch from 0 to 99."""

    language: str
    variant: str
    rate: int
    pitch: int

    @classmethod
    def draw(cls, rng: random.Random, *, held_out: bool) -> "Voice":
        """A random voice, from the variants and rates that training sees or from those that it never does."""
        return cls(
            language=rng.choice(LANGUAGES),
            variant=rng.choice(HELD_OUT_VARIANTS if held_out else TRAINING_VARIANTS),
            rate=rng.choice(HELD_OUT_RATES if held_out else TRAINING_RATES),
            pitch=rng.randint(20, 80),
        )


def sentence(rng: random.Random) -> str:
    """A sentence of the grammar: `Place red by two seven, now.` or a string of one to eight digits."""
    if rng.random() < 0.6:
        digits = " ".join(rng.choices(DIGITS, k=rng.randint(1, 3)))
        words = [
            rng.choice(VERBS),
            rng.choice(COLOURS),
            rng.choice(PREPOSITIONS),
            digits,
            rng.choice(ADVERBS),
        ]
    else:
        words = rng.choices(DIGITS, k=rng.randint(1, 8))
    return " ".join(words).capitalize() + "."


def speak(text: str, voice: Voice, sample_rate_hz: int) -> np.ndarray:
    """Synthesise `text`; silence at both ends is cut.

    Returns:
        float32 array of shape [samples], in [-1, 1], mono at `sample_rate_hz`.

    Raises:
        RuntimeError: espeak-ng is not installed, or cannot speak this.
    """
    if shutil.which("espeak-ng") is None:
        raise RuntimeError("espeak-ng is not installed; on Debian or Ubuntu: apt-get install espeak-ng")
    name = f"{voice.language}+{voice.variant}"
    command = ["espeak-ng", "-v", name, "-s", str(voice.rate), "-p", str(voice.pitch), "--stdout", text]
    spoken = subprocess.run(command, capture_output=True, check=False)
    if spoken.returncode or not spoken.stdout:
        raise RuntimeError(f"espeak-ng could not speak {text!r} as {name}: {spoken.stderr.decode().strip()}")
    wave, rate = soundfile.read(io.BytesIO(spoken.stdout), dtype="float32")
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
    return soxr.resample(wave[loud[0] : loud[-1] + 1], rate, sample_rate_hz).clip(-1, 1)
