# SPDX-License-Identifier: Apache-2.0
"""How far searches that began apart come to the same trigger.

A planted trigger, a large one above all, is one thing in one place, and searches of different forms
end there. A class of a clean model can be reached in many ways, and each search finds its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from lancet_onnx.pairs.reconstruct import Found


def agreement(
    ones: Sequence[Found], others: Sequence[Found], grey: torch.Tensor
) -> dict[int, float]:
    """Return for each class the mean cosine between what triggers of two forms change.

    Args:
        ones: searches of one form, all of the same classes.
        others: searches of another form, of the same classes.
        grey: (C, 1, 1) an average pixel; a trigger changes it by mask * (pattern - grey).
    """
    left, right = (torch.stack([_change(found, grey) for found in each]) for each in (ones, others))
    alike = torch.einsum("acd,bcd->c", left, right) / (len(ones) * len(others))
    return dict(zip(ones[0].classes.tolist(), alike.tolist(), strict=True))


def _change(found: Found, grey: torch.Tensor) -> torch.Tensor:
    change = (found.mask * (found.pattern - grey.to(found.mask.device))).flatten(1)
    return functional.normalize(change, dim=1)
