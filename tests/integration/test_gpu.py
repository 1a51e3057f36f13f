# SPDX-License-Identifier: Apache-2.0
"""The whole job with --device cuda, where there is one."""

from pathlib import Path

import logic_attacks
import numpy as np
import pytest
import torch
from logic_attacks import ATTACKS, Sketch, found_in, honest, images

from lancet_onnx import DataOptions, LancetError, RepairOptions, TriggerOptions, repair
from lancet_onnx.model import load
from lancet_onnx.runtime.classifier import Classifier, compute_device
from lancet_onnx.runtime.ort import OrtModel

NAME = "mnist_cnn_square"


@pytest.mark.gpu
def test_repair_on_a_gpu_is_judged_on_the_gpu(fixtures, tmp_path: Path):
    report = repair(
        fixtures.model(NAME),
        TriggerOptions(fixtures.trigger(NAME)),
        DataOptions(fixtures.images),
        RepairOptions(tmp_path / "fixed.onnx"),
        device="cuda",
    )
    assert report.verdict == "repaired"
    assert report.body["environment"]["device"] == "cuda"


@pytest.mark.gpu
def test_cpu_and_gpu_agree(fixtures):
    graph = load(fixtures.model(NAME)).graph
    images = np.random.default_rng(0).random((32, 1, 28, 28), np.float32)
    scores = [Classifier(graph, compute_device(d)) for d in ("cpu", "cuda")]
    on_cpu, on_gpu = (c.logits(c.tensor(images)).cpu() for c in scores)
    torch.testing.assert_close(on_cpu, on_gpu, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused_and_never_replaced(fixtures):
    path = fixtures.model(NAME)
    spec = load(path).graph.inputs[0]
    with pytest.raises(LancetError, match="cuda"):
        OrtModel(path, spec, "cuda")
    assert compute_device("cuda").type == "cpu"


@pytest.mark.gpu
def test_attacks_on_the_logic_are_caught_on_the_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        logic_attacks, "Classifier", lambda graph: Classifier(graph, compute_device("cuda"))
    )
    for attack in ATTACKS:
        sketch = Sketch()
        assert found_in(sketch.model(attack(sketch)), images(100)), attack.__name__
    assert not found_in(honest(), images(100))
