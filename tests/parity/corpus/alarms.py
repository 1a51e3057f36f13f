# SPDX-License-Identifier: Apache-2.0
"""False alarms: honest architectures in which a graph-logic backdoor is seen; none are expected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from corpus.building import in_child, say
from corpus.store import Record, load_inputs, paths, read

BRANCHING = {
    "hand/if": "If on the mean of the input",
    "hand/indexing": "ArgMax and TopK of the input choose",
    "hand/loop": "a Loop that an input ends",
    "small/branching@dynamo20-if": "torch.cond on the mean of the input",
    "small/repeating@legacy17-loop": "an input says how often to go on",
}
"""Models that branch on their raw input, each for a reason: to try If, Loop and the like."""


def alarms(cache: Path, only: Sequence[str] | None, *, seconds: int = 240) -> int:
    """Look for switches in every file of the cache; print what is found; 1 for any alarm."""
    import torch

    torch.set_num_threads(1)
    records = [r for r in read(cache) if not only or any(part in r.name for part in only)]
    made = sorted((r for r in records if not r.error), key=lambda record: record.bytes)
    run = alarmed = failed = branching = missed = 0
    for record in made:
        outcome = _in_child(cache, record, seconds)
        if "error" in outcome:
            failed += 1
            say(f"{record.name}: {outcome['error']}")
        run += bool(outcome.get("run"))
        switches = outcome.get("switches", ())
        if record.name in BRANCHING:
            branching += bool(switches)
            missed += not switches
        else:
            alarmed += bool(switches)
        for text in switches:
            say(f"{record.name}: {text}")
    say(
        f"{len(made)} files looked at, {run} of them also while they ran; {alarmed} alarms, "
        f"{failed} that could not be looked at; of those that branch on the input on purpose "
        f"{branching} are said to, {missed} are not"
    )
    return 1 if alarmed or failed or missed else 0


def _in_child(cache: Path, record: Record, seconds: int) -> dict[str, object]:
    file = paths(cache, record.name)[2].with_suffix(".logic")
    file.unlink(missing_ok=True)
    reason = in_child(lambda: file.write_text(json.dumps(look(cache, record))), seconds)
    if not file.exists():
        return {"error": reason or "the look died"}
    outcome: dict[str, object] = json.loads(file.read_text())
    file.unlink()
    return outcome


def look(cache: Path, record: Record) -> dict[str, object]:
    """Return the switches of one file, and whether it could be run to look for dormant ones."""
    from lancet_onnx.errors import LancetError
    from lancet_onnx.model import load
    from lancet_onnx.runtime.classifier import Classifier
    from lancet_onnx.runtime.dormant import switches

    model = load(cache / record.file)
    try:
        classifier: Classifier | None = Classifier(model.graph)
    except LancetError:
        classifier = None
    try:
        found = switches(model.graph, classifier)
        if classifier is not None and len(record.inputs) == 1:
            (own,) = load_inputs(cache, record).values()
            found += switches(model.graph, classifier, own)
    except LancetError as error:
        return {"error": str(error), "run": classifier is not None}
    texts = (f"{s.rule.id} {s.node}: {s.text} ({' > '.join(s.path)})" for s in found)
    return {"run": classifier is not None, "switches": list(dict.fromkeys(texts))}
