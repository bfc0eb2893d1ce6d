"""Futures of a context: imagined on vectors, then drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils._pytree import tree_map_only

from aime.dynamics.choices import Choice, likeliest
from aime.dynamics.states import Carry
from aime.errors import AimeError
from aime.primitives.distributions import Pickable, from_uniforms
from aime.primitives.seeded_noise import Seeds, seeded_uniforms
from aime.world_model.checked_inputs import CheckedInputs
from aime.world_model.core import Actions, Frames, States, WorldModel
from aime.world_model.outputs import FuturePrediction

DECODED_AT_ONCE = 256
"""Frames that a prediction decodes in one call, which bounds its memory."""


class Predicting(WorldModel):
    """A world model that predicts the frames after others."""

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
        """Predict the F frames after C context frames, under given actions or those of the action schema.

        Args:
            context_frames: `[B,C,3,H,W]`, uint8 or float in [0, 1].
            actions: `[B,C+F,A]` in [-1, 1]; the last one is unused. With a `horizon`, as many as are known, or None.
            samples: None for the single most likely future (the heaviest component's mean at each step), or the
                number of sampled futures, which adds an axis after B.
            seed: of the sampled futures: one for each row, or one number, with which row n has the seed `seed + n`. The
                noise of a row depends on its seed alone, not on the batch or the device.
            horizon: F; missing actions are the action schema's mode, or with `samples` a sample of it.
            states: `[B,C,S]` of the context frames, as in `forward_sequence`.

        Raises:
            AimeError: if shapes, types or ranges do not fit the model, or actions are missing without an action schema.
        """
        if samples is not None and samples < 1:
            raise AimeError(f"samples is {samples}; expected 1 or more, or None for the single most likely future")
        with CheckedInputs(self) as checked:
            frames = checked.frames(context_frames, "context_frames")
            batch, seen = frames.shape[:2]
            given = checked.any_actions(actions, batch)
            known = _known_future(self, seen, given, horizon)
            if given is not None:
                # nothing reads an action after the last predicted frame
                checked.action_values(given[:, : seen - 1 + known.shape[1]], "actions")
            past = _known_past(frames, given)
            context = self.filter_sequence(frames, *past, checked.states(states, frames.shape[:2]))
            start = self.dynamics.states_at(context.track, -1)
            return predict_from(self, start, context.maps[:, -1], known, samples, seed, horizon)


def predict_from(
    model: WorldModel,
    start: Carry,
    last_map: Float[Tensor, "B h w"],
    known: Float[Tensor, "B K A"],
    samples: int | None = None,
    seed: Seeds = 0,
    horizon: int | None = None,
) -> FuturePrediction:
    """Predict the F frames after a carry, under K known actions and then the action schema's.

    Args:
        model: in eval mode.
        start: after the last frame that is seen; see `LatentDynamics.states_at`.
        last_map: U of that frame.
        known: from that frame on; ranges are not checked.
        samples: as in `AIME.predict_future`.
        seed: as in `AIME.predict_future`.
        horizon: F, K by default; beyond K the model needs an action schema.
    """
    dynamics, count = model.dynamics, samples or 1
    batch, steps = start.latent.shape[0], known.shape[1] if horizon is None else horizon
    start = start.repeated(count)
    given = repeat(known.to(model.null_action), "b f a -> (b s) f a", s=count)
    noise = None if samples is None else _future_noise(model, seed, (batch, samples, steps))

    def act(carry: Carry, number: int) -> Tensor:
        if number < given.shape[1]:
            return given[:, number]
        assert dynamics.control is not None, "checked with the actions"
        behaviour = dynamics.control.action_schema(*carry.read)
        return (behaviour.mode if noise is None else behaviour.from_uniforms(noise[1][:, number])).to(carry.latent)

    def draw(mixture: Pickable, number: int) -> Choice:
        return likeliest(mixture, number) if noise is None else Choice(*from_uniforms(mixture, noise[0][:, number]))

    dream = dynamics.behave(start, act, steps, draw)
    last_map = repeat(last_map, "b h w -> (b s) h w", s=count)
    attention = model.attention.roll(dream.beliefs, dream.latents, last_map)
    frames = decode_in_chunks(model, dream.latents.flatten(0, 1), attention.flatten(0, 1))
    predicted = dynamics.predict_state(*dream.read)
    future = FuturePrediction(
        frames=frames.unflatten(0, (-1, steps)),
        latents=dream.latents,
        mixture_weights=dream.log_weights.exp(),
        components=dream.components,
        attention=attention,
        actions=dream.actions,
        states=predicted,
    )
    return (
        future if samples is None else tree_map_only(Tensor, lambda each: each.unflatten(0, (batch, samples)), future)
    )


def _future_noise(model: WorldModel, seed: Seeds, shape: tuple[int, int, int]) -> Sequence[Float[Tensor, "N F width"]]:
    """The uniform numbers that latents and actions of S samples of B clips are drawn by."""
    prior, control = model.dynamics.prior, model.dynamics.control
    sizes = [prior.noise_width, 0 if control is None else control.action_schema.next_action.noise_width]
    noise = seeded_uniforms(seed, (*shape, sum(sizes)), "future", model.device)
    return rearrange(noise, "b s f width -> (b s) f width").split(sizes, dim=-1)


def _known_future(model: WorldModel, seen: int, actions: Tensor | None, horizon: int | None) -> Float[Tensor, "B F A"]:
    """The given actions from the last context frame on."""
    if horizon is None:
        if actions is None or actions.shape[1] <= seen:
            found = "None" if actions is None else f"of shape {list(actions.shape)}"
            raise AimeError(
                f"actions are {found}; expected [B, context + horizon, A] with more than {seen} steps: give an action "
                "for every frame, the context's included, or a horizon to let the model act"
            )
        return actions[:, seen - 1 : -1]
    if horizon < 1:
        raise AimeError(f"horizon is {horizon}; expected 1 or more frames")
    nothing = model.null_action.new_zeros(1, 0, model.config.action_width)
    known = nothing if actions is None else actions[:, seen - 1 : seen - 1 + horizon]
    if known.shape[1] < horizon and model.dynamics.control is None:
        raise AimeError(
            f"horizon is {horizon} with {known.shape[1]} actions given, and the model has no action schema "
            "(model.control.kind is none); expected an action for every step: give them"
        )
    return known


def _known_past(
    frames: Float[Tensor, "B C 3 H W"], actions: Float[Tensor, "B CF A"] | None
) -> tuple[Float[Tensor, "B C A"] | None, Bool[Tensor, "B C"] | None]:
    """The given actions of the context frames, and which of them are given."""
    if actions is None:
        return None, None
    past, seen = actions[:, : frames.shape[1]], frames.shape[1]
    valid = torch.arange(seen, device=past.device) < past.shape[1]
    return F.pad(past, (0, 0, 0, seen - past.shape[1])), valid.expand(past.shape[0], seen)


def decode_in_chunks(
    model: WorldModel, latents: Float[Tensor, "N latent"], attention: Float[Tensor, "N h w"]
) -> Float[Tensor, "N 3 H W"]:
    """Decode any number of latents in bounded memory."""
    chunks = zip(latents.split(DECODED_AT_ONCE), attention.split(DECODED_AT_ONCE), strict=True)
    return torch.cat([model.draw(latent, maps) for latent, maps in chunks])
