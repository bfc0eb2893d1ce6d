"""How far a run is, in pictures: drawn at every checkpoint from the validation part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aime.data import Dataset
from aime.primitives.files import write_atomically
from aime.primitives.randomness import preserved_random_state
from aime.runs.logbook import Logbook
from aime.training.config import TrainConfig

if TYPE_CHECKING:
    from aime.world_model.model import AIME

PICTURES = "pictures"
"""The directory, in that of the run, for the files."""


def log_picture(
    config: TrainConfig, dataset: Dataset, validation: Dataset | None, model: AIME, step: int, logbook: Logbook
) -> None:
    """Write RUN/pictures/step-NNNNNN.png and the same picture to TensorBoard, unless the config asks for none.

    Training goes on with the random numbers that it would have had without a picture.

    Args:
        config: of the run.
        dataset: what it trains on.
        validation: what the clips are of; None where nothing is held out for it, and they are training clips.
        model: with averaged weights, in eval mode.
        step: steps taken.
        logbook: of the run, open.

    Raises:
        AimeError: if the data is damaged, or the picture cannot be written.
    """
    if not config.pictures:
        return
    # its libraries take seconds to load, for which the first step need not wait
    from aime.inference.render import encode_png
    from aime.inference.snapshot import draw_snapshot

    with preserved_random_state(model.device):
        picture = draw_snapshot(model, dataset if validation is None else validation)
    write_atomically(config.out / PICTURES / f"step-{step:06d}.png", encode_png(picture))
    logbook.filmstrip(step, "progress", np.asarray(picture))
