"""Which token comes next: Whisper's rules for text and timestamps, on all rows at once.

The rules are those of `whisper.decoding` (SuppressBlank, SuppressTokens, ApplyTimestampRules, GreedyDecoder)
at default options. They allow or forbid tokens in three stretches of the vocabulary:

    words       0 to eot - 1
    specials    eot to timestamp_begin - 1; in effect, end-of-text
    timestamps  timestamp_begin on

so it is enough to know each stretch's best token and the sum of its probabilities, and which stretches a row
may use. Nothing here waits for the device, so that a CUDA graph can hold it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from whisper import DecodingOptions
from whisper.decoding import DecodingTask
from whisper.model import Whisper
from whisper.tokenizer import Tokenizer

from audio_assets.transcription.kernels import best_and_sum

FIRST_TIMESTAMP_LIMIT = 50  # The first timestamp is at most 1.0 s.


class Sampler:
    """The rules for one model."""

    def __init__(self, model: Whisper, tokenizer: Tokenizer) -> None:
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
    ) -> tuple[Tensor, Tensor]:
        """The next token of each row and its log-probability after the rules, at temperature 1.

        Args:
            logits: [rows, n_vocab] of any type, overwritten.
            last, before_last: int64 [rows], the latest two sampled tokens; -1 where there are fewer yet.
            last_timestamp: int64 [rows], the latest sampled timestamp token; -1 where there is none yet.
            temperature: float32 [rows]; None where every row is greedy.
            uniform: float64 [rows] in [0, 1), which picks the token where temperature is not 0.

        Returns:
            int64 [rows] and float32 [rows].
        """
        logits.index_fill_(1, self.suppressed, -torch.inf)
        first = last < 0
        after_timestamp = last >= self.zero
        # A row's first token counts as the second timestamp of a pair.
        after_pair = after_timestamp & ((before_last < 0) | (before_last >= self.zero))
        after_single = after_timestamp & ~after_pair
        # A segment ends later than it began; the next one may begin where it ended.
        lowest = torch.where(last_timestamp < 0, self.zero, last_timestamp + (~after_single).long())
        highest = torch.where(first, self.zero + FIRST_TIMESTAMP_LIMIT, logits.shape[1])
        may_say, may_end = ~(first | after_single), ~first
        if logits.device.type == "cpu" and temperature is None:
            begin = torch.stack([torch.zeros_like(last), torch.full_like(last, self.eot), lowest], dim=1)
            end = torch.stack(
                [
                    torch.where(may_say, self.eot, 0),
                    torch.where(may_end, self.zero, self.eot),
                    torch.where(after_pair, lowest, (highest + 1).clamp(max=logits.shape[1])),
                ],
                dim=1,
            )
            token, best, total, _ = _pick(*(x.unbind(1) for x in best_and_sum(logits, begin, end)))
            return token, best - total

        logits = logits.float()
        stamp = torch.arange(self.zero, logits.shape[1], device=logits.device)
        allowed = (stamp >= lowest[:, None]) & (stamp <= highest[:, None]) & ~after_pair[:, None]
        words = _Stretch(logits[:, : self.eot], may_say)
        specials = _Stretch(logits[:, self.eot : self.zero], may_end)
        stamps = _Stretch(logits[:, self.zero :].masked_fill(~allowed, -torch.inf), None)
        stretches = words, specials, stamps
        tokens = words.token, self.eot + specials.token, self.zero + stamps.token
        token, best, total, stamped = _pick([s.best for s in stretches], tokens, [s.sum for s in stretches])
        if temperature is None or uniform is None:
            return token, best - total

        text_off = stamped[:, None]
        masked = torch.cat(
            [
                words.logits.masked_fill(text_off | ~may_say[:, None], -torch.inf),
                specials.logits.masked_fill(text_off | ~may_end[:, None], -torch.inf),
                stamps.logits,
            ],
            dim=1,
        )
        hot = temperature > 0
        drawn = draw(masked / torch.where(hot, temperature, 1.0)[:, None], uniform)
        token = torch.where(hot, drawn, token)
        return token, masked.gather(1, token[:, None])[:, 0] - total


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


class _Stretch:
    """Best token, its logit, and the log of the sum of exponentials, each [rows]; -inf where not allowed."""

    def __init__(self, logits: Tensor, allowed: Tensor | None) -> None:
        self.logits = logits
        best, self.token = logits.max(dim=1)
        total = logits.logsumexp(dim=1)
        self.best = best if allowed is None else best.masked_fill(~allowed, -torch.inf)
        self.sum = total if allowed is None else total.masked_fill(~allowed, -torch.inf)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token of each row from softmax(logits), by inverting the cumulative distribution at `uniform`."""
    # float64: a float32 sum over 50,000 tokens can end above or below the last token's share.
    cumulative = logits.double().softmax(dim=1).cumsum(dim=1)
    point = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, point, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
