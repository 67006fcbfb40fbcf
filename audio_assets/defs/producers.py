"""What today's settings make rows with.

Which rows are stale by it is decided in `audio_assets/staleness.py`.
"""

from audio_assets.defs.resources import AudioTokeniser, Whisper
from audio_assets.staleness import Producers
from audio_assets.transcription.identity import is_current


def current_producers(
    whisper: Whisper,
    tokeniser: AudioTokeniser,
    *,
    models: bool = True,
    tokenisers: bool = True,
) -> Producers:
    """What tells rows that today's settings would make from others.

    Args:
        models: whether the model of a row counts.
        tokenisers: whether its tokeniser counts.

    Raises:
        ValueError: a setting is wrong.
    """
    parts = whisper.expected_parts() if models else ()
    made_today = tokeniser.identity if tokenisers else ""
    return Producers(
        (lambda identity: is_current(identity, parts)) if models else None,
        made_today.__eq__ if tokenisers else None,
    )
