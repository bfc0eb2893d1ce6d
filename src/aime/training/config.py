"""A training run as one typed value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from aime.data import Dataset
from aime.errors import (
    AimeError,
    expect_at_most,
    expect_positive,
    expect_shares_below_one,
    expect_sizes,
)
from aime.objectives.adversarial import AdversaryConfig
from aime.objectives.weights import LossWeights, OvershootConfig
from aime.optimization import require_balancer
from aime.primitives.config_io import LATER, Removed, renamed
from aime.representation.discriminators import WINDOW
from aime.training.optimizers import OptimizerConfig
from aime.training.replay import MOST_CLIPS, ReplayConfig
from aime.world_model.config import ModelConfig

FEWEST_LEFT_OUT = 4
"""Episodes, below which one odd episode would decide how wide the prior is."""


@dataclass(frozen=True)
class DynamicsFinetuningConfig:
    """How the dynamics are fine-tuned at the end of a run.

    Raises:
        AimeError: if a number is out of its range.
    """

    share: float = 0.2
    """Largest share of a run's minutes that the phase takes; 0 switches it off, also in a run that counts steps."""
    frames: ClassVar[int] = 65536
    """Largest number of frames whose latents are cached; at most three times the frames of the data set."""
    passes: ClassVar[float] = 60.0
    """Largest number of passes over the cache; a run that counts steps takes at most as many steps here, too."""
    clips: ClassVar[int] = 32
    """Clips in a batch."""
    learning_rate: float = 2.7e-3
    """Peak, instead of `optimizer.learning_rate`; it falls linearly to a fiftieth, from 0.4 of the phase on."""
    weight_decay: ClassVar[float] = 0.45
    """Instead of the run's: without it many passes over few frames memorise them."""
    clip: ClassVar[float] = 100.0
    """Largest norm of the gradient, of a loss in nats per frame."""
    latent_augmentation: ClassVar[float] = 0.5
    """Share of the clips whose static part is shifted towards that of another clip, in latents."""
    moved: ClassVar[float] = latent_augmentation
    """`latent_augmentation` in files of earlier versions."""
    left_out: ClassVar[float] = 0.1
    """Share of the episodes that are not trained on here and that calibrate the prior's width; none if they are fewer
    than four."""

    def __post_init__(self) -> None:
        expect_shares_below_one(self, "share", of="dynamics_finetuning", zero="switches it off")
        expect_positive(self, "learning_rate", of="dynamics_finetuning")

    def divide(self, dataset: Dataset) -> tuple[Dataset, Dataset | None]:
        """The episodes to learn from, and those left out; None where they would be too few to judge by."""
        learned, left_out = dataset.leave_out(self.left_out)
        return (dataset, None) if left_out is None or left_out.episodes < FEWEST_LEFT_OUT else (learned, left_out)


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run; docs/settings.md says why each can be changed.

    Raises:
        AimeError: if both or neither of `steps` and `minutes` are given, or a number is out of its range.
    """

    data: str
    """A directory of shards, one shard, or bundled:NAME. Several are given as `--data A B C=0.3`: C gives 0.3 of the
    clips; A and B the rest, in proportion to their frames."""
    out: Path
    """The run directory to write."""
    model: ModelConfig
    preset: str = "tiny"
    """The preset that the other settings start from."""
    steps: int | None = None
    """Optimizer steps to train for; dynamics fine-tuning comes after them."""
    minutes: float | None = None
    """Wall time to train for, instead of `steps`; dynamics fine-tuning is part of it."""
    seed: int = 0
    """Seed of the weights, the clips and the noise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` takes bf16 where the hardware has it."""
    compile: ClassVar[bool] = False
    """With torch.compile steps were slower on a CPU and failed on a GPU."""
    cuda_graphs: bool = field(default=True, metadata=LATER)
    """On one GPU, record a step and replay it, which is several times faster; not with torchjd's balancers."""
    resume: bool = False
    """Continue the run in `out` from its last checkpoint."""
    init_from: Path | None = None
    """A run of the same model whose weights to start from (fine-tuning); it may lack the control heads. On the command
    line the settings of its model are the defaults."""
    batch: int = 4
    """Clips in a batch."""
    length: int = 32
    """Frames in a clip."""
    observe_state: bool = field(default=False, metadata=LATER)
    """Observe and predict the data's state vector, too; sets model.state.width to its width."""
    accumulate: int = 1
    """Batches per optimizer step; their gradients are summed."""
    held_out: float = 0.05
    """Share of the episodes for validation and test, chosen by content: at least two of three or more. Bundled data
    have their own."""
    log_every: int = 10
    """Steps between two lines of the log."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    pictures: bool = True
    """Draw reconstructions, predictions and attention at every checkpoint, into RUN/pictures and TensorBoard."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    weights: LossWeights = field(default_factory=LossWeights)
    overshoot: OvershootConfig = field(default_factory=OvershootConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    dynamics_finetuning: DynamicsFinetuningConfig = field(
        default_factory=DynamicsFinetuningConfig, metadata=renamed("settle")
    )
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    balancer: str = "rgb"
    """How the tasks' gradients are combined: rgb, sum, or torchjd:NAME with the name of an aggregator of torchjd."""
    rgb: ClassVar[Removed] = Removed({"scope": "module", "angle_steps": 3})
    """The constants of `RGBConfig` that earlier versions could set."""
    zoom: ClassVar[Removed] = Removed({"share": 0.0})
    """A random crop of clips, which no experiment showed to help."""

    @property
    def finetuning_share(self) -> float:
        """`dynamics_finetuning.share`, or 0 where no term asks for the next latent: then there is nothing to learn."""
        return self.dynamics_finetuning.share if self.weights.predictive.one_step_latent else 0.0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise AimeError(
                f"steps is {self.steps} and minutes is {self.minutes}; expected one of the two: give --steps or "
                "--minutes"
            )
        expect_sizes(self, "batch", "length", "accumulate", "log_every", "checkpoint_every")
        expect_at_most(self, MOST_CLIPS, "batch", "length", "accumulate")
        expect_shares_below_one(self, "held_out", zero="holds nothing out")
        if self.observe_state and not self.model.state.width:
            raise AimeError(
                "observe_state is on and model.state.width is 0; expected the width of the data's state: start a new "
                "run with --observe-state, or give the model that width"
            )
        if self.length < 2:
            raise AimeError(f"length is {self.length}; expected 2 or more frames: a clip of one frame has no dynamics")
        tasks = (self.weights.elbo, self.weights.perceiver, self.weights.predictive)
        if not any(weight for task in tasks for weight in vars(task).values()):
            raise AimeError(
                "weights of elbo, perceiver and predictive are all 0; expected one task or more to learn from"
            )
        require_balancer(self.balancer)
        if self.adversary.enabled and self.length < WINDOW:
            raise AimeError(f"length is {self.length}; expected {WINDOW} or more frames, which the adversary judges")
        budget = self.steps if self.steps is not None else self.minutes or 0
        if not 0 < budget < math.inf:
            raise AimeError(f"steps is {self.steps} and minutes is {self.minutes}; expected a positive number")
