# SPDX-License-Identifier: Apache-2.0
"""What location says about weights: scores, rankings and masks, under the file's own names.

`locate/` writes these and `repair/` reads them; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lancet_onnx.types import NodeName, ParamName

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ScoreMap:
    """A score for every weight of one or more initializers; higher means more error-inducing.

    Attributes:
        method: names the formula with all its parameters.
        scores: per initializer an array of the initializer's own shape.
    """

    method: str
    scores: Mapping[ParamName, NDArray[np.float32]]

    def ranking(self, param: ParamName) -> Index:
        """Return flat positions in `param`, highest score first; ties by position."""
        return np.argsort(-self.scores[param].reshape(-1), kind="stable").astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class WeightMask:
    """A choice of weights.

    Attributes:
        method: how it was chosen.
        index: per initializer the sorted flat positions (C order) of the chosen weights.
    """

    method: str
    index: Mapping[ParamName, Index]

    @property
    def size(self) -> int:
        """Number of chosen weights."""
        return sum(len(positions) for positions in self.index.values())


@dataclass(frozen=True, slots=True, eq=False)
class LayerLocation:
    """What was located in one layer.

    Attributes:
        node: the layer's node.
        param: its weight initializer.
        weights: number of weights in it.
        pairs: how many pairs were tried.
        pairs_located: for how many of them ablation of some weights restored the label.
        share: median share of the layer's weights that had to be ablated, 0 to 1.
        orders: rankings by which to repair, best guess first.
    """

    node: NodeName
    param: ParamName
    weights: int
    pairs: int
    pairs_located: int
    share: float
    orders: tuple[ScoreMap, ...]

    @property
    def located_share(self) -> float:
        """Share of pairs that could be located here."""
        return self.pairs_located / self.pairs if self.pairs else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Location:
    """The outcome of location over all layers, in execution order."""

    method: str
    layers: tuple[LayerLocation, ...]

    @property
    def best(self) -> LayerLocation | None:
        """The layer where most pairs are located; near-ties by the smallest share (paper, 4.3)."""
        candidates = [layer for layer in self.layers if layer.pairs_located]
        if not candidates:
            return None
        most = max(layer.located_share for layer in candidates)
        near = [layer for layer in candidates if layer.located_share >= most - 0.05]
        return min(near, key=lambda layer: layer.share)
