"""The benchmark of costs measures the parts of a step by their names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, costs, measuring
print(json.dumps(costs.phases("tiny", measuring.Machine("cpu", "fp32").hardware(), steps=2)))
"""


def test_every_phase_of_a_step_takes_time() -> None:
    folder = Path(__file__).parents[2] / "benchmarks"
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    spent = json.loads(done.stdout.splitlines()[-1])
    phases = ("forward", "losses", "adversarial_loss", "backward", "rgb_direction", "muon", "adamw", "discriminators")
    for phase in phases:
        assert spent[f"phase_{phase}_ms"] > 0, phase
    seams = sum(value for name, value in spent.items() if name != "phase_other_ms")
    assert 0 <= spent["phase_other_ms"] < seams
