"""The sizes of a world model: one frozen dataclass per part, and the sizes that parts share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aime.attention.kinds import ATTENTIONS
from aime.attention.maps import CELL
from aime.attention.schema import AttentionConfig
from aime.dynamics.config import DynamicsConfig
from aime.dynamics.heads.config import ControlConfig
from aime.dynamics.prior import PriorConfig
from aime.dynamics.priors import PRIORS
from aime.dynamics.recurrences import RECURRENCES
from aime.errors import AimeError, expect_one_of, expect_shares, expect_sizes
from aime.perception.kinds import PERCEIVERS, TOKENIZERS
from aime.perception.perceiver import PerceiverConfig
from aime.perception.state_reader import StateConfig
from aime.perception.tokenizer import TokenizerConfig
from aime.primitives.config_io import LATER
from aime.representation.decoder import DecoderConfig
from aime.representation.encoder import EncoderConfig
from aime.representation.kinds import DECODERS, ENCODERS

KINDS: Mapping[str, Mapping[str, object]] = {
    "tokenizer": TOKENIZERS,
    "perceiver": PERCEIVERS,
    "encoder": ENCODERS,
    "prior": PRIORS,
    "dynamics": RECURRENCES,
    "attention": ATTENTIONS,
    "decoder": DECODERS,
}
"""The registry that the `kind` of each part's config is chosen from."""


@dataclass(frozen=True)
class ModelConfig:
    """Every size of an AIME world model.

    Raises:
        AimeError: if there is no part of that `kind`, `image_size` is no multiple of 16 from 16 to 256, a shared size
            is below 1, or `context_dropout` not in [0, 1].
    """

    action_width: int = 1
    """Numbers in an action, each in [-1, 1]."""
    image_size: int = 64
    """Height and width of a frame in pixels."""
    latent: int = 36
    """Width of the latent."""
    context: int = 256
    """Width of the context; not used if `perceiver.kind` is `none`."""
    belief: int = 512
    """Width of the belief."""
    context_dropout: float = 0.5
    """Share of training clips in which, on a random span, the belief reads the implied context instead of the
    observed one."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    perceiver: PerceiverConfig = field(default_factory=PerceiverConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    state: StateConfig = field(default_factory=StateConfig, metadata=LATER)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig, metadata=LATER)

    def __post_init__(self) -> None:
        for part, kinds in KINDS.items():
            expect_one_of(getattr(self, part), "kind", kinds, of=part)
        if self.image_size % 16 or not 16 <= self.image_size <= 256:
            raise AimeError(
                f"image_size is {self.image_size}; expected a multiple of 16 from 16 to 256: resize the frames"
            )
        expect_sizes(self, "action_width", "latent", "context", "belief")
        expect_shares(self, "context_dropout")

    @property
    def expected_hidden(self) -> int:
        """Hidden width of the two small networks that expect a context."""
        return max(1, self.belief // 2)

    @property
    def context_width(self) -> int:
        """Numbers in the context that the model has: `context`, or 0 where the Perceiver is switched off."""
        return self.context if PERCEIVERS[self.perceiver.kind].reads_tokens else 0

    @property
    def attention_grid(self) -> int:
        """Cells along each side of an attention map: a quarter of the frame's pixels."""
        return self.image_size // CELL
