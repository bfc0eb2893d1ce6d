"""Mistakes on the command line: each is one line that names the flag, what was found and what was expected."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import tyro

from aime.cli.arguments import condense, flags_of, has_flag, parse, value_of
from aime.errors import AimeError
from aime.primitives.config_io import Removed, renamed


@dataclass(frozen=True)
class Inner:
    components: int = 15
    widths: tuple[int, int, int] = (1, 2, 2)

    def __post_init__(self) -> None:
        if self.components < 1:
            raise AimeError(f"components is {self.components}; expected 1 or more")


@dataclass(frozen=True)
class Middle:
    prior: Inner = field(default_factory=Inner)
    learning_rate: float = 1e-3
    warmup: ClassVar[int] = 30
    quick: ClassVar[bool] = False
    zoom: ClassVar[Removed] = Removed({"share": 0.0})

    @property
    def hidden(self) -> int:
        return 2 * self.prior.components


@dataclass(frozen=True)
class Options:
    run: tyro.conf.Positional[Path]
    out: Path
    steps: int | None = None
    device: Literal["auto", "cpu"] = "auto"
    compile: bool = False
    model: Middle = field(default_factory=Middle)

    def __post_init__(self) -> None:
        if self.steps == 0:
            raise AimeError("steps is 0; expected 1 or more")


def test_values_reach_their_fields() -> None:
    options = parse(Options, "fake", ["r", "--out", "o", "--model.prior.components", "7", "--compile", "--steps", "3"])
    assert options == Options(Path("r"), Path("o"), 3, compile=True, model=Middle(Inner(7)))


@pytest.mark.parametrize("flag", ["--model.learning-rate", "--model.learning_rate"])
def test_both_spellings_of_a_flag(flag: str) -> None:
    assert parse(Options, "fake", ["r", "--out", "o", f"{flag}=1e-4"]).model.learning_rate == 1e-4


def test_defaults_can_be_given() -> None:
    default = Options(Path("a"), Path("b"), 5, model=Middle(Inner(3)))
    assert parse(Options, "fake", ["c", "--out", "d"], default) == Options(
        Path("c"), Path("d"), 5, model=Middle(Inner(3))
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["r", "--out", "o", "--model.prior.component", "7"], "did you mean --model.prior.components?"),
        (["r", "--out", "o", "--qqqq"], "no flag --qqqq; see `aime fake --help`"),
        (
            ["r", "--out", "o", "--model.warmup", "9"],
            "--model.warmup is no longer a setting: it is always 30; leave",
        ),
        (["r", "--out", "o", "--model.no-quick"], "--model.no-quick is no longer a setting: it is always False; leave"),
        (["r", "--out", "o", "--model.hidden=9"], "--model.hidden is no longer a setting: it follows from other"),
        (["r", "--out", "o", "--model.zoom.share", "1"], "--model.zoom.share is no longer a setting: it is always 0.0"),
        (["r", "--out", "o", "--model.zoom.least", "1"], "--model.zoom.least is no longer a setting: this version has"),
        (["r", "--out", "o", "--steps", "many"], "--steps is 'many'; expected INT"),
        (["r", "--out", "o", "--device", "tpu"], "'tpu'"),
        (["r", "--out", "o", "--model.prior.components", "x"], "--model.prior.components"),
        (["r", "--out", "o", "--model.prior.components", "0"], "components is 0; expected 1 or more"),
        (["r", "--out", "o", "--model.prior.widths", "1", "2"], "--model.prior.widths"),
        (["r", "--out", "o", "--steps", "0"], "steps is 0"),
        (["r", "--out"], "--out"),
        (["r"], "missing: --out PATH; see"),
        (["--out", "o"], "missing: PATH run; see"),
        (["r", "more", "--out", "o"], "more"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AimeError) as error:
        parse(Options, "fake", arguments)
    message = str(error.value)
    assert expected in message
    assert "\n" not in message
    assert not set("│╭╰─") & set(message)
    assert capsys.readouterr().err == ""


def test_a_long_path_is_not_broken() -> None:
    path = "/".join(["directory with spaces and a long name"] * 20)
    with pytest.raises(AimeError, match=path):
        parse(Options, "fake", ["r", path, "--out", "o"])


def test_help_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(Options, "fake", ["--help"])
    assert not stop.value.code
    assert "--model.prior.components" in capsys.readouterr().out


def test_flags_of_nested_dataclasses() -> None:
    flags = flags_of(Options)
    assert {"--out", "--no-compile", "--model.prior.widths", "--model.learning-rate"} <= set(flags)


def test_peeking_at_values() -> None:
    arguments = ["tiny", "--data=a", "--out", "b", "--data", "c", "--resume"]
    assert value_of(arguments, "--data") == "c"
    assert value_of(arguments, "--out") == "b"
    assert value_of(arguments, "--resume") is None
    assert value_of(arguments, "--steps") is None
    assert has_flag(arguments, "--resume")
    assert not has_flag(arguments, "--res")


def test_condensing_keeps_the_first_section() -> None:
    box = "╭─ Title ───╮\n│ Error parsing --a: it is │\n│ bad:      │\n│ ───────── │\n│ For help, │\n╰──────────╯\n"
    assert condense(box) == "--a: it is bad"


@dataclass(frozen=True)
class Part:
    """Settings of a part."""

    width: int = field(default=1, metadata=renamed("size"))
    on: bool = field(default=True, metadata=renamed("enabled"))


@dataclass(frozen=True)
class Whole:
    """Settings."""

    part: Part = field(default_factory=Part, metadata=renamed("piece"))


@pytest.mark.parametrize(
    "line", ["--piece.size 3 --piece.no-enabled", "--part.size=3 --piece.no-on", "--piece.width 3 --part.no-enabled"]
)
def test_flags_by_the_names_that_they_had_are_read_with_a_line_of_advice(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse(Whole, "train", line.split()) == Whole(Part(3, False))
    advice = capsys.readouterr().err.splitlines()
    assert len(advice) == 2 and advice[0].endswith(" is --part.width now; the next release knows the new name alone")


def test_present_flags_need_no_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(Whole, "train", ["--part.width", "3", "--part.no-on"]) == Whole(Part(3, False))
    assert capsys.readouterr().err == ""
