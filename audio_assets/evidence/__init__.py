"""What a row says of its audio and its text beside them, to select data by when it is read.

Nothing here deletes a row or decides whether one is good.

signal.py         of the samples: level, clipping, speech, bandwidth, a digest
text.py           of the text: rates and repetition
hallucination.py  of the text: patterns of what Whisper makes up
"""

from audio_assets.evidence.hallucination import HALLUCINATION_FLAGS
from audio_assets.evidence.signal import SignalEvidence, SignalMeter
from audio_assets.evidence.text import TextEvidence, text_evidence

__all__ = ["HALLUCINATION_FLAGS", "SignalEvidence", "SignalMeter", "TextEvidence", "text_evidence"]
