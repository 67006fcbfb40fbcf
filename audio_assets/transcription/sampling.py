"""Which token comes next: Whisper's rules for text and timestamps, on all rows at once.

The rules are those of `whisper.decoding` (SuppressBlank, SuppressTokens, ApplyTimestampRules, GreedyDecoder)
at default options. They allow or forbid tokens in three stretches of the vocabulary:

    words       0 to eot - 1
    specials    eot to timestamp_begin - 1; in effect, end-of-text
    timestamps  timestamp_begin on

so it is enough to know each stretch's best token and the sum of its probabilities, and which stretches a row
may use. Nothing here waits for the device, so that a CUDA graph can hold it.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from whisper import DecodingOptions
from whisper.decoding import DecodingTask
from whisper.model import Whisper
from whisper.tokenizer import Tokenizer

from audio_assets.transcription.kernels import best_and_sum, highest
from audio_assets.transcription.longform import Decode

FIRST_TIMESTAMP_LIMIT = 50  # The first timestamp is at most 1.0 s.


@dataclass(frozen=True)
class Allowed:
    """What each row may say next.

    Attributes:
        words, specials: bool [rows].
        stamp_begin, stamp_end: int64 [rows], the timestamps that are allowed: those from `stamp_begin` to
            before `stamp_end`, which are none if the two are equal.
    """

    words: Tensor
    specials: Tensor
    stamp_begin: Tensor
    stamp_end: Tensor


class Sampler:
    """The rules for one model."""

    def __init__(self, model: Whisper, tokenizer: Tokenizer, *, margins: bool = False) -> None:
        """margins: whether `choose` says how close each choice is."""
        self.margins = margins
        self.eot = tokenizer.eot
        self.zero = tokenizer.timestamp_begin
        suppressed = DecodingTask(model, DecodingOptions(language="en", fp16=False))._get_suppress_tokens()
        # <|notimestamps|> is the caller's to set, never the model's to say.
        self.suppressed = torch.tensor([*suppressed, tokenizer.no_timestamps], device=model.device)

    def choose(
        self,
        logits: Tensor,
        last: Tensor,
        before_last: Tensor,
        last_timestamp: Tensor,
        temperature: Tensor | None = None,
        uniform: Tensor | None = None,
        factors: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The next token of each row and its log-probability after the rules, at temperature 1.

        Args:
            logits: [rows, n_vocab] of any type, overwritten.
            last, before_last: int64 [rows], the latest two sampled tokens; -1 where there are fewer yet.
            last_timestamp: int64 [rows], the latest sampled timestamp token; -1 where there is none yet.
            temperature: float32 [rows]; None where every row is greedy.
            uniform: float64 [rows] in [0, 1), which picks the token where temperature is not 0.
            factors: as `Decoder.logit_factors` gives them.

        Returns:
            int64 [rows] and float32 [rows]; and if `margins`, float32 [rows], how much higher the logit of
            the best token is than that of any other, or what a rule compared in its place; else None.
        """
        logits.index_fill_(1, self.suppressed, -torch.inf)
        allowed = self._allowed(last, before_last, last_timestamp, logits.shape[1])
        stretches = None
        runner_up = None
        if logits.device.type == "cpu":
            runner_up = torch.full((len(logits), 3), -torch.inf) if self.margins else None
            sums = self._sums_on_cpu(logits, allowed, factors, runner_up)
        else:
            stretches = self._stretches(logits.float(), allowed)
            sums = [s.best for s in stretches], [s.token for s in stretches], [s.sum for s in stretches]
            if self.margins:
                runner_up = torch.stack([s.runner_up() for s in stretches], dim=1)
        token, best, total, only_timestamps = _pick(*sums)
        margin = None if runner_up is None else _margin(sums[0], sums[2], runner_up, only_timestamps)
        if temperature is None or uniform is None:
            return token, best - total, margin
        # A row at temperature 0 beside others that are not keeps its best token.
        logits = _only_allowed(stretches or self._stretches(logits.float(), allowed), only_timestamps)
        hot = temperature > 0
        drawn = draw(logits / torch.where(hot, temperature, 1.0)[:, None], uniform)
        of_drawn = logits.gather(1, drawn[:, None])[:, 0]
        return torch.where(hot, drawn, token), torch.where(hot, of_drawn, best) - total, margin

    def best(
        self, logits: Tensor, last: Tensor, before_last: Tensor, last_timestamp: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """The most probable next tokens of each row, the best first, and their log-probabilities.

        Args:
            logits, last, before_last, last_timestamp: as those of `choose`; `logits` is overwritten.
            count: how many tokens; a row that may say fewer gets others besides, at -inf.

        Returns:
            int64 [rows, count] and float32 [rows, count].
        """
        logits.index_fill_(1, self.suppressed, -torch.inf)
        allowed = self._allowed(last, before_last, last_timestamp, logits.shape[1])
        if logits.device.type == "cpu":
            *_, total, only_timestamps = _pick(*self._sums_on_cpu(logits, allowed))
            begin, end = self._ranges(allowed)
            end[:, :2] = torch.where(only_timestamps[:, None], begin[:, :2], end[:, :2])
            best, token = highest(logits, begin, end, count)
            return token, best - total[:, None]
        stretches = self._stretches(logits.float(), allowed)
        *_, total, only_timestamps = _pick(
            [s.best for s in stretches], [s.token for s in stretches], [s.sum for s in stretches]
        )
        best, token = _only_allowed(stretches, only_timestamps).topk(count, dim=1)
        return token, best - total[:, None]

    def _allowed(self, last: Tensor, before_last: Tensor, last_timestamp: Tensor, n_vocab: int) -> Allowed:
        """The rules of timestamps: they come in pairs, never decrease, and start at 1.0 s at the latest."""
        first = last < 0
        after_timestamp = last >= self.zero
        # A row's first token counts as the second timestamp of a pair.
        after_pair = after_timestamp & ((before_last < 0) | (before_last >= self.zero))
        after_single = after_timestamp & ~after_pair
        # A segment ends later than it began; the next one may begin where it ended.
        begin = torch.where(last_timestamp < 0, self.zero, last_timestamp + (~after_single).long())
        end = torch.where(first, min(self.zero + FIRST_TIMESTAMP_LIMIT + 1, n_vocab), n_vocab)
        return Allowed(
            # A text starts with a timestamp; one alone is followed by its second, or by the end.
            words=~(first | after_single),
            specials=~first,
            stamp_begin=begin,
            stamp_end=torch.where(after_pair, begin, end),
        )

    def _sums_on_cpu(
        self,
        logits: Tensor,
        allowed: Allowed,
        factors: tuple[Tensor, Tensor] | None = None,
        runner_up: Tensor | None = None,
    ) -> tuple[Sequence[Tensor], ...]:
        """As the arguments of `_pick`, by a kernel that reads only what is allowed."""
        best, token, total = best_and_sum(logits, *self._ranges(allowed), factors, runner_up)
        return best.unbind(1), token.unbind(1), total.unbind(1)

    def _ranges(self, allowed: Allowed) -> tuple[Tensor, Tensor]:
        """Where the words, specials and timestamps that are allowed begin and end, int64 [rows, 3] each."""
        words_begin = torch.zeros_like(allowed.stamp_begin)
        specials_begin = torch.full_like(allowed.stamp_begin, self.eot)
        begin = torch.stack([words_begin, specials_begin, allowed.stamp_begin], dim=1)
        words_end = torch.where(allowed.words, self.eot, 0)
        specials_end = torch.where(allowed.specials, self.zero, self.eot)
        end = torch.stack([words_end, specials_end, allowed.stamp_end], dim=1)
        return begin, end

    def _stretches(self, logits: Tensor, allowed: Allowed) -> "list[_Stretch]":
        """Words, specials and timestamps; logits: float32 [rows, n_vocab]."""
        stamp = torch.arange(self.zero, logits.shape[1], device=logits.device)
        stamp_allowed = (stamp >= allowed.stamp_begin[:, None]) & (stamp < allowed.stamp_end[:, None])
        stamps = logits[:, self.zero :].masked_fill(~stamp_allowed, -torch.inf)
        return [
            _Stretch(logits[:, : self.eot], 0, allowed.words),
            _Stretch(logits[:, self.eot : self.zero], self.eot, allowed.specials),
            _Stretch(stamps, self.zero, None),
        ]


def _pick(
    best: Sequence[Tensor], token: Sequence[Tensor], total: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of words, specials and timestamps, the stretch to take the token from.

    Args:
        best, token, total: of each stretch, the highest logit, its token, the log of the sum of exponentials.

    Returns:
        The token, its logit, the log of the sum over all that is allowed, and whether only timestamps are.
    """
    text_best = torch.maximum(best[0], best[1])
    text_total = torch.logaddexp(total[0], total[1])
    # Timestamps win if together they are more probable than any single text token.
    stamped = total[2] > text_best
    text_token = torch.where(best[0] >= best[1], token[0], token[1])
    return (
        torch.where(stamped, token[2], text_token),
        torch.where(stamped, best[2], text_best),
        torch.where(stamped, total[2], torch.logaddexp(text_total, total[2])),
        stamped,
    )


def _margin(
    best: Sequence[Tensor], total: Sequence[Tensor], runner_up: Tensor, only_timestamps: Tensor
) -> Tensor:
    """How close the choice of each row is, float32 [rows]; best, total, only_timestamps: as those of `_pick`.

    Args:
        runner_up: float32 [rows, 3], the second-highest logit of each stretch.
    """
    text_best = torch.maximum(best[0], best[1])
    text_runner_up = torch.where(best[0] >= best[1], runner_up[:, 0], runner_up[:, 1])
    text_runner_up = torch.maximum(text_runner_up, torch.minimum(best[0], best[1]))
    of_token = torch.where(only_timestamps, best[2] - runner_up[:, 2], text_best - text_runner_up)
    # Where a stretch is not allowed, it is -inf below -inf.
    of_rule = (total[2] - text_best).abs()
    return torch.minimum(of_token.nan_to_num(nan=torch.inf), of_rule.nan_to_num(nan=torch.inf))


class _Stretch:
    """Of a stretch of the vocabulary, each [rows]: the best token, its logit, and the log of the sum of
    exponentials; -inf where the stretch is not allowed."""

    def __init__(self, logits: Tensor, begin: int, allowed: Tensor | None) -> None:
        """begin: the stretch's first token; allowed: bool [rows], None where `logits` say it themselves."""
        self.logits = logits
        self.allowed = allowed
        best, token = logits.max(dim=1)
        total = logits.logsumexp(dim=1)
        self.token = token + begin
        self.best = best if allowed is None else best.masked_fill(~allowed, -torch.inf)
        self.sum = total if allowed is None else total.masked_fill(~allowed, -torch.inf)

    def runner_up(self) -> Tensor:
        """The second-highest logit, float32 [rows]."""
        second = self.logits.topk(2, dim=1).values[:, 1]
        return second if self.allowed is None else second.masked_fill(~self.allowed, -torch.inf)


def _only_allowed(stretches: "Sequence[_Stretch]", only_timestamps: Tensor) -> Tensor:
    """Logits of the whole vocabulary, -inf where not allowed: float32 [rows, n_vocab]."""
    parts = []
    for stretch in stretches:
        if stretch.allowed is None:
            parts.append(stretch.logits)
        else:
            forbidden = only_timestamps | ~stretch.allowed
            parts.append(stretch.logits.masked_fill(forbidden[:, None], -torch.inf))
    return torch.cat(parts, dim=1)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token of each row from softmax(logits), by inverting the cumulative distribution at `uniform`."""
    # float64: a float32 sum over 50,000 tokens can end above or below the last token's share.
    cumulative = logits.double().softmax(dim=1).cumsum(dim=1)
    point = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, point, right=True)[:, 0].clamp(max=logits.shape[1] - 1)


def draws(request: Decode, count: int, sample: int) -> np.ndarray:
    """Uniform random numbers for a decode's n-th sample, float64 [count]; the same audio always gets the same
    ones."""
    heard = request.window.mel.cpu().numpy().tobytes()
    words = [zlib.crc32(heard), len(request.prompt), round(request.temperature * 10)]
    seed = np.random.SeedSequence(words, spawn_key=(sample,) if sample else ())
    return np.random.Generator(np.random.PCG64(seed)).random(count)
