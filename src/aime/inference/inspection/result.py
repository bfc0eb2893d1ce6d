"""The result of an inspection as one typed value, and its JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from aime.inference.inspection.verdict import Verdict, strongest
from aime.inference.result_json import from_result_json, to_result_json
from aime.primitives.config_io import from_plain, to_plain
from aime.primitives.intervals import Bounds, Interval

CONTEXT_NOTE = (
    "On predicted frames the belief reads the implied context, computed from (h, z), in place of c_t: a change of c_t "
    "reaches them only through the frames of the context."
)
"""What limits the effect of interventions on the context."""

DEFINITIONS: dict[str, str] = {
    "loss": "what the model loses by an intervention: dB of reconstruction, nats a frame, or skill. Above 0 the model "
    "is worse with it. Differences are paired: the same clips, and the same noise of the samples",
    "low, high": "the 95 % interval, by the bootstrap over episodes, each drawn with all of its clips; null of one "
    "episode",
    "verdict": "carries weight: the whole interval is at or above 0.3 dB, 1 nat or 0.02 of skill; weak: it is beyond "
    "a hundredth of that on one side of 0; has no effect: otherwise; undetermined: there is no interval. An "
    "intervention has the strongest of its measures",
    "context": CONTEXT_NOTE,
    "effect null": "the intervention cannot change this measure, which does not depend on the value that it replaces",
    "reconstruction": "PSNR in dB of each frame decoded from its own latent, averaged",
    "nats": "-log p(z_t | past) in nats per frame after the context, z_t the same sample of the unchanged posterior",
    "skill": "1 - mse / min(mse of persistence, mse of the mean image) of the mean of the sampled futures",
    "probes": "R² of a ridge regression of the recorded state from a part, on episodes left out of its fit; an angle "
    "is predicted as its cosine and sine",
}


def digits(measure: str) -> str:
    """The format of a measure's figures, by its name: losses of skill need three decimals."""
    return "z.3f" if measure.startswith("skill") else "z.2f"


@dataclass(frozen=True)
class Figure:
    """A figure and the ends of its 95 % interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, interval: Interval) -> Figure:
        """The same as an interval, without NaN."""
        ends = (interval.mean, interval.low, interval.high)
        return cls(*(value if math.isfinite(value) else None for value in ends))

    @property
    def bounds(self) -> Bounds | None:
        """The ends, where there are any."""
        return None if self.low is None or self.high is None else Bounds(self.low, self.high)


@dataclass(frozen=True)
class Effect:
    """The effect of an intervention on one measure; see `DEFINITIONS`."""

    measure: str
    loss: Figure | None
    """None where it cannot change."""
    verdict: Verdict | None


@dataclass(frozen=True)
class Finding:
    """The effects of one intervention."""

    part: str
    change: str
    verdict: Verdict
    effects: tuple[Effect, ...]
    """One a measure, in the same order for all."""

    @property
    def better_without(self) -> bool:
        """Whether the model is better with the change wherever there is an effect."""
        clear = [each.loss for each in self.effects if each.loss and each.verdict in ("carries weight", "weak")]
        return bool(clear) and all(each.high is not None and each.high < 0 for each in clear)

    @property
    def verdict_text(self) -> str:
        """The verdict, and whether the model is better with the change."""
        return f"{self.verdict}, better without" if self.better_without else self.verdict


@dataclass(frozen=True)
class Probe:
    """How well the recorded state is predicted linearly from one part."""

    part: str
    entry: str
    """A field of the state, or "all"."""
    r2: Figure


@dataclass(frozen=True)
class Inspection:
    """The effect of every part of a run, by intervention on clips that it never learned from."""

    run: str
    data: str
    split: str
    """The part of the unseen episodes that was taken."""
    unseen: str
    """The part of the data, and how it is known that the run was never trained on it."""
    content: str
    """SHA-256 over the digests of the episodes."""
    weights: str
    """SHA-256 of the averaged weights."""
    episodes: int
    clips: int
    context: int
    horizon: int
    samples: int
    intact: tuple[tuple[str, Figure], ...]
    """The measures of the model as it is."""
    findings: tuple[Finding, ...]
    absent: tuple[str, ...]
    """Interventions that were left out because the model has no such part."""
    probes: tuple[Probe, ...]
    """Empty where the data has no states, or there is one episode."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Their names, in the order of the effects."""
        return tuple(name for name, _ in self.intact)

    def parts(self) -> Iterator[tuple[str, Verdict]]:
        """Each part with the strongest verdict of its interventions."""
        for part in dict.fromkeys(each.part for each in self.findings):
            yield part, strongest(each.verdict for each in self.findings if each.part == part)

    def to_json(self) -> str:
        """JSON with every field by its name, and `definitions`, a sentence on each word."""
        content = to_plain(self)
        assert isinstance(content, dict)
        return to_result_json(content, DEFINITIONS)

    @classmethod
    def from_json(cls, text: str, source: str) -> Inspection:
        """Read what `to_json` made.

        Args:
            text: the JSON.
            source: the file it came from, for messages.

        Raises:
            AimeError: if it is not JSON, or has other fields.
        """
        return from_result_json(
            text, source, "an inspection", "inspect", lambda content: from_plain(cls, content, source)
        )
