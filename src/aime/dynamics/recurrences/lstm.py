"""An LSTM that runs over whole clips in one fused call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from aime.dynamics.recurrences.interface import Recurrence
from aime.primitives.autocast import to_autocast_dtype
from aime.primitives.scan import linear_scan


class LSTM(Recurrence):
    """One layer; its memory is the cell, and h_0 and c_0 are learned.

    Recurrent weights start orthogonal, forget biases at 1.

    Reference: Hochreiter & Schmidhuber 1997; forget bias: Jozefowicz et al. 2015.
    """

    def __init__(self, inputs: int, belief: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, belief, batch_first=True)
        _, recurrent, input_bias, recurrent_bias = self._weights()
        for gate in recurrent.data.chunk(4):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(input_bias)
        nn.init.zeros_(recurrent_bias)
        # torch orders the gates input, forget, cell, output
        input_bias.data[belief : 2 * belief] = 1.0
        self.initial_belief = nn.Parameter(torch.zeros(belief))
        self.initial_cell = nn.Parameter(torch.zeros(belief))

    def initial(self, batch: int) -> tuple[Float[Tensor, "B belief"], Float[Tensor, "B belief"]]:
        """h_0 and c_0."""
        return repeat(self.initial_belief, "h -> b h", b=batch), repeat(self.initial_cell, "h -> b h", b=batch)

    def forward(
        self,
        inputs: Float[Tensor, "B T inputs"],
        belief: Float[Tensor, "B belief"],
        memory: Float[Tensor, "B belief"],
    ) -> Float[Tensor, "B T belief"]:
        """See `Recurrence.forward`."""
        if inputs.shape[1] == 1:
            return belief[:, None]
        with torch.autocast(inputs.device.type, enabled=False):
            # cuDNN does not accept an expanded view as initial state
            start = (belief[None].contiguous(), memory[None].contiguous())
            after, _ = self.lstm(inputs.to(belief.dtype), start)
        return torch.cat([belief[:, None], after[:, :-1]], dim=1)

    def memories(
        self,
        inputs: Float[Tensor, "B T inputs"],
        beliefs: Float[Tensor, "B T belief"],
        memory: Float[Tensor, "B belief"],
    ) -> Float[Tensor, "B T belief"]:
        """The cells that enter each step, which the fused call does not return.

        With every h known, all gates are known at once, and c_t = f_t c_{t-1} + i_t g_t is a linear recurrence.
        """
        from_input, recurrent, input_bias, recurrent_bias = self._weights()
        with torch.autocast(beliefs.device.type, enabled=False):
            gates = F.linear(inputs.to(from_input.dtype), from_input, input_bias)
            gates = gates + F.linear(beliefs, recurrent, recurrent_bias)
        take, keep, candidate, _ = gates.chunk(4, dim=-1)
        keep = keep.sigmoid()
        added = take.sigmoid() * candidate.tanh()
        added = torch.cat([memory[:, None], added[:, :-1]], dim=1)
        keep = torch.cat([torch.ones_like(keep[:, :1]), keep[:, :-1]], dim=1)
        return linear_scan(keep, added)

    def step(
        self, inputs: Float[Tensor, "B inputs"], belief: Float[Tensor, "B belief"], memory: Float[Tensor, "B belief"]
    ) -> tuple[Float[Tensor, "B belief"], Float[Tensor, "B belief"]]:
        """See `Recurrence.step`."""
        return torch.lstm_cell(inputs.to(belief.dtype), (belief, memory), *self._weights())

    def many_steps(self) -> JoinedCell:
        """Multiplies input and belief at once: half the products of a step, and none of the sums."""
        from_input, recurrent, input_bias, recurrent_bias = self._weights()
        weight = torch.cat([from_input, recurrent], dim=1)
        return JoinedCell(to_autocast_dtype(weight), to_autocast_dtype(input_bias + recurrent_bias))

    def _weights(self) -> list[nn.Parameter]:
        """Input weights, recurrent weights, input bias and recurrent bias, as the fused call has them."""
        return list(self.lstm.parameters())


@dataclass(frozen=True)
class JoinedCell:
    """An LSTM cell whose two weight matrices are one."""

    weight: Float[Tensor, "gates inputs"]
    bias: Float[Tensor, " gates"]

    def __call__(
        self, inputs: Float[Tensor, "B inputs"], belief: Float[Tensor, "B belief"], memory: Float[Tensor, "B belief"]
    ) -> tuple[Float[Tensor, "B belief"], Float[Tensor, "B belief"]]:
        """See `LSTM.step`."""
        gates = F.linear(torch.cat([inputs, belief], dim=-1), self.weight, self.bias)
        take, keep, candidate, show = gates.chunk(4, dim=-1)
        cell = torch.addcmul(keep.sigmoid() * memory, take.sigmoid(), candidate.tanh())
        return show.sigmoid() * cell.tanh(), cell
