# SPDX-License-Identifier: Apache-2.0
"""What a classifier takes and gives, read off its graph before anything runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lancet_onnx.errors import ModelError, UnsupportedError
from lancet_onnx.model import Graph
from lancet_onnx.runtime.head import Head, find_head
from lancet_onnx.types import TensorSpec, ValueName

LARGEST_INPUT = 1 << 26
"""Numbers in one probe batch; a hostile shape would otherwise take all memory."""

_INPUTS = ("float32", "float16", "float64", "uint8", "int32", "int64")


@dataclass(frozen=True, slots=True)
class Signature:
    """What a classifier takes and gives.

    Attributes:
        input: the one image-like input.
        batch: the batch size that the file fixes, or None when it is free.
        logits: one row an image; gradients start there, before a final Softmax and the like.
        classes: number of classes, 2 or more.
        head: how the file itself gives its answer.
        parts: the file's own inputs, where `input` stands for several stacked along axis 1.
    """

    input: TensorSpec
    batch: int | None
    logits: ValueName
    classes: int
    head: Head
    parts: tuple[TensorSpec, ...] = ()


def needed(graph: Graph, output: str | None = None) -> Graph:
    """Return the part of the graph that the classifier's answer needs.

    Raises:
        ModelError: no output holds an answer.
    """
    head = find_head(graph, output)
    return graph.leading_to([head.scores, head.logits])


def classifier_input(graph: Graph) -> TensorSpec:
    """Return the model's one real input.

    Raises:
        ModelError: none, several, or one that is no batch of numbers.
    """
    if len(graph.inputs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in graph.inputs) or "none"
        raise ModelError(
            f"the model has {len(graph.inputs)} inputs ({names}); expected a classifier with "
            "exactly one, a batch of images"
        )
    spec = graph.inputs[0]
    if spec.shape is None or len(spec.shape) < 2:
        raise ModelError(
            f"the input '{spec.name}' has the shape {spec.shape}; expected a batch of images, "
            "such as (N, 3, 32, 32)"
        )
    if spec.dtype not in _INPUTS:
        raise UnsupportedError(f"the input '{spec.name}' is of type {spec.dtype}; expected float32")
    if not any(array.ndim > 1 for name, array in graph.constants.items() if name in graph.leaves):
        raise ModelError("the model has no weights: nothing in it could be located or repaired")
    return spec


def blank_inputs(spec: TensorSpec, count: int, device: torch.device) -> torch.Tensor:
    """Return `count` inputs of zeros; free sizes are taken as 32.

    Raises:
        ModelError: a shape that would take all memory.
    """
    shape = (count, *(d if isinstance(d, int) and d > 0 else 32 for d in (spec.shape or ())[1:]))
    if math.prod(shape) > LARGEST_INPUT:
        raise ModelError(
            f"the input '{spec.name}' has the shape {spec.shape}: more than {LARGEST_INPUT} "
            "numbers for one image are not handled"
        )
    return torch.zeros(shape, dtype=torch_dtype(spec), device=device)


def torch_dtype(spec: TensorSpec) -> torch.dtype:
    """Return torch's name for an input's element type."""
    dtype = getattr(torch, spec.dtype)
    assert isinstance(dtype, torch.dtype)  # noqa: S101 - narrows for the type checker
    return dtype
