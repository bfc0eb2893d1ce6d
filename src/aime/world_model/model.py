"""The world model: the pillars joined, for training over whole clips and for stepping, predicting and imagining."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.world_model.checked_inputs import CheckedInputs
from aime.world_model.core import Actions, Frames, States
from aime.world_model.cost import Costing
from aime.world_model.outputs import SequenceOutput, Sight
from aime.world_model.prediction import Predicting
from aime.world_model.saved import load_model
from aime.world_model.stepping import Stepping
from aime.world_model.surprise import Surprising


class AIME(Stepping, Predicting, Surprising, Costing):
    """A probabilistic world model of video and action.

        prior       p(z_t | h_{t-1}, z_{t-1}, z_{t-2}, expected context)
        posterior   q(z_t | x_t, c_t)            c_t from x_1..x_t, and where a state is observed, from s_t
        attention   U_t from x_t, P_t from (h_{t-1}, z_t, U_{t-1}), A_t from both
        belief      h_t from h_{t-1} and [z_t, z_t - z_{t-1}, c_t, a_t], by an LSTM or another recurrence
        decoder     p(x_t | z_t, A_t)
        control     reward, continuation and action of step t from (h_{t-1}, z_t), and the state

    Frames are `[B,T,3,H,W]`, uint8 or float in [0, 1]; actions `[B,T,A]` in [-1, 1], action t taken after frame t.
    Tensors or numpy arrays; frames in any layout that `prepare` takes. Numbers out of range are refused.
    Only the recurrence is sequential: a pass over T frames computes everything else for all B·T frames at once.

    Example:
        >>> import torch
        >>> from aime.world_model.presets import tiny
        >>> model = AIME(tiny(action_width=1)).eval()
        >>> model.encode(torch.zeros(2, 3, 3, 64, 64)).shape
        torch.Size([2, 3, 36])
    """

    @classmethod
    def from_pretrained(cls, run: str | Path, device: str | torch.device = "cpu") -> AIME:
        """The model of a run directory, or of "bundled:NAME" (`cartpole`), with its averaged weights, in eval mode.

        Raises:
            AimeError: if `run` is no run directory and no model that comes with the package, or its files do not fit
                together.
        """
        return load_model(run, cls).to(device)

    def prepare(self, frames: Frames) -> Float[Tensor, "B T 3 H W"]:
        """Frames as the model reads them: `[B,T,3,H,W]`, floats in [0, 1], on its device and in its type.

        Args:
            frames: a frame `[3,H,W]` or `[H,W,3]`, a clip `[T,…]` or a batch `[B,T,…]` of them; torch or numpy, uint8
                or float in [0, 1] within 1/255. Every method that takes frames prepares them so.

        Raises:
            AimeError: if they have another size or number of channels, another type, or numbers out of range.
        """
        with CheckedInputs(self) as checked:
            return checked.frames(frames)

    def forward_sequence(
        self,
        frames: Frames,
        actions: Actions | None = None,
        action_valid: Bool[Tensor, "B T"] | Bool[np.ndarray, "B T"] | None = None,
        states: States | None = None,
    ) -> SequenceOutput:
        """Perceive, believe and reconstruct T frames in one pass, parallel in time.

        Args:
            frames: `[B,T,3,H,W]`, uint8 or float in [0, 1].
            actions: `[B,T,A]` in [-1, 1], action t taken after frame t; None for video without actions.
            action_valid: `[B,T]`, False where an action is missing.
            states: `[B,T,S]` in their own units, NaN where a number is not known; None where nothing is. A
                model that observes frames alone ignores them.

        Raises:
            AimeError: if frames, actions or states do not have the model's shape, type or range.
        """
        with CheckedInputs(self) as checked:
            given = checked.frames(frames)
            shape = given.shape[:2]
            return self.run_sequence(
                given, checked.actions(actions, shape, action_valid), None, checked.states(states, shape)
            )

    def decode(self, latents: Float[Tensor, "N latent"], attention: Float[Tensor, "N h w"]) -> Float[Tensor, "N 3 H W"]:
        """Mean frames of p(x | z, A), clipped to [0, 1] in eval mode only, so that training keeps its gradient.

        Raises:
            AimeError: if latents or maps have another shape, or are not finite.
        """
        with CheckedInputs(self) as checked:
            return self.draw(*checked.latents(latents, attention))

    @torch.no_grad()
    def encode(self, frames: Frames, states: States | None = None) -> Float[Tensor, "B T latent"]:
        """Latents of a video: posterior means `[B,T,latent]` in eval mode.

        Raises:
            AimeError: if frames or states do not have the model's shape, type or range.
        """
        return self.infer(self._perceived(frames, states)).mean

    @torch.no_grad()
    def extract_context(self, frames: Frames, states: States | None = None) -> Float[Tensor, "B T context"]:
        """Contexts of a video `[B,T,context]`; c_t has seen frames 1..t, and state t.

        Raises:
            AimeError: if frames or states do not have the model's shape, type or range.
        """
        return self._perceived(frames, states).percept.contexts

    def _perceived(self, frames: Frames, states: States | None) -> Sight:
        with CheckedInputs(self) as checked:
            given = checked.frames(frames)
            return self.perceive(given, checked.states(states, given.shape[:2]))
