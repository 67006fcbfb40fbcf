"""The decode batch, by continuous batching: rows join as there is room, all take a decode step together, and
each leaves when it is done.

So a row that repeats itself for 224 tokens holds no other row back, and the batch stays full. That makes
decoding fast, because each step reads all of the decoder's weights, however many rows there are.

Which decodes join, and when, is the business of `scheduler`; the tensors of a row are declared in `kv_cache`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from whisper.tokenizer import Tokenizer

from audio_assets.transcription.alignment import Aligner, Text
from audio_assets.transcription.beam import BeamSearch, best_of
from audio_assets.transcription.decoder import Decoder
from audio_assets.transcription.graphs import Graphs
from audio_assets.transcription.kv_cache import DecodeState
from audio_assets.transcription.longform import FRAMES_PER_TIMESTAMP, Align, Decode, Decoded
from audio_assets.transcription.sampling import Sampler, draws
from audio_assets.transcription.words import Aligned

# Rows that a thread of a CPU steps on its own: fewer are not worth reading all of the weights once more.
ROWS_FOR_A_THREAD = 8


@dataclass(eq=False)
class Running:
    """One decode under way: whose it is, and what of it the host must know.

    Attributes:
        begin: how many tokens were given.
        rows: as many as texts are decoded side by side.
        search: None where each row goes its own way.
    """

    owner: Any
    temperature: float
    begin: int
    no_speech_prob: float
    rows: "list[Row]" = field(default_factory=list)
    search: BeamSearch | None = None


@dataclass(eq=False)
class Row:
    """One text of a decode, in a slot."""

    decode: Running
    slot: int


class DecodeBatch:
    """Up to `slots` rows. What row i holds on the device lies in slot i of `cache` and `state`; the active
    rows come first.

    Attributes:
        rows: the active rows.
    """

    def __init__(
        self,
        decoder: Decoder,
        sampler: Sampler,
        tokenizer: Tokenizer,
        audio_ctx: int,
        slots: int,
        beam_size: int | None = None,
    ) -> None:
        """beam_size: of the decodes that search with a beam, if any do."""
        self.decoder = decoder
        self.sampler = sampler
        self.tokenizer = tokenizer
        self.slots = slots
        self.rows: list[Row] = []
        self.text_ctx = len(decoder.positions)
        self.sample_limit = self.text_ctx // 2
        self.device = decoder.positions.device
        self.cache = decoder.new_cache(slots, audio_ctx)
        self.candidates = 0 if beam_size is None else beam_size + 1
        self.state = DecodeState.zeros(
            slots=slots, text_ctx=self.text_ctx, device=self.device, candidates=self.candidates
        )
        self.longest = 0
        self.graphs = Graphs(self._advance, self.device)
        # Asking a CUDA device whether rows are done makes it wait, so it is asked every few steps. A beam
        # search asks after each.
        self.steps_at_once = 1 if self.device.type == "cpu" or self.candidates else 4

    def join(self, requests: Sequence[tuple[Any, Decode]], features: Sequence[Tensor]) -> None:
        """Start decodes: the prefill of their initial tokens, and the first token. There must be room.

        Args:
            requests: each decode with whatever stands for its owner.
            features: the encoder's output for each, `dtype` [1500, n_state].
        """
        first = len(self.rows)
        given = [initial_tokens(self.tokenizer, r, self.text_ctx) for _, r in requests]
        self.decoder.fill_cross_cache(self.cache, first, features)
        tokens = torch.from_numpy(padded(given, self.tokenizer.eot)).to(self.device)
        sot = torch.tensor([g.index(self.tokenizer.sot) for g in given], device=self.device)

        hidden = self.decoder.prefill(self.cache, first, tokens)
        every = torch.arange(len(requests), device=self.device)
        no_speech = self._no_speech(hidden[every, sot])
        decodes = [
            self._running(owner, request, len(g), p)
            for (owner, request), g, p in zip(requests, given, no_speech, strict=True)
        ]
        of = [*range(len(requests)), *self._add_rows(decodes, requests, tokens.shape[1])]
        length = torch.tensor([len(given[i]) for i in of], device=self.device)
        joined = slice(first, len(self.rows))
        self._start(joined, [requests[i][1] for i in of], tokens[of], length)
        self._sample(hidden[of, length - 1], joined, sampling=self._sampling(first))
        self._search(decodes)
        self.longest = max(self.longest, tokens.shape[1] + 1)

    def _running(self, owner: Any, request: Decode, begin: int, no_speech_prob: float) -> Running:
        """A decode in the next free slot."""
        decode = Running(owner, request.temperature, begin, no_speech_prob)
        if request.beam_size is not None:
            decode.search = BeamSearch(request.beam_size, request.patience, self.tokenizer.eot)
        self._add_row(decode)
        return decode

    def _add_row(self, decode: Running) -> None:
        row = Row(decode, len(self.rows))
        self.rows.append(row)
        decode.rows.append(row)

    def _add_rows(
        self, decodes: Sequence[Running], requests: Sequence[tuple[Any, Decode]], length: int
    ) -> Iterator[int]:
        """Give decodes the rest of their rows, which begin as the first; yields whose each is."""
        for number, (decode, (_, request)) in enumerate(zip(decodes, requests, strict=True)):
            for _ in range(1, request.rows):
                self._add_row(decode)
                self.cache.move(decode.rows[0].slot, decode.rows[-1].slot, length)
                yield number

    def _start(self, joined: slice, requests: Sequence[Decode], tokens: Tensor, length: Tensor) -> None:
        """Write the state of rows that have sampled nothing yet; tokens: int64 [rows, width]."""
        state = self.state[joined]
        state.tokens[:, : tokens.shape[1]] = tokens
        state.length.copy_(length)
        state.begin.copy_(length)
        state.last_timestamp.fill_(-1)
        state.sum_logprob.zero_()
        state.margin.fill_(torch.inf)
        state.temperature.copy_(torch.tensor([r.temperature for r in requests]))
        state.done.fill_(False)
        samples: Counter[Decode] = Counter()
        for row, request in enumerate(requests):
            if request.temperature > 0:
                numbers = draws(request, self.sample_limit, samples[request])
                state.uniform[row] = torch.from_numpy(numbers)
                samples[request] += 1

    def align(self, aligner: Aligner, requests: Sequence[Align], features: Sequence[Tensor]) -> list[Aligned]:
        """When each token of texts was said; works in free slots: there must be room.

        Args:
            requests: at least one.
            features: the encoder's output for each, `dtype` [1500, n_state].
        """
        first = len(self.rows)
        self.decoder.fill_cross_cache(self.cache, first, features)
        given = [aligned_tokens(self.tokenizer, request) for request in requests]
        tokens = torch.from_numpy(padded(given, self.tokenizer.eot)).to(self.device)
        queries: list[Tensor] = []
        hidden = self.decoder.prefill(self.cache, first, tokens, queries)

        def align_row(row: int) -> Aligned:
            length = len(given[row])
            text = requests[row].tokens
            begin = length - len(text) - 2
            # What each token of the text is predicted from is the one before it.
            logits = self.decoder.logits(hidden[row, begin : length - 2])[:, : self.tokenizer.eot]
            return aligner(
                Text(text, begin, requests[row].frames // FRAMES_PER_TIMESTAMP),
                [layer[row, :, :length] for layer in queries],
                self.cache.cross_k[:, first + row].unbind(),
                logits,
            )

        if self.decoder.workers is None:
            return [align_row(row) for row in range(len(given))]
        return self.decoder.workers.map(align_row, range(len(given)))

    def step(self) -> list[tuple[Any, Decoded]]:
        """Sample the next tokens of all rows; the decodes that are done leave, with their owners."""
        sampling = self._sampling(0)
        for _ in range(self.steps_at_once):
            longest = min(self.longest, self.text_ctx)
            self.graphs.run(len(self.rows), self.slots, longest, self.text_ctx, sampling)
            self.longest += 1
        if self.candidates:
            self._search(list(dict.fromkeys(row.decode for row in self.rows)))
        return self._leave()

    def _search(self, decodes: Sequence[Running]) -> None:
        """Let beam searches choose among the best tokens of the latest step, and rearrange their rows.

        What the step itself has chosen for these rows is written over.
        """
        searches = [(decode.search, decode.rows) for decode in decodes if decode.search is not None]
        slots = [row.slot for _, rows in searches for row in rows]
        if not slots:
            return
        best = self.state.best[slots].tolist()
        logprobs = self.state.best_logprob[slots].tolist()
        sources: list[int] = []
        for search, rows in searches:
            of = slice(len(sources), len(sources) + len(rows))
            sources += [rows[beam].slot for beam in search.extend(best[of], logprobs[of])]
        self._rearrange(sources, slots)
        self._write([search for search, _ in searches], slots)

    def _write(self, searches: Sequence[BeamSearch], slots: list[int]) -> None:
        """Write down what searches have chosen; slots: of their beams, one search after the other."""
        texts = [text for search in searches for text, _ in search.beams]
        stamps = [[token for token in text if token >= self.tokenizer.timestamp_begin] for text in texts]
        is_over = [search.is_over for search in searches for _ in search.beams]
        state = self.state
        length = state.length[slots]
        state.tokens[slots, length - 1] = torch.tensor([text[-1] for text in texts], device=self.device)
        # They never decrease.
        state.last_timestamp[slots] = torch.tensor([max(s, default=-1) for s in stamps], device=self.device)
        too_long = (length > self.text_ctx) | (length - state.begin[slots] >= self.sample_limit)
        state.done[slots] = too_long | torch.tensor(is_over, device=self.device)

    def _rearrange(self, sources: list[int], targets: list[int]) -> None:
        """Let rows go on from others of the same decode."""
        moved = [
            (source, target) for source, target in zip(sources, targets, strict=True) if source != target
        ]
        if moved:
            sources, targets = map(list, zip(*moved, strict=True))
            self.state.tokens[targets] = self.state.tokens[sources]
            self.cache.rearrange(sources, targets, min(self.longest, self.text_ctx))

    def _sampling(self, first: int) -> bool:
        return any(row.decode.temperature > 0 for row in self.rows[first:])

    def _advance(self, count: int, longest: int, sampling: bool) -> None:
        """A decode step of the first `count` slots, shared by a CPU's threads. Never waits for a GPU."""
        workers = self.decoder.workers
        shares = 1 if workers is None else min(workers.threads, round(count / ROWS_FOR_A_THREAD))
        if workers is None or shares < 2:
            self._advance_rows(slice(0, count), longest, sampling)
            return
        ends = [count * i // shares for i in range(shares + 1)]
        workers.map(lambda rows: self._advance_rows(rows, longest, sampling), map(slice, ends, ends[1:]))

    def _advance_rows(self, rows: slice, longest: int, sampling: bool) -> None:
        # A row that is done stays where it is until it leaves; a slot that no row ever had is at -1.
        state = self.state[rows]
        position = (state.length - 1).clamp(0, self.text_ctx - 1)
        token = state.tokens.gather(1, position[:, None])[:, 0]
        hidden = self.decoder.step(self.cache, rows.start, token, position, longest)
        self._sample(hidden, rows, sampling=sampling)

    def _sample(self, hidden: Tensor, rows: slice, *, sampling: bool) -> None:
        """Choose a token for each of `rows` and write it down; hidden: float32 [rows, n_state]."""
        state = self.state[rows]
        sampled = state.length - state.begin

        def latest(back: int) -> Tensor:
            token = state.tokens.gather(1, (state.length - back).clamp(min=0)[:, None])[:, 0]
            return torch.where(sampled >= back, token, -1)

        temperature = None
        uniform = None
        if sampling:
            temperature = state.temperature
            uniform = state.uniform.gather(1, sampled.clamp(max=self.sample_limit - 1)[:, None])[:, 0]
        logits = self.decoder.logits(hidden)
        recent = latest(1), latest(2), state.last_timestamp
        if self.candidates:
            best = self.sampler.best(logits, *recent, self.candidates)
            state.best.copy_(best[0])
            state.best_logprob.copy_(best[1])
        chosen, logprob, margin = self.sampler.choose(
            logits, *recent, temperature, uniform, self.decoder.logit_factors(hidden)
        )
        state.sum_logprob.add_(torch.where(state.done, 0.0, logprob))
        if margin is not None:
            state.margin.copy_(torch.where(state.done, state.margin, state.margin.minimum(margin)))
        stamped = (chosen >= self.tokenizer.timestamp_begin) & ~state.done
        state.last_timestamp.copy_(torch.where(stamped, chosen, state.last_timestamp))
        place = state.length.clamp(max=self.text_ctx)[:, None]
        kept = state.tokens.gather(1, place)[:, 0]
        state.tokens.scatter_(1, place, torch.where(state.done, kept, chosen)[:, None])
        state.length.add_(~state.done)
        over = (state.length > self.text_ctx) | (state.length - state.begin >= self.sample_limit)
        state.done.logical_or_((chosen == self.tokenizer.eot) | over)

    def _leave(self) -> list[tuple[Any, Decoded]]:
        count = len(self.rows)
        done = self.state.done[:count].tolist()
        if not any(done):
            return []
        lengths = self.state.length[:count].tolist()
        sums = self.state.sum_logprob[:count].tolist()
        margins = self.state.margin[:count].tolist()
        # From the end, so that the row that fills a gap is never one that leaves too.
        leaving = [row for row in reversed(self.rows) if all(done[other.slot] for other in row.decode.rows)]
        decodes = dict.fromkeys(row.decode for row in leaving)
        finished = [(decode.owner, self._result(decode, lengths, sums, margins)) for decode in decodes]
        for row in leaving:
            self._close_gap(row.slot, lengths)
        self.longest = max(lengths[: len(self.rows)], default=0)
        return finished

    def _result(
        self, decode: Running, lengths: list[int], sums: list[float], margins: list[float]
    ) -> Decoded:
        """The best text of a decode; lengths, sums, margins: of each slot."""
        if decode.search is not None:
            results = decode.search.results()
        else:
            results = [self._text(row, lengths[row.slot], sums[row.slot]) for row in decode.rows]
        tokens, sum_logprob = best_of(results)
        return Decoded(
            tokens=tokens,
            text=self.tokenizer.decode(list(tokens)).strip(),
            avg_logprob=sum_logprob / (len(tokens) + 1),
            no_speech_prob=decode.no_speech_prob,
            temperature=decode.temperature,
            margin=min(margins[row.slot] for row in decode.rows),
        )

    def _text(self, row: Row, length: int, sum_logprob: float) -> tuple[tuple[int, ...], float]:
        tokens = self.state.tokens[row.slot, row.decode.begin : length].tolist()
        if tokens[-1] == self.tokenizer.eot:
            tokens.pop()
        return tuple(tokens), sum_logprob

    def _close_gap(self, slot: int, lengths: list[int]) -> None:
        """Move the last row to where another one was; `lengths` follows."""
        last = len(self.rows) - 1
        moved = self.rows.pop()
        if slot == last:
            return
        self.rows[slot] = moved
        moved.slot = slot
        lengths[slot] = lengths[last]
        self.cache.move(last, slot, min(lengths[last], self.text_ctx))
        self.state.move(last, slot)

    def _no_speech(self, hidden: Tensor) -> list[float]:
        """Probability of <|nospeech|> after <|startoftranscript|>; hidden: float32 [rows, n_state]."""
        if self.tokenizer.no_speech is None:
            return [float("nan")] * len(hidden)
        return self.decoder.logits(hidden).float().softmax(dim=1)[:, self.tokenizer.no_speech].tolist()


def initial_tokens(tokenizer: Tokenizer, request: Decode, text_ctx: int) -> list[int]:
    """`<|startofprev|>` and the end of the prompt, if there is one, then what starts a transcript."""
    sequence = start_sequence(tokenizer, request.language)
    if not request.prompt:
        return sequence
    return [tokenizer.sot_prev, *request.prompt[-(text_ctx // 2 - 1) :], *sequence]


def start_sequence(tokenizer: Tokenizer, language: str) -> list[int]:
    """What starts a transcript in a language; the task is the tokenizer's."""
    sequence = list(tokenizer.sot_sequence)
    if len(sequence) > 1:
        sequence[1] = tokenizer.to_language_token(language)
    return sequence


def aligned_tokens(tokenizer: Tokenizer, request: Align) -> list[int]:
    """A text as it is aligned: without timestamps and without the text before it."""
    start = start_sequence(tokenizer, request.language)
    return [*start, tokenizer.no_timestamps, *request.tokens, tokenizer.eot]


def padded(sequences: Sequence[Sequence[int]], padding: int) -> np.ndarray:
    """int64 [sequences, longest], padded at the end."""
    array = np.full((len(sequences), max(map(len, sequences))), padding)
    for row, sequence in zip(array, sequences, strict=True):
        row[: len(sequence)] = sequence
    return array
