"""Film files: the frames that went in come out, at the right pace."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from aime.errors import AimeError
from aime.inference import animation
from aime.inference.animation import FRAMES_PER_SECOND, check_film_path, encode_film

needs_av = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="PyAV is not installed")


@pytest.fixture
def frames() -> list[Image.Image]:
    """A bright square that moves over a dark ground."""
    pictures = []
    for step in range(6):
        picture = np.full((32, 48, 3), 30, np.uint8)
        picture[8:24, 4 + 5 * step : 16 + 5 * step] = (230, 160, 60)
        pictures.append(Image.fromarray(picture))
    return pictures


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".GIF"])
def test_animated_pictures_hold_the_frames(frames: list[Image.Image], suffix: str) -> None:
    film = Image.open(io.BytesIO(encode_film(frames, suffix)))
    assert sum(1 for _ in ImageSequence.Iterator(film)) == len(frames)
    assert film.info["loop"] == 0
    for number, frame in enumerate(frames):
        film.seek(number)
        film.load()
        duration = 1000 / FRAMES_PER_SECOND if number + 1 < len(frames) else 1000 * animation.LAST_FRAME_SECONDS
        assert film.info["duration"] == duration
        shown = np.asarray(film.convert("RGB")).astype(int)
        assert np.abs(shown - np.asarray(frame)).mean() < 4


@needs_av
def test_mp4_holds_the_frames(frames: list[Image.Image]) -> None:
    import av

    with av.open(io.BytesIO(encode_film(frames, ".mp4")), "r") as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == FRAMES_PER_SECOND
    assert len(shown) == len(frames)
    for ours, theirs in zip(shown, frames, strict=True):
        assert np.abs(ours.astype(int) - np.asarray(theirs)).mean() < 8


@pytest.mark.parametrize("name", ["dream.webp", "dream.GIF"])
def test_known_endings_are_accepted(name: str) -> None:
    check_film_path(Path(name))


@pytest.mark.parametrize(("name", "found"), [("dream.avi", "ends in .avi"), ("dream", "ends in nothing")])
def test_other_endings_are_refused(name: str, found: str) -> None:
    with pytest.raises(AimeError, match=rf"{found}, expected .webp, .gif or .mp4"):
        check_film_path(Path(name))


def test_mp4_without_pyav_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "av" else find(name))
    with pytest.raises(AimeError, match=r"dream.mp4: .*PyAV.*pip install 'aime\[video\]'"):
        check_film_path(Path("dream.mp4"))
