# SPDX-License-Identifier: Apache-2.0
"""The gate's comparison of CPU and GPU: on a card where there is one, with a stand-in anywhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import pictures, planted_file, saved

from lancet_onnx import DataOptions, Policy, gate
from lancet_onnx.api.policy import Asked
from lancet_onnx.api.subject import Subject
from lancet_onnx.report import Report
from lancet_onnx.runtime.ort import OrtModel, Placement

CLASSES = 4


@dataclass(frozen=True)
class Card:
    """Stands for a session on a card: the CPU's scores, changed."""

    cpu: OrtModel
    change: Callable[[np.ndarray], np.ndarray]

    @property
    def placement(self) -> Placement:
        return replace(self.cpu.placement, provider="CUDAExecutionProvider")

    def scores(self, inputs: np.ndarray) -> np.ndarray:
        return self.change(self.cpu.scores(inputs))


def by_share(share: float) -> Callable[[np.ndarray], np.ndarray]:
    """Move the first score of the first image by that share of the largest one."""

    def change(scores: np.ndarray) -> np.ndarray:
        moved = scores.copy()
        moved[0, 0] += share * np.abs(scores).max()
        return moved

    return change


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return planted_file(tmp_path, CLASSES, None)


def compared(model: Path, **asked: Any) -> tuple[Report, Mapping[str, Any]]:
    """Gate a model with the comparison and nothing that needs images; return its check, too."""
    report = gate(model, Policy(asked=Asked(parity_gpu=True, **asked)))
    (entry,) = report.to_dict()["models"]
    (check,) = (each for each in entry["checks"] if each["id"] == "parity-gpu")
    return report, check


@pytest.mark.parametrize(
    ("share", "tolerance", "result"),
    [
        (0.0, None, "pass"),
        (1e-4, None, "pass"),
        (1e-4, 1e-5, "fail"),
        (0.5, None, "fail"),
        (0.5, 0.6, "pass"),
        (float("nan"), None, "fail"),
    ],
)
def test_a_card_that_computes_something_else_fails(
    share: float, tolerance: float | None, result: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Subject.patched

    def stand_in(self: Subject, path: Path, device: str) -> OrtModel | Card:
        on_cpu = opened(self, path, "cpu")
        return Card(on_cpu, by_share(share)) if device == "cuda" else on_cpu

    monkeypatch.setattr(Subject, "patched", stand_in)
    report, check = compared(model, device="cpu", parity_tolerance=tolerance)
    assert (report.verdict, check["result"], check["rule"]) == (result, result, "LNC012")
    assert "CPU and GPU differ by" in check["text"]
    assert check["next"] == ("lancet-onnx doctor" if result == "fail" else "")
    if not np.isnan(share):
        assert check["value"] == pytest.approx(share, abs=1e-6)
    others = {each["result"] for each in report.body["models"][0]["checks"]} - {"pass"}
    assert others == ({"fail"} if result == "fail" else set())


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_cpu_and_card_agree_wherever_the_rest_runs(device: str, model: Path) -> None:
    report, check = compared(model, device=device)
    assert (report.verdict, check["result"]) == ("pass", "pass"), report.reasons
    assert 0 <= check["value"] <= check["limit"]
    assert report.body["environment"]["device"] == device


@pytest.mark.gpu
def test_nothing_computes_alike_to_the_last_bit(fixtures: Any) -> None:
    path = fixtures.model("mnist_cnn_square")
    report, check = compared(path, device="cpu", parity_tolerance=1e-12)
    assert (report.verdict, check["result"], check["limit"]) == ("fail", "fail", 1e-12)
    assert check["value"] > 1e-12
    assert compared(path, device="cpu")[1]["result"] == "pass"


@pytest.mark.gpu
def test_figures_on_the_card_are_those_of_the_processor(model: Path, tmp_path: Path) -> None:
    saved(tmp_path / "val.npz", pictures(CLASSES, 100))
    found = {}
    for device in ("cpu", "cuda"):
        asked = Asked(min_clean_accuracy=0.9, parity_gpu=True, device=device)
        report = gate(model, Policy(data=DataOptions(tmp_path / "val.npz", "unit"), asked=asked))
        checks = {c["id"]: c for c in report.body["models"][0]["checks"]}
        found[device] = (report.verdict, checks["clean-accuracy"]["value"])
    assert found["cpu"] == found["cuda"]
    assert found["cuda"][0] == "pass"
