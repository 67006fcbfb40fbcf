"""Whisper's audio encoder (Radford et al. 2022, section 2.2), from the weights of a stock model."""

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper.model import AudioEncoder, ResidualAttentionBlock

from audio_assets.transcription.layers import MLP, LayerNorm, Linear, SelfAttention, fused_projection
from audio_assets.transcription.workers import Workers

ROWS = 1500  # What a window has; weights are laid out for it.


class Encoder:
    """Log-mel windows to audio features; the arithmetic of `whisper.model.AudioEncoder`."""

    def __init__(self, stock: AudioEncoder, dtype: torch.dtype, workers: Workers | None = None) -> None:
        """workers: what a CPU encodes windows with; None to encode a batch as a whole."""
        self.dtype = dtype
        self.conv1 = Convolution(stock.conv1, dtype)
        self.conv2 = Convolution(stock.conv2, dtype)
        self.positions = stock.get_buffer("positional_embedding").float()
        self.blocks = [EncoderBlock(block, dtype) for block in stock.blocks]
        self.norm = LayerNorm(stock.ln_post, dtype)

        self.workers = workers

    def __call__(self, mels: Sequence[Tensor]) -> Sequence[Tensor]:
        """float32 [n_mels, 3000] each -> `dtype` [1500, n_state] each."""
        if self.workers is None:
            return self.encode(torch.stack(list(mels))).unbind()
        # Where a thread to each window leaves most threads idle at the end, all of them share a window.
        threads = self.workers.threads
        left = len(mels) % threads
        alone = len(mels) if left > threads // 2 else len(mels) - left
        encoded = self.workers.map(lambda mel: self.encode(mel[None])[0], mels[:alone])
        return encoded + [self._encode_by_all(mel[None])[0] for mel in mels[alone:]]

    def encode(self, mel: Tensor) -> Tensor:
        """float32 [batch, n_mels, 3000] -> `dtype` [batch, 1500, n_state]."""
        return self._encode(mel, lambda work: work(slice(0, ROWS)))

    def _encode_by_all(self, mel: Tensor) -> Tensor:
        """As `encode`, with a share of the positions for each thread."""
        workers = self.workers
        assert workers is not None
        ends = [ROWS * i // workers.threads for i in range(workers.threads + 1)]
        shares = [slice(*share) for share in itertools.pairwise(ends)]
        return self._encode(mel, lambda work: workers.map(work, shares))

    def _encode(self, mel: Tensor, for_all: Callable[[Callable[[slice], None]], object]) -> Tensor:
        """for_all: does work for all positions, which it may share out."""
        x = mel.transpose(1, 2).to(self.dtype)
        x = self.conv2(self.conv1(x)) + self.positions
        batch, time, width = x.shape
        heads = self.blocks[0].heads
        attention = SelfAttention(batch, time, heads, width // heads, self.dtype, x.device)
        for block in self.blocks:
            for_all(lambda rows, block=block: block.project(x, attention, rows))
            for_all(lambda rows, block=block: block.attend_and_mlp(x, attention, rows))
        return self.norm(x)


class Convolution:
    """A convolution of width 3 over time with padding 1, then GELU.

    [batch, time, n_in] -> [batch, time / stride, n_out], both of `dtype`. Written as a product, with
    each step's three neighbours side by side.
    """

    def __init__(self, stock: nn.Conv1d, dtype: torch.dtype) -> None:
        self.stride = stock.stride[0]
        self.linear = Linear(stock.weight.permute(0, 2, 1).flatten(1), stock.bias, dtype, ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 1, 1))
        batch, _, width = x.shape
        steps = (x.shape[1] - 3) // self.stride + 1
        neighbours = x.as_strided((batch, steps, 3 * width), (x.stride(0), self.stride * width, 1))
        return self.linear(neighbours.contiguous(), gelu=True)


class EncoderBlock:
    """Self-attention and MLP, each added to the residual sum in place.

    All positions are projected before any of them attends; x: float32 [batch, time, n_state].
    """

    def __init__(self, stock: ResidualAttentionBlock, dtype: torch.dtype) -> None:
        self.heads = stock.attn.n_head
        self.norm = LayerNorm(stock.attn_ln, dtype)
        self.qkv = fused_projection(stock.attn, "qkv", dtype, ROWS)
        self.out = Linear(stock.attn.out.weight, stock.attn.out.bias, dtype, ROWS)
        self.mlp = MLP(stock, dtype, ROWS)

    def project(self, x: Tensor, attention: SelfAttention, rows: slice) -> None:
        """Queries, keys and values of positions `rows`."""
        attention.put(self.qkv(self.norm(x[:, rows])), rows)

    def attend_and_mlp(self, x: Tensor, attention: SelfAttention, rows: slice) -> None:
        """What follows for positions `rows`, which are changed in place."""
        x = x[:, rows]
        x += self.out(attention.attend(rows))
        x += self.mlp(x)
