"""Importer of DMC-VB (Ortiz et al. 2024, arXiv 2409.18330) and other RLDS data sets, without TensorFlow.

A data set is a directory with `features.json`, `dataset_info.json` and TFRecord files, with one episode per record. A
source is one data set, or a tree of them such as `locomotion/walker_walk/expert/{none,static_medium,dynamic_medium}`.

`action[t]` follows `observation[t]`. In DMC-VB `reward[t]` describes the arrival at `observation[t]`, as in dm_env. In
other data sets `reward[t]` results from `action[t]`, as RLDS prescribes. The names of the states distinguish the two.

RLDS does not define action and reward of the last step. Many data sets, such as Open X-Embodiment, have the reward for
success there, so a last reward other than 0 is attributed to the last action.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from aime.errors import AimeError
from aime.io.importers.action_parts import (
    ActionPart,
    Choices,
    Quantities,
    discrete_columns,
    joined_bounds,
    observed,
)
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
    refuse_others,
    shifted_to_arrival,
    truths,
)
from aime.io.importers.tfds_features import STEPS, Feature, decode_column, decode_frames, read_features
from aime.io.importers.tfds_splits import read_splits
from aime.io.importers.tfrecord import Extent, record, scan
from aime.io.importers.wire import WireError, example_features

OBSERVATION = "observation/"

STATE_ORDERS: tuple[tuple[str, ...], ...] = (
    ("orientations", "height", "velocity"),
    ("position", "velocity"),
    ("com_velocity", "extremities", "head_height", "joint_angles", "torso_vertical", "velocity"),
    (
        *("distance_to_target", "target_position", "target_vector", "walker/appendages_pos", "walker/bodies_pos"),
        *("walker/bodies_quats", "walker/egocentric_target_vector", "walker/end_effectors_pos", "walker/joints_pos"),
        *("walker/joints_vel", "walker/sensors_accelerometer", "walker/sensors_gyro", "walker/sensors_touch"),
        *("walker/sensors_velocimeter", "walker/world_zaxis", "walker_position"),
    ),
)
"""The benchmark's states of walker, cheetah, humanoid and ant maze: fields in its order."""

_BOOKKEEPING = ("reward", "discount", "is_first", "is_last", "is_terminal")
"""Fields of every RLDS data set other than observations and actions."""

COMPRESSION = 2
"""Approximate decoded bytes per byte of a record, to divide the work."""


def open_source(source: Path, choice: Choice) -> Sources:
    """The data sets of a tree, with all splits or `choice.split`.

    Raises:
        AimeError: if there is none, a description is missing or damaged, or a camera or split does not exist.
    """
    refuse_others(source, choice, ("cameras", "split", "state", "actions", "fps"))
    records = [path for path in source.rglob("*.tfrecord*") if path.is_file() and not is_litter(path)]
    places = sorted({path.parent for path in records})
    if not places:
        if any(source.rglob("*.array_record*")):
            raise AimeError(
                f"{source}: has array_record files, expected tfrecord; write it with file_format='tfrecord'"
            )
        raise AimeError(f"{source}: has no *.tfrecord file, expected data sets of DMC-VB; check the path")
    found: dict[str, RldsImporter] = {}
    for place in places:
        features = read_features(place / "features.json")
        splits = {
            split: RldsImporter(place, split, tuple(files.items()), tuple(features.values()), choice)
            for split, files in read_splits(place).items()
        }
        if choice.split is not None and choice.split not in splits:
            raise AimeError(
                f"{place}: has no split {choice.split!r}, expected one of {sorted(splits)}; choose another --split"
            )
        for importer in splits.values():
            importer.check()
        # the choices are the values of all splits, so that splits can be combined
        parts, notes = _action_parts(list(splits.values())) if choice.actions else ((), ())
        for split, importer in splits.items():
            if choice.split in (None, split):
                below = "" if len(places) == 1 else str(place.relative_to(source))
                found[f"{below}/{split}".strip("/")] = replace(
                    importer, parts=parts, notes=(*notes, *importer.unused())
                )
    if len(found) == 1:
        return {"": next(iter(found.values()))}
    return found


def _action_parts(splits: Sequence[RldsImporter]) -> tuple[tuple[ActionPart, ...], tuple[str, ...]]:
    """The kind of each action feature, and lines for the report."""
    parts: list[ActionPart] = []
    notes: list[str] = []
    for feature in splits[0].action_features():
        if feature.choices:
            parts.append(Choices((0,), (feature.choices,)))
        elif feature.is_discrete:
            part, note = observed(feature.path, (rows for split in splits for rows in split.raw_actions(feature)))
            parts.append(part)
            notes.append(note)
        else:
            parts.append(Quantities.unbounded(feature.size))
    return tuple(parts), tuple(notes)


