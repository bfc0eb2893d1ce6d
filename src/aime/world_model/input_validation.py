"""Where frames, actions and states enter the model: shapes, types and ranges, checked and converted in one place.

`Admission` is for the public API and looks at every number. The functions are for callers within the package, whose
numbers are known to be in range: they look at shapes and types alone.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aime.control.control import Control
from aime.errors import AimeError
from aime.world_model import values
from aime.world_model.config import ModelConfig
from aime.world_model.outputs import BeliefState
from aime.world_model.values import ValueChecks

if TYPE_CHECKING:
    from aime.world_model.model import AIME

Array = Tensor | np.ndarray
"""What the public API takes: torch tensors on any device, and numpy arrays."""

_KNOWN_WRONG = {
    torch.bool: "a mask? give pictures",
    torch.int64: "0 to 255? convert them to uint8",
    torch.int32: "0 to 255? convert them to uint8",
    torch.int16: "0 to 255? convert them to uint8",
    torch.uint16: "16 bit? divide by 65535",
}


class Admission:
    """What enters one call of the public API, checked and converted to the model's device and type.

    A context manager around the call: on a GPU the numbers are judged at its end, see `ValueChecks`.
    """

    def __init__(self, model: AIME) -> None:
        self.model, self.config, self.like = model, model.config, model.null_action
        self._values = ValueChecks()
        self._one_clip = False

    def __enter__(self) -> Admission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._values.__exit__(kind, error, traceback)

    def frames(self, given: Array, name: str = "frames") -> Float[Tensor, "B T 3 H W"]:
        """Frames of any layout that `AIME.prepare` takes."""
        self._one_clip = getattr(given, "ndim", 0) < 5
        return self._looked_at(as_tensor(given, name), name)

    def frame(self, given: Array, batch: int) -> Float[Tensor, "B 1 3 H W"]:
        """One frame of each of `batch` videos."""
        frame, size = as_tensor(given, "frame"), self.config.image_size
        if frame.ndim == 3 and batch == 1:
            frame = frame[None]
        if frame.ndim != 4 or frame.shape[0] != batch:
            raise AimeError(
                f"frame has shape {list(frame.shape)}; expected [{batch}, 3, {size}, {size}] or [{batch}, {size}, "
                f"{size}, 3]: one frame for each of the {batch} videos of the state"
            )
        return self._looked_at(frame[:, None], "frame")

    def _looked_at(self, given: Tensor, name: str) -> Float[Tensor, "B T 3 H W"]:
        if not given.is_floating_point():
            return admit_frames(given, self.config, self.like, name)
        # numbers that the host has are judged before a GPU gets them
        frames = admit_frames(given, self.config, self.like if self.like.device == given.device else given, name)
        innermost = frames.permute(0, 1, 3, 4, 2)
        self._values.extremes(innermost, values.judge_frames(name, frames))
        return frames.to(self.like)

    def actions(
        self, given: Array | None, shape: torch.Size, valid: Array | None = None, last_unused: bool = False
    ) -> Float[Tensor, "B T A"]:
        """Actions of B clips of T frames, with the null action where they are missing."""
        if given is None:
            return admit_actions(None, None, shape, self.like)
        actions = _as_batch(as_actions(given, "actions"), 2, self._one_clip)
        _expect_actions(actions, shape, self.like.shape[0])
        known = None if valid is None else self.valid(valid, shape)
        if last_unused:
            known = torch.ones(shape, dtype=torch.bool, device=self.like.device) if known is None else known.clone()
            known[:, -1] = False
        seen = actions if known is None else torch.where(known[..., None].to(actions.device), actions, 0)
        self.action_values(seen, "actions", "mark what is missing by action_valid=False")
        return admit_actions(actions, known, shape, self.like)

    def any_actions(self, given: Array | None, batch: int) -> Float[Tensor, "B N A"] | None:
        """Actions of B clips of any length, whose numbers are for `action_values` to look at; None stays None."""
        if given is None:
            return None
        actions = _as_batch(as_actions(given, "actions"), 2, self._one_clip)
        width = self.config.action_width
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != (batch, width):
            raise AimeError(
                f"actions have shape {list(actions.shape)}; expected [{batch}, steps, {width}] (batch, frames, action "
                "width): give one action a frame, of the width that the model was trained on"
            )
        return actions.to(self.like.dtype)

    def action_values(self, actions: Float[Tensor, "..."], name: str, missing: str = "") -> None:
        """Look at the numbers of some actions."""
        self._values.extremes(actions, values.judge_actions(name, actions, self.model.action_scale, missing))

    def clipped_actions(self, actions: Float[Tensor, "..."], name: str) -> None:
        """Look at the numbers of actions that are then clipped."""
        self._values.extremes(actions, values.judge_clipped_actions(name, actions, self.model.action_scale))

    def action(self, given: Array, batch: int, ignored: Bool[Tensor, " B"] | None = None) -> Float[Tensor, "B A"]:
        """One action of each of `batch` videos; where it is ignored it may be anything, and is 0."""
        action, width = as_actions(given, "action"), self.config.action_width
        if action.ndim == 1 and batch == 1:
            action = action[None]
        if action.shape != (batch, width):
            raise AimeError(
                f"action has shape {list(action.shape)}; expected [{batch}, {width}] (batch, action width): give each "
                "video one action, of the width that the model was trained on"
            )
        if ignored is not None:
            action = torch.where(ignored[:, None].to(action.device), 0, action)
        self.action_values(action, "action")
        return action.to(self.like)

    def valid(self, given: Array, shape: torch.Size, name: str = "action_valid") -> Bool[Tensor, "*N"]:
        """A mask of truth values."""
        mask = as_tensor(given, name)
        if self._one_clip and mask.ndim == len(shape) - 1:
            mask = mask[None]
        if mask.dtype != torch.bool or mask.shape != shape:
            raise AimeError(
                f"{name} is {_dtype(mask)} of shape {list(mask.shape)}; expected bool of shape {list(shape)}: give one "
                "truth value a frame"
            )
        return mask.to(self.like.device)

    def states(self, given: Array | None, shape: torch.Size) -> Float[Tensor, "*N S"] | None:
        """States `[*shape,S]`, in single precision or the model's type; None stays None."""
        if given is None:
            return None
        states = as_tensor(given, "states")
        if not states.is_floating_point():
            raise AimeError(f"states are {_dtype(states)}; expected floats: convert them")
        states = _as_batch(states, len(shape), self._one_clip or shape[0] == 1)
        admitted = admit_states(states, shape, self.config, states)
        known = torch.where(states.isnan(), 0, states)
        self._values.extremes(known, values.judge_states("states", states))
        return None if admitted is None else admitted.to(self.like)

    def latents(self, given: Array, attention: Array) -> tuple[Float[Tensor, "N latent"], Float[Tensor, "N h w"]]:
        """Latents to decode, and the maps to decode them with."""
        latents, maps = as_tensor(given, "latents"), as_tensor(attention, "attention")
        grid = self.config.attention_grid
        expected = (latents.shape[0] if latents.ndim else 0, grid, grid)
        if latents.ndim != 2 or latents.shape[1] != self.config.latent or maps.shape != expected:
            raise AimeError(
                f"latents have shape {list(latents.shape)} and attention {list(maps.shape)}; expected [N, "
                f"{self.config.latent}] and [N, {grid}, {grid}]: flatten batch and time"
            )
        for name, each in (("latents", latents), ("attention", maps)):
            self._values.extremes(each, values.judge_finite(name, each, "see what made them"))
        return latents.to(self.like), maps.to(self.like)

    def believed(self, state: BeliefState, fresh: Bool[Tensor, " B"]) -> None:
        """The latents, contexts and beliefs of a state, but for rows that begin again."""
        dream = torch.cat([state.dream.belief, state.dream.latent, state.dream.context], dim=-1)
        dream = torch.where(fresh[:, None], 0, dream)
        remedy = "an earlier frame or action was wrong: begin again by reset, or by initial_state()"
        self._values.extremes(dream, values.judge_finite("the state's latents and beliefs", dream, remedy))

    def rewarding(self, because: str) -> Control:
        """The heads of a model whose reward head has seen rewards; refuses any other, and begins by `because`."""
        control = _control(self.model, because)

        def judge(extremes: Any) -> None:
            if not extremes[1]:
                raise _never_rewarded(because)

        self._values.extremes(control.knows_rewards().to(self.like.dtype), judge)
        return control

    def seen(self, fresh: Bool[Tensor, " B"]) -> None:
        """Refuses a state that has seen no frame."""

        def judge(extremes: Any) -> None:
            if extremes[1]:
                raise AimeError("imagine() on a state that has seen no frame; expected one: call observe() first")

        self._values.extremes(fresh.to(self.like.dtype), judge)


