# SPDX-License-Identifier: Apache-2.0
"""Models as torch's two exporters write them: onnxruntime's scores, gradients at each leaf."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lancet_onnx.model import load
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import find_layers, unedited
from lancet_onnx.runtime.ort import OrtModel
from lancet_onnx.runtime.parity import compare

SHAPE = (3, 16, 16)


class Residual(nn.Module):
    """Stem, a residual block with a strided shortcut, BatchNorm everywhere, pooling, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, 2, 1, bias=False),
            nn.BatchNorm2d(12),
            nn.SiLU(),
            nn.Conv2d(12, 12, 3, padding=1, groups=3),
        )
        self.shortcut = nn.Conv2d(8, 12, 1, 2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.body(x) + self.shortcut(x))
        return self.head(x.mean((2, 3)))


class Flattening(nn.Module):
    """Pooling with ceil_mode, flatten by size, dropout, two linear layers, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5, stride=2)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.first = nn.Linear(6 * 3 * 3, 16)
        self.last = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(nn.functional.gelu(self.conv(x)))
        x = nn.functional.dropout(x.view(x.size(0), -1), 0.5, self.training)
        return self.last(nn.functional.leaky_relu(self.first(x), 0.1)).softmax(1)


class Tokens(nn.Module):
    """A convolutional stem, tokens, linear layers over the last axis, LayerNorm, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.LayerNorm(8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.mix(self.norm(x))
        x = x + self.mix(torch.tanh(x))
        return self.head(x.mean(1))


def export(model: nn.Module, path: Path, *, dynamo: bool, opset: int, dynamic: bool) -> None:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
    example = torch.randn(2 if dynamic else 1, *SHAPE)
    options: dict[str, object] = {"input_names": ["input"], "output_names": ["scores"]}
    if dynamo:
        options |= {"external_data": False}
        if dynamic:
            options |= {"dynamic_shapes": ({0: torch.export.Dim("N")},)}
    elif dynamic:
        options |= {"dynamic_axes": {"input": {0: "N"}, "scores": {0: "N"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(), (example,), str(path), dynamo=dynamo, opset_version=opset, **options
        )


@pytest.mark.parametrize("dynamic", [True, False], ids=["free", "fixed"])
@pytest.mark.parametrize(
    ("dynamo", "opset"), [(False, 13), (False, 17), (True, 18), (True, 20), (True, 23)]
)
@pytest.mark.parametrize("kind", [Residual, Flattening, Tokens])
def test_exported_models_agree_and_reach_every_weight(
    kind: type[nn.Module], dynamo: bool, opset: int, dynamic: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    torch.manual_seed(1)
    export(kind(), path, dynamo=dynamo, opset=opset, dynamic=dynamic)
    model = load(path)
    classifier = Classifier(model.graph)
    images = np.random.default_rng(0).normal(size=(7, *SHAPE)).astype(np.float32)
    parity = compare(classifier, OrtModel(path, classifier.signature.input, "cpu"), images)
    assert parity.holds, parity
    assert parity.largest < 1e-5

    layers = find_layers(classifier)
    shared = [name for name, why in unedited(classifier).items() if "shared" in why]
    multiplied = {
        name
        for name in model.graph.leaves
        if model.graph.constants[name].ndim in (2, 4) and model.graph.constants[name].size > 3
    }
    assert multiplied == {layer.param for layer in layers} | set(shared)
    assert (kind is Tokens) == bool(shared)
    x = classifier.tensor(images)
    _, gradients = classifier.gradients(
        x, [], [layer.output for layer in layers], lambda z: z.logsumexp(1)
    )
    assert all(float(g.abs().max()) > 0 for g in gradients.values())


def test_weights_in_constant_nodes_are_leaves(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export(Flattening(), path, dynamo=False, opset=17, dynamic=True)
    proto = onnx.load(path)
    weights = {t.name: t for t in proto.graph.initializer}
    del proto.graph.initializer[:]
    constants = [
        onnx.helper.make_node("Constant", [], [name], value=tensor)
        for name, tensor in weights.items()
    ]
    nodes = [*constants, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    moved = tmp_path / "constants.onnx"
    onnx.save(proto, moved)
    before, after = (Classifier(load(p).graph) for p in (path, moved))
    assert {layer.param for layer in find_layers(before)} == {
        layer.param for layer in find_layers(after)
    }
    x = torch.randn(3, *SHAPE)
    torch.testing.assert_close(before.logits(x), after.logits(x), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [Residual, Flattening])
def test_gradients_equal_those_of_onnx2torch(kind: type[nn.Module], tmp_path: Path) -> None:
    """An independent converter as oracle, on an export old enough for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx2torch import convert

    path = tmp_path / "model.onnx"
    export(kind(), path, dynamo=False, opset=13, dynamic=True)
    classifier = Classifier(load(path).graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = convert(onnx.load(path))
    x = torch.randn(4, *SHAPE)
    name = classifier.signature.input.name
    _, gradients = classifier.gradients(x, [], [name], lambda z: z.log_softmax(1)[:, 1])
    y = x.clone().requires_grad_()
    scores = other(y)
    logs = scores.log() if kind is Flattening else scores.log_softmax(1)
    logs[:, 1].sum().backward()
    torch.testing.assert_close(gradients[name], y.grad, rtol=1e-4, atol=1e-6)
