"""What the scores of the body need besides the clips: the scene without the body, masks, and a reader of states."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from aime.data import Clips, Dataset
from aime.data.drawing import ClipStarts
from aime.inference.foreground import Scene, find_scene
from aime.inference.state_reader import FrameStateReader, fit_reader
from aime.inference.unseen import Unseen

NO_SCENE = Scene(None, "none: not asked for")


@dataclass(frozen=True)
class References:
    """Of B clips.

    Attributes:
        scene: what they show without the body.
        reader: reads their states from frames, or a line that says why there is none.
        masks: `[B,T,H,W]`, ids of instances, 0 the background; None where they are not known.
    """

    scene: Scene = NO_SCENE
    reader: FrameStateReader | str = "none: not asked for"
    masks: UInt8[Tensor, "B T H W"] | None = None

    def rows(self, start: int, stop: int, device: torch.device) -> References:
        """Those of some of the clips, on a device."""
        image, masks = (None if each is None else each[start:stop].to(device) for each in (self.scene[0], self.masks))
        reader = self.reader if isinstance(self.reader, str) else self.reader.to(device)
        return replace(self, scene=self.scene._replace(images=image), reader=reader, masks=masks)

    @property
    def entries(self) -> tuple[str, ...]:
        """The names of the numbers of the state that are read."""
        return () if isinstance(self.reader, str) else self.reader.entries

    @property
    def reader_title(self) -> str:
        """The R² of the reader on true frames, or why there is no reader."""
        return self.reader if isinstance(self.reader, str) else self.reader.title


def gather_references(
    unseen: Unseen, places: ClipStarts, clips: Clips, baseline_image: Float[Tensor, "3 H W"]
) -> References:
    """The scene, the masks and the reader for some clips; the same clips give the same ones.

    Args:
        unseen: the episodes that are scored, and the others of their data, to which the reader is fitted.
        places: of the clips that are scored.
        clips: those.
        baseline_image: for pixels that the body covers in every frame.

    Raises:
        AimeError: if a file is damaged.
    """
    masks = read_masks(unseen.dataset, places, clips.frames.shape[1])
    return References(find_scene(clips.frames, masks, baseline_image.cpu()), fit_reader(unseen.others), masks)


def read_masks(dataset: Dataset, places: ClipStarts, length: int) -> UInt8[Tensor, "B T H W"] | None:
    """The masks of clips of `length` steps; None unless all of their episodes have some.

    Raises:
        AimeError: if a file is damaged.
    """
    found = []
    for episode, start in zip(places.episodes.tolist(), places.starts.tolist(), strict=True):
        own = dataset.masks(episode, start, start + length)
        if own is None:
            return None
        found.append(torch.from_numpy(own))
    return torch.stack(found)
