"""Attention of one query, softmax, and sums over stretches of the vocabulary, against the same in float64."""

import pytest
import torch

from audio_assets.transcription.kernels import (
    attend_with_one_query,
    best_and_sum,
    softmax_in_place,
    split_heads,
)

# What rounding costs, relative: of the scores in float32, of the output in bfloat16.
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2**-8}


def caches(rows: int, keys: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values with the keys' axis adjacent in memory."""
    return tuple(torch.randn(rows, 3, 16, keys).to(dtype).mT for _ in range(2))  # type: ignore[return-value]


def expected(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    rows = []
    for i, n in enumerate(length.tolist()):
        weights = (q[i, :, None].double() @ k[i, :, :n].double().mT).softmax(-1)
        rows.append((weights @ v[i, :, :n].double()).flatten())
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0])
def test_each_row_attends_to_its_own_length(dtype: torch.dtype, scale: float):
    torch.manual_seed(0)
    length = torch.tensor([1, 2, 63, 64, 65, 127, 200])
    q = (torch.randn(len(length), 3, 16) * scale).to(dtype)
    k, v = caches(len(length), 200, dtype)
    got = attend_with_one_query(q, k, v, length)
    assert got.dtype == dtype
    torch.testing.assert_close(
        got.double(), expected(q, k, v, length), rtol=ROUNDING[dtype], atol=ROUNDING[dtype]
    )


@pytest.mark.parametrize("dtype", ROUNDING)
def test_what_lies_after_the_length_has_no_part(dtype: torch.dtype):
    q = torch.randn(2, 3, 16).to(dtype)
    k, v = caches(2, 100, dtype)
    length = torch.tensor([40, 70])
    before = attend_with_one_query(q, k, v, length)
    for i, n in enumerate(length.tolist()):
        k[i, :, n:] = torch.nan
        v[i, :, n:] = torch.nan
    assert torch.equal(attend_with_one_query(q, k, v, length), before)


def test_scores_that_lie_far_apart_neither_overflow_nor_vanish():
    q = torch.full((1, 1, 16), 100.0)
    k = torch.stack([torch.full((16,), float(i)) for i in (-50, 0, 50)])[None, None].mT.contiguous().mT
    v = torch.randn(1, 1, 16, 3).mT
    got = attend_with_one_query(q, k, v, torch.tensor([3]))
    assert torch.equal(got, v[:, 0, 2])


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("n", [1, 2, 63, 1500])
@pytest.mark.parametrize(("scale", "above"), [(0.0, 0.0), (1.0, -200.0), (10.0, 0.0), (100.0, 30.0)])
def test_softmax_of_each_row(dtype: torch.dtype, n: int, scale: float, above: float):
    torch.manual_seed(0)
    scores = (torch.randn(7, n) * scale + above).to(dtype)
    wanted = scores.double().softmax(-1)
    got = softmax_in_place(scores)
    assert got.data_ptr() == scores.data_ptr()
    # The exponential adds its own error; what is smaller than the last bound counts for nothing in a sum.
    torch.testing.assert_close(got.double(), wanted, rtol=ROUNDING[dtype] + 2e-4, atol=1e-30)


def test_softmax_finds_the_highest_of_numbers_of_either_sign():
    scores = torch.tensor([[-3e38, 3e38, 0.0], [-3e38, -1e38, -2e38], [-0.0, 0.0, -1e-40]])
    for dtype in ROUNDING:
        got = softmax_in_place(scores.to(dtype, copy=True))
        wanted = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
        torch.testing.assert_close(got.float(), wanted, rtol=ROUNDING[dtype], atol=1e-30)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("begin", "end"), [(0, 100), (0, 1), (31, 64), (67, 100)])
def test_heads_are_split_and_values_transposed(dtype: torch.dtype, begin: int, end: int):
    qkv = torch.randn(end - begin, 3 * 2 * 24).to(dtype)
    q, k = torch.zeros(2, 2, 100, 24, dtype=dtype)
    v = torch.zeros(2, 24, 100, dtype=dtype)
    split_heads(qkv, q[:, begin:end], k[:, begin:end], v[..., begin:end])
    each = qkv.view(-1, 3, 2, 24).permute(1, 2, 0, 3)
    for whole, wanted in ((q, each[0]), (k, each[1]), (v.mT, each[2])):
        assert torch.equal(whole[:, begin:end], wanted)
        assert not whole[:, :begin].any()
        assert not whole[:, end:].any()


@pytest.mark.parametrize("dtype", ROUNDING)
def test_each_stretch_has_its_best_token_and_its_sum(dtype: torch.dtype):
    torch.manual_seed(0)
    logits = (torch.randn(4, 1000) * 10).to(dtype)
    logits[:, 100:200] = -torch.inf
    begin = torch.tensor([[0, 37, 50, 150]] * 4)
    end = torch.tensor([[1000, 38, 50, 170]] * 4)
    best, token, total = best_and_sum(logits, begin, end)
    for row in range(4):
        for i, (first, last) in enumerate(((0, 1000), (37, 38))):
            some = logits[row, first:last].double()
            assert best[row, i] == some.max()
            assert logits[row, token[row, i]] == some.max()
            assert first <= token[row, i] < last
            torch.testing.assert_close(total[row, i].double(), some.logsumexp(0), rtol=1e-6, atol=1e-6)
    # Nothing in it, and nothing that may be said.
    assert torch.isneginf(best[:, 2:]).all()
    assert torch.isneginf(total[:, 2:]).all()


def test_what_the_rounding_of_bfloat16_leaves_in_question_is_computed_anew():
    torch.manual_seed(0)
    rows = torch.randn(200, 64)
    columns = torch.randn(2000, 64)
    exact = rows @ columns.T
    logits = (rows.bfloat16() @ columns.bfloat16().T).contiguous()
    begin = torch.tensor([[0, 500]] * len(rows))
    end = torch.tensor([[500, 2000]] * len(rows))
    rounded = best_and_sum(logits, begin, end)[1]
    best, token, total = best_and_sum(logits, begin, end, (rows, columns))
    for stretch, (first, last) in enumerate(((0, 500), (500, 2000))):
        some = exact[:, first:last]
        assert torch.equal(token[:, stretch], some.argmax(dim=1) + first)
        torch.testing.assert_close(best[:, stretch], some.amax(dim=1))
        torch.testing.assert_close(total[:, stretch], some.logsumexp(dim=1), atol=0.05, rtol=0)
        # The rounded logits alone are no answer.
        assert not torch.equal(rounded[:, stretch], token[:, stretch])
