# SPDX-License-Identifier: Apache-2.0
"""The bench of companions."""

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench import companions as bench  # noqa: E402
from tests.bench.compare_runs import read_cases  # noqa: E402

CASES = ROOT.parent / "shared" / "cases"


def test_pieces_are_counted():
    masks = torch.zeros(2, 1, 8, 8)
    masks[0, 0, :2, :2] = 1.0
    masks[0, 0, 2, 2] = 1.0  # touches at a corner
    masks[1, 0, 0, :] = 1.0
    masks[1, 0, 4, 4] = masks[1, 0, 7, 7] = 1.0
    assert bench.patches(masks) == 2.0


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared")
def test_a_row_and_a_sheet_of_a_model():
    (case,) = read_cases([CASES], ["cifar10_resnet20_clean"])
    result = bench.measured(case, 4)
    cells = bench.row(result)
    assert cells[:2] == ["cifar10_resnet20_clean", f"4 of {result.errors}"]
    picture = bench.sheet(result)
    assert picture.width == bench.COLUMNS * (3 * 32 * bench.ZOOM + bench.GAP)
