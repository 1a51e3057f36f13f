# SPDX-License-Identifier: Apache-2.0
"""Runs of nodes that are computed at once: the same values and gradients, and really at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import info, model_bytes, open_bytes, tensor
from onnx import NodeProto, TensorProto, helper

from lancet_onnx.runtime.executor import GraphModule

RNG = np.random.default_rng(11)
CPU = torch.device("cpu")


def number(value: float) -> np.ndarray:
    return np.array(value)


def doubles(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def chain(*calls: tuple[Any, ...], **attributes: Any) -> list[NodeProto]:
    """Nodes from (operator, inputs ..., output); attributes go to the operator they name."""
    return [
        helper.make_node(kind, inputs, [output], f"node_{output}", **attributes.get(kind, {}))
        for kind, *inputs, output in calls
    ]


ERF = [("Erf", "scaled", "erf"), ("Add", "erf", "one", "gate")]
HALVES = {"half": number(0.5), "one": number(1.0)}
ROOT = {**HALVES, "root": number(2**0.5)}
NORM = {"scale": doubles(6), "shift": doubles(6), "eps": number(1e-5), "two": number(2.0)}
NORMAL = [
    ("ReduceMean", "x", "mean"),
    ("Sub", "x", "mean", "d"),
    ("Pow", "d", "two", "square"),
    ("ReduceMean", "square", "variance"),
    ("Add", "variance", "eps", "more"),
    ("Sqrt", "more", "sigma"),
    ("Div", "d", "sigma", "normal"),
    ("Mul", "normal", "scale", "scaled"),
    ("Add", "scaled", "shift", "y"),
]
LAST = {"ReduceMean": {"axes": [-1]}}
ATTENTION = [("MatMul", "x", "kt", "scores"), ("Softmax", "scores", "p"), ("MatMul", "p", "v", "y")]
KEYS = {"kt": doubles(2, 3, 6, 5), "v": doubles(2, 3, 5, 6)}

Case = tuple[list[NodeProto], dict[str, np.ndarray]]
ANYWHERE: dict[str, Case] = {
    "silu": (chain(("Sigmoid", "x", "s"), ("Mul", "x", "s", "y")), {}),
    "silu, gate first": (chain(("Sigmoid", "x", "s"), ("Mul", "s", "x", "y")), {}),
    "hardswish": (
        chain(
            ("HardSigmoid", "x", "s"),
            ("Mul", "x", "s", "y"),
            HardSigmoid={"alpha": float(np.float32(1 / 6)), "beta": 0.5},
        ),
        {},
    ),
    "gelu, half last": (
        chain(
            ("Div", "x", "root", "scaled"),
            *ERF,
            ("Mul", "x", "gate", "p"),
            ("Mul", "p", "half", "y"),
        ),
        ROOT,
    ),
    "gelu, half first": (
        chain(
            ("Mul", "inverse", "x", "scaled"),
            *ERF,
            ("Mul", "half", "x", "p"),
            ("Mul", "gate", "p", "y"),
        ),
        {**HALVES, "inverse": number(0.5**0.5)},
    ),
    "gelu, half with the gate": (
        chain(
            ("Div", "x", "root", "scaled"),
            *ERF,
            ("Mul", "gate", "half", "p"),
            ("Mul", "p", "x", "y"),
        ),
        ROOT,
    ),
    "linear": (
        chain(("MatMul", "x", "w", "p"), ("Add", "p", "b", "y")),
        {"w": doubles(6, 4), "b": doubles(4)},
    ),
    "linear, bias first": (
        chain(("MatMul", "x", "w", "p"), ("Add", "b", "p", "y")),
        {"w": doubles(6, 4), "b": doubles(4)},
    ),
    "layer norm": (chain(*NORMAL, **LAST), NORM),
    "layer norm, squared by a product": (
        chain(*[(*c[:2], "d", c[3]) if c[0] == "Pow" else c for c in NORMAL], **LAST)[:2]
        + chain(("Mul", "d", "d", "square"))
        + chain(*NORMAL[3:], **LAST),
        NORM,
    ),
    "gather": (chain(("Gather", "x", "i", "y"), Gather={"axis": 2}), {"i": np.array(-2)}),
}
"""Computed at once whether or not gradients are recorded, and under torch.func."""

ATTENTIONS: dict[str, Case] = {
    "attention": (chain(*ATTENTION), KEYS),
    "attention, scores divided": (
        chain(ATTENTION[0], ("Div", "scores", "c", "q"), ("Softmax", "q", "p"), ATTENTION[2]),
        {**KEYS, "c": number(2.5)},
    ),
    "attention, scores multiplied": (
        chain(ATTENTION[0], ("Mul", "c", "scores", "q"), ("Softmax", "q", "p"), ATTENTION[2]),
        {**KEYS, "c": number(0.4)},
    ),
}
"""Computed at once where no gradient is recorded and torch.func is not at work."""

CASES = ANYWHERE | ATTENTIONS


def module_of(folder: Path, case: Case, outputs: tuple[str, ...] = ("y",)) -> GraphModule:
    nodes, constants = case
    kind = TensorProto.DOUBLE
    data = model_bytes(
        nodes,
        [tensor(name, array) for name, array in constants.items()],
        [info("x", ["N", 3, 4, 6], kind)],
        [info(name, None, kind) for name in outputs],
        opset=17,
    )
    return GraphModule(open_bytes(folder, data).graph, CPU)


def node_by_node(module: GraphModule, x: torch.Tensor, params: dict[str, torch.Tensor]):
    """Every value is asked for, so nothing is joined."""
    values = [node.outputs[0] for node in module.graph.nodes]
    return module.run({"x": x}, values, params)["y"]


def at_once(module: GraphModule, x: torch.Tensor, params: dict[str, torch.Tensor]):
    return module.run({"x": x}, ["y"], params)["y"]


def forbid_nodes(module: GraphModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no node may be computed on its own."""

    def refuse(table: object) -> torch.Tensor:
        raise AssertionError("computed on its own")

    monkeypatch.setattr(module, "_compute", dict.fromkeys(module._compute, refuse))


