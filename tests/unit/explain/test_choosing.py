# SPDX-License-Identifier: Apache-2.0
"""Which errors are looked at: frequent confusions first, the surest errors of each."""

import numpy as np
import pytest

from lancet_onnx.explain import choose, in_turn

TRUE = np.array([0, 0, 1, 1, 1, 2, 2, 0, 2], np.int64)
READ = np.array([0, 2, 0, 0, 0, 2, 1, 2, 0], np.int64)
SURE = np.array([0.9, 0.6, 0.5, 0.9, 0.7, 0.9, 0.8, 0.7, 0.4], np.float32)


def test_the_most_frequent_confusion_comes_first_and_of_it_the_surest_errors():
    chosen = choose(TRUE, READ, SURE, groups=2, each=2)
    assert chosen.positions.tolist() == [3, 4, 7, 1]
    assert chosen.group.tolist() == [3, 3, 2, 2]
    assert len(chosen) == 4


def test_all_errors_are_chosen_where_there_is_room_and_nothing_else():
    chosen = choose(TRUE, READ, SURE)
    assert sorted(chosen.positions.tolist()) == np.flatnonzero(TRUE != READ).tolist()
    assert chosen.group.tolist() == [3, 3, 3, 2, 2, 1, 1]


def test_without_errors_nothing_is_chosen():
    chosen = choose(TRUE, TRUE, SURE)
    assert chosen.positions.dtype == chosen.group.dtype == np.int64
    assert len(chosen) == 0


@pytest.mark.parametrize(
    ("most", "expected"),
    [(0, []), (1, [0]), (2, [0, 3]), (3, [0, 3, 4]), (4, [0, 1, 3, 4]), (9, [0, 1, 2, 3, 4])],
)
def test_groups_are_served_in_turn_and_shown_together(most: int, expected: list[int]):
    assert in_turn(["a", "a", "a", "b", "c"], most) == expected