def expect_rewarding(model: AIME) -> Control:
    """The heads of a model whose reward head has seen rewards.

    Raises:
        AimeError: if it has no reward head, or one that never saw a reward: what it says is what it began with.
    """
    control = _control(model)
    if not bool(control.knows_rewards()):
        raise _never_rewarded()
    return control


def _control(model: AIME, because: str = "") -> Control:
    if model.control is None:
        raise AimeError(
            f"{because}the model has no reward head (model.control.kind is none); expected one that has learned from "
            "rewards: train without --model.control.kind none, on data with rewards"
        )
    return model.control


def _never_rewarded(because: str = "") -> AimeError:
    return AimeError(
        f"{because}the model's reward head has never seen a reward; expected one that has learned from rewards: train "
        "on data that has them, as `aime data` says of a data set"
    )


def as_tensor(given: Array, name: str) -> Tensor:
    """A numpy array as a tensor that shares its memory where it can; a tensor as it is.

    Raises:
        AimeError: if it is neither, or an array of no numbers.
    """
    if isinstance(given, Tensor):
        return given
    if not isinstance(given, np.ndarray):
        raise AimeError(f"{name} are a {type(given).__name__}; expected a torch tensor or a numpy array: np.asarray(…)")
    native = given.astype(given.dtype.newbyteorder("="), copy=False)
    try:
        # torch takes no negative strides, and warns of memory that it could not write to
        return torch.from_numpy(native if native.flags.writeable and _forward(native) else native.copy())
    except TypeError:
        raise AimeError(f"{name} are an array of {given.dtype}; expected numbers: convert them") from None