def image() -> torch.Tensor:
    return torch.randn(2, 3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def weights(module: GraphModule) -> dict[str, torch.Tensor]:
    """Copies of the leaves that are no single numbers, which the rules read beforehand."""
    return {name: leaf.clone() for name, leaf in module.leaves.items() if leaf.numel() > 1}


def close(found: object, wanted: object) -> None:
    """Equal up to the sixth part that HardSigmoid's slope is, an attribute and so in float32."""
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_values_are_the_same_and_computed_at_once(tmp_path: Path, monkeypatch, name: str):
    module = module_of(tmp_path, CASES[name])
    wanted = node_by_node(module, image(), {})
    forbid_nodes(module, monkeypatch)
    close(at_once(module, image(), {}), wanted)


def gradients(module: GraphModule, run, *, vmapped: bool) -> list[torch.Tensor]:
    params = {name: leaf.requires_grad_() for name, leaf in weights(module).items()}
    x = image().requires_grad_()
    if vmapped:
        y = torch.func.vmap(lambda part: run(module, part, params))(x.unsqueeze(1)).squeeze(1)
    else:
        y = run(module, x, params)
    return [y, *torch.autograd.grad(y.sin().sum(), [x, *params.values()])]


@pytest.mark.parametrize("vmapped", [False, True])
@pytest.mark.parametrize("name", ANYWHERE)
def test_gradients_are_the_same(tmp_path: Path, monkeypatch, name: str, vmapped: bool):
    module = module_of(tmp_path, ANYWHERE[name])
    wanted = gradients(module, node_by_node, vmapped=vmapped)
    forbid_nodes(module, monkeypatch)
    close(gradients(module, at_once, vmapped=vmapped), wanted)


@pytest.mark.parametrize("name", ANYWHERE)
def test_a_gradient_per_image_and_per_weight(tmp_path: Path, monkeypatch, name: str):
    module = module_of(tmp_path, ANYWHERE[name])

    def each(run) -> Any:
        def loss(x: torch.Tensor, params: dict[str, torch.Tensor]) -> torch.Tensor:
            return run(module, x[None], params).sin().sum()

        twice = {name: torch.stack([leaf, 2 * leaf]) for name, leaf in weights(module).items()}
        return torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(image(), twice)

    wanted = each(node_by_node)
    forbid_nodes(module, monkeypatch)
    close(each(at_once), wanted)


@pytest.mark.parametrize("vmapped", [False, True])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_is_written_out_for_gradients(tmp_path: Path, name: str, vmapped: bool):
    nodes, constants = ATTENTIONS[name]
    shared = {key: array[:1] if array.ndim else array for key, array in constants.items()}
    module = module_of(tmp_path, (nodes, shared if vmapped else constants))
    found = gradients(module, at_once, vmapped=vmapped)
    wanted = gradients(module, node_by_node, vmapped=vmapped)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_attention_has_a_second_derivative(tmp_path: Path):
    module = module_of(tmp_path, ATTENTIONS["attention"])
    x = image().requires_grad_()
    (first,) = torch.autograd.grad(at_once(module, x, {}).sin().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert bool(second.any())


def steps_joined(module: GraphModule, **run: Any) -> int:
    """How many runs of nodes the executor plans to compute at once."""
    module.run({"x": image()}, ["y"], **run)
    (plan,) = module._plans.values()
    return sum(step.fused is not None for step in plan.steps)


GELU = ANYWHERE["gelu, half last"]


def test_an_overridden_constant_is_no_constant(tmp_path: Path):
    module = module_of(tmp_path, GELU)
    params = {"half": torch.tensor(0.25, dtype=torch.float64)}
    close(2 * at_once(module, image(), params), at_once(module, image(), {}))
    assert steps_joined(module_of(tmp_path, GELU)) == 1
    assert steps_joined(module_of(tmp_path, GELU), params=params) == 0


def test_a_nudged_value_stays_a_value(tmp_path: Path):
    module = module_of(tmp_path, ANYWHERE["silu"])
    nudge = torch.ones(2, 3, 4, 6, dtype=torch.float64)
    y = module.run({"x": image()}, ["y"], nudges={"s": nudge})["y"]
    close(y, image() * (image().sigmoid() + 1))
    y = module.run({"x": image()}, ["y"], nudges={"y": nudge})["y"]
    close(y, torch.nn.functional.silu(image()) + 1)


def test_a_value_that_others_read_stays_a_value(tmp_path: Path):
    nodes, constants = GELU
    more = chain(("Neg", "erf", "other"))
    module = module_of(tmp_path, ([*nodes, *more], constants), ("y", "other"))
    found = module.run({"x": image()}, ["y", "other"])
    close(found["y"], torch.nn.functional.gelu(image()))
    close(found["other"], -torch.erf(image() / 2**0.5))


def test_a_fed_value_inside_counts(tmp_path: Path):
    module = module_of(tmp_path, ANYWHERE["silu"])
    gate = torch.full((2, 3, 4, 6), 3.0, dtype=torch.float64)
    close(module.run({"x": image(), "s": gate}, ["y"])["y"], 3 * image())


def test_a_fed_value_counts_though_its_node_runs_for_another(tmp_path: Path):
    split = helper.make_node("Split", ["x"], ["a", "b"], "split", axis=2)
    module = module_of(tmp_path, ([split, *chain(("Add", "a", "b", "y"))], {"unused": doubles(2)}))
    fed = torch.full((2, 3, 2, 6), 3.0, dtype=torch.float64)
    close(module.run({"x": image(), "b": fed}, ["y"])["y"], image()[:, :, :2] + 3)


UNLIKE: dict[str, Case] = {
    "another constant": (GELU[0], {**GELU[1], "half": number(0.51)}),
    "another gate": (chain(("Sigmoid", "z", "s"), ("Mul", "x", "s", "y")), {"z": doubles(4, 6)}),
    "another hardsigmoid": (chain(("HardSigmoid", "x", "s"), ("Mul", "x", "s", "y")), {}),
    "means over two axes": (chain(*NORMAL, ReduceMean={"axes": [-2, -1]}), NORM),
    "a softmax over queries": (chain(*ATTENTION, Softmax={"axis": 2}), KEYS),
    "several places": (chain(("Gather", "x", "i", "y")), {"i": np.array([1])}),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_what_only_looks_alike_is_not_joined(tmp_path: Path, name: str):
    module = module_of(tmp_path, UNLIKE[name])
    assert steps_joined(module) == 0
    close(at_once(module, image(), {}), node_by_node(module, image(), {}))


UNFIT: dict[str, Case] = {
    "a bias for each row": (
        chain(("MatMul", "x", "w", "p"), ("Add", "p", "b", "y")),
        {"w": doubles(6, 4), "b": doubles(4, 1)},
    ),
    "a stack of weights": (
        chain(("MatMul", "x", "w", "p"), ("Add", "p", "b", "y")),
        {"w": doubles(3, 6, 4), "b": doubles(4)},
    ),
    "means over another axis": (chain(*NORMAL, ReduceMean={"axes": [2]}), NORM),
    "a scale for each row": (chain(*NORMAL, **LAST), {**NORM, "scale": doubles(4, 1)}),
    "keys that all images share": (chain(*ATTENTION), {k: v[0] for k, v in KEYS.items()}),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_turns_out_different_is_computed_node_by_node(tmp_path: Path, name: str):
    module = module_of(tmp_path, UNFIT[name])
    assert steps_joined(module) == 1
    wanted = node_by_node(module, image(), {})
    torch.testing.assert_close(at_once(module, image(), {}), wanted, rtol=0, atol=0)


def test_the_axis_of_a_mean_may_be_an_input(tmp_path: Path, monkeypatch):
    calls = [(*c[:2], "axes", c[2]) if c[0] == "ReduceMean" else c for c in NORMAL]
    kind = TensorProto.DOUBLE
    data = model_bytes(
        chain(*calls),
        [tensor(name, array) for name, array in {**NORM, "axes": np.array([-1])}.items()],
        [info("x", ["N", 3, 4, 6], kind)],
        [info("y", None, kind)],
        opset=18,
    )
    module = GraphModule(open_bytes(tmp_path, data).graph, CPU)
    wanted = node_by_node(module, image(), {})
    forbid_nodes(module, monkeypatch)
    close(at_once(module, image(), {}), wanted)


def test_memory_is_given_back_after_the_last_use(tmp_path: Path):
    """A long chain holds two values at a time, not all."""
    nodes = chain(*[("Relu", "x" if i == 0 else f"v{i}", f"v{i + 1}") for i in range(20)])
    nodes += chain(("Sigmoid", "v20", "s"), ("Mul", "v20", "s", "y"))
    module = module_of(tmp_path, (nodes, {"unused": doubles(2)}))
    x = torch.rand(64, 3, 4, 6, dtype=torch.float64)
    one = x.numel() * x.element_size()
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        module.run({"x": x}, ["y"])
    events = profile.profiler.kineto_results.events()
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    assert one < peak <= 2 * one + 4096
