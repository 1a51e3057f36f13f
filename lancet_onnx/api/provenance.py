# SPDX-License-Identifier: Apache-2.0
"""Where a patched model comes from: its patch lies beside it and leads back to the base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lancet_onnx.errors import LancetError, PatchError
from lancet_onnx.model import OnnxModel
from lancet_onnx.model.files import temporary_folder
from lancet_onnx.model.write import notes, read_note, reverted
from lancet_onnx.patch import ENDING, opened_patch, usual_path
from lancet_onnx.verify.gate_policy import Result

MOST = 64
"""Patches of other names that are looked at beside a model."""


@dataclass(frozen=True, slots=True)
class _Beside:
    """A patch beside a model: what it was made for and gives, and which change it is."""

    path: Path
    base: str
    result: str | None
    change: str


def provenance(model: OnnxModel) -> tuple[Result, str]:
    """Return whether a patched model has its patch beside it that leads back to its base.

    A model that nothing says was patched passes, as does one beside a patch for it.
    """
    noted = [note for note in map(_noted, notes(model.graph.metadata)) if note]
    own = usual_path(model.path)
    try:
        beside = _beside(model.path, own)
    except PatchError as error:
        return "fail", f"the patch beside the model cannot be read: {error}"
    digest = str(model.digest)
    patch = next((each for each in beside if each.result == digest), None)
    if patch is None:
        named = next((each for each in beside if each.path == own), None)
        if named is not None and named.base != digest:
            return "fail", (
                f"{own.name} lies beside the model, but gives another one (digest "
                f"{(named.result or 'unknown')[:12]}..., here {digest[:12]}...): the model was "
                "changed after it was patched, or it is another patch"
            )
        if noted:
            return "not_evaluated", (
                "the model says that lancet-onnx patched it (base "
                f"{noted[-1].get('base', 'unknown')[:12]}...), but its patch does not lie beside "
                "it; put it there"
            )
        return "pass", "nothing says that lancet-onnx patched this model"
    if noted and (noted[-1].get("base"), noted[-1].get("change")) != (patch.base, patch.change):
        return "fail", (
            f"{patch.path.name} gives this model, but the model names another patch (base "
            f"{noted[-1].get('base', 'unknown')[:12]}..., change "
            f"{noted[-1].get('change', 'unknown')[:12]}...)"
        )
    try:
        _revert(model, patch.path)
    except LancetError as error:
        return "fail", f"{patch.path.name} does not lead back to its base: {error}"
    return "pass", f"{patch.path.name} leads back to its base {patch.base[:12]}..."


def _beside(model: Path, own: Path) -> list[_Beside]:
    """Return the patches in the model's folder, the one of its name first."""
    others = sorted(path for path in model.parent.glob(f"*{ENDING}") if path != own)[:MOST]
    found = []
    for path in ([own] if own.exists() else []) + others:
        try:
            with opened_patch(path) as patch:
                result = str(patch.result) if patch.result else None
                found.append(_Beside(path, str(patch.base), result, str(patch.identity)))
        except LancetError as error:
            if path == own:  # others may be of other models, and are none of this one's business
                raise PatchError(str(error)) from error
    return found


def _revert(model: OnnxModel, patch: Path) -> None:
    """Revert the patch in a temporary folder; that fails unless it gives the recorded base."""
    with (
        temporary_folder() as folder,
        opened_patch(patch) as change,
        reverted(model.contents, change, Path(folder) / "base.onnx"),
    ):
        pass


def _noted(note: str) -> dict[str, str]:
    """Return what an entry in a model's metadata says of its patch."""
    said = read_note(note)
    return {key: value for key in ("base", "change") if isinstance(value := said.get(key), str)}
