# SPDX-License-Identifier: Apache-2.0
"""Patches as people use them: show, apply, revert, diff, compose. Nothing here runs a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from lancet_onnx.errors import PatchError
from lancet_onnx.model.contents import Contents, survey
from lancet_onnx.model.diff import difference
from lancet_onnx.model.digests import descriptor_digest, file_digest
from lancet_onnx.model.files import (
    check_data_files,
    check_output,
    saving,
    temporary_folder,
)
from lancet_onnx.model.write import applied, reverted
from lancet_onnx.patch import Patch, TensorDelta, compose, opened_patch, write_patch
from lancet_onnx.report.report import Report
from lancet_onnx.runtime.installed import version_of
from lancet_onnx.types import Digest

SIGNATURES = (".sig", ".asc", ".minisig", ".sigstore", ".sigstore.json", ".intoto.jsonl")
"""Endings of files that sign others."""


def show_patch(path: Path) -> Report:
    """Say what a patch changes, where, how many numbers and by how much, and who made it.

    Raises:
        PatchError: the file is no patch, or a damaged one.
    """
    with opened_patch(path) as patch:
        targets = [_describe_delta(delta) for delta in patch.deltas]
        body = {
            "patch": {"path": str(path), "sha256": str(file_digest(path)), "format": 1},
            "tool": patch.tool,
            "method": patch.method,
            "seed": patch.seed,
            "base": str(patch.base),
            "base_weights": str(patch.base_weights) if patch.base_weights else None,
            "result": str(patch.result) if patch.result else None,
            "weights_changed": patch.size,
            "targets": targets,
            "metadata": dict(patch.metadata),
            "metrics": dict(patch.metrics),
        }
    return Report("patch show", "done", (), body)


def apply_patch(model: Path, patch: Path, output: Path, *, force: bool = False) -> Report:
    """Write the model that `patch` makes of `model` to `output`.

    Raises:
        LancetError: the patch is for another model, the model cannot be read, or the output cannot
            be written; then there is no new file.
    """
    with ExitStack() as stack:
        change = stack.enter_context(opened_patch(patch))
        contents = stack.enter_context(survey(model))
        _check(output, contents, [patch], force=force)
        made, stage = stack.enter_context(applied(contents, change, output))
        same_base = stage.before == change.base
        body = {
            "model": {"path": str(model), "sha256": str(stage.before)},
            "patch": {"path": str(patch), "sha256": str(file_digest(patch))},
            "weights_changed": made.size,
            "base_matched_by": "digest" if same_base else "weights",
            "output": {"path": str(output), "sha256": str(stage.after)},
        }
        reasons = signatures_beside(model)
        if not same_base:
            reasons = (
                "the file is not the patch's base, but holds the same weights: the result is not "
                "the file that the patch names",
                *reasons,
            )
        stage.commit()  # the last thing that can fail
    return Report("patch apply", "done", reasons, body)


def revert_patch(model: Path, patch: Path, output: Path, *, force: bool = False) -> Report:
    """Write the model that `patch` was applied to, given its result, to `output`.

    Raises:
        LancetError: `model` is not the patch's result, or the output cannot be written; then there
            is no new file.
    """
    with ExitStack() as stack:
        change = stack.enter_context(opened_patch(patch))
        contents = stack.enter_context(survey(model))
        _check(output, contents, [patch], force=force)
        stage = stack.enter_context(reverted(contents, change, output))
        body = {
            "model": {"path": str(model), "sha256": str(stage.before)},
            "patch": {"path": str(patch), "sha256": str(file_digest(patch))},
            "weights_changed": change.size,
            "output": {"path": str(output), "sha256": str(stage.after)},
        }
        reasons = signatures_beside(model)
        stage.commit()
    return Report("patch revert", "done", reasons, body)


def diff_models(before: Path, after: Path, output: Path, *, force: bool = False) -> Report:
    """Write the patch that turns the model `before` into `after`.

    Raises:
        PatchError: the models differ in more than weights; the first such difference is named.
        LancetError: a model cannot be read, or the output cannot be written.
    """
    check_output(output, [before, after], force=force)
    with ExitStack() as stack:
        one, other = (stack.enter_context(survey(path)) for path in (before, after))
        found = difference(one, other)
        patch = by_this_tool(
            Patch(found.before, None, found.after, found.deltas, "diff", 0, {}, found.metadata)
        )
        if not found.exact:
            _check_diff(one, patch, before, after)
        targets = [_describe_delta(delta) for delta in patch.deltas]
        saved = save_patch(patch, output)
    body = {
        "before": {"path": str(before), "sha256": str(found.before)},
        "after": {"path": str(after), "sha256": str(found.after)},
        "weights_changed": patch.size,
        "targets": targets,
        "patch": {"path": str(output), "sha256": str(saved)},
    }
    return Report("patch diff", "done", (), body)


def compose_patches(first: Path, second: Path, output: Path, *, force: bool = False) -> Report:
    """Write the patch that does what `first` and then `second` do.

    Raises:
        PatchError: `second` does not continue `first`.
        LancetError: a patch cannot be read, or the output cannot be written.
    """
    check_output(output, [first, second], force=force)
    with opened_patch(first) as one, opened_patch(second) as other:
        patch = by_this_tool(compose(one, other))
        body = {
            "patches": [
                {"path": str(path), "sha256": str(file_digest(path))} for path in (first, second)
            ],
            "base": str(patch.base),
            "result": str(patch.result),
            "weights_changed": patch.size,
            "targets": [_describe_delta(delta) for delta in patch.deltas],
        }
        saved = save_patch(patch, output)
    body["patch"] = {"path": str(output), "sha256": str(saved)}
    return Report("patch compose", "done", (), body)


def save_patch(patch: Patch, path: Path) -> Digest:
    """Write a patch file completely or not at all, and return its digest.

    Raises:
        OutputError: no space, no permission; what was there before is still there.
    """
    with saving(path) as target:
        write_patch(patch, target)
        return descriptor_digest(target)


def by_this_tool(patch: Patch) -> Patch:
    """Return the patch signed with the name and version of this program."""
    return replace(patch, tool=f"lancet-onnx {version_of('lancet-onnx')}")


def signatures_beside(model: Path) -> tuple[str, ...]:
    """Return a sentence for signatures beside `model`, which do not hold for a changed one."""
    found: list[str] = []
    with suppress(OSError):  # a folder that cannot be listed
        found = sorted(
            path.name
            for path in model.absolute().parent.iterdir()
            if path.name.endswith(SIGNATURES) and path.is_file()
        )
    if not found:
        return ()
    return (
        f"{', '.join(found)} beside {model.name} may sign it: the new model is another file and "
        "must be signed again",
    )


def _check(output: Path, contents: Contents, inputs: Iterable[Path], *, force: bool) -> None:
    data = contents.data_files
    check_output(output, [contents.path, *data.values(), *inputs], force=force)
    check_data_files(output, data)


def _check_diff(contents: Contents, patch: Patch, before: Path, after: Path) -> None:
    """Refuse a difference that a patch would not give back byte for byte."""
    with temporary_folder() as folder:
        try:
            with applied(contents, patch, Path(folder) / "result.onnx"):
                pass
        except PatchError as error:
            raise PatchError(
                f"{before} and {after} hold other weights, but are also written in another form; "
                f"a patch cannot say that ({error})"
            ) from error


def _describe_delta(delta: TensorDelta) -> Mapping[str, object]:
    """Return what a delta changes: how many elements, how many only in sign, by how much."""
    largest, total, flipped = 0.0, 0.0, 0
    for block in delta.blocks():
        old, new = (_numbers(column, delta.dtype) for column in (block.old, block.new))
        with np.errstate(all="ignore"):
            change = np.abs(new - old)
        largest = max(largest, float(np.nanmax(change, initial=0.0)))
        total += float(np.nansum(change))
        flipped += int(((new == -old) & (old != 0)).sum())
    size = int(np.prod(delta.shape, dtype=object))
    return {
        "initializer": delta.param,
        "dtype": delta.dtype,
        "shape": list(delta.shape),
        "weights_changed": delta.count,
        "share": round(delta.count / size, 6) if size else 0.0,
        "flipped": flipped,
        "largest_change": largest,
        "mean_change": total / delta.count if delta.count else 0.0,
    }


def _numbers(bits: NDArray[np.generic], dtype: str) -> NDArray[np.float64]:
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    with np.errstate(invalid="ignore"):  # a signalling NaN warns on its way through
        return np.ascontiguousarray(bits).view(kind).astype(np.float64)
