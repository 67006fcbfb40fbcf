"""What a row says of its audio and its text beside them, to select data by when it is read.

Nothing here deletes a row or decides whether one is good.

signal.py  of the samples: level, clipping, speech, bandwidth, a digest
text.py    of the text: rates, repetition, and patterns of text that Whisper makes up
"""

from audio_assets.evidence.signal import SignalEvidence, SignalMeter
from audio_assets.evidence.text import HALLUCINATION_FLAGS, TextEvidence, text_evidence

__all__ = ["HALLUCINATION_FLAGS", "SignalEvidence", "SignalMeter", "TextEvidence", "text_evidence"]
