# SPDX-License-Identifier: Apache-2.0
"""A policy, from lancet.toml or [tool.lancet] of pyproject.toml, as frozen records.

What keys there are says `policy_keys`; whatever else a file says is an error, since a misspelt
limit that nobody reads would let everything pass.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lancet_onnx.api.options import DataOptions, TriggerOptions
from lancet_onnx.api.policy_keys import SECTIONS, Section
from lancet_onnx.errors import DataError, UsageError
from lancet_onnx.samples import PRESETS
from lancet_onnx.types import Device
from lancet_onnx.verify.gate_policy import Allowance

NAME, PROJECT = "lancet.toml", "pyproject.toml"


@dataclass(frozen=True, slots=True)
class Listed:
    """A trigger that a policy lists.

    Attributes:
        name: its path as the policy writes it, which stays the same on every machine; numbered
            where one path is listed several times.
        options: the trigger, its path relative to the working folder.
    """

    name: str
    options: TriggerOptions


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a model; docs/policy.md describes each under [gate]."""

    min_clean_accuracy: float | None = None
    max_attack_success: float = 0.05
    scan: bool = False
    scan_budget: float | None = None
    parity_tolerance: float | None = None
    parity_gpu: bool = False
    allowed_rules: tuple[str, ...] = ()
    allow_not_evaluated: tuple[str, ...] = ()
    device: Device = "auto"
    seed: int = 0
    memory_limit: str | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a gate goes by.

    Attributes:
        path: the file, None where there is none: then files and graphs alone are looked at.
        sha256: its digest.
        models: models, folders and patterns, relative to the working folder.
        data: images and their preprocessing.
        triggers: triggers that must not work.
        asked: what is asked of a model.
        allow: findings that are let through until a day.
        baseline: an earlier report.
    """

    path: Path | None = None
    sha256: str | None = None
    models: tuple[Path, ...] = ()
    data: DataOptions = field(default_factory=DataOptions)
    triggers: tuple[Listed, ...] = ()
    asked: Asked = field(default_factory=Asked)
    allow: tuple[Allowance, ...] = ()
    baseline: Path | None = None


def find_policy(folder: Path) -> Path | None:
    """Return lancet.toml in a folder, or pyproject.toml if it has [tool.lancet].

    Raises:
        UsageError: a pyproject.toml that is no TOML.
    """
    if (folder / NAME).is_file():
        return folder / NAME
    project = folder / PROJECT
    if project.is_file() and "lancet" in _tool(_toml(project, project.read_bytes())):
        return project
    return None


def read_policy(path: Path) -> Policy:
    """Read a policy; paths in it become relative to the working folder as its own path is.

    Raises:
        UsageError: no TOML, an unknown key (the nearest is named), a value of another type.
        DataError: the file is missing or cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the policy cannot be read ({error.strerror})") from error
    content = _toml(path, data)
    if path.name == PROJECT:
        content = _tool(content).get("lancet")
        if content is None:
            raise UsageError(f"{path}: has no [tool.lancet]; expected a policy there")
        if not isinstance(content, Mapping):
            raise UsageError(f"{path}: [tool.lancet]: found {_shown(content)}, expected a table")
    _check(content, str(path))
    return _built(content, path, hashlib.sha256(data).hexdigest())


def _toml(path: Path, data: bytes) -> Any:
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as TOML ({error})") from error


def _tool(content: Mapping[str, Any]) -> Mapping[str, Any]:
    tool = content.get("tool")
    return tool if isinstance(tool, Mapping) else {}


def _check(content: Mapping[str, object], file: str) -> None:
    sections = {section.name: section for section in SECTIONS}
    for name, value in content.items():
        if name not in sections:
            known = [s.header for s in SECTIONS]
            raise UsageError(f"{file}: has no section [{name}]; {_nearest(f'[{name}]', known)}")
        section = sections[name]
        if section.many:
            if not (isinstance(value, list) and all(isinstance(t, Mapping) for t in value)):
                raise UsageError(
                    f"{file}: {section.header}: found {_shown(value)}, expected a list of tables"
                )
            for number, table in enumerate(value, 1):
                _check_table(section, table, f"{file}: {section.header} {number}")
        elif isinstance(value, Mapping):
            _check_table(section, value, f"{file}: {section.header}")
        else:
            found = "a list of tables" if isinstance(value, list) else _shown(value)
            raise UsageError(f"{file}: {section.header}: found {found}, expected one table")


def _check_table(section: Section, table: Mapping[str, object], where: str) -> None:
    keys = {key.name: key for key in section.keys}
    for name, value in table.items():
        if name not in keys:
            raise UsageError(f"{where} has no key '{name}'; {_nearest(name, keys)}")
        if not keys[name].kind.holds(value):
            words = keys[name].kind.words
            raise UsageError(f"{where} {name}: found {_shown(value)}, expected {words}")
    for key in section.keys:
        if key.required and key.name not in table:
            words = key.kind.words
            raise UsageError(f"{where} has no '{key.name}'; expected {words}: {key.doc}")
    if section.name == "allow" and not {"model", "class"} & table.keys():
        raise UsageError(
            f"{where} has neither 'model' nor 'class'; expected the digest of a model, or a "
            "class, that it holds for"
        )


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known are {', '.join(known)}"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return f"the list {str(value)[:60]}"
    return f"{type(value).__name__} {value}"


def _built(content: Mapping[str, Any], path: Path, digest: str) -> Policy:
    folder = path.parent
    model, data, gate = (content.get(name, {}) for name in ("model", "data", "gate"))
    paths = model.get("path", [])
    preprocess = data.get("preprocess")
    if preprocess is not None and preprocess not in PRESETS:
        preprocess = str(folder / preprocess)
    asked: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in gate.items()
    }
    return Policy(
        path,
        digest,
        tuple(folder / each for each in ([paths] if isinstance(paths, str) else paths)),
        DataOptions(
            folder / data["path"] if "path" in data else None,
            preprocess,
            _floats(data.get("mean")),
            _floats(data.get("std")),
            data.get("color"),
            data.get("layout"),
            data.get("resize"),
            model.get("output"),
        ),
        _all_listed(content.get("trigger", []), folder),
        Asked(**asked),
        tuple(
            Allowance(
                each["rule"],
                each["reason"],
                str(each["expires"]),
                each.get("model"),
                each.get("class"),
            )
            for each in content.get("allow", [])
        ),
        folder / content["baseline"]["path"] if "baseline" in content else None,
    )


def _all_listed(tables: Sequence[Mapping[str, Any]], folder: Path) -> tuple[Listed, ...]:
    """Return the triggers; the second of one path is called ``t.png#2``."""
    seen: Counter[str] = Counter()
    listed = []
    for table in tables:
        name = Path(table["path"]).as_posix()
        seen[name] += 1
        count = seen[name]
        listed.append(_listed(table, folder, f"{name}#{count}" if count > 1 else name))
    return tuple(listed)


def _listed(table: Mapping[str, Any], folder: Path, name: str) -> Listed:
    place = table.get("position")
    return Listed(
        name,
        TriggerOptions(
            folder / table["path"],
            folder / table["mask"] if "mask" in table else None,
            table.get("mode"),
            (place[0], place[1]) if place else None,
            table.get("target"),
        ),
    )


def _floats(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(map(float, values))
