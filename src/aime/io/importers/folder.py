"""Importer of folders: a video or a directory of pictures per episode, with or without a table of actions.

    pick-001.mp4     pick-001.csv          a video and the table of the same name
    pick-002/        pick-002.parquet      a directory of pictures, sorted by name, and its table
    pick-003/        pick-003/actions.npz  or the table in the directory
    pick-004/masks/                        masks of the pictures: PNG files of the same names, 8-bit ids

Each frame has a row of the table: the actions taken after it, the reward and `terminated` of the arrival at it, and a
state. The actions of the last row may be empty or missing. Rows with times are paired with frames by time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, UInt8

from aime.data.state_names import fields_of
from aime.errors import AimeError
from aime.io.importers import tables, video
from aime.io.importers.action_parts import discrete_columns, joined_bounds
from aime.io.importers.fitting import together
from aime.io.importers.folder_layout import Place, find_layout
from aime.io.importers.folder_rows import Chosen, Wanted, check_named, choose_rows, find_columns
from aime.io.importers.interface import (
    BadEpisode,
    Choice,
    Facts,
    Item,
    Recorded,
    Sources,
    Survey,
    arriving,
    block_length,
)
from aime.io.importers.picture_masks import has_masks, read_masks
from aime.io.importers.picture_names import check_names, pictures_in
from aime.io.importers.pictures import Depth, picture_size, read_picture
from aime.io.importers.timing import LARGEST_GAP, rate_of

NO_COLUMNS = Wanted()
SAME_RATE = 0.05
"""Allowed relative difference of frame rates in a data set."""


def open_source(source: Path, choice: Choice) -> Sources:
    """The data set of a folder.

    Raises:
        AimeError: if it has neither videos nor directories of pictures, or the tables lack columns of the choice.
    """
    if not source.is_dir():
        raise AimeError(f"{source}: is a file, expected a folder of videos or of directories of pictures")
    if choice.split:
        raise AimeError(f"{source}: a folder has no splits; leave --split out")
    if choice.every > 1 and choice.time_column is not None:
        raise AimeError("--every and --time-column both say which row belongs to a frame, expected one of them")
    layout = find_layout(source, choice.cameras)
    importer = FolderImporter(source, tuple(layout.episodes), choice, unread=tuple(layout.unread))
    return {"": replace(importer, columns=importer.find_columns())}


@dataclass(frozen=True)
class FolderImporter:
    """The episodes of a folder.

    Attributes:
        place: the folder.
        episodes: in the folder.
        choice: what to import.
        unread: other files in the folder.
        columns: of all tables.
    """

    place: Path
    episodes: tuple[Place, ...]
    choice: Choice
    unread: tuple[str, ...] = ()
    columns: Wanted = NO_COLUMNS

    @property
    def facts(self) -> Facts:
        """Widths and names from the tables, and the rate of the first video."""
        columns, rate = self.columns, self._rate()
        left_out = [f"columns not imported: {', '.join(columns.unused)}"] if columns.unused else []
        if self.unread:
            left_out.append(f"files not read: {', '.join(self.unread)}")
        parts = columns.parts
        widths = tuple(part.width for part in parts)
        return Facts(
            sum(widths),
            _fields("state", columns.state, columns.state_widths),
            joined_bounds(parts) if columns.choices else None,
            discrete_columns(parts) if columns.choices else (),
            {"actions_from": ", ".join(columns.action) or "none", **({"fps": rate} if rate else {})},
            (*columns.notes, *left_out),
            _fields("action", columns.action, widths),
        )

    def _rate(self) -> float:
        """Pairs of frame and row per second; 0 if unknown."""
        for episode in self.episodes:
            try:
                if self.choice.time_column is not None and episode.table is not None:
                    times = self._times(episode)
                    return rate_of(self._chosen(self.place / episode.table, episode, times).times)
                if self.choice.fps is not None:
                    return self.choice.fps
                path = self.place / next(filter(None, episode.films))
                if not path.is_dir():
                    declared, measured = video.film_facts(path).rate, rate_of(video.film_times(path))
                    # the header is exact if it is correct; GIF files have none, and FFmpeg guesses
                    return declared if abs(declared - measured) < 0.01 * declared or not measured else measured
            except BadEpisode:
                continue
        return 0.0

    def find_columns(self) -> Wanted:
        """Find the columns of all tables.

        Raises:
            AimeError: if they lack the requested actions, or any, or if there is no table and the folder has a file
                that may be meant as one.
        """
        paths = [self.place / episode.table for episode in self.episodes if episode.table is not None]
        if not self.choice.actions:
            return NO_COLUMNS
        if paths:
            check_named(paths, self.choice)
            return find_columns(paths, self.choice)
        if self.choice.action_columns or self.choice.state_columns or self.choice.time_column:
            raise AimeError(f"{self.place}: holds no table, expected columns {list(self.choice.action_columns)}")
        names = {Path(episode.name).stem for episode in self.episodes} | {episode.name for episode in self.episodes}
        meant = [
            name for name in self.unread if Path(name).stem in names or Path(name).suffix.lower() in tables.SUFFIXES
        ]
        if meant:
            raise AimeError(
                f"{self.place}: {meant[0]} is no table of a video, expected the name of a video and one of "
                f"{', '.join(tables.SUFFIXES)}; rename or convert it, or import with --no-actions"
            )
        return NO_COLUMNS

    def survey(self) -> Survey:
        """List the episodes with the size in their headers."""
        items: list[Item] = []
        bad: list[BadEpisode] = []
        rate = 0.0
        for number, episode in enumerate(self.episodes):
            try:
                weight, own = self._weigh(episode)
                if own and rate and abs(own / rate - 1) > SAME_RATE and self.choice.fps is None:
                    raise BadEpisode(
                        f"{self.place / episode.name}: has {own:.4g} frames per second, the first video {rate:.4g}, "
                        "expected one rate; import them separately, or set the rate of all with --fps"
                    )
                rate = rate or own
                place = (episode.table or "", *episode.films)
                items.append(Item(str(self.place / episode.name), weight, (number, *place)))
            except BadEpisode as error:
                bad.append(error)
        return Survey(items, bad)

    def _weigh(self, episode: Place) -> tuple[int, float]:
        """Bytes of the frames, and frames per second, 0 if unknown."""
        weight, rate = 0, 0.0
        for camera, film in enumerate(episode.films):
            if not film:
                raise BadEpisode(
                    f"{self.place / episode.name}: has no video of the camera '{self.choice.cameras[camera]}', "
                    "expected one of each; add it"
                )
            path = self.place / film
            if path.is_dir():
                pictures = pictures_in(path)
                check_names(pictures)
                height, width = picture_size(pictures[0])
                weight += len(pictures) * height * width * 3
            else:
                facts = video.film_facts(path)
                weight, rate = weight + facts.weight, rate or facts.rate
        return weight, rate

    def read(self, item: Item) -> Recorded:
        """The videos or directories of an episode, with its table."""
        episode = self.episodes[int(item.place[0])]
        notes = Counter[str]()
        if not self.columns.action:
            depth = Depth.of(self.choice.depth_range, notes)
            uneven = notes if self.choice.fps is None else None
            frames = together([self._frames(film, depth, uneven) for film in episode.films])
            return Recorded(frames, left_out=notes, masks=self._masks(episode))
        table = self._table(item, episode)
        times = self._times(episode)
        chosen = self._chosen(table, episode, times)
        notes.update(chosen.notes)
        depth = Depth.of(self.choice.depth_range, notes)
        frames = together([self._frames(film, depth) for film in episode.films])
        masks = self._masks(episode)
        return _with_what_came_after(
            Recorded(
                _selected(frames, chosen.frames, len(times)),
                action=chosen.action,
                reward=chosen.reward,
                terminated=chosen.terminated,
                state=chosen.state,
                left_out=notes,
                masks=None if masks is None else _selected(masks, chosen.frames, len(times)),
            ),
            chosen,
        )

    def _table(self, item: Item, episode: Place) -> Path:
        if episode.table is None:
            raise BadEpisode(f"{item.name}: has no table of its name, but others have; add it, or --no-actions")
        return self.place / episode.table

    def _chosen(self, table: Path, episode: Place, times: Float64[np.ndarray, " n"]) -> Chosen:
        has_clock = self.choice.fps is not None or not (self.place / episode.films[0]).is_dir()
        return choose_rows(table, self.columns, self.choice, times, has_clock)

    def _times(self, episode: Place) -> Float64[np.ndarray, " n"]:
        """Times of the frames in seconds: from the video, or from `fps`.

        Raises:
            BadEpisode: if cameras do not agree.
        """
        clocks = [self._clock(self.place / film) for film in episode.films]
        step = np.median(np.diff(clocks[0])) if len(clocks[0]) > 1 else 0.0
        for film, clock in zip(episode.films[1:], clocks[1:], strict=True):
            if len(clock) != len(clocks[0]) or (np.abs(clock - clocks[0]) > 0.5 * step + 1e-3).any():
                raise BadEpisode(
                    f"{self.place / film}: its frames are not at the times of those of {episode.films[0]}, expected "
                    "synchronous cameras; choose one with --camera"
                )
        return clocks[0]

    def _clock(self, path: Path) -> Float64[np.ndarray, " n"]:
        if path.is_dir():
            return np.arange(len(pictures_in(path))) / (self.choice.fps or 1.0)
        times = video.film_times(path)
        return times if self.choice.fps is None else np.arange(len(times)) / self.choice.fps

    def _frames(
        self, film: str, depth: Depth, uneven: Counter[str] | None = None
    ) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
        path = self.place / film
        return _read_pictures(path, depth) if path.is_dir() else _read_film(path, uneven)

    def _masks(self, episode: Place) -> Iterator[list[UInt8[np.ndarray, "n h w"]]] | None:
        """The masks, if all cameras are directories of pictures with masks."""
        places = [self.place / film for film in episode.films]
        return together([read_masks(place) for place in places]) if all(map(has_masks, places)) else None

    def actions(self, item: Item) -> Float[np.ndarray, "L A"]:
        """The actions of one table."""
        table = self._table(item, self.episodes[int(item.place[0])])
        return self.columns.actions(table, tables.read_table(table))


def _fields(kind: str, names: tuple[str, ...], widths: tuple[int, ...]) -> dict[str, int]:
    """Names of fields and their widths, without the prefix of their kind."""
    bare = [re.sub(rf"^{kind}s?[_.\-: ]+", "", name, flags=re.I) or name for name in names]
    if len(set(bare)) < len(bare):
        bare = list(names)
    fields = dict(zip(bare, widths, strict=True)) if set(widths) != {1} else fields_of(bare)
    if bare and all(name.isdigit() for name in bare):  # numbers are not names
        return {kind: sum(widths)} if kind == "state" else {}
    return fields


def _with_what_came_after(recorded: Recorded, chosen: Chosen) -> Recorded:
    """With one more frame if rows after the last frame have a reward or a termination."""
    if not chosen.reward_after and not chosen.terminated_after:
        return recorded
    reward, ended = chosen.reward, chosen.terminated
    after = replace(
        recorded,
        reward=None if reward is None else np.append(reward[1:], chosen.reward_after),
        terminated=None if ended is None else np.append(ended[1:], chosen.terminated_after),
    )
    moved = arriving(after)
    if moved.reward is not None and reward is not None:
        moved.reward[0] = reward[0]
    return moved


def _selected(
    frames: Iterator[list[UInt8[np.ndarray, "n *pixels"]]], wanted: np.ndarray, total: int
) -> Iterator[list[UInt8[np.ndarray, "n *pixels"]]]:
    """Some of the frames; all are decoded, to detect damage."""
    start = 0
    for blocks in frames:
        length = len(blocks[0])
        inside = wanted[(wanted >= start) & (wanted < start + length)] - start
        start += length
        if len(inside):
            yield [block if len(inside) == length else block[inside] for block in blocks]
    if start != total:
        raise BadEpisode(f"{start} frames can be decoded of {total}, expected all; record it again")


def _read_film(path: Path, uneven: Counter[str] | None) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
    """The frames of a video; if requested, counts videos with uneven spacing."""
    times = []
    for block in video.read_film(path):
        times.append(block.times)
        yield block.frames
    steps = np.diff(np.concatenate(times)) if times else np.zeros(0)
    if uneven is not None and len(steps) and steps.max() > LARGEST_GAP * np.median(steps):
        uneven["videos with unevenly spaced frames, imported as if evenly spaced"] += 1


def _read_pictures(directory: Path, depth: Depth) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
    paths = pictures_in(directory)
    size = picture_size(paths[0])
    length = block_length(*size)
    for start in range(0, len(paths), length):
        yield np.stack([read_picture(path, depth, size) for path in paths[start : start + length]])
