"""The world model: the pillars joined, for training over whole clips and for stepping, predicting and imagining."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from aime.primitives.seeded_noise import Seeds
from aime.world_model import cost, prediction, stepping
from aime.world_model import surprise as surprise_scores
from aime.world_model.admission import Admission
from aime.world_model.core import Actions, Frames, States, WorldModel
from aime.world_model.outputs import (
    BeliefState,
    FuturePrediction,
    Imagined,
    Observation,
    SequenceOutput,
    Sight,
)
from aime.world_model.saved import load_model


class AIME(WorldModel):
    """A probabilistic world model of video and action.

        prior       p(z_t | h_{t-1}, z_{t-1}, z_{t-2}, expected context)
        posterior   q(z_t | x_t, c_t)            c_t from x_1..x_t, and where a state is observed, from s_t
        attention   U_t from x_t, P_t from (h_{t-1}, z_t, U_{t-1}), A_t from both
        belief      h_t from h_{t-1} and [z_t, z_t - z_{t-1}, c_t, a_t], by an LSTM or another recurrence
        decoder     p(x_t | z_t, A_t)
        control     reward, continuation and action of step t from (h_{t-1}, z_t), and the state

    Frames are `[B,T,3,H,W]`, uint8 or float in [0, 1]; actions `[B,T,A]` in [-1, 1], action t taken after frame t.
    Tensors or numpy arrays; frames in any layout that `prepare` takes. Numbers out of range are refused.
    Only the recurrence needs the step before, so a pass over T frames runs everything else for all B·T frames at once.

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
                or float in [0, 1], give or take a grey level. Every method that takes frames prepares them so.

        Raises:
            AimeError: if they have another size or number of channels, another type, or numbers out of range.
        """
        with Admission(self) as admit:
            return admit.frames(frames)

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
        with Admission(self) as admit:
            given = admit.frames(frames)
            shape = given.shape[:2]
            return self.run_sequence(
                given, admit.actions(actions, shape, action_valid), None, admit.states(states, shape)
            )

    def decode(self, latents: Float[Tensor, "N latent"], attention: Float[Tensor, "N h w"]) -> Float[Tensor, "N 3 H W"]:
        """Mean frames of p(x | z, A), clipped to [0, 1] in eval mode only, so that training keeps its gradient.

        Raises:
            AimeError: if latents or maps have another shape, or are not finite.
        """
        with Admission(self) as admit:
            return self.draw(*admit.latents(latents, attention))

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
        with Admission(self) as admit:
            given = admit.frames(frames)
            return self.perceive(given, admit.states(states, given.shape[:2]))

    @torch.no_grad()
    def predict_future(
        self,
        context_frames: Frames,
        actions: Actions | None = None,
        samples: int | None = None,
        seed: Seeds = 0,
        horizon: int | None = None,
        states: States | None = None,
    ) -> FuturePrediction:
        """Predict the F frames after C context frames, under given actions or those that the action schema expects.

        Args:
            context_frames: `[B,C,3,H,W]`, uint8 or float in [0, 1].
            actions: `[B,C+F,A]` in [-1, 1]; the last one is unused. With a `horizon`, as many as are known, or None.
            samples: None for the single most likely future (the heaviest component's mean at each step), or the
                number of sampled futures, which adds an axis after B.
            seed: of the sampled futures: one number a row, or one number, with which row n has the seed `seed + n`. The
                noise of a row follows from its seed alone, not from its place, the batch or the device.
            horizon: F; where actions are missing, the action schema acts: its mode, or with `samples` a sample.
            states: `[B,C,S]` of the context frames, as in `forward_sequence`.

        Raises:
            AimeError: if shapes, types or ranges do not fit the model, or actions are missing that nothing stands for.
        """
        return prediction.predict_future(self, context_frames, actions, samples, seed, horizon, states)

    @torch.no_grad()
    def surprise(
        self,
        frames: Frames,
        actions: Actions | None = None,
        of: Literal["latent", "frame"] = "latent",
        samples: int = 8,
        seed: Seeds = 0,
        states: States | None = None,
        action_valid: Bool[Tensor, "B T"] | Bool[np.ndarray, "B T"] | None = None,
    ) -> Float[Tensor, "B T"]:
        """How surprising each frame is, after those before it and the actions there.

        Args:
            frames: `[B,T,3,H,W]`, uint8 or float in [0, 1].
            actions: `[B,T,A]` in [-1, 1]; the last one is unused. None for video without actions.
            of: "latent" for what is wrong in the world: -log p(z_t | h_{t-1}) relative to its usual value, no unit, 0
                where all went as expected; see `latent_surprise`. It takes three frames until motion is known.
                "frame" for the pixels: an upper bound on -log p(x_t | past) in nats; see `frame_bound`.
            samples: of the bound, which is tighter with more; the other needs none.
            seed: of these samples; see `predict_future`.
            states: `[B,T,S]`, as in `forward_sequence`.
            action_valid: `[B,T]`, likewise.

        Raises:
            AimeError: if frames, actions or states do not have the model's shape, type or range.
        """
        return surprise_scores.surprise(self, frames, actions, of, samples, seed, states, action_valid)

    def initial_state(self, batch: int) -> BeliefState:
        """The state of `batch` videos before their first frame."""
        return stepping.initial_state(self, batch)

    @torch.no_grad()
    def observe(
        self,
        state: BeliefState,
        frame: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"] | UInt8[np.ndarray, "B H W 3"],
        previous_action: Float[Tensor, "B A"] | Float[np.ndarray, "B A"],
        reset: Bool[Tensor, " B"] | Bool[np.ndarray, " B"] | None = None,
        own_state: Float[Tensor, "B S"] | Float[np.ndarray, "B S"] | None = None,
    ) -> tuple[BeliefState, Observation]:
        """See one more frame: first advance the belief by the action that led here, then infer.

        Gives the same numbers as `forward_sequence` in eval mode gives for that frame.

        Args:
            state: from `initial_state`, or from the step before.
            frame: `[B,3,H,W]`, uint8 or float in [0, 1].
            previous_action: `[B,A]` in [-1, 1], taken after the frame before; ignored in fresh rows.
            reset: True in the rows where this frame starts a new video.
            own_state: `[B,S]`, the robot's or simulator's, NaN where not known; None where nothing is.

        Raises:
            AimeError: if frame, action or own state do not have the model's shape, type or range, or the state is not
                finite.
        """
        return stepping.observe(self, state, frame, previous_action, reset, own_state)

    @torch.no_grad()
    def imagine(
        self, state: BeliefState, action: Float[Tensor, "B A"] | Float[np.ndarray, "B A"], sample: bool = False
    ) -> tuple[BeliefState, Imagined]:
        """Imagine one step: advance the belief by (z_t, c_t, action), then take z_{t+1} from the prior.

        Args:
            state: after `observe` or `imagine`.
            action: `[B,A]` in [-1, 1].
            sample: a sample of the prior instead of its heaviest component's mean.

        Raises:
            AimeError: if the action does not have the model's width, type or range, or a row has seen no frame yet, or
                the state is not finite.
        """
        return stepping.imagine(self, state, action, sample)

    def get_cost(self, info: Mapping[str, Any], action_candidates: Float[Tensor, "B S H A"]) -> Float[Tensor, "B S"]:
        """What plans cost, as stable-worldmodel's solvers ask for it; differentiable in the actions.

        With a goal, the squared distance of the last imagined latent from the goal frame's; without one, minus the sum
        of the predicted rewards. Every step takes the heaviest component's mean.

        Args:
            info: `pixels` `[B,S,T,3,H,W]` or `[B,S,T,H,W,3]`, the same for all S; perhaps `goal` alike, whose last
                frame counts, `action` `[B,S,T,A]`, which led to each frame, and `state` `[B,S,T,·]`, where observed.
            action_candidates: `[B,S,H,A]` from the last frame on, clipped to [-1, 1]; the last axis may hold several
                steps in a block. Beyond ±10 they are refused: no noise of a solver reaches so far.

        Raises:
            AimeError: if a shape, type or range does not fit the model, or there is neither a goal nor a reward head
                that has ever seen a reward.
        """
        return cost.get_cost(self, info, action_candidates)
