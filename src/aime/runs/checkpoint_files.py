"""Reading and writing the files of a checkpoint; a kill at any moment leaves a complete checkpoint.

Weights are safetensors, `state.json` holds progress and random states, and `SHA256SUMS` the checksums of all files.
No file can execute code.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from aime.data.manifest import MANIFEST
from aime.errors import AimeError, one_line
from aime.primitives.checksums import write_sums
from aime.primitives.config_io import LATER, from_plain, to_plain
from aime.primitives.files import read_small, replace_directory, sync_directory, unwritable, write_atomically
from aime.primitives.randomness import RandomStates, random_states, set_random_states
from aime.primitives.tensor_files import save_weights
from aime.runs.schedule import COMPLETE, Progress, Stage
from aime.world_model.saved import read_checkpoint

FORMAT = 1
"""Incremented when earlier checkpoints can no longer be read."""

STATE = "state.json"
_LONGEST_STATE = 2**24


@dataclass(frozen=True)
class State:
    """The contents of state.json."""

    format: int
    aime: str
    step: int
    frames: int
    seconds: float
    average_updates: int
    cpu_random_state: str
    """Base64, like the other random states."""
    cuda_random_states: tuple[str, ...]
    phase: Stage = field(default=COMPLETE, metadata=LATER)
    phase_step: int = field(default=0, metadata=LATER)
    phase_start_seconds: float = field(default=0.0, metadata=LATER)
    phase_random_states: tuple[str, ...] = field(default=(), metadata=LATER)
    """Random states of dynamics fine-tuning: the CPU's, then those of the GPUs."""

    @classmethod
    def now(cls, progress: Progress, average_updates: int, joint: RandomStates | None) -> State:
        """The current state.

        Args:
            progress: of the run.
            average_updates: number of updates of the averaged weights.
            joint: random states of joint learning while dynamics fine-tuning runs; None: the current ones.
        """
        present = _encode(random_states())
        cpu, *gpus = present if joint is None else _encode(joint)
        return cls(
            format=FORMAT,
            aime=_version(),
            step=progress.step,
            frames=progress.frames,
            seconds=progress.seconds,
            average_updates=average_updates,
            cpu_random_state=cpu,
            cuda_random_states=tuple(gpus),
            phase=progress.phase,
            phase_step=progress.phase_step,
            phase_start_seconds=progress.phase_start_seconds,
            phase_random_states=() if joint is None else present,
        )

    @property
    def progress(self) -> Progress:
        """The progress of the run."""
        return Progress(self.step, self.frames, self.seconds, self.phase, self.phase_step, self.phase_start_seconds)

    def set_random_states(self, path: Path, *, of_phase: bool = False) -> None:
        """Set the random states of joint learning or, with `of_phase`, of dynamics fine-tuning.

        Raises:
            AimeError: if this version of torch does not accept them; names `path`.
        """
        states = self.phase_random_states if of_phase else (self.cpu_random_state, *self.cuda_random_states)
        try:
            cpu, *gpus = (
                torch.frombuffer(bytearray(base64.b64decode(each, validate=True)), dtype=torch.uint8) for each in states
            )
            set_random_states(RandomStates(cpu, tuple(gpus)))
        except (ValueError, RuntimeError) as error:
            problem = one_line(error)
            raise AimeError(f"{path}: random states: {problem}; restore the checkpoint or train again") from error


def write_checkpoint(run: Path, files: Mapping[str, Mapping[str, Tensor]], state: State) -> None:
    """Write RUN/checkpoint, which replaces the previous one when it is complete on disk.

    Args:
        run: the run directory.
        files: the tensors of each file, by file name.
        state: the contents of state.json.

    Raises:
        AimeError: if the disk is full or the directory cannot be written; the old checkpoint stays.
    """
    for leftover in run.glob("checkpoint.tmp-*"):  # no other process writes here: see `only_writer`
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = run / f"checkpoint.tmp-{os.getpid()}"
    try:
        for name, tensors in files.items():
            save_weights(tensors, temporary / name)
        write_atomically(temporary / STATE, json.dumps(to_plain(state), indent=1).encode())
        if (run / MANIFEST).exists():
            write_atomically(temporary / MANIFEST, (run / MANIFEST).read_bytes())
        write_sums(temporary, [path.name for path in temporary.iterdir()])
        sync_directory(temporary)
        replace_directory(temporary, run / "checkpoint")
    except OSError as error:
        raise unwritable(run / "checkpoint", error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_progress(run: Path) -> Progress:
    """The progress of a run's last checkpoint; reads no weights.

    Raises:
        AimeError: if there is no checkpoint, or its state is damaged.
    """
    return read_checkpoint(run, lambda directory: read_state(directory / STATE), [STATE]).progress


def read_state(path: Path) -> State:
    """The contents of a state.json.

    Raises:
        AimeError: if it is missing, damaged, or of another format.
    """
    try:
        content = json.loads(read_small(path, _LONGEST_STATE))
    except AimeError:
        raise
    except (ValueError, RecursionError) as error:
        raise AimeError(f"{path}: not JSON ({error}); restore the checkpoint or train again") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise AimeError(f"{path}: format: found {found!r}, expected {FORMAT}; use the aime version that wrote it")
    return from_plain(State, content, str(path))


def _encode(states: RandomStates) -> tuple[str, ...]:
    cpu, gpus = states
    return tuple(base64.b64encode(each.cpu().numpy().tobytes()).decode("ascii") for each in (cpu, *gpus))


def _version() -> str:
    try:
        return version("aime")
    except PackageNotFoundError:  # run from the source tree
        return "source"
