"""The rows and tiles of every filmstrip and film, in training and after it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from aime.inference.components import Components
from aime.inference.dreams import ComponentPath, Dreams
from aime.inference.filtering import AttentionMaps, FilteredClips
from aime.inference.overlays import PALETTE, draw_maps, full_scale, motion_overlay, overlay, slot_overlay
from aime.inference.render import FAINT, Colour, Note, Strip, heat

ComponentColour = Callable[[int], Colour]
"""The colour of a component by its index."""


def columns(context: int, length: int, ahead: int = 11) -> list[int]:
    """The frames that a filmstrip shows: the first and the last one seen, then `ahead` or fewer, ever farther apart.

    Args:
        context: frames that the model saw, 1 or more.
        length: all frames, more than `context`.
        ahead: predicted frames to show, 1 or more.
    """
    chosen = np.unique(np.geomspace(1, length - context, ahead).round().astype(int))
    return [*sorted({0, context - 1}), *(context - 1 + chosen).tolist()]


def dream_strips(dreams: Dreams, clip: int, samples: int) -> list[Strip]:
    """The most likely future, its difference from the truth, and sampled futures."""
    return [
        Strip("most likely", dreams.likeliest[clip]),
        Strip("difference", heat(dreams.difference[clip])),
        *(Strip(f"sample {number}", sample) for number, sample in enumerate(dreams.samples[clip][:samples], start=1)),
    ]


def dreamt_attention(dreams: Dreams, maps: AttentionMaps, clip: int) -> Float[np.ndarray, "T h w"]:
    """A_t on the frames that are seen, and the prior map on predicted frames, each computed from the one before."""
    return np.concatenate([maps.fused[clip, : dreams.context], dreams.maps[clip]])


def dreamt_strip(dreams: Dreams, maps: AttentionMaps, clip: int, label: str = "attention") -> Strip:
    """Attention over the most likely future."""
    # maps of predicted frames may be far sharper, and would make those of true frames dark on a common scale
    full = full_scale(maps.fused[clip])
    return Strip(label, overlay(dreams.likeliest[clip], dreamt_attention(dreams, maps, clip), full))


def look_strips(dreams: Dreams, maps: AttentionMaps, clip: int) -> list[Strip]:
    """Attention on the true frames, attention on the predicted frames, and the slots."""
    truth, full = dreams.truth[clip], full_scale(maps.fused[clip])
    return [
        Strip("on true frames", overlay(truth, maps.fused[clip], full), dreamt=False),
        dreamt_strip(dreams, maps, clip, "on predicted"),
        Strip("slots", slot_overlay(truth, maps.slot_maps[clip]), dreamt=False),
    ]


def map_strips(dreams: Dreams, maps: AttentionMaps, clip: int, scale: int) -> list[Strip]:
    """The maps by themselves, on one scale, and the motion between them; the last strip is enlarged by `scale`."""
    shown = {"expected": maps.prior[clip], "bottom-up": maps.bottom_up[clip], "fused": maps.fused[clip]}
    full, grid = full_scale(*shown.values()), maps.fused.shape[-1]
    moved = motion_overlay(dreams.truth[clip], maps.start[clip], maps.expected[clip], maps.actual[clip], grid, scale)
    return [
        *(Strip(label, draw_maps(each, full), dreamt=False) for label, each in shown.items()),
        Strip("motion", moved, dreamt=False),
    ]


def snapshot_strips(dreams: Dreams, filtered: FilteredClips, clip: int) -> list[Strip]:
    """Truth, reconstruction, open-loop predictions, and attention where there are maps."""
    rows = [
        Strip("truth", dreams.truth[clip], dreamt=False),
        Strip("reconstruction", filtered.reconstructions[clip], dreamt=False),
        Strip("open-loop", dreams.likeliest[clip]),
        Strip("a sample", dreams.samples[clip, 0]),
    ]
    return rows if filtered.attention is None else [*rows, dreamt_strip(dreams, filtered.attention, clip)]


def path_strips(dreams: Dreams, clip: int, samples: int, colour: ComponentColour) -> list[Strip]:
    """The most likely future and sampled ones, with the component in use under each frame."""
    paths = [("most likely", dreams.likeliest[clip], _at(dreams.path, clip))]
    for number in range(min(samples, dreams.samples.shape[1])):
        path = ComponentPath(*(field[clip, number] for field in dreams.sample_paths))
        paths.append((f"sample {number + 1}", dreams.samples[clip, number], path))
    return [
        Strip(label, frames, notes=[*[None] * dreams.context, *_path_notes(path, colour)])
        for label, frames, path in paths
    ]


def group_strips(components: Components, colour: ComponentColour) -> list[Strip]:
    """A row a component: the frames that it explains best, and under each its responsibility."""
    return [
        Strip(
            f"component {group.component}\n{_percent(group.share)} of frames",
            group.frames,
            notes=[Note(_percent(each), colour(group.component), each) for each in group.responsibilities.tolist()],
        )
        for group in components.groups
    ]


def colours_by(ranks: Int[np.ndarray, " K"]) -> ComponentColour:
    """The heaviest components have a colour each, all others share a grey.

    Args:
        ranks: the place of each component, 0 for the heaviest.
    """
    return lambda component: PALETTE[ranks[component]] if ranks[component] < len(PALETTE) else FAINT


def _at(path: ComponentPath, clip: int) -> ComponentPath:
    return ComponentPath(path.components[clip], path.weights[clip])


def _path_notes(path: ComponentPath, colour: ComponentColour) -> list[Note]:
    return [
        Note(f"#{component}: {_percent(weight)}", colour(component), weight)
        for component, weight in zip(path.components.tolist(), path.weights.tolist(), strict=True)
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
