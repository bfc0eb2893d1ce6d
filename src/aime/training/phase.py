"""A phase of a run: the type of which joint learning and dynamics fine-tuning are two values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from aime.data import Clips, ClipSampler, Dataset, prefetch
from aime.data.clips import reading_threads
from aime.objectives.ledger import TaskLoss
from aime.optimization import Balance, Balancer
from aime.primitives.hardware import Hardware
from aime.primitives.ranks import rank, ranks
from aime.runs.schedule import Budget, PhaseName
from aime.training.nonfinite import NonfiniteSteps
from aime.training.optimizers import scale_learning_rates

if TYPE_CHECKING:
    from aime.training.config import TrainConfig

Batch = TypeVar("Batch")
Result = TypeVar("Result")


class Phase(ABC, Generic[Batch, Result]):
    """Which parameters learn, from which losses of which batches, for how long, and how fast.

    `aime.training.trainer` runs every phase in the same loop, with the same log and the same checkpoint.
    """

    name: ClassVar[PhaseName]
    activity: ClassVar[str]
    """What the display shows while the phase runs; empty for the usual one."""
    rate_flag: ClassVar[str]
    """The setting of the learning rate, for messages."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        optimizers: tuple[Optimizer, ...],
        balancer: Balancer,
        budget: Budget,
        clip: float,
        hardware: Hardware,
    ) -> None:
        self.parameters, self.optimizers, self.balancer = parameters, optimizers, balancer
        self.budget, self.clip, self.hardware = budget, clip, hardware
        self.nonfinite = NonfiniteSteps().to(hardware.device)

    @abstractmethod
    def source(self, dataset: Dataset, step: int) -> Iterator[list[Batch]]:
        """The batches of every step from `step` steps on; endless."""

    @abstractmethod
    def schedule(self, step: int, share: float) -> float:
        """The learning rate's factor after `step` steps, where `share` of the phase is done."""

    @abstractmethod
    def losses(self, batches: list[Batch], step: int, share: float) -> Result:
        """The losses of a step; their gradient is left in `.grad` (`resolve`)."""

    @abstractmethod
    def figures(self, result: Result) -> dict[str, float]:
        """The scalars of a step by name, for the log; waits for the device."""

    def frames(self, batches: list[Batch]) -> int:
        """How many frames of a step's batches are perceived, without padding."""
        return 0

    def step(self, batches: list[Batch], step: int, share: float) -> Result:
        """One optimizer step, after `step` others; changes no weight if a loss or gradient is not finite."""
        scale_learning_rates(self.optimizers, self.schedule(step, share))
        result = self.losses(batches, step, share)
        for optimizer in self.optimizers:
            optimizer.step()
        return result

    def resolve(self, losses: tuple[TaskLoss, ...]) -> tuple[Float[Tensor, ""], Balance | None]:
        """One clipped gradient of all that was differentiated, and its norm before."""
        balance = self.balancer.resolve()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.nonfinite.judge(self.optimizers, losses, norm, balance)
        return norm, balance


def clips_from(config: TrainConfig, hardware: Hardware, dataset: Dataset, step: int) -> Iterator[Clips]:
    """This rank's batches of a data set, `config.accumulate` a step, from `step` steps on."""
    sampler = ClipSampler(dataset, config.batch, config.length, config.seed, rank(), ranks())
    on_gpu = hardware.device.type == "cuda"
    return prefetch(sampler, step * config.accumulate, pin_memory=on_gpu, workers=reading_threads())
