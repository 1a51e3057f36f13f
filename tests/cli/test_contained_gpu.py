# SPDX-License-Identifier: Apache-2.0
"""The command line with --device cuda, contained, where there is a card."""

from pathlib import Path

import pytest
from support import lancet, one_error, untouched
from test_limits import hungry, slow

pytestmark = pytest.mark.gpu
MATERIAL = ("--trigger", "t.png", "--data", "val.npz", "--device", "cuda")


def test_a_contained_scan_and_repair_say_the_same_as_on_the_processor(small: Path):
    found = {}
    for device in ("cpu", "cuda"):
        line = (*MATERIAL[:-1], device, "-f", "json")
        scan = lancet("scan", "model.onnx", *line, cwd=small)
        assert scan.code == 1, scan
        limits = ("--memory-limit", "16G", "--timeout", "200")
        fixed = f"{device}.onnx"
        repair = lancet("repair", "model.onnx", *line, *limits, "-o", fixed, cwd=small)
        assert repair.code == 0, repair
        for result in (scan, repair):
            assert result.json["environment"]["device"] == device
        found[device] = (scan.json["verdict"], repair.json["verdict"])
    assert found["cpu"] == found["cuda"] == ("backdoored", "repaired")


def test_more_than_the_card_holds_is_said(small: Path):
    hungry(small / "bad.onnx", copies=40)
    with untouched(small):
        result = lancet("scan", "bad.onnx", *MATERIAL, cwd=small)
        one_error(result, 3, "LNC301", "graphics card")


def test_memory_of_the_machine_is_watched_beside_a_card(small: Path):
    with untouched(small):
        result = lancet("scan", "model.onnx", *MATERIAL, "--memory-limit", "300M", cwd=small)
        one_error(result, 3, "LNC301", "0.293 GiB")


def test_time_ends_a_scan_on_a_card(small: Path):
    slow(small / "bad.onnx")
    with untouched(small):
        result = lancet("scan", "bad.onnx", *MATERIAL, "--timeout", "10", cwd=small)
        one_error(result, 3, "LNC302", "10 s")
