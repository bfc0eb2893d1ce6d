"""The report's pictures of attention, of the mixture's components and of the tasks' gradients."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from aime.inference.dreams import Dreams
from aime.inference.render import Strip, encode_png, filmstrip, gallery, scale_for
from aime.inference.report import charts, page
from aime.inference.report.material import Material
from aime.inference.strips import colours_by, columns, group_strips, look_strips, map_strips, path_strips
from aime.inference.watching import NO_ATTENTION

ATTENDED = 2
"""Clips whose attention is shown, and whose dreams are shown with their components."""

STRIP_TILE, GROUP_TILE = 96, 64
"""Screen pixels that a frame is enlarged to, about."""

KEY = ", ".join(
    f'<span class="whole"><span class="key {kind}"></span>{words}</span>'
    for kind, words in (("seen", "seen by the model"), ("dreamt", "dreamt"), ("unseen", "true but unseen"))
)

NO_BALANCE = (
    "How the tasks' gradients stood to each other is not logged with this run's balancer: train with --balancer rgb "
    "to see their norms, cosines and angles here."
)

_LOOK = (
    "Brighter is more attention. Watching, the model sees every frame: does the light follow what moves? Dreaming, it "
    "sees none after the context and expects where it would look: does the light stay on the thing it dreams? Slots "
    "are the things that attention is made of, each in a colour of its own, bright where the slot holds the place "
    "nearly alone."
)
_MAPS = (
    "The same maps alone, on one scale. Expected is what the model foresaw before the frame, bottom-up what stands out "
    "in it, and fused the mixture that is used. Where expected looks like bottom-up, the model knew where to look. The "
    "arrows start at the centre of the last bottom-up map and are drawn four times as long as the motion: "
    '<span class="whole"><span class="key dreamt"></span>expected</span>, '
    '<span class="whole"><span class="key seen"></span>what came</span>; a dot alone is no motion.'
)
_PATHS = (
    "The dream and sampled futures, and under each frame the number of the component that it was drawn from, with its "
    "weight, also as a bar. A component is one way for the world to go on: where the dream and a sample part, their "
    "components often part just before. The colours are those of the picture below; grey are all rarer ones."
)


def strip_figure(dreams: Dreams, rows: Sequence[Strip], alternative: str, caption: str) -> str:
    """A filmstrip as a figure of the page; `caption` is HTML.

    Args:
        dreams: of which the strips are, for their length and scale.
        rows: of the filmstrip; the first has the frames' own size.
        alternative: what the picture is, in a few words.
        caption: the sentence below.
    """
    shown = columns(dreams.context, dreams.truth.shape[1])
    image = filmstrip(rows, shown, dreams.context, scale_for(dreams.truth.shape[2], STRIP_TILE))
    return page.figure(page.picture(encode_png(image), "png", alternative), caption)


def attention(material: Material) -> str:
    """Attention over frames, its slots, its maps and their motion; where it is uniform, a sentence that says so."""
    dreams, gaze = material.dreams, material.watched.gaze
    if gaze is None:
        return page.note(NO_ATTENTION)
    scale = scale_for(dreams.truth.shape[2], STRIP_TILE)
    figures = []
    for clip in range(min(ATTENDED, dreams.clips)):
        truth = Strip("truth", dreams.truth[clip], dreamt=False)
        look, maps = look_strips(dreams, gaze, clip), map_strips(dreams, gaze, clip, scale)
        number = f"clip {clip + 1}"
        figures.append(strip_figure(dreams, [truth, *look], f"attention in {number}", f"Clip {clip + 1}. {_LOOK}"))
        figures.append(strip_figure(dreams, [truth, *maps], f"attention maps of {number}", f"Clip {clip + 1}. {_MAPS}"))
    return "".join(figures)


def components(material: Material) -> str:
    """Dreams with the component under each frame, and what the components stand for."""
    dreams, found = material.dreams, material.components
    colour = colours_by(found.ranks)
    paths = [
        strip_figure(
            dreams, path_strips(dreams, clip, 2, colour), f"components in the dream of clip {clip + 1}", _PATHS
        )
        for clip in range(min(ATTENDED, dreams.clips))
    ]
    image = gallery(group_strips(found, colour), scale_for(dreams.truth.shape[2], GROUP_TILE))
    caption = (
        f"What the heaviest components stand for, over {found.frames:,} unseen frames: a row shows the frames that its "
        "component explains best, with its responsibility for each below (the frame's latent under the prior's "
        "mixture). Do the frames of a row have something in common? Components that take even shares of the frames "
        f"would count fully: here {found.effective:.1f} of {len(found.shares)} are in even use, exp(entropy)."
    )
    groups = page.figure(page.picture(encode_png(image), "png", "frames grouped by component"), caption)
    return "".join(paths) + groups


def gradients(material: Material) -> str:
    """Norms, cosines and rotations of the tasks' gradients over training; a sentence where none were logged."""
    captions: dict[charts.BalanceKind, str] = {
        "norm": "How hard each task pulls: lines far apart mean that one task would drown the others in a plain sum.",
        "cosine": "Whether two tasks pull the same way: above 0 they help each other, below 0 they are in conflict.",
        "angle": "How far the balancer turned each task's gradient to settle the conflicts: 0 is not at all.",
    }
    logged = [kind for kind in captions if charts.balance_names(material.log, kind)]
    if not logged:
        return page.note(escape(NO_BALANCE))
    drawn = (page.figure(charts.balance_chart(material.log, kind), captions[kind]) for kind in logged)
    return page.side_by_side(*drawn)
