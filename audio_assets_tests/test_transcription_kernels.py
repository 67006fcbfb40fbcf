"""Attention of one query, against the same in float64."""

import pytest
import torch

from audio_assets.transcription.kernels import attend_with_one_query

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
def test_what_lies_behind_the_length_has_no_part(dtype: torch.dtype):
    q = torch.randn(2, 3, 16).to(dtype)
    k, v = caches(2, 100, dtype)
    length = torch.tensor([40, 70])
    before = attend_with_one_query(q, k, v, length)
    for i, n in enumerate(length.tolist()):
        k[i, :, n:], v[i, :, n:] = torch.nan, torch.nan
    assert torch.equal(attend_with_one_query(q, k, v, length), before)


def test_scores_that_lie_far_apart_neither_overflow_nor_vanish():
    q = torch.full((1, 1, 16), 100.0)
    k = torch.stack([torch.full((16,), float(i)) for i in (-50, 0, 50)])[None, None].mT.contiguous().mT
    v = torch.randn(1, 1, 16, 3).mT
    got = attend_with_one_query(q, k, v, torch.tensor([3]))
    assert torch.equal(got, v[:, 0, 2])
