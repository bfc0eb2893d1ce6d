"""A small simulation of many ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sampler.py"


def test_a_small_simulation_finds_no_overlap_and_nobody_without(tmp_path: Path) -> None:
    out = tmp_path / "sampler.json"
    arguments = ["--ranks", "1", "48", "--steps", "3", "--scale", "0.002", "--out", str(out)]
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert [(each["data"], each["ranks"]) for each in found] == [
        (name, ranks) for name in ("locomotion", "ant maze") for ranks in (1, 48)
    ]
    for each in found:
        assert each["unowned"] == each["drawn_outside"] == each["drawn_by_two"] == 0
        assert each["least_batch"] == 16
        assert each["drawn"] == each["ranks"] * 3 * 16
        low, high = each["clips_of_a_rank"]
        assert 0 < low <= high <= low + 1
        assert abs(each["seen"] - each["expected"]) < 0.01
    assert len(done.stdout.splitlines()) == 5
