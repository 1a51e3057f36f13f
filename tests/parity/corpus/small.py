# SPDX-License-Identifier: Apache-2.0
"""Recipes over the small models: both exporters at every opset, free and fixed batch, types."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from corpus import small_models as models
from corpus.seeding import seed, stir
from corpus.store import ROWS, Made, Recipe
from corpus.torch_export import export, rows
from corpus.validity import refuse_invalid

LEGACY = (11, 13, 17, 18, 20)
DYNAMO = (18, 20, 21, 23, 24, 25)

IMAGE, SEQUENCE, FLAT = (3, 16, 16), (10, 20), (12,)


def _ids(high: int, length: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randint(1, high, (ROWS, length))


def _mask() -> torch.Tensor:
    mask = torch.ones(ROWS, 12, dtype=torch.int64)
    mask[1::2, 8:] = 0
    return mask


Spec = tuple[int, ...] | Callable[[], torch.Tensor]

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Spec, ...]]] = {
    "convnet": (models.ConvNet, (IMAGE,)),
    "tinyvit": (models.TinyVit, (IMAGE,)),
    "vit_plain": (partial(models.TinyVit, fused=False), (IMAGE,)),
    "bert_tiny": (models.BertTiny, (_ids(1000, 12), _mask)),
    "lstm": (partial(models.KeywordRnn, "lstm"), (SEQUENCE,)),
    "lstm_two_ways": (partial(models.KeywordRnn, "lstm", 2, True), (SEQUENCE,)),
    "gru": (partial(models.KeywordRnn, "gru"), (SEQUENCE,)),
    "gru_two_ways": (partial(models.KeywordRnn, "gru", 1, True), (SEQUENCE,)),
    "rnn": (partial(models.KeywordRnn, "rnn"), (SEQUENCE,)),
    "text_gru": (models.TextRnn, (_ids(200, 9),)),
    "state_space": (models.StateSpace, (IMAGE,)),
    "linear_attention": (models.LinearAttention, (IMAGE,)),
    "experts": (models.Experts, ((48,),)),
    "up_down": (models.UpDown, (IMAGE,)),
    "volume": (models.Volume, ((3, 6, 12, 12),)),
    "encoder": (models.Encoder, ((7, 10),)),
    "two_inputs": (models.TwoInputs, (IMAGE, (6,))),
    "mlp": (models.Mlp, (FLAT,)),
}
SWEPT = ("convnet", "tinyvit", "vit_plain", "bert_tiny", "up_down")


def build(
    which: str, dynamo: bool, opset: int, batch: int | None, dtype: torch.dtype, path: Path
) -> Made:
    """Export one of `MODELS`."""
    seed(which)
    maker, specs = MODELS[which]
    model = maker()
    full = rows([spec() if callable(spec) else spec for spec in specs])
    model = stir(model, full)
    if dtype != torch.float32:
        model = model.to(dtype)
        full = tuple(t.to(dtype) if t.is_floating_point() else t for t in full)
    # The fused encoder layer of evaluation mode exists in no opset.
    torch.backends.mha.set_fastpath_enabled(False)
    kind = "half" if dtype in (torch.float16, torch.bfloat16) else "float"
    made = export(model, full, path, dynamo=dynamo, opset=opset, batch=batch, kind=kind)
    if kind == "half":
        refuse_invalid(path)
    return made


def _branching(path: Path) -> Made:
    seed("branching")
    full = rows([FLAT])
    return export(stir(models.Branching(), full), full, path, dynamo=True, opset=20, batch=ROWS)


def _repeating(path: Path) -> Made:
    seed("repeating")
    full = (torch.randn(ROWS, 12), torch.full((ROWS,), 3))
    scripted = torch.jit.script(models.Repeating().eval())
    return export(scripted, full, path, dynamo=False, opset=17, batch=None)


def recipe(
    which: str, dynamo: bool, opset: int, batch: int | None, dtype: torch.dtype = torch.float32
) -> Recipe:
    """Return the recipe of one small model in one form."""
    exporter = "torch dynamo" if dynamo else "torch legacy"
    form = f"{'dynamo' if dynamo else 'legacy'}{opset}"
    form += "" if batch is None else f"-batch{batch}"
    form += "" if dtype == torch.float32 else f"-{str(dtype).removeprefix('torch.')}"
    return Recipe(
        f"small/{which}@{form}",
        exporter,
        opset,
        partial(build, which, dynamo, opset, batch, dtype),
        ("torch", "onnxscript"),
    )


def recipes() -> list[Recipe]:
    """Return every recipe of this module."""
    found = []
    for which in MODELS:
        found += [recipe(which, True, 20, None), recipe(which, False, 17, 1)]
    for which in SWEPT:
        found += [recipe(which, False, n, None) for n in LEGACY]
        found += [recipe(which, True, n, 2) for n in DYNAMO]
    for which in ("convnet", "tinyvit", "bert_tiny", "lstm"):
        found += [
            recipe(which, dynamo, 20 if dynamo else 17, None, dtype)
            for dtype in (torch.float16, torch.bfloat16, torch.float64)
            for dynamo in (True, False)
        ]
        found.append(recipe(which, True, 23, None, torch.bfloat16))
    needs = ("torch", "onnxscript")
    found.append(Recipe("small/branching@dynamo20-if", "torch dynamo", 20, _branching, needs))
    found.append(Recipe("small/repeating@legacy17-loop", "torch legacy", 17, _repeating, needs))
    unique = {entry.name: entry for entry in found}
    return list(unique.values())
