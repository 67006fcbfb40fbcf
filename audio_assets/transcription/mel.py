"""Log-mel spectrograms of many clips at once, with the numbers that `whisper.transcribe` would see.

`transcribe()` appends 30 s of silence to the audio, takes the spectrogram of it all, and scales by its
maximum. Here only the frames that touch the audio are computed: in every other frame the power is zero,
so its value follows from the maximum alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from whisper.audio import HOP_LENGTH, N_FFT, N_FRAMES, mel_filters

# A batch of pieces holds about this many frames, which bounds what the Fourier transform needs (about
# 4 KB a frame) however long a file is.
FRAMES_AT_ONCE = 8 * N_FRAMES
DYNAMIC_RANGE = 8.0  # log10 units that are kept below the maximum, as in whisper/audio.py


@dataclass(frozen=True)
class LogMel:
    """One file's scaled log-mel spectrogram.

    Attributes:
        frames: float32 [n_mels, n], all frames that touch the audio; n exceeds `content_frames` by one or
            two, because a Fourier window at the edge reaches back into the audio.
        content_frames: whole hops of 10 ms in the audio; what `transcribe()` cuts into windows.
        silence: the value of every frame after `frames`.
    """

    frames: Tensor
    content_frames: int
    silence: float

    def window(self, start: int) -> Tensor:
        """What the encoder is given at frame `start`: float32 [n_mels, 3000].

        After the last content frame `transcribe()` pads the *mel* with 0.0 rather than the audio with
        silence.
        """
        content = self.frames[:, start : min(start + N_FRAMES, self.content_frames)]
        return F.pad(content, (0, N_FRAMES - content.shape[1]))

    def language_window(self) -> Tensor:
        """The first 30 s for language detection, float32 [n_mels, 3000]; padded with silence, not 0.0."""
        content = self.frames[:, :N_FRAMES]
        return F.pad(content, (0, N_FRAMES - content.shape[1]), value=self.silence)


def log_mels(clips: Sequence[np.ndarray], n_mels: int, device: torch.device) -> list[LogMel]:
    """Spectrograms of clips of any lengths.

    Args:
        clips: float32 arrays of shape [samples], mono at 16 kHz, finite.
        n_mels: 80, or 128 from large-v3 on.
        device: where the arithmetic runs and the results stay.
    """
    filters = mel_filters(device, n_mels)
    window = torch.hann_window(N_FFT, device=device)
    logs: list[list[Tensor]] = [[] for _ in clips]
    for group in _groups(clips):
        audio = torch.zeros(len(group), (group[0].frames - 1) * HOP_LENGTH + N_FFT)
        for row, piece in zip(audio, group, strict=True):
            piece.copy_to(row.numpy(), clips[piece.clip])
        stft = torch.stft(
            audio.to(device),
            N_FFT,
            HOP_LENGTH,
            window=window,
            center=False,
            return_complex=True,
        )
        mel = filters @ stft.abs().square()
        log = mel.clamp(min=1e-10).log10()
        for values, piece in zip(log, group, strict=True):
            logs[piece.clip].append(values[:, : piece.frames])
    return [_scaled(torch.cat(parts, dim=1), len(clip)) for parts, clip in zip(logs, clips, strict=True)]


@dataclass(frozen=True)
class _Piece:
    """Up to 30 s of a clip: frames `start` to `start + frames`."""

    clip: int
    start: int
    frames: int

    def copy_to(self, row: np.ndarray, audio: np.ndarray) -> None:
        """Write the samples that the frames see; frame f is centred on sample 160 f. `row` comes zeroed."""
        first = self.start * HOP_LENGTH - N_FFT // 2
        if first < 0:
            # The start of the file is mirrored, as torch.stft(center=True) does.
            mirrored = audio[1 : 1 - first][::-1]
            row[-first - len(mirrored) : -first] = mirrored
        last = min(len(audio), (self.start + self.frames - 1) * HOP_LENGTH + N_FFT // 2)
        begin = max(first, 0)
        row[begin - first : last - first] = audio[begin:last]


def _groups(clips: Sequence[np.ndarray]) -> list[list[_Piece]]:
    """All clips' pieces, longest first, in groups of about FRAMES_AT_ONCE frames."""
    pieces = []
    for i, clip in enumerate(clips):
        total = _touched_frames(len(clip))
        pieces += [_Piece(i, s, min(N_FRAMES, total - s)) for s in range(0, total, N_FRAMES)]
    # The sort is stable, so a clip's pieces stay in order: only its last one can be shorter.
    pieces.sort(key=lambda p: -p.frames)
    groups: list[list[_Piece]] = []
    for piece in pieces:
        if not groups or (len(groups[-1]) + 1) * groups[-1][0].frames > FRAMES_AT_ONCE:
            groups.append([])
        groups[-1].append(piece)
    return groups


def _touched_frames(samples: int) -> int:
    """How many frames have a Fourier window that overlaps the audio; at least one."""
    return max(1, -(-(samples + N_FFT // 2) // HOP_LENGTH))


def _scaled(log: Tensor, samples: int) -> LogMel:
    floor = log.max() - DYNAMIC_RANGE
    frames = torch.maximum(log, floor).add_(4.0).div_(4.0)
    silence = (max(-10.0, floor.item()) + 4.0) / 4.0
    return LogMel(frames, samples // HOP_LENGTH, silence)
