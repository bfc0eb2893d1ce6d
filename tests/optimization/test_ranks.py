"""Two ranks with half a batch each take the steps of one rank with the whole batch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn

from aime.optimization import make_balancer
from aime.runs.processes import join

STEPS, BATCH = 3, 8


def gradients(name: str, rank: int, ranks: int) -> list[Tensor]:
    """The balanced gradients of a few steps, on this rank's share of every batch."""
    torch.manual_seed(0)
    trunk, heads = nn.Linear(5, 6), nn.ModuleList([nn.Linear(6, 1) for _ in range(3)])
    model = nn.ModuleList([trunk, heads]).double()
    balancer = make_balancer(name, model.named_parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for step in range(STEPS):
        x = torch.randn(BATCH, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(step)).chunk(ranks)[rank]
        hidden = trunk(x).tanh()
        optimizer.zero_grad()
        balancer.backward({f"t{i}": (head(hidden) - x[:, i : i + 1]).square().mean() for i, head in enumerate(heads)})
        found.append(torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None]))
        optimizer.step()
    return found


def run_rank(rank: int, directory: str) -> None:
    torch.set_num_threads(1)
    join("gloo", distributed.FileStore(f"{directory}/meet", 2), rank, 2)  # type: ignore[attr-defined]
    torch.save({name: gradients(name, rank, 2) for name in ("rgb", "sum")}, f"{directory}/{rank}.pt")
    distributed.destroy_process_group()
    threads = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
    assert not any("gloo" in name for name in threads), "threads that outlive the group can abort the exit"


def test_two_ranks_are_one_with_both_batches(tmp_path: Path) -> None:
    spawn(run_rank, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name in ("rgb", "sum"):
        for mine, theirs, whole in zip(first[name], second[name], gradients(name, 0, 1), strict=True):
            assert torch.equal(mine, theirs)
            torch.testing.assert_close(mine, whole, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(first["rgb"][-1], first["sum"][-1]), "the rotation does something"
