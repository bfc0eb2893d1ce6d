"""Construction of a balancer by name."""

from __future__ import annotations

from collections.abc import Callable

from aime.errors import AimeError
from aime.optimization.aggregators import TorchJD, torchjd_aggregator
from aime.optimization.balancers import Balancer, NamedParameters, Sum
from aime.optimization.gradients import top_level
from aime.optimization.rgb import RGB, RGBConfig


def make_balancer(
    name: str,
    named_parameters: NamedParameters,
    config: RGBConfig | None = None,
    module_of: Callable[[str], str] = top_level,
) -> Balancer:
    """The balancer of a name.

    Args:
        name: "rgb", "sum" or "torchjd:NAME" with the name of an aggregator, as in "torchjd:UPGrad".
        named_parameters: as from `module.named_parameters()`.
        config: for RGB.
        module_of: for RGB, see `RGB`.

    Raises:
        AimeError: if there is no such balancer, or a package that it needs is not installed.

    >>> import torch
    >>> type(make_balancer("sum", torch.nn.Linear(2, 2).named_parameters())).__name__
    'Sum'
    """
    require_balancer(name)
    if name == "rgb":
        return RGB(named_parameters, config, module_of)
    if name == "sum":
        return Sum(named_parameters)
    return TorchJD(named_parameters, torchjd_aggregator(name.removeprefix("torchjd:")))


def require_balancer(name: str) -> None:
    """Check a balancer's name.

    Raises:
        AimeError: if there is no such balancer, or a package that it needs is not installed.
    """
    if name.startswith("torchjd:"):
        torchjd_aggregator(name.removeprefix("torchjd:"))
    elif name not in ("rgb", "sum"):
        raise AimeError(f"balancer is {name!r}; expected 'rgb', 'sum' or 'torchjd:NAME' as in 'torchjd:UPGrad'")
