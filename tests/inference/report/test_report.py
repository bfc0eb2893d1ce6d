"""The report: one file that shows everything, computed once, and loads nothing."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image, ImageSequence
from tests.inference.runs import MakeRun, Run, write_run

from aime.errors import AimeError
from aime.inference import EvaluationRequest, evaluate_run, write_report
from aime.inference.evaluate import weights_digest
from aime.inference.evaluation import DEFINITIONS, Evaluation
from aime.inference.filtering import NO_ATTENTION
from aime.inference.report import material
from aime.inference.report.figures import NO_BALANCE
from aime.inference.report.inspection import NOT_INSPECTED, read_inspection
from aime.inference.report.material import EVALUATION
from aime.inference.unseen import open_unseen
from aime.world_model.bundled import locate
from aime.world_model.saved import read_run

REQUEST = EvaluationRequest(context=2, horizon=8, part="all")
SHORT = EvaluationRequest(context=2, horizon=3, samples=2)


class Structure(HTMLParser):
    """Collects tags, and complains about one that is not closed in its turn."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def html(run: Run) -> str:
    path = write_report(run.path, REQUEST)
    assert path == run.path / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def structure(html: str) -> Structure:
    structure = Structure()
    structure.feed(html)
    assert structure.open == []
    return structure


def test_nothing_is_loaded_from_elsewhere(html: str, structure: Structure) -> None:
    for tag, attributes in structure.tags:
        assert tag not in ("link", "script", "iframe")
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:image/"))
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html


def test_names_are_unique_and_links_lead_somewhere(structure: Structure) -> None:
    groups = [str(attributes["id"]) for tag, attributes in structure.tags if "id" in attributes and tag == "h2"]
    links = [str(attributes["href"]) for tag, attributes in structure.tags if tag == "a"]
    assert len(set(groups)) == len(groups)
    assert links == [f"#{group}" for group in groups]


def test_pictures_are_whole(html: str) -> None:
    found = re.findall(r'<img src="data:image/webp;base64,([A-Za-z0-9+/=]+)" alt="[^"]+"', html)
    images = [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]
    # of each of the two held-out episodes a strip, two of its attention, and one of its components; all groups
    assert [image.format for image in images] == 10 * ["WEBP"]
    assert sum(1 for _ in ImageSequence.Iterator(images[0])) == 10
    for image in images:
        image.load()


def test_charts_follow_the_theme_and_say_what_they_are(html: str, structure: Structure) -> None:
    labels = [attributes["aria-label"] for tag, attributes in structure.tags if tag == "svg"]
    assert labels == [
        "skill against horizon",
        "PSNR against horizon",
        "SSIM against horizon",
        "coverage of the 80 % interval against horizon",
        "foreground F1 against horizon",
        "mixture weights over time",
        "surprise over time",
        "use of the codebook",
        "loss, elbo/kl_z",
        "gradient norms of the tasks",
        "cosines between the tasks' gradients",
        "rotation of the tasks' gradients",
        "speed",
    ]
    assert html.count("<figcaption>") == len(labels) + 10
    assert not re.search(r"#0[12]0[12]0\d", html)
    used = set(re.findall(r"var\(--([\w-]+)\)", html))
    assert {"ink", "line", "faint", "series-1"} <= used <= set(re.findall(r"--([\w-]+):", html))


def test_the_table_has_the_evaluation(run: Run, html: str) -> None:
    evaluation = evaluate_run(run.path, REQUEST)
    rows = re.findall(r"<tr><td>([^<]+)</td>(.*?)</tr>", html)
    cells = {name: re.findall(r"<td[^>]*>([^<]+)<", row) for name, row in rows}
    assert cells["PSNR in dB, mean of 16"] == [f"{evaluation.horizons[each].psnr:.1f}" for each in (1, 5, 8)]
    assert cells["skill, mean of 16 futures"] == [
        f"{evaluation.horizons[each].skill:+.2f}".replace("-", "\N{MINUS SIGN}") for each in (1, 5, 8)
    ]
    assert cells["reconstruction, PSNR in dB"] == [f"{evaluation.reconstruction.psnr:.1f}"]


