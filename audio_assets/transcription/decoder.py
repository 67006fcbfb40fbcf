"""Whisper's text decoder (Radford et al. 2022, section 2.2) over a KV cache that is laid out once.

A *slot* of the cache holds the keys and values of one row of the batch: those of cross-attention, computed
once for a window, and those of self-attention so far. Active rows lie in slots 0 to n - 1 without a gap, so a
decode step reads contiguous memory. Rows may be at different positions.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from whisper.model import ResidualAttentionBlock, TextDecoder

from audio_assets.transcription.kv_cache import KVCache
from audio_assets.transcription.layers import MLP, LayerNorm, Linear, attend_to_cache, fused_projection
from audio_assets.transcription.workers import Workers


class Decoder:
    """Tokens and the KV cache to logits; the arithmetic of `whisper.model.TextDecoder`."""

    def __init__(
        self, stock: TextDecoder, dtype: torch.dtype, rows: int, workers: Workers | None = None
    ) -> None:
        """rows: how many rows a step has at most; workers: what a CPU prepares windows with."""
        self.dtype = dtype
        self.workers = workers
        self.embedding = stock.token_embedding.weight.detach().float()
        self.positions = stock.positional_embedding.detach().float()
        self.blocks = [DecoderBlock(block, dtype, rows) for block in stock.blocks]
        self.heads = self.blocks[0].heads
        self.norm = LayerNorm(stock.ln, dtype)
        self.vocabulary = Linear(stock.token_embedding.weight, None, dtype, rows)

    @property
    def head_dim(self) -> int:
        return self.embedding.shape[1] // self.heads

    def new_cache(self, slots: int, audio_ctx: int) -> KVCache:
        return KVCache.zeros(
            layers=len(self.blocks),
            slots=slots,
            heads=self.heads,
            text_ctx=len(self.positions),
            audio_ctx=audio_ctx,
            head_dim=self.head_dim,
            dtype=self.dtype,
            device=self.embedding.device,
        )

    def slot_bytes(self, audio_ctx: int) -> int:
        """Bytes that one slot of the KV cache takes."""
        item = torch.empty(0, dtype=self.dtype).element_size()
        return 2 * len(self.blocks) * self.embedding.shape[1] * (len(self.positions) + audio_ctx) * item

    def fill_cross_cache(self, cache: KVCache, first: int, features: Sequence[Tensor]) -> None:
        """Compute the cross-attention keys and values of windows for the slots from `first` on.

        features: `dtype` [1500, n_state] each.
        """
        # A thread takes a layer of a window, so that a single window keeps several of them busy.
        of = itertools.product(enumerate(features, first), range(len(self.blocks)))
        places = [(layer, slot, f) for (slot, f), layer in of]
        if self.workers is not None:
            self.workers.map(lambda place: self._fill_cross_layer(cache, *place), places)
            return
        for place in places:
            self._fill_cross_layer(cache, *place)

    def _fill_cross_layer(self, cache: KVCache, layer: int, slot: int, features: Tensor) -> None:
        kv = self.blocks[layer].cross_kv(features)
        if kv.device.type == "cpu":
            # The cache's order there. Laid out as a whole, it is copied in several times faster.
            kv = kv.t().contiguous().t()
        # [1500, 2, heads, head_dim] -> 2 x [heads, 1500, head_dim]
        k, v = kv.view(len(features), 2, self.heads, -1).permute(1, 2, 0, 3)
        cache.cross_k[layer, slot].copy_(k)
        cache.cross_v[layer, slot].copy_(v)

    def prefill(
        self, cache: KVCache, first: int, tokens: Tensor, queries: list[Tensor] | None = None
    ) -> Tensor:
        """Run the initial tokens of the rows in slots first to first + rows - 1 through the decoder.

        Args:
            tokens: int64 [rows, length], padded at the end. Padding is masked from the tokens before it, and
                its entries in the cache are overwritten before they are read.
            queries: gets those of each layer's cross-attention, `dtype` [rows, heads, length, head_dim],
                scaled.

        Returns:
            Hidden states, float32 [rows, length, n_state].
        """
        rows, length = tokens.shape
        slots = slice(first, first + rows)
        x = self.embedding[tokens] + self.positions[:length]
        future = torch.full((length, length), -torch.inf, dtype=self.dtype, device=x.device).triu(1)
        for layer, block in enumerate(self.blocks):
            q, k, v = block.self_qkv(x)
            cache.self_k[layer, slots, :, :length] = k
            cache.self_v[layer, slots, :, :length] = v
            x += block.out(attend_to_cache(q, k, v, future[None, None]))
            q = block.cross_attend_and_mlp(x, cache.cross_k[layer, slots], cache.cross_v[layer, slots])
            if queries is not None:
                queries.append(q)
        return x

    def step(self, cache: KVCache, first: int, tokens: Tensor, positions: Tensor, longest: int) -> Tensor:
        """Run one more token of each row in slots first to first + rows - 1 through the decoder.

        Args:
            tokens, positions: int64 [rows].
            longest: an upper bound of all positions + 1.

        Returns:
            Hidden states, float32 [rows, n_state].
        """
        slots = slice(first, first + len(tokens))
        every = torch.arange(len(tokens), device=tokens.device)
        x = (self.embedding[tokens] + self.positions[positions])[:, None]
        mask = None
        length = None
        if x.device.type == "cpu":
            keys = slice(None)
            length = positions + 1
        else:
            keys = slice(longest)
            seen = torch.arange(longest, device=x.device) <= positions[:, None]
            mask = torch.zeros(seen.shape, dtype=self.dtype, device=x.device).masked_fill(~seen, -torch.inf)
            mask = mask[:, None, None]
        for layer, block in enumerate(self.blocks):
            q, k, v = block.self_qkv(x)
            own_k = cache.self_k[layer, slots]
            own_v = cache.self_v[layer, slots]
            own_k[every, :, positions] = k[:, :, 0]
            own_v[every, :, positions] = v[:, :, 0]
            x += block.out(attend_to_cache(q, own_k[:, :, keys], own_v[:, :, keys], mask, length))
            block.cross_attend_and_mlp(x, cache.cross_k[layer, slots], cache.cross_v[layer, slots])
        return x[:, 0]

    def first_token(self, features: Sequence[Tensor], token: int) -> Tensor:
        """Run one token alone through the decoder, for each of several windows; the cache stays as it is.

        A single query needs no keys and values of 1,500 positions. Their projections are applied to the query
        and to the features that it has mixed (DeepSeek-V2, https://arxiv.org/abs/2405.04434, section 2.1.2).

        Args:
            features: `dtype` [1500, n_state] each.
            token: such as `<|startoftranscript|>`.

        Returns:
            Hidden states, float32 [windows, n_state].
        """
        if self.workers is not None:
            return torch.cat(self.workers.map(lambda f: self._first_token(f[None], token), features))
        return self._first_token(torch.stack(list(features)), token)

    def _first_token(self, features: Tensor, token: int) -> Tensor:
        x = (self.embedding[token] + self.positions[0]).repeat(len(features), 1, 1)
        for block in self.blocks:
            # Attention to itself alone gives its own value.
            x += block.out(block.self_qkv(x)[2].flatten(1)[:, None])
            block.cross_attend_once_and_mlp(x, features)
        return x[:, 0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states, float32 [rows, n_state] -> `dtype` [rows, n_vocab].

        On a CUDA device float32 in place of bfloat16, whose eight bits leave tokens at the same logit.
        """
        x = self.norm(hidden)
        if self.dtype == torch.bfloat16 and x.device.type == "cuda":
            return torch.mm(x, self.vocabulary.weight.mT, out_dtype=torch.float32)
        return self.vocabulary(x)

    def logit_factors(self, hidden: Tensor) -> tuple[Tensor, Tensor] | None:
        """Whose product a CPU's bfloat16 logits are, float32 [rows, n_state] and [n_vocab, n_state].

        None where the logits are good enough to choose by.
        """
        if self.dtype == torch.bfloat16 and hidden.device.type == "cpu":
            return self.norm.unrounded(hidden), self.embedding
        return None


class DecoderBlock:
    """Self-attention, cross-attention and MLP, each added to the residual sum in place."""

    def __init__(self, stock: ResidualAttentionBlock, dtype: torch.dtype, rows: int) -> None:
        self.heads = stock.attn.n_head
        self.norm = LayerNorm(stock.attn_ln, dtype)
        self.qkv = fused_projection(stock.attn, "qkv", dtype, rows)
        self.out = Linear(stock.attn.out.weight, stock.attn.out.bias, dtype, rows)
        cross = stock.cross_attn
        cross_norm = stock.cross_attn_ln
        # The encoder's blocks, which are of the same class, have none.
        assert cross is not None
        assert cross_norm is not None
        self.cross_norm = LayerNorm(cross_norm, dtype)
        self.cross_q = fused_projection(cross, "q", dtype, rows)
        self.cross_kv = fused_projection(cross, "kv", dtype, 1500)
        # [heads, head_dim, n_state], for a single query.
        self.cross_k_weight = cross.key.weight.detach().to(dtype).view(self.heads, -1, cross.key.in_features)
        self.cross_v_weight = cross.value.weight.detach().to(dtype).view_as(self.cross_k_weight)
        self.cross_v_bias = cross.value.bias.detach().to(dtype)
        self.cross_out = Linear(cross.out.weight, cross.out.bias, dtype, rows)
        self.mlp = MLP(stock, dtype, rows)

    def self_qkv(self, x: Tensor) -> Tensor:
        """float32 [rows, length, n_state] -> `dtype` 3 x [rows, heads, length, head_dim]."""
        rows, length, _ = x.shape
        return self.qkv(self.norm(x)).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)

    def cross_attend_and_mlp(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What follows self-attention; x: float32 [rows, length, n_state], changed in place.

        Returns:
            The queries of cross-attention, `dtype` [rows, heads, length, head_dim].
        """
        rows, length, _ = x.shape
        q = self.cross_q(self.cross_norm(x)).view(rows, length, self.heads, -1).transpose(1, 2)
        x += self.cross_out(attend_to_cache(q, k, v))
        x += self.mlp(x)
        return q

    def cross_attend_once_and_mlp(self, x: Tensor, features: Tensor) -> None:
        """As `cross_attend_and_mlp` for one query a row, without keys and values.

        Args:
            x: float32 [rows, 1, n_state], changed in place.
            features: `dtype` [rows, 1500, n_state].
        """
        q = self.cross_q(self.cross_norm(x)).view(len(x), self.heads, 1, -1)
        scores = (q @ self.cross_k_weight)[:, :, 0] @ features.mT
        weights = scores.float().softmax(dim=-1).to(features.dtype)
        mixed = (weights @ features)[:, :, None]
        heads = (mixed @ self.cross_v_weight.mT).flatten(1) + self.cross_v_bias
        x += self.cross_out(heads[:, None])
        x += self.mlp(x)
