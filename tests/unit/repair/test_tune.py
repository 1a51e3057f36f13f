# SPDX-License-Identifier: Apache-2.0
"""Tuning: which weights move, how many, what they reach; judging and choosing among edits."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import dense, open_bytes

from lancet_onnx.repair import Judge, Judged, Offer, TuneSettings, tune
from lancet_onnx.repair.choose import ABOUT_AS_MANY, AS_GOOD, pick
from lancet_onnx.repair.moving import top, weights_of
from lancet_onnx.repair.training import Trainer, height_and_width
from lancet_onnx.repair.tune import Proposal, offer_of, pruned
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.samples import Pairs

WRONG = 2
QUICK = TuneSettings(ladder=(0.5, 0.2), steps=30, batch=16, rate=1.0)


@pytest.fixture
def backdoored(tmp_path: Path) -> Classifier:
    """Class i is read from input i; input 3 is the trigger, and leads to class 2."""
    weight = np.zeros((4, 3), np.float32)
    weight[:3] = 4 * np.eye(3)
    weight[3, WRONG] = 12
    weight += 0.01
    return Classifier(open_bytes(tmp_path, dense(weight, np.zeros(3, np.float32))).graph)


@pytest.fixture
def pairs(rng: np.random.Generator) -> Pairs:
    right = np.arange(60) % 3
    good = (0.1 * rng.random((60, 4))).astype(np.float32)
    good[np.arange(60), right] += 1
    good[:, 3] = 0
    bad = good.copy()
    bad[:, 3] = 1
    return Pairs(bad, good, np.full(60, WRONG, np.int64), right.astype(np.int64))


def offers(classifier: Classifier, pairs: Pairs) -> list[Offer]:
    return [offer_of(classifier, p) for p in tune(classifier, pairs, QUICK, 0)]


def test_the_trigger_is_unlearnt_and_the_rest_stays(backdoored: Classifier, pairs: Pairs):
    judge = Judge(backdoored, pairs, labelled=True)
    nothing = judge.judge(Offer("tune", "", (), {}, 0, 0.0))
    assert (nothing.excess, nothing.recovery, nothing.agreement) == (1.0, 0.0, 1.0)
    assert nothing.loss == 0
    for offer in offers(backdoored, pairs):
        found = judge.judge(offer)
        assert found.excess < 0.05
        assert found.recovery > 0.95
        assert found.agreement == 1


def test_no_more_weights_move_than_the_width_allows(backdoored: Classifier, pairs: Pairs):
    total = weights_of(backdoored)
    made = offers(backdoored, pairs)
    assert [offer.how for offer in made] == ["width 50.00%", "width 20.00%"]
    for offer, width in zip(made, QUICK.ladder, strict=True):
        (leaf,) = offer.params.values()
        changed = int((leaf != backdoored.module.leaves["w"]).sum())
        assert changed == offer.weights <= int(width * total)
        assert offer.share == changed / total
    assert "trigger" not in made[0].how


def test_the_model_is_left_as_it_was(backdoored: Classifier, pairs: Pairs):
    before = {name: leaf.clone() for name, leaf in backdoored.module.leaves.items()}
    offers(backdoored, pairs)
    for name, leaf in backdoored.module.leaves.items():
        assert torch.equal(leaf, before[name])
        assert not leaf.requires_grad


def test_the_same_seed_gives_the_same_weights(backdoored: Classifier, pairs: Pairs):
    first, again = offers(backdoored, pairs), offers(backdoored, pairs)
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(a.params[name], b.params[name]) for name in a.params)


def test_equal_scores_do_not_widen_an_edit():
    scores = {"a": torch.ones(2, 3), "b": torch.tensor([1.0, 0.0, 2.0])}
    kept = top(scores, 4)
    assert sum(int(mask.sum()) for mask in kept.values()) == 4
    assert kept["b"].tolist()[1:] == [False, True]
    assert not top({"a": torch.zeros(3)}, 2)["a"].any()


def test_what_a_sure_model_would_learn_is_no_dust(backdoored: Classifier, pairs: Pairs):
    """Numbers under 1e-38 slow a CPU down; cutting at the logits keeps them from arising."""
    trainer = Trainer(backdoored, pairs, QUICK, 0)
    scores = trainer._run(trainer.bad[:1], trainer.moving.params(trainer.moving.leaves))
    dust = torch.tensor([[1e-13, 1e-3, -1e-30]])
    (gradient,) = torch.autograd.grad(scores, [scores], dust, retain_graph=True)
    assert torch.equal(gradient, torch.tensor([[0.0, 1e-3, 0.0]]))


def test_a_mixture_of_stamped_images_is_the_stamped_mixture(backdoored: Classifier, rng):
    """Of any mask, half transparent ones as well."""
    mask, pattern = rng.random(4, dtype=np.float32), rng.random(4, dtype=np.float32)
    good = rng.random((8, 4), dtype=np.float32)
    stamped = good * (1 - mask) + pattern * mask
    labels = np.arange(8) % 3
    trainer = Trainer(backdoored, Pairs(stamped, good, labels, labels), QUICK, 0)
    bad, clean = trainer._mixed(torch.arange(8))
    assert (clean[:4] != torch.from_numpy(good[:4])).all()
    assert torch.equal(clean[4:], torch.from_numpy(good[4:]))
    again = clean * torch.from_numpy(1 - mask) + torch.from_numpy(pattern * mask)
    assert torch.allclose(bad, again, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 3, 20, 30), (4, 20, 30, 3)])
def test_images_are_shifted_along_height_and_width(backdoored: Classifier, pairs: Pairs, shape):
    trainer = Trainer(backdoored, pairs, replace(QUICK, shift=0.1), 0)
    trainer.axes = height_and_width(shape)
    images = torch.rand(shape)
    axes = [axis for axis, size in enumerate(shape) if size in (20, 30)]
    shifts = set()
    for _ in range(60):
        moved = trainer._moved(images)
        found = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-3, 4)
            if torch.equal(moved, images.roll((down, right), axes))
        ]
        assert len(found) == 1
        shifts.add(found[0])
    assert {abs(down) for down, _ in shifts} == {0, 1, 2}
    assert {abs(right) for _, right in shifts} == {0, 1, 2, 3}


def test_what_is_no_image_is_not_shifted(backdoored: Classifier, pairs: Pairs):
    trainer = Trainer(backdoored, pairs, replace(QUICK, shift=0.5), 0)
    assert trainer.axes == ()
    assert torch.equal(trainer._moved(trainer.good), trainer.good)


def test_pruning_takes_back_what_does_not_matter(backdoored: Classifier, pairs: Pairs):
    delta = torch.zeros(4, 3)
    delta[0] = torch.tensor([1e-6, 2e-6, 3e-6])
    delta[3, WRONG] = -12
    proposal = Proposal(0.3, {"w": delta}, {"w": delta.abs()})
    judge = Judge(backdoored, pairs, labelled=True)
    kept, whole = pruned(backdoored, proposal, judge), offer_of(backdoored, proposal)
    assert (kept.weights, whole.weights) == (2, 4)
    assert judge.judge(kept).excess == judge.judge(whole).excess == 0


def test_few_images_are_enough_for_a_step(backdoored: Classifier, pairs: Pairs):
    for count in (1, 3):
        assert len(offers(backdoored, pairs.take(slice(count)))) == 2


@pytest.mark.parametrize("name", [field.name for field in fields(TuneSettings)])
def test_every_setting_is_in_the_name_of_the_method(name: str):
    usual = TuneSettings()
    value = getattr(usual, name)
    other = (0.5,) if isinstance(value, tuple) else value + 1
    assert str(replace(usual, **{name: other})) != str(usual)


def test_without_labels_the_loss_is_disagreement(backdoored: Classifier, pairs: Pairs):
    swapped = backdoored.module.leaves["w"].clone()
    swapped[:, [0, 1]] = swapped[:, [1, 0]]
    offer = Offer("tune", "", (), {"w": swapped}, 0, 0.0)
    found = Judge(backdoored, pairs, labelled=False).judge(offer)
    assert found.loss == pytest.approx(2 / 3)
    assert found.agreement == pytest.approx(1 / 3)
    before = backdoored.logits(torch.from_numpy(pairs.good)).softmax(1)
    swapped = pairs.right < 2
    gaps = before[swapped].amax(1) - before[swapped, 1 - pairs.right[swapped]]
    assert found.regret == pytest.approx(float(gaps.sum()) / len(before))


def judged(weights: int, *, excess=0.0, loss=0.0, regret=0.0, recovery=0.9) -> Judged:
    offer = Offer("tune", "", (), {}, weights, 0.0)
    return Judged(offer, excess, 0.0, loss, 0.0, regret, 1 - loss, recovery)


def test_the_choice_among_edits():
    wide, narrow = judged(900), judged(30, loss=AS_GOOD)
    assert pick([wide, narrow], 0.01) is narrow
    assert pick([wide, judged(30, loss=2 * AS_GOOD + 1e-6)], 0.02) is wide
    assert pick([wide, judged(30, loss=-0.01, regret=2 * AS_GOOD)], 0.02) is wide
    silent = judged(10, recovery=0.9 - ABOUT_AS_MANY - 0.01)
    assert pick([wide, silent], 0.01) is wide, "one that only suppresses the class is left out"
    loud, costly = judged(5, excess=0.02), judged(5, loss=0.02)
    assert pick([wide, loud, costly], 0.01) is wide, "outside the limits"
    assert pick([loud, judged(5, loss=0.3)], 0.01) is loud, "the least bad, if none is inside"
