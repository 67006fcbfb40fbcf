"""What a slot of the decode batch holds on the device: every tensor of it is declared here, and only here.

Row i of the batch lies in slot i of each tensor. When a row moves, all of it moves, because `move` goes over
these declarations. How the tensors are filled and read is the business of `decoder` and `batch`.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# The tensor grows along its keys while a row is decoded: what lies after the row's length is not read.
GROWS: dict[str, Any] = {"grows": True}


@dataclass(frozen=True, eq=False)
class KVCache:
    """Keys and values that the decoder attends to, `dtype` [layers, slots, heads, keys, head_dim].

    Those of self-attention grow by one with each token, up to n_text_ctx; those of cross-attention are
    computed once for a window, 1500 of them. On a CPU the keys' axis is adjacent in memory, as `kernels`
    reads it.
    """

    self_k: Tensor = field(metadata=GROWS)
    self_v: Tensor = field(metadata=GROWS)
    cross_k: Tensor
    cross_v: Tensor

    @classmethod
    def zeros(
        cls,
        *,
        layers: int,
        slots: int,
        heads: int,
        text_ctx: int,
        audio_ctx: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "KVCache":
        """Zeroed: a masked position has weight 0, and 0 times whatever memory holds could be NaN."""

        def zeros(keys: int) -> Tensor:
            if device.type == "cpu":
                return torch.zeros(layers, slots, heads, head_dim, keys, dtype=dtype, device=device).mT
            return torch.zeros(layers, slots, heads, keys, head_dim, dtype=dtype, device=device)

        return cls(zeros(text_ctx), zeros(text_ctx), zeros(audio_ctx), zeros(audio_ctx))

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot with `length` tokens over another one."""
        for declared in dataclasses.fields(self):
            cache: Tensor = getattr(self, declared.name)
            valid = slice(length) if declared.metadata.get("grows") else slice(None)
            cache[:, target, :, valid] = cache[:, source, :, valid]

    def rearrange(self, sources: list[int], targets: list[int], length: int) -> None:
        """Copy what slots of the same window hold of their `length` tokens over other ones, all at once."""
        for declared in dataclasses.fields(self):
            if declared.metadata.get("grows"):
                cache: Tensor = getattr(self, declared.name)
                cache[:, targets, :, :length] = cache[:, sources, :, :length]


@dataclass(frozen=True, eq=False)
class DecodeState:
    """How far each row's decode has come.

    Attributes:
        tokens: int64 [slots, n_text_ctx + 1], given and sampled tokens.
        length: int64 [slots], how many of them there are.
        begin: int64 [slots], how many of them were given.
        last_timestamp: int64 [slots], the latest sampled timestamp token; -1 where there is none yet.
        sum_logprob: float32 [slots], sum of the sampled tokens' log-probabilities.
        temperature: float32 [slots].
        uniform: float64 [slots, n_text_ctx / 2] in [0, 1), which pick the tokens above temperature 0.
        margin: float32 [slots], the least of the sampled tokens' margins, as `Sampler.choose` gives them;
            infinity where it gives none.
        done: bool [slots], whether the row's text has ended.
        best: int64 [slots, candidates], the most probable tokens of the latest step, for a beam search.
        best_logprob: float32 [slots, candidates].
    """

    tokens: Tensor
    length: Tensor
    begin: Tensor
    last_timestamp: Tensor
    sum_logprob: Tensor
    temperature: Tensor
    uniform: Tensor
    margin: Tensor
    done: Tensor
    best: Tensor
    best_logprob: Tensor

    @classmethod
    def zeros(cls, *, slots: int, text_ctx: int, device: torch.device, candidates: int = 0) -> "DecodeState":
        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        return cls(
            tokens=zeros(text_ctx + 1),
            length=zeros(),
            begin=zeros(),
            last_timestamp=zeros(),
            sum_logprob=zeros(dtype=torch.float32),
            temperature=zeros(dtype=torch.float32),
            uniform=zeros(text_ctx // 2, dtype=torch.float64),
            margin=zeros(dtype=torch.float32),
            done=zeros(dtype=torch.bool),
            best=zeros(candidates),
            best_logprob=zeros(candidates, dtype=torch.float32),
        )

    def __getitem__(self, slots: slice) -> "DecodeState":
        """Some slots, as views: what is written to them is written here."""
        return DecodeState(*(getattr(self, declared.name)[slots] for declared in dataclasses.fields(self)))

    def move(self, source: int, target: int) -> None:
        """Copy a slot over another one."""
        for declared in dataclasses.fields(self):
            state: Tensor = getattr(self, declared.name)
            state[target] = state[source]
