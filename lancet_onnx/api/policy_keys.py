# SPDX-License-Identifier: Apache-2.0
"""The one table of what a policy may say: reading, docs/policy.md and the JSON schema follow it."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lancet_onnx.rules import DEAD, DORMANT, PAGE, RULES

CHECKS: Mapping[str, str] = {
    "precheck": "the file is a complete, harmless ONNX model",
    "weights": "no NaN or infinity in any weight, and no layer of zeros",
    "graph-logic": "no switch on the raw input, and none that sleeps",
    "provenance": "a patched model has its patch beside it, which leads back to its base",
    "parity": "torch and onnxruntime give the same scores",
    "parity-gpu": "onnxruntime gives the same scores on the CPU and on the GPU (`parity_gpu`)",
    "clean-accuracy": "enough of the labelled images are right (`min_clean_accuracy`)",
    "trigger": "no listed trigger works too often (`[[trigger]]`, each `trigger:PATH`; the second "
    "of one path `trigger:PATH#2`)",
    "scan": "a search finds no trigger that nobody knows (`scan`)",
}
"""The checks by their ids."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be: in words, as a test, and as JSON schema."""

    words: str
    holds: Callable[[object], bool]
    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section.

    Attributes:
        name: the key.
        kind: what it must be.
        doc: what it does, one sentence.
        example: a value as TOML writes it.
        usual: what holds where it is not given, in words.
        required: whether it must be given.
    """

    name: str
    kind: Kind
    doc: str
    example: str
    usual: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the policy, or with `many` a list of tables."""

    name: str
    doc: str
    keys: tuple[Key, ...]
    many: bool = False

    @property
    def header(self) -> str:
        """The header as TOML writes it."""
        return f"[[{self.name}]]" if self.many else f"[{self.name}]"


def _number(value: object) -> bool:
    whole_or_not = isinstance(value, (int, float)) and not isinstance(value, bool)
    return whole_or_not and math.isfinite(value)  # type: ignore[arg-type]


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _list_of(holds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(holds, value))


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _choice(*words: str) -> Kind:
    shown = ", ".join(f'"{word}"' for word in words)
    return Kind(f"one of {shown}", lambda value: value in words, {"enum": list(words)})


def _choices(words: str, known: tuple[str, ...], pattern: str) -> Kind:
    def holds(value: object) -> bool:
        return isinstance(value, str) and re.fullmatch(pattern, value) is not None

    items = {"type": "string", "pattern": f"^(?:{pattern})$", "examples": list(known)}
    return Kind(
        words,
        lambda value: isinstance(value, list) and all(map(holds, value)),
        {"type": "array", "items": items},
    )


def _day(value: object) -> bool:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return True
    try:
        return (
            isinstance(value, str)
            and bool(datetime.date.fromisoformat(value))
            and (len(value) == len("2027-01-31"))
        )
    except ValueError:
        return False


