"""Parallel computation of linear recurrences over time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def linear_scan(keep: Float[Tensor, "B T D"], add: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """y_t = keep_t · y_{t-1} + add_t with y_{-1} = 0, in ⌈log₂ T⌉ rounds.

    Reference: Hillis & Steele 1986, "Data parallel algorithms".
    """
    reach = 1
    while reach < add.shape[1]:
        earlier = torch.cat([torch.zeros_like(add[:, :reach]), add[:, :-reach]], dim=1)
        kept = torch.cat([torch.ones_like(keep[:, :reach]), keep[:, :-reach]], dim=1)
        add = torch.addcmul(add, keep, earlier)
        keep = keep * kept
        reach *= 2
    return add
