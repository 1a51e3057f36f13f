# SPDX-License-Identifier: Apache-2.0
"""Which pairs of classes are searched, and what is kept of them; the search itself is given."""

import torch

from lancet_onnx.pairs import sources as module
from lancet_onnx.pairs.reconstruct import Found
from lancet_onnx.pairs.sources import LOOK, SEARCH, Sourced, hunt_sources

CLASSES = range(5)


class Told:
    """A search whose costs are known; it notes what it was asked for."""

    def __init__(self, costs: dict[tuple[int, int], float], ends_after: int | None = None):
        self.costs, self.ends_after = costs, ends_after
        self.asked: list[tuple[int, tuple[int, ...], int, int]] = []
        self.shares: list[float] = []

    def __call__(self, source, wanted, steps, batch, share) -> Found | None:
        if len(self.asked) == self.ends_after:
            return None
        self.asked.append((source, tuple(wanted), steps, batch))
        self.shares.append(share)
        costs = torch.tensor([self.costs.get((source, target), 1.0) for target in wanted])
        marks = torch.full((len(costs), 1, 1, 1), float(source))
        return Found(torch.tensor(wanted), costs, costs, costs, marks, marks)


def hunted(search: Told) -> Sourced:
    found = hunt_sources(CLASSES, CLASSES, search)
    assert found is not None
    return found


def test_all_pairs_get_a_short_look_and_the_cheapest_the_full_search(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    search = Told({(1, 4): 0.1, (1, 0): 0.2, (3, 2): 0.3, (2, 4): 0.4})
    found = hunted(search)
    pairs = [(s, t) for s in CLASSES for t in CLASSES if s != t]
    looked, full = search.asked[: len(CLASSES)], search.asked[len(CLASSES) :]
    assert [(s, t) for s, wanted, *_ in looked for t in wanted] == pairs
    assert {each[2:] for each in looked} == {LOOK}
    assert full == [(1, (0, 4), *SEARCH), (3, (2,), *SEARCH)]
    assert found.sources == {4: 1, 0: 1, 2: 3}
    assert search.shares == sorted(search.shares)
    assert 0 <= search.shares[0] <= search.shares[-1] < 1


def test_of_two_sources_of_one_target_the_cheaper_one_is_kept(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 2)
    found = hunted(Told({(0, 4): 0.2, (3, 4): 0.1}))
    assert found.sources == {4: 3}
    assert found.found.classes.tolist() == [4]
    assert float(found.found.mask) == 3, "the trigger is that source's"


def test_time_that_is_up_leaves_nothing_half_said():
    for ends_after in (0, len(CLASSES) - 1, len(CLASSES), len(CLASSES) + 1):
        assert hunt_sources(CLASSES, CLASSES, Told({}, ends_after)) is None
