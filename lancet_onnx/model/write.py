# SPDX-License-Identifier: Apache-2.0
"""Apply a `Patch` to a model's files, and revert it.

Elements are replaced where they lie, in the .onnx file or in its external data, while the files are
copied; no message is parsed and written again, so everything else is the same by construction. Only
where integers are coded with as many bytes as they need may a size change, and with it the lengths
of the messages around. Metadata entries that a patch adds are appended at the end, which protobuf
reads as more elements of `metadata_props`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from lancet_onnx.errors import PatchError
from lancet_onnx.model.contents import Contents
from lancet_onnx.model.copying import Overwrites, Rewrite
from lancet_onnx.model.files import Staged, staged
from lancet_onnx.model.placing import Placed, place
from lancet_onnx.model.source import Source, opened
from lancet_onnx.model.wire import Edit, delimited, with_lengths
from lancet_onnx.patch import Patch, TensorDelta
from lancet_onnx.types import Digest

METADATA_KEY = "lancet-onnx"
_METADATA = 14


@contextmanager
def applied(
    contents: Contents, patch: Patch, output: Path, *, digest: Digest | None = None
) -> Iterator[tuple[Patch, Staged]]:
    """Stage the patched model beside `output`; give it, and the patch with its result's digest.

    Positions and old values are checked before anything is written. The base is known by its
    digest, taken while its files are copied (and compared at once where `digest` tells it), or, if
    the file was written anew, by its weights; then the patch's promise of a result cannot be kept
    and does not bind.

    Raises:
        PatchError: another base, an old value that differs in a single bit, an element that a
            sparse tensor does not store, or another result than the patch promises.
        UnsupportedError: an initializer that cannot be written back (see `placing.writable`).
        OutputError: the files cannot be written.
    """
    twin = digest is not None and digest != patch.base
    if digest is not None and twin:
        _check_twin(contents, patch, digest)
    with _staged(contents, patch.deltas, output, entries(patch.metadata), 0) as stage:
        if not twin and stage.before != patch.base:
            twin = True
            _check_twin(contents, patch, stage.before)
        if not twin and patch.result not in (None, stage.after):
            raise PatchError(f"{contents.path}: the result is not the one that the patch promises")
        yield replace(patch, result=stage.after), stage


@contextmanager
def reverted(contents: Contents, patch: Patch, output: Path) -> Iterator[Staged]:
    """Stage the model that `patch` was applied to, beside `output`.

    Raises:
        PatchError: the model is not the patch's result, or the way back does not lead to its base.
    """
    if patch.result is None:
        raise PatchError("the patch does not say what its result is, so it cannot be reverted")
    tail = entries(patch.metadata)
    size = len(contents.source)
    if tail and contents.source[max(size - len(tail), 0) :] != tail:
        raise PatchError(
            f"{contents.path}: the metadata that the patch adds is not at the end, so this file "
            "is not its result"
        )
    with _staged(contents, patch.invert().deltas, output, b"", len(tail)) as stage:
        if stage.before != patch.result:
            raise PatchError(
                f"{contents.path}: this file (digest {_short(stage.before)}) is not the result of "
                f"the patch (digest {_short(patch.result)}); nothing was written"
            )
        if stage.after != patch.base:
            raise PatchError(
                f"{contents.path}: reverting does not give the file the patch was made for"
            )
        yield stage


@contextmanager
def _staged(
    contents: Contents,
    deltas: Sequence[TensorDelta],
    output: Path,
    tail: bytes,
    shorter: int,
) -> Iterator[Staged]:
    """Stage the model with `deltas`, `tail` appended and `shorter` bytes less at the end."""
    with ExitStack() as files:
        data: dict[str, Source] = {
            location: files.enter_context(opened(file))
            for location, file in contents.data_files.items()
        }
        placed = place(contents, deltas, data)
        size = len(contents.source)
        edits = with_lengths([edit for item in placed.get("", []) for edit in item.edits])
        if shorter:
            edits.append(Edit(size - shorter, size, b""))
        if tail:
            edits.append(Edit(size, size, tail))
        onnx = Rewrite(contents.source, _overwrites(placed, ""), edits)
        rewrites = {
            location: Rewrite(source, _overwrites(placed, location))
            for location, source in data.items()
        }
        with staged(onnx, rewrites, output, contents.path) as stage:
            yield stage


def _overwrites(placed: Mapping[str, Sequence[Placed]], location: str) -> list[Overwrites]:
    return [item.overwrites for item in placed.get(location, []) if item.overwrites]


def _check_twin(contents: Contents, patch: Patch, digest: Digest) -> None:
    """Refuse a model that is neither the patch's base nor holds the same weights."""
    if patch.base_weights is None or contents.weights_digest() != patch.base_weights:
        raise PatchError(
            f"{contents.path}: the patch was made for another model (digest "
            f"{_short(patch.base)}, here {_short(digest)}); nothing was written"
        )


def entries(metadata: Iterable[tuple[str, str]]) -> bytes:
    """Return the bytes that, appended to a model file, add these `metadata_props` entries."""
    return b"".join(
        delimited(_METADATA, delimited(1, key.encode()) + delimited(2, value.encode()))
        for key, value in metadata
    )


def notes(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of our own entries in a model's metadata, the latest last."""
    found = {METADATA_KEY: 1}
    found |= {f"{METADATA_KEY}.{n}": n for n in range(2, len(metadata) + 1)}
    return tuple(metadata[key] for key in found if key in metadata)


def read_note(note: str) -> dict[str, object]:
    """Return what an entry of ours says; nothing where it is none: the file may say anything.

    The seed that it says is one that can be used, or is left out.
    """
    try:
        content = json.loads(note)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    seed = content.get("seed", 0)
    if type(seed) is not int or seed < 0:
        del content["seed"]
    return content


def next_key(metadata: Mapping[str, str]) -> str:
    """Return the key for a further entry of ours: keys must differ (onnx.checker)."""
    numbered = (f"{METADATA_KEY}.{n}" for n in itertools.count(2))
    return next(key for key in itertools.chain([METADATA_KEY], numbered) if key not in metadata)


def _short(digest: Digest) -> str:
    return f"{str(digest)[:12]}..."
