# SPDX-License-Identifier: Apache-2.0
"""A model as files on disk: the .onnx and its external data, written completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lancet_onnx.errors import OutputError
from lancet_onnx.model.copying import Rewrite, copy
from lancet_onnx.model.digests import model_digest
from lancet_onnx.types import Digest


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that goes away again; by its name a parent finds what a killed child left."""
    return tempfile.TemporaryDirectory(prefix=f".lancet-{os.getpid()}-", suffix=".tmp")


@dataclass(frozen=True, slots=True)
class Staged:
    """Files complete on disk beside their final place, not yet there.

    Attributes:
        folder: where they are.
        output: where the .onnx file will be.
        locations: of the data files, relative to either.
        before: digest of the model that they were made from, as it was read.
        after: digest of what was written.
    """

    folder: Path
    output: Path
    locations: tuple[str, ...]
    before: Digest
    after: Digest

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
def staged(
    onnx: Rewrite, data: Mapping[str, Rewrite], output: Path, mode_of: Path
) -> Iterator[Staged]:
    """Write a model's files into a temporary folder beside `output`; it is removed at the end.

    Args:
        onnx: what becomes of the .onnx file.
        data: what becomes of its data files, by location.
        output: where the .onnx file is to be in the end.
        mode_of: the file whose permissions the new ones get.

    Raises:
        OutputError: no space, no permission.
        ModelError: a file that is copied cannot be read.
    """
    folder = _temporary(output)
    mode = _mode(mode_of)
    try:
        try:
            folder.mkdir(mode=0o700)
            digests = {}
            for location, rewrite in data.items():
                path = folder / location
                path.parent.mkdir(parents=True, exist_ok=True)
                digests[location] = _copied(rewrite, path, mode, in_pieces=True)
            before, after = _copied(onnx, folder / output.name, mode, in_pieces=False)
        except OSError as error:
            raise _not_written(output, error) from error
        yield Staged(
            folder,
            output,
            tuple(data),
            model_digest(before, {location: both[0] for location, both in digests.items()}),
            model_digest(after, {location: both[1] for location, both in digests.items()}),
        )
    finally:
        with contextlib.suppress(OSError):  # not all of them are ignored by rmtree itself
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


def check_data_files(output: Path, data: Mapping[str, Path]) -> None:
    """Refuse an output whose data files would have to lie where others lie.

    None is ever replaced: a model that is there and its data could not be exchanged at one stroke.

    Raises:
        OutputError: a data file of that name is there.
    """
    for location, file in data.items():
        target = output.parent / location
        if target.exists() and target.samefile(file):
            raise OutputError(
                f"{output}: the model keeps weights in '{location}' beside it, and the new model "
                "needs a file of that name of its own; write it into another folder, such as "
                f"-o fixed/{output.name}"
            )
        if target.exists() or target.is_symlink():
            raise OutputError(
                f"{target}: exists already, and data files are never replaced; remove it, or give "
                "another folder"
            )


def save(data: bytes, path: Path) -> None:
    """Write `data` to `path` completely or not at all: temporary name, fsync, rename.

    Raises:
        OutputError: no space, no permission; what was there before is still there.
    """
    with saving(path) as target:
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]


@contextmanager
def saving(path: Path) -> Iterator[int]:
    """Yield a descriptor of a new file that takes the place of `path` at the end, or is removed.

    Raises:
        OutputError: no space, no permission; what was there before is still there.
    """
    temporary = _temporary(path)
    try:
        try:
            descriptor = _create(temporary, _mode(None))
            try:
                yield descriptor
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except OSError as error:
            raise _not_written(path, error) from error
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _copied(rewrite: Rewrite, path: Path, mode: int, *, in_pieces: bool) -> tuple[Digest, Digest]:
    descriptor = _create(path, mode)
    try:
        digests = copy(rewrite, descriptor, in_pieces=in_pieces)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return digests


def _create(path: Path, mode: int) -> int:
    """Return a descriptor of a new file, which must not be there, also not as a link."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, mode)


def _temporary(path: Path) -> Path:
    """Return a new name beside `path`; the process's number says whose it is."""
    return path.with_name(f".lancet-{os.getpid()}-{secrets.token_hex(8)}.tmp")


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
