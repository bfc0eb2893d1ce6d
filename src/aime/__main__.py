"""`python -m aime`: the `aime` command, for launchers that start modules, such as torchrun."""

from __future__ import annotations

from aime.cli.main import entry

if __name__ == "__main__":
    entry()
