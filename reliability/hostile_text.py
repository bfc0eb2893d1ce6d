"""Configs and JSON documents that are huge, deep, of another type, or no text, and weights that are none."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

from reliability.examples import lerobot_2, minari, rlds
from reliability.hostile_kind import Hostile


def aliases(source: Path, outside: Path) -> None:
    """Aliases of aliases: 10^9 values in a kilobyte."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    config = (source / "config.yaml").read_text()
    (source / "config.yaml").write_text("\n".join(lines) + "\n" + config)


def merged_aliases(source: Path, outside: Path) -> None:
    """The same in place of a size."""
    text = (source / "config.yaml").read_text()
    lines = [
        "a0: &a0 {x: 1, y: 2}",
        *[f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], z{n}: *a{n - 1}}}" for n in range(1, 40)],
    ]
    (source / "config.yaml").write_text("\n".join(lines) + "\n" + text)


def _sized(name: str, value: str) -> Hostile:
    def make(source: Path, outside: Path) -> None:
        lines = (source / "config.yaml").read_text().splitlines()
        changed = [f"{line.split(':')[0]}: {value}" if line.strip().startswith(f"{name}:") else line for line in lines]
        (source / "config.yaml").write_text("\n".join(changed) + "\n")

    return Hostile(make, "run-evaluate")


def tags(source: Path, outside: Path) -> None:
    """A tag that asks a careless reader to run a program."""
    text = (source / "config.yaml").read_text()
    call = f"!!python/object/apply:os.system ['echo yaml > {outside}/started']"
    (source / "config.yaml").write_text(f"x: {call}\n{text}")


def deep_config(source: Path, outside: Path) -> None:
    """A hundred thousand brackets."""
    (source / "config.yaml").write_text("model: " + "[" * 100_000)


def long_number(source: Path, outside: Path) -> None:
    """A number of ten million digits."""
    (source / "config.yaml").write_text(f"model: {'9' * 10_000_000}\n")


def fifo_config(source: Path, outside: Path) -> None:
    """A pipe by the name of the config."""
    (source / "config.yaml").unlink()
    os.mkfifo(source / "config.yaml")


def pickled_weights(source: Path, outside: Path) -> None:
    """A pickle by the name of weights."""
    program = f"cos\nsystem\n(S'echo pickle > {outside}/started'\ntR."
    for path in (source / "checkpoint").glob("*.safetensors"):
        path.write_bytes(program.encode())


def long_header(source: Path, outside: Path) -> None:
    """Weights whose header says that it has 2^60 bytes."""
    for path in (source / "checkpoint").glob("*.safetensors"):
        path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])


def huge_tensor(source: Path, outside: Path) -> None:
    """A tensor of 2^62 numbers in no bytes."""
    for path in (source / "checkpoint").glob("*.safetensors"):
        header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 31, 1 << 31], "data_offsets": [0, 0]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header)


def _another_json(kind: str, document: str) -> Hostile:
    make = {"lerobot-2": lerobot_2, "minari": minari, "rlds": rlds}[kind]
    name = {"lerobot-2": "meta/info.json", "minari": "data/metadata.json", "rlds": "features.json"}[kind]

    def written(source: Path, outside: Path) -> None:
        make(source)
        (source / name).write_text(document)

    return Hostile(written, kind)


def features_of_lists(source: Path, outside: Path) -> None:
    """Objects that are lists, inside."""
    lerobot_2(source)
    info = json.loads((source / "meta" / "info.json").read_text())
    info["features"] = {"action": [1], "observation.images.top": ["video"], "observation.state": 3}
    (source / "meta" / "info.json").write_text(json.dumps(info))


TEXTS = {
    "config-aliases": Hostile(aliases, "run-evaluate"),
    "config-merged-aliases": Hostile(merged_aliases, "run-evaluate"),
    "config-huge-latent": _sized("latent", "1000000000"),
    "config-huge-belief": _sized("belief", "300000"),
    "config-huge-components": _sized("components", "100000000"),
    "config-tags": Hostile(tags, "run-evaluate"),
    "config-deep": Hostile(deep_config, "run-evaluate"),
    "config-long-number": Hostile(long_number, "run-evaluate"),
    "fifo-config": Hostile(fifo_config, "run-evaluate"),
    "weights-pickled": Hostile(pickled_weights, "run-evaluate"),
    "weights-long-header": Hostile(long_header, "run-evaluate"),
    "weights-huge-tensor": Hostile(huge_tensor, "run-evaluate"),
    "json-list": _another_json("lerobot-2", "[]"),
    "json-number": _another_json("minari", "1e400"),
    "json-deep": _another_json("rlds", "[" * 200_000),
    "json-of-lists": Hostile(features_of_lists, "lerobot-2"),
}