def _forward(array: np.ndarray) -> bool:
    return all(stride >= 0 for stride in array.strides)


def as_actions(given: Array, name: str) -> Tensor:
    """Actions as a tensor of floats.

    Raises:
        AimeError: if they are whole numbers or truth values.
    """
    actions = as_tensor(given, name)
    if not actions.is_floating_point():
        raise AimeError(
            f"{name} are {_dtype(actions)}; expected floats in [-1, 1]: if they are discrete, one number a choice, 1 "
            "for what is chosen and -1 for the others"
        )
    return actions


def _as_batch(given: Tensor, axes: int, single: bool) -> Tensor:
    """With an axis for the batch where a single clip or row came without one."""
    return given[None] if single and given.ndim == axes else given


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def admit_frames(given: Array, config: ModelConfig, like: Tensor, name: str = "frames") -> Float[Tensor, "B T 3 H W"]:
    """Frames as floats in [0, 1], in the type and on the device of `like`; numbers of floats are not looked at.

    Args:
        given: a frame `[3,H,W]` or `[H,W,3]`, a clip `[T,…]` or a batch `[B,T,…]` of them; uint8 or float.
        config: has the size that frames must have.
        like: of the model.
        name: of the argument, for messages.

    Raises:
        AimeError: if they have another shape, or are neither uint8 nor float.
    """
    frames, size = as_tensor(given, name), config.image_size
    if frames.ndim < 3 or frames.ndim > 5 or not frames.numel():
        raise _bad_shape(frames, size, name)
    if frames.shape[-3:] == (3, size, size):
        # the layout the convolutions want, and the one that frames have on disk, so that this rarely copies
        frames = frames.movedim(-3, -1)
    elif frames.shape[-3:] != (size, size, 3):
        raise _bad_shape(frames, size, name)
    if frames.dtype != torch.uint8 and not frames.is_floating_point():
        reason = _KNOWN_WRONG.get(frames.dtype, "convert them")
        raise AimeError(f"{name} are {_dtype(frames)}; expected uint8, or floats in [0, 1]: {reason}")
    innermost = frames.reshape(*(1,) * (5 - frames.ndim), *frames.shape).contiguous()
    if innermost.dtype == torch.uint8:
        innermost = innermost.to(like.device).to(like.dtype) / 255
    return innermost.to(like).permute(0, 1, 4, 2, 3)