@dataclass(frozen=True)
class RldsImporter:
    """One split of one data set.

    Attributes:
        place: its directory.
        split: the split's name.
        files: names of its files, in order, and their numbers of records, None if not declared.
        features: of a step.
        choice: what to import.
        parts: kind of each action feature; empty if actions are not imported.
        notes: for the report.
    """

    place: Path
    split: str
    files: tuple[tuple[str, int | None], ...]
    features: tuple[Feature, ...]
    choice: Choice
    parts: tuple[ActionPart, ...] = ()
    notes: tuple[str, ...] = ()

    def check(self) -> None:
        """Check that the required features exist.

        Raises:
            AimeError: if a camera does not exist, or there are no frames or actions.
        """
        self.cameras()
        if self.choice.actions and not self.action_features():
            raise AimeError(
                f"{self.place}/features.json: has no vector 'action', found {[f.path for f in self.features]}; import "
                "with --no-actions"
            )

    @property
    def facts(self) -> Facts:
        """Widths and names, from `features.json`."""
        width = sum(part.width for part in self.parts)
        names = {feature.path.removeprefix(OBSERVATION): feature.size for feature in self.states()}
        attributes = {"split": self.split}
        if not width:
            return Facts(0, names, attributes=attributes)
        bounds = ((-1.0,) * width, (1.0,) * width) if self._state_order() else joined_bounds(self.parts)
        named = {
            feature.path.removeprefix("action/"): part.width
            for feature, part in zip(self.action_features(), self.parts, strict=True)
            if feature.path != "action"
        }
        return Facts(width, names, bounds, discrete_columns(self.parts), attributes, self.notes, named)

    def cameras(self) -> list[Feature]:
        """The frame features: those requested, or the only one.

        Raises:
            AimeError: if one does not exist, or several exist and none is requested.
        """
        frames = {feature.path.removeprefix(OBSERVATION): feature for feature in self.features if feature.is_frame}
        unknown = [name for name in self.choice.cameras if name not in frames]
        if unknown or not frames:
            raise AimeError(
                f"{self.place}/features.json: has no camera {unknown}, expected some of {sorted(frames)}; name others "
                "with --camera"
            )
        if self.choice.cameras:
            return [frames[name] for name in self.choice.cameras]
        if len(frames) > 1:
            raise AimeError(
                f"{self.place}/features.json: has cameras {sorted(frames)}, expected one; name one or several, "
                "which are tiled, with --camera"
            )
        return list(frames.values())

    def states(self) -> list[Feature]:
        """The fields of the state: the benchmark's in its order, otherwise all vectors sorted by name."""
        if not self.choice.state:
            return []
        vectors = {f.path.removeprefix(OBSERVATION): f for f in self._observed() if f.is_vector}
        return [vectors[name] for name in self._state_order() or sorted(vectors)]

    def _observed(self) -> list[Feature]:
        return [feature for feature in self.features if feature.path.startswith(OBSERVATION)]

    def _state_order(self) -> tuple[str, ...] | None:
        names = {feature.path.removeprefix(OBSERVATION) for feature in self._observed() if feature.is_vector}
        fitting = [order for order in STATE_ORDERS if names == set(order) or (len(order) > 6 and names >= set(order))]
        return fitting[0] if fitting else None

    def action_features(self) -> list[Feature]:
        """The features of an action: the vector `action`, or the vectors below it sorted by name."""
        return sorted(
            (
                feature
                for feature in self.features
                if (feature.path == "action" or feature.path.startswith("action/"))
                and (feature.is_vector or feature.is_discrete)
            ),
            key=lambda feature: feature.path,
        )

    def unused(self) -> list[str]:
        """A line about features that are not imported, if there are any."""
        taken = {each.path for each in (*self.cameras(), *self.states())} | set(_BOOKKEEPING)
        taken |= {each.path for each in self.action_features() if self.choice.actions}
        left = sorted(feature.path for feature in self.features if feature.path not in taken)
        return [f"features not imported: {', '.join(left)}"] if left else []

    def raw_actions(self, feature: Feature) -> Iterator[np.ndarray]:
        """An action feature in every readable episode, `[T, size]`."""
        for item in self.survey().items:
            with suppress(BadEpisode):  # reported when the episode is read
                yield _rows(self._content(item).column(feature))

    def survey(self) -> Survey:
        """List the records from their headers."""
        items: list[Item] = []
        bad: list[BadEpisode] = []
        for name, count in self.files:
            path = self.place / name
            if not path.is_file():
                bad.append(BadEpisode(f"{path}: no such file, expected as dataset_info.json lists it; download it"))
                continue
            extents, complaint = scan(path)
            if complaint is None and count is not None and len(extents) != count:
                complaint = BadEpisode(
                    f"{path}: has {len(extents)} records, expected {count} as in dataset_info.json; download it again"
                )
            bad += [complaint] if complaint else []
            items += [
                Item(
                    f"{path}, record {number} at byte {extent.offset}", COMPRESSION * extent.length + 1, (name, *extent)
                )
                for number, extent in enumerate(extents)
            ]
        return Survey(items, bad)

    def read(self, item: Item) -> Recorded:
        """Decode a record; its pages remain mapped while its frames are read."""
        content = self._content(item)
        return self._episode(content, together([content.frames(camera) for camera in self.cameras()]))

    def _content(self, item: Item) -> _Content:
        name, offset, length = item.place
        return _Content(record(self.place / str(name), Extent(int(offset), int(length))), item.name)

    def _episode(self, content: _Content, frames: Iterator[Sequence[UInt8[np.ndarray, "n h w 3"]]]) -> Recorded:
        """The episode with the given frames."""
        action = self._action(content) if self.parts else None
        states = [content.column(feature) for feature in self.states()]
        reward, terminal = content.optional(self._named("reward")), self._terminal(content)
        lengths = {len(rows) for rows in (action, reward, terminal, *states) if rows is not None}
        if len(lengths) > 1:
            raise BadEpisode(f"its features have {sorted(lengths)} steps, expected as many each; download it again")
        recorded = Recorded(
            frames,
            action=action,
            reward=None if reward is None else reward.astype(np.float64),
            state=np.concatenate([rows.reshape(len(rows), -1) for rows in states], axis=1) if states else None,
        )
        if self._state_order() is None:
            return arriving(recorded, terminal, last_action_is_real=False)
        return _arrived(recorded, terminal)

    def _action(self, content: _Content) -> Float[np.ndarray, "L A"]:
        columns = [_rows(content.column(feature)) for feature in self.action_features()]
        lengths = {len(column) for column in columns}
        if len(lengths) > 1:
            raise BadEpisode(f"its actions have {sorted(lengths)} steps, expected as many each; download it again")
        named = zip(self.action_features(), self.parts, columns, strict=True)
        return np.concatenate([part.encode(column, f"'{at.path}'") for at, part, column in named], axis=1)

    def _terminal(self, content: _Content) -> Bool[np.ndarray, " L"] | None:
        """Termination of each frame: `is_terminal`, or else a discount of 0, if not all are 0."""
        terminal = content.optional(self._named("is_terminal"))
        if terminal is not None:
            return truths("is_terminal", terminal, len(terminal))
        discount = content.optional(self._named("discount"))
        return None if discount is None else shifted_to_arrival(discount == 0)[:-1] & (discount != 0).any()

    def _named(self, path: str) -> Feature | None:
        """A feature of one number per step, also if declared as a vector."""
        fitting = (each for each in self.features if each.path == path and each.size == 1 and each.is_numbers)
        return next(fitting, None)

    def actions(self, item: Item) -> Float[np.ndarray, "L A"]:
        """The actions of one record."""
        action = self._episode(self._content(item), iter(())).action
        assert action is not None
        return action


