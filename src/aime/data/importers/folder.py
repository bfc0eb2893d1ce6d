"""A folder of films or of directories of pictures, an episode each, with a table of actions beside each, or without.

    pick-001.mp4     pick-001.csv          a film, and the table of the same name
    pick-002/        pick-002.parquet      a directory of pictures in the order of their names, and its table
    pick-003/        pick-003/actions.npz  or the table in the directory

A row of the table belongs to each frame: the actions taken after seeing it, the reward and `terminated` that came with
it, a state. The actions of the last row, which nothing followed, may be empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from aime.data.importers import tables, video
from aime.data.importers.files import is_litter
from aime.data.importers.interface import (
    BadEpisode,
    Choice,
    Facts,
    Item,
    Recorded,
    Sources,
    Survey,
    block_length,
    in_order,
)
from aime.data.importers.pictures import FORMATS as PICTURES
from aime.data.importers.pictures import Depth, picture_size, read_picture
from aime.errors import AimeError


def open_source(source: Path, choice: Choice) -> Sources:
    """The one data set of a folder.

    Raises:
        AimeError: if it holds neither films nor directories of pictures, or the tables lack what the choice names.
    """
    if not source.is_dir():
        raise AimeError(f"{source}: is a file, expected a folder of films or of directories of pictures")
    if choice.split or choice.cameras:
        raise AimeError(f"{source}: a folder has no splits and no cameras; leave --split and --camera out")
    names = [path.name for path in in_order(source.iterdir()) if _is_episode(path)]
    if not names:
        raise AimeError(f"{source}: holds no film ({', '.join(video.SUFFIXES)}) and no directory of pictures; check it")
    importer = FolderImporter(source, tuple(names), choice)
    return {"": replace(importer, columns=importer.find_columns())}


def _is_episode(path: Path) -> bool:
    if is_litter(path):
        return False
    return bool(_pictures(path)) if path.is_dir() else path.suffix.lower() in video.SUFFIXES


def _pictures(directory: Path) -> list[Path]:
    return in_order(path for path in directory.iterdir() if path.suffix.lower() in PICTURES and not is_litter(path))


@dataclass(frozen=True)
class Wanted:
    """The columns to take, and their widths.

    Attributes:
        action: names of the columns of actions.
        state: names of the columns of states.
        action_width: numbers in all of the former.
        state_widths: numbers in each of the latter.
        reward: whether there is a column of rewards.
        terminated: whether there is one of ends.
    """

    action: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    action_width: int = 0
    state_widths: tuple[int, ...] = ()
    reward: bool = False
    terminated: bool = False


@dataclass(frozen=True)
class FolderImporter:
    """The episodes of a folder.

    Attributes:
        place: the folder.
        names: of the films and directories in it.
        choice: what the user wants.
        columns: what the first table has of it, and so all have to have.
    """

    place: Path
    names: tuple[str, ...]
    choice: Choice
    columns: Wanted = Wanted()

    @property
    def facts(self) -> Facts:
        """Widths, as the first table has them."""
        return Facts(
            self.columns.action_width,
            dict(zip(self.columns.state, self.columns.state_widths, strict=True)),
            attributes={"actions_from": ", ".join(self.columns.action) or "none"},
        )

    def find_columns(self) -> Wanted:
        """Look into the first table there is.

        Raises:
            AimeError: if there is one but it lacks the actions that are asked for, or any.
        """
        path = next((table for name in self.names if (table := self._table(name)) is not None), None)
        if path is None or not self.choice.actions:
            if self.choice.action_columns:
                raise AimeError(f"{self.place}: holds no table, expected columns {list(self.choice.action_columns)}")
            return Wanted()
        found = tables.read_table(path)
        action = self.choice.action_columns or tuple(name for name in found if name.startswith("action"))
        if not action:
            raise AimeError(
                f"{path}: has no action column, found {sorted(found)}; name them with --action-columns, or --no-actions"
            )
        state = tuple(name for name in found if name.startswith("state")) if self.choice.state else ()
        widths = tuple(tables.matrix(path, found, [name]).shape[1] for name in state)
        width = tables.matrix(path, found, action).shape[1]
        return Wanted(action, state, width, widths, "reward" in found, "terminated" in found)

    def _table(self, name: str) -> Path | None:
        path = self.place / name
        stem = path if path.is_dir() else path.with_suffix("")
        candidates = [stem.parent / f"{stem.name}{suffix}" for suffix in tables.SUFFIXES]
        if path.is_dir():
            candidates += [path / f"actions{suffix}" for suffix in tables.SUFFIXES]
        return next((candidate for candidate in candidates if candidate.is_file()), None)

    def survey(self) -> Survey:
        """Weigh every episode by its header."""
        items: list[Item] = []
        bad: list[BadEpisode] = []
        for name in self.names:
            path = self.place / name
            try:
                weight = _pictures_weight(path) if path.is_dir() else video.film_facts(path).weight
                items.append(Item(str(path), weight, (name,)))
            except BadEpisode as error:
                bad.append(error)
        return Survey(items, bad)

    def read(self, item: Item) -> Recorded:
        """One film or directory, with its table."""
        name = str(item.place[0])
        path, table = self.place / name, self._table(name)
        depth = Depth.of(self.choice.depth_range)
        frames: Iterator[list[np.ndarray]] = (
            ([block] for block in _read_pictures(path, depth))
            if path.is_dir()
            else ([block.frames] for block in video.read_film(path))
        )
        wanted = self.columns
        if not wanted.action:
            return Recorded(frames)
        if table is None:
            raise BadEpisode(f"{path}: has no table beside it, but others have; add it, or import with --no-actions")
        found = tables.read_table(table)
        return Recorded(
            frames,
            action=tables.matrix(table, found, wanted.action),
            reward=tables.matrix(table, found, ["reward"])[:, 0] if wanted.reward else None,
            terminated=tables.matrix(table, found, ["terminated"])[:, 0] > 0.5 if wanted.terminated else None,
            state=tables.matrix(table, found, wanted.state) if wanted.state else None,
        )

    def actions(self, item: Item) -> Float[np.ndarray, "L A"]:
        """The actions in one table."""
        name = str(item.place[0])
        table = self._table(name)
        if table is None:
            raise BadEpisode(f"{item.name}: has no table beside it, but others have; add it, or --no-actions")
        return tables.matrix(table, tables.read_table(table), self.columns.action)


def _pictures_weight(directory: Path) -> int:
    paths = _pictures(directory)
    height, width = picture_size(paths[0])
    return len(paths) * height * width * 3


def _read_pictures(directory: Path, depth: Depth) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
    paths: Sequence[Path] = _pictures(directory)
    size = picture_size(paths[0])
    length = block_length(*size)
    for start in range(0, len(paths), length):
        yield np.stack([read_picture(path, depth, size) for path in paths[start : start + length]])
