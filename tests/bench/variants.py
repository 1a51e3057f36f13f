# SPDX-License-Identifier: Apache-2.0
"""What each choice of the repair is worth, and how many images it needs.

    python tests/bench/variants.py ablation --cases DIR [DIR ...] --only NAME ... --results FILE
    python tests/bench/variants.py images   --cases DIR [DIR ...] --only NAME ... --results FILE

``ablation`` changes one setting at a time; ``images`` gives the repair few of its half of the
images, with labels and without, or images that it generates itself. Each (model, variant) leaves a
line in FILE and is not run again; the table is of all lines. Figures are of the other half, which
no variant sees, by onnxruntime on the file that is written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lancet_onnx.errors import LancetError
from lancet_onnx.locate import locate
from lancet_onnx.pairs import stamped_material
from lancet_onnx.pairs.generated import generated_samples
from lancet_onnx.repair import Settings, TuneSettings, choose, to_patch
from lancet_onnx.repair.training import Trainer
from lancet_onnx.samples import Samples
from lancet_onnx.types import Method
from tests.bench import trainers
from tests.bench.channels import scale_channels
from tests.bench.compare import find_cases
from tests.bench.compare_runs import Bench, case_options
from tests.bench.compare_table import read_lines
from tests.bench.trainers import by_loss_alone

Line = dict[str, Any]


USUAL, FLIPS = TuneSettings(), Settings()


@dataclass(frozen=True)
class Variant:
    """One way to repair: which images it gets, by which method, with which settings.

    With `channels` whole channels are scaled instead. `instead` puts other things in the place of
    the library's, by their import paths.
    """

    images: Callable[[Bench], Samples]
    method: Method = "tune"
    tuning: TuneSettings = USUAL
    settings: Settings = FLIPS
    channels: bool = False
    instead: Mapping[str, object] = field(default_factory=dict)


def all_images(bench: Bench) -> Samples:
    return bench.split.tool


def first(count: int, *, labelled: bool = True) -> Callable[[Bench], Samples]:
    """Return what takes the first `count` images (the halves are shuffled already)."""

    def take(bench: Bench) -> Samples:
        few = bench.split.tool.take(np.arange(count))
        return few if labelled else replace(few, labels=None)

    return take


def generated(bench: Bench) -> Samples:
    """Return images that are made from the model itself, with its own labels."""
    classifier, pixels = bench.subject.classifier, bench.split.tool.pixels
    height, width, channels = pixels.shape[1:]
    made = generated_samples(
        classifier, (height, width, channels), bench.prepared.preprocess, 200, 0
    )
    return replace(made, labels=None)


def trained_by(trainer: type[Trainer]) -> Variant:
    return Variant(all_images, instead={"lancet_onnx.repair.tune.Trainer": trainer})


def chosen_by(**constants: float) -> Variant:
    return Variant(
        all_images,
        instead={f"lancet_onnx.repair.choose.{name}": value for name, value in constants.items()},
    )


ABLATION: Mapping[str, Variant] = {
    "tune, as it is": Variant(all_images),
    "auto, as it is": Variant(all_images, "auto"),
    "flip with compensation": Variant(all_images, "flip"),
    "flip without compensation": Variant(all_images, "flip", settings=Settings(compensate=False)),
    "mute with compensation": Variant(all_images, "mute", settings=Settings(kind="mute")),
    "start with 3 % instead of all weights": Variant(all_images, tuning=replace(USUAL, warm=())),
    "straight to 0.1 %": Variant(all_images, tuning=replace(USUAL, warm=(), ladder=(0.001,))),
    "0.1 % only": Variant(
        all_images, tuning=replace(USUAL, warm=(1.0, 0.1, 0.03, 0.01, 0.003), ladder=(0.001,))
    ),
    "all weights": Variant(all_images, tuning=replace(USUAL, warm=(), ladder=(1.0,), steps=480)),
    "no push": Variant(all_images, tuning=replace(USUAL, push=0.0)),
    "clean term 10, push 2": Variant(all_images, tuning=replace(USUAL, clean=10.0, push=2.0)),
    "clean term 90, push 18": Variant(all_images, tuning=replace(USUAL, clean=90.0, push=18.0)),
    "push 2": Variant(all_images, tuning=replace(USUAL, push=2.0)),
    "no mixtures": Variant(all_images, tuning=replace(USUAL, mix=0.0)),
    "no shifts": Variant(all_images, tuning=replace(USUAL, shift=0.0)),
    "half the steps": Variant(all_images, tuning=replace(USUAL, steps=40)),
    "twice the steps": Variant(all_images, tuning=replace(USUAL, steps=160)),
    "twice the rate": Variant(all_images, tuning=replace(USUAL, rate=2 * USUAL.rate)),
    "half the rate": Variant(all_images, tuning=replace(USUAL, rate=USUAL.rate / 2)),
    "one step size for all layers": trained_by(trainers.OneRate),
    "a long memory of gradients": Variant(
        all_images, instead={"lancet_onnx.repair.moving.BETA2": 0.999}
    ),
    "labels as answers": trained_by(trainers.HardAnswers),
    "softer answers": trained_by(trainers.SoftAnswers),
    "a square loss on logits": trained_by(trainers.SquareLoss),
    "averaged weights": trained_by(trainers.Averaged),
    "only mixtures": Variant(all_images, tuning=replace(USUAL, mix=1.0)),
    "half the batch, twice the steps": Variant(
        all_images, tuning=replace(USUAL, batch=32, steps=160)
    ),
    "no pruning": Variant(all_images, instead={"lancet_onnx.repair.tune.PRUNED": ()}),
    "choice without regret": Variant(
        all_images, instead={"lancet_onnx.repair.judging.Judged.cost": property(by_loss_alone)}
    ),
    "choice: half a point for fewer weights": chosen_by(AS_GOOD=0.005, HOPELESS=0.03),
    "choice: two points for fewer weights": chosen_by(AS_GOOD=0.02, HOPELESS=0.03),
    "a factor a channel, and biases": Variant(all_images, channels=True),
}
COUNTS = (5, 10, 20, 50, 200)
IMAGES: Mapping[str, Variant] = {
    **{f"{n} labelled": Variant(first(n), "auto") for n in COUNTS},
    **{f"{n} unlabelled": Variant(first(n, labelled=False), "auto") for n in COUNTS},
    "all labelled": Variant(all_images, "auto"),
    "200 generated": Variant(generated, "auto"),
}


def run(bench: Bench, variant: Variant, seed: int) -> Line:
    """Repair by a variant and measure it."""
    classifier = bench.subject.classifier
    material = stamped_material(
        classifier,
        variant.images(bench),
        bench.stamp,
        bench.prepared.preprocess,
        bench.target,
        aside=variant.method in ("auto", "tune"),
    )
    spent = classifier.forwards
    if variant.channels:
        offer = scale_channels(classifier, material.lessons, variant.tuning, seed)
    else:
        choice = choose(
            classifier,
            locate(classifier, material),
            material,
            variant.method,
            variant.settings,
            variant.tuning,
            seed,
        )
        if choice.chosen is None:
            return {"error": choice.why}
        offer = choice.chosen.offer
    before = bench.before
    after = bench.measured(to_patch(bench.subject.model, offer.params, "variant", seed, {}))
    return {
        "excess": after["attack_success"].value - before["base_rate"].value,
        "accuracy_change": after["clean_accuracy"].value - before["clean_accuracy"].value,
        "recovery": after["recovery"].value,
        "share": offer.share,
        "image_forwards": round(classifier.forwards - spent),
    }


def table(lines: list[Line], variants: Mapping[str, Variant]) -> str:
    """Return one row a variant: means over models, and the worst."""
    rows = [
        "| variant | models | attack success - base rate, points: mean / worst "
        "| accuracy change, points: mean / worst | recovery, mean | weights, median "
        "| image-forwards, median |",
        "|" + " --- |" * 7,
    ]
    for name in variants:
        found = [line for line in lines if line["variant"] == name]
        good = [line for line in found if "error" not in line]
        if not good:
            if found:
                rows.append(f"| {name} | 0 of {len(found)}, others refused | - | - | - | - | - |")
            continue

        def column(key: str, good: list[Line] = good) -> list[float]:
            return [100 * line[key] for line in good]

        excess, change = column("excess"), column("accuracy_change")
        spent = np.median([line["image_forwards"] for line in good])
        count = f"{len(good)}" + (f" of {len(found)}" if len(good) < len(found) else "")
        rows.append(
            f"| {name} | {count} | {np.mean(excess):+.2f} / {max(excess):+.2f} "
            f"| {np.mean(change):+.2f} / {min(change):+.2f} | {np.mean(column('recovery')):.1f}% "
            f"| {np.median(column('share')):.2f}% | {spent:,.0f} |"
        )
    return "\n".join(rows)


def main() -> int:
    """Run what is missing and print the table."""
    parser = case_options(__doc__)
    parser.add_argument("what", choices=("ablation", "images"))
    parser.add_argument("--variants", nargs="*", default=[])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    variants = ABLATION if options.what == "ablation" else IMAGES
    if options.variants:
        variants = {name: variants[name] for name in options.variants}
    done = {(line["model"], line["variant"]) for line in read_lines(options.results)}
    for case in find_cases(options.cases, options.only):
        bench = None
        for name, variant in variants.items():
            if (case.name, name) in done:
                continue
            bench = bench or Bench.open(case, options.seed)
            line: Line = {"model": case.name, "variant": name}
            try:
                with ExitStack() as stack:
                    for target, value in variant.instead.items():
                        stack.enter_context(mock.patch(target, value))
                    line |= run(bench, variant, options.seed)
            except LancetError as error:
                line["error"] = str(error)
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), file=sys.stderr, flush=True)
    print(table(read_lines(options.results), variants))
    return 0


if __name__ == "__main__":
    sys.exit(main())
