"""Importer of LeRobot, versions 2.1 and 3: Parquet files of numbers, MP4 files of frames, JSON files of metadata.

In 2.1 an episode has a Parquet file and an MP4 file per camera. In 3 a file contains several episodes, and
`meta/episodes` has their first rows and start times. `next.reward`, `next.success` and `next.done` result from the
row's action and are moved to the next frame. If the last action has a reward or success, a copy of the last picture is
added.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, UInt8

from aime.data.state_names import fields_of
from aime.errors import AimeError
from aime.io.importers import tables, video
from aime.io.importers.action_parts import Choices, Switches, discrete_columns, observed
from aime.io.importers.files import is_litter
from aime.io.importers.fitting import together
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
    in_order,
    refuse_others,
)
from aime.io.importers.lerobot_info import find_cameras, read_info, width_of
from aime.io.importers.pictures import UNDECODABLE, Depth, decode_picture
from aime.io.importers.timing import check_even, frames_at, usual_step

STATE, ACTION, TIME = "observation.state", "action", "timestamp"
REWARD, DONE, SUCCESS = "next.reward", "next.done", "next.success"
Frames = Iterator[UInt8[np.ndarray, "n h w 3"]]
_OUT_OF_TIME = "episodes whose last row is done without success or reward, imported as truncated, not terminated"
_OF_LEROBOT = ("frame_index", "episode_index", "index", "task_index")


def open_source(source: Path, choice: Choice) -> Sources:
    """The data set of a directory.

    Raises:
        AimeError: if it is not a data set of these versions, or an option does not apply.
    """
    info = read_info(source)
    if choice.split:
        raise AimeError(f"{source}: splits of LeRobot data sets are not supported; leave --split out")
    refuse_others(source, choice, ("cameras", "state", "actions", "depth_range"))
    features = info["features"]
    cameras = find_cameras(source, features, choice.cameras)
    action = width_of(source, features, ACTION) if choice.actions else 0
    if choice.actions and not action:
        raise AimeError(
            f"{source}/meta/info.json: has no feature 'action', found {sorted(features)}; import with --no-actions"
        )
    state = width_of(source, features, STATE) if choice.state else 0
    choices, notes = _choices(source, features) if choice.actions else (None, ())
    importer = LeRobotImporter(source, json.dumps(info), tuple(cameras), action, state, choice.depth_range)
    return {"": replace(importer, choices=choices, choice_notes=notes)}


def _choices(source: Path, features: Mapping[str, Any]) -> tuple[Choices | Switches | None, tuple[str, ...]]:
    """The choices of integer actions, from the values that occur; none for floats."""
    if not str(features[ACTION].get("dtype")).startswith(("int", "uint", "bool")):
        return None, ()
    paths = _parquet_files(source / "data")
    whole = (tables.matrix(path, tables.read_table(path, (ACTION,)), [ACTION]) for path in paths)
    part, note = observed(ACTION, (rows[np.isfinite(rows).all(axis=1)].astype(np.int64) for rows in whole))
    return part, (note,)


@dataclass(frozen=True)
class LeRobotImporter:
    """A LeRobot data set.

    Attributes:
        place: its directory.
        description: content of `meta/info.json`.
        cameras: names of frame features.
        action_width: A, or 0 if actions are not imported.
        state_width: S, or 0.
        depth_range: values of 16-bit pictures that become black and white.
        choices: of integer actions; None for continuous actions.
        choice_notes: about the choices, for the report.
    """

    place: Path
    description: str
    cameras: tuple[str, ...]
    action_width: int
    state_width: int
    depth_range: tuple[float, float] | None = None
    choices: Choices | Switches | None = None
    choice_notes: tuple[str, ...] = ()

    @property
    def info(self) -> dict[str, Any]:
        """The content of `meta/info.json`."""
        content: dict[str, Any] = json.loads(self.description)
        return content

    @property
    def rate(self) -> float:
        """Rows and frames per second."""
        return float(self.info["fps"])

    @property
    def facts(self) -> Facts:
        """Widths from the description."""
        attributes = {"fps": self.rate}
        facts = Facts(
            self.action_width,
            (self._names(STATE, self.state_width) or {STATE: self.state_width}) if self.state_width else {},
            attributes=attributes,
            notes=(*self.choice_notes, *self._unread()),
            action_names=self._names(ACTION, self.action_width),
        )
        if self.choices is None:
            return facts
        width = self.choices.width
        names = {} if width != self.action_width else facts.action_names
        discrete = discrete_columns([self.choices])
        return replace(
            facts, action_width=width, action_range=self.choices.bounds, discrete=discrete, action_names=names
        )

    def _names(self, feature: str, width: int) -> dict[str, int]:
        """The names of a vector's numbers, if the description names all."""
        names = self.info["features"].get(feature, {}).get("names")
        while isinstance(names, dict) and len(names) == 1:
            names = next(iter(names.values()))
        if isinstance(names, dict):  # {"shoulder": 0, "elbow": 1}
            names = list(names) if list(names.values()) == list(range(len(names))) else None
        if not isinstance(names, list) or len(names) != width or not all(isinstance(name, str) for name in names):
            return {}
        return fields_of(names) if len(set(names)) == width else {}

    def _unread(self) -> tuple[str, ...]:
        """A line about features that are not imported."""
        read = {STATE, ACTION, REWARD, DONE, SUCCESS, TIME, *self.cameras, *_OF_LEROBOT}
        others = sorted(set(self.info["features"]) - read)
        return (f"features not imported: {', '.join(others)}",) if others else ()

    def survey(self) -> Survey:
        """List the episodes, with the positions of their rows and frames."""
        info = self.info
        third = str(info["codebase_version"]).startswith("v3")
        items: list[Item] = []
        bad: list[BadEpisode] = []
        height, width = self._size(self.cameras[0])
        for episode in self._episodes_3() if third else self._episodes_2():
            number: int | None = None
            try:
                number = int(episode["episode_index"])
                place = self._place_3(info, episode) if third else self._place_2(info, number)
                length = int(episode["length"])
            except (KeyError, ValueError, TypeError, OverflowError) as error:
                bad.append(BadEpisode(f"{self.place}/meta: episode {number} is not fully described ({error}); drop it"))
                continue
            if length < 1:
                bad.append(BadEpisode(f"{self.place}/meta: episode {number} has {length} rows, expected some; drop it"))
                continue
            weight = max(length, 1) * height * width * 3 * len(self.cameras)
            items.append(Item(f"{self.place}, episode {number}", weight, (number, length, *place)))
        return Survey(items, bad)

    def _size(self, camera: str) -> tuple[int, int]:
        shape = self.info["features"][camera].get("shape")
        sizes = [size for size in shape if isinstance(size, int) and size > 4] if isinstance(shape, list) else []
        return (sizes[0], sizes[1]) if len(sizes) == 2 else (480, 640)

    def _episodes_2(self) -> Iterator[dict[str, Any]]:
        path = self.place / "meta" / "episodes.jsonl"
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.strip():
                    episode = json.loads(line)
                    yield {name: int(episode[name]) for name in ("episode_index", "length")}
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise AimeError(f"{path}: cannot be read ({error}); download it") from error

    def _episodes_3(self) -> Iterator[dict[str, Any]]:
        paths = _parquet_files(self.place / "meta" / "episodes")
        if not paths:
            raise AimeError(
                f"{self.place}/meta/episodes: has no Parquet file, expected at least one; download the data set again"
            )
        for path in paths:
            table = tables.read_table(path, ("episode_index", "length", "data/", "videos/"))
            if not {"episode_index", "length"} <= table.keys():
                raise AimeError(
                    f"{path}: has columns {sorted(table)}, expected episode_index and length; download it again"
                )
            for row in range(len(table["episode_index"])):
                yield {name: column[row].item() for name, column in table.items()}

    def _place_2(self, info: Mapping[str, Any], number: int) -> list[int | str]:
        chunk = number // int(info.get("chunks_size", 1000))
        words: dict[str, Any] = {"episode_chunk": chunk, "episode_index": number}
        films = [_filled(str(info["video_path"]), {**words, "video_key": name}) for name in self._films()]
        return [_filled(str(info["data_path"]), words), *(part for film in films for part in (film, 0))]

    def _place_3(self, info: Mapping[str, Any], episode: Mapping[str, Any]) -> list[int | str]:
        def words(prefix: str) -> dict[str, Any]:
            return {name: int(episode[f"{prefix}/{name}"]) for name in ("chunk_index", "file_index")}

        place: list[int | str] = [_filled(str(info["data_path"]), words("data"))]
        for name in self._films():
            film = _filled(str(info["video_path"]), {**words(f"videos/{name}"), "video_key": name})
            place += [film, round(float(episode[f"videos/{name}/from_timestamp"]) * 1e6)]
        return place

    def _films(self) -> list[str]:
        return [name for name in self.cameras if self.info["features"][name].get("dtype") == "video"]

    def read(self, item: Item) -> Recorded:
        """The rows of an episode, and its parts of the videos."""
        number, length = int(item.place[0]), int(item.place[1])
        path = self._inside(str(item.place[2]))
        known = self._rows(path, number, (ACTION, STATE, REWARD, DONE, SUCCESS, TIME))
        times = self._times(path, known, length)
        films = dict(zip(self._films(), zip(item.place[3::2], item.place[4::2], strict=True), strict=True))
        notes = Counter[str]()
        depth = Depth.of(self.depth_range, notes)
        streams = [
            self._filmed(*films[camera], times) if camera in films else self._pictures(path, number, camera, depth)
            for camera in self.cameras
        ]
        reward, ended = _outcomes(path, known, notes)
        return arriving(
            Recorded(
                together(streams),
                self._checked(path, known) if self.action_width else None,
                reward,
                ended,
                tables.matrix(path, known, [STATE]) if self.state_width else None,
                left_out=notes,
            )
        )

    def _times(self, path: Path, known: tables.Columns, length: int) -> Float64[np.ndarray, " L"]:
        """Times of the rows in seconds since the start of the episode.

        Raises:
            BadEpisode: if rows are missing, or have another rate than the description.
        """
        rows = {len(column) for column in known.values()}
        if rows != {length}:
            raise BadEpisode(f"{path}: has {sorted(rows)} rows of it, expected {length} as in meta; download it again")
        rate = self.rate
        if TIME not in known:
            return np.arange(length) / rate
        times = tables.one_column(path, known, TIME)
        check_even(times, "row", "rows are missing: drop the episode")
        step = usual_step(times)
        if length > 1 and abs(step * rate - 1) > 0.05:
            raise BadEpisode(
                f"{path}: its rows are {step:.4f} s apart, expected {1 / rate:.4f} s as 'fps' in meta/info.json says; "
                "fix one of them"
            )
        return times

    def _filmed(self, name: int | str, microseconds: int | str, times: Float64[np.ndarray, " L"]) -> Frames:
        """The frame of a video for each row."""
        path, start = self._inside(str(name)), int(microseconds) / 1e6
        within = 0.5 / self.rate * (1 + 1e-3)
        # in version 2 a video is one episode, so that a wrong length can be detected
        whole = not str(self.info["codebase_version"]).startswith("v3")
        return frames_at(video.read_film(path, max(start - within, 0.0)), start + times, within, str(path), whole)

    def _inside(self, name: str) -> Path:
        path = self.place / name
        true, place = path.resolve(), self.place.resolve()
        homes = [place, *([blobs] if (blobs := _blobs(place)) else [])]
        if not path.is_file() or not any(true.is_relative_to(home) for home in homes):
            raise BadEpisode(f"{path}: no such file in the data set, expected it as in meta/info.json")
        return path  # the path before links are resolved has the suffix, which gives the format

    def _rows(self, path: Path, number: int, names: tuple[str, ...]) -> tables.Columns:
        """Columns of an episode; a file may contain several episodes."""
        known = tables.read_table(path, (*names, "episode_index"))
        if "episode_index" in known:
            if known["episode_index"].ndim != 1:
                raise BadEpisode(f"{path}: 'episode_index' holds lists, expected one number a row; download it again")
            mine = known["episode_index"] == number
            known = {name: column[mine] for name, column in known.items()}
        return known

    def _checked(self, path: Path, known: tables.Columns) -> Float[np.ndarray, "L A"]:
        action = tables.matrix(path, known, [ACTION])
        return action if self.choices is None else self.choices.encode(action, f"{path}: '{ACTION}'")

    def actions(self, item: Item) -> Float[np.ndarray, "L A"]:
        """The actions of one episode."""
        path = self._inside(str(item.place[2]))
        return self._checked(path, self._rows(path, int(item.place[0]), (ACTION,)))

    def _pictures(self, path: Path, number: int, camera: str, depth: Depth) -> Frames:
        """Frames in the Parquet file, as PNG files in a column of (bytes, path)."""
        parquet = tables.pyarrow("pyarrow.parquet")
        block: list[np.ndarray] = []
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=16, columns=[camera, "episode_index"]):
                numbers = batch.column("episode_index").to_pylist()
                for cell, episode in zip(batch.column(camera).to_pylist(), numbers, strict=True):
                    if episode == number:
                        block.append(_decoded(path, cell, depth, block[0].shape[:2] if block else None))
                    if block and len(block) == block_length(*block[0].shape[:2]):
                        yield np.stack(block)
                        block = []
        if block:
            yield np.stack(block)


