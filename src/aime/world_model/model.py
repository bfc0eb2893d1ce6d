"""The world model: the pillars joined, for training over whole clips and for stepping, predicting and imagining."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from aime.data.action_scale import ActionScale
from aime.dynamics.belief import LSTMBelief
from aime.perception.tokenizer import Tokenizer
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.standardise import Standardise
from aime.representation.decoder import Decoder
from aime.representation.encoder import Encoder
from aime.representation.prior import DirichletProcessMixture
from aime.world_model import cost, imagination, input_validation, parts, stepping
from aime.world_model import surprise as surprise_scores
from aime.world_model.config import ModelConfig
from aime.world_model.input_validation import Admission
from aime.world_model.noise import Seeds
from aime.world_model.outputs import (
    BeliefState,
    DreamState,
    FuturePrediction,
    Imagined,
    Observation,
    SequenceOutput,
    Sight,
    Track,
)

Frames = UInt8[Tensor, "B T 3 H W"] | Float[Tensor, "B T 3 H W"] | UInt8[np.ndarray, "B T H W 3"]
"""Of any layout that `AIME.prepare` takes."""
Actions = Float[Tensor, "B T A"] | Float[np.ndarray, "B T A"]
States = Float[Tensor, "B T S"] | Float[np.ndarray, "B T S"]


class AIME(nn.Module):
    """A probabilistic world model of video and action.

        prior       p(z_t | h_{t-1}, z_{t-1}, z_{t-2}, expected context)
        posterior   q(z_t | x_t, c_t)            c_t from x_1..x_t, and where a state is observed, from s_t
        attention   U_t from x_t, P_t from (h_{t-1}, z_t, U_{t-1}), A_t from both
        belief      h_t = LSTM(h_{t-1}, [z_t, z_t - z_{t-1}, c_t, a_t])
        decoder     p(x_t | z_t, A_t)
        control     reward, continuation and action of step t from (h_{t-1}, z_t), and the state

    Frames are `[B,T,3,H,W]`, uint8 or float in [0, 1]; actions `[B,T,A]` in [-1, 1], action t taken after frame t.
    Tensors or numpy arrays; frames in any layout that `prepare` takes. Numbers out of range are refused.
    Only the LSTM needs the step before, so a pass over T frames runs everything else for all B·T frames at once.

    Example:
        >>> import torch
        >>> from aime.world_model.presets import tiny
        >>> model = AIME(tiny(action_width=1)).eval()
        >>> model.encode(torch.zeros(2, 3, 3, 64, 64)).shape
        torch.Size([2, 3, 36])
    """

    mean_image: Tensor
    """`[3,H,W]` in [0, 1]; what the pillars see is centred on it. The mean frame of the data that the model learned
    from first: fine-tuning keeps it, since all that the model sees and draws is relative to it."""
    baseline_image: Tensor
    """`[3,H,W]` in [0, 1], the mean frame of the data that the model learned from last: a baseline, which the model
    does not read. Weights of earlier versions have `mean_image` in its place."""
    stand_ins: ClassVar[Mapping[str, str]] = {"baseline_image": "mean_image"}
    """The tensors that weights of earlier versions lack, and those that stand for them."""
    unknown: ClassVar[Mapping[str, int]] = {"control.rewards_seen": -1}
    """Counts that weights of earlier versions lack, and what says so."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.action_scale: ActionScale | None = None
        """What actions of -1 and 1 are in the units of the data that the model was trained on, where that is known."""
        self.tokenizer = Tokenizer(config.tokenizer)
        self.perceiver = parts.make_perceiver(config)
        self.encoder = Encoder(config.encoder, config.image_size, config.context_width, config.latent)
        self.prior = parts.make_prior(config)
        self.dynamics = LSTMBelief(config.latent, config.context_width, config.action_width, config.belief)
        self.expect_context = parts.make_context_head(config, reads_latent=False)
        self.imply_context = parts.make_context_head(config, reads_latent=True)
        self.attention = parts.make_attention(config, self.encoder.channels)
        self.decoder = Decoder(config.decoder, config.image_size, config.latent)
        self.control = parts.make_control(config)
        self.second_observation = parts.make_second_observation(config)
        self.initial_latent = nn.Parameter(torch.zeros(config.latent))
        self.null_action = nn.Parameter(torch.zeros(config.action_width))
        self.register_buffer("mean_image", torch.full((3, config.image_size, config.image_size), 0.5))
        self.register_buffer("baseline_image", torch.full((3, config.image_size, config.image_size), 0.5))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_pretrained(cls, run: str | Path, device: str | torch.device = "cpu") -> AIME:
        """The model of a run directory, or of "bundled:NAME" (`cartpole`), with its averaged weights, in eval mode.

        Raises:
            AimeError: if `run` is no run directory and no model that comes with the package, or its files do not fit
                together.
        """
        from aime.world_model.saved import load_model

        return load_model(run).to(device).eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.null_action.device

    @property
    def state_scale(self) -> Standardise | None:
        """The units that states are read and predicted in; None where the model observes none."""
        return self.second_observation.scale

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
            states: `[B,T,S]` in their own units, NaN where a number is not known; None where nothing is.

        Raises:
            AimeError: if frames, actions or states do not have the model's shape, type or range.
        """
        with Admission(self) as admit:
            given = admit.frames(frames)
            shape = given.shape[:2]
            return self.run_sequence(
                given, admit.actions(actions, shape, action_valid), None, admit.states(states, shape)
            )

    def run_sequence(
        self,
        frames: UInt8[Tensor, "B T 3 H W"] | Float[Tensor, "B T 3 H W"],
        actions: Float[Tensor, "B T A"] | None = None,
        action_valid: Bool[Tensor, "B T"] | None = None,
        states: Float[Tensor, "B T S"] | None = None,
        valid: Bool[Tensor, "B T"] | None = None,
    ) -> SequenceOutput:
        """`forward_sequence` for data that is known to be in range: it looks at shapes, not at numbers.

        In training mode the codebook learns nothing of frames that are not `valid`, which are padding.
        """
        centred = self.centre(frames)
        batch = centred.shape[0]
        actions = input_validation.admit_actions(actions, action_valid, centred.shape[:2], self.null_action)
        sight = self.perceive(centred, states, valid)
        posterior = self.infer(sight)
        latents = posterior.rsample() if self.training else posterior.mean
        track = self.follow(latents, sight.percept.contexts, actions)
        attention = self.attention(sight.seen, track.beliefs, latents)
        reconstructions = self.draw(latents.flatten(0, 1), attention.shown.flatten(0, 1))
        return SequenceOutput(
            reconstructions=rearrange(reconstructions, "(b t) c h w -> b t c h w", b=batch),
            posterior=posterior,
            track=track,
            contexts=sight.percept.contexts.to(latents.dtype),
            tokens=sight.tokens.indices,
            commitment=sight.tokens.commitment,
            perceiver_latents=sight.percept.latents,
            codes=sight.tokens.codes,
            attention=attention,
        )

    def perceive(
        self,
        centred: Float[Tensor, "B T 3 H W"],
        states: Float[Tensor, "B T S"] | None = None,
        valid: Bool[Tensor, "B T"] | None = None,
    ) -> Sight:
        """What centred frames show, before any latent or belief: tokens, features, what stands out, and contexts.

        The contexts have seen the states, too; `valid` as in `run_sequence`.

        Raises:
            AimeError: if the states do not have the model's shape.
        """
        tokens, _ = self.tokenizer(centred, valid=valid)
        pyramid = self.encoder.pyramid(centred.flatten(0, 1))
        # attention reads what the encoder has learned to see and does not change it: its losses would pull features to
        # what slots easily hold
        seen = self.attention.look(tuple(level.detach() for level in pyramid))
        percept = self.perceiver(tokens.codes, seen.map.detach().unflatten(0, centred.shape[:2]))
        contexts = self.second_observation.add(percept.contexts, states)
        return Sight(tokens, pyramid, seen, percept._replace(contexts=contexts))

    def infer(self, sight: Sight) -> DiagonalGaussian:
        """q(z_t | x_t, c_t) of all frames, `[B,T,latent]`."""
        contexts = sight.percept.contexts
        return self.encoder(sight.pyramid, contexts.flatten(0, 1)).unflatten(contexts.shape[0])

    def follow(
        self,
        latents: Float[Tensor, "B T latent"],
        contexts: Float[Tensor, "B T context"],
        actions: Float[Tensor, "B T A"],
    ) -> Track:
        """Beliefs and priors along T latents, contexts and (admitted) actions: the part of a pass that sees no frame.

        In training mode the belief reads, on random spans, the implied context in the place of the given one.
        """
        contexts = contexts.to(latents.dtype)
        steps = F.pad(latents[:, 1:] - latents[:, :-1], (0, 0, 1, 0))
        if self.training and self.config.context_dropout > 0 and self.config.context_width:
            with torch.no_grad():
                implied = self.imply_context(self.dynamics(latents, steps, contexts, actions), latents)
            batch, length = latents.shape[:2]
            dropped = imagination.random_spans(batch, length, self.config.context_dropout, latents.device)
            contexts = torch.where(dropped[..., None], implied, contexts)
        beliefs = self.dynamics(latents, steps, contexts, actions)
        implied = self.imply_context(beliefs, latents)
        expected = self.expect_context(beliefs)
        return Track(
            latents=latents,
            steps=steps,
            prior=self.prior(beliefs, *self._recent(latents, steps), expected),
            beliefs=beliefs,
            expected_contexts=expected,
            implied_contexts=implied,
            belief_contexts=contexts,
            actions=actions,
        )

    def decode(self, latents: Float[Tensor, "N latent"], attention: Float[Tensor, "N h w"]) -> Float[Tensor, "N 3 H W"]:
        """Mean frames of p(x | z, A), clipped to [0, 1] in eval mode only, so that training keeps its gradient.

        Raises:
            AimeError: if latents or maps have another shape, or are not finite.
        """
        with Admission(self) as admit:
            return self.draw(*admit.latents(latents, attention))

    def draw(self, latents: Float[Tensor, "N latent"], attention: Float[Tensor, "N h w"]) -> Float[Tensor, "N 3 H W"]:
        """`decode` for latents and maps of the model's own: it looks at nothing."""
        return self.restore(self.decoder(latents, attention))

    def redraw(self, codes: Float[Tensor, "B T code h w"]) -> Float[Tensor, "B T 3 H W"]:
        """The tokenizer's own frames from code vectors, clipped to [0, 1] in eval mode."""
        return self.restore(self.tokenizer.reconstruct(codes))

    def centre(self, frames: Frames) -> Float[Tensor, "B T 3 H W"]:
        """Frames of the model's shape as floats less the mean frame, in [-1, 1]; their numbers are not looked at.

        Where most of a frame is background, what moves is all that is left: without this, latents of different frames
        start out nearly equal, and now and then a run never learns to tell them apart.

        Raises:
            AimeError: if the frames do not have the model's shape.
        """
        return input_validation.admit_frames(frames, self.config, self.null_action) - _innermost(self.mean_image)

    def restore(self, centred: Float[Tensor, "*N 3 H W"]) -> Float[Tensor, "*N 3 H W"]:
        """Centred frames with the mean frame added back, clipped to [0, 1] in eval mode."""
        frames = centred.to(self.mean_image.dtype) + _innermost(self.mean_image)
        return frames if self.training else frames.clamp(0, 1)

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
            return self.perceive(self.centre(given), admit.states(states, given.shape[:2]))

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
        return imagination.predict_future(self, context_frames, actions, samples, seed, horizon, states)

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

    def advance(
        self, state: DreamState, action: Float[Tensor, "N A"]
    ) -> tuple[Float[Tensor, "N belief"], Float[Tensor, "N belief"]]:
        """The belief and cell after (z_t, c_t, a_t)."""
        return self.dynamics.step(state.latent, state.step, state.context, action, state.belief, state.cell)

    def believe(
        self,
        belief: Float[Tensor, "... belief"],
        last_latent: Float[Tensor, "... latent"],
        last_step: Float[Tensor, "... latent"],
    ) -> DirichletProcessMixture:
        """p(z_t | h_{t-1}, z_{t-1}, z_{t-2}, expected context), the last step being z_{t-1} - z_{t-2}."""
        return self.prior(belief, last_latent, last_step, self.expect_context(belief))

    def arrive(
        self,
        belief: Float[Tensor, "N belief"],
        cell: Float[Tensor, "N belief"],
        latent: Float[Tensor, "N latent"],
        last_latent: Float[Tensor, "N latent"],
    ) -> DreamState:
        """The state in which z was imagined rather than seen: the context is the one that z implies."""
        return DreamState(belief, cell, latent, latent - last_latent, self.imply_context(belief, latent))

    def _recent(
        self, latents: Float[Tensor, "B T latent"], steps: Float[Tensor, "B T latent"]
    ) -> tuple[Float[Tensor, "B T latent"], Float[Tensor, "B T latent"]]:
        """Latent and step before each frame, without gradient."""
        # with one, the prior would pull each latent towards the next until none says anything
        first = repeat(self.initial_latent, "d -> b 1 d", b=latents.shape[0])
        return torch.cat([first, latents[:, :-1].detach()], dim=1), F.pad(steps[:, :-1].detach(), (0, 0, 1, 0))


def _innermost(image: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 H W"]:
    # the memory layout of the frames it is added to
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
