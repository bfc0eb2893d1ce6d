"""The plain sum, torchjd's aggregators, and the choice of a balancer by name."""

from __future__ import annotations

import builtins
import sys

import pytest
import torch
from tests.optimization.problems import EVERYTHING, SIZES, P, columns, flat_grad, losses, parameters

from aime.errors import AimeError
from aime.optimization import RGB, RGBConfig, Sum, TorchJD, make_balancer

REACH = [EVERYTHING, [True, True, False, False, False], [False, True, False, False, True]]


def gradients() -> torch.Tensor:
    made = torch.randn(3, P, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made[1] -= 2 * made[0]
    return made


def test_the_sum_is_the_plain_backward_of_all_batches() -> None:
    plain, summed = parameters(), parameters()
    sum(losses(plain, gradients(), REACH).values(), start=torch.zeros(())).backward()
    balancer = Sum(summed.items())
    for _ in range(2):
        balancer.differentiate({name: loss / 2 for name, loss in losses(summed, gradients(), REACH).items()})
    balancer.resolve()
    assert torch.equal(flat_grad(summed), flat_grad(plain))


def test_the_sum_leaves_what_it_does_not_train_alone() -> None:
    named = parameters()
    other = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    Sum(named.items()).backward({"task": other * named["layer.0"].sum()})
    assert other.grad is None
    assert named["layer.0"].grad is not None
    assert named["layer.1"].grad is None


def test_balancers_by_name() -> None:
    named = parameters()
    rgb = make_balancer("rgb", named.items(), RGBConfig(angle_steps=1))
    assert isinstance(rgb, RGB)
    assert rgb.config.angle_steps == 1
    assert isinstance(make_balancer("sum", named.items()), Sum)
    with pytest.raises(AimeError, match=r"balancer is 'pcgrad'; expected 'rgb', 'sum' or 'torchjd:NAME'"):
        make_balancer("pcgrad", named.items())


def test_an_aggregator_sees_the_jacobian_of_what_is_shared() -> None:
    seen = []

    def first_row(jacobian: torch.Tensor) -> torch.Tensor:
        seen.append(jacobian)
        return jacobian[0]

    named, reached = parameters(), columns(REACH)
    made = gradients() * reached
    TorchJD(named.items(), first_row).backward(losses(named, made, REACH))
    shared = reached.sum(0) >= 2
    assert torch.equal(seen[0], made[:, shared])
    assert torch.equal(flat_grad(named), torch.where(shared, made[0], made.sum(0)))
    assert shared.sum() == SIZES[0] + SIZES[1] + SIZES[4]


@pytest.mark.parametrize("silent", [0.0, torch.zeros(())])
def test_a_task_without_a_vote_is_added_beside_the_aggregate(silent: float | torch.Tensor) -> None:
    named, reached = parameters(), columns(REACH)
    made = gradients() * reached
    TorchJD(named.items(), lambda jacobian: jacobian[0]).backward(losses(named, made, REACH), {"task2": silent})
    shared = reached[:2].sum(0) >= 2
    assert torch.equal(flat_grad(named), torch.where(shared, made[0], made[:2].sum(0)) + made[2])


@pytest.mark.parametrize("name", ["UPGrad", "PCGrad", "MGDA"])
def test_torchjd_lowers_every_loss(name: str) -> None:
    pytest.importorskip("torchjd")
    pytest.importorskip("qpsolvers")
    named, made = parameters(), gradients()
    make_balancer(f"torchjd:{name}", named.items()).backward(losses(named, made, [EVERYTHING] * 3))
    assert (made @ flat_grad(named) > -1e-3).all()


def test_torchjds_sum_is_the_sum() -> None:
    pytest.importorskip("torchjd")
    named = parameters()
    make_balancer("torchjd:Sum", named.items()).backward(losses(named, gradients(), REACH))
    torch.testing.assert_close(flat_grad(named), (gradients() * columns(REACH)).sum(0))


@pytest.mark.parametrize("name", ["Nothing", "Aggregator", "CAGrad", "upgrad"])
def test_an_aggregator_that_torchjd_cannot_make_by_name_is_refused(name: str) -> None:
    pytest.importorskip("torchjd")
    with pytest.raises(
        AimeError, match=rf"balancer is torchjd:{name}; expected one of AlignedMTL, .*UPGrad.*balancers"
    ):
        make_balancer(f"torchjd:{name}", parameters().items())


def test_without_torchjd_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: object) -> object:
        if name.split(".")[0] == "torchjd":
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.delitem(sys.modules, "torchjd", raising=False)
    with pytest.raises(AimeError, match=r"pip install 'aime\[balancers\]'"):
        make_balancer("torchjd:UPGrad", parameters().items())
