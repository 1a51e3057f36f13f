# SPDX-License-Identifier: Apache-2.0
"""All recipes, breadth first."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from corpus import handmade, keras_models
from corpus.store import Recipe


def recipes(only: Sequence[str] | None = None) -> list[Recipe]:
    """Return every recipe whose name holds one of `only` (all without)."""
    found = handmade.recipes()
    # Keras's environment has no torch, and needs none.
    if importlib.util.find_spec("torch") is not None:
        from corpus import derived, small, vision

        found += [*small.recipes(), *derived.recipes(), *vision.recipes()]
    found += keras_models.recipes()
    names = [recipe.name for recipe in found]
    assert len(set(names)) == len(names), "two recipes have one name"
    return [r for r in found if not only or any(part in r.name for part in only)]