def test_settings_and_definitions_are_there(run: Run, html: str) -> None:
    assert "image_size: 32" in html
    assert str(run.data) in html
    for name in DEFINITIONS:
        assert f"<dt>{name}</dt>" in html
    assert "<dt>torch</dt>" in html


def test_a_run_that_was_not_inspected_says_how(html: str) -> None:
    assert '<h2 id="parts">What each part does</h2>' in html
    assert html.count(NOT_INSPECTED) == 1


def test_attention_and_components_are_shown(html: str) -> None:
    pictures = re.findall(r'<img [^>]*alt="([^"]+)"', html)
    assert {"attention in clip 1", "attention maps of clip 2", "components in the predictions of clip 1"} <= set(
        pictures
    )
    assert "frames grouped by component" in pictures
    assert NO_ATTENTION not in html
    assert re.search(r"Effective components: \d\.\d of 4", html)
    assert "elbo and a" in html, "the cosine's line is named by its pair"


def test_a_uniform_run_says_why_there_is_no_attention(make_run: MakeRun) -> None:
    text = write_report(make_run(kind="uniform").path, SHORT).read_text(encoding="utf-8")
    assert text.count(NO_ATTENTION) == 1
    assert text.count(escape(NO_BALANCE)) == 1
    assert "attention in clip" not in text
    assert "frames grouped by component" in text


def test_an_evaluation_of_these_weights_is_not_made_again(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run().path
    evaluate_run(run, SHORT, out=run / "evaluation.json")
    monkeypatch.setattr(material, "evaluate_run", lambda *_, **__: pytest.fail("evaluated again"))
    assert "PSNR in dB, best of 2" in write_report(run, SHORT).read_text(encoding="utf-8")


@pytest.mark.parametrize("change", ["weights", "horizon", "garbage"])
def test_another_evaluation_is_made_again(make_run: MakeRun, change: str) -> None:
    run = make_run().path
    path = run / "evaluation.json"
    evaluate_run(run, SHORT, out=path)
    content = json.loads(path.read_text(encoding="utf-8"))
    changed = {"weights": {"weights": "0"}, "horizon": {"horizon": 2}, "garbage": {"clips": None, "more": 1}}[change]
    path.write_text(json.dumps(content | changed), encoding="utf-8")
    assert "PSNR in dB, best of 3" in write_report(run, replace(SHORT, samples=3)).read_text(encoding="utf-8")


def test_a_run_that_has_logged_nothing_has_a_report(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run().path
    (run / "metrics.jsonl").unlink()
    out = tmp_path / "elsewhere" / "page.html"
    assert write_report(run, EvaluationRequest(context=2, horizon=1), out) == out
    text = out.read_text(encoding="utf-8")
    assert "no training curves" in text
    assert "of training" not in text
    assert not (run / "report.html").exists()


def test_the_name_of_a_run_cannot_become_markup(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run().path
    odd = run.rename(run.with_name("<b>&run"))
    text = write_report(odd, EvaluationRequest(context=2, horizon=1)).read_text(encoding="utf-8")
    assert "<b>&run" not in text
    assert "&lt;b&gt;&amp;run" in text


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AimeError, match="not a run"):
        write_report(tmp_path)


def test_the_bundled_model_comes_with_an_evaluation_and_an_inspection_of_its_weights() -> None:
    place, weights = locate("bundled:cartpole"), weights_digest("bundled:cartpole")
    found = Evaluation.from_json((place / EVALUATION).read_text(encoding="utf-8"), EVALUATION)
    assert (found.weights, found.content) == (weights, open_unseen(read_run("bundled:cartpole"), None, 5, 45).content)
    assert found.foreground and found.read_states and found.masks
    inspection = read_inspection(place, weights)
    assert inspection is not None and inspection.split == "validation"
    page = (place / "report.html").read_text(encoding="utf-8")
    assert all(f"{each.part}: {each.change}" in page for each in inspection.findings)
