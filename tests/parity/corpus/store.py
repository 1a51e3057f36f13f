# SPDX-License-Identifier: Apache-2.0
"""What lies in the cache: one .onnx, one .npz of inputs and one .json record for each entry."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS = 4
"""Rows stored for each entry: what `batch of 4` runs; a file's own batch is the first of them."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Made:
    """What a recipe hands back once the file is written.

    Attributes:
        inputs: `ROWS` rows for each input of the file, in the file's order.
        batch: the batch size that the file fixes; None where it is free.
        kind: `float`, `half` or `quantised`: how far from onnxruntime a result may be.
        note: what a reader of the table should know (a fallback that was taken).
        mixes: rows of a batch depend on each other by design (dynamic quantisation).
        shared: inputs that are not rows but the same for all (tf2onnx writes such constants).
    """

    inputs: Arrays
    batch: int | None
    kind: str = "float"
    note: str = ""
    mixes: bool = False
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """One entry: its name (also its path in the cache), who exports it, and how.

    Attributes:
        name: `group/model@variant`.
        exporter: as the table names it.
        opset: as asked for.
        build: writes the model to the path it is given.
        needs: modules that must be importable.
        slow: built after everything else.
    """

    name: str
    exporter: str
    opset: int
    build: Callable[[Path], Made]
    needs: tuple[str, ...] = ()
    slow: bool = False


@dataclass
class Record:
    """The .json beside a model; with `error` it stands for a file that could not be made."""

    name: str
    exporter: str
    opset: int
    file: str = ""
    inputs: list[str] = field(default_factory=list)
    batch: int | None = None
    kind: str = "float"
    note: str = ""
    mixes: bool = False
    shared: list[str] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0
    bytes: int = 0


def paths(cache: Path, name: str) -> tuple[Path, Path, Path]:
    """Return where the model, its inputs and its record lie."""
    stem = cache / name
    return tuple(stem.with_name(stem.name + end) for end in (".onnx", ".npz", ".json"))  # type: ignore[return-value]


def write(cache: Path, record: Record) -> None:
    """Write the record; its presence says that the entry is done."""
    target = paths(cache, record.name)[2]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    partial.write_text(json.dumps(asdict(record), indent=1) + "\n")
    partial.replace(target)


def read(cache: Path) -> list[Record]:
    """Return every record of the cache, by name."""
    known = {entry.name for entry in fields(Record)}
    found = [json.loads(p.read_text()) for p in cache.rglob("*.json")]
    records = [Record(**{k: v for k, v in stored.items() if k in known}) for stored in found]
    return sorted(records, key=lambda record: record.name)


def save_inputs(path: Path, inputs: Arrays) -> None:
    """Write the rows; keys are positions, since names may hold slashes."""
    np.savez(path, **{str(i): array for i, array in enumerate(inputs.values())})


def part(record: Record, feeds: Arrays, start: int, size: int) -> dict[str, NDArray[Any]]:
    """Return `size` rows of each input from `start` on; shared inputs as they are."""
    return {n: a if n in record.shared else a[start : start + size] for n, a in feeds.items()}


def load_inputs(cache: Path, record: Record) -> dict[str, NDArray[Any]]:
    """Return the rows that the record's model is fed."""
    with np.load(paths(cache, record.name)[1]) as stored:
        return {name: stored[str(i)] for i, name in enumerate(record.inputs)}
