# SPDX-License-Identifier: Apache-2.0
"""Command line of the architecture corpus: build, check, slice. See `corpus/__init__.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from corpus.command import main

if __name__ == "__main__":
    raise SystemExit(main())
