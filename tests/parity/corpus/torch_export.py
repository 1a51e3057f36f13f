# SPDX-License-Identifier: Apache-2.0
"""torch.onnx.export as a user calls it, both exporters, free or fixed batch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corpus.store import ROWS, Made

DYNAMO_OPSET = 20
LEGACY_OPSET = 17
EXTERNAL_ABOVE = 1_500_000_000


def rows(specs: Sequence[tuple[int, ...] | torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return `ROWS` seeded rows for each input: normal values for a shape, or the tensor itself."""
    return tuple(
        spec if isinstance(spec, torch.Tensor) else torch.randn(ROWS, *spec) for spec in specs
    )


def export(
    model: nn.Module,
    full: tuple[torch.Tensor, ...],
    path: Path,
    *,
    dynamo: bool,
    opset: int,
    batch: int | None,
    kind: str = "float",
    note: str = "",
    **options: Any,
) -> Made:
    """Export `model` at its own batch size; with `batch` None the first dimension is free.

    A free batch that the exporter refuses becomes a fixed one, with a note.
    """
    names = [f"input_{i}" for i in range(len(full))] if len(full) > 1 else ["input"]
    try:
        _write(model, full, names, path, dynamo, opset, batch, options)
    except Exception:
        if batch is not None or not dynamo:
            raise
        batch, note = 1, "free batch refused by the exporter"
        _write(model, full, names, path, dynamo, opset, batch, options)
    arrays = {
        name: tensor.view(torch.uint16).numpy()
        if tensor.dtype == torch.bfloat16
        else tensor.numpy()
        for name, tensor in zip(names, full, strict=True)
    }
    return Made(arrays, batch, kind, note)


def _write(
    model: nn.Module,
    full: tuple[torch.Tensor, ...],
    names: list[str],
    path: Path,
    dynamo: bool,
    opset: int,
    batch: int | None,
    options: dict[str, Any],
) -> None:
    example = tuple(tensor[: batch or 2] for tensor in full)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    common: dict[str, Any] = {"input_names": names, "opset_version": opset, **options}
    if dynamo:
        common["external_data"] = size > EXTERNAL_ABOVE
        if batch is None:
            free = torch.export.Dim("N", min=1, max=4096)
            common["dynamic_shapes"] = tuple({0: free} for _ in full)
    elif batch is None:
        common["output_names"] = ["output"]
        common["dynamic_axes"] = {name: {0: "N"} for name in [*names, "output"]}
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, example, str(path), dynamo=dynamo, **common)
