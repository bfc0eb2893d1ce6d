"""Validation pictures: reconstruction, prediction and attention, drawn at every checkpoint."""

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
"""The subdirectory of the run directory."""


def log_picture(
    config: TrainConfig, dataset: Dataset, validation: Dataset | None, model: AIME, step: int, logbook: Logbook
) -> None:
    """Write RUN/pictures/step-NNNNNN.png and add the picture to TensorBoard, if `config.pictures` is set.

    Training's random state is unchanged.

    Args:
        config: of the run.
        dataset: training data, used if there is no validation data.
        validation: validation data, if any.
        model: with averaged weights, in eval mode.
        step: steps taken.
        logbook: of the run, open.

    Raises:
        AimeError: if the data is damaged, or the picture cannot be written.
    """
    if not config.pictures:
        return
    # imported late: these libraries take seconds to load
    from aime.inference.render import encode_picture
    from aime.inference.snapshot import draw_snapshot

    with preserved_random_state(model.device):
        picture = draw_snapshot(model, dataset if validation is None else validation)
    write_atomically(config.out / PICTURES / f"step-{step:06d}.png", encode_picture(picture, "png"))
    logbook.add_image(step, "progress", np.asarray(picture))
