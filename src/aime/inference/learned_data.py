"""The episodes that a run may learn from again: for agents, and for environments that start in recorded frames."""

from __future__ import annotations

from pathlib import Path

from aime.data import Dataset
from aime.errors import AimeError
from aime.inference.loading import check_fit
from aime.inference.own_data import held_out_by, open_own
from aime.world_model.saved import RunInfo


def open_experience(info: RunInfo, data: str | Path | None) -> Dataset:
    """The episodes that an agent of a run learns from.

    They are of the run's own data, or of what `open_dataset` makes of `data`, except those that the run, one of its
    ancestors or bundled data holds out, on which agents are evaluated. Of episodes with the same content only one is
    taken, so that the validation episodes of a clone are not among those that it learns from.

    Raises:
        AimeError: if there is no such data, its frames or actions do not fit the model, or all of it is held out.
    """
    dataset = open_own(info, data)
    check_fit(dataset, info)
    learned = dataset.part("train", held_out_by(info, dataset))
    return learned.select(learned.different).in_scale(info.action_scale)


def open_rewarded(info: RunInfo, data: str | Path | None) -> Dataset:
    """The same, for an agent that learns from rewards.

    Raises:
        AimeError: as `open_experience` does, or if the model has no reward head, or the data no rewards.
    """
    if info.model.control.kind == "none":
        raise AimeError(
            f"{info.path}: its model has no reward head (model.control.kind is none); expected one: train again "
            "without --model.control.kind none"
        )
    dataset = open_experience(info, data)
    if not dataset.has_rewards:
        raise AimeError(
            f"{dataset.name}: every reward is 0 or missing; expected rewards: take data that has them, or add them and "
            "train again"
        )
    return dataset
