# SPDX-License-Identifier: Apache-2.0
"""What fuzzing found once is found again."""

import fuzz
import pytest


def test_no_seed_ends_in_anything_but_a_model_or_a_refusal(capsys: pytest.CaptureFixture[str]):
    assert fuzz.replay() == 0
    told = capsys.readouterr().out
    assert "refused" in told
    assert "read" in told
