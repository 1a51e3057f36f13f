# SPDX-License-Identifier: Apache-2.0
"""Where files lie in a checkout: code hosts know paths from its root, with forward slashes."""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from pathlib import PurePath


@dataclass(frozen=True, slots=True)
class Checkout:
    """A checkout and the folder in which the command ran; both absolute."""

    root: PurePath
    here: PurePath

    def place(self, path: str) -> str:
        """Return the path from the root; of a file outside of it, the path as it was given."""
        whole = PurePath(os.path.normpath(self.here / path))
        inside = whole.is_relative_to(self.root)
        return (whole.relative_to(self.root) if inside else PurePath(path)).as_posix()


def placed_in(checkout: Checkout | None, path: str) -> str:
    """Return the path as the checkout has it, if there is one."""
    return checkout.place(path) if checkout else PurePath(path).as_posix()
