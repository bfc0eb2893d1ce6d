"""Trained models that come with the package: `bundled:NAME` in place of a run directory.

Each is a directory as `aime train` writes it, without what only training needs and with its report and evaluation. Its
weights are stored in half precision. `scripts/bundle_run.py` makes one.
"""

from __future__ import annotations

from pathlib import Path

from aime.data.sources import BUNDLED, is_bundled
from aime.errors import AimeError

HOME = Path(__file__).parent
"""Where they are installed."""


def bundled_runs() -> list[str]:
    """The names that "bundled:NAME" may take for a model, in alphabetical order."""
    return sorted(path.parent.name for path in HOME.glob("*/config.yaml"))


def locate(run: str | Path) -> Path:
    """The directory of a run: of "bundled:NAME" where it is installed, of any other as given.

    Raises:
        AimeError: if no model of that name comes with the package.
    """
    if not is_bundled(run):
        return Path(run)
    name, known = str(run).removeprefix(BUNDLED), bundled_runs()
    if name not in known:
        names = ", ".join(f"{BUNDLED}{each}" for each in known) or "none in this installation"
        raise AimeError(f"{run}: no such bundled model, expected one of: {names}")
    return HOME / name