TEXT = Kind("text", _text, {"type": "string", "minLength": 1})
PATH = Kind("a path as text", _text, {"type": "string", "minLength": 1})
PATHS = Kind(
    "a path, or a list of paths, as text",
    lambda value: _text(value) or _list_of(_text)(value),
    {
        "oneOf": [
            {"type": "string", "minLength": 1},
            {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
        ]
    },
)
FLAG = Kind("true or false", lambda value: isinstance(value, bool), {"type": "boolean"})
SHARE = Kind(
    "a number from 0 to 1",
    lambda value: _number(value) and 0 <= value <= 1,  # type: ignore[operator]
    {"type": "number", "minimum": 0, "maximum": 1},
)
POSITIVE = Kind(
    "a number over 0",
    lambda value: _number(value) and value > 0,  # type: ignore[operator]
    {"type": "number", "exclusiveMinimum": 0},
)
WHOLE = Kind("a whole number from 0 on", _whole, {"type": "integer", "minimum": 0})
NUMBERS = Kind(
    "a list of numbers", _list_of(_number),
    {"type": "array", "minItems": 1, "items": {"type": "number"}},
)  # fmt: skip
PLACE = Kind(
    "two whole numbers, [left, top]",
    lambda value: _list_of(_whole)(value) and len(value) == 2,  # type: ignore[arg-type]
    {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer", "minimum": 0}},
)
SIZE = Kind(
    'a size such as "4G" or "500M"',
    lambda value: (
        isinstance(value, str)
        and re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?\s*[KMGTkmgt]?(i?[Bb])?", value) is not None
    ),
    {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?\\s*[KMGTkmgt]?(i?[Bb])?$"},
)
DAY = Kind(
    "a day such as 2027-01-31", _day, {"type": "string", "pattern": "^\\d{4}-\\d{2}-\\d{2}$"}
)
DIGEST = Kind(
    "a SHA-256, 64 hexadecimal digits",
    lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    {"type": "string", "pattern": "^[0-9a-f]{64}$"},
)
RULE = Kind(
    f"an identifier of {PAGE} such as \"{DORMANT.id}\"",
    lambda value: isinstance(value, str) and value in RULES,
    {"enum": sorted(RULES)},
)  # fmt: skip
RULE_LIST = Kind(
    f"a list of identifiers of {PAGE}",
    lambda value: isinstance(value, list) and all(map(RULE.holds, value)),
    {"type": "array", "items": {"enum": sorted(RULES)}},
)
CHECK_LIST = _choices(
    f"a list of checks: {', '.join(CHECKS)}", tuple(CHECKS), "|".join(CHECKS) + "|trigger:.+"
)

SECTIONS: tuple[Section, ...] = (
    Section(
        "model",
        "Which models, where the command line names none.",
        (
            Key("path", PATHS, "A model, a folder, or a pattern; or several.", '"model.onnx"'),
            Key("output", TEXT, "Which of the model's outputs holds the scores.", '"logits"',
                "the first that can"),
        ),
    ),
    Section(
        "data",
        "Images, and how the model wants them; other commands read this section of ./lancet.toml "
        "as well.",
        (
            Key("path", PATH, "Folder of class folders, flat folder, .npz (x, y) or CSV.",
                '"val/"', "no images"),
            Key("preprocess", TEXT, "unit, minus1to1, imagenet, uint8, none, a .toml or a "
                "preprocessor_config.json.", '"unit"', "what the model or a file beside it says"),
            Key("mean", NUMBERS, "Means, overriding preprocess.", "[0.485, 0.456, 0.406]"),
            Key("std", NUMBERS, "Deviations, likewise.", "[0.229, 0.224, 0.225]"),
            Key("color", _choice("rgb", "bgr"), "Channel order the model wants.", '"bgr"'),
            Key("layout", _choice("nchw", "nhwc"), "Axis order the model wants.", '"nhwc"',
                "read from the model"),
            Key("resize", _choice("squash", "shortest"), "How pictures of another size are "
                "fitted.", '"shortest"', "squash"),
        ),
    ),
    Section(
        "gate",
        "What is asked of a model, and with what means.",
        (
            Key("min_clean_accuracy", SHARE, "Least share of the labelled images that must be "
                "right.", "0.9", "not asked for"),
            Key("max_attack_success", SHARE, "Largest share of triggered images that may get the "
                "attacker's class, for each [[trigger]]; no more than a point over the share "
                "without it always may.", "0.05", "0.05"),
            Key("scan", FLAG, "Also search all classes for a trigger that nobody knows.", "true",
                "false"),
            Key("scan_budget", POSITIVE, "Seconds for that search; the best verdict in this time.",
                "120", "all it needs"),
            Key("parity_tolerance", POSITIVE, "Largest difference between two engines, as a share "
                "of the largest score.", "1e-4", "by type and device, 1e-4 for floats on a CPU"),
            Key("parity_gpu", FLAG, "Also compare onnxruntime on the CPU and on the GPU.", "true",
                "false"),
            Key("allowed_rules", RULE_LIST, "Rules that never fail this gate; [[allow]] is for "
                "single findings.", f'["{DEAD.id}"]'),
            Key("allow_not_evaluated", CHECK_LIST, "Checks that may go without an answer.",
                '["parity-gpu"]', "none"),
            Key("device", _choice("auto", "cpu", "cuda"), "Where onnxruntime runs; cuda fails "
                "without one.", '"cpu"', "auto"),
            Key("seed", WHOLE, "Of the split and every other random choice.", "0", "0"),
            Key("memory_limit", SIZE, "Memory for the process that runs a model.", '"8G"',
                "3/4 of the machine's, shared among --jobs"),
            Key("timeout", POSITIVE, "Seconds for one model.", "600",
                "3600 on top of scan_budget"),
        ),
    ),
    Section(
        "trigger",
        "A trigger that must not work; one table for each.",
        (
            Key("path", PATH, "Picture, or .npz with mask and pattern.", '"t.png"', required=True),
            Key("mask", PATH, "Grey picture: the trigger's opacity.", '"mask.png"'),
            Key("mode", _choice("replace", "blend", "add"), "How to stamp, instead of what the "
                "picture implies.", '"blend"'),
            Key("position", PLACE, "Where a trigger smaller than the input goes.", "[27, 27]",
                "bottom right"),
            Key("target", WHOLE, "The attacker's class.", "7",
                "the one that the trigger leads to"),
        ),
        many=True,
    ),
    Section(
        "allow",
        "A finding that is let through until a day; then it fails again, and so does the entry. "
        "It needs a model or a class.",
        (
            Key("rule", RULE, "What is let through.", f'"{DORMANT.id}"', required=True),
            Key("reason", TEXT, "Why.", '"a dead unit, looked at by Ada"', required=True),
            Key("expires", DAY, "The last day.", "2027-01-31", required=True),
            Key("model", DIGEST, "Digest of the model that it holds for.", f'"{"0" * 64}"',
                "every model"),
            Key("class", WHOLE, "Class of the finding that it holds for.", "7", "every class"),
        ),
        many=True,
    ),
    Section(
        "baseline",
        "An earlier report: only findings that are new or worse fail.",
        (Key("path", PATH, "JSON that `lancet-onnx gate -f json -o FILE` wrote.",
             '"gate-baseline.json"', required=True),),
    ),
)  # fmt: skip
"""The sections in the order in which they are shown."""


def json_schema() -> dict[str, object]:
    """Return the JSON schema (2020-12) of a policy, for editors."""
    sections: dict[str, object] = {}
    for section in SECTIONS:
        table: dict[str, object] = {
            "type": "object",
            "description": section.doc,
            "additionalProperties": False,
            "properties": {
                key.name: {**key.kind.schema, "description": key.doc} for key in section.keys
            },
        }
        required = [key.name for key in section.keys if key.required]
        if required:
            table["required"] = required
        if section.name == "allow":
            table["anyOf"] = [{"required": ["model"]}, {"required": ["class"]}]
        sections[section.name] = {"type": "array", "items": table} if section.many else table
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lancet.toml, the policy of lancet-onnx",
        "type": "object",
        "additionalProperties": False,
        "properties": sections,
    }
