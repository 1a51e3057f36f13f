# SPDX-License-Identifier: Apache-2.0
"""Images in two halves, as a repair of the model split them: figures are of what it did not see."""

from __future__ import annotations

from dataclasses import dataclass

from lancet_onnx.api.describing import data_digest
from lancet_onnx.api.subject import Prepared
from lancet_onnx.model import OnnxModel
from lancet_onnx.model.write import notes, read_note
from lancet_onnx.samples import Samples, Split


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """Images, whole and halved.

    Attributes:
        whole: all of them.
        split: the half that a repair saw or a tool may look at, and the one for figures.
        seeds: by which repairs of the model split these very images, as its file notes.
    """

    whole: Samples
    split: Split
    seeds: tuple[int, ...]

    def measured(self, *, finding: bool) -> Samples:
        """Return the images to measure on: those that the repair did not see, if it is known.

        With `finding` the others are kept aside even so, to find a trigger's class on.
        """
        return self.split.figures if self.seeds or finding else self.whole

    def used(self, *, finding: bool) -> str:
        """Return in words which images are measured on."""
        if len(set(self.seeds)) > 1:
            return "the half that the last repair did not see; an earlier one saw some of it"
        if self.seeds:
            return "the half that the repair did not see"
        unknown = "whether the repair saw some of them is not known"
        if finding:
            return f"one half, while the other found the target; {unknown} (--target uses all)"
        return f"all images; {unknown}"


def halved(model: OnnxModel, prepared: Prepared, seed: int) -> Halves:
    """Split the images as the last repair of `model` did, or by `seed` if none is noted."""
    said = [read_note(note) for note in notes(model.graph.metadata)]
    digest = data_digest(prepared.samples) if said else ""
    noted = [each.get("seed") for each in said if each.get("data") == digest]
    seeds = tuple(number for number in noted if isinstance(number, int))
    split = Split.of(prepared.samples, seeds[-1] if seeds else seed)
    return Halves(prepared.samples, split, seeds)
