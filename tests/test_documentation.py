"""The docs agree with the code: paths exist, defaults are right, and examples run."""

from __future__ import annotations

import dataclasses
import itertools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "notes").glob("*.md")])
ARCHITECTURE = ROOT / "docs" / "architecture.md"
SETTINGS = ROOT / "docs" / "settings.md"


def table_rows(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^\| (.+?) \| (.+) \|$", text, flags=re.MULTILINE)


def leaves(config: object, prefix: str = "") -> dict[str, str]:
    """The fields of nested dataclasses by dotted name, as text."""
    if not dataclasses.is_dataclass(config):
        return {prefix: str(config).lower() if isinstance(config, bool) else str(config)}
    found: dict[str, str] = {}
    for field in dataclasses.fields(config):
        found |= leaves(getattr(config, field.name), f"{prefix}.{field.name}" if prefix else field.name)
    return found


def test_the_tables_of_results_are_those_of_the_evaluation_that_the_package_comes_with() -> None:
    from scripts.results_tables import PAGE, fill, read_evaluation

    page = PAGE.read_text(encoding="utf-8")
    assert fill(page, read_evaluation()) == page


@pytest.mark.parametrize("page", ["architecture.md", "glossary.md"])
def test_paths_of_source_files_exist(page: str) -> None:
    paths = re.findall(r"`(aime/\S+?\.py)`", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / "src" / path).is_file()] == []


def test_the_way_from_a_frame_to_a_checkpoint_has_twenty_files_at_most() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## From a frame to a checkpoint")[1]
    paths = re.findall(r"^\| \d+ \| `(\S+?\.py)` \|", text.split("\n## ")[0], flags=re.MULTILINE)
    assert 10 < len(paths) <= 20
    assert [path for path in paths if not (ROOT / "src" / "aime" / path).is_file()] == []


def test_every_part_names_its_file() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    parts = text.split("## Every part by name")[1].split("## Design decisions")[0]
    rows = [row for row in table_rows(parts) if row[0] not in ("part", "---")]
    assert len(rows) > 40
    assert [part for part, where in rows if "aime/" not in where] == []


def test_settings_are_ninety_at_most_and_each_has_a_default_and_a_reason() -> None:
    from aime.training.presets import preset_run

    tiny, base = (leaves(preset_run(preset, "data", Path("run"), 1, 64)) for preset in ("tiny", "base"))
    assert len(tiny) <= 90
    text = SETTINGS.read_text(encoding="utf-8")
    rows = [row.split(" | ") for row in re.findall(r"^\| (`.+) \|$", text, re.MULTILINE)]
    stated = {name.strip("`"): rest for name, *rest in rows}
    assert stated.keys() == tiny.keys()
    decided = ("data", "out", "steps", "minutes", "init_from")
    for name, (*defaults, reason) in stated.items():
        assert reason
        expected = [tiny[name], base[name]] if name.startswith("model.") else [tiny[name]]
        assert defaults == (["–"] if name in decided else expected), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    pages = [target for target in targets if not target.startswith("pictures/") and "/pictures/" not in target]
    assert [target for target in pages if not (page.parent / target).exists()] == []


def anchors(page: Path) -> set[str]:
    """The anchors that mkdocs and GitHub give to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_lead_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*\.md)?#([^)]+)\)", page.read_text(encoding="utf-8"))
    wrong = [link for link in links if link[1] not in anchors(page.parent / link[0] if link[0] else page)]
    assert wrong == []


FLAGS_OF_OTHERS = {
    *("--help", "--help-all", "--logdir", "--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint"),
    *("--case", "--count", "--keep", "--only", "--gigabytes", "--weights"),
}
"""Flags of torchrun, tensorboard, `reliability` and benchmarks, and prefixes of flags."""


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_flags_in_the_pages_exist(page: Path) -> None:
    from aime.cli import ablate, agent, benchmark, collect, evaluate, export, importing, inspect, predict, report
    from aime.cli.arguments import flags_of
    from aime.cli.data import DataOptions

    options = [
        *(
            ablate.AblationOptions,
            benchmark.DmcVbOptions,
            collect.CollectOptions,
            evaluate.EvaluateOptions,
            DataOptions,
        ),
        *(agent.ImitateOptions, agent.ImagineOptions, agent.OnlineOptions, agent.EvaluateOptions),
        *(export.ExportOptions, importing.ImportOptions, inspect.InspectOptions, predict.PredictOptions),
        report.ReportOptions,
    ]
    known = FLAGS_OF_OTHERS.union(*(flags_of(each) for each in options))
    found = re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]", page.read_text(encoding="utf-8"))
    assert sorted(set(found) - known) == []


def test_dependencies_are_all_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    explained = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").lower()
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[><=\[]", requirement)[0].lower() for requirement in wanted} - {"aime"}
    assert {name for name in names if name not in explained} == set()


def test_every_direct_dependency_is_constrained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dmc"], *extras["gym"], *extras["dev"], *extras["docs"]]
    names = {re.split(r"[><=\[]", requirement)[0].lower() for requirement in wanted} - {"aime"}
    assert names - pinned == set()
