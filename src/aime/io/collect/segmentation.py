"""Instance ids and background shares of pixels in DeepMind Control."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

SUPERSAMPLING = 4
"""Segmentation has no antialiasing, so the background's share of a pixel is computed on a finer grid."""

Draw = Callable[[int], Int32[np.ndarray, "H W 2"]]
"""Renders the id and the type of the object at each pixel, for a height and width in pixels."""


class Segmentation:
    """Instance ids: one for each body that has a shape, in the simulator's order.

    Everything else has id 0: sky, floor, walls, rails, goal markers, and tendons such as the string of ball_in_cup. A
    skin that covers bodies (dog) is one more instance.

    Attributes:
        names: of ids 1 and more, from the simulator; "pole_1" is "pole" if there is no "pole_2".
    """

    def __init__(self, model: Any) -> None:
        """Assign the ids.

        Args:
            model: dm_control's `physics.model`.
        """
        import mujoco

        kinds = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_HFIELD)
        self._floor: Bool[np.ndarray, " G"] = np.isin(model.geom_type, [int(kind) for kind in kinds])
        bodies = np.unique(model.geom_bodyid[~self._floor])
        bodies = bodies[bodies > 0]
        ids = np.zeros(model.nbody, np.uint8)
        skin = len(bodies) + 1
        assert skin < 256, "the largest model of the suite has 100 bodies"
        ids[bodies] = np.arange(1, skin)
        self._geom = int(mujoco.mjtObj.mjOBJ_GEOM)
        self._ids = {
            self._geom: np.where(self._floor, 0, ids[model.geom_bodyid]).astype(np.uint8),
            int(mujoco.mjtObj.mjOBJ_SITE): ids[model.site_bodyid],
            int(mujoco.mjtObj.mjOBJ_SKIN): np.full(model.nskin, skin, np.uint8),
        }
        self.names = {number: name for number, name in enumerate(_names(model, bodies.tolist()), 1)}
        if model.nskin:
            self.names[skin] = "skin"

    def instances(self, draw: Draw, size: int) -> UInt8[np.ndarray, "H W"]:
        """The id at the centre of each pixel, `[size, size]`, 0 for the background."""
        objects = draw(size)
        number, kind = objects[..., 0], objects[..., 1]
        found = np.zeros(number.shape, np.uint8)
        for each, ids in self._ids.items():
            here = kind == each
            found[here] = ids[number[here]]
        return found

    def background(self, draw: Draw, size: int) -> Float32[np.ndarray, "H W"]:
        """The share of each pixel in [0, 1] that sky and floor (planes and height fields) cover."""
        objects = draw(size * SUPERSAMPLING)
        number, kind = objects[..., 0], objects[..., 1]
        floor = (kind == self._geom) & self._floor[np.where(kind == self._geom, number, 0)]
        cells = ((kind == -1) | floor).reshape(size, SUPERSAMPLING, size, SUPERSAMPLING)
        return cells.mean(axis=(1, 3), dtype=np.float32)


def _names(model: Any, bodies: list[int]) -> list[str]:
    every = [model.id2name(number, "body") or f"body {number}" for number in bodies]
    return [name.removesuffix("_1") if f"{name.removesuffix('_1')}_2" not in every else name for name in every]
