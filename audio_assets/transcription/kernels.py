"""Attention of single queries to long caches on a CPU, compiled by numba, which openai-whisper depends on.

A decoder's step attends with one query a row to thousands of cached keys and values: it does next to no
arithmetic for each byte, so it is as fast as it reads memory. PyTorch's products reach about half of the
bandwidth here. This kernel walks through each cache once, from its first byte to its last.
"""

import numba
import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

# Sums may be taken in any order, which lets them be taken several at a time; no number here is NaN.
ANY_ORDER = {"contract", "reassoc", "nnan", "nsz"}
# Maxima are taken in this many columns, for the same reason.
COLUMNS = 64


def attend_with_one_query(q: Tensor, k: Tensor, v: Tensor, length: Tensor) -> Tensor:
    """Attention of one query of each row to the first keys and values of its cache; queries come scaled.

    Args:
        q: [rows, heads, head_dim], float32 or bfloat16.
        k, v: [rows, heads, keys, head_dim] of the same type, with the keys' axis adjacent in memory.
        length: int64 [rows], how many of its keys a row attends to, at least 1.

    Returns:
        [rows, heads * head_dim] of the same type; sums are float32.
    """
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    _attend(_array(q), _array(k.mT), _array(v.mT), length.numpy(), _array(out))
    return out.flatten(1)


def _array(x: Tensor) -> np.ndarray:
    """The same memory as a NumPy array, which has no bfloat16: its upper halves of float32 as uint16."""
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


def _wide(x):
    """To float32."""
    raise NotImplementedError


def _narrow(x, like):
    """From float32 to the type of `like`, to the nearest, ties to even."""
    raise NotImplementedError


@overload(_wide, inline="always")
def _compiled_wide(x):
    if x == types.float32:
        return lambda x: x
    return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)


@overload(_narrow, inline="always")
def _compiled_narrow(x, like):
    if like == types.float32:
        return lambda x, like: x

    def narrow(x, like):
        bits = np.float32(x).view(np.uint32)
        half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16(np.uint32(bits + half) >> np.uint32(16))

    return narrow


@numba.njit(fastmath={"contract"}, inline="always")
def _exp(x):
    """e ** x for x <= 0, within one part in 10 million; below -87, that of -87.

    The method and coefficients of `expf` in Cephes (S. L. Moshier, www.netlib.org/cephes): x = n ln 2 + r
    with ln 2 in two parts, a polynomial in r, and n added to the exponent's bits.
    """
    x = max(x, np.float32(-87.0))
    n = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) - n * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * (r * r) + r + np.float32(1)
    return p * np.uint32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@numba.njit(fastmath=ANY_ORDER)
def _exponentials(scores, n, highest):
    """Replace scores[:n] by e ** (score - the highest one); gives their sum. highest: float32 [COLUMNS]."""
    whole = n // COLUMNS * COLUMNS
    highest[:] = scores[0]
    for j in range(0, whole, COLUMNS):
        for column in range(COLUMNS):
            highest[column] = max(highest[column], scores[j + column])
    top = highest[0]
    for column in range(COLUMNS):
        top = max(top, highest[column])
    for j in range(whole, n):
        top = max(top, scores[j])
    total = np.float32(0)
    for j in range(n):
        e = _exp(scores[j] - top)
        scores[j] = e
        total += e
    return total


@numba.njit(fastmath=ANY_ORDER, nogil=True, cache=True)
def _attend(q, k, v, length, out):
    """As `attend_with_one_query`, with k and v [rows, heads, head_dim, keys]; writes `out`."""
    rows, heads, head_dim = q.shape
    scores = np.empty(k.shape[3], np.float32)
    highest = np.empty(COLUMNS, np.float32)
    for row in range(rows):
        n = length[row]
        for head in range(heads):
            scores[:n] = 0
            for i in range(head_dim):
                query = _wide(q[row, head, i])
                for j in range(n):
                    scores[j] += query * _wide(k[row, head, i, j])
            scale = np.float32(1) / _exponentials(scores, n, highest)
            for i in range(head_dim):
                total = np.float32(0)
                for j in range(n):
                    total += scores[j] * _wide(v[row, head, i, j])
                out[row, head, i] = _narrow(np.float32(total * scale), out[row, head, i])
