"""The vector world: all of the model that sees no frame, behind `start`, `scan`, `states_at` and `step`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from aime.dynamics.choices import Choice, Chooser, Picker, likeliest, sampled
from aime.dynamics.contexts import ContextHead, NoContextHead
from aime.dynamics.heads.control import Control
from aime.dynamics.heads.state import StateHead
from aime.dynamics.prior import DirichletProcessMixture
from aime.dynamics.priors import Prior
from aime.dynamics.recurrences.interface import Memory, Recurrence
from aime.dynamics.states import Carry, Dream, Track, Widths
from aime.errors import AimeError
from aime.primitives.autocast import fp32_if_grad
from aime.primitives.belief_mlp import STEP_SCALE
from aime.primitives.draws import random_spans
from aime.primitives.graphed_calls import call_graphed

Act = Callable[[Carry, int], Float[Tensor, "N A"]]
"""Takes the state of a step and the step's number from 0, gives the actions there, in [-1, 1]."""

NO_REWARDS = (
    "the model's reward head has never seen a reward; expected one that has learned from rewards: train on data that "
    "has them, as `aime data` says of a data set"
)


class LatentDynamics(nn.Module):
    """Belief, prior, guessed contexts and heads: latents, contexts and actions in, beliefs and futures out.

        belief      h_t from h_{t-1} and [z_t, (z_t - z_{t-1})/s, c_t, a_t], s = 0.2, by the recurrence
        prior       p(z_t | h_{t-1}, z_{t-1}, z_{t-2}, expected context)
        contexts    expected from h_{t-1}; implied by (h_{t-1}, z_t), which stands for c_t in imagination
        heads       reward, continuation, action and state of step t from (h_{t-1}, z_t, z_t - z_{t-1})

    `scan` follows whole clips, `states_at` gives the carry after any of their frames, and `step`, `rollout` and
    `behave` go on from a carry without frames. The memory in a carry belongs to the recurrence alone.
    """

    def __init__(
        self,
        prior: Prior,
        recurrence: Recurrence,
        expect_context: ContextHead | NoContextHead,
        imply_context: ContextHead | NoContextHead,
        control: Control | None,
        state_head: StateHead | None,
        widths: Widths,
        context_dropout: float,
    ) -> None:
        """Join the parts.

        Args:
            prior: of the next latent.
            recurrence: of inputs that are 2 · latent + context + action wide.
            expect_context: from the belief.
            imply_context: from belief and latent.
            control: reward, continuation and action heads; None for a model without.
            state_head: None for a model that observes no state.
            widths: of all vectors.
            context_dropout: share of training clips in which, on a random span, the belief reads the implied instead
                of the seen context.
        """
        super().__init__()
        self.widths, self.context_dropout = widths, context_dropout
        self.prior, self.recurrence = prior, recurrence
        self.expect_context, self.imply_context = expect_context, imply_context
        self.control, self.state_head = control, state_head
        self.initial_latent = nn.Parameter(torch.zeros(widths.latent))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.initial_latent.device

    def start(self, batch: int) -> Carry:
        """The state of `batch` videos before their first frame; its latent is the learned one that the prior reads."""
        belief, memory = self.recurrence.initial(batch)
        latent = repeat(self.initial_latent, "d -> b d", b=batch)
        return Carry(belief, memory, latent, torch.zeros_like(latent), latent.new_zeros(batch, self.widths.context))

    def scan(
        self,
        latents: Float[Tensor, "B T latent"],
        contexts: Float[Tensor, "B T context"],
        actions: Float[Tensor, "B T A"],
        entering: Carry | None = None,
        fresh: Bool[Tensor, " B"] | None = None,
    ) -> Track:
        """Beliefs and priors along T steps.

        In training mode the belief reads, on random spans, the implied context in place of the given one.

        Args:
            latents: z_t.
            contexts: c_t.
            actions: taken after each step, as the belief reads them: missing ones are the null action.
            entering: the state that enters the first step, from `enter`; None where all videos begin.
            fresh: rows of `entering` in which a video begins.
        """
        contexts = contexts.to(latents.dtype)
        if entering is None:
            entering = self.start(latents.shape[0])
            steps = F.pad(latents[:, 1:] - latents[:, :-1], (0, 0, 1, 0))
        else:
            steps = torch.diff(torch.cat([entering.latent[:, None], latents], dim=1), dim=1)
            if fresh is not None:
                steps = torch.cat([steps[:, :1].masked_fill(fresh[:, None, None], 0), steps[:, 1:]], dim=1)
        belief, memory = entering.belief, entering.memory
        if self.training and self.context_dropout > 0 and self.widths.context:
            with torch.no_grad():
                beliefs = self.recurrence(_joined(latents, steps, contexts, actions), belief, memory)
                implied = self.imply_context(beliefs, latents)
            batch, length = latents.shape[:2]
            dropped = random_spans(batch, length, self.context_dropout, latents.device)
            contexts = torch.where(dropped[..., None], implied, contexts)
        beliefs = self.recurrence(_joined(latents, steps, contexts, actions), belief, memory)
        implied = self.imply_context(beliefs, latents)
        expected = self.expect_context(beliefs)
        # no gradient to the past: the prior would pull each latent towards the next until they carry no information
        last_latents = torch.cat([entering.latent[:, None], latents[:, :-1].detach()], dim=1)
        last_steps = torch.cat([entering.step[:, None], steps[:, :-1].detach()], dim=1)
        return Track(
            latents=latents,
            steps=steps,
            prior=self.prior(beliefs, last_latents, last_steps, expected),
            beliefs=beliefs,
            expected_contexts=expected,
            implied_contexts=implied,
            belief_contexts=contexts,
            actions=actions,
            memory=memory,
        )

    def enter(self, carry: Carry, action: Float[Tensor, "N A"], fresh: Bool[Tensor, " N"]) -> Carry:
        """The state that enters the step after `action`; where a video is fresh, the state before its first frame."""
        belief, memory = self._advance(carry, action)
        return carry._replace(belief=belief, memory=memory).where(fresh, self.start(fresh.shape[0]))

    def states_at(self, track: Track, times: int | Int[Tensor, " S"]) -> Carry:
        """The state to go on from after one step of a track, `[B,·]`, or after each of several, `[B,S,·]`."""
        inputs = _joined(track.latents, track.steps, track.belief_contexts, track.actions)
        memories = self.recurrence.memories(inputs, track.beliefs, track.memory)
        carry = Carry(track.beliefs, memories, track.latents, track.steps, track.belief_contexts)
        return carry.map(lambda each: each[:, times])

    def step(
        self, carry: Carry, action: Float[Tensor, "N A"], choose: Chooser, number: int = 0
    ) -> tuple[Carry, DirichletProcessMixture, Choice]:
        """Advance by (z, c, a) and take the next z from the prior: the state then, that prior, and what was chosen."""
        with fp32_if_grad(carry.latent):
            belief, memory = self._advance(carry, action)
            prior = self.prior(belief, carry.latent, carry.step, self.expect_context(belief))
            choice = choose(prior.mixture, number)
            return self._arrive(belief, memory, choice.latent, carry.latent), prior, choice

    def repeat(
        self, path: Sequence[Carry], actions: Float[Tensor, "N K A"]
    ) -> tuple[Float[Tensor, "N K belief"], DirichletProcessMixture]:
        """Beliefs and priors `[N,K,...]` of K steps that were taken, all at once.

        They are those of `step` from each of the K states of `path`. Latents, steps and contexts are taken from there;
        of the beliefs and memories only the first, and a gradient runs along the beliefs.
        """
        latents, steps, contexts = (
            torch.stack([getattr(each, name) for each in path], dim=1) for name in ("latent", "step", "context")
        )
        inputs = _joined(latents, steps, contexts, actions)
        with fp32_if_grad(latents):
            # the belief after K inputs is the one that enters step K + 1
            beliefs = self.recurrence(F.pad(inputs, (0, 0, 0, 1)), path[0].belief, path[0].memory)[:, 1:]
            return beliefs, self.prior(beliefs, latents, steps, self.expect_context(beliefs))

    def rollout(self, start: Carry, actions: Float[Tensor, "N F A"], choose: Picker) -> Dream:
        """Imagine F steps from N states under given actions; see `behave`.

        On a GPU it is called as a CUDA graph: see `call_graphed`.
        """
        if choose in (likeliest, sampled):
            return call_graphed(_rollout, self, (start, actions), choose)
        return _rollout(self, (start, actions), choose)

    def behave(self, start: Carry, act: Act, count: int, choose: Picker) -> Dream:
        """Imagine `count` steps from N states, doing what `act` says.

        Step f of the result is the arrival after action f. The numbers are those of F calls of `step`, with less work:
        the weights are laid out once, and of each prior's components one alone is computed.
        """
        carry = start
        steps: list[tuple[Tensor, ...]] = []
        with fp32_if_grad(start.latent):
            advance, prior = self.recurrence.many_steps(), self.prior.lazy()
            for number in range(count):
                latent, action = carry.latent, act(carry, number)
                inputs = _joined(latent, carry.step, carry.context, action)
                belief, memory = advance(inputs, carry.belief, carry.memory)
                mixture = prior(belief, latent, carry.step, self.expect_context(belief))
                choice = choose(mixture, number)
                carry = self._arrive(belief, memory, choice.latent, latent)
                steps.append((carry.latent, carry.step, belief, mixture.log_weights, choice.component, action))
        return Dream(*(torch.stack(field, dim=1) for field in zip(*steps, strict=True)))

    def predict_state(
        self,
        belief: Float[Tensor, "... belief"],
        latent: Float[Tensor, "... latent"],
        step: Float[Tensor, "... latent"],
    ) -> Float[Tensor, "... S"] | None:
        """The mean of p(s_t | h_{t-1}, z_t), in the state's own units; None where the model observes none."""
        return None if self.state_head is None else self.state_head.predict(belief, latent, step)

    def expect_control(self, because: str = "") -> Control:
        """The control heads; the message of an error begins with `because`.

        Raises:
            AimeError: if the model has none.
        """
        if self.control is None:
            raise AimeError(
                f"{because}the model has no reward head (model.control.kind is none); expected one that has learned "
                "from rewards: train without --model.control.kind none, on data with rewards"
            )
        return self.control

    def expect_rewards(self) -> Control:
        """The control heads, of which the reward head has learned from rewards; waits for the device.

        Raises:
            AimeError: if there is no reward head, or one that never saw a reward: its output is its initial one.
        """
        control = self.expect_control()
        if not bool(control.knows_rewards()):
            raise AimeError(NO_REWARDS)
        return control

    def _advance(self, carry: Carry, action: Float[Tensor, "N A"]) -> tuple[Float[Tensor, "N belief"], Memory]:
        """The belief and memory after (z_t, c_t, a_t)."""
        inputs = _joined(carry.latent, carry.step, carry.context, action)
        return self.recurrence.step(inputs, carry.belief, carry.memory)

    def _arrive(
        self,
        belief: Float[Tensor, "N belief"],
        memory: Memory,
        latent: Float[Tensor, "N latent"],
        last_latent: Float[Tensor, "N latent"],
    ) -> Carry:
        """The state in which z was imagined rather than seen: the context is the one that z implies."""
        return Carry(belief, memory, latent, latent - last_latent, self.imply_context(belief, latent))


def _rollout(dynamics: LatentDynamics, given: tuple[Carry, Float[Tensor, "N F A"]], choose: Picker) -> Dream:
    start, actions = given
    return dynamics.behave(start, lambda _, number: actions[:, number], actions.shape[1], choose)


def _joined(
    latents: Float[Tensor, "... latent"],
    steps: Float[Tensor, "... latent"],
    contexts: Float[Tensor, "... context"],
    actions: Float[Tensor, "... A"],
) -> Float[Tensor, "... inputs"]:
    """What the recurrence reads."""
    return torch.cat([latents, steps / STEP_SCALE, contexts, actions], dim=-1)
