"""Configs survive a round trip through YAML, and invalid files are refused."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from aime.errors import AimeError
from aime.primitives.checksums import seal
from aime.primitives.config_io import (
    LATER,
    WAS_LIST,
    Removed,
    constant_of,
    from_plain,
    later,
    read_yaml,
    renamed,
    to_plain,
    to_yaml,
)


@dataclass(frozen=True)
class Inner:
    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    cells: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    name: str
    out: Path
    mode: Literal["auto", "cpu"] = "auto"
    steps: int | None = None
    minutes: float | None = None
    fast: bool = False
    inner: Inner = field(default_factory=Inner)
    spare: Inner | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 0:
            raise AimeError(f"steps is {self.steps}; expected 0 or more")


EXAMPLE = Outer(name="a: 'b' #c", out=Path("runs/é"), steps=3, spare=Inner(rate=1e-5))

floats = st.floats(allow_nan=False)
inners = st.builds(Inner, floats, st.tuples(floats, floats), st.lists(st.integers(-(2**63) + 1, 2**63 - 1)).map(tuple))
outers = st.builds(
    Outer,
    name=st.text(),
    out=st.sampled_from([Path("a"), Path("/b/c d"), Path("null"), Path("1e-4")]),
    mode=st.sampled_from(["auto", "cpu"]),
    steps=st.none() | st.integers(0, 2**63 - 1),
    minutes=st.none() | floats,
    fast=st.booleans(),
    inner=inners,
    spare=st.none() | inners,
)


@settings(max_examples=150, deadline=None)
@given(outers)
def test_yaml_gives_back_every_value_and_type(config: Outer) -> None:
    restored = from_plain(Outer, yaml.safe_load(to_yaml(config)), "run.yaml")
    assert restored == config
    assert repr(restored) == repr(config)  # 1 == 1.0 == True: equality alone forgives a wrong type


def test_yaml_is_plain_and_in_the_order_of_the_fields() -> None:
    text = to_yaml(EXAMPLE)
    assert "!" not in text
    assert list(yaml.safe_load(text)) == list(asdict(EXAMPLE))


def test_numbers_written_without_a_point_are_numbers() -> None:
    plain = yaml.safe_load("rate: 1e-4\nbetas: [1, 5e-1]\ncells: []")
    assert plain["rate"] == "1e-4"  # PyYAML's reading, which is why floats accept strings
    assert from_plain(Inner, plain, "run.yaml") == Inner(1e-4, (1.0, 0.5), ())


WRONG: list[tuple[str, Any, str]] = [
    ("name", 3, "expected a string"),
    ("out", None, "expected a path"),
    ("mode", "gpu", "expected one of 'auto', 'cpu'"),
    ("steps", 1.0, "expected an integer or null"),
    ("steps", True, "expected an integer"),
    ("steps", "3", "expected an integer"),
    ("minutes", "soon", "expected a number"),
    ("minutes", "nan", "expected a number"),
    ("minutes", 10**400, "expected a number"),
    ("minutes", False, "expected a number"),
    ("fast", 1, "expected true or false"),
    ("fast", "yes", "expected true or false"),
    ("inner", [1], "expected a mapping"),
    ("spare", "none", "expected a mapping"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_a_wrong_type_names_file_field_found_and_expected(name: str, value: Any, expected: str) -> None:
    plain = to_plain(EXAMPLE)
    assert isinstance(plain, dict)
    with pytest.raises(AimeError) as caught:
        from_plain(Outer, {**plain, name: value}, "run/config.yaml")
    message = str(caught.value)
    assert message.startswith(f"run/config.yaml: {name}: found {repr(value)[:50]}")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"betas": [0.9]}, "inner.betas: found [0.9] (list), expected a list of 2: a number, a number"),
        ({"betas": 0.9}, "inner.betas: found 0.9"),
        ({"betas": [0.9, None]}, "inner.betas[1]: found None"),
        ({"cells": [1, 2.5]}, "inner.cells[1]: found 2.5 (float), expected an integer"),
        ({"cells": "12"}, "inner.cells: found '12' (str), expected a list, each an integer"),
        ({"rte": 1.0}, "inner.rte: unknown field, expected rate, betas, cells"),
    ],
)
def test_nested_fields_are_named_by_their_path(change: dict[str, Any], named: str) -> None:
    plain: Any = to_plain(EXAMPLE)
    plain["inner"].update(change)
    with pytest.raises(AimeError) as caught:
        from_plain(Outer, plain, "run.yaml")
    assert str(caught.value).startswith(f"run.yaml: {named}")


@pytest.mark.parametrize("name", list(asdict(EXAMPLE)))
def test_a_missing_field_is_an_error_even_where_it_has_a_default(name: str) -> None:
    plain: Any = to_plain(EXAMPLE)
    del plain[name]
    with pytest.raises(AimeError, match=rf"^run.yaml: {name}: missing field, expected "):
        from_plain(Outer, plain, "run.yaml")


def test_what_the_dataclass_refuses_names_the_file() -> None:
    plain: Any = to_plain(replace(EXAMPLE, steps=1))
    with pytest.raises(AimeError, match=r"^run.yaml: train: steps is -1; expected 0 or more$"):
        from_plain(Outer, {**plain, "steps": -1}, "run.yaml", "train")


def test_a_value_without_plain_form_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        to_plain({"a": {1}})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: [1", "not YAML"),
        (b"\xff\xfe\xff", "not YAML"),
        (b"a: !!python/object/apply:os.getcwd []", "not YAML"),
        (b"", "expected a mapping"),
        (b"- 1", "expected a mapping"),
        (b"1: 2", "expected a mapping"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(AimeError, match=expected) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(AimeError, match=r"none\.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml({"model": EXAMPLE, "seed": 1}), encoding="utf-8")
    content = read_yaml(path)
    assert content["seed"] == 1
    assert from_plain(Outer, content["model"], str(path), "model") == EXAMPLE


@dataclass(frozen=True)
class Grown:
    old: int = 1
    new: int = field(default=7, metadata=LATER)
    changed: float | None = field(default=1.0, metadata=later(before=None))


def test_a_field_that_came_later_has_its_default_or_its_former_value_in_files_of_before() -> None:
    assert from_plain(Grown, {"old": 3}, "run.yaml") == Grown(3, 7, None)
    assert from_plain(Grown, {"old": 3, "new": 4, "changed": 2.0}, "run.yaml") == Grown(3, 4, 2.0)
    with pytest.raises(AimeError, match=r"run.yaml: old: missing field"):
        from_plain(Grown, {"new": 4}, "run.yaml")
    with pytest.raises(AimeError, match=r"run.yaml: newer: unknown field, expected old, new, changed"):
        from_plain(Grown, {"old": 3, "newer": 4}, "run.yaml")
    with pytest.raises(AimeError, match=r"run.yaml: new: found 'x'"):
        from_plain(Grown, {"old": 3, "new": "x"}, "run.yaml")


def test_aliases_that_grow_without_bound_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = tmp_path / "config.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(AimeError, match="it has an alias"):
        read_yaml(path)


@pytest.mark.parametrize("content", ["a: " + "[" * 100_000, "{" * 100_000, "a: " + "x" * 300_000])
def test_deep_and_long_files_are_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(AimeError, match=r"not YAML|larger than") as caught:
        read_yaml(path)
    assert len(str(caught.value)) < 600


def test_what_occurs_twice_is_written_twice() -> None:
    shared = ["x"]
    assert "&" not in to_yaml({"a": shared, "b": shared})


def test_a_sealed_file_that_changed_is_refused_until_its_last_line_goes(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(seal(to_yaml({"seed": 1})))
    assert read_yaml(path) == {"seed": 1}
    path.write_text(path.read_text().replace("seed: 1", "seed: 3"))
    with pytest.raises(AimeError, match="delete that line if you edited the file"):
        read_yaml(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert read_yaml(path) == {"seed": 3}


@dataclass(frozen=True)
class Fixed:
    width: int = 2
    rate: ClassVar[float] = 1e-4
    betas: ClassVar[tuple[float, float]] = (0.5, 0.9)
    zoom: ClassVar[Removed] = Removed({"share": 0.0})
    cells: int = field(default=1, metadata={**LATER, **WAS_LIST})

    @property
    def hidden(self) -> int:
        return 2 * self.width


def test_a_setting_that_has_become_a_constant_is_read_where_it_had_the_same_value() -> None:
    assert to_plain(Fixed(3)) == {"width": 3, "cells": 1}
    before = {"width": 3, "rate": "1e-4", "betas": [0.5, 0.9], "hidden": 6, "zoom": {"share": 0.0, "least": 0.8}}
    assert from_plain(Fixed, before, "run.yaml") == Fixed(3)


@pytest.mark.parametrize(
    ("name", "value"), [("rate", 2e-4), ("betas", [0.5]), ("hidden", 4), ("hidden", None), ("rate", {"a": 1})]
)
def test_another_value_than_the_constant_is_refused(name: str, value: object) -> None:
    with pytest.raises(AimeError, match=rf"run.yaml: {name}: found .*, expected .*, which is a constant now; use"):
        from_plain(Fixed, {"width": 3, name: value}, "run.yaml")


@pytest.mark.parametrize(("zoom", "found"), [({"share": 0.5}, "0.5"), ({}, "None"), ("much", "None")])
def test_a_part_that_is_gone_is_refused_where_it_was_in_use(zoom: object, found: str) -> None:
    with pytest.raises(AimeError, match=rf"run.yaml: zoom.share: found {found}, expected 0.0, which is a constant now"):
        from_plain(Fixed, {"width": 3, "zoom": zoom}, "run.yaml")


def test_one_value_for_all_levels_is_read_from_the_list_of_them() -> None:
    assert from_plain(Fixed, {"width": 3, "cells": [2, 2, 2]}, "run.yaml") == Fixed(3, 2)
    with pytest.raises(AimeError, match=r"run.yaml: cells: found \[1, 2\] \(list\), expected an integer"):
        from_plain(Fixed, {"width": 3, "cells": [1, 2]}, "run.yaml")


@dataclass(frozen=True)
class Holder:
    fixed: Fixed = field(default_factory=Fixed, metadata=renamed("settle"))


def test_a_constant_is_found_by_the_path_of_the_setting_that_it_was() -> None:
    assert constant_of(Holder, "fixed.rate") == constant_of(Holder, "settle.rate") == 1e-4
    assert isinstance(constant_of(Holder, "fixed.hidden"), property)
    assert constant_of(Holder, "fixed.zoom.least") == Fixed.zoom
    assert [constant_of(Holder, path) for path in ("fixed", "fixed.width", "rate", "fixed.other", "")] == [None] * 5


@pytest.mark.parametrize("name", ["__class__", "__doc__", "_private", "numbers"])
def test_nothing_else_of_a_class_is_a_constant(name: str) -> None:
    with pytest.raises(AimeError, match="unknown field"):
        from_plain(Fixed, {"width": 3, name: "x"}, "run.yaml")


def test_a_field_is_read_by_the_name_that_it_had() -> None:
    @dataclass(frozen=True)
    class Renamed:
        width: int = field(default=1, metadata={**later(before=5), **renamed("size")})

    assert from_plain(Renamed, {"size": 3}, "a.yaml") == Renamed(3)
    assert from_plain(Renamed, {"width": 3}, "a.yaml") == Renamed(3)
    assert from_plain(Renamed, {}, "a.yaml") == Renamed(5)
    with pytest.raises(AimeError, match=r"a.yaml: size: unknown field, expected width"):
        from_plain(Renamed, {"size": 3, "width": 3}, "a.yaml")
