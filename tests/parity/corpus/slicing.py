# SPDX-License-Identifier: Apache-2.0
"""The part that CI runs: a few small entries that together hold every operator of the table."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from corpus.alarms import alarms
from corpus.building import build, say
from corpus.catalogue import recipes
from corpus.checking import check, load_row
from corpus.store import read

PAGE = Path(__file__).resolve().parents[3] / "docs" / "coverage.md"
_OPERATORS = re.compile(r"^\d+ operators: (.*)\.$", re.MULTILINE)

# What CI has; the other exporters' operators must come from hand-made graphs.
_THERE = {"torch", "torchvision", "onnxscript", "onnxruntime"}

# As `slice --choose` printed it over the whole corpus.
_COVERING = (
    "hand/audio",
    "hand/backwards",
    "hand/classical",
    "hand/elementwise",
    "hand/if",
    "hand/indexing",
    "hand/new_operators",
    "hand/old_cnn@opset7",
    "hand/old_gru@opset7",
    "hand/old_mlp@opset7",
    "hand/old_rnn@opset8",
    "hand/scan",
    "hand/sequences",
    "hand/spatial_transformer",
    "hand/unusual_pooling",
    "optimised/bert_tiny@ort_extended_17",
    "optimised/bert_tiny@ort_extended_20",
    "optimised/convnet@ort_extended_17",
    "optimised/lstm@ort_extended_17",
    "optimised/tinyvit@ort_extended_20",
    "quantised/convnet@qoperator_int8_channels",
    "quantised/lstm@dynamic_int8",
    "quantised/tinyvit@qoperator_int8_channels",
    "small/bert_tiny@legacy11",
    "small/mlp@legacy17-batch1",
    "small/repeating@legacy17-loop",
    "small/up_down@legacy17",
)
# One or two of every other kind of file.
_KINDS = (
    "hand/channels_last@opset17",
    "hand/constants",
    "hand/functions_nested",
    "hand/functions_onnxscript",
    "hand/loop",
    "hand/old_cnn@opset9",
    "hand/old_lstm@opset7",
    "hand/resizing@opset19",
    "hand/tied",
    "hand/volume",
    "optimised/convnet@ort_basic_17",
    "quantised/convnet@qdq_int16",
    "quantised/convnet@qdq_int8_channels",
    "quantised/convnet@qdq_uint8",
    "quantised/tinyvit@dynamic_int8",
    "small/branching@dynamo20-if",
    "small/convnet@dynamo20",
    "small/convnet@dynamo20-float16",
    "small/convnet@dynamo25-batch2",
    "small/convnet@legacy11",
    "small/encoder@dynamo20",
    "small/experts@dynamo20",
    "small/gru_two_ways@dynamo20",
    "small/linear_attention@dynamo20",
    "small/lstm@dynamo20",
    "small/lstm@legacy17-float64",
    "small/state_space@dynamo20",
    "small/tinyvit@dynamo20",
    "small/tinyvit@dynamo23-bfloat16",
    "small/tinyvit@dynamo24-batch2",
    "small/two_inputs@dynamo20",
    "small/vit_plain@legacy13",
    "small/volume@dynamo20",
    "torchvision/mnasnet0_5@legacy",
    "torchvision/mobilenet_v3_small@dynamo",
    "torchvision/shufflenet_v2_x0_5@dynamo",
    "torchvision/squeezenet1_1@dynamo",
)
NAMES = (*_COVERING, *_KINDS)


def run_slice(cache: Path | None) -> int:
    """Build and check the slice, and look for switches in it that are none.

    Returns 1 if a row fails, an export fails, an operator is missing or there is a false alarm.
    """
    if cache is None:
        with tempfile.TemporaryDirectory() as folder:
            return run_slice(Path(folder))
    chosen = [recipe for recipe in recipes() if recipe.name in NAMES]
    done = build(chosen, cache)
    say(", ".join(f"{name}: {count}" for name, count in done.items()))
    failed = check(cache, NAMES) or alarms(cache, NAMES)
    seen = {o for record in read(cache) if (row := load_row(cache, record)) for o in row.operators}
    missing = sorted(_table_operators() - seen)
    if missing:
        say("operators of the table that the slice does not hold: " + ", ".join(missing))
    return int(bool(failed or missing or done["failed"] or done["left"]))


def choose(cache: Path | None) -> int:
    """Print a set that covers every operator of the table, small and quick entries first."""
    if cache is None:
        say("--choose wants the --cache of a whole corpus")
        return 2
    needs = {recipe.name: set(recipe.needs) for recipe in recipes()}
    offers: dict[str, tuple[float, set[str]]] = {}
    everything: set[str] = set()
    for record in read(cache):
        row = load_row(cache, record)
        if row is None or not row.converted:
            continue
        everything |= set(row.operators)
        if needs.get(record.name, {""}) <= _THERE and row.holds(record.kind):
            offers[record.name] = record.seconds + row.seconds, set(row.operators)
    picked: list[str] = []
    left = set(everything)
    while left:
        gains = {n: len(ops & left) / (2 + cost) for n, (cost, ops) in offers.items()}
        best = max(gains, key=gains.__getitem__, default="")
        if not best or not gains[best]:
            break
        picked.append(best)
        left -= offers.pop(best)[1]
    say("\n".join(f'    "{name}",' for name in sorted(picked)))
    say(f"{len(everything)} operators; not covered: {', '.join(sorted(left)) or 'none'}")
    return 0


def _table_operators() -> set[str]:
    found = _OPERATORS.search(PAGE.read_text()) if PAGE.exists() else None
    return set(found[1].split(", ")) if found else set()
