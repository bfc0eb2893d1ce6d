"""The variants of an ablation: the complete model, and models without one part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from aime.training.config import TrainConfig

COMPLETE = "complete"
"""The variant that all others are compared with."""


@dataclass(frozen=True)
class Variant:
    """A variant of the complete model."""

    without: str
    """The part that is left out, for the table."""
    switch: Callable[[TrainConfig], TrainConfig]
    """Maps the config of the complete model to that of the variant."""


def complete(config: TrainConfig) -> TrainConfig:
    """The config with every part on: attention schema, context, mixture, heads, RGB, adversary.

    Sizes and weights do not change.
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
    "uniform-attention": Variant("attention schema (uniform maps)", _uniform_attention),
    "no-context": Variant("Perceiver and context", _no_context),
    "single-gaussian": Variant("mixture (single Gaussian prior)", _single_gaussian),
    "no-adversary": Variant("the adversarial task", _no_adversary),
    "sum": Variant("RGB: gradients are summed", _sum),
    "no-overshooting": Variant("overshooting", _no_overshooting),
    "no-dynamics-finetuning": Variant("dynamics fine-tuning", _no_dynamics_finetuning),
    "spine": Variant("attention schema, adversarial task and RGB", _spine),
}
"""By name, as in `--variants` and the run directories; in the default order."""
