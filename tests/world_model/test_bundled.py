"""A model that comes with the package stands in for a run directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.inference.runs import write_run

from aime.cli.main import main
from aime.errors import AimeError
from aime.inference.evaluate import evaluate_run
from aime.inference.report import write_report
from aime.inference.request import EvaluationRequest
from aime.primitives.tensor_files import save_weights
from aime.world_model import bundled
from aime.world_model.model import AIME
from aime.world_model.saved import read_run


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`bundled:small`, its parameters in half precision, and the data it says it was trained on."""
    run, data = write_run(tmp_path)
    model = AIME.from_pretrained(run)
    weights = dict(model.named_parameters())
    state = {name: each.half() if name in weights else each for name, each in model.state_dict().items()}
    save_weights(state, run / "checkpoint" / "ema.safetensors")
    shutil.copytree(run, tmp_path / "home" / "small")
    monkeypatch.setattr(bundled, "HOME", tmp_path / "home")
    return data


def test_half_precision_is_widened(installed: Path, tmp_path: Path) -> None:
    found, whole = AIME.from_pretrained("bundled:small"), AIME.from_pretrained(tmp_path / "run")
    assert {weight.dtype for weight in found.parameters()} == {torch.float32}
    frames = torch.randint(0, 256, (1, 2, 3, found.config.image_size, found.config.image_size), dtype=torch.uint8)
    torch.testing.assert_close(found.encode(frames), whole.encode(frames))


def test_it_is_read_evaluated_and_shown_by_its_name(installed: Path, tmp_path: Path) -> None:
    assert read_run("bundled:small").path == tmp_path / "home" / "small"
    found = evaluate_run("bundled:small", EvaluationRequest(installed, context=2, horizon=2, samples=2))
    assert (found.run, found.clips > 0) == ("bundled:small", True)
    page = write_report(
        Path("bundled:small"), EvaluationRequest(installed, context=2, horizon=2), tmp_path / "page.html"
    )
    assert "small" in page.read_text()


def test_its_own_report_is_named_instead_of_replaced(installed: Path) -> None:
    with pytest.raises(AimeError, match=r"bundled:small: comes with its report, .*small/report.html; .*--out"):
        write_report("bundled:small")


def test_an_unknown_name_lists_the_known(installed: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(AimeError, match="bundled:large: no such bundled model, expected one of: bundled:small"):
        AIME.from_pretrained("bundled:large")
    status = main(["predict", "bundled:large", "--out", str(tmp_path / "film.webp")])
    assert status != 0 and "bundled:small" in capfd.readouterr().err
