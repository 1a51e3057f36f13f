# SPDX-License-Identifier: Apache-2.0
"""A model as files on disk: the .onnx and its external data, written completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lancet_onnx.errors import OutputError
from lancet_onnx.types import Digest


@dataclass(frozen=True, slots=True, eq=False)
class ModelFiles:
    """What a model consists of.

    Attributes:
        onnx: the .onnx file.
        data: external data files by the location that the .onnx file gives them, relative to it.
    """

    onnx: bytes
    data: Mapping[str, bytes]

    @property
    def digest(self) -> Digest:
        """The .onnx file's SHA-256; with external data one over the digests of all files."""
        return files_digest(Digest.of(self.onnx), {k: Digest.of(v) for k, v in self.data.items()})


def files_digest(onnx: Digest, data: Mapping[str, Digest]) -> Digest:
    """Return the digest of a model from those of its files."""
    if not data:
        return onnx
    lines = [str(onnx), *(f"{digest} {location}" for location, digest in sorted(data.items()))]
    return Digest.of("\n".join(lines).encode())


@dataclass(frozen=True, slots=True)
class Staged:
    """Files complete on disk beside their final place, not yet there."""

    folder: Path
    output: Path
    locations: tuple[str, ...]

    @property
    def model(self) -> Path:
        """The staged .onnx file; it can be run."""
        return self.folder / self.output.name

    def commit(self) -> None:
        """Rename everything into place, data files first: the .onnx file is the commit point.

        Raises:
            OutputError: a rename failed.
        """
        try:
            for location in self.locations:
                target = self.output.parent / location
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.folder / location).replace(target)
            self.model.replace(self.output)
        except OSError as error:
            raise _not_written(self.output, error) from error
        _sync_folder(self.output.parent)


@contextmanager
def staged(files: ModelFiles, output: Path, mode_of: Path) -> Iterator[Staged]:
    """Write `files` into a temporary folder beside `output`; it is removed at the end.

    Raises:
        OutputError: no space, no permission.
    """
    folder = output.with_name(f".lancet-{secrets.token_hex(8)}.tmp")
    mode = _mode(mode_of)
    stage = Staged(folder, output, tuple(files.data))
    try:
        try:
            folder.mkdir(mode=0o700)
            for location, content in files.data.items():
                path = folder / location
                path.parent.mkdir(parents=True, exist_ok=True)
                _write(content, path, mode)
            _write(files.onnx, stage.model, mode)
        except OSError as error:
            raise _not_written(output, error) from error
        yield stage
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_output(path: Path, inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse an output path before any work is done for it.

    Raises:
        OutputError: it exists (without `force`), is one of the inputs, or its folder is missing.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise OutputError(f"{path}: is {kind}; give the path of a file to write")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: its folder does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: its folder cannot be written to")
    for other in inputs:
        if path.exists() and other.exists() and path.samefile(other):
            raise OutputError(f"{path}: is the input {other} itself; give another path")
    if (path.exists() or path.is_symlink()) and not force:
        raise OutputError(f"{path}: exists already; give another path, or --force to replace it")


def save(data: bytes, path: Path) -> None:
    """Write `data` to `path` completely or not at all: temporary name, fsync, rename.

    Raises:
        OutputError: no space, no permission; what was there before is still there.
    """
    temporary = path.with_name(f".lancet-{secrets.token_hex(8)}.tmp")
    try:
        try:
            _write(data, temporary, _mode(None))
            temporary.replace(path)
        except OSError as error:
            raise _not_written(path, error) from error
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write(data: bytes, path: Path, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _mode(source: Path | None) -> int:
    """Return the permissions of `source` (or the usual ones) that the umask allows."""
    umask = os.umask(0)
    os.umask(umask)
    return (source.stat().st_mode if source else 0o666) & 0o666 & ~umask


def _not_written(path: Path, error: OSError) -> OutputError:
    reason = "no space left" if error.errno == errno.ENOSPC else error.strerror
    return OutputError(f"{path}: cannot be written ({reason}); nothing was changed")


def _sync_folder(folder: Path) -> None:
    # The files are in place: a folder that cannot be synced (network drives) undoes nothing.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
