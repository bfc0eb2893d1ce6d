"""The report's pictures of attention, of the mixture's components and of the tasks' gradients."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from aime.inference.dreams import Dreams
from aime.inference.filtering import NO_ATTENTION
from aime.inference.render import Strip, encode_picture, filmstrip, gallery, scale_for
from aime.inference.report import charts, page
from aime.inference.report.material import Material
from aime.inference.strips import colours_by, columns, group_strips, look_strips, map_strips, path_strips

ATTENDED = 2
"""Clips whose attention is shown, and whose predictions are shown with their components."""

STRIP_TILE, GROUP_TILE = 96, 64
"""Screen pixels that a frame is enlarged to, about."""

KEY = ", ".join(
    f'<span class="whole"><span class="key {kind}"></span>{words}</span>'
    for kind, words in (("seen", "seen by the model"), ("dreamt", "predicted"), ("unseen", "true, not seen"))
)

NO_BALANCE = "This run's balancer logs no norms, cosines and angles of the tasks' gradients: --balancer rgb does."

_LOOK = (
    "Brighter is more attention. On true frames, the model sees every frame: does attention follow what moves? On "
    "predicted frames, it sees none after the context and predicts its attention: does it stay on the predicted body? "
    "Each slot has a colour of its own, brighter where the slot has nearly all of the cell."
)
_MAPS = (
    "The same maps alone, on one scale. Expected is predicted before the frame is seen, bottom-up is computed from the "
    "frame, and fused is the mixture of both that the decoder reads. Expected like bottom-up is a correct prediction. "
    "The arrows start at the centre of mass of the last bottom-up map and are four times as long as its motion: "
    '<span class="whole"><span class="key dreamt"></span>expected</span>, '
    '<span class="whole"><span class="key seen"></span>actual</span>; a dot alone is no motion.'
)
_PATHS = (
    "The most likely future and sampled ones, and under each frame the mixture component that it was drawn from, with "
    "its weight, also as a bar. Where two futures diverge, their components often differ just before. The colours are "
    "those of the picture below; grey are all rarer components."
)


def strip_figure(dreams: Dreams, rows: Sequence[Strip], alternative: str, caption: str) -> str:
    """A filmstrip as a figure of the page; `caption` is HTML.

    Args:
        dreams: what the strips show, for their length and scale.
        rows: of the filmstrip; the first has the frames' own size.
        alternative: what the picture is, in a few words.
        caption: the sentence below.
    """
    shown = columns(dreams.context, dreams.truth.shape[1])
    image = filmstrip(rows, shown, dreams.context, scale_for(dreams.truth.shape[2], STRIP_TILE))
    return page.figure(page.picture(encode_picture(image, "webp"), alternative), caption)


def attention(material: Material) -> str:
    """Attention over frames, slots, maps and their motion; where attention is uniform, a sentence that says so."""
    dreams, maps = material.dreams, material.filtered.attention
    if maps is None:
        return page.note(NO_ATTENTION)
    scale = scale_for(dreams.truth.shape[2], STRIP_TILE)
    figures = []
    for clip in range(min(ATTENDED, dreams.clips)):
        truth = Strip("truth", dreams.truth[clip], dreamt=False)
        look, rows = look_strips(dreams, maps, clip), map_strips(dreams, maps, clip, scale)
        number = f"clip {clip + 1}"
        figures.append(strip_figure(dreams, [truth, *look], f"attention in {number}", f"Clip {clip + 1}. {_LOOK}"))
        figures.append(strip_figure(dreams, [truth, *rows], f"attention maps of {number}", f"Clip {clip + 1}. {_MAPS}"))
    return "".join(figures)


def components(material: Material) -> str:
    """Predictions with the component under each frame, and the frames of each component."""
    dreams, found = material.dreams, material.components
    colour = colours_by(found.ranks)
    paths = [
        strip_figure(
            dreams, path_strips(dreams, clip, 2, colour), f"components in the predictions of clip {clip + 1}", _PATHS
        )
        for clip in range(min(ATTENDED, dreams.clips))
    ]
    image = gallery(group_strips(found, colour), scale_for(dreams.truth.shape[2], GROUP_TILE))
    caption = (
        f"Frames grouped by mixture component, of {found.frames:,} frames: a row shows the frames for which its "
        "component has the highest responsibility, given below (of the frame's latent under the prior). Do the frames "
        f"of a row have something in common? Effective components: {found.effective:.1f} of {len(found.shares)}, the "
        "exp(entropy) of their shares."
    )
    groups = page.figure(page.picture(encode_picture(image, "webp"), "frames grouped by component"), caption)
    return "".join(paths) + groups


def gradients(material: Material) -> str:
    """Norms, cosines and rotations of the tasks' gradients over training; a sentence where none were logged."""
    captions: dict[charts.BalanceKind, str] = {
        "norm": "The norm of each task's gradient: lines far apart mean that one task dominates a plain sum.",
        "cosine": "The cosine between two tasks' gradients: below 0 the tasks are in conflict.",
        "angle": "How far the balancer rotates each task's gradient to resolve conflicts.",
    }
    logged = [kind for kind in captions if charts.balance_names(material.log, kind)]
    if not logged:
        return page.note(escape(NO_BALANCE))
    drawn = (page.figure(charts.balance_chart(material.log, kind), captions[kind]) for kind in logged)
    return page.side_by_side(*drawn)
