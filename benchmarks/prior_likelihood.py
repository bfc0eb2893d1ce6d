"""Mixture or single Gaussian: both priors retrained on the same frozen beliefs and posteriors, and held out.

    python benchmarks/prior_likelihood.py runs/demo

Priors of two trainings cannot be compared by likelihood, since each training makes latents of its own. Here a run's
model is frozen, and fresh priors with the same hidden layer learn, for the same steps by the same optimizer from the
same minibatches, p(z_t | h_{t-1}, z_{t-1}, z_{t-2}, expected context) of its frames. The mixture is trained twice: with
the weights that a training gives to sticks and entropy, and by likelihood alone, as the Gaussian is.

Figures are -log p(z) in nats per frame, z sampled from the posterior, on frames after the context of the
test part, with 95 % intervals over episodes.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from aime.data import Clips, load_clips, open_dataset
from aime.data.clips import clip_starts, read_clips
from aime.dynamics.prior import DirichletProcessMixture
from aime.dynamics.priors import PRIORS
from aime.inference.loading import load_run
from aime.inference.unseen import open_unseen
from aime.objectives.weights import ElboWeights
from aime.primitives.distributions import DiagonalGaussian
from aime.primitives.hardware import Device
from aime.primitives.intervals import interval_over
from aime.representation.divergences import hierarchical_kl, weights_entropy
from aime.runs.schedule import learning_rate_factor
from aime.world_model.model import AIME


class Frames(NamedTuple):
    """What a frozen model makes of N clips of T frames: all that a prior reads, and what it is to predict."""

    beliefs: Float[Tensor, "N T belief"]
    last_latents: Float[Tensor, "N T latent"]
    last_steps: Float[Tensor, "N T latent"]
    expected_contexts: Float[Tensor, "N T context"]
    means: Float[Tensor, "N T latent"]
    """Of the posterior, like the next."""
    stds: Float[Tensor, "N T latent"]

    def flat(self) -> Frames:
        """Clips and frames on one axis."""
        return Frames(*(field.flatten(0, 1) for field in self))

    def believed(self, prior: nn.Module) -> DirichletProcessMixture:
        """The prior of every frame."""
        return prior(self.beliefs, self.last_latents, self.last_steps, self.expected_contexts)

    def sample(self) -> Float[Tensor, "*N latent"]:
        """One latent of every frame's posterior."""
        return DiagonalGaussian(self.means, self.stds).rsample()


