"""The report of an import, printed and stored with the shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from aime.errors import printable
from aime.io.importers.assemble import LEFT_OUT

SHOWN = 5
"""Number of printed reasons; the file has all."""


@dataclass
class Report:
    """The result of an import.

    Attributes:
        kind: of the source.
        source: its path.
        image_size: height and width of the written frames.
        episodes: number of written episodes.
        frames: number of written frames.
        sizes: number of frames per "HEIGHTxWIDTH" in the source, over all cameras.
        repeated: added frames that repeat an episode's last picture, for the result of its last action.
        cut: number of source episodes that were cut because of their length.
        clipped: action values outside their range.
        action_low: value of -1, in the source's units; empty without actions.
        action_high: value of 1.
        notes: assumptions about the source, and parts that were not read.
        left_out: counts of omissions and changes, by name.
        dropped: position and reason of each skipped episode.
    """

    kind: str
    source: str
    image_size: int
    episodes: int = 0
    frames: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    cut: int = 0
    clipped: int = 0
    action_low: list[float] = field(default_factory=list)
    action_high: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)

    def add(self, notes: Iterable[Mapping[str, Any]]) -> None:
        """Add the notes of jobs."""
        sizes, left_out = Counter(self.sizes), Counter(self.left_out)
        for note in notes:
            tally = note["tally"]
            self.episodes += note["episodes"]
            self.frames += tally.pop("frames", 0)
            self.repeated += tally.pop("repeated", 0)
            self.cut += tally.pop("cut", 0)
            self.clipped += tally.pop("clipped", 0)
            for text in [key for key in tally if key.startswith(LEFT_OUT)]:
                left_out[text.removeprefix(LEFT_OUT)] += tally.pop(text)
            sizes.update(tally)
            self.dropped += note["dropped"]
        self.sizes, self.left_out = dict(sorted(sizes.items())), dict(sorted(left_out.items()))

    def content(self) -> dict[str, Any]:
        """The report as plain values, for a file."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report as lines of text."""
        size = f"{self.image_size}x{self.image_size}"
        lines = [f"{self.episodes} episodes, {self.frames} frames of {size}"]
        lines += [f"resized from {there}: {frames} frames" for there, frames in self.sizes.items() if there != size]
        if not self.action_low:
            lines.append("no actions: video only")
        elif set(self.action_low) != {-1.0} or set(self.action_high) != {1.0}:
            lines.append(f"actions scaled to [-1, 1] from {_shown(self.action_low)} to {_shown(self.action_high)}")
        lines += [*map(printable, self.notes), *(f"{count} {text}" for text, count in self.left_out.items())]
        if self.clipped:
            lines.append(f"{self.clipped} action values were outside of their range and were clipped")
        if self.repeated:
            lines.append(
                f"{self.repeated} episodes have one added frame, a copy of their last picture, for the reward or "
                "termination of the last action"
            )
        if self.cut:
            lines.append(f"{self.cut} episodes were too long for one shard and were divided")
        if self.dropped:
            lines.append(f"{len(self.dropped)} dropped:")
            lines += [f"  {reason}" for reason in self.dropped[:SHOWN]]
        return lines + ([f"  and {len(self.dropped) - SHOWN} more"] if len(self.dropped) > SHOWN else [])


def _shown(numbers: list[float]) -> str:
    text = ", ".join(f"{number:.4g}" for number in numbers[:8])
    return f"[{text}{', …' if len(numbers) > 8 else ''}]"
