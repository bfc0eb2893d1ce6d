"""The result of an evaluation as one typed value, and its JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from aime.inference.result_json import from_result_json, to_result_json
from aime.primitives.config_io import to_plain
from aime.primitives.intervals import Bounds

Leaf = TypeVar("Leaf")
"""A figure, or its interval."""

DEFINITIONS: dict[str, str] = {
    "horizon": "frames after the last one that the model has seen; averages are over clips",
    "intervals": "the 95 % interval of each figure as [low, high], at the same place: by the bootstrap over episodes, "
    "each drawn with all of its clips; null with one episode, or where the figure is",
    "mse": "mean squared error of the mean of the sampled futures, over pixel values in [0, 1]",
    "psnr": "-10 log10(mse) in dB of each frame (data range 1, at most 100), then averaged",
    "ssim": "structural similarity of each frame (Gaussian window of 1.5 pixels, data range 1), then averaged",
    "skill": "1 - mse / min(mse of persistence, mse of the mean image), each averaged over clips first: above 0 the "
    "model is better than both, 1 is perfect; null where a baseline is exactly right",
    "*_likeliest": "the same of the single most likely future: the heaviest component's mean at each step",
    "energy_score": "mean distance of a sample from the truth minus half the mean distance of two samples, as root "
    "mean square over pixel values: lower is better, and only the true distribution is best",
    "coverage": "share of pixel values of the truth within the central 80 % interval of the samples (ideal 0.8), give "
    "or take half a grey level; null below 9 samples",
    "coverage_uncertain": "coverage among the pixel values whose interval is wider than one grey level",
    "best_of": "the one sample of the first best_of_samples that is closest to the truth over the whole horizon",
    "reconstruction": "each frame decoded from the latent that was inferred from it; psnr_mean_image is what the "
    "training set's mean image alone scores on the same frames",
    "persistence": "the baseline that repeats the last frame of the context",
    "mean_image": "the baseline that always shows the training set's mean image",
    "states": "the robot's or simulator's own state, predicted by the mean of the sampled futures: error is the root "
    "mean square over its numbers in units of each one's spread over the training data, persistence and mean "
    "are the errors of the last known state and of the mean, r2 is 1 - error² / mean²",
    "foreground": "pixels that differ from the scene without the body by more than 0.1 of the range (root mean square "
    "over the colours), in the frame that is judged; in the true frame likewise, or the pixels of its masks where the "
    "data has them. foreground_from says how the scene was estimated. Counts of pixels are summed over clips: "
    "precision is the share of the judged frame's foreground that is right, recall the share of the true foreground "
    "that it has, f1 their harmonic mean. likeliest is the most likely future, samples are the sampled futures, each "
    "by itself; share is that of the true foreground in all pixels, true_frames the f1 of the true frames' differing "
    "pixels: 1 without masks",
    "read_states": "the recorded state as a small network reads it from single frames (state_reader says how well): r2 "
    "is 1 - squared error / squared error of the mean, error the root mean square in units of each number's spread. "
    "likeliest is the most likely future, samples the mean of what is read from the sampled futures, true_frames what "
    "is read from the true frames, persistence from the last frame of the context; entries, over all frames ahead, are "
    "in the order of read_entries; an angle is read as cosine and sine",
    "masks": "slots and attention against the masks of the bodies, over all frames that show one: slot_iou is the "
    "intersection over union of each instance with its best slot, whole_iou that of a slot that holds the whole frame, "
    "grid_iou the best that the cells of the attention grid allow; foreground_ari the adjusted Rand index on the "
    "pixels of the bodies, in frames with two or more; attention_ratio the mass of A_t on the body divided by the "
    "body's share of the area: 1 is a uniform map",
    "sharpness": "mean gradient magnitude of the frames ahead over that of the true ones, each summed over frames and "
    "clips: 1 is as sharp as the data, blurred frames are below it, grainy ones may be above. likeliest is the most "
    "likely future, sample one sampled future; reconstruction is of the same frames, seen",
    "body_sharpness": "the same over the pixels of the masks of the true frames and the pixels next to them",
    "latent_surprise": "-log p(z | past) above its least, relative to what is usual for a world that moves as fast: no "
    "unit, and higher where the world did not go as expected",
    "frame_bound": "an upper bound on -log p(frame | past) in nats per frame, by importance-weighted samples"
    ": how likely the pixels are",
    "prior_nll": "-log p(z | past) in nats per frame after the context, z a sample of the posterior, all frames before "
    "it seen: it depends on the scale of the latents, which every training makes for itself",
    "kl_z": "the same plus log q(z), which is KL(q ‖ p): it does not change with the scale of the latents",
    "kl_hierarchical": "what the mixture weights cost in nats per frame after the context: KL of the sticks to "
    "Beta(1, α) and of q(α) to Gamma(1, 1); 0 for a single Gaussian",
    "effective_components": "exp(entropy) of the prior's mixture weights, averaged over frames and clips first",
    "codebook_perplexity": "exp(entropy) of the shares of the codes among all tokens",
}


@dataclass(frozen=True)
class FrameScores(Generic[Leaf]):
    """Errors of frames."""

    mse: Leaf
    psnr: Leaf


@dataclass(frozen=True)
class HorizonScores(Generic[Leaf]):
    """The scores of the frames that lie one given number of steps ahead; see `DEFINITIONS`."""

    mse: Leaf
    psnr: Leaf
    ssim: Leaf
    skill: Leaf
    mse_likeliest: Leaf
    psnr_likeliest: Leaf
    ssim_likeliest: Leaf
    skill_likeliest: Leaf
    energy_score: Leaf
    coverage: Leaf
    coverage_uncertain: Leaf


@dataclass(frozen=True)
class ReconstructionScores(Generic[Leaf]):
    """How well frames are decoded from their own latents."""

    mse: Leaf
    psnr: Leaf
    ssim: Leaf
    psnr_mean_image: Leaf


@dataclass(frozen=True)
class StateScores(Generic[Leaf]):
    """How well the state is predicted a given number of steps ahead; errors in units of its spread over the data."""

    r2: Leaf
    error: Leaf
    persistence: Leaf
    """Of repeating the last known state."""
    mean: Leaf
    """Of the training data's mean."""


