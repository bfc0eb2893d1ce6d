"""Attention compared with torch's, rotary positions, and the cache compared with the whole sequence."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from aime.primitives.transformer import CausalTimeAttention, MultiHeadAttention, attend, rotary


@pytest.mark.parametrize("masked", [False, True])
def test_attend_is_scaled_dot_product_attention(masked: bool) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    seen = torch.rand(5, 7) < 0.7 if masked else None
    if seen is not None:
        seen[:, 0] = True
    torch.testing.assert_close(
        attend(query, key, value, seen), F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    )


@given(shift=st.integers(0, 1000), distance=st.integers(0, 30))
@settings(max_examples=25, deadline=None)
def test_rotary_products_depend_on_distance_only(shift: int, distance: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 8, generator=generator, dtype=torch.float64)
    at = torch.tensor([float(distance)], dtype=torch.float64)
    near = (rotary(query, at) * rotary(key, torch.zeros_like(at))).sum()
    far = (rotary(query, at + shift) * rotary(key, torch.zeros_like(at) + shift)).sum()
    torch.testing.assert_close(near, far)


def test_one_row_of_queries_serves_every_memory() -> None:
    torch.manual_seed(0)
    layer = MultiHeadAttention(8, 6, heads=2, dropout=0.0)
    query, memory = torch.randn(1, 3, 8), torch.randn(4, 5, 6)
    torch.testing.assert_close(layer(query, memory), layer(query.expand(4, -1, -1), memory))


@pytest.mark.parametrize("window", [1, 3, 50])
def test_stepping_with_a_cache_equals_the_whole_sequence(window: int) -> None:
    torch.manual_seed(0)
    batch, length, count = 2, 9, 4
    layer = CausalTimeAttention(8, heads=2, window=window, dropout=0.0).double()
    latents = torch.randn(batch, length, count, 8, dtype=torch.float64)
    whole, nothing = layer(latents)
    assert nothing is None
    cache = layer.empty_cache(batch, count, latents)
    for t in range(length):
        stepped, cache = layer(latents[:, t : t + 1], cache)
        torch.testing.assert_close(stepped[:, 0], whole[:, t], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("window", [1, 3, 50])
def test_a_sequence_goes_on_in_pieces_of_any_length(window: int) -> None:
    torch.manual_seed(0)
    layer = CausalTimeAttention(8, heads=2, window=window, dropout=0.0).double()
    latents = torch.randn(2, 9, 4, 8, dtype=torch.float64)
    cache, parts = layer.empty_cache(2, 4, latents), []
    for piece in latents.split([4, 2, 3], dim=1):
        part, cache = layer(piece, cache)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), layer(latents)[0], rtol=1e-10, atol=1e-10)


def test_frames_beyond_the_window_are_not_seen() -> None:
    torch.manual_seed(0)
    layer = CausalTimeAttention(8, heads=2, window=3, dropout=0.0)
    latents = torch.randn(1, 6, 2, 8)
    other = latents.clone()
    other[:, 0] += 1
    (mine, _), (changed, _) = layer(latents), layer(other)
    assert torch.equal(mine[:, 3:], changed[:, 3:])
    assert not torch.equal(mine[:, 2], changed[:, 2])
