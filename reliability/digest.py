"""A digest of every value of a data set, read through `aime.data.open_dataset`: `python -m reliability.digest DIR`."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path


def digest_command(data: Path) -> list[str]:
    """The command that prints the digest of a data set."""
    return [sys.executable, "-m", "reliability.digest", str(data)]


def main(data: str) -> int:
    """Print the digest, or the refusal as the command line gives it."""
    import numpy as np

    from aime.data import open_dataset
    from aime.errors import AimeError

    digest = hashlib.sha256()
    try:
        dataset = open_dataset(data)
        digest.update(repr((dataset.action_scale, dataset.image_size, dataset.lengths.tolist())).encode())
        for episode in dataset:
            for name in ("pixels", "action", "reward", "terminated", "state"):
                array = getattr(episode, name)
                if array is not None:
                    digest.update(f"{name} {array.dtype} {array.shape}".encode())
                    digest.update(np.ascontiguousarray(array).tobytes())
    except AimeError as error:
        print(f"aime: {error}", file=sys.stderr)
        return 2
    print(digest.hexdigest())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
