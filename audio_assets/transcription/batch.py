"""The batch that is being decoded: rows join as there is room, all take a step together, and leave when done.

A row that repeats itself for 224 tokens then holds no other row back, and the batch stays full, which is what
decoding is fast with: each step reads all of the decoder's weights, however many rows there are.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from whisper.tokenizer import Tokenizer

from audio_assets.transcription.decoder import Decoder
from audio_assets.transcription.graphs import Graphs
from audio_assets.transcription.longform import Decode, Decoded
from audio_assets.transcription.sampling import Sampler

# Rows that a thread of a CPU steps on its own: fewer are not worth reading all of the weights once more.
ROWS_FOR_A_THREAD = 8


@dataclass(eq=False)
class Row:
    """One decode under way: whose it is, and what of it the host must know."""

    owner: Any
    temperature: float
    begin: int
    """how many tokens were given"""
    no_speech_prob: float = float("nan")


class DecodeBatch:
    """Up to `slots` rows; the state of row i lies at index i of each tensor, active rows first.

    Attributes:
        rows: the active rows.
        tokens: int64 [slots, n_text_ctx + 1], given and sampled tokens.
        length: int64 [slots], how many of them there are.
    """

    def __init__(
        self, decoder: Decoder, sampler: Sampler, tokenizer: Tokenizer, audio_ctx: int, slots: int
    ) -> None:
        self.decoder, self.sampler, self.tokenizer = decoder, sampler, tokenizer
        self.caches = decoder.new_caches(slots, audio_ctx)
        self.slots = slots
        self.rows: list[Row] = []
        self.text_ctx = len(decoder.positions)
        self.sample_limit = self.text_ctx // 2
        device = decoder.positions.device

        def state(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        self.tokens, self.length, self.begin = state(self.text_ctx + 1), state(), state()
        self.last_timestamp = state()
        self.sum_logprob, self.temperature = state(dtype=torch.float32), state(dtype=torch.float32)
        self.uniform = state(self.sample_limit, dtype=torch.float64)
        self.done = state(dtype=torch.bool)
        self.longest = 0
        self.graphs = Graphs(self._advance, device)
        # Asking a CUDA device whether rows are done makes it wait, so it is asked every few steps.
        self.steps_at_once = 1 if device.type == "cpu" else 4

    @property
    def room(self) -> int:
        return self.slots - len(self.rows)

    def join(self, requests: Sequence[tuple[Any, Decode]], features: Sequence[Tensor]) -> None:
        """Start decodes; there must be room.

        Args:
            requests: each decode with whatever stands for its owner.
            features: the encoder's output for each, `dtype` [1500, n_state].
        """
        first, count = len(self.rows), len(requests)
        given = [initial_tokens(self.tokenizer, r, self.text_ctx) for _, r in requests]
        self.decoder.listen(self.caches, first, features)
        width = max(map(len, given))
        tokens = np.full((count, width), self.tokenizer.eot)
        for row, g in zip(tokens, given, strict=True):
            row[: len(g)] = g
        device = self.tokens.device
        tokens = torch.from_numpy(tokens).to(device)
        length = torch.tensor([len(g) for g in given], device=device)
        sot = torch.tensor([g.index(self.tokenizer.sot) for g in given], device=device)

        hidden = self.decoder.prefill(self.caches, first, tokens)
        every, new = torch.arange(count, device=device), slice(first, first + count)
        no_speech = self._no_speech(hidden[every, sot])
        for (owner, request), g, p in zip(requests, given, no_speech, strict=True):
            self.rows.append(Row(owner, request.temperature, len(g), p))
        self.tokens[new, :width], self.length[new], self.begin[new] = tokens, length, length
        self.last_timestamp[new], self.sum_logprob[new], self.done[new] = -1, 0.0, False
        self.temperature[new] = torch.tensor([r.temperature for _, r in requests], device=device)
        for slot, (_, request) in enumerate(requests, first):
            if request.temperature > 0:
                self.uniform[slot] = torch.from_numpy(draws(request, self.sample_limit))
        self._sample(self.decoder.logits(hidden[every, length - 1]), new, sampling=self._sampling(first))
        self.longest = max(self.longest, width + 1)

    def languages(self, features: Sequence[Tensor]) -> list[str]:
        """The most probable language of each window, as a code; works in free slots: there must be room."""
        first = len(self.rows)
        self.decoder.listen(self.caches, first, features)
        sot = torch.full((len(features), 1), self.tokenizer.sot, device=self.tokens.device)
        logits = self.decoder.logits(self.decoder.prefill(self.caches, first, sot)[:, 0])
        best = logits[:, list(self.tokenizer.all_language_tokens)].argmax(dim=1)
        return [self.tokenizer.all_language_codes[i] for i in best.tolist()]

    def step(self) -> list[tuple[Any, Decoded]]:
        """Sample the next tokens of all rows; the decodes that are done leave, with their owners."""
        sampling = self._sampling(0)
        for _ in range(self.steps_at_once):
            longest = min(self.longest, self.text_ctx)
            self.graphs.run(len(self.rows), self.slots, longest, self.text_ctx, sampling)
            self.longest += 1
        return self._leave()

    def _sampling(self, first: int) -> bool:
        return any(r.temperature > 0 for r in self.rows[first:])

    def _advance(self, count: int, longest: int, sampling: bool) -> None:
        """One step of the first `count` slots, without a wait for the device; a CPU's threads share them."""
        workers = self.decoder.workers
        shares = 1 if workers is None else min(workers.threads, round(count / ROWS_FOR_A_THREAD))
        if workers is None or shares < 2:
            self._advance_rows(slice(0, count), longest, sampling)
            return
        ends = [count * i // shares for i in range(shares + 1)]
        workers.map(lambda rows: self._advance_rows(rows, longest, sampling), map(slice, ends, ends[1:]))

    def _advance_rows(self, rows: slice, longest: int, sampling: bool) -> None:
        # A row that is done stays where it is until it leaves; a slot that no row ever had is at -1.
        position = (self.length[rows] - 1).clamp(0, self.text_ctx - 1)
        token = self.tokens[rows].gather(1, position[:, None])[:, 0]
        hidden = self.decoder.step(self.caches, rows.start, token, position, longest)
        self._sample(self.decoder.logits(hidden), rows, sampling=sampling)

    def _sample(self, logits: Tensor, rows: slice, *, sampling: bool) -> None:
        """Choose a token for each of `rows` and write it down; logits: [rows, n_vocab]."""
        tokens, length, begin, done = self.tokens[rows], self.length[rows], self.begin[rows], self.done[rows]
        sampled = length - begin

        def latest(back: int) -> Tensor:
            token = tokens.gather(1, (length - back).clamp(min=0)[:, None])[:, 0]
            return torch.where(sampled >= back, token, -1)

        uniform = None
        if sampling:
            uniform = self.uniform[rows].gather(1, sampled.clamp(max=self.sample_limit - 1)[:, None])[:, 0]
        last_timestamp = self.last_timestamp[rows]
        temperature = self.temperature[rows] if sampling else None
        chosen, logprob = self.sampler.choose(
            logits, latest(1), latest(2), last_timestamp, temperature, uniform
        )
        self.sum_logprob[rows] += torch.where(done, 0.0, logprob)
        stamped = (chosen >= self.tokenizer.timestamp_begin) & ~done
        self.last_timestamp[rows] = torch.where(stamped, chosen, last_timestamp)
        place = length.clamp(max=tokens.shape[1] - 1)[:, None]
        kept = tokens.gather(1, place)[:, 0]
        tokens.scatter_(1, place, torch.where(done, kept, chosen)[:, None])
        length = length + (~done).long()
        self.length[rows] = length
        over = (length > self.text_ctx) | (length - begin >= self.sample_limit)
        self.done[rows] = done | (chosen == self.tokenizer.eot) | over

    def _leave(self) -> list[tuple[Any, Decoded]]:
        count = len(self.rows)
        done = self.done[:count].tolist()
        if not any(done):
            return []
        lengths, sums = self.length[:count].tolist(), self.sum_logprob[:count].tolist()
        finished = []
        # From the end, so that the row that fills a gap is never one that leaves too.
        for i in reversed(range(count)):
            if done[i]:
                finished.append((self.rows[i].owner, self._result(i, lengths[i], sums[i])))
                self._close_gap(i, lengths)
        self.longest = max((lengths[i] for i in range(len(self.rows))), default=0)
        return finished

    def _result(self, i: int, length: int, sum_logprob: float) -> Decoded:
        row = self.rows[i]
        tokens = self.tokens[i, row.begin : length].tolist()
        if tokens[-1] == self.tokenizer.eot:
            tokens.pop()
        return Decoded(
            tokens=tuple(tokens),
            text=self.tokenizer.decode(tokens).strip(),
            avg_logprob=sum_logprob / (len(tokens) + 1),
            no_speech_prob=row.no_speech_prob,
            temperature=row.temperature,
        )

    def _close_gap(self, i: int, lengths: list[int]) -> None:
        last = len(self.rows) - 1
        moved = self.rows.pop()
        if i == last:
            return
        self.rows[i], lengths[i] = moved, lengths[last]
        self.caches.move(last, i, min(lengths[last], self.text_ctx))
        for state in (self.tokens, self.length, self.begin, self.last_timestamp, self.sum_logprob):
            state[i] = state[last]
        for state in (self.temperature, self.uniform, self.done):
            state[i] = state[last]

    def _no_speech(self, hidden: Tensor) -> list[float]:
        """Probability of <|nospeech|> after <|startoftranscript|>; hidden: float32 [rows, n_state]."""
        if self.tokenizer.no_speech is None:
            return [float("nan")] * len(hidden)
        return self.decoder.logits(hidden).float().softmax(dim=1)[:, self.tokenizer.no_speech].tolist()


def initial_tokens(tokenizer: Tokenizer, request: Decode, text_ctx: int) -> list[int]:
    """`<|startofprev|>` and the end of the prompt, if there is one, then what starts a transcript."""
    sequence = list(tokenizer.sot_sequence)
    if len(sequence) > 1:
        sequence[1] = tokenizer.to_language_token(request.language)
    if not request.prompt:
        return sequence
    return [tokenizer.sot_prev, *request.prompt[-(text_ctx // 2 - 1) :], *sequence]


def draws(request: Decode, count: int) -> np.ndarray:
    """Uniform random numbers for a decode, float64 [count]; the same audio always gets the same ones."""
    heard = request.window.mel.cpu().numpy().tobytes()
    seed = np.random.SeedSequence([zlib.crc32(heard), len(request.prompt), round(request.temperature * 10)])
    return np.random.Generator(np.random.PCG64(seed)).random(count)
