from __future__ import annotations

from pathlib import Path

import pytest

from aime.cli.data import main
from aime.errors import AimeError


def test_data_describes_and_draws(
    shard_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main([str(shard_directory)]) == 0
    printed = capsys.readouterr().out
    assert "5, of 7 to 64 frames, median 23" in printed
    assert "150 of 8x8" in printed
    assert "square" in printed
    assert (shard_directory / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_exists_is_kept(shard_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = shard_directory / "contact_sheet.png"
    kept.write_bytes(b"mine")
    assert main([str(shard_directory)]) == 0
    assert kept.read_bytes() == b"mine"
    assert "was not changed" in capsys.readouterr().out


def test_the_picture_goes_where_it_is_asked_for(shard_directory: Path, tmp_path: Path) -> None:
    assert main([str(shard_directory), "--picture", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").exists() and not (shard_directory / "contact_sheet.png").exists()


def test_one_shard_is_a_data_set_too(shard_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(shard_directory / "001.h5")]) == 0
    assert (shard_directory / "001-contact_sheet.png").exists()
    assert "2, of 16 to 64 frames" in capsys.readouterr().out


def test_several_sources_are_described_as_one(
    shard_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.h5").write_bytes((shard_directory / "001.h5").read_bytes())
    assert main([shard_directory.name, "b=0.25"]) == 0
    printed = capsys.readouterr().out
    assert "5 episodes, 150 frames, 75.0% of clips" in printed
    assert "2 episodes, 80 frames, 25.0% of clips" in printed
    assert "7, of 7 to 64 frames, median 23" in printed
    assert (tmp_path / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AimeError, match="no such file or directory"):
        main([str(tmp_path / "nothing")])
