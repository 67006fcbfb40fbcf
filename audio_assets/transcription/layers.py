"""The few operations that Whisper's Transformer is made of, each in the form that its device runs fastest.

On a CPU, matrix products go through oneDNN with weights laid out for it beforehand (the operators that
torch.compile uses when it freezes a model): PyTorch's own path takes MKL for float32, which leaves half of
an AMD processor idle, and lays bfloat16 weights out anew at every call. On a CUDA device, PyTorch's own
operators are the fast ones.

Numbers that accumulate (residual sums, layer norms, logits) stay float32 at every precision; `dtype` is that
of the factors of matrix products.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper.model import MultiHeadAttention, ResidualAttentionBlock

from audio_assets.transcription.kernels import attend_with_one_query, softmax_in_place, split_heads

# Scores of this many queries against all 1,500 keys stay in a core's cache until they are used.
QUERIES_AT_ONCE = 500


def has_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies this type here: it takes bfloat16 only where there is AVX-512."""
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def has_amx() -> bool:
    """Whether this processor has AMX, Intel's tiles for matrix products."""
    return torch.cpu._is_amx_tile_supported()


class Linear:
    """x [..., n_in] of `dtype` -> x @ weight.T + bias, [..., n_out] of `dtype`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, rows: int) -> None:
        """weight: [n_out, n_in]; bias: [n_out]; rows: about how many rows of x to lay the weight out for."""
        self.weight = weight.detach().to(dtype).contiguous()
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.packed = has_onednn(weight.device, dtype)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)

    def __call__(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        if self.packed:
            activation = ("gelu", [], "none") if gelu else ("none", [], "")
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *activation)
        x = F.linear(x, self.weight, self.bias)
        return F.gelu(x) if gelu else x


class LayerNorm:
    """float32 [..., n_state] -> `dtype` [..., n_state]."""

    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        self.weight = norm.weight.detach().float()
        self.bias = norm.bias.detach().float()
        self.eps = norm.eps
        self.dtype = dtype

    def __call__(self, x: Tensor) -> Tensor:
        return self.unrounded(x).to(self.dtype)

    def unrounded(self, x: Tensor) -> Tensor:
        """The same in float32."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class MLP:
    """float32 [..., n_state] -> `dtype` [..., n_state]: layer norm, four times as wide, GELU, back."""

    def __init__(self, block: ResidualAttentionBlock, dtype: torch.dtype, rows: int) -> None:
        self.norm = LayerNorm(block.mlp_ln, dtype)
        products = (m for m in block.mlp if isinstance(m, nn.Linear))
        self.wide, self.back = (Linear(m.weight, m.bias, dtype, rows) for m in products)

    def __call__(self, x: Tensor) -> Tensor:
        return self.back(self.wide(self.norm(x), gelu=True))


def fused_projection(attention: MultiHeadAttention, names: str, dtype: torch.dtype, rows: int) -> Linear:
    """One product in place of several; `names` are q, k and v in the order of the output's columns.

    The queries' columns are scaled by head_dim ** -0.5 beforehand, so that attention need not scale scores.
    """
    modules = {"q": attention.query, "k": attention.key, "v": attention.value}
    scale = (attention.query.weight.shape[0] // attention.n_head) ** -0.5
    weights = []
    biases = []
    for name in names:
        weight = modules[name].weight.detach().float()
        bias = modules[name].bias
        # Whisper's keys have no bias.
        bias = torch.zeros(len(weight), device=weight.device) if bias is None else bias.detach().float()
        factor = scale if name == "q" else 1.0
        weights.append(weight * factor)
        biases.append(bias * factor)
    return Linear(torch.cat(weights), torch.cat(biases), dtype, rows)


class SelfAttention:
    """Attention of each position of some windows to all positions of its window; queries come scaled.

    Threads may share the positions: each puts its own, and when all have, each attends from its own.
    """

    def __init__(
        self, batch: int, time: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.time = time
        self.heads = heads
        self.by_products = has_onednn(device, dtype) and not has_amx()

        def empty(*shape: int) -> Tensor:
            return torch.empty(batch, *shape, dtype=dtype, device=device)

        if self.by_products:
            self.q, self.k = (empty(heads, time, head_dim) for _ in range(2))
            self.v = empty(heads, head_dim, time)
        elif device.type == "cpu":
            self.qkv = empty(time, 3 * heads * head_dim)

    def put(self, qkv: Tensor, rows: slice) -> None:
        """qkv: queries, keys and values of positions `rows`, [batch, rows, 3 * heads * head_dim]."""
        if self.by_products:
            for i, window in enumerate(qkv):
                split_heads(window, self.q[i, :, rows], self.k[i, :, rows], self.v[i, :, :, rows])
        elif qkv.shape[1] == self.time:
            self.qkv = qkv
        else:
            self.qkv[:, rows] = qkv

    def attend(self, rows: slice) -> Tensor:
        """What positions `rows` get, [batch, rows, heads * head_dim], contiguous."""
        if self.by_products:
            queries = self.q[:, :, rows]
            batch, heads, count, head_dim = queries.shape
            out = queries.new_empty(batch, count, heads, head_dim)
            for window, head in itertools.product(range(batch), range(heads)):
                of_head = queries[window, head], self.k[window, head], self.v[window, head]
                _attend_by_products(*of_head, out[window, :, head])
            return out.flatten(2)
        q, k, v = self.qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q[:, :, rows], k, v, scale=1.0).transpose(1, 2).flatten(2)


def _attend_by_products(queries: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
    """Attention of one head: its keys serve as the weight of a linear layer, its values as that of another.

    oneDNN's products are twice as fast as those inside PyTorch's attention on processors without AMX. On
    those with it PyTorch's are as fast, and write no scores to memory.

    Args:
        queries: [queries, head_dim], scaled.
        keys: [time, head_dim].
        values: [head_dim, time].
        out: gets the result, [queries, head_dim].
    """
    product = torch.ops.mkldnn._linear_pointwise
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        some = slice(start, start + QUERIES_AT_ONCE)
        scores = product(queries[some], keys, None, "none", [], "")
        out[some] = product(softmax_in_place(scores), values, None, "none", [], "")


def attend_to_cache(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, length: Tensor | None = None
) -> Tensor:
    """Attention of a few queries to long caches; queries come scaled.

    Args:
        q: [batch, heads, queries, head_dim].
        k, v: [batch, heads, keys, head_dim], of the same type as q; on a CPU, where there is one query, with
            the keys' axis adjacent in memory.
        mask: what is added to the scores, [batch or 1, 1, queries, keys] of the same type; None for nothing.
        length: int64 [batch], how many of its keys a row attends to; only on a CPU, and only for one query.

    Returns:
        [batch, queries, heads * head_dim].
    """
    if q.device.type != "cpu":
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
        return attended.transpose(1, 2).flatten(2)
    if q.shape[2] == 1 and mask is None:
        length = torch.full((len(q),), k.shape[2]) if length is None else length
        return attend_with_one_query(q[:, :, 0].contiguous(), k, v, length)[:, None]
    out = torch.empty_like(q)
    # Row by row: the product of several rows at once may add up in another order than that of one, and a
    # transcript must not depend on what shares its batch.
    for row in range(len(q)):
        scores = q[row] @ k[row].mT
        if mask is not None:
            scores = scores + mask[row if len(mask) > 1 else 0]
        out[row] = scores.softmax(-1) @ v[row]
    return out.transpose(1, 2).flatten(2)