@torch.no_grad()
def frozen(model: AIME, clips: Clips, at_once: int = 4) -> Frames:
    """Watch clips with a model in eval mode."""
    parts = []
    for start in range(0, clips.frames.shape[0], at_once):
        frames, actions = clips.frames[start : start + at_once], clips.actions[start : start + at_once]
        output = model.forward_sequence(frames.to(model.device), actions.to(model.device))
        track, posterior = output.track, output.posterior
        first = model.dynamics.initial_latent.expand(len(frames), 1, -1)
        parts.append(
            Frames(
                beliefs=track.beliefs,
                last_latents=torch.cat([first, track.latents[:, :-1]], dim=1),
                last_steps=torch.cat([torch.zeros_like(first), track.steps[:, :-1]], dim=1),
                expected_contexts=track.expected_contexts,
                means=posterior.mean,
                stds=posterior.std,
            )
        )
    return Frames(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def train_prior(
    prior: nn.Module, frames: Frames, set_aside: Frames, weights: ElboWeights, options: argparse.Namespace
) -> int:
    """-log p(z), and what the weights give to sticks and entropy, on minibatches of single frames.

    Leaves the weights of the step that was best on the clips set aside, and returns that step.
    """
    torch.manual_seed(options.seed + 1)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=options.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    best, best_step, best_weights = math.inf, 0, prior.state_dict()
    for step in range(options.steps):
        prior.train()
        optimizer.param_groups[0]["lr"] = options.learning_rate * learning_rate_factor(step, step / options.steps, 30)
        # of its own generator: a mixture draws sticks, and all priors shall see the same frames
        generator = torch.Generator().manual_seed(options.seed * options.steps + step)
        drawn = torch.randint(frames.means.shape[0], (options.batch,), generator=generator).to(frames.means.device)
        noise = torch.randn(options.batch, frames.means.shape[1], generator=generator).to(frames.means.device)
        batch = Frames(*(field[drawn] for field in frames))
        believed = batch.believed(prior)
        loss = -believed.mixture.log_prob(batch.means + batch.stds * noise).mean()
        if believed.mixture.log_weights.shape[-1] > 1:
            if weights.kl_hierarchical:
                sticks = hierarchical_kl(believed.sticks, believed.concentration)
                loss = loss + weights.kl_hierarchical * sticks.mean()
            if weights.entropy:
                log_weights = believed.mixture.log_weights
                every = torch.ones(log_weights.shape[:-1], dtype=torch.bool, device=log_weights.device)
                loss = loss - weights.entropy * weights_entropy(log_weights, every)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(prior.parameters(), 100.0)
        optimizer.step()
        if step % 50 == 49:
            nats = float(clip_nats(prior, set_aside, options.context).mean())
            if nats < best:
                best, best_step, best_weights = nats, step + 1, copy.deepcopy(prior.state_dict())
    prior.load_state_dict(best_weights)
    return best_step


@torch.no_grad()
def clip_nats(prior: nn.Module, frames: Frames, context: int, samples: int = 8) -> Float[Tensor, " N"]:
    """Of every clip, the mean over frames after the context of -log p(z)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mixture = frames.believed(prior.eval()).mixture
        return torch.stack([-mixture.log_prob(frames.sample()) for _ in range(samples)]).mean(0)[:, context:].mean(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=512, help="frames in a minibatch")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--train-clips", type=int, default=192, help="clips of training episodes")
    parser.add_argument("--clips", type=int, default=64, help="clips of held-out episodes")
    parser.add_argument("--length", type=int, default=50, help="frames in a clip")
    parser.add_argument("--context", type=int, default=5, help="first frames of a held-out clip that do not count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)
    device: Device = options.device
    info, model = load_run(options.run, device)
    model.requires_grad_(False)
    unseen = open_unseen(info, None, options.context, options.length - options.context)
    seen = open_dataset(info.data, "train", float(info.train["held_out"]))
    by_rest = [[e for e in range(seen.episodes) if (e % 10 == 9) == last] for last in (False, True)]
    kept, aside = (seen.select(episodes) for episodes in by_rest)
    train = frozen(model, load_clips(kept, options.length, options.train_clips))
    set_aside = frozen(model, load_clips(aside, options.length, options.clips))
    places = clip_starts(unseen.dataset, options.length, options.clips)
    held_out = frozen(model, read_clips(unseen.dataset, places, options.length))
    usual, alone = ElboWeights(), ElboWeights(kl_hierarchical=0.0, entropy=0.0)
    figures: dict[str, object] = {
        "run": str(options.run),
        "steps": options.steps,
        "training_frames": train.means[..., 0].numel(),
        "held_out_clips": len(held_out.means),
    }
    by_name = {"as_trained": clip_nats(model.dynamics.prior, held_out, options.context)}
    kinds: tuple[tuple[str, Literal["mixture", "single_gaussian"], ElboWeights], ...] = (
        ("single_gaussian", "single_gaussian", alone),
        ("mixture", "mixture", usual),
        ("mixture_by_likelihood", "mixture", alone),
    )
    for name, kind, weights in kinds:
        torch.manual_seed(options.seed)
        config = replace(model.config, prior=replace(model.config.prior, kind=kind))
        sizes = config.belief, config.context_width, config.latent
        prior = PRIORS[kind](config.prior, *sizes).to(model.device)
        figures[f"{name}_stopped_at"] = train_prior(prior, train.flat(), set_aside, weights, options)
        figures[f"{name}_parameters"] = sum(weight.numel() for weight in prior.parameters())
        by_name[name] = clip_nats(prior, held_out, options.context)
    for name, nats in by_name.items():
        figures[f"{name}_nats"] = mean_over_episodes(nats, places.episodes)
        figures[f"{name}_less_single_gaussian"] = mean_over_episodes(nats - by_name["single_gaussian"], places.episodes)
    for name, value in figures.items():
        print(f"{name:32} {value}")
    print(json.dumps(figures))


def mean_over_episodes(nats: Float[Tensor, " N"], episodes: Int64[np.ndarray, " N"]) -> dict[str, float]:
    """Mean over clips with its 95 % interval."""
    own = nats.double().cpu().numpy()
    return asdict(interval_over(lambda counts: counts @ own / counts.sum(1), episodes))


if __name__ == "__main__":
    main()