class _Content:
    """A record, and its location for messages."""

    def __init__(self, body: memoryview, where: str) -> None:
        self._where = where
        try:
            self._features = example_features(body)
        except WireError as error:
            problem = f"is not a tf.train.Example ({error})"
            raise BadEpisode(f"{where}: {problem}; download it again, or --skip-bad") from error

    def column(self, feature: Feature | None) -> np.ndarray:
        """The values of a feature at all steps."""
        assert feature is not None
        return decode_column(feature, self._of(feature), self._where)

    def optional(self, feature: Feature | None) -> np.ndarray | None:
        """The values `[T]` of an optional feature of one number."""
        return None if feature is None else self.column(feature).reshape(-1)

    def frames(self, feature: Feature) -> Iterator[UInt8[np.ndarray, "n h w 3"]]:
        """The frames of a camera, in blocks."""
        return decode_frames(feature, self._of(feature), self._where)

    def _of(self, feature: Feature) -> memoryview:
        name = f"{STEPS}/{feature.path}"
        if name not in self._features:
            raise BadEpisode(
                f"{self._where}: has no feature '{name}', expected it as in features.json; download it again"
            )
        return self._features[name]


def _rows(values: np.ndarray) -> np.ndarray:
    """The numbers of each step: `[T, N]`."""
    return values.reshape(len(values), -1)


def _arrived(recorded: Recorded, terminal: np.ndarray | None) -> Recorded:
    """An episode of DMC-VB, whose rewards describe arrivals: the first reward and the last action become NaN."""
    action, reward = recorded.action, recorded.reward
    if action is not None:
        action = action.astype(np.float64)
        action[-1:] = np.nan
    if reward is not None:
        reward = np.concatenate([np.full(1, np.nan, np.float32), reward[1:]])
    return replace(recorded, action=action, reward=reward, terminated=terminal)