@dataclass(frozen=True)
class Overlap(Generic[Leaf]):
    """How well the foreground of frames agrees with the true one, each in [0, 1]."""

    precision: Leaf
    recall: Leaf
    f1: Leaf


@dataclass(frozen=True)
class ForegroundScores(Generic[Leaf]):
    """The foreground of the frames that lie one given number of steps ahead; see `DEFINITIONS`."""

    likeliest: Overlap[Leaf]
    samples: Overlap[Leaf]
    persistence: Overlap[Leaf]
    reconstruction: Overlap[Leaf]


@dataclass(frozen=True)
class Foreground(Generic[Leaf]):
    """How well predicted frames show the body."""

    share: Leaf
    """Of the true foreground in all pixels."""
    true_frames: Leaf
    """F1 of the true frames' differing pixels."""
    horizons: dict[int, ForegroundScores[Leaf]]


@dataclass(frozen=True)
class Reading(Generic[Leaf]):
    """How well the state is read from frames."""

    r2: Leaf
    error: Leaf
    """In units of each number's spread."""


@dataclass(frozen=True)
class ReadScores(Generic[Leaf]):
    """The state read from frames of each kind; see `DEFINITIONS`."""

    likeliest: Reading[Leaf]
    samples: Reading[Leaf]
    true_frames: Reading[Leaf]
    persistence: Reading[Leaf]


@dataclass(frozen=True)
class ReadStates(Generic[Leaf]):
    """The state read from predicted frames."""

    entries: list[ReadScores[Leaf]]
    """Of each number, over all frames ahead."""
    horizons: dict[int, ReadScores[Leaf]]
    """Of all numbers together."""


@dataclass(frozen=True)
class MaskScores(Generic[Leaf]):
    """Slots and attention against masks; see `DEFINITIONS`."""

    slot_iou: Leaf
    whole_iou: Leaf
    grid_iou: Leaf
    foreground_ari: Leaf
    attention_ratio: Leaf


@dataclass(frozen=True)
class Sharpness(Generic[Leaf]):
    """Gradients of frames over those of the true ones; see `DEFINITIONS`."""

    likeliest: Leaf
    sample: Leaf
    reconstruction: Leaf


@dataclass(frozen=True)
class Baselines(Generic[Leaf]):
    """The scores of the baselines, by horizon."""

    persistence: dict[int, FrameScores[Leaf]]
    mean_image: dict[int, FrameScores[Leaf]]


