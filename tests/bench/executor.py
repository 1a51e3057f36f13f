# SPDX-License-Identifier: Apache-2.0
"""How fast and how lean the executor is, beside onnxruntime and the module it was exported from.

    python tests/bench/executor.py [--models resnet18 ...] [--threads 1] [--rounds 9] [--cache DIR]

Everything runs in one process on the CPU, in turns; the figures are medians over the rounds, so a
machine that is busy with other things slows all of them alike. With one thread on a busy machine
`--clock cpu`, the time that the process computed, is the steadier measure. Weights are random and
seeded. vit_tiny and swin_tiny come from timm where it is installed, else from torchvision.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
import torchvision  # type: ignore[import-untyped]
from torch import nn

from lancet_onnx.model import load
from lancet_onnx.runtime.classifier import Classifier
from lancet_onnx.runtime.executor import GraphModule
from lancet_onnx.types import ParamName, ValueName

MODELS = ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "vit_tiny", "swin_tiny")
BATCH = 8
FORWARD_TARGET = 1.15
SUFFIX_TARGET = 1.2
LOAD_TARGET = 0.5
MEMORY_TARGET = 1.2

Run = Callable[[], object]
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Subject:
    """A module, the file it was exported to, and both ready to run on one batch.

    Attributes:
        eager: the module itself.
        classifier: our reading of the file.
        trained: our leaves that gradients are taken to: all but the module's buffers and scalars.
    """

    path: Path
    eager: nn.Module
    classifier: Classifier
    session: Any
    x: torch.Tensor
    trained: Mapping[ParamName, torch.Tensor]

    @property
    def module(self) -> GraphModule:
        """The graph that is measured."""
        return self.classifier.module

    def ours(self) -> torch.Tensor:
        """One forward of the graph."""
        signature = self.classifier.signature
        with torch.no_grad():
            return self.module.run({signature.input.name: self.x}, [signature.logits])[
                signature.logits
            ]

    def torch(self) -> torch.Tensor:
        """One forward of the module."""
        with torch.no_grad():
            return self.eager(self.x)  # type: ignore[no-any-return]

    def onnxruntime(self) -> object:
        """One forward in onnxruntime."""
        return self.session.run(None, {self.classifier.signature.input.name: self.x.numpy()})

    def ours_back(self) -> object:
        """Forward and backward of the graph, to every trained leaf."""
        signature = self.classifier.signature
        out = self.module.run({signature.input.name: self.x}, [signature.logits], self.trained)
        return torch.autograd.grad(
            out[signature.logits].square().sum(), list(self.trained.values()), allow_unused=True
        )

    def torch_back(self) -> object:
        """Forward and backward of the module, to every parameter."""
        out = self.eager(self.x)
        return torch.autograd.grad(out.square().sum(), list(self.eager.parameters()))


def build(name: str) -> nn.Module:
    """Return the named module with seeded random weights, in evaluation mode.

    Biases and statistics, which start as zeros and ones, are drawn as well: the exporter would
    drop the zeros and store equal tensors once, as happens to no trained model.
    """
    torch.manual_seed(0)
    timm_names = {"vit_tiny": "vit_tiny_patch16_224", "swin_tiny": "swin_tiny_patch4_window7_224"}
    if name in timm_names and importlib.util.find_spec("timm"):
        made: nn.Module = importlib.import_module("timm").create_model(timm_names[name])
    elif name == "vit_tiny":
        made = torchvision.models.VisionTransformer(
            image_size=224, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768
        )
    else:
        made = getattr(torchvision.models, "swin_t" if name == "swin_tiny" else name)()
    for key, tensor in made.state_dict().items():
        if tensor.ndim == 1:
            noise = torch.rand(tensor.shape) * 0.2
            tensor += noise if key.endswith("running_var") else noise - 0.1
    return made.eval()


def export(module: nn.Module, path: Path, opset: int | None) -> None:
    """Write `module` to `path` with a free batch size."""
    if path.exists():
        return
    x = torch.randn(2, 3, 224, 224)
    batch = torch.export.Dim("batch", min=1, max=512)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (x,),
            str(path),
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: batch},),
            opset_version=opset,
            verbose=False,
        )


def subject(name: str, folder: Path, options: argparse.Namespace) -> Subject:
    """Build, export and open one model, and check that all three ways agree."""
    module = build(name)
    path = folder / f"{name}_{options.opset or 'default'}.onnx"
    export(module, path, options.opset)
    classifier = Classifier(load(path).graph)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    buffers = dict(module.named_buffers())
    trained = {
        name: leaf.clone().requires_grad_()
        for name, leaf in classifier.module.leaves.items()
        if name not in buffers and leaf.numel() > 1
    }
    torch.manual_seed(1)
    x = torch.randn(BATCH, 3, 224, 224)
    found = Subject(path, module, classifier, session, x, trained)
    scores = found.ours()
    np.testing.assert_allclose(scores, found.torch(), rtol=1e-3, atol=1e-4)
    (from_ort,) = session.run(None, {classifier.signature.input.name: x.numpy()})
    np.testing.assert_allclose(scores, from_ort, rtol=1e-3, atol=1e-4)
    return found


def medians(rounds: int, runs: Mapping[str, Run], clock: Clock) -> dict[str, float]:
    """Return the median seconds of each, run in turns after one round to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if number:
                taken[name].append(clock() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def peak_memory(run: Run) -> int:
    """Return the most bytes that torch's allocator held at once during `run`, beyond the start."""
    run()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run()
    kineto = profile.profiler.kineto_results
    steps = [event for event in kineto.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(steps, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def suffix(found: Subject, rounds: int, clock: Clock) -> tuple[float, float, float]:
    """Return the seconds of the last quarter of the nodes, its share of the time and of the work.

    Its share of the time is what a whole run takes more than a run up to the cut.
    """
    classifier, module, x = found.classifier, found.module, found.x
    signature = classifier.signature
    name, logits = signature.input.name, signature.logits
    nodes = module.nodes_between([name], logits)
    start = nodes[-(len(nodes) // 4) :]
    cut = classifier.cut_set(start)
    with torch.no_grad():
        cached = module.run({name: x}, cut)
        feeds: dict[ValueName, torch.Tensor] = {value: cached[value] for value in cut}
        taken = medians(
            rounds,
            {
                "whole": lambda: module.run({name: x}, [logits]),
                "before": lambda: module.run({name: x}, cut),
                "after": lambda: module.run(feeds, [logits]),
            },
            clock,
        )
    share = (taken["whole"] - taken["before"]) / taken["whole"]
    return taken["after"] / taken["whole"], share, classifier.share(cut, [logits])


def loading(folder: Path, rounds: int, opset: int | None, clock: Clock) -> tuple[float, float]:
    """Return the seconds to load and to build resnet50, reading the file left out."""
    path = folder / f"resnet50_{opset or 'default'}.onnx"
    export(build("resnet50"), path, opset)
    graph = load(path).graph
    taken = medians(
        rounds,
        {
            "read": path.read_bytes,
            "load": partial(load, path),
            "build": lambda: GraphModule(graph, torch.device("cpu")),
        },
        clock,
    )
    return taken["load"] - taken["read"], taken["build"]


def judged(value: float, target: float) -> str:
    """Return a ratio with a mark where it is over its target."""
    return f"{value:.2f}{'!' if value > target else ' '}"


def row(name: str, found: Subject, rounds: int, clock: Clock) -> str:
    """Return one line of the table."""
    forward = medians(
        rounds, {"ours": found.ours, "torch": found.torch, "ort": found.onnxruntime}, clock
    )
    back = medians(rounds, {"ours": found.ours_back, "torch": found.torch_back}, clock)
    part, share, work = suffix(found, rounds, clock)
    memory = [peak_memory(run) / 2**20 for run in (found.ours, found.torch)]
    memory_back = [peak_memory(run) / 2**20 for run in (found.ours_back, found.torch_back)]
    cells = [
        f"{name:20}",
        f"{1e3 * forward['ours']:8.1f} {1e3 * forward['torch']:8.1f} {1e3 * forward['ort']:8.1f}",
        judged(forward["ours"] / forward["torch"], FORWARD_TARGET),
        f"{1e3 * back['ours']:8.1f} {1e3 * back['torch']:8.1f}",
        judged(back["ours"] / back["torch"], FORWARD_TARGET),
        f"{part:.3f} {share:.3f} {work:.3f}",
        judged(part / share, SUFFIX_TARGET),
        f"{memory[0]:7.1f} {memory[1]:7.1f}",
        judged(memory[0] / memory[1], MEMORY_TARGET),
        f"{memory_back[0]:7.1f} {memory_back[1]:7.1f}",
        judged(memory_back[0] / memory_back[1], MEMORY_TARGET),
    ]
    return " | ".join(cells)


def main() -> int:
    """Print one line a model, then loading."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--opset", type=int, help="of the exported files; torch's own if not given")
    parser.add_argument("--cache", type=Path, help="folder that keeps the exported files")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = CLOCKS[options.clock]
    source = "timm" if importlib.util.find_spec("timm") else "torchvision"
    print(
        f"batch {BATCH}, {options.threads} thread(s), {options.rounds} rounds, "
        f"torch {torch.__version__}, onnxruntime {ort.__version__}, transformers of {source}; "
        f"{options.clock} times in ms, memory in MiB, ! over target"
    )
    print(
        f"{'model':20} | forward: ours torch ort    |       | fwd+bwd: ours   |       "
        "| suffix: time share work |       | memory forward  |       | memory fwd+bwd  |"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.cache or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.models:
            print(row(name, subject(name, folder, options), options.rounds, clock), flush=True)
        load_s, build_s = loading(folder, options.rounds, options.opset, clock)
        print(
            f"resnet50: load {load_s:.3f} s + build {build_s:.3f} s = "
            f"{judged(load_s + build_s, LOAD_TARGET)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