def _bad_shape(frames: Tensor, size: int, name: str) -> AimeError:
    """Says what is wrong with a shape, and the likely reason."""
    shape = list(frames.shape)
    return AimeError(
        f"{name} have shape {shape}; expected a frame [3, {size}, {size}] or [{size}, {size}, 3], a clip [T, …] or a "
        f"batch [B, T, …] of them: {_shape_reason(shape, size)}"
    )


def _shape_reason(shape: list[int], size: int) -> str:
    if not all(shape):
        return "there are none"
    if len(shape) > 5:
        return "too many axes"
    last = tuple(shape[-3:])
    if last in ((size, size, 4), (4, size, size)):
        return "transparent? lay them over a background, and leave the fourth channel out"
    if last == (size, size, 1) or last[-2:] == (size, size):
        return "grey? repeat them as three channels"
    channels_first, channels_last = len(last) == 3 and last[0] == 3, len(last) == 3 and last[2] == 3
    if channels_first and channels_last:
        return "either axis may be the channels: say which by order, and resize them"
    if channels_first or channels_last:
        return f"resize them to {size} x {size}, as `aime import` does"
    return "order their axes, and resize them"


def admit_actions(
    actions: Tensor | None, valid: Bool[Tensor, "B T"] | None, shape: torch.Size, null_action: Float[Tensor, " A"]
) -> Float[Tensor, "B T A"]:
    """Actions `[B,T,A]` with the null action where they are missing; their numbers are not looked at.

    Raises:
        AimeError: if they are not `[B,T,A]` for these B, T and the model's A.
    """
    width = null_action.shape[0]
    if actions is None:
        return null_action.expand(*shape, width)
    _expect_actions(actions, shape, width)
    actions = actions.to(null_action)
    return actions if valid is None else torch.where(valid[..., None].to(actions.device), actions, null_action)


def _expect_actions(actions: Tensor, shape: torch.Size, width: int) -> None:
    expected = (*shape, width)
    if actions.shape != expected:
        raise AimeError(
            f"actions have shape {list(actions.shape)}; expected {list(expected)} (batch, frames, action width): "
            "give one action a frame, of the width that the model was trained on"
        )


def observed(states: Float[Tensor, "..."] | None, config: ModelConfig) -> Float[Tensor, "..."] | None:
    """The states of recorded clips as far as a model observes any: None for one that observes frames alone."""
    return states if config.state.width else None


def admit_states(
    states: Tensor | None, shape: torch.Size, config: ModelConfig, like: Tensor
) -> Float[Tensor, "*N S"] | None:
    """States `[*shape,S]` on the device of `like`, in single precision or the type of `like`; None stays None.

    Raises:
        AimeError: if the model observes no state, or they are not `[*shape,S]` for its S.
    """
    if states is None:
        return None
    width = config.state.width
    if not width:
        raise AimeError(
            f"states have shape {list(states.shape)}, and the model observes none; expected None: leave them out, or "
            "train with --observe-state"
        )
    expected = (*shape, width)
    if states.shape != expected:
        raise AimeError(
            f"states have shape {list(states.shape)}; expected {list(expected)}: give one state a frame, of the width "
            "that the model was trained on"
        )
    return states.to(like)
