"""The weight of every loss term, and the shape of the overshooting; each field name is a term's name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from aime.errors import expect_sizes
from aime.primitives.config_io import LATER, Removed


@dataclass(frozen=True)
class ElboWeights:
    """Weights of the terms of the evidence lower bound, all in nats per frame."""

    reconstruction: float = 1.0
    kl_z: float = 1.0
    kl_hierarchical: float = 0.1
    kl_attention: float = 1.0
    entropy: float = 0.1
    """Of the entropy of the batch's mean mixture weights, which is maximised: the term is its negative."""
    gram: float = 0.01
    """Of the textures' distance (Gram loss)."""
    reward: float = 1.0
    continuation: float = 1.0
    state_nll: float = field(default=1.0, metadata=LATER)
    """Of the observed state, where the model has one (`--observe-state`)."""


@dataclass(frozen=True)
class PerceiverWeights:
    """Weights of the terms of the perceiver task."""

    vq_commitment: float = 1.0
    tokenizer_reconstruction: float = 1.0
    token_reconstruction: float = 1.0


@dataclass(frozen=True)
class PredictiveWeights:
    """Weights of the terms of the predictive task."""

    attention_dynamics: float = 1.0
    slot_overlap: float = 0.1
    slot_reconstruction: float = 0.1
    expected_context: float = 1.0
    implied_context: float = 1.0
    one_step_latent: float = 1.0
    action: float = 1.0
    inverse_dynamics: float = 1.0
    overshoot_latent: float = 0.3
    overshoot_frames: float = 0.03
    """Small, since an imagined frame that is wrong costs thousands of nats."""


@dataclass(frozen=True)
class AdversarialWeights:
    """Weights of the terms of the adversarial task.

    With these each term pulls at a pixel 0.03 to 0.04 times as hard as the reconstruction (see `adversarial_loss`):
    enough to lean towards sharp among pictures that are equally likely, not to leave the likely ones.
    """

    image_generator: float = 1.0
    temporal_generator: float = 1.0
    feature_matching: float = 0.1


@dataclass(frozen=True)
class LossWeights:
    """All weights."""

    elbo: ElboWeights = field(default_factory=ElboWeights)
    perceiver: PerceiverWeights = field(default_factory=PerceiverWeights)
    predictive: PredictiveWeights = field(default_factory=PredictiveWeights)
    adversarial: AdversarialWeights = field(default_factory=AdversarialWeights)
    kl_balance: ClassVar[Removed] = Removed({"prior": 1.0, "posterior": 1.0, "free_nats": 1.0})
    """Factors of the gradients of KL_z, now constants of `clamped_kl`."""
    attention_balance: ClassVar[Removed] = Removed({"prior": 0.5, "posterior": 0.5})
    """Factors of the gradients of KL_attention, now constants of `attention_kl`."""


@dataclass(frozen=True)
class OvershootConfig:
    """Prediction of several steps in training.

    Raises:
        AimeError: if `steps` is below 1.
    """

    steps: int = 15
    """Frames predicted from each start."""
    starts: ClassVar[int] = 2
    """Starts in each clip, spread evenly with a random offset."""
    frames: ClassVar[int] = 16
    """Predicted frames of a batch that are decoded and compared."""

    def __post_init__(self) -> None:
        expect_sizes(self, "steps", of="overshoot")
