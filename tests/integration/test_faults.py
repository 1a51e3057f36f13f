# SPDX-License-Identifier: Apache-2.0
"""Killed, out of space, a broken disk, a short write: at every system call of every write."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "faults.py"
SCENARIOS = {
    "apply": 200,
    "apply --force": 200,
    "apply external": 400,
    "apply past the cache": 300,
    "revert": 200,
    "diff": 200,
    "compose": 150,
    "repair": 200,
}
"""Each write and how many points of it must have been tried."""


@pytest.mark.skipif(sys.platform != "linux", reason="faults are injected by Linux's ptrace")
@pytest.mark.parametrize("name", SCENARIOS)
def test_either_the_complete_new_files_are_there_or_none(name: str):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--only", name], capture_output=True, text=True, check=False
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("ptrace is not permitted here")
    assert done.stderr == ""
    found = re.search(r"(\d+) injection points, (\d+) wrong", done.stdout)
    assert found, done.stdout
    assert found[2] == "0", done.stdout
    assert int(found[1]) >= SCENARIOS[name], done.stdout
    assert done.returncode == 0
