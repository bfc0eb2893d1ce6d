"""What an ablation compares: the complete model, and the switches that take one part away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from aime.training.config import TrainConfig

COMPLETE = "complete"
"""The variant that all others are held against."""


@dataclass(frozen=True)
class Variant:
    """One way to train."""

    without: str
    """What it leaves out, in words for a table."""
    switch: Callable[[TrainConfig], TrainConfig]
    """Takes the complete run's config, gives the variant's."""


def complete(config: TrainConfig) -> TrainConfig:
    """Every pillar and task on, whatever the presets' defaults are: schema, context, mixture, heads, RGB, adversary.

    Sizes and weights stay as they are.
    """
    model = config.model
    model = replace(
        model,
        attention=replace(model.attention, kind="schema"),
        perceiver=replace(model.perceiver, kind="causal"),
        prior=replace(model.prior, kind="mixture"),
        control=replace(model.control, kind="heads"),
    )
    return replace(config, model=model, adversary=replace(config.adversary, enabled=True), balancer="rgb")


def _uniform_attention(config: TrainConfig) -> TrainConfig:
    attention = replace(config.model.attention, kind="uniform")
    return replace(config, model=replace(config.model, attention=attention))


def _no_context(config: TrainConfig) -> TrainConfig:
    return replace(config, model=replace(config.model, perceiver=replace(config.model.perceiver, kind="none")))


def _single_gaussian(config: TrainConfig) -> TrainConfig:
    return replace(config, model=replace(config.model, prior=replace(config.model.prior, kind="single_gaussian")))


def _no_adversary(config: TrainConfig) -> TrainConfig:
    return replace(config, adversary=replace(config.adversary, enabled=False))


def _sum(config: TrainConfig) -> TrainConfig:
    return replace(config, balancer="sum")


def _no_overshooting(config: TrainConfig) -> TrainConfig:
    predictive = replace(config.weights.predictive, overshoot_latent=0.0, overshoot_frames=0.0)
    return replace(config, weights=replace(config.weights, predictive=predictive))


def _no_dynamics_finetuning(config: TrainConfig) -> TrainConfig:
    return replace(config, dynamics_finetuning=replace(config.dynamics_finetuning, share=0.0))


def _spine(config: TrainConfig) -> TrainConfig:
    return _no_adversary(_sum(_uniform_attention(config)))


VARIANTS: dict[str, Variant] = {
    COMPLETE: Variant("nothing", lambda config: config),
    "uniform-attention": Variant("the attention schema: every map is uniform", _uniform_attention),
    "no-context": Variant("the Perceiver and its context", _no_context),
    "single-gaussian": Variant("the mixture: the prior is one Gaussian", _single_gaussian),
    "no-adversary": Variant("the adversarial task", _no_adversary),
    "sum": Variant("RGB: gradients are summed", _sum),
    "no-overshooting": Variant("overshooting", _no_overshooting),
    "no-dynamics-finetuning": Variant(
        "dynamics fine-tuning: belief and prior never learn on fixed latents", _no_dynamics_finetuning
    ),
    "spine": Variant("attention schema, adversarial task and RGB", _spine),
}
"""By the name that `--variants` and the run directories take; all of them by default, in this order."""
