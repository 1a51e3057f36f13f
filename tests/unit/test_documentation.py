# SPDX-License-Identifier: Apache-2.0
"""Pages that speak of the code say what the code says."""

import hashlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from lancet_onnx.ops import activations
from lancet_onnx.patch import opened_patch
from lancet_onnx.rules import RULES

ROOT = Path(__file__).parents[2]


def test_the_page_of_operators_is_the_table():
    command = [sys.executable, str(ROOT / "docs" / "operators.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run python docs/operators.py"


def test_the_example_of_contributing_is_the_code():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    assert block.strip() == inspect.getsource(activations.celu).strip()


def test_every_rule_has_its_page_and_every_page_its_rule():
    page = (ROOT / "docs" / "rules.md").read_text()
    told = re.findall(r"^## (LNC\d{3}): (.+)\n\n\*\*Severity\*\* (\w+)\.", page, re.M)
    assert told == [(rule.id, rule.title, rule.severity) for rule in RULES.values()]
    parts = page.split("\n## ")[1:]
    assert all("**What to do**" in part for part in parts)
    # A gate's JSON links to these, whatever a renderer makes of headings.
    assert re.findall(r'^<a id="(lnc\d{3})"></a>\n\n## \1', page.replace("LNC", "lnc"), re.M) == [
        rule.lower() for rule in RULES
    ]


def test_the_pages_of_the_policy_are_the_table():
    command = [sys.executable, str(ROOT / "docs" / "policy.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run python docs/policy.py"


def test_the_digests_of_the_patch_format_are_those_in_a_patch():
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "patch-format.md").read_text(), re.S
    )
    page: dict[str, Any] = {}
    exec(code, page)  # noqa: S102 - our own page
    golden = ROOT / "fixtures" / "patches" / "v1" / "external"
    files = [
        f"{page['of_data_file'](golden / 'base' / n)} {n}" for n in ("first.bin", "second.bin")
    ]
    onnx = hashlib.sha256((golden / "base" / "model.onnx").read_bytes()).hexdigest()
    whole = hashlib.sha256("\n".join([onnx, *files]).encode()).hexdigest()
    with opened_patch(golden / "patch.lancet.safetensors") as patch:
        assert str(patch.base) == whole
