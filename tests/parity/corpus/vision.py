# SPDX-License-Identifier: Apache-2.0
"""Every torchvision classification builder, and one timm architecture of each family."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

from corpus.seeding import seed, stir
from corpus.store import ROWS, Made, Recipe
from corpus.timm_names import FIRST, NAMES
from corpus.torch_export import DYNAMO_OPSET, LEGACY_OPSET, export
from corpus.validity import refuse_invalid

# Smallest first, so that a build that is cut short has covered the most; sizes in MB of float32.
TORCHVISION = {
    "squeezenet1_1": 5, "squeezenet1_0": 5, "shufflenet_v2_x0_5": 6, "mnasnet0_5": 9,
    "shufflenet_v2_x1_0": 9, "mobilenet_v3_small": 10, "mnasnet0_75": 13, "mobilenet_v2": 14,
    "shufflenet_v2_x1_5": 14, "regnet_y_400mf": 17, "mnasnet1_0": 18, "efficientnet_b0": 21,
    "mobilenet_v3_large": 22, "regnet_x_400mf": 22, "mnasnet1_3": 25, "googlenet": 26,
    "regnet_y_800mf": 26, "regnet_x_800mf": 29, "shufflenet_v2_x2_0": 30, "efficientnet_b1": 31,
    "densenet121": 32, "efficientnet_b2": 36, "regnet_x_1_6gf": 37, "regnet_y_1_6gf": 45,
    "resnet18": 47, "efficientnet_b3": 49, "densenet169": 57, "regnet_x_3_2gf": 61,
    "efficientnet_b4": 77, "regnet_y_3_2gf": 78, "densenet201": 80, "efficientnet_v2_s": 86,
    "resnet34": 87, "inception_v3": 95, "resnext50_32x4d": 100, "resnet50": 102,
    "densenet161": 115, "swin_t": 113, "swin_v2_t": 114, "convnext_tiny": 114,
    "efficientnet_b5": 122, "maxvit_t": 124, "regnet_x_8gf": 158, "regnet_y_8gf": 158,
    "efficientnet_b6": 172, "resnet101": 178, "swin_s": 199, "swin_v2_s": 199,
    "convnext_small": 201, "efficientnet_v2_m": 216, "regnet_x_16gf": 217, "resnet152": 241,
    "alexnet": 244, "efficientnet_b7": 266, "wide_resnet50_2": 276, "regnet_y_16gf": 334,
    "resnext101_64x4d": 334, "vit_b_16": 346, "vit_b_32": 353, "swin_b": 351, "swin_v2_b": 352,
    "convnext_base": 354, "resnext101_32x8d": 355, "regnet_x_32gf": 431,
    "efficientnet_v2_l": 474, "wide_resnet101_2": 508, "vgg11": 531, "vgg11_bn": 532,
    "vgg13": 532, "vgg13_bn": 532, "vgg16": 553, "vgg16_bn": 554, "vgg19": 575, "vgg19_bn": 575,
    "regnet_y_32gf": 580, "convnext_large": 791, "vit_l_16": 1217, "vit_l_32": 1226,
    "vit_h_14": 2528, "regnet_y_128gf": 2579,
}  # fmt: skip
SLOW_ABOVE = 700
LEGACY_BELOW = 130

_SIDES = (64, 96, 112, 128)
_TV_SIDES = {
    "inception_v3": 299, "googlenet": 96, "swin": 64, "vit": 64, "maxvit": 64, "alexnet": 96,
    "regnet": 64, "vit_h": 56,
}  # fmt: skip
_CLASSES = 10
_DEEP = ("vit_", "eva02_base", "beit", "naflexvit", "samvit", "qwen3", "gemma4")
_DEPTH = 4


def recipes() -> list[Recipe]:
    """Return every recipe of this module, breadth first."""
    found = []
    vision = [name for name, size in TORCHVISION.items() if size <= SLOW_ABOVE]
    for i, name in enumerate(vision):
        found.append(_torchvision(name, True, _batch(i)))
    for i, name in sorted(enumerate(NAMES), key=lambda entry: entry[1] not in FIRST):
        found.append(
            Recipe(
                f"timm/{name}",
                "torch dynamo",
                DYNAMO_OPSET,
                partial(build_timm, name, _batch(i)),
                ("timm", "onnxscript"),
            )
        )
    for i, (name, size) in enumerate(TORCHVISION.items()):
        if size < LEGACY_BELOW:
            found.append(_torchvision(name, False, _batch(i + 1)))
    found += [
        _torchvision(name, True, 1, slow=True)
        for name, size in TORCHVISION.items()
        if size > SLOW_ABOVE
    ]
    return found


def _batch(position: int) -> int | None:
    """Every third entry has a free batch, the others a fixed one of 1 or 2."""
    return (None, 1, 2)[position % 3]


def _torchvision(name: str, dynamo: bool, batch: int | None, slow: bool = False) -> Recipe:
    return Recipe(
        f"torchvision/{name}@{'dynamo' if dynamo else 'legacy'}",
        "torch dynamo" if dynamo else "torch legacy",
        DYNAMO_OPSET if dynamo else LEGACY_OPSET,
        partial(build_torchvision, name, dynamo, batch),
        ("torchvision", "onnxscript"),
        slow or TORCHVISION[name] > SLOW_ABOVE,
    )


def torchvision_model(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return the seeded builder's classifier and `ROWS` images of a side that it accepts."""
    import torchvision.models as tv

    seed(name)
    side = next((s for start, s in reversed(_TV_SIDES.items()) if name.startswith(start)), 64)
    options: dict[str, object] = {"num_classes": _CLASSES}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": False}
    if name.startswith(("vit", "maxvit")):
        key = "image_size" if name.startswith("vit") else "input_size"
        options[key] = side if key == "image_size" else (224, 224)
        side = side if key == "image_size" else 224
    model = tv.get_model(name, weights=None, **options)
    images = torch.randn(ROWS, 3, side, side)
    return stir(model, (images,)), images


