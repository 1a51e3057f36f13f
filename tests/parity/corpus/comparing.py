# SPDX-License-Identifier: Apache-2.0
"""One row of the table: a file through lancet-onnx and through onnxruntime."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from corpus.gradients import expected, matters, reached, settings
from corpus.reference import Reference, Results, difference, spread, typed
from corpus.store import ROWS, Record, load_inputs, part
from lancet_onnx.model import load
from lancet_onnx.runtime.executor import GraphModule
from lancet_onnx.runtime.tensors import to_torch

TOLERANCE = {"float": 1e-3, "half": 3e-2, "quantised": 0.1}
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
_MASTER = {"float16": "float32", "bfloat16": "float32"}


@dataclass
class Row:
    """What `check` found out about one entry; `error` is the first thing that went wrong."""

    name: str
    converted: bool = False
    difference: float | None = None
    reached: int = 0
    expected: int = 0
    batch: float | None = None
    bound: int = 0
    floats: int = 0
    settings: int = 0
    reference: str = "onnxruntime"
    operators: list[str] = field(default_factory=list)
    spread: float = 1.0
    seconds: float = 0.0
    error: str = ""
    batch_error: str = ""
    gradient_error: str = ""
    notes: list[str] = field(default_factory=list)

    def holds(self, kind: str) -> bool:
        """Whether every column is as it should be."""
        return not self.failures(kind)

    def failures(self, kind: str) -> list[str]:
        """Return what is not as it should be, in words."""
        limit, found = TOLERANCE[kind], []
        if not self.converted:
            return [self.error or "not converted"]
        if self.difference is None or not self.difference <= limit:
            found.append(self.error or f"differs by {self.difference:.2g}")
        if self.gradient_error or self.reached < self.expected:
            reason = f"gradient reaches {self.reached} of {self.expected}"
            found.append(self.gradient_error or reason)
        if self.batch is None or not self.batch <= limit:
            value = "none" if self.batch is None else f"{self.batch:.2g}"
            found.append(f"batch of 4: {self.batch_error or 'differs by ' + value}")
        if self.bound < self.floats:
            found.append(f"bound by name {self.bound} of {self.floats}")
        return found


def compare(cache: Path, record: Record) -> Row:
    """Fill in a row; whatever lancet-onnx raises is part of the result."""
    row = Row(record.name)
    start = time.monotonic()
    file = cache / record.file
    proto = onnx.load(file, load_external_data=False)
    row.operators = sorted(_operators(proto))
    feeds = typed(load_inputs(cache, record), proto.graph)
    own = part(record, feeds, 0, record.batch or (ROWS if record.mixes else 2))
    reference = Reference(file)
    row.reference = reference.by
    theirs = reference.run(own)
    rows = _by_batches(reference, feeds, record)
    row.spread = spread(rows)
    try:
        module = GraphModule(load(file).graph, torch.device("cpu"))
        row.converted = True
        row.notes += _bind(row, module, proto)
        ours = _run(module, own, list(theirs))
        row.difference = difference(ours, theirs)
        if not row.difference <= TOLERANCE[record.kind]:
            plain = Reference(file, optimised=False).run(own)
            row.notes.append(
                "onnxruntime without its optimisations differs by "
                f"{difference(plain, theirs):.2g}, ours from that by {difference(ours, plain):.2g}"
            )
    except Exception as error:
        row.error = _words(error)
    if row.converted and row.difference is not None:
        _batch(row, module, feeds, rows, record)
        _gradients(row, module, file, own, theirs)
    row.seconds = round(time.monotonic() - start, 1)
    return row


def _words(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]


def _tensors(feeds: Mapping[str, NDArray[Any]]) -> dict[Any, torch.Tensor]:
    return {name: to_torch(array, torch.device("cpu")) for name, array in feeds.items()}


def _run(
    module: GraphModule, feeds: Mapping[str, NDArray[Any]], outputs: list[Any]
) -> dict[str, NDArray[Any]]:
    with torch.no_grad():
        results = module.run(_tensors(feeds), outputs)
    return {name: value.numpy() for name, value in results.items()}


def _by_batches(reference: Reference, feeds: dict[str, NDArray[Any]], record: Record) -> Results:
    """Return the reference's answers to all rows, in the file's own batches or one by one."""
    size = ROWS if record.mixes and record.batch is None else record.batch or 1
    answers = [reference.run(part(record, feeds, i, size)) for i in range(0, ROWS, size)]
    return {
        name: np.concatenate([answer[name] for answer in answers])
        for name in answers[0]
        if answers[0][name].ndim
    }


def _batch(
    row: Row, module: GraphModule, feeds: dict[str, NDArray[Any]], rows: Results, record: Record
) -> None:
    outputs: Any = list(rows)
    try:
        if record.batch is None or record.batch == ROWS:
            ours = _run(module, feeds, outputs)
        else:
            size = record.batch
            given = _tensors(feeds)
            shared: Any = {name: given.pop(name) for name in record.shared}
            blocks = {n: t.reshape(-1, size, *t.shape[1:]) for n, t in given.items()}
            with torch.no_grad():
                mapped = torch.func.vmap(lambda own: module.run({**own, **shared}, outputs))(blocks)
            ours = {n: v.reshape(-1, *v.shape[2:]).numpy() for n, v in mapped.items()}
        row.batch = difference(ours, rows)
    except Exception as error:
        row.batch_error = _words(error)


def _gradients(
    row: Row, module: GraphModule, file: Path, own: dict[str, NDArray[Any]], theirs: Results
) -> None:
    outputs = [name for name, value in theirs.items() if value.dtype.kind not in "iub"]
    names = expected(module.graph, outputs, module.leaves)
    row.expected = len(names)
    try:
        good, rest = reached(module, _tensors(own), outputs, names)
    except Exception as error:
        row.gradient_error = _words(error)
        return
    row.reached = len(good)
    if rest:
        guilty = matters(file, rest, own, {name: theirs[name] for name in outputs})
        if guilty is None:
            row.notes.append(f"{len(rest)} gradients are zero, not known whether truly")
        else:
            row.expected -= len(rest - guilty)
            if rest - guilty:
                row.notes.append(f"{len(rest - guilty)} gradients are truly zero")
            if guilty:
                row.gradient_error = (
                    f"gradient reaches {row.reached} of {row.expected}; not "
                    + ", ".join(sorted(guilty)[:3])
                )[:200]


def _bind(row: Row, module: GraphModule, proto: onnx.ModelProto) -> list[str]:
    """Count the file's float initializers that are leaves of the same name, shape and type."""
    only_settings = settings(module.graph)
    wrong = []
    for tensor in proto.graph.initializer:
        if tensor.data_type not in _FLOATS:
            continue
        leaf = module.leaves.get(tensor.name)  # type: ignore[call-overload]
        if leaf is None and tensor.name in only_settings:
            row.settings += 1
            continue
        row.floats += 1
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        same = leaf is not None and tuple(leaf.shape) == tuple(tensor.dims)
        if same and str(leaf.dtype) == f"torch.{_MASTER.get(kind, kind)}":
            row.bound += 1
        else:
            wrong.append(tensor.name)
    return ["not bound: " + ", ".join(wrong[:3])] if wrong else []


def _operators(proto: onnx.ModelProto) -> set[str]:
    local = {(f.domain, f.name) for f in proto.functions}

    def walk(nodes: Any) -> Iterator[str]:
        for node in nodes:
            domain = "" if node.domain == "ai.onnx" else node.domain
            if (node.domain, node.op_type) not in local:
                yield f"{domain}.{node.op_type}" if domain else node.op_type
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from walk(attribute.g.node)

    found = set(walk(proto.graph.node))
    for function in proto.functions:
        found |= set(walk(function.node))
    return found
