# SPDX-License-Identifier: Apache-2.0
"""What is looked for in a model, each with an identifier that stays; docs/rules.md explains them.

LNC0xx are findings of behaviour (LNC01x those that a gate's policy asks for), LNC1xx concern the
file, LNC2xx the graph's logic, LNC3xx the limits under which a model is run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "high", "medium", "low"]
Level = Literal["error", "warning", "note"]

LEVELS: Mapping[str, Level] = {
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "note",
}
"""How pipelines are told of each severity, in SARIF's words."""

PAGE = "docs/rules.md"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its identifier, what it is about in few words, and how bad a breach is."""

    id: str
    title: str
    severity: Severity

    @property
    def level(self) -> Level:
        """How pipelines are told of a breach."""
        return LEVELS[self.severity]


TRIGGER = Rule("LNC001", "a trigger controls the answer", "critical")
RECONSTRUCTED = Rule("LNC002", "a reconstructed trigger controls the answer", "critical")

ACCURACY = Rule("LNC010", "less clean accuracy than the policy asks for", "high")
LISTED = Rule("LNC011", "a listed trigger works more often than the policy allows", "critical")
PARITY = Rule("LNC012", "two engines disagree on the answer", "high")
PROVENANCE = Rule("LNC013", "a patched model that its patch does not lead to", "high")
DEAD = Rule("LNC014", "a layer whose weights are all zero", "medium")
EXPIRED = Rule("LNC015", "an allowance that has expired", "medium")

NO_MODEL = Rule("LNC101", "not a complete ONNX model", "high")
DAMAGED = Rule("LNC102", "damaged protobuf", "high")
TOO_LARGE = Rule("LNC103", "larger than is handled", "medium")
TOO_MANY_NODES = Rule("LNC104", "more nodes than are handled", "medium")
TOO_DEEP = Rule("LNC105", "nested deeper than is handled", "high")
WRONG_SIZE = Rule("LNC106", "a tensor's bytes and shape disagree", "high")
TWO_FIELDS = Rule("LNC107", "a tensor states its values twice", "critical")
NAMES = Rule("LNC108", "names that are missing, double or no text", "high")
OUTSIDE = Rule("LNC109", "data outside the model's folder", "critical")
DATA_FILE = Rule("LNC110", "a data file that does not hold what it should", "high")
CUSTOM = Rule("LNC111", "a custom operator", "high")
COMPILED = Rule("LNC112", "a compiled blob", "critical")
NOT_FINITE = Rule("LNC113", "NaN or infinity in weights", "high")
BROKEN_GRAPH = Rule("LNC114", "values that nothing computes, or cycles", "high")
BOMB = Rule("LNC115", "a few bytes that ask for much memory", "high")
ARITY = Rule("LNC116", "a node with too few or too many inputs or outputs", "high")
BRANCH = Rule("LNC201", "a branch on the raw input", "critical")
BYPASS = Rule("LNC202", "the raw input scales the answer past the weights", "critical")
DORMANT = Rule("LNC203", "a switch that never moves on ordinary images", "high")

MEMORY = Rule("LNC301", "more memory than it may take", "medium")
TIME = Rule("LNC302", "more time than it may take", "medium")
CRASH = Rule("LNC303", "the process that ran the model died", "high")

RULES = {rule.id: rule for rule in list(globals().values()) if isinstance(rule, Rule)}
"""All rules by their identifiers."""


def page_of(rule: str) -> str:
    """Return where a rule is explained, by its identifier; of no rule, the page of all."""
    return f"{PAGE}#{rule.lower()}" if rule else PAGE


def fingerprint_of(*names: str) -> str:
    """Return what stays the same for the same finding in another run: of names, not of figures."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:32]
