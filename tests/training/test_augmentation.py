"""Zoom against an independent resize, and what it must leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from aime.errors import AimeError
from aime.training.augmentation import ZoomConfig, crop, zoom

B, T, H, W = 3, 4, 16, 24
ALWAYS = ZoomConfig(share=1.0)


@pytest.fixture
def frames() -> Tensor:
    return torch.randint(0, 256, (B, T, 3, H, W), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scale", [0.5, 0.73, 0.85, 0.99])
def test_a_crop_is_what_pillow_makes_of_the_same_box(frames: Tensor, scale: float) -> None:
    values = frames.float()
    centres = torch.tensor([[0.0, 0.0], [scale - 1, 1 - scale], [0.3 * (1 - scale), -0.8 * (1 - scale)]])
    result = crop(values, torch.full((B,), scale), centres)
    for row in range(B):
        left, top = ((centres[row].numpy() + 1 - scale) / 2 * (W, H)).clip(0)
        right, bottom = np.minimum((left + scale * W, top + scale * H), (W, H))
        for step in range(T):
            for channel in range(3):
                picture = Image.fromarray(values[row, step, channel].numpy(), mode="F")
                expected = picture.resize((W, H), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
                np.testing.assert_allclose(result[row, step, channel].numpy(), np.asarray(expected), atol=0.02)


def test_half_the_frame_in_its_middle_is_torchs_own_resize(frames: Tensor) -> None:
    values = frames.double()
    result = crop(values, torch.full((B,), 0.5).double(), torch.zeros(B, 2).double())
    doubled = F.interpolate(values.flatten(0, 1), scale_factor=2, mode="bilinear", align_corners=False)
    expected = doubled[:, :, H // 2 : H // 2 + H, W // 2 : W // 2 + W].unflatten(0, (B, T))
    torch.testing.assert_close(result, expected)


def test_whole_frames_keep_every_bit(frames: Tensor) -> None:
    for whole in (frames, frames.float() / 255):
        assert torch.equal(crop(whole, torch.ones(B), torch.zeros(B, 2)), whole)
        assert zoom(whole, ZoomConfig(share=0.0)) is whole
        assert zoom(whole, ZoomConfig(share=1.0, least=1.0)) is whole


def test_all_frames_of_a_clip_are_cut_alike_and_clips_differ(frames: Tensor) -> None:
    still = frames[:1, :1].expand(B, T, 3, H, W)
    zoomed = zoom(still, ALWAYS, seeded(0))
    assert torch.equal(zoomed, zoomed[:, :1].expand_as(zoomed))
    assert not torch.equal(zoomed[0], zoomed[1])
    assert not torch.equal(zoomed[0], still[0])


def test_padding_still_repeats_the_last_frame(frames: Tensor) -> None:
    frames[1, 2:] = frames[1, 1]
    zoomed = zoom(frames, ALWAYS, seeded(0))
    assert torch.equal(zoomed[1, 2:], zoomed[1, 1:2].expand(2, 3, H, W))


def test_crops_lie_inside_the_frame_and_use_all_of_it() -> None:
    """A picture of its own coordinates shows where a crop lay."""
    count = 500
    xs, ys = torch.meshgrid(torch.arange(W) + 0.5, torch.arange(H) + 0.5, indexing="xy")
    picture = torch.stack([xs / W, ys / H, xs * 0]).expand(count, 1, 3, H, W)
    zoomed = zoom(picture, ALWAYS, seeded(0))[:, 0]
    inside = zoomed[:, :, H // 2 - 4 : H // 2 + 4, W // 2 - 4 : W // 2 + 4]
    scales = (inside[:, 0, 0, -1] - inside[:, 0, 0, 0]) * W / 7
    assert float(scales.min()) == pytest.approx(0.85, abs=0.01)
    assert float(scales.max()) == pytest.approx(1.0, abs=0.01)
    middle = inside[:, :2].mean(dim=(2, 3))
    room = (1 - scales[:, None]) / 2
    places = ((middle - 0.5) / room)[room[:, 0] > 0.01]
    assert (places.abs() <= 1.001).all()
    assert (places.amax(0) > 0.95).all()
    assert (places.amin(0) < -0.95).all()
    assert abs(np.corrcoef(places.T.numpy())[0, 1]) < 0.15, "position is drawn for each axis by itself"


def test_the_share_is_of_clips() -> None:
    clips = torch.rand(400, 1, 3, 8, 8)
    zoomed = zoom(clips, ZoomConfig(share=0.3), seeded(0))
    changed = (zoomed != clips).flatten(1).any(1).float().mean()
    assert 0.22 < float(changed) < 0.38


def test_the_seed_decides(frames: Tensor) -> None:
    assert torch.equal(zoom(frames, ALWAYS, seeded(1)), zoom(frames, ALWAYS, seeded(1)))
    assert not torch.equal(zoom(frames, ALWAYS, seeded(1)), zoom(frames, ALWAYS, seeded(2)))
    torch.manual_seed(3)
    first = zoom(frames, ALWAYS)
    torch.manual_seed(3)
    assert torch.equal(zoom(frames, ALWAYS), first)


def test_bytes_are_rounded_floats(frames: Tensor) -> None:
    as_bytes, as_floats = zoom(frames, ALWAYS, seeded(0)), zoom(frames.float(), ALWAYS, seeded(0))
    assert as_bytes.dtype == torch.uint8
    assert torch.equal(as_bytes.float(), as_floats.round())


@pytest.mark.parametrize(("field", "value"), [("share", -0.1), ("share", 1.1), ("least", 0.0), ("least", 1.2)])
def test_configs_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(AimeError, match=rf"zoom\.{field} is {value}"):
        ZoomConfig(**{field: value})
