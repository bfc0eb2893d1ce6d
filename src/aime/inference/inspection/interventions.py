"""The interventions of an inspection: each replaces one value that one part of the model passes to the next.

To add one, add an `Intervention` to `INTERVENTIONS`. It is then run, judged, printed and shown in the report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import tree_map_only

from aime.attention.kinds import ATTENTIONS
from aime.attention.schema import Attention
from aime.inference.inspection.measures import Kind
from aime.primitives.distributions import GaussianMixture
from aime.world_model.config import ModelConfig

Value = TypeVar("Value")

Place = Literal[
    "tokens",
    "slots",
    "context",
    "posterior context",
    "belief context",
    "implied context",
    "actions",
    "prior",
    "attention",
    "map",
]
"""Where a value can be replaced; everything that depends on it is computed again.

    tokens              indices `[B,T,h,w]`, which the Perceiver reads
    slots               `BottomUp`, fields `[B,T,…]`: the slots, their maps, and U_t, which is made of them
    context             c_t `[B,T,context]`, which posterior and belief read
    posterior context   c_t where the posterior reads it, and not where the belief does
    belief context      c_t where the belief reads it, and not where the posterior does
    implied context     c̃_t `[B,T,context]`, implied by (h, z), which the belief then reads in place of c_t
    actions             `[B,T,A]`, which the belief reads, the future ones too
    prior               mixtures `[…,K,latent]`, which score the latents and from which futures are sampled
    attention           `Attention`, fields `[B,T,…]`: all maps of frames seen; the decoder reads `shown`
    map                 `[…,h,w]`, which the decoder reads: A_t of frames seen, P_t of frames imagined

Neighbours among the B clips are of different episodes where there are several. Mixtures and maps may be those of some
of the clips.
"""

ALL: frozenset[Kind] = frozenset(get_args(Kind))
FRAMES: frozenset[Kind] = ALL - {"nats"}
"""Of a value that the belief does not read: the nats are those of the unchanged latents."""
SEEN: frozenset[Kind] = frozenset({"reconstruction", "body", "elbo"})
"""Of a value that imagined frames do not depend on."""
FUTURES: frozenset[Kind] = ALL - {"reconstruction", "body"}


@dataclass(frozen=True)
class Intervention:
    """A value replaced at one place.

    Attributes:
        part: the part of the model whose output is replaced.
        change: what it is replaced by.
        place: where the value is replaced.
        edit: the value to its replacement, of the same shape.
        measures: those that depend on the value; the others cannot change and are not computed.
        applies: whether a model of such a config has the part.
    """

    part: str
    change: str
    place: Place
    edit: Callable[[Any], Any]
    measures: frozenset[Kind] = ALL
    applies: Callable[[ModelConfig], bool] = lambda config: True

    @property
    def name(self) -> str:
        """Such as "context: of another clip"."""
        return f"{self.part}: {self.change}"

    def at(self, place: Place, value: Value) -> Value:
        """The value at a place, replaced if this is the intervention's place."""
        return self.edit(value) if place == self.place else value


def of_another_clip(value: Value) -> Value:
    """The value of the clip before; of the last one for the first."""
    return tree_map_only(Tensor, lambda each: each.roll(1, 0), value)


def mean_over_clips(value: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """The mean over all clips and frames, at every frame."""
    return value.mean(dim=(0, 1)).expand_as(value)


def commonest_token(tokens: Int[Tensor, "B T h w"]) -> Int[Tensor, "B T h w"]:
    """The most frequent token of each cell."""
    return tokens.flatten(0, 1).mode(dim=0).values.expand_as(tokens)


def uniform_map(maps: Float[Tensor, "*N h w"]) -> Float[Tensor, "*N h w"]:
    """The same share in every cell."""
    return torch.full_like(maps, 1 / (maps.shape[-2] * maps.shape[-1]))


def expected_map(attention: Attention) -> Attention:
    """The decoder is shown P_t, which has not seen the frame, in place of A_t."""
    return attention._replace(shown=attention.prior)


def unchanged(value: Value) -> Value:
    """The value itself, where another one is taken at its place."""
    return value


def moved_map(maps: Float[Tensor, "*N h w"]) -> Float[Tensor, "*N h w"]:
    """The map four cells further to the right; what leaves on the right enters on the left."""
    return maps.roll(4, dims=-1)


def moment_matched(mixture: GaussianMixture) -> GaussianMixture:
    """One Gaussian with the mixture's mean and variances, as a mixture of one component.

        σ² = Σ_k π_k (σ_k² + (μ_k - μ)²)

    The match of one component is that component itself, bit for bit.
    """
    weights, mean = mixture.weights[..., None], mixture.mean[..., None, :]
    variance = (weights * (mixture.stds.square() + (mixture.means - mean).square())).sum(dim=-2, keepdim=True)
    return GaussianMixture(torch.zeros_like(mixture.log_weights[..., :1]), mean, variance.sqrt())


def _has_context(config: ModelConfig) -> bool:
    return config.context_width > 0


def _attends(config: ModelConfig) -> bool:
    return ATTENTIONS[config.attention.kind].attends


INTERVENTIONS: tuple[Intervention, ...] = (
    Intervention("context", "of another clip", "context", of_another_clip, applies=_has_context),
    Intervention("context", "held at its mean", "context", mean_over_clips, applies=_has_context),
    Intervention(
        "context", "at its mean in the posterior", "posterior context", mean_over_clips, FRAMES, applies=_has_context
    ),
    Intervention("context", "at its mean in the belief", "belief context", mean_over_clips, applies=_has_context),
    Intervention("context", "implied in the belief", "implied context", unchanged, applies=_has_context),
    Intervention("tokens", "the commonest of each cell", "tokens", commonest_token, applies=_has_context),
    Intervention("slots", "of another clip", "slots", of_another_clip, applies=_attends),
    Intervention("attention", "uniform", "map", uniform_map, FRAMES, applies=_attends),
    Intervention("attention", "P_t for A_t", "attention", expected_map, SEEN, applies=_attends),
    Intervention("attention", "moved by four cells", "map", moved_map, FRAMES, applies=_attends),
    Intervention("mixture", "one Gaussian of its moments", "prior", moment_matched, FUTURES),
    Intervention("actions", "of another clip", "actions", of_another_clip),
)

INTACT = Intervention("model", "as it is", "map", unchanged)
"""No change."""
