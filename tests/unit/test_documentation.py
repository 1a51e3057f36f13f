# SPDX-License-Identifier: Apache-2.0
"""Pages that speak of the code say what the code says."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

from lancet_onnx.ops import activations

ROOT = Path(__file__).parents[2]


def test_the_page_of_operators_is_the_table():
    command = [sys.executable, str(ROOT / "docs" / "operators.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run python docs/operators.py"


def test_the_example_of_contributing_is_the_code():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    assert block.strip() == inspect.getsource(activations.celu).strip()