def build_torchvision(name: str, dynamo: bool, batch: int | None, path: Path) -> Made:
    """Export one torchvision builder."""
    model, images = torchvision_model(name)
    opset = DYNAMO_OPSET if dynamo else LEGACY_OPSET
    side = images.shape[-1]
    return export(
        model, (images,), path, dynamo=dynamo, opset=opset, batch=batch, note=f"{side} px"
    )


def build_timm(name: str, batch: int | None, path: Path) -> Made:
    """Export one timm architecture at the smallest side it works at; legacy where dynamo fails."""
    model, images, note = timm_model(name)
    try:
        made = export(
            model, (images,), path, dynamo=True, opset=DYNAMO_OPSET, batch=batch, note=note
        )
        refuse_invalid(path)
        return made
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:90]
        note = f"{note}; dynamo failed ({first}), legacy opset {LEGACY_OPSET}"
        return export(
            model, (images,), path, dynamo=False, opset=LEGACY_OPSET, batch=batch, note=note
        )


def timm_model(name: str) -> tuple[nn.Module, torch.Tensor, str]:
    """Return a seeded timm classifier, its images and what was made smaller."""
    last: Exception | None = None
    for options, side in _timm_forms(name):
        try:
            seed(name)
            model = _create(name, options)
            images = torch.randn(ROWS, 3, *side)
            with torch.no_grad():
                scores = model.eval()(images)
            if isinstance(scores, torch.Tensor) and bool(torch.isfinite(scores).all()):
                note = f"{side[0]} px" + (f", depth {_DEPTH}" if "depth" in options else "")
                return stir(model, (images,)), images, note
        except Exception as error:
            last = error
    raise last or RuntimeError("no input size gives finite scores")


def _create(name: str, options: dict[str, object]) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, num_classes=_CLASSES, exportable=False, **options)
    except (TypeError, AttributeError):
        return timm.create_model(name, num_classes=_CLASSES, **options)


def _timm_forms(name: str) -> Iterator[tuple[dict[str, object], tuple[int, int]]]:
    import timm

    config = timm.get_pretrained_cfg(name)
    native = tuple(config.input_size[1:]) if config else (224, 224)
    deep: list[dict[str, object]] = [{}]
    if name.startswith(_DEEP) and "test" not in name and "hybrid" not in name:
        deep = [{"depth": _DEPTH}, {}]
    for depth in deep:
        fixed = bool(config and config.fixed_input_size)
        for side in _SIDES:
            if side >= native[0]:
                continue
            size = {"img_size": side}
            for options in [size, {}] if fixed else [{}, size]:
                yield {**depth, **options}, (side, side)
        yield dict(depth), native
