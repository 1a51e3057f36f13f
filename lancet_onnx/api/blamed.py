# SPDX-License-Identifier: Apache-2.0
"""The few weights behind some errors: those that a patch changes, or those that are located."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from lancet_onnx.locate import locate
from lancet_onnx.patch import Patch
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.executor import Params
from lancet_onnx.runtime.layers import Layer, find_layers
from lancet_onnx.samples import Material, Pairs
from lancet_onnx.samples.core import Floats
from lancet_onnx.scores import Index
from lancet_onnx.types import ParamName, Progress


@dataclass(frozen=True, slots=True, eq=False)
class Blamed:
    """Weights, and the leaves in which they are zero.

    Attributes:
        source: a ``patch`` that changes them, or <error, companion> ``pairs`` that they explain.
        without: the leaves that hold them, with these weights zero.
        rows: the JSON form, one for each initializer.
    """

    source: Literal["patch", "pairs"]
    without: Params
    rows: tuple[Mapping[str, object], ...]


def by_patch(classifier: Classifier, patch: Patch) -> Blamed | None:
    """Return the weights that a patch changes; None if it changes no editable weight.

    Biases that it moves only keep the layer's mean output, so they are left out.
    """
    layers = {layer.param: layer for layer in find_layers(classifier)}
    index = {d.param: d.elements.at for d in patch.deltas if d.param in layers and d.count}
    if not index:
        return None
    return _blamed(classifier, "patch", layers, index)


def by_pairs(
    classifier: Classifier, pairs: Pairs, clean: Floats, progress: Progress
) -> Blamed | None:
    """Return the first weights of the best layer; None if no layer explains a pair.

    As many as half of the pairs need. `clean` are a few ordinary inputs.
    """
    if not len(pairs):
        return None
    location = locate(classifier, Material.to_locate(pairs, clean), progress)
    best = location.best
    if best is None:
        return None
    count = max(1, round(best.share * best.weights))
    index = {best.param: np.sort(best.orders[0].ranking(best.param)[:count])}
    layers = {layer.param: layer for layer in find_layers(classifier)}
    more = {best.param: {"pairs_located": best.pairs_located, "pairs": best.pairs}}
    return _blamed(classifier, "pairs", layers, index, more)


def _blamed(
    classifier: Classifier,
    source: Literal["patch", "pairs"],
    layers: Mapping[ParamName, Layer],
    index: Mapping[ParamName, Index],
    more: Mapping[ParamName, Mapping[str, int]] | None = None,
) -> Blamed:
    rows = [
        {
            "node": layers[param].node.name,
            "initializer": param,
            "weights": layers[param].size,
            "located": len(at),
            "share": round(len(at) / layers[param].size, 6),
            **((more or {}).get(param, {})),
        }
        for param, at in index.items()
    ]
    without = {param: _zeroed(classifier, layers[param], at) for param, at in index.items()}
    return Blamed(source, without, tuple(rows))


def _zeroed(classifier: Classifier, layer: Layer, at: Index) -> torch.Tensor:
    leaf = classifier.module.leaves[layer.param].detach()
    kept = torch.ones(leaf.numel(), dtype=leaf.dtype, device=leaf.device)
    kept[torch.from_numpy(at).to(leaf.device)] = 0
    return layer.scaled(leaf, kept.reshape(leaf.shape))
