"""Loops on a CPU, most of them over long rows, compiled by numba, which openai-whisper depends on.

Attention of single queries to long caches: a decoder's step attends with one query a row to thousands of
cached keys and values. That is next to no arithmetic for each byte, so it is as fast as it reads memory;
PyTorch's products reach about half of that. This kernel reads each cache once, from end to end.

The best token and the summed probability of a stretch of the vocabulary: PyTorch reads the stretch once for
each of the conversion, the maximum, the difference, the exponential and the sum. The best tokens, for a beam
search: PyTorch sorts all of them.

Softmax of the encoder's scores: PyTorch's takes twice as long for bfloat16.

Queries, keys and values of the encoder, laid out for its products: PyTorch lays out one matrix at a time.

Dynamic time warping: each step needs the one before it.
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
# This many columns of a matrix are transposed at a time: what is read of it then stays in a core's cache.
BLOCK = 32
LOWEST = np.float32(-np.inf)
# How far below the highest of some bfloat16 numbers one may lie that is higher before rounding, as a share of
# the highest: two spacings of the numbers' eight bits, as the factors are rounded too.
IN_QUESTION = np.float32(2 * 2.0**-7)
# Half of what the last bit of a bfloat16 stands for, in the bits of a float32.
HALF = np.uint32(0x8000)
# A float32 of this size has no bits for a fraction: what is added to it becomes the nearest integer.
TO_INTEGER = np.float32(1.5 * 2.0**23)


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


def softmax_in_place(scores: Tensor) -> Tensor:
    """Softmax of each row, within one part in 10 million before it is rounded (bfloat16: one in 13,000).

    Args:
        scores: [rows, n], float32 or bfloat16, contiguous, n >= 1, none of them NaN; written over.
    """
    bits = scores.view(torch.int16 if scores.dtype == torch.bfloat16 else torch.int32)
    _softmax(_array(scores), bits.numpy())
    return scores


def split_heads(qkv: Tensor, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Lay out queries, keys and transposed values by heads, from the product that gives all of them.

    Args:
        qkv: [time, 3 * heads * head_dim], float32 or bfloat16, contiguous.
        q, k: get theirs, [heads, time, head_dim].
        v: gets its own, [heads, head_dim, time].
    """
    heads, time, head_dim = q.shape
    _split_heads(_array(qkv.view(time, 3, heads, head_dim)), _array(q), _array(k), _array(v))