@dataclass(frozen=True)
class Figures(Generic[Leaf]):
    """All figures of an evaluation, or in their places what belongs to each; see `DEFINITIONS`."""

    horizons: dict[int, HorizonScores[Leaf]]
    """By frames ahead, 1..horizon; the best-of scores and the baselines likewise."""
    best_of: dict[int, FrameScores[Leaf]]
    reconstruction: ReconstructionScores[Leaf]
    baselines: Baselines[Leaf]
    latent_surprise: Leaf
    latent_surprise_by_frame: list[Leaf]
    """Of frames 1..context + horizon."""
    frame_bound: Leaf
    prior_nll: Leaf
    kl_z: Leaf
    kl_hierarchical: Leaf
    effective_components: Leaf
    codebook_perplexity: Leaf
    states: dict[int, StateScores[Leaf]] | None
    """By frames ahead; None where model or data have no state."""
    foreground: Foreground[Leaf] | None
    """None where the scene without the body is not known."""
    read_states: ReadStates[Leaf] | None
    """None where there is no state, or single frames do not tell it."""
    masks: MaskScores[Leaf] | None
    """None where the data has no masks."""
    sharpness: Sharpness[Leaf] | None = None
    """None in files of earlier versions, like the next."""
    body_sharpness: Sharpness[Leaf] | None = None
    """None where the data has no masks."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(Figures[float]):
    """The scores of a run's predictions; what is undefined is NaN, in JSON null."""

    run: str
    data: str
    split: str
    """The part of the unseen episodes that was taken: "test", "validation" or "all"."""
    weights: str
    """SHA-256 of the averaged weights."""
    episodes: int
    """That the clips are of."""
    clips: int
    context: int
    horizon: int
    samples: int
    best_of_samples: int
    intervals: Figures[Bounds | None]
    """95 % intervals of all figures; None of one episode, and where the figure is NaN."""
    unseen: str = ""
    """The part of the data, and how it is known that the run was never trained on it."""
    content: str = ""
    """SHA-256 over the digests of the episodes that were taken."""
    foreground_from: str = ""
    """How the scene without the body was estimated, or why there is none."""
    state_reader: str = ""
    """The frames that the reader of states was fitted to and its R², or why there is none."""
    read_entries: tuple[str, ...] = ()
    """The names of the numbers of the state that are read."""

    def to_json(self) -> str:
        """JSON with every field by its name, and `definitions`, a sentence on each number."""
        content = to_plain(self)
        assert isinstance(content, dict)
        last = {name: content.pop(name) for name in (*_names(Figures), "intervals")}
        return to_result_json({**content, **last}, DEFINITIONS)

    @classmethod
    def from_json(cls, text: str, source: str) -> Evaluation:
        """Read what `to_json` made.

        Args:
            text: the JSON.
            source: the file it came from, for messages.

        Raises:
            AimeError: if it is not JSON, or has other fields.
        """

        def build(content: dict[str, Any]) -> Evaluation:
            intervals = _read(
                Figures, _present(content.pop("intervals")), lambda ends: None if ends is None else Bounds(*ends)
            )
            figures = _read(Figures, _present(content), _number)
            content["read_entries"] = tuple(content["read_entries"])
            return cls(**vars(figures), intervals=intervals, **content)

        return from_result_json(text, source, "an evaluation", "evaluate", build)


def mapped(change: Callable[..., Any], *trees: Any) -> Any:
    """The same nested figures with another leaf in each place, made of those in that place of all trees."""
    first = trees[0]
    if first is None:
        return None
    if is_dataclass(first):
        made: Callable[..., Any] = first.__class__
        return made(**{name: mapped(change, *(getattr(tree, name) for tree in trees)) for name in _names(made)})
    if isinstance(first, dict):
        return {key: mapped(change, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, list):
        return [mapped(change, *places) for places in zip(*trees, strict=True)]
    return change(*trees)


def _read(kind: Any, content: Any, leaf: Callable[[Any], Any]) -> Any:
    """JSON content as a type of this module; `leaf` converts each figure."""
    outer, inner = get_origin(kind), get_args(kind)
    if kind is Leaf:
        return leaf(content)
    if outer in (Union, UnionType):
        return None if content is None else _read(inner[0], content, leaf)
    if outer is dict:
        return {int(number): _read(inner[1], each, leaf) for number, each in content.items()}
    if outer is list:
        return [_read(inner[0], each, leaf) for each in content]
    owner: Any = outer or kind
    hints = get_type_hints(owner)
    return owner(**{name: _read(hints[name], each, leaf) for name, each in content.items()})


def _present(content: dict[str, Any]) -> dict[str, Any]:
    """The figures, taken out of content; those of later versions may be missing."""
    needed = (each.name for each in fields(Figures) if each.default is MISSING or each.name in content)
    return {name: content.pop(name) for name in needed}


def _names(kind: Any) -> list[str]:
    return [each.name for each in fields(kind)]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
