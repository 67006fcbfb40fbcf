"""Measurements: the engine against its peers, and its agreement with `whisper.transcribe`."""
