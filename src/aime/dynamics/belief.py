"""Latent, context and action to the belief: an LSTM that runs over whole clips in one fused call."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from aime.primitives.autocast import as_multiplied
from aime.primitives.readout import STEP_SCALE


class LSTMBelief(nn.Module):
    """h_t = LSTM(h_{t-1}, [z_t, (z_t - z_{t-1})/s, c_t, a_t]) with s = 0.2, one layer, h_0 learned.

    Recurrent weights start orthogonal, forget biases at 1.
    Reference: Hochreiter & Schmidhuber 1997; forget bias: Jozefowicz et al. 2015.
    """

    def __init__(self, latent: int, context: int, action: int, belief: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2 * latent + context + action, belief, batch_first=True)
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
        """The learned belief h_0 and cell before the first frame, `[B,belief]` each."""
        return repeat(self.initial_belief, "h -> b h", b=batch), repeat(self.initial_cell, "h -> b h", b=batch)

    def forward(
        self,
        latents: Float[Tensor, "B T latent"],
        steps: Float[Tensor, "B T latent"],
        contexts: Float[Tensor, "B T context"],
        actions: Float[Tensor, "B T A"],
    ) -> Float[Tensor, "B T belief"]:
        """h_{t-1} of all T steps, the learned beginning first, in one call on what is read, `[B,T,·]` each."""
        inputs = _joined(latents, steps, contexts, actions)
        belief, cell = self.initial(inputs.shape[0])
        with torch.autocast(inputs.device.type, enabled=False):
            # cuDNN takes no repeated view for a start
            start = (belief[None].contiguous(), cell[None].contiguous())
            after, _ = self.lstm(inputs.to(belief.dtype), start)
        return torch.cat([belief[:, None], after[:, :-1]], dim=1)

    def cells(
        self,
        latents: Float[Tensor, "B T latent"],
        steps: Float[Tensor, "B T latent"],
        contexts: Float[Tensor, "B T context"],
        actions: Float[Tensor, "B T A"],
        beliefs: Float[Tensor, "B T belief"],
    ) -> Float[Tensor, "B T belief"]:
        """The LSTM's cell state that enters each step, which the fused call does not return, from what that returned.

        With every h known, so are all gates at once, and the cell is the linear recurrence c_t = f_t c_{t-1} + i_t g_t,
        solved by a parallel scan in ⌈log₂ T⌉ rounds (Hillis & Steele 1986).
        """
        from_input, recurrent, input_bias, recurrent_bias = self._weights()
        inputs = _joined(latents, steps, contexts, actions)
        with torch.autocast(beliefs.device.type, enabled=False):
            gates = nn.functional.linear(inputs.to(from_input.dtype), from_input, input_bias)
            gates = gates + nn.functional.linear(beliefs, recurrent, recurrent_bias)
        take, keep, candidate, _ = gates.chunk(4, dim=-1)
        keep = keep.sigmoid()
        total = take.sigmoid() * candidate.tanh()
        _, first = self.initial(total.shape[0])
        total = torch.cat([first[:, None], total[:, :-1]], dim=1)
        keep = torch.cat([torch.ones_like(keep[:, :1]), keep[:, :-1]], dim=1)
        return _linear_scan(keep, total)

    def step(
        self,
        latent: Float[Tensor, "B latent"],
        step: Float[Tensor, "B latent"],
        context: Float[Tensor, "B context"],
        action: Float[Tensor, "B A"],
        belief: Float[Tensor, "B belief"],
        cell: Float[Tensor, "B belief"],
    ) -> tuple[Float[Tensor, "B belief"], Float[Tensor, "B belief"]]:
        """One step; the same numbers as the fused call gives."""
        inputs = _joined(latent, step, context, action)
        return torch.lstm_cell(inputs.to(belief.dtype), (belief, cell), *self._weights())

    def joined(self) -> JoinedCell:
        """`step` for many steps in a row, with the weights that the LSTM has now."""
        from_input, recurrent, input_bias, recurrent_bias = self._weights()
        weight = torch.cat([from_input, recurrent], dim=1)
        return JoinedCell(as_multiplied(weight), as_multiplied(input_bias + recurrent_bias))

    def _weights(self) -> list[nn.Parameter]:
        """Input weights, recurrent weights, input bias and recurrent bias, as the fused call has them."""
        return list(self.lstm.parameters())


class JoinedCell(NamedTuple):
    """An LSTM cell that multiplies input and belief at once: half the products of a step, and none of the sums."""

    weight: Float[Tensor, "gates inputs"]
    bias: Float[Tensor, " gates"]

    def step(
        self,
        latent: Float[Tensor, "B latent"],
        step: Float[Tensor, "B latent"],
        context: Float[Tensor, "B context"],
        action: Float[Tensor, "B A"],
        belief: Float[Tensor, "B belief"],
        cell: Float[Tensor, "B belief"],
    ) -> tuple[Float[Tensor, "B belief"], Float[Tensor, "B belief"]]:
        """See `LSTMBelief.step`."""
        inputs = torch.cat([latent, step / STEP_SCALE, context, action, belief], dim=-1)
        take, keep, candidate, show = F.linear(inputs, self.weight, self.bias).chunk(4, dim=-1)
        cell = torch.addcmul(keep.sigmoid() * cell, take.sigmoid(), candidate.tanh())
        return show.sigmoid() * cell.tanh(), cell


def _joined(
    latents: Float[Tensor, "... latent"],
    steps: Float[Tensor, "... latent"],
    contexts: Float[Tensor, "... context"],
    actions: Float[Tensor, "... A"],
) -> Float[Tensor, "... inputs"]:
    return torch.cat([latents, steps / STEP_SCALE, contexts, actions], dim=-1)


def _linear_scan(keep: Float[Tensor, "B T D"], total: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """y_t = keep_t · y_{t-1} + total_t with y_{-1} = 0, by doubling."""
    reach = 1
    while reach < total.shape[1]:
        earlier = torch.cat([torch.zeros_like(total[:, :reach]), total[:, :-reach]], dim=1)
        kept = torch.cat([torch.ones_like(keep[:, :reach]), keep[:, :-reach]], dim=1)
        total = torch.addcmul(total, keep, earlier)
        keep = keep * kept
        reach *= 2
    return total
