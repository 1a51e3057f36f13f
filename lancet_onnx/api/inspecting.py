# SPDX-License-Identifier: Apache-2.0
"""`inspect`: what a model is made of, what can be edited and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lancet_onnx.api.subject import describe_switch, image_shape
from lancet_onnx.errors import DataError, LancetError
from lancet_onnx.model import Graph, load
from lancet_onnx.model.logic import Switch
from lancet_onnx.report import Report
from lancet_onnx.rules import NOT_FINITE
from lancet_onnx.runtime.binding import Refusal, refusals
from lancet_onnx.runtime.bundle import bundled
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.dormant import switches
from lancet_onnx.runtime.layers import find_layers, unedited
from lancet_onnx.runtime.reach import unreached
from lancet_onnx.runtime.signature import classifier_input, needed
from lancet_onnx.types import TensorSpec
from lancet_onnx.verify.preprocessing import recorded


def inspect(path: Path, output: str | None = None) -> Report:
    """Describe a model: inputs, layers, what can be edited, what is not supported, what to do next.

    `output` names the output that holds the scores, if the model has several.

    Raises:
        ModelError: the file is no model that can be read.
    """
    model = load(path)
    graph = model.graph
    problems: list[str] = []
    missing: list[Refusal] = []
    seen = _Seen()
    try:
        missing = refusals(needed(graph, output))
        if missing:
            classifier_input(bundled(graph)[0])
        else:
            seen = _look(graph, output)
    except LancetError as error:
        problems.append(str(error))
    if seen.classes is None:
        seen = _Seen(switches=switches(graph, None))
    problems += [f"{refusal} (not supported)" for refusal in missing]
    problems += [f"'{name}' holds NaN or infinity [{NOT_FINITE.id}]" for name in model.non_finite]
    noted, note = None, ""
    try:
        noted = recorded(path, graph.metadata)
    except DataError as error:
        note = str(error)
    usable = not missing and seen.classes is not None and not model.non_finite
    preprocess = "" if noted else f" --preprocess {'unit' if seen.layout else 'none'}"
    named = f" --output {output}" if output else ""
    suffix = "png" if seen.layout else "npz"
    body = {
        "model": {
            "path": str(path),
            "sha256": str(model.digest),
            "bytes": len(model.contents.source),
        },
        "opsets": dict(graph.opsets),
        "inputs": [_spec(s) for s in graph.inputs],
        "layout": seen.layout,
        "outputs": [_spec(s) for s in graph.outputs],
        "answer": seen.answer,
        "classes": seen.classes,
        "fixed_batch": seen.batch,
        "nodes": len(graph.nodes),
        "initializers": len(graph.constants),
        "external_data": sorted({outside.location for outside in model.external.values()}),
        "layers": seen.layers,
        "editable_weights": sum(int(str(layer["weights"])) for layer in seen.layers),
        "not_edited": dict(seen.not_edited),
        "no_gradient": dict(seen.no_gradient),
        "unsupported": [str(refusal) for refusal in missing],
        "graph_logic": [describe_switch(switch) for switch in seen.switches],
        "problems": problems,
        "preprocess": str(noted) if noted else None,
        "preprocess_note": note,
        "next": (
            f"lancet-onnx scan {path} --trigger TRIGGER.{suffix} --data IMAGES{preprocess}{named}"
            if usable
            else None
        ),
    }
    return Report("inspect", "done" if usable else "refused", tuple(problems), body)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What binding the model as a classifier showed."""

    classes: int | None = None
    batch: int | None = None
    layout: str | None = None
    answer: Mapping[str, object] | None = None
    layers: Sequence[Mapping[str, object]] = ()
    not_edited: Mapping[str, str] = field(default_factory=dict)
    no_gradient: Mapping[str, str] = field(default_factory=dict)
    switches: Sequence[Switch] = ()


def _look(graph: Graph, output: str | None) -> _Seen:
    classifier = Classifier(graph, output=output)
    signature = classifier.signature
    head = signature.head
    try:
        layout = image_shape(signature.input, None)[1]
    except DataError:
        layout = None
    return _Seen(
        signature.classes,
        signature.batch,
        layout,
        {"output": head.output, "form": head.form, "logits": head.logits},
        _describe_layers(classifier),
        {str(name): reason for name, reason in unedited(classifier).items()},
        {found.param: found.reason for found in unreached(classifier)},
        switches(graph, classifier),
    )


def _describe_layers(classifier: Classifier) -> list[dict[str, object]]:
    return [
        {
            "node": layer.node.name,
            "operator": layer.node.op_type,
            "initializer": layer.param,
            "shape": list(classifier.module.leaves[layer.param].shape),
            "dtype": classifier.graph.constants[layer.param].dtype.name,
            "weights": layer.size,
            "bias": layer.bias.param if layer.bias else None,
        }
        for layer in find_layers(classifier)
    ]


def _spec(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape or ())}
