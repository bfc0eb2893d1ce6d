"""Make a run into a model that comes with the package: `bundled:NAME`.

    python scripts/bundle_run.py --run runs/cartpole --name cartpole

Keeps the averaged weights, in half precision, the settings and the log, and adds the evaluation, the inspection and the
report of what is kept.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import tyro

from aime.data.manifest import MANIFEST
from aime.data.sources import BUNDLED
from aime.errors import AimeError
from aime.inference.evaluate import evaluate_run
from aime.inference.inspection import INSPECTION, inspect_run
from aime.inference.report import REPORT, write_report
from aime.inference.report.material import EVALUATION
from aime.primitives.checksums import write_sums
from aime.primitives.files import write_atomically
from aime.primitives.tensor_files import save_weights
from aime.world_model import bundled
from aime.world_model.model import AIME
from aime.world_model.saved import AVERAGED_WEIGHTS, CONFIG, read_run

MOST_BYTES = 10 * 2**20


@dataclass(frozen=True)
class Options:
    """Bundle a run."""

    run: Path
    """The run directory that `aime train` wrote."""
    name: str
    """What follows "bundled:"."""


def bundle(options: Options) -> Path:
    """The directory made; one of the same name is replaced.

    Raises:
        AimeError: if there is no such run, or the result is larger than 10 MiB.
    """
    info, model = read_run(options.run), AIME.from_pretrained(options.run)
    place = bundled.HOME / options.name
    shutil.rmtree(place, ignore_errors=True)
    (place / "checkpoint").mkdir(parents=True)
    weights = {name for name, _ in model.named_parameters()}
    state = {name: each.half() if name in weights else each for name, each in model.state_dict().items()}
    save_weights(state, place / "checkpoint" / AVERAGED_WEIGHTS)
    write_sums(place / "checkpoint", [AVERAGED_WEIGHTS])
    write_atomically(place / CONFIG, (info.path / CONFIG).read_bytes())
    if info.manifest is not None:
        info.manifest.write(place / MANIFEST)
    kept = BUNDLED + options.name
    evaluate_run(kept, out=place / EVALUATION)
    inspect_run(kept, out=place / INSPECTION)
    write_report(kept, out=place / REPORT)
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise AimeError(f"{place}: {size} bytes, expected at most {MOST_BYTES}: bundle a smaller model")
    return place


if __name__ == "__main__":
    print(bundle(tyro.cli(Options, description=__doc__)))