def _blobs(place: Path) -> Path | None:
    """The directory of a data set's files in the local cache of the Hugging Face Hub, whose snapshots are links."""
    cache = place.parent.parent
    return cache / "blobs" if place.parent.name == "snapshots" and cache.name.startswith("datasets--") else None


def _outcomes(path: Path, known: tables.Columns, notes: Counter[str]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Reward and termination that result from the action of each row, `[L]` each; None if unknown.

    Without rewards, success is a reward of 1. LeRobot marks the last row of *every* episode as done, also after a
    timeout. It is a termination if the episode succeeded or, without `next.success`, if the row has a reward.
    """
    reward, done, success = (_flat(path, known, name) for name in (REWARD, DONE, SUCCESS))
    if reward is None and success is not None:
        reward = (success > 0.5).astype(np.float32)
    if done is not None:
        ended = done > 0.5
    elif success is not None:
        ended = np.zeros(len(success), np.bool_)
    else:
        return reward, None
    if len(ended):
        rewarded = reward is not None and len(reward) == len(ended) and bool(reward[-1] != 0)
        was_done = bool(ended[-1])
        ended[-1] = success[-1] > 0.5 if success is not None else ended[-1] and rewarded
        if was_done and not ended[-1]:
            notes[_OUT_OF_TIME] += 1
    return reward, ended


def _flat(path: Path, known: tables.Columns, name: str) -> np.ndarray | None:
    return tables.one_column(path, known, name).astype(np.float32) if name in known else None


def _decoded(path: Path, cell: Any, depth: Depth, size: tuple[int, int] | None) -> UInt8[np.ndarray, "h w 3"]:
    try:
        return decode_picture(cell["bytes"], depth, size=size)
    except (*UNDECODABLE, TypeError, KeyError) as error:
        raise BadEpisode(
            f"{path}: a picture cannot be decoded ({error}), expected a PNG file; download it again"
        ) from error


def _filled(template: str, words: Mapping[str, Any]) -> str:
    """A path template with only `{name}` and `{name:03d}` filled in, because the file is untrusted."""

    def value(match: re.Match[str]) -> str:
        word = words[match[1]]
        return str(word).zfill(int(match[2] or 0)) if isinstance(word, int) else str(word)

    return re.sub(r"\{(\w+)(?::0?(\d{1,2})d)?\}", value, template)


def _parquet_files(directory: Path) -> list[Path]:
    return in_order(path for path in directory.rglob("*.parquet") if not is_litter(path))
