"""Imports point downwards only: a package of `aime` imports from itself and lower layers."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "aime"

PILLARS = {"perception", "representation", "dynamics", "attention"}
FLOORS = [
    {"errors"},
    {"primitives"},
    {"data", "optimization"},
    {"io"},
    PILLARS,
    {"world_model"},
    {"runs"},
    {"inference"},
    {"environments"},
    {"objectives"},
    {"training"},
    {"agents"},
    {"benchmarking"},
    {"cli"},
    {"__main__"},
]
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}

ALLOWED = {
    "errors": set(),
    "primitives": {"errors"},
    "data": {"errors", "primitives"},
    "optimization": {"errors", "primitives"},
    "io": {"errors", "primitives", "data"},
    **{pillar: {"errors", "primitives"} for pillar in PILLARS},
}
"""Rooms that may import less than all that lies below them."""

MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem != "__init__")


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def names_imported(tree: ast.AST) -> list[str]:
    """Dotted names, of functions and of type checking too."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides its floor; write it in full"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def rooms_imported(tree: ast.AST) -> set[str]:
    # `from aime import AIME` has no room of its own: inside the package it would be an import from the roof
    return {name.split(".")[1] for name in names_imported(tree) if name.startswith("aime.")}


def test_every_module_has_a_floor() -> None:
    assert MODULES
    assert {room_of(path) for path in MODULES} <= HEIGHT.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    others = rooms_imported(ast.parse(path.read_text(encoding="utf-8"))) - {room}
    allowed = ALLOWED.get(room, {other for other, height in HEIGHT.items() if height < HEIGHT[room]})
    assert others <= allowed, f"{path.relative_to(SOURCE)} imports {sorted(others - allowed)}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    dotted = {path: ".".join(("aime", *path.relative_to(SOURCE).with_suffix("").parts)) for path in MODULES}
    modules = {name.removesuffix(".__init__"): path for path, name in dotted.items()}
    imports = {}
    for module, path in modules.items():
        names = names_imported(ast.parse(path.read_text(encoding="utf-8")))
        found = {name if name in modules else name.rpartition(".")[0] for name in names}
        imports[module] = found & modules.keys() - {module}
    assert sum(map(len, imports.values())) > len(modules)
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize(
    ("line", "rooms"),
    [
        ("import aime.data.shards", {"data"}),
        ("from aime.world_model import model", {"world_model"}),
        ("from aime import training", {"training"}),
        ("def f():\n    from aime.cli.main import main", {"cli"}),
        ("import torch, aimed.data", set()),
    ],
)
def test_imports_are_found_wherever_they_hide(line: str, rooms: set[str]) -> None:
    assert rooms_imported(ast.parse(line)) == rooms
