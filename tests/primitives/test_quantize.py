"""The vector quantiser compared with brute force and with another library."""

from __future__ import annotations

import torch

from aime.primitives.quantize import VectorQuantizer, codebook_perplexity


def quantizer(codes: int = 7, width: int = 3) -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(codes, width)


def test_every_vector_takes_its_nearest_code() -> None:
    layer, vectors = quantizer().eval(), torch.randn(2, 3, 4, 4)
    result = layer(vectors)
    flat = vectors.permute(0, 2, 3, 1).reshape(-1, 3)
    brute = torch.cdist(flat, layer.codebook).argmin(-1)
    assert torch.equal(result.indices.flatten(), brute)
    torch.testing.assert_close(result.codes.permute(0, 2, 3, 1).reshape(-1, 3), layer.codebook[brute])
    torch.testing.assert_close(layer.lookup(result.indices), result.codes)
    expected = (flat - layer.codebook[brute]).square().mean(-1).reshape(2, -1).mean(-1)
    torch.testing.assert_close(result.commitment, expected)


def test_the_gradient_goes_straight_through_the_codes() -> None:
    layer, vectors = quantizer().eval(), torch.randn(2, 3, 4, 4, requires_grad=True)
    upstream = torch.randn(2, 3, 4, 4)
    (gradient,) = torch.autograd.grad(layer(vectors).codes, vectors, upstream)
    torch.testing.assert_close(gradient, upstream)


def test_the_first_batch_initialises_the_codebook_with_its_own_vectors() -> None:
    layer, vectors = quantizer().train(), 10 + torch.randn(2, 3, 8, 8)
    layer(vectors)
    assert layer.codebook.min() > 4, "no code stays where the random start put it"


def test_codes_become_the_means_of_their_vectors() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    layer = VectorQuantizer(8, 2).train()  # spare codes: two centres must not share one
    for _ in range(300):
        labels = torch.randint(3, (64,))
        layer((centres[labels] + 0.1 * torch.randn(64, 2)).T[None, :, :, None])
    distances = torch.cdist(centres, layer.codebook).min(dim=1).values
    assert distances.max() < 0.2


def test_dead_codes_are_revived_from_the_batch() -> None:
    layer = quantizer(codes=4, width=2).train()
    for _ in range(3):
        layer(torch.randn(1, 2, 8, 8))
    layer.codebook[0] = 1e6
    layer.sums[0], layer.usage[0] = 0.0, 0.0
    layer(torch.randn(1, 2, 8, 8))
    assert layer.codebook.abs().max() < 10


def test_evaluation_changes_nothing() -> None:
    layer = quantizer().eval()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer(torch.randn(2, 3, 4, 4))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_perplexity_counts_codes_in_even_use() -> None:
    every = torch.ones(5, dtype=torch.bool)
    even = torch.arange(8).repeat(5, 1).view(5, 2, 4)
    assert codebook_perplexity(even, every, 16).item() == torch.tensor(8.0).item()
    assert abs(codebook_perplexity(torch.zeros_like(even), every, 16).item() - 1) < 1e-6
    padded = torch.cat([torch.zeros_like(even), even])
    assert abs(codebook_perplexity(padded, torch.cat([every, ~every]), 16).item() - 1) < 1e-6
