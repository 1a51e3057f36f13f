# SPDX-License-Identifier: Apache-2.0
"""Rankings, masks, and which layer is best."""

import numpy as np
import pytest

from lancet_onnx.scores import LayerLocation, Location, ScoreMap, WeightMask
from lancet_onnx.types import NodeName, ParamName


def layer(name: str, located: int, share: float, pairs: int = 100) -> LayerLocation:
    return LayerLocation(NodeName(name), ParamName(name), 1000, pairs, located, share, ())


def best(*layers: LayerLocation) -> str | None:
    found = Location("m", layers).best
    return found.node if found else None


def test_ranking_is_highest_first_over_the_flat_tensor():
    scores = np.array([[0.5, -1.0, 3.0], [2.0, 0.0, 1.0]], np.float32)
    ranking = ScoreMap("m", {ParamName("w"): scores}).ranking(ParamName("w"))
    assert ranking.tolist() == [2, 3, 5, 0, 4, 1]
    assert ranking.dtype == np.int64


def test_ties_go_by_position():
    scores = np.array([1, 2, 1, 2, 1, 2], np.float32)
    ranking = ScoreMap("m", {ParamName("w"): scores}).ranking(ParamName("w"))
    assert ranking.tolist() == [1, 3, 5, 0, 2, 4]


def test_a_mask_counts_its_weights():
    mask = WeightMask("m", {ParamName("a"): np.arange(3), ParamName("b"): np.arange(4)})
    assert mask.size == 7
    assert WeightMask("m", {}).size == 0


def test_located_share():
    assert layer("a", 25, 0.1).located_share == 0.25
    assert layer("a", 0, 0.0, pairs=0).located_share == 0.0


def test_the_layer_with_most_located_pairs_is_best():
    assert best(layer("a", 50, 0.001), layer("b", 90, 0.2), layer("c", 70, 0.01)) == "b"


def test_near_ties_go_by_the_smallest_share():
    assert best(layer("a", 96, 0.001), layer("b", 100, 0.2)) == "a"
    assert best(layer("a", 94, 0.001), layer("b", 100, 0.2)) == "b"


def test_layers_that_located_nothing_are_out():
    assert best(layer("a", 0, 0.0), layer("b", 1, 0.2)) == "b"
    assert best(layer("a", 0, 0.0)) is None
    assert best() is None


@pytest.mark.parametrize("first", ["a", "b"])
def test_equal_layers_go_by_execution_order(first: str):
    order = [first, "b" if first == "a" else "a"]
    assert best(*(layer(name, 10, 0.1) for name in order)) == first
