# SPDX-License-Identifier: Apache-2.0
"""One edit of one layer: the first t weights of a ranking flipped or muted, the mean kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import Layer
from lancet_onnx.scores import Index
from lancet_onnx.types import Kind, ParamName, ValueName


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """What to do with which weights of one layer.

    Attributes:
        layer: where.
        index: flat positions, in the order in which they were ranked.
        kind: ``flip`` turns w into -w, ``mute`` into 0.
        compensate: also shift the layer's bias so that its mean output on clean images stays.
    """

    layer: Layer
    index: Index
    kind: Kind
    compensate: bool


def edit_params(
    classifier: Classifier, edit: Edit, clean: Sequence[Mapping[ValueName, torch.Tensor]]
) -> dict[ParamName, torch.Tensor]:
    """Return the leaves as the edit leaves them: the weight, and the bias if it is compensated.

    The mean shift of the layer's output per channel is measured over `clean` (chunks of values
    from which the layer can be run) and all positions, and taken out through the bias.
    """
    layer = edit.layer
    weight = classifier.module.leaves[layer.param]
    edited = weight.clone()
    chosen = torch.from_numpy(edit.index).to(weight.device)
    factor = -1.0 if edit.kind == "flip" else 0.0
    edited.view(-1)[chosen] = layer.scaled(weight, factor).view(-1)[chosen]
    params = {layer.param: edited}
    if edit.compensate and layer.bias is not None:
        # The layer is linear: the shift of the mean is its response to the change of the weight.
        shift = _mean_output(classifier, layer, weight, clean) - _mean_output(
            classifier, layer, edited, clean
        )
        bias = classifier.module.leaves[layer.bias.param]
        scale = torch.from_numpy(layer.bias.scale).to(bias.device)
        params[layer.bias.param] = bias + (shift * scale).reshape(bias.shape)
    return params


def _mean_output(
    classifier: Classifier,
    layer: Layer,
    weight: torch.Tensor,
    clean: Sequence[Mapping[ValueName, torch.Tensor]],
) -> torch.Tensor:
    total: torch.Tensor | None = None
    count = 0
    for part in clean:
        feeds = {layer.source: part[layer.source]}
        output = classifier.run(feeds, [layer.output], {layer.param: weight})[layer.output]
        moved = output.movedim(layer.channel_axis, -1).flatten(0, -2)
        total = moved.sum(0) if total is None else total + moved.sum(0)
        count += len(moved)
    if total is None:
        return torch.zeros((), device=weight.device)
    return total / count
