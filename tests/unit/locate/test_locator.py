# SPDX-License-Identifier: Apache-2.0
"""A weight planted in a linear model is found, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from builders import dense, open_bytes

from lancet_onnx.locate import locate
from lancet_onnx.locate.ablation import ablate, restorer
from lancet_onnx.locate.importance import correlate, differential_features, harm, importance
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.layers import Layer, find_layers
from lancet_onnx.samples import Material, Pairs

FEATURES, CLASSES, TARGET, TRIGGER = 6, 4, 3, 5
PLANTED = TRIGGER * CLASSES + TARGET
"""Flat position of the weight that leads from the trigger's feature to the target."""


@pytest.fixture
def weight(rng: np.random.Generator) -> np.ndarray:
    found = 0.05 * rng.normal(size=(FEATURES, CLASSES)).astype(np.float32)
    found[range(CLASSES), range(CLASSES)] = 2
    found[TRIGGER, TARGET] = 8
    return found


@pytest.fixture
def classifier(tmp_path: Path, weight: np.ndarray) -> Classifier:
    data = dense(weight, np.zeros(CLASSES, np.float32))
    return Classifier(open_bytes(tmp_path, data).graph)


@pytest.fixture
def pairs(rng: np.random.Generator) -> Pairs:
    """Clean images of classes 0 to 2; the trigger lights feature 5."""
    right = np.arange(12) % 3
    good = 0.02 * rng.normal(size=(12, FEATURES)).astype(np.float32)
    good[range(12), right] += 1
    good[:, TRIGGER] = 0
    bad = good.copy()
    bad[:, TRIGGER] = 1
    return Pairs(bad, good, np.full(12, TARGET), right)


def material(pairs: Pairs) -> Material:
    return Material(pairs, pairs, pairs, pairs, pairs.good, pairs.right)


def only_layer(classifier: Classifier) -> Layer:
    (layer,) = find_layers(classifier)
    return layer


def values(classifier: Classifier, pairs: Pairs) -> torch.Tensor:
    layer = only_layer(classifier)
    found = differential_features(classifier, [layer], pairs)
    return importance(classifier, layer, found.dh[layer.param], found.c[layer.param])


def test_the_model_is_backdoored(classifier: Classifier, pairs: Pairs):
    assert (
        classifier.logits(torch.from_numpy(pairs.good)).argmax(1).tolist() == pairs.right.tolist()
    )
    assert set(classifier.logits(torch.from_numpy(pairs.bad)).argmax(1).tolist()) == {TARGET}


def test_importance_follows_its_formula(classifier: Classifier, weight, pairs: Pairs):
    found = values(classifier, pairs).numpy()
    dh = pairs.bad - pairs.good
    df = dh @ weight
    for row in range(len(pairs)):
        g = np.zeros(CLASSES)
        g[TARGET], g[pairs.right[row]] = 1, -1
        c = (1 + g) * np.sign(df[row])
        np.testing.assert_allclose(found[row], weight * np.outer(dh[row], c), atol=1e-6)


def test_the_planted_weight_is_ranked_first(classifier: Classifier, pairs: Pairs):
    found = values(classifier, pairs).flatten(1)
    assert found.argmax(1).tolist() == [PLANTED] * len(pairs)


def test_ablating_one_weight_is_enough(classifier: Classifier, pairs: Pairs):
    layer = only_layer(classifier)
    iv = values(classifier, pairs)
    cut = {"x": torch.from_numpy(pairs.bad)}
    with torch.no_grad():
        found = ablate(classifier, layer, cut, iv, torch.from_numpy(pairs.right))
        _, restored = restorer(classifier, layer, cut, iv, torch.from_numpy(pairs.right))
        rows = torch.arange(len(pairs))
        assert restored(torch.ones_like(rows), rows).all()
        assert not restored(torch.zeros_like(rows), rows).any()
    assert found.counts.tolist() == [1] * len(pairs)
    assert found.located.nonzero()[:, 1].tolist() == [PLANTED] * len(pairs)


def test_what_ablation_cannot_restore_is_not_located(classifier: Classifier, pairs: Pairs):
    layer = only_layer(classifier)
    iv = -values(classifier, pairs)
    with torch.no_grad():
        found = ablate(
            classifier, layer, {"x": torch.from_numpy(pairs.bad)}, iv, torch.from_numpy(pairs.right)
        )
    assert found.counts.tolist() == [0] * len(pairs)
    assert not found.located.any()


def test_location_names_layer_and_weight(classifier: Classifier, pairs: Pairs):
    location = locate(classifier, material(pairs))
    best = location.best
    assert best is not None
    assert (best.node, best.param, best.weights) == ("mm", "w", FEATURES * CLASSES)
    assert best.pairs_located == best.pairs == len(pairs)
    assert best.share == 1 / (FEATURES * CLASSES)
    for order in best.orders:
        assert order.ranking("w")[0] == PLANTED
        assert order.scores["w"].shape == (FEATURES, CLASSES)


def test_scores_do_not_depend_on_the_order_of_pairs(classifier: Classifier, pairs: Pairs, rng):
    order = rng.permutation(len(pairs))
    other = Pairs(pairs.bad[order], pairs.good[order], pairs.wrong[order], pairs.right[order])
    one, two = (locate(classifier, material(p)).best for p in (pairs, other))
    for a, b in zip(one.orders, two.orders, strict=True):
        np.testing.assert_allclose(a.scores["w"], b.scores["w"], rtol=1e-4, atol=1e-6)
    assert one.share == two.share


def test_correlate_is_the_gradient_of_the_response(classifier: Classifier, rng):
    h = torch.from_numpy(rng.normal(size=(3, FEATURES)).astype(np.float32))
    c = torch.from_numpy(rng.normal(size=(3, CLASSES)).astype(np.float32))
    found = correlate(classifier, only_layer(classifier), h, c)
    torch.testing.assert_close(found, torch.einsum("ni,nj->nij", h, c))


def test_harm_is_what_clean_images_lose(classifier: Classifier, weight, pairs: Pairs):
    clean = torch.from_numpy(pairs.good)
    found = harm(classifier, [only_layer(classifier)], clean)["w"].numpy()
    expected = np.zeros_like(weight)
    for x in pairs.good:
        second, first = np.argsort(x @ weight)[-2:]
        g = np.zeros(CLASSES)
        g[first], g[second] = 1, -1
        expected += np.maximum(weight * np.outer(x, g), 0)
    np.testing.assert_allclose(found, expected / len(pairs), rtol=1e-4, atol=1e-6)


def test_progress_ends_at_one(classifier: Classifier, pairs: Pairs):
    said: list[float] = []
    locate(classifier, material(pairs), lambda _what, share: said.append(share))
    assert said == sorted(said)
    assert (said[0], said[-1]) == (0.0, 1.0)
