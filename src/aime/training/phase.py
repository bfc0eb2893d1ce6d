"""The common interface of the training phases: joint learning and dynamics fine-tuning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Generic, TypeVar

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

Batch = TypeVar("Batch")
Result = TypeVar("Result")


class Phase(ABC, Generic[Batch, Result]):
    """A phase defines its parameters, batches, losses, budget and learning-rate schedule.

    `aime.training.trainer` runs every phase in the same loop, with the same log and checkpoint.
    """

    name: ClassVar[PhaseName]
    activity: ClassVar[str]
    """Shown on the display while the phase runs; empty for joint learning."""
    rate_flag: ClassVar[str]
    """The setting of the learning rate, for error messages."""

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
        """An endless stream of batches, one list per step, starting after `step` steps."""

    @abstractmethod
    def schedule(self, step: int, share: float) -> float:
        """The learning-rate factor after `step` steps, when a fraction `share` of the phase is done."""

    @abstractmethod
    def compute_gradients(self, batches: list[Batch], step: int, share: float) -> Result:
        """Compute the losses of a step and leave their gradient in `.grad` (see `combine_gradients`)."""

    @abstractmethod
    def figures(self, result: Result) -> dict[str, float]:
        """The logged scalars of a step by name; waits for the device."""

    def frames(self, batches: list[Batch]) -> int:
        """The number of encoded frames in a step's batches, without padding."""
        return 0

    def step(self, batches: list[Batch], step: int, share: float) -> Result:
        """Take one optimizer step after `step` others; no weight changes if a loss or gradient is not finite."""
        scale_learning_rates(self.optimizers, self.schedule(step, share))
        result = self.compute_gradients(batches, step, share)
        for optimizer in self.optimizers:
            optimizer.step()
        return result

    def combine_gradients(self, losses: tuple[TaskLoss, ...]) -> tuple[Float[Tensor, ""], Balance | None]:
        """Combine the tasks' gradients into one clipped gradient; returns its norm before clipping and the balance."""
        balance = self.balancer.resolve()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.nonfinite.skip_if_nonfinite(self.optimizers, losses, norm, balance)
        return norm, balance


def clips_from(
    dataset: Dataset, hardware: Hardware, batch: int, length: int, seed: int, first: int = 0
) -> Iterator[Clips]:
    """This rank's random batches of a data set, from number `first` on; endless, read ahead."""
    sampler = ClipSampler(dataset, batch, length, seed, rank(), ranks())
    on_gpu = hardware.device.type == "cuda"
    return prefetch(sampler, first, pin_memory=on_gpu, workers=reading_threads())
