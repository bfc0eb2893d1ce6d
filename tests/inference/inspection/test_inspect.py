"""`aime inspect` as a whole: JSON, table, report section, and what it refuses."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.inference.ridge import held_by_what_is_left_out
from tests.inference.runs import Run, write_run

from aime.cli.inspect import _cell
from aime.cli.main import main
from aime.errors import AimeError
from aime.inference.evaluate import weights_digest
from aime.inference.inspection import Inspection, inspect_run
from aime.inference.inspection.inspect import CLIPS
from aime.inference.inspection.interventions import INTERVENTIONS
from aime.inference.inspection.probes import probe_parts
from aime.inference.inspection.result import FIGURES
from aime.inference.report.inspection import NOT_INSPECTED, read_inspection
from aime.inference.report.inspection import inspection as section
from aime.inference.request import EvaluationRequest

FLAGS = "--context 2 --horizon 6 --samples 2 --clips 4 --part all"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("inspect"), size=16)


@pytest.fixture(scope="module")
def written(run: Run) -> Path:
    assert main(["inspect", str(run.path), *FLAGS.split()]) == 0
    return run.path / "inspection.json"


@pytest.fixture(scope="module")
def inspection(written: Path) -> Inspection:
    return Inspection.from_json(written.read_text(encoding="utf-8"), str(written))


def test_every_intervention_is_judged_on_every_measure_that_it_can_change(inspection: Inspection) -> None:
    assert [(each.part, each.change) for each in inspection.findings] == [
        (each.part, each.change) for each in INTERVENTIONS
    ]
    assert inspection.measures == ("reconstruction", "dream at 5", "nats", "elbo", "skill at 1", "skill at 5")
    for found, intervention in zip(inspection.findings, INTERVENTIONS, strict=True):
        assert [each.measure for each in found.effects] == list(inspection.measures)
        told = {each.measure.split(" at ")[0] for each in found.effects if each.loss is not None}
        assert told == intervention.measures - {"body", "body dream"}
        assert all((each.loss is None) == (each.verdict is None) for each in found.effects)
    assert (inspection.episodes, inspection.clips, inspection.split) == (2, 4, "all")
    assert inspection.absent == ()
    assert [name for name, _ in inspection.figures] == [
        "token_nats",
        "histogram_nats",
        "token_ratio",
        "code_perplexity",
        "token_f1",
        "hidden_state_ratio",
        "context_probe",
    ]


def test_the_table_fits_80_columns_and_shows_skill_with_three_decimals(
    inspection: Inspection, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aime.inference.inspection.inspect_run", lambda *_: inspection)
    monkeypatch.setattr("aime.cli.inspect.WIDTH", 80)
    assert main(["inspect", "bundled:cartpole"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in "".join(lines[:60]), "nothing is cut off"
    for finding in inspection.findings:
        assert any(line.strip().startswith(finding.change) for line in lines)
        assert any(line.strip().startswith(finding.verdict_text) for line in lines)
    skill = dict(inspection.intact)["skill at 5"].value
    assert skill is not None and any(f"{skill:z.3f}" in line for line in lines)
    assert "the belief reads the implied context" in " ".join(lines)
    for name, figure in inspection.figures:
        lines_of = [each for each in lines if each.strip().startswith(FIGURES[name].title)]
        assert any(_cell(figure, FIGURES[name].form, "…").split("\n")[0] in each for each in lines_of)


def test_the_same_run_gives_the_same_numbers(run: Run, inspection: Inspection) -> None:
    again = inspect_run(run.path, EvaluationRequest(context=2, horizon=6, samples=2, clips=4, part="all"))
    assert again == inspection
    assert Inspection.from_json(again.to_json(), "memory") == again


def test_the_report_shows_it_until_the_weights_change(run: Run, inspection: Inspection) -> None:
    found = read_inspection(run.path, weights_digest(run.path))
    assert found == inspection
    text = section(found)
    rows = re.findall(r'<tr><td[^>]*>([^<]+)(?:<span class="interval">([^<]*))?<', text)
    assert rows[0][0] == "model: as it is"
    assert rows[1 : 1 + len(INTERVENTIONS)] == [
        (each.name, found.verdict_text) for each, found in zip(INTERVENTIONS, inspection.findings, strict=True)
    ]
    assert read_inspection(run.path, "0") is None
    assert read_inspection(run.data, weights_digest(run.path)) is None
    assert NOT_INSPECTED in section(None)
    for name, _ in inspection.figures:
        assert escape(FIGURES[name].title) in text and escape(FIGURES[name].definition) in text


def test_a_damaged_inspection_is_not_shown(inspection: Inspection, tmp_path: Path) -> None:
    content = json.loads(inspection.to_json())
    for text in ("[]", "{", json.dumps(content | {"findings": None}), json.dumps(content | {"more": 1})):
        (tmp_path / "inspection.json").write_text(text, encoding="utf-8")
        assert read_inspection(tmp_path, inspection.weights) is None


def test_parts_that_a_model_lacks_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, size=16, kind="uniform")
    assert main(["inspect", str(run.path), *FLAGS.split(), "--out", str(tmp_path / "found.json")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "not in this model: slots: of another clip, attention: uniform" in printed
    assert not (run.path / "inspection.json").exists()


def test_a_bundled_run_keeps_its_directory(
    inspection: Inspection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []

    def inspect(run: Path, request: EvaluationRequest, out: Path | None, _: object) -> Inspection:
        asked.append((str(run), request.part, request.clips, out))
        return inspection

    monkeypatch.setattr("aime.inference.inspection.inspect_run", inspect)
    assert main(["inspect", "bundled:cartpole"]) == 0
    assert asked == [("bundled:cartpole", "validation", CLIPS, None)]
    printed = capsys.readouterr().out
    assert "inspection:" not in printed
    assert all(f"{part}: {verdict}" in printed for part, verdict in inspection.parts())


def test_what_cannot_be_inspected_is_refused(run: Run) -> None:
    with pytest.raises(AimeError, match="clips is 1; expected 2 or more"):
        inspect_run(run.path, EvaluationRequest(context=2, horizon=6, clips=1, part="all"))
    with pytest.raises(AimeError, match="1 unseen clip of 18 frames, expected 2 or more"):
        inspect_run(run.path, EvaluationRequest(context=2, horizon=16))
    with pytest.raises(AimeError, match="not an inspection"):
        Inspection.from_json("[]", "file")


def test_probes_predict_episodes_that_they_were_not_fitted_to() -> None:
    random = np.random.default_rng(0)
    episodes = np.repeat(np.arange(6), 2)
    telling, noise = random.normal(size=(2, 12, 15, 4))
    # within a range of less than 6, or the states would be taken for angles
    states = 0.2 * telling @ random.normal(size=(4, 2)) + 0.1 * random.normal(size=(12, 15, 2))
    parts = {"telling": torch.from_numpy(telling), "noise": torch.from_numpy(noise)}
    probed = probe_parts(parts, torch.from_numpy(states), episodes, {"here": 1, "there": 1})
    found = probed.probes
    values = {(each.part, each.entry): _known(each.r2.value) for each in found}
    assert list(values) == [(part, entry) for part in parts for entry in ("all", "here", "there")]

    rows, truth = telling[:, 5:].reshape(-1, 4), states[:, 5:].reshape(-1, 2)
    episode = np.repeat(episodes, 10)
    group, predicted = episode % 5, np.empty_like(truth)
    for out in range(5):
        kept = group != out
        number = np.unique(episode[kept], return_inverse=True)[1]
        predicted[~kept] = held_by_what_is_left_out(rows[kept], truth[kept], rows[~kept], number % 5)[0]
    wanted = 1 - ((predicted - truth) ** 2).mean(0) / truth.var(0)
    np.testing.assert_allclose([values["telling", "here"], values["telling", "there"]], wanted, atol=1e-5)
    assert values["telling", "all"] == pytest.approx(wanted.mean(), abs=1e-5)
    assert values["noise", "all"] < 0.05

    share = probed.ratio("noise", "telling")
    assert share is not None
    assert share.mean == pytest.approx(values["noise", "all"] / values["telling", "all"])
    assert share.low < share.mean < share.high
    same = probed.ratio("telling", "telling")
    assert same is not None and (same.mean, same.low, same.high) == (1, 1, 1)

    assert probe_parts(parts, None, episodes, {}).probes == ()
    assert probe_parts(parts, None, episodes, {}).ratio("noise", "telling") is None
    assert probe_parts(parts, torch.from_numpy(states), np.zeros(12, int), {}).probes == ()
    assert {each.entry for each in probe_parts(parts, torch.from_numpy(states), episodes, {}).probes} == {"all"}


def _known(value: float | None) -> float:
    assert value is not None
    return value
