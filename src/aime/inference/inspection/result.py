"""The result of an inspection as one typed value, and its JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from aime.inference.inspection.verdict import Verdict, strongest
from aime.inference.result_json import from_result_json, to_result_json
from aime.primitives.config_io import LATER, from_plain, to_plain
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
    "intervention has the strongest of its measures but the ELBO, of which 0.01 dB of a sharp frame can be 10 nats",
    "context": CONTEXT_NOTE,
    "effect null": "the intervention cannot change this measure, which does not depend on the value that it replaces",
    "reconstruction": "PSNR in dB of each frame decoded from its own latent, averaged",
    "nats": "-log p(z_t | past) in nats per frame after the context, z_t the same sample of the unchanged posterior",
    "elbo": "negative ELBO in nats per frame after the context: -log p(x_t | z_t, A_t) of every pixel at the decoder's "
    "variance, and KL(q || p), both at one sample z_t of the changed posterior",
    "body": "PSNR in dB over the pixels of the masks, of the frames that show a body",
    "dream": "PSNR in dB of the mean of the sampled futures some frames ahead; body dream: over the pixels of the true "
    "masks",
    "skill": "1 - mse / min(mse of persistence, mse of the mean image) of the mean of the sampled futures",
    "probes": "R² of a ridge regression of the recorded state from a part, on episodes left out of its fit; an angle "
    "is predicted as its cosine and sine",
    "figures": "figures against masks and tokens, each with its 95 % interval over episodes; those that need masks, "
    "states or several episodes are left out where there are none",
}


class Shown(NamedTuple):
    """How a figure against masks and tokens is shown, and what it is."""

    title: str
    form: str
    definition: str


FIGURES: dict[str, Shown] = {
    "token_nats": Shown(
        "tokens read back, nats a frame", ".1f", "cross-entropy of all tokens of a frame, read back by the Perceiver"
    ),
    "histogram_nats": Shown(
        "tokens under each cell's histogram, nats a frame",
        ".1f",
        "-log p of the same tokens under the histogram of each cell over the clips of other episodes, smoothed by one "
        "count spread over all codes",
    ),
    "token_ratio": Shown("read back over histogram", ".2f", "token_nats / histogram_nats"),
    "code_perplexity": Shown("perplexity of the codes", ".1f", "exp(entropy) of the codes' shares in all clips"),
    "token_f1": Shown(
        "foreground F1 of the frames drawn from tokens",
        ".2f",
        "F1 of the pixels that differ from the scene without the body, against the masks where they are known, else "
        "against those of the true frames",
    ),
    "slot_iou": Shown(
        "IoU of the best slot with the body",
        ".2f",
        "on the attention grid, all instances as one body, a cell being the body's if it shows any of it and a slot's "
        "if that slot takes most of it; of each frame's best slot",
    ),
    "attention_mass": Shown(
        "mass of A_t on the body", ".2f", "on the body's cells and their neighbours, the diagonal ones too"
    ),
    "attention_area": Shown("share of those cells in the frame", ".2f", "what a uniform map has on them"),
    "attention_ratio": Shown("mass over share", ".2f", "attention_mass / attention_area"),
    "hidden_centre_error": Shown(
        "A_t's centre to the body's, half hidden, cells",
        ".2f",
        "mean distance of the centre of mass of A_t from that of the true body, on five frames whose half with most of "
        "the body is grey, after ten whole frames",
    ),
    "seen_centre_error": Shown(
        "the same, nothing hidden", ".2f", "hidden_centre_error on the same frames, unhidden, after unhidden ones"
    ),
    "hidden_centre_ratio": Shown("half hidden over nothing hidden", ".2f", "hidden_centre_error / seen_centre_error"),
    "hidden_state_ratio": Shown(
        "error of the state from (h, z), half hidden over not",
        ".2f",
        "root mean squared error of the probe of (h, z), fitted to unhidden frames of other episodes, in standard "
        "deviations of each number of the state; half of the frame hidden, left and right in turn without masks",
    ),
    "context_probe": Shown(
        "R² of the state from c_t, over that from (h, z)", ".2f", "of the probes, averaged over the state's numbers"
    ),
}
"""The figures against masks and tokens, in the order in which they are shown."""


def digits(measure: str) -> str:
    """The format of a measure's figures, by its name: of skill three decimals, of the ELBO's thousands one."""
    return "z.3f" if measure.startswith("skill") else "z.1f" if measure == "elbo" else "z.2f"


def title_of(measure: str) -> str:
    """What tables call a measure, such as "dB at 15, body"."""
    kind, _, horizon = measure.partition(" at ")
    after = f" at {horizon}" if horizon else ""
    name = {"reconstruction": "dB", "body": "dB, body", "dream": "dB", "body dream": "dB, body", "elbo": "ELBO"}
    first, comma, rest = name.get(kind, kind).partition(",")
    return f"{first}{after}{comma}{rest}"


def in_decibels(measure: str) -> bool:
    """Whether a measure is of frames, in dB."""
    return title_of(measure).startswith("dB")


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
    figures: tuple[tuple[str, Figure], ...] = field(default=(), metadata=LATER)
    """Figures against masks and tokens by their names in `FIGURES`, those that the model and the data have."""

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
        shown = {name: FIGURES[name].definition for name, _ in self.figures}
        return to_result_json(content, DEFINITIONS | shown)

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
