"""A run of seconds: every part of a training with a model of a few thousand weights."""

from __future__ import annotations

from pathlib import Path

from reliability.children import aime, run
from reliability.examples import LENGTH
from reliability.watching import Limits

MODEL = (
    "--model.latent 4 --model.context 8 --model.belief 16 --model.tokenizer.channels 8 --model.tokenizer.codes 8 "
    "--model.tokenizer.code-width 8 --model.perceiver.latents 4 --model.perceiver.width 8 --model.encoder.channels 8 "
    "--model.prior.components 4 --model.prior.hidden 16 --model.attention.slots 3 --model.attention.width 8 "
    "--model.decoder.channels 8 --model.control.hidden 16"
)
TRAINING = (
    f"--batch 2 --length {LENGTH} --overshoot.steps 2 --log-every 1 --device cpu --precision fp32 --no-pictures "
    "--checkpoint-every 2"
)


def train_command(data: Path, out: Path, steps: int) -> list[str]:
    """Begin a run."""
    words = f"{MODEL} {TRAINING}".split()
    return aime("train", "tiny", "--data", data, "--out", out, "--steps", steps, *words)


def resume_command(out: Path, steps: int) -> list[str]:
    """Go on with a run."""
    return aime("train", "--resume", "--out", out, "--steps", steps)


def make_run(data: Path, out: Path, place: Path, steps: int = 4) -> Path:
    """Train a run to its end.

    Raises:
        RuntimeError: if that fails; nothing can be tried on it then.
    """
    ended = run(train_command(data, out, steps), place, Limits(seconds=300))
    if ended.status != 0:
        raise RuntimeError(f"the run that tests begin with cannot be trained: {ended.err}")
    return out


def unseal(run: Path) -> None:
    """Take a run's checksums away, as its user may: what the files then hold has to be checked all the same."""
    (run / "checkpoint" / "SHA256SUMS").unlink(missing_ok=True)
    lines = (run / "config.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "config.yaml").write_text("".join(line for line in lines if not line.startswith("#")), encoding="utf-8")
