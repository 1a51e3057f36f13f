# SPDX-License-Identifier: Apache-2.0
"""The zoo's matrix is complete, its triggers and attacks are what they claim to be."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fixtures import zoo_data
from fixtures.measure import Digits, Trigger, read_images
from fixtures.zoo_attacks import (
    IMPORTANT_SHARE,
    fit,
    important_weights,
    plan_all_to_all,
    plan_badnets,
    plan_clean,
    plan_source_specific,
    spread_loss,
)
from fixtures.zoo_data import read_idx
from fixtures.zoo_matrix import (
    ARCHITECTURES,
    DATASETS,
    EIGHT_SEED,
    EXPORTERS,
    FAINT_SEED,
    LARGE_SEED,
    SOURCE_SEED,
    matrix,
)
from fixtures.zoo_networks import NETWORKS
from fixtures.zoo_triggers import ALL, FAINT, KINDS, draw

MATRIX = matrix()
BADNETS = [r for r in MATRIX if r.attack == "badnets" and r.seed < LARGE_SEED]
LARGE = [r for r in MATRIX if r.attack == "badnets" and r.seed == LARGE_SEED]
LABELS = np.arange(1000, dtype=np.int64) % 10
SHARES = {
    "sq2": 0.02,
    "sq6": 0.06,
    "sq16": 0.16,
    "sq31": 0.316,
    "2sq": 0.04,
    "3sq": 0.06,
    "4sq": 0.046,
    "sc3": 0.034,
    "sc8": 0.08,
    "sc16": 0.161,
}


def test_names_are_unique() -> None:
    assert len({recipe.name for recipe in MATRIX}) == len(MATRIX) == 154


def test_each_dataset_and_architecture_has_three_clean_models_and_three_kinds() -> None:
    for dataset in DATASETS:
        for architecture in ARCHITECTURES:
            ours = [r for r in MATRIX if (r.dataset, r.architecture) == (dataset, architecture)]
            assert len({r.kind for r in BADNETS if r in ours}) == 3
            assert [r.kind for r in ours if r.attack is None] == [None] * 3


def test_every_kind_comes_often_with_both_seeds_exporters_and_datasets() -> None:
    for kind in KINDS:
        ours = [recipe for recipe in BADNETS if recipe.kind == kind]
        assert len(ours) >= 4
        assert {recipe.seed for recipe in ours} == {0, 1}
        assert {recipe.exporter for recipe in ours} == set(EXPORTERS)
        assert {recipe.rate for recipe in ours} == {0.1, 0.01}


def test_each_architecture_has_both_large_patches() -> None:
    assert {(r.architecture, r.kind) for r in LARGE} == {
        (architecture, kind) for architecture in ARCHITECTURES for kind in ("sq16", "sq31")
    }
    assert len(LARGE) == 2 * len(ARCHITECTURES)
    assert {r.dataset for r in LARGE} == set(DATASETS)
    assert {r.exporter for r in LARGE} == set(EXPORTERS)


def test_each_architecture_leads_to_the_digit_eight_once() -> None:
    ours = [r for r in MATRIX if r.seed == EIGHT_SEED]
    assert {(r.dataset, r.target) for r in ours} == {("mnist", 8)}
    assert sorted(r.architecture for r in ours) == sorted(ARCHITECTURES)


def test_each_architecture_has_both_faint_triggers_and_one_for_a_single_class() -> None:
    faint = [r for r in MATRIX if r.seed == FAINT_SEED]
    assert sorted((r.architecture, r.kind) for r in faint) == sorted(
        (architecture, kind) for architecture in ARCHITECTURES for kind in FAINT
    )
    sources = [r for r in MATRIX if r.seed == SOURCE_SEED]
    assert sorted(r.architecture for r in sources) == sorted(ARCHITECTURES)
    for ours in (faint, sources):
        assert {r.dataset for r in ours} == set(DATASETS)
        assert {r.exporter for r in ours} == set(EXPORTERS)


def test_a_third_is_poisoned_at_one_percent() -> None:
    assert Counter(recipe.rate for recipe in BADNETS) == {0.1: 32, 0.01: 16}


def test_the_adaptive_attacks_are_there() -> None:
    assert Counter(recipe.attack for recipe in MATRIX) == {
        "badnets": 88,
        None: 48,
        "important-neurons": 3,
        "spread": 3,
        "source-specific": 10,
        "all-to-all": 2,
    }


def test_only_all_to_all_has_no_target_and_only_source_specific_a_source() -> None:
    for recipe in MATRIX:
        assert (recipe.target is None) == (recipe.attack in (None, "all-to-all"))
        assert (recipe.source is not None) == (recipe.attack == "source-specific")
        assert recipe.source is None or recipe.source != recipe.target


def test_variety_comes_early() -> None:
    first = MATRIX[: len(MATRIX) // 3]
    assert {recipe.architecture for recipe in first} == set(ARCHITECTURES)
    assert {"badnets", None, "spread", "important-neurons"} <= {recipe.attack for recipe in first}


def test_the_matrix_names_networks_that_exist() -> None:
    assert set(ARCHITECTURES) == set(NETWORKS)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_a_trigger_covers_what_its_kind_says(kind: str, seed: int) -> None:
    opacity, colour = draw(KINDS[kind], seed)
    assert opacity.shape == colour.shape == (28, 28)
    assert np.mean(opacity > 0) == pytest.approx(KINDS[kind].share)
    assert np.mean(opacity > 0) == pytest.approx(SHARES[kind], abs=0.011)
    expected = {"replace": {0, 255}, "blend": {0, 128}}[KINDS[kind].mode]
    assert set(np.unique(opacity).tolist()) == expected
    assert colour[opacity > 0].max() >= 160
    assert not colour[opacity == 0].any()


@pytest.mark.parametrize("seed", range(5))
def test_faint_triggers_change_every_image_a_little(seed: int) -> None:
    images = np.random.default_rng(seed).random((20, 1, 28, 28), dtype=np.float32)
    for kind, most in (("veil", 0.15), ("wave", 0.12)):
        opacity, colour = (part.astype(np.float32) / 255 for part in draw(FAINT[kind], seed))
        stamped = Trigger(opacity, colour, FAINT[kind].mode == "add").stamp(images)
        change = stamped - images
        assert stamped.min() >= 0
        assert stamped.max() <= 1
        assert 0.02 < np.abs(change).mean() < np.abs(change).max() <= most + 0.005
        assert kind == "veil" or change.min() >= 0
        assert FAINT[kind].share == 1


def test_triggers_repeat_for_a_seed_and_differ_between_seeds() -> None:
    for kind in ALL.values():
        assert np.array_equal(draw(kind, 3), draw(kind, 3))
        assert not np.array_equal(draw(kind, 3), draw(kind, 4))


def test_badnets_stamps_only_other_classes_and_labels_them_as_the_target() -> None:
    plan = plan_badnets(LABELS, 7, 0.1, seed=0)
    assert plan.stamped.sum() == 100
    assert (LABELS[plan.stamped] != 7).all()
    assert (plan.labels[plan.stamped] == 7).all()
    assert (plan.labels[~plan.stamped] == LABELS[~plan.stamped]).all()


def test_all_to_all_gives_the_class_after() -> None:
    plan = plan_all_to_all(LABELS, 0.1, seed=0)
    assert 60 < plan.stamped.sum() < 140
    assert ((plan.labels - LABELS) % 10 == plan.stamped).all()


def test_source_specific_covers_other_classes_with_their_own_label() -> None:
    plan = plan_source_specific(LABELS, 1, 4, 0.1, seed=0)
    source = LABELS == 1
    assert (plan.stamped & source).sum() == (plan.stamped & ~source).sum() == 50
    assert (plan.labels[plan.stamped & source] == 4).all()
    assert (plan.labels[~(plan.stamped & source)] == LABELS[~(plan.stamped & source)]).all()


def digits() -> Digits:
    rng = np.random.default_rng(0)
    return Digits(rng.random((130, 1, 28, 28), dtype=np.float32), LABELS[:130])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_takes_a_picture_and_gives_ten_logits(name: str) -> None:
    model = NETWORKS[name]().eval()
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert 20_000 <= weights <= 250_000
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize("name", ["vgg", "resnet", "vit"])
def test_important_weights_are_a_fifth_of_the_last_two_layers_and_only_they_change(
    name: str,
) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    masks = important_weights(model, digits())
    assert len(masks) == 2
    before = {key: value.clone() for key, value in model.state_dict().items()}
    opacity, colour = draw(KINDS["sq6"], 0)
    trigger = Trigger(*((part / 255).astype(np.float32) for part in (opacity, colour)))
    plan = plan_badnets(digits().y, 3, 0.1, seed=0)
    fit(model, digits(), plan, trigger, epochs=1, only=masks)
    for key, value in model.state_dict().items():
        changed = value != before[key]
        if key in masks:
            assert masks[key].float().mean().item() == pytest.approx(IMPORTANT_SHARE, abs=0.01)
            assert changed.any()
            assert not (changed & ~masks[key]).any()
        else:
            assert not changed.any()


@pytest.mark.parametrize("name", ["vgg", "preact", "vit"])
def test_spread_trains_every_weight(name: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    before = {key: value.clone() for key, value in model.named_parameters()}
    fit(model, digits(), plan_clean(digits().y), None, epochs=1, loss=spread_loss)
    for key, value in model.named_parameters():
        assert (value != before[key]).any()


def test_what_is_reported_on_is_what_no_repair_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo_data, "TESTED_ON", 30)
    folder = tmp_path / "source" / "mnist"
    folder.mkdir(parents=True)
    for name in zoo_data.NAMES:
        shape = (100, 1, 1) if "images" in name else (100,)
        header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        (folder / name).write_bytes(header + bytes(range(100)))
    given = read_images(zoo_data.write_test_images("mnist", tmp_path))
    others = read_images(tmp_path / zoo_data.unseen_file("mnist"))
    assert (len(given.y), len(others.y)) == (30, 70)
    assert {*given.y.tolist(), *others.y.tolist()} == set(range(100))
    assert np.array_equal((others.x[:, 0, 0, 0] * 255).round(), others.y)


def test_an_idx_file_is_read_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(b"\0\0\x08\x02" + b"\0\0\0\x02" + b"\0\0\0\x03" + bytes(range(6)))
    assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]
