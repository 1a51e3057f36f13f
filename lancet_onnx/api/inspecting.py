# SPDX-License-Identifier: Apache-2.0
"""`inspect` and `doctor`: what a model is made of, and what this machine would run it on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from lancet_onnx.errors import DataError, LancetError
from lancet_onnx.model import load
from lancet_onnx.model.logic import logic_on_input
from lancet_onnx.model.probe import SPEC, probe_model
from lancet_onnx.report import Report
from lancet_onnx.runtime.binding import refusals
from lancet_onnx.runtime.classifier import Classifier, classifier_input
from lancet_onnx.runtime.layers import find_layers, tied_weights
from lancet_onnx.runtime.ort import OrtModel, distributions, environment, providers
from lancet_onnx.types import TensorSpec
from lancet_onnx.verify.preprocessing import recorded


def inspect(path: Path) -> Report:
    """Describe a model: inputs, layers, what can be edited, what is not supported, what to do next.

    Raises:
        ModelError: the file is no model that can be read.
    """
    model = load(path)
    graph = model.graph
    missing = refusals(graph)
    problems: list[str] = []
    layers: list[dict[str, object]] = []
    classes: int | None = None
    batch: int | None = None
    try:
        if not missing:
            classifier = Classifier(graph)
            classes, batch = classifier.signature.classes, classifier.signature.batch
            layers = _describe_layers(classifier)
        else:
            classifier_input(graph)
    except LancetError as error:
        problems.append(str(error))
    problems += [str(refusal) for refusal in missing]
    problems += [f"'{name}' holds NaN or infinity" for name in model.non_finite]
    problems += [
        f"'{name}' is shared by several nodes and not edited" for name in tied_weights(graph)
    ]
    branches = logic_on_input(graph)
    noted, note = None, ""
    try:
        noted = recorded(path, graph.metadata)
    except DataError as error:
        note = str(error)
    usable = not missing and classes is not None and not model.non_finite
    preprocess = "" if noted else " --preprocess unit"
    body = {
        "model": {"path": str(path), "sha256": str(model.digest), "bytes": len(model.data)},
        "opsets": dict(graph.opsets),
        "inputs": [_spec(s) for s in graph.inputs],
        "outputs": [_spec(s) for s in graph.outputs],
        "classes": classes,
        "fixed_batch": batch,
        "nodes": len(graph.nodes),
        "initializers": len(graph.constants),
        "external_data": sorted({outside.location for outside in model.external.values()}),
        "layers": layers,
        "editable_weights": sum(int(str(layer["weights"])) for layer in layers),
        "unsupported": [str(refusal) for refusal in missing],
        "graph_logic": [
            f"{node} chooses between results by comparing the raw input; weights cannot repair that"
            for node in branches
        ],
        "problems": problems,
        "preprocess": str(noted) if noted else None,
        "preprocess_note": note,
        "next": (
            f"lancet-onnx scan {path} --trigger TRIGGER.png --data IMAGES{preprocess}"
            if usable
            else None
        ),
    }
    return Report("inspect", "done" if usable else "refused", tuple(problems), body)


def doctor() -> Report:
    """Say which versions are installed, what would run where, and how to mend what is broken."""
    installed = distributions()
    advice: list[str] = []
    if len(installed) > 1:
        advice.append(
            f"{' and '.join(installed)} are both installed and overwrite each other: "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install lancet-onnx"
        )
    cuda_torch = torch.cuda.is_available()
    session: dict[str, object] = {}
    try:
        session = environment(OrtModel(probe_model(), SPEC).placement)
    except LancetError as error:
        advice.append(str(error))
    if cuda_torch and session.get("device") == "cpu":
        advice.append(
            "torch sees a GPU but onnxruntime runs on the CPU: pip install 'lancet-onnx[gpu]'"
        )
    body = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "onnxruntime_distributions": installed,
        "providers_built_in": providers(),
        "torch_cuda": cuda_torch,
        "torch_threads": torch.get_num_threads(),
        "onnxruntime_session": session,
        "advice": advice,
    }
    return Report("doctor", "done" if not advice else "fail", tuple(advice), body)


def _describe_layers(classifier: Classifier) -> list[dict[str, object]]:
    return [
        {
            "node": layer.node.name,
            "operator": layer.node.op_type,
            "initializer": layer.param,
            "shape": list(classifier.module.leaves[layer.param].shape),
            "weights": layer.size,
            "bias": layer.bias.param if layer.bias else None,
        }
        for layer in find_layers(classifier)
    ]


def _spec(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape or ())}
