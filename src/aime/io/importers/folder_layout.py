"""The layout of a folder: which videos, pictures and tables belong to an episode.

An episode has a video per camera. With several cameras the videos are in

    top/pick-1.mp4       wrist/pick-1.mp4       a directory per camera,
    pick-1/top.mp4       pick-1/wrist.mp4       a directory per episode, or
    pick-1_top.mp4       pick-1_wrist.mp4       files with the camera's name as suffix;

A directory of pictures can replace any video.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from aime.errors import AimeError
from aime.io.importers import tables, video
from aime.io.importers.files import is_litter
from aime.io.importers.interface import in_order
from aime.io.importers.picture_masks import MASKS
from aime.io.importers.picture_names import pictures_in


class Place(NamedTuple):
    """The files of an episode, as paths within the folder."""

    name: str
    """Name of the episode."""
    films: tuple[str, ...]
    """A video or a directory of pictures per camera; "" if there is none."""
    table: str | None
    """None without a table."""


class Layout(NamedTuple):
    """The content of a folder."""

    episodes: list[Place]
    unread: list[str]
    """Other files and directories in it."""


def find_layout(source: Path, cameras: Sequence[str]) -> Layout:
    """Find the episodes of a folder.

    Args:
        source: the folder.
        cameras: to import; empty if there is only one.

    Raises:
        AimeError: if there is no episode, cameras are unknown or must be named, or names are ambiguous.
    """
    _refuse_stable_worldmodel(source)
    entries = in_order(path for path in source.iterdir() if not is_litter(path))
    shown = [path for path in entries if is_shown(path)]
    nested = {path.name: _inside(path) for path in entries if path.is_dir() and not is_shown(path)}
    nested = {name: inside for name, inside in nested.items() if inside}
    films = _by_camera(source, shown, nested, cameras) if cameras else _alone(source, shown, nested, entries)
    episodes = [Place(name, tuple(_text(source, film) for film in films[name]), None) for name in films]
    listed: dict[Path, dict[str, list[Path]]] = {}
    episodes = [episode._replace(table=_table(source, episode, listed)) for episode in episodes]
    _check_shared(source, episodes)
    used = {part for episode in episodes for part in (episode.table, *episode.films) if part}
    tops = {text.split("/")[0] for text in used}
    unread = [path.name for path in entries if path.name not in tops]
    inner = {text for name, inside in nested.items() if name in tops for text in _texts(source, inside.values())}
    return Layout(episodes, [*unread, *sorted(inner - used), *_beside_pictures(source, used)])


def _beside_pictures(source: Path, used: set[str]) -> list[str]:
    """Unknown files in directories of pictures: the first of each directory, and a count."""
    found: list[str] = []
    for directory in sorted(source / text for text in used):
        if directory.is_dir():
            others = set(directory.iterdir()) - set(pictures_in(directory))
            names = sorted(_texts(source, (path for path in others if not is_litter(path))))
            names = [name for name in names if name not in used and Path(name).name != MASKS]
            found += [f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]] if names else []
    return found


def is_shown(path: Path) -> bool:
    """Whether a path is a video or a directory of pictures."""
    return bool(pictures_in(path)) if path.is_dir() else path.suffix.lower() in video.SUFFIXES


def _inside(directory: Path) -> dict[str, Path]:
    """The videos and directories of pictures in a directory, by name without suffix."""
    return {_stem(path): path for path in in_order(directory.iterdir()) if not is_litter(path) and is_shown(path)}


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _texts(source: Path, films: Iterable[Path]) -> list[str]:
    return [_text(source, film) for film in films]


def _text(source: Path, film: Path | None) -> str:
    return "" if film is None else str(film.relative_to(source))


def _refuse_stable_worldmodel(source: Path) -> None:
    if (source / "ep_len.npz").is_file() and (source / "ep_offset.npz").is_file():
        raise AimeError(
            f"{source}: is in stable-worldmodel's format of pictures or videos, expected a video and a table for "
            "each episode; write HDF5 with stable-worldmodel and use aime import stable-worldmodel"
        )


def _alone(
    source: Path, shown: Sequence[Path], nested: dict[str, dict[str, Path]], entries: Sequence[Path]
) -> dict[str, list[Path | None]]:
    if not shown:
        if nested:
            inner = sorted({name for inside in nested.values() for name in inside})
            raise AimeError(
                f"{source}: its videos are in the directories {_some(nested)} with the names {_some(inner)}; name the "
                "cameras, which are one or the other, with --camera, or pass one directory as the source"
            )
        raise AimeError(f"{source}: has no video ({', '.join(video.SUFFIXES)}) and no directory of pictures; check it")
    stems = {_stem(path) for path in shown}
    for path in entries:
        if path.suffix.lower() not in tables.SUFFIXES or path.stem in stems:
            continue
        ends = sorted(stem[len(path.stem) + 1 :] for stem in stems if re.match(re.escape(path.stem) + "[_.-].", stem))
        if ends:
            raise AimeError(
                f"{path}: is a table without a video of its name, but there are videos of the cameras {_some(ends)}; "
                "name the cameras with --camera"
            )
    return {path.name: [path] for path in shown}


def _by_camera(
    source: Path, shown: Sequence[Path], nested: dict[str, dict[str, Path]], cameras: Sequence[str]
) -> dict[str, list[Path | None]]:
    if set(cameras) <= set(nested):
        names = _in_order_of({name for camera in cameras for name in nested[camera]})
        return {name: [nested[camera].get(name) for camera in cameras] for name in names}
    if all(any(camera in inside for inside in nested.values()) for camera in cameras):
        return {name: [inside.get(camera) for camera in cameras] for name, inside in nested.items()}
    found = {camera: _ending_in(shown, camera) for camera in cameras}
    if all(found.values()):
        names = _in_order_of({name for films in found.values() for name in films})
        return {name: [found[camera].get(name) for camera in cameras] for name in names}
    unknown = next(camera for camera in cameras if not found[camera])
    known = sorted({*nested, *(name for inside in nested.values() for name in inside)})
    endings = sorted({match[1] for path in shown if (match := re.search(r"[_.-]([^_.-]+)$", _stem(path)))})
    raise AimeError(
        f"{source}: has no camera '{unknown}', found directories {_some(known)} and names that end in "
        f"{_some(endings)}; name one of these with --camera, or none"
    )


def _ending_in(shown: Sequence[Path], camera: str) -> dict[str, Path]:
    ends = tuple(f"{mark}{camera}" for mark in "_.-")
    return {_stem(path)[: -len(camera) - 1]: path for path in shown if _stem(path).endswith(ends)}


def _in_order_of(names: Iterable[str]) -> list[str]:
    return [str(path) for path in in_order(Path(name) for name in names)]


def _table(source: Path, episode: Place, listed: dict[Path, dict[str, list[Path]]]) -> str | None:
    """The table of an episode: with its name, the name of one of its videos, or `actions` in its directory.

    Args:
        source: the folder.
        episode: without its table.
        listed: cache of the tables of each directory, by name without suffix.

    Raises:
        AimeError: if there is more than one.
    """
    bare = Path(episode.name)
    places = {source / (bare.stem if bare.suffix.lower() in video.SUFFIXES else bare.name)}
    for name in filter(None, episode.films):
        film = source / name
        places.add(film if film.is_dir() else film.with_suffix(""))
        if film.is_dir():
            places.add(film / "actions")
        if film.parent != source:
            places |= {film.parent / "actions", film.parent / episode.name}
    found = sorted({table for place in places for table in _tables_in(place.parent, listed).get(place.name, ())})
    if len(found) > 1:
        raise AimeError(
            f"{source}: the episode '{episode.name}' has the tables {_texts(source, found)}, expected one; remove the "
            "rest"
        )
    return _text(source, found[0]) if found else None


def _tables_in(directory: Path, listed: dict[Path, dict[str, list[Path]]]) -> dict[str, list[Path]]:
    if directory not in listed:
        listed[directory] = {}
        for path in directory.iterdir() if directory.is_dir() else ():
            if path.suffix.lower() in tables.SUFFIXES and not is_litter(path):
                listed[directory].setdefault(path.stem, []).append(path)
    return listed[directory]


def _check_shared(source: Path, episodes: Sequence[Place]) -> None:
    owner: dict[str, str] = {}
    for episode in episodes:
        if episode.table is not None and owner.setdefault(episode.table, episode.name) != episode.name:
            raise AimeError(
                f"{source}: '{owner[episode.table]}' and '{episode.name}' have one table, {episode.table}, expected "
                "one each; rename or remove one of them"
            )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return f"{listed[:8]}{more}"
