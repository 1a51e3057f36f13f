# SPDX-License-Identifier: Apache-2.0
"""Any number of images through a graph that takes them one by one, k at a time, or all at once.

Outside, the first axis of every value is the image. Inside a run that need not be so: a transformer
folds images and windows into one axis, a recurrent network has time in front. Such a model runs
under vmap over single images, whose values then get the image as an axis of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lancet_onnx.errors import UnsupportedError
from lancet_onnx.types import ValueName


@dataclass(frozen=True, slots=True)
class Batching:
    """How images are put together for a run.

    Attributes:
        step: images that one run under vmap takes; None runs all at once, without vmap.
        leading: values whose first axis is the image inside a run.
    """

    step: int | None
    leading: frozenset[ValueName]

    def stack(self, name: ValueName, rows: torch.Tensor) -> torch.Tensor:
        """Return rows (one an image) as vmap maps over them: (runs, *what one run sees).

        The last run is filled up with copies of the last row.

        Raises:
            UnsupportedError: the value mixes images of one run.
        """
        if name not in self.leading:
            self._require_single(name)
            return rows
        step = self.step or len(rows)
        missing = -len(rows) % step
        if missing:
            rows = torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])
        return rows.reshape(-1, step, *rows.shape[1:])

    def unstack(self, name: ValueName, runs: torch.Tensor, count: int) -> torch.Tensor:
        """Return the first `count` rows of what vmap gave.

        Raises:
            UnsupportedError: the value mixes images of one run.
        """
        if name in self.leading:
            return runs.flatten(0, 1)[:count]
        self._require_single(name)
        return runs[:count]

    def alone(self, name: ValueName, row: torch.Tensor) -> torch.Tensor:
        """Return one image's row as a run sees it: repeated to the run's size, or as it is."""
        return row.expand(self.step or 1, *row.shape) if name in self.leading else row

    def first(self, name: ValueName, value: torch.Tensor) -> torch.Tensor:
        """Return the row of a run's first image."""
        return value[0] if name in self.leading else value

    def _require_single(self, name: ValueName) -> None:
        if self.step != 1:
            raise UnsupportedError(
                f"'{name}' holds several images in one axis, and the model takes "
                f"{self.step or 'all'} at a time; export it with a batch size of 1"
            )
