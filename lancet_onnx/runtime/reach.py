# SPDX-License-Identifier: Apache-2.0
"""Which leaves a gradient reaches on given inputs, and why it does not reach the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lancet_onnx.model import Graph
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.types import ParamName

ENOUGH = 8
"""Inputs that are looked at: a branch that depends on the input may be taken by some only."""


@dataclass(frozen=True, slots=True)
class Unreached:
    """A leaf without a gradient."""

    param: ParamName
    reason: str


def unreached(classifier: Classifier, inputs: torch.Tensor | None = None) -> tuple[Unreached, ...]:
    """Return the leaves on the way to the logits that no gradient reaches from `inputs`.

    Without inputs a blank one is run. A gradient of zeros counts as reaching.
    """
    signature, module = classifier.signature, classifier.module
    graph = module.graph
    nodes = graph.between([signature.input.name], [signature.logits])
    read = {value for node in nodes for value in node.reads}
    params = {
        name: leaf.clone().requires_grad_() for name, leaf in module.leaves.items() if name in read
    }
    x = classifier.blank() if inputs is None else inputs[:ENOUGH]
    with torch.enable_grad():
        logits = classifier.run({signature.input.name: x}, [signature.logits], params)
        total = logits[signature.logits].sum()
        found: tuple[torch.Tensor | None, ...] = (None,) * len(params)
        if total.requires_grad:
            found = torch.autograd.grad(total, list(params.values()), allow_unused=True)
    missing = [name for name, gradient in zip(params, found, strict=True) if gradient is None]
    return tuple(Unreached(name, _reason(graph, name)) for name in missing)


def _reason(graph: Graph, name: ParamName) -> str:
    if all(node.graphs for node in graph.consumers.get(name, ())):
        return "used only in a branch that these inputs do not take"
    return "used only where the scores do not change smoothly with it (a comparison, a rounding)"
