# SPDX-License-Identifier: Apache-2.0
"""Which of many errors are looked at: the most frequent confusions, some errors of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lancet_onnx.samples.core import Floats, Ints

GROUPS, EACH = 4, 6
"""Confusions that are looked at, and how many errors of each: more than are shown, since some turn
out to have no companion and location needs several."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Errors to look at, group by group, the most frequent group first.

    Attributes:
        positions: (E,) int64, which of the images.
        group: (E,) int64, how many errors the group of each has in all.
    """

    positions: Ints
    group: Ints

    def __len__(self) -> int:
        return len(self.positions)


def choose(
    true: Ints, read: Ints, surest: Floats, *, groups: int = GROUPS, each: int = EACH
) -> Chosen:
    """Choose among the images that are misread, in groups of one true and one wrong label.

    Args:
        true: (N,) true labels.
        read: (N,) what the model says.
        surest: (N,) how sure the model is of that; of a group the surest errors come first.
        groups: how many groups at most; of groups of one size the lower labels come first.
        each: how many errors of a group at most.
    """
    wrong = np.flatnonzero(true != read)
    pairs, member, count = np.unique(
        np.stack([true[wrong], read[wrong]], 1), axis=0, return_inverse=True, return_counts=True
    )
    taken = [np.zeros(0, np.int64)]
    sizes = [np.zeros(0, np.int64)]
    for group in np.argsort(-count, kind="stable")[: min(groups, len(pairs))]:
        own = wrong[member.reshape(-1) == group]
        own = own[np.argsort(-surest[own], kind="stable")][:each]
        taken.append(own.astype(np.int64))
        sizes.append(np.full(len(own), count[group], np.int64))
    return Chosen(np.concatenate(taken), np.concatenate(sizes))


def in_turn(groups: Sequence[object], most: int) -> list[int]:
    """Return positions of at most `most` members, one of each group in turn, group by group.

    `groups` names the group of each member; members of a group are taken in their order.
    """
    turn: dict[object, int] = {}
    rounds = []
    for group in groups:
        turn[group] = turn.get(group, -1) + 1
        rounds.append(turn[group])
    first = sorted(range(len(groups)), key=lambda at: (rounds[at], at))[:most]
    return sorted(first)