def best_and_sum(
    logits: Tensor,
    begin: Tensor,
    end: Tensor,
    factors: tuple[Tensor, Tensor] | None = None,
    runner_up: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """For some stretches of each row: the highest logit, where it is, and the log of the sum of exponentials.

    Args:
        logits: [rows, n_vocab], float32 or bfloat16, contiguous.
        begin, end: int64 [rows, stretches]; a stretch may be empty.
        factors: whose product the logits are, float32 [rows, n_state] and [n_vocab, n_state]. The logits that
            may be the highest but for the rounding of bfloat16 are then computed anew from them.
        runner_up: gets the second-highest logits, float32 [rows, stretches]; left as it is where there is
            none.

    Returns:
        float32, int64 and float32 [rows, stretches]; -inf, `begin`, -inf where nothing is above -inf.
    """
    best, total = (torch.empty(begin.shape) for _ in range(2))
    token = torch.empty_like(begin)
    row, column = (np.empty((0, 0), np.float32),) * 2 if factors is None else [f.numpy() for f in factors]
    given = _array(logits), begin.numpy(), end.numpy(), row, column
    second = np.empty((0, 0), np.float32) if runner_up is None else runner_up.numpy()
    _best_and_sum(*given, best.numpy(), token.numpy(), total.numpy(), second)
    return best, token, total


def highest(logits: Tensor, begin: Tensor, end: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest logits of some stretches of each row together, the highest first, and where they are.

    Args:
        logits: [rows, n_vocab], float32 or bfloat16, contiguous.
        begin, end: int64 [rows, stretches]; a stretch may be empty.
        count: how many.

    Returns:
        float32 and int64 [rows, count]. Where there are fewer above -inf, the rest is -inf, at the places
        0, 1 and so on.
    """
    best = torch.full((len(logits), count), -torch.inf)
    token = torch.arange(count).repeat(len(logits), 1)
    _most(_array(logits), begin.numpy(), end.numpy(), best.numpy(), token.numpy())
    return best, token


def warp(costs: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest path from the first corner of a matrix to the last, by dynamic time warping.

    The steps, and which of equal ones is taken, are those of `whisper.timing.dtw_cpu`: down and right at once
    if that is cheaper than both others, down if that is, else right. So are the answers for a matrix of NaN,
    and for one without columns: the path leaves the matrix, at row or column -1.

    Args:
        costs: float32 [rows, columns], contiguous.

    Returns:
        Rows and columns of the path, int64 each.
    """
    path = _warp(costs.numpy())
    return path[:, 0], path[:, 1]


def _array(x: Tensor) -> np.ndarray:
    """The same memory as a NumPy array, which has no bfloat16: its upper halves of float32 as uint16."""
    return x.view(torch.uint16).numpy() if x.dtype == torch.bfloat16 else x.numpy()


# Names for compiled code alone, which takes the form for its types from what is registered below.
def _wide(x):
    """To float32."""
    raise NotImplementedError


def _narrow(x, like):
    """From float32 to the type of `like`, to the nearest, ties away from zero."""
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

    return lambda x, like: np.uint16(np.uint32(np.float32(x).view(np.uint32) + HALF) >> np.uint32(16))


# Names for compiled code alone, as above: the integers that are in the order of the floats of the same bits,
# and back from one of them to its float.
def _in_order(bits):
    raise NotImplementedError


def _from_order(bits):
    raise NotImplementedError


@overload(_in_order, inline="always")
def _compiled_in_order(bits):
    if bits == types.int16:
        return lambda bits: np.int16(bits ^ ((bits >> np.int16(15)) & np.int16(0x7FFF)))
    return lambda bits: np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@overload(_from_order, inline="always")
def _compiled_from_order(bits):
    if bits == types.int16:
        return lambda bits: _wide(np.uint16(_in_order(bits)))
    return lambda bits: _in_order(bits).view(np.float32)


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


@numba.njit(fastmath={"contract"}, inline="always")
def _exp_short(x):
    """e ** x for x <= 0, within one part in 13,000; below -87, that of -87. No caller may add in any order.

    x log2 e = n + f, the polynomial of degree 3 whose largest relative error for 2 ** f is the least, and n
    added to the exponent's bits. A sum with TO_INTEGER has n in its last bits.
    """
    x = max(x * np.float32(1.44269504), np.float32(-126.0))
    shifted = np.float32(x + TO_INTEGER)
    f = x - (shifted - TO_INTEGER)
    p = np.float32(0.05517101) * f + np.float32(0.2426112)
    p = p * f + np.float32(0.69326108)
    p = np.float32(p * f + np.float32(0.99992807))
    return np.uint32(p.view(np.uint32) + (shifted.view(np.uint32) << np.uint32(23))).view(np.float32)


@numba.njit(fastmath=ANY_ORDER)
def _highest(values, n, highest):
    """The highest of values[:n], n >= 1. highest: float32 [COLUMNS] to work with."""
    whole = n // COLUMNS * COLUMNS
    highest[:] = values[0]
    for j in range(0, whole, COLUMNS):
        for column in range(COLUMNS):
            highest[column] = max(highest[column], values[j + column])
    top = highest[0]
    for column in range(COLUMNS):
        top = max(top, highest[column])
    for j in range(whole, n):
        top = max(top, values[j])
    return top


@numba.njit(fastmath=ANY_ORDER)
def _exponentials(values, n, top):
    """Replace values[:n] by e ** (value - top); gives their sum."""
    total = np.float32(0)
    for j in range(n):
        e = _exp(values[j] - top)
        values[j] = e
        total += e
    return total


@numba.njit(fastmath=ANY_ORDER)
def _sum(values, n):
    """Of values[:n]."""
    total = np.float32(0)
    for j in range(n):
        total += values[j]
    return total


def _exp_for(x, like):
    """As exact as a number of the type of `like` can be."""
    raise NotImplementedError


@overload(_exp_for, inline="always")
def _compiled_exp_for(x, like):
    if like == types.float32:
        return lambda x, like: _exp(x)
    return lambda x, like: _exp_short(x)


@numba.njit(fastmath={"contract"}, nogil=True, cache=True)
def _softmax(scores, bits):
    """As `softmax_in_place`; bits: of the scores, as integers with a sign."""
    rows, n = scores.shape
    values = np.empty(n, np.float32)
    for row in range(rows):
        # Of floats, LLVM finds the highest one at a time, and of integers many.
        highest = _in_order(bits[row, 0])
        for j in range(n):
            highest = max(highest, _in_order(bits[row, j]))
        top = _from_order(highest)
        for j in range(n):
            values[j] = _exp_for(_wide(scores[row, j]) - top, scores[row, j])
        scale = np.float32(1) / _sum(values, n)
        for j in range(n):
            scores[row, j] = _narrow(np.float32(values[j] * scale), scores[row, j])


@numba.njit(nogil=True, cache=True)
def _split_heads(qkv, q, k, v):
    """As `split_heads`, with qkv [time, 3, heads, head_dim]; writes `q`, `k` and `v`."""
    time, _, heads, head_dim = qkv.shape
    for t in range(time):
        for head in range(heads):
            for i in range(head_dim):
                q[head, t, i] = qkv[t, 0, head, i]
            for i in range(head_dim):
                k[head, t, i] = qkv[t, 1, head, i]
    for head in range(heads):
        for first in range(0, time, BLOCK):
            for i in range(head_dim):
                for t in range(first, min(first + BLOCK, time)):
                    v[head, i, t] = qkv[t, 2, head, i]


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
            scale = np.float32(1) / _exponentials(scores, n, _highest(scores, n, highest))
            for i in range(head_dim):
                total = np.float32(0)
                for j in range(n):
                    total += scores[j] * _wide(v[row, head, i, j])
                out[row, head, i] = _narrow(np.float32(total * scale), out[row, head, i])


@numba.njit(fastmath=ANY_ORDER)
def _compute_anew(values, n, top, first, row, columns):
    """Replace those of values[:n] that may be the highest by row @ columns[first + j]; gives the highest."""
    least = top - IN_QUESTION * abs(top)
    top = LOWEST
    for j in range(n):
        if values[j] >= least:
            total = np.float32(0)
            for i in range(len(row)):
                total += row[i] * columns[first + j, i]
            values[j] = total
            top = max(top, total)
    return top


@numba.njit
def _place_of(values, n, value):
    """Where a number that is in values[:n] is first."""
    for j in range(n):
        if values[j] == value:
            return j
    return 0


@numba.njit(fastmath=ANY_ORDER, nogil=True, cache=True)
def _best_and_sum(logits, begin, end, rows_of, columns, best, token, total, runner_up):
    """As `best_and_sum`, with `rows_of` and `columns` for `factors`; writes `best`, `token` and `total`, and
    `runner_up` if that has rows."""
    rows, stretches = begin.shape
    values = np.empty(logits.shape[1], np.float32)
    highest = np.empty(COLUMNS, np.float32)
    for row in range(rows):
        for stretch in range(stretches):
            first = begin[row, stretch]
            n = end[row, stretch] - first
            best[row, stretch] = total[row, stretch] = LOWEST
            token[row, stretch] = first
            if n < 1:
                continue
            for j in range(n):
                values[j] = _wide(logits[row, first + j])
            top = _highest(values, n, highest)
            if top == LOWEST:
                continue
            if len(columns) > 0:
                top = _compute_anew(values, n, top, first, rows_of[row], columns)
            at = _place_of(values, n, top)
            token[row, stretch] = first + at
            best[row, stretch] = top
            if len(runner_up) > 0:
                values[at] = LOWEST
                runner_up[row, stretch] = _highest(values, n, highest)
                values[at] = top
            total[row, stretch] = top + np.log(_exponentials(values, n, top))


@numba.njit(nogil=True, cache=True)
def _most(logits, begin, end, best, token):
    """As `highest`; writes `best`, from -inf on, and `token`."""
    rows, count = best.shape
    for row in range(rows):
        for stretch in range(begin.shape[1]):
            for j in range(begin[row, stretch], end[row, stretch]):
                value = _wide(logits[row, j])
                place = count
                while place > 0 and value > best[row, place - 1]:
                    place -= 1
                if place < count:
                    best[row, place + 1 :] = best[row, place:-1].copy()
                    token[row, place + 1 :] = token[row, place:-1].copy()
                    best[row, place] = value
                    token[row, place] = j


@numba.njit(nogil=True, cache=True)
def _warp(costs):
    """As `warp`: int64 [steps, 2]."""
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.float32(np.inf))
    total[0, 0] = 0
    step = np.full((rows + 1, columns + 1), np.int8(0))
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            both = total[i - 1, j - 1]
            down = total[i - 1, j]
            right = total[i, j - 1]
            if both < down and both < right:
                total[i, j] = costs[i - 1, j - 1] + both
            elif down < both and down < right:
                total[i, j] = costs[i - 1, j - 1] + down
                step[i, j] = 1
            else:
                total[i, j] = costs[i - 1, j - 1] + right
                step[i, j] = 2
    # At an edge there is one way back.
    step[0, :] = 2
    step[:, 0] = 1
    path = np.empty((rows + columns, 2), np.int64)
    at = rows + columns
    i = rows
    j = columns
    while i > 0 or j > 0:
        at -= 1
        path[at, 0] = i - 1
        path[at, 1] = j - 1
        taken = step[i, j]
        if taken != 2:
            i -= 1
        if taken != 1:
            j -= 1
    return path[at:]
