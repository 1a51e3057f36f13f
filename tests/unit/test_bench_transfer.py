# SPDX-License-Identifier: Apache-2.0
"""What a repair must learn from: the bench that measures it."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lancet_onnx.api.blind import PUSHES, TUNING  # noqa: E402
from lancet_onnx.pairs.union import KINDS, LESSONS  # noqa: E402
from tests.bench import transfer  # noqa: E402
from tests.bench.compare_runs import Case  # noqa: E402
from tests.bench.transfer import CHEAP, VARIANTS, Variant, compared  # noqa: E402

SQUARE = "mnist_cnn_square"


def test_every_variant_is_another_and_the_repairs_own_is_among_them():
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    assert len({(variant.kinds, variant.settings) for variant in VARIANTS}) == len(VARIANTS)
    assert (LESSONS, replace(TUNING, push=PUSHES[0])) in {(v.kinds, v.settings) for v in VARIANTS}
    assert set(CHEAP) < set(LESSONS) < set(KINDS)


@pytest.mark.parametrize("labelled", [True, False])
def test_what_is_left_is_over_the_base_rate_and_of_other_classes(labelled: bool):
    true = np.array([0, 0, 0, 0, 7])
    before = (np.array([0, 0, 0, 7, 7]), np.array([7, 7, 7, 7, 7]))
    after = (np.array([0, 0, 1, 7, 7]), np.array([0, 7, 7, 7, 7]))
    left, change = compared(before, after, true if labelled else None, 7)
    # With labels four images are not of class 7; without, the model's own say three.
    assert left == pytest.approx(50.0 if labelled else 100 * 2 / 3)
    assert change == pytest.approx(-20.0)


def test_a_model_gets_a_figure_for_each_variant(fixtures, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lancet_onnx.pairs.union.STEPS", 40)
    monkeypatch.setattr("lancet_onnx.pairs.union.BATCH", 12)
    monkeypatch.setattr(transfer, "STARTS", 1)
    short = replace(TUNING, push=PUSHES[0], ladder=(0.1,), steps=30)
    monkeypatch.setattr(transfer, "VARIANTS", (Variant("short", LESSONS, short),))
    entry = fixtures.manifest[SQUARE]
    case = Case(ROOT, {**entry, "model": entry["path"], "data": entry["images"]})
    ((left, change),) = transfer.measured(case)
    assert left < 20  # of 98 before
    assert change > -3
